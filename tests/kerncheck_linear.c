/* kerncheck_linear.c - linear layers of every precision, of one weight or of many experts, against the reference under the LINEAR budget.
 *
 * Packing belongs to a table, not to an operation: each weight is packed by the table under test, the guards behind what it wrote are
 * looked at, and the layer that reads it has to give what the reference gives for the weight itself. */
#include "budget.h"
#include "format/bf16.h"
#include "kerncheck.h"
#include "kernel/linear_plan.h"

#include <string.h>

enum { WORK = 400000, IN_MAX = 4096, GUARDS = 64 };

/* ---- drawing ---- */

static float element_of(octavo_dtype dtype, float amplitude)
{
    return amplitude * kc_normal() * (dtype == OCTAVO_INT8 ? 40.0f : 1.0f);
}

static void fill(const octavo_tensor *x, float amplitude)
{
    for (int64_t r = 0; r < x->shape[0]; r++)
        for (int64_t c = 0; c < x->shape[1]; c++) kc_store(x->dtype, x->data, r * x->strides[0] + c, element_of(x->dtype, amplitude));
}

/* Rows of zeros, outliers, subnormals, and what is not finite. */
static void spoil_tokens(const octavo_linear_params *p)
{
    static const float refused[] = { NAN, INFINITY, -INFINITY };
    const int64_t in = p->x.shape[1];
    for (int64_t t = 0; t < p->x.shape[0]; t++) {
        const int64_t row = t * p->x.strides[0], at = row + kc_between(0, in - 1);
        switch (kc_between(0, 19)) {
        case 0:
            for (int64_t i = 0; i < in; i++) kc_store(p->x.dtype, p->x.data, row + i, 0.0f);
            break;
        case 1: kc_store(p->x.dtype, p->x.data, at, 3000.0f); break;
        case 2: kc_store(p->x.dtype, p->x.data, at, 1e-41f); break;
        case 3: kc_store(p->x.dtype, p->x.data, at, KC_PICK(refused)); break;
        default: break;
        }
    }
}

static float *draw_floats(const char *name, int64_t count, double low, double high)
{
    float *x = kc_array(name, OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) x[i] = (float)kc_uniform(low, high);
    return x;
}

static octavo_dtype draw_weight_dtype(octavo_linear_precision precision)
{
    static const octavo_dtype all[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16, OCTAVO_E4M3, OCTAVO_INT8 };
    return precision == OCTAVO_LINEAR_FP8 ? OCTAVO_E4M3 : precision == OCTAVO_LINEAR_INT8 ? OCTAVO_INT8 : KC_PICK(all);
}

static void draw_scales(octavo_weight *weight, octavo_linear_precision precision)
{
    const int64_t out = weight->codes.shape[0], in = weight->codes.shape[1];
    const int narrow = weight->codes.dtype == OCTAVO_E4M3 || weight->codes.dtype == OCTAVO_INT8;
    if (!narrow && !kc_chance(20)) return;
    switch (kc_between(0, 4)) {
    case 0: return; /* no scales at all */
    case 1: break;  /* a tensor          */
    case 2: weight->block_rows = 1; break;
    case 3: weight->block_rows = kc_between(1, out), weight->block_cols = kc_between(1, in); break;
    default: weight->block_rows = weight->block_cols = kc_chance(50) ? 128 : 64; break;
    }
    if (precision == OCTAVO_LINEAR_INT8) weight->block_cols = 0;
    weight->scales = draw_floats("weight.scales", octavo_weight_scale_count(weight), 0.01, 0.03);
}

static int pack(const kc_pair *pair, octavo_linear_part *part, octavo_linear_precision precision)
{
    if (pair->device || !pair->tested->linear_packed_bytes || !kc_chance(50)) return 1;
    const size_t bytes = pair->tested->linear_packed_bytes(&part->weight, precision);
    if (bytes == 0) return 1;
    uint8_t *packed = kc_bytes("packed", (int64_t)bytes + GUARDS, 64), guard[GUARDS];
    memcpy(guard, packed + bytes, GUARDS);
    octavo_exec exec = OCTAVO_EXEC_INIT;
    part->packed = packed;
    kc_describe(" packed");
    if (pair->tested->linear_pack(&exec, &part->weight, precision, packed) != OCTAVO_OK) return kc_fail("linear_pack refused a weight");
    return memcmp(guard, packed + bytes, GUARDS) == 0 || kc_fail("linear_pack wrote past its bytes");
}

