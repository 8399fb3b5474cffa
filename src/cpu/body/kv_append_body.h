/* kv_append_body.h - tokens into the planes of a view; included after a level's vocabulary.
 *
 * Phase 1 looks at all of k and v for NaN and Inf, so that a refused call writes nothing. Phase 2 encodes: one item is the new
 * tokens of one unit of one kv head, so that whoever completes a unit also writes its mean row, without waiting for anybody. */
#include "base/parallel.h"
#include "cpu/body/unit_mean_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(kv_append)(const octavo_exec *exec, const octavo_kv_append_params *p);

typedef struct kv_append_job {
    const octavo_kv_append_params *p;
    int64_t tokens, units;         /* new tokens and units they can touch, a sequence */
    int64_t rows, rows_per_task;   /* phase 1: (sequence, token, head)                */
    int64_t items, items_per_task; /* phase 2: (sequence, unit, head)                 */
    int nonfinite;                 /* set by any task of phase 1                      */
} kv_append_job;

static codec_row kv_append_k_row(const octavo_kv_append_params *p, int64_t b, int64_t i, int64_t head)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t *strides = p->k.strides;
    const float *mean = kv->k_mean ? kv->k_mean + (octavo_view_row(kv, b) * kv->kv_heads + head) * kv->head_dim : NULL;
    return (codec_row){ &p->k, b * strides[0] + i * strides[1] + head * strides[2], kv->head_dim, mean, NULL };
}

static codec_row kv_append_v_row(const octavo_kv_append_params *p, int64_t b, int64_t i, int64_t head)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t *strides = p->v.strides;
    const float *channel = kv->v_channel_scale ? kv->v_channel_scale + head * kv->v_dim : NULL;
    return (codec_row){ &p->v, b * strides[0] + i * strides[1] + head * strides[2], kv->v_dim, NULL, channel };
}

static void kv_append_scan_task(void *argument, int64_t index)
{
    kv_append_job *job = argument;
    const octavo_kv_append_params *p = job->p;
    const int64_t heads = p->kv->kv_heads, begin = index * job->rows_per_task;
    const int64_t end = begin + job->rows_per_task < job->rows ? begin + job->rows_per_task : job->rows;
    int found = 0;
    for (int64_t r = begin; r < end && !found; r++) {
        const int64_t head = r % heads, i = r / heads % job->tokens, b = r / heads / job->tokens;
        if (p->k.data) {
            const codec_row row = kv_append_k_row(p, b, i, head);
            found |= codec_nonfinite(&row);
        }
        if (p->v.data) {
            codec_row row = kv_append_v_row(p, b, i, head);
            row.over = NULL;
            found |= codec_nonfinite(&row);
        }
    }
    if (found) __atomic_store_n(&job->nonfinite, 1, __ATOMIC_RELAXED);
}

/* The new tokens [begin, end) of one unit of one head. */
static void kv_append_unit(const kv_append_job *job, int64_t b, int64_t head, int64_t begin, int64_t end)
{
    const octavo_kv_append_params *p = job->p;
    const octavo_kv_view *kv = p->kv;
    const int64_t row = octavo_view_row(kv, b), block = begin / kv->block_tokens;
    codec_place at = { row, octavo_view_page(kv, row, block), head, begin - block * kv->block_tokens };
    for (int64_t token = begin; token < end; token++, at.in_block++) {
        const int64_t i = token - p->positions[b];
        if (p->k.data) {
            const codec_row k = kv_append_k_row(p, b, i, head);
            codec_encode_k(kv, &at, &k);
        }
        if (p->v.data) {
            const codec_row v = kv_append_v_row(p, b, i, head);
            codec_encode_v(kv, &at, &v);
        }
    }
    if (p->v.data && end % kv->sub_block_tokens == 0) {
        at.in_block -= kv->sub_block_tokens;
        unit_mean_write(kv, &at);
    }
}

static void kv_append_task(void *argument, int64_t index)
{
    const kv_append_job *job = argument;
    const octavo_kv_view *kv = job->p->kv;
    const int64_t heads = kv->kv_heads, sub = kv->sub_block_tokens, first = index * job->items_per_task;
    const int64_t last = first + job->items_per_task < job->items ? first + job->items_per_task : job->items;
    for (int64_t item = first; item < last; item++) {
        const int64_t head = item % heads, u = item / heads % job->units, b = item / heads / job->units;
        const int64_t position = job->p->positions[b], unit = position / sub + u;
        const int64_t begin = unit * sub > position ? unit * sub : position;
        const int64_t end = (unit + 1) * sub < position + job->tokens ? (unit + 1) * sub : position + job->tokens;
        if (begin < end) kv_append_unit(job, b, head, begin, end);
    }
}

octavo_status SIMD(kv_append)(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    const octavo_kv_view *kv = p->kv;
    kv_append_job job = { .p = p, .tokens = p->k.data ? p->k.shape[1] : p->v.shape[1] };
    const int64_t dim = (p->k.data ? kv->head_dim : 0) + (p->v.data ? kv->v_dim : 0);
    job.rows = kv->batch * job.tokens * kv->kv_heads;
    job.rows_per_task = ROWS_GRAIN / dim + 1;
    octavo_parallel(exec, (job.rows - 1) / job.rows_per_task + 1, kv_append_scan_task, &job);
    if (job.nonfinite) return OCTAVO_E_NONFINITE;

    job.units = (job.tokens - 1) / kv->sub_block_tokens + 2; /* one more where they begin inside a unit */
    job.items = kv->batch * job.units * kv->kv_heads;
    const int64_t item_tokens = job.tokens < kv->sub_block_tokens ? job.tokens : kv->sub_block_tokens;
    job.items_per_task = ROWS_GRAIN / (item_tokens * dim) + 1;
    octavo_parallel(exec, (job.items - 1) / job.items_per_task + 1, kv_append_task, &job);
    return OCTAVO_OK;
}
