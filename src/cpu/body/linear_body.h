/* linear_body.h - linear layers in float32 for every precision and type of x and W; included after a level's vocabulary.
 *
 * x is loaded once, as the precision rounds it. A task multiplies a strip of one weight's rows: a few rows at a time, a segment of
 * their columns is decoded into the first-level cache, scales included, and multiplied with all tokens of a batch. Codes of int8
 * are multiplied without their scales: sums of a segment are whole numbers below 2^24, which float32 holds, and int32 the rest. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/linear_plan.h"

octavo_status SIMD(linear)(const octavo_exec *exec, const octavo_linear_params *p);

enum {
    LINEAR_TILE_ROWS = 4,               /* rows of W and tokens whose sums the registers hold               */
    LINEAR_TILE_TOKENS = SIMD_DOT_TOKENS == 4 ? 4 : 3,
    LINEAR_SEGMENT = 1024,              /* columns that are decoded at a time                               */
    LINEAR_W_STRIDE = LINEAR_SEGMENT + 16, /* the last vector of a run of equal scales may reach past its end */
    LINEAR_BATCH = 128,                 /* tokens whose segment of x stays in the second-level cache        */
    LINEAR_STRIP_SHORT = 32,            /* rows of a task; a long one where its tokens are many             */
    LINEAR_STRIP_LONG = 64,
    LINEAR_SERIAL = 1 << 15             /* products that do not pay for waking other threads                */
};

typedef struct linear_job {
    const octavo_linear_params *p;
    int64_t in, tokens, strip_rows;
    int64_t x_stride; /* floats between tokens of `x`       */
    int64_t grain;    /* tokens of a task that loads        */
    int exact;        /* sums are int32                     */
    float *x, *factors;
} linear_job;

/* Sums of a strip with a batch of tokens. */
typedef union linear_sums {
    float real[LINEAR_BATCH][LINEAR_STRIP_LONG];
    int32_t whole[LINEAR_BATCH][LINEAR_STRIP_LONG];
} linear_sums;

/* ---- x ---- */

static void linear_round_bf16(float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] = octavo_bf16_to_float(octavo_bf16_from_float(x[i]));
}

static void linear_quantise_e4m3(float *x, int64_t n, float scale)
{
    uint8_t codes[ROWS_CHUNK];
    for (int64_t first = 0; first < n; first += ROWS_CHUNK) {
        const int64_t count = n - first < ROWS_CHUNK ? n - first : ROWS_CHUNK, whole = count - count % SIMD_F32;
        float *out = x + first;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) codes[i] = octavo_e4m3_from_float(out[i] / scale);
        for (int64_t i = 0; i < whole; i += SIMD_F32) v_store(out + i, v_load_e4m3(codes + i));
        for (int64_t i = whole; i < count; i++) out[i] = octavo_e4m3_to_float(codes[i]);
    }
}

static void linear_quantise_int8(float *x, int64_t n, float scale)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] = rows_round_int8(x[i] / scale);
}

static void linear_load_token(const linear_job *job, int64_t t)
{
    const octavo_linear_params *p = job->p;
    float *x = job->x + t * job->x_stride, factor = 1.0f;
    rows_load(x, &p->x, octavo_linear_x_row(p, t), job->in);
    if (p->precision == OCTAVO_LINEAR_BF16 && p->x.dtype != OCTAVO_BF16) linear_round_bf16(x, job->in);
    const int finite = !rows_nonfinite(x, job->in);
    if (finite && octavo_linear_quantises(p)) {
        factor = octavo_linear_x_scale(p, p->x_scale ? 0.0f : rows_amax(0.0f, x, job->in));
        if (p->precision == OCTAVO_LINEAR_FP8) linear_quantise_e4m3(x, job->in, factor);
        else linear_quantise_int8(x, job->in, factor);
    }
    job->factors[t] = finite ? factor : NAN;
    for (int64_t i = finite ? job->in : 0; i < job->x_stride; i++) x[i] = 0.0f;
}

static void linear_load_tokens(void *argument, int64_t task)
{
    const linear_job *job = argument;
    for (int64_t t = task * job->grain; t < (task + 1) * job->grain && t < job->tokens; t++) linear_load_token(job, t);
}

