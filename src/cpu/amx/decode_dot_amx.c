/* decode_dot_amx.c - scores on AMX tiles: sixteen tokens' keys are one operand, the packed queries the other.
 *
 * A tile of products holds 16 tokens by 16 columns. bf16, e4m3 and e5m2 keys meet q as the exact sum of one to three bf16 terms
 * (as many as q's dtype needs), int8 keys meet q in three int8 digits (one part in 2^23 of the row's largest element): each term
 * of each row is a column. bf16 and int8 rows are read in place, the other codes are widened to a scratch row first. */
#include "cpu/amx/amx_decode.h"

octavo_decode_dot *octavo_decode_dot_avx512(const octavo_kv_view *kv, int32_t planes);

enum {
    SLAB_BYTES = 128, /* of a widened row: 64 codes          */
    SLAB_TOKENS = 32,
    GROUPS_MAX = DECODE_ROWS / 4
};

/* What steps of the work take, for octavo_decode_fetch. */
enum {
    STRIP = 16, /* rows between two of its calls */
    COPY_CYCLES = 4,
    WIDEN_CYCLES = 7,
    JOIN_CYCLES = 4,
    TILE_CYCLES = 24,
    COLUMNS_CYCLES = 24
};

/* ---- keys ---- */

/* A part of the rows of up to 32 tokens: two tiles of sixteen tokens each along one or two steps. */
typedef struct key_slab {
    const uint8_t *rows;
    int64_t stride;
    int64_t step[2], steps; /* which steps of q they meet */
    int64_t tokens;
    octavo_decode_ahead *ahead; /* fetched meanwhile where nothing was widened */
} key_slab;

typedef struct slab_rows {
    uint8_t bytes[SLAB_TOKENS][SLAB_BYTES];
    uint8_t apart[2048]; /* a load seems to wait for a store that lies 4096 bytes from it */
} __attribute__((aligned(64))) slab_rows;

/* Where a slab's codes are. */
typedef struct slab_source {
    const uint8_t *at[2]; /* of two planes */
    int64_t stride[2], tokens;
    octavo_decode_ahead *ahead;
} slab_source;

/* The first `bytes` bytes of each row as they are, zeros up to the end of the slab. */
INLINE void copy_slab(const slab_source *of, int64_t bytes, slab_rows *out)
{
    const __mmask64 first = amx_first_bytes(bytes), second = bytes > 64 ? amx_first_bytes(bytes - 64) : 0;
    for (int64_t k = 0; k < of->tokens; k++) {
        const uint8_t *row = of->at[0] + k * of->stride[0];
        _mm512_store_si512(out->bytes[k], _mm512_maskz_loadu_epi8(first, row));
        _mm512_store_si512(out->bytes[k] + 64, _mm512_maskz_loadu_epi8(second, row + 64));
    }
    octavo_decode_fetch(of->ahead, of->tokens * COPY_CYCLES);
}

/* 64 codes of some rows by look-ups. What is not there becomes 1: q has zeros to meet it. */
static void widen_by_table(const slab_source *of, __mmask64 mask, int64_t from, int64_t to, const octavo_amx_codes *table,
                           slab_rows *out)
{
    const amx_lookup lookup = amx_lookup_of(table);
    const __m512i ones = _mm512_set1_epi8(0x38);
#pragma GCC unroll 8
    for (int64_t k = from; k < to; k++) {
        __m512i even, odd;
        amx_look_up(&lookup, _mm512_mask_loadu_epi8(ones, mask, of->at[0] + k * of->stride[0]), &even, &odd);
        _mm512_store_si512(out->bytes[k], even);
        _mm512_store_si512(out->bytes[k] + 64, odd);
    }
}

/* The same by shifts; 0 where a code of e4m3 was no normal number, for which that is wrong. */
INLINE int widen_by_shift(const slab_source *of, int whole, __mmask64 mask, int64_t from, int64_t to, slab_rows *out)
{
    const __m512i ones = _mm512_set1_epi8(0x38), exponent = _mm512_set1_epi8(0x78);
    __mmask64 odd_one_out = 0;
#pragma GCC unroll 8
    for (int64_t k = from; k < to; k++) {
        const uint8_t *row = of->at[0] + k * of->stride[0];
        const __m512i x = whole ? _mm512_loadu_si512(row) : _mm512_mask_loadu_epi8(ones, mask, row);
        odd_one_out = _kor_mask64(odd_one_out, _mm512_testn_epi8_mask(x, exponent));
        _mm512_store_si512(out->bytes[k], amx_shift_e4m3(amx_even_up(x)));
        _mm512_store_si512(out->bytes[k] + 64, amx_shift_e4m3(x));
    }
    return odd_one_out == 0;
}

