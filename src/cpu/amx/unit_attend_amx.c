/* unit_attend_amx.c - attention over many whole units of e4m3x2 keys and e4m3 values, one after the other without a pause.
 *
 * A step takes sixteen tokens of keys and a quarter of the values, of two units: keys of unit i are widened and meet q in tiles,
 * values of unit i - 1, whose weights are known, are interleaved and meet them. What tiles load was stored at least one stage
 * before, what they give is looked at in the next step, so that nothing waits. The lines of the unit that follows are asked for
 * one by one, as many as are worked on.
 *
 * Tokens keep the order that amx_transpose gives them: lane 4 a + b is token 4 b + a of its sixteen. Values meet the weights as
 * two bf16 terms. */
#include "cpu/amx/amx_steps.h"
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/decode_math_body.h"

enum {
    STEPS = DECODE_TOKENS / STEP_TOKENS, /* of a unit, of its keys as of its values */
    HALF_TOKENS = 32,                    /* that a tile of values reduces */
    QUADS_MAX = 2,                       /* of rows */
    ROWS_MAX = 4 * QUADS_MAX,
    TERMS = 2,
    BLOCK_COLUMNS = 64 /* of the output: two steps, for codes of even and of odd columns */
};

/* Tiles. Macros, because their names are pasted into instructions. */
#define TILE_BASE     0 /* sums of the base     */
#define TILE_RESIDUAL 1 /* and of the residual  */
#define TILE_KEYS     2
#define TILE_Q        3
#define TILE_WEIGHTS  4
#define TILE_VALUES   5
#define TILE_LOW      6 /* sums of values */
#define TILE_HIGH     7

/* What is constant where the stages are compiled. */
typedef struct unit_kind {
    int dim;   /* 64 or 128, of keys and values */
    int quads; /* rows / 4, rounded up          */
} unit_kind;

/* What becomes of a unit between its scores and its output. */
typedef struct unit_weights {
    uint8_t tiles[2][AMX_ROWS][AMX_ROW_BYTES]; /* of each half of the tokens: row term * 4 * quads + r */
    float shrink[ROWS_MAX];                    /* of what was summed before */
} __attribute__((aligned(64))) unit_weights;

typedef struct unit_stages {
    uint8_t wide[2][STEP_TOKENS][WIDE_BYTES]; /* of each plane               */
    uint8_t products[2][2][AMX_TILE_BYTES];   /* of two steps, of each plane */
    float scores[ROWS_MAX][DECODE_TOKENS];
    uint8_t values[2][2][AMX_ROWS][AMX_ROW_BYTES]; /* of each half of the tokens, two tiles */
    uint8_t sums[4][AMX_ROWS][AMX_ROW_BYTES];
    unit_weights weights[2];
} __attribute__((aligned(64))) unit_stages;

typedef struct unit_call {
    const octavo_decode_pass *pass;
    const uint8_t *packed;
    const octavo_amx_codes *residual;
    unit_stages *stages;
} unit_call;

/* ---- keys: stage 1, codes to bf16 ---- */

/* Residuals are often zero. */
INLINE void widen_residual(const octavo_amx_codes *codes, const uint8_t *rows, const uint8_t *next, int64_t stride, int slabs,
                           uint8_t wide[STEP_TOKENS][WIDE_BYTES])
{
    const amx_lookup lookup = amx_lookup_of(codes);
#pragma GCC unroll 4
    for (int64_t k = 0; k < STEP_TOKENS; k++, rows += stride, next += stride)
#pragma GCC unroll 2
        for (int i = 0; i < slabs; i++) {
            __m512i even, odd;
            amx_ask(next + 64 * i);
            amx_look_up(&lookup, _mm512_loadu_si512(rows + 64 * i), &even, &odd);
            _mm512_store_si512(wide[k] + 128 * i, even);
            _mm512_store_si512(wide[k] + 128 * i + 64, odd);
        }
}

