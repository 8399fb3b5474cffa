/* quantize_body.h - symmetric quantisation; included after a level's vocabulary.
 *
 * Phase 1 looks at all of x: NaN and Inf refuse the call before anything is written, and the largest magnitude of the tensor
 * comes with it. Phase 2 finds the scales that are left to find and converts: bands of rows (one scale), strips of columns (one a
 * column) or rectangles (one each; a token is a rectangle, too). */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"
#include "kernel/scales.h"

octavo_status SIMD(quantize)(const octavo_exec *exec, const octavo_quantize_params *p);

enum { QUANTIZE_STRIP = 128 }; /* columns of a task of OCTAVO_PER_CHANNEL */

typedef struct quantize_job {
    const octavo_quantize_params *p;
    int64_t rows, cols, band;        /* rows of a task where rows are split       */
    int64_t group_rows, group_cols;  /* rectangles of OCTAVO_PER_TOKEN, PER_BLOCK */
    int64_t groups_across, groups, groups_per_task;
    int nonfinite;                   /* set by any task of phase 1                */
    uint32_t amax_bits;              /* the largest of all tasks of phase 1       */
    int64_t saturated, underflowed;  /* sums of all tasks                         */
} quantize_job;

typedef struct quantize_counts {
    int64_t saturated, underflowed;
} quantize_counts;

static void quantize_count(quantize_job *job, const quantize_counts *counts)
{
    __atomic_fetch_add(&job->saturated, counts->saturated, __ATOMIC_RELAXED);
    __atomic_fetch_add(&job->underflowed, counts->underflowed, __ATOMIC_RELAXED);
}

static void quantize_e4m3(uint8_t *restrict codes, const float *restrict x, const float *restrict scale, int64_t n,
                          quantize_counts *counts)
{
    const float clamp = octavo_code_clamp(OCTAVO_E4M3);
    int32_t saturated = 0, underflowed = 0;
#pragma omp simd reduction(+ : saturated, underflowed)
    for (int64_t i = 0; i < n; i++) {
        const float quotient = x[i] / scale[i];
        const uint8_t code = octavo_e4m3_from_float(quotient);
        codes[i] = code;
        saturated += fabsf(quotient) >= clamp;
        underflowed += ((code & 0x7F) == 0) & (x[i] != 0.0f);
    }
    counts->saturated += saturated;
    counts->underflowed += underflowed;
}

static void quantize_e5m2(uint8_t *restrict codes, const float *restrict x, const float *restrict scale, int64_t n,
                          quantize_counts *counts)
{
    const float clamp = octavo_code_clamp(OCTAVO_E5M2);
    int32_t saturated = 0, underflowed = 0;
#pragma omp simd reduction(+ : saturated, underflowed)
    for (int64_t i = 0; i < n; i++) {
        const float quotient = x[i] / scale[i];
        const uint8_t code = octavo_e5m2_from_float(quotient);
        codes[i] = code;
        saturated += fabsf(quotient) >= clamp;
        underflowed += ((code & 0x7F) == 0) & (x[i] != 0.0f);
    }
    counts->saturated += saturated;
    counts->underflowed += underflowed;
}

static void quantize_int8(int8_t *restrict codes, const float *restrict x, const float *restrict scale, int64_t n,
                          quantize_counts *counts)
{
    const float clamp = octavo_code_clamp(OCTAVO_INT8);
    int32_t saturated = 0, underflowed = 0;
#pragma omp simd reduction(+ : saturated, underflowed)
    for (int64_t i = 0; i < n; i++) {
        const float quotient = x[i] / scale[i];
        const int32_t code = (int32_t)rows_round_int8(quotient);
        codes[i] = (int8_t)code;
        saturated += fabsf(quotient) >= clamp;
        underflowed += (code == 0) & (x[i] != 0.0f);
    }
    counts->saturated += saturated;
    counts->underflowed += underflowed;
}

