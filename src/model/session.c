/* session.c - sessions: what one asks for, its memory, and its sequences. */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory_available.h"
#include "model/session.h"
#include <string.h>

enum {
    ALIGN = 64,
    CHUNK_TOKENS = 1024, CHUNK_TOKENS_GPU = 4096,
    BLOCK_TOKENS = 64,
    LOGIT_BYTES = 64 << 20, /* of logits at a time */
    LOGIT_ROWS_MIN = 16
};

/* Where activations and pages seem to lie while they are measured: nothing is read there, and neither reaches the other. */
static const uintptr_t DUMMY_ADDRESS = 4096, DUMMY_POOL = (uintptr_t)1 << 46;

static const double MIB = 1 << 20;

/* ---- what a config asks for ---- */

static octavo_status check_select(const octavo_session_select *select, int32_t layers)
{
    if (select->dense_count < 0 || (select->dense_count > 0 && !select->dense_layers))
        return octavo_fail(OCTAVO_E_ARGUMENT, "select.dense_count is %d with dense_layers %p", select->dense_count, (const void *)select->dense_layers);
    for (int32_t i = 0; i < select->dense_count; i++)
        if (select->dense_layers[i] < 0 || select->dense_layers[i] >= layers)
            return octavo_fail(OCTAVO_E_RANGE, "select.dense_layers names layer %d, but the model has %d layers", select->dense_layers[i], layers);
    return OCTAVO_OK;
}

static octavo_status check_model(const octavo_model_config *model)
{
    if (model->clip_qkv != 0.0f)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "clip_qkv is %g, but nothing here clamps Q, K and V", (double)model->clip_qkv);
    if (model->experts > 0 && model->norm_place == OCTAVO_NORM_AFTER)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "a mixture of experts with a norm after it is not supported");
    return OCTAVO_OK;
}

int32_t octavo_session_chunk_default(const octavo_model *model)
{
    return model && octavo_model_weights(model)->embedding.device_kind != OCTAVO_DEVICE_CPU ? CHUNK_TOKENS_GPU : CHUNK_TOKENS;
}

/* Defaults filled in, contradictions refused. */
static octavo_status resolve(const octavo_model *model, const octavo_session_config *given, octavo_session_config *config)
{
    if (!model) return octavo_fail(OCTAVO_E_ARGUMENT, "model is NULL, expected one from octavo_model_open");
    if (!given) return octavo_fail(OCTAVO_E_ARGUMENT, "config is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_session_config", given->struct_size, sizeof *given));
    const octavo_model_config *of = octavo_model_config_of(model);
    OCTAVO_TRY(check_model(of));
    OCTAVO_TRY(check_select(&given->select, of->layers));
    *config = *given;
    if (config->max_tokens < 0 || config->max_tokens > of->max_tokens)
        return octavo_fail(OCTAVO_E_RANGE, "max_tokens is %lld, but the model was made for %lld tokens", (long long)config->max_tokens, (long long)of->max_tokens);
    if (config->max_sequences < 0 || config->pool_tokens < 0 || config->chunk_tokens < 0 || config->threads < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "max_sequences is %d, pool_tokens %lld, chunk_tokens %d, threads %d, expected 0 or more",
                           config->max_sequences, (long long)config->pool_tokens, config->chunk_tokens, config->threads);
    if (!config->max_tokens) config->max_tokens = of->max_tokens;
    if (!config->max_sequences) config->max_sequences = 1;
    if (!config->chunk_tokens) config->chunk_tokens = octavo_session_chunk_default(model);
    if (config->chunk_tokens > config->max_tokens) config->chunk_tokens = (int32_t)config->max_tokens;
    if (!config->block_tokens) config->block_tokens = BLOCK_TOKENS;
    const int exact = octavo_model_linear(model) == OCTAVO_LINEAR_F32;
    if (!config->cache_k) config->cache_k = exact ? OCTAVO_K_F32 : OCTAVO_K_BF16;
    if (!config->cache_v) config->cache_v = exact ? OCTAVO_V_F32 : OCTAVO_V_BF16;
    if (!config->pool_tokens && !octavo_checked_mul_int64(config->max_tokens, config->max_sequences, &config->pool_tokens))
        return octavo_fail(OCTAVO_E_RANGE, "%d sequences of %lld tokens are too many", config->max_sequences, (long long)config->max_tokens);
    return OCTAVO_OK;
}

