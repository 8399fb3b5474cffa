/* attention.h - decode attention over K and V in any stored format, with block pruning; exact or with FP8 products.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The rules and what they guarantee: docs/NUMERICS.md. Scores are in nats: s_t = softmax_scale * q . k_t. */
#ifndef OCTAVO_ATTENTION_H
#define OCTAVO_ATTENTION_H

#include "octavo/kvcache.h"

OCTAVO_BEGIN_DECLS

/* What Q K^T and P V are computed in. */
typedef enum octavo_attention_precision {
    OCTAVO_ATTENTION_EXACT = 0, /* products of f32 (view of f32), else of bf16 or f16; sums in float32                  */
    OCTAVO_ATTENTION_FP8   = 1, /* Q, K and V in E4M3, P in E4M3 where matrix units want it; an E4M3 cache is read as it is.
                                 * In decode every cache of 8 bits or fewer is                                           */
    OCTAVO_ATTENTION_SAGE1 = 2, /* prefill: K smoothed, Q and K in INT8, P V in f16 (on the CPU bf16)                    */
    OCTAVO_ATTENTION_SAGE2 = 3  /* prefill: K smoothed, Q and K in INT8, V in E4M3 with a scale a channel, P in E4M3 (on the CPU bf16) */
} octavo_attention_precision;

/* "exact", "fp8", "sage1", "sage" or "sage2" (sage is sage2); never NULL. */
OCTAVO_API const char *octavo_attention_precision_name(octavo_attention_precision precision);
OCTAVO_API octavo_status octavo_attention_precision_parse(const char *name, octavo_attention_precision *precision);

typedef enum octavo_select_rule {
    OCTAVO_SELECT_NONE      = 0, /* every plane of every block                                              */
    OCTAVO_SELECT_BASE      = 1, /* the base plane of every block, never a residual                         */
    OCTAVO_SELECT_DELTA     = 2, /* keep a unit whose largest base score reaches threshold - delta; one pass */
    OCTAVO_SELECT_MASS      = 3, /* drop the lightest units while they hold at most epsilon of the mass      */
    OCTAVO_SELECT_CERTIFIED = 4  /* the same on bounds: no head's dropped mass exceeds epsilon               */
} octavo_select_rule;

typedef enum octavo_compensation {
    OCTAVO_COMPENSATE_NONE = 0,
    OCTAVO_COMPENSATE_MEAN = 1 /* a dropped unit enters with its estimated mass at its mean V */
} octavo_compensation;

OCTAVO_API const char *octavo_select_rule_name(octavo_select_rule rule);
OCTAVO_API octavo_status octavo_select_rule_parse(const char *name, octavo_select_rule *rule);

/* How a sequence is divided among a GPU's processors, whose partial results are merged. */
typedef enum octavo_decode_splits {
    OCTAVO_SPLITS_FILL  = 0, /* by what the whole batch leaves idle; the last bits depend on the batch, and where parts are taken as
                              * processors become free, on the run                                                              */
    OCTAVO_SPLITS_FIXED = 1  /* parts of a size that kv.max_tokens alone decides: a sequence's bits are the same in any batch, alone and
                              * in every run. It may take longer                                                                */
} octavo_decode_splits;

/* "fill", "fixed"; never NULL. */
OCTAVO_API const char *octavo_decode_splits_name(octavo_decode_splits splits);
OCTAVO_API octavo_status octavo_decode_splits_parse(const char *name, octavo_decode_splits *splits);

/* State of a unit in a kept mask. */
enum { OCTAVO_UNIT_UNSEEN = 0, OCTAVO_UNIT_KEPT = 1, OCTAVO_UNIT_DROPPED = 2 };

enum {
    OCTAVO_MAX_Q_TOKENS = 16,
    OCTAVO_MAX_ROWS     = 4096 /* q_heads / kv_heads * q_tokens */
};

