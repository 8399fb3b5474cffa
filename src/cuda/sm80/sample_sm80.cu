/* sample_sm80.cu - temperature, top_k, top_p, min_p, and the token that `uniform` falls on. A block a row, which is never sorted.
 *
 * Order is that of a 32-bit key of the logit, ties by id. The first place in it where a sum from the top reaches a target is found by
 * choosing three bits of the key at a time. Weights are fixed-point numbers, so that their sums are the same in any order. A row that
 * may not be sampled sets the status word and nothing else. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/logit_rows.cuh"
#include "kernel/sample_plan.h"

enum { THREADS = 512, WARPS = THREADS / WARP, DIGIT = 3, DIGITS = 1 << DIGIT, KEY_DIGITS = 11 /* of 33 bits, the first is 0 */ };
enum { LIST = 2048, LIST_SHIFT = 18 /* from there on so few may be left that they are listed */ };
static constexpr float ONE = 0x1p40f; /* a weight of 1: sums of 2^23 of them fit */

typedef unsigned long long mass;

struct sample_call {
    octavo_sample_params p;
    int32_t *device_status;
};

/* A row as its block sees it. */
struct sample_row {
    const float *logits;
    int64_t vocab;
    float most, inverse; /* inverse: of the temperature */
};

/* The first so many tokens in order: those above `key`, and the first `ties` of those that have it. */
struct sample_cut {
    uint32_t key;
    mass ties, sum; /* sum of the weights of all of them */
};

struct sample_shared {
    mass digits[WARPS][DIGITS], totals[DIGITS];
    mass masses[WARPS_MAX];
    int32_t counts[WARPS];
    uint32_t list[LIST]; /* keys, in any order */
    int32_t list_count, found;
    logit_shared rows;
};

/* What a token counts in a sum. */
enum sum_kind { SUM_COUNT, SUM_MASS };

/* Unsigned integers in the order of the logits; -0 is 0. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    const uint32_t bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static __device__ __forceinline__ float logit_of(uint32_t key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

static __device__ __forceinline__ float weight_of(const sample_row &row, float x) { return expf((x - row.most) * row.inverse); }
static __device__ __forceinline__ mass fixed(float weight) { return (mass)(weight * ONE); }

static __device__ __forceinline__ mass count_of(const sample_row &row, float x, sum_kind kind)
{
    return kind == SUM_COUNT ? 1 : fixed(weight_of(row, x));
}

/* Sums of what has the digits of `prefix` above `shift + DIGIT`, by the next digit; the same for every thread. `listed`: all of those
 * are in the list; otherwise the list is made of them, once they may be few enough. */
static __device__ void sum_digits(const sample_row &row, uint64_t prefix, int shift, sum_kind kind, bool listed, mass (&sums)[DIGITS],
                                  sample_shared *shared)
{
    const bool lists = !listed && shift <= LIST_SHIFT;
    auto add = [&](float x, uint64_t key) {
        if (key >> (shift + DIGIT) != prefix >> (shift + DIGIT)) return;
        const int digit = (int)(key >> shift) & (DIGITS - 1);
        const mass value = count_of(row, x, kind);
#pragma unroll
        for (int d = 0; d < DIGITS; d++) sums[d] += d == digit ? value : 0;
        if (!lists) return;
        const int32_t at = atomicAdd(&shared->list_count, 1);
        if (at < LIST) shared->list[at] = (uint32_t)key;
    };
#pragma unroll
    for (int d = 0; d < DIGITS; d++) sums[d] = 0;
    __syncthreads();
    if (lists && threadIdx.x == 0) shared->list_count = 0;
    __syncthreads();
    if (listed)
        for (int i = (int)threadIdx.x; i < shared->list_count; i += THREADS) add(logit_of(shared->list[i]), shared->list[i]);
    else
        each_logit(row.logits, row.vocab, [&](float x, int64_t) { add(x, key_of(x)); });
#pragma unroll
    for (int d = 0; d < DIGITS; d++) {
        const mass sum = warp_reduce(sums[d], add_up());
        if (threadIdx.x % WARP == 0) shared->digits[threadIdx.x / WARP][d] = sum;
    }
    __syncthreads();
    if (threadIdx.x < DIGITS * WARPS) { /* whole warps: a thread a digit and warp */
        mass sum = shared->digits[threadIdx.x % WARPS][threadIdx.x / WARPS];
#pragma unroll
        for (int step = WARPS / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (threadIdx.x % WARPS == 0) shared->totals[threadIdx.x / WARPS] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DIGITS; d++) sums[d] = shared->totals[d];
}

/* The fewest first tokens whose sum reaches `target`, which is at least 1 and at most the sum of all. */
static __device__ __noinline__ sample_cut cut_at(const sample_row &row, mass target, sum_kind kind, sample_shared *shared)
{
    uint64_t key = 0;
    mass above = 0;
    bool listed = false;
    for (int shift = DIGIT * (KEY_DIGITS - 1); shift >= 0; shift -= DIGIT) {
        mass sums[DIGITS];
        sum_digits(row, key, shift, kind, listed, sums, shared);
        listed = shift <= LIST_SHIFT && shared->list_count <= LIST; /* digits are summed up behind a meeting of the block */
        int digit = 0;
        mass taken = 0;
        bool found = false;
#pragma unroll
        for (int d = DIGITS - 1; d >= 0; d--) {
            if (found) continue;
            if (above + taken + sums[d] >= target) digit = d, found = true;
            else taken += sums[d];
        }
        above += taken, key |= (uint64_t)digit << shift;
    }
    const mass each = count_of(row, logit_of((uint32_t)key), kind), ties = (target - above + each - 1) / each;
    return { (uint32_t)key, ties, above + ties * each };
}

/* Sum of the weights of tokens whose key is above `key`, or whose weight is at least `least`. */
static __device__ mass sum_where(const sample_row &row, uint32_t key, float least, sample_shared *shared)
{
    mass sum = 0;
    each_logit(row.logits, row.vocab, [&](float x, int64_t) {
        const float weight = weight_of(row, x);
        if (key_of(x) > key || weight >= least) sum += fixed(weight);
    });
    return block_reduce(sum, shared->masses, add_up());
}

/* Id of the number `rank` (from 1) of the tokens with this key. */
static __device__ int32_t find_tie(const sample_row &row, uint32_t key, mass rank, sample_shared *shared)
{
    mass before = 0;
    for (int64_t first = 0; first < row.vocab; first += THREADS) {
        const int64_t i = first + threadIdx.x;
        const bool mine = i < row.vocab && key_of(row.logits[i]) == key;
        const unsigned votes = __ballot_sync(WHOLE_WARP, mine);
        const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
        __syncthreads();
        if (lane == 0) shared->counts[warp] = __popc(votes);
        __syncthreads();
        mass at = before + __popc(votes & ((1u << lane) - 1)) + 1;
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) at += (mass)shared->counts[w];
            before += (mass)shared->counts[w];
        }
        if (mine && at == rank) shared->found = (int32_t)i;
        if (before >= rank) break;
    }
    __syncthreads();
    return shared->found;
}

