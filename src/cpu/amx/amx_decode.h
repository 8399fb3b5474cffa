/* amx_decode.h - what the two halves of decode attention on AMX tiles share: the tile configuration, and codes as bf16. */
#ifndef OCTAVO_CPU_AMX_DECODE_H
#define OCTAVO_CPU_AMX_DECODE_H

#include "cpu/decode_tiles.h"
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Every tile is 16 rows of 64 bytes. */
enum {
    AMX_ROWS = 16,
    AMX_ROW_BYTES = 64,
    AMX_TILE_BYTES = 1024,
    AMX_DIM_MAX = 256, /* larger heads take the float32 tiles */
    AMX_INT8_TERMS = 3
};

/* bf16 of the 128 magnitudes of an eight-bit format, as low and high bytes; a code's sign is bit 15. e4m3's are 2^8 times as
 * large: then a normal number's bits are its code's, shifted, and one constant (AMX_E4M3_FACTOR takes it back). */
#define AMX_E4M3_FACTOR 0x1p-8f
typedef struct octavo_amx_codes {
    uint8_t low[128], high[128];
} octavo_amx_codes;

extern const octavo_amx_codes octavo_amx_e4m3, octavo_amx_e4m3_sixteenth, octavo_amx_e5m2;

typedef struct amx_lookup {
    __m512i low[2], high[2];
} amx_lookup;

static inline amx_lookup amx_lookup_of(const octavo_amx_codes *codes)
{
    return (amx_lookup){ { _mm512_loadu_si512(codes->low), _mm512_loadu_si512(codes->low + 64) },
                         { _mm512_loadu_si512(codes->high), _mm512_loadu_si512(codes->high + 64) } };
}

/* 64 codes to bf16: those of even index, and those of odd index. */
static inline void amx_look_up(const amx_lookup *lookup, __m512i codes, __m512i *even, __m512i *odd)
{
    const __m512i low_byte = _mm512_set1_epi16(0x00FF);
    const __m512i low = _mm512_permutex2var_epi8(lookup->low[0], codes, lookup->low[1]);
    const __m512i high = _mm512_permutex2var_epi8(lookup->high[0], codes, lookup->high[1]);
    const __m512i with_sign =
        _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8((char)0x80), 0xF8); /* high | (codes & 0x80) */
    *even =
        _mm512_ternarylogic_epi32(low_byte, low, _mm512_slli_epi16(with_sign, 8), 0xCA); /* low_byte ? first : second, by bits */
    *odd = _mm512_ternarylogic_epi32(low_byte, _mm512_srli_epi16(low, 8), with_sign, 0xCA);
}

/* Codes of normal numbers (zeros and subnormal ones are rare) in the upper byte of each word: the sign stays, exponent and
 * mantissa go to bits 10 .. 4, bit 14 completes the exponent. */
static inline __m512i amx_shift_e4m3(__m512i words)
{
    return _mm512_ternarylogic_epi32(_mm512_srai_epi16(words, 4), _mm512_set1_epi16((short)0x87F0), _mm512_set1_epi16(0x4000),
                                     0xEA);
}

/* Codes of even index moved to the upper bytes. */
static inline __m512i amx_even_up(__m512i codes) { return _mm512_slli_epi16(codes, 8); }

/* Columns [4 * quad, 4 * quad + 4) of sixteen rows of 64 bytes: those of rows i, 4 + i, 8 + i and 12 + i in z[i]. Quads that are
 * to be added are added in this form, so that only the sum is transposed. */
INLINE void amx_quad(const void *rows, int64_t quad, __m512 z[4])
{
    const float *at = (const float *)rows + 4 * quad;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        z[i] = _mm512_castps128_ps512(_mm_loadu_ps(at + 16 * i));
        z[i] = _mm512_insertf32x4(z[i], _mm_loadu_ps(at + 16 * (4 + i)), 1);
        z[i] = _mm512_insertf32x4(z[i], _mm_loadu_ps(at + 16 * (8 + i)), 2);
        z[i] = _mm512_insertf32x4(z[i], _mm_loadu_ps(at + 16 * (12 + i)), 3);
    }
}

/* The same of rows of `columns` floats with tokens in order: rows 4 i .. 4 i + 3 in z[i]. */
INLINE void amx_quad_in_order(const void *rows, int64_t columns, int64_t quad, __m512 z[4])
{
    const float *at = (const float *)rows + 4 * quad;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const float *of = at + 4 * i * columns;
        if (columns == 4) {
            z[i] = _mm512_load_ps(of);
            continue;
        }
        z[i] = _mm512_castps128_ps512(_mm_load_ps(of));
        z[i] = _mm512_insertf32x4(z[i], _mm_load_ps(of + columns), 1);
        z[i] = _mm512_insertf32x4(z[i], _mm_load_ps(of + 2 * columns), 2);
        z[i] = _mm512_insertf32x4(z[i], _mm_load_ps(of + 3 * columns), 3);
    }
}

