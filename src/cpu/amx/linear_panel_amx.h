/* linear_panel_amx.h - panels of W as tiles: where they lie in memory, or copied, widened or rounded to the first-level cache. */
#ifndef OCTAVO_CPU_AMX_LINEAR_PANEL_AMX_H
#define OCTAVO_CPU_AMX_LINEAR_PANEL_AMX_H

#include "cpu/amx/linear_amx.h"
#include <math.h>

/* Steps of a block: its W fills most of the first-level cache, past which x streams. Of TILES_SPLIT, with its terms, a fourth. */
enum { SEGMENT = 16, SEGMENT_TERMS = SEGMENT / 2, SEGMENT_SPLIT = SEGMENT / 4, SCRATCH_BYTES = SEGMENT * 2 * TILE_BYTES };

/* A panel of rows times a segment of columns. */
typedef struct block {
    int64_t row, rows; /* fewer than PANEL_ROWS at W's end; 0: no block */
    int64_t step, steps;
} block;

/* Where a block's tiles of W are: the second 16 rows lie `second` behind the first, the next term or step `next` behind the last. */
typedef struct panel_tiles {
    const uint8_t *first;
    int64_t stride, second, next;
} panel_tiles;

static inline void load_table(const code_table *table, __m512i low[4], __m512i high[4])
{
    for (int i = 0; i < 4; i++) {
        low[i]  = _mm512_loadu_si512(table->low + 64 * i);
        high[i] = _mm512_loadu_si512(table->high + 64 * i);
    }
}

/* 64 codes as bf16: those with even numbers, then those with odd ones. */
static inline __attribute__((always_inline)) void widen(const __m512i low[4], const __m512i high[4], int signed_magnitude, __m512i codes,
                                                        __m512i out[2])
{
    __m512i l = _mm512_permutex2var_epi8(low[0], codes, low[1]), h = _mm512_permutex2var_epi8(high[0], codes, high[1]);
    if (signed_magnitude) {
        h = _mm512_ternarylogic_epi32(h, codes, _mm512_set1_epi8((char)0x80), 0xF8); /* h | (codes & 0x80) */
    } else {
        const __mmask64 upper = _mm512_movepi8_mask(codes);
        l = _mm512_mask_mov_epi8(l, upper, _mm512_permutex2var_epi8(low[2], codes, low[3]));
        h = _mm512_mask_mov_epi8(h, upper, _mm512_permutex2var_epi8(high[2], codes, high[3]));
    }
    const __m512i upper_bytes = _mm512_set1_epi16((short)0xFF00);
    out[0] = _mm512_ternarylogic_epi32(upper_bytes, _mm512_slli_epi16(h, 8), l, 0xCA); /* bits of h where upper_bytes has ones, else of l */
    out[1] = _mm512_ternarylogic_epi32(upper_bytes, h, _mm512_srli_epi16(l, 8), 0xCA);
}

static inline __attribute__((always_inline)) void widen_row_by(const uint8_t *codes, int64_t count, const code_table *table,
                                                               int signed_magnitude, uint8_t *out, int64_t stride)
{
    __m512i low[4], high[4], wide[2];
    load_table(table, low, high);
    for (; count > 0; count -= 64, codes += 64, out += 2 * stride) {
        const __mmask64 there = count >= 64 ? ~0ull : (1ull << count) - 1ull;
        widen(low, high, signed_magnitude, _mm512_maskz_loadu_epi8(there, codes), wide);
        _mm512_store_si512(out, wide[0]);
        _mm512_store_si512(out + stride, wide[1]);
    }
}

/* A row of `count` one-byte codes (zeros behind them, up to whole pairs of steps) as bf16: step s at out + s * stride. */
static inline void widen_row(const uint8_t *codes, int64_t count, const code_table *table, uint8_t *out, int64_t stride)
{
    if (table->signed_magnitude) widen_row_by(codes, count, table, 1, out, stride);
    else widen_row_by(codes, count, table, 0, out, stride);
}

static inline void copy_row(const uint8_t *codes, int64_t bytes, uint8_t *out, int64_t stride)
{
    for (; bytes > 0; bytes -= 64, codes += 64, out += stride) {
        const __mmask64 there = bytes >= 64 ? ~0ull : (1ull << bytes) - 1ull;
        _mm512_store_si512(out, _mm512_maskz_loadu_epi8(there, codes));
    }
}

