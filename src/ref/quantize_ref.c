/* quantize_ref.c - symmetric quantisation and its inverse, as they are defined. */
#include "kernel/scales.h"
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

/* Rows and columns that share a scale. */
typedef struct group_size {
    int64_t rows, cols;
} group_size;

static group_size group_of(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols)
{
    switch (granularity) {
    case OCTAVO_PER_TENSOR:  return (group_size){ rows, cols };
    case OCTAVO_PER_TOKEN:   return (group_size){ 1, cols };
    case OCTAVO_PER_CHANNEL: return (group_size){ rows, 1 };
    default:                 return (group_size){ block_rows, block_cols };
    }
}

static float value_at(const octavo_tensor *x, int64_t r, int64_t c)
{
    return (float)octavo_ref_float(x, r * x->strides[0] + c);
}

static uint8_t encode(float quotient, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_from_float(quotient);
    if (dtype == OCTAVO_E5M2) return octavo_e5m2_from_float(quotient);
    return (uint8_t)(int8_t)rintf(fmaxf(-127.0f, fminf(quotient, 127.0f)));
}

static float decode(uint8_t code, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_to_float(code);
    if (dtype == OCTAVO_E5M2) return octavo_e5m2_to_float(code);
    return (float)(int8_t)code;
}

static int is_zero_code(uint8_t code, octavo_dtype dtype) { return (dtype == OCTAVO_INT8 ? code : code & 0x7F) == 0; }

static void quantize_group(const octavo_quantize_params *p, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *scale,
                           int64_t *saturated, int64_t *underflowed)
{
    const octavo_dtype dtype = p->codes.dtype;
    if (p->scale_source == OCTAVO_SCALE_DYNAMIC) {
        float amax = 0.0f;
        for (int64_t r = r0; r < r1; r++)
            for (int64_t c = c0; c < c1; c++) amax = fmaxf(amax, fabsf(value_at(&p->x, r, c)));
        *scale = octavo_scale_of(amax, dtype, p->scale_kind);
    }
    for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c++) {
            const float x = value_at(&p->x, r, c), quotient = x / *scale;
            const uint8_t code = encode(quotient, dtype);
            ((uint8_t *)p->codes.data)[r * p->codes.strides[0] + c] = code;
            *saturated += fabsf(quotient) >= octavo_code_clamp(dtype);
            *underflowed += x != 0.0f && is_zero_code(code, dtype);
        }
}

octavo_status octavo_quantize_ref(const octavo_exec *exec, const octavo_quantize_params *p)
{
    (void)exec;
    const int64_t rows = p->x.shape[0], cols = p->x.shape[1];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            if (!isfinite(value_at(&p->x, r, c))) return OCTAVO_E_NONFINITE;
    const group_size group = group_of(p->granularity, rows, cols, p->block_rows, p->block_cols);
    int64_t saturated = 0, underflowed = 0;
    float *scale = p->scales;
    for (int64_t r = 0; r < rows; r += group.rows)
        for (int64_t c = 0; c < cols; c += group.cols)
            quantize_group(p, r, r + group.rows < rows ? r + group.rows : rows, c, c + group.cols < cols ? c + group.cols : cols,
                           scale++, &saturated, &underflowed);
    if (p->saturated) *p->saturated = saturated;
    if (p->underflowed) *p->underflowed = underflowed;
    return OCTAVO_OK;
}

octavo_status octavo_dequantize_ref(const octavo_exec *exec, const octavo_dequantize_params *p)
{
    (void)exec;
    const int64_t rows = p->codes.shape[0], cols = p->codes.shape[1];
    const group_size group = group_of(p->granularity, rows, cols, p->block_rows, p->block_cols);
    const int64_t groups_across = (cols - 1) / group.cols + 1;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            const uint8_t code = ((const uint8_t *)p->codes.data)[r * p->codes.strides[0] + c];
            const float scale = p->scales[r / group.rows * groups_across + c / group.cols];
            ((float *)p->x.data)[r * p->x.strides[0] + c] = decode(code, p->codes.dtype) * scale;
        }
    return OCTAVO_OK;
}