/* n <= ROWS_CHUNK elements of row r from column c on, scale[i] for element i. */
static void quantize_run(const quantize_job *job, int64_t r, int64_t c, int64_t n, const float *scale, quantize_counts *counts)
{
    const octavo_tensor *x = &job->p->x, *codes = &job->p->codes;
    float buffer[ROWS_CHUNK];
    const float *values = rows_at(buffer, x, r * x->strides[0] + c, n);
    uint8_t *out = (uint8_t *)codes->data + r * codes->strides[0] + c;
    if (codes->dtype == OCTAVO_E4M3) quantize_e4m3(out, values, scale, n, counts);
    else if (codes->dtype == OCTAVO_E5M2) quantize_e5m2(out, values, scale, n, counts);
    else quantize_int8((int8_t *)out, values, scale, n, counts);
}

static float quantize_amax(const octavo_tensor *x, int64_t r0, int64_t r1, int64_t c0, int64_t c1)
{
    float buffer[ROWS_CHUNK], amax = 0.0f;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c += ROWS_CHUNK) {
            const int64_t n = c1 - c < ROWS_CHUNK ? c1 - c : ROWS_CHUNK;
            amax = rows_amax(amax, rows_at(buffer, x, r * x->strides[0] + c, n), n);
        }
    return amax;
}

/* All of a rectangle with one scale. */
static void quantize_rectangle(const quantize_job *job, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float scale,
                               quantize_counts *counts)
{
    float scales[ROWS_CHUNK];
    const int64_t width = c1 - c0 < ROWS_CHUNK ? c1 - c0 : ROWS_CHUNK;
    for (int64_t i = 0; i < width; i++) scales[i] = scale;
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c += ROWS_CHUNK)
            quantize_run(job, r, c, c1 - c < ROWS_CHUNK ? c1 - c : ROWS_CHUNK, scales, counts);
}

static float quantize_scale(const quantize_job *job, float amax)
{
    return octavo_scale_of(amax, job->p->codes.dtype, job->p->scale_kind);
}

/* ---- tasks ---- */

static int64_t quantize_band_end(const quantize_job *job, int64_t index)
{
    return (index + 1) * job->band < job->rows ? (index + 1) * job->band : job->rows;
}

