/* decode_axpy_amx.c - weighted sums of values on AMX tiles: the weights of up to sixteen rows are one operand, tokens the
 * reduction.
 *
 * bf16 values meet the weights as three bf16 terms (all 24 bits), e4m3 values as two. int8 values meet them as four digits of
 * base 256, fixed point below the largest weight of the row in the span. Each term of each row is a row of the tile. Values of
 * neighbouring tokens have to lie side by side: they are interleaved in a scratch tile on the way. */
#include "cpu/amx/amx_decode.h"

octavo_decode_axpy *octavo_decode_axpy_avx512(octavo_v_format format);

enum {
    AXPY_COLUMNS = 64, /* of the output at a time: four tiles    */
    AXPY_HALF = 32,    /* tokens that a tile of bf16 reduces     */
    BF16_TERMS = 3,
    E4M3_TERMS = 2,
    INT8_DIGITS = 4
};

/* What a row of a stage takes, for octavo_decode_fetch. */
enum { STRIP = 8 /* rows between two of its calls */, PAIR_CYCLES = 8, E4M3_CYCLES = 12 };

/* Two tiles of values, 32 of the 64 columns: row i of tile j at [j][i]. */
typedef struct value_tiles {
    uint8_t bytes[2][AMX_ROWS][AMX_ROW_BYTES];
} __attribute__((aligned(64))) value_tiles;

/* The sums of 64 columns. */
typedef struct sum_tiles {
    uint8_t bytes[4][AMX_ROWS][AMX_ROW_BYTES];
} __attribute__((aligned(64))) sum_tiles;

/* ---- weights ---- */

/* Rows of 32 weights for each half of the span: row term * tile_rows + r; rows without weights are left alone, their sums are not
 * looked at. */
INLINE void split_weights(const float *weights, int64_t rows, int terms, float factor, int64_t tile_rows, int64_t tokens,
                          uint8_t out[2][AMX_ROWS][AMX_ROW_BYTES])
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < octavo_round_up(tokens, AXPY_HALF); t += 16) {
            const int64_t left = tokens - t;
            const __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1u << left) - 1u);
            __m256i term[BF16_TERMS];
            const __m512 x = _mm512_maskz_loadu_ps(mask, weights + r * DECODE_TOKENS + t);
            amx_split(_mm512_mul_ps(x, _mm512_set1_ps(factor)), terms, term);
#pragma GCC unroll 4
            for (int k = 0; k < terms; k++)
                _mm256_storeu_si256((__m256i *)(void *)(out[t / AXPY_HALF][k * tile_rows + r] + 2 * (t % AXPY_HALF)), term[k]);
        }
}

