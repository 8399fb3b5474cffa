/* bench_measure.c - encodes a length, measures errors over its queries, then times it beside the baseline. */
#include "bench_measure.h"
#include "bench_call.h"
#include "bench_median.h"
#include "bench_reference.h"
#include "cli.h"
#include "machine.h"
#include "progress.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_ROWS = 16 /* queries of a call that is not timed */ };

/* The stores and references of one length. */
typedef struct bench_stage {
    bench_store store, exact; /* exact: bf16, for the baseline    */
    bench_reference *references; /* [reference_count]             */
    int64_t reference_count, queries, length;
    int64_t *lengths;         /* [queries] tokens that each query sees, newest first */
} bench_stage;

/* Sums over the queries and kv heads of one rule. */
typedef struct bench_sums {
    bench_error error;
    double skip, skip_first, largest_mass, bytes_token_head;
    int64_t heads;
} bench_sums;

static octavo_page_config page_config(const bench_run *run, octavo_k_format k, octavo_v_format v)
{
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    config.k_format = k;
    config.v_format = v;
    config.kv_heads = (int32_t)run->data.kv_heads;
    config.head_dim = (int32_t)run->data.head_dim;
    config.v_dim = (int32_t)run->data.v_dim;
    config.block_tokens = (int32_t)run->settings->cache.block;
    config.sub_block_tokens = (int32_t)run->settings->cache.sub_block;
    return config;
}

static bench_rule asked_rule(const bench_settings *settings)
{
    return (bench_rule){ settings->cache.select, settings->cache.compensate, (float)settings->cache.delta, (float)settings->cache.epsilon,
                         settings->attention, settings->cache.splits };
}

static int check_memory(const bench_run *run, int64_t longest)
{
    const octavo_page_config asked = page_config(run, run->settings->cache.k_format, run->settings->cache.v_format);
    const octavo_page_config exact = page_config(run, OCTAVO_K_BF16, OCTAVO_V_BF16);
    size_t a, b, sum, buffer = 8 * (size_t)machine_llc_bytes();
    const int status = bench_store_bytes(&asked, run->sequences, longest, &a);
    if (status != EXIT_DONE) return status;
    if (bench_store_bytes(&exact, run->sequences, longest, &b) != EXIT_DONE) return EXIT_REFUSED;
    const int64_t available = machine_available_bytes();
    if (__builtin_add_overflow(a, b, &sum) || __builtin_add_overflow(sum, buffer, &sum) || sum > (size_t)available)
        return cli_refuse("%" PRId64 " sequences of %" PRId64 " tokens take %zu + %zu MiB and the read speed's buffer %zu MiB, but only %" PRId64
                          " MiB are available", run->sequences, longest, a >> 20, b >> 20, buffer >> 20, available >> 20);
    return EXIT_DONE;
}

int bench_check(const bench_run *run, int64_t longest)
{
    const bench_rule rule = asked_rule(run->settings);
    const octavo_page_config asked = page_config(run, run->settings->cache.k_format, run->settings->cache.v_format);
    bench_store store;
    bench_call call = { 0 };
    int status = check_memory(run, longest);
    if (status != EXIT_DONE) return status;
    status = bench_store_init(&store, &asked, 1, 1);
    if (status != EXIT_DONE) return status;
    status = bench_store_send(&store, &run->exec);
    if (status == EXIT_DONE) status = bench_call_init(&call, &run->exec, &store, &rule, 1, run->data.q_heads, run->data.dtype);
    bench_call_fini(&call);
    bench_store_fini(&store);
    return status;
}

static void stage_fini(bench_stage *stage)
{
    bench_store_fini(&stage->store);
    bench_store_fini(&stage->exact);
    for (int64_t i = 0; stage->references && i < stage->reference_count; i++) bench_reference_fini(&stage->references[i]);
    free(stage->references);
    free(stage->lengths);
}

