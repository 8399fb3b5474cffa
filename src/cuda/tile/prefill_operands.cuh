/* prefill_operands.cuh - rows of Q, K and V to bf16 terms in shared memory, eight elements at a time: exact for every format that has 8
 * significant bits in one term, for the others in two. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_OPERANDS_CUH
#define OCTAVO_CUDA_TILE_PREFILL_OPERANDS_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/prefill_call.cuh"

enum { EIGHT = 8 };

/* Eight elements as pairs: the first term, and what it leaves out. */
struct term_pairs {
    uint32_t first[4], second[4];
};

static __device__ __forceinline__ void put_pair(term_pairs *to, int i, float low, float high)
{
    to->first[i] = pack_bf16(low, high);
    to->second[i] = pack_bf16(low - bf16_low(to->first[i]), high - bf16_high(to->first[i]));
}

static __device__ __forceinline__ uint32_t bf16_of_f16(uint32_t pair) { return pack_bf16(f16_low(pair), f16_high(pair)); }

/* WORDS words from a row, `left` of whose bytes are still there; zeros behind. */
template <int WORDS> static __device__ __forceinline__ void load_words(uint32_t (&to)[WORDS], const uint8_t *from, int64_t left, bool wide)
{
    if (wide && left >= 4 * WORDS) {
        if (WORDS == 4) *(uint4 *)to = *(const uint4 *)from;
        else *(uint2 *)to = *(const uint2 *)from;
        return;
    }
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
        to[w] = 0;
        for (int i = 0; i < 4; i++)
            if (4 * w + i < left) to[w] |= (uint32_t)from[4 * w + i] << (8 * i);
    }
}

/* Eight codes of a byte to their values. */
enum code_kind { CODE_E4M3, CODE_E5M2, CODE_INT8 };
static __device__ __forceinline__ void code_pairs(code_kind kind, const uint32_t (&codes)[2], uint32_t (&pairs)[4])
{
#pragma unroll
    for (int w = 0; w < 2; w++) {
        if (kind == CODE_E4M3) e4m3_to_f16(codes[w], &pairs[2 * w], &pairs[2 * w + 1]);
        else if (kind == CODE_E5M2) e5m2_to_f16(codes[w], &pairs[2 * w], &pairs[2 * w + 1]);
        else int8_to_f16(codes[w], &pairs[2 * w], &pairs[2 * w + 1]);
    }
}

static __device__ __forceinline__ void put_codes(uint32_t (&to)[4], code_kind kind, const uint32_t (&codes)[2])
{
    uint32_t pairs[4];
    code_pairs(kind, codes, pairs);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = bf16_of_f16(pairs[i]);
}

static __device__ __forceinline__ void put_halves(term_pairs *to, const uint32_t (&halves)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) put_pair(to, i, f16_low(halves[i]), f16_high(halves[i]));
}

/* Codes of int4x2, elements [d, d + 8) of a row: joined from both planes. */
static __device__ __forceinline__ void join_nibbles(uint32_t (&codes)[2], const key_row &row, int64_t d, int64_t dim)
{
#pragma unroll
    for (int w = 0; w < 2; w++) {
        codes[w] = 0;
        for (int i = 0; i < 4; i++) {
            const int64_t at = d + 4 * w + i;
            if (at < dim) codes[w] |= (uint32_t)(row_nibble(row.base, at, dim) << 4 | row_nibble(row.more, at, dim)) << (8 * i);
        }
    }
}

/* base * base_unit + more * more_unit of two planes, exact in float32; the second term is then small beside the first, so that products
 * of two second terms may be left out. */
static __device__ __forceinline__ void put_joined(term_pairs *to, code_kind kind, const uint32_t (&base)[2], const uint32_t (&more)[2],
                                                  float base_unit, float more_unit)
{
    uint32_t high[4], low[4];
    code_pairs(kind, base, high);
    code_pairs(kind, more, low);
#pragma unroll
    for (int i = 0; i < 4; i++)
        put_pair(to, i, fmaf(base_unit, f16_low(high[i]), more_unit * f16_low(low[i])), fmaf(base_unit, f16_high(high[i]), more_unit * f16_high(low[i])));
}

/* Elements [d, d + 8) of a key in units of c.k_unit times its factor; zeros past head_dim. */
static __device__ __forceinline__ term_pairs load_key(const prefill_call &c, const key_row &row, int64_t d)
{
    const int64_t dim = c.kv.head_dim, left = dim - d;
    const octavo_k_format format = c.kv.k_format;
    term_pairs out = {};
    if (left <= 0) return out;
    if (format == OCTAVO_K_BF16 || format == OCTAVO_K_F16) {
        uint32_t halves[4];
        load_words<4>(halves, row.base + 2 * d, 2 * left, c.k_wide);
        if (format == OCTAVO_K_F16) put_halves(&out, halves);
        else for (int i = 0; i < 4; i++) out.first[i] = halves[i];
        return out;
    }
    uint32_t base[2], more[2] = { 0, 0 };
    if (format == OCTAVO_K_INT4X2) {
        join_nibbles(base, row, d, dim);
    } else {
        load_words<2>(base, row.base + d, left, c.k_wide);
        if (row.more) load_words<2>(more, row.more + d, left, c.k_wide);
    }
    const code_kind kind = format == OCTAVO_K_E4M3 || format == OCTAVO_K_E4M3X2 ? CODE_E4M3
                           : format == OCTAVO_K_E5M2 || format == OCTAVO_K_E5M2X2 ? CODE_E5M2 : CODE_INT8;
    if (format == OCTAVO_K_INT8X2) put_joined(&out, kind, base, more, 254.0f, 1.0f);
    else if (c.k_terms > 1) put_joined(&out, kind, base, more, 1.0f, format == OCTAVO_K_E4M3X2 && c.kv.k_residual_exponent ? 0.0625f : 1.0f);
    else put_codes(out.first, kind, base);
    return out;
}

/* Elements [d, d + 8) of a value; its factor is not in it. */
static __device__ __forceinline__ term_pairs load_value(const prefill_call &c, const uint8_t *row, int64_t d)
{
    const int64_t left = c.kv.v_dim - d;
    const octavo_v_format format = c.kv.v_format;
    term_pairs out = {};
    if (left <= 0) return out;
    if (format == OCTAVO_V_BF16 || format == OCTAVO_V_F16) {
        uint32_t halves[4];
        load_words<4>(halves, row + 2 * d, 2 * left, c.v_wide);
        if (format == OCTAVO_V_F16) put_halves(&out, halves);
        else for (int i = 0; i < 4; i++) out.first[i] = halves[i];
        return out;
    }
    uint32_t codes[2];
    load_words<2>(codes, row + d, left, c.v_wide);
    put_codes(out.first, format == OCTAVO_V_E4M3 ? CODE_E4M3 : CODE_INT8, codes);
    return out;
}

static __device__ __forceinline__ term_pairs load_query_terms(const prefill_call &c, int64_t at, int64_t d)
{
    term_pairs out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t e = d + 2 * i, dim = c.kv.head_dim;
        put_pair(&out, i, e < dim ? load_float(&c.p.q, at + e) : 0.0f, e + 1 < dim ? load_float(&c.p.q, at + e + 1) : 0.0f);
    }
    return out;
}

#endif
