/* tensor_match.c - whether a tensor is of the dtype and shape that a call asks for. */
#include "base/tensor_match.h"
#include "base/error.h"
#include "base/extent.h"
#include <stdbool.h>
#include <stdio.h>

enum { NAMES_BYTES = 96 };

/* "f32, f16, bf16" */
static const char *dtype_names(unsigned dtypes, char text[NAMES_BYTES])
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = OCTAVO_F64; i <= OCTAVO_INT64 && used < NAMES_BYTES; i++) {
        if (!(dtypes & OCTAVO_DTYPE_BIT(i))) continue;
        const int n = snprintf(text + used, NAMES_BYTES - used, "%s%s", used ? ", " : "", octavo_dtype_name((octavo_dtype)i));
        used += n > 0 ? (size_t)n : 0;
    }
    return text;
}

octavo_status octavo_tensor_match(const char *name, const octavo_tensor *tensor, unsigned dtypes, int32_t ndim,
                                  const int64_t *shape)
{
    OCTAVO_TRY(octavo_tensor_check(name, tensor, ndim));
    if (tensor->device_kind != OCTAVO_DEVICE_CPU && !(dtypes & OCTAVO_ANYWHERE))
        return octavo_fail(OCTAVO_E_DEVICE, "%s lies on another device, expected cpu memory", name);
    if (!(dtypes & OCTAVO_DTYPE_BIT(tensor->dtype))) {
        char names[NAMES_BYTES];
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s has dtype %s, expected %s", name, octavo_dtype_name(tensor->dtype),
                           dtype_names(dtypes, names));
    }
    const size_t bytes = octavo_dtype_bytes(tensor->dtype);
    if ((uintptr_t)tensor->data % bytes)
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s.data is not aligned, expected a multiple of its elements' %zu bytes", name,
                           bytes);
    for (int32_t i = 0; i < ndim; i++)
        if (shape[i] > 0 && tensor->shape[i] != shape[i])
            return octavo_fail(OCTAVO_E_SHAPE, "%s.shape[%d] is %lld, expected %lld", name, i, (long long)tensor->shape[i],
                               (long long)shape[i]);
    return OCTAVO_OK;
}

/* Axes in order of their strides: each must step over all that the smaller ones reach. Axes of one element do not count. */
static bool elements_are_apart(const octavo_tensor *tensor)
{
    bool done[OCTAVO_MAX_DIMS] = { false };
    int64_t reach = 1; /* elements that the axes so far span */
    for (int32_t round = 0; round < tensor->ndim; round++) {
        int32_t next = -1;
        int64_t smallest = INT64_MAX;
        for (int32_t i = 0; i < tensor->ndim; i++) {
            if (done[i] || tensor->shape[i] == 1) continue;
            const int64_t step = tensor->strides[i] < 0 ? -tensor->strides[i] : tensor->strides[i];
            if (step > smallest) continue;
            smallest = step;
            next = i;
        }
        if (next < 0) return true;
        if (smallest < reach) return false;
        done[next] = true;
        reach += smallest * (tensor->shape[next] - 1);
    }
    return true;
}

octavo_status octavo_tensor_match_output(const char *name, const octavo_tensor *tensor, unsigned dtypes, int32_t ndim,
                                         const int64_t *shape)
{
    OCTAVO_TRY(octavo_tensor_match(name, tensor, dtypes, ndim, shape));
    if (!elements_are_apart(tensor))
        return octavo_fail(OCTAVO_E_SHAPE, "%s has strides that let its elements overlap, expected distinct memory for each",
                           name);
    return OCTAVO_OK;
}
