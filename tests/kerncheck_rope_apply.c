/* kerncheck_rope_apply.c - rotations in place under the ROTATE budget; what is not rotated stays as it is, bit for bit. */
#include "kerncheck_layer.h"

static int compare_head(const octavo_rope_apply_params *p, const octavo_tensor *x, int64_t at, float position)
{
    const int64_t pairs = (p->rope.rotary_dim ? p->rope.rotary_dim : x->shape[3]) / 2;
    const double scale = p->rope.scale != 0.0f ? (double)p->rope.scale : 1.0;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t low = p->rope.style == OCTAVO_ROPE_ROTATE_HALF ? i : 2 * i;
        const int64_t high = p->rope.style == OCTAVO_ROPE_ROTATE_HALF ? i + pairs : 2 * i + 1;
        const float angle = position * p->rope.inv_freq[i];
        const double c = cos((double)angle) * scale, s = sin((double)angle) * scale;
        const double a = kc_load(x->dtype, x->data, at + low), b = kc_load(x->dtype, x->data, at + high);
        const double budget = fabs(scale) * (fabs(a) + fabs(b)) * (BUDGET_EXP + budget_gamma(4.0)) + BUDGET_TINY;
        if (!kc_close_stored("x", &p->x, at + low, a * c - b * s, budget) || !kc_close_stored("x", &p->x, at + high, b * c + a * s, budget))
            return 0;
    }
    return 1;
}

static int compare(const octavo_rope_apply_params *p, const octavo_tensor *x)
{
    for (int64_t b = 0; b < x->shape[0] && p->rope.style != OCTAVO_ROPE_NONE; b++)
        for (int64_t t = 0; t < x->shape[1]; t++)
            for (int64_t h = 0; h < x->shape[2]; h++)
                if (!compare_head(p, x, b * x->strides[0] + t * x->strides[1] + h * x->strides[2], (float)p->positions[b * x->shape[1] + t]))
                    return 0;
    return kc_finish();
}

int kc_check_rope_apply(const kc_pair *pair)
{
    static const int64_t dims[] = { 1, 2, 3, 6, 16, 32, 33, 64, 80, 96, 128, 128, 256, 600 };
    static const double amplitudes[] = { 1.0, 1.0, 1e-3, 1e-39, 1e4, 1e30 };
    octavo_rope_apply_params p = OCTAVO_ROPE_APPLY_PARAMS_INIT;
    int64_t shape[] = { kc_between(1, 3), kc_chance(10) ? kc_between(50, 90) : kc_between(1, 9), kc_between(1, 8), KC_PICK(dims) };
    if (kc_draw_wide(pair)) shape[1] = kc_between(150, 300), shape[2] = kc_between(7, 10), shape[3] = 16 * kc_between(4, 9);
    if (pair->bench) shape[0] = 1, shape[1] = 512, shape[2] = 32, shape[3] = 128;
    p.x = kc_tensor("x", pair->bench ? OCTAVO_BF16 : kc_float_dtype(), 4, shape);
    const double amplitude = KC_PICK(amplitudes);
    kc_fill(&p.x, 0.0, p.x.dtype == OCTAVO_F16 ? fmin(amplitude, 1e3) : amplitude, 10);
    p.rope.style = (octavo_rope_style)kc_between(shape[3] < 2 || kc_chance(5) ? OCTAVO_ROPE_NONE : OCTAVO_ROPE_ROTATE_HALF,
                                                 shape[3] < 2 ? OCTAVO_ROPE_NONE : OCTAVO_ROPE_INTERLEAVED);
    if (shape[3] > 1 && (shape[3] % 2 || kc_chance(30))) p.rope.rotary_dim = 2 * (int32_t)kc_between(1, shape[3] / 2);
    const int64_t pairs = (p.rope.rotary_dim ? p.rope.rotary_dim : shape[3]) / 2, tokens = shape[0] * shape[1];
    float *inv_freq = kc_array("inv_freq", OCTAVO_F32, pairs + 1);
    for (int64_t i = 0; i < pairs; i++) inv_freq[i] = (float)pow(10000.0, -(double)i / (double)pairs);
    p.rope.inv_freq = inv_freq;
    if (kc_chance(30)) p.rope.scale = (float)kc_uniform(-1.3, 1.3);
    int32_t *positions = kc_array("positions", OCTAVO_INT32, tokens);
    const int64_t most = kc_chance(20) ? 40000000 : kc_chance(20) ? 130000 : 3000;
    for (int64_t i = 0; i < tokens; i++) positions[i] = (int32_t)kc_between(kc_chance(5) ? -most : 0, most);
    p.positions = positions;
    const octavo_tensor x = kc_copy(&p.x);
    kc_describe("%lldx%lldx%lldx%lld %s style=%d rotary=%d scale=%g amplitude=%g positions to %lld", (long long)shape[0], (long long)shape[1],
                (long long)shape[2], (long long)shape[3], octavo_dtype_name(p.x.dtype), (int)p.rope.style, p.rope.rotary_dim,
                (double)p.rope.scale, amplitude, (long long)most);
    const kc_outcome outcome = kc_run(pair, KC_rope_apply, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p, &x);
}
