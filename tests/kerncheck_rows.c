/* kerncheck_rows.c - draws rows of K, V and q, and encodes them independently of the library. */
#include "kerncheck_rows.h"
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "format/ue4m4.h"

#include <string.h>

/* One row of one section. */
static uint8_t *at(const octavo_kv_view *view, const octavo_section *section, int64_t row, int64_t head, int64_t token)
{
    const int64_t page = octavo_view_page(view, row, token / view->block_tokens);
    return octavo_section_at(section, row, page, head, token % view->block_tokens);
}

static void put_u16(uint8_t *bytes, uint16_t value) { memcpy(bytes, &value, sizeof value); }

/* ---- keys ---- */

kc_mood kc_draw_mood(const kc_decode *c)
{
    const int64_t dim = c->view.head_dim;
    kc_mood mood = { .kind = (kc_mood_kind)kc_between(0, KC_MOODS - 1), .amplitude = 1.0f, .channel = kc_between(0, dim - 1) };
    static const float v_amplitudes[] = { 1.0f, 1.0f, 100.0f, 1e-3f }, q_amplitudes[] = { 1.0f, 1.0f, 1.0f, 20.0f, 1e-3f, 1e-40f };
    static const float tiny[] = { 4e-4f, 4e-4f, 1e-12f, 1e-20f, 1e-36f, 1e-40f };
    mood.v_amplitude = KC_PICK(v_amplitudes), mood.q_amplitude = KC_PICK(q_amplitudes);
    if (mood.kind == KC_TINY) mood.amplitude = KC_PICK(tiny);
    if (mood.kind == KC_SINK) mood.amplitude = 0.01f;
    if (mood.kind == KC_LARGE) mood.amplitude = 100.0f;
    float *direction = kc_scratch(c->view.kv_heads * dim * (int64_t)sizeof *direction);
    for (int64_t h = 0; h < c->view.kv_heads; h++) {
        double norm = 0.0;
        for (int64_t i = 0; i < dim; i++) {
            const float x = mood.kind == KC_ALIGNED ? (kc_chance(50) ? 1.0f : -1.0f) : kc_normal() + 1e-3f;
            direction[h * dim + i] = x, norm += (double)x * (double)x;
        }
        for (int64_t i = 0; i < dim; i++) direction[h * dim + i] /= (float)sqrt(norm);
    }
    mood.direction = direction;
    kc_describe(" mood=%d", (int)mood.kind);
    return mood;
}

static void draw_key(const kc_decode *c, const kc_mood *mood, int64_t head, int64_t token, float *key)
{
    const int64_t dim = c->view.head_dim;
    const float *direction = mood->direction + head * dim;
    float along = 0.0f, amplitude = mood->amplitude;
    if (mood->kind == KC_HOT && kc_chance(10)) along = (float)kc_uniform(4.0, 10.0);
    if (mood->kind == KC_SINK && token == 0) along = (float)kc_uniform(20.0, 80.0);
    if (mood->kind == KC_ZEROS && kc_chance(40)) amplitude = 0.0f;
    for (int64_t i = 0; i < dim; i++) key[i] = amplitude * kc_normal() + along * direction[i];
    if (mood->kind == KC_OUTLIERS) key[mood->channel] *= 50.0f;
}

/* A row's scale, stored where the view has one: 2^p or s. */
static float put_scale(const octavo_kv_view *view, const octavo_section *section, int64_t bytes, int64_t row, int64_t head, int64_t token,
                       float amax)
{
    if (!section->data || bytes == 0) return 1.0f;
    uint8_t *out = at(view, section, row, head, token);
    if (bytes == 1) {
        const int32_t p = octavo_row_exponent(amax);
        *out = (uint8_t)(int8_t)p;
        return ldexpf(1.0f, p);
    }
    const uint16_t s = octavo_bf16_from_float_up(amax / 127.0f);
    put_u16(out, s);
    return octavo_bf16_to_float(s);
}

static int round_code(float x) { return (int)rintf(fmaxf(-127.0f, fminf(x, 127.0f))); }

static void put_int4(const octavo_kv_view *view, uint8_t *high, uint8_t *low, int64_t i, int code)
{
    const int64_t half = (view->head_dim + 1) / 2, byte = i < half ? i : i - half;
    const int shift = i < half ? 0 : 4, mask = 15 << shift;
    high[byte] = (uint8_t)((high[byte] & ~mask) | ((code >> 4 & 15) << shift));
    low[byte] = (uint8_t)((low[byte] & ~mask) | ((code & 15) << shift));
}

