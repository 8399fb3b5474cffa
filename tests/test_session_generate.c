/* test_session_generate.c - tokens that are fed back on the device are those of one call a token; stops take back what ran ahead. On the CPU, and
 * on the first GPU where there is one. */
#include "session_fixture.h"
#include <math.h>
#include <string.h>

enum { PROMPT = 37, STEPS = 45, BATCH = 3, ROOM = PROMPT + BATCH + STEPS + 8 };

/* Without a GPU `device` stays NULL and the tests say so. */
static int open_gpu(void **state)
{
    (void)state;
    if (open_device("cuda:0")) print_message("no GPU is tried: %s\n", octavo_last_error());
    return 0;
}

static octavo_session *make_session(const octavo_model *model, octavo_select_rule rule)
{
    octavo_session_config config = OCTAVO_SESSION_CONFIG_INIT;
    octavo_session *session = NULL;
    config.max_tokens = ROOM;
    config.max_sequences = BATCH + 1;
    config.chunk_tokens = 16;
    config.block_tokens = 16;
    config.cache_k = OCTAVO_K_E4M3X2, config.cache_v = OCTAVO_V_E4M3;
    config.select.rule = rule, config.select.epsilon = 0.1f, config.select.compensate = rule ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
    if (octavo_session_create(model, &config, &session) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return session;
}

/* BATCH sequences of different lengths; ids: the token that each goes on with. */
static void begin(octavo_session *session, int32_t vocab, int32_t *sequences, int32_t *ids)
{
    int32_t prompt[PROMPT + BATCH];
    for (int32_t i = 0; i < PROMPT + BATCH; i++) prompt[i] = (i * 37 + 5) % vocab;
    for (int32_t b = 0; b < BATCH; b++) {
        octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
        assert_int_equal(octavo_session_sequence(session, &sequences[b]), OCTAVO_OK);
        p.batch = 1, p.tokens = PROMPT + b, p.sequences = &sequences[b], p.ids = prompt;
        assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
        ids[b] = (b + 3) % vocab;
    }
}

static const octavo_sample_row HOW[BATCH] = { { 0.0f, 0, 0.0f, 0.0f, 0.0f }, { 1.0f, 0, 1.0f, 0.0f, 0.5f }, { 0.8f, 40, 0.95f, 0.05f, 0.0f } };
static const uint64_t RANDOM[BATCH] = { 1, 99, UINT64_C(0xfedcba9876543210) };

/* One call a token. */
static void draw_by_forward(octavo_session *session, const int32_t *sequences, const int32_t *ids, octavo_drawn_token drawn[STEPS][BATCH])
{
    int32_t next[BATCH], sampled[BATCH];
    float filtered[BATCH], plain[BATCH];
    octavo_sample_row rows[BATCH];
    memcpy(next, ids, sizeof next);
    memcpy(rows, HOW, sizeof rows);
    for (int s = 0; s < STEPS; s++) {
        octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
        for (int b = 0; b < BATCH; b++) rows[b].uniform = octavo_random_uniform(RANDOM[b], 7 + (uint64_t)s);
        p.batch = BATCH, p.tokens = 1, p.sequences = sequences, p.ids = next;
        p.sample = rows, p.sampled = sampled, p.sampled_logprob = filtered, p.sampled_exact_logprob = plain;
        assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
        for (int b = 0; b < BATCH; b++) drawn[s][b] = (octavo_drawn_token){ sampled[b], filtered[b], plain[b] };
        memcpy(next, sampled, sizeof next);
    }
}

typedef struct collected {
    octavo_drawn_token drawn[STEPS][BATCH];
    int64_t count, stop_at;
} collected;

static octavo_generate_next collect(void *user, int64_t step, const octavo_drawn_token *tokens)
{
    collected *to = user;
    assert_int_equal(step, to->count);
    memcpy(to->drawn[to->count++], tokens, sizeof *to->drawn);
    return to->count == to->stop_at ? OCTAVO_GENERATE_STOP : OCTAVO_GENERATE_ON;
}

static octavo_generate_params params_of(const int32_t *sequences, const int32_t *ids, int64_t steps, uint64_t first, collected *to)
{
    octavo_generate_params p = OCTAVO_GENERATE_PARAMS_INIT;
    p.batch = BATCH, p.steps = steps, p.sequences = sequences, p.ids = ids, p.sample = HOW, p.random = RANDOM, p.first = first;
    p.drawn = collect, p.user = to;
    return p;
}

/* The whole at once, and in two halves with a stop between, behind which other work comes. */
static void check_model(octavo_model *model, octavo_select_rule rule)
{
    static octavo_drawn_token wanted[STEPS][BATCH];
    static collected whole, half;
    const int32_t vocab = octavo_model_config_of(model)->vocab, cut = 18;
    int32_t sequences[BATCH], ids[BATCH], extra;
    octavo_session_stats by_forward, by_generate;
    octavo_session *session = make_session(model, rule);
    begin(session, vocab, sequences, ids);
    octavo_session_stats_reset(session);
    draw_by_forward(session, sequences, ids, wanted);
    octavo_session_stats_of(session, &by_forward);
    octavo_session_destroy(session);

    whole = (collected){ .stop_at = -1 };
    session = make_session(model, rule);
    begin(session, vocab, sequences, ids);
    octavo_session_stats_reset(session);
    octavo_generate_params p = params_of(sequences, ids, STEPS, 7, &whole);
    assert_int_equal(octavo_session_generate(session, &p), OCTAVO_OK);
    octavo_session_stats_of(session, &by_generate);
    assert_int_equal(whole.count, STEPS);
    assert_memory_equal(whole.drawn, wanted, sizeof wanted);
    assert_int_equal(by_generate.decode_tokens, STEPS * BATCH);
    assert_int_equal(by_generate.decode_cache_bytes, by_forward.decode_cache_bytes);
    assert_true(by_generate.skip_ratio == by_forward.skip_ratio);
    if (octavo_device_kind_of(device) != OCTAVO_DEVICE_CPU) assert_true(by_generate.graph_replays > STEPS / 2);

    for (int b = 0; b < BATCH; b++) assert_int_equal(octavo_session_length(session, sequences[b]), PROMPT + b + STEPS);
    octavo_session_destroy(session);

    session = make_session(model, rule);
    begin(session, vocab, sequences, ids);
    half = (collected){ .stop_at = cut };
    p = params_of(sequences, ids, STEPS, 7, &half);
    assert_int_equal(octavo_session_generate(session, &p), OCTAVO_OK);
    assert_int_equal(half.count, cut);
    for (int b = 0; b < BATCH; b++) assert_int_equal(octavo_session_length(session, sequences[b]), PROMPT + b + cut);
    assert_int_equal(octavo_session_fork(session, sequences[1], &extra), OCTAVO_OK); /* pages are shared now */
    int32_t next[BATCH];
    for (int b = 0; b < BATCH; b++) next[b] = half.drawn[cut - 1][b].token;
    collected rest = { .stop_at = -1 };
    p = params_of(sequences, next, STEPS - cut, 7 + (uint64_t)cut, &rest);
    assert_int_equal(octavo_session_generate(session, &p), OCTAVO_OK);
    assert_int_equal(rest.count, STEPS - cut);
    assert_memory_equal(half.drawn, wanted, (size_t)cut * sizeof *wanted);
    assert_memory_equal(rest.drawn, wanted[cut], (size_t)(STEPS - cut) * sizeof *wanted);
    assert_int_equal(octavo_session_length(session, extra), PROMPT + 1 + cut);
    octavo_session_destroy(session);
}

static void test_tiny(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_BF16);
    check_model(model, OCTAVO_SELECT_NONE);
    check_model(model, OCTAVO_SELECT_MASS);
    octavo_model_close(model);
}

