/* test_attention.c - decode attention through the public API against plain float64 attention. */
#define _POSIX_C_SOURCE 200809L
#include "attention_fixture.h"

static const fixture_shape PLAIN = { .batch = 2, .tokens = 200, .kv_heads = 2, .group = 4, .q_tokens = 1, .head_dim = 64, .v_dim = 64,
                                     .block_tokens = 32, .sub_block_tokens = 32, .k_format = OCTAVO_K_BF16,
                                     .v_format = OCTAVO_V_BF16 };

static void test_exact_shapes(void **state)
{
    (void)state;
    static const struct { int64_t kv_heads, group, q_tokens, head_dim, v_dim; } CASES[] = {
        { 4, 1, 1, 64, 64 }, { 2, 4, 1, 96, 96 }, { 1, 16, 1, 128, 128 }, { 2, 3, 5, 256, 256 }, { 1, 2, 16, 80, 40 }, { 1, 1, 2, 7, 13 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fixture_shape shape = PLAIN;
        shape.kv_heads = CASES[i].kv_heads, shape.group = CASES[i].group, shape.q_tokens = CASES[i].q_tokens;
        shape.head_dim = CASES[i].head_dim, shape.v_dim = CASES[i].v_dim;
        fixture *f = fixture_create(&shape, 11 + i);
        f->lengths[1] = 77;
        fixture_decode(f);
        assert_true(fixture_error(f, 1e-5) < 3e-6);
        fixture_destroy(f);
    }
}

static void test_visibility(void **state)
{
    (void)state;
    static const float SINKS[8] = { 0.5f, -1.0f, 3.0f, 0.0f, 8.0f, -20.0f, 1.0f, 2.0f };
    fixture_shape shape = PLAIN;
    shape.q_tokens = 3;
    fixture *f = fixture_create(&shape, 5);
    f->params.window = 50, f->params.sink_tokens = 4;
    fixture_decode(f);
    assert_true(fixture_error(f, 1e-5) < 3e-6);
    f->params.sink_logits = SINKS, f->params.soft_cap = 2.0f;
    fixture_decode(f);
    assert_true(fixture_error(f, 1e-5) < 3e-6);
    f->lengths[0] = 2, f->lengths[1] = 0; /* the first query tokens of sequence 0 see nothing, sequence 1 is empty */
    fixture_decode(f);
    assert_true(fixture_error(f, 1e-5) < 3e-6);
    fixture_destroy(f);
}

/* Every stored format read whole, at the error that its bits allow. */
static void test_formats(void **state)
{
    (void)state;
    static const struct { octavo_k_format k; octavo_v_format v; double error; } CASES[] = {
        { OCTAVO_K_E4M3X2, OCTAVO_V_BF16, 5e-6 }, { OCTAVO_K_F16, OCTAVO_V_F16, 5e-6 },
        { OCTAVO_K_INT8X2, OCTAVO_V_BF16, 2e-4 }, { OCTAVO_K_E5M2X2, OCTAVO_V_BF16, 2e-2 },
        { OCTAVO_K_INT8, OCTAVO_V_INT8, 3e-2 },   { OCTAVO_K_INT4X2, OCTAVO_V_INT8, 3e-2 },
        { OCTAVO_K_E4M3, OCTAVO_V_E4M3, 1.5e-1 }, { OCTAVO_K_E5M2, OCTAVO_V_BF16, 2.5e-1 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fixture_shape shape = PLAIN;
        shape.k_format = CASES[i].k, shape.v_format = CASES[i].v;
        fixture *f = fixture_create(&shape, 21);
        fixture_decode(f);
        const double error = fixture_error(f, 0.1);
        if (error > CASES[i].error) print_error("%s %s: %g\n", octavo_k_format_name(CASES[i].k), octavo_v_format_name(CASES[i].v), error);
        assert_true(error <= CASES[i].error);
        fixture_destroy(f);
    }
}

/* Nothing of a float32 cache is rounded, by any rule that reads it whole and in any mix with another format. */
static void test_float32(void **state)
{
    (void)state;
    static const struct { octavo_k_format k; octavo_v_format v; int64_t head_dim, group; octavo_select_rule select; } CASES[] = {
        { OCTAVO_K_F32, OCTAVO_V_F32, 64, 4, OCTAVO_SELECT_NONE },  { OCTAVO_K_F32, OCTAVO_V_F32, 37, 3, OCTAVO_SELECT_NONE },
        { OCTAVO_K_F32, OCTAVO_V_F32, 128, 16, OCTAVO_SELECT_MASS }, { OCTAVO_K_F32, OCTAVO_V_BF16, 96, 1, OCTAVO_SELECT_NONE },
        { OCTAVO_K_E4M3X2, OCTAVO_V_F32, 96, 1, OCTAVO_SELECT_NONE },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fixture_shape shape = PLAIN;
        shape.k_format = CASES[i].k, shape.v_format = CASES[i].v, shape.group = CASES[i].group;
        shape.head_dim = shape.v_dim = CASES[i].head_dim;
        fixture *f = fixture_create(&shape, 31 + i);
        const size_t keys = (size_t)(shape.batch * shape.tokens * shape.kv_heads * shape.head_dim);
        uint64_t seed = 5 + i;
        for (size_t j = 0; shape.k_format == OCTAVO_K_F32 && j < keys; j++) f->k[j] = fixture_normal(&seed);
        for (size_t j = 0; shape.v_format == OCTAVO_V_F32 && j < keys; j++) f->v[j] = fixture_normal(&seed);
        for (size_t j = 0; j < (size_t)(shape.batch * shape.kv_heads * shape.group * shape.head_dim); j++) f->q[j] = fixture_normal(&seed);
        fixture_encode(f);
        f->params.select = CASES[i].select, f->params.epsilon = 1e-7f;
        fixture_decode(f);
        assert_true(fixture_error(f, 2e-6) < 1e-6);
        fixture_destroy(f);
    }
}

/* FP8 rounds queries, and keys and values of more than 8 bits to what an E4M3 cache holds. */
static void test_fp8(void **state)
{
    (void)state;
    static const struct { octavo_k_format k; octavo_v_format v; double least, most; } CASES[] = {
        { OCTAVO_K_BF16, OCTAVO_V_BF16, 0.02, 0.2 },   { OCTAVO_K_F32, OCTAVO_V_F16, 0.02, 0.2 }, { OCTAVO_K_E4M3, OCTAVO_V_E4M3, 0.02, 0.2 },
        { OCTAVO_K_E4M3X2, OCTAVO_V_INT8, 0.01, 0.1 }, { OCTAVO_K_INT8, OCTAVO_V_INT8, 0.01, 0.1 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fixture_shape shape = PLAIN;
        shape.k_format = CASES[i].k, shape.v_format = CASES[i].v;
        fixture *f = fixture_create(&shape, 21);
        f->params.precision = OCTAVO_ATTENTION_FP8;
        fixture_decode(f);
        const double error = fixture_error(f, 0.2);
        if (error < CASES[i].least || error > CASES[i].most) print_error("case %d: %g\n", (int)i, error);
        assert_true(error >= CASES[i].least && error <= CASES[i].most);
        f->params.select = OCTAVO_SELECT_CERTIFIED, f->params.epsilon = 0.1f;
        assert_int_equal(octavo_attention_decode(&f->exec, &f->params), OCTAVO_E_UNSUPPORTED); /* the bound would not hold */
        if (CASES[i].k == OCTAVO_K_E4M3X2) assert_non_null(strstr(octavo_last_error(), "fp8 with select certified"));
        fixture_destroy(f);
    }
}

/* Over any cache of 16 bits the answer is that over an E4M3 cache of the same keys and values. */
static void test_fp8_rounds_as_a_cache(void **state)
{
    (void)state;
    static const octavo_select_rule RULES[] = { OCTAVO_SELECT_NONE, OCTAVO_SELECT_MASS, OCTAVO_SELECT_DELTA };
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++) {
        fixture_shape shape = PLAIN;
        shape.tokens = 300, shape.head_dim = 72, shape.v_dim = 40;
        fixture *wide = fixture_create(&shape, 33);
        shape.k_format = OCTAVO_K_E4M3, shape.v_format = OCTAVO_V_E4M3;
        fixture *narrow = fixture_create(&shape, 33);
        fixture *both[] = { wide, narrow };
        for (int j = 0; j < 2; j++) {
            both[j]->params.precision = OCTAVO_ATTENTION_FP8;
            both[j]->params.select = RULES[i], both[j]->params.epsilon = 0.2f, both[j]->params.delta = 1.0f;
            fixture_decode(both[j]);
        }
        for (int64_t e = 0; e < shape.batch * shape.kv_heads * shape.group * shape.v_dim; e++)
            assert_true(fabsf(wide->out[e] - narrow->out[e]) <= 1e-2f * (0.01f + fabsf(narrow->out[e])));
        assert_memory_equal(wide->kept, narrow->kept, (size_t)(shape.batch * shape.kv_heads * octavo_kv_view_units(&wide->view)));
        fixture_destroy(wide), fixture_destroy(narrow);
    }
}

/* Makes the queries of a group alike and points some keys along them, so that blocks differ in weight by many nats. */
static void plant_peaks(fixture *f, float strength)
{
    const fixture_shape *s = &f->shape;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t i = 0; i < s->q_tokens * s->kv_heads * s->group; i++)
            for (int64_t d = 0; d < s->head_dim; d++) {
                float *q = f->q + b * s->q_tokens * s->kv_heads * s->group * s->head_dim;
                const float common = q[i % (s->kv_heads * s->group) / s->group * s->group * s->head_dim + d];
                q[i * s->head_dim + d] = fixture_as_bf16(1.5f * common + 0.25f * q[i * s->head_dim + d]);
            }
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t t = 0; t < s->tokens; t += 61)
            for (int64_t h = 0; h < s->kv_heads; h++)
                for (int64_t d = 0; d < s->head_dim; d++)
                    f->k[((b * s->tokens + t) * s->kv_heads + h) * s->head_dim + d] +=
                        fixture_as_bf16(strength * f->q[((b * s->q_tokens) * s->kv_heads * s->group + h * s->group) * s->head_dim + d]);
    for (int64_t i = 0; i < s->batch * s->tokens * s->kv_heads * s->head_dim; i++) f->k[i] = fixture_as_bf16(f->k[i]);
    fixture_encode(f);
}

