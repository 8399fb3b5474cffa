/* kernels.h - every operation that a backend can accelerate, listed once: parameters, operands, error budget.
 *
 * ref fills every entry of a CPU device's table; faster levels overwrite what they improve, weakest first. Parameters were
 * validated by the caller (attention/, kvcache/, quant/, layer/); pointers are trusted.
 * Row r of a kv head's group is query head r / q_tokens, query token r % q_tokens, so that [batch, kv_heads, rows] is the same
 * memory order as [batch, q_heads, q_tokens]. `units` is octavo_kv_view_units(kv).
 *
 * OCTAVO_OPERANDS_operation(A, T, V) lists what the params `p` of an operation point to, for whoever poisons, compares, prints or
 * copies operands. Each has a direction: IN, OUT (not read; not all of it need be written) or INOUT.
 *   A(direction, member, dtype, elements) a plain array, NULL where not given; dtype is the word behind OCTAVO_
 *   T(direction, member)                  a strided tensor, its data NULL where not given
 *   V(direction, member)                  a view: the direction is that of its sections, its tables are read */
#ifndef OCTAVO_KERNEL_KERNELS_H
#define OCTAVO_KERNEL_KERNELS_H

#include "octavo/attention.h"
#include "octavo/context.h"
#include "octavo/kproj.h"
#include "octavo/kvcache.h"
#include "octavo/layer.h"
#include "octavo/linear.h"
#include "octavo/prefill.h"
#include "octavo/quant.h"
#include "octavo/rope.h"
#include "kernel/planes.h"

/* What every decode operation reads. */
typedef struct octavo_decode_input {
    const octavo_kv_view *kv;
    octavo_tensor q;       /* [batch, q_tokens, q_heads, head_dim] f32, f16, bf16 */
    float softmax_scale;
    float soft_cap;        /* 0: none              */
    int64_t window;        /* 0: all               */
    int64_t sink_tokens;
    int32_t planes;        /* planes of K that a score sums, >= 1 */
    octavo_attention_precision precision; /* FP8: rows of q, and of K and V where their elements have more than 8 bits, are what the
                                           * format E4M3 makes of them (planes.h); P may be rounded to E4M3 */
} octavo_decode_input;

/* 1: K's rows (V's) are rounded as they are read. */
OCTAVO_KERNEL_INLINE int octavo_decode_rounds_k(octavo_attention_precision precision, octavo_k_format format)
{
    return precision == OCTAVO_ATTENTION_FP8 && octavo_k_element_bytes(format) > 1;
}

OCTAVO_KERNEL_INLINE int octavo_decode_rounds_v(octavo_attention_precision precision, octavo_v_format format)
{
    return precision == OCTAVO_ATTENTION_FP8 && octavo_v_element_bytes(format) > 1;
}

/* [batch, kv_heads, rows] and [batch, kv_heads, units]. */
static inline int64_t octavo_row_elements(const octavo_decode_input *in) { return in->q.shape[0] * in->q.shape[1] * in->q.shape[2]; }
/* Units of a split, for kernels that make all splits alike where they may choose. */
static inline int64_t octavo_split_units_of(const octavo_kv_view *kv, int64_t splits, int64_t split_units)
{
    return split_units > 0 ? split_units : (octavo_view_units(kv) + splits - 1) / splits;
}
static inline int64_t octavo_unit_elements(const octavo_kv_view *kv) { return kv->batch * kv->kv_heads * octavo_view_units(kv); }

/* Scores of all visible tokens, reduced a unit. A unit of which a row sees nothing gets -inf.
 * With `only`, units that are not OCTAVO_UNIT_KEPT there are neither read nor written. */
typedef struct octavo_block_score_params {
    octavo_decode_input in;
    const uint8_t *only; /* [batch, kv_heads, units] or NULL                                          */
    float *unit_max;     /* [batch, kv_heads, rows, units] largest score, or NULL                      */
    float *log_mass;     /* [batch, kv_heads, rows, units] log sum exp(score)                          */
    float *log_upper;    /* the same with score + e_t, rounded up, or NULL; precision is EXACT. e_t bounds what the planes that were read leave out
                          * (softmax_scale * ||q|| * octavo_k_error_bound) and what float32 rounds       */
    float *log_lower;    /* the same with score - e_t, rounded down; with log_upper                    */
    float *scores;       /* [batch, kv_heads, rows, max_tokens] each token's score, or NULL            */
} octavo_block_score_params;

