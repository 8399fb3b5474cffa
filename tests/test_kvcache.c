/* test_kvcache.c - the cache manager against a plain model: what was appended is what is read, whoever shares the pages. */
#include "kernel/planes.h"
#include "kvcache_fixture.h"

enum { ROW = HEADS * (DIM + V_DIM) }; /* what a token stores: K of each head, then V of each head */

/* ---- the model ---- */

typedef struct model_sequence {
    int alive;
    int64_t length, reserved_at; /* of all layers; the length when room was last reserved */
    uint16_t rows[LAYERS][TOKENS][ROW];
} model_sequence;

static model_sequence model[SEQUENCES];

static void draw_rows(fixture *f, uint16_t *rows, int64_t count)
{
    for (int64_t i = 0; i < count * ROW; i++) /* bf16 of any sign and mantissa, 2^-27 to 2^12 */
        rows[i] = (uint16_t)(draw(f, 2) << 15 | (100 + draw(f, 40)) << 7 | draw(f, 128));
}

/* Appends rows [batch, tokens, ROW] to one layer. */
static octavo_status append(fixture *f, octavo_kvcache *cache, int32_t layer, int64_t batch, const int32_t *sequences,
                            int64_t tokens, uint16_t *rows)
{
    octavo_tensor k = octavo_tensor_view(rows, OCTAVO_BF16, 4, (int64_t[]){ batch, tokens, HEADS, DIM });
    octavo_tensor v = octavo_tensor_view(rows + HEADS * DIM, OCTAVO_BF16, 4, (int64_t[]){ batch, tokens, HEADS, V_DIM });
    k.strides[0] = v.strides[0] = tokens * ROW;
    k.strides[1] = v.strides[1] = ROW;
    return octavo_kvcache_append(&f->exec, cache, layer, batch, sequences, &k, &v);
}

static void append_all_layers(fixture *f, octavo_kvcache *cache, int64_t batch, const int32_t *sequences, int64_t tokens)
{
    uint16_t *rows = malloc(sizeof(uint16_t) * (size_t)(batch * tokens * ROW));
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        draw_rows(f, rows, batch * tokens);
        assert_int_equal(append(f, cache, layer, batch, sequences, tokens, rows), OCTAVO_OK);
        for (int64_t b = 0; b < batch; b++) {
            model_sequence *m = &model[sequences[b]];
            memcpy(m->rows[layer][m->length], rows + b * tokens * ROW, sizeof(uint16_t) * (size_t)(tokens * ROW));
        }
    }
    for (int64_t b = 0; b < batch; b++) model[sequences[b]].length += tokens;
    free(rows);
}

static int32_t new_sequence(octavo_kvcache *cache)
{
    int32_t s;
    assert_int_equal(octavo_kvcache_sequence(cache, &s), OCTAVO_OK);
    assert_in_range(s, 0, SEQUENCES - 1);
    assert_false(model[s].alive);
    model[s].alive = 1;
    model[s].length = model[s].reserved_at = 0;
    return s;
}

static int32_t new_sequence_of(fixture *f, octavo_kvcache *cache, int64_t tokens)
{
    const int32_t s = new_sequence(cache);
    assert_int_equal(octavo_kvcache_reserve(cache, s, tokens), OCTAVO_OK);
    append_all_layers(f, cache, 1, &s, tokens);
    return s;
}

static int32_t fork_of(octavo_kvcache *cache, int32_t parent)
{
    int32_t child;
    assert_int_equal(octavo_kvcache_fork(cache, parent, &child), OCTAVO_OK);
    assert_false(model[child].alive);
    model[child] = model[parent];
    return child;
}

static void check_row(const octavo_kv_view *view, int32_t layer, int32_t sequence, int64_t token)
{
    const int64_t row = octavo_view_row(view, 0), page = octavo_view_page(view, row, token / BLOCK);
    const uint16_t *expected = model[sequence].rows[layer][token];
    if (page < 0 || page >= PAGES) fail_msg("token %d of sequence %d has no page in layer %d", (int)token, sequence, layer);
    for (int64_t h = 0; h < HEADS; h++) {
        assert_memory_equal(octavo_section_at(&view->k[0], row, page, h, token % BLOCK), expected + h * DIM, 2 * DIM);
        assert_memory_equal(octavo_section_at(&view->v, row, page, h, token % BLOCK), expected + HEADS * DIM + h * V_DIM, 2 * V_DIM);
    }
}

