/* bench_prefill.c - times attention of many queries, with and without what is done to K and V first. */
#include "bench_prefill.h"
#include "bench_device.h"
#include "bench_element.h"
#include "bench_median.h"
#include "bench_store.h"
#include "cli.h"
#include "machine.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 64 };

/* Arrays of a call, where it runs. */
enum { HERE_Q, HERE_OUT, HERE_LSE, HERE_K, HERE_V, HERE_LENGTHS, HERE_PAGES, HERE_ARRAYS };

typedef struct prefill_stage {
    const prefill_settings *settings;
    prefill_layout layout;
    octavo_exec exec;
    prefill_data data;
    bench_store store;          /* PREFILL_PAGES */
    uint16_t *turned[3], *out;  /* PREFILL_HND: q, k, v with heads first; out as [batch, tokens, q_heads, dim] */
    float *lse;
    int32_t *lengths;
    void *there[HERE_ARRAYS];   /* the same on a GPU */
    size_t bytes[HERE_ARRAYS];
    octavo_kv_view view;
    octavo_prefill_params params;
} prefill_stage;

/* ---- data ---- */

/* Pairs of independent normal numbers, a function of seed and index alone. */
static void normal_pair(uint64_t seed, uint64_t index, float *first, float *second)
{
    uint64_t x = (index + 1) * UINT64_C(0x9E3779B97F4A7C15) ^ seed * UINT64_C(0xD1342543DE82EF95);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9), x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB), x ^= x >> 31;
    const float radius = sqrtf(-2.0f * logf(((float)(x >> 40) + 0.5f) * 0x1p-24f)), angle = (float)(x & 0xFFFFFF) * (6.2831853f * 0x1p-24f);
    *first = radius * cosf(angle), *second = radius * sinf(angle);
}

/* count is even; `bias` is added to channel 3 of each 32. */
static void fill(uint16_t *x, int64_t count, int64_t dim, uint64_t seed, double bias, int64_t threads)
{
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t i = 0; i < count; i += 2) {
        float pair[2];
        normal_pair(seed, (uint64_t)i, &pair[0], &pair[1]);
        for (int64_t j = 0; j < 2; j++) x[i + j] = element_to_bf16(pair[j] + ((i + j) % dim % 32 == 3 ? (float)bias : 0.0f));
    }
}

static int allocate(prefill_stage *s)
{
    prefill_data *data = &s->data;
    const size_t q = (size_t)(data->batch * data->tokens * data->q_heads * data->dim), k = (size_t)(data->batch * data->keys * data->kv_heads * data->dim);
    const size_t all = 2 * (q * 3 + k * 4) + 4 * q / (size_t)data->dim;
    if (all > (size_t)machine_available_bytes())
        return cli_refuse("%" PRId64 " tokens and %" PRId64 " keys take more memory than the %" PRId64 " MiB available", data->tokens, data->keys,
                          machine_available_bytes() >> 20);
    data->q = machine_map(2 * q), data->k = machine_map(2 * k), data->v = machine_map(2 * k), s->out = machine_map(2 * q);
    s->lse = malloc(4 * q / (size_t)data->dim), s->lengths = malloc((size_t)data->batch * sizeof *s->lengths);
    if (s->layout == PREFILL_HND) s->turned[0] = machine_map(2 * q), s->turned[1] = machine_map(2 * k), s->turned[2] = machine_map(2 * k);
    const int turned = s->layout != PREFILL_HND || (s->turned[0] && s->turned[1] && s->turned[2]);
    if (data->q && data->k && data->v && s->out && s->lse && s->lengths && turned) return EXIT_DONE;
    return cli_refuse("there is no memory for %" PRId64 " tokens and %" PRId64 " keys", data->tokens, data->keys);
}

static void stage_fini(prefill_stage *s)
{
    const prefill_data *data = &s->data;
    const size_t q = (size_t)(data->batch * data->tokens * data->q_heads * data->dim), k = (size_t)(data->batch * data->keys * data->kv_heads * data->dim);
    for (int i = 0; i < HERE_ARRAYS; i++) octavo_device_release(s->exec.device, s->there[i], s->bytes[i]);
    machine_unmap(data->q, 2 * q), machine_unmap(data->k, 2 * k), machine_unmap(data->v, 2 * k), machine_unmap(s->out, 2 * q);
    machine_unmap(s->turned[0], 2 * q), machine_unmap(s->turned[1], 2 * k), machine_unmap(s->turned[2], 2 * k);
    free(s->lse);
    free(s->lengths);
    bench_store_fini(&s->store);
}

