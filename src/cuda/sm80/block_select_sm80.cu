/* block_select_sm80.cu - which units are read. A block a kv head of a sequence; see docs/NUMERICS.md for the rules.
 *
 * MASS needs of every row only how many bins, from the lightest on, hold at most epsilon: a search over 256 bins, five sums of the
 * units' shares, which ROW_THREADS threads a row take from shared memory where they fit. Sums are in a fixed order. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/select_call.cuh"

enum { THREADS = 1024, ROW_THREADS = 256, ROWS_AT_ONCE = THREADS / ROW_THREADS, ROW_WARPS = ROW_THREADS / WARP, PROBES = 3 };
static constexpr double AGAINST_US = 1e-5;   /* covers the float32 rounding of the sums in every level */

/* The dynamic shared memory. */
struct select_memory {
    float *least;   /* [rows] DELTA: scores from here on are kept; MASS: log of the whole */
    int *from;      /* [rows] MASS: bins from here on may go                               */
    float *share;   /* [rows_cached, units]                                                */
    uint8_t *state; /* [units]                                                             */
    uint8_t *bin;   /* [rows_cached, units], or [units] for CERTIFIED                      */
};

static size_t memory_bytes(const select_call &c, int rows_cached)
{
    const size_t units = (size_t)c.units, bins = c.p.rule == OCTAVO_SELECT_CERTIFIED ? units : units * (size_t)rows_cached;
    const size_t totals = c.p.rule == OCTAVO_SELECT_CERTIFIED ? 3 * sizeof(double) : sizeof(float) + sizeof(int);
    return (size_t)(c.rows + 1) * totals + units * (size_t)rows_cached * sizeof(float) + units + bins;
}

static __device__ __forceinline__ select_memory memory_of(const select_call &c, void *shared)
{
    select_memory m;
    m.least = (float *)shared, m.from = (int *)(m.least + c.rows), m.share = (float *)(m.from + c.rows);
    m.state = (uint8_t *)(m.share + (int64_t)c.rows_cached * c.units), m.bin = m.state + c.units;
    return m;
}

/* How light a unit is on the grid of 1/8 nat; 0 is the heaviest. A whole of -inf never comes here. */
static __device__ __forceinline__ int bin_of(float log_mass, float log_whole)
{
    const float bin = floorf((float)BINS_A_NAT * (log_whole - log_mass));
    return bin >= 0.0f ? bin < (float)BINS ? (int)bin : BINS - 1 : bin != bin ? BINS - 1 : 0;
}

/* ---- MASS: ROW_THREADS threads a row ---- */

/* Reduces over the threads of a row; each row has a barrier and `shared` [ROW_WARPS] of its own. */
template <typename T, typename Join> static __device__ __forceinline__ T row_reduce(T x, T *shared, Join join)
{
    const int group = threadIdx.x / ROW_THREADS, warp = threadIdx.x % ROW_THREADS / WARP;
    x = warp_reduce(x, join);
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"((int)ROW_THREADS) : "memory");
    if (threadIdx.x % WARP == 0) shared[warp] = x;
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"((int)ROW_THREADS) : "memory");
    x = shared[0];
#pragma unroll
    for (int i = 1; i < ROW_WARPS; i++) x = join(x, shared[i]);
    return x;
}

/* A unit's mass in a row: from shared memory where rows are cached; a thread reads back only what it put there. */
static __device__ __forceinline__ float mass_of(const select_call &c, const select_head &h, const select_memory &m, int64_t row, int64_t unit)
{
    return c.rows_cached ? m.share[row % ROWS_AT_ONCE * c.units + unit] : value_of(c, h, c.p.log_mass, row, unit);
}

/* log of the row's whole mass: every visible unit, and the sink. */
static __device__ float log_whole_of(const select_call &c, const select_head &h, const select_memory &m, int64_t row, float *shared)
{
    const int thread = threadIdx.x % ROW_THREADS;
    const float sink = sink_of(c, h, row), *masses = c.p.log_mass + (h.group * c.rows + row) * c.units;
    float max = sink, sum = 0.0f, *cache = m.share + row % ROWS_AT_ONCE * c.units;
    if (c.rows_cached)
#pragma unroll 8
        for (int u = thread; u < (int)c.units; u += ROW_THREADS) cache[u] = masses[u];
    for (int u = thread; u < (int)c.units; u += ROW_THREADS)
        if (m.state[u] != OCTAVO_UNIT_UNSEEN) max = fmaxf(max, mass_of(c, h, m, row, u));
    max = row_reduce(max, shared, take_larger());
    if (max == NOTHING) return NOTHING;
    for (int u = thread; u < (int)c.units; u += ROW_THREADS)
        if (m.state[u] != OCTAVO_UNIT_UNSEEN) sum += exp2_fast(LOG2_E * (mass_of(c, h, m, row, u) - max));
    sum = row_reduce(sum, shared, add_up()) + expf(sink - max);
    return max + logf(sum);
}

