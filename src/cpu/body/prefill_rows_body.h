/* prefill_rows_body.h - rows of Q, K and V of a prefill call: as float32, rotated, smoothed, and as codes.
 *
 * Included after a level's vocabulary. Codes have to be those of the reference, bit for bit: every step is one float32 operation in
 * the order that the reference fixes. Rows are padded with zeros to whole PREFILL_DIM_PADs. */
#ifndef OCTAVO_CPU_PREFILL_ROWS_BODY_H
#define OCTAVO_CPU_PREFILL_ROWS_BODY_H

#include "cpu/body/float_rows_body.h"
#include "cpu/prefill_tasks.h"
#include <math.h>

/* ---- where a token is stored ---- */

/* A token of one kv head. The divisions that find its page are made once a block. */
typedef struct prefill_cursor {
    const octavo_kv_view *kv;
    int64_t row, head, page, begin, end, in_block;
} prefill_cursor;

static inline prefill_cursor prefill_cursor_of(const octavo_kv_view *kv, int64_t b, int64_t head)
{
    return (prefill_cursor){ .kv = kv, .row = octavo_view_row(kv, b), .head = head };
}

static inline void prefill_seek(prefill_cursor *at, int64_t token)
{
    if (token < at->begin || token >= at->end) {
        const int64_t block = token / at->kv->block_tokens;
        at->begin = block * at->kv->block_tokens, at->end = at->begin + at->kv->block_tokens;
        at->page = octavo_view_page(at->kv, at->row, block);
    }
    at->in_block = token - at->begin;
}

static inline const uint8_t *prefill_at(const octavo_section *section, const prefill_cursor *at)
{
    return octavo_section_at(section, at->row, at->page, at->head, at->in_block);
}

/* 2^-p, s or 1: what a code of this token's row is multiplied by. */
static inline float prefill_factor(const octavo_section *section, int64_t scale_bytes, const prefill_cursor *at)
{
    if (!section->data || scale_bytes == 0) return 1.0f;
    const uint8_t *scale = prefill_at(section, at);
    if (scale_bytes == 1) return octavo_float_from_bits((uint32_t)(127 - (int8_t)*scale) << 23);
    uint16_t s;
    memcpy(&s, scale, sizeof s);
    return octavo_bf16_to_float(s);
}

/* ---- decoding; `out` has room for whole vectors ---- */

