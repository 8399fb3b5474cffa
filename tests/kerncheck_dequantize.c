/* kerncheck_dequantize.c - code times scale is one rounding, and exact. */
#include "kerncheck.h"

static const int64_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300, 1025 };

int kc_check_dequantize(const kc_pair *pair)
{
    static const octavo_dtype inputs[] = { OCTAVO_E4M3, OCTAVO_E5M2, OCTAVO_INT8 };
    octavo_dequantize_params p = OCTAVO_DEQUANTIZE_PARAMS_INIT;
    int64_t shape[] = { kc_between(1, 40), KC_PICK(sizes) };
    if (pair->bench) shape[0] = shape[1] = 1024;
    p.codes = kc_tensor("codes", pair->bench ? OCTAVO_E4M3 : KC_PICK(inputs), 2, shape);
    p.x = kc_tensor("x", OCTAVO_F32, 2, shape);
    p.granularity = pair->bench ? OCTAVO_PER_TOKEN : (octavo_granularity)kc_between(OCTAVO_PER_TENSOR, OCTAVO_PER_BLOCK);
    if (p.granularity == OCTAVO_PER_BLOCK) p.block_rows = KC_PICK(sizes), p.block_cols = KC_PICK(sizes);
    const int64_t scales = octavo_scale_count(p.granularity, shape[0], shape[1], p.block_rows, p.block_cols);
    float *scale = kc_array("scales", OCTAVO_F32, scales);
    static const double exponents[] = { 4.0, 30.0, 120.0 };
    const double exponent = KC_PICK(exponents);
    for (int64_t i = 0; i < scales; i++) scale[i] = exp2f((float)kc_uniform(-exponent, exponent)); /* subnormal and Inf products */
    p.scales = scale;
    for (int64_t r = 0; r < shape[0]; r++)
        for (int64_t c = 0; c < shape[1]; c++) /* every code, NaN among them; -128 is none */
            do ((uint8_t *)p.codes.data)[r * p.codes.strides[0] + c] = (uint8_t)kc_between(0, 255);
            while (p.codes.dtype == OCTAVO_INT8 && ((int8_t *)p.codes.data)[r * p.codes.strides[0] + c] == INT8_MIN);
    kc_describe("%lldx%lld %s granularity=%d block=%lldx%lld", (long long)shape[0], (long long)shape[1], octavo_dtype_name(p.codes.dtype),
                (int)p.granularity, (long long)p.block_rows, (long long)p.block_cols);
    const kc_outcome outcome = kc_run(pair, KC_dequantize, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
