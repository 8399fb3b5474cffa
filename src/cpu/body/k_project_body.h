/* k_project_body.h - the K projection in float32 for every type of h and W; included after a level's vocabulary.
 *
 * A task projects a strip of W's rows: a few rows at a time, a segment of their columns is decoded into the first-level cache,
 * scales included, and multiplied with all tokens of the chunk. Then whole tokens are rotated, and kv_append encodes them. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "cpu/body/k_project_turn.h"

octavo_status SIMD(k_project)(const octavo_exec *exec, const octavo_k_project_params *p);
octavo_status SIMD(kv_append)(const octavo_exec *exec, const octavo_kv_append_params *p);

enum {
    PROJECT_TILE_ROWS = SIMD_DOT_TOKENS, /* rows of W and tokens whose sums the registers hold                */
    PROJECT_TILE_TOKENS = 4,
    PROJECT_SEGMENT = 1024,              /* columns that are decoded at a time                               */
    PROJECT_W_STRIDE = PROJECT_SEGMENT + 16, /* the last vector of a run of equal scales may reach past its end */
    PROJECT_BATCH = 128,                 /* tokens whose segment of h stays in the second-level cache        */
    PROJECT_STRIP_SHORT = 32,            /* rows of a task; a long one where its tokens are many             */
    PROJECT_STRIP_LONG = 64
};

typedef struct project_job {
    const octavo_k_project_params *p;
    octavo_project_sizes sizes;
    int64_t first, tokens, strip_rows; /* tokens: of the chunk               */
    int64_t h_stride;                  /* floats between tokens of `h`       */
    float *h, *y, *turns;              /* h: [chunk, h_stride], zeros at ends */
} project_job;

static void project_load_token(void *argument, int64_t t)
{
    const project_job *job = argument;
    float *h = job->h + t * job->h_stride;
    rows_load(h, &job->p->h, octavo_project_h_row(job->p, job->first + t), job->sizes.hidden);
    for (int64_t i = job->sizes.hidden; i < job->h_stride; i++) h[i] = 0.0f;
}

static inline int64_t project_code_bytes(octavo_dtype dtype)
{
    return dtype == OCTAVO_F32 ? 4 : dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8 ? 1 : 2;
}

/* SIMD_F32 codes of W as float32. */
static inline __attribute__((always_inline)) vf32 project_load_codes(octavo_dtype dtype, const void *codes)
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

static inline __attribute__((always_inline)) void project_decode(octavo_dtype dtype, const uint8_t *codes, int64_t count, float scale, float *out)
{
    const int64_t bytes = project_code_bytes(dtype);
    const vf32 factor = v_splat(scale);
    int64_t i = 0;
    for (; i + SIMD_F32 <= count; i += SIMD_F32) v_store(out + i, v_mul(project_load_codes(dtype, codes + i * bytes), factor));
    if (i == count) return;
    uint8_t last[SIMD_F32 * sizeof(float)] = { 0 };
    memcpy(last, codes + i * bytes, (size_t)((count - i) * bytes));
    v_store(out + i, v_mul(project_load_codes(dtype, last), factor));
}

/* Columns [column, column + count) of a row of W, and zeros up to a whole vector. */
static void project_decode_row(const octavo_weight *weight, int64_t row, int64_t column, int64_t count, float *out)
{
    const octavo_tensor *w = &weight->codes;
    const int64_t together = octavo_project_scale_columns(weight), end = column + count;
    const int64_t bytes = project_code_bytes(w->dtype);
    while (column < end) {
        const int64_t block_end = (column / together + 1) * together, n = (block_end < end ? block_end : end) - column;
        const uint8_t *codes = (const uint8_t *)w->data + (row * w->strides[0] + column) * bytes;
        const float scale = octavo_project_scale(weight, row, column);
        switch (w->dtype) {
        case OCTAVO_F32:  project_decode(OCTAVO_F32, codes, n, scale, out); break;
        case OCTAVO_F16:  project_decode(OCTAVO_F16, codes, n, scale, out); break;
        case OCTAVO_BF16: project_decode(OCTAVO_BF16, codes, n, scale, out); break;
        case OCTAVO_INT8: project_decode(OCTAVO_INT8, codes, n, scale, out); break;
        default:          project_decode(OCTAVO_E4M3, codes, n, scale, out); break;
        }
        out += n;
        column += n;
    }
    for (; count % SIMD_F32; count++) *out++ = 0.0f;
}

