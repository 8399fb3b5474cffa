/* bench_kproj.c - times the fused K projection beside a matrix product, and beside the product, RoPE and encoding in sequence. */
#include "bench_kproj.h"
#include "bench_gemm.h"
#include "bench_median.h"
#include "bench_store.h"
#include "cli.h"
#include "kproj_values.h"
#include "machine.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, BLOCK_TOKENS = 64 };

/* The operands of one number of tokens. */
typedef struct kproj_stage {
    const kproj_settings *settings;
    int64_t tokens, rows;
    octavo_dtype wide;       /* of h and of the product's weights: f32 for f32 weights, else bf16        */
    void *codes, *wide_w;    /* [rows, hidden]; the product alone takes them in `wide`                   */
    size_t code_bytes, wide_bytes, h_bytes, y_bytes;
    float *scales;           /* [rows] of eight-bit codes, or NULL                                       */
    void *h;                 /* [tokens, hidden]                                                         */
    float *y;                /* [tokens, rows]                                                           */
    float *inv_freq, *turns; /* [head_dim / 2]; [tokens][head_dim / 2] cosines and sines                 */
    int32_t position;
    bench_store store;
    bench_gemm *gemm;
    octavo_exec exec;
    octavo_k_project_params params;
} kproj_stage;

static size_t area(int64_t a, int64_t b, size_t element)
{
    size_t bytes;
    const int fits = !__builtin_mul_overflow((size_t)a, (size_t)b, &bytes) && !__builtin_mul_overflow(bytes, element, &bytes) && bytes < SIZE_MAX / 4;
    return fits ? bytes : SIZE_MAX / 4;
}

static int allocate(kproj_stage *s)
{
    const kproj_settings *settings = s->settings;
    const int narrow = settings->weights == OCTAVO_E4M3 || settings->weights == OCTAVO_INT8;
    s->wide = settings->weights == OCTAVO_F32 ? OCTAVO_F32 : OCTAVO_BF16;
    s->code_bytes = area(s->rows, settings->hidden, octavo_dtype_bytes(settings->weights));
    s->wide_bytes = area(s->rows, settings->hidden, octavo_dtype_bytes(s->wide));
    s->h_bytes = area(s->tokens, settings->hidden, octavo_dtype_bytes(s->wide));
    s->y_bytes = area(s->tokens, s->rows, sizeof(float));
    const size_t all = s->code_bytes + (narrow ? s->wide_bytes : 0) + 4 * s->h_bytes + 3 * s->y_bytes;
    if (s->h_bytes >= SIZE_MAX / 8 || s->y_bytes >= SIZE_MAX / 8 || all > (size_t)machine_available_bytes())
        return cli_refuse("%" PRId64 " tokens of %" PRId64 " and weights of %" PRId64 " rows take more memory than the %" PRId64 " MiB available",
                          s->tokens, settings->hidden, s->rows, machine_available_bytes() >> 20);
    s->codes = machine_map(s->code_bytes);
    s->wide_w = narrow ? machine_map(s->wide_bytes) : s->codes;
    s->h = machine_map(s->h_bytes);
    s->y = machine_map(s->y_bytes);
    s->scales = narrow ? malloc((size_t)s->rows * sizeof(float)) : NULL;
    s->inv_freq = malloc((size_t)settings->head_dim * sizeof(float));
    s->turns = malloc(area(s->tokens, settings->head_dim, sizeof(float)));
    if (s->codes && s->wide_w && s->h && s->y && (s->scales || !narrow) && s->inv_freq && s->turns) return EXIT_DONE;
    return cli_refuse("there is no memory for %" PRId64 " tokens", s->tokens);
}

static void stage_fini(kproj_stage *s)
{
    if (s->exec.workspace) octavo_device_release(s->exec.device, s->exec.workspace, s->exec.workspace_bytes);
    if (s->wide_w != s->codes) machine_unmap(s->wide_w, s->wide_bytes);
    machine_unmap(s->codes, s->code_bytes);
    machine_unmap(s->h, s->h_bytes);
    machine_unmap(s->y, s->y_bytes);
    free(s->scales);
    free(s->inv_freq);
    free(s->turns);
    bench_gemm_destroy(s->gemm);
    bench_store_fini(&s->store);
}

static void fill(kproj_stage *s)
{
    const int64_t hidden = s->settings->hidden, pairs = s->settings->head_dim / 2;
    for (int64_t i = 0; i < s->rows * hidden; i++) {
        const float x = kproj_value((uint64_t)i);
        if (s->scales) kproj_put(s->codes, s->settings->weights, i, x);
        kproj_put(s->wide_w, s->wide, i, x);
    }
    for (int64_t i = 0; s->scales && i < s->rows; i++) s->scales[i] = 0x1p-7f;
    for (int64_t i = 0; i < s->tokens * hidden; i++) kproj_put(s->h, s->wide, i, kproj_value((uint64_t)i + (UINT64_C(1) << 40)));
    for (int64_t i = 0; i < pairs; i++) s->inv_freq[i] = kproj_inv_freq(i, s->settings->head_dim);
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t i = 0; i < pairs; i++) {
            s->turns[(t * 2) * pairs + i]     = cosf((float)t * s->inv_freq[i]);
            s->turns[(t * 2 + 1) * pairs + i] = sinf((float)t * s->inv_freq[i]);
        }
}