/* [batch, tokens, heads, dim] to heads first, or back. */
static void turn(uint16_t *to, const uint16_t *from, int64_t batch, int64_t tokens, int64_t heads, int64_t dim, int back)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t h = 0; h < heads; h++) {
                const int64_t by_token = ((b * tokens + t) * heads + h) * dim, by_head = ((b * heads + h) * tokens + t) * dim;
                memcpy(to + (back ? by_token : by_head), from + (back ? by_head : by_token), (size_t)dim * sizeof *to);
            }
}

/* ---- the call ---- */

static octavo_tensor tensor_of(const prefill_stage *s, int array, void *here, int64_t tokens, int64_t heads)
{
    const int64_t shape[] = { s->data.batch, tokens, heads, s->data.dim };
    octavo_tensor tensor = octavo_tensor_view(s->there[array] ? s->there[array] : here, OCTAVO_BF16, 4, shape);
    tensor.device_kind = s->there[array] ? OCTAVO_DEVICE_CUDA : OCTAVO_DEVICE_CPU;
    if (s->layout == PREFILL_HND) tensor.strides[1] = s->data.dim, tensor.strides[2] = tokens * s->data.dim;
    return tensor;
}

static int view_tensors(prefill_stage *s, const octavo_page_config *page, void *k, void *v)
{
    const octavo_tensor keys = tensor_of(s, HERE_K, k, s->data.keys, s->data.kv_heads), values = tensor_of(s, HERE_V, v, s->data.keys, s->data.kv_heads);
    const int32_t *lengths = s->there[HERE_LENGTHS] ? s->there[HERE_LENGTHS] : s->lengths;
    s->view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    return octavo_kv_view_over_tensors(page, &keys, NULL, &values, NULL, lengths, &s->view) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int view_pages(prefill_stage *s)
{
    s->view = s->store.view;
    if (!bench_on_gpu(&s->exec)) return EXIT_DONE;
    const int64_t pages = s->store.sequences * s->store.pages_per_sequence;
    if (octavo_kv_view_over_pool(&s->store.config, s->store.there.pools[0], pages, 0, &s->view) != OCTAVO_OK) return cli_refuse_last();
    s->view.batch = s->data.batch, s->view.max_tokens = s->data.keys, s->view.page_table_stride = s->store.pages_per_sequence;
    s->view.lengths = s->there[HERE_LENGTHS], s->view.page_table = s->there[HERE_PAGES], s->view.device_kind = OCTAVO_DEVICE_CUDA;
    return EXIT_DONE;
}

static int send(prefill_stage *s, int array, const void *from, size_t bytes)
{
    if (!bench_on_gpu(&s->exec)) return EXIT_DONE;
    s->bytes[array] = bytes;
    if (octavo_device_allocate(s->exec.device, bytes, &s->there[array]) != OCTAVO_OK) return cli_refuse_last();
    return !from || octavo_device_upload(&s->exec, s->there[array], from, bytes) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

/* K and V where the call finds them. */
static int place_keys(prefill_stage *s, const octavo_exec *cpu)
{
    const prefill_settings *settings = s->settings;
    const prefill_data *data = &s->data;
    const size_t bytes = 2 * (size_t)(data->batch * data->keys * data->kv_heads * data->dim);
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = settings->k_format, page.v_format = settings->v_format;
    page.kv_heads = (int32_t)settings->kv_heads, page.head_dim = page.v_dim = (int32_t)settings->head_dim;
    page.block_tokens = page.sub_block_tokens = BLOCK_TOKENS;
    int status = send(s, HERE_LENGTHS, s->lengths, (size_t)data->batch * sizeof *s->lengths);
    if (s->layout != PREFILL_PAGES) {
        void *k = s->turned[1] ? s->turned[1] : data->k, *v = s->turned[2] ? s->turned[2] : data->v;
        if (status == EXIT_DONE) status = send(s, HERE_K, k, bytes);
        if (status == EXIT_DONE) status = send(s, HERE_V, v, bytes);
        return status == EXIT_DONE ? view_tensors(s, &page, k, v) : status;
    }
    if (status == EXIT_DONE) status = bench_store_init(&s->store, &page, data->batch, data->keys);
    for (int64_t b = 0; status == EXIT_DONE && b < data->batch; b++) {
        const int64_t shape[] = { 1, data->keys, data->kv_heads, data->dim }, at = b * data->keys * data->kv_heads * data->dim;
        const octavo_tensor k = octavo_tensor_view(data->k + at, OCTAVO_BF16, 4, shape), v = octavo_tensor_view(data->v + at, OCTAVO_BF16, 4, shape);
        status = bench_store_append(&s->store, cpu, b, 0, &k, &v);
    }
    if (status == EXIT_DONE) status = bench_store_send(&s->store, &s->exec);
    if (status == EXIT_DONE)
        status = send(s, HERE_PAGES, s->store.page_table, (size_t)(data->batch * s->store.pages_per_sequence) * sizeof *s->store.page_table);
    return status == EXIT_DONE ? view_pages(s) : status;
}

static int stage_init(prefill_stage *s, const octavo_exec *exec, const octavo_exec *cpu)
{
    const prefill_settings *settings = s->settings;
    prefill_data *data = &s->data;
    s->exec = *exec;
    int status = allocate(s);
    if (status != EXIT_DONE) return status;
    const int64_t q_count = data->batch * data->tokens * data->q_heads * data->dim, k_count = data->batch * data->keys * data->kv_heads * data->dim;
    fill(data->q, q_count, data->dim, 3 * (uint64_t)settings->seed, 0, settings->threads);
    fill(data->k, k_count, data->dim, 3 * (uint64_t)settings->seed + 1, settings->bias, settings->threads);
    fill(data->v, k_count, data->dim, 3 * (uint64_t)settings->seed + 2, 0, settings->threads);
    for (int64_t b = 0; b < data->batch; b++) s->lengths[b] = (int32_t)data->keys;
    if (s->layout == PREFILL_HND) {
        turn(s->turned[0], data->q, data->batch, data->tokens, data->q_heads, data->dim, 0);
        turn(s->turned[1], data->k, data->batch, data->keys, data->kv_heads, data->dim, 0);
        turn(s->turned[2], data->v, data->batch, data->keys, data->kv_heads, data->dim, 0);
    }
    status = place_keys(s, cpu);
    if (status == EXIT_DONE) status = send(s, HERE_Q, s->turned[0] ? s->turned[0] : data->q, 2 * (size_t)q_count);
    if (status == EXIT_DONE) status = send(s, HERE_OUT, NULL, 2 * (size_t)q_count);
    if (status == EXIT_DONE) status = send(s, HERE_LSE, NULL, 4 * (size_t)(q_count / data->dim));
    s->params = (octavo_prefill_params)OCTAVO_PREFILL_PARAMS_INIT;
    s->params.q = tensor_of(s, HERE_Q, s->turned[0] ? s->turned[0] : data->q, data->tokens, data->q_heads);
    s->params.out = tensor_of(s, HERE_OUT, s->out, data->tokens, data->q_heads);
    s->params.lse = s->there[HERE_LSE] ? s->there[HERE_LSE] : s->lse;
    s->params.kv = &s->view, s->params.mask = settings->mask, s->params.window = settings->window;
    s->params.scales = settings->scales, s->params.flags = settings->flags, s->params.soft_cap = (float)settings->soft_cap;
    return status;
}

/* ---- timing ---- */

static int time_once(prefill_stage *s, const octavo_prefill_params *params, void **graph, double *ms)
{
    double seconds = 0;
    if (!bench_on_gpu(&s->exec)) {
        const double start = machine_seconds();
        const octavo_status status = octavo_attention_prefill(&s->exec, params);
        *ms = 1e3 * (machine_seconds() - start);
        return status == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
    }
    octavo_status status = OCTAVO_OK;
    if (!*graph) {
        status = octavo_device_graph_begin(&s->exec);
        if (status == OCTAVO_OK) status = octavo_attention_prefill(&s->exec, params);
        if (status == OCTAVO_OK) status = octavo_device_graph_end(&s->exec, graph);
    }
    if (status == OCTAVO_OK) status = bench_graph_time(&s->exec, *graph, &seconds);
    *ms = 1e3 * seconds;
    return status == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

/* Median of the calls after one that is not timed. */
static int time_call(prefill_stage *s, const octavo_prefill_params *params, double *ms)
{
    const int64_t repeat = s->settings->repeat;
    void *graph = NULL;
    size_t bytes = 0;
    double *times = malloc((size_t)repeat * sizeof *times);
    if (!times) return cli_refuse("there is no memory for the times");
    int status = octavo_attention_prefill_workspace(&s->exec, params, &bytes) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
    if (status == EXIT_DONE && bytes && octavo_device_allocate(s->exec.device, bytes, &s->exec.workspace) != OCTAVO_OK) status = cli_refuse_last();
    s->exec.workspace_bytes = bytes;
    for (int64_t r = -1; status == EXIT_DONE && r < repeat; r++) status = time_once(s, params, &graph, &times[r < 0 ? 0 : r]);
    if (status == EXIT_DONE) *ms = bench_median(times, repeat);
    if (graph) octavo_device_graph_destroy(s->exec.device, graph);
    if (s->exec.workspace) octavo_device_release(s->exec.device, s->exec.workspace, bytes);
    s->exec.workspace = NULL;
    free(times);
    return status;
}

static int fetch(prefill_stage *s)
{
    const prefill_data *data = &s->data;
    if (bench_on_gpu(&s->exec) && (octavo_device_download(&s->exec, s->out, s->there[HERE_OUT], s->bytes[HERE_OUT]) != OCTAVO_OK ||
                                   octavo_device_download(&s->exec, s->lse, s->there[HERE_LSE], s->bytes[HERE_LSE]) != OCTAVO_OK ||
                                   octavo_device_synchronize(&s->exec) != OCTAVO_OK))
        return cli_refuse_last();
    if (s->layout != PREFILL_HND) return EXIT_DONE;
    turn(s->turned[0], s->out, data->batch, data->tokens, data->q_heads, data->dim, 1);
    memcpy(s->out, s->turned[0], 2 * (size_t)(data->batch * data->tokens * data->q_heads * data->dim));
    turn(s->turned[0], data->q, data->batch, data->tokens, data->q_heads, data->dim, 0);
    return EXIT_DONE;
}

/* What a call does before attention. On a GPU: what a call in which every query sees itself alone takes longer than an exact one. Else a call
 * for one query, which takes all of K and V through the same and does next to nothing with them. */
static int time_preparation(prefill_stage *s, double *ms)
{
    octavo_prefill_params few = s->params;
    double exact = 0;
    few.lse = NULL;
    if (!bench_on_gpu(&s->exec) || s->data.tokens != s->data.keys) {
        few.q.shape[1] = few.out.shape[1] = 1;
        return time_call(s, &few, ms);
    }
    *ms = 0;
    if (few.precision == OCTAVO_ATTENTION_EXACT) return EXIT_DONE;
    few.window = 1;
    int status = time_call(s, &few, ms);
    few.precision = OCTAVO_ATTENTION_EXACT, few.flags = 0;
    if (status == EXIT_DONE) status = time_call(s, &few, &exact);
    *ms = *ms > exact ? *ms - exact : 0;
    return status;
}

static int measure_row(prefill_stage *s, prefill_row *row)
{
    const prefill_data *data = &s->data;
    s->params.precision = row->precision;
    int status = time_preparation(s, &row->prepare_ms);
    if (status == EXIT_DONE) status = time_call(s, &s->params, &row->ms);
    if (status == EXIT_DONE && s->settings->samples > 0) status = fetch(s);
    if (status == EXIT_DONE && s->settings->samples > 0) status = prefill_compare(s->settings, data, s->out, s->lse, row);
    const double work = 4e-9 * prefill_pairs(s->settings, data->tokens, data->keys) * (double)(data->q_heads * data->dim); /* per ms */
    const double alone = row->ms - row->prepare_ms;
    row->tflops_with_quantisation = work / row->ms;
    row->tflops = alone > 0.1 * row->ms ? work / alone : row->tflops_with_quantisation; /* less is lost in the scatter */
    return status;
}

int prefill_measure(const prefill_settings *settings, const octavo_exec *exec, const octavo_exec *cpu, int64_t tokens, prefill_layout layout,
                    prefill_row *rows)
{
    prefill_stage stage = { .settings = settings,
                            .layout = layout,
                            .data = { .batch = settings->batch, .tokens = tokens, .keys = settings->keys ? settings->keys : tokens,
                                      .q_heads = settings->q_heads, .kv_heads = settings->kv_heads, .dim = settings->head_dim, .soft_cap = settings->soft_cap } };
    int status = stage_init(&stage, exec, cpu);
    for (int64_t i = 0; status == EXIT_DONE && i < settings->precision_count; i++) {
        rows[i] = (prefill_row){ .tokens = tokens, .keys = stage.data.keys, .layout = layout, .precision = settings->precisions[i] };
        status = measure_row(&stage, &rows[i]);
    }
    stage_fini(&stage);
    return status;
}
