/* kerncheck_quantize.c - codes, scales and counts are exact; NaN and Inf are refused with nothing written. */
#include "kerncheck.h"

/* Around every vector width: one, tail only, exact, one over. */
static const int64_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300, 1025 };

static void fill(const octavo_tensor *x)
{
    static const float amplitudes[] = { 1.0f, 1.0f, 1e4f, 1e-6f, 1e-39f, 3e38f };
    static const float odd[] = { 0.0f, -0.0f, 3.0e4f, 1.0e-40f, -1.0e-45f, 65504.0f };
    const int64_t rows = x->shape[0], cols = x->shape[1];
    const float amplitude = KC_PICK(amplitudes), most = x->dtype == OCTAVO_F16 ? 60000.0f : 3e38f;
    const int zeros = kc_chance(15), ties = kc_chance(20);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            /* few mantissa bits: with power-of-two scales many quotients are ties */
            const float v = ties ? (float)kc_between(-512, 512) * 0.125f : fmaxf(-most, fminf(amplitude * kc_normal(), most));
            kc_store(x->dtype, x->data, r * x->strides[0] + c, zeros && kc_chance(90) ? 0.0f : v);
        }
    for (int i = 0; i < 3 && kc_chance(50); i++)
        kc_store(x->dtype, x->data, kc_between(0, rows - 1) * x->strides[0] + kc_between(0, cols - 1), KC_PICK(odd));
    static const float refused[] = { NAN, INFINITY, -INFINITY };
    if (kc_chance(15))
        kc_store(x->dtype, x->data, kc_between(0, rows - 1) * x->strides[0] + kc_between(0, cols - 1), KC_PICK(refused));
}

int kc_check_quantize(const kc_pair *pair)
{
    static const octavo_dtype inputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 }, outputs[] = { OCTAVO_E4M3, OCTAVO_E5M2, OCTAVO_INT8 };
    octavo_quantize_params p = OCTAVO_QUANTIZE_PARAMS_INIT;
    int64_t shape[] = { kc_between(1, 40), KC_PICK(sizes) };
    if (kc_chance(10)) shape[0] = 129, shape[1] = 131;
    if (pair->bench) shape[0] = shape[1] = 1024;
    p.x = kc_tensor("x", pair->bench ? OCTAVO_F32 : KC_PICK(inputs), 2, shape);
    p.codes = kc_tensor("codes", pair->bench ? OCTAVO_E4M3 : KC_PICK(outputs), 2, shape);
    p.granularity = pair->bench ? OCTAVO_PER_TOKEN : (octavo_granularity)kc_between(OCTAVO_PER_TENSOR, OCTAVO_PER_BLOCK);
    p.scale_kind = (octavo_scale_kind)kc_between(OCTAVO_SCALE_F32, OCTAVO_SCALE_POW2);
    p.scale_source = pair->bench || kc_chance(70) ? OCTAVO_SCALE_DYNAMIC : OCTAVO_SCALE_STATIC;
    if (p.granularity == OCTAVO_PER_BLOCK) p.block_rows = KC_PICK(sizes), p.block_cols = KC_PICK(sizes);
    const int64_t scales = octavo_scale_count(p.granularity, shape[0], shape[1], p.block_rows, p.block_cols);
    p.scales = kc_array("scales", OCTAVO_F32, scales);
    for (int64_t i = 0; i < scales && p.scale_source == OCTAVO_SCALE_STATIC; i++) p.scales[i] = exp2f((float)kc_uniform(-20.0, 4.0));
    if (kc_chance(60)) p.saturated = kc_array("saturated", OCTAVO_INT64, 1);
    if (kc_chance(60)) p.underflowed = kc_array("underflowed", OCTAVO_INT64, 1);
    if (pair->bench)
        for (int64_t i = 0; i < shape[0] * p.x.strides[0]; i++) ((float *)p.x.data)[i] = kc_normal();
    else fill(&p.x);
    kc_describe("%lldx%lld %s to %s granularity=%d %s %s block=%lldx%lld", (long long)shape[0], (long long)shape[1],
                octavo_dtype_name(p.x.dtype), octavo_dtype_name(p.codes.dtype), (int)p.granularity, p.scale_kind ? "pow2" : "f32",
                p.scale_source ? "static" : "dynamic", (long long)p.block_rows, (long long)p.block_cols);
    const kc_outcome outcome = kc_run(pair, KC_quantize, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