/* The sum of the weights that the filters leave. Any first place in order within it is one of theirs. */
static __device__ mass filtered_sum(const sample_row &row, const octavo_sample_row &how, sample_shared *shared)
{
    sample_cut cut = { 0, 0, 0 };
    bool whole = true;
    if (how.top_k > 0 && how.top_k < row.vocab) {
        cut = cut_at(row, (mass)how.top_k, SUM_COUNT, shared), whole = false;
        cut.sum = sum_where(row, cut.key, INFINITY, shared) + cut.ties * fixed(weight_of(row, logit_of(cut.key)));
    }
    if (whole) cut.sum = sum_where(row, 0, 0.0f, shared);
    if (how.top_p > 0.0f && how.top_p < 1.0f) {
        const mass enough = (mass)ceil((double)how.top_p * (double)cut.sum);
        cut = cut_at(row, enough > 1 ? enough : 1, SUM_MASS, shared), whole = false;
    }
    if (!(how.min_p > 0.0f) || (!whole && weight_of(row, logit_of(cut.key)) >= how.min_p)) return cut.sum;
    const mass left = sum_where(row, UINT32_MAX, how.min_p, shared);
    return left > 0 ? left : fixed(1.0f); /* the first always stays */
}

static __device__ bool is_refused(const sample_row &row, const largest_logit &top)
{
    bool odd = !(top.value > -INFINITY && top.value < INFINITY);
    each_logit(row.logits, row.vocab, [&](float x, int64_t) { odd |= isnan(x); });
    return __syncthreads_or(odd);
}

/* Grid: rows. */
static __global__ void __launch_bounds__(THREADS) sample(const __grid_constant__ sample_call c)
{
    __shared__ sample_shared shared;
    wait_for_kernel_before();
    const int64_t r = blockIdx.x;
    const octavo_sample_row how = c.p.rows[r];
    sample_row row = { (const float *)c.p.logits.data + r * c.p.logits.strides[0], c.p.logits.shape[1], 0.0f, 1.0f / how.temperature };
    const largest_logit top = find_largest(row.logits, row.vocab, &shared.rows);
    row.most = top.value;
    if (is_refused(row, top)) {
        if (threadIdx.x == 0) report(c.device_status, OCTAVO_E_NONFINITE);
        return;
    }
    int32_t token = top.index;
    float logprob = 0.0f;
    if (how.temperature >= OCTAVO_SAMPLE_COLDEST) { /* NaN is cold, too: nothing on the host has looked at it */
        const mass all = filtered_sum(row, how, &shared), wanted = (mass)((double)how.uniform * (double)all) + 1;
        const sample_cut at = cut_at(row, wanted < all ? wanted : all, SUM_MASS, &shared);
        token = find_tie(row, at.key, at.ties, &shared);
        logprob = (row.logits[token] - row.most) * row.inverse - logf((float)all / ONE);
    }
    const float sum = c.p.logprob ? sum_of_weights(row.logits, row.vocab, row.most, shared.rows.floats) : 1.0f;
    if (threadIdx.x != 0) return;
    c.p.tokens[r] = token;
    if (c.p.sampled_logprob) c.p.sampled_logprob[r] = logprob;
    if (c.p.logprob) c.p.logprob[r] = row.logits[token] - row.most - logf(sum);
}

octavo_status octavo_sample_cuda(const octavo_exec *exec, const octavo_sample_params *p)
{
    const sample_call call = { *p, exec->device_status };
    if (p->logits.shape[1] > 1 << 23)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "logits has %lld columns, expected at most %d on a GPU", (long long)p->logits.shape[1], 1 << 23);
    OCTAVO_CUDA_TRY(layer_check_rows("logits", p->logits.shape[0]));
    return octavo_cuda_launch(sample, "sample", dim3((unsigned)p->logits.shape[0]), THREADS, 0, exec, call);
}