/* ---- W ---- */

static inline int64_t linear_code_bytes(octavo_dtype dtype)
{
    return dtype == OCTAVO_F32 ? 4 : dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8 ? 1 : 2;
}

/* SIMD_F32 codes of W as float32. */
static inline __attribute__((always_inline)) vf32 linear_load_codes(octavo_dtype dtype, const void *codes)
{
    switch (dtype) {
    case OCTAVO_F32:  return v_load(codes);
    case OCTAVO_F16:  return v_load_f16(codes);
    case OCTAVO_BF16: return v_load_bf16(codes);
    case OCTAVO_INT8: return v_load_int8(codes);
    default: {
        const vf32 x = v_load_e4m3(codes); /* a NaN code may come out as 480 */
        return v_if_less(v_splat(OCTAVO_E4M3_MAX), v_abs(x), v_splat(NAN), x);
    }
    }
}

static inline __attribute__((always_inline)) void linear_decode(octavo_dtype dtype, const uint8_t *codes, int64_t count, float scale, float *out)
{
    const int64_t bytes = linear_code_bytes(dtype);
    const vf32 factor = v_splat(scale);
    int64_t i = 0;
    for (; i + SIMD_F32 <= count; i += SIMD_F32) v_store(out + i, v_mul(linear_load_codes(dtype, codes + i * bytes), factor));
    if (i == count) return;
    uint8_t last[SIMD_F32 * sizeof(float)] = { 0 };
    memcpy(last, codes + i * bytes, (size_t)((count - i) * bytes));
    v_store(out + i, v_mul(linear_load_codes(dtype, last), factor));
}

/* Columns [column, column + count) of a row of W, and zeros up to a whole vector. `rounded`: floats become bf16 first. */
static void linear_decode_row(const octavo_weight *weight, int rounded, int scaled, int64_t row, int64_t column, int64_t count, float *out)
{
    const octavo_tensor *w = &weight->codes;
    const int64_t together = octavo_weight_scale_columns(weight), end = column + count;
    const int64_t bytes = linear_code_bytes(w->dtype);
    rounded = rounded && (w->dtype == OCTAVO_F32 || w->dtype == OCTAVO_F16);
    while (column < end) {
        const int64_t block_end = (column / together + 1) * together, n = (block_end < end ? block_end : end) - column;
        const uint8_t *codes = (const uint8_t *)w->data + (row * w->strides[0] + column) * bytes;
        const float scale = scaled ? octavo_weight_scale(weight, row, column) : 1.0f, first = rounded ? 1.0f : scale;
        switch (w->dtype) {
        case OCTAVO_F32:  linear_decode(OCTAVO_F32, codes, n, first, out); break;
        case OCTAVO_F16:  linear_decode(OCTAVO_F16, codes, n, first, out); break;
        case OCTAVO_BF16: linear_decode(OCTAVO_BF16, codes, n, first, out); break;
        case OCTAVO_INT8: linear_decode(OCTAVO_INT8, codes, n, first, out); break;
        default:          linear_decode(OCTAVO_E4M3, codes, n, first, out); break;
        }
        if (rounded) {
            linear_round_bf16(out, n);
            for (int64_t i = 0; i < n && weight->scales; i++) out[i] *= scale;
        }
        out += n;
        column += n;
    }
    for (; count % SIMD_F32; count++) *out++ = 0.0f;
}

/* The memory that follows: the next columns of these rows, or the beginning of the next rows. */
static void linear_prefetch(const linear_job *job, const octavo_weight *weight, int64_t row, int64_t column)
{
    const octavo_tensor *w = &weight->codes;
    const int64_t bytes = linear_code_bytes(w->dtype);
    if (column >= job->in) {
        column = 0;
        row += LINEAR_TILE_ROWS;
    }
    const int64_t width = (job->in - column < LINEAR_SEGMENT ? job->in - column : LINEAR_SEGMENT) * bytes;
    for (int64_t r = row; r < row + LINEAR_TILE_ROWS && r < w->shape[0]; r++) {
        const char *codes = (const char *)w->data + (r * w->strides[0] + column) * bytes;
        for (int64_t i = 0; i < width; i += 64) __builtin_prefetch(codes + i, 0, 2);
    }
}

