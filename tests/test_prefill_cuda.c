/* test_prefill_cuda.c - attention of many queries on a GPU where the answer is known: nothing is seen, one key, a sink above a long tail. */
#define _POSIX_C_SOURCE 200809L
#include "gpu_fixture.h"
#include <stdio.h>

/* A call over bf16 tensors: q [batch, queries, heads, dim], k and v [batch, keys, 1, dim], as bits; out [batch, queries, heads, dim]. */
typedef struct scene {
    int64_t batch, queries, keys, heads, dim;
    uint16_t *q, *k, *v;
    float *out, *lse; /* lse [batch, heads, queries] */
    int32_t lengths[2];
    octavo_prefill_params params;
} scene;

static size_t query_count(const scene *f) { return (size_t)(f->batch * f->queries * f->heads); }
static size_t key_count(const scene *f) { return (size_t)(f->batch * f->keys); }

static float of_bf16(uint16_t code)
{
    const uint32_t bits = (uint32_t)code << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void fill(uint16_t *to, size_t count, uint64_t *seed)
{
    for (size_t i = 0; i < count; i++) to[i] = fixture_bf16_code(fixture_normal(seed));
}

/* Normal data. */
static scene make(int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t dim)
{
    uint64_t seed = 77;
    scene f = { .batch = batch, .queries = queries, .keys = keys, .heads = heads, .dim = dim };
    if (!gpu) skip();
    f.q = fixture_memory(query_count(&f) * (size_t)dim * 2), f.k = fixture_memory(key_count(&f) * (size_t)dim * 2);
    f.v = fixture_memory(key_count(&f) * (size_t)dim * 2), f.out = fixture_memory(query_count(&f) * (size_t)dim * sizeof(float));
    f.lse = fixture_memory(query_count(&f) * sizeof(float));
    fill(f.q, query_count(&f) * (size_t)dim, &seed), fill(f.k, key_count(&f) * (size_t)dim, &seed), fill(f.v, key_count(&f) * (size_t)dim, &seed);
    for (int64_t b = 0; b < batch; b++) f.lengths[b] = (int32_t)keys;
    f.params = (octavo_prefill_params)OCTAVO_INIT_STRUCT(octavo_prefill_params);
    f.params.mask = OCTAVO_MASK_FULL;
    return f;
}

static void drop(scene *f) { free(f->q), free(f->k), free(f->v), free(f->out), free(f->lse); }

/* A copy on the GPU; from NULL: room. */
static void *send(const octavo_exec *exec, const void *from, size_t bytes)
{
    void *to;
    assert_int_equal(octavo_device_allocate(gpu, bytes, &to), OCTAVO_OK);
    if (from) assert_int_equal(octavo_device_upload(exec, to, from, bytes), OCTAVO_OK);
    return to;
}

/* The call on the GPU; out and lse come back. */
static void run(scene *f)
{
    enum { Q, K, V, OUT, LSE, LENGTHS, WORKSPACE, ARRAYS };
    const size_t rows = query_count(f), row = (size_t)f->dim;
    size_t bytes[ARRAYS] = { rows * row * 2, key_count(f) * row * 2, key_count(f) * row * 2, rows * row * 4, rows * 4, sizeof f->lengths, 0 };
    const void *const from[ARRAYS] = { f->q, f->k, f->v, NULL, NULL, f->lengths, NULL };
    const int64_t queries[] = { f->batch, f->queries, f->heads, f->dim }, keys[] = { f->batch, f->keys, 1, f->dim };
    octavo_exec exec = OCTAVO_EXEC_INIT;
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    octavo_prefill_params params = f->params;
    void *there[ARRAYS];
    exec.device = gpu;
    for (int i = 0; i < WORKSPACE; i++) there[i] = send(&exec, from[i], bytes[i]);
    page.k_format = OCTAVO_K_BF16, page.v_format = OCTAVO_V_BF16, page.kv_heads = 1, page.head_dim = page.v_dim = (int32_t)f->dim;
    const octavo_tensor k = tensor_there(there[K], OCTAVO_BF16, keys), v = tensor_there(there[V], OCTAVO_BF16, keys);
    assert_int_equal(octavo_kv_view_over_tensors(&page, &k, NULL, &v, NULL, there[LENGTHS], &view), OCTAVO_OK);
    params.kv = &view, params.lse = there[LSE], params.q = tensor_there(there[Q], OCTAVO_BF16, queries);
    params.out = tensor_there(there[OUT], OCTAVO_F32, queries);
    assert_int_equal(octavo_attention_prefill_workspace(&exec, &params, &bytes[WORKSPACE]), OCTAVO_OK);
    exec.workspace = there[WORKSPACE] = send(&exec, NULL, bytes[WORKSPACE]), exec.workspace_bytes = bytes[WORKSPACE];
    if (octavo_attention_prefill(&exec, &params) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    assert_int_equal(octavo_device_download(&exec, f->out, there[OUT], bytes[OUT]), OCTAVO_OK);
    assert_int_equal(octavo_device_download(&exec, f->lse, there[LSE], bytes[LSE]), OCTAVO_OK);
    for (int i = 0; i < ARRAYS; i++) octavo_device_release(gpu, there[i], bytes[i]);
}

static const char *precision_of(const scene *f) { return octavo_attention_precision_name(f->params.precision); }

static void assert_nothing(const scene *f, int64_t b, int64_t i)
{
    for (int64_t head = 0; head < f->heads; head++) {
        const float *out = f->out + ((b * f->queries + i) * f->heads + head) * f->dim, lse = f->lse[(b * f->heads + head) * f->queries + i];
        for (int64_t d = 0; d < f->dim; d++)
            if (out[d] != 0.0f) fail_msg("%s, heads of %d: row %d sees nothing and gives %g", precision_of(f), (int)f->dim, (int)i, (double)out[d]);
        if (!(isinf(lse) && lse < 0.0f)) fail_msg("%s, heads of %d: row %d sees nothing and has an lse of %g", precision_of(f), (int)f->dim, (int)i, (double)lse);
    }
}

/* One key: its value, and its score. */
static void assert_one_key(const scene *f, int64_t b, int64_t i)
{
    const double allowed = f->params.precision == OCTAVO_ATTENTION_EXACT ? 1e-6 : f->params.precision == OCTAVO_ATTENTION_SAGE1 ? 0x1p-8 : 0x1p-4;
    const double lse_allowed = f->params.precision == OCTAVO_ATTENTION_EXACT ? 1e-4 : f->params.precision == OCTAVO_ATTENTION_FP8 ? 0.3 : 0.05;
    const uint16_t *k = f->k + b * f->keys * f->dim, *v = f->v + b * f->keys * f->dim;
    for (int64_t head = 0; head < f->heads; head++) {
        const int64_t row = (b * f->queries + i) * f->heads + head;
        double score = 0.0;
        for (int64_t d = 0; d < f->dim; d++) {
            const double got = (double)f->out[row * f->dim + d], wanted = (double)of_bf16(v[d]);
            score += (double)of_bf16(f->q[row * f->dim + d]) * (double)of_bf16(k[d]);
            if (!(fabs(got - wanted) <= allowed * fabs(wanted) + 1e-3 * allowed))
                fail_msg("%s, heads of %d: row %d sees one key and gives %g, expected %g", precision_of(f), (int)f->dim, (int)i, got, wanted);
        }
        const double lse = (double)f->lse[(b * f->heads + head) * f->queries + i], wanted = score / sqrt((double)f->dim);
        if (!(fabs(lse - wanted) <= lse_allowed))
            fail_msg("%s, heads of %d: row %d sees one key and has an lse of %g, expected %g", precision_of(f), (int)f->dim, (int)i, lse, wanted);
    }
}

/* Every precision with heads for which there are kernels of their own. */
static void for_every_kind(void (*check)(int64_t dim, octavo_attention_precision precision))
{
    static const int64_t DIMS[] = { 64, 96, 128, 256 };
    for (size_t i = 0; i < sizeof DIMS / sizeof *DIMS; i++)
        for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) check(DIMS[i], (octavo_attention_precision)precision);
}

static void check_nothing_and_one_key(int64_t dim, octavo_attention_precision precision)
{
    scene f = make(2, 5, 1, 2, dim);
    f.params.precision = precision, f.lengths[1] = 0;
    run(&f);
    for (int64_t row = 0; row < f.queries; row++) assert_one_key(&f, 0, row), assert_nothing(&f, 1, row);
    drop(&f);
}

static void test_nothing_and_one_key(void **state)
{
    (void)state;
    for_every_kind(check_nothing_and_one_key);
}

/* Rows that stand before the first key, of which a window shows them none, beside one that sees it. */
static void test_rows_outside_of_a_window(void **state)
{
    (void)state;
    for (int precision = OCTAVO_ATTENTION_EXACT; precision <= OCTAVO_ATTENTION_SAGE2; precision++) {
        scene f = make(1, 200, 1, 1, 128);
        f.params.precision = (octavo_attention_precision)precision, f.params.window = 2;
        run(&f);
        for (int64_t row = 0; row < 198; row++) assert_nothing(&f, 0, row);
        for (int64_t row = 198; row < 200; row++) assert_one_key(&f, 0, row);
        drop(&f);
    }
}

/* Sums of f16 are those of the kernels for every GPU; scales of a token are theirs alone, on whichever GPU. */
static void ask_f16_sums(scene *f)
{
    f->params.precision = OCTAVO_ATTENTION_SAGE1, f->params.scales = OCTAVO_PREFILL_PER_TOKEN, f->params.flags = OCTAVO_PREFILL_F16_SUMS;
}

/* The first key stands 12 nats above 128 K others that hold 45 % of the weight together: a weight of eight bits beside the sink's is 0, and a
 * sum of eleven bits that has the sink takes none of the others. */
static void check_sink_above_a_tail(int64_t dim, octavo_attention_precision precision, int f16_sums)
{
    enum { KEYS = 1 << 17 };
    const double tail = (KEYS - 1) * exp(-12.0), share = tail / (1.0 + tail), lse = 12.0 + log1p(tail);
    scene f = make(1, 3, KEYS, 1, dim);
    for (int64_t i = 0; i < KEYS * dim; i++) f.k[i] = fixture_bf16_code(i == 0 ? 4.0f : 0.0f), f.v[i] = fixture_bf16_code(i < dim ? 0.0f : 1.0f);
    for (int64_t i = 0; i < 3 * dim; i++) f.q[i] = fixture_bf16_code(i % dim == 0 ? 3.0f : 0.0f);
    f.params.precision = precision, f.params.softmax_scale = 1.0f;
    if (f16_sums) ask_f16_sums(&f);
    run(&f);
    for (int64_t i = 0; i < 3 * dim; i++)
        if (!(fabs((double)f.out[i] - share) < 0.005 * share))
            fail_msg("%s, heads of %d, flags %u: the tail counts %g, expected %g", precision_of(&f), (int)dim, f.params.flags, (double)f.out[i], share);
    for (int64_t i = 0; i < 3; i++)
        if (!(fabs((double)f.lse[i] - lse) < 2e-3))
            fail_msg("%s, heads of %d, flags %u: lse %g, expected %g", precision_of(&f), (int)dim, f.params.flags, (double)f.lse[i], lse);
    drop(&f);
}

static void check_sink(int64_t dim, octavo_attention_precision precision)
{
    check_sink_above_a_tail(dim, precision, 0);
    if (precision == OCTAVO_ATTENTION_SAGE1) check_sink_above_a_tail(dim, precision, 1);
}

static void test_sink_above_a_tail(void **state)
{
    (void)state;
    for_every_kind(check_sink);
}

/* 128 keys that all weigh the same, the first of each 64 with 256, the others with less than half of the last of 256's 11 bits even 16
 * together: 64 products in f16 add up to 256, in float32 to more; the two tiles of 64, in float32, to twice that. */
static void check_sums(int64_t dim, uint32_t flags, double lost)
{
    enum { KEYS = 128 };
    const double small = 0x1p-8, whole = 256.0 + 63.0 * small;
    scene f = make(1, 70, KEYS, 2, dim);
    memset(f.q, 0, query_count(&f) * (size_t)dim * sizeof *f.q);
    for (int64_t i = 0; i < KEYS * dim; i++) f.v[i] = fixture_bf16_code(i / dim % 64 == 0 ? 256.0f : (float)small);
    ask_f16_sums(&f);
    f.params.flags = flags;
    run(&f);
    for (size_t i = 0; i < query_count(&f) * (size_t)dim; i++)
        if (!(fabs(64.0 * (double)f.out[i] - (whole - lost)) < 1e-3))
            fail_msg("heads of %d, flags %u: %g, expected %g", (int)dim, flags, 64.0 * (double)f.out[i], whole - lost);
    drop(&f);
}

static void test_f16_sums(void **state)
{
    (void)state;
    for (int64_t dim = 64; dim <= 256; dim *= 2) check_sums(dim, 0, 0.0), check_sums(dim, OCTAVO_PREFILL_F16_SUMS, 63.0 * 0x1p-8);
}

/* V of any size: what f16 has no room for is a power of two of the channel. */
static void test_f16_sums_of_any_size(void **state)
{
    (void)state;
    static const float SIZES[] = { 1e-30f, 1.0f, 1e5f, 1e30f };
    enum { DIM = 128 };
    scene like = make(1, 70, 200, 2, DIM);
    ask_f16_sums(&like);
    run(&like);
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        scene f = make(1, 70, 200, 2, DIM);
        ask_f16_sums(&f);
        int exponent;
        (void)frexpf(SIZES[i], &exponent);
        for (size_t j = 0; j < key_count(&f) * DIM; j++) f.v[j] = fixture_bf16_code(ldexpf(of_bf16(f.v[j]), exponent));
        run(&f);
        for (size_t j = 0; j < query_count(&f) * DIM; j++)
            if (f.out[j] != ldexpf(like.out[j], exponent)) fail_msg("values of %g: %g, expected %g", (double)SIZES[i], (double)f.out[j], (double)ldexpf(like.out[j], exponent));
        drop(&f);
    }
    drop(&like);
}

