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
    DOT_DIM_MAX = 256, /* larger heads take the float32 tiles */
    INT8_TERMS  = 3,
    SLAB_BYTES  = 128, /* of a widened row: 64 codes          */
    GROUPS_MAX  = DECODE_ROWS / 4
};

static int is_integer(octavo_k_format format) { return octavo_k_scale_bytes(format) == 2; }

static int terms_of(const octavo_decode_q *q)
{
    return is_integer(q->format) ? INT8_TERMS : q->dtype == OCTAVO_BF16 ? 1 : q->dtype == OCTAVO_F16 ? 2 : 3;
}

/* Rows whose terms share a tile of columns: column term * rows + row. */
static int64_t rows_a_tile(int terms) { return terms == 1 ? 16 : terms == 2 ? 8 : 4; }

/* Tiles along head_dim. */
static int64_t steps_of(const octavo_decode_q *q)
{
    return q->format == OCTAVO_K_BF16 ? (q->head_dim + 31) / 32 : q->row_floats / (is_integer(q->format) ? 64 : 32);
}

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

/* ---- keys ---- */

/* 64 tokens' part of a row, as tiles: one or two steps of 64 bytes. */
typedef struct key_slab {
    const uint8_t *rows;
    int64_t stride;
    int64_t step[2], steps; /* which steps of q they meet */
} key_slab;

typedef struct slab_rows {
    uint8_t bytes[DECODE_TOKENS][SLAB_BYTES];
} __attribute__((aligned(64))) slab_rows;

static void fetch_ahead(const octavo_decode_span *span, int32_t plane, int64_t from, int64_t bytes)
{
    const uint8_t *ahead = span->k_ahead[plane];
    for (int64_t k = 0; ahead && k < span->tokens; k++)
        for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(ahead + k * span->k_stride[plane] + from + i), _MM_HINT_T0);
}

/* Bytes [from, from + bytes) of each row as they are, zeros up to the end of the slab. */
static void copy_slab(const octavo_decode_span *span, int32_t plane, int64_t from, int64_t bytes, slab_rows *out)
{
    const __mmask64 first = amx_first_bytes(bytes), second = bytes > 64 ? amx_first_bytes(bytes - 64) : 0;
    for (int64_t k = 0; k < span->tokens; k++) {
        const uint8_t *row = span->k[plane] + k * span->k_stride[plane] + from;
        _mm512_store_si512(out->bytes[k], _mm512_maskz_loadu_epi8(first, row));
        _mm512_store_si512(out->bytes[k] + 64, _mm512_maskz_loadu_epi8(second, row + 64));
    }
}

static void widen_slab(const octavo_decode_span *span, int32_t plane, int64_t from, int64_t codes, const octavo_amx_codes *table,
                       slab_rows *out)
{
    const amx_lookup lookup = amx_lookup_of(table);
    const __mmask64 mask = amx_first_bytes(codes);
    for (int64_t k = 0; k < span->tokens; k++) {
        const uint8_t *row = span->k[plane] + k * span->k_stride[plane] + from;
        const uint8_t *ahead = span->k_ahead[plane];
        __m512i first, second;
        if (ahead) _mm_prefetch((const char *)(ahead + k * span->k_stride[plane] + from), _MM_HINT_T0);
        amx_decode_codes(&lookup, _mm512_maskz_loadu_epi8(mask, row), &first, &second);
        _mm512_store_si512(out->bytes[k], first);
        _mm512_store_si512(out->bytes[k] + 64, second);
    }
}

/* Nibbles to int8 codes, or to 16 times the upper nibble where only that was read: those of the row's first half, then the others. */
static void join_slab(const octavo_decode_span *span, int32_t planes, int64_t from, int64_t bytes, slab_rows *out)
{
    const __m512i top = _mm512_set1_epi8((char)0xF0);
    const __mmask64 mask = amx_first_bytes(bytes);
    fetch_ahead(span, 0, from, 64);
    if (planes > 1) fetch_ahead(span, 1, from, 64);
    for (int64_t k = 0; k < span->tokens; k++) {
        const __m512i h = _mm512_maskz_loadu_epi8(mask, span->k[0] + k * span->k_stride[0] + from);
        __m512i low = _mm512_and_si512(_mm512_slli_epi16(h, 4), top), high = _mm512_and_si512(h, top);
        if (planes > 1) {
            const __m512i l = _mm512_maskz_loadu_epi8(mask, span->k[1] + k * span->k_stride[1] + from);
            low = _mm512_or_si512(low, _mm512_andnot_si512(top, l));
            high = _mm512_or_si512(high, _mm512_andnot_si512(top, _mm512_srli_epi16(l, 4)));
        }
        _mm512_store_si512(out->bytes[k], low);
        _mm512_store_si512(out->bytes[k] + 64, high);
    }
}

/* Whether tiles can be loaded from the cache's own rows: whole steps, and sixteen rows of each. */
static int in_place(int64_t bytes, int64_t tokens) { return bytes % AMX_ROW_BYTES == 0 && tokens % AMX_ROWS == 0; }

