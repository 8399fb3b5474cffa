/* forward.c - the forward pass of every supported transformer, top to bottom; what differs between them is in the model's config.
 *
 * Shapes: rows = batch * tokens. The residual stream x is float32; what enters a product has the activations' dtype. */
#include "base/clock.h"
#include "base/error.h"
#include "layer/linear_experts.h"
#include "layer/step_end.h"
#include "model/session.h"

typedef struct forward {
    octavo_session *session;
    const octavo_model_config *config;
    const octavo_lm_weights *weights;
    const octavo_activations *at;
    const octavo_piece *piece;
    int64_t rows;
    size_t *need; /* not NULL: ask for workspaces only */
} forward;

static forward forward_of(octavo_session *session, const octavo_piece *piece, size_t *need)
{
    return (forward){ session, octavo_model_config_of(session->model), octavo_model_weights(session->model), &session->at, piece,
                      piece ? piece->batch * piece->tokens : 0, need };
}

/* Either notes what a call needs, or makes it. */
#define FORWARD_RUN(f, op, workspace_of, params)                                               \
    do {                                                                                       \
        if ((f)->need) {                                                                       \
            size_t bytes_ = 0;                                                                 \
            OCTAVO_TRY(workspace_of(&(f)->session->exec, params, &bytes_));                    \
            if (bytes_ > *(f)->need) *(f)->need = bytes_;                                      \
        } else {                                                                               \
            OCTAVO_TRY(op(&(f)->session->exec, params));                                       \
        }                                                                                      \
    } while (0)
#define FORWARD_RUN_BARE(f, op, params)                                                        \
    do {                                                                                       \
        if (!(f)->need) OCTAVO_TRY(op(&(f)->session->exec, params));                           \
    } while (0)

static octavo_tensor matrix(const forward *f, void *data, octavo_dtype dtype, int64_t rows, int64_t columns)
{
    return octavo_session_tensor(f->session, data, dtype, 2, (int64_t[]){ rows, columns });
}

/* Rows that enter a product. */
static octavo_tensor operand(const forward *f, void *data, int64_t rows, int64_t columns)
{
    octavo_tensor tensor = matrix(f, data, f->at->dtype, rows, columns);
    tensor.strides[0] = octavo_session_stride(f->session, columns);
    return tensor;
}

/* The same rows as [batch, tokens, ...]. */
static octavo_tensor by_token(const forward *f, octavo_tensor rows, int32_t ndim, const int64_t *shape)
{
    octavo_tensor tensor = octavo_session_tensor(f->session, rows.data, rows.dtype, ndim, shape);
    tensor.strides[1] = rows.strides[0];
    tensor.strides[0] = f->piece->tokens * rows.strides[0];
    return tensor;
}

static octavo_tensor heads(const forward *f, void *data, octavo_dtype dtype, int32_t count)
{
    return octavo_session_tensor(f->session, data, dtype, 4, (int64_t[]){ f->piece->batch, f->piece->tokens, count, f->config->head_dim });
}

/* ---- the parts ---- */

static octavo_status embed(const forward *f)
{
    octavo_gather_rows_params p = OCTAVO_GATHER_ROWS_PARAMS_INIT;
    p.table = f->weights->embedding;
    p.rows = f->at->in.ids;
    p.y = matrix(f, f->at->x, OCTAVO_F32, f->rows, f->config->hidden);
    if (f->config->position == OCTAVO_POSITION_LEARNED) {
        p.add = f->weights->positions;
        p.add_rows = f->at->positions;
    }
    FORWARD_RUN_BARE(f, octavo_gather_rows, &p);
    return OCTAVO_OK;
}

static octavo_status norm(const forward *f, const octavo_lm_norm *weights, octavo_tensor x, octavo_tensor y)
{
    octavo_norm_params p = OCTAVO_NORM_PARAMS_INIT;
    p.kind = f->config->norm;
    p.x = x;
    p.y = y;
    p.weight = weights->weight;
    p.bias = weights->bias;
    p.eps = f->config->norm_eps;
    FORWARD_RUN_BARE(f, octavo_norm, &p);
    return OCTAVO_OK;
}

