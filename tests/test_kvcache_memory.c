/* test_kvcache_memory.c - the cache manager's memory: own or the caller's, refused sizes, what appends write and decoding reads. */
#include "kvcache_fixture.h"

enum { ALIGN = 4096, GUARD = 64, APPENDED = 37 };

static octavo_status memory_bytes(const octavo_kvcache_config *config)
{
    size_t bytes = 1;
    const octavo_status status = octavo_kvcache_memory_bytes(config, &bytes);
    if (status != OCTAVO_OK) assert_int_equal(bytes, 0);
    return status;
}

static void test_configs_that_are_refused(void **state)
{
    fixture *f = *state;
    const octavo_kvcache_config good = small_config();
    octavo_kvcache *cache = (octavo_kvcache *)1;
    assert_int_equal(memory_bytes(&good), OCTAVO_OK);
    assert_int_equal(memory_bytes(NULL), OCTAVO_E_ARGUMENT);
#define REFUSED(change, status)                                                          \
    do {                                                                                 \
        octavo_kvcache_config bad = good;                                                \
        change;                                                                          \
        assert_int_equal(memory_bytes(&bad), status);                                    \
        assert_int_equal(octavo_kvcache_create(f->device, &bad, &cache), status);        \
        assert_null(cache);                                                              \
    } while (0)
    REFUSED(bad.struct_size = 8, OCTAVO_E_VERSION);
    REFUSED(bad.page.block_tokens = -1, OCTAVO_E_ARGUMENT);
    REFUSED(bad.page.k_format = (octavo_k_format)99, OCTAVO_E_ARGUMENT);
    REFUSED(bad.group_count = 0, OCTAVO_E_ARGUMENT);
    REFUSED(bad.groups = NULL, OCTAVO_E_ARGUMENT);
    REFUSED((bad.groups = NULL, bad.group_count = 0, bad.layers = -1), OCTAVO_E_ARGUMENT);
    REFUSED(bad.max_sequences = 0, OCTAVO_E_ARGUMENT);
    REFUSED(bad.max_tokens = 0, OCTAVO_E_ARGUMENT);
    REFUSED(bad.max_tokens = (int64_t)1 << 31, OCTAVO_E_ARGUMENT);
    REFUSED(bad.pages = 0, OCTAVO_E_ARGUMENT);
    REFUSED(bad.pages = (int64_t)1 << 31, OCTAVO_E_ARGUMENT);
    const octavo_kvcache_group no_layers = { 0, 0, 0 }, backwards = { 1, 0, -1 }, many[] = { { INT32_MAX, 0, 0 }, { 1, 0, 0 } };
    REFUSED((bad.groups = &no_layers, bad.group_count = 1), OCTAVO_E_ARGUMENT);
    REFUSED((bad.groups = &backwards, bad.group_count = 1), OCTAVO_E_ARGUMENT);
    REFUSED((bad.groups = many, bad.group_count = 2), OCTAVO_E_RANGE);
    /* 2^31 layers of 2^31 pages overflow in bytes only; 2^31 sequences of 2^31 tokens in the page table. */
    REFUSED((bad.groups = many, bad.group_count = 1, bad.pages = INT32_MAX), OCTAVO_E_RANGE);
    REFUSED((bad.max_sequences = INT32_MAX, bad.max_tokens = INT32_MAX, bad.page.block_tokens = bad.page.sub_block_tokens = 1),
            OCTAVO_E_RANGE);
#undef REFUSED
    assert_int_equal(octavo_kvcache_create(NULL, &good, &cache), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_kvcache_create(f->device, &good, NULL), OCTAVO_E_ARGUMENT);
    octavo_kvcache_destroy(NULL);
}

