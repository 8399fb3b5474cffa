/* layer.h - what stands between the products of a transformer: norms, activations, rows by index, routing, sampling.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything is computed in float32. Index arrays lie on the device; an index outside its range is OCTAVO_E_RANGE on the CPU,
 * before anything is written, and sets the status word on a device. Every tensor has at least one row. Outputs share no memory with
 * inputs, except where they may be the same tensor: the same data, dtype and strides. NaN and Inf go through as the formulas have
 * it, unless a line says otherwise. Same inputs, same device: same bits, whatever the number of threads. */
#ifndef OCTAVO_LAYER_H
#define OCTAVO_LAYER_H

#include "octavo/context.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_norm_kind {
    OCTAVO_NORM_RMS   = 0, /* x / sqrt(mean(x^2) + eps) * weight                    */
    OCTAVO_NORM_LAYER = 1  /* (x - mean) / sqrt(variance + eps) * weight + bias     */
} octavo_norm_kind;

/* Each row by itself. A row is the last axis: [tokens, hidden], or [tokens, heads, head_dim] for norms of Q and K. */
typedef struct octavo_norm_params {
    size_t struct_size;
    octavo_norm_kind kind;
    octavo_tensor x;     /* [..., width] f32, f16 or bf16, 2 or 3 axes, last axis contiguous */
    octavo_tensor y;     /* [..., width] f32, f16 or bf16; may be x itself                   */
    const float *weight; /* [width] or NULL: one                                             */
    const float *bias;   /* [width] or NULL; LAYER only                                      */
    float eps;           /* 0 or more                                                        */
} octavo_norm_params;
#define OCTAVO_NORM_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_norm_params)
OCTAVO_API octavo_status octavo_norm(const octavo_exec *exec, const octavo_norm_params *params);

typedef enum octavo_activation {
    OCTAVO_ACTIVATION_RELU      = 0, /* 0 where x < 0, else x (so NaN stays)                     */
    OCTAVO_ACTIVATION_SILU      = 1, /* x / (1 + exp(-x))                                        */
    OCTAVO_ACTIVATION_GELU      = 2, /* x (1 + erf(x / sqrt(2))) / 2                             */
    OCTAVO_ACTIVATION_GELU_TANH = 3  /* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2        */
} octavo_activation;

/* y = activation(gate) * up, or activation(gate) without up. */
typedef struct octavo_activate_params {
    size_t struct_size;
    octavo_activation activation;
    octavo_tensor gate; /* [tokens, width] f32, f16 or bf16, last axis contiguous          */
    octavo_tensor up;   /* the same shape, or data NULL: a plain FFN                       */
    octavo_tensor y;    /* [tokens, width] f32, f16 or bf16; may be gate or up itself      */
} octavo_activate_params;
#define OCTAVO_ACTIVATE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_activate_params)
OCTAVO_API octavo_status octavo_activate(const octavo_exec *exec, const octavo_activate_params *params);

/* y[i] = table[rows[i]] (+ add[add_rows[i]]): embeddings, and the tokens of an expert. Exact: without add a row of y's dtype is
 * copied, else the float32 value or sum is rounded to y's dtype once. */
typedef struct octavo_gather_rows_params {
    size_t struct_size;
    octavo_tensor table;   /* [entries, width] f32, f16, bf16; last axis contiguous        */
    const int32_t *rows;   /* [count], each in [0, entries)                                */
    octavo_tensor add;     /* [add_entries, width] (learned positions) or data NULL        */
    const int32_t *add_rows; /* [count], with add                                          */
    octavo_tensor y;       /* [count, width] f32, f16 or bf16                              */
} octavo_gather_rows_params;
#define OCTAVO_GATHER_ROWS_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_gather_rows_params)
OCTAVO_API octavo_status octavo_gather_rows(const octavo_exec *exec, const octavo_gather_rows_params *params);

/* y[t] += sum over j of weights[t, j] * x[slots[t, j]], in order of j. */
typedef struct octavo_combine_rows_params {
    size_t struct_size;
    octavo_tensor x;       /* [entries, width] f32, f16, bf16                              */
    const int32_t *slots;  /* [tokens, choices], each in [0, entries), or -1: left out     */
    const float *weights;  /* [tokens, choices]                                            */
    int64_t choices;
    octavo_tensor y;       /* [tokens, width] f32                                          */
} octavo_combine_rows_params;
#define OCTAVO_COMBINE_ROWS_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_combine_rows_params)
OCTAVO_API octavo_status octavo_combine_rows(const octavo_exec *exec, const octavo_combine_rows_params *params);