/* 64 codes of each row. `normal`: codes of e4m3 that are hardly ever zero. */
INLINE void widen_slab(const slab_source *of, int64_t codes, const octavo_amx_codes *table, int normal, slab_rows *out)
{
    const __mmask64 mask = amx_first_bytes(codes);
    for (int64_t from = 0; from < of->tokens; from += STRIP) {
        const int64_t to = from + STRIP < of->tokens ? from + STRIP : of->tokens;
        const int whole = codes >= 64 && to == from + STRIP;
        if (!normal ||
            !(whole ? widen_by_shift(of, 1, mask, from, from + STRIP, out) : widen_by_shift(of, 0, mask, from, to, out)))
            widen_by_table(of, mask, from, to, table, out);
        octavo_decode_fetch(of->ahead, STRIP * WIDEN_CYCLES);
    }
}

/* Nibbles to int8 codes, or to 16 times the upper nibble where only that was read: those of the row's first half, then the
 * others. */
INLINE void join_slab(const slab_source *of, int32_t planes, int64_t bytes, slab_rows *out)
{
    const __m512i top = _mm512_set1_epi8((char)0xF0);
    const __mmask64 mask = amx_first_bytes(bytes);
    for (int64_t from = 0; from < of->tokens; from += STRIP) {
        const int64_t to = from + STRIP < of->tokens ? from + STRIP : of->tokens;
#pragma GCC unroll 4
        for (int64_t k = from; k < to; k++) {
            const __m512i h = _mm512_maskz_loadu_epi8(mask, of->at[0] + k * of->stride[0]);
            __m512i low = _mm512_and_si512(_mm512_slli_epi16(h, 4), top), high = _mm512_and_si512(h, top);
            if (planes > 1) {
                const __m512i l = _mm512_maskz_loadu_epi8(mask, of->at[1] + k * of->stride[1]);
                low = _mm512_or_si512(low, _mm512_andnot_si512(top, l));
                high = _mm512_or_si512(high, _mm512_andnot_si512(top, _mm512_srli_epi16(l, 4)));
            }
            _mm512_store_si512(out->bytes[k], low);
            _mm512_store_si512(out->bytes[k] + 64, high);
        }
        octavo_decode_fetch(of->ahead, STRIP * JOIN_CYCLES);
    }
}

/* Whether tiles can be loaded from the cache's own rows: whole steps, and sixteen rows of each. */
INLINE int in_place(int64_t bytes, int64_t tokens) { return bytes % AMX_ROW_BYTES == 0 && tokens % AMX_ROWS == 0; }

INLINE const octavo_amx_codes *codes_of(octavo_k_format format, const octavo_decode_q *q, int32_t plane)
{
    if (format == OCTAVO_K_E5M2) return &octavo_amx_e5m2;
    return plane > 0 && q->residual_exponent != 0 ? &octavo_amx_e4m3_sixteenth : &octavo_amx_e4m3;
}

/* How many slabs a plane's rows make. */
INLINE int64_t slabs_of(octavo_k_format format, const octavo_decode_q *q)
{
    return format == OCTAVO_K_INT4X2 ? q->row_floats / 128 : (amx_steps(format, q) + 1) / 2;
}

/* Slab `index` of up to 32 tokens from t on of a plane; of int4x2 with both planes, of both. */
INLINE key_slab slab_at(octavo_k_format format, const octavo_decode_q *q, const octavo_decode_span *span, int64_t t,
                        int32_t plane, int32_t planes, int64_t index, slab_rows *scratch)
{
    const int nibbles = format == OCTAVO_K_INT4X2, widens = format != OCTAVO_K_BF16 && !amx_is_integer(format);
    const int64_t row_bytes = octavo_k_row_bytes(format, q->head_dim), from = (nibbles || widens ? 64 : SLAB_BYTES) * index;
    const int64_t first = 2 * index, left = amx_steps(format, q) - first, tokens = span->tokens - t;
    slab_source source = { .tokens = tokens < SLAB_TOKENS ? tokens : SLAB_TOKENS, .ahead = span->ahead };
    key_slab slab = { scratch->bytes[0], SLAB_BYTES, { first, first + 1 }, left < 2 ? left : 2, source.tokens, span->ahead };
    for (int32_t i = 0; i < 2 && plane + i < planes; i++) {
        const int64_t offset = t * span->k_stride[plane + i] + from;
        source.at[i] = span->k[plane + i] + offset;
        source.stride[i] = span->k_stride[plane + i];
    }
    if (nibbles) {
        join_slab(&source, planes, row_bytes - from, scratch);
        slab.step[0] = index, slab.step[1] = slabs_of(format, q) + index, slab.steps = 2;
    } else if (widens) {
        widen_slab(&source, row_bytes - from, codes_of(format, q, plane), amx_is_e4m3(format) && plane == 0, scratch);
    } else if (in_place(row_bytes, source.tokens)) {
        slab.rows = source.at[0];
        slab.stride = source.stride[0];
    } else {
        copy_slab(&source, row_bytes - from, scratch);
    }
    return slab;
}

