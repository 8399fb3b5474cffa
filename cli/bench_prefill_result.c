/* bench_prefill_result.c - what `octavo bench prefill` measured, as JSON (docs/JSON.md) and as a table. */
#include "bench_prefill.h"
#include "fnv.h"
#include "machine.h"
#include "octavo/version.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_BYTES = 8 * PREFILL_LAYOUTS };

const char *prefill_layout_name(prefill_layout layout)
{
    static const char *const NAMES[] = { "pages", "nhd", "hnd" };
    return NAMES[layout];
}

/* The layouts measured, with commas between. */
static void layout_list(const prefill_settings *settings, char text[LIST_BYTES])
{
    size_t end = 0;
    for (int64_t i = 0; i < settings->layout_count; i++)
        end += (size_t)snprintf(text + end, LIST_BYTES - end, "%s%s", i ? "," : "", prefill_layout_name(settings->layouts[i]));
}

static const char *mask_name(octavo_mask mask) { return mask == OCTAVO_MASK_FULL ? "full" : "causal"; }

static json_t *row_object(const prefill_row *row)
{
    if (!isfinite(row->ms) || !isfinite(row->rel_error) || !isfinite(row->lse_error)) return NULL;
    return json_pack("{s:s s:s s:I s:I s:f s:f s:f s:f s:f s:f s:f}", "layout", prefill_layout_name(row->layout), "precision",
                     octavo_attention_precision_name(row->precision), "tokens", (json_int_t)row->tokens, "keys", (json_int_t)row->keys, "ms", row->ms, "prepare_ms", row->prepare_ms, "tflops", row->tflops,
                     "tflops_with_quantisation", row->tflops_with_quantisation, "rel_error", row->rel_error, "rel_error_max",
                     row->rel_error_max, "lse_error", row->lse_error);
}

static json_t *settings_object(const prefill_settings *settings)
{
    char layouts[LIST_BYTES];
    layout_list(settings, layouts);
    return json_pack("{s:I s:I s:I s:I s:s s:I s:f s:s s:b s:b s:b s:b s:s s:s s:s s:f s:I s:I s:I s:I s:s}", "batch", (json_int_t)settings->batch, "q_heads",
                     (json_int_t)settings->q_heads, "kv_heads", (json_int_t)settings->kv_heads, "head_dim", (json_int_t)settings->head_dim,
                     "mask", mask_name(settings->mask), "window", (json_int_t)settings->window, "soft_cap", settings->soft_cap, "scales",
                     octavo_prefill_scales_name(settings->scales),
                     "smooth", !(settings->flags & OCTAVO_PREFILL_NO_SMOOTH), "smooth_v", (settings->flags & OCTAVO_PREFILL_SMOOTH_V) != 0,
                     "rotate", (settings->flags & OCTAVO_PREFILL_ROTATE) != 0, "f16_sums", (settings->flags & OCTAVO_PREFILL_F16_SUMS) != 0, "layout", layouts, "cache_k",
                     octavo_k_format_name(settings->k_format), "cache_v", octavo_v_format_name(settings->v_format), "bias", settings->bias, "seed",
                     (json_int_t)settings->seed, "samples", (json_int_t)settings->samples, "repeat", (json_int_t)settings->repeat, "threads",
                     (json_int_t)settings->threads, "device", settings->device);
}

static json_t *machine_object(const octavo_device *device)
{
    char cpu[MACHINE_LABEL_BYTES];
    machine_label(device, cpu);
    return json_pack("{s:s s:s s:s s:s s:s s:I}", "cpu", cpu, "isa", octavo_device_isa(device), "version", octavo_version(), "build_id",
                     octavo_build_id(), "build_options", octavo_build_options(), "llc_bytes", (json_int_t)machine_llc_bytes());
}

/* Of everything but what was measured. */
static int key_of(const prefill_settings *settings, const json_t *described, char key[17])
{
    char *text = json_dumps(described, JSON_COMPACT | JSON_SORT_KEYS);
    fnv_hash hash = FNV_START;
    if (!text) return 0;
    fnv_add(&hash, text, strlen(text));
    fnv_add(&hash, settings->tokens, (size_t)settings->token_count * sizeof *settings->tokens);
    fnv_add(&hash, &settings->keys, sizeof settings->keys);
    fnv_add(&hash, settings->precisions, (size_t)settings->precision_count * sizeof *settings->precisions);
    snprintf(key, 17, "%016" PRIx64, hash);
    free(text);
    return 1;
}

char *prefill_format(const prefill_settings *settings, const octavo_device *device, const prefill_row *rows, size_t count, char key[17])
{
    json_t *root = json_pack("{s:s s:o s:o}", "schema", PREFILL_SCHEMA, "settings", settings_object(settings), "machine", machine_object(device));
    json_t *results = json_array();
    int fine = root && results && key_of(settings, root, key);
    for (size_t i = 0; fine && i < count; i++) fine = json_array_append_new(results, row_object(&rows[i])) == 0;
    fine = fine && json_object_set_new(root, "key", json_string(key)) == 0 && json_object_set(root, "results", results) == 0;
    char *text = fine ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(results);
    json_decref(root);
    return text;
}

void prefill_print(const prefill_settings *settings, const octavo_device *device, const prefill_row *rows, size_t count, FILE *stream)
{
    fprintf(stream, "batch %" PRId64 ", %" PRId64 " query heads, %" PRId64 " kv heads of %" PRId64 ", %s, K %s, V %s, scales %s%s%s%s%s; %s, %" PRId64 " threads\n\n",
            settings->batch, settings->q_heads, settings->kv_heads, settings->head_dim, mask_name(settings->mask),
            octavo_k_format_name(settings->k_format), octavo_v_format_name(settings->v_format), octavo_prefill_scales_name(settings->scales),
            settings->flags & OCTAVO_PREFILL_NO_SMOOTH ? ", not smoothed" : "",
            settings->flags & OCTAVO_PREFILL_SMOOTH_V ? ", V smoothed" : "", settings->flags & OCTAVO_PREFILL_ROTATE ? ", rotated" : "",
            settings->flags & OCTAVO_PREFILL_F16_SUMS ? ", sums in f16" : "",
            octavo_device_isa(device), settings->threads);
    fprintf(stream, "%8s %8s %6s %9s %10s %10s %9s %12s %10s %10s %9s\n", "tokens", "keys", "layout", "precision", "ms", "prepare ms", "TFLOP/s",
            "with quant.", "error", "worst", "lse");
    for (size_t i = 0; i < count; i++)
        fprintf(stream, "%8" PRId64 " %8" PRId64 " %6s %9s %10.3f %10.3f %9.3f %12.3f %9.3f%% %9.3f%% %9.1e\n", rows[i].tokens, rows[i].keys,
                prefill_layout_name(rows[i].layout), octavo_attention_precision_name(rows[i].precision), rows[i].ms, rows[i].prepare_ms, rows[i].tflops,
                rows[i].tflops_with_quantisation, 100 * rows[i].rel_error, 100 * rows[i].rel_error_max, rows[i].lse_error);
}