#define PREFILL_DECODE(name, type)                                                              \
    static inline void prefill_decode_##name(float *restrict out, const uint8_t *row, int64_t n) \
    {                                                                                           \
        const int64_t whole = n - n % SIMD_F32;                                                 \
        for (int64_t i = 0; i < whole; i += SIMD_F32) v_store(out + i, v_load_##name(row + i * (int64_t)sizeof(type))); \
        if (whole == n) return;                                                                 \
        type rest[SIMD_F32] = { 0 };                                                            \
        memcpy(rest, row + whole * (int64_t)sizeof(type), (size_t)(n - whole) * sizeof(type));  \
        v_store(out + whole, v_load_##name(rest));                                              \
    }
PREFILL_DECODE(bf16, uint16_t)
PREFILL_DECODE(f16, uint16_t)
PREFILL_DECODE(e4m3, uint8_t)
PREFILL_DECODE(e5m2, uint8_t)
PREFILL_DECODE(int8, uint8_t)
PREFILL_DECODE(low_nibbles, uint8_t)
PREFILL_DECODE(high_nibbles, uint8_t)
PREFILL_DECODE(low_nibbles_signed, uint8_t)
PREFILL_DECODE(high_nibbles_signed, uint8_t)
#undef PREFILL_DECODE

/* x = x * a + y * b, each of the three steps rounded. */
static inline void prefill_blend(float *restrict x, float a, const float *restrict y, float b, int64_t n)
{
    for (int64_t i = 0; i < n; i += SIMD_F32)
        v_store(x + i, v_add(v_mul(v_load(x + i), v_splat(a)), v_mul(v_load(y + i), v_splat(b))));
}

static inline void prefill_scale_row(float *restrict x, float factor, int64_t n)
{
    if (factor == 1.0f) return;
    for (int64_t i = 0; i < n; i += SIMD_F32) v_store(x + i, v_mul(v_load(x + i), v_splat(factor)));
}

/* Codes of K from its first planes, as integers or eight-bit floats; int8x2 with two planes: 254 times as large. more: [k_dim] spare. */
static inline void prefill_k_codes(float *restrict out, float *restrict more, const prefill_cursor *at, int32_t planes)
{
    const octavo_kv_view *kv = at->kv;
    const int64_t n = kv->head_dim, half = (n + 1) / 2;
    const uint8_t *base = prefill_at(&kv->k[0], at), *rest = planes > 1 ? prefill_at(&kv->k[1], at) : NULL;
    switch (kv->k_format) {
    case OCTAVO_K_F32:  memcpy(out, base, (size_t)n * sizeof *out); break;
    case OCTAVO_K_BF16: prefill_decode_bf16(out, base, n); break;
    case OCTAVO_K_F16:  prefill_decode_f16(out, base, n); break;
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2:
        prefill_decode_e4m3(out, base, n);
        if (!rest) break;
        prefill_decode_e4m3(more, rest, n);
        prefill_blend(out, 1.0f, more, kv->k_residual_exponent ? 0x1p-4f : 1.0f, n);
        break;
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2:
        prefill_decode_e5m2(out, base, n);
        if (!rest) break;
        prefill_decode_e5m2(more, rest, n);
        prefill_blend(out, 1.0f, more, 1.0f, n);
        break;
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2:
        prefill_decode_int8(out, base, n);
        if (!rest) break;
        prefill_decode_int8(more, rest, n);
        prefill_blend(out, 254.0f, more, 1.0f, n);
        break;
    case OCTAVO_K_INT4X2:
        prefill_decode_low_nibbles_signed(out, base, half);
        prefill_decode_high_nibbles_signed(out + half, base, n - half);
        prefill_decode_low_nibbles(more, rest, half);
        prefill_decode_high_nibbles(more + half, rest, n - half);
        prefill_blend(out, 16.0f, more, 1.0f, n);
        break;
    }
}

static inline void prefill_clear(float *x, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) x[i] = 0.0f;
}

/* A row of K as float32, or its codes where `codes`; returns the codes' scale, else 1. out, more: [k_dim]. */
static inline float prefill_load_k(float *restrict out, float *restrict more, int64_t k_dim, const prefill_cursor *at, int32_t planes, int codes)
{
    const octavo_kv_view *kv = at->kv;
    const float factor = prefill_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), at);
    prefill_k_codes(out, more, at, planes);
    if (!codes) prefill_scale_row(out, factor, kv->head_dim);
    if (!codes && planes > 1 && kv->k_format == OCTAVO_K_INT8X2)
        for (int64_t i = 0; i < kv->head_dim; i += SIMD_F32) v_store(out + i, v_div(v_load(out + i), v_splat(254.0f)));
    prefill_clear(out, kv->head_dim, k_dim);
    return codes ? factor : 1.0f;
}

/* A row of V as float32, with its channels' factors where `channels`; int8 as codes where `codes`, their scale is returned. */
static inline float prefill_load_v(float *restrict out, int64_t v_dim, const prefill_cursor *at, const float *channels, int codes)
{
    const octavo_kv_view *kv = at->kv;
    const int64_t n = kv->v_dim;
    const uint8_t *row = prefill_at(&kv->v, at);
    const float factor = prefill_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at);
    const int takes_codes = codes && kv->v_format == OCTAVO_V_INT8;
    switch (kv->v_format) {
    case OCTAVO_V_F32:  memcpy(out, row, (size_t)n * sizeof *out); break;
    case OCTAVO_V_BF16: prefill_decode_bf16(out, row, n); break;
    case OCTAVO_V_F16:  prefill_decode_f16(out, row, n); break;
    case OCTAVO_V_E4M3: prefill_decode_e4m3(out, row, n); break;
    case OCTAVO_V_INT8: prefill_decode_int8(out, row, n); break;
    }
    if (!takes_codes) prefill_scale_row(out, factor, n);
    for (int64_t i = 0; channels && i < n; i++) out[i] *= channels[i];
    prefill_clear(out, n, v_dim);
    return takes_codes ? factor : 1.0f;
}

