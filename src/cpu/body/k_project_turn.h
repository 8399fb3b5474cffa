/* k_project_turn.h - RoPE over finished rows of y. */
#ifndef OCTAVO_CPU_BODY_K_PROJECT_TURN_H
#define OCTAVO_CPU_BODY_K_PROJECT_TURN_H

#include "cpu/body/rope_turn.h"
#include "kernel/k_project_plan.h"

/* Rotates every head of token n's row of y; `turns` has room for `rotary` floats. */
static inline void project_rotate_token(const octavo_k_project_params *p, int64_t rotary, int64_t n, float *y, float *turns)
{
    const int64_t pairs = rotary / 2;
    const float scale = p->rope.scale == 0.0f ? 1.0f : p->rope.scale;
    float *cosines = turns, *sines = turns + pairs;
    rope_turns((float)octavo_project_angle_position(p, n), p->rope.inv_freq, scale, pairs, cosines, sines);
    for (int32_t head = 0; head < p->kv->kv_heads; head++) {
        float *x = y + head * (int64_t)p->kv->head_dim;
        if (p->rope.style == OCTAVO_ROPE_ROTATE_HALF) rope_rotate_halves(x, x + pairs, cosines, sines, pairs);
        else rope_rotate_pairs(x, cosines, sines, pairs);
    }
}

#endif
