/* bench_store.c - the pages that a benchmark decodes from. */
#include "bench_store.h"
#include "cli.h"
#include "machine.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int bench_store_bytes(const octavo_page_config *config, int64_t sequences, int64_t tokens, size_t *bytes)
{
    size_t page;
    if (octavo_page_bytes(config, &page) != OCTAVO_OK) return cli_refuse_last();
    const int64_t pages = (tokens - 1) / config->block_tokens + 1;
    int64_t all_pages;
    if (__builtin_mul_overflow(pages, sequences, &all_pages) || all_pages > INT32_MAX ||
        __builtin_mul_overflow(page, (size_t)all_pages, bytes))
        return cli_refuse("a cache of %" PRId64 " sequences of %" PRId64 " tokens with pages of %zu bytes is larger than can be addressed",
                          sequences, tokens, page);
    return EXIT_DONE;
}

int bench_store_init(bench_store *store, const octavo_page_config *config, int64_t sequences, int64_t tokens)
{
    memset(store, 0, sizeof *store);
    int status = bench_store_bytes(config, sequences, tokens, &store->pool_bytes);
    if (status != EXIT_DONE) return status;
    store->config = *config;
    store->sequences = sequences;
    store->tokens = store->max_tokens = tokens;
    store->pages_per_sequence = (tokens - 1) / config->block_tokens + 1;
    const int64_t pages = sequences * store->pages_per_sequence;
    store->pool = machine_map(store->pool_bytes);
    store->page_table = malloc((size_t)pages * sizeof *store->page_table);
    store->lengths = malloc((size_t)sequences * sizeof *store->lengths);
    if (!store->pool || !store->page_table || !store->lengths) {
        status = cli_refuse("there is no memory for a cache of %zu MiB", store->pool_bytes >> 20);
        bench_store_fini(store);
        return status;
    }
    for (int64_t page = 0; page < pages; page++) store->page_table[page] = (int32_t)page;
    for (int64_t sequence = 0; sequence < sequences; sequence++) store->lengths[sequence] = (int32_t)tokens;
    store->view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    if (octavo_kv_view_over_pool(config, store->pool, pages, 0, &store->view) != OCTAVO_OK) {
        status = cli_refuse_last();
        bench_store_fini(store);
        return status;
    }
    store->view.batch = sequences;
    store->view.max_tokens = tokens;
    store->view.lengths = store->lengths;
    store->view.page_table = store->page_table;
    store->view.page_table_stride = store->pages_per_sequence;
    return EXIT_DONE;
}

int bench_store_send(bench_store *store, const octavo_exec *exec)
{
    return bench_on_gpu(exec) ? bench_pools_send(&store->there, exec, store->pool, store->pool_bytes) : EXIT_DONE;
}

void bench_store_fini(bench_store *store)
{
    bench_pools_fini(&store->there);
    machine_unmap(store->pool, store->pool_bytes);
    free(store->page_table);
    free(store->lengths);
    memset(store, 0, sizeof *store);
}

int bench_store_append(bench_store *store, const octavo_exec *exec, int64_t sequence, int64_t first, const octavo_tensor *k,
                       const octavo_tensor *v)
{
    const int32_t row = (int32_t)sequence, position = (int32_t)first;
    octavo_kv_view one = store->view;
    one.batch = 1;
    one.sequences = &row;
    return octavo_kv_append(exec, &one, k, v, &position) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}
