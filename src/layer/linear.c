/* linear.c - the public linear layer: checks a request and hands it to the device. */
#include "base/checked.h"
#include "base/error.h"
#include "base/extent.h"
#include "base/name_index.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "octavo/linear.h"
#include <stdio.h>

/* Columns up to which int32 holds every sum of products of int8: 127 * 128 * columns < 2^31. */
enum { INT8_COLUMNS = 131072, NAME_BYTES = 32, PACKED_ALIGN = 64 };

static const char *const precision_names[] = {
    [OCTAVO_LINEAR_F32] = "f32", [OCTAVO_LINEAR_BF16] = "bf16", [OCTAVO_LINEAR_FP8] = "fp8", [OCTAVO_LINEAR_INT8] = "int8",
};
enum { PRECISIONS = sizeof precision_names / sizeof *precision_names };

const char *octavo_linear_precision_name(octavo_linear_precision precision)
{
    return octavo_name_at(precision_names, PRECISIONS, (int)precision);
}

octavo_status octavo_linear_precision_parse(const char *name, octavo_linear_precision *precision)
{
    if (!precision) return octavo_fail(OCTAVO_E_ARGUMENT, "precision is NULL, expected where to put it");
    if (!name) return octavo_fail(OCTAVO_E_ARGUMENT, "the name of a linear precision is NULL");
    const int index = octavo_name_index(precision_names, PRECISIONS, name);
    if (index < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "'%s' is no linear precision, expected one of f32, bf16, fp8, int8", name);
    *precision = (octavo_linear_precision)index;
    return OCTAVO_OK;
}

static octavo_status check_precision(octavo_linear_precision precision)
{
    if ((unsigned)precision < PRECISIONS) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_ARGUMENT, "precision is %d, expected one of octavo_linear_precision", (int)precision);
}

static octavo_status check_weight(const char *name, const octavo_weight *weight, octavo_linear_precision precision, int64_t in)
{
    const unsigned e4m3 = OCTAVO_DTYPE_BIT(OCTAVO_E4M3), int8 = OCTAVO_DTYPE_BIT(OCTAVO_INT8);
    const unsigned dtypes = precision == OCTAVO_LINEAR_FP8 ? e4m3 : precision == OCTAVO_LINEAR_INT8 ? int8 : OCTAVO_DTYPES_FLOAT | e4m3 | int8;
    const int64_t shape[] = { 0, in };
    char codes[2 * NAME_BYTES];
    snprintf(codes, sizeof codes, "%s.codes", name);
    OCTAVO_TRY(octavo_tensor_match(codes, &weight->codes, dtypes | OCTAVO_ANYWHERE, 2, shape));
    if (weight->block_rows < 0 || weight->block_cols < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s.block_rows is %lld and block_cols %lld, expected 0 (all) or more", name,
                           (long long)weight->block_rows, (long long)weight->block_cols);
    if (precision != OCTAVO_LINEAR_INT8) return OCTAVO_OK;
    const int64_t columns = weight->codes.shape[1];
    if (weight->scales && weight->block_cols && weight->block_cols < columns)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s.block_cols is %lld, expected 0 (all) with precision int8", name,
                           (long long)weight->block_cols);
    if (columns > INT8_COLUMNS)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s has %lld columns, expected at most %d with precision int8", name, (long long)columns,
                           INT8_COLUMNS);
    return OCTAVO_OK;
}

/* A tensor of [tokens, width] floats. A query of sizes may come without data, and a call may have no tokens. */
static octavo_status check_rows(const char *name, octavo_tensor tensor, int64_t tokens, int64_t width, int sizes_only, int written)
{
    uint64_t placeholder; /* an address; nothing is read there */
    const int64_t shape[] = { tokens, width };
    const int none = tensor.ndim == 2 && tensor.shape[0] == 0 && tokens <= 0;
    if (none) tensor.shape[0] = 1;
    if (!tensor.data && (none || sizes_only)) tensor.data = &placeholder;
    if (written) return octavo_tensor_match_output(name, &tensor, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, shape);
    return octavo_tensor_match(name, &tensor, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, shape);
}

/* Everything that the size of the workspace depends on. */
static octavo_status check_shapes(const octavo_linear_params *params, int sizes_only)
{
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_linear_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(check_precision(params->precision));
    if (params->store != OCTAVO_STORE_SET && params->store != OCTAVO_STORE_ADD)
        return octavo_fail(OCTAVO_E_ARGUMENT, "store is %d, expected one of octavo_store", (int)params->store);
    if (params->part_count < 1 || params->part_count > OCTAVO_LINEAR_PARTS)
        return octavo_fail(OCTAVO_E_ARGUMENT, "part_count is %d, expected 1 to %d", params->part_count, OCTAVO_LINEAR_PARTS);
    OCTAVO_TRY(check_rows("x", params->x, 0, 0, sizes_only, 0));
    for (int i = 0; i < params->part_count; i++) {
        const octavo_linear_part *part = &params->parts[i];
        octavo_weight weight = part->weight;
        char name[NAME_BYTES];
        uint64_t placeholder;
        snprintf(name, sizeof name, "parts[%d].weight", i);
        if (sizes_only && !weight.codes.data) weight.codes.data = &placeholder;
        OCTAVO_TRY(check_weight(name, &weight, params->precision, params->x.shape[1]));
        snprintf(name, sizeof name, "parts[%d].y", i);
        OCTAVO_TRY(check_rows(name, part->y, params->x.shape[0], weight.codes.shape[0], sizes_only, 1));
        if (params->x.shape[0] == 0 && part->y.shape[0] != 0)
            return octavo_fail(OCTAVO_E_SHAPE, "%s.shape[0] is %lld, expected 0", name, (long long)part->y.shape[0]);
        if ((uintptr_t)part->packed % PACKED_ALIGN)
            return octavo_fail(OCTAVO_E_ARGUMENT, "parts[%d].packed is %p, expected 64-byte aligned", i, (const void *)part->packed);
    }
    return OCTAVO_OK;
}

