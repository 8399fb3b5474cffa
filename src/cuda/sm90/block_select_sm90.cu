/* block_select_sm90.cu - MASS for calls of few rows: a cluster a kv head, of which a block decides for one row with all of that row's
 * masses in registers, and then for its part of the units with what the others say. Everything else goes to the kernel for any size.
 *
 * Shares of a row's mass are added up a bin as integers, so that their order does not matter, in units of epsilon / 2^22; what is more
 * than epsilon alone counts as one unit more than that. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_cluster.cuh"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/sm90/cluster_launch.h"
#include "cuda/tile/select_call.cuh"

static __device__ __forceinline__ void store_pair(uint32_t to, float a, float b)
{
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(a), "f"(b) : "memory");
}

enum { ROWS_MOST = 4, COPIES = 8 /* so that lanes do not all add to the same words */ };
enum { EPSILON = 1 << 22, TOO_MUCH = EPSILON + 1, FOUR = 4 };

/* A kernel for up to UNITS units: of its block's row a thread has EACH masses; of the units for which it writes what comes of it, all rows'. */
template <int EACH_, int THREADS_> struct select_size {
    static constexpr int EACH = EACH_, THREADS = THREADS_, WARPS = THREADS / WARP, UNITS = EACH * THREADS;
    static constexpr int CELLS = EACH == 8 ? 9 : 6; /* three rows have the most: rounded up to three */
    static_assert((int64_t)(WARP / COPIES) * WARPS * EACH * TOO_MUCH < (int64_t)1 << 32, "what a word of shares adds up to");
};

static constexpr float FLOAT_ONES = 0x1p23f; /* a float of which the last bit counts one */

/* What a row says: units of `from` and lighter bins may go, on the grid below `whole`. */
struct row_verdict {
    float whole, from;
};

template <class SIZE> struct select_shared {
    __align__(16) uint32_t shares[BINS * COPIES]; /* added up a bin */
    uint32_t sums[BINS];
    log_sum parts[SIZE::WARPS];
    __align__(8) row_verdict said[ROWS_MOST]; /* by every block of the cluster */
};

/* Of its block's row a thread has the masses of neighbours; of all rows, those of the units for which it writes what comes of it. */
template <class SIZE> struct held_units {
    float mass[SIZE::EACH], cells[SIZE::CELLS];
};

/* Units that the rule may drop lie between two of them; from a third on none is seen. */
struct unit_bounds {
    int from, to, seen;
};

static __device__ __forceinline__ unit_bounds unit_bounds_of(const select_call &c)
{
    const select_head h = select_head_of(c, (int)blockIdx.x / (int)c.rows);
    const int sub = c.kv.sub_block_tokens, per_block = c.kv.block_tokens / sub, whole = (int)h.whole_to / sub, held = h.held_from * per_block;
    return { h.held_below * per_block, whole < held ? whole : held, ((int)h.length + sub - 1) / sub };
}

template <class SIZE> static __device__ __forceinline__ int written_unit(int rows, int slot)
{
    return (slot * rows + (int)cluster_rank()) * SIZE::THREADS + (int)threadIdx.x;
}