static int stage_init(bench_stage *stage, bench_run *run, int64_t length)
{
    const bench_data *data = &run->data;
    const int64_t wanted = run->settings->queries == BENCH_QUERIES_ALL ? data->queries : run->settings->queries;
    const octavo_page_config asked = page_config(run, run->settings->cache.k_format, run->settings->cache.v_format);
    const octavo_page_config exact = page_config(run, OCTAVO_K_BF16, OCTAVO_V_BF16);
    stage->length = length;
    stage->queries = wanted < length ? wanted : length;
    stage->reference_count = run->sequences < data->sequences ? run->sequences : data->sequences;
    stage->lengths = calloc((size_t)stage->queries, sizeof *stage->lengths);
    stage->references = calloc((size_t)stage->reference_count, sizeof *stage->references);
    if (!stage->lengths || !stage->references) return cli_refuse("there is no memory for %" PRId64 " queries", stage->queries);
    for (int64_t age = 0; age < stage->queries; age++) stage->lengths[age] = length - age;
    void *q = malloc((size_t)(data->q_heads * data->head_dim) * octavo_dtype_bytes(data->dtype));
    int status = q ? EXIT_DONE : cli_refuse("there is no memory for a query");
    for (int64_t sequence = 0; status == EXIT_DONE && sequence < stage->reference_count; sequence++) {
        bench_reference *reference = &stage->references[sequence];
        *reference = (bench_reference){
            .q_heads = data->q_heads, .kv_heads = data->kv_heads, .head_dim = data->head_dim, .v_dim = data->v_dim,
            .chunk_tokens = data->chunk_tokens, .threads = data->threads, .scale = (double)bench_softmax_scale(data->head_dim),
        };
        status = bench_reference_init(reference, stage->queries, stage->lengths);
        for (int64_t age = 0; status == EXIT_DONE && age < stage->queries; age++) {
            bench_data_query(data, sequence, age, q);
            bench_reference_set_query(reference, age, q, data->dtype);
        }
    }
    free(q);
    if (status == EXIT_DONE) status = bench_store_init(&stage->store, &asked, run->sequences, length);
    if (status == EXIT_DONE) status = bench_store_init(&stage->exact, &exact, run->sequences, length);
    if (run->settings->max_tokens) stage->store.max_tokens = stage->exact.max_tokens = run->settings->max_tokens;
    return status;
}

/* Encodes all tokens into both stores; a chunk goes to the reference while it is at hand. */
static int stage_fill(bench_stage *stage, bench_run *run)
{
    progress_bar bar;
    const int64_t step = run->data.chunk_tokens;
    int status = EXIT_DONE;
    progress_start(&bar, "encoding tokens", run->sequences * stage->length);
    for (int64_t sequence = 0; sequence < run->sequences; sequence++) {
        const int64_t source = sequence % run->data.sequences;
        for (int64_t first = 0; status == EXIT_DONE && first < stage->length; first += step) {
            octavo_tensor k, v;
            const int64_t count = stage->length - first < step ? stage->length - first : step;
            bench_data_chunk(&run->data, source, stage->length, first, count, &k, &v);
            status = bench_store_append(&stage->store, &run->encoder, sequence, first, &k, &v);
            if (status == EXIT_DONE) status = bench_store_append(&stage->exact, &run->encoder, sequence, first, &k, &v);
            if (sequence < stage->reference_count) bench_reference_add(&stage->references[sequence], first, &k, &v);
            progress_step(&bar, sequence * stage->length + first + count);
        }
        if (sequence < stage->reference_count) bench_reference_finish(&stage->references[sequence]);
    }
    progress_end(&bar);
    if (status == EXIT_DONE) status = bench_store_send(&stage->store, &run->exec);
    return status == EXIT_DONE ? bench_store_send(&stage->exact, &run->exec) : status;
}

static void add_rows(const bench_call *call, const bench_reference *reference, int64_t first, int64_t rows, bench_sums *sums)
{
    for (int64_t row = 0; row < rows; row++) {
        bench_error_add(&sums->error, reference, first + row, call->out + row * call->q_heads * call->v_dim);
        for (int64_t head = 0; head < call->kv_heads; head++) {
            sums->skip += (double)call->skip_ratio[row * call->kv_heads + head];
            sums->skip_first += (double)call->skip_ratio_first[row * call->kv_heads + head];
            sums->bytes_token_head += (double)call->bytes_read[row * call->kv_heads + head] / (double)call->lengths[row];
        }
        for (int64_t head = 0; head < call->q_heads; head++) {
            const double mass = (double)call->dropped_mass[row * call->q_heads + head];
            if (mass > sums->largest_mass) sums->largest_mass = mass;
        }
        sums->heads += call->kv_heads;
    }
}

/* Every query is a decode of its own length over the same pages. */
static int measure_errors(bench_stage *stage, bench_run *run, const bench_store *store, const bench_rule *rule, bench_sums *sums)
{
    bench_call call;
    progress_bar bar;
    memset(sums, 0, sizeof *sums);
    int status = bench_call_init(&call, &run->exec, store, rule, ERROR_ROWS, run->data.q_heads, run->data.dtype);
    progress_start(&bar, "comparing queries", stage->reference_count * stage->queries);
    for (int64_t sequence = 0; sequence < stage->reference_count; sequence++)
        for (int64_t first = 0; status == EXIT_DONE && first < stage->queries; first += ERROR_ROWS) {
            const int64_t rows = stage->queries - first < ERROR_ROWS ? stage->queries - first : ERROR_ROWS;
            for (int64_t row = 0; row < rows; row++) {
                bench_call_set_row(&call, store, row, sequence, stage->lengths[first + row]);
                bench_data_query(&run->data, sequence, first + row, bench_call_query(&call, row));
            }
            status = bench_call_run(&call, rows);
            if (status == EXIT_DONE) add_rows(&call, &stage->references[sequence], first, rows, sums);
            progress_step(&bar, sequence * stage->queries + first + rows);
        }
    progress_end(&bar);
    bench_call_fini(&call);
    return status;
}

