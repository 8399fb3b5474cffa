/* unit_scan_amx.c - the masses of many whole units, one after the other without a pause.
 *
 * Steps of sixteen tokens run through four stages at a time, so that none waits for the one before it: while step i is widened to
 * a scratch row, step i - 1 meets q in tiles, step i - 2 becomes scores, and the tokens of the unit before are summed. Keys that
 * tiles can load where they are skip the first stage. The lines of the next unit are asked for evenly as the work goes on.
 *
 * q keeps 15 bits or more: two of its digits for integer keys, at most two of its bf16 terms for e4m3 (budget SCORE). Scores are
 * in units of log 2 until the end. */
#include "cpu/amx/amx_steps.h"
#include <math.h>

enum { UNIT_TOKENS_MAX = 128, QUADS_MAX = 4 /* of rows */ };

#define LOG2_E 0x1.715476p+0f
#define LN_2   0x1.62e43p-1f

typedef struct scan_stages {
    uint8_t wide[2][STEP_TOKENS][WIDE_BYTES];
    uint8_t products[2][AMX_TILE_BYTES];
    float scores[2][4 * QUADS_MAX][UNIT_TOKENS_MAX];
    __m512 most[4 * QUADS_MAX], sum[4 * QUADS_MAX], from[4 * QUADS_MAX];
} __attribute__((aligned(64))) scan_stages;

/* What is constant where the stages are compiled. */
typedef struct scan_kind {
    octavo_k_format format; /* E4M3, INT8 or INT4X2             */
    int tiles;              /* along head_dim                   */
    int columns;            /* 4, 8 or 16 of a tile of products */
} scan_kind;

/* One pass over the units for the rows whose terms share a tile. */
typedef struct scan_pass {
    const octavo_decode_units *units;
    int64_t row_bytes;
    const float *factors; /* of integer rows: see pack_int8 */
    int64_t row, quads;   /* first row, rows / 4 rounded up */
    int64_t second;       /* the quad of columns where the second terms begin; 0: there are none */
    int64_t steps;        /* of a unit */
} scan_pass;

/* Where a stage is. */
typedef struct scan_place {
    int64_t unit, step;
} scan_place;

INLINE void advance(scan_place *at, int64_t steps)
{
    if (++at->step == steps) at->step = 0, at->unit++;
}

/* ---- stage 1: codes that tiles cannot take as they are ---- */

/* 16 times each nibble, those of the first half of the row first. */
INLINE void widen_int4(const uint8_t *rows, const uint8_t *next, int64_t stride, int64_t bytes, uint8_t wide[STEP_TOKENS][WIDE_BYTES])
{
    const __m512i top = _mm512_set1_epi8((char)0xF0);
    const __mmask64 mask = amx_first_bytes(bytes);
#pragma GCC unroll 4
    for (int64_t k = 0; k < STEP_TOKENS; k++) {
        const __m512i x = _mm512_maskz_loadu_epi8(mask, rows + k * stride);
        if (k % 2 == 0) amx_ask(next + k * stride);
        _mm512_store_si512(wide[k], _mm512_and_si512(_mm512_slli_epi16(x, 4), top));
        _mm512_store_si512(wide[k] + 64, _mm512_and_si512(x, top));
    }
}

/* ---- stage 2: products ---- */

#define MULTIPLY_STEP(PRODUCT, sums)                                     \
    do {                                                                 \
        _tile_zero(sums);                                                \
        _tile_loadd(2, keys, stride);                                    \
        PRODUCT(sums, 2, 4);                                             \
        if (kind.tiles > 1) {                                            \
            _tile_loadd(3, keys + AMX_ROW_BYTES, stride);                \
            PRODUCT(sums, 3, 5);                                         \
        }                                                                \
        if (kind.tiles > 2) {                                            \
            _tile_loadd(2, keys + 2 * AMX_ROW_BYTES, stride);            \
            PRODUCT(sums, 2, 6);                                         \
            _tile_loadd(3, keys + 3 * AMX_ROW_BYTES, stride);            \
            PRODUCT(sums, 3, 7);                                         \
        }                                                                \
        _tile_stored(sums, products, (size_t)(4 * kind.columns));        \
    } while (0)

