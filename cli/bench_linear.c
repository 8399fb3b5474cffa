/* bench_linear.c - times a linear layer with its weights cold, beside a matrix product, and measures its error. */
#include "bench_linear.h"
#include "bench_element.h"
#include "bench_gemm.h"
#include "bench_median.h"
#include "bench_peak.h"
#include "cli.h"
#include "machine.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_TOKENS = 8, SAMPLE_ROWS = 64 };

/* The operands of one number of tokens. */
typedef struct linear_stage {
    const linear_settings *settings;
    int64_t tokens;
    octavo_dtype wide;           /* of x and of the product's weights: f32 for precision f32, else bf16 */
    float *source;               /* [out, in] W before it was rounded or quantised                      */
    void *codes, *packed, *x, *y;
    void *wide_w;                /* [out, in] in `wide`, for the product                                */
    float *product;              /* [tokens, out]                                                       */
    float *scales;
    size_t source_bytes, code_bytes, packed_bytes, wide_bytes, x_bytes, y_bytes, product_bytes, scale_bytes;
    bench_gemm *gemm;
    octavo_exec exec;
    octavo_linear_params params;
} linear_stage;

static size_t area(int64_t a, int64_t b, size_t element)
{
    size_t bytes;
    const int fits = !__builtin_mul_overflow((size_t)a, (size_t)b, &bytes) && !__builtin_mul_overflow(bytes, element, &bytes) && bytes < SIZE_MAX / 16;
    return fits ? bytes : SIZE_MAX / 16;
}

static int is_narrow(octavo_dtype dtype) { return dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8; }

static int allocate(linear_stage *s)
{
    const linear_settings *settings = s->settings;
    s->wide = settings->precision == OCTAVO_LINEAR_F32 ? OCTAVO_F32 : OCTAVO_BF16;
    s->source_bytes = area(settings->out, settings->in, sizeof(float));
    s->code_bytes = area(settings->out, settings->in, octavo_dtype_bytes(settings->weight));
    s->wide_bytes = area(settings->out, settings->in, octavo_dtype_bytes(s->wide));
    s->x_bytes = area(s->tokens, settings->in, octavo_dtype_bytes(s->wide));
    s->y_bytes = area(s->tokens, settings->out, octavo_dtype_bytes(settings->y));
    s->product_bytes = area(s->tokens, settings->out, sizeof(float));
    if (is_narrow(settings->weight))
        s->scale_bytes = area(octavo_scale_count(settings->block ? OCTAVO_PER_BLOCK : OCTAVO_PER_TOKEN, settings->out, settings->in, settings->block,
                                                 settings->block), 1, sizeof(float));
    const size_t all = s->source_bytes + 2 * s->code_bytes + s->wide_bytes + 6 * s->x_bytes + s->y_bytes + s->product_bytes + s->scale_bytes;
    if (all > (size_t)machine_available_bytes())
        return cli_refuse("%" PRId64 " tokens and a weight of %" PRId64 " x %" PRId64 " take more memory than the %" PRId64 " MiB available",
                          s->tokens, settings->out, settings->in, machine_available_bytes() >> 20);
    s->source = machine_map(s->source_bytes);
    s->codes = machine_map(s->code_bytes);
    s->wide_w = machine_map(s->wide_bytes);
    s->x = machine_map(s->x_bytes);
    s->y = machine_map(s->y_bytes);
    s->product = machine_map(s->product_bytes);
    s->scales = s->scale_bytes ? machine_map(s->scale_bytes) : NULL;
    if (s->source && s->codes && s->wide_w && s->x && s->y && s->product && (s->scales || !s->scale_bytes)) return EXIT_DONE;
    return cli_refuse("there is no memory for %" PRId64 " tokens", s->tokens);
}

static void stage_fini(linear_stage *s)
{
    if (s->exec.workspace) octavo_device_release(s->exec.device, s->exec.workspace, s->exec.workspace_bytes);
    machine_unmap(s->source, s->source_bytes);
    machine_unmap(s->codes, s->code_bytes);
    machine_unmap(s->packed, s->packed_bytes);
    machine_unmap(s->wide_w, s->wide_bytes);
    machine_unmap(s->x, s->x_bytes);
    machine_unmap(s->y, s->y_bytes);
    machine_unmap(s->product, s->product_bytes);
    machine_unmap(s->scales, s->scale_bytes);
    bench_gemm_destroy(s->gemm);
}

