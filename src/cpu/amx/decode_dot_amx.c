/* decode_dot_amx.c - scores on AMX tiles: sixteen tokens' keys are one operand, the packed queries the other.
 *
 * A tile of products holds 16 tokens by 16 columns. bf16, e4m3 and e5m2 keys meet q as the exact sum of one to three bf16 terms
 * (as many as q's dtype needs), int8 keys meet q in three int8 digits (one part in 2^23 of the row's largest element): each term of
 * each row is a column. bf16 and int8 rows are read in place, the other codes are widened to a scratch row first. */
#include "cpu/amx/amx_decode.h"
#include <math.h>
#include <string.h>

octavo_decode_dot *octavo_decode_dot_avx512(const octavo_kv_view *kv, int32_t planes);

enum {
    DOT_DIM_MAX = 256,                       /* larger heads take the float32 tiles */
    DOT_TOKENS  = 32,                        /* two tiles of keys at a time         */
    DOT_ROW_BYTES = 2 * 2 * DOT_DIM_MAX,     /* widened: two planes of bf16         */
    INT8_TERMS  = 3
};

static int is_integer(octavo_k_format format) { return octavo_k_scale_bytes(format) == 2; }

static int terms_of(const octavo_decode_q *q)
{
    return is_integer(q->format) ? INT8_TERMS : q->dtype == OCTAVO_BF16 ? 1 : q->dtype == OCTAVO_F16 ? 2 : 3;
}

/* Rows whose terms share a tile of columns: column term * rows + row. */
static int64_t rows_a_tile(int terms) { return terms == 1 ? 16 : terms == 2 ? 8 : 4; }

/* Tiles along head_dim. */
static int64_t steps_of(const octavo_decode_q *q) { return q->row_floats / (is_integer(q->format) ? 64 : 32); }

/* ---- packing ---- */

/* Writes sixteen words of four bytes as one column of a tile. */
static void store_column(uint8_t *tile, int64_t column, __m512i words)
{
    const __m512i rows = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(AMX_ROW_BYTES));
    _mm512_i32scatter_epi32(tile + 4 * column, rows, words, 1);
}

static __m512 two_eights(const float *first, const float *second)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(first)), _mm256_loadu_ps(second), 1);
}

/* The sixteen elements of a step that come first or second; widened codes lie in the order of amx_decode_codes. */
static __m512 step_elements(const octavo_decode_q *q, const float *row, int64_t step, int64_t second)
{
    if (q->format == OCTAVO_K_BF16) return _mm512_loadu_ps(row + 32 * step + 16 * second);
    const float *at = row + 64 * (step / 2) + 8 * (step % 2) + 32 * second;
    return two_eights(at, at + 16);
}

static void pack_bf16(const octavo_decode_q *q, uint8_t *packed)
{
    const int terms = terms_of(q);
    const int64_t rows = rows_a_tile(terms), steps = steps_of(q);
    for (int64_t row = 0; row < q->row_count; row++)
        for (int64_t step = 0; step < steps; step++) {
            uint8_t *tile = packed + (row / rows * steps + step) * AMX_TILE_BYTES;
            __m256i first[3], second[3];
            amx_split(step_elements(q, q->rows + row * q->row_floats, step, 0), terms, first);
            amx_split(step_elements(q, q->rows + row * q->row_floats, step, 1), terms, second);
            for (int term = 0; term < terms; term++)
                store_column(tile, term * rows + row % rows, _mm512_inserti64x4(_mm512_castsi256_si512(first[term]), second[term], 1));
        }
}

/* Behind the tiles, for each row: the factor of its first digit, and 7.5 times its sum. */
static size_t int8_factors_at(const octavo_decode_q *q)
{
    const int64_t rows = rows_a_tile(INT8_TERMS);
    return (size_t)((q->row_count + rows - 1) / rows * steps_of(q) * AMX_TILE_BYTES);
}