template <class SIZE> static __device__ __forceinline__ void read_masses(const select_call &c, const unit_bounds &bounds, int units, held_units<SIZE> *of)
{
    constexpr int EACH = SIZE::EACH;
    const int rows = (int)c.rows, first = (int)threadIdx.x * EACH;
    const float *masses = c.p.log_mass + (int64_t)(blockIdx.x / (unsigned)rows) * c.rows * c.units, *own = masses + cluster_rank() * c.units + first;
    const bool wide = (uintptr_t)own % sizeof(float4) == 0 && first + EACH <= units;
#pragma unroll
    for (int i = 0; i < EACH; i += FOUR) {
        float4 four = { 0.0f, 0.0f, 0.0f, 0.0f };
        if (wide) four = *(const float4 *)(own + i);
        of->mass[i] = four.x, of->mass[i + 1] = four.y, of->mass[i + 2] = four.z, of->mass[i + 3] = four.w;
    }
    if (!wide)
#pragma unroll
        for (int i = 0; i < EACH; i++) of->mass[i] = first + i < units ? own[i] : NOTHING;
    int slot = 0, row = 0;
#pragma unroll
    for (int i = 0; i < SIZE::CELLS; i++) {
        const int unit = written_unit<SIZE>(rows, slot);
        of->cells[i] = unit < units ? masses[row * c.units + unit] : 0.0f;
        slot += row + 1 == rows, row = row + 1 == rows ? 0 : row + 1;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (first + i >= bounds.seen) of->mass[i] = NOTHING;
}

/* log of the row's whole mass; every thread gets it. */
template <class SIZE> static __device__ __forceinline__ float log_whole_of(const held_units<SIZE> &of, float sink, select_shared<SIZE> *shared)
{
    constexpr int EACH = SIZE::EACH, WARPS = SIZE::WARPS;
    const int lane = threadIdx.x % WARP;
    log_sum part = { of.mass[0], 0.0f };
#pragma unroll
    for (int i = 1; i < EACH; i++) part.max = fmaxf(part.max, of.mass[i]);
    part.max = warp_reduce(part.max, take_larger());
#pragma unroll
    for (int i = 0; i < EACH; i++) part.sum += part.max == NOTHING ? 0.0f : exp2_fast(LOG2_E * (of.mass[i] - part.max));
    part.sum = warp_reduce(part.sum, add_up());
    if (lane == 0) shared->parts[threadIdx.x / WARP] = part;
    __syncthreads();
    part = shared->parts[lane % WARPS];
    const float max = fmaxf(warp_reduce(part.max, take_larger()), sink);
    if (max == NOTHING) return NOTHING;
    const float sum = warp_reduce(lane < WARPS && part.max != NOTHING ? part.sum * exp2_fast(LOG2_E * (part.max - max)) : 0.0f, add_up());
    return max + LN_2 * log2_fast(sum + exp2_fast(LOG2_E * (sink - max)));
}

/* How light a unit is on the grid of 1/8 nat: floor of it is the bin. */
static __device__ __forceinline__ float lightness(float mass, float whole)
{
    return fminf(fmaxf((float)BINS_A_NAT * (whole - mass), 0.0f), (float)(BINS - 1));
}

/* Shares of what may go, added up a bin. */
template <class SIZE>
static __device__ __forceinline__ void add_shares(const select_call &c, const unit_bounds &bounds, float whole, const held_units<SIZE> &of,
                                                  select_shared<SIZE> *shared)
{
    constexpr int EACH = SIZE::EACH;
    const float scale = fminf((float)EPSILON / c.p.epsilon, 0x1p120f);
    uint32_t *own = shared->shares + threadIdx.x % COPIES;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int unit = (int)threadIdx.x * EACH + i;
        if (unit < bounds.from || unit >= bounds.to) continue;
        const float share = fminf(exp2_fast(LOG2_E * (of.mass[i] - whole)) * scale, (float)TOO_MUCH);
        const uint32_t count = __float_as_uint(share + FLOAT_ONES) & 0x7fffffu, bin = (uint32_t)lightness(of.mass[i], whole);
        atomicAdd(&own[bin * COPIES], count);
    }
}

/* Adds up the copies, two threads a bin. */
template <class SIZE> static __device__ __forceinline__ void sum_bins(select_shared<SIZE> *shared)
{
    static_assert(COPIES == 2 * FOUR && 2 * BINS % SIZE::THREADS == 0, "a thread adds up four copies");
#pragma unroll
    for (int i = threadIdx.x; i < 2 * BINS; i += SIZE::THREADS) {
        const uint4 part = ((const uint4 *)shared->shares)[i];
        const uint32_t most = TOO_MUCH, sum = min(part.x, most) + min(part.y, most) + min(part.z, most) + min(part.w, most);
        const uint32_t both = sum + __shfl_xor_sync(WHOLE_WARP, sum, 1);
        if (i % 2 == 0) shared->sums[i / 2] = min(both, most);
    }
}

/* The first bin from which on all of the row's units may go, by a warp whose lanes hold neighbours among the bins, the lightest first. */
template <class SIZE> static __device__ __forceinline__ float first_bin(const select_shared<SIZE> &shared)
{
    enum { LANE_BINS = BINS / WARP };
    const int lane = threadIdx.x % WARP;
    uint32_t sums[LANE_BINS], sum = 0; /* at most BINS * TOO_MUCH, less than 2^32 */
#pragma unroll
    for (int i = 0; i < LANE_BINS; i++) sum += shared.sums[BINS - 1 - (lane * LANE_BINS + i)], sums[i] = sum;
    uint32_t before = sum;
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const uint32_t left = __shfl_up_sync(WHOLE_WARP, before, step);
        if (lane >= step) before += left;
    }
    before -= sum;
    int going = 0;
#pragma unroll
    for (int i = 0; i < LANE_BINS; i++) going += before + sums[i] <= EPSILON ? 1 : 0;
    return (float)(BINS - __reduce_add_sync(WHOLE_WARP, going));
}

static __device__ __forceinline__ float sink_of_row(const select_call &c, int row)
{
    const int head = (int)(blockIdx.x / (unsigned)c.rows) % c.kv.kv_heads;
    return c.p.sink_logits ? c.p.sink_logits[head * (int)(c.p.q_heads / c.kv.kv_heads) + row / (int)c.p.q_tokens] : NOTHING;
}

