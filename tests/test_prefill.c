/* test_prefill.c - attention of many queries through the public API: against float64, in chunks, in every layout, and refused. */
#define _POSIX_C_SOURCE 200809L
#include "attention_fixture.h"

/* A call over tensors of its own: q [batch, queries, q_heads, dim], k and v [batch, keys, kv_heads, dim]. */
typedef struct bed {
    int64_t batch, queries, keys, kv_heads, group, dim;
    octavo_context *context;
    octavo_device *device;
    octavo_exec exec;
    float *q, *k, *v, *out, *lse;
    int32_t lengths[4];
    octavo_kv_view view;
    octavo_prefill_params params;
} bed;

static int64_t q_heads(const bed *f) { return f->kv_heads * f->group; }

static void set_view(bed *f, octavo_k_format k_format, octavo_v_format v_format, const octavo_tensor *k, const octavo_tensor *v)
{
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    config.k_format = k_format, config.v_format = v_format;
    config.kv_heads = (int32_t)f->kv_heads, config.head_dim = (int32_t)f->dim, config.v_dim = (int32_t)f->dim;
    f->view = (octavo_kv_view)OCTAVO_INIT_STRUCT(octavo_kv_view);
    assert_int_equal(octavo_kv_view_over_tensors(&config, k, NULL, v, NULL, f->lengths, &f->view), OCTAVO_OK);
}

/* Normal data that bf16 holds; keys of channel 3 of each 32 are `bias` larger. */
static bed *make(int64_t batch, int64_t queries, int64_t keys, int64_t kv_heads, int64_t group, int64_t dim, float bias)
{
    bed *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->batch = batch, f->queries = queries, f->keys = keys, f->kv_heads = kv_heads, f->group = group, f->dim = dim;
    assert_int_equal(octavo_context_create(NULL, &f->context), OCTAVO_OK);
    assert_int_equal(octavo_device_open(f->context, "cpu", &f->device), OCTAVO_OK);
    f->exec = (octavo_exec)OCTAVO_INIT_STRUCT(octavo_exec);
    f->exec.device = f->device;
    const size_t q_count = (size_t)(batch * queries * q_heads(f) * dim), k_count = (size_t)(batch * keys * kv_heads * dim);
    uint64_t seed = 77;
    f->q = fixture_memory(q_count * sizeof(float)), f->out = fixture_memory(q_count * sizeof(float));
    f->k = fixture_memory(k_count * sizeof(float)), f->v = fixture_memory(k_count * sizeof(float));
    f->lse = fixture_memory((size_t)(batch * queries * q_heads(f)) * sizeof(float));
    for (size_t i = 0; i < q_count; i++) f->q[i] = fixture_as_bf16(fixture_normal(&seed));
    for (size_t i = 0; i < k_count; i++) {
        f->k[i] = fixture_as_bf16(fixture_normal(&seed) + (i % (size_t)dim % 32 == 3 ? bias : 0.0f));
        f->v[i] = fixture_as_bf16(fixture_normal(&seed));
    }
    for (int64_t b = 0; b < batch; b++) f->lengths[b] = (int32_t)keys;
    const int64_t q_shape[] = { batch, queries, q_heads(f), dim }, k_shape[] = { batch, keys, kv_heads, dim };
    const octavo_tensor k = octavo_tensor_view(f->k, OCTAVO_F32, 4, k_shape), v = octavo_tensor_view(f->v, OCTAVO_F32, 4, k_shape);
    set_view(f, OCTAVO_K_F32, OCTAVO_V_F32, &k, &v);
    f->params = (octavo_prefill_params)OCTAVO_INIT_STRUCT(octavo_prefill_params);
    f->params.kv = &f->view, f->params.lse = f->lse;
    f->params.q = octavo_tensor_view(f->q, OCTAVO_F32, 4, q_shape);
    f->params.out = octavo_tensor_view(f->out, OCTAVO_F32, 4, q_shape);
    return f;
}

static void drop(bed *f)
{
    octavo_device_close(f->device);
    octavo_context_destroy(f->context);
    free(f->q), free(f->k), free(f->v), free(f->out), free(f->lse), free(f->exec.workspace);
    free(f);
}