static const octavo_amx_codes *codes_of(const octavo_decode_q *q, int32_t plane)
{
    if (q->format == OCTAVO_K_E5M2 || q->format == OCTAVO_K_E5M2X2) return &octavo_amx_e5m2;
    return plane > 0 && q->residual_exponent != 0 ? &octavo_amx_e4m3_sixteenth : &octavo_amx_e4m3;
}

/* How many slabs a plane's rows make. */
static int64_t slabs_of(const octavo_decode_q *q)
{
    return q->format == OCTAVO_K_INT4X2 ? q->row_floats / 128 : (steps_of(q) + 1) / 2;
}

/* Slab `index` of a plane; of int4x2 with both planes, of both. */
static inline __attribute__((always_inline)) key_slab slab_at(const octavo_decode_q *q, const octavo_decode_span *span, int32_t plane, int32_t planes, int64_t index,
                               slab_rows *scratch)
{
    const int64_t first = 2 * index, steps = steps_of(q) - first < 2 ? steps_of(q) - first : 2;
    key_slab slab = { scratch->bytes[0], SLAB_BYTES, { first, first + 1 }, steps };
    if (q->format == OCTAVO_K_INT4X2) {
        join_slab(span, planes, 64 * index, (q->head_dim + 1) / 2 - 64 * index, scratch);
        slab.step[0] = index, slab.step[1] = slabs_of(q) + index, slab.steps = 2;
        return slab;
    }
    const int64_t bytes = octavo_k_row_bytes(q->format, q->head_dim), from = SLAB_BYTES * index;
    if (q->format != OCTAVO_K_BF16 && !is_integer(q->format)) {
        widen_slab(span, plane, 64 * index, q->head_dim - 64 * index, codes_of(q, plane), scratch);
        return slab;
    }
    fetch_ahead(span, plane, from, bytes - from < SLAB_BYTES ? bytes - from : SLAB_BYTES);
    if (in_place(bytes, span->tokens)) {
        slab.rows = span->k[plane] + from;
        slab.stride = span->k_stride[plane];
        return slab;
    }
    copy_slab(span, plane, from, bytes - from, scratch);
    return slab;
}

/* ---- products: four tiles of sixteen tokens each, in registers 0 .. 3 ---- */

#define FOR_TILES(of, with, tokens, PRODUCT)           \
    do {                                               \
        _tile_loadd(5, (of)->at, (of)->stride);        \
        PRODUCT(0, 5, with);                           \
        if ((tokens) <= 16) break;                     \
        _tile_loadd(6, (of)->at + 16 * (of)->stride, (of)->stride); \
        PRODUCT(1, 6, with);                           \
        if ((tokens) <= 32) break;                     \
        _tile_loadd(7, (of)->at + 32 * (of)->stride, (of)->stride); \
        PRODUCT(2, 7, with);                           \
        if ((tokens) <= 48) break;                     \
        _tile_loadd(5, (of)->at + 48 * (of)->stride, (of)->stride); \
        PRODUCT(3, 5, with);                           \
    } while (0)

typedef struct tile_rows {
    const uint8_t *at;
    size_t stride;
} key_rows;

static inline __attribute__((always_inline)) void multiply_slab(int integer, const key_slab *slab, const uint8_t *packed, int64_t tokens)
{
    for (int64_t i = 0; i < slab->steps; i++) {
        const key_rows rows = { slab->rows + i * AMX_ROW_BYTES, (size_t)slab->stride };
        _tile_loadd(4, packed + slab->step[i] * AMX_TILE_BYTES, AMX_ROW_BYTES);
        if (integer) FOR_TILES(&rows, 4, tokens, _tile_dpbssd);
        else         FOR_TILES(&rows, 4, tokens, _tile_dpbf16ps);
    }
}

typedef struct product_tiles {
    uint8_t bytes[DECODE_TOKENS / AMX_ROWS][AMX_TILE_BYTES];
} __attribute__((aligned(64))) product_tiles;

static inline __attribute__((always_inline)) void products_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static inline __attribute__((always_inline)) void products_load(const product_tiles *from)
{
    _tile_loadd(0, from->bytes[0], AMX_ROW_BYTES);
    _tile_loadd(1, from->bytes[1], AMX_ROW_BYTES);
    _tile_loadd(2, from->bytes[2], AMX_ROW_BYTES);
    _tile_loadd(3, from->bytes[3], AMX_ROW_BYTES);
}

static inline __attribute__((always_inline)) void products_store(product_tiles *to)
{
    _tile_stored(0, to->bytes[0], AMX_ROW_BYTES);
    _tile_stored(1, to->bytes[1], AMX_ROW_BYTES);
    _tile_stored(2, to->bytes[2], AMX_ROW_BYTES);
    _tile_stored(3, to->bytes[3], AMX_ROW_BYTES);
}

/* A slab against every group of rows: a single group's sums stay in the registers from slab to slab. */
static inline __attribute__((always_inline)) void multiply_groups(int integer, const key_slab *slab, const uint8_t *packed, int64_t group_bytes, int64_t groups,
                                   int64_t tokens, int is_first, int is_last, product_tiles *products)
{
    for (int64_t g = 0; g < groups; g++) {
        if (is_first) products_zero();
        else if (groups > 1) products_load(&products[g]);
        multiply_slab(integer, slab, packed + g * group_bytes, tokens);
        if (is_last || groups > 1) products_store(&products[g]);
    }
}

