/* prefill_stored.cuh - eight elements of a row of Q, K or V in float32, as the reference reads them: one rounding at most. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_STORED_CUH
#define OCTAVO_CUDA_TILE_PREFILL_STORED_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/prefill_operands.cuh"

enum prefill_operand { PREFILL_Q, PREFILL_K, PREFILL_V };

/* A row, found. An element is its code times the factor, and of V times the channel's. */
struct prefill_row {
    const uint8_t *base, *more; /* base NULL: nobody sees it, all elements are 0; more: K's second plane where it is read */
    float factor;
};

/* How the operands are read, each of Q, K and V. */
struct prefill_stored {
    bool halves[3]; /* f16, not bf16                          */
    bool codes[3];  /* as they are stored, without the factor */
    int bytes[3];   /* of an element that is a float          */
    int eights[3];  /* of an element of which eight may be read at a time: 2 of 16-bit floats, 1 of codes; 0: they may not */
    int planes;     /* of K                                   */
};

static __device__ __forceinline__ prefill_row prefill_row_of(const prefill_call &c, const prefill_stored &as, prefill_operand what, const prefill_place &at,
                                                            int64_t token)
{
    if (what == PREFILL_Q) {
        const octavo_tensor *q = &c.p.q;
        return { (const uint8_t *)q->data + (at.b * q->strides[0] + token * q->strides[1] + at.head * q->strides[2]) * as.bytes[PREFILL_Q], nullptr, 1.0f };
    }
    stored_token found;
    if (!prefill_find(c, at, token, &found)) return { nullptr, nullptr, 1.0f };
    if (what == PREFILL_V) return { stored_at(&c.kv.v, found), nullptr, row_factor(&c.kv.v_scale, octavo_v_scale_bytes(c.kv.v_format), found) };
    const key_row key = find_key(&c.kv, found, as.planes);
    return { key.base, key.more, row_factor(&c.kv.k_scale, octavo_k_scale_bytes(c.kv.k_format), found) };
}

static __device__ __forceinline__ float float_at(const prefill_stored &as, prefill_operand what, const uint8_t *row, int i)
{
    if (as.bytes[what] == 4) return ((const float *)row)[i];
    const uint16_t half = ((const uint16_t *)row)[i];
    return as.halves[what] ? octavo_fp16_to_float(half) : octavo_bf16_to_float(half);
}

/* Element i of K, by the reference's own steps. */
static __device__ __forceinline__ float key_float(const octavo_kv_view *kv, const prefill_row &row, int64_t i)
{
    const key_row key = { row.base, row.more };
    if (kv->k_format == OCTAVO_K_INT8X2 && row.more)
        return (float)(254 * (int)(int8_t)row.base[i] + (int)(int8_t)row.more[i]) * row.factor / 254.0f;
    if (kv->k_format == OCTAVO_K_E5M2X2 && row.more) /* the only sum that float32 does not hold */
        return (float)(((double)octavo_e5m2_to_float(row.base[i]) + (double)octavo_e5m2_to_float(row.more[i])) * (double)row.factor);
    return key_code(kv, key, i) * row.factor;
}

/* Element i of any operand in any format. Not inlined: it is long, and seldom used. */
static __device__ __noinline__ float stored_element(const prefill_call &c, const prefill_stored &as, prefill_operand what, const uint8_t *base, const uint8_t *more,
                                                    float factor, int i)
{
    const prefill_row row = { base, more, factor };
    const key_row key = { base, more };
    if (what == PREFILL_Q) return float_at(as, PREFILL_Q, base, i);
    if (what == PREFILL_K) return as.codes[PREFILL_K] ? key_code(&c.kv, key, i) : key_float(&c.kv, row, i);
    return as.codes[PREFILL_V] ? value_code(&c.kv, base, i) : (float)((double)value_code(&c.kv, base, i) * (double)factor);
}

