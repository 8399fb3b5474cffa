/* session_run.c - calls of a session: sequences, pieces of a prompt, single tokens, and what comes out of them. */
#include "base/clock.h"
#include "base/error.h"
#include "model/session.h"
#include <string.h>

/* ---- sequences ---- */

octavo_status octavo_session_sequence(octavo_session *session, int32_t *sequence)
{
    if (!session) return octavo_fail(OCTAVO_E_ARGUMENT, "session is NULL");
    return octavo_kvcache_sequence(session->cache, sequence);
}

octavo_status octavo_session_fork(octavo_session *session, int32_t parent, int32_t *child)
{
    if (!session) return octavo_fail(OCTAVO_E_ARGUMENT, "session is NULL");
    return octavo_kvcache_fork(session->cache, parent, child);
}

octavo_status octavo_session_free(octavo_session *session, int32_t sequence)
{
    if (!session) return octavo_fail(OCTAVO_E_ARGUMENT, "session is NULL");
    return octavo_kvcache_free(session->cache, sequence);
}

octavo_status octavo_session_truncate(octavo_session *session, int32_t sequence, int64_t length)
{
    if (!session) return octavo_fail(OCTAVO_E_ARGUMENT, "session is NULL");
    return octavo_kvcache_truncate(session->cache, sequence, length);
}

int64_t octavo_session_length(const octavo_session *session, int32_t sequence)
{
    return session ? octavo_kvcache_length(session->cache, sequence, 0) : -1;
}

void octavo_session_stats_of(const octavo_session *session, octavo_session_stats *stats)
{
    *stats = session->stats;
    stats->skip_ratio = session->skip_count > 0 ? session->skip_sum / (double)session->skip_count : 0.0;
}

void octavo_session_stats_reset(octavo_session *session)
{
    session->stats = (octavo_session_stats){ 0 };
    session->skip_sum = 0.0;
    session->skip_count = 0;
}

/* ---- views ---- */

octavo_tensor octavo_session_tensor(const octavo_session *session, void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape)
{
    const octavo_tensor *like = &octavo_model_weights(session->model)->embedding;
    octavo_tensor tensor = octavo_tensor_view(data, dtype, ndim, shape);
    tensor.device_kind = like->device_kind;
    tensor.device_index = like->device_index;
    return tensor;
}

octavo_status octavo_session_view(const octavo_session *session, int32_t layer, const octavo_piece *piece, int measuring, octavo_kv_view *view)
{
    if (measuring) {
        *view = session->measured_view;
        view->batch = piece->batch;
    } else {
        OCTAVO_TRY(octavo_kvcache_view(session->cache, session->cache_layer[layer], piece->batch, piece->sequences, view));
        view->sequences = session->at.sequences;
    }
    view->max_tokens = piece->longest;
    return OCTAVO_OK;
}

/* ---- one piece ---- */

static octavo_status upload_piece(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    int32_t *staging = session->host_positions;
    const size_t bytes = (size_t)(piece->batch * piece->tokens) * sizeof *staging;
    for (int64_t b = 0; b < piece->batch; b++)
        for (int64_t t = 0; t < piece->tokens; t++) staging[b * piece->tokens + t] = p->ids[b * p->tokens + first + t];
    OCTAVO_TRY(octavo_device_upload(&session->exec, session->at.ids, staging, bytes));
    if (p->targets) {
        for (int64_t b = 0; b < piece->batch; b++)
            for (int64_t t = 0; t < piece->tokens; t++) staging[b * piece->tokens + t] = p->targets[b * p->tokens + first + t];
        OCTAVO_TRY(octavo_device_upload(&session->exec, session->at.targets, staging, bytes));
    }
    for (int64_t b = 0; b < piece->batch; b++)
        for (int64_t t = 0; t < piece->tokens; t++)
            staging[b * piece->tokens + t] = (int32_t)(octavo_session_length(session, piece->sequences[b]) + t);
    return octavo_device_upload(&session->exec, session->at.positions, staging, bytes);
}

/* Bytes and blocks that this step's decode read. */
static octavo_status count_step(octavo_session *session, int64_t batch)
{
    const octavo_model_config *config = octavo_model_config_of(session->model);
    const int64_t stride = (int64_t)session->config.max_sequences * config->kv_heads, count = config->layers * stride;
    OCTAVO_TRY(octavo_device_download(&session->exec, session->host_skip, session->at.skip_ratio, (size_t)count * sizeof(float)));
    OCTAVO_TRY(octavo_device_download(&session->exec, session->host_bytes_read, session->at.bytes_read, (size_t)count * sizeof(int64_t)));
    OCTAVO_TRY(octavo_device_synchronize(&session->exec));
    for (int64_t layer = 0; layer < config->layers; layer++)
        for (int64_t i = 0; i < batch * config->kv_heads; i++) {
            session->skip_sum += (double)session->host_skip[layer * stride + i];
            session->stats.decode_cache_bytes += session->host_bytes_read[layer * stride + i];
        }
    session->skip_count += config->layers * batch * config->kv_heads;
    return OCTAVO_OK;
}

