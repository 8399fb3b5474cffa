/* model_config.h - what config.json says of a model, checked, with what only the loader needs of it. */
#ifndef OCTAVO_MODEL_MODEL_CONFIG_H
#define OCTAVO_MODEL_MODEL_CONFIG_H

#include "model/model_config_json.h"
#include "octavo/model.h"

/* ---- An architecture is data: a row of the table in model_config_family.c. ---- */

typedef enum octavo_bias_rule { OCTAVO_BIAS_NEVER, OCTAVO_BIAS_ALWAYS, OCTAVO_BIAS_BY_FIELD } octavo_bias_rule;

typedef enum octavo_window_rule {
    OCTAVO_WINDOW_NONE,
    OCTAVO_WINDOW_ALL,        /* sliding_window, of every layer                                    */
    OCTAVO_WINDOW_ALL_BY_USE, /* the same where use_sliding_window is true                         */
    OCTAVO_WINDOW_BY_LAYER    /* likewise, of the layers that layer_types or max_window_layers say */
} octavo_window_rule;

typedef enum octavo_expert_rule {
    OCTAVO_EXPERTS_NONE,
    OCTAVO_EXPERTS_ALL,    /* in every layer                                     */
    OCTAVO_EXPERTS_BY_STEP /* as decoder_sparse_step and mlp_only_layers say     */
} octavo_expert_rule;

typedef enum octavo_weight_order { OCTAVO_WEIGHT_OUT_IN, OCTAVO_WEIGHT_IN_OUT } octavo_weight_order;

/* Names of fields that differ. NULL: there is no such field. */
typedef struct octavo_model_fields {
    const char *layers, *hidden, *q_heads, *kv_heads, *head_dim, *intermediate, *max_tokens, *norm_eps, *activation;
} octavo_model_fields;

/* Names of modules; their tensors end in ".weight" and ".bias". '#' is the layer's number, '@' the expert's; NULL: none. */
typedef struct octavo_model_names {
    const char *prefix; /* of all but the head; files of the bare model lack it */
    const char *embedding, *positions, *final_norm, *head;
    const char *attention_norm, *ffn_norm, *q_norm, *k_norm;
    const char *q, *k, *v, *o; /* q == k: one fused module that holds Q, K and V after each other */
    const char *gate, *up, *down;
    const char *router, *expert_gate, *expert_up, *expert_down;
    const char *attention; /* the module that k_scale and v_scale may belong to instead of k and v */
} octavo_model_names;

typedef struct octavo_model_family {
    const char *architecture;
    const octavo_model_fields *fields;
    const octavo_model_names *names;
    octavo_norm_kind norm;
    octavo_norm_place norm_place;
    octavo_qk_norm qk_norm;
    octavo_position_kind position;
    octavo_ffn_kind ffn;
    const char *activation; /* where config.json names none */
    octavo_bias_rule qkv_bias, o_bias, ffn_bias;
    octavo_window_rule window;
    octavo_expert_rule experts;
    const char *expert_intermediate; /* the field's name            */
    octavo_route_weights route;      /* where norm_topk_prob is missing or not looked at */
    octavo_weight_order weight_order;
    double rope_theta;               /* where config.json names none */
    int tied;                        /* likewise: 1 where head and embedding are one */
} octavo_model_family;

/* NULL: unknown. */
const octavo_model_family *octavo_model_family_by_name(const char *architecture);
/* "LlamaForCausalLM, ..." for messages. */
void octavo_model_family_list(char *text, size_t bytes);

/* ---- How eight-bit weights are stored. ---- */

typedef enum octavo_scale_layout { /* bits of octavo_model_quant.layouts */
    OCTAVO_SCALE_TENSOR  = 1,
    OCTAVO_SCALE_CHANNEL = 2,
    OCTAVO_SCALE_BLOCK   = 4
} octavo_scale_layout;

typedef struct octavo_model_quant {
    const char *source;   /* the file that announces it, for messages; NULL: the weights are floats */
    unsigned layouts;     /* that scales may have; a tensor's shape decides among them              */
    int64_t block_rows, block_cols;
    json_t *excluded;     /* {name: true} modules that stay floats, owned; NULL: none               */
    json_t *patterns;     /* [patterns] of more of them, owned; NULL: none                          */
    size_t pattern_bytes; /* of all patterns together                                               */
} octavo_model_quant;

/* ---- The whole. ---- */

typedef struct octavo_model_description {
    octavo_model_config config; /* its arrays are the three below */
    float *inv_freq;
    int64_t *windows;
    uint8_t *sparse;
    const octavo_model_family *family;
    bool qkv_bias, o_bias, ffn_bias, tied;
    octavo_model_quant quant;
} octavo_model_description;

enum { OCTAVO_CONFIG_BYTES_MAX = 16 << 20 };

/* From the text of config.json and, where there is one, of hf_quant_config.json (else NULL). labels: what messages call the files;
 * they must outlive the description. After a failure there is nothing to finish. */
octavo_status octavo_model_description_init(octavo_model_description *description, const char *label, const char *text, size_t bytes);
octavo_status octavo_model_description_add_quant(octavo_model_description *description, const char *label, const char *text, size_t bytes);
/* The same of generation_config.json: more tokens that end a text, and how tokens are drawn. */
octavo_status octavo_model_description_add_generation(octavo_model_description *description, const char *label, const char *text, size_t bytes);
void octavo_model_description_fini(octavo_model_description *description);

/* model_config_rope.c: inv_freq, rope and, where the scaling says so, max_tokens. head_dim and max_tokens are known. */
octavo_status octavo_model_config_rope(const octavo_json_object *root, octavo_model_description *description);
/* The tokens of 'eos_token_id', a number or a list, that *config does not have yet. */
octavo_status octavo_model_config_eos(const octavo_json_object *root, octavo_model_config *config);
/* model_config_quant.c */
octavo_status octavo_model_config_quant(const octavo_json_object *root, octavo_model_quant *quant);
octavo_status octavo_model_modelopt_quant(const octavo_json_object *root, octavo_model_quant *quant);
void octavo_model_quant_fini(octavo_model_quant *quant);
/* Whether a list of excluded modules names this one: exactly, with '*' for any text, or by a simple "re:" pattern. */
bool octavo_model_quant_excludes(const octavo_model_quant *quant, const char *module);

#endif