static octavo_status try_run(bed *f)
{
    size_t bytes = 0;
    const octavo_status status = octavo_attention_prefill_workspace(&f->exec, &f->params, &bytes);
    if (status != OCTAVO_OK) return status;
    free(f->exec.workspace);
    f->exec.workspace = fixture_memory(bytes), f->exec.workspace_bytes = bytes;
    return octavo_attention_prefill(&f->exec, &f->params);
}

static void run(bed *f)
{
    const octavo_status status = try_run(f);
    if (status) print_error("%s\n", octavo_last_error());
    assert_int_equal(status, OCTAVO_OK);
}

/* ---- float64 ---- */

static int sees(const bed *f, int64_t b, int64_t i, int64_t t)
{
    const octavo_prefill_params *p = &f->params;
    const int64_t queries = p->q_lengths ? p->q_lengths[b] : f->queries, position = f->lengths[b] - queries + i;
    if (t >= f->lengths[b] || (p->mask == OCTAVO_MASK_CAUSAL && t > position)) return 0;
    return p->window == 0 || (position - t < p->window && t - position < p->window) || (t < position && t < p->sink_tokens);
}

/* Exact attention of one query; returns its lse. score: [keys]. */
static double exact(const bed *f, int64_t b, int64_t head, int64_t i, double *score, double *out)
{
    const octavo_prefill_params *p = &f->params;
    const float *q = f->q + ((b * f->queries + i) * q_heads(f) + head) * f->dim;
    double most = -INFINITY, mass = 0.0;
    for (int64_t t = 0; t < f->keys; t++) {
        score[t] = -INFINITY;
        if (!sees(f, b, i, t)) continue;
        const float *k = f->k + ((b * f->keys + t) * f->kv_heads + head / f->group) * f->dim;
        double sum = 0.0;
        for (int64_t d = 0; d < f->dim; d++) sum += (double)q[d] * (double)k[d];
        sum *= p->softmax_scale != 0.0f ? (double)p->softmax_scale : 1.0 / sqrt((double)f->dim);
        score[t] = p->soft_cap > 0.0f ? (double)p->soft_cap * tanh(sum / (double)p->soft_cap) : sum;
        most = fmax(most, score[t]);
    }
    for (int64_t d = 0; d < f->dim; d++) out[d] = 0.0;
    if (isinf(most)) return -INFINITY;
    if (p->sink_logits) mass += exp((double)p->sink_logits[head] - most);
    for (int64_t t = 0; t < f->keys; t++) {
        if (isinf(score[t])) continue;
        const double weight = exp(score[t] - most);
        const float *v = f->v + ((b * f->keys + t) * f->kv_heads + head / f->group) * f->dim;
        mass += weight;
        for (int64_t d = 0; d < f->dim; d++) out[d] += weight * (double)v[d];
    }
    for (int64_t d = 0; d < f->dim; d++) out[d] /= mass;
    return most + log(mass);
}

/* Root mean square over every `step`-th query and all kv heads of the relative error of a group's outputs; the worst of the lse. */
static double error_of(const bed *f, int64_t step, double *lse_error)
{
    double sum = 0.0, *score = malloc((size_t)f->keys * sizeof *score), *wanted = malloc((size_t)f->dim * sizeof *wanted);
    int64_t count = 0;
    assert_non_null(score), assert_non_null(wanted);
    *lse_error = 0.0;
    for (int64_t b = 0; b < f->batch; b++)
        for (int64_t i = 0; i < f->queries; i += step)
            for (int64_t kv = 0; kv < f->kv_heads; kv++, count++) {
                double difference = 0.0, norm = 0.0;
                for (int64_t head = kv * f->group; head < (kv + 1) * f->group; head++) {
                    const double lse = exact(f, b, head, i, score, wanted);
                    const float *out = f->out + ((b * f->queries + i) * q_heads(f) + head) * f->dim;
                    *lse_error = fmax(*lse_error, fabs(lse - (double)f->lse[(b * q_heads(f) + head) * f->queries + i]));
                    for (int64_t d = 0; d < f->dim; d++) {
                        difference += ((double)out[d] - wanted[d]) * ((double)out[d] - wanted[d]);
                        norm += wanted[d] * wanted[d];
                    }
                }
                sum += difference / norm;
            }
    free(score), free(wanted);
    return sqrt(sum / (double)count);
}