/* Shares and bins of the row's candidates in the place of its masses; the share of others is 0. */
static __device__ void cache_row(const select_call &c, const select_memory &m, int64_t row, float whole)
{
    const int base = (int)(row % ROWS_AT_ONCE * c.units);
    for (int u = threadIdx.x % ROW_THREADS; u < (int)c.units; u += ROW_THREADS) {
        const float mass = m.share[base + u];
        m.share[base + u] = m.state[u] == CANDIDATE ? exp2_fast(LOG2_E * (mass - whole)) : 0.0f;
        m.bin[base + u] = (uint8_t)bin_of(mass, whole);
    }
}

static __device__ void shares_from_bins(const select_call &c, const select_head &h, const select_memory &m, int64_t row, float whole, int from,
                                        int step, float (&parts)[PROBES])
{
    const int base = (int)(row % ROWS_AT_ONCE * c.units);
    for (int u = threadIdx.x % ROW_THREADS; u < (int)c.units; u += ROW_THREADS) {
        float share = 0.0f;
        int bin = 0;
        if (c.rows_cached) {
            share = m.share[base + u], bin = m.bin[base + u];
        } else if (m.state[u] == CANDIDATE) {
            const float mass = value_of(c, h, c.p.log_mass, row, u);
            share = expf(mass - whole), bin = bin_of(mass, whole);
        }
#pragma unroll
        for (int i = 0; i < PROBES; i++) parts[i] += bin >= from + (i + 1) * step ? share : 0.0f;
    }
}

/* Three sums over the threads of a row at once. */
static __device__ __forceinline__ void row_sums(float (&x)[PROBES], float *shared)
{
    const int group = threadIdx.x / ROW_THREADS, warp = threadIdx.x % ROW_THREADS / WARP;
#pragma unroll
    for (int i = 0; i < PROBES; i++) x[i] = warp_reduce(x[i], add_up());
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"((int)ROW_THREADS) : "memory");
    if (threadIdx.x % WARP == 0)
#pragma unroll
        for (int i = 0; i < PROBES; i++) shared[i * ROW_WARPS + warp] = x[i];
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"((int)ROW_THREADS) : "memory");
#pragma unroll
    for (int i = 0; i < PROBES; i++) {
        x[i] = shared[i * ROW_WARPS];
#pragma unroll
        for (int w = 1; w < ROW_WARPS; w++) x[i] += shared[i * ROW_WARPS + w];
    }
}

/* The first bin from which on the units' shares, added over the row's threads, are at most epsilon. part_from(bin, step, parts) adds a
 * thread's shares from each of bin + step, bin + 2 step, bin + 3 step. */
template <typename Part> static __device__ __forceinline__ int search_bins(float epsilon, float *shared, Part part_from)
{
    int low = 0; /* what is left from here on is too much, or this is 0 */
#pragma unroll 1
    for (int step = BINS / 4; step > 0; step /= 4) {
        float parts[PROBES] = { 0.0f };
        part_from(low, step, parts);
        row_sums(parts, shared);
        int over = 0;
#pragma unroll
        for (int i = 0; i < PROBES; i++) over += parts[i] <= epsilon ? 0 : 1; /* sums only fall from probe to probe */
        low += over * step;
    }
    float all[PROBES] = { 0.0f };
    if (low > 0) return low + 1;
    part_from(0, 0, all); /* does everything go? */
    row_sums(all, shared);
    return all[0] <= epsilon ? 0 : 1;
}