static void test_every_allocation_may_fail(void **state)
{
    fixture *f = *state;
    const octavo_kvcache_config config = small_config();
    const int64_t blocks = f->count.blocks;
    octavo_kvcache *cache;
    int failures = 0;
    for (f->count.fail_at = 1; octavo_kvcache_create(f->device, &config, &cache) != OCTAVO_OK; f->count.fail_at = failures + 1) {
        failures++;
        assert_null(cache);
        assert_int_equal(f->count.blocks, blocks);
        assert_true(failures < 10);
    }
    f->count.fail_at = 0;
    assert_int_equal(failures, 2); /* bookkeeping and device memory */
    octavo_kvcache_destroy(cache);
    assert_int_equal(f->count.blocks, blocks);
}

/* An append whose values depend on the token only, so that different splits store the same. */
static void append_tokens(fixture *f, octavo_kvcache *cache, int32_t sequence, int64_t first, int64_t tokens)
{
    static float k[APPENDED * HEADS * DIM], v[APPENDED * HEADS * V_DIM];
    fixture values = { .random = 0 };
    for (int64_t t = 0; t < tokens; t++) {
        values.random = (uint64_t)(first + t);
        for (int i = 0; i < HEADS * DIM; i++) k[t * HEADS * DIM + i] = ((float)draw(&values, 2001) - 1000.0f) * 0.01f;
        for (int i = 0; i < HEADS * V_DIM; i++) v[t * HEADS * V_DIM + i] = ((float)draw(&values, 2001) - 1000.0f) * 0.01f;
    }
    const octavo_tensor kt = octavo_tensor_view(k, OCTAVO_F32, 4, (int64_t[]){ 1, tokens, HEADS, DIM });
    const octavo_tensor vt = octavo_tensor_view(v, OCTAVO_F32, 4, (int64_t[]){ 1, tokens, HEADS, V_DIM });
    for (int32_t layer = 0; layer < LAYERS; layer++)
        assert_int_equal(octavo_kvcache_append(&f->exec, cache, layer, 1, &sequence, &kt, &vt), OCTAVO_OK);
}

static void append_in_steps(fixture *f, const octavo_kvcache_config *config, int64_t step)
{
    octavo_kvcache *cache;
    int32_t s;
    memset(config->memory, 0, config->memory_bytes);
    assert_int_equal(octavo_kvcache_create(f->device, config, &cache), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_sequence(cache, &s), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_reserve(cache, s, APPENDED), OCTAVO_OK);
    for (int64_t t = 0; t < APPENDED; t += step) append_tokens(f, cache, s, t, t + step < APPENDED ? step : APPENDED - t);
    memset(cache->call, 0, 2 * SEQUENCES * sizeof *cache->call); /* scratch of the last append */
    octavo_kvcache_destroy(cache);
}

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN);
    assert_non_null(memory);
    return memory;
}

static void test_many_at_once_or_one_by_one(void **state)
{
    fixture *f = *state;
    for (int format = OCTAVO_K_BF16; format <= OCTAVO_K_F32; format++) {
        octavo_kvcache_config once = small_config();
        once.page.k_format = (octavo_k_format)format;
        once.page.v_format = (octavo_v_format)(OCTAVO_V_BF16 + format % 5);
        assert_int_equal(octavo_kvcache_memory_bytes(&once, &once.memory_bytes), OCTAVO_OK);
        octavo_kvcache_config singly = once, by_seven = once;
        once.memory = aligned(once.memory_bytes);
        singly.memory = aligned(once.memory_bytes);
        by_seven.memory = aligned(once.memory_bytes);
        append_in_steps(f, &once, APPENDED);
        append_in_steps(f, &singly, 1);
        append_in_steps(f, &by_seven, 7);
        assert_memory_equal(singly.memory, once.memory, once.memory_bytes);
        assert_memory_equal(by_seven.memory, once.memory, once.memory_bytes);
        free(once.memory);
        free(singly.memory);
        free(by_seven.memory);
    }
}

