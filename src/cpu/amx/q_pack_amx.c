/* q_pack_amx.c - the queries of a kv head as operands of AMX tiles.
 *
 * A tile along head_dim holds sixteen columns of sixteen words of four bytes: two bf16 or four int8 elements. The terms of a row
 * are columns of the same tile. */
#include "cpu/amx/amx_decode.h"
#include <string.h>

/* Writes sixteen words of four bytes as one column of a tile. */
static void store_column(uint8_t *tile, int64_t column, __m512i words)
{
    const __m512i rows = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(AMX_ROW_BYTES));
    _mm512_i32scatter_epi32(tile + 4 * column, rows, words, 1);
}

/* The sixteen elements of a step that come first or second. Widened codes lie in slabs of 64: even ones, then odd ones. */
static __m512 step_elements(const octavo_decode_q *q, const float *row, int64_t step, int64_t second)
{
    if (q->format == OCTAVO_K_BF16) return _mm512_loadu_ps(row + 32 * step + 16 * second);
    const __m512i twos = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const float *at = row + 64 * (step / 2) + 32 * second;
    const __m512 x = _mm512_permutex2var_ps(_mm512_loadu_ps(at), _mm512_add_epi32(twos, _mm512_set1_epi32((int)(step % 2))),
                                            _mm512_loadu_ps(at + 16));
    return amx_is_e4m3(q->format) ? _mm512_mul_ps(x, _mm512_set1_ps(AMX_E4M3_FACTOR)) : x;
}

static void pack_bf16(const octavo_decode_q *q, uint8_t *packed)
{
    const int terms = amx_terms(q);
    const int64_t rows = amx_tile_rows(terms), steps = amx_steps(q->format, q);
    for (int64_t row = 0; row < q->row_count; row++)
        for (int64_t step = 0; step < steps; step++) {
            uint8_t *tile = packed + (row / rows * steps + step) * AMX_TILE_BYTES;
            __m256i first[3], second[3];
            amx_split(step_elements(q, q->rows + row * q->row_floats, step, 0), 3, first);
            amx_split(step_elements(q, q->rows + row * q->row_floats, step, 1), 3, second);
#pragma GCC unroll 4
            for (int term = 0; term < terms; term++)
                store_column(tile, term * rows + row % rows,
                             _mm512_inserti64x4(_mm512_castsi256_si512(first[term]), second[term], 1));
        }
}

/* One step of a row: 64 elements as digits of base 254 below 127 / amax. */
static void pack_int8_step(const float *x, float to_code, int64_t column, int64_t rows, uint8_t *tile)
{
    __m512 left[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) left[i] = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(to_code));
#pragma GCC unroll 4
    for (int64_t term = 0; term < AMX_INT8_TERMS; term++) {
        uint8_t digits[64];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m512 digit = _mm512_roundscale_ps(left[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            _mm_storeu_si128((__m128i *)(void *)(digits + 16 * i), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(digit)));
            left[i] = _mm512_mul_ps(_mm512_sub_ps(left[i], digit), _mm512_set1_ps(254.0f));
        }
        store_column(tile, term * rows + column, _mm512_loadu_si512(digits));
    }
}

static void pack_int8(const octavo_decode_q *q, uint8_t *packed)
{
    const int64_t rows = amx_tile_rows(AMX_INT8_TERMS), steps = amx_steps(q->format, q);
    float *factors = (float *)(void *)(packed + amx_factors_at(q));
    for (int64_t row = 0; row < q->row_count; row++) {
        const float *x = q->rows + row * q->row_floats;
        __m512 most = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < q->row_floats; i += 16) {
            most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
        }
        const float amax = _mm512_reduce_max_ps(most);
        const float to_code = amax > 0x1p-118f ? 127.0f / amax : 0.0f; /* below, 127 / amax is infinite and q nothing */
        factors[2 * row] = amax / 127.0f;
        factors[2 * row + 1] = 7.5f * _mm512_reduce_add_ps(sum);
        for (int64_t step = 0; step < steps; step++)
            pack_int8_step(x + 64 * step, to_code, row % rows, rows, packed + (row / rows * steps + step) * AMX_TILE_BYTES);
    }
}

void octavo_amx_pack(const octavo_decode_q *q, uint8_t *packed)
{
    if (!amx_takes(q->format, q->head_dim)) return;
    const int64_t rows = amx_tile_rows(amx_terms(q));
    memset(packed, 0, (size_t)((q->row_count + rows - 1) / rows * amx_steps(q->format, q) * AMX_TILE_BYTES));
    if (amx_is_integer(q->format))
        pack_int8(q, packed);
    else
        pack_bf16(q, packed);
}
