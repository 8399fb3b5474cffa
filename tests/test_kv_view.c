/* test_kv_view.c - views: page layout, caller's tensors in place, and everything that a check refuses. */
#include "encode_fixture.h"
#include "kernel/page.h"
#include "kvcache/kv_view_check.h"

enum { K_FIRST = OCTAVO_K_BF16, K_LAST = OCTAVO_K_F32, V_FIRST = OCTAVO_V_BF16, V_LAST = OCTAVO_V_F32 };

static octavo_page_config config_of(octavo_k_format k, octavo_v_format v, int32_t heads, int32_t dim, int32_t v_dim)
{
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    config.k_format = k;
    config.v_format = v;
    config.kv_heads = heads;
    config.head_dim = dim;
    config.v_dim = v_dim;
    return config;
}

/* Marks entries of a section over all pages and heads; no byte may be marked twice or lie outside the pool. */
static void mark(const octavo_kv_view *view, const octavo_section *section, int64_t entries, int64_t bytes, uint8_t *pool,
                 uint8_t *marked, size_t pool_bytes)
{
    for (int64_t page = 0; section->data && page < view->pages; page++)
        for (int64_t head = 0; head < view->kv_heads; head++)
            for (int64_t entry = 0; entry < entries; entry++) {
                const int64_t at = octavo_section_at(section, 0, page, head, entry) - pool;
                assert_true(at >= 0 && at + bytes <= (int64_t)pool_bytes);
                for (int64_t i = 0; i < bytes; i++) assert_int_equal(marked[at + i]++, 0);
            }
}

static void test_page_sections_are_apart(void **state)
{
    (void)state;
    static const int32_t dims[][4] = { { 128, 128, 64, 64 },
                                       { 65, 33, 16, 4 },
                                       { 1, 3, 1, 1 } }; /* head_dim, v_dim, block, sub */
    for (int k = K_FIRST; k <= K_LAST; k++)
        for (int v = V_FIRST; v <= V_LAST; v++)
            for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
                octavo_page_config config = config_of((octavo_k_format)k, (octavo_v_format)v, 3, dims[i][0], dims[i][1]);
                config.block_tokens = dims[i][2];
                config.sub_block_tokens = dims[i][3];
                size_t bytes = 0;
                assert_int_equal(octavo_page_bytes(&config, &bytes), OCTAVO_OK);
                assert_true(bytes > 0 && bytes % 256 == 0);
                uint8_t *pool = fixture_memory(2 * bytes, 0), *marked = fixture_memory(2 * bytes, 0);
                octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
                assert_int_equal(octavo_kv_view_over_pool(&config, pool, 2, 0, &view), OCTAVO_OK);
                for (int plane = 0; plane < OCTAVO_MAX_PLANES; plane++)
                    mark(&view, &view.k[plane], dims[i][2], octavo_k_row_bytes(view.k_format, dims[i][0]), pool, marked,
                         2 * bytes);
                mark(&view, &view.k_scale, dims[i][2], octavo_k_scale_bytes(view.k_format), pool, marked, 2 * bytes);
                mark(&view, &view.k_norm, dims[i][2], 1, pool, marked, 2 * bytes);
                mark(&view, &view.v, dims[i][2], octavo_v_row_bytes(view.v_format, dims[i][1]), pool, marked, 2 * bytes);
                mark(&view, &view.v_scale, dims[i][2], octavo_v_scale_bytes(view.v_format), pool, marked, 2 * bytes);
                mark(&view, &view.v_mean, dims[i][2] / dims[i][3], dims[i][1], pool, marked, 2 * bytes);
                mark(&view, &view.v_mean_scale, dims[i][2] / dims[i][3], 1, pool, marked, 2 * bytes);
                const int nested = k >= OCTAVO_K_E4M3X2 && k <= OCTAVO_K_INT4X2;
                assert_int_equal(!!view.k[1].data, nested);
                assert_int_equal(!!view.k_norm.data, nested);
                free(pool);
                free(marked);
            }
}