static void test_callers_memory(void **state)
{
    fixture *f = *state;
    octavo_kvcache_config config = small_config();
    octavo_kvcache *cache;
    assert_int_equal(octavo_kvcache_memory_bytes(&config, &config.memory_bytes), OCTAVO_OK);
    uint8_t *memory = aligned(config.memory_bytes + ALIGN), guard[GUARD];
    const int64_t blocks = f->count.blocks;
    memset(memory, 0xa5, config.memory_bytes + ALIGN);
    memset(guard, 0xa5, GUARD);

    config.memory = memory + 64;
    assert_int_equal(octavo_kvcache_create(f->device, &config, &cache), OCTAVO_E_ARGUMENT);
    config.memory = memory;
    config.memory_bytes--;
    assert_int_equal(octavo_kvcache_create(f->device, &config, &cache), OCTAVO_E_ARGUMENT);
    assert_memory_equal(memory, guard, GUARD);
    config.memory_bytes++;
    append_in_steps(f, &config, APPENDED);
    assert_memory_equal(memory + config.memory_bytes, guard, GUARD);
    assert_int_equal(f->count.blocks, blocks); /* and `memory` is still ours to free */
    free(memory);
}

static void decode(fixture *f, const octavo_kv_view *view, octavo_select_rule rule, float *out)
{
    static float q[HEADS * DIM];
    fixture values = { .random = 7 };
    for (int i = 0; i < HEADS * DIM; i++) q[i] = ((float)draw(&values, 2001) - 1000.0f) * 0.001f;
    octavo_decode_params p = OCTAVO_DECODE_PARAMS_INIT;
    p.q = octavo_tensor_view(q, OCTAVO_F32, 4, (int64_t[]){ 1, 1, HEADS, DIM });
    p.out = octavo_tensor_view(out, OCTAVO_F32, 4, (int64_t[]){ 1, 1, HEADS, V_DIM });
    p.kv = view;
    p.window = WINDOW;
    p.sink_tokens = SINK;
    p.select = rule;
    p.compensate = OCTAVO_COMPENSATE_MEAN;
    p.delta = 1.0f;
    p.epsilon = 0.3f;
    octavo_exec exec = f->exec;
    assert_int_equal(octavo_attention_decode_workspace(&exec, &p, &exec.workspace_bytes), OCTAVO_OK);
    exec.workspace = aligned(exec.workspace_bytes + 1);
    assert_int_equal(octavo_attention_decode(&exec, &p), OCTAVO_OK);
    free(exec.workspace);
}

/* Both layers store the same; one of them has lost what its window does not see, and answers alike. */
static void test_decode_without_the_pages_that_left(void **state)
{
    fixture *f = *state;
    octavo_kvcache_config config = small_config();
    config.page.k_format = OCTAVO_K_E4M3X2;
    octavo_kvcache *cache;
    octavo_kv_view whole, windowed;
    int32_t s;
    assert_int_equal(octavo_kvcache_create(f->device, &config, &cache), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_sequence(cache, &s), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_view(cache, 0, 1, &s, &whole), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_view(cache, 2, 1, &s, &windowed), OCTAVO_OK);
    for (int t = 0; t < TOKENS; t++) {
        float expected[HEADS * V_DIM], out[HEADS * V_DIM];
        assert_int_equal(octavo_kvcache_reserve(cache, s, 1), OCTAVO_OK);
        append_tokens(f, cache, s, t, 1);
        for (int rule = OCTAVO_SELECT_NONE; rule <= OCTAVO_SELECT_CERTIFIED; rule++) {
            decode(f, &whole, (octavo_select_rule)rule, expected);
            decode(f, &windowed, (octavo_select_rule)rule, out);
            assert_memory_equal(out, expected, sizeof out);
        }
    }
    assert_int_equal(windowed.page_table[s * windowed.page_table_stride + 2], -1);
    assert_int_equal(octavo_kv_view_check(&whole), OCTAVO_OK);
    assert_int_equal(octavo_kv_view_check(&windowed), OCTAVO_E_RANGE);
    octavo_kvcache_destroy(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configs_that_are_refused),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_many_at_once_or_one_by_one),
        cmocka_unit_test(test_callers_memory),
        cmocka_unit_test(test_decode_without_the_pages_that_left),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
