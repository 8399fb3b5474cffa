/* prefill_pack_avx512.h - keys and values of a prefill call into tiles.
 *
 * Included after prefill_pairs_avx512.h or prefill_wide_avx512.h. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_PACK_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_PACK_AVX512_H

#include "cpu/avx512/prefill_tiles_avx512.h"

static int prefill_pack_keys(const prefill_plan *plan, uint8_t *to, int64_t first, const float *k, int64_t k_dim)
{
    const size_t term = (size_t)(PREFILL_SIDES * plan->k_steps * PREFILL_TILE);
    int rest = 0;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        const int64_t key = first + t;
        uint8_t *out = to + key / PREFILL_SIDE * plan->k_steps * PREFILL_TILE + key % PREFILL_SIDE * 64;
        if (!plan->is_int8) rest |= prefill_pack_row(out, term, k + t * k_dim, plan->k_steps, plan->k_terms);
        for (int64_t s = 0; plan->is_int8 && s < plan->k_steps; s++)
            _mm512_storeu_si512(out + s * PREFILL_TILE, _mm512_xor_si512(prefill_int8(k + t * k_dim + 64 * s), _mm512_set1_epi8(plan->k_offset)));
    }
    return rest;
}

static int prefill_pack_values(const prefill_plan *plan, uint8_t *to, int64_t first, const float *v, int64_t v_dim)
{
    const int64_t tiles = PREFILL_KEYS / plan->v_keys;
    int rest = 0;
    for (int64_t side = 0; side < plan->v_sides; side++)
        for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t += plan->v_keys)
            rest |= prefill_pack_channels(to + (side * tiles + (first + t) / plan->v_keys) * PREFILL_TILE,
                                          (size_t)(plan->v_all * tiles * PREFILL_TILE), v + t * v_dim + side * PREFILL_SIDE, v_dim, plan->v_terms);
    return rest;
}

/* FP8's scales are powers of two, which codes take in as they are widened. */
static void prefill_scale_keys(float *k, float *scale, int64_t k_dim)
{
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) prefill_scale_row(k + t * k_dim, scale[t], k_dim), scale[t] = 1.0f;
}

/* One factor for a block: keys that nobody sees have none. */
static void prefill_spread_factor(float *scale)
{
    float all = 0.0f;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) all = scale[t] > all ? scale[t] : all;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) scale[t] = all;
}

/* PREFILL_KEYS keys and values. */
static void prefill_pack(const octavo_prefill_call *call, int64_t slot, int64_t tile, float *scratch)
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
        prefill_load_values(&of, block, v, weight + first, !plan.wide,
                            block < call->layout.blocks ? of.facts.v_part + block * of.v_dim : v + OCTAVO_PREFILL_BLOCK * of.v_dim);
        if (call->p->precision == OCTAVO_ATTENTION_FP8) prefill_scale_keys(k, factor + first, of.k_dim);
        if (plan.kind == PREFILL_BLOCKED) prefill_spread_factor(factor + first);
        marks |= prefill_pack_keys(&plan, packed + (size_t)tile * plan.k_tile, first, k, of.k_dim) ? PREFILL_K_REST : 0;
        marks |= prefill_pack_values(&plan, packed + plan.v_at + (size_t)tile * plan.v_tile, first, v, of.v_dim) ? PREFILL_V_REST : 0;
    }
    packed[plan.marks_at + (size_t)tile] = (uint8_t)marks;
}

#endif
