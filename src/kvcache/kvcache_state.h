/* kvcache_state.h - what the cache manager remembers: pages, groups of layers, sequences.
 *
 * Page id i of a group is the same slot in the pool of each of its layers, so one page table and one count of references serve
 * them all. Of a sequence's blocks [0, blocks), those in [sink_blocks, released) have left the window and hold no page; every
 * other block holds one. A page may be written only while one sequence holds it.
 *
 * All decisions are the host's. On a GPU what kernels read (page tables, lengths) is a mirror of the host's arrays; it is renewed in
 * order with the work of the call that needs it, and so are copies of shared pages: until then they wait in a list. */
#ifndef OCTAVO_KVCACHE_STATE_H
#define OCTAVO_KVCACHE_STATE_H

#include "device/device.h"
#include <stdbool.h>

enum { OCTAVO_NO_PAGE = -1 };

/* The pages of one group. Arrays of the device are marked (device); the others lie with the bookkeeping on the host. */
typedef struct octavo_page_group {
    int32_t first_layer, layers;
    int64_t window;      /* tokens; 0: all                                                              */
    int64_t sink_blocks; /* blocks with sink tokens, which the window never gives back                  */
    uint8_t *pool;       /* (device) [layers, pages, page_bytes]                                        */
    int32_t *page_table; /* [max_sequences, table_blocks] OCTAVO_NO_PAGE where there is none            */
    int32_t *device_page_table; /* (device) its mirror; on the CPU the same memory                      */
    int32_t stale_begin, stale_end; /* rows of the mirror that may lag                                  */
    int32_t *references; /* [pages] sequences that hold the page; 0: free                               */
    int32_t *free_pages; /* [pages] the first free_count are free, the last of them is taken next       */
    int64_t free_count;
    int64_t *blocks;     /* [max_sequences] */
    int64_t *released;   /* [max_sequences] sink_blocks: nothing has left the window */
} octavo_page_group;

/* A page that became two: to be copied in every layer of its group, in the order of the list. */
typedef struct octavo_page_copy {
    int32_t group, from, to;
} octavo_page_copy;

struct octavo_kvcache {
    octavo_device *device;
    octavo_page_config page; /* no zero stands for a default */
    int64_t page_bytes;
    int32_t group_count, layers, max_sequences;
    int64_t max_tokens, pages;
    int64_t table_blocks;      /* blocks of max_tokens: a row of the page table        */
    octavo_page_group *groups; /* [group_count]                                        */
    int32_t *group_of_layer;   /* [layers]                                             */
    uint8_t *alive;            /* [max_sequences]                                      */
    uint64_t *last_append;     /* [max_sequences] number of the append that last named it */
    uint64_t appends;
    int32_t *lengths;          /* [layers, max_sequences] tokens stored                */
    int32_t *call;             /* [2, max_sequences] positions and sequences of the append that runs */
    int32_t *device_lengths, *device_call; /* (device) mirrors; on the CPU the same memory */
    bool mirrored;             /* the device is no CPU                                 */
    bool lengths_stale;        /* device_lengths lags                                  */
    octavo_page_copy *copies;  /* [copy_room] the first copy_count wait                */
    int64_t copy_count, copy_room;
    void *memory;              /* (device)                                             */
    size_t memory_bytes, host_bytes;
    bool owns_memory;
};

/* OCTAVO_E_RANGE: it is not alive. */
octavo_status octavo_kvcache_check_sequence(const octavo_kvcache *cache, int32_t sequence);

/* Every block of the layer that the tokens touch has a page, and nobody else holds it. OCTAVO_E_RANGE: reserve first. */
octavo_status octavo_kvcache_check_room(const octavo_kvcache *cache, int32_t layer, int32_t sequence, int64_t tokens);

static inline int32_t *octavo_kvcache_length_at(const octavo_kvcache *cache, int32_t layer, int32_t sequence)
{
    return &cache->lengths[(int64_t)layer * cache->max_sequences + sequence];
}

static inline int32_t *octavo_kvcache_page_at(const octavo_kvcache *cache, const octavo_page_group *group, int32_t sequence,
                                              int64_t block)
{
    return &group->page_table[sequence * cache->table_blocks + block];
}

/* Blocks that hold the first `tokens` tokens. */
static inline int64_t octavo_kvcache_blocks_of(const octavo_kvcache *cache, int64_t tokens)
{
    return tokens / cache->page.block_tokens + (tokens % cache->page.block_tokens != 0);
}

#endif
