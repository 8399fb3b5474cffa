/* bench_kproj_device.c - times the K projection on a GPU beside a linear layer, and beside it, RoPE and encoding in sequence. */
#include "bench_kproj_device.h"
#include "bench_device.h"
#include "bench_median.h"
#include "bench_store.h"
#include "cli.h"
#include "kproj_values.h"
#include "octavo/linear.h"
#include <stdlib.h>
#include <string.h>

enum { CALLS_LEAST = 96, PLAIN_BLOCK = 64 };

enum { FUSED, GEMM, UNFUSED, CALLS };

/* Arrays on the device. */
enum { H, Y, SCALES, INV_FREQ, POSITIONS, LENGTHS, PAGES, POOL, WORKSPACE, ARRAYS };

typedef struct device_stage {
    const kproj_settings *settings;
    octavo_exec exec;
    int64_t batch, each, rows; /* sequences, new tokens of each, rows of W          */
    octavo_dtype wide;         /* of h and y                                         */
    bench_pools weights;       /* W, several times over                              */
    size_t weight_bytes;
    void *arrays[ARRAYS];
    size_t bytes[ARRAYS];
    bench_store store;         /* sizes and the host's side of the tables            */
    octavo_kv_view view;
    void *graphs[CALLS];
    int64_t calls;             /* of a graph */
} device_stage;

static int is_narrow(const kproj_settings *settings) { return settings->weights == OCTAVO_E4M3 || settings->weights == OCTAVO_INT8; }

