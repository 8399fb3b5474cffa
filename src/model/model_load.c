/* model_load.c - all weights of a model, part by part, in the order of the forward pass. */
#include "model/model_load.h"
#include "base/error.h"
#include <stdlib.h>

static octavo_status load_norm(octavo_loader *loader, const char *module, int64_t width, octavo_lm_norm *norm)
{
    *norm = (octavo_lm_norm){ 0 };
    if (!module) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_vector(loader, module, ".weight", OCTAVO_JSON_REQUIRED, width, &norm->weight));
    if (loader->description->config.norm != OCTAVO_NORM_LAYER) return OCTAVO_OK;
    return octavo_load_vector(loader, module, ".bias", OCTAVO_JSON_OPTIONAL, width, &norm->bias);
}

static octavo_status load_linear(octavo_loader *loader, const char *module, int64_t out, int64_t in, bool bias, octavo_lm_linear *linear)
{
    const octavo_linear_request r = { .module = module, .out = out, .in = in, .total = out, .bias = bias, .precision = loader->precision };
    return octavo_load_linear(loader, &r, linear);
}

static octavo_status load_qkv(octavo_loader *loader, octavo_lm_layer *layer)
{
    const octavo_model_description *d = loader->description;
    const octavo_model_names *names = d->family->names;
    const int64_t q = (int64_t)d->config.q_heads * d->config.head_dim, kv = (int64_t)d->config.kv_heads * d->config.head_dim;
    const int fused = names->q == names->k;
    octavo_linear_request r = { .module = names->q, .out = q, .in = d->config.hidden, .first = 0, .total = fused ? q + 2 * kv : q,
                                .bias = d->qkv_bias, .precision = loader->precision };
    OCTAVO_TRY(octavo_load_linear(loader, &r, &layer->q));
    r.module = names->k;
    r.out = kv;
    r.first = fused ? q : 0;
    r.total = fused ? r.total : kv;
    OCTAVO_TRY(octavo_load_linear(loader, &r, &layer->k));
    r.module = names->v;
    r.first = fused ? q + kv : 0;
    return octavo_load_linear(loader, &r, &layer->v);
}

/* Two places are in use: beside the projection, and beside them all. */
static octavo_status load_cache_scale(octavo_loader *loader, const char *module, const char *suffix, float *value)
{
    octavo_stored scale;
    OCTAVO_TRY(octavo_load_single_scale(loader, module, suffix, &scale, value));
    const char *attention = loader->description->family->names->attention;
    if (scale.view.data || !attention) return OCTAVO_OK;
    return octavo_load_single_scale(loader, attention, suffix, &scale, value);
}

static octavo_status load_attention(octavo_loader *loader, octavo_lm_layer *layer)
{
    const octavo_model_config *c = &loader->description->config;
    const octavo_model_names *names = loader->description->family->names;
    const int full = c->qk_norm == OCTAVO_QK_NORM_FULL;
    OCTAVO_TRY(load_norm(loader, names->attention_norm, c->hidden, &layer->attention_norm));
    OCTAVO_TRY(load_qkv(loader, layer));
    OCTAVO_TRY(load_norm(loader, names->q_norm, full ? (int64_t)c->q_heads * c->head_dim : c->head_dim, &layer->q_norm));
    OCTAVO_TRY(load_norm(loader, names->k_norm, full ? (int64_t)c->kv_heads * c->head_dim : c->head_dim, &layer->k_norm));
    OCTAVO_TRY(load_cache_scale(loader, names->k, ".k_scale", &layer->k_scale));
    OCTAVO_TRY(load_cache_scale(loader, names->v, ".v_scale", &layer->v_scale));
    return load_linear(loader, names->o, c->hidden, (int64_t)c->q_heads * c->head_dim, loader->description->o_bias, &layer->o);
}

static octavo_status load_dense(octavo_loader *loader, octavo_lm_ffn *ffn)
{
    const octavo_model_config *c = &loader->description->config;
    const octavo_model_names *names = loader->description->family->names;
    const bool bias = loader->description->ffn_bias;
    if (c->ffn == OCTAVO_FFN_GATED) OCTAVO_TRY(load_linear(loader, names->gate, c->intermediate, c->hidden, bias, &ffn->gate));
    OCTAVO_TRY(load_linear(loader, names->up, c->intermediate, c->hidden, bias, &ffn->up));
    return load_linear(loader, names->down, c->hidden, c->intermediate, bias, &ffn->down);
}

