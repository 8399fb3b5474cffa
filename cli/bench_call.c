/* bench_call.c - prepares decode calls: views, queries, outputs and workspace. */
#include "bench_call.h"
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

float bench_softmax_scale(int64_t head_dim) { return (float)(1 / sqrt((double)head_dim)); }

static void *array(int64_t a, int64_t b, size_t element)
{
    size_t count;
    return __builtin_mul_overflow((size_t)a, (size_t)b, &count) ? NULL : calloc(count, element);
}

static int allocate(bench_call *call)
{
    call->q = array(call->rows, call->q_heads * call->head_dim, octavo_dtype_bytes(call->dtype));
    call->out = array(call->rows, call->q_heads * call->v_dim, sizeof *call->out);
    call->skip_ratio = array(call->rows, call->kv_heads, sizeof *call->skip_ratio);
    call->skip_ratio_first = array(call->rows, call->kv_heads, sizeof *call->skip_ratio_first);
    call->dropped_mass = array(call->rows, call->q_heads, sizeof *call->dropped_mass);
    call->bytes_read = array(call->rows, call->kv_heads, sizeof *call->bytes_read);
    call->lengths = array(call->rows, 1, sizeof *call->lengths);
    call->page_table = array(call->rows, call->table_pages, sizeof *call->page_table);
    if (call->q && call->out && call->skip_ratio && call->skip_ratio_first && call->dropped_mass && call->bytes_read && call->lengths && call->page_table)
        return EXIT_DONE;
    return cli_refuse("there is no memory for the queries and outputs of a decode call");
}

static octavo_tensor tensor_of(const bench_call *call, int array, void *here, octavo_dtype dtype, const int64_t *shape)
{
    const int gpu = bench_on_gpu(&call->exec);
    octavo_tensor tensor = octavo_tensor_view(gpu ? call->there.arrays[array] : here, dtype, 4, shape);
    tensor.device_kind = gpu ? OCTAVO_DEVICE_CUDA : OCTAVO_DEVICE_CPU;
    return tensor;
}

static void set_rows(bench_call *call, int64_t rows)
{
    const int64_t q_shape[] = { rows, 1, call->q_heads, call->head_dim }, out_shape[] = { rows, 1, call->q_heads, call->v_dim };
    call->view.batch = rows;
    call->params.q = tensor_of(call, THERE_Q, call->q, call->dtype, q_shape);
    call->params.out = tensor_of(call, THERE_OUT, call->out, OCTAVO_F32, out_shape);
}

static void host_arrays(const bench_call *call, void *host[THERE_ARRAYS])
{
    host[THERE_Q] = call->q, host[THERE_OUT] = call->out, host[THERE_SKIP] = call->skip_ratio;
    host[THERE_SKIP_FIRST] = call->skip_ratio_first, host[THERE_MASS] = call->dropped_mass, host[THERE_BYTES] = call->bytes_read;
    host[THERE_LENGTHS] = call->lengths, host[THERE_PAGES] = call->page_table;
}

/* The call's arrays and view move to the GPU; what is on the host is copied before and after each run. */
static int move_there(bench_call *call)
{
    const int64_t pairs = call->rows * call->kv_heads, heads = call->rows * call->q_heads;
    size_t bytes[THERE_ARRAYS];
    bytes[THERE_Q] = (size_t)(heads * call->head_dim) * octavo_dtype_bytes(call->dtype);
    bytes[THERE_OUT] = (size_t)(heads * call->v_dim) * sizeof *call->out;
    bytes[THERE_SKIP] = bytes[THERE_SKIP_FIRST] = (size_t)pairs * sizeof *call->skip_ratio;
    bytes[THERE_MASS] = (size_t)heads * sizeof *call->dropped_mass, bytes[THERE_BYTES] = (size_t)pairs * sizeof *call->bytes_read;
    bytes[THERE_LENGTHS] = (size_t)call->rows * sizeof *call->lengths;
    bytes[THERE_PAGES] = (size_t)(call->rows * call->table_pages) * sizeof *call->page_table;
    const int status = bench_there_init(&call->there, call->exec.device, bytes);
    if (status != EXIT_DONE) return status;
    const int64_t pages = call->store->sequences * call->pages_per_sequence;
    if (octavo_kv_view_over_pool(&call->store->config, call->store->there.pools[0], pages, 0, &call->view) != OCTAVO_OK) return cli_refuse_last();
    call->view.max_tokens = call->store->max_tokens, call->view.page_table_stride = call->table_pages;
    call->view.device_kind = OCTAVO_DEVICE_CUDA;
    call->view.lengths = call->there.arrays[THERE_LENGTHS], call->view.page_table = call->there.arrays[THERE_PAGES];
    call->params.skip_ratio = call->there.arrays[THERE_SKIP], call->params.skip_ratio_first = call->there.arrays[THERE_SKIP_FIRST];
    call->params.dropped_mass = call->there.arrays[THERE_MASS], call->params.bytes_read = call->there.arrays[THERE_BYTES];
    return EXIT_DONE;
}