static octavo_linear_part part_of(const octavo_lm_linear *linear, octavo_tensor y)
{
    return (octavo_linear_part){ .weight = linear->weight, .packed = linear->packed, .bias = linear->bias, .y = y };
}

/* Products of x with up to OCTAVO_LINEAR_PARTS weights. */
static octavo_status multiply(const forward *f, octavo_linear_precision precision, octavo_store store, octavo_tensor x,
                              const float *x_scale, int32_t count, const octavo_linear_part *parts)
{
    octavo_linear_params p = OCTAVO_LINEAR_PARAMS_INIT;
    p.x = x;
    p.x_scale = x_scale;
    p.precision = precision;
    p.store = store;
    p.part_count = count;
    int64_t elements = 0;
    for (int32_t i = 0; i < count; i++) {
        p.parts[i] = parts[i];
        elements += parts[i].weight.codes.shape[0] * parts[i].weight.codes.shape[1];
    }
    const double before = octavo_clock_seconds();
    FORWARD_RUN(f, octavo_linear, octavo_linear_workspace, &p);
    if (f->need || !f->piece || f->piece->path == OCTAVO_PATH_DECODE) return OCTAVO_OK;
    f->session->stats.prefill_product_seconds += octavo_clock_seconds() - before;
    f->session->stats.prefill_product_flop += 2.0 * (double)x.shape[0] * (double)elements;
    return OCTAVO_OK;
}

/* Products that share x; a static scale that is not shared splits the call. */
static octavo_status multiply_all(const forward *f, octavo_tensor x, int32_t count, const octavo_lm_linear *const *linears,
                                  const octavo_tensor *y)
{
    const octavo_linear_precision precision = octavo_model_linear(f->session->model);
    octavo_linear_part parts[OCTAVO_LINEAR_PARTS];
    for (int32_t first = 0, n; first < count; first += n) {
        for (n = 0; first + n < count && linears[first + n]->x_scale == linears[first]->x_scale; n++)
            parts[n] = part_of(linears[first + n], y[first + n]);
        OCTAVO_TRY(multiply(f, precision, OCTAVO_STORE_SET, x, linears[first]->x_scale, n, parts));
    }
    return OCTAVO_OK;
}

/* The last product of a branch, into the residual stream or, where a norm comes between, into the branch's own rows. */
static octavo_status multiply_out(const forward *f, octavo_tensor input, const octavo_lm_linear *linear)
{
    const int after = f->config->norm_place == OCTAVO_NORM_AFTER;
    const octavo_linear_part part = part_of(linear, matrix(f, after ? f->at->branch : f->at->x, OCTAVO_F32, f->rows, f->config->hidden));
    return multiply(f, octavo_model_linear(f->session->model), after ? OCTAVO_STORE_SET : OCTAVO_STORE_ADD, input, linear->x_scale, 1, &part);
}

/* What a branch reads: x through its norm where the norm comes first, else x itself. */
static octavo_status branch_input(const forward *f, const octavo_lm_norm *weights, octavo_tensor *h)
{
    const octavo_tensor x = matrix(f, f->at->x, OCTAVO_F32, f->rows, f->config->hidden);
    *h = x;
    if (f->config->norm_place != OCTAVO_NORM_BEFORE) return OCTAVO_OK;
    *h = operand(f, f->at->h, f->rows, f->config->hidden);
    return norm(f, weights, x, *h);
}