/* The newest query of every sequence; *bytes is what a call reads of the cache. */
static int prepare_timed(bench_call *call, bench_run *run, const bench_store *store, const bench_rule *rule, int64_t *bytes)
{
    int status = bench_call_init(call, &run->exec, store, rule, run->sequences, run->data.q_heads, run->data.dtype);
    for (int64_t row = 0; status == EXIT_DONE && row < run->sequences; row++) {
        bench_call_set_row(call, store, row, row, store->tokens);
        bench_data_query(&run->data, row % run->data.sequences, 0, bench_call_query(call, row));
    }
    if (status == EXIT_DONE) status = bench_call_run(call, run->sequences);
    *bytes = 0;
    for (int64_t i = 0; status == EXIT_DONE && i < run->sequences * call->kv_heads; i++) *bytes += call->bytes_read[i];
    return status;
}

static int time_call(bench_run *run, bench_call *call, const bench_store *store, double *ms)
{
    if (bench_on_gpu(&run->exec)) return bench_call_time_there(call, ms);
    bench_evict(&run->speed, store->pool, store->pool_bytes);
    bench_evict(&run->speed, call->q, (size_t)(call->rows * call->q_heads * call->head_dim) * octavo_dtype_bytes(call->dtype));
    const double start = machine_seconds();
    const int status = bench_call_run_bare(call);
    *ms = 1e3 * (machine_seconds() - start);
    return status;
}

/* The two calls and the read speed in turn, so that a machine that is slow for a while is slow for all of them. */
static int measure_times(bench_stage *stage, bench_run *run, const bench_rule *rule, bench_row *row)
{
    const int64_t repeat = run->settings->repeat;
    const bench_rule exact_rule = { 0 };
    double *times = malloc((size_t)(3 * repeat) * sizeof *times);
    double *ms = times, *exact_ms = times + repeat, *rates = times + 2 * repeat;
    bench_call call = { 0 }, exact = { 0 };
    progress_bar bar;
    int status = times ? prepare_timed(&call, run, &stage->store, rule, &row->bytes) : cli_refuse("there is no memory for the times");
    if (status == EXIT_DONE) status = prepare_timed(&exact, run, &stage->exact, &exact_rule, &row->baseline_bytes);
    progress_start(&bar, "timed calls", repeat);
    for (int64_t i = 0; status == EXIT_DONE && i < repeat; i++) {
        status = time_call(run, &call, &stage->store, &ms[i]);
        if (status == EXIT_DONE && bench_on_gpu(&run->exec)) status = bench_device_read_speed(&run->exec, &rates[i]);
        else rates[i] = bench_read_speed_measure(&run->speed);
        if (status == EXIT_DONE) status = time_call(run, &exact, &stage->exact, &exact_ms[i]);
        progress_step(&bar, i + 1);
    }
    progress_end(&bar);
    if (status == EXIT_DONE) {
        row->ms = bench_median(ms, repeat);
        row->baseline_ms = bench_median(exact_ms, repeat);
        row->read_gbps = bench_median(rates, repeat);
        row->gbps = (double)row->bytes / row->ms * 1e-6;
        row->baseline_gbps = (double)row->baseline_bytes / row->baseline_ms * 1e-6;
        row->read_share = row->gbps / row->read_gbps;
        row->baseline_read_share = row->baseline_gbps / row->read_gbps;
    }
    bench_call_fini(&call);
    bench_call_fini(&exact);
    free(times);
    return status;
}

int bench_measure(bench_run *run, int64_t length, bench_row *row)
{
    const bench_rule rule = asked_rule(run->settings), exact_rule = { 0 };
    bench_stage stage = { 0 };
    bench_sums sums, exact;
    row->tokens = length;
    int status = stage_init(&stage, run, length);
    if (status == EXIT_DONE) status = stage_fill(&stage, run);
    if (status == EXIT_DONE) status = measure_errors(&stage, run, &stage.store, &rule, &sums);
    if (status == EXIT_DONE) status = measure_errors(&stage, run, &stage.exact, &exact_rule, &exact);
    if (status == EXIT_DONE) {
        row->skip_ratio = sums.skip / (double)sums.heads;
        row->skip_ratio_first = sums.skip_first / (double)sums.heads;
        row->dropped_mass_bound = sums.largest_mass;
        row->bytes_token_head = sums.bytes_token_head / (double)sums.heads;
        row->rel_error = sqrt(sums.error.square_sum / (double)sums.error.count);
        row->rel_error_max = sums.error.worst;
        row->cosine = sums.error.cosine_sum / (double)sums.error.count;
        row->max_error = sums.error.largest;
        row->baseline_rel_error = sqrt(exact.error.square_sum / (double)exact.error.count);
        status = measure_times(&stage, run, &rule, row);
    }
    stage_fini(&stage);
    return status;
}