/* sums[t][r] = w[r] . h[t] over `vectors` whole vectors. */
static inline __attribute__((always_inline)) void project_tile(const float *w, const float *h, int64_t h_stride, int64_t tokens,
                                                               int64_t vectors, float sums[PROJECT_TILE_TOKENS][PROJECT_TILE_ROWS])
{
    vf32 sum[PROJECT_TILE_TOKENS][PROJECT_TILE_ROWS];
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++)
#pragma GCC unroll 4
        for (int r = 0; r < PROJECT_TILE_ROWS; r++) sum[t][r] = v_zero();
    for (int64_t i = 0; i < vectors * SIMD_F32; i += SIMD_F32) {
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) {
            const vf32 x = v_load(h + t * h_stride + i);
#pragma GCC unroll 4
            for (int r = 0; r < PROJECT_TILE_ROWS; r++) sum[t][r] = v_fma(x, v_load(w + r * PROJECT_W_STRIDE + i), sum[t][r]);
        }
    }
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++) {
#if SIMD_DOT_TOKENS == 4
        v_store_sums4(sums[t], sum[t][0], sum[t][1], sum[t][2], sum[t][3]);
#else
        v_store_sums2(sums[t], sum[t][0], sum[t][1]);
#endif
    }
}

/* y of up to PROJECT_TILE_ROWS rows and tokens [begin, end) of the chunk gets the products of one decoded segment. */
static void project_segment(const project_job *job, const float *w, int64_t row, int64_t column, int64_t begin, int64_t end)
{
    const octavo_project_sizes *sizes = &job->sizes;
    const int64_t left = sizes->hidden - column, width = left < PROJECT_SEGMENT ? left : PROJECT_SEGMENT;
    const int64_t vectors = (width + SIMD_F32 - 1) / SIMD_F32;
    float sums[PROJECT_TILE_TOKENS][PROJECT_TILE_ROWS];
    for (int64_t t = begin; t < end; t += PROJECT_TILE_TOKENS) {
        const float *h = job->h + t * job->h_stride + column;
        const int64_t tokens = end - t < PROJECT_TILE_TOKENS ? end - t : PROJECT_TILE_TOKENS;
        switch (tokens) {
        case 1:  project_tile(w, h, job->h_stride, 1, vectors, sums); break;
        case 2:  project_tile(w, h, job->h_stride, 2, vectors, sums); break;
        case 3:  project_tile(w, h, job->h_stride, 3, vectors, sums); break;
        default: project_tile(w, h, job->h_stride, PROJECT_TILE_TOKENS, vectors, sums); break;
        }
        for (int64_t i = 0; i < tokens; i++) {
            float *y = job->y + (job->first + t + i) * sizes->rows;
            for (int64_t r = row; r < row + PROJECT_TILE_ROWS && r < sizes->rows; r++) {
                const float before = column > 0 ? y[r] : job->p->bias ? job->p->bias[r] : 0.0f;
                y[r] = before + sums[i][r - row];
            }
        }
    }
}

/* The memory that follows: the next columns of these rows, or the beginning of the next rows. */
static void project_prefetch(const project_job *job, int64_t row, int64_t column)
{
    const octavo_tensor *w = &job->p->weight.codes;
    const int64_t bytes = project_code_bytes(w->dtype), hidden = job->sizes.hidden;
    if (column >= hidden) {
        column = 0;
        row += PROJECT_TILE_ROWS;
    }
    const int64_t width = (hidden - column < PROJECT_SEGMENT ? hidden - column : PROJECT_SEGMENT) * bytes;
    for (int64_t r = row; r < row + PROJECT_TILE_ROWS && r < job->sizes.rows; r++) {
        const char *codes = (const char *)w->data + (r * w->strides[0] + column) * bytes;
        for (int64_t i = 0; i < width; i += 64) __builtin_prefetch(codes + i, 0, 2);
    }
}

