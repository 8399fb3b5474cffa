/* test_session.c - sessions over small checkpoints: forks, pieces of any size, batches, roll-back, recording, refusals. */
#include "session_fixture.h"
#include <math.h>
#include <string.h>

enum { TOKENS = 90, MORE = 6 };

static octavo_session *make_session(const octavo_model *model, octavo_session_config config)
{
    octavo_session *session = NULL;
    if (octavo_session_create(model, &config, &session) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return session;
}

static octavo_session_config config_of(int32_t chunk, int32_t sequences)
{
    octavo_session_config config = OCTAVO_SESSION_CONFIG_INIT;
    config.max_tokens = TOKENS + MORE;
    config.max_sequences = sequences;
    config.chunk_tokens = chunk;
    config.block_tokens = 16;
    return config;
}

static void draw_ids(int32_t *ids, int64_t count, int32_t vocab, uint32_t seed)
{
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

static int32_t new_sequence(octavo_session *session)
{
    int32_t sequence = -1;
    assert_int_equal(octavo_session_sequence(session, &sequence), OCTAVO_OK);
    return sequence;
}

/* Logits of the last of `tokens` tokens. */
static void run(octavo_session *session, int32_t sequence, const int32_t *ids, int64_t tokens, octavo_path path, float *logits)
{
    octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
    p.batch = 1;
    p.tokens = tokens;
    p.sequences = &sequence;
    p.ids = ids;
    p.path = path;
    p.logits = logits;
    if (octavo_session_forward(session, &p) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
}

static double difference(const float *a, const float *b, int64_t count)
{
    double wrong = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        wrong += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(wrong / size);
}

/* One model through everything that must not change its answer. */
static void check_equivalences(octavo_model *model)
{
    const int32_t vocab = octavo_model_config_of(model)->vocab;
    const size_t bytes = (size_t)vocab * sizeof(float);
    int32_t ids[TOKENS + MORE];
    float *logits[5];
    for (int i = 0; i < 5; i++) logits[i] = test_malloc(bytes);
    draw_ids(ids, TOKENS + MORE, vocab, 7);

    /* a fork continues with the same bits as the sequence that it came from, whichever of them goes first */
    octavo_session *session = make_session(model, config_of(32, 3));
    int32_t parent = new_sequence(session), child = -1, plain = new_sequence(session);
    run(session, parent, ids, TOKENS, OCTAVO_PATH_AUTO, logits[0]);
    run(session, plain, ids, TOKENS, OCTAVO_PATH_AUTO, logits[1]);
    assert_memory_equal(logits[0], logits[1], bytes);
    assert_int_equal(octavo_session_fork(session, parent, &child), OCTAVO_OK);
    run(session, child, ids + TOKENS, 1, OCTAVO_PATH_AUTO, logits[0]);
    run(session, plain, ids + TOKENS, 1, OCTAVO_PATH_AUTO, logits[1]);
    run(session, parent, ids + TOKENS, 1, OCTAVO_PATH_AUTO, logits[2]);
    assert_memory_equal(logits[0], logits[1], bytes);
    assert_memory_equal(logits[0], logits[2], bytes);

    /* rolled back and run again: the same bits */
    const octavo_status rolled = octavo_session_truncate(session, child, TOKENS);
    assert_int_equal(rolled, OCTAVO_OK);
    run(session, child, ids + TOKENS, 1, OCTAVO_PATH_AUTO, logits[2]);
    assert_memory_equal(logits[0], logits[2], bytes);
    octavo_session_destroy(session);

    /* other pieces, and token by token: the same within float32 rounding */
    static const int32_t CHUNKS[] = { 7, 33, TOKENS + 1 };
    for (int i = 0; i < 3; i++) {
        session = make_session(model, config_of(CHUNKS[i], 1));
        run(session, new_sequence(session), ids, TOKENS + 1, OCTAVO_PATH_AUTO, logits[3]);
        octavo_session_destroy(session);
        assert_true(difference(logits[3], logits[0], vocab) <= 1e-5);
    }
    session = make_session(model, config_of(16, 1));
    run(session, new_sequence(session), ids, TOKENS + 1, OCTAVO_PATH_DECODE, logits[4]);
    octavo_session_destroy(session);
    assert_true(difference(logits[4], logits[0], vocab) <= 1e-5);
    for (int i = 0; i < 5; i++) test_free(logits[i]);
}

static void test_equivalences_tiny(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    check_equivalences(model);
    octavo_model_close(model);
}

static void test_equivalences_shared(void **state)
{
    (void)state;
    static const char *const FOLDERS[] = { "gpt2", "llama", "llama_mqa", "mistral_window", "qwen3", "mixtral", "olmoe", "qwen3_moe" };
    check_shared(FOLDERS, sizeof FOLDERS / sizeof *FOLDERS, OCTAVO_LINEAR_F32, check_equivalences);
}

static void test_batch(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    const int32_t vocab = octavo_model_config_of(model)->vocab;
    int32_t ids[TOKENS + MORE], sequences[3];
    draw_ids(ids, TOKENS + MORE, vocab, 3);
    float *together = test_malloc(3 * (size_t)vocab * sizeof(float)), *alone = test_malloc((size_t)vocab * sizeof(float));
    octavo_session *session = make_session(model, config_of(20, 3));
    static const int64_t LENGTHS[3] = { 5, 61, 32 };
    for (int b = 0; b < 3; b++) {
        sequences[b] = new_sequence(session);
        run(session, sequences[b], ids, LENGTHS[b], OCTAVO_PATH_AUTO, NULL);
    }
    octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
    p.batch = 3;
    p.tokens = 1;
    p.sequences = (const int32_t[]){ sequences[2], sequences[0], sequences[1] };
    p.ids = (const int32_t[]){ ids[LENGTHS[2]], ids[LENGTHS[0]], ids[LENGTHS[1]] };
    p.logits = together;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
    octavo_session_destroy(session);
    for (int b = 0; b < 3; b++) {
        const int64_t length = LENGTHS[(b + 2) % 3];
        session = make_session(model, config_of(20, 1));
        run(session, new_sequence(session), ids, length + 1, OCTAVO_PATH_AUTO, alone);
        octavo_session_destroy(session);
        assert_true(difference(together + (int64_t)b * vocab, alone, vocab) <= 1e-5);
    }
    test_free(together);
    test_free(alone);
    octavo_model_close(model);
}

/* Scores, the most likely token and a greedy sample agree with the logits that they come from. */
static void test_outputs(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    const int32_t vocab = octavo_model_config_of(model)->vocab;
    int32_t ids[TOKENS], targets[TOKENS], top[TOKENS], sampled = -1;
    float logprob[TOKENS], sampled_logprob = 1.0f, exact_logprob = 1.0f;
    draw_ids(ids, TOKENS, vocab, 11);
    draw_ids(targets, TOKENS, vocab, 12);
    float *all = test_malloc((size_t)TOKENS * (size_t)vocab * sizeof(float)), *last = test_malloc((size_t)vocab * sizeof(float));
    const octavo_sample_row greedy = { 0 };
    octavo_session *session = make_session(model, config_of(17, 1));
    const int32_t sequence = new_sequence(session);
    octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
    p.batch = 1, p.tokens = TOKENS, p.sequences = &sequence, p.ids = ids;
    p.all_logits = all, p.logits = last, p.targets = targets, p.logprob = logprob, p.top = top;
    p.sample = &greedy, p.sampled = &sampled, p.sampled_logprob = &sampled_logprob, p.sampled_exact_logprob = &exact_logprob;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
    octavo_session_destroy(session);
    for (int t = 0; t < TOKENS; t++) {
        const float *logits = all + (int64_t)t * vocab;
        int32_t best = 0;
        double sum = 0.0;
        for (int32_t i = 1; i < vocab; i++)
            if (logits[i] > logits[best]) best = i;
        for (int32_t i = 0; i < vocab; i++) sum += exp((double)(logits[i] - logits[best]));
        assert_int_equal(top[t], best);
        assert_true(fabs((double)logprob[t] - ((double)(logits[targets[t]] - logits[best]) - log(sum))) <= 1e-5);
        if (t < TOKENS - 1) continue;
        assert_int_equal(sampled, best);
        assert_true(fabs((double)exact_logprob + log(sum)) <= 1e-5);
        assert_true(sampled_logprob == 0.0f);
        assert_true(difference(last, logits, vocab) <= 1e-6);
    }
    test_free(all);
    test_free(last);
    octavo_model_close(model);
}

static void test_selection(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    const octavo_model_config *of = octavo_model_config_of(model);
    int32_t ids[TOKENS + MORE], *layers = test_malloc((size_t)of->layers * sizeof *layers);
    float *logits[3];
    for (int i = 0; i < 3; i++) logits[i] = test_malloc((size_t)of->vocab * sizeof(float));
    draw_ids(ids, TOKENS + MORE, of->vocab, 5);
    for (int32_t i = 0; i < of->layers; i++) layers[i] = i;
    octavo_session_stats stats[3];
    for (int i = 0; i < 3; i++) { /* none; everything dropped that may be; the same with every layer dense */
        octavo_session_config config = config_of(32, 1);
        config.cache_k = OCTAVO_K_INT8X2;
        config.cache_v = OCTAVO_V_INT8;
        config.block_tokens = 8;
        if (i > 0) config.select = (octavo_session_select){ .rule = OCTAVO_SELECT_MASS, .compensate = OCTAVO_COMPENSATE_MEAN, .epsilon = 0.9f };
        if (i == 2) config.select.dense_layers = layers, config.select.dense_count = of->layers;
        octavo_session *session = make_session(model, config);
        const int32_t sequence = new_sequence(session);
        run(session, sequence, ids, TOKENS, OCTAVO_PATH_AUTO, NULL);
        run(session, sequence, ids + TOKENS, MORE, OCTAVO_PATH_DECODE, logits[i]);
        octavo_session_stats_of(session, &stats[i]);
        assert_int_equal(stats[i].prefill_tokens, TOKENS);
        assert_int_equal(stats[i].decode_tokens, MORE);
        octavo_session_destroy(session);
    }
    assert_true(stats[0].skip_ratio == 0.0 && stats[2].skip_ratio == 0.0);
    assert_true(stats[1].skip_ratio > 0.1);
    assert_true(stats[1].decode_cache_bytes < stats[0].decode_cache_bytes && stats[2].decode_cache_bytes == stats[0].decode_cache_bytes);
    assert_memory_equal(logits[0], logits[2], (size_t)of->vocab * sizeof(float));
    assert_true(difference(logits[1], logits[0], of->vocab) > 0.0);
    for (int i = 0; i < 3; i++) test_free(logits[i]);
    test_free(layers);
    octavo_model_close(model);
}

typedef struct recorded {
    int64_t calls, next;
    int32_t layers, fail_layer;
} recorded;

static octavo_status note_layer(void *user, const octavo_layer_record *layer)
{
    recorded *r = user;
    assert_int_equal(layer->layer, r->calls / 2 % r->layers);
    assert_int_equal(layer->rotated, r->calls % 2);
    if (r->calls % (2 * r->layers) == 0) {
        assert_int_equal(layer->first_position, r->next);
        r->next += layer->q.shape[1];
    }
    r->calls++;
    return layer->layer == r->fail_layer && layer->first_position > 0 ? OCTAVO_E_IO : OCTAVO_OK;
}

static void test_record(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    const octavo_model_config *of = octavo_model_config_of(model);
    int32_t ids[TOKENS];
    draw_ids(ids, TOKENS, of->vocab, 9);
    octavo_session *session = make_session(model, config_of(40, 1));
    const int32_t sequence = new_sequence(session);
    recorded r = { .layers = of->layers, .fail_layer = -1 };
    octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
    p.batch = 1, p.tokens = TOKENS, p.sequences = &sequence, p.ids = ids;
    p.record = note_layer, p.record_user = &r;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
    assert_int_equal(r.calls, 3 * 2 * of->layers);
    assert_int_equal(r.next, TOKENS);

    /* a refusal in the second piece leaves the sequence as it was */
    assert_int_equal(octavo_session_truncate(session, sequence, 3), OCTAVO_OK);
    r = (recorded){ .layers = of->layers, .fail_layer = of->layers - 1, .next = 3 };
    p.tokens = 60;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_IO);
    assert_int_equal(octavo_session_length(session, sequence), 3);
    octavo_session_destroy(session);
    octavo_model_close(model);
}

static void test_refusals(void **state)
{
    (void)state;
    octavo_model *model = open_tiny(OCTAVO_LINEAR_F32);
    const octavo_model_config *of = octavo_model_config_of(model);
    octavo_session *session = NULL;
    octavo_session_config config = config_of(16, 2);
    size_t bytes = 0;
    assert_int_equal(octavo_session_memory_bytes(model, &config, &bytes), OCTAVO_OK);
    assert_true(bytes > 0);
    assert_int_equal(octavo_session_chunk_default(model), 1024);
    config.max_tokens = of->max_tokens + 1;
    assert_int_equal(octavo_session_create(model, &config, &session), OCTAVO_E_RANGE);
    assert_null(session);
    assert_non_null(strstr(octavo_last_error(), "max_tokens"));
    config = config_of(16, 2);
    config.pool_tokens = (int64_t)1 << 33; /* asked for before it is claimed */
    assert_int_equal(octavo_session_create(model, &config, &session), OCTAVO_E_NOMEM);
    assert_non_null(strstr(octavo_last_error(), "available"));
    config = config_of(16, 2);
    config.select.dense_layers = &of->layers, config.select.dense_count = 1;
    assert_int_equal(octavo_session_create(model, &config, &session), OCTAVO_E_RANGE);

    session = make_session(model, config_of(16, 2));
    const int32_t sequence = new_sequence(session), twice[2] = { sequence, sequence }, dead = sequence + 1;
    int32_t ids[2 * (TOKENS + MORE)] = { 0 };
    octavo_forward_params p = OCTAVO_FORWARD_PARAMS_INIT;
    p.batch = 1, p.tokens = 4, p.sequences = &sequence, p.ids = ids;
    ids[3] = of->vocab;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_RANGE);
    assert_non_null(strstr(octavo_last_error(), "ids[3]"));
    ids[3] = -1;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_RANGE);
    ids[3] = 0;
    p.sequences = &dead;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_RANGE);
    p.sequences = twice, p.batch = 2;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_ARGUMENT);
    p.sequences = &sequence, p.batch = 1, p.targets = ids;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_ARGUMENT);
    p.targets = NULL, p.tokens = TOKENS + MORE + 1;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_session_length(session, sequence), 0);
    p.tokens = TOKENS + MORE;
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_OK);
    p.tokens = 1; /* the context is full */
    assert_int_equal(octavo_session_forward(session, &p), OCTAVO_E_RANGE);
    assert_int_equal(octavo_session_length(session, sequence), TOKENS + MORE);
    octavo_session_destroy(session);
    octavo_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equivalences_tiny), cmocka_unit_test(test_equivalences_shared), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_outputs), cmocka_unit_test(test_selection), cmocka_unit_test(test_record), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_device);
}