/* Norms that follow a branch. */
static octavo_status branch_output(const forward *f, const octavo_lm_norm *weights)
{
    const octavo_tensor x = matrix(f, f->at->x, OCTAVO_F32, f->rows, f->config->hidden);
    if (f->config->norm_place == OCTAVO_NORM_BEFORE) return OCTAVO_OK;
    if (f->config->norm_place == OCTAVO_NORM_RESIDUAL) return norm(f, weights, x, x);
    const octavo_tensor branch = matrix(f, f->at->branch, OCTAVO_F32, f->rows, f->config->hidden);
    OCTAVO_TRY(norm(f, weights, branch, branch));
    octavo_combine_rows_params add = OCTAVO_COMBINE_ROWS_PARAMS_INIT; /* x[t] += 1 * branch[t] */
    add.x = branch;
    add.slots = f->at->identity;
    add.weights = f->at->ones;
    add.choices = 1;
    add.y = x;
    FORWARD_RUN_BARE(f, octavo_combine_rows, &add);
    return OCTAVO_OK;
}

/* ---- attention ---- */

static octavo_status qk_norm(const forward *f, const octavo_lm_norm *weights, void *x, octavo_dtype dtype, int32_t head_count)
{
    const octavo_model_config *config = f->config;
    if (config->qk_norm == OCTAVO_QK_NORM_NONE) return OCTAVO_OK;
    const int full = config->qk_norm == OCTAVO_QK_NORM_FULL;
    const int64_t width = full ? (int64_t)head_count * config->head_dim : config->head_dim;
    const octavo_tensor rows = matrix(f, x, dtype, full ? f->rows : f->rows * head_count, width);
    return norm(f, weights, rows, rows);
}

static octavo_status rotate(const forward *f, octavo_tensor x)
{
    if (f->config->position != OCTAVO_POSITION_ROPE) return OCTAVO_OK;
    octavo_rope_apply_params p = OCTAVO_ROPE_APPLY_PARAMS_INIT;
    p.x = x;
    p.rope = f->config->rope;
    p.rope.inv_freq = f->at->inv_freq;
    p.positions = f->at->positions;
    FORWARD_RUN_BARE(f, octavo_rope_apply, &p);
    return OCTAVO_OK;
}

static octavo_status record(const forward *f, int32_t layer, octavo_tensor h, octavo_tensor q, octavo_tensor k, octavo_tensor v, int32_t rotated)
{
    if (!f->piece->record || f->need) return OCTAVO_OK;
    OCTAVO_TRY(octavo_device_synchronize(&f->session->exec));
    const octavo_layer_record it = {
        .layer = layer, .first_position = f->piece->longest - f->piece->tokens,
        .h = by_token(f, h, 3, (int64_t[]){ f->piece->batch, f->piece->tokens, f->config->hidden }),
        .q = q, .k = k, .v = v, .rotated = rotated,
    };
    return f->piece->record(f->piece->record_user, &it);
}

static octavo_status decode(const forward *f, int32_t layer, const octavo_kv_view *view, octavo_tensor q, octavo_tensor out)
{
    octavo_session *session = f->session;
    const octavo_session_select *select = &session->config.select;
    const int64_t statistics = (int64_t)layer * session->config.max_sequences * f->config->kv_heads;
    octavo_decode_params p = OCTAVO_DECODE_PARAMS_INIT;
    p.q = q;
    p.kv = view;
    p.softmax_scale = f->config->softmax_scale;
    p.window = f->config->windows[layer];
    p.precision = session->config.decode_attention;
    p.splits = select->splits;
    if (!session->dense[layer]) {
        p.select = select->rule;
        p.compensate = select->compensate;
        p.delta = select->delta;
        p.epsilon = select->epsilon;
        p.keep_first_blocks = select->keep_first_blocks;
        p.keep_last_blocks = select->keep_last_blocks;
    }
    p.out = out;
    p.skip_ratio = f->at->skip_ratio + statistics;
    p.bytes_read = f->at->bytes_read + statistics;
    const double before = octavo_clock_seconds();
    FORWARD_RUN(f, octavo_attention_decode, octavo_attention_decode_workspace, &p);
    if (!f->need) session->stats.decode_attention_seconds += octavo_clock_seconds() - before;
    return OCTAVO_OK;
}