/* A matrix; on a device often one of whole 16-byte pieces, as the fast kernels there want it. */
static octavo_tensor draw_matrix(const kc_pair *pair, const char *name, octavo_dtype dtype, const int64_t *shape)
{
    if (!pair->device || !(pair->bench || kc_chance(70))) return kc_tensor(name, dtype, 2, shape);
    return octavo_tensor_view(kc_bytes(name, shape[0] * shape[1] * (int64_t)octavo_dtype_bytes(dtype), 64), dtype, 2, shape);
}

static int draw_part(const kc_pair *pair, octavo_linear_params *p, int64_t out, octavo_dtype dtype)
{
    static const octavo_dtype outputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    const int64_t w_shape[] = { out, p->x.shape[1] }, y_shape[] = { p->x.shape[0], out };
    octavo_linear_part *part = &p->parts[p->part_count++];
    part->weight.codes = draw_matrix(pair, "weight", dtype, w_shape);
    fill(&part->weight.codes, 1.0f / sqrtf((float)w_shape[1]));
    draw_scales(&part->weight, p->precision);
    if (dtype != OCTAVO_INT8 && kc_chance(5)) kc_store(dtype, part->weight.codes.data, kc_between(0, w_shape[1] - 1), NAN);
    if (kc_chance(40)) part->bias = draw_floats("bias", out, -2.0, 2.0);
    part->y = draw_matrix(pair, "y", pair->bench ? OCTAVO_F32 : KC_PICK(outputs), y_shape);
    if (p->store == OCTAVO_STORE_ADD) fill(&part->y, 1.0f);
    kc_describe(" [%lld %s scales=%s%lldx%lld y=%s%s]", (long long)out, octavo_dtype_name(dtype), part->weight.scales ? "" : "none ",
                (long long)part->weight.block_rows, (long long)part->weight.block_cols, octavo_dtype_name(part->y.dtype), part->bias ? " bias" : "");
    return pack(pair, part, p->precision);
}

/* ---- comparison ---- */

/* Element i of token t as it enters the products; the scale is as the reference finds it. */
static double x_at(const octavo_linear_params *p, int64_t at, float scale)
{
    const float x = (float)kc_load(p->x.dtype, p->x.data, at);
    if (!octavo_linear_quantises(p)) return (double)(p->precision == OCTAVO_LINEAR_BF16 ? octavo_bf16_to_float(octavo_bf16_from_float(x)) : x);
    if (p->precision == OCTAVO_LINEAR_FP8) return (double)octavo_e4m3_to_float(octavo_e4m3_from_float(x / scale));
    return (double)rintf(fmaxf(-127.0f, fminf(x / scale, 127.0f)));
}

/* Fills row [in] and returns the token's scale. */
static float load_row(const octavo_linear_params *p, int64_t t, double *row)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < p->x.shape[1]; i++) amax = fmaxf(amax, fabsf((float)kc_load(p->x.dtype, p->x.data, t * p->x.strides[0] + i)));
    const float scale = octavo_linear_quantises(p) && isfinite(amax) ? octavo_linear_x_scale(p, amax) : 1.0f;
    for (int64_t i = 0; i < p->x.shape[1]; i++) row[i] = x_at(p, t * p->x.strides[0] + i, scale);
    return scale;
}

static double ulp_of(octavo_dtype dtype, double value)
{
    if (value == 0.0 || !isfinite(value)) return 0.0;
    int exponent;
    frexp(value, &exponent);
    return dtype == OCTAVO_BF16 ? ldexp(1.0, exponent - 8) : dtype == OCTAVO_F16 ? fmax(ldexp(1.0, exponent - 11), 0x1p-24) : 0.0;
}

static double budget_of(const octavo_linear_params *p, const octavo_linear_part *part, const double *row, float factor, int64_t t, int64_t out)
{
    const int64_t in = p->x.shape[1], at = t * part->y.strides[0] + out;
    const octavo_tensor *codes = &part->weight.codes;
    double size = 0.0, tiny = 0.0;
    for (int64_t i = 0; i < in; i++) {
        const double scale = fabs((double)octavo_weight_scale(&part->weight, out, i));
        const double w = fabs(kc_load(codes->dtype, codes->data, out * codes->strides[0] + i));
        size += fabs(row[i]) * w * (1.0 + 0x1p-8) * scale; /* W may be rounded to bf16 */
        tiny += (fabs(row[i]) + w + 1.0) * scale;
    }
    size *= (double)factor, tiny *= (double)factor;
    const double bias = part->bias ? fabs((double)part->bias[out]) : 0.0;
    const double wanted = kc_load(part->y.dtype, kc_want(part->y.data), at);
    const double n = p->precision == OCTAVO_LINEAR_INT8  ? 0.0
                     : p->precision == OCTAVO_LINEAR_F32 ? budget_sums((double)in, p->x.dtype, codes->dtype)
                                                         : (double)in;
    return budget_linear(n, size, bias + (p->store == OCTAVO_STORE_ADD ? fabs(wanted) : 0.0), tiny) + ulp_of(part->y.dtype, wanted);
}

