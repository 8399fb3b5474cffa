/* key_turn.cuh - what a warp does with a row of keys that was just projected: rotates it and stores it in a view. */
#ifndef OCTAVO_CUDA_TILE_KEY_TURN_CUH
#define OCTAVO_CUDA_TILE_KEY_TURN_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/plane_codec.cuh"

enum { TURN_EACH = 2, TURN_PAIRS = TURN_EACH * WARP /* pairs whose angles a warp holds at a time */ };

/* Cosines and sines of the pairs that begin at first + 2 lane. */
struct row_turn {
    float cosine[TURN_EACH], sine[TURN_EACH];
};

struct turn_frequencies {
    float of[TURN_EACH];
};

static __device__ __forceinline__ turn_frequencies frequencies_of(const octavo_rope &rope, int pairs, int first)
{
    turn_frequencies frequencies = {};
#pragma unroll
    for (int i = 0; i < TURN_EACH; i++) {
        const int pair = first + TURN_EACH * ((int)threadIdx.x % WARP) + i;
        if (pair < pairs) frequencies.of[i] = rope.inv_freq[pair];
    }
    return frequencies;
}

static __device__ __forceinline__ row_turn turn_by(const octavo_rope &rope, const turn_frequencies &frequencies, int32_t position)
{
    const float scale = rope.scale == 0.0f ? 1.0f : rope.scale;
    row_turn turn;
#pragma unroll
    for (int i = 0; i < TURN_EACH; i++) {
        const float angle = (float)position * frequencies.of[i];
        turn.cosine[i] = cosf(angle) * scale, turn.sine[i] = sinf(angle) * scale;
    }
    return turn;
}

/* Rotates those pairs of a row; `to` may be `from`. */
static __device__ __forceinline__ void turn_row(const octavo_rope &rope, int pairs, int first, const row_turn &turn, const float *from, float *to)
{
    const bool halves = rope.style == OCTAVO_ROPE_ROTATE_HALF;
#pragma unroll
    for (int i = 0; i < TURN_EACH; i++) {
        const int pair = first + TURN_EACH * ((int)threadIdx.x % WARP) + i;
        if (pair >= pairs) break;
        const int low = halves ? pair : 2 * pair, high = halves ? pair + pairs : 2 * pair + 1;
        const float a = from[low], b = from[high];
        to[low] = a * turn.cosine[i] - b * turn.sine[i];
        to[high] = b * turn.cosine[i] + a * turn.sine[i];
    }
}

/* A warp stores a row of float32 keys as token `token` of sequence b. One with a NaN or Inf is stored as zeros and reported. */
static __device__ __forceinline__ void put_key_row(const octavo_kv_view *kv, int64_t b, int64_t head, int64_t token, float *keys, int32_t *device_status)
{
    if (token < 0 || token >= kv->max_tokens) {
        if (threadIdx.x % WARP == 0) report(device_status, OCTAVO_E_RANGE);
        return;
    }
    const stored_token at = find_token(kv, b, head, token);
    octavo_tensor tensor = {};
    tensor.data = keys, tensor.dtype = OCTAVO_F32;
    source_row row = { &tensor, 0, kv->head_dim, kv->k_mean ? kv->k_mean + (at.row * kv->kv_heads + head) * kv->head_dim : nullptr, nullptr, true };
    row.finite = source_finite(row);
    put_key(kv, at, row);
    if (!row.finite && threadIdx.x % WARP == 0) report(device_status, OCTAVO_E_NONFINITE);
}

/* ---- the same of a row that lanes hold: elements 2 lane and 2 lane + 1, and those half a row of 128 further ---- */

enum { ROW_EACH = 4, ROW_MOST = ROW_EACH * WARP };

static __device__ __forceinline__ int held_element(int j)
{
    return 2 * ((int)threadIdx.x % WARP) + j % 2 + j / 2 * (ROW_MOST / 2);
}

/* Where a row goes. */
struct row_place {
    uint8_t *base, *more, *scale, *norm; /* NULL: absent                */
    const float *mean;                   /* subtracted first, or NULL   */
    bool there;                          /* the token lies in the cache */
    bool even;                           /* planes may be stored two bytes at a time */
};

static __device__ __forceinline__ row_place place_of(const octavo_kv_view *kv, int b, int head, int token)
{
    row_place place = {};
    place.there = token >= 0 && token < kv->max_tokens;
    if (!place.there) return place; /* nothing is stored */
    const int64_t row = octavo_view_row(kv, b), block = (unsigned)token / (unsigned)kv->block_tokens;
    const stored_token at = { row, octavo_view_page(kv, row, block), head, token - block * kv->block_tokens };
    place.base = stored_at(&kv->k[0], at);
    if (kv->k[1].data) place.more = stored_at(&kv->k[1], at);
    if (kv->k_scale.data) place.scale = stored_at(&kv->k_scale, at);
    if (kv->k_norm.data) place.norm = stored_at(&kv->k_norm, at);
    if (kv->k_mean) place.mean = kv->k_mean + (row * kv->kv_heads + head) * kv->head_dim;
    place.even = (((uintptr_t)place.base | (uintptr_t)place.more) & 1) == 0;
    return place;
}

