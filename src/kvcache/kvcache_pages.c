/* kvcache_pages.c - who holds which page: sequences, reserve with copy on write, fork, truncate, and the window's release. */
#include "kvcache/kvcache_state.h"
#include "base/error.h"

#include <string.h>

octavo_status octavo_kvcache_check_sequence(const octavo_kvcache *cache, int32_t sequence)
{
    if (!cache) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'cache' is NULL");
    if (sequence < 0 || sequence >= cache->max_sequences || !cache->alive[sequence])
        return octavo_fail(OCTAVO_E_RANGE, "sequence %d does not exist", sequence);
    return OCTAVO_OK;
}

/* ---- pages ---- */

static int32_t take_page(octavo_page_group *group)
{
    const int32_t page = group->free_pages[--group->free_count];
    group->references[page] = 1;
    return page;
}

/* Lets go of the pages of blocks [begin, end). */
static void drop_blocks(const octavo_kvcache *cache, octavo_page_group *group, int32_t sequence, int64_t begin, int64_t end)
{
    for (int64_t block = begin; block < end; block++) {
        int32_t *page = octavo_kvcache_page_at(cache, group, sequence, block);
        if (*page == OCTAVO_NO_PAGE) continue;
        if (--group->references[*page] == 0) group->free_pages[group->free_count++] = *page;
        *page = OCTAVO_NO_PAGE;
    }
}

static int64_t shared_blocks(const octavo_kvcache *cache, const octavo_page_group *group, int32_t sequence, int64_t begin,
                             int64_t end)
{
    int64_t count = 0;
    for (int64_t block = begin; block < end; block++) {
        const int32_t page = *octavo_kvcache_page_at(cache, group, sequence, block);
        count += page != OCTAVO_NO_PAGE && group->references[page] > 1;
    }
    return count;
}

/* Room in the list for `more` copies. */
static octavo_status reserve_copies(octavo_kvcache *cache, int64_t more)
{
    if (!cache->mirrored || more <= cache->copy_room - cache->copy_count) return OCTAVO_OK;
    octavo_context *context = octavo_device_context(cache->device);
    const int64_t room = 2 * (cache->copy_count + more);
    octavo_page_copy *copies = octavo_context_allocate(context, (size_t)room * sizeof *copies, sizeof(void *));
    if (!copies) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a list of %lld pages to copy", (long long)room);
    if (cache->copy_count > 0) memcpy(copies, cache->copies, (size_t)cache->copy_count * sizeof *copies);
    octavo_context_release(context, cache->copies, (size_t)cache->copy_room * sizeof *copies);
    cache->copies = copies;
    cache->copy_room = room;
    return OCTAVO_OK;
}

static void unshare_block(octavo_kvcache *cache, int32_t g, int32_t sequence, int64_t block)
{
    octavo_page_group *group = &cache->groups[g];
    int32_t *page = octavo_kvcache_page_at(cache, group, sequence, block);
    if (group->references[*page] == 1) return;
    const int32_t own = take_page(group);
    if (cache->mirrored) cache->copies[cache->copy_count++] = (octavo_page_copy){ g, *page, own };
    for (int64_t layer = 0; layer < group->layers && !cache->mirrored; layer++) {
        uint8_t *pool = group->pool + layer * cache->pages * cache->page_bytes;
        memcpy(pool + own * cache->page_bytes, pool + *page * cache->page_bytes, (size_t)cache->page_bytes);
    }
    group->references[*page]--;
    *page = own;
}

octavo_status octavo_kvcache_flush(const octavo_exec *exec, octavo_kvcache *cache)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!cache) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'cache' is NULL");
    if (exec->device != cache->device) return octavo_fail(OCTAVO_E_ARGUMENT, "exec's device is not the one that holds the cache");
    if (!cache->mirrored) return OCTAVO_OK;
    for (int64_t i = 0; i < cache->copy_count; i++) {
        const octavo_page_copy *copy = &cache->copies[i];
        const octavo_page_group *group = &cache->groups[copy->group];
        for (int64_t layer = 0; layer < group->layers; layer++) {
            uint8_t *pool = group->pool + layer * cache->pages * cache->page_bytes;
            OCTAVO_TRY(octavo_device_copy(exec, pool + copy->to * cache->page_bytes, pool + copy->from * cache->page_bytes, (size_t)cache->page_bytes));
        }
    }
    cache->copy_count = 0;
    for (int32_t g = 0; g < cache->group_count; g++) {
        octavo_page_group *group = &cache->groups[g];
        const int64_t first = group->stale_begin * cache->table_blocks, end = group->stale_end * cache->table_blocks;
        if (first < end)
            OCTAVO_TRY(octavo_device_upload(exec, group->device_page_table + first, group->page_table + first, (size_t)(end - first) * sizeof(int32_t)));
        group->stale_begin = group->stale_end = 0;
    }
    const size_t length_bytes = (size_t)cache->layers * (size_t)cache->max_sequences * sizeof(int32_t);
    if (cache->lengths_stale) OCTAVO_TRY(octavo_device_upload(exec, cache->device_lengths, cache->lengths, length_bytes));
    cache->lengths_stale = false;
    return OCTAVO_OK;
}