#define OCTAVO_OPERANDS_block_score(A, T, V)                                                          \
    V(IN, in.kv)                                                                                      \
    T(IN, in.q)                                                                                       \
    A(IN, only, UINT8, octavo_unit_elements(p->in.kv))                                                \
    A(OUT, unit_max, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                  \
    A(OUT, log_mass, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                  \
    A(OUT, log_upper, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                 \
    A(OUT, log_lower, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                 \
    A(OUT, scores, F32, octavo_row_elements(&p->in) * p->in.kv->max_tokens)

typedef enum octavo_select_stage {
    OCTAVO_STAGE_FIRST  = 0,
    OCTAVO_STAGE_REFINE = 1 /* CERTIFIED: `kept` holds the first decision; the bounds of its kept units are those of all planes */
} octavo_select_stage;

/* Which units are read. Fills `kept` (UNSEEN, KEPT, DROPPED). docs/NUMERICS.md defines each rule. */
typedef struct octavo_block_select_params {
    const octavo_kv_view *kv;
    int64_t q_heads, q_tokens;
    int64_t window, sink_tokens;
    const float *sink_logits;  /* [q_heads] or NULL */
    octavo_select_rule rule;   /* DELTA, MASS or CERTIFIED */
    octavo_select_stage stage;
    float delta, epsilon;
    const float *thresholds;   /* DELTA: [batch, q_heads] or NULL */
    int32_t keep_first_blocks, keep_last_blocks;
    const float *unit_max;     /* DELTA: [batch, kv_heads, rows, units] */
    const float *log_mass;     /* [batch, kv_heads, rows, units]        */
    const float *log_upper, *log_lower; /* CERTIFIED                    */
    uint8_t *kept;             /* [batch, kv_heads, units]              */
} octavo_block_select_params;

#define OCTAVO_OPERANDS_block_select(A, T, V)                                                         \
    V(IN, kv)                                                                                         \
    A(IN, sink_logits, F32, p->q_heads)                                                               \
    A(IN, thresholds, F32, p->kv->batch * p->q_heads)                                                 \
    A(IN, unit_max, F32, p->kv->batch * p->q_heads * p->q_tokens * octavo_view_units(p->kv))          \
    A(IN, log_mass, F32, p->kv->batch * p->q_heads * p->q_tokens * octavo_view_units(p->kv))          \
    A(IN, log_upper, F32, p->kv->batch * p->q_heads * p->q_tokens * octavo_view_units(p->kv))         \
    A(IN, log_lower, F32, p->kv->batch * p->q_heads * p->q_tokens * octavo_view_units(p->kv))         \
    A(INOUT, kept, UINT8, octavo_unit_elements(p->kv))

/* Attention over the kept units of each split, and the mean rows of its dropped ones. */
typedef struct octavo_block_attend_params {
    octavo_decode_input in;
    const uint8_t *kept;       /* [batch, kv_heads, units]; NULL: every visible unit */
    const float *scores;       /* [batch, kv_heads, rows, max_tokens] instead of reading K, or NULL */
    const float *log_mass;     /* [batch, kv_heads, rows, units] of dropped units; NULL: none is dropped */
    const float *log_upper;    /* the same, taken for part_dropped where given (CERTIFIED)          */
    octavo_compensation compensate;
    int64_t splits, split_units; /* split s covers units [s * split_units, (s + 1) * split_units); split_units 0: parts of the
                                  * kernel's own choice, of which only the merge is defined, the unused ones empty */
    float *part_out;           /* [batch, kv_heads, rows, splits, v_dim] normalised; nothing there: 0 */
    float *part_lse;           /* [batch, kv_heads, rows, splits] compensation included; nothing: -inf */
    float *part_kept;          /* the same of kept units alone, or NULL                               */
    float *part_dropped;       /* log of the mass in dropped units (log_upper, else log_mass), with part_kept */
    octavo_tensor merged_out;  /* [batch, q_tokens, q_heads, v_dim] f32, f16, bf16: where a merge without sinks and shifts is to follow,
                                * a kernel may do it at once; data NULL: it may not */
    float *merged_lse;         /* [batch, kv_heads, rows] or NULL */
    int *merged;               /* on the host, 0 at first: 1 says that the kernel did, and then nothing of part_* is defined */
} octavo_block_attend_params;

#define OCTAVO_OPERANDS_block_attend(A, T, V)                                                         \
    V(IN, in.kv)                                                                                      \
    T(IN, in.q)                                                                                       \
    A(IN, kept, UINT8, octavo_unit_elements(p->in.kv))                                                \
    A(IN, scores, F32, octavo_row_elements(&p->in) * p->in.kv->max_tokens)                            \
    A(IN, log_mass, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                   \
    A(IN, log_upper, F32, octavo_row_elements(&p->in) * octavo_view_units(p->in.kv))                  \
    A(OUT, part_out, F32, octavo_row_elements(&p->in) * p->splits * p->in.kv->v_dim)                  \
    A(OUT, part_lse, F32, octavo_row_elements(&p->in) * p->splits)                                    \
    A(OUT, part_kept, F32, octavo_row_elements(&p->in) * p->splits)                                   \
    A(OUT, part_dropped, F32, octavo_row_elements(&p->in) * p->splits)                                \
    T(OUT, merged_out)                                                                                \
    A(OUT, merged_lse, F32, octavo_row_elements(&p->in))

/* NONE, BASE and DELTA in one pass: scores, decides and attends a unit while it is in the cache. */
typedef struct octavo_decode_fused_params {
    octavo_decode_input in;    /* planes: all that the format has; BASE and the scan of DELTA read one */
    octavo_select_rule rule;
    float delta;
    const float *thresholds;   /* DELTA: [batch, q_heads] or NULL */
    octavo_compensation compensate;
    int32_t keep_first_blocks, keep_last_blocks;
    int64_t splits, split_units; /* as block_attend         */
    uint8_t *kept;             /* [batch, kv_heads, units]; may be NULL for NONE and BASE */
    float *part_out, *part_lse, *part_kept, *part_dropped; /* as block_attend          */
    octavo_tensor merged_out;  /* as block_attend */
    float *merged_lse;
    int *merged;
} octavo_decode_fused_params;

#define OCTAVO_OPERANDS_decode_fused(A, T, V)                                                         \
    V(IN, in.kv)                                                                                      \
    T(IN, in.q)                                                                                       \
    A(IN, thresholds, F32, p->in.q.shape[0] * p->in.q.shape[2])                                       \
    A(OUT, kept, UINT8, octavo_unit_elements(p->in.kv))                                               \
    A(OUT, part_out, F32, octavo_row_elements(&p->in) * p->splits * p->in.kv->v_dim)                  \
    A(OUT, part_lse, F32, octavo_row_elements(&p->in) * p->splits)                                    \
    A(OUT, part_kept, F32, octavo_row_elements(&p->in) * p->splits)                                   \
    A(OUT, part_dropped, F32, octavo_row_elements(&p->in) * p->splits)                                \
    T(OUT, merged_out)                                                                                \
    A(OUT, merged_lse, F32, octavo_row_elements(&p->in))

/* Merges splits by log-sum-exp. */
typedef struct octavo_partial_merge_params {
    int64_t batch, kv_heads, group, q_tokens, v_dim, splits; /* rows = group * q_tokens */
    const float *part_out;     /* [batch, kv_heads, rows, splits, v_dim] */
    const float *part_lse;     /* [batch, kv_heads, rows, splits]        */
    const float *part_kept, *part_dropped; /* the same, or NULL          */
    const float *sink_logits;  /* [kv_heads * group] or NULL             */
    octavo_tensor lse_shift_q; /* q of the call, where lse_shift_mean is given */
    const float *lse_shift_mean; /* [rows, kv_heads, head_dim] the view's k_mean or NULL: lse += softmax_scale * q . mean */
    const int32_t *lse_shift_rows; /* [batch] the view's sequences, or NULL */
    float softmax_scale;
    octavo_tensor out;         /* [batch, q_tokens, q_heads, v_dim] f32, f16, bf16 */
    float *lse;                /* [batch, kv_heads, rows] or NULL        */
    float *dropped_mass;       /* [batch, q_heads] max over q_tokens of dropped / (dropped + kept + sink), or NULL */
} octavo_partial_merge_params;

/* [batch, kv_heads, rows], and the rows of lse_shift_mean that are read. */
static inline int64_t octavo_merge_rows(const octavo_partial_merge_params *p) { return p->batch * p->kv_heads * p->group * p->q_tokens; }
static inline int64_t octavo_merge_mean_rows(const octavo_partial_merge_params *p)
{
    int64_t rows = p->lse_shift_rows ? 0 : p->batch;
    for (int64_t b = 0; b < p->batch && p->lse_shift_rows; b++)
        if (p->lse_shift_rows[b] >= rows) rows = p->lse_shift_rows[b] + 1;
    return rows;
}

#define OCTAVO_OPERANDS_partial_merge(A, T, V)                                                        \
    A(IN, part_out, F32, octavo_merge_rows(p) * p->splits * p->v_dim)                                 \
    A(IN, part_lse, F32, octavo_merge_rows(p) * p->splits)                                            \
    A(IN, part_kept, F32, octavo_merge_rows(p) * p->splits)                                           \
    A(IN, part_dropped, F32, octavo_merge_rows(p) * p->splits)                                        \
    A(IN, sink_logits, F32, p->kv_heads * p->group)                                                   \
    T(IN, lse_shift_q)                                                                                \
    A(IN, lse_shift_mean, F32, octavo_merge_mean_rows(p) * p->kv_heads * p->lse_shift_q.shape[3])     \
    A(IN, lse_shift_rows, INT32, p->batch)                                                            \
    T(OUT, out)                                                                                       \
    A(OUT, lse, F32, octavo_merge_rows(p))                                                            \
    A(OUT, dropped_mass, F32, p->batch * p->kv_heads * p->group)

/* What a decode call skipped and read, from its masks. */
typedef struct octavo_decode_stats_params {
    const octavo_kv_view *kv;
    int64_t q_tokens, window, sink_tokens;
    octavo_select_rule rule;
    octavo_compensation compensate;
    const float *thresholds;   /* DELTA: given thresholds save the threshold blocks' second read; NULL otherwise */
    const uint8_t *kept;       /* [batch, kv_heads, units] final decision; NULL: all visible units kept   */
    const uint8_t *kept_first; /* CERTIFIED: the first decision (whose kept units had all planes read)    */
    float *skip_ratio;         /* [batch, kv_heads] or NULL */
    float *skip_ratio_first;   /* the same of the first decision, or NULL */
    int64_t *bytes_read;       /* [batch, kv_heads] or NULL */
} octavo_decode_stats_params;

#define OCTAVO_OPERANDS_decode_stats(A, T, V)                                                         \
    V(IN, kv)                                                                                         \
    A(IN, thresholds, F32, 0) /* only whether it is given matters */                                  \
    A(IN, kept, UINT8, octavo_unit_elements(p->kv))                                                   \
    A(IN, kept_first, UINT8, octavo_unit_elements(p->kv))                                             \
    A(OUT, skip_ratio, F32, p->kv->batch * p->kv->kv_heads)                                           \
    A(OUT, skip_ratio_first, F32, p->kv->batch * p->kv->kv_heads)                                     \
    A(OUT, bytes_read, INT64, p->kv->batch * p->kv->kv_heads)

typedef struct octavo_kv_append_params {
    const octavo_kv_view *kv;
    octavo_tensor k, v;        /* [batch, tokens, kv_heads, dim] f32, f16, bf16; data NULL: not given */
    const int32_t *positions;  /* [batch] */
} octavo_kv_append_params;

#define OCTAVO_OPERANDS_kv_append(A, T, V)                                                            \
    V(INOUT, kv)                                                                                      \
    T(IN, k)                                                                                          \
    T(IN, v)                                                                                          \
    A(IN, positions, INT32, p->kv->batch)

/* Where the new tokens of a step go, found out where the lengths lie, so that a recorded step finds its own place at each replay.
 * OCTAVO_E_RANGE: a row that is none, or a length that max_tokens does not allow; on a GPU the other sequences advance all the same. */
typedef struct octavo_kv_advance_params {
    int64_t layers, rows, batch, tokens, max_tokens;
    const int32_t *sequences;  /* [batch] rows, none of them twice                            */
    int32_t *lengths;          /* [layers, rows] those of `sequences` grow by `tokens`        */
    int32_t *first;            /* [batch] length in layer 0 before, or NULL                   */
    int32_t *positions;        /* [batch, tokens] first[b] + 0, 1, 2, ..., or NULL            */
} octavo_kv_advance_params;

#define OCTAVO_OPERANDS_kv_advance(A, T, V)                                                           \
    A(IN, sequences, INT32, p->batch)                                                                 \
    A(INOUT, lengths, INT32, p->layers * p->rows)                                                     \
    A(OUT, first, INT32, p->batch)                                                                    \
    A(OUT, positions, INT32, p->batch * p->tokens)

/* What a decode step read, all sequences together. */
typedef struct octavo_step_record {
    int64_t bytes_read;
    double skip_sum; /* of skip_ratio over layers, sequences and kv heads */
} octavo_step_record;

/* The end of a decode step: it is put on record, and what the next one needs is made of it. OCTAVO_E_RANGE: *count is past `capacity`,
 * and nothing was written. */
typedef struct octavo_step_end_params {
    int64_t batch, capacity;
    int32_t *count;              /* [1] which step this is, from 0 on; then one more                              */
    octavo_step_record *records; /* [capacity]                                                                    */
    octavo_drawn_token *draws;   /* [capacity, batch], with tokens; log-probabilities that were not given are 0   */
    const int32_t *tokens;       /* [batch] drawn in this step; NULL: none, and neither ids nor rows are made     */
    const float *sampled_logprob, *logprob; /* [batch] or NULL                                                    */
    int32_t *ids;                /* [batch] become the tokens, or NULL                                            */
    octavo_sample_row *rows;     /* [batch] `uniform` becomes number count + 1 of the sequence's generator, or NULL */
    const uint64_t *random;      /* [batch] states of the generators, with rows                                   */
    int64_t layers, stride, values; /* statistics: `values` at the head of every `stride`                         */
    const float *skip_ratio;     /* [layers, stride] */
    const int64_t *bytes_read;   /* [layers, stride] */
} octavo_step_end_params;

#define OCTAVO_OPERANDS_step_end(A, T, V)                                                             \
    A(INOUT, count, INT32, 1)                                                                         \
    A(INOUT, records, UINT8, p->capacity * (int64_t)sizeof *p->records)                               \
    A(INOUT, draws, UINT8, p->capacity * p->batch * (int64_t)sizeof *p->draws)                        \
    A(IN, tokens, INT32, p->batch)                                                                    \
    A(IN, sampled_logprob, F32, p->batch)                                                             \
    A(IN, logprob, F32, p->batch)                                                                     \
    A(OUT, ids, INT32, p->batch)                                                                      \
    A(INOUT, rows, UINT8, p->batch * (int64_t)sizeof *p->rows)                                        \
    A(IN, random, INT64, p->batch)                                                                    \
    A(IN, skip_ratio, F32, p->layers * p->stride)                                                     \
    A(IN, bytes_read, INT64, p->layers * p->stride)

typedef struct octavo_block_metadata_params {
    const octavo_kv_view *kv;  /* k_norm, v_mean and v_mean_scale are written where present */
} octavo_block_metadata_params;

#define OCTAVO_OPERANDS_block_metadata(A, T, V) V(INOUT, kv)

/* Of the operations whose params are public: quant.h, kproj.h. */
#define OCTAVO_OPERANDS_quantize(A, T, V)                                                             \
    T(IN, x)                                                                                          \
    T(OUT, codes)                                                                                     \
    A(INOUT, scales, F32, octavo_scale_count(p->granularity, p->x.shape[0], p->x.shape[1], p->block_rows, p->block_cols)) \
    A(OUT, saturated, INT64, 1)                                                                       \
    A(OUT, underflowed, INT64, 1)

#define OCTAVO_OPERANDS_dequantize(A, T, V)                                                           \
    T(IN, codes)                                                                                      \
    A(IN, scales, F32, octavo_scale_count(p->granularity, p->x.shape[0], p->x.shape[1], p->block_rows, p->block_cols)) \
    T(OUT, x)

static inline int64_t octavo_weight_scale_count(const octavo_weight *w)
{
    const int64_t rows = w->codes.shape[0], cols = w->codes.shape[1];
    const int64_t block_rows = w->block_rows ? w->block_rows : rows, block_cols = w->block_cols ? w->block_cols : cols;
    return ((rows + block_rows - 1) / block_rows) * ((cols + block_cols - 1) / block_cols);
}

/* The public params with their defaults set: softmax_scale is not 0. */
typedef octavo_prefill_params octavo_attention_prefill_params;

#define OCTAVO_OPERANDS_attention_prefill(A, T, V)                                                    \
    T(IN, q)                                                                                          \
    V(IN, kv)                                                                                         \
    A(IN, q_lengths, INT32, p->kv->batch)                                                             \
    A(IN, sink_logits, F32, p->q.shape[2])                                                            \
    A(IN, q_amax, F32, p->scales == OCTAVO_PREFILL_PER_HEAD ? p->q.shape[2] : 1)                      \
    A(IN, k_amax, F32, p->scales == OCTAVO_PREFILL_PER_HEAD ? p->kv->kv_heads : 1)                    \
    A(IN, v_amax, F32, p->scales == OCTAVO_PREFILL_PER_HEAD ? p->kv->kv_heads : 1)                    \
    T(OUT, out)                                                                                       \
    A(OUT, lse, F32, p->q.shape[0] * p->q.shape[1] * p->q.shape[2])

#define OCTAVO_OPERANDS_k_project(A, T, V)                                                            \
    T(IN, h)                                                                                          \
    T(IN, weight.codes)                                                                               \
    A(IN, weight.scales, F32, octavo_weight_scale_count(&p->weight))                                  \
    A(IN, bias, F32, p->weight.codes.shape[0])                                                        \
    A(IN, rope.inv_freq, F32, (p->rope.rotary_dim ? p->rope.rotary_dim : p->kv->head_dim) / 2)        \
    A(IN, positions, INT32, p->kv->batch)                                                             \
    A(IN, rope_positions, INT32, p->h.shape[0] * p->h.shape[1])                                       \
    V(INOUT, kv)

/* Of a linear layer's parts that a call does not use nothing is given. */
static inline int64_t octavo_linear_part_scales(const octavo_linear_params *p, int part)
{
    return part < p->part_count ? octavo_weight_scale_count(&p->parts[part].weight) : 0;
}

#define OCTAVO_OPERANDS_linear_part(A, T, i)                                                          \
    T(IN, parts[i].weight.codes)                                                                      \
    A(IN, parts[i].weight.scales, F32, octavo_linear_part_scales(p, i))                               \
    A(IN, parts[i].packed, UINT8, 0) /* as long as linear_packed_bytes of the same table says */      \
    A(IN, parts[i].bias, F32, p->parts[i].weight.codes.shape[0])                                      \
    T(INOUT, parts[i].y)

#define OCTAVO_OPERANDS_linear(A, T, V)                                                               \
    T(IN, x)                                                                                          \
    A(IN, x_scale, F32, 1)                                                                            \
    OCTAVO_OPERANDS_linear_part(A, T, 0)                                                              \
    OCTAVO_OPERANDS_linear_part(A, T, 1)                                                              \
    OCTAVO_OPERANDS_linear_part(A, T, 2)                                                              \
    OCTAVO_OPERANDS_linear_part(A, T, 3)

/* The linear layers of experts at once. Rows offsets[e] ... offsets[e + 1] - 1 of x and of every y belong to expert e, whose weights lie
 * so many bytes behind those of expert 0, which `of` names; nothing is packed, and x_scale is shared by all. */
typedef struct octavo_linear_experts_params {
    octavo_linear_params of;   /* x [rows, in] with two axes */
    int64_t experts;
    const int32_t *offsets;    /* [experts + 1] from 0 up to rows */
    int64_t codes_step[OCTAVO_LINEAR_PARTS], scales_step[OCTAVO_LINEAR_PARTS], bias_step[OCTAVO_LINEAR_PARTS];
} octavo_linear_experts_params;

/* Part i of expert e. */
static inline octavo_linear_part octavo_linear_expert_part(const octavo_linear_experts_params *p, int i, int64_t e)
{
    octavo_linear_part part = p->of.parts[i];
    part.weight.codes.data = (uint8_t *)part.weight.codes.data + e * p->codes_step[i];
    if (part.weight.scales) part.weight.scales = (const float *)(const void *)((const uint8_t *)part.weight.scales + e * p->scales_step[i]);
    if (part.bias) part.bias = (const float *)(const void *)((const uint8_t *)part.bias + e * p->bias_step[i]);
    return part;
}

static inline int64_t octavo_linear_expert_scales(const octavo_linear_experts_params *p, int part)
{
    return part < p->of.part_count ? p->experts * octavo_weight_scale_count(&p->of.parts[part].weight) : 0;
}

#define OCTAVO_OPERANDS_linear_experts_part(A, T, i)                                                  \
    T(IN, of.parts[i].weight.codes)                                                                   \
    A(IN, of.parts[i].weight.scales, F32, octavo_linear_expert_scales(p, i))                          \
    A(IN, of.parts[i].bias, F32, p->experts * p->of.parts[i].weight.codes.shape[0])                   \
    T(INOUT, of.parts[i].y)

#define OCTAVO_OPERANDS_linear_experts(A, T, V)                                                       \
    T(IN, of.x)                                                                                       \
    A(IN, of.x_scale, F32, 1)                                                                         \
    A(IN, offsets, INT32, p->experts + 1)                                                             \
    OCTAVO_OPERANDS_linear_experts_part(A, T, 0)                                                      \
    OCTAVO_OPERANDS_linear_experts_part(A, T, 1)                                                      \
    OCTAVO_OPERANDS_linear_experts_part(A, T, 2)                                                      \
    OCTAVO_OPERANDS_linear_experts_part(A, T, 3)

/* Of layer.h and rope.h. A kernel must bear y over its input, element by element, where the header allows it. */
static inline int64_t octavo_norm_width(const octavo_norm_params *p) { return p->x.shape[p->x.ndim - 1]; }

#define OCTAVO_OPERANDS_norm(A, T, V)                                                                 \
    T(IN, x)                                                                                          \
    A(IN, weight, F32, octavo_norm_width(p))                                                          \
    A(IN, bias, F32, octavo_norm_width(p))                                                            \
    T(OUT, y)

#define OCTAVO_OPERANDS_rope_apply(A, T, V)                                                           \
    T(INOUT, x)                                                                                       \
    A(IN, rope.inv_freq, F32, (p->rope.rotary_dim ? p->rope.rotary_dim : p->x.shape[3]) / 2)          \
    A(IN, positions, INT32, p->x.shape[0] * p->x.shape[1])

#define OCTAVO_OPERANDS_activate(A, T, V) T(IN, gate) T(IN, up) T(OUT, y)

#define OCTAVO_OPERANDS_gather_rows(A, T, V)                                                          \
    T(IN, table)                                                                                      \
    A(IN, rows, INT32, p->y.shape[0])                                                                 \
    T(IN, add)                                                                                        \
    A(IN, add_rows, INT32, p->y.shape[0])                                                             \
    T(OUT, y)

#define OCTAVO_OPERANDS_combine_rows(A, T, V)                                                         \
    T(IN, x)                                                                                          \
    A(IN, slots, INT32, p->y.shape[0] * p->choices)                                                   \
    A(IN, weights, F32, p->y.shape[0] * p->choices)                                                   \
    T(INOUT, y)

#define OCTAVO_OPERANDS_route(A, T, V)                                                                \
    T(IN, logits)                                                                                     \
    A(OUT, experts, INT32, p->logits.shape[0] * p->choices)                                           \
    A(OUT, weights, F32, p->logits.shape[0] * p->choices)                                             \
    A(OUT, offsets, INT32, p->logits.shape[1] + 1)                                                    \
    A(OUT, order, INT32, p->logits.shape[0] * p->choices)                                             \
    A(OUT, slots, INT32, p->logits.shape[0] * p->choices)

#define OCTAVO_OPERANDS_sample(A, T, V)                                                               \
    T(IN, logits)                                                                                     \
    A(IN, rows, UINT8, p->logits.shape[0] * (int64_t)sizeof(octavo_sample_row))                       \
    A(OUT, tokens, INT32, p->logits.shape[0])                                                         \
    A(OUT, sampled_logprob, F32, p->logits.shape[0])                                                  \
    A(OUT, logprob, F32, p->logits.shape[0])

#define OCTAVO_OPERANDS_token_logprob(A, T, V)                                                        \
    T(IN, logits)                                                                                     \
    A(IN, tokens, INT32, p->logits.shape[0])                                                          \
    A(OUT, logprob, F32, p->logits.shape[0])                                                          \
    A(OUT, top, INT32, p->logits.shape[0])

/*    operation       error budget against ref (docs/NUMERICS.md derives each) */
#define OCTAVO_KERNEL_LIST(X) \
    X(quantize,       OCTAVO_BUDGET_EXACT)  \
    X(dequantize,     OCTAVO_BUDGET_EXACT)  \
    X(kv_append,      OCTAVO_BUDGET_EXACT)  \
    X(block_metadata, OCTAVO_BUDGET_EXACT)  \
    X(kv_advance,     OCTAVO_BUDGET_EXACT)  \
    X(step_end,       OCTAVO_BUDGET_EXACT)  \
    X(block_score,    OCTAVO_BUDGET_SCORE)  \
    X(block_select,   OCTAVO_BUDGET_SELECT) \
    X(block_attend,   OCTAVO_BUDGET_ATTEND) \
    X(decode_fused,   OCTAVO_BUDGET_ATTEND) \
    X(partial_merge,  OCTAVO_BUDGET_MERGE)  \
    X(decode_stats,   OCTAVO_BUDGET_EXACT)  \
    X(k_project,      OCTAVO_BUDGET_PROJECT) \
    X(attention_prefill, OCTAVO_BUDGET_PREFILL) \
    X(norm,           OCTAVO_BUDGET_NORM)   \
    X(rope_apply,     OCTAVO_BUDGET_ROTATE) \
    X(activate,       OCTAVO_BUDGET_ACTIVATE) \
    X(gather_rows,    OCTAVO_BUDGET_EXACT)  \
    X(combine_rows,   OCTAVO_BUDGET_COMBINE) \
    X(route,          OCTAVO_BUDGET_ROUTE)  \
    X(sample,         OCTAVO_BUDGET_SAMPLE) \
    X(token_logprob,  OCTAVO_BUDGET_LOGPROB) \
    X(linear,         OCTAVO_BUDGET_LINEAR) \
    X(linear_experts, OCTAVO_BUDGET_LINEAR)

typedef struct octavo_kernels {
#define X(op, budget) octavo_status (*op)(const octavo_exec *exec, const octavo_##op##_params *p);
    OCTAVO_KERNEL_LIST(X)
#undef X
    /* How the table's `linear` wants a weight packed; NULL: it takes every weight as it lies. Bytes 0: this one, too. Whoever sets
     * `linear` sets both. */
    size_t (*linear_packed_bytes)(const octavo_weight *weight, octavo_linear_precision precision);
    octavo_status (*linear_pack)(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, void *packed);
} octavo_kernels;

/* Each returns without writing where the machine lacks the level's features. */
void octavo_install_ref(octavo_kernels *kernels);
void octavo_install_generic(octavo_kernels *kernels);
void octavo_install_avx2(octavo_kernels *kernels);
void octavo_install_avx512(octavo_kernels *kernels);
void octavo_install_avx512_vnni(octavo_kernels *kernels);
void octavo_install_avx512_bf16(octavo_kernels *kernels);
void octavo_install_amx(octavo_kernels *kernels); /* asks the system to permit tiles */
void octavo_install_neon(octavo_kernels *kernels);

/* Workspace of the operations that need one: enough for every CPU level and for the CUDA backend. */
size_t octavo_block_score_workspace(const octavo_block_score_params *p);
size_t octavo_block_attend_workspace(const octavo_block_attend_params *p);
size_t octavo_decode_fused_workspace(const octavo_decode_fused_params *p);
size_t octavo_k_project_kernel_workspace(const octavo_k_project_params *p);
size_t octavo_attention_prefill_kernel_workspace(const octavo_attention_prefill_params *p);
size_t octavo_sample_kernel_workspace(const octavo_sample_params *p);
size_t octavo_linear_kernel_workspace(const octavo_linear_params *p);

#endif