static void assert_error(bed *f, int64_t step, double most, double lse_most)
{
    double lse_error;
    run(f);
    const double error = error_of(f, step, &lse_error);
    if (!(error <= most && lse_error <= lse_most))
        print_error("%s, scales %d, flags %u, mask %d: error %g of %g, lse %g of %g\n", octavo_attention_precision_name(f->params.precision),
                    (int)f->params.scales, f->params.flags, (int)f->params.mask, error, most, lse_error, lse_most);
    assert_true(error <= most);
    assert_true(lse_error <= lse_most);
}

/* ---- precision ---- */

static const octavo_prefill_scales FP8_SCALES[] = { OCTAVO_PREFILL_PER_BLOCK, OCTAVO_PREFILL_PER_HEAD, OCTAVO_PREFILL_PER_TENSOR };

static void test_errors_on_normal_data(void **state)
{
    (void)state;
    bed *f = make(1, 256, 384, 2, 2, 128, 0.0f);
    for (int mask = 0; mask < 2; mask++) {
        f->params.mask = mask ? OCTAVO_MASK_FULL : OCTAVO_MASK_CAUSAL;
        f->params.precision = OCTAVO_ATTENTION_EXACT, f->params.scales = OCTAVO_PREFILL_PER_BLOCK;
        assert_error(f, 3, 2e-6, 1e-5);
        for (size_t i = 0; i < sizeof FP8_SCALES / sizeof *FP8_SCALES; i++) {
            f->params.precision = OCTAVO_ATTENTION_FP8, f->params.scales = FP8_SCALES[i];
            assert_error(f, 3, 0.05, 0.03);
            f->params.flags = OCTAVO_PREFILL_ROTATE;
            assert_error(f, 3, 0.05, 0.03);
            f->params.flags = 0;
        }
        for (int scales = OCTAVO_PREFILL_PER_BLOCK; scales <= OCTAVO_PREFILL_PER_TENSOR; scales++) {
            f->params.scales = (octavo_prefill_scales)scales;
            f->params.precision = OCTAVO_ATTENTION_SAGE1;
            assert_error(f, 3, scales >= OCTAVO_PREFILL_PER_HEAD ? 0.0145 : 0.013, 0.01);
            f->params.precision = OCTAVO_ATTENTION_SAGE2;
            assert_error(f, 3, 0.037, 0.01);
            f->params.flags = OCTAVO_PREFILL_SMOOTH_V;
            assert_error(f, 3, 0.037, 0.01);
            f->params.flags = 0;
        }
    }
    drop(f);
}