/* ---- products ---- */

typedef struct product_tiles {
    uint8_t bytes[DECODE_TOKENS / AMX_ROWS][AMX_TILE_BYTES];
} __attribute__((aligned(64))) product_tiles;

#define SLAB_PRODUCTS(PRODUCT, first, second)                                                                                    \
    do {                                                                                                                         \
        _tile_loadd(4, packed + slab->step[0] * AMX_TILE_BYTES, AMX_ROW_BYTES);                                                  \
        _tile_loadd(6, slab->rows, (size_t)slab->stride);                                                                        \
        PRODUCT(first, 6, 4);                                                                                                    \
        octavo_decode_fetch(slab->ahead, TILE_CYCLES);                                                                           \
        if (slab->tokens > AMX_ROWS) {                                                                                           \
            _tile_loadd(7, slab->rows + AMX_ROWS * slab->stride, (size_t)slab->stride);                                          \
            PRODUCT(second, 7, 4);                                                                                               \
            octavo_decode_fetch(slab->ahead, TILE_CYCLES);                                                                       \
        }                                                                                                                        \
        if (slab->steps < 2) break;                                                                                              \
        _tile_loadd(5, packed + slab->step[1] * AMX_TILE_BYTES, AMX_ROW_BYTES);                                                  \
        _tile_loadd(6, slab->rows + AMX_ROW_BYTES, (size_t)slab->stride);                                                        \
        PRODUCT(first, 6, 5);                                                                                                    \
        octavo_decode_fetch(slab->ahead, TILE_CYCLES);                                                                           \
        if (slab->tokens > AMX_ROWS) {                                                                                           \
            _tile_loadd(7, slab->rows + AMX_ROWS * slab->stride + AMX_ROW_BYTES, (size_t)slab->stride);                          \
            PRODUCT(second, 7, 5);                                                                                               \
            octavo_decode_fetch(slab->ahead, TILE_CYCLES);                                                                       \
        }                                                                                                                        \
    } while (0)

/* Tokens 0 .. 31 of a span are summed in tiles 0 and 1, the others in 2 and 3. */
INLINE void multiply_slab(int integer, const key_slab *slab, const uint8_t *packed, int64_t half)
{
    if (integer) {
        if (half == 0)
            SLAB_PRODUCTS(_tile_dpbssd, 0, 1);
        else
            SLAB_PRODUCTS(_tile_dpbssd, 2, 3);
    } else {
        if (half == 0)
            SLAB_PRODUCTS(_tile_dpbf16ps, 0, 1);
        else
            SLAB_PRODUCTS(_tile_dpbf16ps, 2, 3);
    }
}