static __device__ int mass_from_bin(const select_call &c, const select_head &h, const select_memory &m, int64_t row, float *shared, float *whole)
{
    *whole = log_whole_of(c, h, m, row, shared);
    if (*whole == NOTHING) return 0; /* sees nothing: agrees to everything */
    if (c.rows_cached) cache_row(c, m, row, *whole);
    return search_bins(c.p.epsilon, shared, [&](int from, int step, float (&parts)[PROBES]) {
        shares_from_bins(c, h, m, row, *whole, from, step, parts);
    });
}

enum { HELD = 16 }; /* units a thread */

/* The same for rows of at most HELD * ROW_THREADS units, which stay in registers. */
static __device__ int mass_from_bin_held(const select_call &c, const select_head &h, const select_memory &m, int64_t row, float *shared, float *whole)
{
    const int first = threadIdx.x % ROW_THREADS, units = (int)c.units, base = (int)(row % ROWS_AT_ONCE) * units;
    const float sink = sink_of(c, h, row), *masses = c.p.log_mass + (h.group * c.rows + row) * c.units;
    float x[HELD], bin[HELD], max = sink, sum = 0.0f;
    unsigned candidates = 0;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int u = first + i * ROW_THREADS, state = u < units ? m.state[u] : OCTAVO_UNIT_UNSEEN;
        x[i] = state != OCTAVO_UNIT_UNSEEN ? masses[u] : NOTHING;
        candidates |= (state == CANDIDATE ? 1u : 0u) << i;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) max = fmaxf(max, x[i]);
    max = row_reduce(max, shared, take_larger());
    *whole = NOTHING;
    if (max == NOTHING) return 0;
#pragma unroll
    for (int i = 0; i < HELD; i++) sum += exp2_fast(LOG2_E * (x[i] - max));
    *whole = max + logf(row_reduce(sum, shared, add_up()) + expf(sink - max));
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int u = first + i * ROW_THREADS;
        bin[i] = floorf(fminf(fmaxf((float)BINS_A_NAT * (*whole - x[i]), 0.0f), (float)(BINS - 1)));
        if (u < units) m.bin[base + u] = (uint8_t)bin[i];
        x[i] = candidates >> i & 1u ? exp2_fast(LOG2_E * (x[i] - *whole)) : 0.0f;
    }
    return search_bins(c.p.epsilon, shared, [&](int from, int step, float (&parts)[PROBES]) {
#pragma unroll
        for (int i = 0; i < HELD; i++)
#pragma unroll
            for (int j = 0; j < PROBES; j++) parts[j] += bin[i] >= (float)(from + (j + 1) * step) ? x[i] : 0.0f;
    });
}

static __device__ void weigh_rows(const select_call &c, const select_head &h, const select_memory &m)
{
    __shared__ float shared[ROWS_AT_ONCE][PROBES * ROW_WARPS];
    const int group = threadIdx.x / ROW_THREADS;
    const bool held = c.rows_cached && c.units <= HELD * ROW_THREADS;
    for (int64_t row = group; row < c.rows; row += ROWS_AT_ONCE) {
        float whole;
        const int from = held ? mass_from_bin_held(c, h, m, row, shared[group], &whole) : mass_from_bin(c, h, m, row, shared[group], &whole);
        if (threadIdx.x % ROW_THREADS == 0) m.least[row] = whole, m.from[row] = from;
    }
}

static __device__ __forceinline__ bool mass_keeps(const select_call &c, const select_head &h, const select_memory &m, int64_t unit)
{
    const bool cached = c.rows_cached && c.rows <= ROWS_AT_ONCE;
    for (int64_t row = 0; row < c.rows; row++) {
        if (m.least[row] == NOTHING) continue;
        const int bin = cached ? m.bin[row * c.units + unit] : bin_of(value_of(c, h, c.p.log_mass, row, unit), m.least[row]);
        if (bin < m.from[row]) return true;
    }
    return false;
}

/* ---- DELTA: a thread a row ---- */

static __device__ void find_thresholds(const select_call &c, const select_head &h, const select_memory &m)
{
    const int64_t per_block = c.kv.block_tokens / c.kv.sub_block_tokens;
    for (int64_t row = threadIdx.x; row < c.rows; row += THREADS) {
        float threshold = NOTHING;
        if (c.p.thresholds) {
            threshold = c.p.thresholds[h.b * c.p.q_heads + h.head * (c.p.q_heads / c.kv.kv_heads) + row / c.p.q_tokens];
        } else {
            for (int side = 0; side < 2; side++) {
                const int64_t block = side ? h.newest_block : h.first_block;
                for (int64_t u = block * per_block; block >= 0 && u < (block + 1) * per_block && u < c.units; u++)
                    if (m.state[u] != OCTAVO_UNIT_UNSEEN) threshold = fmaxf(threshold, value_of(c, h, c.p.unit_max, row, u));
            }
        }
        m.least[row] = threshold - c.p.delta;
    }
}

