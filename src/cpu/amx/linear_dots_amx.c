/* linear_dots_amx.c - a few tokens and eight-bit codes: dot products of rows, since what tiles would save here is less than what
 * filling them takes. */
#include "cpu/amx/linear_finish_amx.h"
#include "cpu/amx/linear_panel_amx.h"

enum { DOT_AHEAD = 2048 /* bytes; rows mostly lie one behind the other */ };

/* Row `row` of W times every token: y[t] is the sum. */
static inline __attribute__((always_inline)) void dot_row(const linear_job *job, const part_plan *plan, int64_t row, int64_t tokens,
                                                          int signed_magnitude, const __m512i low[4], const __m512i high[4], float *y)
{
    const octavo_weight *weight = &plan->part->weight;
    const int64_t together = plan->block_scales ? weight->block_cols : job->in;
    const uint8_t *codes = linear_w_at(plan, row, 0);
    __m512 sum[DOT_TOKENS_MOST];
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++) sum[t] = _mm512_setzero_ps();
    for (int64_t column = 0; column < job->in; column += together) {
        const int64_t end = column + together < job->in ? column + together : job->in;
        __m512 part[DOT_TOKENS_MOST][2];
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) part[t][0] = part[t][1] = _mm512_setzero_ps();
        for (int64_t i = column; i < end; i += 64) {
            __m512i wide[2];
            const __mmask64 there = end - i >= 64 ? ~0ull : (1ull << (end - i)) - 1ull;
            _mm_prefetch((const char *)codes + i + DOT_AHEAD, _MM_HINT_T0);
            widen(low, high, signed_magnitude, _mm512_maskz_loadu_epi8(there, codes + i), wide);
#pragma GCC unroll 4
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t term = 0; term < job->terms; term++) {
                    const uint8_t *x = job->x + ((t * job->terms + term) * job->steps + i / STEP) * 64;
                    part[t][0] = _mm512_dpbf16_ps(part[t][0], (__m512bh)wide[0], (__m512bh)_mm512_load_si512(x));
                    part[t][1] = _mm512_dpbf16_ps(part[t][1], (__m512bh)wide[1], (__m512bh)_mm512_load_si512(x + 64));
                }
        }
        const __m512 scale = _mm512_set1_ps(octavo_weight_scale(weight, row, column));
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) sum[t] = _mm512_fmadd_ps(scale, _mm512_add_ps(part[t][0], part[t][1]), sum[t]);
    }
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++) y[t * TILE_ROWS] = _mm512_reduce_add_ps(sum[t]);
}

/* Up to 16 rows at a time, so that y is stored in whole vectors. */
static inline __attribute__((always_inline)) void dot_rows(const linear_job *job, const part_plan *plan, int64_t begin, int64_t end,
                                                           int64_t tokens, int signed_magnitude)
{
    const octavo_linear_part *part = plan->part;
    __m512i low[4], high[4];
    load_table(&plan->table, low, high);
    for (int64_t row = begin; row < end; row += TILE_ROWS) {
        float y[DOT_TOKENS_MOST * TILE_ROWS] __attribute__((aligned(64))) = { 0 };
        const int64_t rows = end - row < TILE_ROWS ? end - row : TILE_ROWS;
        const __mmask16 there = (__mmask16)((1 << rows) - 1);
        for (int64_t r = 0; r < rows; r++) dot_row(job, plan, row + r, tokens, signed_magnitude, low, high, y + r);
        const __m512 bias = part->bias ? _mm512_maskz_loadu_ps(there, part->bias + row) : _mm512_setzero_ps();
        for (int64_t t = 0; t < tokens; t++)
            linear_store_16(part->y.dtype, job->p->store, part->y.data, t * part->y.strides[0] + row, there,
                            _mm512_add_ps(_mm512_mul_ps(_mm512_load_ps(y + t * TILE_ROWS), _mm512_set1_ps(job->factors[t])), bias));
    }
}

void linear_dot_strip(void *argument, int64_t strip)
{
    const linear_job *job = argument;
    const part_plan *plan = linear_find_strip(job, &strip);
    const int64_t begin = strip * job->strip_rows, end = begin + job->strip_rows < plan->rows ? begin + job->strip_rows : plan->rows;
    switch (job->tokens * 2 + plan->table.signed_magnitude) {
    case 2:  dot_rows(job, plan, begin, end, 1, 0); break;
    case 3:  dot_rows(job, plan, begin, end, 1, 1); break;
    case 4:  dot_rows(job, plan, begin, end, 2, 0); break;
    case 5:  dot_rows(job, plan, begin, end, 2, 1); break;
    case 6:  dot_rows(job, plan, begin, end, 3, 0); break;
    case 7:  dot_rows(job, plan, begin, end, 3, 1); break;
    case 8:  dot_rows(job, plan, begin, end, 4, 0); break;
    default: dot_rows(job, plan, begin, end, 4, 1); break;
    }
}
