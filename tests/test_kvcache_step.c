/* test_kvcache_step.c - steps of all layers at once leave the same cache as appends layer by layer, and refuse what those refuse. */
#include "kvcache_fixture.h"

enum { MOST = 40 };

/* Two caches that take the same way, one by appends, one by steps. */
typedef struct pair {
    fixture *f;
    octavo_kvcache *by_append, *by_step;
} pair;

static void open_pair(pair *p, fixture *f)
{
    const octavo_kvcache_config config = small_config();
    *p = (pair){ .f = f };
    assert_int_equal(octavo_kvcache_create(f->device, &config, &p->by_append), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_create(f->device, &config, &p->by_step), OCTAVO_OK);
    for (int32_t g = 0; g < p->by_step->group_count; g++)
        for (int i = 0; i < 2; i++) {
            octavo_kvcache *cache = i ? p->by_step : p->by_append;
            memset(cache->groups[g].pool, 0, (size_t)(cache->groups[g].layers * cache->pages * cache->page_bytes));
        }
}

static void close_pair(pair *p)
{
    octavo_kvcache_destroy(p->by_append);
    octavo_kvcache_destroy(p->by_step);
}

static octavo_tensor rows_of(const uint16_t *rows, int64_t batch, int64_t tokens, int64_t dim)
{
    return octavo_tensor_view((void *)(uintptr_t)rows, OCTAVO_BF16, 4, (int64_t[]){ batch, tokens, HEADS, dim });
}

static octavo_kvcache_step step_of(int64_t batch, int64_t tokens, const int32_t *sequences, int32_t *first, int32_t *positions)
{
    octavo_kvcache_step step = OCTAVO_KVCACHE_STEP_INIT;
    step.batch = batch, step.tokens = tokens, step.sequences = step.device_sequences = sequences, step.first = first, step.positions = positions;
    return step;
}

static void extend(pair *p, int64_t batch, const int32_t *sequences, int64_t tokens)
{
    uint16_t k_rows[SEQUENCES * MOST * HEADS * DIM], v_rows[SEQUENCES * MOST * HEADS * V_DIM];
    int32_t first[SEQUENCES], positions[SEQUENCES * MOST];
    for (size_t i = 0; i < sizeof k_rows / 2; i++) k_rows[i] = (uint16_t)(0x3f80 + draw(p->f, 128));
    for (size_t i = 0; i < sizeof v_rows / 2; i++) v_rows[i] = (uint16_t)(0x3f80 + draw(p->f, 128));
    const octavo_tensor k = rows_of(k_rows, batch, tokens, DIM), v = rows_of(v_rows, batch, tokens, V_DIM);
    const octavo_kvcache_step step = step_of(batch, tokens, sequences, first, positions);
    int64_t before[SEQUENCES];
    for (int64_t b = 0; b < batch; b++) {
        before[b] = octavo_kvcache_length(p->by_step, sequences[b], 0);
        assert_int_equal(octavo_kvcache_reserve(p->by_append, sequences[b], tokens), OCTAVO_OK);
        assert_int_equal(octavo_kvcache_reserve(p->by_step, sequences[b], tokens), OCTAVO_OK);
    }
    assert_int_equal(octavo_kvcache_step_begin(&p->f->exec, p->by_step, &step), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_step_advance(&p->f->exec, p->by_step, &step), OCTAVO_OK);
    for (int64_t b = 0; b < batch; b++) {
        assert_int_equal(first[b], before[b]);
        for (int64_t t = 0; t < tokens; t++) assert_int_equal(positions[b * tokens + t], before[b] + t);
    }
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        octavo_kv_view view;
        assert_int_equal(octavo_kvcache_append(&p->f->exec, p->by_append, layer, batch, sequences, &k, &v), OCTAVO_OK);
        assert_int_equal(octavo_kvcache_view(p->by_step, layer, batch, sequences, &view), OCTAVO_OK);
        assert_int_equal(octavo_kv_append(&p->f->exec, &view, &k, &v, first), OCTAVO_OK);
    }
}

