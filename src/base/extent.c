/* extent.c - what tensors touch, and the checks that every call makes of one. */
#include "base/extent.h"
#include "base/checked.h"
#include "base/error.h"

octavo_extent octavo_array_extent(const void *data, size_t bytes)
{
    const uintptr_t begin = (uintptr_t)data;
    return data ? (octavo_extent){ begin, begin + bytes } : (octavo_extent){ 0, 0 };
}

octavo_extent octavo_tensor_extent(const octavo_tensor *tensor)
{
    const int64_t element = (int64_t)octavo_dtype_bytes(tensor->dtype);
    int64_t low = 0, high = element;
    for (int32_t i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] <= 0) return (octavo_extent){ 0, 0 };
        const int64_t reach = (tensor->shape[i] - 1) * tensor->strides[i] * element;
        if (reach < 0) low += reach;
        else           high += reach;
    }
    const uintptr_t data = (uintptr_t)tensor->data;
    return (octavo_extent){ data + (uintptr_t)low, data + (uintptr_t)high };
}

int octavo_extents_overlap(octavo_extent a, octavo_extent b)
{
    return a.begin < a.end && b.begin < b.end && a.begin < b.end && b.begin < a.end;
}

octavo_status octavo_tensor_check(const char *name, const octavo_tensor *tensor, int32_t ndim)
{
    if (!tensor->data) return octavo_fail(OCTAVO_E_ARGUMENT, "%s has no data", name);
    if (octavo_dtype_bytes(tensor->dtype) == 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s has dtype %d, expected one of octavo_dtype", name, (int)tensor->dtype);
    if (tensor->ndim != ndim) return octavo_fail(OCTAVO_E_SHAPE, "%s has %d dimensions, expected %d", name, tensor->ndim, ndim);
    int64_t elements = 1;
    for (int32_t i = 0; i < ndim; i++) {
        int64_t reach = 0;
        if (tensor->shape[i] < 1)
            return octavo_fail(OCTAVO_E_SHAPE, "%s.shape[%d] is %lld, expected at least 1", name, i, (long long)tensor->shape[i]);
        if (!octavo_checked_mul_int64(elements, tensor->shape[i], &elements) ||
            !octavo_checked_mul_int64(tensor->shape[i] - 1, tensor->strides[i], &reach) || reach > INT64_MAX / 64 || reach < INT64_MIN / 64)
            return octavo_fail(OCTAVO_E_RANGE, "%s.shape[%d] is %lld with stride %lld, which overflows", name, i,
                               (long long)tensor->shape[i], (long long)tensor->strides[i]);
    }
    if (tensor->shape[ndim - 1] > 1 && tensor->strides[ndim - 1] != 1)
        return octavo_fail(OCTAVO_E_SHAPE, "%s.strides[%d] is %lld, expected 1 (a contiguous last axis)", name, ndim - 1,
                           (long long)tensor->strides[ndim - 1]);
    return OCTAVO_OK;
}
