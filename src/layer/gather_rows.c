/* gather_rows.c - the public gathering of rows: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check(const octavo_gather_rows_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_tensor_match("table", &p->table, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, ANY));
    const int64_t shape[] = { 0, p->table.shape[1] };
    OCTAVO_TRY(octavo_tensor_match_output("y", &p->y, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, shape));
    const int64_t count = p->y.shape[0];
    OCTAVO_TRY(octavo_indices_check("rows", p->rows, count, 0, p->table.shape[0], &p->table));
    if (p->add.data) {
        OCTAVO_TRY(octavo_tensor_match("add", &p->add, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, shape));
        OCTAVO_TRY(octavo_indices_check("add_rows", p->add_rows, count, 0, p->add.shape[0], &p->add));
    } else if (p->add_rows) {
        return octavo_fail(OCTAVO_E_ARGUMENT, "add_rows is given without add, expected both or neither");
    }
    const octavo_named_extent extents[] = { octavo_named_tensor("y", &p->y), octavo_named_tensor("table", &p->table),
                                            octavo_named_tensor("add", &p->add),
                                            octavo_named_array("rows", p->rows, count, sizeof(int32_t)),
                                            octavo_named_array("add_rows", p->add_rows, count, sizeof(int32_t)) };
    return octavo_extents_check(extents, 5, 1);
}

octavo_status octavo_gather_rows(const octavo_exec *exec, const octavo_gather_rows_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_gather_rows_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "table", params->table.device_kind));
    if (params->add.data) OCTAVO_TRY(octavo_exec_check_place(exec, "add", params->add.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "y", params->y.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->gather_rows)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no gather_rows", octavo_device_name(exec->device));
    return kernels->gather_rows(exec, params);
}
