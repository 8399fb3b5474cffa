/* prefill_pack_amx.c - keys and values of a prefill call into AMX tiles. */
#include "cpu/amx/prefill_amx.h"

/* A row of K as bf16 terms: step s of term t goes to out + (t * term + s) tiles. Returns whether a second term is not zero. */
static int pack_key(uint8_t *out, size_t term, const float *row, int64_t steps, int terms)
{
    __m512i any = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; s++) {
        const __m512 low = _mm512_loadu_ps(row + 32 * s), high = _mm512_loadu_ps(row + 32 * s + 16);
        const __m512i first = prefill_bf16(low, high);
        _mm512_storeu_si512(out + s * PREFILL_TILE, first);
        if (terms < 2) continue;
        const __m512i rest = prefill_bf16(prefill_rest(low, _mm512_castsi512_si256(first)), prefill_rest(high, _mm512_extracti64x4_epi64(first, 1)));
        _mm512_storeu_si512(out + term + s * PREFILL_TILE, rest);
        any = _mm512_or_si512(any, rest);
    }
    return _mm512_test_epi16_mask(any, _mm512_set1_epi16(0x7FFF)) != 0;
}

static int pack_keys(const prefill_plan *plan, uint8_t *to, int64_t first, const float *k, int64_t k_dim)
{
    const size_t term = (size_t)(PREFILL_SIDES * plan->k_steps * PREFILL_TILE);
    int rest = 0;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        const int64_t key = first + t;
        uint8_t *out = to + key / PREFILL_SIDE * plan->k_steps * PREFILL_TILE + key % PREFILL_SIDE * 64;
        if (!plan->is_int8) rest |= pack_key(out, term, k + t * k_dim, plan->k_steps, plan->k_terms);
        for (int64_t s = 0; plan->is_int8 && s < plan->k_steps; s++) _mm512_storeu_si512(out + s * PREFILL_TILE, prefill_int8(k + t * k_dim + 64 * s));
    }
    return rest;
}

/* 16 channels of 32 values, key j beside key j + 16. */
static int pack_channels(uint8_t *out, size_t term, const float *v, int64_t v_dim, int terms)
{
    __m512i x[PREFILL_SIDE], y[PREFILL_SIDE], any = _mm512_setzero_si512();
    for (int j = 0; j < PREFILL_SIDE; j++) {
        const __m512 low = _mm512_loadu_ps(v + j * v_dim), high = _mm512_loadu_ps(v + (j + 16) * v_dim);
        const __m256i first = (__m256i)_mm512_cvtneps_pbh(low), second = (__m256i)_mm512_cvtneps_pbh(high);
        x[j] = _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
        if (terms < 2) continue;
        const __m256i rest = (__m256i)_mm512_cvtneps_pbh(prefill_rest(low, first)), more = (__m256i)_mm512_cvtneps_pbh(prefill_rest(high, second));
        y[j] = _mm512_or_si512(_mm512_cvtepu16_epi32(rest), _mm512_slli_epi32(_mm512_cvtepu16_epi32(more), 16));
        any = _mm512_or_si512(any, y[j]);
    }
    prefill_turn(x);
    for (int j = 0; j < PREFILL_SIDE; j++) _mm512_storeu_si512(out + 64 * j, x[j]);
    if (terms < 2) return 0;
    prefill_turn(y);
    for (int j = 0; j < PREFILL_SIDE; j++) _mm512_storeu_si512(out + term + 64 * j, y[j]);
    return _mm512_test_epi16_mask(any, _mm512_set1_epi16(0x7FFF)) != 0;
}

static int pack_values(const prefill_plan *plan, uint8_t *to, int64_t first, const float *v, int64_t v_dim)
{
    const size_t term = (size_t)(plan->v_all * PREFILL_BLOCKS32 * PREFILL_TILE);
    int rest = 0;
    for (int64_t side = 0; side < plan->v_sides; side++)
        for (int64_t half = 0; half < OCTAVO_PREFILL_BLOCK / 32; half++)
            rest |= pack_channels(to + (side * PREFILL_BLOCKS32 + first / 32 + half) * PREFILL_TILE, term, v + half * 32 * v_dim + side * PREFILL_SIDE,
                                  v_dim, plan->v_terms);
    return rest;
}

/* FP8's scales are powers of two, which bf16 takes in. */
static void scale_keys(float *k, float *scale, int64_t k_dim)
{
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) prefill_scale_row(k + t * k_dim, scale[t], k_dim), scale[t] = 1.0f;
}

/* One factor for a block: keys that nobody sees have none. */
static void spread_factor(float *scale)
{
    float all = 0.0f;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) all = scale[t] > all ? scale[t] : all;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) scale[t] = all;
}

void octavo_prefill_pack_amx(const octavo_prefill_call *call, int64_t slot, int64_t tile, float *scratch)
{
    prefill_head of = prefill_head_of(call, slot, scratch);
    const prefill_plan plan = prefill_plan_of(call->p, &call->layout);
    if (tile * PREFILL_KEYS >= of.seen.end) return;
    uint8_t *packed = octavo_prefill_packed_at(call, slot);
    float *k = scratch + of.k_dim, *v = k + OCTAVO_PREFILL_BLOCK * of.k_dim;
    float *factor = (float *)(void *)(packed + plan.factor_at) + tile * PREFILL_KEYS, *weight = (float *)(void *)(packed + plan.weight_at) + tile * PREFILL_KEYS;
    int marks = 0;
    of.k_codes = plan.k_codes;
    for (int64_t first = 0; first < PREFILL_KEYS; first += OCTAVO_PREFILL_BLOCK) {
        const int64_t block = (tile * PREFILL_KEYS + first) / OCTAVO_PREFILL_BLOCK;
        prefill_load_keys(&of, block, k, factor + first);
        prefill_load_values(&of, block, v, weight + first, 1,
                            block < call->layout.blocks ? of.facts.v_part + block * of.v_dim : v + OCTAVO_PREFILL_BLOCK * of.v_dim);
        if (call->p->precision == OCTAVO_ATTENTION_FP8) scale_keys(k, factor + first, of.k_dim);
        if (plan.kind == PREFILL_BLOCKED) spread_factor(factor + first);
        marks |= pack_keys(&plan, packed + (size_t)tile * plan.k_tile, first, k, of.k_dim) ? PREFILL_K_REST : 0;
        marks |= pack_values(&plan, packed + plan.v_at + (size_t)tile * plan.v_tile, first, v, of.v_dim) ? PREFILL_V_REST : 0;
    }
    packed[plan.marks_at + (size_t)tile] = (uint8_t)marks;
}