/* What amx_quad gave as four registers of sixteen rows, one a column. */
INLINE void amx_transpose(const __m512 z[4], __m512 columns[4])
{
    const __m512 a = _mm512_unpacklo_ps(z[0], z[1]), b = _mm512_unpackhi_ps(z[0], z[1]);
    const __m512 c = _mm512_unpacklo_ps(z[2], z[3]), d = _mm512_unpackhi_ps(z[2], z[3]);
    columns[0] = _mm512_shuffle_ps(a, c, 0x44);
    columns[1] = _mm512_shuffle_ps(a, c, 0xEE);
    columns[2] = _mm512_shuffle_ps(b, d, 0x44);
    columns[3] = _mm512_shuffle_ps(b, d, 0xEE);
}

/* Sums of 64 columns to columns in order. Here quarter q of tile j holds columns 16 q + 4 j .. + 3, */
INLINE void amx_order_by_quarters(const __m512 tile[4], __m512 in_order[4])
{
    const __m512 a = _mm512_shuffle_f32x4(tile[0], tile[1], 0x44), b = _mm512_shuffle_f32x4(tile[2], tile[3], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(tile[0], tile[1], 0xEE), d = _mm512_shuffle_f32x4(tile[2], tile[3], 0xEE);
    in_order[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    in_order[1] = _mm512_shuffle_f32x4(a, b, 0xDD);
    in_order[2] = _mm512_shuffle_f32x4(c, d, 0x88);
    in_order[3] = _mm512_shuffle_f32x4(c, d, 0xDD);
}

/* here 16 q + (0, 2, 4, 6), of tile 1 eight more, and of tiles 2 and 3 the odd ones behind those. */
INLINE void amx_order_by_parity(const __m512 tile[4], __m512 in_order[4])
{
    const __m512 quads[4] = { _mm512_unpacklo_ps(tile[0], tile[2]), _mm512_unpackhi_ps(tile[0], tile[2]),
                              _mm512_unpacklo_ps(tile[1], tile[3]), _mm512_unpackhi_ps(tile[1], tile[3]) };
    amx_order_by_quarters(quads, in_order);
}

/* x as the sum of `terms` bf16 numbers, each what is left rounded to nearest. */
INLINE void amx_split(__m512 x, int terms, __m256i *term)
{
#pragma GCC unroll 4
    for (int i = 0; i < terms; i++) {
        term[i] = (__m256i)_mm512_cvtneps_pbh(x);
        x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(term[i]), 16)));
    }
}

static inline __mmask64 amx_first_bytes(int64_t count) { return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }

/* Keys whose scores come from tiles; the others take the vectors of avx512, f32 because nothing of it may be rounded. */
INLINE int amx_takes(octavo_k_format format, int64_t head_dim)
{
    return format != OCTAVO_K_F16 && format != OCTAVO_K_F32 && head_dim <= AMX_DIM_MAX;
}

/* ---- how q is packed ---- */

INLINE int amx_is_integer(octavo_k_format format) { return octavo_k_scale_bytes(format) == 2; }

INLINE int amx_is_e4m3(octavo_k_format format) { return format == OCTAVO_K_E4M3 || format == OCTAVO_K_E4M3X2; }

INLINE int amx_terms(const octavo_decode_q *q)
{
    return amx_is_integer(q->format) ? AMX_INT8_TERMS : q->dtype == OCTAVO_BF16 ? 1 : q->dtype == OCTAVO_F16 ? 2 : 3;
}

/* Rows whose terms share a tile of columns: column term * rows + row. */
INLINE int64_t amx_tile_rows(int terms) { return terms == 1 ? 16 : terms == 2 ? 8 : 4; }

/* Tiles along head_dim. */
INLINE int64_t amx_steps(octavo_k_format format, const octavo_decode_q *q)
{
    return format == OCTAVO_K_BF16 ? (q->head_dim + 31) / 32 : q->row_floats / (amx_is_integer(format) ? 64 : 32);
}

/* Behind the tiles, for each row: the factor of its first digit, and 7.5 times its sum. */
INLINE size_t amx_factors_at(const octavo_decode_q *q)
{
    const int64_t rows = amx_tile_rows(AMX_INT8_TERMS);
    return (size_t)((q->row_count + rows - 1) / rows * amx_steps(q->format, q) * AMX_TILE_BYTES);
}

/* Operand of ldtilecfg. */
typedef struct octavo_amx_tiles {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} octavo_amx_tiles;

extern const octavo_amx_tiles octavo_amx_whole_tiles; /* eight of AMX_TILE_BYTES */

octavo_decode_dot *octavo_amx_dot(const octavo_kv_view *kv, int32_t planes);
octavo_decode_axpy *octavo_amx_axpy(octavo_v_format format);
octavo_decode_scan *octavo_amx_scan(const octavo_kv_view *kv);
octavo_decode_attend *octavo_amx_attend(const octavo_kv_view *kv, int32_t planes, int64_t rows, octavo_dtype q_dtype);
void octavo_amx_pack(const octavo_decode_q *q, uint8_t *packed);

#endif
