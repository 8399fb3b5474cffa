/* prefill_tasks.h - how a prefill call is cut into tasks, and where their memory lies; the same for every CPU level.
 *
 * A task is a tile of queries of some heads of one group: it goes through all keys that they see. Its rows are token by token, the
 * heads of a token one after the other. Heads are taken `together` at a time, because what is made of their K and V is kept for all
 * their tasks. Tasks are handed out to `lanes`, each with scratch memory of its own, the longest first. */
#ifndef OCTAVO_CPU_PREFILL_TASKS_H
#define OCTAVO_CPU_PREFILL_TASKS_H

#include "kernel/kernels.h"
#include "kernel/prefill_plan.h"

enum {
    PREFILL_LANES = 64,        /* tasks that can run at a time                                                  */
    PREFILL_HEADS_MOST = 8,    /* of one group in a task                                                        */
    PREFILL_ROWS_WANTED = 256, /* of a task: what reading and packing a key costs is then small beside its work */
    PREFILL_KEYS = 128,        /* keys of a packed tile                                                         */
    PREFILL_ROW_PAD = 32,      /* rows that tiles multiply together                                             */
    PREFILL_DIM_PAD = 64,      /* elements that packed rows are padded to                                       */
    PREFILL_ROW_STATES = 16,   /* floats kept for each row                                                      */
};
#define PREFILL_PACKED_BYTES ((size_t)256 << 20) /* of heads that are taken together, unless one takes more */

/* What keys and values are packed as. */
typedef enum octavo_prefill_operands {
    PREFILL_TILE_OPERANDS = 0, /* bf16 and int8                                       */
    PREFILL_PAIR_OPERANDS = 1, /* bf16, and int8 of which keys are unsigned: 128 higher */
    PREFILL_WIDE_OPERANDS = 2, /* float32, and int8 likewise                          */
} octavo_prefill_operands;

/* bf16 terms that hold an element of a stored format: 8 significant bits each; 0: it is not taken apart. */
static inline int octavo_prefill_k_terms(const octavo_prefill_params *p)
{
    if (p->precision != OCTAVO_ATTENTION_EXACT) return 1;
    switch (p->kv->k_format) {
    case OCTAVO_K_F32: return 0;
    case OCTAVO_K_BF16:
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E5M2:
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT4X2: return 1;
    default: return 2;
    }
}

static inline int octavo_prefill_v_terms(const octavo_prefill_params *p)
{
    if (p->precision != OCTAVO_ATTENTION_EXACT) return 1;
    return p->kv->v_format == OCTAVO_V_F32 ? 0 : p->kv->v_format == OCTAVO_V_F16 ? 2 : 1;
}

typedef struct octavo_prefill_layout {
    octavo_prefill_operands operands;
    int64_t heads, together;       /* batch * kv_heads; those that are taken together                        */
    int64_t group, task_heads, parts; /* heads of a group, of a task, and tasks that a group is cut into     */
    int64_t task_tokens, tiles, rows; /* queries of a task; tiles of queries; rows of a task, padded         */
    int64_t blocks, keys;          /* OCTAVO_PREFILL_BLOCKs of max_tokens; keys, padded                      */
    int64_t k_dim, v_dim;          /* padded                                                                 */
    int64_t lanes;
    size_t head_bytes, facts_bytes, packed_bytes; /* of a head: facts, then packed K and V                   */
    size_t lane_bytes;
    size_t ticket, heads_at, lanes_at; /* offsets in the workspace                                           */
    size_t bytes;                  /* SIZE_MAX: it does not fit                                              */
} octavo_prefill_layout;

octavo_prefill_layout octavo_prefill_layout_of(const octavo_prefill_params *p, octavo_prefill_operands operands);

/* What is found out about a head before its keys are packed, in its part of the workspace. */
typedef struct octavo_prefill_facts {
    float *k_mean, *v_mean;    /* [k_dim], [v_dim] taken off; zeros without smoothing         */
    float *v_scale, *v_inverse; /* [v_dim] what multiplies the sum over values; SAGE2: 448 / amax */
    float *q_most;             /* [group] largest magnitude of each query head: PER_HEAD; of the call: PER_TENSOR */
    float *k_most, *v_most;    /* [blocks + 1] of each block, then of all in the first: likewise */
    float *k_part, *v_part;    /* [blocks, k_dim], [blocks + 1, v_dim] of each block: its sum, then v: its largest magnitudes, then what
                                * codes leave out of it, and at last that of all blocks before it */
} octavo_prefill_facts;