/* Butterflies from the nearest pairs to the farthest. */
static inline void prefill_rotate(float *restrict x, int64_t dim)
{
    for (int64_t half = 1; half < dim; half *= 2)
        for (int64_t begin = 0; begin < dim; begin += 2 * half) {
            float *restrict low = x + begin, *restrict high = x + begin + half;
            for (int64_t i = 0; i < half; i++) {
                const float a = low[i], b = high[i];
                low[i] = a + b, high[i] = a - b;
            }
        }
    const float factor = (float)(1.0 / sqrt((double)dim));
    for (int64_t i = 0; i < dim; i++) x[i] *= factor;
}

static inline void prefill_subtract(float *restrict x, const float *restrict mean, int64_t n)
{
    for (int64_t i = 0; i < n; i += SIMD_F32) v_store(x + i, v_sub(v_load(x + i), v_load(mean + i)));
}

/* ---- codes, as float32 ---- */

static inline void prefill_encode_int8(float *restrict x, float inverse, int64_t n)
{
    const vf32 most = v_splat(127.0f), least = v_splat(-127.0f), factor = v_splat(inverse);
    for (int64_t i = 0; i < n; i += SIMD_F32)
        v_store(x + i, v_round(v_max(v_min(v_mul(v_load(x + i), factor), most), least)));
}

static inline void prefill_encode_e4m3(float *restrict x, float factor, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float rounded;
        octavo_e4m3_from_finite(x[i] * factor, &rounded);
        x[i] = rounded;
    }
}

/* A row of V with a factor an element; what the codes leave out is added to rest. */
static inline void prefill_encode_channels(float *restrict x, const float *restrict factor, float *restrict rest, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float scaled = x[i] * factor[i];
        float rounded;
        octavo_e4m3_from_finite(scaled, &rounded);
        x[i] = rounded, rest[i] += scaled - rounded;
    }
}

/* The same with a power of two for all, which is in the values afterwards. */
static inline void prefill_round_values(float *restrict x, float up, float down, float *restrict rest, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float rounded;
        octavo_e4m3_from_finite(x[i] * up, &rounded);
        rounded *= down;
        rest[i] += x[i] - rounded, x[i] = rounded;
    }
}

static inline float prefill_off(const float *restrict x, float factor, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        const float scaled = x[i] * factor;
        float rounded;
        octavo_e4m3_from_finite(scaled, &rounded);
        const float off = octavo_prefill_code_off(scaled, rounded);
        sum += off * off;
    }
    return sum;
}

/* A query of FP8 with the better of the two scales for its group's largest magnitude; returns that scale. */
static inline float prefill_encode_fitted(float *restrict x, int64_t n, float amax)
{
    const int32_t exponent = octavo_row_exponent(amax);
    const octavo_prefill_scale wide = { octavo_power_of_two(-exponent), octavo_power_of_two(exponent) };
    const octavo_prefill_scale scale = octavo_prefill_scale_fitted(wide, prefill_off(x, wide.inverse, n), prefill_off(x, wide.inverse * 0.75f, n));
    prefill_encode_e4m3(x, scale.inverse, n);
    return scale.scale;
}

/* A row with the scale of its group's largest magnitude; returns that scale. */
static inline float prefill_encode(const octavo_prefill_params *p, float *restrict x, int64_t n, float amax)
{
    if (p->precision == OCTAVO_ATTENTION_FP8) {
        const int32_t exponent = octavo_row_exponent(amax);
        prefill_encode_e4m3(x, octavo_power_of_two(exponent), n);
        return octavo_power_of_two(-exponent);
    }
    const octavo_prefill_scale scale = octavo_prefill_scale_of(amax, 127.0f);
    prefill_encode_int8(x, scale.inverse, n);
    return scale.scale;
}

/* ---- a block of keys or values: [OCTAVO_PREFILL_BLOCK, dim], zeros where no query looks ---- */

/* One head's part in a call, and what it sees. */
typedef struct prefill_head {
    const octavo_prefill_call *call;
    const octavo_prefill_params *p;
    octavo_prefill_facts facts;
    prefill_cursor cursor;
    octavo_span seen;
    int64_t b, k_dim, v_dim;
    float *spare; /* [k_dim] */
    int k_codes;  /* 1: codes of K, not their values, whatever the precision */
} prefill_head;

