/* prefill_facts_body.h - what a prefill call finds out about K and V before it uses them: means, and scales of whole heads.
 *
 * Included after a level's vocabulary. */
#ifndef OCTAVO_CPU_PREFILL_FACTS_BODY_H
#define OCTAVO_CPU_PREFILL_FACTS_BODY_H

#include "cpu/body/prefill_rows_body.h"

void SIMD(prefill_sum)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch);
void SIMD(prefill_means)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch);
void SIMD(prefill_most)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch);
void SIMD(prefill_scales)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch);
void SIMD(prefill_rest)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch);
void SIMD(prefill_rests)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch);

static void prefill_add_row(float *restrict sum, const float *restrict row, int64_t n)
{
    for (int64_t i = 0; i < n; i += SIMD_F32) v_store(sum + i, v_add(v_load(sum + i), v_load(row + i)));
}

void SIMD(prefill_sum)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch)
{
    prefill_head of = prefill_head_of(call, slot, scratch);
    float *row = scratch + of.k_dim, *k_sum = of.facts.k_part + block * of.k_dim, *v_sum = of.facts.v_part + block * of.v_dim;
    prefill_clear(k_sum, 0, of.k_dim);
    prefill_clear(v_sum, 0, of.v_dim);
    for (int64_t t = block * OCTAVO_PREFILL_BLOCK; t < (block + 1) * OCTAVO_PREFILL_BLOCK; t++) {
        if (!octavo_span_sees(&of.seen, t)) continue;
        if (octavo_prefill_smooths_k(of.p)) {
            prefill_plain_key(&of, t, row);
            prefill_add_row(k_sum, row, of.k_dim);
        }
        if (octavo_prefill_smooths_v(of.p)) {
            prefill_plain_value(&of, t, row, 0);
            prefill_add_row(v_sum, row, of.v_dim);
        }
    }
}

static void prefill_mean(const prefill_head *of, float *restrict mean, const float *part, int64_t dim)
{
    const octavo_span all = of->seen;
    const int64_t count = octavo_span_count(&all, 0, all.end);
    for (int64_t i = 0; i < dim; i++) {
        double sum = 0.0;
        for (int64_t block = 0; block * OCTAVO_PREFILL_BLOCK < of->seen.end; block++) sum += (double)part[block * dim + i];
        mean[i] = count > 0 ? (float)(sum / (double)count) : 0.0f;
    }
}

void SIMD(prefill_means)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch)
{
    (void)index;
    const prefill_head of = prefill_head_of(call, slot, scratch);
    const octavo_kv_view *kv = of.p->kv;
    const int channels = !octavo_prefill_rounds_v(of.p) && kv->v_channel_scale;
    prefill_clear(of.facts.k_mean, 0, of.k_dim);
    prefill_clear(of.facts.v_mean, 0, of.v_dim);
    if (octavo_prefill_smooths_k(of.p)) prefill_mean(&of, of.facts.k_mean, of.facts.k_part, of.k_dim);
    if (octavo_prefill_smooths_v(of.p)) prefill_mean(&of, of.facts.v_mean, of.facts.v_part, of.v_dim);
    for (int64_t i = 0; i < of.v_dim; i++)
        of.facts.v_scale[i] = channels && i < kv->v_dim ? kv->v_channel_scale[of.cursor.head * kv->v_dim + i] : 1.0f;
}