static octavo_status prefill(const forward *f, int32_t layer, const octavo_kv_view *view, octavo_tensor q, octavo_tensor out)
{
    octavo_prefill_params p = OCTAVO_PREFILL_PARAMS_INIT;
    p.q = q;
    p.kv = view;
    p.mask = OCTAVO_MASK_CAUSAL;
    p.softmax_scale = f->config->softmax_scale;
    p.window = f->config->windows[layer];
    p.precision = f->session->config.attention;
    p.scales = f->session->config.attention_scales;
    p.out = out;
    FORWARD_RUN(f, octavo_attention_prefill, octavo_attention_prefill_workspace, &p);
    return OCTAVO_OK;
}

static octavo_status attention(const forward *f, int32_t layer)
{
    const octavo_model_config *config = f->config;
    const octavo_lm_layer *w = &f->weights->layers[layer];
    const octavo_activations *at = f->at;
    octavo_session *session = f->session;
    const int64_t q_width = (int64_t)config->q_heads * config->head_dim, kv_width = (int64_t)config->kv_heads * config->head_dim;
    const octavo_tensor q = heads(f, at->q, at->q_dtype, config->q_heads), k = heads(f, at->k, OCTAVO_F32, config->kv_heads);
    const octavo_tensor v = heads(f, at->v, OCTAVO_F32, config->kv_heads);
    octavo_tensor h;

    /* 1. q, k, v = W h */
    OCTAVO_TRY(branch_input(f, &w->attention_norm, &h));
    OCTAVO_TRY(multiply_all(f, h, 3, (const octavo_lm_linear *const[]){ &w->q, &w->k, &w->v },
                            (const octavo_tensor[]){ matrix(f, at->q, at->q_dtype, f->rows, q_width), matrix(f, at->k, OCTAVO_F32, f->rows, kv_width),
                                                     matrix(f, at->v, OCTAVO_F32, f->rows, kv_width) }));
    OCTAVO_TRY(qk_norm(f, &w->q_norm, at->q, at->q_dtype, config->q_heads));
    OCTAVO_TRY(qk_norm(f, &w->k_norm, at->k, OCTAVO_F32, config->kv_heads));

    /* 2. positions */
    OCTAVO_TRY(record(f, layer, h, q, k, v, 0));
    OCTAVO_TRY(rotate(f, q));
    OCTAVO_TRY(rotate(f, k));
    OCTAVO_TRY(record(f, layer, h, q, k, v, 1));

    /* 3. into the cache, and attention over all of it */
    octavo_kv_view view;
    OCTAVO_TRY(octavo_session_view(session, layer, f->piece, f->need != NULL, &view));
    if (!f->need) OCTAVO_TRY(octavo_kv_append(&session->exec, &view, &k, &v, at->first));
    const octavo_tensor attended = operand(f, at->attended, f->rows, q_width);
    const octavo_tensor out = by_token(f, attended, 4, (int64_t[]){ f->piece->batch, f->piece->tokens, config->q_heads, config->head_dim });
    if (f->piece->path == OCTAVO_PATH_DECODE) OCTAVO_TRY(decode(f, layer, &view, q, out));
    else OCTAVO_TRY(prefill(f, layer, &view, q, out));

    /* 4. x += W_o out */
    OCTAVO_TRY(multiply_out(f, attended, &w->o));
    return branch_output(f, &w->attention_norm);
}

/* ---- feed-forward ---- */