typedef enum octavo_route_weights {
    OCTAVO_ROUTE_SOFTMAX     = 0, /* weights of the chosen experts are their shares of the softmax over all: OLMoE      */
    OCTAVO_ROUTE_RENORMALISE = 1  /* and then divided by their sum: Mixtral, Qwen3-MoE with norm_topk_prob              */
} octavo_route_weights;

/* The `choices` experts of each token by descending logit, ties to the lower index; and who goes where: rows of expert e are
 * tokens order[offsets[e]] ... order[offsets[e + 1] - 1], ascending. A NaN comes after every logit; a token whose logits hold a NaN
 * or +Inf, or are all -Inf, is routed all the same, with weights NaN. */
typedef struct octavo_route_params {
    size_t struct_size;
    octavo_tensor logits;  /* [tokens, experts] f32, last axis contiguous                       */
    int64_t choices;       /* 1..experts                                                        */
    octavo_route_weights weighting;
    int32_t *experts;      /* [tokens, choices]                                                 */
    float *weights;        /* [tokens, choices]                                                 */
    int32_t *offsets;      /* [experts + 1] prefix sums of tokens an expert                     */
    int32_t *order;        /* [tokens * choices] token of each row, sorted by expert            */
    int32_t *slots;        /* [tokens, choices] row that holds this choice: the inverse of order */
} octavo_route_params;
#define OCTAVO_ROUTE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_route_params)
OCTAVO_API octavo_status octavo_route(const octavo_exec *exec, const octavo_route_params *params);

/* How one row is sampled. Filters apply in this order to softmax(logits / temperature): top_k, then top_p, then min_p; what each
 * leaves is renormalised, so top_p counts shares of what top_k left. The token is the first whose cumulative probability, in order
 * of descending logit (ties: lower id first), exceeds `uniform`; one whose logit is -Inf is never drawn. */
typedef struct octavo_sample_row {
    float temperature; /* 0 (or less than 2^-126): the largest logit, lowest id first */
    int32_t top_k;     /* 0: all                                               */
    float top_p;       /* 1 (or 0): all; the fewest tokens that reach top_p    */
    float min_p;       /* 0: all; at least min_p times the largest probability */
    float uniform;     /* in [0, 1)                                            */
} octavo_sample_row;

typedef struct octavo_sample_params {
    size_t struct_size;
    octavo_tensor logits;          /* [rows, vocab] f32, last axis contiguous                       */
    const octavo_sample_row *rows; /* [rows], on the device                                         */
    int32_t *tokens;               /* [rows]                                                        */
    float *sampled_logprob;        /* [rows] under the filtered distribution (temperature 0: 0), or NULL */
    float *logprob;                /* [rows] under softmax(logits), or NULL                         */
} octavo_sample_params;
#define OCTAVO_SAMPLE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_sample_params)
OCTAVO_API octavo_status octavo_sample_workspace(const octavo_exec *exec, const octavo_sample_params *params, size_t *bytes);
/* OCTAVO_E_NONFINITE: a row of logits has a NaN, +Inf or no finite value (-Inf beside finite ones is allowed); nothing was written. */
OCTAVO_API octavo_status octavo_sample(const octavo_exec *exec, const octavo_sample_params *params);

/* A token and its log-probabilities: under the filtered distribution, and under softmax(logits). */
typedef struct octavo_drawn_token {
    int32_t token;
    float sampled_logprob, logprob;
} octavo_drawn_token;

/* Number `index` of the generator (SplitMix64) whose state this is: a multiple of 2^-24 in [0, 1), for octavo_sample_row. Any state
 * is fine, and any index at any time. */
OCTAVO_API float octavo_random_uniform(uint64_t state, uint64_t index);
/* The state of a generator that belongs to part `part` of what `seed` stands for: one for each prompt and sample of a run, say. */
OCTAVO_API uint64_t octavo_random_derive(uint64_t seed, uint64_t part);

/* logprob[r] = log softmax(logits[r])[tokens[r]], and which token is largest. A row with a NaN, +Inf or no finite value: NaN, and the
 * largest of those that are no NaN (0 where all are NaN or -Inf). */
typedef struct octavo_token_logprob_params {
    size_t struct_size;
    octavo_tensor logits;  /* [rows, vocab] f32, last axis contiguous */
    const int32_t *tokens; /* [rows]                                  */
    float *logprob;        /* [rows]                                  */
    int32_t *top;          /* [rows] lowest id of the largest logit, or NULL */
} octavo_token_logprob_params;
#define OCTAVO_TOKEN_LOGPROB_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_token_logprob_params)
OCTAVO_API octavo_status octavo_token_logprob(const octavo_exec *exec, const octavo_token_logprob_params *params);

OCTAVO_END_DECLS

#endif