static void test_page_bytes_and_defaults(void **state)
{
    (void)state;
    octavo_page_config config = config_of(OCTAVO_K_E4M3X2, OCTAVO_V_E4M3, 8, 128, 0);
    size_t bytes = 1;
    assert_int_equal(octavo_page_bytes(&config, &bytes), OCTAVO_OK);
    /* Three planes of 64 x 128; K scales, one mean row and its exponent in 256 behind the first; V scales and norms in 256 at the end. */
    assert_int_equal(bytes, 8 * (3 * 64 * 128 + 256 + 256));
#define REFUSED(change, status, words)                                \
    do {                                                              \
        octavo_page_config c = config;                                \
        change;                                                       \
        assert_refused(octavo_page_bytes(&c, &bytes), status, words); \
        assert_int_equal(bytes, 0);                                   \
    } while (0)
    REFUSED(c.struct_size = 4, OCTAVO_E_VERSION, "octavo_page_config");
    REFUSED(c.k_format = (octavo_k_format)11, OCTAVO_E_ARGUMENT, "k_format is 11");
    REFUSED(c.v_format = (octavo_v_format)0, OCTAVO_E_ARGUMENT, "v_format is 0");
    REFUSED(c.kv_heads = 0, OCTAVO_E_ARGUMENT, "kv_heads is 0");
    REFUSED(c.head_dim = 65537, OCTAVO_E_ARGUMENT, "head_dim is 65537");
    REFUSED(c.v_dim = -1, OCTAVO_E_ARGUMENT, "v_dim is -1");
    REFUSED(c.block_tokens = -64, OCTAVO_E_ARGUMENT, "block_tokens is -64");
    REFUSED(c.sub_block_tokens = 48, OCTAVO_E_SHAPE, "sub_block_tokens is 48, expected a divisor of block_tokens = 64");
#undef REFUSED
    assert_refused(octavo_page_bytes(NULL, &bytes), OCTAVO_E_ARGUMENT, "config is NULL");
    assert_refused(octavo_page_bytes(&config, NULL), OCTAVO_E_ARGUMENT, "bytes is NULL");
    config = config_of(OCTAVO_K_BF16, OCTAVO_V_BF16, 65536, 65536, 65536);
    config.block_tokens = 65536;
    assert_int_equal(octavo_page_bytes(&config, &bytes), OCTAVO_OK);
    assert_true(bytes > (size_t)1 << 49);
}

static void test_pool_refusals(void **state)
{
    (void)state;
    const octavo_page_config config = config_of(OCTAVO_K_INT8, OCTAVO_V_INT8, 1, 16, 0);
    size_t bytes;
    assert_int_equal(octavo_page_bytes(&config, &bytes), OCTAVO_OK);
    uint8_t *pool = fixture_memory(bytes, 0);
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    const int64_t page = (int64_t)bytes;
    assert_refused(octavo_kv_view_over_pool(&config, NULL, 1, 0, &view), OCTAVO_E_ARGUMENT, "pool is NULL");
    assert_refused(octavo_kv_view_over_pool(&config, pool + 1, 1, 0, &view), OCTAVO_E_ARGUMENT, "pool is not aligned");
    assert_refused(octavo_kv_view_over_pool(&config, pool, 0, 0, &view), OCTAVO_E_ARGUMENT, "pages is 0");
    assert_refused(octavo_kv_view_over_pool(&config, pool, 1, page - 64, &view), OCTAVO_E_ARGUMENT, "page_stride");
    assert_refused(octavo_kv_view_over_pool(&config, pool, 1, page + 1, &view), OCTAVO_E_ARGUMENT, "page_stride");
    assert_refused(octavo_kv_view_over_pool(&config, pool, 1 << 20, INT64_MAX / 64 * 64, &view), OCTAVO_E_RANGE, "address space");
    assert_refused(octavo_kv_view_over_pool(&config, pool, 1, 0, NULL), OCTAVO_E_ARGUMENT, "view is NULL");
    assert_null(view.v.data);
    assert_int_equal(octavo_kv_view_over_pool(&config, pool, 1, page + 640, &view), OCTAVO_OK);
    assert_int_equal(view.v.page_bytes, page + 640);
    free(pool);
}

