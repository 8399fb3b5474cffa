/* decode_stats_sm80.cu - the skip ratio and the bytes that a call reads. A block a kv head of a sequence; a thread takes every 256th
 * unit. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"

enum { THREADS = 256 };

struct stats_call {
    octavo_decode_stats_params p;
    octavo_kv_view kv;
    int64_t units;
};

struct unit_counts {
    long long bytes, visible, dropped, dropped_first;
};

/* What the call reads of one unit of `tokens` visible tokens, given its states after the first and the last decision. */
static __device__ int64_t unit_bytes(const stats_call &c, int64_t tokens, int first, int last)
{
    const octavo_kv_view *kv = &c.kv;
    const int64_t base = octavo_k_row_bytes(kv->k_format, kv->head_dim), residual = base * (octavo_k_plane_count(kv->k_format) - 1);
    const int64_t k_scale = kv->k_scale.data ? octavo_k_scale_bytes(kv->k_format) : 0, norm = kv->k_norm.data ? 1 : 0;
    const int64_t v = octavo_v_row_bytes(kv->v_format, kv->v_dim) + (kv->v_scale.data ? octavo_v_scale_bytes(kv->v_format) : 0);
    const int64_t mean = c.p.compensate == OCTAVO_COMPENSATE_MEAN && last == OCTAVO_UNIT_DROPPED ? kv->v_dim + 1 : 0;
    const int64_t scan = tokens * (base + k_scale), keys = tokens * (base + residual + k_scale);
    const int64_t values = last == OCTAVO_UNIT_KEPT ? tokens * v : 0;
    switch (c.p.rule) {
    case OCTAVO_SELECT_BASE:      return scan + values;
    case OCTAVO_SELECT_DELTA:     return scan + (last == OCTAVO_UNIT_KEPT ? tokens * residual : 0) + values + mean;
    case OCTAVO_SELECT_MASS:      return scan + (last == OCTAVO_UNIT_KEPT ? keys : 0) + values + mean;
    case OCTAVO_SELECT_CERTIFIED: return scan + tokens * norm + (first == OCTAVO_UNIT_KEPT ? keys : 0) + values + mean;
    case OCTAVO_SELECT_NONE:      break;
    }
    return keys + values;
}

static __device__ void count_unit(const stats_call &c, int64_t group, int64_t length, int64_t unit, unit_counts *of)
{
    const octavo_kv_view *kv = &c.kv;
    const int64_t tokens = octavo_unit_tokens_seen(kv, length, c.p.q_tokens, c.p.window, c.p.sink_tokens, unit);
    if (tokens == 0) return;
    const int64_t block = unit / (kv->block_tokens / kv->sub_block_tokens);
    const int last = c.p.kept ? c.p.kept[group * c.units + unit] : OCTAVO_UNIT_KEPT;
    const int first = c.p.kept_first ? c.p.kept_first[group * c.units + unit] : last;
    const bool for_threshold = c.p.rule == OCTAVO_SELECT_DELTA && !c.p.thresholds &&
                               (block == octavo_first_visible_block(kv, length, c.p.q_tokens, c.p.window, c.p.sink_tokens) ||
                                block == octavo_newest_block(kv, length));
    of->bytes += unit_bytes(c, tokens, first, last);
    if (for_threshold)
        of->bytes += tokens * (octavo_k_row_bytes(kv->k_format, kv->head_dim) + (kv->k_scale.data ? octavo_k_scale_bytes(kv->k_format) : 0));
    of->visible++, of->dropped += last == OCTAVO_UNIT_DROPPED, of->dropped_first += first == OCTAVO_UNIT_DROPPED;
}

/* Grid: batch * kv heads. */
static __global__ void __launch_bounds__(THREADS) decode_stats(const __grid_constant__ stats_call c)
{
    __shared__ unit_counts shared[THREADS / WARP];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int64_t group = blockIdx.x, length = sequence_length(&c.kv, group / c.kv.kv_heads);
    unit_counts of = { 0, 0, 0, 0 };
    for (int64_t unit = threadIdx.x; unit < c.units; unit += THREADS) count_unit(c, group, length, unit, &of);
    of = { warp_reduce(of.bytes, add_up()), warp_reduce(of.visible, add_up()), warp_reduce(of.dropped, add_up()),
           warp_reduce(of.dropped_first, add_up()) };
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = of;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < THREADS / WARP; i++)
        of.bytes += shared[i].bytes, of.visible += shared[i].visible, of.dropped += shared[i].dropped, of.dropped_first += shared[i].dropped_first;
    const long long bytes = of.bytes, visible = of.visible, dropped = of.dropped, first = of.dropped_first;
    if (c.p.skip_ratio) c.p.skip_ratio[group] = visible ? (float)((double)dropped / (double)visible) : 0.0f;
    if (c.p.skip_ratio_first) c.p.skip_ratio_first[group] = visible ? (float)((double)first / (double)visible) : 0.0f;
    if (c.p.bytes_read) c.p.bytes_read[group] = bytes;
}

octavo_status octavo_decode_stats_cuda(const octavo_exec *exec, const octavo_decode_stats_params *p)
{
    const stats_call call = { *p, *p->kv, octavo_view_units(p->kv) };
    return octavo_cuda_launch(decode_stats, "decode_stats", dim3((unsigned)(p->kv->batch * p->kv->kv_heads)), THREADS, 0, exec, call);
}