/* Decides for the block's row and tells all blocks of the cluster, which have met afterwards. */
template <class SIZE>
static __device__ __forceinline__ void decide(const select_call &c, const unit_bounds &bounds, int units, held_units<SIZE> *of, select_shared<SIZE> *shared)
{
    const int row = (int)cluster_rank();
    read_masses<SIZE>(c, bounds, units, of);
    const float whole = log_whole_of<SIZE>(*of, sink_of_row(c, row), shared);
    if (whole != NOTHING) add_shares<SIZE>(c, bounds, whole, *of, shared);
    __syncthreads();
    sum_bins(shared);
    __syncthreads();
    if (threadIdx.x < WARP) {
        const float from = whole == NOTHING ? 0.0f : first_bin(*shared);
        if ((int)threadIdx.x < (int)c.rows) store_pair(shared_of(shared_address(&shared->said[row]), threadIdx.x), whole, from);
        __syncwarp();
        cluster_report_written(); /* what was said is there after the wait, and no block leaves before */
    } else {
        cluster_report();
    }
    cluster_wait();
}

/* Writes the states of those of the thread's units that are below `units`, decided with what all rows have said. */
template <class SIZE>
static __device__ __forceinline__ void put_states(const select_call &c, const unit_bounds &bounds, int units, const held_units<SIZE> &of,
                                                  const select_shared<SIZE> &shared)
{
    const int rows = (int)c.rows;
    uint32_t keeps = 0;
    int slot = 0, row = 0;
#pragma unroll
    for (int i = 0; i < SIZE::CELLS; i++) {
        const row_verdict said = shared.said[row];
        keeps |= (floorf(lightness(of.cells[i], said.whole)) < said.from ? 1u : 0u) << slot;
        slot += row + 1 == rows, row = row + 1 == rows ? 0 : row + 1;
    }
    uint8_t *to = c.p.kept + (int64_t)(blockIdx.x / (unsigned)rows) * c.units;
#pragma unroll 1
    for (slot = 0; written_unit<SIZE>(rows, slot) < units; slot++) {
        const int unit = written_unit<SIZE>(rows, slot);
        const bool stays = keeps >> slot & 1u || unit < bounds.from || unit >= bounds.to;
        to[unit] = unit >= bounds.seen ? OCTAVO_UNIT_UNSEEN : stays ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_DROPPED;
    }
}

struct mass_call {
    select_call of;
    int rehearsals; /* 0 or 1 */
};

enum { THREADS_BESIDE = 512 /* of a multiprocessor, for which there is room beside the scan */ };

/* Grid: batch * kv heads clusters of a block a row. Of the few microseconds fetching the code and the parameters from memory is a large part:
 * blocks that have a place while the scan still runs go through all of it once, with no units. */
template <class SIZE> static __global__ void __launch_bounds__(SIZE::THREADS, 1024 / SIZE::THREADS) select_by_mass(const __grid_constant__ mass_call call)
{
    __shared__ select_shared<SIZE> shared;
    const select_call &c = call.of;
    const unit_bounds seen = unit_bounds_of(c); /* the kernel before is the scan: this is older */
    held_units<SIZE> of;
    for (int i = threadIdx.x; i < 2 * BINS; i += SIZE::THREADS) ((uint4 *)shared.shares)[i] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
    for (int rehearsals = call.rehearsals; rehearsals >= 0; rehearsals--) {
        const bool earnest = rehearsals == 0;
        const unit_bounds bounds = { earnest ? seen.from : 0, earnest ? seen.to : 0, earnest ? seen.seen : 0 };
        const int units = earnest ? (int)c.units : 0;
        cluster_report(), cluster_wait(); /* all blocks are there to be told */
        if (earnest) next_kernel_may_start(), wait_for_kernel_before(); /* it fetches what is older than the scan */
        decide<SIZE>(c, bounds, units, &of, &shared);
        put_states<SIZE>(c, bounds, units, of, shared);
    }
}

template <class SIZE> static octavo_status launch(const octavo_exec *exec, const select_call &of)
{
    const dim3 grid((unsigned)(of.kv.batch * of.kv.kv_heads * of.rows));
    octavo_cuda_machine machine;
    bool started = false;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    OCTAVO_CUDA_TRY(octavo_cuda_share_processors(select_by_mass<SIZE>, "block_select"));
    const mass_call call = { of, (int)grid.x <= machine.processors * (THREADS_BESIDE / SIZE::THREADS) ? 1 : 0 };
    return octavo_cuda_launch_clusters(select_by_mass<SIZE>, "block_select", grid, (int)of.rows, SIZE::THREADS, 0, exec, call, &started);
}

octavo_status octavo_block_select_sm90(const octavo_exec *exec, const octavo_block_select_params *p)
{
    const select_call call = select_call_of(p);
    typedef select_size<4, 128> few;
    typedef select_size<4, 256> some;
    typedef select_size<4, 512> more;
    typedef select_size<8, 512> most;
    const bool fits = p->rule == OCTAVO_SELECT_MASS && call.rows <= ROWS_MOST && p->window == 0 && call.units <= most::UNITS;
    if (!fits) return octavo_block_select_cuda(exec, p);
    if (call.units <= few::UNITS) return launch<few>(exec, call);
    if (call.units <= some::UNITS) return launch<some>(exec, call);
    return call.units <= more::UNITS ? launch<more>(exec, call) : launch<most>(exec, call);
}