static int compare_rows(const octavo_linear_params *p)
{
    double row[IN_MAX];
    for (int64_t t = 0; t < p->x.shape[0]; t++) {
        const float factor = load_row(p, t, row);
        for (int i = 0; i < p->part_count; i++) {
            const octavo_linear_part *part = &p->parts[i];
            for (int64_t out = 0; out < part->y.shape[1]; out++) {
                const double budget = budget_of(p, part, row, factor, t, out);
                if (!kc_close_tensor("y", &part->y, t * part->y.strides[0] + out, isnan(budget) ? 0.0 : budget))
                    return kc_fail("part %d, token %lld, row %lld", i, (long long)t, (long long)out);
            }
        }
    }
    return 1;
}

/* Rows of whole cache lines, some of them a line apart. */
static octavo_tensor draw_lines(const char *name, const int64_t *shape)
{
    octavo_tensor x = octavo_tensor_view(NULL, OCTAVO_BF16, 2, shape);
    x.strides[0] = shape[1] + 32 * kc_between(0, 2);
    x.data = kc_bytes(name, shape[0] * x.strides[0] * 2, 64);
    return x;
}

static int64_t draw_tokens(void)
{
    if (kc_chance(35)) return 1;
    if (kc_chance(50)) return kc_between(2, 20);
    return kc_chance(70) ? kc_between(21, 150) : kc_between(500, 700);
}

