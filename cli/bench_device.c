/* bench_device.c - pages and arrays on a GPU, and calls timed as graphs. */
#include "bench_device.h"
#include "cli.h"
#include <stdlib.h>
#include <string.h>

enum { CACHES_LEAST = 4, CACHES_LONG = 64, CALLS_LEAST = 16, COPIES_MOST = 1024, READ_PASSES = 5 };
static const size_t READ_BYTES = (size_t)1 << 30;
static const double BUSY_SECONDS = 0.01, SHORTEST = 1e-4 /* so that there are at most a hundred replays */;

int bench_on_gpu(const octavo_exec *exec) { return octavo_device_kind_of(exec->device) == OCTAVO_DEVICE_CUDA; }

static int64_t cache_bytes(const octavo_exec *exec)
{
    octavo_device_info info = OCTAVO_DEVICE_INFO_INIT;
    const char *number = strchr(octavo_device_name(exec->device), ':');
    if (!number || octavo_cuda_device_info(atoi(number + 1), &info) != OCTAVO_OK) return 0;
    return info.l2_bytes;
}

/* ---- pages ---- */

int bench_pools_send(bench_pools *pools, const octavo_exec *exec, const void *pool, size_t bytes)
{
    const size_t cache = (size_t)cache_bytes(exec);
    const int64_t wanted = (int64_t)(CACHES_LONG * cache / bytes) + 1, least = (int64_t)(CACHES_LEAST * cache / bytes) + 1;
    pools->device = exec->device;
    pools->pools = calloc(COPIES_MOST, sizeof *pools->pools);
    if (!pools->pools) return cli_refuse("there is no memory for a list of pools");
    while (pools->count < wanted && pools->count < COPIES_MOST) {
        void **made = &pools->pools[pools->count];
        if (octavo_device_allocate(exec->device, bytes, made) != OCTAVO_OK) {
            if (pools->count >= least) break;
            return cli_refuse_last();
        }
        pools->count++;
        if (octavo_device_upload(exec, *made, pool, bytes) != OCTAVO_OK) return cli_refuse_last();
    }
    return octavo_device_synchronize(exec) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

void bench_pools_fini(bench_pools *pools)
{
    for (int64_t i = 0; i < pools->count; i++) octavo_device_release(pools->device, pools->pools[i], 0);
    free(pools->pools);
    memset(pools, 0, sizeof *pools);
}

/* ---- arrays ---- */

static int is_input(int array) { return array == THERE_Q || array == THERE_LENGTHS || array == THERE_PAGES; }

int bench_there_init(bench_there *there, octavo_device *device, const size_t bytes[THERE_ARRAYS])
{
    there->device = device;
    for (int i = 0; i < THERE_ARRAYS; i++) {
        there->bytes[i] = bytes[i];
        if (octavo_device_allocate(device, bytes[i], &there->arrays[i]) != OCTAVO_OK) return cli_refuse_last();
    }
    return EXIT_DONE;
}

void bench_there_fini(bench_there *there)
{
    for (int i = 0; i < THERE_ARRAYS; i++) octavo_device_release(there->device, there->arrays[i], there->bytes[i]);
    octavo_device_graph_destroy(there->device, there->graph);
    memset(there, 0, sizeof *there);
}

int bench_there_send(const bench_there *there, const octavo_exec *exec, void *const host[THERE_ARRAYS])
{
    for (int i = 0; i < THERE_ARRAYS; i++)
        if (is_input(i) && octavo_device_upload(exec, there->arrays[i], host[i], there->bytes[i]) != OCTAVO_OK) return cli_refuse_last();
    return EXIT_DONE;
}

int bench_there_fetch(const bench_there *there, const octavo_exec *exec, void *const host[THERE_ARRAYS])
{
    for (int i = 0; i < THERE_ARRAYS; i++)
        if (!is_input(i) && octavo_device_download(exec, host[i], there->arrays[i], there->bytes[i]) != OCTAVO_OK) return cli_refuse_last();
    return EXIT_DONE;
}

/* ---- time ---- */

octavo_status bench_graph_time(const octavo_exec *exec, void *graph, double *seconds)
{
    double once;
    octavo_status status = octavo_device_graph_time(exec, graph, &once);
    for (double busy = 0.0; status == OCTAVO_OK && busy < BUSY_SECONDS; busy += once + SHORTEST) status = octavo_device_graph_replay(exec, graph);
    return status == OCTAVO_OK ? octavo_device_graph_time(exec, graph, seconds) : status;
}

/* The view with its sections in another pool. */
static octavo_status view_in(const octavo_kv_view *view, const octavo_page_config *config, void *pool, int64_t pages, octavo_kv_view *made)
{
    *made = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    const octavo_status status = octavo_kv_view_over_pool(config, pool, pages, 0, made);
    made->batch = view->batch, made->max_tokens = view->max_tokens, made->lengths = view->lengths;
    made->page_table = view->page_table, made->page_table_stride = view->page_table_stride, made->device_kind = view->device_kind;
    return status;
}

static octavo_status record(bench_there *there, const octavo_exec *exec, const octavo_decode_params *params, const octavo_page_config *config,
                            const bench_pools *pools, int64_t pages)
{
    there->calls = pools->count > CALLS_LEAST ? pools->count : CALLS_LEAST;
    octavo_status status = octavo_device_graph_begin(exec);
    for (int64_t i = 0; status == OCTAVO_OK && i < there->calls; i++) {
        octavo_kv_view view;
        octavo_decode_params call = *params;
        status = view_in(params->kv, config, pools->pools[i % pools->count], pages, &view);
        call.kv = &view;
        if (status == OCTAVO_OK) status = octavo_attention_decode(exec, &call);
    }
    return status == OCTAVO_OK ? octavo_device_graph_end(exec, &there->graph) : status;
}

int bench_there_time(bench_there *there, const octavo_exec *exec, const octavo_decode_params *params, const octavo_page_config *config,
                     const bench_pools *pools, int64_t pages, double *ms)
{
    double seconds;
    if (!there->graph && record(there, exec, params, config, pools, pages) != OCTAVO_OK) return cli_refuse_last();
    if (bench_graph_time(exec, there->graph, &seconds) != OCTAVO_OK) return cli_refuse_last();
    *ms = 1e3 * seconds / (double)there->calls;
    return EXIT_DONE;
}

static octavo_status time_reads(const octavo_exec *exec, const void *data, uint64_t *sum, double *best)
{
    void *graph = NULL;
    octavo_status status = octavo_device_checksum(exec, data, READ_BYTES, sum);
    if (status == OCTAVO_OK) status = octavo_device_graph_begin(exec);
    if (status == OCTAVO_OK) status = octavo_device_checksum(exec, data, READ_BYTES, sum);
    if (status == OCTAVO_OK) status = octavo_device_graph_end(exec, &graph);
    for (int pass = 0; status == OCTAVO_OK && pass < READ_PASSES; pass++) {
        double seconds;
        status = bench_graph_time(exec, graph, &seconds);
        if (status == OCTAVO_OK && seconds < *best) *best = seconds;
    }
    octavo_device_graph_destroy(exec->device, graph);
    return status;
}

int bench_device_read_speed(const octavo_exec *exec, double *gbps)
{
    void *data = NULL, *sum = NULL;
    double best = 1e9;
    octavo_status status = octavo_device_allocate(exec->device, READ_BYTES, &data);
    if (status == OCTAVO_OK) status = octavo_device_allocate(exec->device, sizeof(uint64_t), &sum);
    if (status == OCTAVO_OK) status = time_reads(exec, data, sum, &best);
    octavo_device_release(exec->device, data, READ_BYTES);
    octavo_device_release(exec->device, sum, sizeof(uint64_t));
    *gbps = (double)READ_BYTES / best * 1e-9;
    return status == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}
