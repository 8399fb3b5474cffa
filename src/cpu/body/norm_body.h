/* norm_body.h - RMSNorm and LayerNorm; included after a level's vocabulary.
 *
 * Sums are float32 within a chunk of a row and float64 from chunk to chunk. A row whose squares leave float32's range, NaN and Inf
 * among them, is computed in float64. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(norm)(const octavo_exec *exec, const octavo_norm_params *p);

typedef struct norm_job {
    const octavo_norm_params *p;
    int64_t rows, width, band; /* band: rows of a task */
} norm_job;

static float norm_sum(const float *x, int64_t n)
{
    const int64_t whole = n - n % (2 * SIMD_F32);
    vf32 even = v_zero(), odd = v_zero();
    for (int64_t i = 0; i < whole; i += 2 * SIMD_F32) even = v_add(even, v_load(x + i)), odd = v_add(odd, v_load(x + i + SIMD_F32));
    float sum = v_hsum(v_add(even, odd));
    for (int64_t i = whole; i < n; i++) sum += x[i];
    return sum;
}

static float norm_squares(const float *x, float mean, int64_t n)
{
    const int64_t whole = n - n % (2 * SIMD_F32);
    const vf32 shift = v_splat(mean);
    vf32 even = v_zero(), odd = v_zero();
    for (int64_t i = 0; i < whole; i += 2 * SIMD_F32) {
        const vf32 a = v_sub(v_load(x + i), shift), b = v_sub(v_load(x + i + SIMD_F32), shift);
        even = v_fma(a, a, even), odd = v_fma(b, b, odd);
    }
    float sum = v_hsum(v_add(even, odd));
    for (int64_t i = whole; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

/* y = (x - mean) * factor * weight + bias; y may be x. */
static void norm_apply(float *y, const float *x, const float *weight, const float *bias, float mean, float factor, int64_t n)
{
    const vf32 shift = v_splat(mean), scale = v_splat(factor);
    int64_t i = 0;
    for (; i + SIMD_F32 <= n; i += SIMD_F32) {
        vf32 value = v_mul(v_sub(v_load(x + i), shift), scale);
        if (weight) value = v_mul(value, v_load(weight + i));
        if (bias) value = v_add(value, v_load(bias + i));
        v_store(y + i, value);
    }
    for (; i < n; i++) {
        float value = (x[i] - mean) * factor;
        if (weight) value *= weight[i];
        if (bias) value += bias[i];
        y[i] = value;
    }
}

static void norm_row_wide(const norm_job *job, int64_t x, int64_t y)
{
    const octavo_norm_params *p = job->p;
    double mean = 0.0, squares = 0.0;
    float value;
    for (int64_t i = 0; i < job->width && p->kind == OCTAVO_NORM_LAYER; i++) {
        rows_load(&value, &p->x, x + i, 1);
        mean += (double)value / (double)job->width;
    }
    for (int64_t i = 0; i < job->width; i++) {
        rows_load(&value, &p->x, x + i, 1);
        squares += ((double)value - mean) * ((double)value - mean);
    }
    const double factor = 1.0 / sqrt(squares / (double)job->width + (double)p->eps);
    for (int64_t i = 0; i < job->width; i++) {
        rows_load(&value, &p->x, x + i, 1);
        value = (float)(((double)value - mean) * factor * (p->weight ? (double)p->weight[i] : 1.0) + (p->bias ? (double)p->bias[i] : 0.0));
        rows_store(&p->y, y + i, &value, 1);
    }
}

static void norm_row(const norm_job *job, int64_t x, int64_t y)
{
    const octavo_norm_params *p = job->p;
    float buffer[ROWS_CHUNK];
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < job->width && p->kind == OCTAVO_NORM_LAYER; i += ROWS_CHUNK) {
        const int64_t n = job->width - i < ROWS_CHUNK ? job->width - i : ROWS_CHUNK;
        sum += (double)norm_sum(rows_at(buffer, &p->x, x + i, n), n);
    }
    const float mean = (float)(sum / (double)job->width);
    for (int64_t i = 0; i < job->width; i += ROWS_CHUNK) {
        const int64_t n = job->width - i < ROWS_CHUNK ? job->width - i : ROWS_CHUNK;
        squares += (double)norm_squares(rows_at(buffer, &p->x, x + i, n), mean, n);
    }
    if (!(squares >= 0x1p-80 && squares <= 0x1p120)) { /* squares that were lost below 2^-149 do not show above it */
        norm_row_wide(job, x, y);
        return;
    }
    const float factor = (float)(1.0 / sqrt(squares / (double)job->width + (double)p->eps));
    for (int64_t i = 0; i < job->width; i += ROWS_CHUNK) {
        const int64_t n = job->width - i < ROWS_CHUNK ? job->width - i : ROWS_CHUNK;
        float *out = p->y.dtype == OCTAVO_F32 ? (float *)p->y.data + y + i : buffer;
        norm_apply(out, rows_at(buffer, &p->x, x + i, n), p->weight ? p->weight + i : NULL, p->bias ? p->bias + i : NULL, mean, factor, n);
        if (out == buffer) rows_store(&p->y, y + i, buffer, n);
    }
}

static void norm_task(void *argument, int64_t index)
{
    const norm_job *job = argument;
    for (int64_t r = index * job->band; r < (index + 1) * job->band && r < job->rows; r++)
        norm_row(job, rows_begin(&job->p->x, r), rows_begin(&job->p->y, r));
}

octavo_status SIMD(norm)(const octavo_exec *exec, const octavo_norm_params *p)
{
    norm_job job = { .p = p, .rows = p->x.ndim == 3 ? p->x.shape[0] * p->x.shape[1] : p->x.shape[0], .width = octavo_norm_width(p) };
    job.band = ROWS_GRAIN / job.width + 1;
    octavo_parallel(exec, (job.rows - 1) / job.band + 1, norm_task, &job);
    return OCTAVO_OK;
}
