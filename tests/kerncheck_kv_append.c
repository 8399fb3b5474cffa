/* kerncheck_kv_append.c - codes, scales, norms and means of appended tokens are exact; NaN and Inf are refused with nothing written. */
#include "kerncheck.h"

/* [batch, tokens, kv_heads, dim] in a mood of its own. */
static octavo_tensor draw_rows(const char *name, const kc_decode *c, int64_t tokens, int64_t dim, octavo_dtype dtype, int odd)
{
    static const float amplitudes[] = { 1.0f, 1.0f, 30.0f, 1e-5f, 1e-37f, 1e-42f, 3e37f };
    const int64_t shape[] = { c->view.batch, tokens, c->view.kv_heads, dim };
    octavo_tensor x = kc_tensor(name, dtype, 4, shape);
    const float amplitude = KC_PICK(amplitudes), most = x.dtype == OCTAVO_F16 ? 65504.0f : 3e38f;
    const int ties = kc_chance(20);
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t t = 0; t < shape[1]; t++)
            for (int64_t h = 0; h < shape[2]; h++) {
                const float row = kc_chance(5) ? 0.0f : kc_chance(5) ? 100.0f : 1.0f;
                for (int64_t i = 0; i < dim; i++) {
                    const float v = ties ? (float)kc_between(-512, 512) * 0.125f : row * amplitude * kc_normal();
                    kc_store(x.dtype, x.data, b * x.strides[0] + t * x.strides[1] + h * x.strides[2] + i, fmaxf(-most, fminf(v, most)));
                }
            }
    static const float refused[] = { NAN, INFINITY, -INFINITY };
    if (odd && tokens)
        kc_store(x.dtype, x.data, kc_between(0, shape[0] - 1) * x.strides[0] + kc_between(0, tokens - 1) * x.strides[1] +
                 kc_between(0, shape[2] - 1) * x.strides[2] + kc_between(0, dim - 1), KC_PICK(refused));
    return x;
}

/* Any type of floats, or often what the view stores, if that is one. */
static octavo_dtype draw_dtype(int bf16, int f16)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    return (bf16 || f16) && kc_chance(60) ? (f16 ? OCTAVO_F16 : OCTAVO_BF16) : KC_PICK(dtypes);
}

/* Where each sequence goes on: behind what it holds, or earlier. */
static const int32_t *draw_positions(const kc_decode *c, int64_t longest, int64_t *tokens)
{
    int32_t *positions = kc_array("positions", OCTAVO_INT32, c->view.batch);
    int64_t last = 0;
    for (int64_t b = 0; b < c->view.batch; b++) {
        const int64_t length = kc_length(c, b) < longest ? kc_length(c, b) : longest - 1;
        positions[b] = (int32_t)(kc_chance(70) ? length : kc_between(0, length));
        last = positions[b] > last ? positions[b] : last;
    }
    const int64_t room = longest - last, most = kc_chance(70) ? 4 : 2 * c->view.block_tokens;
    *tokens = kc_between(1, room < most ? room : most);
    return positions;
}

int kc_check_kv_append(const kc_pair *pair)
{
    kc_decode c;
    const unsigned norms = kc_chance(50) ? KC_NORMS : 0, means = kc_chance(60) ? KC_MEANS : 0;
    kc_draw_wide(pair);
    kc_draw_decode(&c, pair, KC_WRITABLE | norms | means);
    octavo_kv_append_params p = { .kv = &c.view };
    const int64_t longest = c.view.lengths[0]; /* row 0 is as long as the memory */
    int64_t tokens;
    p.positions = draw_positions(&c, longest, &tokens);
    if (pair->bench) ((int32_t *)(uintptr_t)p.positions)[0] = 0, tokens = longest;
    const int odd = !pair->bench && kc_chance(12), which = pair->bench ? 0 : (int)kc_between(0, 9);
    if (which != 1)
        p.k = draw_rows("k", &c, tokens, c.view.head_dim, draw_dtype(c.view.k_format == OCTAVO_K_BF16, c.view.k_format == OCTAVO_K_F16), odd && kc_chance(50));
    if (which != 2)
        p.v = draw_rows("v", &c, tokens, c.view.v_dim, draw_dtype(c.view.v_format == OCTAVO_V_BF16, c.view.v_format == OCTAVO_V_F16), odd);
    if (kc_chance(40)) {
        float *mean = kc_array("k_mean", OCTAVO_F32, c.view_rows * c.view.kv_heads * c.view.head_dim);
        for (int64_t i = 0; i < c.view_rows * c.view.kv_heads * c.view.head_dim; i++) mean[i] = kc_normal();
        c.view.k_mean = mean;
    }
    for (int64_t r = 0; r < c.view_rows; r++) ((int32_t *)(uintptr_t)c.view.lengths)[r] = kc_chance(50) ? -1 : INT32_MAX; /* not read */
    kc_describe(" new=%lld%s%s%s%s%s", (long long)tokens, p.k.data ? " k" : "", p.v.data ? " v" : "", norms ? " norms" : "",
                means ? " means" : "", odd ? " odd" : "");
    const kc_outcome outcome = kc_run(pair, KC_kv_append, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