/* True share of the mass that the kept mask drops, the worst over a head's query tokens. */
static double dropped_share(const fixture *f, int64_t b, int64_t q_head)
{
    const fixture_shape *s = &f->shape;
    const int64_t units = octavo_kv_view_units(&f->view);
    const uint8_t *kept = f->kept + (b * s->kv_heads + q_head / s->group) * units;
    double worst = 0.0;
    for (int64_t i = 0; i < s->q_tokens; i++) {
        double dropped = 0.0, whole = f->params.sink_logits ? exp((double)f->params.sink_logits[q_head]) : 0.0;
        for (int64_t t = 0; t < s->tokens; t++) {
            if (!fixture_sees(f, b, i, t)) continue;
            const double weight = exp(fixture_score(f, b, q_head, i, t));
            whole += weight;
            if (kept[t / s->sub_block_tokens] == OCTAVO_UNIT_DROPPED) dropped += weight;
        }
        worst = fmax(worst, dropped / whole);
    }
    return worst;
}

static int64_t count_state(const fixture *f, int state)
{
    int64_t count = 0;
    for (int64_t i = 0; i < f->shape.batch * f->shape.kv_heads * octavo_kv_view_units(&f->view); i++) count += f->kept[i] == state;
    return count;
}

static void test_mass_and_compensation(void **state)
{
    (void)state;
    fixture_shape shape = PLAIN;
    shape.tokens = 800, shape.sub_block_tokens = 16, shape.k_format = OCTAVO_K_E4M3X2;
    fixture *f = fixture_create(&shape, 31);
    plant_peaks(f, 0.3f);
    f->params.select = OCTAVO_SELECT_MASS, f->params.epsilon = 0.1f;
    fixture_decode(f);
    const double plain = fixture_error(f, 0.2);
    assert_true(count_state(f, OCTAVO_UNIT_DROPPED) > 0);
    for (int64_t b = 0; b < shape.batch; b++)
        for (int64_t h = 0; h < shape.kv_heads * shape.group; h++) {
            const double share = dropped_share(f, b, h);
            assert_true(share <= 0.11);
            assert_true(fabs(share - (double)f->dropped_mass[b * shape.kv_heads * shape.group + h]) < 0.01);
        }
    f->params.compensate = OCTAVO_COMPENSATE_MEAN;
    fixture_decode(f);
    assert_true(fixture_error(f, 0.2) < plain); /* what was dropped comes back on average */
    fixture_destroy(f);
}

