/* block_metadata_body.h - residual norms and mean rows from stored planes; included after a level's vocabulary.
 *
 * One item is one unit of one kv head. */
#include "base/parallel.h"
#include "cpu/body/unit_mean_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(block_metadata)(const octavo_exec *exec, const octavo_block_metadata_params *p);

typedef struct block_metadata_job {
    const octavo_kv_view *kv;
    int64_t units, items, items_per_task; /* items: (sequence, unit, head) */
    int norms;                            /* the view keeps norms of a nested format */
} block_metadata_job;

/* Elements [begin, begin + n) of what the residual plane adds, in its own steps. */
static void block_metadata_rest(float *restrict rest, const octavo_kv_view *kv, const uint8_t *restrict more, int64_t begin,
                                int64_t n)
{
    const int64_t half = ((int64_t)kv->head_dim + 1) / 2;
    switch (kv->k_format) {
    case OCTAVO_K_E4M3X2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) rest[i] = octavo_e4m3_to_float(more[begin + i]);
        break;
    case OCTAVO_K_E5M2X2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) rest[i] = octavo_e5m2_to_float(more[begin + i]);
        break;
    case OCTAVO_K_INT8X2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) rest[i] = (float)(int8_t)more[begin + i];
        break;
    default:
        for (int64_t i = 0; i < n; i++) {
            const int64_t element = begin + i;
            const int nibble = element < half ? more[element] & 15 : more[element - half] >> 4;
            rest[i] = (float)nibble - 7.5f;
        }
        break;
    }
}

/* How many of those steps make one unit of 2^-p or s. */
static double block_metadata_steps(const octavo_kv_view *kv)
{
    if (kv->k_format == OCTAVO_K_INT8X2) return 254.0;
    return kv->k_format == OCTAVO_K_E4M3X2 ? (double)codec_exp2(kv->k_residual_exponent) : 1.0;
}

static void block_metadata_norm(const octavo_kv_view *kv, const codec_place *at)
{
    float rest[ROWS_CHUNK];
    codec_norm norm = { { 0 } };
    const uint8_t *more = codec_at(&kv->k[1], at);
    for (int64_t begin = 0; begin < kv->head_dim; begin += ROWS_CHUNK) {
        const int64_t n = kv->head_dim - begin < ROWS_CHUNK ? kv->head_dim - begin : ROWS_CHUNK;
        block_metadata_rest(rest, kv, more, begin, n);
        codec_norm_add(&norm, rest, n);
    }
    *codec_at(&kv->k_norm, at) = codec_norm_code(&norm, block_metadata_steps(kv));
}

static void block_metadata_task(void *argument, int64_t index)
{
    const block_metadata_job *job = argument;
    const octavo_kv_view *kv = job->kv;
    const int64_t heads = kv->kv_heads, sub = kv->sub_block_tokens, first = index * job->items_per_task;
    const int64_t last = first + job->items_per_task < job->items ? first + job->items_per_task : job->items;
    for (int64_t item = first; item < last; item++) {
        const int64_t head = item % heads, unit = item / heads % job->units, b = item / heads / job->units;
        const int64_t row = octavo_view_row(kv, b), length = kv->lengths[row], begin = unit * sub;
        if (begin >= length) continue;
        const int64_t block = begin / kv->block_tokens, tokens = length - begin < sub ? length - begin : sub;
        const codec_place unit_at = { row, octavo_view_page(kv, row, block), head, begin - block * kv->block_tokens };
        codec_place at = unit_at;
        for (int64_t t = 0; job->norms && t < tokens; t++, at.in_block++) block_metadata_norm(kv, &at);
        if (tokens == sub) unit_mean_write(kv, &unit_at);
    }
}

octavo_status SIMD(block_metadata)(const octavo_exec *exec, const octavo_block_metadata_params *p)
{
    const octavo_kv_view *kv = p->kv;
    block_metadata_job job = { .kv = kv, .units = octavo_view_units(kv) };
    job.norms = kv->k_norm.data && octavo_k_plane_count(kv->k_format) > 1;
    job.items = kv->batch * job.units * kv->kv_heads;
    job.items_per_task = ROWS_GRAIN / ((int64_t)kv->sub_block_tokens * (kv->head_dim + kv->v_dim)) + 1;
    octavo_parallel(exec, (job.items - 1) / job.items_per_task + 1, block_metadata_task, &job);
    return OCTAVO_OK;
}