/* Every token that a query may see reads back bit for bit. */
static void check_contents(const octavo_kvcache *cache)
{
    for (int32_t s = 0; s < SEQUENCES; s++)
        for (int32_t layer = 0; layer < LAYERS; layer++) {
            assert_int_equal(octavo_kvcache_length(cache, s, layer), model[s].alive ? model[s].length : -1);
            if (!model[s].alive) continue;
            const octavo_page_group *group = &cache->groups[cache->group_of_layer[layer]];
            const int64_t near_begin = group->window ? model[s].length - group->window : 0;
            octavo_kv_view view;
            assert_int_equal(octavo_kvcache_view(cache, layer, 1, &s, &view), OCTAVO_OK);
            assert_int_equal(view.lengths[s], model[s].length);
            assert_true(view.max_tokens >= model[s].length);
            for (int64_t t = 0; t < model[s].length; t++)
                if (t < group->sink_blocks * BLOCK || t >= near_begin) check_row(&view, layer, s, t);
        }
}

/* Each page is free, once, or held, and counts exactly those who hold it. */
static void check_references(const octavo_kvcache *cache)
{
    for (int32_t g = 0; g < cache->group_count; g++) {
        const octavo_page_group *group = &cache->groups[g];
        int32_t holders[PAGES] = { 0 }, free_places[PAGES] = { 0 };
        for (int32_t s = 0; s < SEQUENCES; s++)
            for (int64_t b = 0; b < cache->table_blocks; b++) {
                const int32_t page = *octavo_kvcache_page_at(cache, group, s, b);
                assert_in_range(page + 1, 0, PAGES);
                if (page >= 0) holders[page]++;
            }
        assert_int_equal(octavo_kvcache_free_pages(cache, g), group->free_count);
        for (int64_t i = 0; i < group->free_count; i++) free_places[group->free_pages[i]]++;
        for (int32_t p = 0; p < cache->pages; p++) {
            assert_int_equal(holders[p], group->references[p]);
            assert_int_equal(free_places[p], holders[p] == 0);
        }
    }
}

/* ---- whole states ---- */

typedef struct snapshot {
    uint8_t *host, *device;
} snapshot;

static snapshot take_snapshot(const octavo_kvcache *cache)
{
    const snapshot s = { malloc(cache->host_bytes), malloc(cache->memory_bytes) };
    memcpy(s.host, cache, cache->host_bytes); /* the cache is the first thing in its bookkeeping */
    memcpy(s.device, cache->memory, cache->memory_bytes);
    return s;
}

static void check_unchanged(const octavo_kvcache *cache, snapshot s)
{
    assert_memory_equal(s.host, cache, cache->host_bytes);
    assert_memory_equal(s.device, cache->memory, cache->memory_bytes);
    free(s.host);
    free(s.device);
}

static octavo_kvcache *create(fixture *f, const octavo_kvcache_config *config)
{
    octavo_kvcache *cache;
    assert_int_equal(octavo_kvcache_create(f->device, config, &cache), OCTAVO_OK);
    memset(model, 0, sizeof model);
    for (int32_t g = 0; g < cache->group_count; g++) /* a page's unwritten bytes are nobody's, but snapshots read them */
        memset(cache->groups[g].pool, 0xff, (size_t)(cache->groups[g].layers * cache->pages * cache->page_bytes));
    return cache;
}

static octavo_kvcache *create_small(fixture *f)
{
    const octavo_kvcache_config config = small_config();
    return create(f, &config);
}

static void destroy_small(octavo_kvcache *cache)
{
    for (int32_t s = 0; s < SEQUENCES; s++)
        if (model[s].alive) assert_int_equal(octavo_kvcache_free(cache, s), OCTAVO_OK);
    for (int32_t g = 0; g < cache->group_count; g++) assert_int_equal(octavo_kvcache_free_pages(cache, g), cache->pages);
    octavo_kvcache_destroy(cache);
}