/* act(gate h) * up h, or act(up h), over `rows` rows; the result lies in at->gate (gated) or at->up. */
static octavo_status ffn_inner(const forward *f, const octavo_lm_ffn *ffn, octavo_tensor h, int64_t first, int64_t rows, int64_t width,
                               octavo_tensor *inner)
{
    const octavo_activations *at = f->at;
    const size_t offset = (size_t)(first * octavo_session_stride(f->session, width)) * octavo_dtype_bytes(at->dtype);
    const octavo_tensor up = operand(f, (uint8_t *)at->up + offset, rows, width);
    octavo_activate_params p = OCTAVO_ACTIVATE_PARAMS_INIT;
    p.activation = f->config->activation;
    if (f->config->ffn == OCTAVO_FFN_GATED) {
        p.gate = operand(f, (uint8_t *)at->gate + offset, rows, width);
        p.up = up;
        OCTAVO_TRY(multiply_all(f, h, 2, (const octavo_lm_linear *const[]){ &ffn->gate, &ffn->up }, (const octavo_tensor[]){ p.gate, up }));
    } else {
        p.gate = up;
        OCTAVO_TRY(multiply_all(f, h, 1, (const octavo_lm_linear *const[]){ &ffn->up }, &up));
    }
    p.y = *inner = p.gate;
    FORWARD_RUN_BARE(f, octavo_activate, &p);
    return OCTAVO_OK;
}

/* Rows of each expert, where each expert is a product of its own: the host has to know them. */
static octavo_status expert_rows(const forward *f)
{
    octavo_session *session = f->session;
    const int32_t experts = f->config->experts;
    for (int32_t e = 0; e <= experts && f->need; e++) session->host_offsets[e] = e ? (int32_t)f->rows : 0; /* the most that one can get */
    if (f->need) return OCTAVO_OK;
    return octavo_device_download(&session->exec, session->host_offsets, f->at->offsets, (size_t)(experts + 1) * sizeof(int32_t));
}

/* Each expert's feed-forward over its own rows. */
static octavo_status experts_in_turn(const forward *f, const octavo_lm_layer *w)
{
    const octavo_activations *at = f->at;
    const int64_t hidden = f->config->hidden;
    OCTAVO_TRY(expert_rows(f));
    for (int32_t e = 0; e < f->config->experts; e++) {
        const int64_t first = f->session->host_offsets[e], rows = f->session->host_offsets[e + 1] - first;
        if (rows == 0) continue;
        octavo_tensor inner, input = matrix(f, (uint8_t *)at->expert_in + (size_t)(first * hidden) * octavo_dtype_bytes(at->dtype), at->dtype, rows, hidden);
        OCTAVO_TRY(ffn_inner(f, &w->experts[e], input, first, rows, f->config->expert_intermediate, &inner));
        const octavo_linear_part down = part_of(&w->experts[e].down, matrix(f, at->expert_out + first * hidden, OCTAVO_F32, rows, hidden));
        OCTAVO_TRY(multiply(f, octavo_model_linear(f->session->model), OCTAVO_STORE_SET, inner, w->experts[e].down.x_scale, 1, &down));
    }
    return OCTAVO_OK;
}

/* Products of all experts with their rows of x; first and next: expert 0's and expert 1's weights. */
static octavo_status multiply_experts(const forward *f, octavo_tensor x, int32_t count, const octavo_lm_linear *const *first,
                                      const octavo_lm_linear *const *next, const octavo_tensor *y)
{
    octavo_linear_experts_params p = { .of = OCTAVO_LINEAR_PARAMS_INIT, .experts = f->config->experts, .offsets = f->at->offsets };
    p.of.x = x;
    p.of.x_scale = first[0]->x_scale;
    p.of.precision = octavo_model_linear(f->session->model);
    p.of.part_count = count;
    for (int32_t i = 0; i < count; i++) {
        p.of.parts[i] = part_of(first[i], y[i]);
        p.of.parts[i].packed = NULL;
        p.codes_step[i] = (const char *)next[i]->weight.codes.data - (const char *)first[i]->weight.codes.data;
        if (first[i]->weight.scales) p.scales_step[i] = (const char *)next[i]->weight.scales - (const char *)first[i]->weight.scales;
        if (first[i]->bias) p.bias_step[i] = (const char *)next[i]->bias - (const char *)first[i]->bias;
    }
    FORWARD_RUN(f, octavo_linear_experts, octavo_linear_experts_workspace, &p);
    return OCTAVO_OK;
}