/* Rows digit * 4 + r of 64 weights; exponents[r]: a weight is its digits' number times 2^exponent. Other rows as above. */
INLINE void digit_weights(const float *weights, int64_t rows, int64_t tokens, uint8_t out[AMX_ROWS][AMX_ROW_BYTES],
                          float *exponents)
{
    const __m512i by_digit =
        _mm512_setr_epi32(0x0C080400, 0x1C181410, 0x2C282420, 0x3C383430, 0x0D090501, 0x1D191511, 0x2D292521, 0x3D393531,
                          0x0E0A0602, 0x1E1A1612, 0x2E2A2622, 0x3E3A3632, 0x0F0B0703, 0x1F1B1713, 0x2F2B2723, 0x3F3B3733);
    for (int64_t r = 0; r < rows; r++) {
        __m512 x[4], most = _mm512_setzero_ps();
#pragma GCC unroll 4
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
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) digits[i] = _mm512_permutexvar_epi8(by_digit, _mm512_cvtps_epu32(_mm512_scalef_ps(x[i], up)));
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

/* What a stage interleaves: `tokens` tokens (zero rows behind them), `bytes` bytes of each row from `at` on. */
typedef struct value_rows {
    const uint8_t *at;
    octavo_decode_ahead *ahead;
    int64_t stride, tokens, bytes;
} value_rows;

INLINE __m512i value_bytes(const value_rows *rows, int64_t t, int64_t at, int whole)
{
    const uint8_t *row = rows->at + t * rows->stride + at;
    if (whole) return _mm512_loadu_si512(row);
    if (t >= rows->tokens || at >= rows->bytes) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi8(amx_first_bytes(rows->bytes - at), row);
}

/* STRIP rows from `first` on of pairs of 32 tokens, columns 32 * part .. + 31 of bf16. Quarter q of tile j's rows holds columns 8
 * q + 4 j .. + 3 of them. */
INLINE void pair_bf16(const value_rows *rows, int whole, int64_t part, int64_t first, value_tiles *tiles)
{
    for (int64_t i = first; i < first + STRIP; i++) {
        const __m512i even = value_bytes(rows, 2 * i, 64 * part, whole), odd = value_bytes(rows, 2 * i + 1, 64 * part, whole);
        _mm512_store_si512(tiles->bytes[0][i], _mm512_unpacklo_epi16(even, odd));
        _mm512_store_si512(tiles->bytes[1][i], _mm512_unpackhi_epi16(even, odd));
    }
}

/* Pairs of 32 tokens of e4m3. Quarter q of tile j's rows holds columns 16 q + 8 j + part + (0, 2, 4, 6). */
static void pair_by_table(const value_rows *rows, int64_t part, int64_t first, value_tiles *tiles)
{
    const amx_lookup lookup = amx_lookup_of(&octavo_amx_e4m3);
    for (int64_t i = first; i < first + STRIP; i++) {
        __m512i even[2], odd[2];
        for (int64_t k = 0; k < 2; k++) amx_look_up(&lookup, value_bytes(rows, 2 * i + k, 0, 0), &even[k], &odd[k]);
        _mm512_store_si512(tiles->bytes[0][i],
                           part ? _mm512_unpacklo_epi16(odd[0], odd[1]) : _mm512_unpacklo_epi16(even[0], even[1]));
        _mm512_store_si512(tiles->bytes[1][i],
                           part ? _mm512_unpackhi_epi16(odd[0], odd[1]) : _mm512_unpackhi_epi16(even[0], even[1]));
    }
}

/* The same by shifts. */
INLINE void pair_by_shift(const value_rows *rows, int64_t part, int64_t first, value_tiles *tiles)
{
    for (int64_t i = first; i < first + STRIP; i++) {
        const __m512i a = value_bytes(rows, 2 * i, 0, 1), b = value_bytes(rows, 2 * i + 1, 0, 1);
        const __m512i even = amx_shift_e4m3(part ? a : amx_even_up(a)), odd = amx_shift_e4m3(part ? b : amx_even_up(b));
        _mm512_store_si512(tiles->bytes[0][i], _mm512_unpacklo_epi16(even, odd));
        _mm512_store_si512(tiles->bytes[1][i], _mm512_unpackhi_epi16(even, odd));
    }
}

/* Whether shifts are right: no code of the pairs is zero or subnormal. */
INLINE int pairs_are_normal(const value_rows *rows, int64_t first)
{
    const __m512i exponent = _mm512_set1_epi8(0x78);
    __mmask64 odd_one_out = 0;
    for (int64_t t = 2 * first; t < 2 * (first + STRIP); t++)
        odd_one_out = _kor_mask64(odd_one_out, _mm512_testn_epi8_mask(value_bytes(rows, t, 0, 1), exponent));
    return odd_one_out == 0;
}

/* *normal: what part 0 finds out about the codes, for part 1. */
INLINE void pair_e4m3(const value_rows *rows, int whole, int64_t part, int64_t first, int *normal, value_tiles *tiles)
{
    if (part == 0) *normal = whole && pairs_are_normal(rows, first);
    if (*normal)
        pair_by_shift(rows, part, first, tiles);
    else
        pair_by_table(rows, part, first, tiles);
}

/* Quads of 64 tokens of int8. Quarter q of tile j's rows holds columns 16 q + 8 * part + 4 j .. + 3. */
INLINE void quad_int8(const value_rows *rows, int whole, int64_t part, int64_t first, value_tiles *tiles)
{
    for (int64_t i = first; i < first + STRIP; i++) {
        const __m512i a = value_bytes(rows, 4 * i, 0, whole), b = value_bytes(rows, 4 * i + 1, 0, whole);
        const __m512i c = value_bytes(rows, 4 * i + 2, 0, whole), d = value_bytes(rows, 4 * i + 3, 0, whole);
        const __m512i ab = part ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b);
        const __m512i cd = part ? _mm512_unpackhi_epi8(c, d) : _mm512_unpacklo_epi8(c, d);
        _mm512_store_si512(tiles->bytes[0][i], _mm512_unpacklo_epi16(ab, cd));
        _mm512_store_si512(tiles->bytes[1][i], _mm512_unpackhi_epi16(ab, cd));
    }
}

/* ---- sums ---- */

