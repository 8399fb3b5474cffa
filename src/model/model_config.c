/* model_config.c - reads config.json: every field is checked against its limits, and the fields against each other. */
#include "model/model_config.h"
#include "base/error.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Far past any model; their products stay far below 2^63. */
enum { LAYERS_MAX = 4096, HIDDEN_MAX = 1 << 20, HEADS_MAX = 1 << 16, HEAD_DIM_MAX = 1 << 14, WIDE_MAX = 1 << 24, VOCAB_MAX = 1 << 27,
       EXPERTS_MAX = 1 << 14 };

static octavo_status read_family(const octavo_json_object *root, octavo_model_description *d)
{
    const json_t *list;
    char known[400];
    OCTAVO_TRY(octavo_json_list(root, "architectures", &list));
    const char *name = json_string_value(json_array_get(list, 0));
    if (!name) return octavo_fail(OCTAVO_E_FORMAT, "%s: has no field 'architectures' that is a list of names", root->label);
    d->family = octavo_model_family_by_name(name);
    if (d->family) {
        memcpy(d->config.architecture, name, strlen(name) + 1);
        return OCTAVO_OK;
    }
    octavo_model_family_list(known, sizeof known);
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field 'architectures' names '%.60s', expected one of %s", root->label, name, known);
}

/* Switches that would change the arithmetic in ways that nothing here does. */
static octavo_status refuse_variants(const octavo_json_object *root)
{
    static const char *const KEYS[] = { "scale_attn_by_inverse_layer_idx", "add_cross_attention" };
    if (json_object_get(root->json, "text_config"))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field 'text_config' belongs to a model of more than text, which is not supported",
                           root->label);
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        bool set = false;
        OCTAVO_TRY(octavo_json_flag(root, KEYS[i], &set));
        if (set) return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%s' is true, but only false is supported", root->label, KEYS[i]);
    }
    return OCTAVO_OK;
}

static octavo_status read_heads(const octavo_json_object *root, const octavo_model_fields *fields, octavo_model_config *c)
{
    OCTAVO_TRY(octavo_json_int32(root, fields->q_heads, OCTAVO_JSON_REQUIRED, 1, HEADS_MAX, &c->q_heads));
    c->kv_heads = c->q_heads;
    if (fields->kv_heads) OCTAVO_TRY(octavo_json_int32(root, fields->kv_heads, OCTAVO_JSON_OPTIONAL, 1, HEADS_MAX, &c->kv_heads));
    if (c->q_heads % c->kv_heads)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s' is %d, expected a multiple of %s, %d", root->label, fields->q_heads, c->q_heads,
                           fields->kv_heads, c->kv_heads);
    if (fields->head_dim) OCTAVO_TRY(octavo_json_int32(root, fields->head_dim, OCTAVO_JSON_OPTIONAL, 1, HEAD_DIM_MAX, &c->head_dim));
    if (c->head_dim == 0) {
        if (c->hidden % c->q_heads)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s' is %d, expected a multiple of %s, %d, where no head_dim is given",
                               root->label, fields->hidden, c->hidden, fields->q_heads, c->q_heads);
        c->head_dim = c->hidden / c->q_heads;
    }
    bool scaled = true;
    OCTAVO_TRY(octavo_json_flag(root, "scale_attn_weights", &scaled));
    c->softmax_scale = scaled ? (float)(1.0 / sqrt(c->head_dim)) : 1.0f;
    return OCTAVO_OK;
}

