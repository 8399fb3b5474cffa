/* token_logprob.c - the public log-probability of tokens: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check(const octavo_token_logprob_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_tensor_match("logits", &p->logits, OCTAVO_DTYPE_BIT(OCTAVO_F32) | OCTAVO_ANYWHERE, 2, ANY));
    const int64_t rows = p->logits.shape[0], vocab = p->logits.shape[1];
    if (vocab > INT32_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "logits.shape[1] is %lld, expected token ids that fit int32", (long long)vocab);
    if (!p->logprob) return octavo_fail(OCTAVO_E_ARGUMENT, "logprob is NULL, expected one of each row of logits");
    OCTAVO_TRY(octavo_indices_check("tokens", p->tokens, rows, 0, vocab, &p->logits));
    const octavo_named_extent extents[] = { octavo_named_array("logprob", p->logprob, rows, sizeof(float)),
                                            octavo_named_array("top", p->top, rows, sizeof(int32_t)),
                                            octavo_named_array("tokens", p->tokens, rows, sizeof(int32_t)),
                                            octavo_named_tensor("logits", &p->logits) };
    return octavo_extents_check(extents, 4, 2);
}

octavo_status octavo_token_logprob(const octavo_exec *exec, const octavo_token_logprob_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_token_logprob_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "logits", params->logits.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->token_logprob)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no token_logprob", octavo_device_name(exec->device));
    return kernels->token_logprob(exec, params);
}