/* Keys whose residual points along q, so that the base alone misleads: the certificate must hold all the same. */
static void test_certified_holds(void **state)
{
    (void)state;
    static const octavo_k_format FORMATS[] = { OCTAVO_K_E4M3X2, OCTAVO_K_INT8X2, OCTAVO_K_INT4X2, OCTAVO_K_E5M2X2 };
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        for (int trial = 0; trial < 3; trial++) {
            fixture_shape shape = PLAIN;
            shape.tokens = 640, shape.q_tokens = 1 + 2 * trial, shape.k_format = FORMATS[i];
            fixture *f = fixture_create(&shape, 41 + (uint64_t)trial);
            plant_peaks(f, 0.25f);
            for (int64_t n = 0; n < shape.batch * shape.tokens * shape.kv_heads; n++) { /* a quarter step of e4m3 with q's sign */
                const int64_t head = n % shape.kv_heads, b = n / shape.kv_heads / shape.tokens;
                for (int64_t d = 0; d < shape.head_dim; d++) {
                    const float q = f->q[(b * shape.q_tokens * shape.kv_heads + head) * shape.group * shape.head_dim + d];
                    float *k = &f->k[n * shape.head_dim + d];
                    *k = fixture_as_bf16(*k + copysignf(fabsf(*k) * 0.05f, q));
                }
            }
            fixture_encode(f);
            f->params.select = OCTAVO_SELECT_CERTIFIED, f->params.epsilon = 0.2f;
            fixture_decode(f);
            if (FORMATS[i] == OCTAVO_K_INT8X2) assert_true(count_state(f, OCTAVO_UNIT_DROPPED) > 0);
            for (int64_t b = 0; b < shape.batch; b++)
                for (int64_t h = 0; h < shape.kv_heads * shape.group; h++) {
                    const double share = dropped_share(f, b, h), bound = (double)f->dropped_mass[b * shape.kv_heads * shape.group + h];
                    assert_true(share <= bound + 1e-6);
                    assert_true(bound <= 0.2);
                }
            fixture_destroy(f);
        }
}