/* Causal, with more queries than keys: the first see nothing, the next one key; lengths past the view are held to it. */
static void check_more_queries_than_keys(int64_t dim, octavo_attention_precision precision)
{
    scene f = make(2, 5, 6, 2, dim);
    const size_t bytes = query_count(&f) * (size_t)dim * sizeof *f.out;
    f.params.precision = precision, f.params.mask = OCTAVO_MASK_CAUSAL;
    f.lengths[0] = 3, f.lengths[1] = -7;
    run(&f);
    for (int64_t row = 0; row < f.queries; row++) assert_nothing(&f, 1, row);
    assert_nothing(&f, 0, 0), assert_nothing(&f, 0, 1);
    if (precision == OCTAVO_ATTENTION_EXACT || precision == OCTAVO_ATTENTION_SAGE1) assert_one_key(&f, 0, 2); /* V as it is stored */
    f.lengths[0] = 6, run(&f);
    float *whole = fixture_memory(bytes);
    memcpy(whole, f.out, bytes);
    f.lengths[0] = 99, run(&f);
    assert_memory_equal(f.out, whole, bytes);
    free(whole);
    drop(&f);
}

static void test_more_queries_than_keys(void **state)
{
    (void)state;
    for_every_kind(check_more_queries_than_keys);
}