INLINE void products_zero(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

INLINE void products_load(const product_tiles *from)
{
    _tile_loadd(0, from->bytes[0], AMX_ROW_BYTES);
    _tile_loadd(1, from->bytes[1], AMX_ROW_BYTES);
    _tile_loadd(2, from->bytes[2], AMX_ROW_BYTES);
    _tile_loadd(3, from->bytes[3], AMX_ROW_BYTES);
}

INLINE void products_store(product_tiles *to)
{
    _tile_stored(0, to->bytes[0], AMX_ROW_BYTES);
    _tile_stored(1, to->bytes[1], AMX_ROW_BYTES);
    _tile_stored(2, to->bytes[2], AMX_ROW_BYTES);
    _tile_stored(3, to->bytes[3], AMX_ROW_BYTES);
}

/* A slab against every group of rows: a single group's sums stay in the registers. */
INLINE void multiply_groups(int integer, const key_slab *slab, const uint8_t *packed, int64_t group_bytes, int64_t groups,
                            int64_t half, int is_first, product_tiles *products)
{
    if (groups == 1) {
        if (is_first) products_zero();
        multiply_slab(integer, slab, packed, half);
        return;
    }
    for (int64_t g = 0; g < groups; g++) {
        if (is_first)
            products_zero();
        else
            products_load(&products[g]);
        multiply_slab(integer, slab, packed + g * group_bytes, half);
        products_store(&products[g]);
    }
}

/* All slabs of planes [plane, end). A slab is widened before the one ahead of it is multiplied: tiles that were just written
 * would have to wait for the stores. */
INLINE void multiply_planes(octavo_k_format format, const octavo_decode_q *q, const octavo_decode_span *span, int32_t plane,
                            int32_t end, int32_t planes, const uint8_t *packed, int64_t groups, product_tiles *products)
{
    const int64_t group_bytes = amx_steps(format, q) * AMX_TILE_BYTES, slabs = slabs_of(format, q);
    const int64_t count = (end - plane) * slabs * (span->tokens > SLAB_TOKENS ? 2 : 1);
    slab_rows scratch[2];
    key_slab slab[2];
    int32_t at = plane;
    int64_t half = 0;
    _tile_dpbssd(7, 5, 6); /* wakes the multiplier while the first slab is widened */
    for (int64_t i = 0, index = 0, half_before = 0; i <= count; i++) {
        const int64_t half_now = half;
        if (i < count) {
            slab[i % 2] = slab_at(format, q, span, half * SLAB_TOKENS, at, planes, index, &scratch[i % 2]);
            if (++index == slabs) index = 0, at++;
            if (at == end) at = plane, half++;
        }
        if (i > 0)
            multiply_groups(amx_is_integer(format), &slab[(i - 1) % 2], packed, group_bytes, groups, half_before, i == 1,
                            products);
        half_before = half_now;
    }
    if (groups == 1) products_store(products);
}

/* ---- from tiles to rows of scores ---- */

/* The columns of `rows` rows become rows of `dots`, their terms added up. */
INLINE void store_bf16(const product_tiles *products, int terms, int64_t rows, int64_t tokens, octavo_decode_ahead *ahead,
                       float *dots)
{
    const int64_t quads = amx_tile_rows(terms) / 4;
    for (int64_t t = 0; t < tokens; t += AMX_ROWS)
        for (int64_t quad = 0; 4 * quad < rows; quad++) {
            const uint8_t *tile = products->bytes[t / AMX_ROWS];
            __m512 sum[4], more[4];
            amx_quad(tile, quad + (terms - 1) * quads, sum); /* the smallest terms first */
            octavo_decode_fetch(ahead, COLUMNS_CYCLES);
#pragma GCC unroll 4
            for (int64_t term = terms - 2; term >= 0; term--) {
                amx_quad(tile, quad + term * quads, more);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) sum[i] = _mm512_add_ps(sum[i], more[i]);
            }
            amx_transpose(sum, sum);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                if (4 * quad + i < rows) _mm512_storeu_ps(dots + (4 * quad + i) * DECODE_TOKENS + t, sum[i]);
        }
}

INLINE void dot_terms(octavo_k_format format, int terms, int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows,
                      const octavo_decode_span *span, float *dots)
{
    const int64_t tile_rows = amx_tile_rows(terms), groups = (rows + tile_rows - 1) / tile_rows;
    const uint8_t *packed = q->packed + row / tile_rows * amx_steps(format, q) * AMX_TILE_BYTES;
    product_tiles products[GROUPS_MAX];
    multiply_planes(format, q, span, 0, planes, planes, packed, groups, products);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t left = rows - g * tile_rows;
        store_bf16(&products[g], terms, left < tile_rows ? left : tile_rows, span->tokens, span->ahead,
                   dots + g * tile_rows * DECODE_TOKENS);
    }
}

/* The digits' sums of sixteen tokens for four rows, as amx_quad gives them. */
INLINE void add_digits(const uint8_t *products, __m512 sum[4])
{
    const __m512 weights[AMX_INT8_TERMS] = { _mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f / 254.0f),
                                             _mm512_set1_ps(1.0f / 64516.0f) };
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int64_t term = AMX_INT8_TERMS - 1; term >= 0; term--) {
        __m512 digit[4];
        amx_quad(products, term, digit);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(digit[i])), weights[term], sum[i]);
    }
}

/* base, and residual products where there are any; `offset`: 1 adds 7.5 times the row's sum. */
INLINE void store_int8(const product_tiles *base, const product_tiles *residual, const float *factors, float offset, int64_t rows,
                       int64_t tokens, octavo_decode_ahead *ahead, float *dots)
{
    for (int64_t t = 0; t < tokens; t += AMX_ROWS) {
        __m512 sum[4], more[4];
        add_digits(base->bytes[t / AMX_ROWS], sum);
        octavo_decode_fetch(ahead, COLUMNS_CYCLES);
        if (residual) {
            add_digits(residual->bytes[t / AMX_ROWS], more);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] = _mm512_fmadd_ps(more[i], _mm512_set1_ps(1.0f / 254.0f), sum[i]);
        }
        amx_transpose(sum, sum);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (i >= rows) break;
            const __m512 dot =
                _mm512_fmadd_ps(sum[i], _mm512_set1_ps(factors[2 * i]), _mm512_set1_ps(offset * factors[2 * i + 1]));
            _mm512_storeu_ps(dots + i * DECODE_TOKENS + t, dot);
        }
    }
}

