/* decode_axpy_amx.c - weighted sums of values on AMX tiles: the weights of up to sixteen rows are one operand, tokens the reduction.
 *
 * bf16 values meet the weights as three bf16 terms (all 24 bits), e4m3 values as two. int8 values meet them as four digits of base 256,
 * fixed point below the largest weight of the row in the span. Each term of each row is a row of the tile. Values of neighbouring
 * tokens have to lie side by side: they are interleaved in a scratch tile on the way. */
#include "cpu/amx/amx_decode.h"
#include <string.h>

octavo_decode_axpy *octavo_decode_axpy_avx512(octavo_v_format format);

enum {
    AXPY_COLUMNS = 64,                  /* of the output at a time: four tiles    */
    AXPY_HALF = 32,                     /* tokens that a tile of bf16 reduces     */
    BF16_TERMS = 3, E4M3_TERMS = 2, INT8_DIGITS = 4
};

/* Four tiles side by side, sixteen columns each: row i of tile j at [j][i]. */
typedef struct value_tiles {
    uint8_t bytes[4][AMX_ROWS][AMX_ROW_BYTES];
} __attribute__((aligned(64))) value_tiles;

/* ---- weights ---- */

/* terms * 16 / terms rows of 32 weights, in two halves of the span: row term * (16 / terms) + r. */
static void split_weights(const float *weights, int64_t rows, int terms, int64_t tile_rows, int64_t tokens,
                          uint8_t out[2][AMX_ROWS][AMX_ROW_BYTES])
{
    memset(out, 0, 2 * AMX_TILE_BYTES);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < tokens; t += 16) {
            const int64_t left = tokens - t;
            const __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFF : (1u << left) - 1u);
            __m256i term[BF16_TERMS];
            amx_split(_mm512_maskz_loadu_ps(mask, weights + r * DECODE_TOKENS + t), terms, term);
            for (int k = 0; k < terms; k++)
                _mm256_storeu_si256((__m256i *)(void *)(out[t / AXPY_HALF][k * tile_rows + r] + 2 * (t % AXPY_HALF)), term[k]);
        }
}

/* Rows digit * 4 + r of 64 weights; exponents[r]: a weight is its digits' number times 2^exponent. */
static void digit_weights(const float *weights, int64_t rows, int64_t tokens, uint8_t out[AMX_ROWS][AMX_ROW_BYTES], float *exponents)
{
    const __m512i by_digit = _mm512_setr_epi32(0x0C080400, 0x1C181410, 0x2C282420, 0x3C383430, 0x0D090501, 0x1D191511, 0x2D292521,
                                               0x3D393531, 0x0E0A0602, 0x1E1A1612, 0x2E2A2622, 0x3E3A3632, 0x0F0B0703, 0x1F1B1713,
                                               0x2F2B2723, 0x3F3B3733);
    memset(out, 0, AMX_TILE_BYTES);
    for (int64_t r = 0; r < rows; r++) {
        __m512 x[4], most = _mm512_setzero_ps();
        for (int64_t i = 0; i < 4; i++) {
            const int64_t left = tokens - 16 * i;
            const __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1u << left) - 1u);
            x[i] = _mm512_maskz_loadu_ps(mask, weights + r * DECODE_TOKENS + 16 * i);
            most = _mm512_max_ps(most, x[i]);
        }
        const float largest = _mm512_reduce_max_ps(most);
        const __m512 exponent = largest > 0.0f ? _mm512_getexp_ps(_mm512_set1_ps(largest)) : _mm512_setzero_ps();
        const __m512 up = _mm512_sub_ps(_mm512_set1_ps(31.0f), exponent);
        __m512i digits[4];
        for (int i = 0; i < 4; i++)
            digits[i] = _mm512_permutexvar_epi8(by_digit, _mm512_cvtps_epu32(_mm512_scalef_ps(x[i], up)));
        /* Quarter d of digits[i] is digit d of tokens 16 i ..: transpose the quarters. */
        const __m512i a = _mm512_shuffle_i32x4(digits[0], digits[1], 0x44), b = _mm512_shuffle_i32x4(digits[2], digits[3], 0x44);
        const __m512i c = _mm512_shuffle_i32x4(digits[0], digits[1], 0xEE), d = _mm512_shuffle_i32x4(digits[2], digits[3], 0xEE);
        _mm512_store_si512(out[r], _mm512_shuffle_i32x4(a, b, 0x88));
        _mm512_store_si512(out[4 + r], _mm512_shuffle_i32x4(a, b, 0xDD));
        _mm512_store_si512(out[8 + r], _mm512_shuffle_i32x4(c, d, 0x88));
        _mm512_store_si512(out[12 + r], _mm512_shuffle_i32x4(c, d, 0xDD));
        exponents[r] = -_mm512_cvtss_f32(up);
    }
}

