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
        view->sequences = session->at.in.sequences;
    }
    view->max_tokens = piece->view_tokens;
    return OCTAVO_OK;
}

/* ---- one piece ---- */

static octavo_status send_piece(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    const int64_t rows = piece->batch * piece->tokens;
    for (int64_t i = 0; i < rows; i++) session->in.ids[i] = p->ids[i / piece->tokens * p->tokens + first + i % piece->tokens];
    OCTAVO_TRY(octavo_session_send(session, rows));
    if (!p->targets) return OCTAVO_OK;
    for (int64_t i = 0; i < rows; i++) session->host_rows[i] = p->targets[i / piece->tokens * p->tokens + first + i % piece->tokens];
    return octavo_device_upload(&session->exec, session->at.targets, session->host_rows, (size_t)rows * sizeof(int32_t));
}

static octavo_status fetch_scores(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    for (int64_t b = 0; p->targets && b < piece->batch; b++) {
        const int64_t to = b * p->tokens + first, from = b * piece->tokens;
        OCTAVO_TRY(octavo_device_download(&session->exec, p->logprob + to, session->at.logprob + from, (size_t)piece->tokens * sizeof(float)));
        if (p->top)
            OCTAVO_TRY(octavo_device_download(&session->exec, p->top + to, session->at.top + from, (size_t)piece->tokens * sizeof(int32_t)));
    }
    return OCTAVO_OK;
}

/* Logits of `rows` tokens of the piece from number `begin` on. */
static octavo_status fetch_logits(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first,
                                  int64_t begin, int64_t rows)
{
    const int64_t vocab = octavo_model_config_of(session->model)->vocab;
    for (int64_t i = 0; p->all_logits && i < rows; i++) {
        const int64_t b = (begin + i) / piece->tokens, t = (begin + i) % piece->tokens;
        OCTAVO_TRY(octavo_device_download(&session->exec, p->all_logits + (b * p->tokens + first + t) * vocab, session->at.logits + i * vocab,
                                          (size_t)vocab * sizeof(float)));
    }
    return OCTAVO_OK;
}

static octavo_status fetch_draws(octavo_session *session, const octavo_forward_params *p)
{
    if (p->logits)
        OCTAVO_TRY(octavo_device_download(&session->exec, p->logits, session->at.logits,
                                          (size_t)p->batch * (size_t)octavo_model_config_of(session->model)->vocab * sizeof(float)));
    if (!p->sample) return OCTAVO_OK;
    for (int64_t b = 0; b < p->batch; b++) {
        const octavo_drawn_token *drawn = &session->out.draws[b];
        p->sampled[b] = drawn->token;
        if (p->sampled_logprob) p->sampled_logprob[b] = drawn->sampled_logprob;
        if (p->sampled_exact_logprob) p->sampled_exact_logprob[b] = drawn->logprob;
    }
    return OCTAVO_OK;
}

/* What is asked of every token of the piece, as many rows at a time as the logits have room for. */
static octavo_status score_piece(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    const int64_t rows = piece->batch * piece->tokens;
    for (int64_t begin = 0, n; begin < rows; begin += n) {
        n = rows - begin < session->at.logit_rows ? rows - begin : session->at.logit_rows;
        OCTAVO_TRY(octavo_forward_head(session, begin, n, 1, NULL));
        if (p->targets) OCTAVO_TRY(octavo_forward_score(session, begin, n));
        OCTAVO_TRY(fetch_logits(session, p, piece, first, begin, n));
    }
    return fetch_scores(session, p, piece, first);
}

/* Many tokens at once. */
static octavo_status run_prompt(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    const octavo_kvcache_step step = octavo_session_cache_step(session, piece);
    const int asked = first + piece->tokens == p->tokens && (p->logits || p->sample);
    OCTAVO_TRY(octavo_kvcache_step_begin(&session->exec, session->cache, &step));
    OCTAVO_TRY(octavo_kvcache_step_advance(&session->exec, session->cache, &step));
    OCTAVO_TRY(octavo_forward_piece(session, piece, NULL));
    if (p->targets || p->all_logits) OCTAVO_TRY(score_piece(session, p, piece, first));
    if (asked) OCTAVO_TRY(octavo_forward_head(session, piece->tokens - 1, p->batch, piece->tokens, NULL));
    if (asked && p->sample) {
        OCTAVO_TRY(octavo_forward_sample(session, p->batch, NULL));
        OCTAVO_TRY(octavo_forward_end(session, p->batch, OCTAVO_STEP_SAMPLE));
    }
    OCTAVO_TRY(octavo_session_fetch(session, p->batch, 1));
    return asked ? fetch_draws(session, p) : OCTAVO_OK;
}

