/* project_operands_amx.h - the operands of the K projection as AMX wants them: h in tiles of column pairs, narrow weights as bf16.
 *
 * A tile is 16 rows of 64 bytes. W: 16 rows of W, 32 columns. h: 16 pairs of columns, of each the values of 16 tokens.
 * Sums: 16 rows of W, 16 tokens, float32. */
#ifndef OCTAVO_CPU_AMX_PROJECT_OPERANDS_AMX_H
#define OCTAVO_CPU_AMX_PROJECT_OPERANDS_AMX_H

#include "format/bf16.h"
#include "format/fp8_e4m3.h"
#include "kernel/k_project_plan.h"
#include <immintrin.h>
#include <string.h>

enum {
    TILE_ROWS = 16, TILE_BYTES = 1024,
    STEP = OCTAVO_PROJECT_STEP,      /* columns of a tile of W                                    */
    GROUP = OCTAVO_PROJECT_GROUP,    /* tokens of a tile of h                                     */
    PANEL_ROWS = 2 * TILE_ROWS,      /* rows of W that are multiplied together                    */
    TERMS_MAX = 3
};

/* The 16x16 transpose of 32-bit elements. */
static inline void transpose_tile(__m512i x[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        a[2 * i]     = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i]     = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* now 4x4 of 128 bits: even columns of the first and second eight rows, then odd ones */
        const __m512i even_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xDD);
        const __m512i even_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xDD);
        x[i]      = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        x[i + 4]  = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        x[i + 8]  = _mm512_shuffle_i32x4(even_low, even_high, 0xDD);
        x[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xDD);
    }
}

/* bf16 terms whose sum is a value of this type: 8 significant bits each. */
static inline int terms_of(octavo_dtype dtype) { return dtype == OCTAVO_BF16 ? 1 : dtype == OCTAVO_F16 ? 2 : 3; }

/* `count` values of h, at most 32 and none where it is negative, zeros behind them, as `terms` rows of 32 bf16. Cutting keeps every rest exact; Inf leaves a NaN. */
static inline void split_terms(const octavo_tensor *h, int64_t at, int64_t count, int terms, __m512i out[TERMS_MAX])
{
    const __mmask32 all = count >= 32 ? 0xFFFFFFFFu : count > 0 ? (1u << count) - 1u : 0u;
    if (terms == 1) {
        out[0] = _mm512_maskz_loadu_epi16(all, (const uint16_t *)h->data + at);
        return;
    }
    __m512 low, high;
    if (h->dtype == OCTAVO_F16) {
        const __m512i halves = _mm512_maskz_loadu_epi16(all, (const uint16_t *)h->data + at);
        low  = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    } else {
        low  = _mm512_maskz_loadu_ps((__mmask16)all, (const float *)h->data + at);
        high = _mm512_maskz_loadu_ps((__mmask16)(all >> 16), (const float *)h->data + at + 16);
    }
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u);
    for (int term = 0; term < terms; term++) {
        const __m512i cut_low = _mm512_and_si512(_mm512_castps_si512(low), upper), cut_high = _mm512_and_si512(_mm512_castps_si512(high), upper);
        const __m256i first = _mm512_cvtepi32_epi16(_mm512_srli_epi32(cut_low, 16));
        out[term] = _mm512_inserti64x4(_mm512_castsi256_si512(first), _mm512_cvtepi32_epi16(_mm512_srli_epi32(cut_high, 16)), 1);
        low  = _mm512_sub_ps(low, _mm512_castsi512_ps(cut_low));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(cut_high));
    }
}

/* The columns of a step: 32 neighbours; or of 64 those with even numbers, then those with odd ones, as widen_row leaves them. */
typedef enum column_order { COLUMNS_IN_ORDER = 0, COLUMNS_EVEN_ODD = 1 } column_order;

static inline void load_step(const octavo_tensor *h, int64_t row, int64_t step, int terms, column_order order, __m512i out[TERMS_MAX])
{
    const int64_t column = order == COLUMNS_EVEN_ODD ? step / 2 * 2 * STEP : step * STEP, left = h->shape[2] - column;
    split_terms(h, row + column, left, terms, out);
    if (order == COLUMNS_IN_ORDER) return;
    __m512i more[TERMS_MAX];
    split_terms(h, row + column + STEP, left - STEP, terms, more);
    const __m512i parity = _mm512_set1_epi32(step % 2 ? 0x00010001 : 0);
    const __m512i pick = _mm512_or_si512(parity, _mm512_add_epi32(_mm512_set1_epi32(0x00020000),
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(0x00040004))));
    for (int term = 0; term < terms; term++) out[term] = _mm512_permutex2var_epi16(out[term], pick, more[term]);
}

/* One step of up to 16 tokens, from token n of the call on, as `terms` tiles. */
static inline void pack_step(const octavo_k_project_params *p, int64_t n, int64_t tokens, int64_t step, int terms, column_order order,
                             uint8_t *tiles)
{
    __m512i rows[TERMS_MAX][TILE_ROWS], split[TERMS_MAX];
    for (int64_t t = 0; t < TILE_ROWS; t++) {
        if (t < tokens) load_step(&p->h, octavo_project_h_row(p, n + t), step, terms, order, split);
        for (int term = 0; term < terms; term++) rows[term][t] = t < tokens ? split[term] : _mm512_setzero_si512();
    }
    for (int term = 0; term < terms; term++) {
        transpose_tile(rows[term]);
        for (int i = 0; i < TILE_ROWS; i++) _mm512_store_si512(tiles + term * TILE_BYTES + i * 64, rows[term][i]);
    }
}

/* The bf16 of each of 256 codes, low bytes and high bytes apart: 64 look-ups take two shuffles a half of the codes. */
typedef struct code_table {
    uint8_t low[256], high[256];
    int signed_magnitude; /* the upper half of the codes is the lower with the sign bit set */
} code_table;

static inline void code_table_init(code_table *table, octavo_dtype dtype)
{
    table->signed_magnitude = dtype == OCTAVO_E4M3;
    for (int code = 0; code < 256; code++) {
        const float x = dtype == OCTAVO_E4M3 ? octavo_e4m3_to_float((uint8_t)code) : (float)(int8_t)(uint8_t)code;
        const uint16_t bits = octavo_bf16_from_float(x);
        table->low[code] = (uint8_t)(bits & 255u);
        table->high[code] = (uint8_t)(bits >> 8);
    }
}

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

static inline void copy_row(const uint16_t *codes, int64_t count, uint8_t *out, int64_t stride)
{
    for (int64_t i = 0; i < count; i += 32, out += stride) {
        const __mmask32 there = count - i >= 32 ? 0xFFFFFFFFu : (1u << (count - i)) - 1u;
        _mm512_store_si512(out, _mm512_maskz_loadu_epi16(there, codes + i));
    }
}

#endif