static void mark_table_stale(const octavo_kvcache *cache, octavo_page_group *group, int32_t sequence)
{
    if (!cache->mirrored) return;
    const bool none = group->stale_begin == group->stale_end;
    if (none || sequence < group->stale_begin) group->stale_begin = sequence;
    if (none || sequence >= group->stale_end) group->stale_end = sequence + 1;
}

/* Every change of a sequence's pages and lengths, but for what append and steps add to the lengths. */
static void mark_stale(octavo_kvcache *cache, int32_t sequence)
{
    for (int32_t g = 0; g < cache->group_count; g++) mark_table_stale(cache, &cache->groups[g], sequence);
    cache->lengths_stale = cache->mirrored;
}

/* ---- lengths ---- */

typedef struct length_range {
    int64_t shortest, longest;
} length_range;

static length_range group_lengths(const octavo_kvcache *cache, const octavo_page_group *group, int32_t sequence)
{
    length_range range = { INT64_MAX, 0 };
    for (int32_t i = 0; i < group->layers; i++) {
        const int64_t length = *octavo_kvcache_length_at(cache, group->first_layer + i, sequence);
        if (length < range.shortest) range.shortest = length;
        if (length > range.longest) range.longest = length;
    }
    return range;
}

static int64_t longest_length(const octavo_kvcache *cache, int32_t sequence)
{
    int64_t longest = 0;
    for (int32_t g = 0; g < cache->group_count; g++) {
        const int64_t length = group_lengths(cache, &cache->groups[g], sequence).longest;
        if (length > longest) longest = length;
    }
    return longest;
}

/* ---- sequences ---- */

static octavo_status find_slot(const octavo_kvcache *cache, int32_t *slot)
{
    for (*slot = 0; *slot < cache->max_sequences; ++*slot)
        if (!cache->alive[*slot]) return OCTAVO_OK;
    *slot = -1;
    return octavo_fail(OCTAVO_E_RANGE, "all %d sequences are alive", cache->max_sequences);
}