static inline __m512 load_wide(const uint8_t *codes, octavo_dtype dtype, int64_t count)
{
    const __mmask16 there = (__mmask16)(count >= 16 ? 0xFFFF : count > 0 ? (1 << count) - 1 : 0);
    if (dtype == OCTAVO_F32) return _mm512_maskz_loadu_ps(there, codes);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, codes));
}

static inline void round_row(const uint8_t *codes, octavo_dtype dtype, int64_t count, uint8_t *out, int64_t stride)
{
    const int64_t bytes = dtype == OCTAVO_F32 ? 4 : 2;
    for (; count > 0; count -= 32, codes += 32 * bytes, out += stride)
        _mm512_store_si512(out, (__m512i)_mm512_cvtne2ps_pbh(load_wide(codes + 16 * bytes, dtype, count - 16), load_wide(codes, dtype, count)));
}

/* Terms whose sum is each element, `next` apart. Inf is its own first term, and NaN stays one. */
static inline void split_row(const uint8_t *codes, octavo_dtype dtype, int64_t count, int terms, uint8_t *out, int64_t next)
{
    const int64_t bytes = dtype == OCTAVO_F32 ? 4 : 2;
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u), quiet = _mm512_set1_epi32(0x00400000);
    for (; count > 0; count -= 32, codes += 32 * bytes) {
        __m512 rest[2] = { load_wide(codes, dtype, count), load_wide(codes + 16 * bytes, dtype, count - 16) };
        for (int term = 0; term < terms; term++, out += next)
            for (int half = 0; half < 2; half++) {
                const __mmask16 nan = _mm512_cmp_ps_mask(rest[half], rest[half], _CMP_UNORD_Q);
                const __m512i bits = _mm512_mask_or_epi32(_mm512_castps_si512(rest[half]), nan, _mm512_castps_si512(rest[half]), quiet);
                const __m512 cut = _mm512_castsi512_ps(_mm512_and_si512(bits, upper));
                const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(cut), _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
                _mm256_store_si256((__m256i *)(void *)(out + 32 * half), _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(cut), 16)));
                rest[half] = _mm512_maskz_sub_ps(finite, rest[half], cut);
            }
    }
}

/* Tiles, one behind the other, as right operands. */
static inline void turn_tiles(uint8_t *tiles, int64_t count)
{
    __m512i x[TILE_ROWS];
    for (const uint8_t *end = tiles + count * TILE_BYTES; tiles < end; tiles += TILE_BYTES) {
#pragma GCC unroll 16
        for (int i = 0; i < TILE_ROWS; i++) x[i] = _mm512_load_si512(tiles + i * STEP_BYTES);
        transpose_tile(x);
#pragma GCC unroll 16
        for (int i = 0; i < TILE_ROWS; i++) _mm512_store_si512(tiles + i * STEP_BYTES, x[i]);
    }
}

/* Packed tiles are right operands. */
static inline int is_packed(const linear_job *job, const part_plan *plan) { return job->w_right && plan->part->packed; }

/* Bytes of a weight's packed tiles: [panel][step][upper and lower 16 rows]. */
static inline int64_t packed_at(const linear_job *job, int64_t row, int64_t step)
{
    return (row / PANEL_ROWS * job->steps + step) * 2 * TILE_BYTES;
}

/* A block's tiles as a copy, those of a step and its terms one behind the other, zeros where W ends. */
static inline void copy_tiles(const linear_job *job, const part_plan *plan, const block *at, uint8_t *tiles)
{
    const int64_t column = at->step * job->columns, left = job->in - column, width = at->steps * job->columns;
    for (int64_t r = 0; r < PANEL_ROWS; r++) {
        uint8_t *out = tiles + r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * STEP_BYTES;
        const int64_t count = r >= at->rows ? 0 : left < width ? left : width;
        if (count < width)
            for (int64_t s = 0; s < at->steps * plan->terms; s++) memset(out + s * 2 * TILE_BYTES, 0, STEP_BYTES);
        if (count <= 0) continue;
        const uint8_t *row = linear_w_at(plan, at->row + r, column);
        if (plan->source == TILES_WIDENED) widen_row(row, count, &plan->table, out, 2 * TILE_BYTES);
        else if (plan->source == TILES_ROUNDED) round_row(row, plan->part->weight.codes.dtype, count, out, 2 * TILE_BYTES);
        else if (plan->source == TILES_SPLIT) split_row(row, plan->part->weight.codes.dtype, count, plan->terms, out, 2 * TILE_BYTES);
        else copy_row(row, count * plan->code_bytes, out, 2 * TILE_BYTES);
    }
    if (job->w_right) turn_tiles(tiles, at->steps * plan->terms * 2);
}