octavo_prefill_facts octavo_prefill_facts_at(const octavo_prefill_layout *layout, void *head);

/* One running call: every task sees all of it. */
typedef struct octavo_prefill_call {
    const octavo_prefill_params *p;
    const octavo_exec *exec;
    octavo_prefill_layout layout;
    uint8_t *workspace;
    int64_t first_head; /* of those that are taken together now */
    int64_t head_count;
} octavo_prefill_call;

typedef struct octavo_prefill_task {
    int64_t b, head, slot;     /* slot: among the heads that are taken together          */
    int64_t q_head, heads;     /* first query head, and how many                         */
    int64_t token, tokens;     /* first query, and how many                              */
    int64_t rows, padded_rows; /* heads * tokens                                         */
    int64_t queries;           /* of the sequence                                        */
    uint8_t *scratch;          /* lane_bytes                                             */
} octavo_prefill_task;

static inline uint8_t *octavo_prefill_head_at(const octavo_prefill_call *call, int64_t slot)
{
    return call->workspace + call->layout.heads_at + (size_t)slot * call->layout.head_bytes;
}

static inline octavo_prefill_facts octavo_prefill_facts_of(const octavo_prefill_call *call, int64_t slot)
{
    return octavo_prefill_facts_at(&call->layout, octavo_prefill_head_at(call, slot));
}

static inline uint8_t *octavo_prefill_packed_at(const octavo_prefill_call *call, int64_t slot)
{
    return octavo_prefill_head_at(call, slot) + call->layout.facts_bytes;
}

/* Query of a row. Rows behind the last one stand for it, so that they ask for nothing of their own. */
static inline int64_t octavo_prefill_row_token(const octavo_prefill_task *task, int64_t row)
{
    return task->token + (row < task->rows ? row : task->rows - 1) / task->heads;
}
static inline int64_t octavo_prefill_row_head(const octavo_prefill_task *task, int64_t row) { return task->q_head + row % task->heads; }

/* How queries [first, last] see keys [begin, end). */
typedef enum octavo_prefill_sight { PREFILL_UNSEEN = 0, PREFILL_PARTLY = 1, PREFILL_WHOLE = 2 } octavo_prefill_sight;

static inline octavo_prefill_sight octavo_prefill_sight_of(const octavo_span *first, const octavo_span *last, int64_t begin, int64_t end)
{
    if (begin >= last->end || (end <= first->near_begin && begin >= last->sink_end)) return PREFILL_UNSEEN;
    const int whole = end <= first->end && (begin >= last->near_begin || end <= first->sink_end);
    return whole ? PREFILL_WHOLE : PREFILL_PARTLY;
}

/* A step of the preparation: item `index` of a head, with a lane's scratch memory. */
typedef void octavo_prefill_step(const octavo_prefill_call *call, int64_t slot, int64_t index, float *scratch);

/* What a level brings; they run in this order. pack may be NULL. */
typedef struct octavo_prefill_work {
    octavo_prefill_operands operands;
    octavo_prefill_step *sum;    /* a block: sums of K and V                        */
    octavo_prefill_step *means;  /* a head: of those sums                           */
    octavo_prefill_step *most;   /* a block: largest magnitudes                     */
    octavo_prefill_step *scales; /* a head: of those magnitudes, and of its queries */
    octavo_prefill_step *rest;   /* a block: what codes leave out of V; NULL: pack finds it */
    octavo_prefill_step *pack;   /* PREFILL_KEYS keys and values                    */
    octavo_prefill_step *rests;  /* a head: of what codes leave out                 */
    void (*attend)(const octavo_prefill_call *call, const octavo_prefill_task *task);
} octavo_prefill_work;

/* Runs the phases over all heads on the caller's pool. */
octavo_status octavo_prefill_run(const octavo_exec *exec, const octavo_prefill_params *p, const octavo_prefill_work *work);

#endif