static void project_strip(void *argument, int64_t strip)
{
    const project_job *job = argument;
    const int64_t begin = strip * job->strip_rows, rows = job->sizes.rows, hidden = job->sizes.hidden;
    const int64_t end = begin + job->strip_rows < rows ? begin + job->strip_rows : rows;
    const int along = job->tokens <= PROJECT_BATCH; /* the rows as memory lies; else down the strip, while h stays near */
    const int64_t segments = (hidden + PROJECT_SEGMENT - 1) / PROJECT_SEGMENT, quads = (end - begin + PROJECT_TILE_ROWS - 1) / PROJECT_TILE_ROWS;
    float w[PROJECT_TILE_ROWS * PROJECT_W_STRIDE] __attribute__((aligned(64)));
    for (int64_t t = 0; t < job->tokens; t += PROJECT_BATCH)
        for (int64_t i = 0; i < segments * quads; i++) {
            const int64_t row = begin + (along ? i / segments : i % quads) * PROJECT_TILE_ROWS;
            const int64_t column = (along ? i % segments : i / quads) * PROJECT_SEGMENT;
            const int64_t left = hidden - column, last = t + PROJECT_BATCH < job->tokens ? t + PROJECT_BATCH : job->tokens;
            if (along) project_prefetch(job, row, column + PROJECT_SEGMENT);
            for (int64_t r = row; r < row + PROJECT_TILE_ROWS; r++) /* rows past the end repeat the last one */
                project_decode_row(&job->p->weight, r < rows ? r : rows - 1, column, left < PROJECT_SEGMENT ? left : PROJECT_SEGMENT,
                                   w + (r - row) * PROJECT_W_STRIDE);
            project_segment(job, w, row, column, t, last);
        }
}

static void project_rotate_task(void *argument, int64_t index)
{
    const project_job *job = argument;
    for (int64_t t = index * OCTAVO_PROJECT_GROUP; t < (index + 1) * OCTAVO_PROJECT_GROUP && t < job->tokens; t++)
        project_rotate_token(job->p, job->sizes.rotary, job->first + t, job->y + (job->first + t) * job->sizes.rows,
                             job->turns + t * job->sizes.rotary);
}

octavo_status SIMD(k_project)(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_project_layout at = octavo_project_layout_of(p);
    uint8_t *workspace = exec->workspace;
    project_job job = { .p = p, .sizes = octavo_project_sizes_of(p), .h = (float *)(void *)(workspace + at.h),
                        .y = (float *)(void *)(workspace + at.y), .turns = (float *)(void *)(workspace + at.turns) };
    job.h_stride = octavo_project_round_up(job.sizes.hidden, OCTAVO_PROJECT_STEP);
    for (; job.first < job.sizes.tokens; job.first += job.sizes.chunk) {
        const int64_t left = job.sizes.tokens - job.first;
        job.tokens = left < job.sizes.chunk ? left : job.sizes.chunk;
        job.strip_rows = job.tokens <= OCTAVO_PROJECT_GROUP ? PROJECT_STRIP_SHORT : PROJECT_STRIP_LONG;
        octavo_parallel(exec, job.tokens, project_load_token, &job);
        octavo_parallel(exec, (job.sizes.rows + job.strip_rows - 1) / job.strip_rows, project_strip, &job);
        if (job.sizes.rotary > 0) octavo_parallel(exec, (job.tokens + OCTAVO_PROJECT_GROUP - 1) / OCTAVO_PROJECT_GROUP, project_rotate_task, &job);
    }
    const octavo_kv_append_params append = octavo_project_append_params(p, job.y);
    return SIMD(kv_append)(exec, &append);
}
