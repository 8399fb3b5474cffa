/* session.h - a running model from the inside: its cache, its activations, and how they are laid out. */
#ifndef OCTAVO_MODEL_SESSION_H
#define OCTAVO_MODEL_SESSION_H

#include "device/device.h"
#include "model/model_weights.h"

/* Activations of the largest piece, on the device. rows: tokens of a piece, all sequences together. */
typedef struct octavo_activations {
    octavo_dtype dtype;   /* of h and of what enters a product: f32, or bf16 where products are bf16 */
    float *x;             /* [rows, hidden] the residual stream                                      */
    float *branch;        /* [rows, hidden] of OCTAVO_NORM_AFTER, else NULL                          */
    void *h;              /* [rows, hidden] dtype, after a norm                                      */
    float *q, *k, *v;     /* [rows, heads * head_dim]                                                */
    void *attended;       /* [rows, q_heads * head_dim] dtype                                        */
    void *gate, *up;      /* [wide rows, intermediate] dtype; wide: rows, or rows * experts_per_token */
    float *router;        /* [rows, experts]; what follows is of experts, too                        */
    int32_t *experts, *offsets, *order, *slots; /* of octavo_route_params                            */
    float *route_weights; /* [rows, experts_per_token]                                               */
    void *expert_in;      /* [rows * experts_per_token, hidden] dtype                                */
    float *expert_out;    /* [rows * experts_per_token, hidden]                                      */
    float *logits;        /* [logit_rows, vocab]                                                     */
    int32_t *ids, *positions; /* [rows]                                                              */
    int32_t *identity; float *ones; /* [rows] 0, 1, 2 ... and 1, of OCTAVO_NORM_AFTER               */
    int32_t *targets, *top; float *logprob;     /* [rows]                                            */
    octavo_sample_row *sample; int32_t *sampled; float *sampled_logprob, *exact_logprob; /* [max_sequences] */
    int32_t *sequences;   /* [max_sequences] of the running call                                     */
    float *skip_ratio;    /* [layers, max_sequences, kv_heads] of one decode step                    */
    int64_t *bytes_read;  /* the same                                                                */
    float *inv_freq;      /* the model's, of its rotation                                            */
    int32_t *status;      /* one word: what kernels of a GPU report                                  */
    int64_t rows, logit_rows;
} octavo_activations;

struct octavo_session {
    const octavo_model *model;
    octavo_session_config config;  /* no zero stands for a default; dense_layers is NULL: see `dense` */
    octavo_exec exec;
    octavo_kvcache *cache;
    octavo_kv_view measured_view;  /* a view of the cache's shape over no memory, for workspace queries */
    int32_t *cache_layer;          /* [layers] the cache's number of each layer: layers of one window lie together */
    uint8_t *dense;                /* [layers] 1: this layer's decode reads every block                            */
    octavo_activations at;
    void *memory;                  /* (device) activations and workspace */
    size_t memory_bytes, workspace_at;
    void *host;                    /* staging: what comes back from the device after a step */
    size_t host_bytes;
    int32_t *host_positions;       /* [rows]                                  */
    int32_t *host_offsets;         /* [experts + 1]                           */
    float *host_skip;              /* as skip_ratio                           */
    int64_t *host_bytes_read;      /* as bytes_read                           */
    octavo_kvcache_group *groups;  /* [layers] the first are the cache's       */
    int64_t *start;                /* [max_sequences] lengths when the call began */
    octavo_session_stats stats;
    double skip_sum;               /* of host_skip over all steps */
    int64_t skip_count;
};

/* A piece of a call: `tokens` tokens of each of `batch` sequences. ids and positions are in the activations. */
typedef struct octavo_piece {
    int64_t batch, tokens;
    const int32_t *sequences; /* [batch] on the host */
    int64_t longest;          /* tokens of the longest sequence, this piece included */
    octavo_path path;         /* OCTAVO_PATH_DECODE: tokens is 1 */
    octavo_status (*record)(void *user, const octavo_layer_record *layer);
    void *record_user;
} octavo_piece;

/* forward.c. With `need`, nothing runs: *need becomes the largest workspace that any step asks for. */
octavo_status octavo_forward_piece(octavo_session *session, const octavo_piece *piece, size_t *need);

/* logits of `rows` rows of x, [first, first + rows) in steps of `stride` rows, into the activations' logits. */
octavo_status octavo_forward_head(octavo_session *session, int64_t first, int64_t rows, int64_t stride, size_t *need);
octavo_status octavo_forward_sample(octavo_session *session, int64_t rows, size_t *need);

/* The layer's keys and values for the piece's sequences. For a measurement the cache need not exist. */
octavo_status octavo_session_view(const octavo_session *session, int32_t layer, const octavo_piece *piece, int measuring, octavo_kv_view *view);

/* A contiguous tensor on the session's device. */
octavo_tensor octavo_session_tensor(const octavo_session *session, void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape);

#endif
