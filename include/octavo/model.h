/* model.h - transformers from Hugging Face checkpoints: opened, run, sampled.
 * Unstable: part of liboctavo-lm, may change in any release.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_MODEL_H
#define OCTAVO_MODEL_H

#include "octavo/attention.h"
#include "octavo/layer.h"
#include "octavo/linear.h"
#include "octavo/prefill.h"
#include "octavo/rope.h"

OCTAVO_BEGIN_DECLS

/* ---- What a model is: everything in which architectures differ. ---- */

typedef enum octavo_position_kind {
    OCTAVO_POSITION_ROPE    = 0,
    OCTAVO_POSITION_LEARNED = 1 /* a row added to the embedding */
} octavo_position_kind;

typedef enum octavo_norm_place {
    OCTAVO_NORM_BEFORE   = 0, /* x += f(norm(x)): GPT-2, Llama             */
    OCTAVO_NORM_AFTER    = 1, /* x += norm(f(x)): OLMo 2                   */
    OCTAVO_NORM_RESIDUAL = 2  /* x = norm(x + f(x)): the first transformers */
} octavo_norm_place;

typedef enum octavo_qk_norm {
    OCTAVO_QK_NORM_NONE = 0,
    OCTAVO_QK_NORM_HEAD = 1, /* each head by itself: Qwen3          */
    OCTAVO_QK_NORM_FULL = 2  /* the whole projection at once: OLMoE */
} octavo_qk_norm;

typedef enum octavo_ffn_kind {
    OCTAVO_FFN_PLAIN = 0, /* down(act(up x))             */
    OCTAVO_FFN_GATED = 1  /* down(act(gate x) * (up x))  */
} octavo_ffn_kind;

enum { OCTAVO_MODEL_EOS = 8 };

/* Borrowed from a model. Shapes of its weights follow from it. */
typedef struct octavo_model_config {
    char architecture[64]; /* as config.json has it: "LlamaForCausalLM" */
    int32_t layers, hidden, vocab;
    int64_t max_tokens;    /* context that the model was made for */
    int32_t q_heads, kv_heads, head_dim;
    float softmax_scale;
    octavo_norm_kind norm;
    octavo_norm_place norm_place;
    float norm_eps;
    octavo_qk_norm qk_norm;
    float clip_qkv;        /* 0: none, else Q, K and V are clamped to +-clip_qkv */
    octavo_position_kind position;
    octavo_rope rope;      /* inv_freq lies on the host, scaling (llama3, linear, yarn, ...) applied */
    const int64_t *windows; /* [layers] 0: full attention */
    octavo_ffn_kind ffn;
    octavo_activation activation;
    int32_t intermediate;  /* of dense layers */
    int32_t experts;       /* 0: every layer is dense */
    int32_t experts_per_token, expert_intermediate;
    octavo_route_weights route;
    const uint8_t *sparse; /* [layers] 1: experts stand in for the FFN; NULL: all, where there are experts */
    int32_t bos;           /* -1: none */
    int32_t eos[OCTAVO_MODEL_EOS], eos_count; /* of config.json and of generation_config.json, where there is one */
    float temperature, top_p, min_p; /* how generation_config.json draws (0: the likeliest token); -1: it does not say */
    int32_t top_k;                   /* likewise; 0: all */
} octavo_model_config;

/* ---- Opening. ---- */

typedef struct octavo_model octavo_model;

enum { OCTAVO_LINEAR_AS_STORED = -1 };

typedef struct octavo_model_options {
    size_t struct_size;
    int32_t linear; /* an octavo_linear_precision, or OCTAVO_LINEAR_AS_STORED: f32 for float32 checkpoints, else bf16. fp8 and int8
                     * use eight-bit weights as they come and quantise others at load (e4m3 and int8 a channel); embedding,
                     * router and LM head keep f32 or bf16 */
    int32_t threads; /* for work at load; 0: the default */
} octavo_model_options;
#define OCTAVO_MODEL_OPTIONS_INIT { sizeof(octavo_model_options), OCTAVO_LINEAR_AS_STORED, 0 }