static void test_refusals(void **state)
{
    (void)state;
    static const int64_t SHAPE[] = { 1, 5, 1, 64 };
    octavo_exec exec = OCTAVO_EXEC_INIT;
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    octavo_prefill_params p = OCTAVO_PREFILL_PARAMS_INIT;
    const int32_t length = 5;
    enum { ROOM = 1 << 20 };
    if (!gpu) skip();
    exec.device = gpu;
    void *memory = send(&exec, NULL, ROOM), *out = send(&exec, NULL, ROOM), *lengths = send(&exec, &length, sizeof length);
    octavo_tensor tensor = tensor_there(memory, OCTAVO_BF16, SHAPE);
    page.k_format = OCTAVO_K_BF16, page.v_format = OCTAVO_V_BF16, page.kv_heads = 1, page.head_dim = 64;
    assert_int_equal(octavo_kv_view_over_tensors(&page, &tensor, NULL, &tensor, NULL, lengths, &view), OCTAVO_OK);
    p.kv = &view, p.q = tensor, p.out = tensor_there(out, OCTAVO_BF16, SHAPE);
    assert_int_equal(octavo_attention_prefill_workspace(&exec, &p, &exec.workspace_bytes), OCTAVO_OK);
    exec.workspace = send(&exec, NULL, exec.workspace_bytes);
    p.q.device_kind = OCTAVO_DEVICE_CPU;
    assert_int_equal(octavo_attention_prefill(&exec, &p), OCTAVO_E_ARGUMENT);
    assert_non_null(strstr(octavo_last_error(), "q lies in CPU memory"));
    octavo_device_release(gpu, exec.workspace, exec.workspace_bytes);
    static const int64_t SIX[] = { 1, 6, 1, 64 };
    p.q = tensor_there(memory, OCTAVO_BF16, SIX), p.out = tensor_there(out, OCTAVO_BF16, SIX);
    assert_int_equal(octavo_attention_prefill_workspace(&exec, &p, &exec.workspace_bytes), OCTAVO_E_SHAPE);
    assert_non_null(strstr(octavo_last_error(), "kv.max_tokens is 5 keys for 6 queries under a causal mask"));

    tensor.shape[3] = 300, tensor.strides[0] = 5 * 300, tensor.strides[1] = tensor.strides[2] = 300;
    page.head_dim = 300, view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    assert_int_equal(octavo_kv_view_over_tensors(&page, &tensor, NULL, &tensor, NULL, lengths, &view), OCTAVO_OK);
    p.q = tensor, p.out = tensor, p.out.data = out, p.mask = OCTAVO_MASK_FULL, p.precision = OCTAVO_ATTENTION_FP8;
    assert_int_equal(octavo_attention_prefill_workspace(&exec, &p, &exec.workspace_bytes), OCTAVO_OK);
    exec.workspace = send(&exec, NULL, exec.workspace_bytes);
    assert_int_equal(octavo_attention_prefill(&exec, &p), OCTAVO_E_UNSUPPORTED);
    assert_non_null(strstr(octavo_last_error(), "head_dim is 300"));
    void *const all[] = { memory, out, lengths, exec.workspace };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) octavo_device_release(gpu, all[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_and_one_key),
        cmocka_unit_test(test_rows_outside_of_a_window),
        cmocka_unit_test(test_sink_above_a_tail),
        cmocka_unit_test(test_f16_sums),
        cmocka_unit_test(test_f16_sums_of_any_size),
        cmocka_unit_test(test_more_queries_than_keys),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
