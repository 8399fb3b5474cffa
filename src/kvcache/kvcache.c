/* kvcache.c - the cache manager: its configuration, its memory, its beginning and end. */
#include "kvcache/kvcache_state.h"
#include "kvcache/kv_view_check.h"
#include "base/checked.h"
#include "base/error.h"
#include "kernel/page.h"

#include <string.h>

enum { MEMORY_ALIGN = 4096, HOST_ALIGN = 64 };

/* ---- what a config asks for ---- */

typedef struct cache_shape {
    octavo_page_config page; /* no zero stands for a default */
    size_t page_bytes;
    octavo_kvcache_group lone; /* the group of a config without groups */
    const octavo_kvcache_group *groups;
    int32_t group_count, layers, max_sequences;
    int64_t max_tokens, pages, table_blocks;
    bool mirrored; /* page tables and lengths lie on the host and on the device */
} cache_shape;

static octavo_status shape_page(const octavo_page_config *page, cache_shape *shape)
{
    octavo_page_config asked = *page;
    if (asked.struct_size == 0) asked.struct_size = sizeof asked; /* the outer INIT macro leaves it at zero */
    OCTAVO_TRY(octavo_page_config_check(&asked, &shape->page));
    return octavo_page_bytes(&shape->page, &shape->page_bytes);
}

static octavo_status shape_groups(const octavo_kvcache_config *config, cache_shape *shape)
{
    if (!config->groups) {
        if (config->group_count != 0)
            return octavo_fail(OCTAVO_E_ARGUMENT, "config's group_count is %d without groups, expected 0", config->group_count);
        if (config->layers < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "config's layers is %d, expected 0 or more", config->layers);
        shape->layers = shape->lone.layers = config->layers ? config->layers : 1;
        shape->group_count = 1;
        return OCTAVO_OK;
    }
    if (config->group_count < 1)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's group_count is %d, expected 1 or more", config->group_count);
    int64_t layers = 0;
    for (int32_t g = 0; g < config->group_count; g++) {
        const octavo_kvcache_group *group = &config->groups[g];
        if (group->layers < 1 || group->window < 0 || group->sink_tokens < 0)
            return octavo_fail(OCTAVO_E_ARGUMENT, "group %d has %d layers, window %lld and %d sink tokens, expected 1, 0 and 0 or more", g,
                               group->layers, (long long)group->window, group->sink_tokens);
        layers += group->layers;
    }
    if (layers > INT32_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "the groups have %lld layers, at most 2^31 - 1 fit", (long long)layers);
    shape->layers = (int32_t)layers;
    shape->groups = config->groups;
    shape->group_count = config->group_count;
    return OCTAVO_OK;
}

static octavo_status shape_of(const octavo_kvcache_config *config, cache_shape *shape)
{
    *shape = (cache_shape){ 0 };
    if (!config) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'config' is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_kvcache_config", config->struct_size, sizeof *config));
    OCTAVO_TRY(shape_page(&config->page, shape));
    OCTAVO_TRY(shape_groups(config, shape));
    if (config->max_sequences < 1)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's max_sequences is %d, expected 1 or more", config->max_sequences);
    /* Lengths and page ids are int32 in every view. */
    if (config->max_tokens < 1 || config->max_tokens > INT32_MAX)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's max_tokens is %lld, expected 1 to 2^31 - 1", (long long)config->max_tokens);
    if (config->pages < 1 || config->pages > INT32_MAX)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's pages is %lld, expected 1 to 2^31 - 1", (long long)config->pages);
    shape->max_sequences = config->max_sequences;
    shape->max_tokens = config->max_tokens;
    shape->pages = config->pages;
    shape->table_blocks = (config->max_tokens + shape->page.block_tokens - 1) / shape->page.block_tokens;
    return OCTAVO_OK;
}

static const octavo_kvcache_group *shape_group(const cache_shape *shape, int32_t g)
{
    return shape->groups ? &shape->groups[g] : &shape->lone;
}

/* ---- where it lies: the same walk measures (base NULL) and places ---- */

typedef struct arena {
    uint8_t *base;
    size_t end;
    bool overflowed;
} arena;

