/* k_project_ref.c - the definition of the K projection: h W^T + bias, rotated, then encoded as kv_append defines. */
#include "kernel/k_project_plan.h"
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

static double weight_at(const octavo_weight *weight, int64_t row, int64_t column)
{
    const int64_t at = row * weight->codes.strides[0] + column;
    const double scale = (double)octavo_weight_scale(weight, row, column);
    switch (weight->codes.dtype) {
    case OCTAVO_E4M3: return scale * (double)octavo_e4m3_to_float(((const uint8_t *)weight->codes.data)[at]);
    case OCTAVO_INT8: return scale * (double)((const int8_t *)weight->codes.data)[at];
    default:          return scale * octavo_ref_float(&weight->codes, at);
    }
}

/* Element `row` of h W^T + bias for token n of batch * tokens. */
static double product(const octavo_k_project_params *p, int64_t n, int64_t row)
{
    const int64_t h = n / p->h.shape[1] * p->h.strides[0] + n % p->h.shape[1] * p->h.strides[1];
    double sum = 0.0;
    for (int64_t i = 0; i < p->h.shape[2]; i++) sum += octavo_ref_float(&p->h, h + i) * weight_at(&p->weight, row, i);
    return sum + (p->bias ? (double)p->bias[row] : 0.0);
}

/* Row `row` of token n after the rotation. The angle is a float32 product, as models compute it. */
static double rotated(const octavo_k_project_params *p, int64_t n, int64_t row)
{
    const int64_t dim = p->kv->head_dim, first = row / dim * dim, i = row - first;
    const int64_t rotary = octavo_project_sizes_of(p).rotary, pairs = rotary / 2;
    if (i >= rotary) return product(p, n, row);
    const int halves = p->rope.style == OCTAVO_ROPE_ROTATE_HALF;
    const int64_t pair = halves ? i % pairs : i / 2, low = halves ? pair : 2 * pair, high = halves ? pair + pairs : low + 1;
    const float angle = (float)octavo_project_angle_position(p, n) * p->rope.inv_freq[pair];
    const double scale = p->rope.scale == 0.0f ? 1.0 : (double)p->rope.scale;
    const double cosine = cos((double)angle) * scale, sine = sin((double)angle) * scale;
    const double a = product(p, n, first + low), b = product(p, n, first + high);
    return i == low ? a * cosine - b * sine : b * cosine + a * sine;
}

octavo_status octavo_k_project_ref(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    float *y = exec->workspace; /* [tokens, rows] */
    for (int64_t n = 0; n < sizes.tokens; n++)
        for (int64_t row = 0; row < sizes.rows; row++) y[n * sizes.rows + row] = (float)rotated(p, n, row);
    const octavo_kv_append_params append = octavo_project_append_params(p, y);
    return octavo_kv_append_ref(exec, &append);
}