/* ---- random operations ---- */

static struct {
    int forks, truncations, full_pools, lost_windows;
    int64_t longest;
} seen; /* what the random walk met: without it, it would test little */

static octavo_status reserve_some(octavo_kvcache *cache, int32_t s, int64_t tokens)
{
    const snapshot before = take_snapshot(cache);
    const octavo_status status = octavo_kvcache_reserve(cache, s, tokens);
    if (status == OCTAVO_OK) {
        model[s].reserved_at = model[s].length;
        free(before.host);
        free(before.device);
        return status;
    }
    assert_int_equal(status, model[s].length + tokens > TOKENS ? OCTAVO_E_RANGE : OCTAVO_E_NOMEM);
    seen.full_pools += status == OCTAVO_E_NOMEM;
    check_unchanged(cache, before);
    return status;
}

static void random_step(fixture *f, octavo_kvcache *cache)
{
    const int64_t tokens = 1 + draw(f, draw(f, 4) ? 4 : 40);
    int32_t batch = 0, sequences[SEQUENCES];
    for (int32_t i = 0; i < SEQUENCES; i++) {
        const int32_t s = SEQUENCES - 1 - i;
        if (model[s].alive && draw(f, 2) && reserve_some(cache, s, tokens) == OCTAVO_OK) sequences[batch++] = s;
    }
    if (batch > 0) append_all_layers(f, cache, batch, sequences, tokens);
}

static void random_truncate(fixture *f, octavo_kvcache *cache, int32_t s)
{
    const int64_t length = draw(f, (uint32_t)model[s].length + 1);
    const snapshot before = take_snapshot(cache);
    const octavo_status status = octavo_kvcache_truncate(cache, s, length);
    if (status != OCTAVO_OK) {
        assert_int_equal(status, OCTAVO_E_RANGE);
        assert_true(length < model[s].reserved_at);
        seen.lost_windows++;
        check_unchanged(cache, before);
        return;
    }
    model[s].length = length;
    free(before.host);
    free(before.device);
}

static void test_random_operations(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    for (int step = 0; step < 3000; step++) {
        const int32_t s = (int32_t)draw(f, SEQUENCES);
        const uint32_t what = draw(f, 16);
        if (!model[s].alive) {
            if (what < 4 && model[(s + 1) % SEQUENCES].alive) fork_of(cache, (s + 1) % SEQUENCES), seen.forks++;
            else if (what < 8) new_sequence(cache);
        } else if (what == 0) {
            assert_int_equal(octavo_kvcache_free(cache, s), OCTAVO_OK);
            model[s].alive = 0;
        } else if (what < 4) {
            random_truncate(f, cache, s), seen.truncations++;
        } else if (what == 4) {
            reserve_some(cache, s, draw(f, 60));
        } else {
            random_step(f, cache);
        }
        if (model[s].length > seen.longest) seen.longest = model[s].length;
        check_contents(cache);
        check_references(cache);
    }
    assert_true(seen.forks > 50 && seen.truncations > 100 && seen.full_pools > 50 && seen.lost_windows > 20);
    assert_true(seen.longest > TOKENS - BLOCK);
    destroy_small(cache);
}

/* ---- one behaviour each ---- */

