/* dequantize_body.h - codes times scales; included after a level's vocabulary. One task is a band of rows. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(dequantize)(const octavo_exec *exec, const octavo_dequantize_params *p);

typedef struct dequantize_job {
    const octavo_dequantize_params *p;
    int64_t rows, cols, band;
} dequantize_job;

/* out [n] = codes [n] * scale [n] */
static void dequantize_run(float *restrict out, const uint8_t *restrict codes, octavo_dtype dtype, const float *restrict scale,
                           int64_t n)
{
    switch (dtype) {
    case OCTAVO_E4M3:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_e4m3_to_float(codes[i]) * scale[i];
        break;
    case OCTAVO_E5M2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_e5m2_to_float(codes[i]) * scale[i];
        break;
    default:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = (float)(int8_t)codes[i] * scale[i];
        break;
    }
}

/* The scales of columns [c, c + n) of row r: where they lie, or gathered into `buffer` [ROWS_CHUNK]. */
static const float *dequantize_scales(const dequantize_job *job, int64_t r, int64_t c, int64_t n, float *buffer)
{
    const octavo_dequantize_params *p = job->p;
    if (p->granularity == OCTAVO_PER_CHANNEL) return p->scales + c;
    const int64_t across = p->granularity == OCTAVO_PER_BLOCK ? (job->cols - 1) / p->block_cols + 1 : 1;
    const int64_t width = p->granularity == OCTAVO_PER_BLOCK ? p->block_cols : job->cols;
    const int64_t down = p->granularity == OCTAVO_PER_BLOCK ? p->block_rows : p->granularity == OCTAVO_PER_TOKEN ? 1 : job->rows;
    const float *scales = p->scales + r / down * across;
    for (int64_t i = 0; i < n;) {
        const int64_t group = (c + i) / width, left = width - (c + i - group * width);
        const int64_t end = left < n - i ? i + left : n;
        const float scale = scales[group];
        for (; i < end; i++) buffer[i] = scale;
    }
    return buffer;
}

static void dequantize_task(void *argument, int64_t index)
{
    const dequantize_job *job = argument;
    const octavo_tensor *codes = &job->p->codes, *x = &job->p->x;
    const int64_t begin = index * job->band, end = begin + job->band < job->rows ? begin + job->band : job->rows;
    float buffer[ROWS_CHUNK];
    for (int64_t r = begin; r < end; r++)
        for (int64_t c = 0; c < job->cols; c += ROWS_CHUNK) {
            const int64_t n = job->cols - c < ROWS_CHUNK ? job->cols - c : ROWS_CHUNK;
            const float *scale = dequantize_scales(job, r, c, n, buffer);
            dequantize_run((float *)x->data + r * x->strides[0] + c, (const uint8_t *)codes->data + r * codes->strides[0] + c,
                           codes->dtype, scale, n);
        }
}

octavo_status SIMD(dequantize)(const octavo_exec *exec, const octavo_dequantize_params *p)
{
    dequantize_job job = { p, p->codes.shape[0], p->codes.shape[1], ROWS_GRAIN / p->codes.shape[1] + 1 };
    octavo_parallel(exec, (job.rows - 1) / job.band + 1, dequantize_task, &job);
    return OCTAVO_OK;
}