/* ---- products ---- */

/* sums[t][r] = w[r] . x[t] over `vectors` whole vectors. */
static inline __attribute__((always_inline)) void linear_tile(const float *w, const float *x, int64_t x_stride, int64_t tokens,
                                                              int64_t vectors, float sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS])
{
    vf32 sum[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS];
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++)
#pragma GCC unroll 4
        for (int r = 0; r < LINEAR_TILE_ROWS; r++) sum[t][r] = v_zero();
    for (int64_t i = 0; i < vectors * SIMD_F32; i += SIMD_F32) {
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) {
            const vf32 h = v_load(x + t * x_stride + i);
#pragma GCC unroll 4
            for (int r = 0; r < LINEAR_TILE_ROWS; r++) sum[t][r] = v_fma(h, v_load(w + r * LINEAR_W_STRIDE + i), sum[t][r]);
        }
    }
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++) v_store_sums4(sums[t], sum[t][0], sum[t][1], sum[t][2], sum[t][3]);
}

/* Adds the products of one decoded segment to the sums of LINEAR_TILE_ROWS rows from `lane` on, tokens [begin, end). */
static void linear_segment(const linear_job *job, const float *w, int64_t lane, int64_t column, int64_t begin, int64_t end, linear_sums *all)
{
    const int64_t left = job->in - column, width = left < LINEAR_SEGMENT ? left : LINEAR_SEGMENT;
    const int64_t vectors = (width + SIMD_F32 - 1) / SIMD_F32;
    float sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS];
    for (int64_t t = begin; t < end; t += LINEAR_TILE_TOKENS) {
        const float *x = job->x + t * job->x_stride + column;
        const int64_t tokens = end - t < LINEAR_TILE_TOKENS ? end - t : LINEAR_TILE_TOKENS;
        switch (tokens) {
        case 1:  linear_tile(w, x, job->x_stride, 1, vectors, sums); break;
        case 2:  linear_tile(w, x, job->x_stride, 2, vectors, sums); break;
        case 3:  linear_tile(w, x, job->x_stride, 3, vectors, sums); break;
        default: linear_tile(w, x, job->x_stride, LINEAR_TILE_TOKENS, vectors, sums); break;
        }
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t r = 0; r < LINEAR_TILE_ROWS; r++) {
                float *real = &all->real[t - begin + i][lane + r];
                int32_t *whole = &all->whole[t - begin + i][lane + r];
                if (job->exact) *whole = (column > 0 ? *whole : 0) + (int32_t)sums[i][r];
                else *real = (column > 0 ? *real : 0.0f) + sums[i][r];
            }
    }
}

/* ---- y ---- */