static void *arena_take(arena *a, int64_t rows, int64_t columns, size_t element_bytes, size_t alignment)
{
    size_t begin, bytes;
    if (a->overflowed || !octavo_checked_add_size(a->end, alignment - 1, &begin)) goto overflow;
    begin -= begin % alignment;
    if (!octavo_checked_mul_size((size_t)rows, (size_t)columns, &bytes)) goto overflow;
    if (!octavo_checked_mul_size(bytes, element_bytes, &bytes)) goto overflow;
    if (!octavo_checked_add_size(begin, bytes, &a->end) || a->end > PTRDIFF_MAX) goto overflow;
    return a->base ? a->base + begin : NULL;
overflow:
    a->overflowed = true;
    return NULL;
}

/* An array of the host that kernels read: the device's own where that is the host's memory. */
static int32_t *take_mirrored(const cache_shape *shape, int64_t rows, int64_t columns, arena *host, arena *device, int32_t **mirror)
{
    *mirror = arena_take(device, rows, columns, sizeof **mirror, OCTAVO_PAGE_ALIGN);
    return shape->mirrored ? arena_take(host, rows, columns, sizeof **mirror, HOST_ALIGN) : *mirror;
}

static octavo_page_group place_group(const cache_shape *shape, int32_t g, arena *host, arena *device)
{
    const octavo_kvcache_group *wanted = shape_group(shape, g);
    const int32_t block_tokens = shape->page.block_tokens;
    octavo_page_group group = { .layers = wanted->layers, .window = wanted->window, .free_count = shape->pages,
                                .stale_end = shape->mirrored ? shape->max_sequences : 0 };
    group.sink_blocks = ((int64_t)wanted->sink_tokens + block_tokens - 1) / block_tokens;
    group.pool       = arena_take(device, wanted->layers, shape->pages, shape->page_bytes, MEMORY_ALIGN);
    group.page_table = take_mirrored(shape, shape->max_sequences, shape->table_blocks, host, device, &group.device_page_table);
    group.references = arena_take(host, 1, shape->pages, sizeof *group.references, HOST_ALIGN);
    group.free_pages = arena_take(host, 1, shape->pages, sizeof *group.free_pages, HOST_ALIGN);
    group.blocks     = arena_take(host, 1, shape->max_sequences, sizeof *group.blocks, HOST_ALIGN);
    group.released   = arena_take(host, 1, shape->max_sequences, sizeof *group.released, HOST_ALIGN);
    return group;
}

/* The cache as it will be, but for its contents; *home is where it will live on the host. */
static octavo_kvcache place(const cache_shape *shape, arena *host, arena *device, octavo_kvcache **home)
{
    octavo_kvcache at = {
        .page = shape->page, .page_bytes = (int64_t)shape->page_bytes, .group_count = shape->group_count, .layers = shape->layers,
        .max_sequences = shape->max_sequences, .max_tokens = shape->max_tokens, .pages = shape->pages,
        .table_blocks = shape->table_blocks, .mirrored = shape->mirrored, .lengths_stale = shape->mirrored,
    };
    *home             = arena_take(host, 1, 1, sizeof **home, HOST_ALIGN);
    at.groups         = arena_take(host, 1, shape->group_count, sizeof *at.groups, HOST_ALIGN);
    at.group_of_layer = arena_take(host, 1, shape->layers, sizeof *at.group_of_layer, HOST_ALIGN);
    at.alive          = arena_take(host, 1, shape->max_sequences, sizeof *at.alive, HOST_ALIGN);
    at.last_append    = arena_take(host, 1, shape->max_sequences, sizeof *at.last_append, HOST_ALIGN);
    for (int32_t g = 0, layer = 0; g < shape->group_count; g++) {
        octavo_page_group group = place_group(shape, g, host, device);
        group.first_layer = layer;
        layer += group.layers;
        if (at.groups) at.groups[g] = group;
    }
    at.lengths = take_mirrored(shape, shape->layers, shape->max_sequences, host, device, &at.device_lengths);
    at.call    = take_mirrored(shape, 2, shape->max_sequences, host, device, &at.device_call);
    return at;
}