static int stage_init(kproj_stage *s, const octavo_exec *exec)
{
    const kproj_settings *settings = s->settings;
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = settings->k_format;
    page.v_format = OCTAVO_V_BF16;
    page.kv_heads = (int32_t)settings->kv_heads;
    page.head_dim = (int32_t)settings->head_dim;
    page.block_tokens = BLOCK_TOKENS;
    page.sub_block_tokens = BLOCK_TOKENS;
    page.v_dim = page.head_dim;
    s->exec = *exec;
    s->rows = settings->kv_heads * settings->head_dim;
    int status = allocate(s);
    if (status == EXIT_DONE) status = bench_store_init(&s->store, &page, 1, s->tokens);
    if (status == EXIT_DONE) status = bench_gemm_create(s->tokens, s->rows, settings->hidden, s->wide, (int)settings->threads, &s->gemm);
    if (status != EXIT_DONE) return status;
    fill(s);
    const int64_t h_shape[] = { 1, s->tokens, settings->hidden }, w_shape[] = { s->rows, settings->hidden };
    s->params = (octavo_k_project_params)OCTAVO_K_PROJECT_PARAMS_INIT;
    s->params.h = octavo_tensor_view(s->h, s->wide, 3, h_shape);
    s->params.weight.codes = octavo_tensor_view(s->codes, settings->weights, 2, w_shape);
    s->params.weight.scales = s->scales;
    s->params.weight.block_rows = 1;
    s->params.rope = (octavo_rope){ OCTAVO_ROPE_ROTATE_HALF, 0, s->inv_freq, 0.0f };
    s->params.positions = &s->position;
    s->params.kv = &s->store.view;
    size_t bytes;
    if (octavo_k_project_workspace(&s->exec, &s->params, &bytes) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_allocate(s->exec.device, bytes, &s->exec.workspace) != OCTAVO_OK) return cli_refuse_last();
    s->exec.workspace_bytes = bytes;
    return EXIT_DONE;
}

/* ---- what is timed ---- */

static int run_fused(kproj_stage *s) { return octavo_k_project(&s->exec, &s->params) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last(); }

static int run_gemm(kproj_stage *s) { return bench_gemm_run(s->gemm, s->h, s->wide_w, s->y); }

/* Angles from a table, as engines keep them. */
static void rotate_all(kproj_stage *s)
{
    const int64_t dim = s->settings->head_dim, pairs = dim / 2;
#pragma omp parallel for num_threads((int)s->settings->threads) schedule(static)
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t head = 0; head < s->settings->kv_heads; head++) {
            const float *cosines = s->turns + t * 2 * pairs, *sines = cosines + pairs;
            float *low = s->y + t * s->rows + head * dim, *high = low + pairs;
#pragma omp simd
            for (int64_t i = 0; i < pairs; i++) {
                const float a = low[i], b = high[i];
                low[i]  = a * cosines[i] - b * sines[i];
                high[i] = b * cosines[i] + a * sines[i];
            }
        }
}

static int run_unfused(kproj_stage *s)
{
    const int64_t shape[] = { 1, s->tokens, s->settings->kv_heads, s->settings->head_dim };
    const octavo_tensor k = octavo_tensor_view(s->y, OCTAVO_F32, 4, shape);
    const int status = run_gemm(s);
    if (status != EXIT_DONE) return status;
    rotate_all(s);
    return octavo_kv_append(&s->exec, &s->store.view, &k, NULL, &s->position) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

/* Once untimed, so that all but the weights is as warm as it is inside a running model, whoever ran before. */
static int time_call(kproj_stage *s, bench_read_speed *speed, int (*call)(kproj_stage *), double *ms)
{
    const int warmed = call(s);
    if (warmed != EXIT_DONE) return warmed;
    bench_evict(speed, s->codes, s->code_bytes);
    if (s->wide_w != s->codes) bench_evict(speed, s->wide_w, s->wide_bytes);
    const double start = machine_seconds();
    const int status = call(s);
    *ms = 1e3 * (machine_seconds() - start);
    return status;
}

/* The three calls and the read speed in turn, so that a machine that is slow for a while is slow for all of them. */
static int measure(kproj_stage *s, bench_read_speed *speed, kproj_row *row)
{
    enum { FUSED, GEMM, UNFUSED, CALLS };
    static int (*const call[CALLS])(kproj_stage *) = { run_fused, run_gemm, run_unfused };
    const int64_t repeat = s->settings->repeat;
    double *times = malloc((size_t)((CALLS + 1) * repeat) * sizeof *times), *rates = times + CALLS * repeat;
    if (!times) return cli_refuse("there is no memory for the times");
    int status = EXIT_DONE;
    for (int64_t r = 0; status == EXIT_DONE && r < repeat; r++) {
        rates[r] = bench_read_speed_measure(speed);
        for (int i = 0; status == EXIT_DONE && i < CALLS; i++) status = time_call(s, speed, call[i], &times[i * repeat + r]);
    }
    if (status == EXIT_DONE) {
        row->tokens = s->tokens, row->batch = 1;
        row->bytes = (int64_t)(s->code_bytes + (s->scales ? (size_t)s->rows * sizeof(float) : 0));
        row->ms = bench_median(times + FUSED * repeat, repeat);
        row->gemm_ms = bench_median(times + GEMM * repeat, repeat);
        row->unfused_ms = bench_median(times + UNFUSED * repeat, repeat);
        row->read_gbps = bench_median(rates, repeat);
        row->gbps = (double)row->bytes / row->ms * 1e-6;
        row->read_share = row->gbps / row->read_gbps;
    }
    free(times);
    return status;
}

int kproj_measure(const kproj_settings *settings, const octavo_exec *exec, bench_read_speed *speed, int64_t tokens, kproj_row *row)
{
    kproj_stage stage = { .settings = settings, .tokens = tokens };
    int status = stage_init(&stage, exec);
    if (status == EXIT_DONE) status = measure(&stage, speed, row);
    stage_fini(&stage);
    return status;
}
