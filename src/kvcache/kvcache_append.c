/* kvcache_append.c - the cache manager's way in and out: append to a layer, and a layer as a view. */
#include "kvcache/kvcache_state.h"
#include "base/error.h"

static octavo_status check_layer(const octavo_kvcache *cache, int32_t layer)
{
    if (!cache) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'cache' is NULL");
    if (layer < 0 || layer >= cache->layers)
        return octavo_fail(OCTAVO_E_RANGE, "argument 'layer' is %d, but the cache has %d layers", layer, cache->layers);
    return OCTAVO_OK;
}

int64_t octavo_kvcache_length(const octavo_kvcache *cache, int32_t sequence, int32_t layer)
{
    const bool exists = cache && layer >= 0 && layer < cache->layers && sequence >= 0 && sequence < cache->max_sequences &&
                        cache->alive[sequence];
    return exists ? *octavo_kvcache_length_at(cache, layer, sequence) : -1;
}

octavo_status octavo_kvcache_view(const octavo_kvcache *cache, int32_t layer, int64_t batch, const int32_t *sequences,
                                  octavo_kv_view *view)
{
    OCTAVO_TRY(check_layer(cache, layer));
    if (!sequences || !view) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", sequences ? "view" : "sequences");
    if (batch < 1) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'batch' is %lld, expected 1 or more", (long long)batch);
    for (int64_t b = 0; b < batch; b++) OCTAVO_TRY(octavo_kvcache_check_sequence(cache, sequences[b]));

    const octavo_page_group *group = &cache->groups[cache->group_of_layer[layer]];
    octavo_kv_view made = OCTAVO_KV_VIEW_INIT;
    OCTAVO_TRY(octavo_kv_view_over_pool(&cache->page, group->pool + (layer - group->first_layer) * cache->pages * cache->page_bytes,
                                        cache->pages, cache->page_bytes, &made));
    made.batch = batch;
    made.max_tokens = cache->max_tokens; /* the one bound that later appends cannot pass */
    made.device_kind = octavo_device_kind_of(cache->device);
    made.lengths = cache->device_lengths + (int64_t)layer * cache->max_sequences;
    made.sequences = sequences;
    made.page_table = group->device_page_table;
    made.page_table_stride = cache->table_blocks;
    *view = made;
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_check_room(const octavo_kvcache *cache, int32_t layer, int32_t sequence, int64_t tokens)
{
    const octavo_page_group *group = &cache->groups[cache->group_of_layer[layer]];
    const int64_t length = *octavo_kvcache_length_at(cache, layer, sequence);
    if (tokens > cache->max_tokens - length)
        return octavo_fail(OCTAVO_E_RANGE, "%lld tokens do not fit behind the %lld of sequence %d, which may have %lld",
                           (long long)tokens, (long long)length, sequence, (long long)cache->max_tokens);
    const int64_t end = octavo_kvcache_blocks_of(cache, length + tokens);
    if (end > group->blocks[sequence])
        return octavo_fail(OCTAVO_E_RANGE, "%lld tokens for sequence %d in layer %d were not reserved", (long long)tokens, sequence,
                           layer);
    for (int64_t block = length / cache->page.block_tokens; block < end; block++)
        if (group->references[*octavo_kvcache_page_at(cache, group, sequence, block)] > 1)
            return octavo_fail(OCTAVO_E_RANGE, "sequence %d shares the page that layer %d would write: reserve it again", sequence,
                               layer);
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_append(const octavo_exec *exec, octavo_kvcache *cache, int32_t layer, int64_t batch,
                                    const int32_t *sequences, const octavo_tensor *k, const octavo_tensor *v)
{
    const octavo_kernels *kernels;
    octavo_kv_view view;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    OCTAVO_TRY(octavo_kvcache_view(cache, layer, batch, sequences, &view));
    if (exec->device != cache->device) return octavo_fail(OCTAVO_E_ARGUMENT, "exec's device is not the one that holds the cache");
    const octavo_tensor *given = k ? k : v;
    if (!given) return octavo_fail(OCTAVO_E_ARGUMENT, "arguments 'k' and 'v' are both NULL, expected at least one");
    if (given->ndim != 4)
        return octavo_fail(OCTAVO_E_SHAPE, "argument '%c' has %d dimensions, expected 4", k ? 'k' : 'v', given->ndim);
    const int64_t tokens = given->shape[1];
    if (tokens < 0) return octavo_fail(OCTAVO_E_SHAPE, "argument '%c' has %lld tokens", k ? 'k' : 'v', (long long)tokens);

    cache->appends++;
    for (int64_t b = 0; b < batch; b++) {
        if (cache->last_append[sequences[b]] == cache->appends)
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'sequences' names sequence %d twice", sequences[b]);
        cache->last_append[sequences[b]] = cache->appends;
        OCTAVO_TRY(octavo_kvcache_check_room(cache, layer, sequences[b], tokens));
        cache->call[b] = *octavo_kvcache_length_at(cache, layer, sequences[b]);
        cache->call[cache->max_sequences + b] = sequences[b];
    }
    OCTAVO_TRY(octavo_kvcache_flush(exec, cache));
    if (cache->mirrored) {
        OCTAVO_TRY(octavo_device_upload(exec, cache->device_call, cache->call, 2 * (size_t)cache->max_sequences * sizeof *cache->call));
        view.sequences = cache->device_call + cache->max_sequences;
    }
    OCTAVO_TRY(octavo_kv_append(exec, &view, k, v, cache->device_call));
    for (int64_t b = 0; b < batch; b++) *octavo_kvcache_length_at(cache, layer, sequences[b]) += (int32_t)tokens;
    if (!cache->mirrored) return OCTAVO_OK;
    return octavo_device_upload(exec, cache->device_lengths + (int64_t)layer * cache->max_sequences, octavo_kvcache_length_at(cache, layer, 0),
                                (size_t)cache->max_sequences * sizeof(int32_t));
}