void SIMD(prefill_most)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch)
{
    prefill_head of = prefill_head_of(call, slot, scratch);
    const octavo_prefill_params *p = of.p;
    const int channels = p->precision == OCTAVO_ATTENTION_SAGE2 && octavo_prefill_rounds_v(p);
    const int keys = octavo_prefill_seeks_k(p), values = octavo_prefill_seeks_v(p);
    float *row = scratch + of.k_dim, *of_channels = of.facts.v_part + block * of.v_dim, k_amax = 0.0f, v_amax = 0.0f;
    prefill_clear(of_channels, 0, of.v_dim);
    for (int64_t t = block * OCTAVO_PREFILL_BLOCK; t < (block + 1) * OCTAVO_PREFILL_BLOCK; t++) {
        if (!octavo_span_sees(&of.seen, t)) continue;
        if (keys) {
            prefill_smooth_key(&of, t, row);
            k_amax = rows_amax(k_amax, row, of.k_dim);
        }
        if (!channels && !values) continue;
        prefill_smooth_value(&of, t, row, 0);
        if (values) v_amax = rows_amax(v_amax, row, of.v_dim);
        for (int64_t i = 0; channels && i < of.v_dim; i += SIMD_F32)
            v_store(of_channels + i, v_max(v_load(of_channels + i), v_abs(v_load(row + i))));
    }
    of.facts.k_most[block] = k_amax, of.facts.v_most[block] = v_amax;
}

/* Largest magnitudes of a whole head's Q, K and V go to where each head finds them. */
static void prefill_head_most(const prefill_head *of, float *row)
{
    const int64_t blocks = (of->seen.end + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK, group = of->call->layout.group;
    const int64_t queries = octavo_prefill_seeks_q(of->p) ? octavo_prefill_queries(of->p, of->b) : 0;
    float *k_most = of->facts.k_most, *v_most = of->facts.v_most;
    if (blocks == 0) k_most[0] = v_most[0] = 0.0f;
    for (int64_t block = 1; block < blocks; block++) {
        k_most[0] = k_most[block] > k_most[0] ? k_most[block] : k_most[0];
        v_most[0] = v_most[block] > v_most[0] ? v_most[block] : v_most[0];
    }
    for (int64_t g = 0; g < group; g++) {
        of->facts.q_most[g] = 0.0f;
        for (int64_t i = 0; i < queries; i++) {
            prefill_load_query(of, of->cursor.head * group + g, i, row);
            of->facts.q_most[g] = rows_amax(of->facts.q_most[g], row, of->k_dim);
        }
    }
}

void SIMD(prefill_scales)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch)
{
    (void)index;
    const prefill_head of = prefill_head_of(call, slot, scratch);
    if (octavo_prefill_scales_whole(of.p)) prefill_head_most(&of, scratch);
    if (of.p->precision != OCTAVO_ATTENTION_SAGE2 || !octavo_prefill_rounds_v(of.p)) return;
    for (int64_t i = 0; i < of.v_dim; i++) {
        float amax = 0.0f;
        for (int64_t block = 0; block * OCTAVO_PREFILL_BLOCK < of.seen.end; block++)
            amax = of.facts.v_part[block * of.v_dim + i] > amax ? of.facts.v_part[block * of.v_dim + i] : amax;
        const octavo_prefill_scale scale = octavo_prefill_scale_of(amax, OCTAVO_E4M3_MAX);
        of.facts.v_scale[i] = scale.scale;
        of.facts.v_inverse[i] = scale.inverse;
    }
}

void SIMD(prefill_rest)(const octavo_prefill_call *call, int64_t slot, int64_t block, float *scratch)
{
    prefill_head of = prefill_head_of(call, slot, scratch);
    float factor[OCTAVO_PREFILL_BLOCK];
    if (block * OCTAVO_PREFILL_BLOCK < of.seen.end) prefill_load_values(&of, block, scratch, factor, 0, of.facts.v_part + block * of.v_dim);
}

/* Sums of the blocks to those of all blocks before each. */
void SIMD(prefill_rests)(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch)
{
    (void)index;
    const prefill_head of = prefill_head_of(call, slot, scratch);
    const int64_t blocks = (of.seen.end + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK;
    for (int64_t i = 0; i < of.v_dim; i++) {
        double before = 0.0;
        for (int64_t block = 0; block <= blocks; block++) {
            float *part = of.facts.v_part + block * of.v_dim + i;
            const float its = block < blocks ? *part : 0.0f;
            *part = (float)before, before += (double)its;
        }
    }
}

#endif
