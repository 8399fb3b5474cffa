/* experts_even.c - whether the weights of all experts of a layer are alike and lie evenly apart, so that one call can find them. */
#include "model/model_weights.h"

static ptrdiff_t distance(const void *from, const void *to) { return (const char *)to - (const char *)from; }

/* b lies `e` times as far behind a as `next` does; or none is there. */
static int is_step(const void *a, const void *next, const void *b, int32_t e)
{
    if (!a || !next || !b) return !a && !next && !b;
    return distance(a, b) == e * distance(a, next);
}

static int is_alike(const octavo_lm_linear *a, const octavo_lm_linear *b)
{
    const octavo_tensor *x = &a->weight.codes, *y = &b->weight.codes;
    if (!x->data || !y->data) return !x->data && !y->data;
    return x->dtype == y->dtype && x->shape[0] == y->shape[0] && x->shape[1] == y->shape[1] && x->strides[0] == y->strides[0] &&
           a->weight.block_rows == b->weight.block_rows && a->weight.block_cols == b->weight.block_cols && a->x_scale == b->x_scale;
}

static int linear_is_even(const octavo_lm_linear *first, const octavo_lm_linear *next, const octavo_lm_linear *it, int32_t e)
{
    return is_alike(first, it) && is_step(first->weight.codes.data, next->weight.codes.data, it->weight.codes.data, e) &&
           is_step(first->weight.scales, next->weight.scales, it->weight.scales, e) && is_step(first->bias, next->bias, it->bias, e);
}

int octavo_experts_are_even(const octavo_lm_ffn *experts, int32_t count)
{
    const octavo_lm_ffn *next = &experts[count > 1];
    if (experts->gate.weight.codes.data && experts->gate.x_scale != experts->up.x_scale) return 0; /* they read the same rows */
    for (int32_t e = 1; e < count; e++)
        if (!linear_is_even(&experts->gate, &next->gate, &experts[e].gate, e) || !linear_is_even(&experts->up, &next->up, &experts[e].up, e) ||
            !linear_is_even(&experts->down, &next->down, &experts[e].down, e))
            return 0;
    return 1;
}
