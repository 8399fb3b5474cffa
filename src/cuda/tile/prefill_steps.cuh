/* prefill_steps.cuh - in what order the blocks of a grid encode Q, K and V for a call of attention_prefill, and how they wait for each other.
 *
 * Kv heads are taken one after the other. What has to be known of all keys of one is found `ahead` heads before its codes, which then find K and
 * V in the second-level cache. A block takes its step when it begins: those that it waits for began before it. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_STEPS_CUH
#define OCTAVO_CUDA_TILE_PREFILL_STEPS_CUH

#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/prefill_stored.cuh"

struct prefill_steps {
    int facts[3], codes[3]; /* blocks of the grid for a kv head's Q (of all its heads), K and V: what is found out first, and codes */
    int heads, ahead;       /* sequences times kv heads; how many heads codes lie behind facts                                      */
    int q_heads;            /* of a kv head                                                                                         */
    int *next, *words;      /* see OCTAVO_PREFILL_EIGHT_STEPS                                                                        */
};

/* Words of a kv head: blocks that have found their part, blocks that have coded V, and whether facts are known. K's are Q's as well. */
enum { STEP_KEYS_FOUND, STEP_VALUES_FOUND, STEP_VALUES_CODED, STEP_KEYS_KNOWN, STEP_VALUES_KNOWN };

struct prefill_step {
    int line; /* sequence times kv heads plus head */
    bool facts;
    prefill_operand what;
    int q_head, part; /* q_head: of the group */
};

static __device__ __forceinline__ int steps_sum(const int (&of)[3]) { return of[0] + of[1] + of[2]; }

/* Step `index` of the grid. */
static __device__ __forceinline__ prefill_step prefill_step_of(const prefill_steps &steps, int index)
{
    const int facts = steps_sum(steps.facts), codes = steps_sum(steps.codes), both = facts + codes, early = steps.heads - steps.ahead;
    prefill_step step = {};
    int within;
    if (index < steps.ahead * facts) {
        step.facts = true, step.line = index / facts, within = index % facts;
    } else if ((index -= steps.ahead * facts) < early * both) {
        within = index % both, step.facts = within < facts, step.line = index / both + (step.facts ? steps.ahead : 0);
        if (!step.facts) within -= facts;
    } else {
        index -= early * both;
        step.line = early + index / codes, within = index % codes;
    }
    const int values = step.facts ? steps.facts[PREFILL_V] : steps.codes[PREFILL_V], keys = step.facts ? steps.facts[PREFILL_K] : steps.codes[PREFILL_K];
    const int q_parts = (step.facts ? steps.facts[PREFILL_Q] : steps.codes[PREFILL_Q]) / steps.q_heads;
    step.what = within < values ? PREFILL_V : within < values + keys ? PREFILL_K : PREFILL_Q;
    step.part = step.what == PREFILL_V ? within : step.what == PREFILL_K ? within - values : within - values - keys;
    if (step.what == PREFILL_Q) step.q_head = step.part / q_parts, step.part %= q_parts;
    return step;
}

static __device__ __forceinline__ int *step_word(const prefill_steps &steps, int line, int word)
{
    return steps.words + line * OCTAVO_PREFILL_EIGHT_STEPS + word;
}

/* The block's step, for one of its threads. Where none waits for another, they go by their numbers. */
static __device__ __forceinline__ prefill_step prefill_take_step(const prefill_steps &steps)
{
    return prefill_step_of(steps, steps_sum(steps.facts) > 0 ? atomicAdd(steps.next, 1) : (int)blockIdx.x);
}

/* After what a block has written: it is the last of `count` blocks, and sees what the others wrote. */
static __device__ __forceinline__ bool step_is_last(int *arrived, int count, int *shared)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        *shared = atomicAdd(arrived, 1) == count - 1;
        __threadfence();
    }
    __syncthreads();
    return *shared != 0;
}

static __device__ __forceinline__ void step_tell(int *known)
{
    __syncthreads();
    if (threadIdx.x == 0) store_released(known, 1);
}

static __device__ __forceinline__ void step_wait(const int *known)
{
    if (threadIdx.x == 0)
        while (!load_acquired(known)) __nanosleep(40);
    __syncthreads();
}

#endif
