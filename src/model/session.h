/* session.h - a running model from the inside: its cache, its activations, and how they are laid out. */
#ifndef OCTAVO_MODEL_SESSION_H
#define OCTAVO_MODEL_SESSION_H

#include "device/device.h"
#include "model/model_weights.h"

enum {
    OCTAVO_STEPS_AHEAD = 16, /* that the device may run before the host looks           */
    OCTAVO_STEP_GRAPHS = 32  /* recorded steps that are kept                            */
};

/* What a call gives its steps, in one piece, so that it is one copy: once on the host, once on the device. */
typedef struct octavo_step_inputs {
    int32_t *count;           /* [1] steps since the host looked   */
    uint64_t *random;         /* [max_sequences] generators        */
    octavo_sample_row *rows;  /* [max_sequences]                   */
    int32_t *sequences;       /* [max_sequences] of the running call */
    int32_t *ids;             /* [rows]                            */
} octavo_step_inputs;

/* What comes back, likewise. */
typedef struct octavo_step_results {
    int32_t *status;             /* one word: what kernels of a GPU report */
    octavo_step_record *records; /* [OCTAVO_STEPS_AHEAD]                   */
    octavo_drawn_token *draws;   /* [OCTAVO_STEPS_AHEAD, batch]            */
} octavo_step_results;

/* Activations of the largest piece, on the device. rows: tokens of a piece, all sequences together. */
typedef struct octavo_activations {
    octavo_dtype dtype;   /* of h and of what enters a product: f32, or bf16 where products are bf16 */
    float *x;             /* [rows, hidden] the residual stream                                      */
    float *branch;        /* [rows, hidden] of OCTAVO_NORM_AFTER, else NULL                          */
    void *h;              /* [rows, hidden] dtype, after a norm; this, attended, gate and up in rows of octavo_session_stride */
    octavo_dtype q_dtype; /* of q: f32, or bf16 where products are not in f32                        */
    void *q;              /* [rows, q_heads * head_dim] q_dtype                                      */
    float *k, *v;         /* [rows, kv_heads * head_dim]                                             */
    void *attended;       /* [rows, q_heads * head_dim] dtype                                        */
    void *gate, *up;      /* [wide rows, intermediate] dtype; wide: rows, or rows * experts_per_token */
    float *router;        /* [rows, experts]; what follows is of experts, too                        */
    int32_t *experts, *offsets, *order, *slots; /* of octavo_route_params                            */
    float *route_weights; /* [rows, experts_per_token]                                               */
    void *expert_in;      /* [rows * experts_per_token, hidden] dtype                                */
    float *expert_out;    /* [rows * experts_per_token, hidden]                                      */
    float *logits;        /* [logit_rows, vocab]                                                     */
    octavo_step_inputs in;
    octavo_step_results out;
    int32_t *first, *positions; /* [max_sequences], [rows] where new tokens go                       */
    int32_t *identity; float *ones; /* [rows] 0, 1, 2 ... and 1, of OCTAVO_NORM_AFTER               */
    int32_t *targets, *top; float *logprob;     /* [rows]                                            */
    int32_t *sampled; float *sampled_logprob, *exact_logprob; /* [max_sequences]                     */
    float *skip_ratio;    /* [layers, max_sequences, kv_heads] of one decode step                    */
    int64_t *bytes_read;  /* the same                                                                */
    float *inv_freq;      /* the model's, of its rotation                                            */
    int64_t rows, logit_rows;
} octavo_activations;

/* A recorded decode step. */
typedef struct octavo_step_graph {
    int64_t batch, runs;
    unsigned wants;
    void *graph; /* NULL before the second run */
} octavo_step_graph;

struct octavo_session {
    const octavo_model *model;
    octavo_session_config config;  /* no zero stands for a default; dense_layers is NULL: see `dense` */
    octavo_exec exec;
    octavo_kvcache *cache;
    octavo_kv_view measured_view;  /* a view of the cache's shape over no memory, for workspace queries */
    int32_t *cache_layer;          /* [layers] the cache's number of each layer: layers of one window lie together */
    uint8_t *dense;                /* [layers] 1: this layer's decode reads every block                            */
    int experts_even;              /* a step runs all experts of a layer in one call, without the host             */
    octavo_activations at;
    void *memory;                  /* (device) activations and workspace */
    size_t memory_bytes, workspace_at;
    void *host;                    /* staging: what comes back from the device after a step */
    size_t host_bytes;
    octavo_step_inputs in;         /* what goes there before                  */
    octavo_step_results out;
    int32_t *host_rows;            /* [rows]                                  */
    int32_t *host_offsets;         /* [experts + 1]                           */
    octavo_kvcache_group *groups;  /* [layers] the first are the cache's       */
    int64_t *start;                /* [max_sequences] lengths when the call began */
    octavo_session_stats stats;
    double skip_sum;               /* of the skip ratios of all steps */
    int64_t skip_count;
    octavo_step_graph graphs[OCTAVO_STEP_GRAPHS];
    int32_t next_graph;            /* the place that is taken next, when all are */
};