INLINE void widen_step(unit_kind kind, const unit_call *call, int64_t unit, int64_t step, int plane)
{
    const octavo_decode_unit *now = &call->pass->units[unit], *next = now + 1;
    const int64_t stride = call->pass->k_stride[plane], offset = step * STEP_TOKENS * stride;
    const uint8_t *rows = now->k[plane] + offset, *ahead = next->k[plane] + offset;
    if (plane == 0 && step == 0) amx_ask(next->k_scale), amx_ask(next->v_scale);
    if (plane == 0) amx_widen_e4m3(rows, ahead, stride, kind.dim / 64, 1, call->stages->wide[plane]);
    else widen_residual(call->residual, rows, ahead, stride, kind.dim / 64, call->stages->wide[plane]);
}

/* ---- keys: stage 2, products; stage 3, scores ---- */

/* Tile names are literals. */
#define MULTIPLY_PLANE(sums, plane, turn)                                                            \
    do {                                                                                             \
        _tile_zero(sums);                                                                            \
        _Pragma("GCC unroll 4") for (int64_t i = 0; i < kind.dim / 32; i++) {                        \
            _tile_loadd(TILE_Q, call->packed + i * AMX_TILE_BYTES, AMX_ROW_BYTES);                   \
            _tile_loadd(TILE_KEYS, call->stages->wide[plane][0] + i * AMX_ROW_BYTES, WIDE_BYTES);    \
            _tile_dpbf16ps(sums, TILE_KEYS, TILE_Q);                                                 \
        }                                                                                            \
        _tile_stored(sums, call->stages->products[turn][plane], (size_t)(16 * kind.quads));          \
    } while (0)

INLINE void multiply_base(unit_kind kind, const unit_call *call, int64_t turn) { MULTIPLY_PLANE(TILE_BASE, 0, turn); }

INLINE void multiply_residual(unit_kind kind, const unit_call *call, int64_t turn) { MULTIPLY_PLANE(TILE_RESIDUAL, 1, turn); }

INLINE void score_step(unit_kind kind, const unit_call *call, int64_t unit, int64_t step, int64_t turn)
{
    unit_stages *stages = call->stages;
    const __m512 factor = amx_power_factors(call->pass->units[unit].k_scale + step * STEP_TOKENS, call->pass->softmax_scale);
    for (int64_t quad = 0; quad < kind.quads; quad++) {
        __m512 z[4], more[4];
        amx_quad_in_order(stages->products[turn][0], 4 * kind.quads, quad, z);
        amx_quad_in_order(stages->products[turn][1], 4 * kind.quads, quad, more);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) z[j] = _mm512_add_ps(z[j], more[j]);
        amx_transpose(z, z);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) _mm512_store_ps(stages->scores[4 * quad + r] + step * STEP_TOKENS, _mm512_mul_ps(z[r], factor));
    }
}

/* ---- softmax: a unit's scores become weights ---- */

INLINE void weigh_row(unit_kind kind, const unit_call *call, const float *scores, float from, const __m512 v_factor[STEPS],
                      int64_t row, unit_weights *weights, float *sum)
{
    __m512 added = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int64_t i = 0; i < STEPS; i++) {
        __m256i term[TERMS];
        const __m512 weight = v_exp(_mm512_sub_ps(_mm512_load_ps(scores + 16 * i), _mm512_set1_ps(from)));
        added = _mm512_add_ps(added, weight);
        amx_split(_mm512_mul_ps(weight, v_factor[i]), TERMS, term);
#pragma GCC unroll 2
        for (int64_t k = 0; k < TERMS; k++)
            _mm256_store_si256((__m256i *)(void *)(weights->tiles[i / 2][4 * kind.quads * k + row] + 32 * (i % 2)), term[k]);
    }
    if (row < call->pass->rows) *sum = *sum * weights->shrink[row] + _mm512_reduce_add_ps(added);
}