/* path: a folder with config.json and model.safetensors or model.safetensors.index.json. Weights are mapped where their layout
 * allows. The device must outlive the model; a model is immutable and may be shared by threads. options may be NULL.
 * OCTAVO_E_IO, _FORMAT (names file and field or tensor), _UNSUPPORTED (an architecture, a quantisation), _NOMEM. */
OCTAVO_API octavo_status octavo_model_open(octavo_device *device, const char *path, const octavo_model_options *options, octavo_model **model);
OCTAVO_API void octavo_model_close(octavo_model *model); /* NULL is fine */
OCTAVO_API const octavo_model_config *octavo_model_config_of(const octavo_model *model);
OCTAVO_API octavo_linear_precision octavo_model_linear(const octavo_model *model);
/* Bytes of weights that one token of a batch of one reads (chosen experts only). */
OCTAVO_API int64_t octavo_model_bytes_per_token(const octavo_model *model);

/* ---- Running: a session holds the cache and the activations of one stream of work. ---- */

typedef struct octavo_session octavo_session;

/* Selection of blocks in decode; attention.h has the meaning. */
typedef struct octavo_session_select {
    octavo_select_rule rule;
    octavo_compensation compensate;
    octavo_decode_splits splits; /* FILL: on a GPU a drawn text may differ from one run to the next */
    float delta, epsilon;
    int32_t keep_first_blocks, keep_last_blocks;
    const int32_t *dense_layers; /* [dense_count] layers that stay with NONE */
    int32_t dense_count;
} octavo_session_select;

typedef struct octavo_session_config {
    size_t struct_size;
    int64_t max_tokens;        /* of one sequence; 0: the model's context. More than the model's is refused */
    int32_t max_sequences;     /* 0: 1                                                                       */
    int64_t pool_tokens;       /* tokens that all sequences may hold together; 0: max_sequences * max_tokens */
    octavo_k_format cache_k;   /* 0: exact: f32 where the linear precision is f32, else bf16                 */
    octavo_v_format cache_v;   /* 0: likewise                                                                */
    int32_t block_tokens, sub_block_tokens; /* 0: 64, and block_tokens                                       */
    octavo_attention_precision attention;   /* of prompts                                                    */
    octavo_prefill_scales attention_scales; /* of prompts in fp8, sage1 and sage2                            */
    octavo_attention_precision decode_attention; /* of single tokens: exact or fp8, which is not for certified */
    octavo_session_select select;           /* of single tokens                                              */
    int32_t chunk_tokens;      /* prompts run in pieces of so many tokens; 0: octavo_session_chunk_default() */
    int32_t threads;           /* 0: the default                                                             */
} octavo_session_config;
#define OCTAVO_SESSION_CONFIG_INIT OCTAVO_INIT_STRUCT(octavo_session_config)

/* Tokens of a piece of a prompt where nothing else is asked for: 1024, on a GPU 4096. NULL: as on a CPU. */
OCTAVO_API int32_t octavo_session_chunk_default(const octavo_model *model);

/* Device memory that such a session takes, before it is claimed. */
OCTAVO_API octavo_status octavo_session_memory_bytes(const octavo_model *model, const octavo_session_config *config, size_t *bytes);
OCTAVO_API octavo_status octavo_session_create(const octavo_model *model, const octavo_session_config *config, octavo_session **session);
OCTAVO_API void octavo_session_destroy(octavo_session *session); /* NULL is fine */

/* Sequences: as octavo_kvcache_*. */
OCTAVO_API octavo_status octavo_session_sequence(octavo_session *session, int32_t *sequence);
OCTAVO_API octavo_status octavo_session_fork(octavo_session *session, int32_t parent, int32_t *child);
OCTAVO_API octavo_status octavo_session_free(octavo_session *session, int32_t sequence);
OCTAVO_API octavo_status octavo_session_truncate(octavo_session *session, int32_t sequence, int64_t length);
OCTAVO_API int64_t octavo_session_length(const octavo_session *session, int32_t sequence); /* -1: no such sequence */

/* One layer's tensors of one piece of a prompt, on the device, for the call's time. */
typedef struct octavo_layer_record {
    int32_t layer;
    int64_t first_position;
    octavo_tensor h;          /* [batch, tokens, hidden] input of the projections          */
    octavo_tensor q, k, v;    /* [batch, tokens, heads, head_dim]                          */
    int32_t rotated;          /* 0: Q and K before RoPE; the call comes again with 1       */
} octavo_layer_record;

