/* kvcache_step.c - new tokens for all layers at once: what the host checks and counts, and what a recorded step does by itself. */
#include "base/error.h"
#include "kvcache/kvcache_state.h"

static octavo_status check_step(const octavo_exec *exec, const octavo_kvcache *cache, const octavo_kvcache_step *step,
                                const octavo_kernels **kernels)
{
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    if (!cache || !step) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", cache ? "step" : "cache");
    OCTAVO_TRY(octavo_struct_check("octavo_kvcache_step", step->struct_size, sizeof *step));
    if (exec->device != cache->device) return octavo_fail(OCTAVO_E_ARGUMENT, "exec's device is not the one that holds the cache");
    if (step->batch < 1 || step->batch > cache->max_sequences)
        return octavo_fail(OCTAVO_E_ARGUMENT, "step's batch is %lld, expected 1 to %d", (long long)step->batch, cache->max_sequences);
    if (step->tokens < 1) return octavo_fail(OCTAVO_E_ARGUMENT, "step's tokens is %lld, expected 1 or more", (long long)step->tokens);
    const char *missing = !step->sequences ? "sequences" : !step->device_sequences ? "device_sequences" : !step->first ? "first" : NULL;
    if (missing) return octavo_fail(OCTAVO_E_ARGUMENT, "step's %s is NULL, expected [batch]", missing);
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_step_begin(const octavo_exec *exec, octavo_kvcache *cache, const octavo_kvcache_step *step)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(check_step(exec, cache, step, &kernels));
    cache->appends++;
    for (int64_t b = 0; b < step->batch; b++) {
        const int32_t sequence = step->sequences[b];
        OCTAVO_TRY(octavo_kvcache_check_sequence(cache, sequence));
        if (cache->last_append[sequence] == cache->appends)
            return octavo_fail(OCTAVO_E_ARGUMENT, "step's sequences name sequence %d twice", sequence);
        cache->last_append[sequence] = cache->appends;
        for (int32_t layer = 0; layer < cache->layers; layer++)
            OCTAVO_TRY(octavo_kvcache_check_room(cache, layer, sequence, step->tokens));
    }
    OCTAVO_TRY(octavo_kvcache_flush(exec, cache));
    if (!cache->mirrored) return OCTAVO_OK; /* the lengths grow when they do on the device */
    for (int64_t b = 0; b < step->batch; b++)
        for (int32_t layer = 0; layer < cache->layers; layer++)
            *octavo_kvcache_length_at(cache, layer, step->sequences[b]) += (int32_t)step->tokens;
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_step_advance(const octavo_exec *exec, octavo_kvcache *cache, const octavo_kvcache_step *step)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(check_step(exec, cache, step, &kernels));
    if (!kernels->kv_advance)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no kv_advance", octavo_device_name(exec->device));
    const octavo_kv_advance_params p = {
        .layers = cache->layers, .rows = cache->max_sequences, .batch = step->batch, .tokens = step->tokens, .max_tokens = cache->max_tokens,
        .sequences = step->device_sequences, .lengths = cache->device_lengths, .first = step->first, .positions = step->positions,
    };
    const octavo_status status = kernels->kv_advance(exec, &p);
    if (status != OCTAVO_E_RANGE) return status;
    return octavo_fail(status, "step's device_sequences do not name the sequences that step_begin was given");
}