INLINE void weigh_unit(unit_kind kind, const unit_call *call, int64_t unit)
{
    const octavo_decode_unit *of = &call->pass->units[unit];
    unit_weights *weights = &call->stages->weights[unit % 2];
    float from[16] = { 0.0f }, shrink[16];
    __m512 v_factor[STEPS];
#pragma GCC unroll 4
    for (int64_t i = 0; i < STEPS; i++) v_factor[i] = amx_power_factors(of->v_scale + 16 * i, AMX_E4M3_FACTOR);
#pragma GCC unroll 4
    for (int64_t r = 0; r < 4 * kind.quads; r++) {
        const float *scores = call->stages->scores[r];
        const __m512 a = _mm512_max_ps(_mm512_load_ps(scores), _mm512_load_ps(scores + 16));
        const __m512 b = _mm512_max_ps(_mm512_load_ps(scores + 32), _mm512_load_ps(scores + 48));
        from[r] = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
    }
    const __mmask16 rows = (__mmask16)((1u << call->pass->rows) - 1u);
    const __m512 before = _mm512_maskz_loadu_ps(rows, of->max), most = _mm512_max_ps(before, _mm512_loadu_ps(from));
    _mm512_mask_storeu_ps(of->max, rows, most);
    _mm512_storeu_ps(from, most);
    _mm512_storeu_ps(shrink, v_exp(_mm512_sub_ps(before, most)));
    for (int64_t r = 0; r < 4 * kind.quads; r++) weights->shrink[r] = shrink[r];
#pragma GCC unroll 4
    for (int64_t r = 0; r < 4 * kind.quads; r++)
        weigh_row(kind, call, call->stages->scores[r], from[r], v_factor, r, weights, of->sum + r);
}

/* ---- values: stage 1, codes of two tokens beside each other as bf16 ---- */

/* The rows of two tokens; quarter q of the tiles' rows holds columns 16 q + part + (0, 2, 4, 6), and 8 more. */
INLINE void pair_rows(__m512i a, __m512i b, int64_t part, uint8_t *low, uint8_t *high)
{
    const __m512i even = amx_shift_e4m3(part ? a : amx_even_up(a)), odd = amx_shift_e4m3(part ? b : amx_even_up(b));
    _mm512_store_si512(low, _mm512_unpacklo_epi16(even, odd));
    _mm512_store_si512(high, _mm512_unpackhi_epi16(even, odd));
}

static __attribute__((noinline)) void pair_rows_by_table(__m512i a, __m512i b, int64_t part, uint8_t *low, uint8_t *high)
{
    const amx_lookup lookup = amx_lookup_of(&octavo_amx_e4m3);
    __m512i even[2], odd[2];
    amx_look_up(&lookup, a, &even[0], &odd[0]);
    amx_look_up(&lookup, b, &even[1], &odd[1]);
    _mm512_store_si512(low, part ? _mm512_unpacklo_epi16(odd[0], odd[1]) : _mm512_unpacklo_epi16(even[0], even[1]));
    _mm512_store_si512(high, part ? _mm512_unpackhi_epi16(odd[0], odd[1]) : _mm512_unpackhi_epi16(even[0], even[1]));
}

/* Sixteen tokens: rows 2 a and 2 a + 1 of eight of the tiles are tokens a and a + 4, a + 8 and a + 12. `next`: eight lines, or
 * `lines` of each of some rows. */
INLINE void interleave_tokens(const uint8_t *rows, const uint8_t *next, int64_t stride, int64_t lines, int64_t part,
                              uint8_t (*low)[AMX_ROW_BYTES], uint8_t (*high)[AMX_ROW_BYTES])
{
    const __m512i exponent = _mm512_set1_epi8(0x78);
#pragma GCC unroll 4
    for (int64_t a = 0; a < 4; a++, rows += stride, next += 2 / lines * stride) {
        const __m512i w = _mm512_loadu_si512(rows), x = _mm512_loadu_si512(rows + 4 * stride);
        amx_ask(next);
        pair_rows(w, x, part, low[2 * a], high[2 * a]);
        const __m512i y = _mm512_loadu_si512(rows + 8 * stride), z = _mm512_loadu_si512(rows + 12 * stride);
        amx_ask(lines == 1 ? next + stride : next + 64);
        pair_rows(y, z, part, low[2 * a + 1], high[2 * a + 1]);
        const __mmask64 first = _kor_mask64(_mm512_testn_epi8_mask(w, exponent), _mm512_testn_epi8_mask(x, exponent));
        const __mmask64 second = _kor_mask64(_mm512_testn_epi8_mask(y, exponent), _mm512_testn_epi8_mask(z, exponent));
        if (__builtin_expect(_kor_mask64(first, second) != 0, 0)) {
            pair_rows_by_table(w, x, part, low[2 * a], high[2 * a]);
            pair_rows_by_table(y, z, part, low[2 * a + 1], high[2 * a + 1]);
        }
    }
}