/* Adds the products of two tiles of values to tiles 0 and 1, or 2 and 3. */
INLINE void multiply(octavo_v_format format, const uint8_t *weights, const value_tiles *values, int64_t part)
{
    _tile_loadd(4, weights, AMX_ROW_BYTES);
    _tile_loadd(5, values->bytes[0], AMX_ROW_BYTES);
    _tile_loadd(6, values->bytes[1], AMX_ROW_BYTES);
    if (format == OCTAVO_V_INT8 && part == 0) {
        _tile_dpbusd(0, 4, 5);
        _tile_dpbusd(1, 4, 6);
    } else if (format == OCTAVO_V_INT8) {
        _tile_dpbusd(2, 4, 5);
        _tile_dpbusd(3, 4, 6);
    } else if (part == 0) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 6);
    } else {
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 6);
    }
}

INLINE void sums_zero(int64_t part)
{
    if (part == 0) {
        _tile_zero(0);
        _tile_zero(1);
    } else {
        _tile_zero(2);
        _tile_zero(3);
    }
}

INLINE void sums_store(int64_t part, sum_tiles *sums)
{
    if (part == 0) {
        _tile_stored(0, sums->bytes[0], AMX_ROW_BYTES);
        _tile_stored(1, sums->bytes[1], AMX_ROW_BYTES);
    } else {
        _tile_stored(2, sums->bytes[2], AMX_ROW_BYTES);
        _tile_stored(3, sums->bytes[3], AMX_ROW_BYTES);
    }
}

INLINE void sums_load(int64_t part, const sum_tiles *sums)
{
    if (part == 0) {
        _tile_loadd(0, sums->bytes[0], AMX_ROW_BYTES);
        _tile_loadd(1, sums->bytes[1], AMX_ROW_BYTES);
    } else {
        _tile_loadd(2, sums->bytes[2], AMX_ROW_BYTES);
        _tile_loadd(3, sums->bytes[3], AMX_ROW_BYTES);
    }
}

/* Adds 64 columns, of which the first `columns` exist. */
INLINE void add_columns(float *out, const __m512 in_order[4], int64_t columns)
{
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; i++) {
        if (16 * i >= columns) break;
        const int64_t left = columns - 16 * i;
        const __mmask16 mask = (__mmask16)(left >= 16 ? 0xFFFF : (1u << left) - 1u);
        _mm512_mask_storeu_ps(out + 16 * i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + 16 * i), in_order[i]));
    }
}

/* Tiles of pair_bf16 to columns in order. */
INLINE void order_by_pairs(const __m512 tile[4], __m512 in_order[4])
{
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    in_order[0] = _mm512_permutex2var_ps(tile[0], low, tile[1]);
    in_order[1] = _mm512_permutex2var_ps(tile[0], high, tile[1]);
    in_order[2] = _mm512_permutex2var_ps(tile[2], low, tile[3]);
    in_order[3] = _mm512_permutex2var_ps(tile[2], high, tile[3]);
}

INLINE void add_bf16(const sum_tiles *sums, int terms, int64_t tile_rows, int64_t rows, int64_t columns, float *out,
                     int64_t out_stride)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512 tile[4], in_order[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            tile[j] = _mm512_load_ps(sums->bytes[j][(terms - 1) * tile_rows + r]); /* the smallest terms first */
#pragma GCC unroll 4
            for (int64_t term = terms - 2; term >= 0; term--)
                tile[j] = _mm512_add_ps(tile[j], _mm512_load_ps(sums->bytes[j][term * tile_rows + r]));
        }
        if (terms == E4M3_TERMS)
            amx_order_by_parity(tile, in_order);
        else
            order_by_pairs(tile, in_order);
        add_columns(out + r * out_stride, in_order, columns);
    }
}

INLINE void add_int8(const sum_tiles *sums, const float *exponents, int64_t rows, int64_t columns, float *out, int64_t out_stride)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512 tile[4], in_order[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums->bytes[j][r]));
#pragma GCC unroll 4
            for (int64_t digit = 1; digit < INT8_DIGITS; digit++) {
                const __m512 more = _mm512_cvtepi32_ps(_mm512_load_si512(sums->bytes[j][4 * digit + r]));
                sum = _mm512_fmadd_ps(more, _mm512_set1_ps((float)(1 << 8 * digit)), sum);
            }
            tile[j] = _mm512_scalef_ps(sum, _mm512_set1_ps(exponents[r]));
        }
        amx_order_by_quarters(tile, in_order);
        add_columns(out + r * out_stride, in_order, columns);
    }
}