typedef struct octavo_decode_params {
    size_t struct_size;
    octavo_tensor q; /* [batch, q_tokens, q_heads, head_dim] f32, f16, bf16; the newest q_tokens (1..16) of each sequence;
                      * q_heads is a multiple of kv_heads, and query head h reads kv head h / (q_heads / kv_heads) */
    const octavo_kv_view *kv;
    float softmax_scale; /* 0: 1 / sqrt(head_dim)          */
    float soft_cap;      /* 0: none, else cap * tanh(s / cap) */
    int64_t window;      /* a query at p sees t with p - t < window; 0: all */
    int64_t sink_tokens; /* with a window: the first tokens that stay visible */
    const float *sink_logits; /* [q_heads] enter the denominator only; NULL: none */
    octavo_attention_precision precision; /* EXACT or FP8, which is not for CERTIFIED: its bound is of the queries as they are */

    octavo_select_rule select;
    octavo_compensation compensate;
    float delta;                     /* DELTA: nats, >= 0                                  */
    float epsilon;                   /* MASS, CERTIFIED: share of the mass, in (0, 1)      */
    const float *thresholds;         /* DELTA: [batch, q_heads], against scores of the keys as stored (less k_mean); NULL: the
                                      * largest base score in the first visible block and in the block of the newest token */
    int32_t keep_first_blocks, keep_last_blocks; /* kept whatever they weigh               */
    octavo_decode_splits splits;     /* the CPU's are always fixed                         */

    octavo_tensor out;      /* [batch, q_tokens, q_heads, v_dim] f32, f16, bf16; no visible key: 0         */
    float *lse;             /* [batch, q_heads, q_tokens] log of the denominator used, or NULL; none: -inf */
    uint8_t *kept;          /* [batch, kv_heads, units] OCTAVO_UNIT_*, or NULL                             */
    float *skip_ratio;      /* [batch, kv_heads] dropped units / visible units, or NULL                    */
    float *skip_ratio_first; /* the same of CERTIFIED's first decision: units of which only the base was read, or NULL */
    float *dropped_mass;    /* [batch, q_heads] share of the mass in dropped units, the worst of q_tokens, or NULL: an upper
                             * bound for CERTIFIED, an estimate from the base scores for DELTA and MASS    */
    int64_t *bytes_read;    /* [batch, kv_heads] bytes of the cache that the call reads, or NULL           */
} octavo_decode_params;
#define OCTAVO_DECODE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_decode_params)

/* Units of a view: the last dimension of `kept`. */
OCTAVO_API int64_t octavo_kv_view_units(const octavo_kv_view *view);

/* Bytes of workspace that octavo_attention_decode needs for this call, which must be valid but for exec->workspace. The size depends
 * on shapes and switches only: not on lengths, nor on any data. */
OCTAVO_API octavo_status octavo_attention_decode_workspace(const octavo_exec *exec, const octavo_decode_params *params, size_t *bytes);

/* Attention of the newest tokens over a cache. The result depends on nothing but inputs and device: not on threads; on a GPU with
 * OCTAVO_SPLITS_FILL its last bits may differ from run to run.
 * OCTAVO_E_ARGUMENT, _SHAPE, _UNSUPPORTED, _RANGE: nothing was written. */
OCTAVO_API octavo_status octavo_attention_decode(const octavo_exec *exec, const octavo_decode_params *params);

/* Merges partial attention results over disjoint sets of keys by their log-sum-exp. */
typedef struct octavo_merge_params {
    size_t struct_size;
    int64_t parts, rows, v_dim;
    const float *part_out; /* [rows, parts, v_dim] each part's normalised output   */
    const float *part_lse; /* [rows, parts] natural logarithm; -inf: an empty part */
    float *out;            /* [rows, v_dim]                                         */
    float *lse;            /* [rows], or NULL                                       */
} octavo_merge_params;
#define OCTAVO_MERGE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_merge_params)
OCTAVO_API octavo_status octavo_partial_merge(const octavo_exec *exec, const octavo_merge_params *params);

OCTAVO_END_DECLS

#endif
