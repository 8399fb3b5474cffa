/* plane_codec.cuh - how a row of K or V becomes codes, scales and its residual norm, bit for bit as the reference has it. A warp a
 * row. */
#ifndef OCTAVO_CUDA_TILE_PLANE_CODEC_CUH
#define OCTAVO_CUDA_TILE_PLANE_CODEC_CUH

#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"
#include <cfloat>

enum { NORM_LANES = 8 };

/* A row of values before it is encoded. */
struct source_row {
    const octavo_tensor *tensor;
    int64_t offset, dim;
    const float *minus, *over; /* [dim] subtracted first; divided by, held within float32's finite values; or NULL */
    bool finite;               /* false: the row is stored as zeros                                                */
};

static __device__ __forceinline__ float source_at(const source_row &row, int64_t i)
{
    if (!row.finite) return 0.0f;
    float x = load_float(row.tensor, row.offset + i);
    if (row.minus) x -= row.minus[i];
    return row.over ? fmaxf(-FLT_MAX, fminf(x / row.over[i], FLT_MAX)) : x;
}

/* Whether all values are finite once `minus` is off; all lanes get it. */
static __device__ __forceinline__ bool source_finite(const source_row &row)
{
    bool finite = true;
    for (int64_t i = threadIdx.x % WARP; i < row.dim; i += WARP) {
        const float x = load_float(row.tensor, row.offset + i);
        finite = finite && fabsf(row.minus ? x - row.minus[i] : x) <= FLT_MAX;
    }
    return __all_sync(WHOLE_WARP, finite);
}

static __device__ __forceinline__ float source_amax(const source_row &row)
{
    float amax = 0.0f;
    for (int64_t i = threadIdx.x % WARP; i < row.dim; i += WARP) amax = fmaxf(amax, fabsf(source_at(row, i)));
    return warp_reduce(amax, take_larger());
}

static __device__ __forceinline__ float held(float x, float limit) { return fmaxf(-limit, fminf(x, limit)); }
static __device__ __forceinline__ float int8_code(float x) { return rintf(held(x, 127.0f)); }
static __device__ __forceinline__ uint16_t bf16_code(float x) { return octavo_bf16_from_float(held(x, 0x1.fep+127f)); }
static __device__ __forceinline__ uint16_t f16_code(float x) { return octavo_fp16_from_float(held(x, OCTAVO_FP16_MAX)); }

/* The row's scale, stored where the view has one: 2^p, s or 1. */
static __device__ __forceinline__ float put_scale(const octavo_section *section, int64_t scale_bytes, const stored_token &at, float amax)
{
    if (!section->data || scale_bytes == 0) return 1.0f;
    uint8_t *out = stored_at(section, at);
    if (scale_bytes == 1) {
        const int32_t p = octavo_row_exponent(amax);
        if (threadIdx.x % WARP == 0) *out = (uint8_t)(int8_t)p;
        return ldexpf(1.0f, p);
    }
    const uint16_t s = octavo_bf16_from_float_up(amax / 127.0f);
    if (threadIdx.x % WARP == 0) *(uint16_t *)out = s;
    return octavo_bf16_to_float(s);
}

/* One element of K as its planes hold it. */
struct key_codes {
    uint32_t base, more; /* int4x2: nibbles */
    float rest;          /* k - base in units of 2^-p, of k where the format has an s */
};

template <int FORMAT> static __device__ __forceinline__ key_codes encode_as(float x, float factor, int residual_exponent)
{
    if constexpr (FORMAT == OCTAVO_K_BF16 || FORMAT == OCTAVO_K_F16) {
        const uint16_t code = FORMAT == OCTAVO_K_BF16 ? bf16_code(x) : f16_code(x);
        return { code, 0, x - (FORMAT == OCTAVO_K_BF16 ? octavo_bf16_to_float(code) : octavo_fp16_to_float(code)) };
    } else if constexpr (FORMAT == OCTAVO_K_E4M3X2) {
        const uint8_t code = octavo_e4m3_from_float(x * factor);
        const float rest = x * factor - octavo_e4m3_to_float(code);
        return { code, octavo_e4m3_from_float(residual_exponent ? rest * 16.0f : rest), rest };
    } else if constexpr (FORMAT == OCTAVO_K_E5M2X2) {
        const uint8_t code = octavo_e5m2_from_float(x * factor);
        const float rest = x * factor - octavo_e5m2_to_float(code);
        return { code, octavo_e5m2_from_float(rest), rest };
    } else if constexpr (FORMAT == OCTAVO_K_INT8X2) {
        const float quotient = factor > 0.0f ? x / factor : 0.0f, code = int8_code(quotient);
        return { (uint8_t)(int8_t)code, (uint8_t)(int8_t)int8_code((quotient - code) * 254.0f), x - code * factor };
    } else if constexpr (FORMAT == OCTAVO_K_INT4X2) {
        const int code = factor > 0.0f ? (int)int8_code(x / factor) : 0, high = (code & ~15) / 16;
        return { (uint32_t)(high & 15), (uint32_t)(code & 15), x - (16.0f * (float)high + 7.5f) * factor };
    } else {
        return { __float_as_uint(held(x, FLT_MAX)), 0, 0.0f };
    }
}