static octavo_status read_sizes(const octavo_json_object *root, const octavo_model_family *family, octavo_model_config *c)
{
    const octavo_model_fields *fields = family->fields;
    double eps = 0;
    OCTAVO_TRY(octavo_json_int32(root, fields->layers, OCTAVO_JSON_REQUIRED, 1, LAYERS_MAX, &c->layers));
    OCTAVO_TRY(octavo_json_int32(root, fields->hidden, OCTAVO_JSON_REQUIRED, 1, HIDDEN_MAX, &c->hidden));
    OCTAVO_TRY(octavo_json_int32(root, "vocab_size", OCTAVO_JSON_REQUIRED, 1, VOCAB_MAX, &c->vocab));
    OCTAVO_TRY(octavo_json_int64(root, fields->max_tokens, OCTAVO_JSON_REQUIRED, 1, INT32_MAX, &c->max_tokens));
    OCTAVO_TRY(octavo_json_number(root, fields->norm_eps, OCTAVO_JSON_REQUIRED, 0, 1, &eps));
    c->norm_eps = (float)eps;
    c->intermediate = 4 * c->hidden; /* GPT-2's, whose field may be null */
    const octavo_json_need need = family->ffn == OCTAVO_FFN_PLAIN ? OCTAVO_JSON_OPTIONAL : OCTAVO_JSON_REQUIRED;
    OCTAVO_TRY(octavo_json_int32(root, fields->intermediate, need, 1, WIDE_MAX, &c->intermediate));
    return read_heads(root, fields, c);
}

static octavo_status read_activation(const octavo_json_object *root, const octavo_model_family *family, octavo_activation *activation)
{
    static const struct { const char *name; octavo_activation activation; } NAMES[] = {
        { "silu", OCTAVO_ACTIVATION_SILU },          { "swish", OCTAVO_ACTIVATION_SILU },
        { "relu", OCTAVO_ACTIVATION_RELU },          { "gelu", OCTAVO_ACTIVATION_GELU },
        { "gelu_python", OCTAVO_ACTIVATION_GELU },   { "gelu_new", OCTAVO_ACTIVATION_GELU_TANH },
        { "gelu_fast", OCTAVO_ACTIVATION_GELU_TANH }, { "gelu_accurate", OCTAVO_ACTIVATION_GELU_TANH },
        { "gelu_pytorch_tanh", OCTAVO_ACTIVATION_GELU_TANH }, { "gelu_python_tanh", OCTAVO_ACTIVATION_GELU_TANH },
    };
    const char *name = family->activation;
    OCTAVO_TRY(octavo_json_text(root, family->fields->activation, OCTAVO_JSON_OPTIONAL, &name));
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (!strcmp(NAMES[i].name, name)) {
            *activation = NAMES[i].activation;
            return OCTAVO_OK;
        }
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%s' is '%.40s', expected silu, relu, gelu, gelu_new or another name of these",
                       root->label, family->fields->activation, name);
}

static octavo_status read_bias(const octavo_json_object *root, octavo_bias_rule rule, const char *key, bool *bias)
{
    *bias = rule == OCTAVO_BIAS_ALWAYS;
    return rule == OCTAVO_BIAS_BY_FIELD ? octavo_json_flag(root, key, bias) : OCTAVO_OK;
}

static octavo_status read_token(const octavo_json_object *root, const char *key, const json_t *value, int32_t *token)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= INT32_MAX) {
        *token = (int32_t)json_integer_value(value);
        return OCTAVO_OK;
    }
    return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s' is not a token: a whole number from 0", root->label, key);
}

static octavo_status add_eos(const octavo_json_object *root, const json_t *value, octavo_model_config *c)
{
    int32_t token = 0;
    OCTAVO_TRY(read_token(root, "eos_token_id", value, &token));
    for (int32_t i = 0; i < c->eos_count; i++)
        if (c->eos[i] == token) return OCTAVO_OK;
    if (c->eos_count == OCTAVO_MODEL_EOS)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field 'eos_token_id' names the model more than %d tokens that end a text", root->label,
                           OCTAVO_MODEL_EOS);
    c->eos[c->eos_count++] = token;
    return OCTAVO_OK;
}

octavo_status octavo_model_config_eos(const octavo_json_object *root, octavo_model_config *config)
{
    const json_t *eos = json_object_get(root->json, "eos_token_id");
    if (!eos || json_is_null(eos)) return OCTAVO_OK;
    if (!json_is_array(eos)) return add_eos(root, eos, config);
    for (size_t i = 0; i < json_array_size(eos); i++) OCTAVO_TRY(add_eos(root, json_array_get(eos, i), config));
    return OCTAVO_OK;
}

