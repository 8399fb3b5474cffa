/* bench_synthetic.c - made-up decode data with a few heavy tokens, for time only.
 *
 * Per sequence and kv head there is a random unit vector u. k ~ N(0, 1) + a u, where a is 10 for the first 4 tokens, 10 for one
 * random token in a fraction `hot` of the blocks of 128, 9 for the last 16 tokens, else 0; v ~ N(0, 1);
 * q = 0.5 N(0, 1) + sqrt(head_dim) u. Everything is rounded to bf16.
 *
 * The generator is a counter: number i of a stream is a hash of (seed, stream, i), so any token can be made alone. */
#include "bench_data.h"
#include "bench_element.h"
#include "cli.h"
#include "machine.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { FIRST_TOKENS = 4, LAST_TOKENS = 16, HOT_BLOCK = 128 };
enum { STREAM_DIRECTION = 1, STREAM_HOT = 2, STREAM_K = 3, STREAM_V = 4, STREAM_Q = 5 };

/* A bijection of 64 bits in which every bit depends on every other: shifts and odd multipliers. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static uint64_t stream_start(const bench_synthetic *synthetic, int stream, int64_t sequence)
{
    return mix(mix((uint64_t)synthetic->seed + 1) + mix(((uint64_t)sequence << 8 | (uint64_t)stream) + UINT64_C(0x9e3779b97f4a7c15)));
}

static uint64_t stream_bits(uint64_t start, int64_t index) { return mix(start + (uint64_t)index * UINT64_C(0x9e3779b97f4a7c15)); }

/* `count` normal numbers of a stream from number `first` on, which is even (Box and Muller make two at a time). */
static void normals(uint64_t start, int64_t first, int64_t count, float *out)
{
    const float turn = 6.2831853f;
    for (int64_t i = 0; i < count; i += 2) {
        const uint64_t bits = stream_bits(start, (first + i) / 2);
        const float uniform = ((float)(bits >> 40) + 0.5f) * 0x1p-24f, angle = turn * ((float)(bits & 0xffffff) * 0x1p-24f);
        const float radius = sqrtf(-2 * logf(uniform));
        out[i] = radius * cosf(angle);
        if (i + 1 < count) out[i + 1] = radius * sinf(angle);
    }
}

/* Rows start at even numbers, whatever head_dim is. */
static int64_t row_start(const bench_data *data, int64_t row) { return row * (data->head_dim + (data->head_dim & 1)); }

int bench_synthetic_init(bench_data *data)
{
    size_t row, chunk, directions;
    const int64_t dim = data->head_dim, rows = data->sequences * data->kv_heads;
    int overflow = __builtin_mul_overflow((size_t)data->kv_heads, (size_t)dim * sizeof(uint16_t), &row);
    overflow |= __builtin_mul_overflow(row, (size_t)data->chunk_tokens, &chunk);
    overflow |= __builtin_mul_overflow((size_t)rows, (size_t)dim * sizeof(float), &directions);
    if (!overflow && chunk < SIZE_MAX / 4 && (int64_t)(2 * chunk) < machine_available_bytes()) {
        data->k_chunk = malloc(chunk);
        data->v_chunk = malloc(chunk);
        data->directions = malloc(directions);
    }
    if (!data->k_chunk || !data->v_chunk || !data->directions)
        return cli_refuse("there is no memory for data of %" PRId64 " sequences, %" PRId64 " kv_heads and head_dim %" PRId64,
                          data->sequences, data->kv_heads, dim);
    for (int64_t sequence = 0; sequence < data->sequences; sequence++)
        for (int64_t head = 0; head < data->kv_heads; head++) {
            float *u = data->directions + (sequence * data->kv_heads + head) * dim;
            double square = 0;
            normals(stream_start(data->synthetic, STREAM_DIRECTION, sequence), row_start(data, head), dim, u);
            for (int64_t i = 0; i < dim; i++) square += (double)u[i] * (double)u[i];
            for (int64_t i = 0; i < dim; i++) u[i] = (float)((double)u[i] / sqrt(square));
        }
    return EXIT_DONE;
}

void bench_synthetic_fini(bench_data *data)
{
    free(data->k_chunk);
    free(data->v_chunk);
    free(data->directions);
}

/* How much of u a key holds. */
static float heaviness(const bench_data *data, int64_t sequence, int64_t head, int64_t length, int64_t token)
{
    if (token < FIRST_TOKENS) return 10;
    const uint64_t hot = stream_bits(stream_start(data->synthetic, STREAM_HOT, sequence), token / HOT_BLOCK * data->kv_heads + head);
    if ((double)(hot >> 11) * 0x1p-53 < data->synthetic->hot && (int64_t)(mix(hot) % HOT_BLOCK) == token % HOT_BLOCK) return 10;
    return token >= length - LAST_TOKENS ? 9 : 0;
}

void bench_synthetic_chunk(bench_data *data, int64_t sequence, int64_t length, int64_t first, int64_t count)
{
    const int64_t dim = data->head_dim, heads = data->kv_heads;
    const uint64_t k_start = stream_start(data->synthetic, STREAM_K, sequence), v_start = stream_start(data->synthetic, STREAM_V, sequence);
#pragma omp parallel for num_threads(data->threads) schedule(static)
    for (int64_t row = 0; row < count * heads; row++) {
        const int64_t head = row % heads, token = first + row / heads;
        const float *u = data->directions + (sequence * heads + head) * dim;
        const float a = heaviness(data, sequence, head, length, token);
        enum { PART = 64 }; /* even */
        float part[PART];
        for (int64_t i = 0; i < dim; i += PART) {
            const int64_t n = dim - i < PART ? dim - i : PART, at = row_start(data, token * heads + head) + i;
            normals(k_start, at, n, part);
            for (int64_t j = 0; j < n; j++) data->k_chunk[row * dim + i + j] = element_to_bf16(part[j] + a * u[i + j]);
            normals(v_start, at, n, part);
            for (int64_t j = 0; j < n; j++) data->v_chunk[row * dim + i + j] = element_to_bf16(part[j]);
        }
    }
}

void bench_synthetic_query(const bench_data *data, int64_t sequence, uint16_t *q)
{
    const int64_t dim = data->head_dim, group = data->q_heads / data->kv_heads;
    const uint64_t start = stream_start(data->synthetic, STREAM_Q, sequence);
    for (int64_t head = 0; head < data->q_heads; head++) {
        const float *u = data->directions + (sequence * data->kv_heads + head / group) * dim;
        for (int64_t i = 0; i < dim; i += 2) {
            float pair[2];
            normals(start, row_start(data, head) + i, dim - i < 2 ? 1 : 2, pair);
            for (int64_t j = 0; j < 2 && i + j < dim; j++)
                q[head * dim + i + j] = element_to_bf16(0.5f * pair[j] + sqrtf((float)dim) * u[i + j]);
        }
    }
}