static float most_of(const float *x, int64_t count)
{
    float most = 0.0f;
    for (int64_t i = 0; i < count; i++) most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* The largest magnitude, given, is what would have been found; half of it holds what is larger. */
static void test_given_scales(void **state)
{
    (void)state;
    bed *f = make(2, 100, 200, 1, 2, 64, 0.0f);
    const size_t count = (size_t)(f->batch * f->queries * q_heads(f) * f->dim);
    const float q_most = most_of(f->q, (int64_t)count), k_most = most_of(f->k, f->batch * f->keys * f->dim), v_most = most_of(f->v, f->batch * f->keys * f->dim);
    float *found = fixture_memory(count * sizeof *found), half[3] = { 0.5f * q_most, 0.5f * k_most, 0.5f * v_most }, tiny[2] = { 0.0f, 0x1p-120f };
    double lse_error;
    f->params.precision = OCTAVO_ATTENTION_FP8, f->params.scales = OCTAVO_PREFILL_PER_TENSOR;
    run(f);
    const double all = error_of(f, 3, &lse_error);
    memcpy(found, f->out, count * sizeof *found);
    f->params.q_amax = &q_most, f->params.k_amax = &k_most, f->params.v_amax = &v_most;
    run(f);
    assert_memory_equal(found, f->out, count * sizeof *found);
    f->params.v_amax = NULL; /* one of them alone */
    run(f);
    assert_memory_equal(found, f->out, count * sizeof *found);
    f->params.q_amax = &half[0], f->params.k_amax = &half[1], f->params.v_amax = &half[2];
    run(f);
    const double most = error_of(f, 3, &lse_error);
    if (!(most > 1.2 * all && most < 0.3)) print_error("error %g, with half of the magnitudes %g\n", all, most);
    assert_true(most > 1.2 * all && most < 0.3);
    f->params.scales = OCTAVO_PREFILL_PER_HEAD;
    const float by_head[2] = { 0.5f * q_most, 0.5f * q_most };
    memcpy(found, f->out, count * sizeof *found);
    f->params.q_amax = by_head;
    run(f);
    assert_memory_equal(found, f->out, count * sizeof *found);
    f->params.q_amax = tiny, f->params.k_amax = &tiny[1], f->params.v_amax = &tiny[1];
    run(f);
    for (size_t i = 0; i < count; i++) assert_true(isfinite(f->out[i]));
    free(found);
    drop(f);
}

/* A block of tokens that is 2^20 times smaller than the next keeps its bits only where it has a scale of its own. */
static void test_small_block(void **state)
{
    (void)state;
    double lse_error;
    bed *f = make(1, 128, 128, 1, 1, 64, 0.0f);
    for (int64_t i = 0; i < 64 * f->dim; i++) f->v[i] = ldexpf(f->v[i], -20);
    f->params.precision = OCTAVO_ATTENTION_FP8;
    for (int i = 0; i < 3; i++) {
        f->params.scales = FP8_SCALES[i];
        run(f);
        f->queries = 64, f->lengths[0] = 64; /* rows that see nothing but that block */
        const double error = error_of(f, 1, &lse_error);
        assert_true(i == 0 ? error < 0.06 : error > 0.2);
        f->queries = 128, f->lengths[0] = 128;
    }
    drop(f);
}

static void test_channel_outliers(void **state)
{
    (void)state;
    double lse_error, smooth[2], plain[2];
    bed *f = make(1, 128, 512, 1, 2, 128, 10.0f);
    for (int i = 0; i < 2; i++) {
        f->params.precision = i ? OCTAVO_ATTENTION_SAGE2 : OCTAVO_ATTENTION_SAGE1;
        f->params.flags = 0;
        assert_error(f, 2, 0.04, 0.01);
        smooth[i] = error_of(f, 2, &lse_error);
        f->params.flags = OCTAVO_PREFILL_NO_SMOOTH;
        run(f);
        plain[i] = error_of(f, 2, &lse_error);
    }
    assert_true(smooth[0] <= 0.013 && smooth[1] <= 0.037); /* as without outliers */
    assert_true(plain[0] > 2.0 * smooth[0] && plain[1] > 1.2 * smooth[1]);
    drop(f);
}

/* Where all keys weigh the same, what V's codes leave out is given back whole. */
static void test_flat_attention(void **state)
{
    (void)state;
    bed *f = make(2, 70, 200, 2, 1, 64, 0.0f);
    memset(f->q, 0, (size_t)(f->batch * f->queries * q_heads(f) * f->dim) * sizeof *f->q);
    f->params.mask = OCTAVO_MASK_FULL, f->lengths[1] = 131;
    f->params.precision = OCTAVO_ATTENTION_FP8;
    assert_error(f, 3, 1e-5, 1e-5);
    f->params.precision = OCTAVO_ATTENTION_SAGE2;
    assert_error(f, 3, 1e-5, 1e-5);
    f->params.flags = OCTAVO_PREFILL_SMOOTH_V;
    assert_error(f, 3, 1e-5, 1e-5);
    drop(f);
}

/* Sums in f16 are a matter of GPUs. */
static void test_f16_sums(void **state)
{
    (void)state;
    bed *f = make(1, 70, 200, 1, 2, 64, 0.0f);
    const size_t bytes = (size_t)(f->queries * q_heads(f) * f->dim) * sizeof *f->out;
    float *plain = fixture_memory(bytes);
    for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) {
        f->params.precision = (octavo_attention_precision)precision, f->params.flags = 0;
        run(f);
        memcpy(plain, f->out, bytes);
        f->params.flags = OCTAVO_PREFILL_F16_SUMS;
        run(f);
        assert_memory_equal(plain, f->out, bytes);
    }
    free(plain);
    drop(f);
}