static inline prefill_head prefill_head_of(const octavo_prefill_call *call, int64_t slot, float *spare)
{
    const octavo_kv_view *kv = call->p->kv;
    const int64_t flat = call->first_head + slot, b = flat / kv->kv_heads;
    return (prefill_head){ .call = call, .p = call->p, .facts = octavo_prefill_facts_of(call, slot),
                           .cursor = prefill_cursor_of(kv, b, flat % kv->kv_heads), .seen = octavo_prefill_seen(call->p, b), .b = b,
                           .k_codes = octavo_prefill_takes_k_codes(call->p),
                           .k_dim = call->layout.k_dim, .v_dim = call->layout.v_dim, .spare = spare };
}

/* A row of K before it is smoothed and encoded; returns the scale of stored codes, else 1. */
static inline float prefill_plain_key(prefill_head *of, int64_t token, float *restrict row)
{
    prefill_seek(&of->cursor, token);
    const float scale = prefill_load_k(row, of->spare, of->k_dim, &of->cursor, octavo_prefill_k_planes(of->p), of->k_codes);
    if (octavo_prefill_rotates(of->p)) prefill_rotate(row, of->p->kv->head_dim);
    return scale;
}

/* The same less its mean. */
static inline float prefill_smooth_key(prefill_head *of, int64_t token, float *restrict row)
{
    const float scale = prefill_plain_key(of, token, row);
    if (octavo_prefill_smooths_k(of->p)) prefill_subtract(row, of->facts.k_mean, of->k_dim);
    return scale;
}

/* Largest magnitudes of the rows of a block to those of their groups. */
static inline void prefill_group_most(const octavo_prefill_params *p, int64_t (*group_of)(const octavo_prefill_params *, int64_t), float *most)
{
    float of_group[OCTAVO_PREFILL_BLOCK] = { 0.0f };
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        float *group = &of_group[group_of(p, t)];
        *group = most[t] > *group ? most[t] : *group;
    }
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) most[t] = of_group[group_of(p, t)];
}

/* Keys of a block as they are multiplied; scale [OCTAVO_PREFILL_BLOCK], 0 where no query looks. */
static inline void prefill_load_keys(prefill_head *of, int64_t block, float *restrict k, float *restrict scale)
{
    const octavo_prefill_params *p = of->p;
    const int encodes = p->precision != OCTAVO_ATTENTION_EXACT && !octavo_prefill_takes_k_codes(p), whole = octavo_prefill_scales_whole(p);
    float most[OCTAVO_PREFILL_BLOCK];
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        float *row = k + t * of->k_dim;
        const int seen = octavo_span_sees(&of->seen, block * OCTAVO_PREFILL_BLOCK + t);
        scale[t] = seen ? prefill_smooth_key(of, block * OCTAVO_PREFILL_BLOCK + t, row) : 0.0f;
        if (!seen) prefill_clear(row, 0, of->k_dim);
        most[t] = encodes ? rows_amax(0.0f, row, of->k_dim) : 0.0f;
    }
    if (!encodes) return;
    if (!whole) prefill_group_most(p, octavo_prefill_k_group, most);
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++)
        if (scale[t] != 0.0f) scale[t] = prefill_encode(p, k + t * of->k_dim, of->k_dim, whole ? of->facts.k_most[0] : most[t]);
}

/* A row of V before it is smoothed and encoded; returns the factor of its codes. */
static inline float prefill_plain_value(prefill_head *of, int64_t token, float *restrict row, int codes)
{
    const octavo_kv_view *kv = of->p->kv;
    const int channels = octavo_prefill_rounds_v(of->p) && kv->v_channel_scale;
    prefill_seek(&of->cursor, token);
    return prefill_load_v(row, of->v_dim, &of->cursor, channels ? kv->v_channel_scale + of->cursor.head * kv->v_dim : NULL, codes);
}

/* The same less its mean. */
static inline float prefill_smooth_value(prefill_head *of, int64_t token, float *restrict row, int codes)
{
    const float factor = prefill_plain_value(of, token, row, codes);
    if (octavo_prefill_smooths_v(of->p)) prefill_subtract(row, of->facts.v_mean, of->v_dim);
    return factor;
}