static void test_reserve_is_all_or_nothing(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    const int32_t a = new_sequence_of(f, cache, TOKENS), b = new_sequence_of(f, cache, TOKENS), c = new_sequence_of(f, cache, 50);
    const int32_t d = fork_of(cache, c);
    /* Full attention: 10 + 10 + 4 of 26 pages. The window's group would give back enough, but only both may go ahead. */
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), 2);
    snapshot before = take_snapshot(cache);
    assert_int_equal(octavo_kvcache_reserve(cache, d, 50), OCTAVO_E_NOMEM); /* 3 new pages and a copy */
    assert_non_null(strstr(octavo_last_error(), "group 0"));
    check_unchanged(cache, before);
    before = take_snapshot(cache);
    assert_int_equal(octavo_kvcache_reserve(cache, c, TOKENS - 49), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_reserve(cache, c, INT64_MAX), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_reserve(cache, c, -1), OCTAVO_E_ARGUMENT);
    check_unchanged(cache, before);
    assert_int_equal(octavo_kvcache_reserve(cache, d, 14), OCTAVO_OK); /* exactly the copy */
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), 1);
    assert_int_equal(octavo_kvcache_reserve(cache, a, 0), OCTAVO_OK);
    uint16_t row[ROW];
    draw_rows(f, row, 1); /* the last page has room that max_tokens forbids */
    assert_int_equal(append(f, cache, 0, 1, &a, 1, row), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_free(cache, b), OCTAVO_OK);
    model[b].alive = 0;
    check_contents(cache);
    destroy_small(cache);
}

static void test_fork_then_diverge(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    uint16_t rows[ROW];
    const int32_t parent = new_sequence_of(f, cache, 20);
    assert_int_equal(octavo_kvcache_reserve(cache, parent, 30), OCTAVO_OK);
    const int64_t free_before = octavo_kvcache_free_pages(cache, 0);
    const int32_t child = fork_of(cache, parent);
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), free_before);

    draw_rows(f, rows, 1); /* neither may write the page that both hold, although both have one */
    assert_int_equal(append(f, cache, 0, 1, &child, 1, rows), OCTAVO_E_RANGE);
    assert_int_equal(append(f, cache, 0, 1, &parent, 1, rows), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_reserve(cache, child, 2), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), free_before - 1);
    assert_int_equal(octavo_kvcache_reserve(cache, parent, 2), OCTAVO_OK); /* it is alone with the old page by now */
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), free_before - 1);
    append_all_layers(f, cache, 2, (int32_t[]){ child, parent }, 2);
    check_contents(cache);
    check_references(cache);
    destroy_small(cache);
}

/* A fork in the middle of a step, while the layers differ in length. */
static void test_fork_between_layers(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    const int32_t parent = new_sequence_of(f, cache, 20);
    uint16_t rows[LAYERS][14 * ROW];
    for (int32_t layer = 0; layer < LAYERS; layer++) draw_rows(f, rows[layer], 14);
    assert_int_equal(octavo_kvcache_reserve(cache, parent, 14), OCTAVO_OK);
    assert_int_equal(append(f, cache, 0, 1, &parent, 14, rows[0]), OCTAVO_OK);
    const int32_t child = fork_of(cache, parent);
    assert_int_equal(octavo_kvcache_length(cache, child, 0), 34);
    assert_int_equal(octavo_kvcache_length(cache, child, 1), 20);
    assert_int_equal(append(f, cache, 1, 1, &parent, 14, rows[1]), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_reserve(cache, parent, 0), OCTAVO_OK);
    for (int32_t layer = 1; layer < LAYERS; layer++) assert_int_equal(append(f, cache, layer, 1, &parent, 14, rows[layer]), OCTAVO_OK);
    for (int32_t layer = 0; layer < LAYERS; layer++) memcpy(model[parent].rows[layer][20], rows[layer], sizeof rows[layer]);
    model[parent].length = 34;
    assert_int_equal(octavo_kvcache_truncate(cache, child, 30), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_length(cache, child, 0), 30);
    assert_int_equal(octavo_kvcache_length(cache, child, 1), 20); /* no layer grows */
    assert_int_equal(octavo_kvcache_truncate(cache, child, 20), OCTAVO_OK); /* roll the half step back */
    check_contents(cache);
    check_references(cache);
    destroy_small(cache);
}

