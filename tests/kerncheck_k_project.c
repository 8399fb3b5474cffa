/* kerncheck_k_project.c - projected, rotated and encoded keys against float64 under the PROJECT budget. */
#include "budget.h"
#include "format/bf16.h"
#include "format/ue4m4.h"
#include "kerncheck.h"

#include <string.h>

enum { DIM_MAX = 512, WORK = 400000, HIDDEN_MAX = 1200, WHOLE = 64 };
enum { MODEL_WORK = 16000000, MODEL_DIM = 128, MODEL_HIDDEN = 256 /* times a power of two up to 16 */ }; /* shapes that kernels are made for */

/* One row of keys before it is encoded, and how far float32 may be from it. */
typedef struct exact_row {
    double value[DIM_MAX], error[DIM_MAX];
} exact_row;

static double weight_at(const octavo_weight *w, int64_t row, int64_t col)
{
    const int64_t cols = w->codes.shape[1], block_rows = w->block_rows ? w->block_rows : w->codes.shape[0];
    const int64_t block_cols = w->block_cols ? w->block_cols : cols, across = (cols + block_cols - 1) / block_cols;
    const double scale = w->scales ? (double)w->scales[row / block_rows * across + col / block_cols] : 1.0;
    return kc_load(w->codes.dtype, w->codes.data, row * w->codes.strides[0] + col) * scale;
}

static void project(const octavo_k_project_params *p, int64_t b, int64_t token, int64_t head, exact_row *out)
{
    const int64_t hidden = p->h.shape[2], dim = p->kv->head_dim, h = b * p->h.strides[0] + token * p->h.strides[1];
    for (int64_t i = 0; i < dim; i++) {
        double sum = p->bias ? (double)p->bias[head * dim + i] : 0.0, size = fabs(sum);
        for (int64_t j = 0; j < hidden; j++) {
            const double term = kc_load(p->h.dtype, p->h.data, h + j) * weight_at(&p->weight, head * dim + i, j);
            sum += term, size += fabs(term);
        }
        out->value[i] = sum, out->error[i] = budget_gamma(budget_sums((double)hidden, p->h.dtype, p->weight.codes.dtype) + BUDGET_SLACK) * size + BUDGET_TINY;
    }
}

static void rotate_pair(exact_row *x, int64_t i, int64_t j, double angle, double scale)
{
    const double c = cos(angle) * scale, s = sin(angle) * scale, a = x->value[i], b = x->value[j], ea = x->error[i], eb = x->error[j];
    /* a float32 angle is two roundings off, its sine and cosine another 2^-21 */
    const double turn = (fabs(a) + fabs(b)) * fabs(scale) * (2.0 * BUDGET_U * fabs(angle) + BUDGET_EXP);
    x->value[i] = a * c - b * s, x->value[j] = b * c + a * s;
    x->error[i] = fabs(c) * ea + fabs(s) * eb + turn, x->error[j] = fabs(c) * eb + fabs(s) * ea + turn;
}

static void rotate(const octavo_k_project_params *p, int64_t b, int64_t token, exact_row *x)
{
    const octavo_rope *rope = &p->rope;
    if (rope->style == OCTAVO_ROPE_NONE) return;
    const int64_t half = (rope->rotary_dim ? rope->rotary_dim : p->kv->head_dim) / 2, at = b * p->h.shape[1] + token;
    const double position = p->rope_positions ? (double)p->rope_positions[at] : (double)(p->positions[b] + token);
    for (int64_t i = 0; i < half; i++) {
        const double angle = position * (double)rope->inv_freq[i], scale = rope->scale != 0.0f ? (double)rope->scale : 1.0;
        if (rope->style == OCTAVO_ROPE_ROTATE_HALF) rotate_pair(x, i, i + half, angle, scale);
        else rotate_pair(x, 2 * i, 2 * i + 1, angle, scale);
    }
}