/* A long context costs no accuracy. */
static void test_long_context(void **state)
{
    (void)state;
    for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) {
        double errors[2], lse_error;
        for (int i = 0; i < 2; i++) {
            bed *f = make(1, 8, i ? 1 << 18 : 1 << 13, 1, 2, 16, 0.0f);
            f->params.precision = (octavo_attention_precision)precision;
            run(f);
            errors[i] = error_of(f, 1, &lse_error);
            drop(f);
        }
        assert_true(errors[1] <= 1.25 * errors[0] + 1e-5);
    }
}

/* The first key stands 12 nats above 128 K others that hold 45 % of the weight together: a weight of eight bits beside the sink's is 0. */
static void test_sink_above_a_tail(void **state)
{
    (void)state;
    enum { KEYS = 1 << 17 };
    bed *f = make(1, 3, KEYS, 1, 1, 16, 0.0f);
    for (int64_t i = 0; i < KEYS * 16; i++) f->k[i] = i == 0 ? 4.0f : 0.0f, f->v[i] = i < 16 ? 0.0f : 1.0f;
    for (int64_t i = 0; i < 3 * 16; i++) f->q[i] = i % 16 == 0 ? 3.0f : 0.0f;
    f->params.softmax_scale = 1.0f, f->params.mask = OCTAVO_MASK_FULL;
    const double tail = (KEYS - 1) * exp(-12.0), share = tail / (1.0 + tail);
    for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) {
        f->params.precision = (octavo_attention_precision)precision;
        run(f);
        for (int64_t i = 0; i < 3 * 16; i++) assert_true(fabs((double)f->out[i] - share) < 0.005 * share);
        for (int64_t i = 0; i < 3; i++) assert_true(fabs((double)f->lse[i] - (12.0 + log1p(tail))) < 1e-3);
    }
    drop(f);
}

/* ---- what is seen ---- */

static void test_visibility(void **state)
{
    (void)state;
    static const float SINKS[] = { 0.5f, -1.0f, 3.0f, 8.0f };
    static const int32_t QUERIES[] = { 33, 70 };
    bed *f = make(2, 70, 200, 2, 2, 64, 0.0f);
    f->lengths[0] = 111;
    for (int mask = 0; mask < 2; mask++)
        for (int64_t window = 0; window < 90; window += 40) {
            f->params.mask = mask ? OCTAVO_MASK_FULL : OCTAVO_MASK_CAUSAL;
            f->params.window = window, f->params.sink_tokens = 3, f->params.sink_logits = window ? SINKS : NULL;
            f->params.precision = OCTAVO_ATTENTION_EXACT, f->params.soft_cap = window ? 2.0f : 0.0f;
            assert_error(f, 1, 3e-6, 1e-5);
            f->params.precision = OCTAVO_ATTENTION_SAGE1, f->params.soft_cap = 0.0f;
            assert_error(f, 1, 0.015, 0.02);
        }
    f->params.mask = OCTAVO_MASK_CAUSAL, f->params.precision = OCTAVO_ATTENTION_EXACT, f->params.sink_logits = NULL, f->params.window = 0;
    f->params.q_lengths = QUERIES;
    memset(f->out, 0x5A, sizeof(float) * 2 * 70 * 4 * 64);
    run(f);
    double score[200], wanted[64];
    for (int64_t i = 0; i < 33; i++) {
        const double lse = exact(f, 0, 1, i, score, wanted);
        assert_true(fabs(lse - (double)f->lse[70 + i]) < 1e-5);
        for (int64_t d = 0; d < 64; d++) assert_true(fabs(wanted[d] - (double)f->out[(i * 4 + 1) * 64 + d]) < 1e-5);
    }
    const uint8_t *rest = (const uint8_t *)(f->out + 33 * 4 * 64); /* the padding of the first sequence */
    for (int64_t i = 0; i < 37 * 4 * 64 * 4; i++) assert_int_equal(rest[i], 0x5A);
    drop(f);
}

