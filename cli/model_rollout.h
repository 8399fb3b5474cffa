/* model_rollout.h - several sampled answers to one prompt, decoded as one batch. */
#ifndef OCTAVO_CLI_MODEL_ROLLOUT_H
#define OCTAVO_CLI_MODEL_ROLLOUT_H

#include "model_rollout_file.h"
#include "model_run.h"
#include "model_sampling.h"
#include "model_stream.h"

typedef struct rollout_answer {
    int32_t sequence;
    int32_t *ids;             /* [room] */
    float *logprob;           /* [room] under softmax of the logits                       */
    float *sampled_logprob;   /* [room] under the distribution that was drawn from        */
    float *score_logprob;     /* [room] under the exact precision                         */
    int64_t count;
    text_stream stream;
    const char *finish;       /* NULL: not yet                                            */
} rollout_answer;

typedef struct rollout {
    model_run *run;
    const model_sampling *sampling;
    int64_t samples, max_tokens; /* answers a prompt, tokens an answer */
    int64_t context;             /* tokens of a sequence               */
    int ids_only, ignore_eos;
    const option_list *stops;
    octavo_session *session;     /* room for samples + 1 sequences         */
    octavo_session *exact;       /* scores; room for 2; NULL: --score none */
    rollout_file *file;
    int64_t found;               /* answers that the file had at first */
    progress_bar *bar;
    rollout_answer *answers;     /* [samples] */
} rollout;

/* A prompt as ids; `id` is what the prompts' file calls it, or NULL. */
typedef struct rollout_prompt {
    int64_t index;
    const json_t *id;
    const int32_t *ids; /* [count] */
    int64_t count;
} rollout_prompt;

/* All return EXIT_DONE, or EXIT_REFUSED after a sentence. init: sessions, file and the settings are there. */
int rollout_init(rollout *r);
void rollout_fini(rollout *r);

/* Writes the answers of this prompt that the file lacks. All of its answers are drawn even if one is missing: which sequences share
 * a batch may change the last bits of their logits, and so what a resumed run draws. */
int rollout_run(rollout *r, const rollout_prompt *prompt);

#endif