INLINE void dot_digits(octavo_k_format format, int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows,
                       const octavo_decode_span *span, float *dots)
{
    const int64_t tile_rows = amx_tile_rows(AMX_INT8_TERMS), groups = (rows + tile_rows - 1) / tile_rows;
    const uint8_t *packed = q->packed + row / tile_rows * amx_steps(format, q) * AMX_TILE_BYTES;
    const float *factors = (const float *)(const void *)(q->packed + amx_factors_at(q)) + 2 * row;
    const int separate = format != OCTAVO_K_INT4X2 && planes > 1;
    const float offset = format == OCTAVO_K_INT4X2 && planes == 1 ? 1.0f : 0.0f; /* the middle of a nibble that was not read */
    product_tiles base[GROUPS_MAX], residual[GROUPS_MAX];
    multiply_planes(format, q, span, 0, 1, planes, packed, groups, base);
    if (separate) multiply_planes(format, q, span, 1, 2, planes, packed, groups, residual);
    for (int64_t g = 0; g < groups; g++)
        store_int8(&base[g], separate ? &residual[g] : NULL, factors + 2 * g * tile_rows, offset, rows - g * tile_rows,
                   span->tokens, span->ahead, dots + g * tile_rows * DECODE_TOKENS);
}

/* One function a format and number of planes, in which both are constants. */
#define DOT_TERMS(name, format, planes)                                                                                          \
    static void name(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)           \
    {                                                                                                                            \
        switch (amx_terms(q)) {                                                                                                  \
        case 1:                                                                                                                  \
            dot_terms(format, 1, planes, q, row, rows, span, dots);                                                              \
            break;                                                                                                               \
        case 2:                                                                                                                  \
            dot_terms(format, 2, planes, q, row, rows, span, dots);                                                              \
            break;                                                                                                               \
        default:                                                                                                                 \
            dot_terms(format, 3, planes, q, row, rows, span, dots);                                                              \
            break;                                                                                                               \
        }                                                                                                                        \
    }
#define DOT_DIGITS(name, format, planes)                                                                                         \
    static void name(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)           \
    {                                                                                                                            \
        dot_digits(format, planes, q, row, rows, span, dots);                                                                    \
    }
DOT_TERMS(dot_bf16, OCTAVO_K_BF16, 1)
DOT_TERMS(dot_e4m3, OCTAVO_K_E4M3, 1)
DOT_TERMS(dot_e4m3x2, OCTAVO_K_E4M3, 2)
DOT_TERMS(dot_e5m2, OCTAVO_K_E5M2, 1)
DOT_TERMS(dot_e5m2x2, OCTAVO_K_E5M2, 2)
DOT_DIGITS(dot_int8, OCTAVO_K_INT8, 1)
DOT_DIGITS(dot_int8x2, OCTAVO_K_INT8, 2)
DOT_DIGITS(dot_int4, OCTAVO_K_INT4X2, 1)
DOT_DIGITS(dot_int4x2, OCTAVO_K_INT4X2, 2)
#undef DOT_TERMS
#undef DOT_DIGITS

octavo_decode_dot *octavo_amx_dot(const octavo_kv_view *kv, int32_t planes)
{
    if (!amx_takes(kv->k_format, kv->head_dim)) return octavo_decode_dot_avx512(kv, planes);
    switch (kv->k_format) {
    case OCTAVO_K_F32:
    case OCTAVO_K_F16:
    case OCTAVO_K_BF16:
        return dot_bf16;
    case OCTAVO_K_E4M3:
        return dot_e4m3;
    case OCTAVO_K_E5M2:
        return dot_e5m2;
    case OCTAVO_K_INT8:
        return dot_int8;
    case OCTAVO_K_E4M3X2:
        return planes > 1 ? dot_e4m3x2 : dot_e4m3;
    case OCTAVO_K_E5M2X2:
        return planes > 1 ? dot_e5m2x2 : dot_e5m2;
    case OCTAVO_K_INT8X2:
        return planes > 1 ? dot_int8x2 : dot_int8;
    case OCTAVO_K_INT4X2:
        return planes > 1 ? dot_int4x2 : dot_int4;
    }
    return dot_bf16;
}