int kc_check_linear(const kc_pair *pair)
{
    static const octavo_dtype inputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    octavo_linear_params p = OCTAVO_LINEAR_PARAMS_INIT;
    p.precision = pair->bench ? OCTAVO_LINEAR_BF16 : (octavo_linear_precision)kc_between(OCTAVO_LINEAR_F32, OCTAVO_LINEAR_INT8);
    p.store = pair->bench || kc_chance(70) ? OCTAVO_STORE_SET : OCTAVO_STORE_ADD;
    const int parts = pair->bench ? 1 : (int)kc_between(1, OCTAVO_LINEAR_PARTS);
    kc_draw_wide(pair);
    const int64_t tokens = pair->bench ? 1 : draw_tokens(), area = WORK / tokens / parts;
    const int lines = !pair->device && !pair->bench && kc_chance(15);
    const int64_t whole = lines ? 64 : pair->device && kc_chance(70) ? 16 : 1; /* columns and rows of whole pieces */
    const int64_t any = kc_chance(10) ? kc_between(1, 3000) : kc_between(1, area < 400 ? area : 400);
    const int64_t in = pair->bench ? 4096 : (any + whole - 1) / whole * whole;
    const int64_t most = area / in < 1 ? 1 : area / in, x_shape[] = { tokens, in };
    p.x = lines ? draw_lines("x", x_shape) : kc_tensor("x", pair->bench ? OCTAVO_BF16 : KC_PICK(inputs), 2, x_shape);
    fill(&p.x, kc_chance(10) ? 0x1p-60f : 1.0f);
    if (!pair->bench) spoil_tokens(&p);
    if (kc_chance(25)) p.x_scale = draw_floats("x_scale", 1, 0.005, 0.03);
    kc_describe("tokens=%lld in=%lld x=%s %s%s%s", (long long)tokens, (long long)in, octavo_dtype_name(p.x.dtype),
                (const char *[]){ "f32", "bf16", "fp8", "int8" }[p.precision], p.x_scale ? " static" : "", p.store == OCTAVO_STORE_ADD ? " add" : "");
    for (int i = 0; i < parts; i++) {
        const int64_t out = pair->bench ? 4096 : (kc_between(1, most < 300 ? most : 300) + whole - 1) / whole * whole;
        if (!draw_part(pair, &p, out, pair->bench ? OCTAVO_BF16 : draw_weight_dtype(p.precision))) return 0;
    }
    const kc_outcome outcome = kc_run(pair, KC_linear, &p, octavo_linear_kernel_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare_rows(&p) && kc_finish();
}

/* ---- experts ---- */

static void draw_expert_part(const kc_pair *pair, octavo_linear_experts_params *p, int64_t out, octavo_dtype dtype)
{
    static const octavo_dtype outputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    const int i = p->of.part_count++;
    const int64_t all[] = { p->experts * out, p->of.x.shape[1] }, y_shape[] = { p->of.x.shape[0], out };
    octavo_linear_part *part = &p->of.parts[i];
    part->weight.codes = draw_matrix(pair, "weight", dtype, all);
    fill(&part->weight.codes, 1.0f / sqrtf((float)all[1]));
    part->weight.codes.shape[0] = out;
    p->codes_step[i] = out * part->weight.codes.strides[0] * (int64_t)octavo_dtype_bytes(dtype);
    if (dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8) {
        part->weight.block_rows = kc_chance(50) ? 1 : 0, part->weight.block_cols = p->of.precision != OCTAVO_LINEAR_INT8 && kc_chance(30) ? 64 : 0;
        const int64_t count = octavo_weight_scale_count(&part->weight);
        part->weight.scales = draw_floats("weight.scales", p->experts * count, 0.01, 0.03);
        p->scales_step[i] = count * (int64_t)sizeof(float);
    }
    if (kc_chance(40)) part->bias = draw_floats("bias", p->experts * out, -2.0, 2.0), p->bias_step[i] = out * (int64_t)sizeof(float);
    part->y = draw_matrix(pair, "y", KC_PICK(outputs), y_shape);
    if (p->of.store == OCTAVO_STORE_ADD) fill(&part->y, 1.0f);
    kc_describe(" [%lld %s y=%s%s]", (long long)out, octavo_dtype_name(dtype), octavo_dtype_name(part->y.dtype), part->bias ? " bias" : "");
}

/* Rows of each expert: some have none. */
static const int32_t *draw_offsets(int64_t experts, int64_t rows)
{
    int32_t *offsets = kc_array("offsets", OCTAVO_INT32, experts + 1);
    for (int64_t e = 0; e <= experts; e++) offsets[e] = 0;
    for (int64_t r = 0; r < rows; r++) offsets[1 + (kc_chance(30) ? 0 : kc_between(0, experts - 1))]++;
    for (int64_t e = 0; e < experts; e++) offsets[e + 1] += offsets[e];
    return offsets;
}

static octavo_tensor rows_of(octavo_tensor x, int64_t first, int64_t rows)
{
    x.data = (uint8_t *)x.data + (size_t)(first * x.strides[0]) * octavo_dtype_bytes(x.dtype);
    x.shape[0] = rows;
    return x;
}

/* Expert by expert, as its own layer. */
static int compare_experts(const octavo_linear_experts_params *p)
{
    for (int64_t e = 0; e < p->experts; e++) {
        octavo_linear_params its = p->of;
        const int64_t first = p->offsets[e], rows = p->offsets[e + 1] - first;
        its.x = rows_of(its.x, first, rows);
        for (int i = 0; i < its.part_count; i++) {
            its.parts[i] = octavo_linear_expert_part(p, i, e);
            its.parts[i].y = rows_of(its.parts[i].y, first, rows);
        }
        if (!compare_rows(&its)) return kc_fail("expert %lld", (long long)e);
    }
    return kc_finish();
}

int kc_check_linear_experts(const kc_pair *pair)
{
    static const octavo_dtype inputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    octavo_linear_experts_params p = { .of = OCTAVO_LINEAR_PARAMS_INIT, .experts = pair->bench ? 8 : kc_between(1, 12) };
    p.of.precision = pair->bench ? OCTAVO_LINEAR_BF16 : (octavo_linear_precision)kc_between(OCTAVO_LINEAR_F32, OCTAVO_LINEAR_INT8);
    p.of.store = kc_chance(70) ? OCTAVO_STORE_SET : OCTAVO_STORE_ADD;
    const int64_t rows = pair->bench ? 8 : kc_chance(20) ? kc_between(1, 60) : kc_between(1, 12), in = pair->bench ? 1024 : kc_between(1, 200);
    p.of.x = kc_tensor("x", pair->bench ? OCTAVO_BF16 : KC_PICK(inputs), 2, (const int64_t[]){ rows, in });
    fill(&p.of.x, 1.0f);
    if (!pair->bench) spoil_tokens(&p.of);
    if (kc_chance(25)) p.of.x_scale = draw_floats("x_scale", 1, 0.005, 0.03);
    p.offsets = draw_offsets(p.experts, rows);
    kc_describe("experts=%lld rows=%lld in=%lld x=%s %s%s", (long long)p.experts, (long long)rows, (long long)in, octavo_dtype_name(p.of.x.dtype),
                (const char *[]){ "f32", "bf16", "fp8", "int8" }[p.of.precision], p.of.store == OCTAVO_STORE_ADD ? " add" : "");
    const int parts = pair->bench ? 2 : (int)kc_between(1, 3);
    for (int i = 0; i < parts; i++)
        draw_expert_part(pair, &p, pair->bench ? 1024 : kc_between(1, 50), pair->bench ? OCTAVO_BF16 : draw_weight_dtype(p.of.precision));
    const kc_outcome outcome = kc_run(pair, KC_linear_experts, &p, octavo_linear_kernel_workspace(&p.of));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare_experts(&p);
}