static void test_truncate(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    const int32_t a = new_sequence_of(f, cache, 34), b = fork_of(cache, a);
    assert_int_equal(octavo_kvcache_truncate(cache, a, 35), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_truncate(cache, a, -1), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_kvcache_truncate(cache, a, 20), OCTAVO_OK);
    model[a].length = 20;
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), PAGES - 3); /* the other still holds the third page */
    assert_int_equal(octavo_kvcache_truncate(cache, b, 32), OCTAVO_OK);
    model[b].length = 32;
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), PAGES - 2);
    uint16_t row[ROW];
    draw_rows(f, row, 1);
    assert_int_equal(append(f, cache, 0, 1, &a, 1, row), OCTAVO_E_RANGE); /* tokens 20 to 31 of that page are the other's */
    assert_int_equal(octavo_kvcache_reserve(cache, a, 3), OCTAVO_OK);
    append_all_layers(f, cache, 1, &a, 3);
    check_contents(cache);
    assert_int_equal(octavo_kvcache_reserve(cache, a, 60), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_truncate(cache, a, 23), OCTAVO_OK); /* room goes back, too */
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), PAGES - 3);
    check_references(cache);
    destroy_small(cache);
}

static void test_window_gives_pages_back(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    const int32_t s = new_sequence(cache);
    for (int i = 0; i < TOKENS; i++) {
        assert_int_equal(reserve_some(cache, s, 1), OCTAVO_OK);
        check_contents(cache); /* the newest token may still be asked about */
        append_all_layers(f, cache, 1, &s, 1);
        check_contents(cache);
        assert_true(PAGES - octavo_kvcache_free_pages(cache, 1) <= 1 + (WINDOW + BLOCK - 1) / BLOCK + 1); /* sink, window, edge */
    }
    octavo_kv_view view;
    assert_int_equal(octavo_kvcache_view(cache, 2, 1, &s, &view), OCTAVO_OK);
    const int32_t *table = view.page_table + s * view.page_table_stride;
    assert_true(table[0] >= 0);
    for (int b = 1; b < (TOKENS - 1 - WINDOW) / BLOCK; b++) assert_int_equal(table[b], -1);
    assert_int_equal(PAGES - octavo_kvcache_free_pages(cache, 0), (TOKENS + BLOCK - 1) / BLOCK); /* full attention keeps all */

    assert_int_equal(octavo_kvcache_truncate(cache, s, TOKENS - 2 * BLOCK), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_truncate(cache, s, BLOCK + 1), OCTAVO_E_RANGE);
    const int32_t child = fork_of(cache, s);
    assert_int_equal(octavo_kvcache_truncate(cache, child, TOKENS - 1), OCTAVO_OK);
    model[child].length = TOKENS - 1;
    check_references(cache);
    assert_int_equal(octavo_kvcache_truncate(cache, s, BLOCK), OCTAVO_OK); /* only the sink's page is seen from there */
    model[s].length = BLOCK;
    assert_int_equal(octavo_kvcache_reserve(cache, s, 40), OCTAVO_OK);
    append_all_layers(f, cache, 1, &s, 40);
    check_contents(cache);
    check_references(cache);
    destroy_small(cache);
}

/* A pool that holds no page more than the window needs. */
static void test_window_lives_off_its_own_pages(void **state)
{
    fixture *f = *state;
    const octavo_kvcache_group windowed = { LAYERS, 0, WINDOW };
    octavo_kvcache_config config = small_config();
    config.groups = &windowed;
    config.group_count = 1;
    config.pages = 4;
    octavo_kvcache *cache = create(f, &config);
    const int32_t s = new_sequence(cache);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(octavo_kvcache_reserve(cache, s, BLOCK), OCTAVO_OK);
        append_all_layers(f, cache, 1, &s, BLOCK);
        check_references(cache);
    }
    assert_int_equal(octavo_kvcache_free_pages(cache, 0), 0);
    const int32_t child = fork_of(cache, s);
    assert_int_equal(reserve_some(cache, s, 1), OCTAVO_E_NOMEM); /* what leaves this window is still the child's */
    assert_int_equal(octavo_kvcache_free(cache, child), OCTAVO_OK);
    model[child].alive = 0;

    /* While layer 0 is a block ahead, the others still see their older window. */
    uint16_t rows[BLOCK * ROW];
    draw_rows(f, rows, BLOCK);
    assert_int_equal(reserve_some(cache, s, BLOCK), OCTAVO_OK);
    assert_int_equal(append(f, cache, 0, 1, &s, BLOCK, rows), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_reserve(cache, s, 0), OCTAVO_OK);
    assert_int_equal(octavo_kvcache_truncate(cache, s, 5 * BLOCK), OCTAVO_OK);
    check_contents(cache);
    check_references(cache);
    destroy_small(cache);
}