static void assert_same(const pair *p)
{
    const octavo_kvcache *a = p->by_append, *b = p->by_step;
    assert_memory_equal(a->lengths, b->lengths, sizeof(int32_t) * LAYERS * SEQUENCES);
    for (int32_t g = 0; g < a->group_count; g++) {
        assert_memory_equal(a->groups[g].page_table, b->groups[g].page_table, sizeof(int32_t) * (size_t)(SEQUENCES * a->table_blocks));
        assert_memory_equal(a->groups[g].pool, b->groups[g].pool, (size_t)(a->groups[g].layers * a->pages * a->page_bytes));
    }
}

static void test_same_as_appends(void **state)
{
    pair p;
    open_pair(&p, *state);
    int32_t sequences[3], forked[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(octavo_kvcache_sequence(p.by_append, &sequences[i]), OCTAVO_OK);
        assert_int_equal(octavo_kvcache_sequence(p.by_step, &sequences[i]), OCTAVO_OK);
    }
    extend(&p, 1, sequences, MOST);
    extend(&p, 2, sequences, 7); /* of different lengths */
    for (int i = 0; i < 20; i++) extend(&p, 2, (const int32_t[]){ sequences[1], sequences[0] }, 1);
    assert_same(&p);
    assert_int_equal(octavo_kvcache_fork(p.by_append, sequences[0], &forked[0]), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_fork(p.by_step, sequences[0], &forked[1]), OCTAVO_OK);
    assert_int_equal(forked[0], forked[1]);
    sequences[2] = forked[0];
    extend(&p, 3, sequences, 1); /* a shared page becomes two */
    for (int i = 0; i < 2; i++) assert_int_equal(octavo_kvcache_truncate(i ? p.by_step : p.by_append, sequences[2], 50), OCTAVO_OK);
    extend(&p, 3, sequences, 5);
    assert_same(&p);
    close_pair(&p);
}

static void test_refusals(void **state)
{
    pair p;
    open_pair(&p, *state);
    octavo_exec *exec = &p.f->exec;
    octavo_kvcache *cache = p.by_step;
    int32_t sequence, first[2], positions[2 * MOST];
    assert_int_equal(octavo_kvcache_sequence(cache, &sequence), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_reserve(cache, sequence, 3), OCTAVO_OK);
    const int32_t twice[2] = { sequence, sequence }, dead = sequence + 1;
    const octavo_kvcache_step good = step_of(1, 3, &sequence, first, positions);
    octavo_kvcache_step step = good;
#define REFUSED(change, status, words)                                               \
    step = good;                                                                     \
    change;                                                                          \
    assert_int_equal(octavo_kvcache_step_begin(exec, cache, &step), status);         \
    if (!strstr(octavo_last_error(), words)) fail_msg("'%s' does not say '%s'", octavo_last_error(), words)
    REFUSED(step.struct_size = 1, OCTAVO_E_VERSION, "octavo_kvcache_step");
    REFUSED(step.tokens = 17, OCTAVO_E_RANGE, "were not reserved"); /* more than the page that there is */
    REFUSED(step.tokens = TOKENS + 1, OCTAVO_E_RANGE, "may have 150");
    REFUSED(step.tokens = 0, OCTAVO_E_ARGUMENT, "tokens is 0");
    REFUSED(step.batch = 0, OCTAVO_E_ARGUMENT, "batch is 0");
    REFUSED(step.batch = SEQUENCES + 1, OCTAVO_E_ARGUMENT, "batch is 6");
    REFUSED(step.first = NULL, OCTAVO_E_ARGUMENT, "first is NULL");
    REFUSED(step.device_sequences = NULL, OCTAVO_E_ARGUMENT, "device_sequences is NULL");
    REFUSED(step.sequences = &dead, OCTAVO_E_RANGE, "does not exist");
    REFUSED((step.sequences = twice, step.batch = 2), OCTAVO_E_ARGUMENT, "twice");
#undef REFUSED
    assert_int_equal(octavo_kvcache_step_begin(exec, NULL, &good), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_kvcache_length(cache, sequence, 0), 0);
    step = good; /* what the device is told is no row of the cache */
    step.device_sequences = (const int32_t[]){ SEQUENCES };
    assert_int_equal(octavo_kvcache_step_begin(exec, cache, &step), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_step_advance(exec, cache, &step), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_length(cache, sequence, 0), 0);
    assert_int_equal(octavo_kvcache_step_advance(exec, cache, &good), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_length(cache, sequence, LAYERS - 1), 3);
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_as_appends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