static octavo_status read_tokens(const octavo_json_object *root, octavo_model_config *c)
{
    const json_t *bos = json_object_get(root->json, "bos_token_id");
    c->bos = -1;
    if (bos && !json_is_null(bos)) OCTAVO_TRY(read_token(root, "bos_token_id", bos, &c->bos));
    return octavo_model_config_eos(root, c);
}

/* layer_types has the last word; files from before it have max_window_layers. */
static octavo_status windows_by_layer(const octavo_json_object *root, int64_t window, int32_t layers, int64_t *windows)
{
    const json_t *types;
    int64_t full_layers = 0;
    OCTAVO_TRY(octavo_json_list(root, "layer_types", &types));
    OCTAVO_TRY(octavo_json_int64(root, "max_window_layers", OCTAVO_JSON_OPTIONAL, 0, INT32_MAX, &full_layers));
    if (!types) {
        for (int32_t i = 0; i < layers; i++) windows[i] = i >= full_layers ? window : 0;
        return OCTAVO_OK;
    }
    if (json_array_size(types) != (size_t)layers)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'layer_types' has %zu entries, expected one for each of %d layers", root->label,
                           json_array_size(types), layers);
    for (int32_t i = 0; i < layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (!type) return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'layer_types' has an entry %d that is not a string", root->label, i);
        if (!strcmp(type, "full_attention")) continue;
        if (strcmp(type, "sliding_attention"))
            return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field 'layer_types' has entry %d '%.40s', expected full_attention or "
                               "sliding_attention", root->label, i, type);
        if (window == 0)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'layer_types' has a sliding_attention, entry %d, but there is no sliding_window "
                               "in use", root->label, i);
        windows[i] = window;
    }
    return OCTAVO_OK;
}

static octavo_status read_windows(const octavo_json_object *root, octavo_model_description *d)
{
    const octavo_window_rule rule = d->family->window;
    int64_t window = 0;
    bool use = rule == OCTAVO_WINDOW_ALL;
    d->windows = calloc((size_t)d->config.layers, sizeof *d->windows);
    if (!d->windows) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for %d layers", root->label, d->config.layers);
    d->config.windows = d->windows;
    if (rule == OCTAVO_WINDOW_NONE) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_int64(root, "sliding_window", OCTAVO_JSON_OPTIONAL, 1, INT32_MAX, &window));
    if (!use) OCTAVO_TRY(octavo_json_flag(root, "use_sliding_window", &use));
    if (!use) window = 0;
    if (rule == OCTAVO_WINDOW_BY_LAYER) return windows_by_layer(root, window, d->config.layers, d->windows);
    for (int32_t i = 0; i < d->config.layers; i++) d->windows[i] = window;
    return OCTAVO_OK;
}

static octavo_status mark_dense(const octavo_json_object *root, octavo_model_description *d)
{
    const json_t *list, *entry;
    size_t i;
    int32_t step = 1;
    OCTAVO_TRY(octavo_json_int32(root, "decoder_sparse_step", OCTAVO_JSON_OPTIONAL, 1, LAYERS_MAX, &step));
    OCTAVO_TRY(octavo_json_list(root, "mlp_only_layers", &list));
    d->sparse = calloc((size_t)d->config.layers, sizeof *d->sparse);
    if (!d->sparse) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for %d layers", root->label, d->config.layers);
    for (int32_t layer = 0; layer < d->config.layers; layer++) d->sparse[layer] = (layer + 1) % step == 0;
    json_array_foreach(list, i, entry) {
        if (!json_is_integer(entry))
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'mlp_only_layers' has an entry %zu that is not a whole number", root->label, i);
        const int64_t layer = json_integer_value(entry);
        if (layer >= 0 && layer < d->config.layers) d->sparse[layer] = 0;
    }
    d->config.sparse = d->sparse;
    return OCTAVO_OK;
}

