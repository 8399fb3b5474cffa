/* linear_finish_amx.h - finished sums as columns of y: scaled, with their bias, in y's type. */
#ifndef OCTAVO_CPU_AMX_LINEAR_FINISH_AMX_H
#define OCTAVO_CPU_AMX_LINEAR_FINISH_AMX_H

#include "cpu/amx/linear_amx.h"

/* y[at..] = or += x, in y's type, where `there` says. */
static inline __attribute__((always_inline)) void linear_store_16(octavo_dtype dtype, octavo_store how, void *y, int64_t at, __mmask16 there, __m512 x)
{
    if (dtype == OCTAVO_F32) {
        float *out = (float *)y + at;
        if (how == OCTAVO_STORE_ADD) x = _mm512_add_ps(_mm512_maskz_loadu_ps(there, out), x);
        _mm512_mask_storeu_ps(out, there, x);
        return;
    }
    uint16_t *out = (uint16_t *)y + at;
    const __m256i before = how == OCTAVO_STORE_ADD ? _mm256_maskz_loadu_epi16(there, out) : _mm256_setzero_si256();
    if (dtype == OCTAVO_F16) {
        if (how == OCTAVO_STORE_ADD) x = _mm512_add_ps(_mm512_cvtph_ps(before), x);
        _mm256_mask_storeu_epi16(out, there, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else {
        if (how == OCTAVO_STORE_ADD) x = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(before), 16)), x);
        _mm256_mask_storeu_epi16(out, there, (__m256i)_mm512_cvtneps_pbh(x));
    }
}

/* What 16 rows of W add to their sums. */
typedef struct row_finish {
    __m512 scale, bias;
    __mmask16 there;
} row_finish;

static inline row_finish row_finish_of(const part_plan *plan, int64_t row)
{
    const octavo_linear_part *part = plan->part;
    const int64_t left = plan->rows - row;
    float scales[TILE_ROWS] = { 0 };
    if (left <= 0) return (row_finish){ .scale = _mm512_setzero_ps(), .bias = _mm512_setzero_ps() };
    for (int64_t r = 0; r < TILE_ROWS && r < left; r++) scales[r] = plan->block_scales ? 1.0f : octavo_weight_scale(&part->weight, row + r, 0);
    const __mmask16 there = (__mmask16)(left >= TILE_ROWS ? 0xFFFF : (1 << left) - 1);
    return (row_finish){ _mm512_loadu_ps(scales), part->bias ? _mm512_maskz_loadu_ps(there, part->bias + row) : _mm512_setzero_ps(), there };
}

/* A tile of sums to columns `row`.. of `tokens` rows of y, the first at `at`. */
static inline __attribute__((always_inline)) void finish_tile(octavo_dtype dtype, octavo_store how, const linear_job *job, void *y, int64_t at,
                                                              int64_t stride, int64_t tokens, const float *factors, const row_finish *rows,
                                                              const uint8_t *sums)
{
    __m512i x[TILE_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++) x[i] = _mm512_load_si512(sums + i * 64);
    if (!job->w_right) transpose_tile(x);
#pragma GCC unroll 16
    for (int64_t t = 0; t < TILE_ROWS; t++) {
        if (t >= tokens) break;
        const __m512 sum = _mm512_mul_ps(job->integer ? _mm512_cvtepi32_ps(x[t]) : _mm512_castsi512_ps(x[t]), rows->scale);
        linear_store_16(dtype, how, y, at + t * stride, rows->there, _mm512_fmadd_ps(sum, _mm512_set1_ps(factors[t]), rows->bias));
    }
}

/* What a panel of W adds to its sums, found once for all groups. */
typedef struct panel_finish {
    int64_t row;
    row_finish upper, lower;
} panel_finish;

static inline panel_finish panel_finish_of(const part_plan *plan, int64_t row)
{
    return (panel_finish){ row, row_finish_of(plan, row), row_finish_of(plan, row + TILE_ROWS) };
}

/* One or two groups from `group` on of a panel; the second 16 rows' tiles lie `second` bytes behind the first's. */
static inline __attribute__((always_inline)) void finish_groups(octavo_dtype dtype, octavo_store how, const linear_job *job, const part_plan *plan,
                                                                const panel_finish *panel, int64_t group, int64_t groups, const uint8_t *sums,
                                                                int64_t second)
{
    const octavo_tensor *y = &plan->part->y;
    for (int64_t end = group + groups; group < end; group++, sums += TILE_BYTES) {
        const int64_t n = group * GROUP, tokens = job->tokens - n, at = n * y->strides[0] + panel->row;
        finish_tile(dtype, how, job, y->data, at, y->strides[0], tokens, job->factors + n, &panel->upper, sums);
        if (panel->lower.there)
            finish_tile(dtype, how, job, y->data, at + TILE_ROWS, y->strides[0], tokens, job->factors + n, &panel->lower, sums + second);
    }
}

static inline void linear_finish_groups(const linear_job *job, const part_plan *plan, const panel_finish *panel, int64_t group, int64_t groups,
                                        const uint8_t *sums, int64_t second)
{
    const octavo_dtype dtype = plan->part->y.dtype;
    const octavo_store how = job->p->store;
    if (how == OCTAVO_STORE_ADD) finish_groups(dtype, how, job, plan, panel, group, groups, sums, second);
    else if (dtype == OCTAVO_F32) finish_groups(OCTAVO_F32, OCTAVO_STORE_SET, job, plan, panel, group, groups, sums, second);
    else finish_groups(dtype, OCTAVO_STORE_SET, job, plan, panel, group, groups, sums, second);
}

#endif