static void test_nothing_and_one_key(void **state)
{
    (void)state;
    bed *f = make(2, 5, 1, 1, 2, 64, 0.0f);
    f->params.mask = OCTAVO_MASK_FULL;
    f->lengths[1] = 0;
    for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) {
        f->params.precision = (octavo_attention_precision)precision;
        run(f);
        const double allowed = precision == OCTAVO_ATTENTION_EXACT ? 1e-6 : precision == OCTAVO_ATTENTION_SAGE1 ? 0x1p-8 : 0x1p-4;
        for (int64_t row = 0; row < 10; row++) /* one key: its value */
            for (int64_t d = 0; d < 64; d++)
                assert_true(fabs((double)f->out[row * 64 + d] - (double)f->v[d]) <= allowed * fabs((double)f->v[d]) + 1e-3 * allowed);
        for (int64_t i = 10 * 64; i < 20 * 64; i++) assert_true(f->out[i] == 0.0f);
        for (int64_t i = 10; i < 20; i++) assert_true(isinf(f->lse[i]) && f->lse[i] < 0.0f);
    }
    drop(f);
}

/* ---- layouts and chunks ---- */

/* The same keys: tokens first, heads first, and in pages. */
static void test_layouts(void **state)
{
    (void)state;
    bed *f = make(1, 40, 150, 2, 3, 64, 0.0f);
    const size_t out_bytes = sizeof(float) * 40 * 6 * 64, k_bytes = sizeof(float) * 150 * 2 * 64;
    float *first = fixture_memory(out_bytes), *k = fixture_memory(k_bytes), *v = fixture_memory(k_bytes);
    run(f);
    memcpy(first, f->out, out_bytes);
    for (int64_t t = 0; t < 150; t++)
        for (int64_t h = 0; h < 2; h++) {
            memcpy(k + (h * 150 + t) * 64, f->k + (t * 2 + h) * 64, 64 * sizeof(float));
            memcpy(v + (h * 150 + t) * 64, f->v + (t * 2 + h) * 64, 64 * sizeof(float));
        }
    const int64_t shape[] = { 1, 150, 2, 64 };
    octavo_tensor k_heads = octavo_tensor_view(k, OCTAVO_F32, 4, shape), v_heads = octavo_tensor_view(v, OCTAVO_F32, 4, shape);
    k_heads.strides[1] = v_heads.strides[1] = 64, k_heads.strides[2] = v_heads.strides[2] = 150 * 64;
    set_view(f, OCTAVO_K_F32, OCTAVO_V_F32, &k_heads, &v_heads);
    run(f);
    assert_memory_equal(first, f->out, out_bytes);

    const fixture_shape paged = { .batch = 1, .tokens = 150, .kv_heads = 2, .group = 3, .q_tokens = 1, .head_dim = 64, .v_dim = 64,
                                  .block_tokens = 32, .sub_block_tokens = 32, .k_format = OCTAVO_K_F32, .v_format = OCTAVO_V_F32 };
    fixture *pages = fixture_create(&paged, 3);
    memcpy(pages->k, f->k, k_bytes), memcpy(pages->v, f->v, k_bytes);
    fixture_encode(pages);
    f->params.kv = &pages->view;
    run(f);
    assert_memory_equal(first, f->out, out_bytes);
    fixture_destroy(pages);
    free(first), free(k), free(v);
    drop(f);
}

/* A prompt that is continued in chunks gives the bits of one that is not. */
static void test_chunks(void **state)
{
    (void)state;
    static const struct { octavo_k_format k; octavo_v_format v; } CASES[] = {
        { OCTAVO_K_F32, OCTAVO_V_F32 }, { OCTAVO_K_BF16, OCTAVO_V_BF16 }, { OCTAVO_K_E4M3X2, OCTAVO_V_E4M3 }, { OCTAVO_K_INT8, OCTAVO_V_INT8 },
        { OCTAVO_K_F16, OCTAVO_V_F16 } };
    static const int64_t CUTS[] = { 0, 1, 37, 101, 230, 300 };
    for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
        const fixture_shape shape = { .batch = 1, .tokens = 300, .kv_heads = 2, .group = 3, .q_tokens = 1, .head_dim = 128, .v_dim = 128,
                                      .block_tokens = 64, .sub_block_tokens = 64, .k_format = CASES[c].k, .v_format = CASES[c].v };
        fixture *cache = fixture_create(&shape, 9);
        bed *f = make(1, 300, 300, 2, 3, 128, 0.0f);
        const size_t bytes = sizeof(float) * 300 * 6 * 128;
        float *whole = fixture_memory(bytes);
        f->params.kv = &cache->view, f->params.lse = NULL;
        run(f);
        memcpy(whole, f->out, bytes);
        memset(f->out, 0, bytes);
        const octavo_tensor q = f->params.q, out = f->params.out;
        for (size_t i = 0; i + 1 < sizeof CUTS / sizeof *CUTS; i++) {
            f->params.q.shape[1] = f->params.out.shape[1] = CUTS[i + 1] - CUTS[i];
            f->params.q.data = (float *)q.data + CUTS[i] * q.strides[1], f->params.out.data = (float *)out.data + CUTS[i] * out.strides[1];
            cache->lengths[0] = (int32_t)CUTS[i + 1];
            run(f);
        }
        assert_memory_equal(whole, f->out, bytes);
        free(whole);
        drop(f);
        fixture_destroy(cache);
    }
}

