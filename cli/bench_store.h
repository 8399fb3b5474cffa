/* bench_store.h - K and V of a benchmark, encoded into pages of an own pool. */
#ifndef OCTAVO_CLI_BENCH_STORE_H
#define OCTAVO_CLI_BENCH_STORE_H

#include "bench_device.h"
#include "octavo/attention.h"

typedef struct bench_store {
    octavo_page_config config;
    void *pool; /* in huge pages; sequence b has pages [b * pages_per_sequence, ...) in the order of its tokens */
    size_t pool_bytes;
    int64_t sequences, pages_per_sequence, tokens;
    int64_t max_tokens; /* that calls are planned for, at least tokens */
    octavo_kv_view view; /* all sequences with all tokens */
    int32_t *page_table, *lengths;
    bench_pools there; /* the pages on a GPU: bench_store_send */
} bench_store;

/* Bytes of a pool; EXIT_REFUSED after a sentence: a shape that there is no page for, or that overflows. */
int bench_store_bytes(const octavo_page_config *config, int64_t sequences, int64_t tokens, size_t *bytes);
int bench_store_init(bench_store *store, const octavo_page_config *config, int64_t sequences, int64_t tokens);
void bench_store_fini(bench_store *store); /* a zeroed one is fine */

/* Copies what is encoded to the device that calls will run on; on the CPU it is there. */
int bench_store_send(bench_store *store, const octavo_exec *exec);

/* Encodes k and v [1, count, kv_heads, dim] as tokens from `first` on. */
int bench_store_append(bench_store *store, const octavo_exec *exec, int64_t sequence, int64_t first, const octavo_tensor *k,
                       const octavo_tensor *v);

#endif