/* Half a step of the format at a value, `planes` of its planes read; amax is the row's. */
static double half_step(const octavo_kv_view *view, int32_t planes, double value, double amax)
{
    const double unit = view->k_scale.data ? amax / 224.0 : 1.0; /* 2^-p is at most amax / 224 */
    const double s = amax / 127.0 * (1.0 + 0x1p-7), both = planes > 1;
    switch (view->k_format) {
    case OCTAVO_K_F32:    return 0x1p-24 * value;
    case OCTAVO_K_BF16:   return 0x1p-8 * value;
    case OCTAVO_K_F16:    return 0x1p-11 * value + 0x1p-25;
    case OCTAVO_K_E4M3:   return 0x1p-4 * value + 0x1p-10 * unit;
    case OCTAVO_K_E5M2:   return 0x1p-3 * value + 0x1p-17 * unit;
    case OCTAVO_K_INT8:   return 0.5 * s;
    case OCTAVO_K_E4M3X2:
        return both != 0.0 ? 0x1p-8 * value + ldexp(unit, -10 - view->k_residual_exponent) : 0x1p-4 * value + 0x1p-10 * unit;
    case OCTAVO_K_E5M2X2: return both != 0.0 ? 0x1p-6 * value + 0x1p-17 * unit : 0x1p-3 * value + 0x1p-17 * unit;
    case OCTAVO_K_INT8X2: return both != 0.0 ? 0.5 / 254.0 * s : 0.5 * s;
    case OCTAVO_K_INT4X2: return both != 0.0 ? 0.5 * s : 8.0 * s;
    }
    return 0.0;
}

static int check_row(const octavo_k_project_params *p, int64_t b, int64_t token, int64_t head, const char *whose)
{
    const octavo_kv_view *view = p->kv;
    const int64_t dim = view->head_dim, at = p->positions[b] + token;
    exact_row x;
    double amax = 0.0, left_out = 0.0, may_err = 0.0, base[DIM_MAX], decoded[DIM_MAX];
    project(p, b, token, head, &x), rotate(p, b, token, &x);
    for (int64_t i = 0; i < dim; i++) {
        if (view->k_mean) x.value[i] -= (double)view->k_mean[(octavo_view_row(view, b) * view->kv_heads + head) * dim + i];
        x.error[i] += 4.0 * BUDGET_U * fabs(x.value[i]);
        amax = fmax(amax, fabs(x.value[i]) + x.error[i]);
    }
    for (int32_t planes = 1; planes <= octavo_k_plane_count(view->k_format); planes++) {
        kc_decode_k(view, b, head, at, planes, decoded, NULL);
        if (planes == 1) memcpy(base, decoded, sizeof base);
        for (int64_t i = 0; i < dim; i++) {
            const double budget = 1.001 * (x.error[i] + half_step(view, planes, fabs(x.value[i]) + x.error[i], amax)) + 0x1p-120;
            if (!view->k_scale.data && fabs(x.value[i]) > 400.0) continue; /* may saturate */
            kc_note(fabs(decoded[i] - x.value[i]) / budget);
            if (!(fabs(decoded[i] - x.value[i]) <= budget))
                return kc_fail("%s key %lld of token %lld, kv head %lld, %d planes is %.9g, expected %.9g within %.3g", whose, (long long)i,
                               (long long)token, (long long)head, planes, decoded[i], x.value[i], budget);
        }
    }
    if (!view->k_norm.data) return 1;
    for (int64_t i = 0; i < dim; i++) left_out += (x.value[i] - base[i]) * (x.value[i] - base[i]), may_err += x.error[i] * x.error[i];
    const int64_t row = octavo_view_row(view, b), page = octavo_view_page(view, row, at / view->block_tokens);
    const double norm = (double)octavo_ue4m4_to_float(*octavo_section_at(&view->k_norm, row, page, head, at % view->block_tokens));
    const double unit = kc_k_factor(view, b, head, at), low = sqrt(left_out) - sqrt(may_err), high = sqrt(left_out) + sqrt(may_err);
    if (unit > 0.0 && (norm * unit < low * (1.0 - 1e-9) || norm * unit > high * 1.063 + unit * 0x1.01p-8))
        return kc_fail("%s norm of token %lld, kv head %lld is %.9g, expected %.9g", whose, (long long)token, (long long)head, norm * unit,
                       sqrt(left_out));
    return 1;
}