/* What is asked of every token of the piece, as many rows at a time as the logits have room for. */
static octavo_status score_piece(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    octavo_activations *at = &session->at;
    const int64_t rows = piece->batch * piece->tokens, vocab = octavo_model_config_of(session->model)->vocab;
    for (int64_t begin = 0, n; begin < rows; begin += n) {
        n = rows - begin < at->logit_rows ? rows - begin : at->logit_rows;
        OCTAVO_TRY(octavo_forward_head(session, begin, n, 1, NULL));
        octavo_token_logprob_params score = OCTAVO_TOKEN_LOGPROB_PARAMS_INIT;
        score.logits = octavo_session_tensor(session, at->logits, OCTAVO_F32, 2, (int64_t[]){ n, vocab });
        score.tokens = at->targets + begin, score.logprob = at->logprob + begin, score.top = at->top + begin;
        if (p->targets) OCTAVO_TRY(octavo_token_logprob(&session->exec, &score));
        for (int64_t i = 0; p->all_logits && i < n; i++) {
            const int64_t b = (begin + i) / piece->tokens, t = (begin + i) % piece->tokens;
            OCTAVO_TRY(octavo_device_download(&session->exec, p->all_logits + (b * p->tokens + first + t) * vocab, at->logits + i * vocab,
                                              (size_t)vocab * sizeof(float)));
        }
    }
    for (int64_t b = 0; p->targets && b < piece->batch; b++) {
        const int64_t to = b * p->tokens + first, from = b * piece->tokens;
        OCTAVO_TRY(octavo_device_download(&session->exec, p->logprob + to, at->logprob + from, (size_t)piece->tokens * sizeof(float)));
        if (p->top) OCTAVO_TRY(octavo_device_download(&session->exec, p->top + to, at->top + from, (size_t)piece->tokens * sizeof(int32_t)));
    }
    return OCTAVO_OK;
}

/* What is asked of each sequence's last token. */
static octavo_status finish(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece)
{
    octavo_activations *at = &session->at;
    const size_t floats = (size_t)p->batch * sizeof(float);
    OCTAVO_TRY(octavo_forward_head(session, piece->tokens - 1, p->batch, piece->tokens, NULL));
    if (p->logits)
        OCTAVO_TRY(octavo_device_download(&session->exec, p->logits, at->logits,
                                          (size_t)octavo_model_config_of(session->model)->vocab * floats));
    if (!p->sample) return OCTAVO_OK;
    OCTAVO_TRY(octavo_device_upload(&session->exec, at->sample, p->sample, (size_t)p->batch * sizeof *p->sample));
    OCTAVO_TRY(octavo_forward_sample(session, p->batch, NULL));
    OCTAVO_TRY(octavo_device_download(&session->exec, p->sampled, at->sampled, (size_t)p->batch * sizeof(int32_t)));
    if (p->sampled_logprob) OCTAVO_TRY(octavo_device_download(&session->exec, p->sampled_logprob, at->sampled_logprob, floats));
    if (p->sampled_exact_logprob) OCTAVO_TRY(octavo_device_download(&session->exec, p->sampled_exact_logprob, at->exact_logprob, floats));
    return OCTAVO_OK;
}

/* ---- a call ---- */

static octavo_status check_ids(const char *name, const int32_t *ids, int64_t count, int32_t vocab)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return octavo_fail(OCTAVO_E_RANGE, "%s[%lld] is %d, but the vocabulary has %d tokens", name, (long long)i, ids[i], vocab);
    return OCTAVO_OK;
}

static octavo_status check_sequences(octavo_session *session, const octavo_forward_params *p)
{
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t length = octavo_session_length(session, p->sequences[b]);
        if (length < 0) return octavo_fail(OCTAVO_E_RANGE, "sequences[%lld] is %d, which is not alive", (long long)b, p->sequences[b]);
        if (p->tokens > session->config.max_tokens - length)
            return octavo_fail(OCTAVO_E_RANGE, "%lld tokens do not fit behind the %lld of sequence %d: the session has room for %lld a sequence",
                               (long long)p->tokens, (long long)length, p->sequences[b], (long long)session->config.max_tokens);
        for (int64_t i = 0; i < b; i++)
            if (p->sequences[i] == p->sequences[b])
                return octavo_fail(OCTAVO_E_ARGUMENT, "sequences names sequence %d twice", p->sequences[b]);
    }
    return OCTAVO_OK;
}