static void test_refused_appends_change_nothing(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    const int32_t a = new_sequence_of(f, cache, 10), b = new_sequence_of(f, cache, 16), both[] = { a, b };
    uint16_t rows[2 * 2 * ROW];
    draw_rows(f, rows, 4);
    const size_t pool_bytes = (size_t)(2 * PAGES * cache->page_bytes);
    uint8_t *pool = malloc(pool_bytes);
    memcpy(pool, cache->groups[0].pool, pool_bytes);

    assert_int_equal(append(f, cache, 0, 2, both, 2, rows), OCTAVO_E_RANGE); /* a has room, b has none */
    assert_int_equal(octavo_kvcache_reserve(cache, b, 2), OCTAVO_OK);
    assert_int_equal(append(f, cache, 0, 2, (int32_t[]){ a, a }, 2, rows), OCTAVO_E_ARGUMENT);
    assert_int_equal(append(f, cache, 0, 2, (int32_t[]){ a, 4 }, 2, rows), OCTAVO_E_RANGE);
    assert_int_equal(append(f, cache, LAYERS, 2, both, 2, rows), OCTAVO_E_RANGE);
    assert_int_equal(append(f, cache, -1, 2, both, 2, rows), OCTAVO_E_RANGE);
    assert_int_equal(append(f, cache, 0, 0, both, 2, rows), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_kvcache_append(&f->exec, cache, 0, 2, both, NULL, NULL), OCTAVO_E_ARGUMENT);
    rows[3 * ROW + 1] = 0x7f80; /* infinity in b's second token */
    assert_int_equal(append(f, cache, 0, 2, both, 2, rows), OCTAVO_E_NONFINITE);
    assert_memory_equal(cache->groups[0].pool, pool, pool_bytes);
    check_contents(cache);
    append_all_layers(f, cache, 2, both, 2);
    check_contents(cache);
    free(pool);
    destroy_small(cache);
}

static void test_sequences_run_out(void **state)
{
    fixture *f = *state;
    octavo_kvcache *cache = create_small(f);
    int32_t s;
    octavo_kv_view view;
    for (int i = 0; i < SEQUENCES; i++) new_sequence(cache);
    assert_int_equal(octavo_kvcache_sequence(cache, &s), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_fork(cache, 0, &s), OCTAVO_E_RANGE);
    assert_int_equal(octavo_kvcache_free(cache, 2), OCTAVO_OK);
    model[2].alive = 0;
    const int32_t dead[] = { -1, 2, SEQUENCES, INT32_MAX };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(octavo_kvcache_free(cache, dead[i]), OCTAVO_E_RANGE);
        assert_int_equal(octavo_kvcache_reserve(cache, dead[i], 1), OCTAVO_E_RANGE);
        assert_int_equal(octavo_kvcache_truncate(cache, dead[i], 0), OCTAVO_E_RANGE);
        assert_int_equal(octavo_kvcache_fork(cache, dead[i], &s), OCTAVO_E_RANGE);
        assert_int_equal(octavo_kvcache_view(cache, 0, 1, &dead[i], &view), OCTAVO_E_RANGE);
        assert_int_equal(octavo_kvcache_length(cache, dead[i], 0), -1);
    }
    assert_int_equal(octavo_kvcache_length(cache, 0, LAYERS), -1);
    assert_int_equal(octavo_kvcache_free_pages(cache, 2), -1);
    assert_int_equal(new_sequence(cache), 2);
    destroy_small(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_reserve_is_all_or_nothing),
        cmocka_unit_test(test_fork_then_diverge),
        cmocka_unit_test(test_fork_between_layers),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_window_gives_pages_back),
        cmocka_unit_test(test_window_lives_off_its_own_pages),
        cmocka_unit_test(test_refused_appends_change_nothing),
        cmocka_unit_test(test_sequences_run_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