/* ---- values ---- */

static __m512i value_bytes(const octavo_decode_span *span, int64_t t, int64_t at, int64_t bytes)
{
    if (t >= span->tokens || bytes <= 0) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi8(amx_first_bytes(bytes), span->v + t * span->v_stride + at);
}

static void fetch_ahead(const octavo_decode_span *span, int64_t t, int64_t count, int64_t at, int64_t bytes)
{
    for (int64_t k = t; span->v_ahead && k < t + count; k++)
        for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(span->v_ahead + k * span->v_stride + at + i), _MM_HINT_T0);
}

/* Pairs of 32 tokens from t on, `columns` bf16 columns from `from` on. Quarter q of tile j's rows holds columns
 * 32 (j / 2) + 8 q + 4 (j % 2) .. + 3. */
static void pair_bf16(const octavo_decode_span *span, int64_t t, int64_t from, int64_t columns, value_tiles *tiles)
{
    fetch_ahead(span, t, AXPY_HALF, 2 * from, 2 * columns);
    for (int64_t i = 0; i < AMX_ROWS; i++)
        for (int64_t half = 0; half < 2; half++) {
            const int64_t at = 2 * (from + 32 * half), bytes = 2 * (columns - 32 * half);
            const __m512i even = value_bytes(span, t + 2 * i, at, bytes), odd = value_bytes(span, t + 2 * i + 1, at, bytes);
            _mm512_store_si512(tiles->bytes[2 * half][i], _mm512_unpacklo_epi16(even, odd));
            _mm512_store_si512(tiles->bytes[2 * half + 1][i], _mm512_unpackhi_epi16(even, odd));
        }
}

/* The same of e4m3. Quarter q of tile j's rows holds columns 16 q + 4 j .. + 3. */
static void pair_e4m3(const octavo_decode_span *span, int64_t t, int64_t from, int64_t columns, value_tiles *tiles)
{
    const amx_lookup lookup = amx_lookup_of(&octavo_amx_e4m3);
    fetch_ahead(span, t, AXPY_HALF, from, columns);
    for (int64_t i = 0; i < AMX_ROWS; i++) {
        const __m512i even = value_bytes(span, t + 2 * i, from, columns), odd = value_bytes(span, t + 2 * i + 1, from, columns);
        __m512i first, second;
        amx_decode_codes(&lookup, _mm512_unpacklo_epi8(even, odd), &first, &second);
        _mm512_store_si512(tiles->bytes[0][i], first);
        _mm512_store_si512(tiles->bytes[1][i], second);
        amx_decode_codes(&lookup, _mm512_unpackhi_epi8(even, odd), &first, &second);
        _mm512_store_si512(tiles->bytes[2][i], first);
        _mm512_store_si512(tiles->bytes[3][i], second);
    }
}

/* Quads of 64 tokens of int8; columns as pair_e4m3. */
static void quad_int8(const octavo_decode_span *span, int64_t from, int64_t columns, value_tiles *tiles)
{
    fetch_ahead(span, 0, DECODE_TOKENS, from, columns);
    for (int64_t i = 0; i < AMX_ROWS; i++) {
        const __m512i a = value_bytes(span, 4 * i, from, columns), b = value_bytes(span, 4 * i + 1, from, columns);
        const __m512i c = value_bytes(span, 4 * i + 2, from, columns), d = value_bytes(span, 4 * i + 3, from, columns);
        const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
        const __m512i ab2 = _mm512_unpackhi_epi8(a, b), cd2 = _mm512_unpackhi_epi8(c, d);
        _mm512_store_si512(tiles->bytes[0][i], _mm512_unpacklo_epi16(ab, cd));
        _mm512_store_si512(tiles->bytes[1][i], _mm512_unpackhi_epi16(ab, cd));
        _mm512_store_si512(tiles->bytes[2][i], _mm512_unpacklo_epi16(ab2, cd2));
        _mm512_store_si512(tiles->bytes[3][i], _mm512_unpackhi_epi16(ab2, cd2));
    }
}

/* ---- sums ---- */