static octavo_status load_experts(octavo_loader *loader, octavo_lm_layer *layer)
{
    const octavo_model_config *c = &loader->description->config;
    const octavo_model_names *names = loader->description->family->names;
    const octavo_linear_request router = { .module = names->router, .out = c->experts, .in = c->hidden, .total = c->experts,
                                           .precision = loader->head_precision };
    OCTAVO_TRY(octavo_load_linear(loader, &router, &layer->router));
    /* Only now: a file without these layers must not cost their memory. */
    if (!layer->experts) layer->experts = calloc((size_t)c->experts, sizeof *layer->experts);
    if (!layer->experts) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %d experts", c->experts);
    octavo_lm_ffn *experts = (octavo_lm_ffn *)(uintptr_t)layer->experts;
    for (loader->expert = 0; loader->expert < c->experts; loader->expert++) {
        octavo_lm_ffn *ffn = &experts[loader->expert];
        OCTAVO_TRY(load_linear(loader, names->expert_gate, c->expert_intermediate, c->hidden, false, &ffn->gate));
        OCTAVO_TRY(load_linear(loader, names->expert_up, c->expert_intermediate, c->hidden, false, &ffn->up));
        OCTAVO_TRY(load_linear(loader, names->expert_down, c->hidden, c->expert_intermediate, false, &ffn->down));
    }
    return OCTAVO_OK;
}

static octavo_status load_layer(octavo_loader *loader, octavo_lm_layer *layer)
{
    const octavo_model_config *c = &loader->description->config;
    OCTAVO_TRY(load_attention(loader, layer));
    OCTAVO_TRY(load_norm(loader, loader->description->family->names->ffn_norm, c->hidden, &layer->ffn_norm));
    if (c->experts > 0 && (!c->sparse || c->sparse[loader->layer])) return load_experts(loader, layer);
    return load_dense(loader, &layer->ffn);
}

/* A head of its own where the file has one: a file that says "tied" and holds both means what it holds. */
static octavo_status load_head(octavo_loader *loader)
{
    const octavo_model_description *d = loader->description;
    const octavo_model_names *names = d->family->names;
    octavo_linear_request r = { .module = names->head, .out = d->config.vocab, .in = d->config.hidden, .total = d->config.vocab,
                                .precision = loader->head_precision };
    octavo_stored stored;
    OCTAVO_TRY(octavo_load_find(loader, names->head, ".weight", d->tied ? OCTAVO_JSON_OPTIONAL : OCTAVO_JSON_REQUIRED, &stored));
    if (!stored.view.data) {
        r.module = names->embedding;
        r.same = &loader->weights->embedding;
    }
    return octavo_load_linear(loader, &r, &loader->weights->head);
}

octavo_status octavo_load_weights(octavo_loader *loader)
{
    const octavo_model_config *c = &loader->description->config;
    const octavo_model_names *names = loader->description->family->names;
    octavo_lm_weights *w = loader->weights;
    loader->last_x_scale_at = NULL;
    OCTAVO_TRY(octavo_load_table(loader, names->embedding, c->vocab, c->hidden, &w->embedding));
    if (names->positions) OCTAVO_TRY(octavo_load_table(loader, names->positions, c->max_tokens, c->hidden, &w->positions));
    for (loader->layer = 0; loader->layer < c->layers; loader->layer++) OCTAVO_TRY(load_layer(loader, &w->layers[loader->layer]));
    OCTAVO_TRY(load_norm(loader, names->final_norm, c->hidden, &w->final_norm));
    return load_head(loader);
}

octavo_status octavo_load_precision(const octavo_loader *loader, int32_t wish, octavo_linear_precision *precision)
{
    octavo_stored stored;
    *precision = (octavo_linear_precision)wish;
    if (wish != OCTAVO_LINEAR_AS_STORED) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_find(loader, loader->description->family->names->q, ".weight", OCTAVO_JSON_REQUIRED, &stored));
    *precision = stored.view.dtype == OCTAVO_F32 ? OCTAVO_LINEAR_F32 : OCTAVO_LINEAR_BF16;
    return OCTAVO_OK;
}

void octavo_load_find_prefix(octavo_loader *loader)
{
    const octavo_model_names *names = loader->description->family->names;
    char name[OCTAVO_TENSOR_NAME_BYTES];
    loader->prefix = "";
    octavo_load_name(loader, names->embedding, ".weight", name);
    if (!octavo_model_files_find(loader->files, name)) loader->prefix = names->prefix;
}

void octavo_load_free_experts(octavo_lm_weights *weights, int32_t layers)
{
    for (int32_t i = 0; weights->layers && i < layers; i++) free((void *)(uintptr_t)weights->layers[i].experts);
}
