/* session_step.c - one token of each of some sequences through decode, which a GPU replays as a recorded graph: nothing in it is the
 * host's, who only notes which pages and how many tokens there are. */
#include "base/error.h"
#include "model/session.h"
#include <string.h>

/* ---- to the device and back ---- */

octavo_status octavo_session_send(octavo_session *session, int64_t ids)
{
    *session->in.count = 0;
    const size_t bytes = (size_t)((const uint8_t *)(session->in.ids + ids) - (const uint8_t *)session->in.count);
    return octavo_device_upload(&session->exec, session->at.in.count, session->in.count, bytes);
}

octavo_status octavo_session_fetch(octavo_session *session, int64_t batch, int64_t steps)
{
    const size_t bytes = (size_t)((const uint8_t *)(session->out.draws + steps * batch) - (const uint8_t *)session->out.status);
    OCTAVO_TRY(octavo_device_download(&session->exec, session->out.status, session->at.out.status, bytes));
    const octavo_status word = (octavo_status)*session->out.status; /* on the CPU the calls themselves return it */
    if (word == OCTAVO_OK) return OCTAVO_OK;
    OCTAVO_TRY(octavo_device_upload(&session->exec, session->at.out.status, &(int32_t){ 0 }, sizeof(int32_t)));
    return octavo_fail(word, "%s reports: %s", octavo_device_name(session->exec.device), octavo_status_text(word));
}

void octavo_session_count(octavo_session *session, int64_t batch, int64_t index)
{
    const octavo_model_config *config = octavo_model_config_of(session->model);
    session->skip_sum += session->out.records[index].skip_sum;
    session->skip_count += (int64_t)config->layers * batch * config->kv_heads;
    session->stats.decode_cache_bytes += session->out.records[index].bytes_read;
}

/* ---- a step ---- */

octavo_kvcache_step octavo_session_cache_step(const octavo_session *session, const octavo_piece *piece)
{
    octavo_kvcache_step step = OCTAVO_KVCACHE_STEP_INIT;
    step.batch = piece->batch;
    step.tokens = piece->tokens;
    step.sequences = piece->sequences;
    step.device_sequences = session->at.in.sequences;
    step.first = session->at.first;
    step.positions = session->at.positions;
    return step;
}

static int is_on_gpu(const octavo_session *session) { return octavo_device_kind_of(session->exec.device) != OCTAVO_DEVICE_CPU; }

/* A recorded step serves every length. */
int64_t octavo_session_plan_tokens(const octavo_session *session, int64_t longest)
{
    return is_on_gpu(session) ? session->config.max_tokens : longest;
}

/* All that the device does in a step. */
static octavo_status compute(octavo_session *session, const octavo_piece *piece, const octavo_kvcache_step *step, unsigned wants)
{
    OCTAVO_TRY(octavo_kvcache_step_advance(&session->exec, session->cache, step));
    OCTAVO_TRY(octavo_forward_piece(session, piece, NULL));
    if (wants) OCTAVO_TRY(octavo_forward_head(session, 0, piece->batch, 1, NULL));
    if (wants & OCTAVO_STEP_SCORE) OCTAVO_TRY(octavo_forward_score(session, 0, piece->batch));
    if (wants & OCTAVO_STEP_SAMPLE) OCTAVO_TRY(octavo_forward_sample(session, piece->batch, NULL));
    return octavo_forward_end(session, piece->batch, wants | OCTAVO_STEP_COUNT);
}

/* ---- graphs ---- */

/* The place of steps of this kind; NULL: they are not recorded. */
static octavo_step_graph *find_graph(octavo_session *session, const octavo_piece *piece, unsigned wants)
{
    if (!is_on_gpu(session) || !session->experts_even || piece->record) return NULL;
    for (int32_t i = 0; i < OCTAVO_STEP_GRAPHS; i++) {
        octavo_step_graph *of = &session->graphs[i];
        if (of->runs > 0 && of->batch == piece->batch && of->wants == wants) return of;
    }
    octavo_step_graph *of = &session->graphs[session->next_graph];
    session->next_graph = (session->next_graph + 1) % OCTAVO_STEP_GRAPHS;
    octavo_device_graph_destroy(session->exec.device, of->graph);
    *of = (octavo_step_graph){ .batch = piece->batch, .wants = wants };
    return of;
}

static octavo_status record_graph(octavo_session *session, const octavo_piece *piece, const octavo_kvcache_step *step, unsigned wants, void **graph)
{
    void *recorded = NULL;
    OCTAVO_TRY(octavo_device_graph_begin(&session->exec));
    const octavo_status computed = compute(session, piece, step, wants), ended = octavo_device_graph_end(&session->exec, &recorded);
    if (computed == OCTAVO_OK && ended == OCTAVO_OK) *graph = recorded;
    else octavo_device_graph_destroy(session->exec.device, recorded);
    return computed != OCTAVO_OK ? computed : ended;
}

octavo_status octavo_session_step(octavo_session *session, const octavo_piece *piece, unsigned wants)
{
    const octavo_kvcache_step step = octavo_session_cache_step(session, piece);
    octavo_step_graph *of = find_graph(session, piece, wants);
    OCTAVO_TRY(octavo_kvcache_step_begin(&session->exec, session->cache, &step));
    if (!of || of->runs++ == 0) return compute(session, piece, &step, wants); /* the first loads kernels, which a recording must not */
    if (!of->graph) OCTAVO_TRY(record_graph(session, piece, &step, wants, &of->graph));
    session->stats.graph_replays++;
    return octavo_device_graph_replay(&session->exec, of->graph);
}