/* One step of a row: 64 elements as digits of base 254 below 127 / amax. */
static void pack_int8_step(const float *x, float to_code, int64_t column, int64_t rows, uint8_t *tile)
{
    __m512 left[4];
    for (int i = 0; i < 4; i++) left[i] = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(to_code));
    for (int64_t term = 0; term < INT8_TERMS; term++) {
        uint8_t digits[64];
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
    const int64_t rows = rows_a_tile(INT8_TERMS), steps = steps_of(q);
    float *factors = (float *)(void *)(packed + int8_factors_at(q));
    for (int64_t row = 0; row < q->row_count; row++) {
        const float *x = q->rows + row * q->row_floats;
        __m512 most = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < q->row_floats; i += 16) {
            most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
        }
        const float amax = _mm512_reduce_max_ps(most);
        const float to_code = amax > 0.0f ? 127.0f / amax : 0.0f; 
        factors[2 * row] = amax / 127.0f;
        factors[2 * row + 1] = 7.5f * _mm512_reduce_add_ps(sum);
        for (int64_t step = 0; step < steps; step++)
            pack_int8_step(x + 64 * step, to_code, row % rows, rows, packed + (row / rows * steps + step) * AMX_TILE_BYTES);
    }
}

void octavo_amx_pack(const octavo_decode_q *q, uint8_t *packed)
{
    if (q->format == OCTAVO_K_F16 || q->head_dim > DOT_DIM_MAX) return;
    const int64_t rows = rows_a_tile(terms_of(q));
    memset(packed, 0, (size_t)((q->row_count + rows - 1) / rows * steps_of(q) * AMX_TILE_BYTES));
    if (is_integer(q->format)) pack_int8(q, packed);
    else pack_bf16(q, packed);
}

/* ---- rows that have to be widened, or whose end is not that of a tile ---- */

typedef struct scratch_rows {
    uint8_t bytes[DOT_TOKENS][DOT_ROW_BYTES];
} __attribute__((aligned(64))) scratch_rows;

static void copy_rows(const octavo_decode_span *span, int32_t plane, int64_t t, int64_t count, int64_t bytes, int64_t at, scratch_rows *out)
{
    for (int64_t k = 0; k < count; k++) {
        const uint8_t *row = span->k[plane] + (t + k) * span->k_stride[plane];
        for (int64_t i = 0; i < bytes; i += 64)
            _mm512_store_si512(out->bytes[k] + at + i, _mm512_maskz_loadu_epi8(amx_first_bytes(bytes - i), row + i));
    }
}

static void widen_rows(const octavo_decode_span *span, int32_t plane, int64_t t, int64_t count, int64_t dim, const octavo_amx_codes *codes,
                       int64_t at, scratch_rows *out)
{
    const amx_lookup lookup = amx_lookup_of(codes);
    for (int64_t k = 0; k < count; k++) {
        const uint8_t *row = span->k[plane] + (t + k) * span->k_stride[plane];
        for (int64_t i = 0; i < dim; i += 64) {
            __m512i first, second;
            amx_decode_codes(&lookup, _mm512_maskz_loadu_epi8(amx_first_bytes(dim - i), row + i), &first, &second);
            _mm512_store_si512(out->bytes[k] + at + 2 * i, first);
            _mm512_store_si512(out->bytes[k] + at + 2 * i + 64, second);
        }
    }
}