int bench_call_init(bench_call *call, const octavo_exec *exec, const bench_store *store, const bench_rule *rule, int64_t rows,
                    int64_t q_heads, octavo_dtype dtype)
{
    memset(call, 0, sizeof *call);
    call->exec = *exec;
    call->exec.workspace = NULL;
    call->exec.workspace_bytes = 0;
    call->rows = rows;
    call->q_heads = q_heads;
    call->dtype = dtype;
    call->kv_heads = store->config.kv_heads;
    call->head_dim = store->config.head_dim;
    call->v_dim = store->config.v_dim;
    call->pages_per_sequence = store->pages_per_sequence;
    call->table_pages = (store->max_tokens - 1) / store->config.block_tokens + 1;
    const int status = allocate(call);
    if (status != EXIT_DONE) return status;
    call->view = store->view;
    call->view.lengths = call->lengths;
    call->view.page_table = call->page_table;
    call->view.max_tokens = store->max_tokens, call->view.page_table_stride = call->table_pages;
    for (int64_t row = 0; row < rows; row++) bench_call_set_row(call, store, row, 0, store->tokens);
    call->params = (octavo_decode_params)OCTAVO_DECODE_PARAMS_INIT;
    call->params.kv = &call->view;
    call->params.softmax_scale = bench_softmax_scale(call->head_dim);
    call->params.select = rule->select;
    call->params.compensate = rule->compensate;
    call->params.delta = rule->delta;
    call->params.epsilon = rule->epsilon;
    call->params.precision = rule->precision;
    call->params.splits = rule->splits;
    call->params.skip_ratio = call->skip_ratio;
    call->params.skip_ratio_first = call->skip_ratio_first;
    call->params.dropped_mass = call->dropped_mass;
    call->params.bytes_read = call->bytes_read;
    call->store = store;
    if (bench_on_gpu(exec)) {
        const int moved = move_there(call);
        if (moved != EXIT_DONE) return moved;
    }
    set_rows(call, rows);
    size_t bytes;
    if (octavo_attention_decode_workspace(&call->exec, &call->params, &bytes) != OCTAVO_OK) return cli_refuse_last();
    if (bytes && octavo_device_allocate(exec->device, bytes, &call->exec.workspace) != OCTAVO_OK) return cli_refuse_last();
    call->exec.workspace_bytes = bytes;
    return EXIT_DONE;
}

void bench_call_fini(bench_call *call)
{
    if (call->exec.workspace) octavo_device_release(call->exec.device, call->exec.workspace, call->exec.workspace_bytes);
    if (call->there.device) bench_there_fini(&call->there);
    free(call->q);
    free(call->out);
    free(call->skip_ratio);
    free(call->skip_ratio_first);
    free(call->dropped_mass);
    free(call->bytes_read);
    free(call->lengths);
    free(call->page_table);
    memset(call, 0, sizeof *call);
}

void bench_call_set_row(bench_call *call, const bench_store *store, int64_t row, int64_t sequence, int64_t length)
{
    call->lengths[row] = (int32_t)length;
    memcpy(call->page_table + row * call->table_pages, store->page_table + sequence * store->pages_per_sequence,
           (size_t)store->pages_per_sequence * sizeof *call->page_table);
}

void *bench_call_query(bench_call *call, int64_t row)
{
    return (char *)call->q + (size_t)(row * call->q_heads * call->head_dim) * octavo_dtype_bytes(call->dtype);
}

int bench_call_run(bench_call *call, int64_t rows)
{
    void *host[THERE_ARRAYS];
    set_rows(call, rows);
    if (bench_on_gpu(&call->exec)) {
        host_arrays(call, host);
        if (bench_there_send(&call->there, &call->exec, host) != EXIT_DONE) return EXIT_REFUSED;
        if (octavo_attention_decode(&call->exec, &call->params) != OCTAVO_OK) return cli_refuse_last();
        if (bench_call_run_bare(call) != EXIT_DONE) return EXIT_REFUSED; /* the output is that of the call that is timed */
        return bench_there_fetch(&call->there, &call->exec, host);
    }
    return octavo_attention_decode(&call->exec, &call->params) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static octavo_decode_params bare_params(const bench_call *call)
{
    octavo_decode_params bare = call->params;
    bare.skip_ratio = bare.skip_ratio_first = bare.dropped_mass = NULL;
    bare.bytes_read = NULL;
    return bare;
}

int bench_call_run_bare(bench_call *call)
{
    const octavo_decode_params bare = bare_params(call);
    return octavo_attention_decode(&call->exec, &bare) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

int bench_call_time_there(bench_call *call, double *ms)
{
    const octavo_decode_params bare = bare_params(call);
    const int64_t pages = call->store->sequences * call->pages_per_sequence;
    return bench_there_time(&call->there, &call->exec, &bare, &call->store->config, &call->store->there, pages, ms);
}