static __device__ __forceinline__ key_codes encode_key(const octavo_kv_view *kv, float x, float factor)
{
    switch (kv->k_format) {
    case OCTAVO_K_BF16:   return encode_as<OCTAVO_K_BF16>(x, factor, 0);
    case OCTAVO_K_F16:    return encode_as<OCTAVO_K_F16>(x, factor, 0);
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2: return encode_as<OCTAVO_K_E4M3X2>(x, factor, kv->k_residual_exponent);
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2: return encode_as<OCTAVO_K_E5M2X2>(x, factor, 0);
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2: return encode_as<OCTAVO_K_INT8X2>(x, factor, 0);
    case OCTAVO_K_INT4X2: return encode_as<OCTAVO_K_INT4X2>(x, factor, 0);
    default:              return encode_as<OCTAVO_K_F32>(x, factor, 0);
    }
}

/* ||k - base|| in units of 2^-p or s, summed in eight interleaved lanes of float64 and these in pairs. Every lane has one of the eight
 * sums, and four lanes the same. */
static __device__ __forceinline__ void put_norm(const octavo_kv_view *kv, const stored_token &at, const source_row &row, float factor)
{
    const int lane = threadIdx.x % WARP;
    double sum = 0.0;
    for (int64_t first = 0; first < row.dim; first += WARP) {
        const float rest = first + lane < row.dim ? encode_key(kv, source_at(row, first + lane), factor).rest : 0.0f;
#pragma unroll
        for (int step = 0; step < WARP; step += NORM_LANES) {
            const double one = (double)__shfl_sync(WHOLE_WARP, rest, step + lane % NORM_LANES);
            sum += one * one;
        }
    }
#pragma unroll
    for (int step = 1; step < NORM_LANES; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
    const double unit = octavo_k_scale_bytes(kv->k_format) == 2 && factor > 0.0f ? (double)factor : 1.0;
    if (lane == 0) *stored_at(&kv->k_norm, at) = octavo_ue4m4_from_float_up((float)(sqrt(sum) / unit * 1.000001));
}

/* Bytes of int4x2 hold elements j and j + half. */
static __device__ __forceinline__ void put_nibbles(const octavo_kv_view *kv, const stored_token &at, const source_row &row, float factor)
{
    const int64_t half = (row.dim + 1) / 2;
    uint8_t *base = stored_at(&kv->k[0], at), *more = stored_at(&kv->k[1], at);
    for (int64_t j = threadIdx.x % WARP; j < half; j += WARP) {
        const key_codes low = encode_key(kv, source_at(row, j), factor);
        key_codes high = { 0, 0, 0.0f };
        if (j + half < row.dim) high = encode_key(kv, source_at(row, j + half), factor);
        base[j] = (uint8_t)(low.base | high.base << 4);
        more[j] = (uint8_t)(low.more | high.more << 4);
    }
}

static __device__ __forceinline__ void put_key(const octavo_kv_view *kv, const stored_token &at, const source_row &row)
{
    const float factor = put_scale(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), at, source_amax(row));
    if (kv->k_format == OCTAVO_K_INT4X2) {
        put_nibbles(kv, at, row, factor);
    } else {
        const int64_t bytes = octavo_k_element_bytes(kv->k_format);
        uint8_t *base = stored_at(&kv->k[0], at);
        uint8_t *more = octavo_k_plane_count(kv->k_format) > 1 ? stored_at(&kv->k[1], at) : nullptr;
        for (int64_t i = threadIdx.x % WARP; i < row.dim; i += WARP) {
            const key_codes code = encode_key(kv, source_at(row, i), factor);
            if (bytes == 4) ((uint32_t *)base)[i] = code.base;
            else if (bytes == 2) ((uint16_t *)base)[i] = (uint16_t)code.base;
            else base[i] = (uint8_t)code.base;
            if (more) more[i] = (uint8_t)code.more;
        }
    }
    if (kv->k_norm.data) put_norm(kv, at, row, factor);
}

static __device__ __forceinline__ void put_value(const octavo_kv_view *kv, const stored_token &at, const source_row &row)
{
    const float factor = put_scale(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at, source_amax(row));
    uint8_t *v = stored_at(&kv->v, at);
    for (int64_t i = threadIdx.x % WARP; i < row.dim; i += WARP) {
        const float x = source_at(row, i);
        switch (kv->v_format) {
        case OCTAVO_V_F32:  ((float *)v)[i] = held(x, FLT_MAX); break;
        case OCTAVO_V_BF16: ((uint16_t *)v)[i] = bf16_code(x); break;
        case OCTAVO_V_F16:  ((uint16_t *)v)[i] = f16_code(x); break;
        case OCTAVO_V_E4M3: v[i] = octavo_e4m3_from_float(x * factor); break;
        case OCTAVO_V_INT8: v[i] = (uint8_t)(int8_t)(factor > 0.0f ? int8_code(x / factor) : 0.0f); break;
        }
    }
}