/* Accepts every byte that belongs to an appended row, whichever side of a tie its value fell. */
static void accept_row(const octavo_k_project_params *p, int64_t b, int64_t token, int64_t head)
{
    const octavo_kv_view *view = p->kv;
    const int64_t at = p->positions[b] + token, row = octavo_view_row(view, b);
    const int64_t page = octavo_view_page(view, row, at / view->block_tokens);
    const int64_t in_block = at % view->block_tokens;
    for (int i = 0; i < octavo_k_plane_count(view->k_format); i++)
        kc_accept(octavo_section_at(&view->k[i], row, page, head, in_block), (size_t)octavo_k_row_bytes(view->k_format, view->head_dim));
    if (view->k_scale.data)
        kc_accept(octavo_section_at(&view->k_scale, row, page, head, in_block), (size_t)octavo_k_scale_bytes(view->k_format));
    if (view->k_norm.data) kc_accept(octavo_section_at(&view->k_norm, row, page, head, in_block), 1);
}

static int compare(const octavo_k_project_params *p)
{
    for (int64_t b = 0; b < p->kv->batch; b++)
        for (int64_t token = 0; token < p->h.shape[1]; token++)
            for (int64_t head = 0; head < p->kv->kv_heads; head++) {
                if (!check_row(p, b, token, head, "the")) return 0;
                accept_row(p, b, token, head);
                if (!check_row(p, b, token, head, "the reference's")) return 0;
            }
    return kc_finish();
}

static octavo_tensor draw_matrix(const char *name, octavo_dtype dtype, int32_t ndim, const int64_t *shape, float amplitude)
{
    octavo_tensor x = kc_tensor(name, dtype, ndim, shape);
    const int64_t outer = ndim > 2 ? shape[0] : 1, rows = shape[ndim - 2], cols = shape[ndim - 1];
    for (int64_t b = 0; b < outer; b++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < cols; i++)
                kc_store(dtype, x.data, (ndim > 2 ? b * x.strides[0] : 0) + r * x.strides[ndim - 2] + i,
                         amplitude * kc_normal() * (dtype == OCTAVO_INT8 ? 40.0f : 1.0f));
    return x;
}

static float *draw_floats(const char *name, int64_t count, double low, double high)
{
    float *x = kc_array(name, OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) x[i] = (float)kc_uniform(low, high);
    return x;
}

static void draw_weight(octavo_k_project_params *p, octavo_dtype dtype, int64_t hidden)
{
    const int64_t shape[] = { (int64_t)p->kv->kv_heads * p->kv->head_dim, hidden };
    p->weight.codes = draw_matrix("weight", dtype, 2, shape, 1.0f / sqrtf((float)hidden));
    if (dtype != OCTAVO_E4M3 && dtype != OCTAVO_INT8) return;
    switch (kc_between(0, 2)) { /* 0: a tensor */
    case 1: p->weight.block_rows = 1; break;
    case 2: p->weight.block_rows = kc_between(1, shape[0]), p->weight.block_cols = kc_between(1, hidden); break;
    default: break;
    }
    p->weight.scales = draw_floats("weight.scales", octavo_weight_scale_count(&p->weight), 0.01, 0.03);
}

static void draw_rope(octavo_k_project_params *p, int64_t tokens)
{
    const int32_t dim = p->kv->head_dim;
    p->rope.style = (octavo_rope_style)kc_between(OCTAVO_ROPE_NONE, dim < 2 ? OCTAVO_ROPE_NONE : OCTAVO_ROPE_INTERLEAVED);
    if (p->rope.style == OCTAVO_ROPE_NONE) return;
    if (dim % 2 || kc_chance(30)) p->rope.rotary_dim = 2 * (int32_t)kc_between(1, dim / 2);
    const int64_t half = (p->rope.rotary_dim ? p->rope.rotary_dim : dim) / 2;
    float *inv_freq = kc_array("inv_freq", OCTAVO_F32, half);
    for (int64_t i = 0; i < half; i++) inv_freq[i] = (float)pow(10000.0, -(double)i / (double)half);
    p->rope.inv_freq = inv_freq;
    if (kc_chance(30)) p->rope.scale = (float)kc_uniform(0.8, 1.3);
    if (!kc_chance(40)) return;
    int32_t *positions = kc_array("rope_positions", OCTAVO_INT32, p->kv->batch * tokens);
    for (int64_t i = 0; i < p->kv->batch * tokens; i++) positions[i] = (int32_t)kc_between(0, kc_chance(20) ? 130000 : 3000);
    p->rope_positions = positions;
}

