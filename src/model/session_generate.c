/* session_generate.c - draws token after token, each fed to the next step on the device, which runs a few steps ahead of the host. */
#include "base/clock.h"
#include "base/error.h"
#include "kernel/random.h"
#include "model/session.h"
#include <string.h>

/* So long the device may be ahead: what is thrown away at a stop, and the delay at which text appears. */
static const double SECONDS_AHEAD = 0.01;

static octavo_status check_call(octavo_session *session, const octavo_generate_params *p)
{
    if (!session || !p) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", session ? "params" : "session");
    OCTAVO_TRY(octavo_struct_check("octavo_generate_params", p->struct_size, sizeof *p));
    if (p->batch < 1 || p->batch > session->config.max_sequences)
        return octavo_fail(OCTAVO_E_ARGUMENT, "batch is %lld, expected 1 to %d sequences", (long long)p->batch, session->config.max_sequences);
    if (p->steps < 1 || p->steps > session->config.max_tokens)
        return octavo_fail(OCTAVO_E_ARGUMENT, "steps is %lld, expected 1 to %lld", (long long)p->steps, (long long)session->config.max_tokens);
    const char *missing = !p->sequences ? "sequences" : !p->ids ? "ids" : !p->sample ? "sample" : !p->random ? "random" : !p->drawn ? "drawn" : NULL;
    if (missing) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", missing);
    OCTAVO_TRY(octavo_session_check_ids("ids", p->ids, p->batch, octavo_model_config_of(session->model)->vocab));
    return octavo_session_check_sequences(session, p->sequences, p->batch, p->steps);
}

/* What steps from number `done` on begin with; the tokens are the call's, or the last that were fetched. */
static octavo_status send(octavo_session *session, const octavo_generate_params *p, int64_t done)
{
    octavo_step_inputs *in = &session->in;
    for (int64_t b = 0; b < p->batch; b++) {
        in->sequences[b] = p->sequences[b];
        in->random[b] = octavo_random_skip(p->random[b], p->first + (uint64_t)done);
        in->rows[b] = p->sample[b];
        in->rows[b].uniform = octavo_random_number(in->random[b], 0);
        if (done == 0) in->ids[b] = p->ids[b];
    }
    return octavo_session_send(session, p->batch);
}

static octavo_status run_steps(octavo_session *session, const octavo_generate_params *p, int64_t done, int64_t steps)
{
    OCTAVO_TRY(send(session, p, done));
    for (int64_t b = 0; b < p->batch; b++) OCTAVO_TRY(octavo_kvcache_reserve(session->cache, p->sequences[b], steps));
    for (int64_t i = 0; i < steps; i++) {
        octavo_piece piece = { .batch = p->batch, .tokens = 1, .sequences = p->sequences, .path = OCTAVO_PATH_DECODE };
        for (int64_t b = 0; b < p->batch; b++)
            if (session->start[b] + done + i + 1 > piece.longest) piece.longest = session->start[b] + done + i + 1;
        piece.view_tokens = octavo_session_plan_tokens(session, piece.longest);
        OCTAVO_TRY(octavo_session_step(session, &piece, OCTAVO_STEP_SAMPLE | OCTAVO_STEP_FEED));
    }
    OCTAVO_TRY(octavo_session_fetch(session, p->batch, steps));
    for (int64_t b = 0; b < p->batch; b++) session->in.ids[b] = session->out.draws[(steps - 1) * p->batch + b].token;
    return OCTAVO_OK;
}

/* Steps that the device may run before the host looks, when one takes so long. */
static int64_t steps_ahead(const octavo_session *session, double seconds)
{
    if (octavo_device_kind_of(session->exec.device) == OCTAVO_DEVICE_CPU) return 1; /* nothing would run beside the host */
    const double steps = SECONDS_AHEAD / seconds;
    return steps < 1.0 ? 1 : steps < OCTAVO_STEPS_AHEAD ? (int64_t)steps : OCTAVO_STEPS_AHEAD;
}

/* *done: steps whose tokens were given away. */
static octavo_status generate(octavo_session *session, const octavo_generate_params *p, int64_t *done)
{
    octavo_generate_next next = OCTAVO_GENERATE_ON;
    for (int64_t ahead = 1; next == OCTAVO_GENERATE_ON && *done < p->steps;) {
        const int64_t steps = p->steps - *done < ahead ? p->steps - *done : ahead;
        const double before = octavo_clock_seconds();
        OCTAVO_TRY(run_steps(session, p, *done, steps));
        const double seconds = octavo_clock_seconds() - before;
        session->stats.decode_seconds += seconds;
        ahead = steps_ahead(session, seconds / (double)steps);
        for (int64_t i = 0; i < steps && next == OCTAVO_GENERATE_ON; i++) {
            octavo_session_count(session, p->batch, i);
            session->stats.decode_tokens += p->batch;
            next = p->drawn(p->user, (*done)++, session->out.draws + i * p->batch);
        }
    }
    return OCTAVO_OK;
}

octavo_status octavo_session_generate(octavo_session *session, const octavo_generate_params *params)
{
    OCTAVO_TRY(check_call(session, params));
    int64_t done = 0;
    for (int64_t b = 0; b < params->batch; b++) session->start[b] = octavo_session_length(session, params->sequences[b]);
    const octavo_status status = generate(session, params, &done);
    for (int64_t b = 0; b < params->batch; b++)
        if (octavo_session_length(session, params->sequences[b]) > session->start[b] + done)
            octavo_kvcache_truncate(session->cache, params->sequences[b], session->start[b] + done); /* cannot fail: they are the newest */
    return status;
}
