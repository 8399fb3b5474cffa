/* rope_apply_ref.c - the definition of the rotation in place. The angle is a float32 product, as models compute it. */
#include "ref/rows_ref.h"

static void rotate_head(const octavo_rope_apply_params *p, int64_t at, float position)
{
    const int64_t rotary = p->rope.rotary_dim ? p->rope.rotary_dim : p->x.shape[3], pairs = rotary / 2;
    const double scale = p->rope.scale == 0.0f ? 1.0 : (double)p->rope.scale;
    for (int64_t i = 0; i < pairs; i++) {
        const float angle = position * p->rope.inv_freq[i];
        const double cosine = cos((double)angle) * scale, sine = sin((double)angle) * scale;
        const int halves = p->rope.style == OCTAVO_ROPE_ROTATE_HALF;
        const int64_t low = at + (halves ? i : 2 * i), high = halves ? low + pairs : low + 1;
        const double a = octavo_ref_float(&p->x, low), b = octavo_ref_float(&p->x, high);
        octavo_ref_store(&p->x, low, a * cosine - b * sine);
        octavo_ref_store(&p->x, high, b * cosine + a * sine);
    }
}

octavo_status octavo_rope_apply_ref(const octavo_exec *exec, const octavo_rope_apply_params *p)
{
    (void)exec;
    const int64_t *shape = p->x.shape, *strides = p->x.strides;
    for (int64_t b = 0; b < shape[0] && p->rope.style != OCTAVO_ROPE_NONE; b++)
        for (int64_t t = 0; t < shape[1]; t++)
            for (int64_t h = 0; h < shape[2]; h++)
                rotate_head(p, b * strides[0] + t * strides[1] + h * strides[2], (float)p->positions[b * shape[1] + t]);
    return OCTAVO_OK;
}