static void check_plain(octavo_model *model) { check_model(model, OCTAVO_SELECT_NONE); }

/* Experts, learned positions, windows, and a norm of queries and keys. */
static void test_shared(void **state)
{
    (void)state;
    static const char *const FOLDERS[] = { "mixtral", "qwen3_moe", "olmoe", "gpt2", "mistral_window", "qwen3" };
    check_shared(FOLDERS, sizeof FOLDERS / sizeof *FOLDERS, OCTAVO_LINEAR_BF16, check_plain);
}

static void test_refusals(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_BF16);
    octavo_session *session = make_session(model, OCTAVO_SELECT_NONE);
    const int32_t vocab = octavo_model_config_of(model)->vocab;
    int32_t sequences[BATCH], ids[BATCH];
    collected to = { .stop_at = -1 };
    begin(session, vocab, sequences, ids);
    octavo_generate_params good = params_of(sequences, ids, 4, 0, &to), p = good;
#define REFUSED(change, status, words)                                      \
    p = good;                                                               \
    change;                                                                 \
    assert_int_equal(octavo_session_generate(session, &p), status);         \
    if (!strstr(octavo_last_error(), words)) fail_msg("'%s' does not say '%s'", octavo_last_error(), words)
    REFUSED(p.struct_size = 1, OCTAVO_E_VERSION, "octavo_generate_params");
    REFUSED(p.drawn = NULL, OCTAVO_E_ARGUMENT, "drawn");
    REFUSED(p.random = NULL, OCTAVO_E_ARGUMENT, "random");
    REFUSED(p.batch = BATCH + 2, OCTAVO_E_ARGUMENT, "batch is 5");
    REFUSED(p.steps = 0, OCTAVO_E_ARGUMENT, "steps is 0");
    REFUSED(p.steps = ROOM - PROMPT, OCTAVO_E_RANGE, "do not fit");
    const int32_t twice[BATCH] = { sequences[0], sequences[1], sequences[0] }, wrong[BATCH] = { 0, vocab, 0 };
    REFUSED(p.sequences = twice, OCTAVO_E_ARGUMENT, "twice");
    REFUSED(p.ids = wrong, OCTAVO_E_RANGE, "ids[1]");
#undef REFUSED
    assert_int_equal(to.count, 0);
    for (int b = 0; b < BATCH; b++) assert_int_equal(octavo_session_length(session, sequences[b]), PROMPT + b);
    octavo_session_destroy(session);
    octavo_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tiny), cmocka_unit_test(test_shared), cmocka_unit_test(test_refusals) };
    const int cpu = cmocka_run_group_tests_name("cpu", tests, open_cpu, close_device);
    return cpu + cmocka_run_group_tests_name("gpu", tests, open_gpu, close_device);
}