/* For a warp that asks for one place. */
static __device__ __forceinline__ row_place place_row(const octavo_kv_view *kv, int b, int head, int token, int32_t *device_status)
{
    const row_place place = place_of(kv, b, head, token);
    if (!place.there && threadIdx.x % WARP == 0) report(device_status, OCTAVO_E_RANGE);
    return place;
}

static __device__ __forceinline__ void put_held_norm(const row_place &place, float unit, const float (&rest)[ROW_EACH])
{
    double sum = 0.0;
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) sum += (double)rest[j] * (double)rest[j];
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
    double norm = sqrt(sum);
    if (unit != 1.0f) norm /= (double)unit;
    if (threadIdx.x % WARP == 0) *place.norm = octavo_ue4m4_from_float_up((float)(norm * 1.000001));
}

/* Codes and scale of a row of which a lane has four elements; *rest: what the first plane's codes leave of them. The unit of the row's norm. */
template <int FORMAT, int BYTES>
static __device__ __forceinline__ float put_held(const octavo_kv_view *kv, const row_place &place, int dim, float amax, const float (&x)[ROW_EACH],
                                                 float (&rest)[ROW_EACH])
{
    enum { SCALED = FORMAT == OCTAVO_K_INT8X2 || FORMAT == OCTAVO_K_INT4X2 /* by an s, not by 2^p */ };
    const int lane = (int)threadIdx.x % WARP;
    const int32_t exponent = octavo_row_exponent(amax);
    const uint16_t bits = octavo_bf16_from_float_up(amax / 127.0f);
    const float factor = !place.scale ? 1.0f : SCALED ? octavo_bf16_to_float(bits) : ldexpf(1.0f, exponent);
    uint32_t nibbles[ROW_EACH][2];
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) {
        const int i = held_element(j);
        const key_codes code = encode_as<FORMAT>(x[j], factor, kv->k_residual_exponent);
        rest[j] = i < dim ? code.rest : 0.0f, nibbles[j][0] = code.base, nibbles[j][1] = code.more;
        if (FORMAT == OCTAVO_K_INT4X2 || i >= dim) continue;
        if (BYTES == 4) ((uint32_t *)place.base)[i] = code.base;
        else if (BYTES == 2) ((uint16_t *)place.base)[i] = (uint16_t)code.base;
        else place.base[i] = (uint8_t)code.base;
        if (BYTES == 1 && place.more) place.more[i] = (uint8_t)code.more;
    }
    if (FORMAT == OCTAVO_K_INT4X2) /* of ROW_MOST elements: bytes hold i and i + half */
#pragma unroll
        for (int j = 0; j < ROW_EACH / 2; j++) {
            place.base[held_element(j)] = (uint8_t)(nibbles[j][0] | nibbles[j + ROW_EACH / 2][0] << 4);
            place.more[held_element(j)] = (uint8_t)(nibbles[j][1] | nibbles[j + ROW_EACH / 2][1] << 4);
        }
    if (place.scale && lane == 0) {
        if (SCALED) *(uint16_t *)place.scale = bits;
        else if (BYTES == 1) *place.scale = (uint8_t)(int8_t)exponent;
    }
    return SCALED && factor > 0.0f ? factor : 1.0f;
}

/* put_held_norm without a float64: a float32 sum of 128 squares and an approximate root err by less than the millionth that is added, and the
 * smallest part of it keeps its trace where its square is none. */
static __device__ __forceinline__ void put_quick_norm(const row_place &place, const float (&rest)[ROW_EACH])
{
    float square[ROW_EACH], root;
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) square[j] = fmaxf(rest[j] * rest[j], rest[j] != 0.0f ? 0x1p-60f : 0.0f);
    float sum = (square[0] + square[1]) + (square[2] + square[3]);
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(sum));
    if (threadIdx.x % WARP == 0) *place.norm = octavo_ue4m4_from_float_up(root * 1.000001f);
}

/* octavo_row_exponent in few instructions: 2^p amax is to stay below 448, 7/8 of a power of two. */
static __device__ __forceinline__ int32_t quick_exponent(float amax)
{
    const int32_t p = 9 + 126 - (int32_t)((__float_as_uint(amax) + 0x1fffffu) >> 23);
    return amax > 0.0f ? max(min(p, OCTAVO_EXPONENT_MAX), OCTAVO_EXPONENT_MIN) : 0;
}