/* The same in calls that find their rows on the device. */
static octavo_status experts_at_once(const forward *f, const octavo_lm_layer *w, octavo_tensor x)
{
    const octavo_activations *at = f->at;
    const octavo_lm_ffn *first = &w->experts[0], *next = &w->experts[f->config->experts > 1];
    const int64_t width = f->config->expert_intermediate;
    const octavo_tensor up = matrix(f, at->up, at->dtype, x.shape[0], width), out = matrix(f, at->expert_out, OCTAVO_F32, x.shape[0], f->config->hidden);
    octavo_activate_params p = OCTAVO_ACTIVATE_PARAMS_INIT;
    p.activation = f->config->activation;
    p.gate = up;
    if (f->config->ffn == OCTAVO_FFN_GATED) p.gate = matrix(f, at->gate, at->dtype, x.shape[0], width), p.up = up;
    p.y = p.gate;
    const int32_t gated = f->config->ffn == OCTAVO_FFN_GATED;
    OCTAVO_TRY(multiply_experts(f, x, 1 + gated, (const octavo_lm_linear *const[]){ &first->up, &first->gate },
                                (const octavo_lm_linear *const[]){ &next->up, &next->gate }, (const octavo_tensor[]){ up, p.gate }));
    FORWARD_RUN_BARE(f, octavo_activate, &p);
    return multiply_experts(f, p.y, 1, (const octavo_lm_linear *const[]){ &first->down }, (const octavo_lm_linear *const[]){ &next->down }, &out);
}

static octavo_status mixture(const forward *f, const octavo_lm_layer *w, octavo_tensor h)
{
    const octavo_model_config *config = f->config;
    const octavo_activations *at = f->at;
    const int64_t choices = config->experts_per_token, hidden = config->hidden, entries = f->rows * choices;

    /* 1. who goes where */
    octavo_route_params route = OCTAVO_ROUTE_PARAMS_INIT;
    route.logits = matrix(f, at->router, OCTAVO_F32, f->rows, config->experts);
    route.choices = choices;
    route.weighting = config->route;
    route.experts = at->experts, route.weights = at->route_weights, route.offsets = at->offsets;
    route.order = at->order, route.slots = at->slots;
    const octavo_linear_part logits = part_of(&w->router, route.logits);
    OCTAVO_TRY(multiply(f, octavo_model_head_precision(f->session->model), OCTAVO_STORE_SET, h, NULL, 1, &logits));
    FORWARD_RUN_BARE(f, octavo_route, &route);

    /* 2. rows sorted by expert */
    octavo_gather_rows_params gather = OCTAVO_GATHER_ROWS_PARAMS_INIT;
    gather.table = h;
    gather.rows = at->order;
    gather.y = matrix(f, at->expert_in, at->dtype, entries, hidden);
    FORWARD_RUN_BARE(f, octavo_gather_rows, &gather);

    /* 3. each expert's feed-forward over its own rows */
    const int at_once = f->session->experts_even && f->piece->path == OCTAVO_PATH_DECODE;
    OCTAVO_TRY(at_once ? experts_at_once(f, w, gather.y) : experts_in_turn(f, w));

    /* 4. x += weighted sum of the chosen */
    octavo_combine_rows_params combine = OCTAVO_COMBINE_ROWS_PARAMS_INIT;
    combine.x = matrix(f, at->expert_out, OCTAVO_F32, entries, hidden);
    combine.slots = at->slots;
    combine.weights = at->route_weights;
    combine.choices = choices;
    combine.y = matrix(f, at->x, OCTAVO_F32, f->rows, hidden);
    FORWARD_RUN_BARE(f, octavo_combine_rows, &combine);
    return OCTAVO_OK;
}

static octavo_status feed_forward(const forward *f, int32_t layer)
{
    const octavo_lm_layer *w = &f->weights->layers[layer];
    octavo_tensor h, inner;
    OCTAVO_TRY(branch_input(f, &w->ffn_norm, &h));
    if (w->experts) {
        OCTAVO_TRY(mixture(f, w, h));
    } else {
        OCTAVO_TRY(ffn_inner(f, &w->ffn, h, 0, f->rows, f->config->intermediate, &inner));
        OCTAVO_TRY(multiply_out(f, inner, &w->ffn.down));
    }
    return branch_output(f, &w->ffn_norm);
}