/* Values of a block. codes: int8 ones may stay codes, and factor [OCTAVO_PREFILL_BLOCK] is what multiplies each weight. rest [v_dim]: what
 * E4M3's codes leave out of them all, in units of facts.v_scale. */
static inline void prefill_load_values(prefill_head *of, int64_t block, float *restrict v, float *restrict factor, int codes, float *restrict rest)
{
    const octavo_prefill_params *p = of->p;
    const int rounds = octavo_prefill_rounds_v(p);
    float amax = 0.0f;
    if (rounds) prefill_clear(rest, 0, of->v_dim);
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        float *row = v + t * of->v_dim;
        const int seen = octavo_span_sees(&of->seen, block * OCTAVO_PREFILL_BLOCK + t);
        factor[t] = seen ? prefill_smooth_value(of, block * OCTAVO_PREFILL_BLOCK + t, row, codes && !rounds) : 0.0f;
        if (!seen) prefill_clear(row, 0, of->v_dim);
        if (!rounds || !seen) continue;
        if (p->precision == OCTAVO_ATTENTION_FP8) amax = rows_amax(amax, row, of->v_dim);
        else prefill_encode_channels(row, of->facts.v_inverse, rest, of->v_dim);
    }
    if (!rounds || p->precision != OCTAVO_ATTENTION_FP8) return;
    const int32_t exponent = octavo_row_exponent(octavo_prefill_scales_whole(p) ? of->facts.v_most[0] : amax);
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++)
        prefill_round_values(v + t * of->v_dim, octavo_power_of_two(exponent), octavo_power_of_two(-exponent), rest, of->v_dim);
}

/* ---- queries ---- */

enum { PREFILL_AHEAD = 6 }; /* rows */

/* Row of query i of a query head, as float32; its dot product with what was taken off the keys, in nats, is returned. */
static inline float prefill_load_query(const prefill_head *of, int64_t q_head, int64_t i, float *restrict row)
{
    const octavo_prefill_params *p = of->p;
    const octavo_kv_view *kv = p->kv;
    const int64_t dim = kv->head_dim;
    const float *stored = kv->k_mean ? kv->k_mean + (of->cursor.row * kv->kv_heads + of->cursor.head) * dim : NULL;
    rows_load(row, &p->q, of->b * p->q.strides[0] + i * p->q.strides[1] + q_head * p->q.strides[2], dim);
    prefill_clear(row, dim, of->k_dim);
    float shift = 0.0f;
    for (int64_t d = 0; stored && d < dim; d++) shift += row[d] * stored[d];
    if (octavo_prefill_smooths_k(p)) {
        vf32 sum = v_zero();
        for (int64_t d = 0; d < of->k_dim; d += SIMD_F32) sum = v_fma(v_load(row + d), v_load(of->facts.k_mean + d), sum);
        shift += v_hsum(sum);
    }
    if (octavo_prefill_rotates(p)) prefill_rotate(row, dim);
    return shift * p->softmax_scale;
}

/* Rows of one head lie far apart: the processor does not see them coming. */
static inline void prefill_fetch_query(const octavo_tensor *q, int64_t at)
{
    const int64_t bytes = (int64_t)octavo_dtype_bytes(q->dtype);
    for (int64_t i = 0; i < q->shape[3] * bytes; i += 64) __builtin_prefetch((const uint8_t *)q->data + at * bytes + i);
}

/* Up to OCTAVO_PREFILL_BLOCK queries of a head from `first` on, a whole number of blocks from the call's first, as they are multiplied:
 * rows `stride` floats apart. */