static void multiply_bf16(const uint8_t weights[2][AMX_ROWS][AMX_ROW_BYTES], const value_tiles *values, int64_t halves, value_tiles *sums)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t half = 0; half < halves; half++) {
        _tile_loadd(4, weights[half], AMX_ROW_BYTES);
        _tile_loadd(5, values[half].bytes[0], AMX_ROW_BYTES);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, values[half].bytes[1], AMX_ROW_BYTES);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, values[half].bytes[2], AMX_ROW_BYTES);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, values[half].bytes[3], AMX_ROW_BYTES);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, sums->bytes[0], AMX_ROW_BYTES);
    _tile_stored(1, sums->bytes[1], AMX_ROW_BYTES);
    _tile_stored(2, sums->bytes[2], AMX_ROW_BYTES);
    _tile_stored(3, sums->bytes[3], AMX_ROW_BYTES);
}

static void multiply_int8(const uint8_t weights[AMX_ROWS][AMX_ROW_BYTES], const value_tiles *values, value_tiles *sums)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, weights, AMX_ROW_BYTES);
    _tile_loadd(5, values->bytes[0], AMX_ROW_BYTES);
    _tile_dpbusd(0, 4, 5);
    _tile_loadd(6, values->bytes[1], AMX_ROW_BYTES);
    _tile_dpbusd(1, 4, 6);
    _tile_loadd(7, values->bytes[2], AMX_ROW_BYTES);
    _tile_dpbusd(2, 4, 7);
    _tile_loadd(5, values->bytes[3], AMX_ROW_BYTES);
    _tile_dpbusd(3, 4, 5);
    _tile_stored(0, sums->bytes[0], AMX_ROW_BYTES);
    _tile_stored(1, sums->bytes[1], AMX_ROW_BYTES);
    _tile_stored(2, sums->bytes[2], AMX_ROW_BYTES);
    _tile_stored(3, sums->bytes[3], AMX_ROW_BYTES);
}

/* Adds 64 columns, of which the first `columns` exist. */
static void add_columns(float *out, const __m512 in_order[4], int64_t columns)
{
    for (int64_t i = 0; i < 4 && 16 * i < columns; i++) {
        const int64_t left = columns - 16 * i;
        const __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFF : (1u << left) - 1u);
        _mm512_mask_storeu_ps(out + 16 * i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + 16 * i), in_order[i]));
    }
}

/* Tiles of pair_e4m3 and quad_int8 to columns in order. */
static void order_by_quarters(const __m512 tile[4], __m512 in_order[4])
{
    const __m512 a = _mm512_shuffle_f32x4(tile[0], tile[1], 0x44), b = _mm512_shuffle_f32x4(tile[2], tile[3], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(tile[0], tile[1], 0xEE), d = _mm512_shuffle_f32x4(tile[2], tile[3], 0xEE);
    in_order[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    in_order[1] = _mm512_shuffle_f32x4(a, b, 0xDD);
    in_order[2] = _mm512_shuffle_f32x4(c, d, 0x88);
    in_order[3] = _mm512_shuffle_f32x4(c, d, 0xDD);
}

/* Tiles of pair_bf16 to columns in order. */
static void order_by_pairs(const __m512 tile[4], __m512 in_order[4])
{
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    in_order[0] = _mm512_permutex2var_ps(tile[0], low, tile[1]);
    in_order[1] = _mm512_permutex2var_ps(tile[0], high, tile[1]);
    in_order[2] = _mm512_permutex2var_ps(tile[2], low, tile[3]);
    in_order[3] = _mm512_permutex2var_ps(tile[2], high, tile[3]);
}

static void add_bf16(const value_tiles *sums, int terms, int64_t tile_rows, int64_t rows, int64_t columns, float *out, int64_t out_stride)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512 tile[4], in_order[4];
        for (int j = 0; j < 4; j++) {
            tile[j] = _mm512_load_ps(sums->bytes[j][(terms - 1) * tile_rows + r]); /* the smallest terms first */
            for (int64_t term = terms - 2; term >= 0; term--)
                tile[j] = _mm512_add_ps(tile[j], _mm512_load_ps(sums->bytes[j][term * tile_rows + r]));
        }
        if (terms == E4M3_TERMS) order_by_quarters(tile, in_order);
        else order_by_pairs(tile, in_order);
        add_columns(out + r * out_stride, in_order, columns);
    }
}