static octavo_status read_experts(const octavo_json_object *root, octavo_model_description *d)
{
    octavo_model_config *c = &d->config;
    const octavo_model_family *family = d->family;
    if (family->experts == OCTAVO_EXPERTS_NONE) return OCTAVO_OK;
    const int32_t fewest = family->experts == OCTAVO_EXPERTS_ALL;
    const char *key = json_object_get(root->json, "num_experts") ? "num_experts" : "num_local_experts";
    OCTAVO_TRY(octavo_json_int32(root, key, OCTAVO_JSON_REQUIRED, fewest, EXPERTS_MAX, &c->experts));
    if (c->experts == 0) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_int32(root, "num_experts_per_tok", OCTAVO_JSON_REQUIRED, 1, c->experts, &c->experts_per_token));
    OCTAVO_TRY(octavo_json_int32(root, family->expert_intermediate, OCTAVO_JSON_REQUIRED, 1, WIDE_MAX, &c->expert_intermediate));
    bool renormalise = family->route == OCTAVO_ROUTE_RENORMALISE;
    if (!renormalise) OCTAVO_TRY(octavo_json_flag(root, "norm_topk_prob", &renormalise));
    c->route = renormalise ? OCTAVO_ROUTE_RENORMALISE : OCTAVO_ROUTE_SOFTMAX;
    return family->experts == OCTAVO_EXPERTS_BY_STEP ? mark_dense(root, d) : OCTAVO_OK;
}

static octavo_status read_all(const octavo_json_object *root, octavo_model_description *d)
{
    octavo_model_config *c = &d->config;
    double clip = 0;
    OCTAVO_TRY(read_family(root, d));
    OCTAVO_TRY(refuse_variants(root));
    const octavo_model_family *family = d->family;
    c->norm = family->norm;
    c->norm_place = family->norm_place;
    c->qk_norm = family->qk_norm;
    c->position = family->position;
    c->ffn = family->ffn;
    c->temperature = c->top_p = c->min_p = -1.0f;
    c->top_k = -1;
    d->tied = family->tied;
    OCTAVO_TRY(read_sizes(root, family, c));
    OCTAVO_TRY(read_activation(root, family, &c->activation));
    OCTAVO_TRY(read_bias(root, family->qkv_bias, "attention_bias", &d->qkv_bias));
    OCTAVO_TRY(read_bias(root, family->o_bias, "attention_bias", &d->o_bias));
    OCTAVO_TRY(read_bias(root, family->ffn_bias, "mlp_bias", &d->ffn_bias));
    OCTAVO_TRY(octavo_json_flag(root, "tie_word_embeddings", &d->tied));
    OCTAVO_TRY(octavo_json_number(root, "clip_qkv", OCTAVO_JSON_OPTIONAL, 1e-6, 1e6, &clip));
    c->clip_qkv = (float)clip;
    OCTAVO_TRY(read_tokens(root, c));
    OCTAVO_TRY(read_windows(root, d));
    OCTAVO_TRY(read_experts(root, d));
    if (c->position == OCTAVO_POSITION_ROPE) OCTAVO_TRY(octavo_model_config_rope(root, d));
    return octavo_model_config_quant(root, &d->quant);
}

octavo_status octavo_model_description_init(octavo_model_description *description, const char *label, const char *text, size_t bytes)
{
    json_t *parsed;
    *description = (octavo_model_description){ 0 };
    OCTAVO_TRY(octavo_json_read(label, text, bytes, OCTAVO_CONFIG_BYTES_MAX, &parsed));
    const octavo_json_object root = { label, "", parsed };
    const octavo_status status = read_all(&root, description);
    json_decref(parsed);
    if (status != OCTAVO_OK) octavo_model_description_fini(description);
    return status;
}

octavo_status octavo_model_description_add_quant(octavo_model_description *description, const char *label, const char *text, size_t bytes)
{
    json_t *parsed;
    if (description->quant.source) return OCTAVO_OK; /* config.json has said it already */
    octavo_status status = octavo_json_read(label, text, bytes, OCTAVO_CONFIG_BYTES_MAX, &parsed);
    if (status == OCTAVO_OK) {
        const octavo_json_object root = { label, "", parsed };
        status = octavo_model_modelopt_quant(&root, &description->quant);
        json_decref(parsed);
    }
    if (status != OCTAVO_OK) octavo_model_description_fini(description);
    return status;
}

void octavo_model_description_fini(octavo_model_description *description)
{
    free(description->inv_freq);
    free(description->windows);
    free(description->sparse);
    octavo_model_quant_fini(&description->quant);
    *description = (octavo_model_description){ 0 };
}