/* Nibbles to int8 codes, or to 16 times the upper nibble where only that was read: low nibbles first, 64 bytes each. */
static void join_nibbles(const octavo_decode_span *span, int32_t planes, int64_t t, int64_t count, int64_t half, scratch_rows *out)
{
    const __m512i top = _mm512_set1_epi8((char)0xF0);
    const int64_t padded = octavo_decode_round_up(half, 64);
    for (int64_t k = 0; k < count; k++) {
        const uint8_t *base = span->k[0] + (t + k) * span->k_stride[0];
        const uint8_t *more = planes > 1 ? span->k[1] + (t + k) * span->k_stride[1] : base;
        for (int64_t i = 0; i < half; i += 64) {
            const __mmask64 mask = amx_first_bytes(half - i);
            const __m512i h = _mm512_maskz_loadu_epi8(mask, base + i);
            __m512i low = _mm512_slli_epi16(h, 4), high = h;
            if (planes > 1) { /* top ? base : residual, bit by bit */
                const __m512i l = _mm512_maskz_loadu_epi8(mask, more + i);
                low = _mm512_ternarylogic_epi32(top, low, l, 0xCA);
                high = _mm512_ternarylogic_epi32(top, high, _mm512_srli_epi16(l, 4), 0xCA);
            } else {
                low = _mm512_and_si512(low, top);
                high = _mm512_and_si512(high, top);
            }
            _mm512_store_si512(out->bytes[k] + i, low);
            _mm512_store_si512(out->bytes[k] + padded + i, high);
        }
    }
}

/* ---- products ---- */

/* The keys of up to 32 tokens: `steps` tiles of 64 bytes along each row, again and again for each plane. */
typedef struct key_tiles {
    const uint8_t *rows;
    int64_t stride, steps, planes, count;
} key_tiles;

static void multiply_bf16(const key_tiles *keys, const uint8_t *packed, void *products)
{
    const uint8_t *first = keys->rows, *second = keys->rows + AMX_ROWS * keys->stride;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t plane = 0; plane < keys->planes; plane++)
        for (int64_t step = 0; step < keys->steps; step++, first += AMX_ROW_BYTES, second += AMX_ROW_BYTES) {
            _tile_loadd(4, packed + step * AMX_TILE_BYTES, AMX_ROW_BYTES);
            _tile_loadd(2, first, (size_t)keys->stride);
            _tile_dpbf16ps(0, 2, 4);
            if (keys->count <= AMX_ROWS) continue;
            _tile_loadd(3, second, (size_t)keys->stride);
            _tile_dpbf16ps(1, 3, 4);
        }
    _tile_stored(0, products, AMX_ROW_BYTES);
    _tile_stored(1, (uint8_t *)products + AMX_TILE_BYTES, AMX_ROW_BYTES);
}

static void multiply_int8(const key_tiles *keys, const uint8_t *packed, void *products)
{
    const uint8_t *first = keys->rows, *second = keys->rows + AMX_ROWS * keys->stride;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t step = 0; step < keys->steps; step++, first += AMX_ROW_BYTES, second += AMX_ROW_BYTES) {
        _tile_loadd(4, packed + step * AMX_TILE_BYTES, AMX_ROW_BYTES);
        _tile_loadd(2, first, (size_t)keys->stride);
        _tile_dpbssd(0, 2, 4);
        if (keys->count <= AMX_ROWS) continue;
        _tile_loadd(3, second, (size_t)keys->stride);
        _tile_dpbssd(1, 3, 4);
    }
    _tile_stored(0, products, AMX_ROW_BYTES);
    _tile_stored(1, (uint8_t *)products + AMX_TILE_BYTES, AMX_ROW_BYTES);
}

/* The columns of `rows` rows from `group` on become rows of `dots`, their terms added up. */
static void store_bf16(const uint8_t *products, int terms, int64_t rows, int64_t count, float *dots)
{
    const int64_t quads = rows_a_tile(terms) / 4;
    for (int64_t t = 0; t < count; t += AMX_ROWS, products += AMX_TILE_BYTES)
        for (int64_t quad = 0; 4 * quad < rows; quad++) {
            __m512 sum[4], more[4];
            amx_columns(products, quad + (terms - 1) * quads, sum); /* the smallest terms first */
            for (int64_t term = terms - 2; term >= 0; term--) {
                amx_columns(products, quad + term * quads, more);
                for (int i = 0; i < 4; i++) sum[i] = _mm512_add_ps(sum[i], more[i]);
            }
            for (int i = 0; i < 4 && 4 * quad + i < rows; i++) _mm512_storeu_ps(dots + (4 * quad + i) * DECODE_TOKENS + t, sum[i]);
        }
}