/* Step 2 b + part of a unit's values: columns of block b whose parity is `part`. The next unit's lines are asked for in order. */
INLINE void interleave_step(unit_kind kind, const unit_call *call, int64_t unit, int64_t step, int64_t part)
{
    const int64_t stride = call->pass->v_stride, lines = kind.dim / 64, rows_a_turn = 8 / lines;
    const uint8_t *rows = call->pass->units[unit].v + step / 2 * BLOCK_COLUMNS;
    const uint8_t *next = call->pass->units[unit + 1].v + step * 4 * rows_a_turn * stride;
    for (int64_t t = 0; t < DECODE_TOKENS; t += STEP_TOKENS, next += rows_a_turn * stride) {
        uint8_t(*tiles)[AMX_ROWS][AMX_ROW_BYTES] = call->stages->values[t / HALF_TOKENS];
        const int64_t first = t % HALF_TOKENS / 2;
        interleave_tokens(rows + t * stride, next, stride, lines, part, tiles[0] + first, tiles[1] + first);
    }
}

/* ---- values: stage 2, products; stage 3, output ---- */

INLINE void multiply_values(const unit_call *call, int64_t unit, int64_t step)
{
    unit_stages *stages = call->stages;
    _tile_zero(TILE_LOW);
    _tile_zero(TILE_HIGH);
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; half++) {
        _tile_loadd(TILE_WEIGHTS, stages->weights[unit % 2].tiles[half], AMX_ROW_BYTES);
        _tile_loadd(TILE_VALUES, stages->values[half][0], AMX_ROW_BYTES);
        _tile_dpbf16ps(TILE_LOW, TILE_WEIGHTS, TILE_VALUES);
        _tile_loadd(TILE_VALUES, stages->values[half][1], AMX_ROW_BYTES);
        _tile_dpbf16ps(TILE_HIGH, TILE_WEIGHTS, TILE_VALUES);
    }
    _tile_stored(TILE_LOW, stages->sums[2 * (step % 2)], AMX_ROW_BYTES);
    _tile_stored(TILE_HIGH, stages->sums[2 * (step % 2) + 1], AMX_ROW_BYTES);
}

INLINE void add_block(unit_kind kind, const unit_call *call, int64_t unit, int64_t block)
{
    const octavo_decode_unit *of = &call->pass->units[unit];
    const unit_weights *weights = &call->stages->weights[unit % 2];
    for (int64_t r = 0; r < call->pass->rows; r++) {
        const __m512 shrink = _mm512_set1_ps(weights->shrink[r]);
        float *out = of->out + r * call->pass->out_stride + block * BLOCK_COLUMNS;
        __m512 tile[4], in_order[4];
#pragma GCC unroll 4
        for (int64_t j = 0; j < 4; j++) {
            const uint8_t(*rows)[AMX_ROW_BYTES] = (const uint8_t(*)[AMX_ROW_BYTES])call->stages->sums[j];
            tile[j] = _mm512_add_ps(_mm512_load_ps(rows[4 * kind.quads + r]), _mm512_load_ps(rows[r]));
        }
        amx_order_by_parity(tile, in_order);
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++)
            _mm512_storeu_ps(out + 16 * i, _mm512_fmadd_ps(_mm512_loadu_ps(out + 16 * i), shrink, in_order[i]));
    }
}

