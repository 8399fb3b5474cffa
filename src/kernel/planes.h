/* planes.h - the geometry of stored K and V: planes, row bytes, scale bytes, and the address of a row. */
#ifndef OCTAVO_KERNEL_PLANES_H
#define OCTAVO_KERNEL_PLANES_H

#include "format/fp8_e4m3.h"
#include "format/ue4m4.h"
#include "octavo/kvcache.h"
#include <math.h>

#if defined(__CUDACC__)
#define OCTAVO_KERNEL_INLINE static __host__ __device__ __forceinline__
#else
#define OCTAVO_KERNEL_INLINE static inline
#endif

OCTAVO_KERNEL_INLINE int64_t octavo_round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

/* Planes of a K format: 1 or 2 today. */
OCTAVO_KERNEL_INLINE int32_t octavo_k_plane_count(octavo_k_format format)
{
    return format >= OCTAVO_K_E4M3X2 && format <= OCTAVO_K_INT4X2 ? 2 : 1;
}

/* Bytes of one token's row of one plane. */
OCTAVO_KERNEL_INLINE int64_t octavo_k_row_bytes(octavo_k_format format, int64_t head_dim)
{
    switch (format) {
    case OCTAVO_K_F32:    return 4 * head_dim;
    case OCTAVO_K_BF16:
    case OCTAVO_K_F16:    return 2 * head_dim;
    case OCTAVO_K_INT4X2: return (head_dim + 1) / 2;
    default:              return head_dim;
    }
}

/* Bytes of an element, or of the two that share one: what rows are aligned to. */
OCTAVO_KERNEL_INLINE int64_t octavo_k_element_bytes(octavo_k_format format) { return octavo_k_row_bytes(format, 1); }

/* Bytes of the scale of one (token, head): 0 none, 1 an int8 exponent p, 2 a bf16 s. */
OCTAVO_KERNEL_INLINE int64_t octavo_k_scale_bytes(octavo_k_format format)
{
    switch (format) {
    case OCTAVO_K_F32:
    case OCTAVO_K_BF16:
    case OCTAVO_K_F16:    return 0;
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2:
    case OCTAVO_K_INT4X2: return 2;
    default:              return 1;
    }
}

OCTAVO_KERNEL_INLINE int64_t octavo_v_element_bytes(octavo_v_format format)
{
    return format == OCTAVO_V_F32 ? 4 : format == OCTAVO_V_BF16 || format == OCTAVO_V_F16 ? 2 : 1;
}

OCTAVO_KERNEL_INLINE int64_t octavo_v_row_bytes(octavo_v_format format, int64_t v_dim) { return octavo_v_element_bytes(format) * v_dim; }

OCTAVO_KERNEL_INLINE int64_t octavo_v_scale_bytes(octavo_v_format format)
{
    return format == OCTAVO_V_E4M3 ? 1 : format == OCTAVO_V_INT8 ? 2 : 0;
}

/* Row of the page table and of `lengths` that belongs to batch entry b. */
OCTAVO_KERNEL_INLINE int64_t octavo_view_row(const octavo_kv_view *view, int64_t b)
{
    return view->sequences ? view->sequences[b] : b;
}

/* Page that holds a block of a row. */
OCTAVO_KERNEL_INLINE int64_t octavo_view_page(const octavo_kv_view *view, int64_t row, int64_t block)
{
    return view->page_table ? view->page_table[row * view->page_table_stride + block] : block;
}

/* Address of entry `index` of a page: a token for planes and scales, a unit for mean rows. */
OCTAVO_KERNEL_INLINE uint8_t *octavo_section_at(const octavo_section *section, int64_t row, int64_t page, int64_t head, int64_t index)
{
    return (uint8_t *)section->data + page * section->page_bytes + row * section->sequence_bytes + head * section->head_bytes +
           index * section->token_bytes;
}

OCTAVO_KERNEL_INLINE int64_t octavo_view_units(const octavo_kv_view *view)
{
    return (view->max_tokens + view->sub_block_tokens - 1) / view->sub_block_tokens;
}

/* Power of two exponent of a row of FP8: floor(log2(448 / amax)), 0 for a zero row, held where 2^p and 2^-p are normal floats. */
enum { OCTAVO_EXPONENT_MIN = -120, OCTAVO_EXPONENT_MAX = 126 };
OCTAVO_KERNEL_INLINE int32_t octavo_row_exponent(float amax)
{
    if (!(amax > 0.0f)) return 0;
    int exponent;
    const float mantissa = frexpf(amax, &exponent); /* amax = mantissa * 2^exponent, 448 = 0.875 * 2^9 */
    const int p = 9 - exponent - (mantissa > 0.875f);
    return p < OCTAVO_EXPONENT_MIN ? OCTAVO_EXPONENT_MIN : p > OCTAVO_EXPONENT_MAX ? OCTAVO_EXPONENT_MAX : p;
}

/* 2^p for p in [-126, 127]. */
OCTAVO_KERNEL_INLINE float octavo_power_of_two(int32_t p) { return octavo_float_from_bits((uint32_t)(p + 127) << 23); }

/* What a row of E4M3 with exponent p makes of x. */
OCTAVO_KERNEL_INLINE float octavo_e4m3_of_row(float x, int32_t p)
{
    return octavo_e4m3_to_float(octavo_e4m3_from_float(x * octavo_power_of_two(p))) * octavo_power_of_two(-p);
}

/* Bound on ||k - decoded(planes read)|| in units of 2^-p or s, from the norm that is stored for the base (NUMERICS.md). */
OCTAVO_KERNEL_INLINE float octavo_k_error_bound(const octavo_kv_view *view, int32_t planes, uint8_t norm_code)
{
    if (norm_code == 255) return 0x1p100f; /* saturated: no bound, but nothing that overflows a score either */
    const float norm = octavo_ue4m4_to_float(norm_code), root = sqrtf((float)view->head_dim);
    if (planes < octavo_k_plane_count(view->k_format)) return norm;
    switch (view->k_format) {
    case OCTAVO_K_E4M3X2: return norm * 0.0625f + root * (view->k_residual_exponent ? 0x1p-14f : 0x1p-10f); /* half an ulp; half a step */
    case OCTAVO_K_E5M2X2: return norm * 0.125f + root * 0x1p-17f;
    case OCTAVO_K_INT8X2: return root * (0.502f / 254.0f);         /* half a step and the rounding of k / s               */
    case OCTAVO_K_INT4X2: return root * 0.502f;
    default:              return norm;
    }
}

/* Bound on what float32 rounds in q . k, over ||q||, in units of 2^-p or s: (head_dim + 8) roundings of 2^-24 on a row of the largest
 * codes (448 and a residual, or 128). */
OCTAVO_KERNEL_INLINE float octavo_k_rounding_bound(octavo_k_format format, int64_t head_dim)
{
    const float code_max = octavo_k_scale_bytes(format) == 2 ? 128.0f : 480.0f;
    return code_max * sqrtf((float)head_dim) * (float)(head_dim + 8) * 0x1p-24f;
}

#endif