/* The digits' sums of sixteen tokens for four rows. */
static void add_digits(const uint8_t *products, __m512 sum[4])
{
    const __m512 weights[INT8_TERMS] = { _mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f / 254.0f), _mm512_set1_ps(1.0f / 64516.0f) };
    for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t term = INT8_TERMS - 1; term >= 0; term--) {
        __m512 columns[4];
        amx_columns(products, term, columns);
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(columns[i])), weights[term], sum[i]);
    }
}

/* base, and residual products where there are any; `offset`: 1 adds 7.5 times the row's sum. */
static void store_int8(const uint8_t *base, const uint8_t *residual, const float *factors, float offset, int64_t rows, int64_t count,
                       float *dots)
{
    for (int64_t t = 0; t < count; t += AMX_ROWS, base += AMX_TILE_BYTES) {
        __m512 sum[4], more[4];
        add_digits(base, sum);
        if (residual) {
            add_digits(residual + t / AMX_ROWS * AMX_TILE_BYTES, more);
            for (int i = 0; i < 4; i++) sum[i] = _mm512_fmadd_ps(more[i], _mm512_set1_ps(1.0f / 254.0f), sum[i]);
        }
        for (int i = 0; i < 4 && i < rows; i++) {
            const __m512 dot = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(factors[2 * i]), _mm512_set1_ps(offset * factors[2 * i + 1]));
            _mm512_storeu_ps(dots + i * DECODE_TOKENS + t, dot);
        }
    }
}

/* ---- tiles of scores ---- */

static void fetch_ahead(const octavo_decode_span *span, int32_t planes, int64_t t, int64_t count, int64_t bytes)
{
    for (int32_t plane = 0; plane < planes; plane++)
        for (int64_t k = t; span->k_ahead[plane] && k < t + count; k++)
            for (int64_t i = 0; i < bytes; i += 64)
                _mm_prefetch((const char *)(span->k_ahead[plane] + k * span->k_stride[plane] + i), _MM_HINT_T0);
}

/* Whether tiles can be loaded from the cache's own rows: whole steps, and sixteen rows of each. */
static int in_place(int64_t bytes, int64_t count) { return bytes % AMX_ROW_BYTES == 0 && count % AMX_ROWS == 0; }

static key_tiles bf16_keys(const octavo_decode_q *q, const octavo_decode_span *span, int32_t planes, int64_t t, int64_t count,
                           scratch_rows *scratch)
{
    const key_tiles widened = { scratch->bytes[0], DOT_ROW_BYTES, steps_of(q), planes, count };
    if (q->format == OCTAVO_K_BF16) {
        if (in_place(2 * q->head_dim, count))
            return (key_tiles){ span->k[0] + t * span->k_stride[0], span->k_stride[0], steps_of(q), 1, count };
        copy_rows(span, 0, t, count, 2 * q->head_dim, 0, scratch);
        return widened;
    }
    const int is_e4m3 = q->format == OCTAVO_K_E4M3 || q->format == OCTAVO_K_E4M3X2;
    widen_rows(span, 0, t, count, q->head_dim, is_e4m3 ? &octavo_amx_e4m3 : &octavo_amx_e5m2, 0, scratch);
    if (planes > 1)
        widen_rows(span, 1, t, count, q->head_dim,
                   !is_e4m3 ? &octavo_amx_e5m2 : q->residual_exponent ? &octavo_amx_e4m3_sixteenth : &octavo_amx_e4m3,
                   2 * q->row_floats, scratch);
    return widened;
}