/* Uniform in (-1, 1), a function of the index alone. */
static float value_at(uint64_t i)
{
    i = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    i = (i ^ i >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return ((float)(i >> 40) - 0x1p23f) * 0x1p-23f;
}

static void put(void *data, octavo_dtype dtype, int64_t i, float x)
{
    if (dtype == OCTAVO_F32) ((float *)data)[i] = x;
    else ((uint16_t *)data)[i] = element_to_bf16(x);
}

/* Weights that have eight bits are quantised from the same numbers. */
static int fill_weight(linear_stage *s)
{
    const linear_settings *settings = s->settings;
    const int64_t shape[] = { settings->out, settings->in };
    octavo_weight *weight = &s->params.parts[0].weight;
    for (int64_t i = 0; i < settings->out * settings->in; i++) {
        s->source[i] = value_at((uint64_t)i) * 0.05f;
        put(s->wide_w, s->wide, i, s->source[i]);
        if (!s->scales) put(s->codes, settings->weight, i, s->source[i]);
    }
    weight->codes = octavo_tensor_view(s->codes, settings->weight, 2, shape);
    if (!s->scales) return EXIT_DONE;
    octavo_quantize_params p = OCTAVO_QUANTIZE_PARAMS_INIT;
    p.x = octavo_tensor_view(s->source, OCTAVO_F32, 2, shape);
    p.codes = weight->codes;
    p.scales = s->scales;
    p.granularity = settings->block ? OCTAVO_PER_BLOCK : OCTAVO_PER_TOKEN;
    p.block_rows = p.block_cols = settings->block;
    weight->scales = s->scales;
    weight->block_rows = settings->block ? settings->block : 1;
    weight->block_cols = settings->block;
    return octavo_quantize(&s->exec, &p) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int pack(linear_stage *s)
{
    octavo_linear_part *part = &s->params.parts[0];
    if (s->settings->unpacked) return EXIT_DONE;
    if (octavo_linear_packed_bytes(&s->exec, &part->weight, s->settings->precision, &s->packed_bytes) != OCTAVO_OK) return cli_refuse_last();
    if (s->packed_bytes == 0) return EXIT_DONE;
    s->packed = machine_map(s->packed_bytes);
    if (!s->packed) return cli_refuse("there is no memory for %zu bytes of packed weights", s->packed_bytes);
    part->packed = s->packed;
    return octavo_linear_pack(&s->exec, &part->weight, s->settings->precision, s->packed) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int stage_init(linear_stage *s, const octavo_exec *exec)
{
    const linear_settings *settings = s->settings;
    s->exec = *exec;
    int status = allocate(s);
    if (status == EXIT_DONE) status = bench_gemm_create(s->tokens, settings->out, settings->in, s->wide, (int)settings->threads, &s->gemm);
    if (status != EXIT_DONE) return status;
    const int64_t x_shape[] = { s->tokens, settings->in }, y_shape[] = { s->tokens, settings->out };
    s->params = (octavo_linear_params)OCTAVO_LINEAR_PARAMS_INIT;
    s->params.precision = settings->precision;
    s->params.part_count = 1;
    s->params.x = octavo_tensor_view(s->x, s->wide, 2, x_shape);
    s->params.parts[0].y = octavo_tensor_view(s->y, settings->y, 2, y_shape);
    for (int64_t i = 0; i < s->tokens * settings->in; i++) put(s->x, s->wide, i, value_at((uint64_t)i + (UINT64_C(1) << 40)));
    status = fill_weight(s);
    if (status == EXIT_DONE) status = pack(s);
    if (status != EXIT_DONE) return status;
    size_t bytes;
    if (octavo_linear_workspace(&s->exec, &s->params, &bytes) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_allocate(s->exec.device, bytes, &s->exec.workspace) != OCTAVO_OK) return cli_refuse_last();
    s->exec.workspace_bytes = bytes;
    return EXIT_DONE;
}

static int run_linear(linear_stage *s) { return octavo_linear(&s->exec, &s->params) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last(); }
static int run_gemm(linear_stage *s) { return bench_gemm_run(s->gemm, s->x, s->wide_w, s->product); }

/* Once untimed, so that all but the weights is as warm as it is inside a running model, whoever ran before. */
static int time_call(linear_stage *s, bench_read_speed *speed, int (*call)(linear_stage *), double *ms)
{
    const int warmed = call(s);
    if (warmed != EXIT_DONE) return warmed;
    bench_evict(speed, s->codes, s->code_bytes);
    if (s->packed) bench_evict(speed, s->packed, s->packed_bytes);
    bench_evict(speed, s->wide_w, s->wide_bytes);
    const double start = machine_seconds();
    const int status = call(s);
    *ms = 1e3 * (machine_seconds() - start);
    return status;
}

/* ||y - x W^T|| / ||x W^T|| over a sample of tokens and rows. */
static double sample_error(const linear_stage *s)
{
    const int64_t in = s->settings->in, out = s->settings->out;
    const int64_t tokens = s->tokens < SAMPLE_TOKENS ? s->tokens : SAMPLE_TOKENS, rows = out < SAMPLE_ROWS ? out : SAMPLE_ROWS;
    double wrong = 0, right = 0;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t token = t * s->tokens / tokens, row = r * out / rows;
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += (double)element_read(s->x, s->wide, token * in + i) * (double)s->source[row * in + i];
            const double error = (double)element_read(s->y, s->settings->y, token * out + row) - sum;
            wrong += error * error, right += sum * sum;
        }
    return sqrt(wrong / right);
}

/* The two calls, the read speed and the peak in turn, so that a machine that is slow for a while is slow for all of them. */
static int measure(linear_stage *s, bench_read_speed *speed, linear_row *row)
{
    enum { LINEAR, GEMM, READ, PEAK, FIGURES };
    const int64_t repeat = s->settings->repeat;
    const char *isa = octavo_device_isa(s->exec.device);
    double *figures = malloc((size_t)(FIGURES * repeat) * sizeof *figures);
    if (!figures) return cli_refuse("there is no memory for the times");
    int status = EXIT_DONE;
    for (int64_t r = 0; status == EXIT_DONE && r < repeat; r++) {
        figures[READ * repeat + r] = bench_read_speed_measure(speed);
        figures[PEAK * repeat + r] = bench_peak_measure(isa, s->settings->precision, (int)s->settings->threads);
        status = time_call(s, speed, run_linear, &figures[LINEAR * repeat + r]);
        if (status == EXIT_DONE) status = time_call(s, speed, run_gemm, &figures[GEMM * repeat + r]);
    }
    if (status == EXIT_DONE) {
        row->tokens = s->tokens;
        row->bytes = (int64_t)((s->packed ? s->packed_bytes : s->code_bytes) + s->scale_bytes);
        row->ms = bench_median(figures + LINEAR * repeat, repeat);
        row->gemm_ms = bench_median(figures + GEMM * repeat, repeat);
        row->read_gbps = bench_median(figures + READ * repeat, repeat);
        row->peak_tflops = bench_median(figures + PEAK * repeat, repeat);
        row->gbps = (double)row->bytes / row->ms * 1e-6;
        row->read_share = row->gbps / row->read_gbps;
        row->tflops = 2.0 * (double)s->tokens * (double)s->settings->in * (double)s->settings->out / row->ms * 1e-9;
        row->peak_share = row->tflops / row->peak_tflops;
        row->rel_error = sample_error(s);
    }
    free(figures);
    return status;
}

int linear_measure(const linear_settings *settings, const octavo_exec *exec, bench_read_speed *speed, int64_t tokens, linear_row *row)
{
    linear_stage stage = { .settings = settings, .tokens = tokens };
    int status = stage_init(&stage, exec);
    if (status == EXIT_DONE) status = measure(&stage, speed, row);
    stage_fini(&stage);
    return status;
}