typedef enum octavo_path {
    OCTAVO_PATH_AUTO   = 0, /* one token a sequence goes through decode, more through prefill   */
    OCTAVO_PATH_DECODE = 1  /* every token goes through decode, one after the other             */
} octavo_path;

/* Runs `tokens` new tokens of each of `batch` sequences. All arrays are the host's. On failure the sequences are as they were. */
typedef struct octavo_forward_params {
    size_t struct_size;
    int64_t batch, tokens;
    const int32_t *sequences; /* [batch]                                                        */
    const int32_t *ids;       /* [batch, tokens]                                                */
    octavo_path path;
    float *logits;            /* [batch, vocab] of each sequence's last token, or NULL          */
    float *all_logits;        /* [batch, tokens, vocab], or NULL                                */
    const int32_t *targets;   /* [batch, tokens] tokens whose log-probability is asked, or NULL */
    float *logprob;           /* [batch, tokens], with targets                                  */
    int32_t *top;             /* [batch, tokens] most likely tokens, with targets, or NULL      */
    const octavo_sample_row *sample; /* [batch] how to draw a token after the last, or NULL     */
    int32_t *sampled;         /* [batch], with sample                                           */
    float *sampled_logprob;   /* [batch] under the filtered distribution, or NULL               */
    float *sampled_exact_logprob; /* [batch] under softmax(logits), or NULL                     */
    octavo_status (*record)(void *user, const octavo_layer_record *layer); /* NULL: none; other than OCTAVO_OK ends the call */
    void *record_user;
} octavo_forward_params;
#define OCTAVO_FORWARD_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_forward_params)

OCTAVO_API octavo_status octavo_session_forward(octavo_session *session, const octavo_forward_params *params);

/* Whether octavo_session_generate goes on after a step. */
typedef enum octavo_generate_next { OCTAVO_GENERATE_ON = 0, OCTAVO_GENERATE_STOP = 1 } octavo_generate_next;

/* Draws `steps` tokens, one after the other, of each of `batch` sequences. A token goes into the next step on the device; steps run
 * ahead of the host, which takes back those behind a stop. */
typedef struct octavo_generate_params {
    size_t struct_size;
    int64_t batch, steps;
    const int32_t *sequences;        /* [batch]                                                                 */
    const int32_t *ids;              /* [batch] the newest token of each, which the cache does not hold yet     */
    const octavo_sample_row *sample; /* [batch] `uniform` is not read:                                          */
    const uint64_t *random;          /* [batch] step s draws with octavo_random_uniform(random[b], first + s)   */
    uint64_t first;
    octavo_generate_next (*drawn)(void *user, int64_t step, const octavo_drawn_token *tokens); /* [batch]; called in order of steps */
    void *user;
} octavo_generate_params;
#define OCTAVO_GENERATE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_generate_params)

/* The cache then holds all but the last token that `drawn` was given, as if each had gone through octavo_session_forward. On failure
 * the sequences hold what belongs to the tokens that were given. */
OCTAVO_API octavo_status octavo_session_generate(octavo_session *session, const octavo_generate_params *params);

/* What the session has done since it was made or reset. */
typedef struct octavo_session_stats {
    int64_t prefill_tokens, decode_tokens;
    double prefill_seconds, decode_seconds;
    double decode_attention_seconds; /* on the CPU; a GPU does not wait for the clock */
    double prefill_product_seconds;  /* in linear layers, likewise                    */
    double prefill_product_flop;     /* 2 * tokens * in * out of each                 */
    int64_t decode_cache_bytes; /* read by decode attention, all layers                          */
    int64_t graph_replays;      /* decode steps that were replays of a recorded graph            */
    double skip_ratio;          /* dropped / visible units, the mean over decode tokens, layers and kv heads */
} octavo_session_stats;
OCTAVO_API void octavo_session_stats_of(const octavo_session *session, octavo_session_stats *stats);
OCTAVO_API void octavo_session_stats_reset(octavo_session *session);

OCTAVO_END_DECLS

#endif
