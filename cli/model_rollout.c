/* model_rollout.c - decodes the answers to a prompt side by side, scores them and writes each as it ends. */
#include "model_rollout.h"
#include "cli.h"
#include "octavo/layer.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int rollout_init(rollout *r)
{
    r->answers = calloc((size_t)r->samples, sizeof *r->answers);
    int good = r->answers != NULL;
    for (int64_t i = 0; good && i < r->samples; i++) {
        rollout_answer *answer = &r->answers[i];
        float *numbers = malloc((size_t)r->max_tokens * 3 * sizeof *numbers);
        answer->ids = malloc((size_t)r->max_tokens * sizeof *answer->ids);
        answer->logprob = numbers;
        good = numbers && answer->ids;
        if (!good) break;
        answer->sampled_logprob = numbers + r->max_tokens;
        answer->score_logprob = numbers + 2 * r->max_tokens;
        answer->stream.stops = r->stops;
    }
    return good ? EXIT_DONE : cli_refuse("there is no memory for %" PRId64 " answers of %" PRId64 " tokens", r->samples, r->max_tokens);
}

void rollout_fini(rollout *r)
{
    for (int64_t i = 0; r->answers && i < r->samples; i++) {
        free(r->answers[i].ids);
        free(r->answers[i].logprob);
        text_stream_fini(&r->answers[i].stream);
    }
    free(r->answers);
    r->answers = NULL;
}

/* The cache of all of the prompt but its last token, whose logits each answer needs for itself. */
static int begin(rollout *r, octavo_session *session, const rollout_prompt *prompt, int32_t *parent)
{
    if (octavo_session_sequence(session, parent) != OCTAVO_OK) return cli_refuse_last();
    return model_run_prefill(r->run, session, *parent, prompt->ids, prompt->count - 1, NULL);
}

/* ---- one answer ---- */

/* Takes the newest token in; finish is set where it was the last. */
static int take(const rollout *r, const rollout_prompt *prompt, rollout_answer *answer)
{
    const int32_t id = answer->ids[answer->count++];
    const uint8_t *bytes;
    size_t count;
    const int ended = model_run_is_eos(r->run, id) && !r->ignore_eos;
    if (ended) answer->finish = "eos";
    else if (answer->count == r->max_tokens) answer->finish = "length";
    else if (prompt->count + answer->count > r->context) answer->finish = "context";
    if (r->ids_only) return EXIT_DONE;
    /* A vocabulary may be padded with ids that are no token. */
    const int silent = ended || octavo_tokenizer_is_special(r->run->tokenizer, id) ||
                       octavo_tokenizer_token_bytes(r->run->tokenizer, id, &bytes, &count) != OCTAVO_OK;
    if (!silent && text_stream_add(&answer->stream, bytes, count) == STREAM_STOPPED) answer->finish = "stop";
    if (answer->finish) text_stream_end(&answer->stream);
    return answer->stream.state == STREAM_FAILED ? cli_refuse("there is no memory for the text of an answer") : EXIT_DONE;
}