/* ---- the whole ---- */

octavo_status octavo_forward_piece(octavo_session *session, const octavo_piece *piece, size_t *need)
{
    const forward f = forward_of(session, piece, need);
    OCTAVO_TRY(embed(&f));
    for (int32_t layer = 0; layer < f.config->layers; layer++) {
        OCTAVO_TRY(attention(&f, layer));
        OCTAVO_TRY(feed_forward(&f, layer));
    }
    return OCTAVO_OK;
}

octavo_status octavo_forward_head(octavo_session *session, int64_t first, int64_t rows, int64_t stride, size_t *need)
{
    const forward f = forward_of(session, NULL, need);
    const int64_t hidden = f.config->hidden;
    octavo_tensor x = matrix(&f, f.at->x + first * hidden, OCTAVO_F32, rows, hidden), h = x;
    x.strides[0] = h.strides[0] = stride * hidden;
    if (f.weights->final_norm.weight) {
        h = operand(&f, f.at->h, rows, hidden);
        OCTAVO_TRY(norm(&f, &f.weights->final_norm, x, h));
    }
    const octavo_linear_part head = part_of(&f.weights->head, matrix(&f, f.at->logits, OCTAVO_F32, rows, f.config->vocab));
    return multiply(&f, octavo_model_head_precision(session->model), OCTAVO_STORE_SET, h, NULL, 1, &head);
}

octavo_status octavo_forward_sample(octavo_session *session, int64_t rows, size_t *need)
{
    const forward f = forward_of(session, NULL, need);
    octavo_sample_params p = OCTAVO_SAMPLE_PARAMS_INIT;
    p.logits = matrix(&f, f.at->logits, OCTAVO_F32, rows, f.config->vocab);
    p.rows = f.at->in.rows;
    p.tokens = f.at->sampled;
    p.sampled_logprob = f.at->sampled_logprob;
    p.logprob = f.at->exact_logprob;
    FORWARD_RUN(&f, octavo_sample, octavo_sample_workspace, &p);
    return OCTAVO_OK;
}

octavo_status octavo_forward_score(octavo_session *session, int64_t first, int64_t rows)
{
    octavo_token_logprob_params p = OCTAVO_TOKEN_LOGPROB_PARAMS_INIT;
    p.logits = octavo_session_tensor(session, session->at.logits, OCTAVO_F32, 2, (int64_t[]){ rows, octavo_model_config_of(session->model)->vocab });
    p.tokens = session->at.targets + first;
    p.logprob = session->at.logprob + first;
    p.top = session->at.top + first;
    return octavo_token_logprob(&session->exec, &p);
}

octavo_status octavo_forward_end(octavo_session *session, int64_t batch, unsigned wants)
{
    const octavo_model_config *config = octavo_model_config_of(session->model);
    const octavo_activations *at = &session->at;
    octavo_step_end_params p = {
        .batch = batch, .capacity = OCTAVO_STEPS_AHEAD, .count = at->in.count, .records = at->out.records, .draws = at->out.draws,
        .layers = wants & OCTAVO_STEP_COUNT ? config->layers : 0, .stride = (int64_t)session->config.max_sequences * config->kv_heads,
        .values = batch * config->kv_heads,
        .skip_ratio = at->skip_ratio, .bytes_read = at->bytes_read,
    };
    if (wants & OCTAVO_STEP_SAMPLE) p.tokens = at->sampled, p.sampled_logprob = at->sampled_logprob, p.logprob = at->exact_logprob;
    if (wants & OCTAVO_STEP_FEED) p.ids = at->in.ids, p.rows = at->in.rows, p.random = at->in.random;
    return octavo_step_end(&session->exec, &p);
}