static void quantize_scan_task(void *argument, int64_t index)
{
    quantize_job *job = argument;
    const octavo_tensor *x = &job->p->x;
    float buffer[ROWS_CHUNK], amax = 0.0f;
    for (int64_t r = index * job->band; r < quantize_band_end(job, index); r++)
        for (int64_t c = 0; c < job->cols; c += ROWS_CHUNK) {
            const int64_t n = job->cols - c < ROWS_CHUNK ? job->cols - c : ROWS_CHUNK;
            const float *values = rows_at(buffer, x, r * x->strides[0] + c, n);
            if (rows_nonfinite(values, n)) {
                __atomic_store_n(&job->nonfinite, 1, __ATOMIC_RELAXED);
                return;
            }
            amax = rows_amax(amax, values, n);
        }
    const uint32_t bits = octavo_float_bits(amax); /* they order like the magnitudes */
    uint32_t seen = __atomic_load_n(&job->amax_bits, __ATOMIC_RELAXED);
    while (seen < bits && !__atomic_compare_exchange_n(&job->amax_bits, &seen, bits, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

static void quantize_band_task(void *argument, int64_t index)
{
    quantize_job *job = argument;
    quantize_counts counts = { 0, 0 };
    quantize_rectangle(job, index * job->band, quantize_band_end(job, index), 0, job->cols, job->p->scales[0], &counts);
    quantize_count(job, &counts);
}

static void quantize_strip_task(void *argument, int64_t index)
{
    quantize_job *job = argument;
    const octavo_tensor *x = &job->p->x;
    const int64_t c = index * QUANTIZE_STRIP, n = job->cols - c < QUANTIZE_STRIP ? job->cols - c : QUANTIZE_STRIP;
    float *scales = job->p->scales + c;
    if (job->p->scale_source == OCTAVO_SCALE_DYNAMIC) {
        float buffer[QUANTIZE_STRIP], amax[QUANTIZE_STRIP] = { 0 };
        for (int64_t r = 0; r < job->rows; r++) {
            const float *values = rows_at(buffer, x, r * x->strides[0] + c, n);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) amax[i] = fabsf(values[i]) > amax[i] ? fabsf(values[i]) : amax[i];
        }
        for (int64_t i = 0; i < n; i++) scales[i] = octavo_scale_of(amax[i], job->p->codes.dtype, job->p->scale_kind);
    }
    quantize_counts counts = { 0, 0 };
    for (int64_t r = 0; r < job->rows; r++) quantize_run(job, r, c, n, scales, &counts);
    quantize_count(job, &counts);
}

static void quantize_group_task(void *argument, int64_t index)
{
    quantize_job *job = argument;
    const int64_t first = index * job->groups_per_task;
    const int64_t last = first + job->groups_per_task < job->groups ? first + job->groups_per_task : job->groups;
    quantize_counts counts = { 0, 0 };
    for (int64_t g = first; g < last; g++) {
        const int64_t r0 = g / job->groups_across * job->group_rows, c0 = g % job->groups_across * job->group_cols;
        const int64_t r1 = job->rows - r0 < job->group_rows ? job->rows : r0 + job->group_rows;
        const int64_t c1 = job->cols - c0 < job->group_cols ? job->cols : c0 + job->group_cols;
        float *scale = job->p->scales + g;
        if (job->p->scale_source == OCTAVO_SCALE_DYNAMIC) *scale = quantize_scale(job, quantize_amax(&job->p->x, r0, r1, c0, c1));
        quantize_rectangle(job, r0, r1, c0, c1, *scale, &counts);
    }
    quantize_count(job, &counts);
}

static void quantize_groups(const octavo_exec *exec, quantize_job *job)
{
    const int64_t group_elements = job->group_rows * job->group_cols;
    job->groups_across = (job->cols - 1) / job->group_cols + 1;
    job->groups = ((job->rows - 1) / job->group_rows + 1) * job->groups_across;
    job->groups_per_task = ROWS_GRAIN / group_elements + 1;
    octavo_parallel(exec, (job->groups - 1) / job->groups_per_task + 1, quantize_group_task, job);
}

octavo_status SIMD(quantize)(const octavo_exec *exec, const octavo_quantize_params *p)
{
    quantize_job job = { .p = p, .rows = p->x.shape[0], .cols = p->x.shape[1] };
    job.band = ROWS_GRAIN / job.cols + 1;
    const int64_t bands = (job.rows - 1) / job.band + 1;
    octavo_parallel(exec, bands, quantize_scan_task, &job);
    if (job.nonfinite) return OCTAVO_E_NONFINITE;

    switch (p->granularity) {
    case OCTAVO_PER_TENSOR:
        if (p->scale_source == OCTAVO_SCALE_DYNAMIC) p->scales[0] = quantize_scale(&job, octavo_float_from_bits(job.amax_bits));
        octavo_parallel(exec, bands, quantize_band_task, &job);
        break;
    case OCTAVO_PER_CHANNEL:
        octavo_parallel(exec, (job.cols - 1) / QUANTIZE_STRIP + 1, quantize_strip_task, &job);
        break;
    default:
        job.group_rows = p->granularity == OCTAVO_PER_TOKEN ? 1 : p->block_rows;
        job.group_cols = p->granularity == OCTAVO_PER_TOKEN ? job.cols : p->block_cols;
        quantize_groups(exec, &job);
        break;
    }
    if (p->saturated) *p->saturated = job.saturated;
    if (p->underflowed) *p->underflowed = job.underflowed;
    return OCTAVO_OK;
}