/* ---- stages: for each block of 64 columns, each half of the tokens, each part of 32 columns ---- */

typedef struct axpy_call {
    float *out;
    int64_t out_stride, rows, v_dim, halves; /* 1 or 2: tiles that the span's tokens fill */
    const octavo_decode_span *span;
} axpy_call;

typedef struct axpy_stage {
    int64_t block, half, part;
} axpy_stage;

INLINE axpy_stage stage_at(const axpy_call *of, int64_t stage)
{
    return (axpy_stage){ stage >> of->halves, (stage >> 1) & (of->halves - 1), stage & 1 };
}

INLINE int64_t columns_left(const axpy_call *of, int64_t block)
{
    const int64_t left = of->v_dim - block * AXPY_COLUMNS;
    return left < AXPY_COLUMNS ? left : AXPY_COLUMNS;
}

INLINE value_rows stage_rows(const axpy_call *of, const axpy_stage *stage, int64_t tokens, int64_t width)
{
    const octavo_decode_span *span = of->span;
    const int64_t first = stage->half * tokens, left = span->tokens - first;
    const int64_t offset = first * span->v_stride + stage->block * AXPY_COLUMNS * width;
    return (value_rows){ span->v + offset, span->ahead, span->v_stride, left < tokens ? left : tokens,
                         width * columns_left(of, stage->block) };
}

INLINE void interleave(octavo_v_format format, const value_rows *rows, int whole, int64_t part, int normal[AMX_ROWS / STRIP],
                       value_tiles *tiles)
{
    for (int64_t first = 0; first < AMX_ROWS; first += STRIP) {
        if (format == OCTAVO_V_BF16)
            pair_bf16(rows, whole, part, first, tiles);
        else if (format == OCTAVO_V_E4M3)
            pair_e4m3(rows, whole, part, first, &normal[first / STRIP], tiles);
        else
            quad_int8(rows, whole, part, first, tiles);
        octavo_decode_fetch(rows->ahead, STRIP * (format == OCTAVO_V_E4M3 ? E4M3_CYCLES : PAIR_CYCLES));
    }
}

/* What the rows' weights became. */
typedef struct axpy_weights {
    uint8_t tiles[DECODE_ROWS / 4][2][AMX_ROWS][AMX_ROW_BYTES];
    float exponents[DECODE_ROWS];
} __attribute__((aligned(64))) axpy_weights;

INLINE int64_t rows_a_tile(octavo_v_format format) { return format == OCTAVO_V_E4M3 ? 8 : 4; }

INLINE int64_t group_rows(octavo_v_format format, const axpy_call *of, int64_t group)
{
    const int64_t left = of->rows - group * rows_a_tile(format);
    return left < rows_a_tile(format) ? left : rows_a_tile(format);
}

INLINE void add_block(octavo_v_format format, const axpy_call *of, int64_t block, const axpy_weights *weights, int64_t group,
                      const sum_tiles *sums)
{
    const int64_t first = group * rows_a_tile(format), columns = columns_left(of, block);
    float *out = of->out + first * of->out_stride + block * AXPY_COLUMNS;
    if (format == OCTAVO_V_INT8)
        add_int8(sums, weights->exponents + first, group_rows(format, of, group), columns, out, of->out_stride);
    else
        add_bf16(sums, format == OCTAVO_V_E4M3 ? E4M3_TERMS : BF16_TERMS, rows_a_tile(format), group_rows(format, of, group),
                 columns, out, of->out_stride);
}

/* One group of rows: sums stay in tiles until their block's successor needs them, so that nothing waits for a product. */
INLINE void multiply_one(octavo_v_format format, const axpy_call *of, const axpy_stage *stage, const axpy_weights *weights,
                         const value_tiles *values, sum_tiles *sums)
{
    if (stage->half == 0) {
        if (stage->block > 0) sums_store(stage->part, sums);
        sums_zero(stage->part);
    }
    multiply(format, weights->tiles[0][stage->half][0], values, stage->part);
    if (stage->half == 0 && stage->part == 1 && stage->block > 0) add_block(format, of, stage->block - 1, weights, 0, sums);
}

INLINE void multiply_groups(octavo_v_format format, const axpy_call *of, const axpy_stage *stage, const axpy_weights *weights,
                            int64_t groups, const value_tiles *values, sum_tiles *sums)
{
    for (int64_t group = 0; group < groups; group++) {
        if (stage->half == 0)
            sums_zero(stage->part);
        else
            sums_load(stage->part, &sums[group]);
        multiply(format, weights->tiles[group][stage->half][0], values, stage->part);
        sums_store(stage->part, &sums[group]);
    }
    for (int64_t group = 0; stage->part == 1 && stage->half + 1 == of->halves && group < groups; group++)
        add_block(format, of, stage->block, weights, group, &sums[group]);
}