/* One token of each sequence. */
static octavo_status run_step(octavo_session *session, const octavo_forward_params *p, const octavo_piece *piece, int64_t first)
{
    const int asked = first + 1 == p->tokens && (p->logits || p->sample);
    const unsigned wants = (p->all_logits || asked ? OCTAVO_STEP_LOGITS : 0u) | (p->targets ? OCTAVO_STEP_SCORE : 0u) |
                           (asked && p->sample ? OCTAVO_STEP_SAMPLE : 0u);
    OCTAVO_TRY(octavo_session_step(session, piece, wants));
    OCTAVO_TRY(octavo_session_fetch(session, p->batch, 1));
    octavo_session_count(session, p->batch, 0);
    OCTAVO_TRY(fetch_logits(session, p, piece, first, 0, p->batch));
    OCTAVO_TRY(fetch_scores(session, p, piece, first));
    return asked ? fetch_draws(session, p) : OCTAVO_OK;
}

/* ---- a call ---- */

octavo_status octavo_session_check_ids(const char *name, const int32_t *ids, int64_t count, int32_t vocab)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return octavo_fail(OCTAVO_E_RANGE, "%s[%lld] is %d, but the vocabulary has %d tokens", name, (long long)i, ids[i], vocab);
    return OCTAVO_OK;
}

octavo_status octavo_session_check_sequences(octavo_session *session, const int32_t *sequences, int64_t batch, int64_t tokens)
{
    for (int64_t b = 0; b < batch; b++) {
        const int64_t length = octavo_session_length(session, sequences[b]);
        if (length < 0) return octavo_fail(OCTAVO_E_RANGE, "sequences[%lld] is %d, which is not alive", (long long)b, sequences[b]);
        if (tokens > session->config.max_tokens - length)
            return octavo_fail(OCTAVO_E_RANGE, "%lld tokens do not fit behind the %lld of sequence %d: the session has room for %lld a sequence",
                               (long long)tokens, (long long)length, sequences[b], (long long)session->config.max_tokens);
        for (int64_t i = 0; i < b; i++)
            if (sequences[i] == sequences[b]) return octavo_fail(OCTAVO_E_ARGUMENT, "sequences names sequence %d twice", sequences[b]);
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
    OCTAVO_TRY(octavo_session_check_ids("ids", p->ids, p->batch * p->tokens, vocab));
    if (p->targets) OCTAVO_TRY(octavo_session_check_ids("targets", p->targets, p->batch * p->tokens, vocab));
    return octavo_session_check_sequences(session, p->sequences, p->batch, p->tokens);
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
        piece.view_tokens = path == OCTAVO_PATH_DECODE ? octavo_session_plan_tokens(session, piece.longest) : piece.longest;
        OCTAVO_TRY(send_piece(session, p, &piece, first));
        OCTAVO_TRY(path == OCTAVO_PATH_DECODE ? run_step(session, p, &piece, first) : run_prompt(session, p, &piece, first));
    }
    return OCTAVO_OK;
}

octavo_status octavo_session_forward(octavo_session *session, const octavo_forward_params *params)
{
    OCTAVO_TRY(check_call(session, params));
    const double before = octavo_clock_seconds();
    octavo_status status = OCTAVO_OK;
    for (int64_t b = 0; b < params->batch; b++) session->start[b] = octavo_session_length(session, params->sequences[b]);
    memcpy(session->in.sequences, params->sequences, (size_t)params->batch * sizeof(int32_t));
    if (params->sample) memcpy(session->in.rows, params->sample, (size_t)params->batch * sizeof *params->sample);
    for (int64_t b = 0; b < params->batch && status == OCTAVO_OK; b++)
        status = octavo_kvcache_reserve(session->cache, params->sequences[b], params->tokens);
    if (status == OCTAVO_OK) status = run_pieces(session, params);
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
