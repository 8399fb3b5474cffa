/* kvcache_fixture.h - a device whose memory is counted, and a small cache of two groups, for the tests of the cache manager. */
#ifndef OCTAVO_TESTS_KVCACHE_FIXTURE_H
#define OCTAVO_TESTS_KVCACHE_FIXTURE_H

#include "kvcache/kvcache_state.h"
#include "octavo/octavo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HEADS = 2, DIM = 8, V_DIM = 6, BLOCK = 16, SEQUENCES = 5, TOKENS = 150, LAYERS = 3, WINDOW = 40, SINK = 5, PAGES = 26 };

typedef struct memory_count {
    int64_t blocks;
    int32_t fail_at; /* counts down; the allocation that reaches 0 fails */
} memory_count;

typedef struct fixture {
    memory_count count;
    octavo_context *context;
    octavo_device *device;
    octavo_exec exec;
    uint64_t random;
} fixture;

static inline void *counted_allocate(void *user, size_t bytes, size_t alignment)
{
    memory_count *count = user;
    if (count->fail_at > 0 && --count->fail_at == 0) return NULL;
    count->blocks++;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static inline void counted_release(void *user, void *memory, size_t bytes)
{
    (void)bytes;
    ((memory_count *)user)->blocks -= memory != NULL;
    free(memory);
}

static inline int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    octavo_context_config config = OCTAVO_CONTEXT_CONFIG_INIT;
    config.allocator = (octavo_allocator){ counted_allocate, counted_release, &f->count };
    if (octavo_context_create(&config, &f->context) || octavo_device_open(f->context, "cpu", &f->device)) return -1;
    f->exec = (octavo_exec)OCTAVO_EXEC_INIT;
    f->exec.device = f->device;
    f->exec.threads = 1;
    f->random = 20240607;
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    fixture *f = *state;
    octavo_device_close(f->device);
    octavo_context_destroy(f->context);
    const int64_t leaked = f->count.blocks;
    free(f);
    return leaked == 0 ? 0 : -1;
}

static inline uint32_t draw(fixture *f, uint32_t below)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->random >> 33) % below;
}

static const octavo_kvcache_group two_groups[] = { { 2, 0, 0 }, { 1, SINK, WINDOW } };

static inline octavo_kvcache_config small_config(void)
{
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    config.page = (octavo_page_config){ .k_format = OCTAVO_K_BF16, .v_format = OCTAVO_V_BF16, .kv_heads = HEADS, .head_dim = DIM,
                                        .v_dim = V_DIM, .block_tokens = BLOCK, .sub_block_tokens = BLOCK / 2 };
    config.groups = two_groups;
    config.group_count = 2;
    config.max_sequences = SEQUENCES;
    config.max_tokens = TOKENS;
    config.pages = PAGES;
    return config;
}

#endif