/* ---- all stages ---- */

/* A unit's keys take STEPS steps, of which the last one's scores are ready in the step behind it. Its weights are made in the
 * next step, and its values follow in that one and the three behind it. */
enum { WEIGH_AFTER = STEPS + 1 };

INLINE void attend_step(unit_kind kind, const unit_call *call, int64_t i)
{
    const int64_t keys = call->pass->count * STEPS, value_steps = 2 * kind.dim / BLOCK_COLUMNS;
    const int64_t v = i - WEIGH_AFTER, added = v - 2, turn = i & 1;
    const int has_keys = i < keys, had_keys = i >= 1 && i <= keys, has_values = v >= 0 && v < keys && v % STEPS < value_steps;
    if (has_values && v % STEPS == 0) weigh_unit(kind, call, v / STEPS);
    if (has_keys) widen_step(kind, call, i / STEPS, i % STEPS, 0);
    if (had_keys) multiply_residual(kind, call, !turn);
    if (has_values && v % 2 == 0) interleave_step(kind, call, v / STEPS, v % STEPS, 0);
    if (has_values && v % 2 == 1) interleave_step(kind, call, v / STEPS, v % STEPS, 1);
    if (has_keys) multiply_base(kind, call, turn);
    if (has_keys) widen_step(kind, call, i / STEPS, i % STEPS, 1);
    if (added >= 0 && added % 2 == 0 && added % STEPS < value_steps) add_block(kind, call, added / STEPS, added % STEPS / 2);
    if (has_values) multiply_values(call, v / STEPS, v % STEPS);
    if (had_keys) score_step(kind, call, (i - 1) / STEPS, (i - 1) % STEPS, !turn);
}

INLINE void attend_units(unit_kind kind, const octavo_decode_q *q, const octavo_decode_pass *pass)
{
    unit_stages stages;
    const unit_call call = { pass, q->packed, q->residual_exponent ? &octavo_amx_e4m3_sixteenth : &octavo_amx_e4m3, &stages };
    octavo_amx_tiles tiles = octavo_amx_whole_tiles;
    tiles.row_bytes[TILE_BASE] = tiles.row_bytes[TILE_RESIDUAL] = tiles.row_bytes[TILE_Q] = (uint16_t)(16 * kind.quads);
    tiles.rows[TILE_WEIGHTS] = tiles.rows[TILE_LOW] = tiles.rows[TILE_HIGH] = (uint8_t)(TERMS * 4 * kind.quads);
    _tile_loadconfig(&tiles);
    for (int64_t i = 0; i < pass->count * STEPS + WEIGH_AFTER + 1; i++) attend_step(kind, &call, i);
    _tile_loadconfig(&octavo_amx_whole_tiles);
}

static void attend_64(const octavo_decode_q *q, const octavo_decode_pass *pass)
{
    if (pass->rows <= 4) attend_units((unit_kind){ 64, 1 }, q, pass);
    else attend_units((unit_kind){ 64, 2 }, q, pass);
}

static void attend_128(const octavo_decode_q *q, const octavo_decode_pass *pass)
{
    if (pass->rows <= 4) attend_units((unit_kind){ 128, 1 }, q, pass);
    else attend_units((unit_kind){ 128, 2 }, q, pass);
}

octavo_decode_attend *octavo_amx_attend(const octavo_kv_view *kv, int32_t planes, int64_t rows, octavo_dtype q_dtype)
{
    if (kv->k_format != OCTAVO_K_E4M3X2 || kv->v_format != OCTAVO_V_E4M3 || planes != 2) return NULL;
    if (!kv->k_scale.data || kv->k_scale.token_bytes != 1 || !kv->v_scale.data || kv->v_scale.token_bytes != 1) return NULL;
    if (q_dtype != OCTAVO_BF16 || rows > ROWS_MAX || kv->v_dim != kv->head_dim) return NULL;
    return kv->head_dim == 64 ? attend_64 : kv->head_dim == 128 ? attend_128 : NULL;
}