static octavo_status check_places(const octavo_exec *exec, const octavo_linear_params *params)
{
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", params->x.device_kind));
    for (int i = 0; i < params->part_count; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "parts[%d].weight", i);
        OCTAVO_TRY(octavo_exec_check_place(exec, name, params->parts[i].weight.codes.device_kind));
        snprintf(name, sizeof name, "parts[%d].y", i);
        OCTAVO_TRY(octavo_exec_check_place(exec, name, params->parts[i].y.device_kind));
    }
    return OCTAVO_OK;
}

/* Rows of two matrices that lie beside each other in one buffer overlap as extents only. */
static int are_apart(const octavo_tensor *a, const octavo_tensor *b)
{
    if (!octavo_extents_overlap(octavo_tensor_extent(a), octavo_tensor_extent(b))) return 1;
    const int64_t element = (int64_t)octavo_dtype_bytes(a->dtype), stride = a->strides[0] * element;
    if (a->dtype != b->dtype || a->strides[0] != b->strides[0] || stride <= 0) return 0;
    const int64_t distance = (int64_t)((intptr_t)b->data - (intptr_t)a->data), ahead = (distance % stride + stride) % stride;
    return ahead >= a->shape[1] * element && ahead + b->shape[1] * element <= stride;
}

static octavo_status refuse_overlap(int part, const char *what, int other)
{
    if (other < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "parts[%d].y lies over %s, expected memory of its own", part, what);
    return octavo_fail(OCTAVO_E_ARGUMENT, "parts[%d].y lies over parts[%d].%s, expected memory of its own", part, other, what);
}

static octavo_status check_overlap(const octavo_linear_params *params)
{
    for (int i = 0; i < params->part_count; i++) {
        const octavo_tensor *y = &params->parts[i].y;
        if (!are_apart(y, &params->x)) return refuse_overlap(i, "x", -1);
        for (int k = 0; k < params->part_count; k++) {
            const octavo_tensor *codes = &params->parts[k].weight.codes;
            if (octavo_extents_overlap(octavo_tensor_extent(y), octavo_tensor_extent(codes))) return refuse_overlap(i, "weight.codes", k);
            if (k < i && !are_apart(y, &params->parts[k].y)) return refuse_overlap(i, "y", k);
        }
    }
    return OCTAVO_OK;
}

static octavo_status workspace_of(const octavo_exec *exec, const octavo_linear_params *params, int sizes_only,
                                  const octavo_kernels **kernels, size_t *bytes)
{
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    OCTAVO_TRY(check_shapes(params, sizes_only));
    *bytes = params->x.shape[0] == 0 ? 0 : octavo_linear_kernel_workspace(params);
    if (*bytes != SIZE_MAX) return OCTAVO_OK;
    *bytes = 0;
    return octavo_fail(OCTAVO_E_RANGE, "x has %lld tokens of %lld elements, for which no workspace is large enough",
                       (long long)params->x.shape[0], (long long)params->x.shape[1]);
}

octavo_status octavo_linear_workspace(const octavo_exec *exec, const octavo_linear_params *params, size_t *bytes)
{
    const octavo_kernels *kernels;
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    return workspace_of(exec, params, 1, &kernels, bytes);
}

octavo_status octavo_linear(const octavo_exec *exec, const octavo_linear_params *params)
{
    const octavo_kernels *kernels;
    size_t bytes;
    OCTAVO_TRY(workspace_of(exec, params, 0, &kernels, &bytes));
    OCTAVO_TRY(check_places(exec, params));
    if (params->x.shape[0] == 0) return OCTAVO_OK;
    OCTAVO_TRY(check_overlap(params));
    if (exec->workspace_bytes < bytes || !exec->workspace || (uintptr_t)exec->workspace % 64)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes at %p, expected %zu bytes, 64-byte aligned",
                           exec->workspace_bytes, exec->workspace, bytes);
    if (!kernels->linear) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no linear", octavo_device_name(exec->device));
    return kernels->linear(exec, params);
}

static octavo_status check_pack(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision,
                                const octavo_kernels **kernels)
{
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    if (!weight) return octavo_fail(OCTAVO_E_ARGUMENT, "weight is NULL");
    OCTAVO_TRY(check_precision(precision));
    return check_weight("weight", weight, precision, 0);
}

octavo_status octavo_linear_packed_bytes(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, size_t *bytes)
{
    const octavo_kernels *kernels;
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    OCTAVO_TRY(check_pack(exec, weight, precision, &kernels));
    if (kernels->linear_packed_bytes) *bytes = kernels->linear_packed_bytes(weight, precision);
    return OCTAVO_OK;
}

octavo_status octavo_linear_pack(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, void *packed)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(check_pack(exec, weight, precision, &kernels));
    OCTAVO_TRY(octavo_exec_check_place(exec, "weight", weight->codes.device_kind));
    const size_t bytes = kernels->linear_packed_bytes ? kernels->linear_packed_bytes(weight, precision) : 0;
    if (bytes == 0) return octavo_fail(OCTAVO_E_ARGUMENT, "weight is read as it lies, expected no call to pack it");
    if (!packed || (uintptr_t)packed % PACKED_ALIGN)
        return octavo_fail(OCTAVO_E_ARGUMENT, "packed is %p, expected %zu bytes, 64-byte aligned", packed, bytes);
    return kernels->linear_pack(exec, weight, precision, packed);
}