/* Encodes element i; `factor` is 2^p or s. */
static void put_k(const octavo_kv_view *view, uint8_t *base, uint8_t *more, int64_t i, float x, float factor)
{
    switch (view->k_format) {
    case OCTAVO_K_F32:  memcpy(base + 4 * i, &x, sizeof x); break;
    case OCTAVO_K_BF16: put_u16(base + 2 * i, octavo_bf16_from_float(x)); break;
    case OCTAVO_K_F16:  put_u16(base + 2 * i, octavo_fp16_from_float(x)); break;
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2:
        base[i] = octavo_e4m3_from_float(x * factor);
        if (more) more[i] = octavo_e4m3_from_float((x * factor - octavo_e4m3_to_float(base[i])) * ldexpf(1.0f, view->k_residual_exponent));
        break;
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2:
        base[i] = octavo_e5m2_from_float(x * factor);
        if (more) more[i] = octavo_e5m2_from_float(x * factor - octavo_e5m2_to_float(base[i]));
        break;
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2: {
        const float quotient = factor > 0.0f ? x / factor : 0.0f;
        const int code = round_code(quotient);
        base[i] = (uint8_t)(int8_t)code;
        if (more) more[i] = (uint8_t)(int8_t)round_code((quotient - (float)code) * 254.0f);
        break;
    }
    case OCTAVO_K_INT4X2: put_int4(view, base, more, i, factor > 0.0f ? round_code(x / factor) : 0); break;
    }
}

/* Any codes that a caller's own planes may hold, the residual within half a step of the base. */
static void put_random_k(const octavo_kv_view *view, uint8_t *base, uint8_t *more, int64_t i, float sign, int aligned)
{
    const float x = (kc_chance(50) ? 1.0f : -1.0f) * exp2f((float)kc_uniform(-10.0, 8.8));
    const float rest = aligned ? 15.9f * sign : (float)kc_uniform(-16.0, 16.0) * exp2f((float)kc_between(-8, 0));
    const float lift = ldexpf(1.0f, view->k_residual_exponent);
    switch (view->k_format) {
    case OCTAVO_K_F32:
    case OCTAVO_K_BF16:
    case OCTAVO_K_F16: put_k(view, base, more, i, x, 1.0f); break;
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2:
        base[i] = octavo_e4m3_from_float(x);
        if (more) more[i] = octavo_e4m3_from_float(rest * lift);
        break;
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2:
        base[i] = octavo_e5m2_from_float(x);
        if (more) more[i] = octavo_e5m2_from_float(rest);
        break;
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2:
        base[i] = (uint8_t)(int8_t)kc_between(-127, 127);
        if (more) more[i] = (uint8_t)(int8_t)(aligned ? (sign > 0.0f ? 127 : -127) : kc_between(-127, 127));
        break;
    case OCTAVO_K_INT4X2: {
        const int code = (int)kc_between(-127, 127);
        put_int4(view, base, more, i, !aligned || code < -112 ? code : sign > 0.0f ? code | 15 : code & ~15);
        break;
    }
    }
}

/* The norm of what the base leaves out, in units of the row's scale. */
static void put_norm(const octavo_kv_view *view, int64_t row, int64_t head, int64_t token, const float *key, double factor)
{
    octavo_kv_view of_row = *view;
    double base[512], sum = 0.0;
    of_row.sequences = NULL; /* rows, not batch entries, are filled */
    kc_decode_k(&of_row, row, head, token, 1, base, NULL);
    for (int64_t i = 0; i < view->head_dim; i++) {
        const double rest = factor > 0.0 ? ((double)key[i] - base[i]) / factor : 0.0;
        sum += rest * rest;
    }
    *at(view, &view->k_norm, row, head, token) = octavo_ue4m4_from_float_up((float)(sqrt(sum) * 1.000001));
}

static void store_k(const kc_decode *c, const kc_mood *mood, int64_t row, int64_t head, int64_t token, float *key)
{
    const octavo_kv_view *view = &c->view;
    const int64_t dim = view->head_dim, scale_bytes = octavo_k_scale_bytes(view->k_format);
    const int codes = mood->kind == KC_CODES || mood->kind == KC_ALIGNED;
    uint8_t *base = at(view, &view->k[0], row, head, token);
    uint8_t *more = octavo_k_plane_count(view->k_format) > 1 ? at(view, &view->k[1], row, head, token) : NULL;
    float amax = 0.0f;
    draw_key(c, mood, head, token, key);
    for (int64_t i = 0; i < dim; i++) amax = fmaxf(amax, fabsf(key[i]));
    if (codes) amax = ldexpf(scale_bytes == 2 ? 1.3f : 448.0f, (int)kc_between(-6, 0));
    const float factor = put_scale(view, &view->k_scale, scale_bytes, row, head, token, amax);
    for (int64_t i = 0; i < dim; i++) {
        if (codes) put_random_k(view, base, more, i, mood->direction[head * dim + i] > 0.0f ? 1.0f : -1.0f, mood->kind == KC_ALIGNED);
        else       put_k(view, base, more, i, key[i], factor);
    }
    octavo_kv_view of_row = *view;
    double value[512];
    of_row.sequences = NULL;
    if (codes) {
        kc_decode_k(&of_row, row, head, token, octavo_k_plane_count(view->k_format), value, NULL);
        for (int64_t i = 0; i < dim; i++) key[i] = (float)value[i];
    }
    if (view->k_norm.data) put_norm(view, row, head, token, key, scale_bytes == 2 ? (double)factor : 1.0 / (double)factor);
}