static octavo_status measure(const cache_shape *shape, size_t *host_bytes, size_t *device_bytes)
{
    arena host = { 0 }, device = { 0 };
    octavo_kvcache *home;
    (void)place(shape, &host, &device, &home);
    if (host.overflowed || device.overflowed)
        return octavo_fail(OCTAVO_E_RANGE, "%d layers, %lld pages of %zu bytes and %d sequences of %lld tokens are too much", shape->layers,
                           (long long)shape->pages, shape->page_bytes, shape->max_sequences, (long long)shape->max_tokens);
    *host_bytes = host.end;
    *device_bytes = device.end;
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_memory_bytes(const octavo_kvcache_config *config, size_t *bytes)
{
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'bytes' is NULL");
    *bytes = 0;
    cache_shape shape;
    size_t host_bytes;
    OCTAVO_TRY(shape_of(config, &shape));
    return measure(&shape, &host_bytes, bytes);
}

/* ---- beginning and end ---- */

static void fill(octavo_kvcache *cache)
{
    memset(cache->lengths, 0, (size_t)cache->layers * (size_t)cache->max_sequences * sizeof *cache->lengths);
    memset(cache->call, 0, 2 * (size_t)cache->max_sequences * sizeof *cache->call);
    memset(cache->alive, 0, (size_t)cache->max_sequences);
    memset(cache->last_append, 0, (size_t)cache->max_sequences * sizeof *cache->last_append);
    for (int32_t g = 0; g < cache->group_count; g++) {
        octavo_page_group *group = &cache->groups[g];
        for (int32_t i = 0; i < group->layers; i++) cache->group_of_layer[group->first_layer + i] = g;
        for (int64_t i = 0; i < cache->max_sequences * cache->table_blocks; i++) group->page_table[i] = OCTAVO_NO_PAGE;
        for (int64_t i = 0; i < cache->pages; i++) {
            group->references[i] = 0;
            group->free_pages[i] = (int32_t)(cache->pages - 1 - i);
        }
        for (int32_t i = 0; i < cache->max_sequences; i++) {
            group->blocks[i] = 0;
            group->released[i] = group->sink_blocks;
        }
    }
}

static octavo_status check_memory(const octavo_kvcache_config *config, size_t bytes)
{
    if (!config->memory) return OCTAVO_OK;
    if ((uintptr_t)config->memory % MEMORY_ALIGN != 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's memory is not aligned to %d bytes", MEMORY_ALIGN);
    if (config->memory_bytes < bytes)
        return octavo_fail(OCTAVO_E_ARGUMENT, "config's memory_bytes is %zu, expected at least %zu", config->memory_bytes, bytes);
    return OCTAVO_OK;
}

octavo_status octavo_kvcache_create(octavo_device *device, const octavo_kvcache_config *config, octavo_kvcache **cache)
{
    if (!cache) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'cache' is NULL");
    *cache = NULL;
    if (!device) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'device' is NULL");
    cache_shape shape;
    size_t host_bytes, device_bytes;
    OCTAVO_TRY(shape_of(config, &shape));
    shape.mirrored = octavo_device_kind_of(device) != OCTAVO_DEVICE_CPU;
    OCTAVO_TRY(measure(&shape, &host_bytes, &device_bytes));
    OCTAVO_TRY(check_memory(config, device_bytes));

    arena host = { .base = octavo_context_allocate(octavo_device_context(device), host_bytes, HOST_ALIGN) };
    if (!host.base) return octavo_fail(OCTAVO_E_NOMEM, "no %zu bytes for the cache's bookkeeping", host_bytes);
    void *memory = config->memory;
    if (!memory) {
        const octavo_status status = octavo_device_allocate(device, device_bytes, &memory);
        if (status != OCTAVO_OK) {
            octavo_context_release(octavo_device_context(device), host.base, host_bytes);
            return status;
        }
    }
    arena placed = { .base = memory };
    octavo_kvcache *home;
    const octavo_kvcache at = place(&shape, &host, &placed, &home);
    *home = at;
    home->device = device;
    home->memory = memory;
    home->memory_bytes = device_bytes;
    home->host_bytes = host_bytes;
    home->owns_memory = !config->memory;
    fill(home);
    *cache = home;
    return OCTAVO_OK;
}

void octavo_kvcache_destroy(octavo_kvcache *cache)
{
    if (!cache) return;
    octavo_context_release(octavo_device_context(cache->device), cache->copies, (size_t)cache->copy_room * sizeof *cache->copies);
    if (cache->owns_memory) octavo_device_release(cache->device, cache->memory, cache->memory_bytes);
    octavo_context_release(octavo_device_context(cache->device), cache, cache->host_bytes);
}
