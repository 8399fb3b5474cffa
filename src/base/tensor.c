/* tensor.c - dtypes, views of memory, and their exchange through DLPack. */
#include "octavo/tensor.h"
#include "base/checked.h"
#include "base/dlpack_abi.h"
#include "base/error.h"

/* One row a dtype, so that its name, its size and its DLPack type cannot drift apart. */
static const struct dtype_row {
    const char *name;
    uint8_t bytes, code;
} dtype_rows[] = {
    [OCTAVO_F64]   = { "f64", 8, OCTAVO_DLPACK_FLOAT },
    [OCTAVO_F32]   = { "f32", 4, OCTAVO_DLPACK_FLOAT },
    [OCTAVO_F16]   = { "f16", 2, OCTAVO_DLPACK_FLOAT },
    [OCTAVO_BF16]  = { "bf16", 2, OCTAVO_DLPACK_BFLOAT },
    [OCTAVO_E4M3]  = { "e4m3", 1, OCTAVO_DLPACK_FLOAT8_E4M3 },
    [OCTAVO_E5M2]  = { "e5m2", 1, OCTAVO_DLPACK_FLOAT8_E5M2 },
    [OCTAVO_INT8]  = { "int8", 1, OCTAVO_DLPACK_INT },
    [OCTAVO_UINT8] = { "uint8", 1, OCTAVO_DLPACK_UINT },
    [OCTAVO_INT32] = { "int32", 4, OCTAVO_DLPACK_INT },
    [OCTAVO_INT64] = { "int64", 8, OCTAVO_DLPACK_INT },
};

static const struct dtype_row *find_dtype(octavo_dtype dtype)
{
    const int index = (int)dtype;
    return index >= OCTAVO_F64 && index <= OCTAVO_INT64 ? &dtype_rows[index] : NULL;
}

size_t octavo_dtype_bytes(octavo_dtype dtype)
{
    const struct dtype_row *row = find_dtype(dtype);
    return row ? row->bytes : 0;
}

const char *octavo_dtype_name(octavo_dtype dtype)
{
    const struct dtype_row *row = find_dtype(dtype);
    return row ? row->name : "unknown";
}

/* False for a negative size, or where the whole would have 2^63 elements or more. */
static bool set_contiguous(octavo_tensor *tensor, const int64_t *shape)
{
    int64_t stride = 1;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        if (shape[i] < 0) return false;
        tensor->shape[i] = shape[i];
        tensor->strides[i] = stride;
        /* An empty dimension counts as one, so that the other strides stay meaningful. */
        if (!octavo_checked_mul_int64(stride, shape[i] > 0 ? shape[i] : 1, &stride)) return false;
    }
    return true;
}

octavo_tensor octavo_tensor_view(void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape)
{
    octavo_tensor tensor = { .data = data, .dtype = dtype, .ndim = ndim };
    if (ndim < 0 || ndim > OCTAVO_MAX_DIMS || !set_contiguous(&tensor, shape))
        return (octavo_tensor){ .data = data, .dtype = dtype, .ndim = -1 };
    return tensor;
}

static octavo_status dtype_from_dlpack(const octavo_dlpack_tensor *dl, octavo_dtype *dtype)
{
    for (int i = OCTAVO_F64; i <= OCTAVO_INT64 && dl->dtype.lanes == 1; i++)
        if (dtype_rows[i].code == dl->dtype.code && dtype_rows[i].bytes * 8 == dl->dtype.bits) {
            *dtype = (octavo_dtype)i;
            return OCTAVO_OK;
        }
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "DLPack type with code %d, %d bits and %d lanes has no counterpart",
                       dl->dtype.code, dl->dtype.bits, dl->dtype.lanes);
}

static octavo_status device_from_dlpack(const octavo_dlpack_tensor *dl, octavo_tensor *tensor)
{
    switch (dl->device.type) {
    case OCTAVO_DLPACK_CPU:
    case OCTAVO_DLPACK_CUDA_HOST:
        tensor->device_kind = OCTAVO_DEVICE_CPU;
        tensor->device_index = 0;
        return OCTAVO_OK;
    case OCTAVO_DLPACK_CUDA:
    case OCTAVO_DLPACK_CUDA_MANAGED:
        tensor->device_kind = OCTAVO_DEVICE_CUDA;
        tensor->device_index = dl->device.index;
        return OCTAVO_OK;
    default:
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "DLPack device type %d has no counterpart, expected 1 (CPU) or 2 (CUDA)",
                           dl->device.type);
    }
}

static octavo_status require_both(const void *dl_tensor, const octavo_tensor *tensor)
{
    if (!dl_tensor) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'dl_tensor' is NULL");
    if (!tensor) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'tensor' is NULL");
    return OCTAVO_OK;
}

octavo_status octavo_tensor_from_dlpack(const void *dl_tensor, octavo_tensor *tensor)
{
    OCTAVO_TRY(require_both(dl_tensor, tensor));
    const octavo_dlpack_tensor *dl = dl_tensor;
    octavo_tensor result = { .ndim = dl->ndim };
    OCTAVO_TRY(dtype_from_dlpack(dl, &result.dtype));
    OCTAVO_TRY(device_from_dlpack(dl, &result));
    if (dl->ndim < 0 || dl->ndim > OCTAVO_MAX_DIMS)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "DLPack tensor has %d dimensions, expected 0 to %d", dl->ndim,
                           OCTAVO_MAX_DIMS);
    if (!set_contiguous(&result, dl->shape))
        return octavo_fail(OCTAVO_E_SHAPE, "DLPack tensor has a negative size or 2^63 or more elements");
    for (int32_t i = 0; dl->strides && i < dl->ndim; i++) result.strides[i] = dl->strides[i];

    const uintptr_t address = (uintptr_t)dl->data + (uintptr_t)dl->byte_offset;
    if (address % octavo_dtype_bytes(result.dtype) != 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "DLPack tensor's data is not aligned to its dtype %s",
                           octavo_dtype_name(result.dtype));
    result.data = (void *)address;
    *tensor = result;
    return OCTAVO_OK;
}

octavo_status octavo_tensor_to_dlpack(octavo_tensor *tensor, void *dl_tensor)
{
    OCTAVO_TRY(require_both(dl_tensor, tensor));
    const struct dtype_row *row = find_dtype(tensor->dtype);
    if (!row) return octavo_fail(OCTAVO_E_UNSUPPORTED, "tensor has the dtype %d, which does not exist", (int)tensor->dtype);
    const octavo_device_kind kind = tensor->device_kind;
    if (kind != OCTAVO_DEVICE_CPU && kind != OCTAVO_DEVICE_CUDA)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "tensor has the device kind %d, which does not exist", (int)kind);
    if (tensor->ndim < 0 || tensor->ndim > OCTAVO_MAX_DIMS)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "tensor has %d dimensions, expected 0 to %d", tensor->ndim, OCTAVO_MAX_DIMS);

    *(octavo_dlpack_tensor *)dl_tensor = (octavo_dlpack_tensor){
        .data = tensor->data,
        .device = { kind == OCTAVO_DEVICE_CUDA ? OCTAVO_DLPACK_CUDA : OCTAVO_DLPACK_CPU, tensor->device_index },
        .ndim = tensor->ndim,
        .dtype = { row->code, (uint8_t)(row->bytes * 8), 1 },
        .shape = tensor->shape,
        .strides = tensor->strides,
    };
    return OCTAVO_OK;
}