/* All slabs of planes [plane, end). A slab is widened before the one ahead of it is multiplied: tiles that were just written would
 * have to wait for the stores. */
static inline __attribute__((always_inline)) void multiply_planes(int integer, const octavo_decode_q *q, const octavo_decode_span *span, int32_t plane, int32_t end,
                                   int32_t planes, const uint8_t *packed, int64_t groups, product_tiles *products)
{
    const int64_t group_bytes = steps_of(q) * AMX_TILE_BYTES, slabs = slabs_of(q), count = (end - plane) * slabs;
    slab_rows scratch[2];
    key_slab slab[2];
    for (int64_t i = 0; i <= count; i++) {
        if (i < count) slab[i % 2] = slab_at(q, span, plane + (int32_t)(i / slabs), planes, i % slabs, &scratch[i % 2]);
        if (i > 0) multiply_groups(integer, &slab[(i - 1) % 2], packed, group_bytes, groups, span->tokens, i == 1, i == count, products);
    }
}

/* ---- from tiles to rows of scores ---- */

/* The columns of `rows` rows become rows of `dots`, their terms added up. */
static inline __attribute__((always_inline)) void store_bf16(const product_tiles *products, int terms, int64_t rows, int64_t tokens, float *dots)
{
    const int64_t quads = rows_a_tile(terms) / 4;
    for (int64_t t = 0; t < tokens; t += AMX_ROWS)
        for (int64_t quad = 0; 4 * quad < rows; quad++) {
            const uint8_t *tile = products->bytes[t / AMX_ROWS];
            __m512 sum[4], more[4];
            amx_columns(tile, quad + (terms - 1) * quads, sum); /* the smallest terms first */
            for (int64_t term = terms - 2; term >= 0; term--) {
                amx_columns(tile, quad + term * quads, more);
                for (int i = 0; i < 4; i++) sum[i] = _mm512_add_ps(sum[i], more[i]);
            }
            for (int i = 0; i < 4 && 4 * quad + i < rows; i++) _mm512_storeu_ps(dots + (4 * quad + i) * DECODE_TOKENS + t, sum[i]);
        }
}

static void dot_bf16_planes(int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    const int terms = terms_of(q);
    const int64_t tile_rows = rows_a_tile(terms), groups = (rows + tile_rows - 1) / tile_rows;
    const uint8_t *packed = q->packed + row / tile_rows * steps_of(q) * AMX_TILE_BYTES;
    product_tiles products[GROUPS_MAX];
    multiply_planes(0, q, span, 0, planes, planes, packed, groups, products);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t left = rows - g * tile_rows;
        store_bf16(&products[g], terms, left < tile_rows ? left : tile_rows, span->tokens, dots + g * tile_rows * DECODE_TOKENS);
    }
}

/* The digits' sums of sixteen tokens for four rows. */
static inline __attribute__((always_inline)) void add_digits(const uint8_t *products, __m512 sum[4])
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
static void store_int8(const product_tiles *base, const product_tiles *residual, const float *factors, float offset, int64_t rows,
                       int64_t tokens, float *dots)
{
    for (int64_t t = 0; t < tokens; t += AMX_ROWS) {
        __m512 sum[4], more[4];
        add_digits(base->bytes[t / AMX_ROWS], sum);
        if (residual) {
            add_digits(residual->bytes[t / AMX_ROWS], more);
            for (int i = 0; i < 4; i++) sum[i] = _mm512_fmadd_ps(more[i], _mm512_set1_ps(1.0f / 254.0f), sum[i]);
        }
        for (int i = 0; i < 4 && i < rows; i++) {
            const __m512 dot = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(factors[2 * i]), _mm512_set1_ps(offset * factors[2 * i + 1]));
            _mm512_storeu_ps(dots + i * DECODE_TOKENS + t, dot);
        }
    }
}

static void dot_int8_planes(int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)
{
    const int64_t tile_rows = rows_a_tile(INT8_TERMS), groups = (rows + tile_rows - 1) / tile_rows;
    const uint8_t *packed = q->packed + row / tile_rows * steps_of(q) * AMX_TILE_BYTES;
    const float *factors = (const float *)(const void *)(q->packed + int8_factors_at(q)) + 2 * row;
    const int nibbles = q->format == OCTAVO_K_INT4X2, separate = !nibbles && planes > 1;
    product_tiles base[GROUPS_MAX], residual[GROUPS_MAX];
    multiply_planes(1, q, span, 0, 1, planes, packed, groups, base);
    if (separate) multiply_planes(1, q, span, 1, 2, planes, packed, groups, residual);
    for (int64_t g = 0; g < groups; g++)
        store_int8(&base[g], separate ? &residual[g] : NULL, factors + 2 * g * tile_rows, nibbles && planes == 1 ? 1.0f : 0.0f,
                   rows - g * tile_rows, span->tokens, dots + g * tile_rows * DECODE_TOKENS);
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