INLINE void multiply_step(scan_kind kind, int64_t i, const uint8_t *keys, size_t stride, uint8_t *products)
{
    if (amx_is_integer(kind.format)) {
        if (i % 2) MULTIPLY_STEP(_tile_dpbssd, 1);
        else       MULTIPLY_STEP(_tile_dpbssd, 0);
    } else {
        if (i % 2) MULTIPLY_STEP(_tile_dpbf16ps, 1);
        else       MULTIPLY_STEP(_tile_dpbf16ps, 0);
    }
}

/* ---- stage 3: scores ---- */

/* Of the sixteen tokens, as amx_power_factors orders them. */
INLINE __m512 step_factors(octavo_k_format format, const uint8_t *scales, float by)
{
    if (amx_is_integer(format)) {
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const __m512i s = _mm512_permutexvar_epi32(order, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)scales)));
        return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(s, 16)), _mm512_set1_ps(by));
    }
    return amx_power_factors(scales, by);
}

/* Both digits of the eight columns of integer keys, added. */
INLINE void step_digits(const uint8_t *products, __m512 z[4])
{
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i a = _mm512_load_si512(products + 128 * j), b = _mm512_load_si512(products + 128 * j + 64);
        const __m512 first = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(a, b, 0x88));
        const __m512 second = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(a, b, 0xDD));
        z[j] = _mm512_fmadd_ps(second, _mm512_set1_ps(1.0f / 254.0f), first);
    }
}

INLINE void score_quad(scan_kind kind, const scan_pass *pass, const uint8_t *products, int64_t quad, __m512 factor,
                       scan_stages *stages, float (*scores)[UNIT_TOKENS_MAX], int64_t token)
{
    __m512 z[4], more[4];
    if (amx_is_integer(kind.format)) {
        step_digits(products, z);
    } else {
        amx_quad_in_order(products, kind.columns, quad, z);
        if (kind.columns == AMX_ROWS && pass->second) {
            amx_quad_in_order(products, kind.columns, pass->second + quad, more);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) z[j] = _mm512_add_ps(z[j], more[j]);
        }
    }
    amx_transpose(z, z);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        if (kind.format == OCTAVO_K_INT8) z[r] = _mm512_mul_ps(z[r], _mm512_set1_ps(pass->factors[2 * r]));
        if (kind.format == OCTAVO_K_INT4X2) /* the middle of a nibble that was not read */
            z[r] = _mm512_fmadd_ps(z[r], _mm512_set1_ps(pass->factors[2 * r]), _mm512_set1_ps(pass->factors[2 * r + 1]));
        z[r] = _mm512_mul_ps(z[r], factor);
        _mm512_store_ps(scores[4 * quad + r] + token, z[r]);
        stages->most[4 * quad + r] = _mm512_max_ps(stages->most[4 * quad + r], z[r]);
    }
}

/* ---- stage 4: sums ---- */

/* 2^x for x <= 0 within 2^-22, 0 below 2^-100. */
INLINE __m512 exp2_of(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f); /* its unit in the last place is 1: the sum's low bits are the integer */
    const __mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-100.0f), _CMP_GT_OQ);
    const __m512 shifted = _mm512_add_ps(x, magic), r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
    __m512 power = _mm512_fmadd_ps(_mm512_set1_ps(0x1.5c08e6p-10f), r, _mm512_set1_ps(0x1.3d0c52p-7f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0x1.c6b6e4p-5f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0x1.ebf918p-3f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0x1.62e428p-1f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(1.0f));
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(seen, _mm512_castps_si512(power), exponent));
}

INLINE void sum_step(int64_t rows, float (*scores)[UNIT_TOKENS_MAX], int64_t token, scan_stages *stages)
{
#pragma GCC unroll 4
    for (int64_t r = 0; r < rows; r++) {
        const __m512 x = _mm512_sub_ps(_mm512_load_ps(scores[r] + token), stages->from[r]);
        stages->sum[r] = _mm512_add_ps(stages->sum[r], exp2_of(x));
    }
}

/* A unit's scores are complete: what its sums are taken against. */
INLINE void close_scores(const scan_pass *pass, int64_t rows, int64_t unit, scan_stages *stages)
{
#pragma GCC unroll 4
    for (int64_t r = 0; r < rows; r++) {
        const float most = _mm512_reduce_max_ps(stages->most[r]);
        pass->units->max[(pass->row + r) * DECODE_UNITS + unit] = most * LN_2;
        stages->from[r] = _mm512_set1_ps(most);
        stages->most[r] = _mm512_set1_ps(-INFINITY);
    }
}

