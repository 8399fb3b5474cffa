/* bench_data.c - opens the inputs of a benchmark and hands them out in chunks. */
#include "bench_data.h"
#include "cli.h"
#include "fnv.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void hash_tensor(fnv_hash *hash, const octavo_tensor *tensor)
{
    size_t bytes = octavo_dtype_bytes(tensor->dtype);
    for (int32_t i = 0; i < tensor->ndim; i++) bytes *= (size_t)tensor->shape[i];
    fnv_add(hash, &tensor->dtype, sizeof tensor->dtype);
    fnv_add(hash, tensor->shape, (size_t)tensor->ndim * sizeof *tensor->shape);
    fnv_add(hash, tensor->data, bytes); /* contiguous, as files are */
}

static int open_recording(const bench_settings *settings, bench_data *data)
{
    octavo_recording *recording = &data->recording;
    *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
    if (octavo_recording_open(settings->file, (int32_t)settings->layer, recording) != OCTAVO_OK) return cli_refuse_last();
    data->sequences = recording->batch;
    data->q_heads = recording->q_heads;
    data->kv_heads = recording->kv_heads;
    data->head_dim = recording->head_dim;
    data->v_dim = recording->value_dim;
    data->tokens = recording->tokens;
    data->queries = recording->queries;
    data->dtype = recording->q.dtype;
    if (data->tokens > INT32_MAX) return cli_refuse("%s: holds %" PRId64 " tokens, at most %d fit", settings->file, data->tokens, INT32_MAX);
    fnv_hash hash = FNV_START;
    hash_tensor(&hash, &recording->q);
    hash_tensor(&hash, &recording->k);
    hash_tensor(&hash, &recording->v);
    snprintf(data->hash, sizeof data->hash, "%016" PRIx64, hash);
    return EXIT_DONE;
}

static int open_synthetic(const bench_settings *settings, bench_data *data)
{
    const bench_synthetic *synthetic = data->synthetic = &settings->synthetic;
    data->sequences = synthetic->batch;
    data->q_heads = synthetic->q_heads;
    data->kv_heads = synthetic->kv_heads;
    data->head_dim = data->v_dim = synthetic->head_dim;
    data->tokens = synthetic->tokens;
    data->queries = 1;
    data->dtype = OCTAVO_BF16;
    const int64_t integers[] = { synthetic->batch, synthetic->q_heads, synthetic->kv_heads, synthetic->head_dim, synthetic->seed };
    fnv_hash hash = FNV_START;
    fnv_add(&hash, "synthetic", 9);
    fnv_add(&hash, integers, sizeof integers);
    fnv_add(&hash, &synthetic->hot, sizeof synthetic->hot);
    snprintf(data->hash, sizeof data->hash, "%016" PRIx64, hash);
    return bench_synthetic_init(data);
}

int bench_data_open(const bench_settings *settings, int64_t chunk_tokens, bench_data *data)
{
    memset(data, 0, sizeof *data);
    data->chunk_tokens = chunk_tokens;
    data->threads = (int)settings->threads;
    const int status = settings->file ? open_recording(settings, data) : open_synthetic(settings, data);
    if (status != EXIT_DONE) bench_data_close(data);
    return status;
}

void bench_data_close(bench_data *data)
{
    if (data->synthetic) bench_synthetic_fini(data);
    if (data->recording.struct_size) octavo_recording_close(&data->recording);
    memset(data, 0, sizeof *data);
}

/* [batch, heads, tokens, dim] as [1, count, heads, dim] from a sequence's token `first` on. */
static octavo_tensor token_major(const octavo_tensor *source, int64_t sequence, int64_t first, int64_t count)
{
    octavo_tensor view = *source;
    view.data = (char *)source->data + (size_t)(sequence * source->strides[0] + first * source->strides[2]) * octavo_dtype_bytes(source->dtype);
    view.shape[0] = 1;
    view.shape[1] = count;
    view.shape[2] = source->shape[1];
    view.strides[1] = source->strides[2];
    view.strides[2] = source->strides[1];
    return view;
}

void bench_data_chunk(bench_data *data, int64_t sequence, int64_t length, int64_t first, int64_t count, octavo_tensor *k, octavo_tensor *v)
{
    if (data->synthetic) {
        const int64_t shape[] = { 1, count, data->kv_heads, data->head_dim };
        bench_synthetic_chunk(data, sequence, length, first, count);
        *k = octavo_tensor_view(data->k_chunk, OCTAVO_BF16, 4, shape);
        *v = octavo_tensor_view(data->v_chunk, OCTAVO_BF16, 4, shape);
        return;
    }
    const int64_t start = data->tokens - length + first;
    *k = token_major(&data->recording.k, sequence, start, count);
    *v = token_major(&data->recording.v, sequence, start, count);
}

void bench_data_query(const bench_data *data, int64_t sequence, int64_t age, void *q)
{
    if (data->synthetic) {
        bench_synthetic_query(data, sequence, q);
        return;
    }
    const octavo_tensor *source = &data->recording.q;
    const size_t element = octavo_dtype_bytes(source->dtype);
    for (int64_t head = 0; head < data->q_heads; head++) {
        const int64_t at = sequence * source->strides[0] + head * source->strides[1] + (data->queries - 1 - age) * source->strides[2];
        memcpy((char *)q + (size_t)(head * data->head_dim) * element, (const char *)source->data + (size_t)at * element,
               (size_t)data->head_dim * element);
    }
}