static octavo_page_config page_of(const octavo_model *model, const octavo_session_config *config)
{
    const octavo_model_config *of = octavo_model_config_of(model);
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = config->cache_k;
    page.v_format = config->cache_v;
    page.kv_heads = of->kv_heads;
    page.head_dim = of->head_dim;
    page.block_tokens = config->block_tokens;
    page.sub_block_tokens = config->sub_block_tokens;
    return page;
}

/* Layers of one window are a group of the cache. groups has room for one a layer; cache_layer[layer] is its number there. */
static int32_t group_layers(const octavo_model_config *of, octavo_kvcache_group *groups, int32_t *cache_layer)
{
    int32_t count = 0, next = 0;
    for (int32_t first = 0; first < of->layers; first++) {
        int seen = 0;
        for (int32_t i = 0; i < first && !seen; i++) seen = of->windows[i] == of->windows[first];
        if (seen) continue;
        groups[count] = (octavo_kvcache_group){ .window = of->windows[first] };
        for (int32_t i = first; i < of->layers; i++)
            if (of->windows[i] == of->windows[first]) cache_layer[i] = next++, groups[count].layers++;
        count++;
    }
    return count;
}

static octavo_kvcache_config cache_config_of(const octavo_model *model, const octavo_session_config *config, const octavo_kvcache_group *groups,
                                             int32_t group_count)
{
    octavo_kvcache_config cache = OCTAVO_KVCACHE_CONFIG_INIT;
    cache.page = page_of(model, config);
    cache.groups = groups;
    cache.group_count = group_count;
    cache.max_sequences = config->max_sequences;
    cache.max_tokens = config->max_tokens;
    cache.pages = config->pool_tokens / config->block_tokens + 2 * (int64_t)config->max_sequences; /* a part of a page, and its copy on write */
    return cache;
}

/* ---- memory: everything is laid out by one function, first to be measured, then in place ---- */

typedef struct layout {
    uint8_t *base; /* NULL: measure only */
    size_t bytes;
    int overflow;
} layout;