static void test_delta(void **state)
{
    (void)state;
    fixture_shape shape = PLAIN;
    shape.tokens = 800, shape.k_format = OCTAVO_K_INT8X2;
    fixture *f = fixture_create(&shape, 51);
    plant_peaks(f, 0.2f);
    f->params.select = OCTAVO_SELECT_DELTA, f->params.delta = 1e6f;
    fixture_decode(f);
    assert_int_equal(count_state(f, OCTAVO_UNIT_DROPPED), 0);
    assert_true(fixture_error(f, 1e-2) < 2e-4);
    f->params.delta = 0.0f;
    float thresholds[16];
    for (int i = 0; i < 16; i++) thresholds[i] = 1e6f; /* nothing reaches it: only what is always kept stays */
    f->params.thresholds = thresholds, f->params.keep_first_blocks = 2, f->params.keep_last_blocks = 3;
    fixture_decode(f);
    const int64_t units = octavo_kv_view_units(&f->view);
    for (int64_t i = 0; i < shape.batch * shape.kv_heads * units; i++) {
        const int64_t unit = i % units;
        assert_int_equal(f->kept[i], unit < 2 || unit >= units - 3 ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_DROPPED);
    }
    assert_true(fabsf(f->skip_ratio[0] - (float)(units - 5) / (float)units) < 1e-6f);
    const int64_t scan = 64 + 2, rest = 64 + 2 * 64; /* bytes a token: base and scale of all, residual and V of five blocks */
    assert_int_equal(f->bytes_read[0], 800 * scan + 5 * 32 * rest);
    fixture_destroy(f);
}