INLINE void close_sums(const scan_pass *pass, int64_t rows, int64_t unit, scan_stages *stages)
{
#pragma GCC unroll 4
    for (int64_t r = 0; r < rows; r++) {
        pass->units->sum[(pass->row + r) * DECODE_UNITS + unit] = _mm512_reduce_add_ps(stages->sum[r]);
        stages->sum[r] = _mm512_setzero_ps();
    }
}

/* ---- all stages ---- */

/* Four rows of a step of the next unit; where the first stage asks for the even ones, the odd ones. */
INLINE void ask_quarter(scan_kind kind, const scan_pass *pass, const scan_place *at, int64_t quarter)
{
    const int64_t stride = pass->units->k_stride, lines = amx_is_e4m3(kind.format) ? kind.tiles / 2 : kind.format == OCTAVO_K_INT8 ? kind.tiles : 1;
    const uint8_t *next = pass->units->k[at->unit + 1] + (at->step * STEP_TOKENS + 4 * quarter) * stride;
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; k++)
#pragma GCC unroll 2
        for (int64_t line = 0; line < lines; line++)
            if (kind.format == OCTAVO_K_INT8 || k % 2) amx_ask(next + k * stride + 64 * line);
}

INLINE void widen_step(scan_kind kind, const scan_pass *pass, const scan_place *at, uint8_t wide[STEP_TOKENS][WIDE_BYTES])
{
    const octavo_decode_units *units = pass->units;
    const int64_t stride = units->k_stride, offset = at->step * STEP_TOKENS * stride;
    const uint8_t *rows = units->k[at->unit] + offset, *next = units->k[at->unit + 1] + offset;
    if (at->step == 0) amx_ask(units->scale[at->unit + 1]);
    if (kind.format == OCTAVO_K_E4M3) amx_widen_e4m3(rows, next, stride, kind.tiles / 2, 2, wide);
    if (kind.format == OCTAVO_K_INT4X2) widen_int4(rows, next, stride, pass->row_bytes, wide);
}

INLINE void scan_units(scan_kind kind, int64_t quads, const scan_pass *pass, scan_stages *stages)
{
    const octavo_decode_units *units = pass->units;
    const int64_t steps = pass->steps, count = units->count * steps, scale_bytes = STEP_TOKENS * octavo_k_scale_bytes(kind.format);
    const float by = units->softmax_scale * LOG2_E;
    scan_place widened = { 0, 0 }, multiplied = { 0, 0 }, scored = { 0, 0 }, summed = { 0, 0 };
    for (int64_t i = 0; i < count + steps + 2; i++) {
        const scan_place asked = widened;
        if (i < count) {
            ask_quarter(kind, pass, &asked, 0);
            widen_step(kind, pass, &widened, stages->wide[i % 2]);
            advance(&widened, steps);
        }
        if (i >= 1 && i <= count) {
            const uint8_t *direct = units->k[multiplied.unit] + multiplied.step * STEP_TOKENS * units->k_stride;
            if (kind.format == OCTAVO_K_INT8) multiply_step(kind, i, direct, (size_t)units->k_stride, stages->products[i % 2]);
            else multiply_step(kind, i, stages->wide[(i - 1) % 2][0], WIDE_BYTES, stages->products[i % 2]);
            advance(&multiplied, steps);
        }
        if (i < count) ask_quarter(kind, pass, &asked, 1);
        if (i >= 2 && i <= count + 1) {
            const __m512 factor = step_factors(kind.format, units->scale[scored.unit] + scored.step * scale_bytes, by);
            for (int64_t quad = 0; quad < quads; quad++)
                score_quad(kind, pass, stages->products[(i - 1) % 2], quad, factor, stages, stages->scores[scored.unit % 2],
                           scored.step * STEP_TOKENS);
            advance(&scored, steps);
        }
        if (i < count) ask_quarter(kind, pass, &asked, 2);
        if (i >= steps + 2) {
            sum_step(4 * quads, stages->scores[summed.unit % 2], summed.step * STEP_TOKENS, stages);
            if (summed.step + 1 == steps) close_sums(pass, 4 * quads, summed.unit, stages);
            advance(&summed, steps);
        }
        if (i < count) ask_quarter(kind, pass, &asked, 3);
        if (i >= 2 && i <= count + 1 && scored.step == 0) close_scores(pass, 4 * quads, scored.unit - 1, stages);
    }
}