/* ---- names and refusals ---- */

static void test_names(void **state)
{
    (void)state;
    octavo_attention_precision precision = OCTAVO_ATTENTION_EXACT;
    for (int i = OCTAVO_ATTENTION_EXACT; i <= OCTAVO_ATTENTION_SAGE2; i++) {
        assert_int_equal(octavo_attention_precision_parse(octavo_attention_precision_name((octavo_attention_precision)i), &precision), OCTAVO_OK);
        assert_int_equal(precision, i);
    }
    assert_int_equal(octavo_attention_precision_parse("sage", &precision), OCTAVO_OK);
    assert_int_equal(precision, OCTAVO_ATTENTION_SAGE2);
    assert_int_equal(octavo_attention_precision_parse("int4", &precision), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_attention_precision_parse(NULL, &precision), OCTAVO_E_ARGUMENT);
    assert_string_equal(octavo_attention_precision_name((octavo_attention_precision)9), "unknown");
    octavo_prefill_scales scales = OCTAVO_PREFILL_PER_BLOCK;
    for (int i = OCTAVO_PREFILL_PER_BLOCK; i <= OCTAVO_PREFILL_PER_TENSOR; i++) {
        assert_int_equal(octavo_prefill_scales_parse(octavo_prefill_scales_name((octavo_prefill_scales)i), &scales), OCTAVO_OK);
        assert_int_equal(scales, i);
    }
    assert_int_equal(octavo_prefill_scales_parse("page", &scales), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_prefill_scales_parse(NULL, &scales), OCTAVO_E_ARGUMENT);
    assert_string_equal(octavo_prefill_scales_name((octavo_prefill_scales)6), "unknown");
}

static void refuses(bed *f, octavo_status status, const char *word)
{
    const octavo_prefill_params asked = f->params;
    assert_int_equal(octavo_attention_prefill(&f->exec, &f->params), status);
    if (!strstr(octavo_last_error(), word)) print_error("'%s' does not say '%s'\n", octavo_last_error(), word);
    assert_non_null(strstr(octavo_last_error(), word));
    assert_memory_equal(&asked, &f->params, sizeof asked);
}