/* A stage is interleaved before the one ahead of it is multiplied, whose stores are over by then. */
INLINE void axpy_stages(octavo_v_format format, const axpy_call *of, const axpy_weights *weights)
{
    const int64_t tokens = format == OCTAVO_V_INT8 ? DECODE_TOKENS : AXPY_HALF, width = format == OCTAVO_V_BF16 ? 2 : 1;
    const int64_t blocks = (of->v_dim + AXPY_COLUMNS - 1) / AXPY_COLUMNS, stages = blocks * of->halves * 2;
    const int64_t groups = (of->rows + rows_a_tile(format) - 1) / rows_a_tile(format);
    int normal[AMX_ROWS / STRIP] = { 0 };
    value_tiles values[2];
    sum_tiles sums[DECODE_ROWS / 4];
    _tile_dpbssd(7, 5, 6); /* wakes the multiplier while the first stage is interleaved */
    for (int64_t i = 0; i <= stages; i++) {
        if (i < stages) {
            const axpy_stage stage = stage_at(of, i);
            const value_rows rows = stage_rows(of, &stage, tokens, width);
            const int whole = rows.tokens == tokens && rows.bytes == AXPY_COLUMNS * width;
            if (whole && stage.part == 0)
                interleave(format, &rows, 1, 0, normal, &values[0]);
            else if (whole)
                interleave(format, &rows, 1, 1, normal, &values[1]);
            else
                interleave(format, &rows, 0, stage.part, normal, &values[stage.part]);
        }
        if (i == 0) continue;
        const axpy_stage before = stage_at(of, i - 1);
        if (groups == 1)
            multiply_one(format, of, &before, weights, &values[(i - 1) % 2], sums);
        else
            multiply_groups(format, of, &before, weights, groups, &values[(i - 1) % 2], sums);
    }
    if (groups > 1) return;
    sums_store(0, sums);
    sums_store(1, sums);
    add_block(format, of, blocks - 1, weights, 0, sums);
}

INLINE void axpy_terms(octavo_v_format format, float *out, int64_t out_stride, const float *weights, int64_t rows,
                       const octavo_decode_span *span, int64_t v_dim)
{
    const int64_t halves = format == OCTAVO_V_INT8 ? 1 : (span->tokens + AXPY_HALF - 1) / AXPY_HALF;
    const axpy_call call = { out, out_stride, rows, v_dim, halves, span };
    axpy_weights packed;
    for (int64_t group = 0; group * rows_a_tile(format) < rows; group++) {
        const int64_t first = group * rows_a_tile(format), count = group_rows(format, &call, group);
        if (format == OCTAVO_V_INT8)
            digit_weights(weights + first * DECODE_TOKENS, count, span->tokens, packed.tiles[group][0], packed.exponents + first);
        else
            split_weights(weights + first * DECODE_TOKENS, count, format == OCTAVO_V_E4M3 ? E4M3_TERMS : BF16_TERMS,
                          format == OCTAVO_V_E4M3 ? AMX_E4M3_FACTOR : 1.0f, rows_a_tile(format), span->tokens,
                          packed.tiles[group]);
    }
    axpy_stages(format, &call, &packed);
}

static void axpy_bf16(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span,
                      int64_t v_dim)
{
    axpy_terms(OCTAVO_V_BF16, out, out_stride, weights, rows, span, v_dim);
}

static void axpy_e4m3(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span,
                      int64_t v_dim)
{
    axpy_terms(OCTAVO_V_E4M3, out, out_stride, weights, rows, span, v_dim);
}

static void axpy_int8(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span,
                      int64_t v_dim)
{
    axpy_terms(OCTAVO_V_INT8, out, out_stride, weights, rows, span, v_dim);
}

octavo_decode_axpy *octavo_amx_axpy(octavo_v_format format)
{
    switch (format) {
    case OCTAVO_V_BF16:
        return axpy_bf16;
    case OCTAVO_V_F32:
    case OCTAVO_V_F16:
        return octavo_decode_axpy_avx512(format);
    case OCTAVO_V_E4M3:
        return axpy_e4m3;
    case OCTAVO_V_INT8:
        return axpy_int8;
    }
    return axpy_bf16;
}