octavo_status octavo_kvcache_sequence(octavo_kvcache *cache, int32_t *sequence)
{
    if (!cache || !sequence) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", cache ? "sequence" : "cache");
    OCTAVO_TRY(find_slot(cache, sequence));
    cache->alive[*sequence] = 1;
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_fork(octavo_kvcache *cache, int32_t parent, int32_t *child)
{
    if (!child) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'child' is NULL");
    *child = -1;
    OCTAVO_TRY(octavo_kvcache_check_sequence(cache, parent));
    OCTAVO_TRY(find_slot(cache, child));
    for (int32_t g = 0; g < cache->group_count; g++) {
        octavo_page_group *group = &cache->groups[g];
        /* Pages that are reserved but empty stay the parent's. */
        const int64_t blocks = octavo_kvcache_blocks_of(cache, group_lengths(cache, group, parent).longest);
        for (int64_t block = 0; block < blocks; block++) {
            const int32_t page = *octavo_kvcache_page_at(cache, group, parent, block);
            *octavo_kvcache_page_at(cache, group, *child, block) = page;
            if (page != OCTAVO_NO_PAGE) group->references[page]++;
        }
        group->blocks[*child] = blocks;
        group->released[*child] = group->released[parent];
    }
    for (int32_t layer = 0; layer < cache->layers; layer++)
        *octavo_kvcache_length_at(cache, layer, *child) = *octavo_kvcache_length_at(cache, layer, parent);
    cache->alive[*child] = 1;
    mark_stale(cache, *child);
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_free(octavo_kvcache *cache, int32_t sequence)
{
    OCTAVO_TRY(octavo_kvcache_truncate(cache, sequence, 0));
    cache->alive[sequence] = 0;
    return OCTAVO_OK;
}

/* ---- reserve ---- */

typedef struct reserve_plan {
    int64_t write_begin, write_end; /* blocks that coming tokens touch: each gets a page of its own            */
    int64_t released;               /* blocks [sink_blocks, released) are out of sight                         */
    int64_t takes, gives;           /* pages                                                                   */
} reserve_plan;

static reserve_plan plan_reserve(const octavo_kvcache *cache, const octavo_page_group *group, int32_t sequence, int64_t length)
{
    const length_range now = group_lengths(cache, group, sequence);
    const int64_t blocks = group->blocks[sequence], end = octavo_kvcache_blocks_of(cache, length);
    const int64_t held = end < blocks ? end : blocks;
    reserve_plan plan = { .write_begin = end, .write_end = end, .released = group->released[sequence] };
    if (length > now.shortest) plan.write_begin = now.shortest / cache->page.block_tokens;
    plan.takes = end - held + shared_blocks(cache, group, sequence, plan.write_begin, held);
    if (group->window > 0 && now.shortest > group->window) {
        /* The newest stored token may still be asked about: it sees `window` tokens, itself included. */
        const int64_t unseen = (now.shortest - group->window) / cache->page.block_tokens;
        if (unseen > plan.released) plan.released = unseen;
    }
    const int64_t out = plan.released - group->released[sequence];
    plan.gives = out - shared_blocks(cache, group, sequence, group->released[sequence], plan.released);
    return plan;
}

static void apply_reserve(octavo_kvcache *cache, int32_t g, int32_t sequence, const reserve_plan *plan)
{
    octavo_page_group *group = &cache->groups[g];
    if (plan->released > group->released[sequence] || plan->takes > 0) mark_table_stale(cache, group, sequence);
    drop_blocks(cache, group, sequence, group->released[sequence], plan->released);
    group->released[sequence] = plan->released;
    for (int64_t block = plan->write_begin; block < plan->write_end; block++)
        if (block < group->blocks[sequence]) unshare_block(cache, g, sequence, block);
        else *octavo_kvcache_page_at(cache, group, sequence, block) = take_page(group);
    if (plan->write_end > group->blocks[sequence]) group->blocks[sequence] = plan->write_end;
}

octavo_status octavo_kvcache_reserve(octavo_kvcache *cache, int32_t sequence, int64_t tokens)
{
    OCTAVO_TRY(octavo_kvcache_check_sequence(cache, sequence));
    if (tokens < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'tokens' is %lld, expected 0 or more", (long long)tokens);
    const int64_t stored = longest_length(cache, sequence);
    if (tokens > cache->max_tokens - stored)
        return octavo_fail(OCTAVO_E_RANGE, "%lld tokens do not fit behind the %lld of sequence %d, which may have %lld",
                           (long long)tokens, (long long)stored, sequence, (long long)cache->max_tokens);
    int64_t copies = 0;
    for (int32_t g = 0; g < cache->group_count; g++) { /* all groups are asked before any changes */
        const octavo_page_group *group = &cache->groups[g];
        const reserve_plan plan = plan_reserve(cache, group, sequence, stored + tokens);
        if (plan.takes > group->free_count + plan.gives)
            return octavo_fail(OCTAVO_E_NOMEM, "group %d needs %lld pages for sequence %d and has %lld", g, (long long)plan.takes,
                               sequence, (long long)(group->free_count + plan.gives));
        copies += plan.takes;
    }
    OCTAVO_TRY(reserve_copies(cache, copies));
    for (int32_t g = 0; g < cache->group_count; g++) {
        const reserve_plan plan = plan_reserve(cache, &cache->groups[g], sequence, stored + tokens);
        apply_reserve(cache, g, sequence, &plan);
    }
    return OCTAVO_OK;
}

/* ---- truncate ---- */

static octavo_status check_truncate(const octavo_kvcache *cache, int32_t g, int32_t sequence, int64_t length)
{
    const octavo_page_group *group = &cache->groups[g];
    const int64_t block_tokens = cache->page.block_tokens;
    if (group->released[sequence] == group->sink_blocks || length <= group->sink_blocks * block_tokens) return OCTAVO_OK;
    if (length - group->window >= group->released[sequence] * block_tokens) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_RANGE, "argument 'length' is %lld, but group %d has given back tokens %lld to %lld of sequence %d",
                       (long long)length, g, (long long)(group->sink_blocks * block_tokens),
                       (long long)(group->released[sequence] * block_tokens - 1), sequence);
}

octavo_status octavo_kvcache_truncate(octavo_kvcache *cache, int32_t sequence, int64_t length)
{
    OCTAVO_TRY(octavo_kvcache_check_sequence(cache, sequence));
    if (length < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'length' is %lld, expected 0 or more", (long long)length);
    const int64_t stored = longest_length(cache, sequence);
    if (length > stored)
        return octavo_fail(OCTAVO_E_RANGE, "argument 'length' is %lld, but sequence %d has %lld tokens", (long long)length,
                           sequence, (long long)stored);
    for (int32_t g = 0; g < cache->group_count; g++) OCTAVO_TRY(check_truncate(cache, g, sequence, length));

    for (int32_t layer = 0; layer < cache->layers; layer++) {
        int32_t *tokens = octavo_kvcache_length_at(cache, layer, sequence);
        if (*tokens > length) *tokens = (int32_t)length;
    }
    mark_stale(cache, sequence);
    for (int32_t g = 0; g < cache->group_count; g++) {
        octavo_page_group *group = &cache->groups[g];
        const int64_t keep = octavo_kvcache_blocks_of(cache, group_lengths(cache, group, sequence).longest);
        drop_blocks(cache, group, sequence, keep, group->blocks[sequence]);
        group->blocks[sequence] = keep;
        if (length <= group->sink_blocks * cache->page.block_tokens) group->released[sequence] = group->sink_blocks;
    }
    return OCTAVO_OK;
}

int64_t octavo_kvcache_free_pages(const octavo_kvcache *cache, int32_t group)
{
    return cache && group >= 0 && group < cache->group_count ? cache->groups[group].free_count : -1;
}