/* y[0..n) = or += x. */
static void linear_store(const octavo_tensor *y, int64_t at, octavo_store how, float *x, int64_t n)
{
    if (how == OCTAVO_STORE_ADD) {
        float before[LINEAR_STRIP_LONG];
        rows_load(before, y, at, n);
        for (int64_t i = 0; i < n; i++) x[i] += before[i];
    }
    if (y->dtype == OCTAVO_F32) {
        memcpy((float *)y->data + at, x, (size_t)n * sizeof *x);
        return;
    }
    uint16_t *out = (uint16_t *)y->data + at;
    if (y->dtype == OCTAVO_BF16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_bf16_from_float(x[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_fp16_from_float(x[i]);
    }
}

static void linear_finish(const linear_job *job, const octavo_linear_part *part, int64_t row, int64_t rows, int64_t begin, int64_t end,
                          const linear_sums *sums)
{
    float scale[LINEAR_STRIP_LONG], bias[LINEAR_STRIP_LONG], out[LINEAR_STRIP_LONG];
    for (int64_t r = 0; r < rows; r++) {
        scale[r] = job->exact ? octavo_weight_scale(&part->weight, row + r, 0) : 1.0f;
        bias[r] = part->bias ? part->bias[row + r] : 0.0f;
    }
    for (int64_t t = begin; t < end; t++) {
        const float factor = job->factors[t];
        for (int64_t r = 0; r < rows; r++) {
            const float sum = job->exact ? (float)sums->whole[t - begin][r] * scale[r] : sums->real[t - begin][r];
            out[r] = sum * factor + bias[r];
        }
        linear_store(&part->y, t * part->y.strides[0] + row, job->p->store, out, rows);
    }
}

static void linear_strip_of(const linear_job *job, const octavo_linear_part *part, int64_t begin)
{
    const octavo_weight *weight = &part->weight;
    const int64_t rows = weight->codes.shape[0], end = begin + job->strip_rows < rows ? begin + job->strip_rows : rows;
    const int along = job->tokens <= LINEAR_BATCH; /* the rows as memory lies; else down the strip, while x stays near */
    const int64_t segments = (job->in + LINEAR_SEGMENT - 1) / LINEAR_SEGMENT, quads = (end - begin + LINEAR_TILE_ROWS - 1) / LINEAR_TILE_ROWS;
    float w[LINEAR_TILE_ROWS * LINEAR_W_STRIDE] __attribute__((aligned(64)));
    linear_sums sums;
    for (int64_t t = 0; t < job->tokens; t += LINEAR_BATCH) {
        const int64_t last = t + LINEAR_BATCH < job->tokens ? t + LINEAR_BATCH : job->tokens;
        for (int64_t i = 0; i < segments * quads; i++) {
            const int64_t row = begin + (along ? i / segments : i % quads) * LINEAR_TILE_ROWS;
            const int64_t column = (along ? i % segments : i / quads) * LINEAR_SEGMENT, left = job->in - column;
            if (along) linear_prefetch(job, weight, row, column + LINEAR_SEGMENT);
            for (int64_t r = row; r < row + LINEAR_TILE_ROWS; r++) /* rows past the end repeat the last one */
                linear_decode_row(weight, job->p->precision == OCTAVO_LINEAR_BF16, !job->exact, r < rows ? r : rows - 1, column,
                                  left < LINEAR_SEGMENT ? left : LINEAR_SEGMENT, w + (r - row) * LINEAR_W_STRIDE);
            linear_segment(job, w, row - begin, column, t, last, &sums);
        }
        linear_finish(job, part, begin, end - begin, t, last, &sums);
    }
}

static int64_t linear_strips(const linear_job *job, int part)
{
    return (octavo_linear_out(job->p, part) + job->strip_rows - 1) / job->strip_rows;
}

static void linear_strip(void *argument, int64_t strip)
{
    const linear_job *job = argument;
    int part = 0;
    for (; strip >= linear_strips(job, part); part++) strip -= linear_strips(job, part);
    linear_strip_of(job, &job->p->parts[part], strip * job->strip_rows);
}

octavo_status SIMD(linear)(const octavo_exec *exec, const octavo_linear_params *p)
{
    const octavo_linear_layout at = octavo_linear_layout_of(p);
    uint8_t *workspace = exec->workspace;
    linear_job job = { .p = p, .in = octavo_linear_in(p), .tokens = octavo_linear_tokens(p), .exact = p->precision == OCTAVO_LINEAR_INT8,
                       .x = (float *)(void *)(workspace + at.x), .factors = (float *)(void *)(workspace + at.factors) };
    int64_t strips = 0, rows = 0;
    job.x_stride = octavo_round_up(job.in, OCTAVO_LINEAR_STEP);
    job.strip_rows = job.tokens <= OCTAVO_LINEAR_GROUP ? LINEAR_STRIP_SHORT : LINEAR_STRIP_LONG;
    job.grain = job.in >= LINEAR_SERIAL ? 1 : LINEAR_SERIAL / job.in;
    for (int i = 0; i < p->part_count; i++) strips += linear_strips(&job, i), rows += octavo_linear_out(p, i);
    octavo_parallel(exec, (job.tokens + job.grain - 1) / job.grain, linear_load_tokens, &job);
    if (rows * job.in > LINEAR_SERIAL / job.tokens) octavo_parallel(exec, strips, linear_strip, &job);
    else for (int64_t i = 0; i < strips; i++) linear_strip(&job, i);
    return OCTAVO_OK;
}