static void *take(layout *at, int64_t count, int64_t width, size_t element)
{
    int64_t elements = 0;
    size_t bytes = 0, end = 0;
    if (!octavo_checked_mul_int64(count, width, &elements) || !octavo_checked_size_from_int64(elements, &bytes) ||
        !octavo_checked_mul_size(bytes, element, &bytes) || !octavo_checked_add_size(at->bytes, bytes, &end) ||
        !octavo_checked_add_size(end, ALIGN - 1, &end)) {
        at->overflow = 1;
        return NULL;
    }
    void *taken = at->base ? at->base + at->bytes : NULL;
    at->bytes = end / ALIGN * ALIGN;
    return taken;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static void lay_out_experts(const octavo_model_config *of, layout *to, octavo_activations *at)
{
    const int64_t choices = of->experts_per_token, entries = at->rows * choices;
    at->router = take(to, at->rows, of->experts, sizeof(float));
    at->experts = take(to, at->rows, choices, sizeof(int32_t));
    at->route_weights = take(to, at->rows, choices, sizeof(float));
    at->offsets = take(to, of->experts + 1, 1, sizeof(int32_t));
    at->order = take(to, entries, 1, sizeof(int32_t));
    at->slots = take(to, entries, 1, sizeof(int32_t));
    at->expert_in = take(to, entries, of->hidden, octavo_dtype_bytes(at->dtype));
    at->expert_out = take(to, entries, of->hidden, sizeof(float));
}

/* Frequencies of the model's rotation; 0: it has none. */
static int64_t frequencies_of(const octavo_model_config *of)
{
    return of->position != OCTAVO_POSITION_ROPE ? 0 : (of->rope.rotary_dim ? of->rope.rotary_dim : of->head_dim) / 2;
}

/* One after the other: what a call sends is one copy. */
static void lay_out_inputs(int64_t sequences, int64_t rows, layout *to, octavo_step_inputs *in)
{
    in->count = take(to, 1, 1, sizeof *in->count);
    in->random = take(to, sequences, 1, sizeof *in->random);
    in->rows = take(to, sequences, 1, sizeof *in->rows);
    in->sequences = take(to, sequences, 1, sizeof *in->sequences);
    in->ids = take(to, rows, 1, sizeof *in->ids);
}

static void lay_out_results(int64_t sequences, layout *to, octavo_step_results *out)
{
    out->status = take(to, 1, 1, sizeof *out->status);
    out->records = take(to, OCTAVO_STEPS_AHEAD, 1, sizeof *out->records);
    out->draws = take(to, OCTAVO_STEPS_AHEAD, sequences, sizeof *out->draws);
}

static void lay_out_steps(const octavo_session *s, const octavo_model_config *of, layout *to, octavo_activations *at)
{
    const int64_t sequences = s->config.max_sequences, statistics = (int64_t)of->layers * sequences;
    lay_out_inputs(sequences, at->rows, to, &at->in);
    lay_out_results(sequences, to, &at->out);
    at->first = take(to, sequences, 1, sizeof(int32_t));
    at->sampled = take(to, sequences, 1, sizeof(int32_t));
    at->sampled_logprob = take(to, sequences, 1, sizeof(float));
    at->exact_logprob = take(to, sequences, 1, sizeof(float));
    at->skip_ratio = take(to, statistics, of->kv_heads, sizeof(float));
    at->bytes_read = take(to, statistics, of->kv_heads, sizeof(int64_t));
}

static void lay_out(octavo_session *s, layout *to)
{
    const octavo_model_config *of = octavo_model_config_of(s->model);
    octavo_activations *at = &s->at;
    at->dtype = octavo_model_linear(s->model) == OCTAVO_LINEAR_BF16 ? OCTAVO_BF16 : OCTAVO_F32;
    at->rows = larger(s->config.chunk_tokens, s->config.max_sequences);
    at->logit_rows = LOGIT_BYTES / (int64_t)sizeof(float) / of->vocab;
    if (at->logit_rows < LOGIT_ROWS_MIN) at->logit_rows = LOGIT_ROWS_MIN;
    at->logit_rows = larger(at->logit_rows > at->rows ? at->rows : at->logit_rows, s->config.max_sequences);
    const size_t element = octavo_dtype_bytes(at->dtype);
    const int64_t q_width = (int64_t)of->q_heads * of->head_dim, kv_width = (int64_t)of->kv_heads * of->head_dim;
    const int64_t inner = larger(octavo_session_stride(s, of->intermediate),
                                 (int64_t)of->experts_per_token * octavo_session_stride(s, of->expert_intermediate));
    at->x = take(to, at->rows, of->hidden, sizeof(float));
    at->branch = of->norm_place == OCTAVO_NORM_AFTER ? take(to, at->rows, of->hidden, sizeof(float)) : NULL;
    at->h = take(to, at->rows, octavo_session_stride(s, of->hidden), element);
    at->q_dtype = octavo_model_linear(s->model) == OCTAVO_LINEAR_F32 ? OCTAVO_F32 : OCTAVO_BF16;
    at->q = take(to, at->rows, q_width, octavo_dtype_bytes(at->q_dtype));
    at->k = take(to, at->rows, kv_width, sizeof(float));
    at->v = take(to, at->rows, kv_width, sizeof(float));
    at->attended = take(to, at->rows, octavo_session_stride(s, q_width), element);
    at->gate = of->ffn == OCTAVO_FFN_GATED ? take(to, at->rows, inner, element) : NULL;
    at->up = take(to, at->rows, inner, element);
    if (of->experts > 0) lay_out_experts(of, to, at);
    at->logits = take(to, at->logit_rows, of->vocab, sizeof(float));
    at->positions = take(to, at->rows, 1, sizeof(int32_t));
    at->identity = take(to, at->rows, 1, sizeof(int32_t));
    at->ones = take(to, at->rows, 1, sizeof(float));
    at->targets = take(to, at->rows, 1, sizeof(int32_t));
    at->top = take(to, at->rows, 1, sizeof(int32_t));
    at->logprob = take(to, at->rows, 1, sizeof(float));
    at->inv_freq = take(to, frequencies_of(of), 1, sizeof(float));
    lay_out_steps(s, of, to, at);
}

static void lay_out_host(octavo_session *s, layout *to)
{
    const octavo_model_config *of = octavo_model_config_of(s->model);
    const int64_t rows = larger(s->config.chunk_tokens, s->config.max_sequences);
    lay_out_inputs(s->config.max_sequences, rows, to, &s->in);
    lay_out_results(s->config.max_sequences, to, &s->out);
    s->cache_layer = take(to, of->layers, 1, sizeof(int32_t));
    s->dense = take(to, of->layers, 1, 1);
    s->host_rows = take(to, rows, 1, sizeof(int32_t));
    s->host_offsets = take(to, of->experts + 1, 1, sizeof(int32_t));
    s->start = take(to, s->config.max_sequences, 1, sizeof(int64_t));
    s->groups = take(to, of->layers, 1, sizeof *s->groups);
}

/* A view that is valid but for its content: what a query reads of it are formats and shapes. */
static octavo_status view_to_measure(octavo_session *s)
{
    const octavo_page_config page = page_of(s->model, &s->config);
    octavo_kv_view *view = &s->measured_view;
    *view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    OCTAVO_TRY(octavo_kv_view_over_pool(&page, (void *)DUMMY_POOL, INT32_MAX, 0, view));
    view->device_kind = octavo_device_kind_of(s->exec.device);
    view->lengths = s->host_rows; /* one a sequence; zeros, since nothing has run */
    view->max_tokens = s->config.max_tokens;
    return OCTAVO_OK;
}

/* The largest workspace of the shapes that can come: a full piece of a prompt, and a token of every sequence. */
static octavo_status workspace_need(octavo_session *s, size_t *need)
{
    const int64_t sequences = s->config.max_sequences;
    const octavo_piece prompt = { .batch = 1, .tokens = s->config.chunk_tokens, .view_tokens = s->config.max_tokens, .path = OCTAVO_PATH_AUTO };
    const octavo_piece prompts = { .batch = sequences, .tokens = larger(1, s->config.chunk_tokens / sequences), .view_tokens = s->config.max_tokens, .path = OCTAVO_PATH_AUTO };
    const octavo_piece step = { .batch = sequences, .tokens = 1, .view_tokens = s->config.max_tokens, .path = OCTAVO_PATH_DECODE };
    *need = 0;
    OCTAVO_TRY(view_to_measure(s));
    OCTAVO_TRY(octavo_forward_piece(s, &prompt, need));
    OCTAVO_TRY(octavo_forward_piece(s, &prompts, need));
    OCTAVO_TRY(octavo_forward_piece(s, &step, need));
    OCTAVO_TRY(octavo_forward_head(s, 0, s->at.logit_rows, 1, need));
    return octavo_forward_sample(s, sequences, need);
}

/* Only a GPU, where a step must not wait for the host: on the CPU an expert's products are faster by themselves. */
static int experts_are_even(const octavo_session *s, const octavo_model_config *of)
{
    const octavo_lm_layer *layers = octavo_model_weights(s->model)->layers;
    if (octavo_device_kind_of(s->exec.device) == OCTAVO_DEVICE_CPU) return 0;
    for (int32_t i = 0; i < of->layers; i++)
        if (layers[i].experts && !octavo_experts_are_even(layers[i].experts, of->experts)) return 0;
    return 1;
}

/* Everything but the cache: host bookkeeping first, since measuring needs it. */
static octavo_status measure(octavo_session *s, size_t *cache_bytes, int32_t *group_count)
{
    octavo_context *context = octavo_device_context(s->exec.device);
    layout host = { 0 }, device = { 0 };
    lay_out_host(s, &host);
    if (host.overflow) return octavo_fail(OCTAVO_E_RANGE, "the session's shapes do not fit into memory sizes");
    s->host = octavo_context_allocate(context, host.bytes, ALIGN);
    if (!s->host) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %zu bytes of a session", host.bytes);
    s->host_bytes = host.bytes;
    memset(s->host, 0, host.bytes);
    lay_out_host(s, &(layout){ .base = s->host });

    const octavo_model_config *of = octavo_model_config_of(s->model);
    *group_count = group_layers(of, s->groups, s->cache_layer);
    s->experts_even = experts_are_even(s, of);
    for (int32_t i = 0; i < s->config.select.dense_count; i++) s->dense[s->config.select.dense_layers[i]] = 1;
    s->config.select.dense_layers = NULL;
    const octavo_kvcache_config cache = cache_config_of(s->model, &s->config, s->groups, *group_count);
    OCTAVO_TRY(octavo_kvcache_memory_bytes(&cache, cache_bytes));

    lay_out(s, &device);
    size_t need = 0;
    if (!device.overflow) {
        lay_out(s, &(layout){ .base = (uint8_t *)DUMMY_ADDRESS });
        OCTAVO_TRY(workspace_need(s, &need));
    }
    if (device.overflow || !octavo_checked_add_size(device.bytes, need, &s->memory_bytes))
        return octavo_fail(OCTAVO_E_RANGE, "the session's shapes do not fit into memory sizes");
    s->workspace_at = device.bytes;
    return OCTAVO_OK;
}

/* ---- beginning and end ---- */

static octavo_status begin(octavo_session *s, const octavo_model *model, const octavo_session_config *config, size_t *cache_bytes, int32_t *group_count)
{
    OCTAVO_TRY(resolve(model, config, &s->config));
    s->model = model;
    s->exec = (octavo_exec)OCTAVO_EXEC_INIT;
    s->exec.device = octavo_model_device(model);
    s->exec.threads = s->config.threads;
    return measure(s, cache_bytes, group_count);
}

static void end(octavo_session *s)
{
    if (!s->exec.device) return;
    for (int32_t i = 0; i < OCTAVO_STEP_GRAPHS; i++) octavo_device_graph_destroy(s->exec.device, s->graphs[i].graph);
    octavo_device_stream_destroy(s->exec.device, s->exec.stream);
    octavo_kvcache_destroy(s->cache);
    octavo_device_release(s->exec.device, s->memory, s->memory_bytes);
    octavo_context_release(octavo_device_context(s->exec.device), s->host, s->host_bytes);
}

octavo_status octavo_session_memory_bytes(const octavo_model *model, const octavo_session_config *config, size_t *bytes)
{
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    octavo_session session = { 0 };
    size_t cache_bytes = 0;
    int32_t group_count = 0;
    octavo_status status = begin(&session, model, config, &cache_bytes, &group_count);
    if (status == OCTAVO_OK && !octavo_checked_add_size(cache_bytes, session.memory_bytes, bytes))
        status = octavo_fail(OCTAVO_E_RANGE, "the session's shapes do not fit into memory sizes");
    end(&session);
    return status;
}

/* Of main memory only: a GPU says itself when it is full, while Linux would hand out pages that are not there. */
static octavo_status check_memory(const octavo_session *s, size_t cache_bytes)
{
    const size_t available = octavo_memory_available();
    if (octavo_model_weights(s->model)->embedding.device_kind != OCTAVO_DEVICE_CPU) return OCTAVO_OK;
    if (cache_bytes <= available && s->memory_bytes <= available - cache_bytes) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_NOMEM, "a session of %lld tokens takes %.1f MiB of cache and %.1f MiB of activations, but %.1f MiB are available",
                       (long long)s->config.pool_tokens, (double)cache_bytes / MIB, (double)s->memory_bytes / MIB, (double)available / MIB);
}