int kc_check_k_project(const kc_pair *pair)
{
    static const octavo_dtype inputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    static const octavo_dtype weights[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16, OCTAVO_E4M3, OCTAVO_INT8 };
    kc_decode c;
    kc_draw_decode(&c, pair, KC_WRITABLE | (kc_chance(50) ? KC_NORMS : 0));
    octavo_k_project_params p = OCTAVO_K_PROJECT_PARAMS_INIT;
    p.kv = &c.view;
    const int model = !pair->bench && c.view.head_dim == MODEL_DIM && kc_chance(70);
    const int64_t longest = c.view.lengths[0], work = model ? MODEL_WORK : WORK, columns = (int64_t)c.view.kv_heads * c.view.head_dim;
    int32_t *positions = kc_array("positions", OCTAVO_INT32, c.view.batch);
    int64_t tokens = pair->bench || kc_chance(40) ? 1 : kc_between(1, longest < 70 ? longest : 70);
    while (tokens > 1 && tokens * c.view.batch * columns * 8 > work) tokens /= 2;
    for (int64_t b = 0; b < c.view.batch; b++) positions[b] = (int32_t)kc_between(0, longest - tokens);
    p.positions = positions;
    const int64_t most = work / (tokens * c.view.batch * columns);
    int64_t hidden = pair->bench ? 4096 : kc_between(1, most < 1 ? 1 : most > HIDDEN_MAX ? HIDDEN_MAX : most);
    if (hidden > WHOLE && kc_chance(60)) hidden -= hidden % WHOLE; /* as models have it, and kernels that read whole lines want it */
    if (model) {
        hidden = MODEL_HIDDEN << kc_between(0, 4);
        while (hidden > MODEL_HIDDEN && hidden > most) hidden /= 2;
    }
    const int64_t shape[] = { c.view.batch, tokens, hidden };
    const octavo_dtype narrow = kc_chance(50) ? OCTAVO_BF16 : OCTAVO_F16, weight = KC_PICK(weights);
    const octavo_dtype input = pair->bench ? OCTAVO_BF16 : model && kc_chance(70) ? narrow : KC_PICK(inputs);
    p.h = draw_matrix("h", input, 3, shape, 1.0f);
    draw_weight(&p, pair->bench || (model && kc_chance(70)) ? input : weight, hidden);
    if (kc_chance(40)) p.bias = draw_floats("bias", columns, -2.0, 2.0);
    draw_rope(&p, tokens);
    if (kc_chance(30)) c.view.k_mean = draw_floats("k_mean", c.view_rows * columns, -1.0, 1.0);
    if (!pair->bench && kc_chance(10)) {
        static const float refused[] = { NAN, INFINITY, -INFINITY };
        kc_store(p.h.dtype, p.h.data, kc_between(0, c.view.batch - 1) * p.h.strides[0] + kc_between(0, tokens - 1) * p.h.strides[1] +
                 kc_between(0, hidden - 1), KC_PICK(refused));
    }
    kc_describe(" new=%lld hidden=%lld h=%s w=%s scales=%lldx%lld rope=%d/%d%s%s", (long long)tokens, (long long)hidden,
                octavo_dtype_name(p.h.dtype), octavo_dtype_name(p.weight.codes.dtype), (long long)p.weight.block_rows,
                (long long)p.weight.block_cols, (int)p.rope.style, p.rope.rotary_dim, p.bias ? " bias" : "", c.view.k_mean ? " k_mean" : "");
    const kc_outcome outcome = kc_run(pair, KC_k_project, &p, octavo_k_project_kernel_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p);
}