INLINE void scan_pass_of(scan_kind kind, const uint8_t *packed, const scan_pass *pass)
{
    scan_stages stages;
    octavo_amx_tiles tiles = octavo_amx_whole_tiles;
    for (int i = 0; i < 8; i++)
        if (i != 2 && i != 3) tiles.row_bytes[i] = (uint16_t)(4 * kind.columns);
    _tile_loadconfig(&tiles);
    _tile_loadd(4, packed, AMX_ROW_BYTES);
    if (kind.tiles > 1) _tile_loadd(5, packed + AMX_TILE_BYTES, AMX_ROW_BYTES);
    if (kind.tiles > 2) {
        _tile_loadd(6, packed + 2 * AMX_TILE_BYTES, AMX_ROW_BYTES);
        _tile_loadd(7, packed + 3 * AMX_TILE_BYTES, AMX_ROW_BYTES);
    }
    for (int64_t r = 0; r < 4 * pass->quads; r++) {
        stages.most[r] = _mm512_set1_ps(-INFINITY);
        stages.sum[r] = stages.from[r] = _mm512_setzero_ps();
    }
    if (kind.columns < AMX_ROWS) scan_units(kind, 1, pass, &stages);
    else scan_units(kind, pass->quads, pass, &stages);
    _tile_loadconfig(&octavo_amx_whole_tiles);
}

static void scan_rows(const octavo_decode_q *q, const scan_pass *pass, const uint8_t *packed)
{
    const int64_t steps = amx_steps(q->format, q);
    const int narrow = pass->quads == 1 && !pass->second;
    if (amx_is_integer(q->format)) {
        if (q->format == OCTAVO_K_INT4X2) scan_pass_of((scan_kind){ OCTAVO_K_INT4X2, 2, 8 }, packed, pass);
        else if (steps == 1) scan_pass_of((scan_kind){ OCTAVO_K_INT8, 1, 8 }, packed, pass);
        else scan_pass_of((scan_kind){ OCTAVO_K_INT8, 2, 8 }, packed, pass);
    } else if (steps == 2) {
        if (narrow) scan_pass_of((scan_kind){ OCTAVO_K_E4M3, 2, 4 }, packed, pass);
        else scan_pass_of((scan_kind){ OCTAVO_K_E4M3, 2, 16 }, packed, pass);
    } else {
        if (narrow) scan_pass_of((scan_kind){ OCTAVO_K_E4M3, 4, 4 }, packed, pass);
        else scan_pass_of((scan_kind){ OCTAVO_K_E4M3, 4, 16 }, packed, pass);
    }
}

static void scan(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_units *units)
{
    const int terms = amx_terms(q);
    const int64_t together = amx_tile_rows(terms), group_bytes = amx_steps(q->format, q) * AMX_TILE_BYTES;
    const float *factors = (const float *)(const void *)(q->packed + amx_factors_at(q));
    octavo_decode_units of = *units;
    of.max -= row * DECODE_UNITS;
    of.sum -= row * DECODE_UNITS;
    for (int64_t r = row; r < row + rows; r += together) {
        const int64_t left = row + rows - r, count = left < together ? left : together;
        const scan_pass pass = { .units = &of, .row_bytes = octavo_k_row_bytes(q->format, q->head_dim), .factors = factors + 2 * r,
                                 .row = r, .quads = (count + 3) / 4, .second = terms > 1 ? together / 4 : 0,
                                 .steps = of.tokens / STEP_TOKENS };
        scan_rows(q, &pass, q->packed + r / together * group_bytes);
    }
}

octavo_decode_scan *octavo_amx_scan(const octavo_kv_view *kv)
{
    const int64_t dim = kv->head_dim, tokens = kv->sub_block_tokens, scale_bytes = octavo_k_scale_bytes(kv->k_format);
    if (dim != 64 && dim != 128) return NULL;
    if (tokens % STEP_TOKENS || tokens > UNIT_TOKENS_MAX || !kv->k_scale.data || kv->k_scale.token_bytes != scale_bytes) return NULL;
    switch (kv->k_format) {
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2:
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2:
    case OCTAVO_K_INT4X2:
        return scan;
    default:
        return NULL;
    }
}