/* Elements between rows of `width` that enter products. On a CPU bf16 rows are an odd number of cache lines apart, so that those of a
 * tile, which are loaded together, lie in different sets of a cache. */
static inline int64_t octavo_session_stride(const octavo_session *session, int64_t width)
{
    const int64_t line = 64 / (int64_t)sizeof(uint16_t);
    const int on_cpu = octavo_model_weights(session->model)->embedding.device_kind == OCTAVO_DEVICE_CPU;
    return on_cpu && session->at.dtype == OCTAVO_BF16 && width % (2 * line) == 0 ? width + line : width;
}

/* A piece of a call: `tokens` tokens of each of `batch` sequences. ids and positions are in the activations. */
typedef struct octavo_piece {
    int64_t batch, tokens;
    const int32_t *sequences; /* [batch] on the host */
    int64_t longest;          /* tokens of the longest sequence, this piece included */
    int64_t view_tokens;      /* what attention is planned for: `longest`, or more   */
    octavo_path path;         /* OCTAVO_PATH_DECODE: tokens is 1 */
    octavo_status (*record)(void *user, const octavo_layer_record *layer);
    void *record_user;
} octavo_piece;

/* forward.c. With `need`, nothing runs: *need becomes the largest workspace that any step asks for. */
octavo_status octavo_forward_piece(octavo_session *session, const octavo_piece *piece, size_t *need);

/* logits of `rows` rows of x, [first, first + rows) in steps of `stride` rows, into the activations' logits. */
octavo_status octavo_forward_head(octavo_session *session, int64_t first, int64_t rows, int64_t stride, size_t *need);
octavo_status octavo_forward_sample(octavo_session *session, int64_t rows, size_t *need);
octavo_status octavo_forward_score(octavo_session *session, int64_t first, int64_t rows); /* of targets [first, first + rows) */
octavo_status octavo_forward_end(octavo_session *session, int64_t batch, unsigned wants); /* OCTAVO_STEP_* */

/* What a step is asked for beside keys and values. */
enum {
    OCTAVO_STEP_LOGITS = 1,
    OCTAVO_STEP_SCORE  = 2, /* log-probabilities of the targets           */
    OCTAVO_STEP_SAMPLE = 4,
    OCTAVO_STEP_FEED   = 8, /* what was sampled is the next step's token  */
    OCTAVO_STEP_COUNT  = 16 /* what decode read                           */
};

/* session_step.c: one token of each of the piece's sequences through decode. A GPU replays what it recorded at the second step of a
 * kind. Inputs are on the device; nothing waits. */
octavo_status octavo_session_step(octavo_session *session, const octavo_piece *piece, unsigned wants);
/* The inputs of a call, of which the session's host copy has `ids` token ids, go to the device. */
octavo_status octavo_session_send(octavo_session *session, int64_t ids);
/* Waits for `steps` steps of `batch` sequences and fetches what they left; OCTAVO_E_* where kernels reported something. */
octavo_status octavo_session_fetch(octavo_session *session, int64_t batch, int64_t steps);
/* Counts step `index` of those that were fetched. */
void octavo_session_count(octavo_session *session, int64_t batch, int64_t index);
/* What is told to the cache of a piece. */
octavo_kvcache_step octavo_session_cache_step(const octavo_session *session, const octavo_piece *piece);
/* Tokens that a decode of sequences up to `longest` long is planned for. */
int64_t octavo_session_plan_tokens(const octavo_session *session, int64_t longest);

/* What may be wrong with token ids, and with the sequences of a call of `tokens` tokens. */
octavo_status octavo_session_check_ids(const char *name, const int32_t *ids, int64_t count, int32_t vocab);
octavo_status octavo_session_check_sequences(octavo_session *session, const int32_t *sequences, int64_t batch, int64_t tokens);

/* The layer's keys and values for the piece's sequences. For a measurement the cache need not exist. */
octavo_status octavo_session_view(const octavo_session *session, int32_t layer, const octavo_piece *piece, int measuring, octavo_kv_view *view);

/* A contiguous tensor on the session's device. */
octavo_tensor octavo_session_tensor(const octavo_session *session, void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape);

#endif