static void test_merge_of_splits(void **state)
{
    (void)state;
    fixture *f = fixture_create(&PLAIN, 61);
    const int64_t rows = PLAIN.batch * PLAIN.kv_heads * PLAIN.group, dim = PLAIN.v_dim;
    fixture_decode(f);
    float *whole = malloc((size_t)(rows * dim) * sizeof *whole), *parts = malloc((size_t)(rows * 3 * dim) * sizeof *parts);
    float part_lse[16 * 3], merged_lse[16], whole_lse[16];
    assert_true(whole && parts && rows == 16);
    memcpy(whole, f->out, (size_t)(rows * dim) * sizeof *whole);
    memcpy(whole_lse, f->lse, sizeof whole_lse);
    /* Part 0 sees the first 96 tokens; part 1 the rest, as a window over the whole; part 2 nothing. */
    for (int part = 0; part < 3; part++) {
        f->params.window = part == 1 ? 200 - 96 : 0;
        for (int b = 0; b < 2; b++) f->lengths[b] = part == 0 ? 96 : part == 1 ? 200 : 0;
        fixture_decode(f);
        for (int64_t r = 0; r < rows; r++) {
            memcpy(parts + (r * 3 + part) * dim, f->out + r * dim, (size_t)dim * sizeof *parts);
            part_lse[r * 3 + part] = f->lse[r];
        }
    }
    octavo_merge_params merge = OCTAVO_MERGE_PARAMS_INIT;
    merge.parts = 3, merge.rows = rows, merge.v_dim = dim, merge.part_out = parts, merge.part_lse = part_lse;
    merge.out = f->out, merge.lse = merged_lse;
    assert_int_equal(octavo_partial_merge(&f->exec, &merge), OCTAVO_OK);
    for (int64_t i = 0; i < rows * dim; i++) assert_true(fabsf(f->out[i] - whole[i]) <= 2e-6f * (1.0f + fabsf(whole[i])));
    for (int64_t r = 0; r < rows; r++) assert_true(fabsf(merged_lse[r] - whole_lse[r]) <= 1e-5f);
    free(whole), free(parts);
    fixture_destroy(f);
}

static void test_smoothing_is_exact(void **state)
{
    (void)state;
    fixture_shape shape = PLAIN;
    shape.k_format = OCTAVO_K_E4M3X2;
    fixture *f = fixture_create(&shape, 71);
    const int64_t keys = shape.batch * shape.kv_heads * shape.head_dim;
    float *mean = malloc((size_t)keys * sizeof *mean);
    assert_non_null(mean);
    for (int64_t i = 0; i < keys; i++) mean[i] = (float)(i % 5) - 2.0f;
    for (int64_t i = 0; i < shape.batch * shape.tokens * shape.kv_heads * shape.head_dim; i++)
        f->k[i] = fixture_as_bf16(f->k[i]);
    f->view.k_mean = mean;
    fixture_encode(f);
    fixture_decode(f);
    assert_true(fixture_error(f, 2e-2) < 1e-2); /* k - mean has more bits than bf16, so this is the planes' own error */
    free(mean);
    fixture_destroy(f);
}

static void counting_for(void *user, int64_t count, octavo_task task, void *argument)
{
    *(int *)user += 1;
    for (int64_t i = count; i-- > 0;) task(argument, i); /* backwards: tasks are independent */
}

static void test_threads_do_not_matter(void **state)
{
    (void)state;
    fixture_shape shape = PLAIN;
    shape.tokens = 5000, shape.batch = 1, shape.k_format = OCTAVO_K_E4M3X2, shape.v_format = OCTAVO_V_INT8;
    fixture *f = fixture_create(&shape, 81);
    plant_peaks(f, 0.2f);
    f->params.select = OCTAVO_SELECT_MASS, f->params.epsilon = 0.05f, f->params.compensate = OCTAVO_COMPENSATE_MEAN;
    const size_t bytes = (size_t)(shape.kv_heads * shape.group * shape.v_dim) * sizeof(float);
    float *first = malloc(bytes);
    assert_non_null(first);
    for (int threads = 1; threads <= 3; threads++) {
        f->exec.threads = threads;
        fixture_decode(f);
        if (threads == 1) memcpy(first, f->out, bytes);
        assert_memory_equal(first, f->out, bytes);
    }
    int calls = 0;
    f->exec.parallel_for = counting_for, f->exec.parallel_user = &calls;
    fixture_decode(f);
    assert_memory_equal(first, f->out, bytes);
    assert_true(calls > 0);
    free(first);
    fixture_destroy(f);
}