static octavo_status check_call(octavo_session *session, const octavo_forward_params *p)
{
    if (!session || !p) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", session ? "params" : "session");
    OCTAVO_TRY(octavo_struct_check("octavo_forward_params", p->struct_size, sizeof *p));
    if (p->batch < 1 || p->batch > session->config.max_sequences)
        return octavo_fail(OCTAVO_E_ARGUMENT, "batch is %lld, expected 1 to %d sequences", (long long)p->batch, session->config.max_sequences);
    if (p->tokens < 1 || p->tokens > session->config.max_tokens)
        return octavo_fail(OCTAVO_E_ARGUMENT, "tokens is %lld, expected 1 to %lld", (long long)p->tokens, (long long)session->config.max_tokens);
    if (!p->sequences || !p->ids) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", p->sequences ? "ids" : "sequences");
    if (p->path != OCTAVO_PATH_AUTO && p->path != OCTAVO_PATH_DECODE)
        return octavo_fail(OCTAVO_E_ARGUMENT, "path is %d, expected one of octavo_path", (int)p->path);
    if ((p->targets && !p->logprob) || (p->sample && !p->sampled))
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected where to put what was asked for", p->targets ? "logprob" : "sampled");
    const int32_t vocab = octavo_model_config_of(session->model)->vocab;
    OCTAVO_TRY(check_ids("ids", p->ids, p->batch * p->tokens, vocab));
    if (p->targets) OCTAVO_TRY(check_ids("targets", p->targets, p->batch * p->tokens, vocab));
    return check_sequences(session, p);
}

static octavo_status run_piece(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    OCTAVO_TRY(upload_piece(session, p, piece, first));
    OCTAVO_TRY(octavo_forward_piece(session, piece, NULL));
    if (p->targets || p->all_logits) OCTAVO_TRY(score_piece(session, p, piece, first));
    if (first + piece->tokens == p->tokens && (p->logits || p->sample)) OCTAVO_TRY(finish(session, p, piece));
    return piece->path == OCTAVO_PATH_DECODE ? count_step(session, piece->batch) : octavo_device_synchronize(&session->exec);
}

/* What kernels found in what they were given: on the CPU the calls themselves return it. */
static octavo_status check_word(octavo_session *session)
{
    int32_t word = 0;
    if (octavo_device_kind_of(session->exec.device) == OCTAVO_DEVICE_CPU) return OCTAVO_OK;
    OCTAVO_TRY(octavo_device_download(&session->exec, &word, session->at.status, sizeof word));
    if (word == OCTAVO_OK) return OCTAVO_OK;
    OCTAVO_TRY(octavo_device_upload(&session->exec, session->at.status, &(int32_t){ 0 }, sizeof word));
    return octavo_fail((octavo_status)word, "%s reports: %s", octavo_device_name(session->exec.device), octavo_status_text((octavo_status)word));
}

static octavo_status run_pieces(octavo_session *session, const octavo_forward_params *p)
{
    const octavo_path path = p->tokens == 1 ? OCTAVO_PATH_DECODE : p->path;
    const int64_t chunk = session->config.chunk_tokens / p->batch, most = path == OCTAVO_PATH_DECODE || chunk < 1 ? 1 : chunk;
    octavo_piece piece = { .batch = p->batch, .sequences = p->sequences, .path = path, .record = p->record, .record_user = p->record_user };
    for (int64_t first = 0; first < p->tokens; first += piece.tokens) {
        piece.tokens = p->tokens - first < most ? p->tokens - first : most;
        piece.longest = 0;
        for (int64_t b = 0; b < p->batch; b++) {
            const int64_t end = session->start[b] + first + piece.tokens;
            if (end > piece.longest) piece.longest = end;
        }
        OCTAVO_TRY(run_piece(session, p, &piece, first));
    }
    return OCTAVO_OK;
}

octavo_status octavo_session_forward(octavo_session *session, const octavo_forward_params *params)
{
    OCTAVO_TRY(check_call(session, params));
    const double before = octavo_clock_seconds();
    for (int64_t b = 0; b < params->batch; b++) session->start[b] = octavo_session_length(session, params->sequences[b]);
    octavo_status status = octavo_device_upload(&session->exec, session->at.sequences, params->sequences, (size_t)params->batch * sizeof(int32_t));
    for (int64_t b = 0; b < params->batch && status == OCTAVO_OK; b++)
        status = octavo_kvcache_reserve(session->cache, params->sequences[b], params->tokens);
    if (status == OCTAVO_OK) status = run_pieces(session, params);
    if (status == OCTAVO_OK) status = check_word(session);
    const double seconds = octavo_clock_seconds() - before;
    if (status != OCTAVO_OK) { /* the sentence of the failure stays: these cannot fail, the tokens are the newest */
        for (int64_t b = 0; b < params->batch; b++) octavo_kvcache_truncate(session->cache, params->sequences[b], session->start[b]);
        return status;
    }
    const int64_t tokens = params->batch * params->tokens;
    if (params->tokens == 1 || params->path == OCTAVO_PATH_DECODE) session->stats.decode_tokens += tokens, session->stats.decode_seconds += seconds;
    else session->stats.prefill_tokens += tokens, session->stats.prefill_seconds += seconds;
    return OCTAVO_OK;
}