/* The block's tiles: packed ones, W itself where it is the left operand and whole, else a copy in `scratch`. */
static inline panel_tiles find_tiles(const linear_job *job, const part_plan *plan, const block *at, uint8_t *scratch)
{
    if (is_packed(job, plan))
        return (panel_tiles){ (const uint8_t *)plan->part->packed + packed_at(job, at->row, at->step), STEP_BYTES, TILE_BYTES, 2 * TILE_BYTES };
    const int whole = at->rows == PANEL_ROWS && (at->step + at->steps) * job->columns <= job->in;
    if (!job->w_right && whole && plan->source == TILES_IN_MEMORY) {
        const int64_t stride = plan->part->weight.codes.strides[0] * plan->code_bytes;
        return (panel_tiles){ linear_w_at(plan, at->row, at->step * job->columns), stride, TILE_ROWS * stride, STEP_BYTES };
    }
    copy_tiles(job, plan, at, scratch);
    return (panel_tiles){ scratch, STEP_BYTES, TILE_BYTES, 2 * TILE_BYTES };
}

/* Memory that is asked for while other memory is multiplied, a few lines at a time: a panel's rows lie in pages of their own, where
 * the hardware would have to find 32 streams, and all of it at once would stall. */
typedef struct fetch {
    const uint8_t *at;
    int64_t line, lines, rows, stride; /* `rows` rows of `lines` lines, `stride` bytes apart, are left, the first from `line` on */
    int64_t lines_a_step;
} fetch;

/* `rows` rows of `bytes` bytes, while a block takes `steps` steps of tiles. */
static inline fetch fetch_of(const void *at, int64_t bytes, int64_t rows, int64_t stride, int64_t steps)
{
    const int64_t lines = (bytes + 63) / 64;
    return (fetch){ .at = at, .lines = lines, .rows = rows, .stride = stride, .lines_a_step = (lines * rows + steps - 1) / steps };
}

/* The next block of W. */
static inline fetch fetch_block(const linear_job *job, const part_plan *plan, const block *next, int64_t steps)
{
    const int64_t column = next->step * job->columns, rows = plan->rows - next->row < next->rows ? plan->rows - next->row : next->rows;
    const int64_t columns = next->steps * job->columns < job->in - column ? next->steps * job->columns : job->in - column;
    if (rows <= 0 || columns <= 0) return (fetch){ 0 };
    if (is_packed(job, plan))
        return fetch_of((const uint8_t *)plan->part->packed + packed_at(job, next->row, next->step), next->steps * 2 * TILE_BYTES, 1, 0, steps);
    return fetch_of(linear_w_at(plan, next->row, column), columns * plan->code_bytes, rows, plan->part->weight.codes.strides[0] * plan->code_bytes,
                    steps);
}

/* The panel of y that is about to be written. */
static inline fetch fetch_y(const linear_job *job, const part_plan *plan, int64_t row, int64_t first, int64_t groups, int64_t steps)
{
    const octavo_tensor *y = &plan->part->y;
    const int64_t element = y->dtype == OCTAVO_F32 ? 4 : 2, n = first * GROUP, left = job->tokens - n;
    return fetch_of((const uint8_t *)y->data + (n * y->strides[0] + row) * element, PANEL_ROWS * element, left < groups * GROUP ? left : groups * GROUP,
                    y->strides[0] * element, steps);
}

static inline void fetch_lines(fetch *ask)
{
    for (int64_t i = 0; i < ask->lines_a_step && ask->rows > 0; i++) {
        _mm_prefetch((const char *)ask->at + ask->line * 64, _MM_HINT_T1);
        if (++ask->line < ask->lines) continue;
        ask->line = 0, ask->rows--, ask->at += ask->stride;
    }
}

#endif