/* Head-major tensors [batch, heads, tokens, dim] with their axes turned. */
static void test_tensors_in_place(void **state)
{
    (void)state;
    enum { B = 2, H = 3, T = 10, D = 5, DV = 7 };
    static uint8_t k[2][B][H][T][D], v[B][H][T][DV];
    static int8_t p[B][T][H];
    static int32_t lengths[B] = { T, 4 };
    octavo_page_config config = config_of(OCTAVO_K_E4M3X2, OCTAVO_V_E4M3, H, D, DV);
    config.block_tokens = 4;
    octavo_tensor planes[2], values = octavo_tensor_view(v, OCTAVO_E4M3, 4, (const int64_t[]){ B, H, T, DV });
    for (int i = 0; i < 2; i++) planes[i] = octavo_tensor_view(k[i], OCTAVO_UINT8, 4, (const int64_t[]){ B, H, T, D });
    octavo_tensor *turned[] = { &planes[0], &planes[1], &values };
    for (int i = 0; i < 3; i++) {
        turned[i]->shape[1] = T;
        turned[i]->shape[2] = H;
        turned[i]->strides[2] = turned[i]->strides[1];
        turned[i]->strides[1] = i < 2 ? D : DV;
    }
    const octavo_tensor scale = octavo_tensor_view(p, OCTAVO_INT8, 3, (const int64_t[]){ B, T, H });
    octavo_kv_view view;
    assert_int_equal(octavo_kv_view_over_tensors(&config, planes, &scale, &values, NULL, lengths, &view), OCTAVO_OK);
    assert_int_equal(octavo_kv_view_check(&view), OCTAVO_OK);
    assert_int_equal(octavo_kv_view_units(&view), 3);
    assert_null(view.v_scale.data);
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < H; h++) {
                const int64_t page = octavo_view_page(&view, b, t / 4);
                assert_ptr_equal(octavo_section_at(&view.k[1], b, page, h, t % 4), &k[1][b][h][t][0]);
                assert_ptr_equal(octavo_section_at(&view.v, b, page, h, t % 4), &v[b][h][t][0]);
                assert_ptr_equal(octavo_section_at(&view.k_scale, b, page, h, t % 4), &p[b][t][h]);
            }
    octavo_tensor wrong = planes[0];
    const octavo_tensor mixed[2] = { planes[0], values };
    wrong.dtype = OCTAVO_INT8;
    assert_refused(octavo_kv_view_over_tensors(&config, &wrong, &scale, &values, NULL, lengths, &view), OCTAVO_E_ARGUMENT,
                   "k_planes[0] has dtype int8, expected e4m3, uint8");
    assert_refused(octavo_kv_view_over_tensors(&config, mixed, &scale, &values, NULL, lengths, &view), OCTAVO_E_SHAPE,
                   "k_planes[1].shape[3] is 7, expected 5");
    assert_refused(octavo_kv_view_over_tensors(&config, planes, &values, &values, NULL, lengths, &view), OCTAVO_E_SHAPE,
                   "expected 3");
    assert_refused(octavo_kv_view_over_tensors(&config, planes, NULL, NULL, NULL, lengths, &view), OCTAVO_E_ARGUMENT,
                   "v is NULL");
    config.k_format = OCTAVO_K_INT8;
    assert_refused(octavo_kv_view_over_tensors(&config, &wrong, NULL, &values, NULL, lengths, &view), OCTAVO_E_ARGUMENT,
                   "view.k_scale.data is NULL");
}

typedef struct paged_fixture {
    octavo_kv_view view;
    uint8_t *pool;
    int32_t table[2][3], lengths[2];
} paged_fixture;

static void make_paged(paged_fixture *made, octavo_k_format k, octavo_v_format v)
{
    octavo_page_config config = config_of(k, v, 2, 16, 0);
    size_t bytes;
    config.block_tokens = 8;
    config.sub_block_tokens = 4;
    assert_int_equal(octavo_page_bytes(&config, &bytes), OCTAVO_OK);
    made->pool = fixture_memory(6 * bytes, 0);
    assert_int_equal(octavo_kv_view_over_pool(&config, made->pool, 6, 0, &made->view), OCTAVO_OK);
    for (int i = 0; i < 6; i++) made->table[i / 3][i % 3] = 5 - i;
    made->lengths[0] = 24;
    made->lengths[1] = 9;
    made->view.batch = 2;
    made->view.max_tokens = 24;
    made->view.lengths = made->lengths;
    made->view.page_table = made->table[0];
    made->view.page_table_stride = 3;
}