/* The exact log-probabilities of an answer, by prefill behind the shared prompt. */
static int score(rollout *r, const rollout_prompt *prompt, int32_t parent, rollout_answer *answer)
{
    octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
    int32_t child;
    int32_t *inputs = malloc((size_t)answer->count * sizeof *inputs);
    if (!inputs) return cli_refuse("there is no memory to score an answer");
    inputs[0] = prompt->ids[prompt->count - 1];
    memcpy(inputs + 1, answer->ids, (size_t)(answer->count - 1) * sizeof *inputs);
    forward.batch = 1;
    forward.tokens = answer->count;
    forward.sequences = &child;
    forward.ids = inputs;
    forward.targets = answer->ids;
    forward.logprob = answer->score_logprob;
    octavo_status status = octavo_session_fork(r->exact, parent, &child);
    if (status == OCTAVO_OK) status = octavo_session_forward(r->exact, &forward);
    if (status == OCTAVO_OK) status = octavo_session_free(r->exact, child);
    free(inputs);
    return status == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static json_t *numbers(const float *values, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        if (json_array_append_new(list, json_real((double)values[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *line_of(const rollout *r, const rollout_prompt *prompt, int64_t sample)
{
    const rollout_answer *answer = &r->answers[sample];
    json_t *ids = json_array();
    for (int64_t i = 0; i < answer->count; i++) json_array_append_new(ids, json_integer(answer->ids[i]));
    json_t *line = json_pack("{s:I, s:I, s:s, s:I, s:o, s:o, s:o}", "prompt", (json_int_t)prompt->index, "sample", (json_int_t)sample, "finish",
                             answer->finish, "prompt_tokens", (json_int_t)prompt->count, "ids", ids, "logprobs",
                             numbers(answer->logprob, answer->count), "sampled_logprobs", numbers(answer->sampled_logprob, answer->count));
    int failed = line == NULL;
    if (!failed && prompt->id) failed = json_object_set_new(line, "id", json_deep_copy(prompt->id)) != 0;
    if (!failed && r->exact) failed = json_object_set_new(line, "score_logprobs", numbers(answer->score_logprob, answer->count)) != 0;
    if (!failed && !r->ids_only)
        failed = json_object_set_new(line, "text", json_stringn(answer->stream.text ? answer->stream.text : "", answer->stream.released)) != 0;
    if (!failed) return line;
    json_decref(line);
    return NULL;
}

/* ---- all of them ---- */

static int finish(rollout *r, const rollout_prompt *prompt, int64_t sample, int32_t exact_parent)
{
    rollout_answer *answer = &r->answers[sample];
    if (octavo_session_free(r->session, answer->sequence) != OCTAVO_OK) return cli_refuse_last();
    if (rollout_file_has(r->file, prompt->index, sample)) return EXIT_DONE;
    int status = r->exact ? score(r, prompt, exact_parent, answer) : EXIT_DONE;
    if (status == EXIT_DONE) status = rollout_file_write(r->file, line_of(r, prompt, sample));
    if (status == EXIT_DONE) progress_step(r->bar, ++r->file->done.count - r->found);
    return status;
}

/* A token of every answer that is not at its end; order: their numbers, [active]. */
static int step(rollout *r, const rollout_prompt *prompt, const int64_t *order, int64_t active, void *memory)
{
    octavo_sample_row *rows = memory;
    int32_t *sequences = (int32_t *)(rows + active), *ids = sequences + active, *sampled = ids + active;
    float *filtered = (float *)(sampled + active), *plain = filtered + active;
    octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
    for (int64_t i = 0; i < active; i++) {
        const rollout_answer *answer = &r->answers[order[i]];
        const uint64_t random = octavo_random_derive(octavo_random_derive((uint64_t)r->sampling->seed, (uint64_t)prompt->index), (uint64_t)order[i]);
        sequences[i] = answer->sequence;
        ids[i] = answer->count ? answer->ids[answer->count - 1] : prompt->ids[prompt->count - 1];
        rows[i] = model_sampling_row(r->sampling, octavo_random_uniform(random, (uint64_t)answer->count));
    }
    forward.batch = active;
    forward.tokens = 1;
    forward.sequences = sequences;
    forward.ids = ids;
    forward.sample = rows;
    forward.sampled = sampled;
    forward.sampled_logprob = filtered;
    forward.sampled_exact_logprob = plain;
    if (octavo_session_forward(r->session, &forward) != OCTAVO_OK) return cli_refuse_last();
    for (int64_t i = 0; i < active; i++) {
        rollout_answer *answer = &r->answers[order[i]];
        answer->ids[answer->count] = sampled[i];
        answer->sampled_logprob[answer->count] = filtered[i];
        answer->logprob[answer->count] = plain[i];
        const int status = take(r, prompt, answer);
        if (status != EXIT_DONE) return status;
    }
    return EXIT_DONE;
}

static int decode(rollout *r, const rollout_prompt *prompt, int32_t exact_parent, int64_t *order, void *memory)
{
    int64_t active = r->samples, missing = 0;
    int status = EXIT_DONE;
    for (int64_t i = 0; i < active; i++) {
        order[i] = i;
        missing += !rollout_file_has(r->file, prompt->index, i);
    }
    while (active > 0 && status == EXIT_DONE) {
        status = step(r, prompt, order, active, memory);
        int64_t left = 0;
        for (int64_t i = 0; i < active && status == EXIT_DONE; i++) {
            if (!r->answers[order[i]].finish) {
                order[left++] = order[i];
                continue;
            }
            missing -= !rollout_file_has(r->file, prompt->index, order[i]);
            status = finish(r, prompt, order[i], exact_parent);
        }
        active = left;
        if (missing == 0) break; /* those that are left are in the file */
    }
    for (int64_t i = 0; i < active && status == EXIT_DONE; i++)
        if (octavo_session_free(r->session, r->answers[order[i]].sequence) != OCTAVO_OK) status = cli_refuse_last();
    return status;
}

static int start_answers(rollout *r, int32_t parent)
{
    for (int64_t i = 0; i < r->samples; i++) {
        rollout_answer *answer = &r->answers[i];
        answer->count = 0;
        answer->finish = NULL;
        text_stream_fini(&answer->stream);
        if (octavo_session_fork(r->session, parent, &answer->sequence) != OCTAVO_OK) return cli_refuse_last();
    }
    return EXIT_DONE;
}

int rollout_run(rollout *r, const rollout_prompt *prompt)
{
    int32_t parent = -1, exact_parent = -1;
    int missing = 0;
    for (int64_t i = 0; i < r->samples; i++) missing |= !rollout_file_has(r->file, prompt->index, i);
    if (!missing) return EXIT_DONE;
    const size_t row_bytes = sizeof(octavo_sample_row) + 3 * sizeof(int32_t) + 2 * sizeof(float);
    int64_t *order = malloc((size_t)r->samples * sizeof *order);
    void *memory = malloc((size_t)r->samples * row_bytes);
    int status = order && memory ? EXIT_DONE : cli_refuse("there is no memory for %" PRId64 " answers", r->samples);
    if (status == EXIT_DONE) status = begin(r, r->session, prompt, &parent);
    if (status == EXIT_DONE && r->exact) status = begin(r, r->exact, prompt, &exact_parent);
    if (status == EXIT_DONE) status = start_answers(r, parent);
    if (status == EXIT_DONE) status = decode(r, prompt, exact_parent, order, memory);
    if (status == EXIT_DONE && octavo_session_free(r->session, parent) != OCTAVO_OK) status = cli_refuse_last();
    if (status == EXIT_DONE && r->exact && octavo_session_free(r->exact, exact_parent) != OCTAVO_OK) status = cli_refuse_last();
    free(order);
    free(memory);
    return status;
}