/* A sequence in a batch and by itself: the same bits, whatever lies beside it. */
static void test_batch_does_not_matter(void **state)
{
    (void)state;
    static const octavo_select_rule RULES[] = { OCTAVO_SELECT_NONE, OCTAVO_SELECT_DELTA, OCTAVO_SELECT_MASS, OCTAVO_SELECT_CERTIFIED };
    fixture_shape shape = PLAIN;
    shape.tokens = 5000, shape.batch = 3, shape.k_format = OCTAVO_K_E4M3X2, shape.v_format = OCTAVO_V_INT8;
    fixture *f = fixture_create(&shape, 83);
    const int64_t heads = shape.kv_heads * shape.group, row = heads * shape.v_dim;
    float *whole = fixture_memory((size_t)(shape.batch * row) * sizeof *whole), *lse = fixture_memory((size_t)(shape.batch * heads) * sizeof *lse);
    plant_peaks(f, 0.2f);
    f->lengths[1] = 700;
    f->params.splits = OCTAVO_SPLITS_FIXED, f->params.epsilon = 0.1f, f->params.delta = 2.0f;
    const octavo_tensor q = f->params.q;
    for (size_t i = 0; i < sizeof RULES / sizeof *RULES; i++) {
        f->params.select = RULES[i], f->params.q = q, f->params.out.shape[0] = f->view.batch = shape.batch, f->view.sequences = NULL;
        fixture_decode(f);
        memcpy(whole, f->out, (size_t)(shape.batch * row) * sizeof *whole), memcpy(lse, f->lse, (size_t)(shape.batch * heads) * sizeof *lse);
        for (int32_t b = 0; b < shape.batch; b++) {
            f->view.batch = f->params.q.shape[0] = f->params.out.shape[0] = 1, f->view.sequences = &b;
            f->params.q.data = (float *)q.data + b * heads * shape.head_dim;
            fixture_decode(f);
            assert_memory_equal(whole + b * row, f->out, (size_t)row * sizeof *whole);
            assert_memory_equal(lse + b * heads, f->lse, (size_t)heads * sizeof *lse);
        }
    }
    free(whole), free(lse);
    fixture_destroy(f);
}

/* The first key stands 12 nats above 128 K others that hold 45 % of the weight together: a weight of eight bits beside the sink's would be 0. */
static void test_sink_above_a_tail(void **state)
{
    (void)state;
    enum { KEYS = 1 << 17 };
    static const struct { octavo_k_format k; octavo_v_format v; octavo_attention_precision precision; } CASES[] = {
        { OCTAVO_K_BF16, OCTAVO_V_F16, OCTAVO_ATTENTION_EXACT },  { OCTAVO_K_E4M3, OCTAVO_V_E4M3, OCTAVO_ATTENTION_EXACT },
        { OCTAVO_K_INT4X2, OCTAVO_V_INT8, OCTAVO_ATTENTION_EXACT }, { OCTAVO_K_BF16, OCTAVO_V_BF16, OCTAVO_ATTENTION_FP8 },
        { OCTAVO_K_E4M3, OCTAVO_V_E4M3, OCTAVO_ATTENTION_FP8 },
    };
    const double tail = (KEYS - 1) * exp(-12.0), share = tail / (1.0 + tail);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fixture_shape shape = PLAIN;
        shape.batch = 1, shape.tokens = KEYS, shape.kv_heads = 1, shape.group = 2, shape.head_dim = shape.v_dim = 16;
        shape.k_format = CASES[i].k, shape.v_format = CASES[i].v;
        fixture *f = fixture_create(&shape, 85);
        for (int64_t e = 0; e < KEYS * 16; e++) f->k[e] = e == 0 ? 4.0f : 0.0f, f->v[e] = e < 16 ? 0.0f : 1.0f;
        for (int64_t e = 0; e < 2 * 16; e++) f->q[e] = e % 16 == 0 ? 3.0f : 0.0f;
        fixture_encode(f);
        f->params.softmax_scale = 1.0f, f->params.precision = CASES[i].precision;
        fixture_decode(f);
        for (int64_t e = 0; e < 2 * 16; e++) assert_true(fabs((double)f->out[e] - share) < 0.01 * share);
        for (int64_t h = 0; h < 2; h++) assert_true(fabs((double)f->lse[h] - (12.0 + log1p(tail))) < 0.02);
        fixture_destroy(f);
    }
}

static void refuses(fixture *f, octavo_status expected, const char *word)
{
    const octavo_status status = octavo_attention_decode(&f->exec, &f->params);
    if (status != expected || !strstr(octavo_last_error(), word)) print_error("%d: %s\n", (int)status, octavo_last_error());
    assert_int_equal(status, expected);
    assert_non_null(strstr(octavo_last_error(), word));
}