static inline void prefill_load_queries(const prefill_head *of, int64_t q_head, int64_t first, int64_t count, float *restrict rows,
                                        int64_t stride, float *restrict scale, float *restrict shift)
{
    const octavo_prefill_params *p = of->p;
    float most[OCTAVO_PREFILL_BLOCK] = { 0.0f };
    for (int64_t i = 0; i < count; i++) {
        const int64_t ahead = first + (i + PREFILL_AHEAD < count ? i + PREFILL_AHEAD : count - 1);
        prefill_fetch_query(&p->q, of->b * p->q.strides[0] + ahead * p->q.strides[1] + q_head * p->q.strides[2]);
        scale[i] = 1.0f;
        shift[i] = prefill_load_query(of, q_head, first + i, rows + i * stride);
        most[i] = p->precision == OCTAVO_ATTENTION_EXACT ? 0.0f : rows_amax(0.0f, rows + i * stride, of->k_dim);
    }
    if (p->precision == OCTAVO_ATTENTION_EXACT) return;
    const int whole = octavo_prefill_scales_whole(p);
    const float all = of->facts.q_most[q_head - of->cursor.head * of->call->layout.group];
    if (!whole) prefill_group_most(p, octavo_prefill_q_group, most);
    for (int64_t i = 0; i < count; i++)
        scale[i] = octavo_prefill_fits_q(p) ? prefill_encode_fitted(rows + i * stride, of->k_dim, most[i])
                                            : prefill_encode(p, rows + i * stride, of->k_dim, whole ? all : most[i]);
}

/* ---- results ---- */

static inline void prefill_store_row(const octavo_tensor *out, int64_t at, const float *restrict row, int64_t n)
{
    if (out->dtype == OCTAVO_F32) {
        memcpy((float *)out->data + at, row, (size_t)n * sizeof *row);
        return;
    }
    uint16_t *restrict half = (uint16_t *)out->data + at;
    if (out->dtype == OCTAVO_F16) {
#pragma omp simd
        for (int64_t d = 0; d < n; d++) half[d] = octavo_fp16_from_float(row[d]);
    } else {
#pragma omp simd
        for (int64_t d = 0; d < n; d++) half[d] = octavo_bf16_from_float(row[d]);
    }
}

/* Adds `share` of the mean of what codes leave out of V in the blocks that the row sees some of. */
static inline void prefill_add_rest(const prefill_head *of, int64_t i, float share, float *restrict sum)
{
    const octavo_span blocks = octavo_prefill_blocks_of(octavo_prefill_span(of->p, of->b, i));
    const int64_t count = octavo_prefill_blocks_seen(&blocks, &of->seen);
    const float *end = of->facts.v_part + blocks.end * of->v_dim, *begin = of->facts.v_part + blocks.near_begin * of->v_dim;
    const float *sink = of->facts.v_part + blocks.sink_end * of->v_dim;
    const vf32 part = v_splat(share / (float)count);
    for (int64_t d = 0; d < of->v_dim; d += SIMD_F32)
        v_store(sum + d, v_fma(part, v_add(v_sub(v_load(end + d), v_load(begin + d)), v_load(sink + d)), v_load(sum + d)));
}

/* What is left to do with a row: sum [v_dim] of weighted values, whose weights are exp(score - most) and add up to `mass`. */
static inline void prefill_finish_row(const prefill_head *of, int64_t q_head, int64_t i, float *restrict sum, float most, float mass, float shift)
{
    const octavo_prefill_params *p = of->p;
    const int64_t at = of->b * p->out.strides[0] + i * p->out.strides[1] + q_head * p->out.strides[2];
    float top = most, whole = mass, held = 1.0f; /* held: weights are exp(score - top) after it */
    if (mass > 0.0f && p->sink_logits) {
        const float sink = p->sink_logits[q_head] - shift;
        top = sink > most ? sink : most;
        held = expf(most - top);
        whole = mass * held + expf(sink - top);
    }
    const float factor = mass > 0.0f ? held / whole : 0.0f, share = mass * factor;
    prefill_scale_row(sum, factor, of->v_dim);
    if (share > 0.0f && octavo_prefill_rounds_v(p)) prefill_add_rest(of, i, share, sum);
    for (int64_t d = 0; d < of->v_dim; d += SIMD_F32)
        v_store(sum + d, v_fma(v_splat(share), v_load(of->facts.v_mean + d), v_mul(v_load(sum + d), v_load(of->facts.v_scale + d))));
    prefill_store_row(&p->out, at, sum, p->kv->v_dim);
    if (p->lse) p->lse[(of->b * p->q.shape[2] + q_head) * p->q.shape[1] + i] = mass > 0.0f ? top + logf(whole) + shift : -INFINITY;
}

#endif