static void add_int8(const value_tiles *sums, const float *exponents, int64_t rows, int64_t columns, float *out, int64_t out_stride)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512 tile[4], in_order[4];
        for (int j = 0; j < 4; j++) {
            __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums->bytes[j][r]));
            for (int64_t digit = 1; digit < INT8_DIGITS; digit++) {
                const __m512 more = _mm512_cvtepi32_ps(_mm512_load_si512(sums->bytes[j][4 * digit + r]));
                sum = _mm512_fmadd_ps(more, _mm512_set1_ps((float)(1 << 8 * digit)), sum);
            }
            tile[j] = _mm512_scalef_ps(sum, _mm512_set1_ps(exponents[r]));
        }
        order_by_quarters(tile, in_order);
        add_columns(out + r * out_stride, in_order, columns);
    }
}

static inline void axpy_bf16_terms(int terms, float *out, int64_t out_stride, const float *weights, int64_t rows,
                                   const octavo_decode_span *span, int64_t v_dim)
{
    const int64_t tile_rows = terms == E4M3_TERMS ? 8 : 4, halves = (span->tokens + AXPY_HALF - 1) / AXPY_HALF;
    uint8_t split[DECODE_ROWS / 4][2][AMX_ROWS][AMX_ROW_BYTES] __attribute__((aligned(64)));
    value_tiles values[2], sums;
    for (int64_t r = 0; r < rows; r += tile_rows)
        split_weights(weights + r * DECODE_TOKENS, rows - r < tile_rows ? rows - r : tile_rows, terms, tile_rows, span->tokens,
                      split[r / tile_rows]);
    for (int64_t from = 0; from < v_dim; from += AXPY_COLUMNS) {
        const int64_t columns = v_dim - from < AXPY_COLUMNS ? v_dim - from : AXPY_COLUMNS;
        for (int64_t half = 0; half < halves; half++) {
            if (terms == E4M3_TERMS) pair_e4m3(span, half * AXPY_HALF, from, columns, &values[half]);
            else pair_bf16(span, half * AXPY_HALF, from, columns, &values[half]);
        }
        for (int64_t r = 0; r < rows; r += tile_rows) {
            multiply_bf16((const uint8_t(*)[AMX_ROWS][AMX_ROW_BYTES])split[r / tile_rows], values, halves, &sums);
            add_bf16(&sums, terms, tile_rows, rows - r < tile_rows ? rows - r : tile_rows, columns, out + r * out_stride + from, out_stride);
        }
    }
}

static void axpy_bf16(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span, int64_t v_dim)
{
    axpy_bf16_terms(BF16_TERMS, out, out_stride, weights, rows, span, v_dim);
}

static void axpy_e4m3(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span, int64_t v_dim)
{
    axpy_bf16_terms(E4M3_TERMS, out, out_stride, weights, rows, span, v_dim);
}

static void axpy_int8(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span, int64_t v_dim)
{
    const int64_t tile_rows = 4;
    uint8_t digits[DECODE_ROWS / 4][AMX_ROWS][AMX_ROW_BYTES] __attribute__((aligned(64)));
    float exponents[DECODE_ROWS];
    value_tiles values, sums;
    for (int64_t r = 0; r < rows; r += tile_rows)
        digit_weights(weights + r * DECODE_TOKENS, rows - r < tile_rows ? rows - r : tile_rows, span->tokens, digits[r / tile_rows], exponents + r);
    for (int64_t from = 0; from < v_dim; from += AXPY_COLUMNS) {
        const int64_t columns = v_dim - from < AXPY_COLUMNS ? v_dim - from : AXPY_COLUMNS;
        quad_int8(span, from, columns, &values);
        for (int64_t r = 0; r < rows; r += tile_rows) {
            multiply_int8((const uint8_t(*)[AMX_ROW_BYTES])digits[r / tile_rows], &values, &sums);
            add_int8(&sums, exponents + r, rows - r < tile_rows ? rows - r : tile_rows, columns, out + r * out_stride + from, out_stride);
        }
    }
}

octavo_decode_axpy *octavo_amx_axpy(octavo_v_format format)
{
    switch (format) {
    case OCTAVO_V_BF16: return axpy_bf16;
    case OCTAVO_V_F16:  return octavo_decode_axpy_avx512(format);
    case OCTAVO_V_E4M3: return axpy_e4m3;
    case OCTAVO_V_INT8: return axpy_int8;
    }
    return axpy_bf16;
}