static void test_refusals(void **state)
{
    (void)state;
    bed *f = make(1, 10, 30, 2, 2, 48, 0.0f);
    run(f);
    memset(f->out, 0x5A, 64);
    const octavo_prefill_params good = f->params;
    f->params.struct_size = 3, refuses(f, OCTAVO_E_VERSION, "struct_size"), f->params = good;
    f->params.q.shape[2] = 3, refuses(f, OCTAVO_E_SHAPE, "multiple of kv_heads"), f->params = good;
    f->params.q.shape[3] = 47, refuses(f, OCTAVO_E_SHAPE, "q.shape[3]"), f->params = good;
    f->params.q.dtype = OCTAVO_E4M3, refuses(f, OCTAVO_E_ARGUMENT, "f32, f16, bf16"), f->params = good;
    f->params.q.device_kind = OCTAVO_DEVICE_CUDA, refuses(f, OCTAVO_E_ARGUMENT, "q lies"), f->params = good;
    f->params.q.shape[1] = INT64_MAX / 2, refuses(f, OCTAVO_E_RANGE, "overflows"), f->params = good;
    f->params.out.shape[1] = 9, refuses(f, OCTAVO_E_SHAPE, "out.shape[1]"), f->params = good;
    f->params.softmax_scale = INFINITY, refuses(f, OCTAVO_E_ARGUMENT, "softmax_scale"), f->params = good;
    f->params.soft_cap = -1.0f, refuses(f, OCTAVO_E_ARGUMENT, "soft_cap"), f->params = good;
    f->params.window = -1, refuses(f, OCTAVO_E_ARGUMENT, "window"), f->params = good;
    f->params.mask = (octavo_mask)2, refuses(f, OCTAVO_E_ARGUMENT, "mask"), f->params = good;
    f->params.precision = (octavo_attention_precision)7, refuses(f, OCTAVO_E_ARGUMENT, "precision"), f->params = good;
    f->params.scales = (octavo_prefill_scales)7, refuses(f, OCTAVO_E_ARGUMENT, "scales is 7"), f->params = good;
    f->params.precision = OCTAVO_ATTENTION_FP8, f->params.scales = OCTAVO_PREFILL_PER_TOKEN;
    refuses(f, OCTAVO_E_UNSUPPORTED, "per token"), f->params = good;
    const float amax[] = { 1.0f, INFINITY, 1.0f, 1.0f };
    f->params.k_amax = amax, f->params.scales = OCTAVO_PREFILL_PER_HEAD, refuses(f, OCTAVO_E_ARGUMENT, "exact"), f->params = good;
    f->params.k_amax = amax, f->params.precision = OCTAVO_ATTENTION_FP8, refuses(f, OCTAVO_E_ARGUMENT, "per block"), f->params = good;
    f->params.k_amax = amax, f->params.precision = OCTAVO_ATTENTION_FP8, f->params.scales = OCTAVO_PREFILL_PER_HEAD;
    refuses(f, OCTAVO_E_ARGUMENT, "k_amax[1] is inf"), f->params = good;
    f->params.flags = 64, refuses(f, OCTAVO_E_ARGUMENT, "flags"), f->params = good;
    f->params.precision = OCTAVO_ATTENTION_FP8, f->params.flags = OCTAVO_PREFILL_ROTATE;
    refuses(f, OCTAVO_E_UNSUPPORTED, "power of two"), f->params = good;
    f->params.precision = OCTAVO_ATTENTION_SAGE2, f->params.soft_cap = 3.0f, refuses(f, OCTAVO_E_UNSUPPORTED, "NO_SMOOTH"), f->params = good;
    f->params.out.data = f->q, refuses(f, OCTAVO_E_ARGUMENT, "overlaps q"), f->params = good;
    f->params.out.data = f->k, refuses(f, OCTAVO_E_ARGUMENT, "overlaps"), f->params = good;
    f->params.kv = NULL, refuses(f, OCTAVO_E_ARGUMENT, "view"), f->params = good;
    f->lengths[0] = 9, refuses(f, OCTAVO_E_SHAPE, "causal"), f->lengths[0] = 30;
    f->lengths[0] = 31, refuses(f, OCTAVO_E_RANGE, "max_tokens"), f->lengths[0] = 30;
    f->view.max_tokens = 9, refuses(f, OCTAVO_E_SHAPE, "kv.max_tokens is 9 keys for 10 queries under a causal mask"), f->view.max_tokens = 30;
    const int32_t queries[] = { 11 };
    f->params.q_lengths = queries, refuses(f, OCTAVO_E_RANGE, "q_lengths"), f->params = good;
    f->exec.workspace_bytes = 1, refuses(f, OCTAVO_E_RANGE, "workspace");
    for (int i = 0; i < 64; i++) assert_int_equal(((uint8_t *)f->out)[i], 0x5A); /* nothing was written */
    drop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_on_normal_data), cmocka_unit_test(test_channel_outliers),
        cmocka_unit_test(test_given_scales),          cmocka_unit_test(test_small_block),
        cmocka_unit_test(test_f16_sums),              cmocka_unit_test(test_flat_attention),    cmocka_unit_test(test_long_context),
        cmocka_unit_test(test_sink_above_a_tail),     cmocka_unit_test(test_visibility),          cmocka_unit_test(test_nothing_and_one_key),
        cmocka_unit_test(test_layouts),               cmocka_unit_test(test_chunks),              cmocka_unit_test(test_names),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