/* Elements [d, d + 8) of a row in any format, one after the other; zeros behind `dim`. */
static __device__ __forceinline__ void load_each(const prefill_call &c, const prefill_stored &as, prefill_operand what, const prefill_row &row, int d, int dim,
                                                 float (&x)[8])
{
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = 0.0f;
#pragma unroll 1
    for (int j = 0; row.base && j < 8 && d + j < dim; j++) {
        const float its = stored_element(c, as, what, row.base, row.more, row.factor, d + j);
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = i == j ? its : x[i];
    }
}

/* What the operands are: rows of 16-bit floats, eight of which may be read at a time, the tokens of a block of K or V one after the other, which
 * are bf16, f16 or either; rows each of its own kind and place, of which eight elements may be read at a time; or anything. */
enum encode_from { FROM_ANY, FROM_BF16, FROM_F16, FROM_HALVES, FROM_EIGHTS };

template <encode_from FROM> static __device__ __forceinline__ void unpack_eight(const uint4 &raw, float (&x)[8])
{
    const uint32_t pairs[4] = { raw.x, raw.y, raw.z, raw.w };
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = FROM == FROM_F16 ? f16_low(pairs[i]) : bf16_low(pairs[i]);
        x[2 * i + 1] = FROM == FROM_F16 ? f16_high(pairs[i]) : bf16_high(pairs[i]);
    }
}

/* Which nibbles of int4x2's bytes hold elements from d on, and where these bytes begin. */
static __device__ __forceinline__ int nibble_shift(const prefill_call &c, int d) { return 2 * d < c.kv.head_dim ? 0 : 4; }
static __device__ __forceinline__ int first_byte(const prefill_call &c, prefill_operand what, int d)
{
    return what == PREFILL_K && c.kv.k_format == OCTAVO_K_INT4X2 && nibble_shift(c, d) ? d - c.kv.head_dim / 2 : d;
}

/* Four codes of both planes. */
static __device__ __forceinline__ uint32_t join_nibbles_word(uint32_t base, uint32_t more, int shift)
{
    return (base >> shift & 0x0F0F0F0Fu) << 4 | (more >> shift & 0x0F0F0F0Fu);
}

/* How eight codes of K's planes, or of V, become elements, which is one way for a whole operand. */
struct join_way {
    code_kind kind;
    bool nibbles, joined;
    float unit; /* of the second plane */
};
static __device__ __forceinline__ join_way join_way_of(const prefill_call &c, const prefill_stored &as, prefill_operand what)
{
    const octavo_k_format format = c.kv.k_format;
    const bool nibbles = what == PREFILL_K && format == OCTAVO_K_INT4X2;
    const bool int8 = what == PREFILL_V ? c.kv.v_format == OCTAVO_V_INT8 : nibbles || format == OCTAVO_K_INT8 || format == OCTAVO_K_INT8X2;
    const bool e5m2 = what == PREFILL_K && (format == OCTAVO_K_E5M2 || format == OCTAVO_K_E5M2X2);
    return { int8 ? CODE_INT8 : e5m2 ? CODE_E5M2 : CODE_E4M3, nibbles, what == PREFILL_K && as.planes > 1 && !nibbles,
             format == OCTAVO_K_E4M3X2 && c.kv.k_residual_exponent ? 0.0625f : 1.0f };
}

static constexpr uint32_t NO_MORE = 0x80008000u; /* a pair of f16 that sums do not notice */

