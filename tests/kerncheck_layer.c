/* kerncheck_layer.c - what the checks of norms, activations, rows, routing and sampling share: numbers, copies, stored results. */
#include "kerncheck_layer.h"
#include <string.h>

octavo_dtype kc_float_dtype(void)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    return KC_PICK(dtypes);
}

int64_t kc_width(void)
{
    static const int64_t widths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 512, 513, 1025 };
    return kc_chance(5) ? kc_between(2000, 5000) : KC_PICK(widths);
}

int64_t kc_row(const octavo_tensor *x, int64_t r)
{
    int64_t at = 0;
    for (int32_t i = x->ndim - 1; i-- > 0; r /= x->shape[i]) at += r % x->shape[i] * x->strides[i];
    return at;
}

static int64_t rows_of(const octavo_tensor *x)
{
    int64_t rows = 1;
    for (int32_t i = 0; i + 1 < x->ndim; i++) rows *= x->shape[i];
    return rows;
}

void kc_fill(const octavo_tensor *x, double offset, double amplitude, int odd)
{
    static const float specks[] = { 0.0f, -0.0f, 1e-40f, -1e-45f, 300.0f, -3000.0f }, refused[] = { NAN, INFINITY, -INFINITY };
    const int64_t rows = rows_of(x), width = x->shape[x->ndim - 1];
    const int zeros = kc_chance(5) ? 95 : 2;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++)
            kc_store(x->dtype, x->data, kc_row(x, r) + i, kc_chance(zeros) ? 0.0f : (float)(offset + amplitude * (double)kc_normal()));
    for (int n = 0; n < 4 && kc_chance(60); n++)
        kc_store(x->dtype, x->data, kc_row(x, kc_between(0, rows - 1)) + kc_between(0, width - 1), KC_PICK(specks));
    if (!kc_chance(odd)) return;
    for (int n = 0; n < 2; n++)
        kc_store(x->dtype, x->data, kc_row(x, kc_between(0, rows - 1)) + kc_between(0, width - 1), KC_PICK(refused));
}

octavo_tensor kc_copy(const octavo_tensor *x)
{
    octavo_tensor copy = *x;
    int64_t last = 0;
    for (int32_t i = 0; i < x->ndim; i++) last += (x->shape[i] - 1) * x->strides[i];
    const size_t bytes = octavo_dtype_bytes(x->dtype) * (size_t)(last + 1);
    copy.data = kc_scratch((int64_t)bytes);
    memcpy(copy.data, x->data, bytes);
    return copy;
}

int kc_close_stored(const char *name, const octavo_tensor *tested, int64_t element, double exact, double budget)
{
    const double unit = tested->dtype == OCTAVO_F32 ? BUDGET_U : tested->dtype == OCTAVO_F16 ? 0x1p-11 : 0x1p-8;
    const double most = tested->dtype == OCTAVO_F16 ? 65504.0 : 0x1.fffffep127;
    const double got = kc_load(tested->dtype, tested->data, element), want = kc_load(tested->dtype, kc_want(tested->data), element);
    if (isinf(got) != isinf(want) && !isnan(got) && got * exact > 0.0 && fabs(exact) + budget >= most * (1.0 - unit)) {
        const size_t bytes = octavo_dtype_bytes(tested->dtype); /* one rounded to Inf, the other to the largest number */
        kc_accept((uint8_t *)tested->data + bytes * (size_t)element, bytes);
        return 1;
    }
    return kc_close_tensor(name, tested, element, budget + 2.0 * unit * fabs(exact) + (tested->dtype == OCTAVO_F16 ? 0x1p-24 : 0x1p-126));
}

octavo_tensor kc_logits(int64_t rows, int64_t columns)
{
    static const double spreads[] = { 0.0, 0.1, 1.0, 5.0, 30.0, 1e4, 1e30 }, steps[] = { 0.0, 0.0, 0.0, 0.25, 2.0 };
    const double spread = KC_PICK(spreads), step = KC_PICK(steps), level = kc_uniform(-20.0, 20.0);
    const int cut = kc_chance(20) ? (int)kc_between(1, 100) : 0;
    const octavo_tensor x = kc_tensor("logits", OCTAVO_F32, 2, (const int64_t[]){ rows, columns });
    for (int64_t r = 0; r < rows; r++) {
        float *row = (float *)x.data + r * x.strides[0];
        for (int64_t i = 0; i < columns; i++) {
            const double value = level + spread * (double)kc_normal();
            row[i] = kc_chance(cut) ? -INFINITY : (float)(step > 0.0 ? step * rint(value / step) : value);
        }
        if (kc_chance(20)) row[kc_between(0, columns - 1)] = (float)(level + 4.0 * spread + 10.0);
    }
    kc_describe("%lldx%lld level=%.3g spread=%g step=%g cut=%d%%", (long long)rows, (long long)columns, level, spread, step, cut);
    return x;
}