static __device__ __forceinline__ bool delta_keeps(const select_call &c, const select_head &h, const select_memory &m, int64_t unit)
{
    bool keeps = false;
#pragma unroll 4
    for (int64_t row = 0; row < c.rows; row++) {
        const float max = value_of(c, h, c.p.unit_max, row, unit);
        keeps |= max >= m.least[row] && max != NOTHING;
    }
    return keeps;
}

/* ---- CERTIFIED: a warp a row's totals, then one warp that tries unit after unit ---- */

struct certified_rows {
    double *whole, *dropped, *left; /* [rows] log of the lower bounds' sum; shares of it */
};

static __device__ void certified_start(const select_call &c, const select_head &h, const select_memory &m, const certified_rows &r)
{
    const int lane = threadIdx.x % WARP;
    for (int64_t row = threadIdx.x / WARP; row < c.rows; row += THREADS / WARP) {
        const double sink = (double)sink_of(c, h, row);
        double max = sink, sum = 0.0, dropped = 0.0, left = 0.0;
        for (int64_t u = lane; u < c.units; u += WARP)
            if (m.state[u] != OCTAVO_UNIT_UNSEEN) max = fmax(max, (double)value_of(c, h, c.p.log_lower, row, u));
        max = warp_reduce(max, take_larger());
        for (int64_t u = lane; u < c.units && max != -INFINITY; u += WARP)
            if (m.state[u] != OCTAVO_UNIT_UNSEEN) sum += exp((double)value_of(c, h, c.p.log_lower, row, u) - max);
        const double whole = max == -INFINITY ? max : max + log(warp_reduce(sum, add_up()) + exp(sink - max));
        for (int64_t u = lane; u < c.units && whole != -INFINITY; u += WARP) {
            if (m.state[u] == GONE) dropped += exp((double)value_of(c, h, c.p.log_upper, row, u) - whole);
            else if (m.state[u] != OCTAVO_UNIT_UNSEEN) left += exp((double)value_of(c, h, c.p.log_lower, row, u) - whole);
        }
        dropped = warp_reduce(dropped, add_up()), left = warp_reduce(left, add_up());
        if (lane == 0) r.whole[row] = whole, r.dropped[row] = dropped, r.left[row] = whole == -INFINITY ? 0.0 : left + exp(sink - whole);
    }
}

/* The bin of a unit is that of the row for which it may weigh most. */
static __device__ void certified_bins(const select_call &c, const select_head &h, const select_memory &m, const certified_rows &r)
{
    for (int64_t u = threadIdx.x; u < c.units; u += THREADS) {
        int heaviest = BINS - 1;
        for (int64_t row = 0; row < c.rows && m.state[u] == CANDIDATE; row++) {
            if (r.whole[row] == -INFINITY) continue;
            const double bin = floor(BINS_A_NAT * (r.whole[row] - (double)value_of(c, h, c.p.log_upper, row, u)));
            heaviest = bin >= 0.0 ? bin < (double)heaviest ? (int)bin : heaviest : bin != bin ? heaviest : 0;
        }
        m.bin[u] = (uint8_t)heaviest;
    }
}

/* Drops the unit if every row's bound still holds afterwards; a lane takes every 32nd row. */
static __device__ void certified_try(const select_call &c, const select_head &h, const select_memory &m, const certified_rows &r, int64_t unit)
{
    for (int pass = 0; pass < 2; pass++) {
        bool too_much = false;
        for (int64_t row = threadIdx.x % WARP; row < c.rows; row += WARP) {
            if (r.whole[row] == -INFINITY) continue;
            const double upper = exp((double)value_of(c, h, c.p.log_upper, row, unit) - r.whole[row]);
            const double lower = exp((double)value_of(c, h, c.p.log_lower, row, unit) - r.whole[row]);
            const double dropped = (r.dropped[row] + upper) * (1.0 + AGAINST_US), left = r.left[row] - lower;
            if (pass == 1) r.dropped[row] += upper, r.left[row] = left;
            else too_much |= (1.0 - (double)c.p.epsilon) * dropped > (double)c.p.epsilon * left;
        }
        if (pass == 0 && __any_sync(WHOLE_WARP, too_much)) return;
    }
    __syncwarp();
    if (threadIdx.x % WARP == 0) m.state[unit] = GONE;
    __syncwarp();
}