/* A stored element of V, asked for at once: the way to memory is long. */
template <int BYTES> static __device__ __forceinline__ uint32_t ask_element(const uint8_t *from)
{
    uint32_t code;
    if (BYTES == 4) asm volatile("ld.global.u32 %0, [%1];" : "=r"(code) : "l"(from));
    else if (BYTES == 2) asm volatile("ld.global.u16 %0, [%1];" : "=r"(code) : "l"(from));
    else asm volatile("ld.global.u8 %0, [%1];" : "=r"(code) : "l"(from));
    return code;
}

/* The sum of element i over the unit that begins at `first`, in token order, of which AHEAD are on their way. */
template <int BYTES, int AHEAD> static __device__ __forceinline__ double unit_sum_at(const octavo_kv_view *kv, const stored_token &first, int64_t i)
{
    const int32_t tokens = kv->sub_block_tokens;
    double sum = 0.0;
#pragma unroll 1
    for (int32_t t = 0; t < tokens; t += AHEAD) {
        uint32_t code[AHEAD];
        float factor[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const stored_token at = { first.row, first.page, first.head, first.in_block + (t + j < tokens ? t + j : tokens - 1) };
            code[j] = ask_element<BYTES>(stored_at(&kv->v, at) + i * BYTES);
            factor[j] = BYTES == 1 ? row_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at) : 1.0f;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            if (t + j < tokens) sum += (double)value_of_code(kv->v_format, code[j]) * (double)factor[j];
    }
    return sum;
}

/* Element i of its mean. */
template <int AHEAD> static __device__ __forceinline__ float unit_mean_at(const octavo_kv_view *kv, stored_token first, int64_t i)
{
    const int64_t bytes = octavo_v_element_bytes(kv->v_format);
    const double sum = bytes == 4 ? unit_sum_at<4, AHEAD>(kv, first, i) : bytes == 2 ? unit_sum_at<2, AHEAD>(kv, first, i) : unit_sum_at<1, AHEAD>(kv, first, i);
    return held((float)(sum / (double)kv->sub_block_tokens), FLT_MAX);
}

/* `threads` threads, of which this is one, store the mean row of the unit that begins at `first`; largest() is that of all of theirs. A thread keeps
 * HELD means, others are summed up twice. */
template <int AHEAD, int HELD, typename Largest>
static __device__ __forceinline__ void put_unit_mean(const octavo_kv_view *kv, const stored_token &first, int thread, int threads, const Largest &largest)
{
    const int64_t unit = first.in_block / kv->sub_block_tokens;
    float amax = 0.0f, means[HELD + 1];
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        means[j] = thread + j * threads < kv->v_dim ? unit_mean_at<AHEAD>(kv, first, thread + j * threads) : 0.0f;
        amax = fmaxf(amax, fabsf(means[j]));
    }
    for (int64_t i = thread + HELD * threads; i < kv->v_dim; i += threads) amax = fmaxf(amax, fabsf(unit_mean_at<AHEAD>(kv, first, i)));
    const int32_t p = octavo_row_exponent(largest(amax));
    if (thread == 0) *octavo_section_at(&kv->v_mean_scale, first.row, first.page, first.head, unit) = (uint8_t)(int8_t)p;
    uint8_t *mean = octavo_section_at(&kv->v_mean, first.row, first.page, first.head, unit);
    const float up = ldexpf(1.0f, p);
#pragma unroll
    for (int j = 0; j < HELD; j++)
        if (thread + j * threads < kv->v_dim) mean[thread + j * threads] = octavo_e4m3_from_float(means[j] * up);
    for (int64_t i = thread + HELD * threads; i < kv->v_dim; i += threads) mean[i] = octavo_e4m3_from_float(unit_mean_at<AHEAD>(kv, first, i) * up);
}

/* A warp does, or a block of whole warps, all of whose threads call it. */
static __device__ __forceinline__ void put_unit_mean_warp(const octavo_kv_view *kv, const stored_token &first)
{
    put_unit_mean<8, 0>(kv, first, (int)threadIdx.x % WARP, WARP, [](float x) { return warp_reduce(x, take_larger()); });
}
static __device__ __forceinline__ void put_unit_mean_block(const octavo_kv_view *kv, const stored_token &first)
{
    __shared__ float warps[WARPS_MAX];
    put_unit_mean<16, 2>(kv, first, (int)threadIdx.x, (int)blockDim.x, [](float x) { return block_reduce(x, warps, take_larger()); });
}

#endif