static inline void dot_bf16_planes(int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span,
                                   float *dots)
{
    const int terms = terms_of(q);
    const int64_t tile_rows = rows_a_tile(terms), group_bytes = steps_of(q) * AMX_TILE_BYTES;
    uint8_t products[2 * AMX_TILE_BYTES] __attribute__((aligned(64)));
    scratch_rows scratch;
    for (int64_t t = 0; t < span->tokens; t += DOT_TOKENS) {
        const int64_t count = span->tokens - t < DOT_TOKENS ? span->tokens - t : DOT_TOKENS;
        fetch_ahead(span, planes, t, count, octavo_k_row_bytes(q->format, q->head_dim));
        const key_tiles keys = bf16_keys(q, span, planes, t, count, &scratch);
        for (int64_t r = 0; r < rows; r += tile_rows) {
            multiply_bf16(&keys, q->packed + (row + r) / tile_rows * group_bytes, products);
            store_bf16(products, terms, rows - r < tile_rows ? rows - r : tile_rows, count, dots + r * DECODE_TOKENS + t);
        }
    }
}

static key_tiles int8_keys(const octavo_decode_q *q, const octavo_decode_span *span, int32_t plane, int32_t planes, int64_t t,
                           int64_t count, scratch_rows *scratch)
{
    const key_tiles widened = { scratch->bytes[0], DOT_ROW_BYTES, steps_of(q), 1, count };
    if (q->format == OCTAVO_K_INT4X2) {
        join_nibbles(span, planes, t, count, (q->head_dim + 1) / 2, scratch);
        return widened;
    }
    if (in_place(q->head_dim, count))
        return (key_tiles){ span->k[plane] + t * span->k_stride[plane], span->k_stride[plane], steps_of(q), 1, count };
    copy_rows(span, plane, t, count, q->head_dim, 0, scratch);
    return widened;
}

static inline void dot_int8_planes(int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span,
                                   float *dots)
{
    const int64_t tile_rows = rows_a_tile(INT8_TERMS), group_bytes = steps_of(q) * AMX_TILE_BYTES;
    const float *factors = (const float *)(const void *)(q->packed + int8_factors_at(q));
    const int nibbles = q->format == OCTAVO_K_INT4X2;
    uint8_t products[2][2 * AMX_TILE_BYTES] __attribute__((aligned(64)));
    scratch_rows scratch[2];
    for (int64_t t = 0; t < span->tokens; t += DOT_TOKENS) {
        const int64_t count = span->tokens - t < DOT_TOKENS ? span->tokens - t : DOT_TOKENS;
        const int32_t separate = nibbles ? 1 : planes;
        key_tiles keys[2];
        fetch_ahead(span, planes, t, count, octavo_k_row_bytes(q->format, q->head_dim));
        for (int32_t plane = 0; plane < separate; plane++) keys[plane] = int8_keys(q, span, plane, planes, t, count, &scratch[plane]);
        for (int64_t r = 0; r < rows; r += tile_rows) {
            const uint8_t *packed = q->packed + (row + r) / tile_rows * group_bytes;
            for (int32_t plane = 0; plane < separate; plane++) multiply_int8(&keys[plane], packed, products[plane]);
            store_int8(products[0], separate > 1 ? products[1] : NULL, factors + 2 * (row + r), nibbles && planes == 1 ? 1.0f : 0.0f,
                       rows - r, count, dots + r * DECODE_TOKENS + t);
        }
    }
}

static void dot_bf16_one(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    dot_bf16_planes(1, q, row, rows, span, dots);
}
static void dot_bf16_two(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    dot_bf16_planes(2, q, row, rows, span, dots);
}
static void dot_int8_one(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    dot_int8_planes(1, q, row, rows, span, dots);
}
static void dot_int8_two(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    dot_int8_planes(2, q, row, rows, span, dots);
}

octavo_decode_dot *octavo_amx_dot(const octavo_kv_view *kv, int32_t planes)
{
    if (kv->k_format == OCTAVO_K_F16 || kv->head_dim > DOT_DIM_MAX) return octavo_decode_dot_avx512(kv, planes);
    const int two = planes > 1 && octavo_k_plane_count(kv->k_format) > 1;
    if (is_integer(kv->k_format)) return two ? dot_int8_two : dot_int8_one;
    return two ? dot_bf16_two : dot_bf16_one;
}