static __device__ void select_certified(const select_call &c, const select_head &h, const select_memory &m, const certified_rows &r)
{
    __shared__ int in_bin[BINS];
    for (int i = threadIdx.x; i < BINS; i += THREADS) in_bin[i] = 0;
    certified_start(c, h, m, r);
    __syncthreads();
    certified_bins(c, h, m, r);
    __syncthreads();
    for (int64_t u = threadIdx.x; u < c.units; u += THREADS)
        if (m.state[u] == CANDIDATE) atomicAdd(&in_bin[m.bin[u]], 1);
    __syncthreads();
    for (int bin = BINS - 1; bin >= 0 && threadIdx.x < WARP; bin--) {
        for (int64_t first = 0, left = in_bin[bin]; first < c.units && left > 0; first += WARP) {
            const int64_t u = first + threadIdx.x;
            unsigned hits = __ballot_sync(WHOLE_WARP, u < c.units && m.state[u] == CANDIDATE && m.bin[u] == bin);
            left -= __popc(hits);
            for (; hits; hits &= hits - 1) certified_try(c, h, m, r, first + __ffs((int)hits) - 1);
        }
    }
}

/* Grid: batch * kv heads. */
static __global__ void __launch_bounds__(THREADS) block_select(const __grid_constant__ select_call c)
{
    extern __shared__ double shared[];
    const bool refines = c.p.stage == OCTAVO_STAGE_REFINE;
    if (refines) wait_for_kernel_before(); /* else that is the scan: what says which units are seen is older */
    const select_head h = select_head_of(c, (int)blockIdx.x);
    const bool certified = c.p.rule == OCTAVO_SELECT_CERTIFIED;
    const certified_rows rows = { shared, shared + c.rows, shared + 2 * c.rows };
    select_memory own = memory_of(c, shared);
    if (certified) own.state = (uint8_t *)(shared + 3 * c.rows), own.bin = own.state + c.units;
    for (int64_t u = threadIdx.x; u < c.units; u += THREADS) own.state[u] = state_before(c, h, u);
    if (!refines) wait_for_kernel_before();
    next_kernel_may_start();
    __syncthreads();
    if (certified) select_certified(c, h, own, rows);
    else if (c.p.rule == OCTAVO_SELECT_MASS) weigh_rows(c, h, own);
    else find_thresholds(c, h, own);
    __syncthreads();
    for (int64_t u = threadIdx.x; u < c.units; u += THREADS) {
        const uint8_t state = own.state[u];
        const bool keeps = state == FIXED || (state == CANDIDATE && (certified || (c.p.rule == OCTAVO_SELECT_MASS ? mass_keeps(c, h, own, u)
                                                                                                              : delta_keeps(c, h, own, u))));
        c.p.kept[h.group * c.units + u] = state == OCTAVO_UNIT_UNSEEN ? OCTAVO_UNIT_UNSEEN : keeps ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_DROPPED;
    }
}

octavo_status octavo_block_select_cuda(const octavo_exec *exec, const octavo_block_select_params *p)
{
    int shared_most = 0;
    OCTAVO_CUDA_TRY(octavo_cuda_shared_most(&shared_most));
    select_call call = select_call_of(p);
    if (p->rule == OCTAVO_SELECT_MASS && memory_bytes(call, ROWS_AT_ONCE) <= (size_t)shared_most) call.rows_cached = ROWS_AT_ONCE;
    const size_t bytes = memory_bytes(call, call.rows_cached);
    if (bytes > (size_t)shared_most)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.max_tokens is %lld, expected at most %d units of sub_block_tokens = %d on this GPU",
                                (long long)p->kv->max_tokens, shared_most / 2, p->kv->sub_block_tokens);
    return octavo_cuda_launch(block_select, "block_select", dim3((unsigned)(p->kv->batch * p->kv->kv_heads)), THREADS, bytes, exec, call);
}