static void test_check_refusals(void **state)
{
    (void)state;
    paged_fixture made;
    make_paged(&made, OCTAVO_K_INT8X2, OCTAVO_V_INT8);
    assert_int_equal(octavo_kv_view_check(&made.view), OCTAVO_OK);
#define REFUSED(change, status, words)                              \
    do {                                                            \
        octavo_kv_view view = made.view;                            \
        change;                                                     \
        assert_refused(octavo_kv_view_check(&view), status, words); \
    } while (0)
    assert_refused(octavo_kv_view_check(NULL), OCTAVO_E_ARGUMENT, "NULL");
    REFUSED(view.struct_size++, OCTAVO_E_VERSION, "octavo_kv_view");
    REFUSED(view.k_format = (octavo_k_format)0, OCTAVO_E_ARGUMENT, "k_format is 0");
    REFUSED(view.k_format = (octavo_k_format)11, OCTAVO_E_ARGUMENT, "k_format is 11");
    REFUSED(view.v_format = (octavo_v_format)6, OCTAVO_E_ARGUMENT, "v_format is 6");
    REFUSED(view.kv_heads = 0, OCTAVO_E_ARGUMENT, "kv_heads is 0");
    REFUSED(view.head_dim = 70000, OCTAVO_E_ARGUMENT, "head_dim is 70000");
    REFUSED(view.v_dim = -3, OCTAVO_E_ARGUMENT, "v_dim is -3");
    REFUSED(view.sub_block_tokens = 3, OCTAVO_E_SHAPE, "sub_block_tokens is 3");
    REFUSED(view.batch = 0, OCTAVO_E_SHAPE, "batch is 0");
    REFUSED(view.max_tokens = 0, OCTAVO_E_SHAPE, "max_tokens is 0");
    REFUSED(view.max_tokens = INT64_C(1) << 31, OCTAVO_E_SHAPE, "max_tokens is 2147483648");
    REFUSED(view.lengths = NULL, OCTAVO_E_ARGUMENT, "lengths is NULL");
    REFUSED(view.pages = 0, OCTAVO_E_SHAPE, "pages is 0");
    REFUSED(view.page_table_stride = 2, OCTAVO_E_SHAPE, "page_table_stride is 2, expected at least 3");
    REFUSED(view.k[1].data = NULL, OCTAVO_E_ARGUMENT, "view.k[1].data is NULL, expected memory: the format int8x2 needs it");
    REFUSED(view.k_scale.data = NULL, OCTAVO_E_ARGUMENT, "k_scale.data is NULL");
    REFUSED(view.v.data = NULL, OCTAVO_E_ARGUMENT, "view.v.data is NULL");
    REFUSED(view.v_scale.data = NULL, OCTAVO_E_ARGUMENT, "v_scale.data is NULL");
    REFUSED(view.v_mean.data = NULL, OCTAVO_E_ARGUMENT, "v_mean.data is NULL, expected v_mean and v_mean_scale");
    REFUSED(view.k_scale.token_bytes = 3, OCTAVO_E_ARGUMENT, "k_scale is not aligned");
    REFUSED(view.v.page_bytes = INT64_MAX, OCTAVO_E_RANGE, "view.v has");
    REFUSED(view.v_channel_scale = (float[]){ 1.0f }, OCTAVO_E_ARGUMENT, "v_channel_scale is given for int8");
    REFUSED((view.k_format = OCTAVO_K_E4M3X2, view.k_residual_exponent = 3), OCTAVO_E_ARGUMENT, "k_residual_exponent is 3");
    REFUSED(view.sequences = ((const int32_t[]){ 0, -1 }), OCTAVO_E_RANGE, "sequences[1] is -1");
    REFUSED(made.lengths[1] = 25, OCTAVO_E_RANGE, "lengths[1] is 25");
    REFUSED(made.lengths[1] = -1, OCTAVO_E_RANGE, "lengths[1] is -1");
    made.lengths[1] = 9;
    REFUSED(made.table[1][1] = 6, OCTAVO_E_RANGE, "page 6 for block 1, expected 0 to 5");
    REFUSED(made.table[1][1] = -1, OCTAVO_E_RANGE, "page -1 for block 1");
    made.lengths[1] = 8; /* no length reaches the stale page any more */
    assert_int_equal(octavo_kv_view_check(&made.view), OCTAVO_OK);
    free(made.pool);
    make_paged(&made, OCTAVO_K_F32, OCTAVO_V_F32);
    assert_int_equal(octavo_kv_view_check(&made.view), OCTAVO_OK);
    REFUSED(view.k[0].token_bytes += 2, OCTAVO_E_ARGUMENT, "k[0] is not aligned, expected its data and strides to be multiples of 4");
    REFUSED(view.v.data = (uint8_t *)view.v.data + 2, OCTAVO_E_ARGUMENT, "view.v is not aligned");
    free(made.pool);
#undef REFUSED
}