/* Eight codes from element d on, by the reference's own steps. SELDOM: what a product does not do. */
template <bool SELDOM>
static __device__ __forceinline__ void join_eight(const prefill_call &c, const join_way &way, float factor, const uint4 &raw, int d, float (&x)[8])
{
    uint32_t codes[2] = { raw.x, raw.y }, pairs[4], rest[4] = { NO_MORE, NO_MORE, NO_MORE, NO_MORE };
    if (way.nibbles) codes[0] = join_nibbles_word(raw.x, raw.z, nibble_shift(c, d)), codes[1] = join_nibbles_word(raw.y, raw.w, nibble_shift(c, d));
    code_pairs(way.kind, codes, pairs);
    if (way.joined) code_pairs(way.kind, { raw.z, raw.w }, rest);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float code = i % 2 ? f16_high(pairs[i / 2]) : f16_low(pairs[i / 2]), second = i % 2 ? f16_high(rest[i / 2]) : f16_low(rest[i / 2]);
        if (!SELDOM) x[i] = fmaf(second, way.unit, code) * factor;
        else if (way.kind == CODE_INT8) x[i] = (254.0f * code + second) * factor / 254.0f;
        else x[i] = (float)(((double)code + (double)second) * (double)factor);
    }
}

/* Elements [d, d + 8) of rows that are aligned; zeros behind. All are asked for before one is used. */
template <int COUNT>
static __device__ __forceinline__ void load_aligned_eights(const prefill_call &c, const prefill_stored &as, prefill_operand what, const prefill_row (&row)[COUNT], int d,
                                                           int dim, float (&x)[COUNT][8])
{
    const bool floats = as.eights[what] == 2;
    const int byte = floats ? 2 * d : first_byte(c, what, d);
    uint4 raw[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        raw[i] = make_uint4(0, 0, 0, 0);
        if (!row[i].base || d >= dim) continue;
        if (floats) {
            raw[i] = load_once_16(row[i].base + byte);
        } else {
            *(uint2 *)&raw[i].x = *(const uint2 *)(row[i].base + byte);
            if (row[i].more) *(uint2 *)&raw[i].z = *(const uint2 *)(row[i].more + byte);
        }
    }
    const join_way way = join_way_of(c, as, what);
    if (floats && as.halves[what]) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) unpack_eight<FROM_F16>(raw[i], x[i]);
    } else if (floats) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) unpack_eight<FROM_BF16>(raw[i], x[i]);
    } else if (way.joined && way.kind != CODE_E4M3) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) join_eight<true>(c, way, as.codes[what] ? 1.0f : row[i].factor, raw[i], d, x[i]);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) join_eight<false>(c, way, as.codes[what] ? 1.0f : row[i].factor, raw[i], d, x[i]);
    }
}

/* Elements [d, d + 8) of rows with `dim` of them; zeros behind. */
template <encode_from FROM, int COUNT>
static __device__ __forceinline__ void prefill_load_eights(const prefill_call &c, const prefill_stored &as, prefill_operand what, int64_t head,
                                                           const prefill_row (&row)[COUNT], int d, int dim, float (&x)[COUNT][8])
{
    if constexpr (FROM == FROM_BF16 || FROM == FROM_F16 || FROM == FROM_HALVES) {
        uint4 raw[COUNT]; /* all are asked for before one is used */
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            raw[i] = make_uint4(0, 0, 0, 0);
            if (row[i].base && d < dim) raw[i] = load_once_16(row[i].base + 2 * d);
        }
        if (FROM == FROM_F16 || (FROM == FROM_HALVES && as.halves[what])) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) unpack_eight<FROM_F16>(raw[i], x[i]);
        } else {
#pragma unroll
            for (int i = 0; i < COUNT; i++) unpack_eight<FROM_BF16>(raw[i], x[i]);
        }
    } else {
        if constexpr (FROM == FROM_EIGHTS) load_aligned_eights(c, as, what, row, d, dim, x);
#pragma unroll
        for (int n = 0; n < COUNT; n++) {
            if (FROM == FROM_ANY) load_each(c, as, what, row[n], d, dim, x[n]);
            if (what != PREFILL_V || as.codes[PREFILL_V] || !c.kv.v_channel_scale) continue;
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (d + i < dim) x[n][i] *= channel_factor(&c.kv, head, d + i);
        }
    }
}

#endif
