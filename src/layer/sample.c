/* sample.c - the public sampler: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "kernel/random.h"
#include "layer/layer_check.h"
#include <math.h>

/* Everything that the size of the workspace depends on. */
static octavo_status workspace_of(const octavo_exec *exec, const octavo_sample_params *params, const octavo_kernels **kernels, size_t *bytes)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_sample_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "logits", params->logits.device_kind));
    OCTAVO_TRY(octavo_tensor_match("logits", &params->logits, OCTAVO_DTYPE_BIT(OCTAVO_F32) | OCTAVO_ANYWHERE, 2, ANY));
    if (params->logits.shape[1] > INT32_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "logits.shape[1] is %lld, expected token ids that fit int32", (long long)params->logits.shape[1]);
    *bytes = octavo_sample_kernel_workspace(params);
    if (*bytes != SIZE_MAX) return OCTAVO_OK;
    *bytes = 0;
    return octavo_fail(OCTAVO_E_RANGE, "logits has %lld rows of %lld, for which no workspace is large enough",
                       (long long)params->logits.shape[0], (long long)params->logits.shape[1]);
}

static octavo_status check_row(const octavo_sample_row *row, int64_t r)
{
    if (!(row->temperature >= 0.0f) || isinf(row->temperature))
        return octavo_fail(OCTAVO_E_ARGUMENT, "rows[%lld].temperature is %g, expected a finite number of at least 0", (long long)r,
                           (double)row->temperature);
    if (row->top_k < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "rows[%lld].top_k is %d, expected at least 0 (0: all)", (long long)r, row->top_k);
    if (!(row->top_p >= 0.0f && row->top_p <= 1.0f))
        return octavo_fail(OCTAVO_E_ARGUMENT, "rows[%lld].top_p is %g, expected 0 to 1", (long long)r, (double)row->top_p);
    if (!(row->min_p >= 0.0f && row->min_p <= 1.0f))
        return octavo_fail(OCTAVO_E_ARGUMENT, "rows[%lld].min_p is %g, expected 0 to 1", (long long)r, (double)row->min_p);
    if (!(row->uniform >= 0.0f && row->uniform < 1.0f))
        return octavo_fail(OCTAVO_E_ARGUMENT, "rows[%lld].uniform is %g, expected at least 0 and less than 1", (long long)r,
                           (double)row->uniform);
    return OCTAVO_OK;
}

static octavo_status check(const octavo_sample_params *p)
{
    const int64_t rows = p->logits.shape[0];
    if (!p->rows || !p->tokens)
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected one of each row of logits", p->rows ? "tokens" : "rows");
    for (int64_t r = 0; r < rows && p->logits.device_kind == OCTAVO_DEVICE_CPU; r++) OCTAVO_TRY(check_row(&p->rows[r], r));
    const octavo_named_extent extents[] = { octavo_named_array("tokens", p->tokens, rows, sizeof(int32_t)),
                                            octavo_named_array("sampled_logprob", p->sampled_logprob, rows, sizeof(float)),
                                            octavo_named_array("logprob", p->logprob, rows, sizeof(float)),
                                            octavo_named_array("rows", p->rows, rows, sizeof *p->rows),
                                            octavo_named_tensor("logits", &p->logits) };
    return octavo_extents_check(extents, 5, 3);
}

float octavo_random_uniform(uint64_t state, uint64_t index) { return octavo_random_number(state, index); }

uint64_t octavo_random_derive(uint64_t seed, uint64_t part)
{
    return octavo_random_mix(octavo_random_mix(seed + OCTAVO_RANDOM_STEP) ^ (part + 1) * OCTAVO_RANDOM_STEP);
}

octavo_status octavo_sample_workspace(const octavo_exec *exec, const octavo_sample_params *params, size_t *bytes)
{
    const octavo_kernels *kernels;
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    return workspace_of(exec, params, &kernels, bytes);
}

octavo_status octavo_sample(const octavo_exec *exec, const octavo_sample_params *params)
{
    const octavo_kernels *kernels;
    size_t bytes;
    OCTAVO_TRY(workspace_of(exec, params, &kernels, &bytes));
    OCTAVO_TRY(check(params));
    if (exec->workspace_bytes < bytes || !exec->workspace || (uintptr_t)exec->workspace % 64)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes at %p, expected %zu bytes, 64-byte aligned",
                           exec->workspace_bytes, exec->workspace, bytes);
    if (!kernels->sample) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no sample", octavo_device_name(exec->device));
    const octavo_status status = kernels->sample(exec, params);
    if (status != OCTAVO_E_NONFINITE) return status;
    return octavo_fail(status, "a row of logits has a NaN, +Inf or no finite value, expected finite logits or -Inf; nothing was written");
}