static void test_parts_and_overlap(void **state)
{
    (void)state;
    paged_fixture made;
    make_paged(&made, OCTAVO_K_BF16, OCTAVO_V_F16);
    octavo_kv_view view = made.view;
    view.lengths = NULL;
    view.v.data = NULL;
    assert_int_equal(octavo_kv_view_validate_parts(&view, OCTAVO_VIEW_K), OCTAVO_OK);
    assert_refused(octavo_kv_view_validate(&view), OCTAVO_E_ARGUMENT, "lengths");
    view = made.view;
    const octavo_extent inside = octavo_array_extent((uint8_t *)view.v.data + 5 * view.v.page_bytes, 1);
    const octavo_extent behind = octavo_array_extent(made.pool + 6 * view.v.page_bytes, 64);
    assert_refused(octavo_kv_view_check_overlap(&view, OCTAVO_VIEW_ALL, inside, "it"), OCTAVO_E_ARGUMENT,
                   "it overlaps view.k[0]");
    assert_refused(octavo_kv_view_check_overlap(&view, OCTAVO_VIEW_V, inside, "it"), OCTAVO_E_ARGUMENT, "it overlaps view.v");
    assert_int_equal(octavo_kv_view_check_overlap(&view, OCTAVO_VIEW_ALL, behind, "it"), OCTAVO_OK);
    assert_int_equal(octavo_kv_view_units(NULL), 0);
    assert_int_equal(octavo_kv_view_units(&view), 6);
    free(made.pool);
}

/* Tensors of 70 tokens in blocks of 64 end with their last token, not with its block. */
static void test_overlap_behind_a_short_block(void **state)
{
    (void)state;
    enum { TOKENS = 70, DIM = 8 };
    static float k[TOKENS * DIM + 1], v[TOKENS * DIM + 1];
    const int64_t shape[] = { 1, TOKENS, 1, DIM };
    const octavo_tensor keys = octavo_tensor_view(k, OCTAVO_F32, 4, shape), values = octavo_tensor_view(v, OCTAVO_F32, 4, shape);
    int32_t lengths[] = { TOKENS };
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    config.k_format = OCTAVO_K_F32, config.v_format = OCTAVO_V_F32, config.kv_heads = 1, config.head_dim = DIM, config.v_dim = DIM;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    assert_int_equal(octavo_kv_view_over_tensors(&config, &keys, NULL, &values, NULL, lengths, &view), OCTAVO_OK);
    assert_int_equal(view.block_tokens, 64);
    const octavo_extent last = octavo_array_extent(k + TOKENS * DIM - 1, sizeof *k), behind = octavo_array_extent(k + TOKENS * DIM, sizeof *k);
    assert_refused(octavo_kv_view_check_overlap(&view, OCTAVO_VIEW_K, last, "it"), OCTAVO_E_ARGUMENT, "it overlaps view.k[0]");
    assert_int_equal(octavo_kv_view_check_overlap(&view, OCTAVO_VIEW_K, behind, "it"), OCTAVO_OK);
}

static void test_names(void **state)
{
    (void)state;
    for (int k = K_FIRST; k <= K_LAST; k++) {
        octavo_k_format format = (octavo_k_format)0;
        assert_int_equal(octavo_k_format_parse(octavo_k_format_name((octavo_k_format)k), &format), OCTAVO_OK);
        assert_int_equal((int)format, k);
    }
    for (int v = V_FIRST; v <= V_LAST; v++) {
        octavo_v_format format = (octavo_v_format)0;
        assert_int_equal(octavo_v_format_parse(octavo_v_format_name((octavo_v_format)v), &format), OCTAVO_OK);
        assert_int_equal((int)format, v);
    }
    octavo_k_format k = OCTAVO_K_BF16;
    octavo_v_format v = OCTAVO_V_BF16;
    assert_string_equal(octavo_k_format_name(OCTAVO_K_INT4X2), "int4x2");
    assert_string_equal(octavo_k_format_name((octavo_k_format)77), "unknown");
    assert_string_equal(octavo_v_format_name((octavo_v_format)-1), "unknown");
    assert_refused(octavo_k_format_parse("fp8", &k), OCTAVO_E_ARGUMENT,
                   "'fp8' is no K format, expected one of bf16, f16, e4m3, e5m2, int8, e4m3x2, e5m2x2, int8x2, int4x2, f32");
    assert_refused(octavo_v_format_parse("e5m2", &v), OCTAVO_E_ARGUMENT, "expected one of bf16, f16, e4m3, int8, f32");
    assert_refused(octavo_v_format_parse(NULL, &v), OCTAVO_E_ARGUMENT, "NULL");
    assert_int_equal((int)k, OCTAVO_K_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_sections_are_apart),
        cmocka_unit_test(test_page_bytes_and_defaults),
        cmocka_unit_test(test_pool_refusals),
        cmocka_unit_test(test_tensors_in_place),
        cmocka_unit_test(test_check_refusals),
        cmocka_unit_test(test_parts_and_overlap),
        cmocka_unit_test(test_overlap_behind_a_short_block),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
