/* prefill_workspace.c - how a prefill call is cut, and how much workspace it takes, the same for every CPU level. */
#include "cpu/prefill_tasks.h"
#include "kernel/prefill_terms.h"

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Heads of a group in a task, and its queries: whole blocks of them, because these share scales. */
static void cut_queries(octavo_prefill_layout *at, const octavo_prefill_params *p)
{
    const int64_t q_tokens = p->q.shape[1];
    at->group = p->q.shape[2] / p->kv->kv_heads;
    at->parts = (at->group + PREFILL_HEADS_MOST - 1) / PREFILL_HEADS_MOST;
    at->task_heads = (at->group + at->parts - 1) / at->parts;
    const int64_t blocks = PREFILL_ROWS_WANTED / (OCTAVO_PREFILL_BLOCK * at->task_heads);
    at->task_tokens = OCTAVO_PREFILL_BLOCK * (blocks > 1 ? blocks : 1);
    while (at->task_tokens > OCTAVO_PREFILL_BLOCK && at->heads * at->parts * ((q_tokens + at->task_tokens - 1) / at->task_tokens) < PREFILL_LANES)
        at->task_tokens -= OCTAVO_PREFILL_BLOCK;
    at->tiles = (q_tokens + at->task_tokens - 1) / at->task_tokens;
    at->rows = octavo_round_up(at_most(at->task_tokens, q_tokens) * at->task_heads, PREFILL_ROW_PAD);
}

static void place_facts(octavo_prefill_layout *at)
{
    size_t end = 0;
    octavo_prefill_place(&end, 2 * at->k_dim + 4 * at->v_dim + at->group, 1, sizeof(float));
    octavo_prefill_place(&end, at->blocks + 1, at->k_dim + at->v_dim + 2, sizeof(float));
    at->facts_bytes = end;
}

octavo_prefill_facts octavo_prefill_facts_at(const octavo_prefill_layout *at, void *head)
{
    float *next = head;
    octavo_prefill_facts facts;
#define TAKE(member, count) facts.member = next, next += (count)
    TAKE(k_mean, at->k_dim), TAKE(v_mean, at->v_dim), TAKE(v_scale, at->v_dim), TAKE(v_inverse, at->v_dim);
    TAKE(k_part, at->blocks * at->k_dim), TAKE(v_part, (at->blocks + 1) * at->v_dim), TAKE(k_most, at->blocks + 1), TAKE(v_most, at->blocks + 1);
    TAKE(q_most, at->group);
#undef TAKE
    return facts;
}

/* K and V of a key as tiles take them, and the factor of its score and of its weight. */
static int64_t packed_key_bytes(const octavo_prefill_layout *at, const octavo_prefill_params *p)
{
    const int k_terms = octavo_prefill_k_terms(p), v_terms = octavo_prefill_v_terms(p);
    const int wide = at->operands == PREFILL_WIDE_OPERANDS;
    if (!k_terms || !v_terms) return 0;
    return at->k_dim * (octavo_prefill_is_sage(p) ? 1 : wide ? 4 : 2 * k_terms) + at->v_dim * (wide ? 4 : 2 * v_terms) + 2 * (int64_t)sizeof(float);
}

octavo_prefill_layout octavo_prefill_layout_of(const octavo_prefill_params *p, octavo_prefill_operands operands)
{
    const octavo_kv_view *kv = p->kv;
    octavo_prefill_layout at = { .operands = operands, .heads = kv->batch * kv->kv_heads };
    cut_queries(&at, p);
    at.blocks = (kv->max_tokens + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK;
    at.keys   = octavo_round_up(kv->max_tokens, PREFILL_KEYS);
    at.k_dim  = octavo_round_up(kv->head_dim, PREFILL_DIM_PAD);
    at.v_dim  = octavo_round_up(kv->v_dim, PREFILL_DIM_PAD);
    const int64_t tasks = at.heads * at.parts * at.tiles, packs = at.heads * (at.keys / PREFILL_KEYS);
    at.lanes  = at_most(PREFILL_LANES, tasks > packs ? tasks : packs);
    place_facts(&at);
    octavo_prefill_place(&at.packed_bytes, at.keys, packed_key_bytes(&at, p), 1);
    octavo_prefill_place(&at.packed_bytes, at.keys / PREFILL_KEYS, 1, 1); /* a mark for each tile */
    if (__builtin_add_overflow(at.facts_bytes, at.packed_bytes, &at.head_bytes)) at.head_bytes = SIZE_MAX;
    at.together = at_most(at.heads, 1 + (int64_t)(PREFILL_PACKED_BYTES / (at.head_bytes ? at.head_bytes : 1)));
    /* q, sums and row states; a tile of keys and one of values; scores and weights of a tile */
    octavo_prefill_place(&at.lane_bytes, at.rows, at.k_dim + at.v_dim + PREFILL_ROW_STATES, sizeof(float));
    octavo_prefill_place(&at.lane_bytes, PREFILL_KEYS, at.k_dim + at.v_dim + 6 * PREFILL_ROW_PAD, sizeof(float));
    octavo_prefill_place(&at.bytes, 64, 1, 1);
    at.heads_at = octavo_prefill_place(&at.bytes, at.together, 1, at.head_bytes);
    at.lanes_at = octavo_prefill_place(&at.bytes, at.lanes, 1, at.lane_bytes);
    if (at.head_bytes == SIZE_MAX || at.lane_bytes == SIZE_MAX) at.bytes = SIZE_MAX;
    return at;
}

size_t octavo_attention_prefill_kernel_workspace(const octavo_attention_prefill_params *p)
{
    const int on_gpu = p->kv->device_kind == OCTAVO_DEVICE_CUDA;
    const size_t pairs = octavo_prefill_layout_of(p, PREFILL_PAIR_OPERANDS).bytes, wide = octavo_prefill_layout_of(p, PREFILL_WIDE_OPERANDS).bytes;
    const size_t levels = pairs > wide ? pairs : wide, reference = octavo_prefill_ref_layout_of(p).bytes, most = levels > reference ? levels : reference;
    const size_t gpu = on_gpu ? octavo_prefill_gpu_workspace(p) : 0;
    return most > gpu ? most : gpu;
}