static int allocate(device_stage *s, int which, size_t bytes)
{
    s->bytes[which] = bytes;
    return octavo_device_allocate(s->exec.device, bytes, &s->arrays[which]) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int send(device_stage *s, int which, const void *from, size_t bytes)
{
    const int status = allocate(s, which, bytes);
    if (status != EXIT_DONE) return status;
    return octavo_device_upload(&s->exec, s->arrays[which], from, bytes) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static void stage_fini(device_stage *s)
{
    for (int i = 0; i < CALLS; i++) octavo_device_graph_destroy(s->exec.device, s->graphs[i]);
    for (int i = 0; i < ARRAYS; i++) octavo_device_release(s->exec.device, s->arrays[i], s->bytes[i]);
    bench_pools_fini(&s->weights);
    bench_store_fini(&s->store);
}

/* ---- what the calls are given ---- */

/* Fills an array on the host, sends it to where `which` says, or W to its copies. */
static int send_values(device_stage *s, int which, int64_t count, octavo_dtype dtype, uint64_t seed)
{
    const size_t bytes = (size_t)count * octavo_dtype_bytes(dtype);
    void *values = malloc(bytes);
    if (!values) return cli_refuse("there is no memory for %zu bytes", bytes);
    for (int64_t i = 0; i < count; i++) kproj_put(values, dtype, i, kproj_value((uint64_t)i + seed));
    const int status = which < ARRAYS ? send(s, which, values, bytes) : bench_pools_send(&s->weights, &s->exec, values, bytes);
    free(values);
    return status;
}

static int send_tables(device_stage *s)
{
    const int64_t pairs = s->settings->head_dim / 2;
    float *table = malloc((size_t)(s->rows > pairs ? s->rows : pairs) * sizeof *table);
    int32_t *positions = malloc((size_t)(s->batch * s->each) * sizeof *positions);
    int status = table && positions ? EXIT_DONE : cli_refuse("there is no memory for a table");
    for (int64_t i = 0; status == EXIT_DONE && i < s->batch * s->each; i++) positions[i] = (int32_t)(i % s->each);
    if (status == EXIT_DONE) status = send(s, POSITIONS, positions, (size_t)(s->batch * s->each) * sizeof *positions);
    for (int64_t i = 0; status == EXIT_DONE && i < s->rows; i++) table[i] = 0x1p-7f;
    if (status == EXIT_DONE && is_narrow(s->settings)) status = send(s, SCALES, table, (size_t)s->rows * sizeof *table);
    for (int64_t i = 0; status == EXIT_DONE && i < pairs; i++) table[i] = kproj_inv_freq(i, s->settings->head_dim);
    if (status == EXIT_DONE) status = send(s, INV_FREQ, table, (size_t)pairs * sizeof *table);
    free(table);
    free(positions);
    if (status == EXIT_DONE) status = send(s, LENGTHS, s->store.lengths, (size_t)s->batch * sizeof *s->store.lengths);
    if (status == EXIT_DONE)
        status = send(s, PAGES, s->store.page_table, (size_t)(s->batch * s->store.pages_per_sequence) * sizeof *s->store.page_table);
    return status;
}

static int make_view(device_stage *s)
{
    int status = allocate(s, POOL, s->store.pool_bytes);
    if (status != EXIT_DONE) return status;
    s->view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    if (octavo_kv_view_over_pool(&s->store.config, s->arrays[POOL], s->batch * s->store.pages_per_sequence, 0, &s->view) != OCTAVO_OK)
        return cli_refuse_last();
    s->view.batch = s->batch, s->view.max_tokens = s->each, s->view.device_kind = OCTAVO_DEVICE_CUDA;
    s->view.lengths = s->arrays[LENGTHS], s->view.page_table = s->arrays[PAGES], s->view.page_table_stride = s->store.pages_per_sequence;
    return EXIT_DONE;
}

static octavo_tensor there(void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape)
{
    octavo_tensor tensor = octavo_tensor_view(data, dtype, ndim, shape);
    tensor.device_kind = OCTAVO_DEVICE_CUDA;
    return tensor;
}

static octavo_weight weight_of(const device_stage *s, int64_t copy)
{
    const int64_t shape[] = { s->rows, s->settings->hidden };
    octavo_weight weight = { .scales = s->arrays[SCALES], .block_rows = 1 };
    weight.codes = there(s->weights.pools[copy], s->settings->weights, 2, shape);
    return weight;
}

static octavo_rope rope_of(const device_stage *s) { return (octavo_rope){ OCTAVO_ROPE_ROTATE_HALF, 0, s->arrays[INV_FREQ], 0.0f }; }

static octavo_k_project_params fused_of(const device_stage *s, int64_t copy)
{
    const int64_t shape[] = { s->batch, s->each, s->settings->hidden };
    octavo_k_project_params params = OCTAVO_K_PROJECT_PARAMS_INIT;
    params.h = there(s->arrays[H], s->wide, 3, shape);
    params.weight = weight_of(s, copy);
    params.rope = rope_of(s);
    params.positions = s->arrays[POSITIONS];
    params.kv = &s->view;
    return params;
}

static octavo_linear_params linear_of(const device_stage *s, int64_t copy)
{
    const int64_t x[] = { s->batch * s->each, s->settings->hidden }, y[] = { s->batch * s->each, s->rows };
    octavo_linear_params params = OCTAVO_LINEAR_PARAMS_INIT;
    params.x = there(s->arrays[H], s->wide, 2, x);
    params.precision = s->wide == OCTAVO_F32 ? OCTAVO_LINEAR_F32 : OCTAVO_LINEAR_BF16;
    params.part_count = 1;
    params.parts[0].weight = weight_of(s, copy);
    params.parts[0].y = there(s->arrays[Y], s->wide, 2, y);
    return params;
}

static int make_workspace(device_stage *s)
{
    const octavo_k_project_params fused = fused_of(s, 0);
    const octavo_linear_params linear = linear_of(s, 0);
    size_t bytes, more;
    if (octavo_k_project_workspace(&s->exec, &fused, &bytes) != OCTAVO_OK || octavo_linear_workspace(&s->exec, &linear, &more) != OCTAVO_OK)
        return cli_refuse_last();
    const int status = allocate(s, WORKSPACE, bytes > more ? bytes : more);
    s->exec.workspace = s->arrays[WORKSPACE], s->exec.workspace_bytes = s->bytes[WORKSPACE];
    return status;
}

static int stage_init(device_stage *s)
{
    const kproj_settings *settings = s->settings;
    const int64_t tokens = s->batch * s->each;
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = settings->k_format, page.v_format = OCTAVO_V_BF16;
    page.kv_heads = (int32_t)settings->kv_heads, page.head_dim = page.v_dim = (int32_t)settings->head_dim;
    page.block_tokens = page.sub_block_tokens = PLAIN_BLOCK;
    s->wide = settings->weights == OCTAVO_F32 ? OCTAVO_F32 : OCTAVO_BF16;
    s->weight_bytes = (size_t)(s->rows * settings->hidden) * octavo_dtype_bytes(settings->weights);
    int status = bench_store_init(&s->store, &page, s->batch, s->each);
    if (status == EXIT_DONE) status = send_values(s, ARRAYS, s->rows * settings->hidden, settings->weights, 0);
    if (status == EXIT_DONE) status = send_values(s, H, tokens * settings->hidden, s->wide, UINT64_C(1) << 40);
    if (status == EXIT_DONE) status = allocate(s, Y, (size_t)(tokens * s->rows) * octavo_dtype_bytes(s->wide));
    if (status == EXIT_DONE) status = send_tables(s);
    if (status == EXIT_DONE) status = make_view(s);
    return status == EXIT_DONE ? make_workspace(s) : status;
}

/* ---- what is timed ---- */

static octavo_status run_fused(const device_stage *s, int64_t copy)
{
    const octavo_k_project_params params = fused_of(s, copy);
    return octavo_k_project(&s->exec, &params);
}

static octavo_status run_gemm(const device_stage *s, int64_t copy)
{
    const octavo_linear_params params = linear_of(s, copy);
    return octavo_linear(&s->exec, &params);
}

static octavo_status run_unfused(const device_stage *s, int64_t copy)
{
    const int64_t shape[] = { s->batch, s->each, s->settings->kv_heads, s->settings->head_dim };
    const octavo_tensor k = there(s->arrays[Y], s->wide, 4, shape);
    octavo_rope_apply_params turn = OCTAVO_ROPE_APPLY_PARAMS_INIT;
    turn.x = k, turn.rope = rope_of(s), turn.positions = s->arrays[POSITIONS];
    octavo_status status = run_gemm(s, copy);
    if (status == OCTAVO_OK) status = octavo_rope_apply(&s->exec, &turn);
    return status == OCTAVO_OK ? octavo_kv_append(&s->exec, &s->view, &k, NULL, s->arrays[POSITIONS]) : status;
}

static octavo_status record(device_stage *s, int which)
{
    static octavo_status (*const call[CALLS])(const device_stage *, int64_t) = { run_fused, run_gemm, run_unfused };
    octavo_status status = call[which](s, 0); /* what is made at the first call is made now */
    if (status == OCTAVO_OK) status = octavo_device_graph_begin(&s->exec);
    for (int64_t i = 0; status == OCTAVO_OK && i < s->calls; i++) status = call[which](s, i % s->weights.count);
    return status == OCTAVO_OK ? octavo_device_graph_end(&s->exec, &s->graphs[which]) : status;
}

static int measure(device_stage *s, kproj_row *row)
{
    const int64_t repeat = s->settings->repeat;
    double *times = malloc((size_t)(CALLS * repeat) * sizeof *times);
    octavo_status status = times ? OCTAVO_OK : OCTAVO_E_NOMEM;
    s->calls = s->weights.count > CALLS_LEAST ? s->weights.count : CALLS_LEAST;
    for (int i = 0; status == OCTAVO_OK && i < CALLS; i++) status = record(s, i);
    for (int64_t r = 0; status == OCTAVO_OK && r < repeat; r++)
        for (int i = 0; status == OCTAVO_OK && i < CALLS; i++) {
            status = bench_graph_time(&s->exec, s->graphs[i], &times[i * repeat + r]);
            times[i * repeat + r] *= 1e3 / (double)s->calls;
        }
    if (status == OCTAVO_OK) {
        row->ms = bench_median(times + FUSED * repeat, repeat);
        row->gemm_ms = bench_median(times + GEMM * repeat, repeat);
        row->unfused_ms = bench_median(times + UNFUSED * repeat, repeat);
    }
    free(times);
    return status == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

int kproj_device_measure(const kproj_settings *settings, const octavo_exec *exec, double read_gbps, int64_t tokens, kproj_row *row)
{
    device_stage stage = { .settings = settings, .exec = *exec, .rows = settings->kv_heads * settings->head_dim };
    stage.batch = tokens <= KPROJ_BATCH_MOST ? tokens : 1, stage.each = tokens / stage.batch;
    int status = stage_init(&stage);
    if (status == EXIT_DONE) status = measure(&stage, row);
    if (status == EXIT_DONE) {
        row->tokens = tokens, row->batch = stage.batch;
        row->bytes = (int64_t)(stage.weight_bytes + stage.bytes[SCALES]);
        row->read_gbps = read_gbps;
        row->gbps = (double)row->bytes / row->ms * 1e-6;
        row->read_share = row->gbps / row->read_gbps;
    }
    stage_fini(&stage);
    return status;
}