static void test_refusals(void **state)
{
    (void)state;
    fixture *f = fixture_create(&PLAIN, 91);
    fixture_set_workspace(f);
    memset(f->out, 0x5A, 64);
    const octavo_decode_params good = f->params;
    f->params.struct_size = 3, refuses(f, OCTAVO_E_VERSION, "struct_size"), f->params = good;
    f->params.q.shape[2] = 7, refuses(f, OCTAVO_E_SHAPE, "multiple of kv_heads"), f->params = good;
    f->params.q.shape[1] = 17, refuses(f, OCTAVO_E_SHAPE, "query tokens"), f->params = good;
    f->params.q.dtype = OCTAVO_INT8, refuses(f, OCTAVO_E_ARGUMENT, "f32, f16, bf16"), f->params = good;
    f->params.select = OCTAVO_SELECT_MASS, refuses(f, OCTAVO_E_ARGUMENT, "epsilon"), f->params = good;
    f->params.select = OCTAVO_SELECT_DELTA, f->params.delta = NAN, refuses(f, OCTAVO_E_ARGUMENT, "delta"), f->params = good;
    f->params.select = OCTAVO_SELECT_CERTIFIED, f->params.epsilon = 0.1f;
    refuses(f, OCTAVO_E_UNSUPPORTED, "nested"), f->params = good;
    f->params.precision = OCTAVO_ATTENTION_SAGE2, refuses(f, OCTAVO_E_UNSUPPORTED, "sage2, expected exact or fp8"), f->params = good;
    f->params.precision = (octavo_attention_precision)7, refuses(f, OCTAVO_E_ARGUMENT, "octavo_attention_precision"), f->params = good;
    f->params.splits = (octavo_decode_splits)2, refuses(f, OCTAVO_E_ARGUMENT, "octavo_decode_splits"), f->params = good;
    f->params.q.device_kind = OCTAVO_DEVICE_CUDA, refuses(f, OCTAVO_E_ARGUMENT, "q lies in GPU memory"), f->params = good;
    f->params.out.device_kind = OCTAVO_DEVICE_CUDA, refuses(f, OCTAVO_E_ARGUMENT, "out lies in GPU memory"), f->params = good;
    f->view.device_kind = OCTAVO_DEVICE_CUDA, refuses(f, OCTAVO_E_ARGUMENT, "kv lies in GPU memory"), f->view.device_kind = OCTAVO_DEVICE_CPU;
    f->params.q.shape[2] = INT64_MAX / 8 * 2, refuses(f, OCTAVO_E_RANGE, "overflows"), f->params = good;
    f->view.max_tokens = INT64_C(1) << 31, refuses(f, OCTAVO_E_SHAPE, "max_tokens"), f->view.max_tokens = 200;
    f->params.window = 8, f->params.keep_first_blocks = 1, refuses(f, OCTAVO_E_ARGUMENT, "window"), f->params = good;
    f->params.out.data = f->q, refuses(f, OCTAVO_E_ARGUMENT, "overlaps q"), f->params = good;
    f->params.out.data = f->view.v.data, refuses(f, OCTAVO_E_ARGUMENT, "overlaps"), f->params = good;
    f->lengths[0] = 201, refuses(f, OCTAVO_E_RANGE, "length"), f->lengths[0] = 200;
    f->exec.workspace_bytes = 1, refuses(f, OCTAVO_E_RANGE, "workspace");
    for (int i = 0; i < 64; i++) assert_int_equal(((uint8_t *)f->out)[i], 0x5A); /* nothing was written */
    f->table[0] = 1000; /* stale */
    f->exec.workspace_bytes = SIZE_MAX, refuses(f, OCTAVO_E_RANGE, "page");
    assert_int_equal(octavo_kv_view_check(&f->view), OCTAVO_E_RANGE);
    fixture_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_shapes),        cmocka_unit_test(test_visibility),
        cmocka_unit_test(test_formats),             cmocka_unit_test(test_float32),             cmocka_unit_test(test_mass_and_compensation),
        cmocka_unit_test(test_fp8),                 cmocka_unit_test(test_fp8_rounds_as_a_cache),
        cmocka_unit_test(test_certified_holds),     cmocka_unit_test(test_delta),
        cmocka_unit_test(test_merge_of_splits),     cmocka_unit_test(test_smoothing_is_exact),
        cmocka_unit_test(test_threads_do_not_matter), cmocka_unit_test(test_batch_does_not_matter),
        cmocka_unit_test(test_sink_above_a_tail),   cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