static octavo_status fill_constants(octavo_session *s)
{
    const int64_t rows = s->at.rows;
    const size_t bytes = (size_t)rows * sizeof(int32_t);
    for (int64_t i = 0; i < rows; i++) s->host_rows[i] = (int32_t)i;
    OCTAVO_TRY(octavo_device_upload(&s->exec, s->at.identity, s->host_rows, bytes));
    for (int64_t i = 0; i < rows; i++) memcpy(&s->host_rows[i], &(float){ 1.0f }, sizeof(float));
    OCTAVO_TRY(octavo_device_upload(&s->exec, s->at.ones, s->host_rows, bytes));
    const octavo_model_config *of = octavo_model_config_of(s->model);
    OCTAVO_TRY(octavo_device_upload(&s->exec, s->at.inv_freq, of->rope.inv_freq, (size_t)frequencies_of(of) * sizeof(float)));
    s->exec.device_status = s->at.out.status;
    const octavo_drawn_token *end = s->out.draws + (int64_t)OCTAVO_STEPS_AHEAD * s->config.max_sequences; /* zeros, here */
    return octavo_device_upload(&s->exec, s->at.out.status, s->out.status, (size_t)((const uint8_t *)end - (const uint8_t *)s->out.status));
}

static octavo_status claim(octavo_session *s, size_t cache_bytes, int32_t group_count)
{
    OCTAVO_TRY(check_memory(s, cache_bytes));
    const octavo_kvcache_config cache = cache_config_of(s->model, &s->config, s->groups, group_count);
    OCTAVO_TRY(octavo_device_stream_create(s->exec.device, &s->exec.stream)); /* of its own: others cannot be recorded */
    OCTAVO_TRY(octavo_kvcache_create(s->exec.device, &cache, &s->cache));
    OCTAVO_TRY(octavo_device_allocate(s->exec.device, s->memory_bytes, &s->memory));
    lay_out(s, &(layout){ .base = s->memory });
    s->exec.workspace = (uint8_t *)s->memory + s->workspace_at;
    s->exec.workspace_bytes = s->memory_bytes - s->workspace_at;
    return fill_constants(s);
}

octavo_status octavo_session_create(const octavo_model *model, const octavo_session_config *config, octavo_session **session)
{
    if (!session) return octavo_fail(OCTAVO_E_ARGUMENT, "session is NULL, expected where to put the new session");
    *session = NULL;
    octavo_session made = { 0 };
    size_t cache_bytes = 0;
    int32_t group_count = 0;
    octavo_session *kept = NULL;
    octavo_status status = begin(&made, model, config, &cache_bytes, &group_count);
    if (status == OCTAVO_OK) status = claim(&made, cache_bytes, group_count);
    if (status == OCTAVO_OK) {
        kept = octavo_context_allocate(octavo_device_context(made.exec.device), sizeof *kept, ALIGN);
        if (!kept) status = octavo_fail(OCTAVO_E_NOMEM, "no memory for a session");
    }
    if (status != OCTAVO_OK) {
        end(&made);
        return status;
    }
    *kept = made;
    *session = kept;
    return OCTAVO_OK;
}

void octavo_session_destroy(octavo_session *session)
{
    if (!session) return;
    octavo_context *context = octavo_device_context(session->exec.device);
    end(session);
    octavo_context_release(context, session, sizeof *session);
}