/* ---- values ---- */

static void store_v(const kc_decode *c, const kc_mood *mood, int64_t row, int64_t head, int64_t token)
{
    const octavo_kv_view *view = &c->view;
    uint8_t *v = at(view, &view->v, row, head, token);
    const float amplitude = mood->v_amplitude * (kc_chance(5) ? 0.0f : kc_chance(5) ? 100.0f : 1.0f);
    float value[512], amax = 0.0f;
    for (int64_t i = 0; i < view->v_dim; i++) value[i] = amplitude * kc_normal(), amax = fmaxf(amax, fabsf(value[i]));
    const float factor = put_scale(view, &view->v_scale, octavo_v_scale_bytes(view->v_format), row, head, token, amax);
    for (int64_t i = 0; i < view->v_dim; i++)
        switch (view->v_format) {
        case OCTAVO_V_F32:  memcpy(v + 4 * i, &value[i], sizeof *value); break;
        case OCTAVO_V_BF16: put_u16(v + 2 * i, octavo_bf16_from_float(value[i])); break;
        case OCTAVO_V_F16:  put_u16(v + 2 * i, octavo_fp16_from_float(value[i])); break;
        case OCTAVO_V_E4M3: v[i] = octavo_e4m3_from_float(value[i] * factor); break;
        case OCTAVO_V_INT8: v[i] = (uint8_t)(int8_t)(factor > 0.0f ? round_code(value[i] / factor) : 0); break;
        }
}

void kc_store_row(const kc_decode *c, const kc_mood *mood, int64_t row, int64_t head, int64_t token, float *key)
{
    store_k(c, mood, row, head, token, key);
    store_v(c, mood, row, head, token);
}

void kc_store_v_mean(const octavo_kv_view *view, int64_t row, int64_t head, int64_t unit)
{
    octavo_kv_view plain = *view;
    const int64_t per_block = view->block_tokens / view->sub_block_tokens, page = octavo_view_page(view, row, unit / per_block);
    double sum[512] = { 0.0 }, value[512];
    float amax = 0.0f;
    plain.sequences = NULL, plain.v_channel_scale = NULL; /* mean rows are of V as it is stored */
    for (int64_t t = 0; t < view->sub_block_tokens; t++) {
        kc_decode_v(&plain, row, head, unit * view->sub_block_tokens + t, value);
        for (int64_t i = 0; i < view->v_dim; i++) sum[i] += value[i] / (double)view->sub_block_tokens;
    }
    for (int64_t i = 0; i < view->v_dim; i++) amax = fmaxf(amax, (float)fabs(sum[i]));
    const int32_t p = octavo_row_exponent(amax);
    uint8_t *mean = octavo_section_at(&view->v_mean, row, page, head, unit % per_block);
    for (int64_t i = 0; i < view->v_dim; i++) mean[i] = octavo_e4m3_from_float((float)sum[i] * ldexpf(1.0f, p));
    *octavo_section_at(&view->v_mean_scale, row, page, head, unit % per_block) = (uint8_t)(int8_t)p;
}

/* ---- queries ---- */

void kc_draw_q(kc_decode *c, const kc_mood *mood)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    const int64_t dim = c->view.head_dim, shape[] = { c->view.batch, c->q_tokens, c->q_heads, dim };
    const float root = sqrtf((float)dim);
    const octavo_dtype like_k = c->view.k_format == OCTAVO_K_F16 ? OCTAVO_F16 : OCTAVO_BF16;
    c->in.q = kc_tensor("q", c->tiled && kc_chance(80) ? like_k : KC_PICK(dtypes), 4, shape);
    const int64_t *strides = c->in.q.strides;
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t i = 0; i < shape[1]; i++)
            for (int64_t h = 0; h < shape[2]; h++) {
                const float *direction = mood->direction + h / c->group * dim;
                const float amplitude = kc_chance(4) ? 0.0f : mood->q_amplitude;
                const float noise = kc_chance(20) ? 0.0f : 0.5f;
                for (int64_t d = 0; d < dim; d++)
                    kc_store(c->in.q.dtype, c->in.q.data, b * strides[0] + i * strides[1] + h * strides[2] + d,
                             amplitude * (noise * kc_normal() + root * direction[d]));
            }
}
