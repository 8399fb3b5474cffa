/* layer_eights.cuh - eight elements of a row at a time, where rows and their parts are aligned: 16 bytes of bf16 or f16, 32 of float32. */
#ifndef OCTAVO_CUDA_TILE_LAYER_EIGHTS_CUH
#define OCTAVO_CUDA_TILE_LAYER_EIGHTS_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/layer_rows.cuh"

enum { EIGHT = 8, EIGHTS_ALIGN = 16 };

/* Rows of whole eights, each aligned. */
static inline bool layer_has_eights(const octavo_tensor *x)
{
    const int64_t bytes = x->dtype == OCTAVO_F32 ? 4 : 2;
    bool fits = (uintptr_t)x->data % EIGHTS_ALIGN == 0 && x->shape[x->ndim - 1] % EIGHT == 0;
    for (int i = 0; i + 1 < x->ndim; i++) fits = fits && x->strides[i] * bytes % EIGHTS_ALIGN == 0;
    return fits;
}

/* float32 that is read eight at a time, where it is there at all. */
static inline bool layer_has_eights(const float *x) { return (uintptr_t)x % EIGHTS_ALIGN == 0; }

static __device__ __forceinline__ void load_eight(const float *from, float (&x)[EIGHT])
{
    const float4 low = *(const float4 *)from, high = *(const float4 *)(from + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

static __device__ __forceinline__ void store_eight(float *to, const float (&x)[EIGHT])
{
    *(float4 *)to = make_float4(x[0], x[1], x[2], x[3]), *(float4 *)(to + 4) = make_float4(x[4], x[5], x[6], x[7]);
}

static __device__ __forceinline__ void load_eight(const octavo_tensor *tensor, int64_t element, float (&x)[EIGHT])
{
    if (tensor->dtype == OCTAVO_F32) {
        load_eight((const float *)tensor->data + element, x);
        return;
    }
    const uint4 raw = *(const uint4 *)((const uint16_t *)tensor->data + element);
    const uint32_t pairs[4] = { raw.x, raw.y, raw.z, raw.w };
    const bool half = tensor->dtype == OCTAVO_F16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = half ? f16_low(pairs[i]) : bf16_low(pairs[i]);
        x[2 * i + 1] = half ? f16_high(pairs[i]) : bf16_high(pairs[i]);
    }
}

static __device__ __forceinline__ uint4 pack_eight(bool half, const float (&x)[EIGHT])
{
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = half ? pack_f16(x[2 * i], x[2 * i + 1]) : pack_bf16(x[2 * i], x[2 * i + 1]);
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

static __device__ __forceinline__ void store_eight(const octavo_tensor *tensor, int64_t element, const float (&x)[EIGHT])
{
    if (tensor->dtype == OCTAVO_F32) store_eight((float *)tensor->data + element, x);
    else *(uint4 *)((uint16_t *)tensor->data + element) = pack_eight(tensor->dtype == OCTAVO_F16, x);
}

#endif
