/* quant_check.c - what quantize and dequantize ask of their arguments alike. */
#include "quant/quant_check.h"
#include "base/error.h"
#include <math.h>

octavo_status octavo_scales_check(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t *block_rows,
                                  int64_t *block_cols, const float *scales, int64_t *count)
{
    if ((int)granularity < OCTAVO_PER_TENSOR || (int)granularity > OCTAVO_PER_BLOCK)
        return octavo_fail(OCTAVO_E_ARGUMENT, "granularity is %d, expected one of octavo_granularity", (int)granularity);
    if (granularity == OCTAVO_PER_BLOCK && (*block_rows < 1 || *block_cols < 1))
        return octavo_fail(OCTAVO_E_ARGUMENT, "block_rows and block_cols are %lld and %lld, expected at least 1",
                           (long long)*block_rows, (long long)*block_cols);
    if (!scales) return octavo_fail(OCTAVO_E_ARGUMENT, "scales is NULL, expected octavo_scale_count floats");
    if ((uintptr_t)scales % sizeof(float)) return octavo_fail(OCTAVO_E_ARGUMENT, "scales is not aligned to its 4-byte elements");
    if (*block_rows > rows) *block_rows = rows;
    if (*block_cols > cols) *block_cols = cols;
    *count = octavo_scale_count(granularity, rows, cols, *block_rows, *block_cols);
    return OCTAVO_OK;
}

octavo_status octavo_scales_check_values(const float *scales, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!(scales[i] > 0.0f) || !isfinite(scales[i]))
            return octavo_fail(OCTAVO_E_ARGUMENT, "scales[%lld] is %g, expected a positive finite number", (long long)i,
                               (double)scales[i]);
    return OCTAVO_OK;
}