/* Elements j and j + 1 of what a lane holds, as far as the row has them. */
static __device__ __forceinline__ void put_two(uint8_t *row, bool even, int dim, int j, uint32_t codes)
{
    const int i = held_element(j);
    if (even && i + 1 < dim) {
        *(uint16_t *)(row + i) = (uint16_t)codes;
    } else {
        if (i < dim) row[i] = (uint8_t)codes;
        if (i + 1 < dim) row[i + 1] = (uint8_t)(codes >> 8);
    }
}

/* put_held of e4m3 planes, four elements at a time. */
static __device__ __forceinline__ void put_held_e4m3(const octavo_kv_view *kv, const row_place &place, int dim, float amax, const float (&x)[ROW_EACH])
{
    const int32_t exponent = quick_exponent(amax);
    const float factor = place.scale ? __uint_as_float((uint32_t)(exponent + 127) << 23) : 1.0f, up = kv->k_residual_exponent ? 16.0f : 1.0f;
    float scaled[ROW_EACH], rest[ROW_EACH];
    uint32_t low, high;
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) scaled[j] = x[j] * factor;
    const uint32_t codes = pack_e4m3(scaled[0], scaled[1], scaled[2], scaled[3]);
    e4m3_to_f16(codes, &low, &high);
    rest[0] = scaled[0] - f16_low(low), rest[1] = scaled[1] - f16_high(low), rest[2] = scaled[2] - f16_low(high), rest[3] = scaled[3] - f16_high(high);
    const uint32_t more = pack_e4m3(rest[0] * up, rest[1] * up, rest[2] * up, rest[3] * up);
#pragma unroll
    for (int j = 0; j < ROW_EACH; j += 2) {
        put_two(place.base, place.even, dim, j, codes >> 8 * j);
        if (place.more) put_two(place.more, place.even, dim, j, more >> 8 * j);
    }
    if (place.scale && threadIdx.x % WARP == 0) *place.scale = (uint8_t)(int8_t)exponent;
    if (place.norm) put_quick_norm(place, rest);
}

/* Whether put_held_row takes rows of the view. */
static inline bool held_rows_fit(const octavo_kv_view *kv) { return kv->head_dim <= ROW_MOST && (kv->k_format != OCTAVO_K_INT4X2 || kv->head_dim == ROW_MOST); }

/* As put_key_row, of rows of DIM elements (0: of any number). */
template <int DIM> static __device__ __forceinline__ void put_held_row(const octavo_kv_view *kv, const row_place &place, float (&x)[ROW_EACH], int32_t *device_status)
{
    const int dim = DIM ? DIM : kv->head_dim, lane = (int)threadIdx.x % WARP;
    if (!place.there) return;
    uint32_t most = 0; /* bits of the largest magnitude */
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) {
        const int i = held_element(j);
        if (i >= dim) x[j] = 0.0f;
        else if (place.mean) x[j] -= place.mean[i];
        most = max(most, __float_as_uint(fabsf(x[j])));
    }
    most = __reduce_max_sync(WHOLE_WARP, most);
    const bool finite = most <= __float_as_uint(FLT_MAX);
    const float amax = finite ? __uint_as_float(most) : 0.0f;
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) x[j] = finite ? x[j] : 0.0f;
    if (kv->k_format == OCTAVO_K_E4M3X2 || kv->k_format == OCTAVO_K_E4M3) { /* no jump: some callers wait for nothing else */
        put_held_e4m3(kv, place, dim, amax, x);
    } else {
        float rest[ROW_EACH], unit;
        switch (kv->k_format) {
        case OCTAVO_K_BF16:   unit = put_held<OCTAVO_K_BF16, 2>(kv, place, dim, amax, x, rest); break;
        case OCTAVO_K_F16:    unit = put_held<OCTAVO_K_F16, 2>(kv, place, dim, amax, x, rest); break;
        case OCTAVO_K_E5M2:
        case OCTAVO_K_E5M2X2: unit = put_held<OCTAVO_K_E5M2X2, 1>(kv, place, dim, amax, x, rest); break;
        case OCTAVO_K_INT8:
        case OCTAVO_K_INT8X2: unit = put_held<OCTAVO_K_INT8X2, 1>(kv, place, dim, amax, x, rest); break;
        case OCTAVO_K_INT4X2: unit = put_held<OCTAVO_K_INT4X2, 1>(kv, place, dim, amax, x, rest); break;
        default:              unit = put_held<OCTAVO_K_F32, 4>(kv, place, dim, amax, x, rest); break;
        }
        if (place.norm) put_held_norm(place, unit, rest);
    }
    if (!finite && lane == 0) report(device_status, OCTAVO_E_NONFINITE);
}

#endif
