/* test_kv_append.c - encoding into views: error bounds, norms and means of every format, the same bytes on every level. */
#include "encode_fixture.h"
#include "kernel/planes.h"
#include "ref/decode_ref.h"
#include <float.h>

enum {
    BATCH = 2,
    HEADS = 3,
    BLOCK = 8,
    SUB = 4,
    TOKENS_MAX = 29,
    PAGES = 9,
    POISON = 0x5A,
    K_COUNT = OCTAVO_K_F32,
    V_COUNT = OCTAVO_V_F32
};

/* A paged cache and the tokens that go into it. */
typedef struct cache {
    octavo_kv_view view;
    uint8_t *pool;
    size_t bytes;
    int32_t table[BATCH][4];
    octavo_tensor k, v; /* [BATCH, TOKENS_MAX, HEADS, dim] */
} cache;

static octavo_tensor random_tensor(uint64_t *seed, octavo_dtype dtype, int64_t dim)
{
    const int64_t shape[] = { BATCH, TOKENS_MAX, HEADS, dim }, count = BATCH * TOKENS_MAX * HEADS * dim;
    octavo_tensor made = octavo_tensor_view(fixture_memory((size_t)count * 4, 0), dtype, 4, shape);
    for (int64_t i = 0; i < count; i++) fixture_put(made.data, dtype, i, fixture_value(seed));
    for (int64_t i = 0; i < dim; i++) fixture_put(made.data, dtype, i + 5 * dim, 0.0f); /* one row of zeros */
    return made;
}

static cache make_cache(octavo_k_format k, octavo_v_format v, int32_t dim, int32_t v_dim, octavo_dtype dtype, uint64_t seed)
{
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    config.k_format = k;
    config.v_format = v;
    config.kv_heads = HEADS;
    config.head_dim = dim;
    config.v_dim = v_dim;
    config.block_tokens = BLOCK;
    config.sub_block_tokens = SUB;
    cache made = { 0 };
    assert_int_equal(octavo_page_bytes(&config, &made.bytes), OCTAVO_OK);
    made.bytes *= PAGES;
    made.pool = fixture_memory(made.bytes, POISON);
    assert_int_equal(octavo_kv_view_over_pool(&config, made.pool, PAGES, 0, &made.view), OCTAVO_OK);
    for (int i = 0; i < BATCH * 4; i++) made.table[i / 4][i % 4] = (i * 5 + 2) % PAGES;
    made.view.batch = BATCH;
    made.view.max_tokens = 4 * BLOCK;
    made.view.page_table_stride = 4;
    made.k = random_tensor(&seed, dtype, dim);
    made.v = random_tensor(&seed, dtype, v_dim);
    return made;
}

static void free_cache(cache *of)
{
    free(of->pool);
    free(of->k.data);
    free(of->v.data);
}

/* Tokens [from, from + count) of both sequences, whose caches begin `offset` tokens in. */
static octavo_status append(const fixture_device *open, cache *of, int32_t offset, int64_t from, int64_t count, int which)
{
    octavo_tensor k = of->k, v = of->v;
    const size_t bytes = octavo_dtype_bytes(k.dtype);
    k.shape[1] = v.shape[1] = count;
    k.data = (uint8_t *)k.data + (size_t)(from * k.strides[1]) * bytes;
    v.data = (uint8_t *)v.data + (size_t)(from * v.strides[1]) * bytes;
    const int32_t positions[BATCH] = { (int32_t)from, offset + (int32_t)from };
    of->view.page_table = of->table[0];
    return octavo_kv_append(&open->exec, &of->view, which & 1 ? &k : NULL, which & 2 ? &v : NULL, positions);
}

static double element(const octavo_tensor *tensor, int64_t b, int64_t t, int64_t h, int64_t i)
{
    return (double)fixture_get(tensor->data, tensor->dtype,
                               b * tensor->strides[0] + t * tensor->strides[1] + h * tensor->strides[2] + i);
}

/* The largest error of an element, in units of 2^-p or s, when `code` units stand for the element. */
static double k_step(octavo_k_format format, int32_t planes, double code)
{
    const double magnitude = fabs(code);
    switch (format) {
    case OCTAVO_K_F32:    return 0.0;
    case OCTAVO_K_BF16:   return magnitude * 0x1p-8;
    case OCTAVO_K_F16:    return fmax(magnitude * 0x1p-11, 0x1p-25);
    case OCTAVO_K_E4M3:   return fmax(magnitude * 0x1p-4, 0x1p-10);
    case OCTAVO_K_E5M2:   return fmax(magnitude * 0x1p-3, 0x1p-17);
    case OCTAVO_K_INT8:   return 0.5001;
    case OCTAVO_K_E4M3X2: return planes == 1 ? fmax(magnitude * 0x1p-4, 0x1p-10) : fmax(magnitude * 0x1p-8, 0x1p-14);
    case OCTAVO_K_E5M2X2: return planes == 1 ? fmax(magnitude * 0x1p-3, 0x1p-17) : fmax(magnitude * 0x1p-6, 0x1p-17);
    case OCTAVO_K_INT8X2: return planes == 1 ? 0.5001 : 0.502 / 254.0;
    case OCTAVO_K_INT4X2: return planes == 1 ? 8.0001 : 0.5001;
    }
    return 0.0;
}

/* Each plane is within its step, scales are the documented ones, the norm is at least the true one and at most one code above. */
static void check_k_row(const cache *of, int64_t b, int64_t token, int64_t from, int64_t h)
{
    const octavo_kv_view *kv = &of->view;
    const octavo_ref_token at = octavo_ref_find(kv, b, h, token);
    const double factor = octavo_ref_k_factor(kv, &at);
    double amax = 0.0, square = 0.0;
    for (int64_t i = 0; i < kv->head_dim; i++) amax = fmax(amax, fabs(element(&of->k, b, from, h, i)));
    const int64_t scale_bytes = octavo_k_scale_bytes(kv->k_format);
    if (scale_bytes == 1) {
        assert_true(amax == 0.0 ? factor == 1.0 : amax / factor <= 448.0);
        assert_true(amax == 0.0 || amax / factor > 224.0);
    } else if (scale_bytes == 2) assert_true(factor >= amax / 127.0 * 0.9999999 && factor <= amax / 127.0 * 1.008);
    for (int64_t i = 0; i < kv->head_dim; i++) {
        const double x = factor > 0.0 ? element(&of->k, b, from, h, i) / factor : 0.0;
        for (int32_t planes = 1; planes <= octavo_k_plane_count(kv->k_format); planes++) {
            const double code = factor > 0.0 ? octavo_ref_k_code(kv, &at, planes, i) : 0.0;
            assert_true(fabs(x - code) <= k_step(kv->k_format, planes, x));
            if (planes == 1) square += (x - code) * (x - code);
        }
    }
    if (!kv->k_norm.data) return;
    const uint8_t norm = *octavo_ref_at(&kv->k_norm, &at);
    assert_true((double)octavo_ue4m4_to_float(norm) >= sqrt(square));
    assert_true(norm <= octavo_ue4m4_from_float_up((float)(sqrt(square) * 1.00001)) + (factor > 0.0 ? 0 : 255));
}

static void check_v_row(const cache *of, int64_t b, int64_t token, int64_t from, int64_t h)
{
    const octavo_kv_view *kv = &of->view;
    const octavo_ref_token at = octavo_ref_find(kv, b, h, token);
    const double factor = octavo_ref_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), &at);
    for (int64_t i = 0; i < kv->v_dim; i++) {
        const double x = element(&of->v, b, from, h, i), error = fabs(x - octavo_ref_v_stored(kv, &at, i));
        switch (kv->v_format) {
        case OCTAVO_V_F32:  assert_true(error == 0.0); break;
        case OCTAVO_V_BF16: assert_true(error <= fabs(x) * 0x1p-8); break;
        case OCTAVO_V_F16:  assert_true(error <= fmax(fabs(x) * 0x1p-11, 0x1p-25)); break;
        case OCTAVO_V_E4M3: assert_true(error <= fmax(fabs(x) * 0x1p-4, factor * 0x1p-10)); break;
        case OCTAVO_V_INT8: assert_true(error <= factor * 0.5001); break;
        }
    }
}

/* The mean row is e4m3's nearest of the stored rows' mean, element by element. */
static void check_mean(const cache *of, int64_t b, int64_t unit, int64_t h)
{
    const octavo_kv_view *kv = &of->view;
    double mean[1030], amax = 0.0;
    for (int64_t i = 0; i < kv->v_dim; i++) {
        mean[i] = 0.0;
        for (int64_t t = unit * SUB; t < (unit + 1) * SUB; t++) {
            const octavo_ref_token at = octavo_ref_find(kv, b, h, t);
            mean[i] += octavo_ref_v_stored(kv, &at, i) / SUB;
        }
        amax = fmax(amax, fabs(mean[i]));
    }
    const double step = amax / 448.0 * 2.0 * 0x1p-10;
    for (int64_t i = 0; i < kv->v_dim; i++)
        assert_true(fabs(octavo_ref_v_mean(kv, b, h, unit, i) - mean[i]) <= fmax(fabs(mean[i]) * (0x1p-4 + 1e-6), step));
}

static void check_cache(const cache *of, int32_t offset)
{
    for (int64_t h = 0; h < HEADS; h++)
        for (int64_t b = 0; b < BATCH; b++) {
            const int64_t first = b ? offset : 0;
            for (int64_t t = 0; t < TOKENS_MAX; t++) {
                check_k_row(of, b, first + t, t, h);
                check_v_row(of, b, first + t, t, h);
            }
            for (int64_t unit = (first + SUB - 1) / SUB; unit < (first + TOKENS_MAX) / SUB; unit++) check_mean(of, b, unit, h);
        }
}

static const struct {
    int32_t dim, v_dim;
    octavo_dtype dtype;
} shapes[] = { { 64, 64, OCTAVO_BF16 }, { 33, 17, OCTAVO_F32 }, { 1, 5, OCTAVO_F16 },
             { 700, 1030, OCTAVO_F32 } /* longer than a kernel's chunk, and enough for several tasks */ };
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_every_format_within_its_step(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    for (int k = 1; k <= K_COUNT; k++)
        for (int s = 0; s < SHAPES; s++) {
            const octavo_v_format v = (octavo_v_format)(1 + (k + s) % V_COUNT);
            cache made = make_cache((octavo_k_format)k, v, shapes[s].dim, shapes[s].v_dim, shapes[s].dtype, (uint64_t)k);
            assert_int_equal(append(&open, &made, 3, 0, TOKENS_MAX, 3), OCTAVO_OK);
            check_cache(&made, 3);
            free_cache(&made);
        }
    fixture_close(&open);
}

static void test_same_bytes_on_every_level_and_in_any_pieces(void **state)
{
    (void)state;
    for (int k = 1; k <= K_COUNT; k++)
        for (int s = 0; s < SHAPES; s++) {
            const octavo_v_format v = (octavo_v_format)(1 + (k + s) % V_COUNT);
            fixture_device reference = fixture_open("ref");
            cache want = make_cache((octavo_k_format)k, v, shapes[s].dim, shapes[s].v_dim, shapes[s].dtype, 77);
            assert_int_equal(append(&reference, &want, 1, 0, TOKENS_MAX, 3), OCTAVO_OK);
            int index = 0;
            for (const char *level = fixture_level(&index); level; level = fixture_level(&index))
                for (int pieces = 0; pieces < 3; pieces++) { /* all at once; one by one; sevens, k before v */
                    fixture_device open = fixture_open(level);
                    open.exec.threads = 1 + pieces;
                    cache made = make_cache((octavo_k_format)k, v, shapes[s].dim, shapes[s].v_dim, shapes[s].dtype, 77);
                    const int64_t piece = pieces == 0 ? TOKENS_MAX : pieces == 1 ? 1 : 7;
                    for (int64_t t = 0; t < TOKENS_MAX; t += piece) {
                        const int64_t count = TOKENS_MAX - t < piece ? TOKENS_MAX - t : piece;
                        assert_int_equal(append(&open, &made, 1, t, count, pieces == 2 ? 1 : 3), OCTAVO_OK);
                        if (pieces == 2) assert_int_equal(append(&open, &made, 1, t, count, 2), OCTAVO_OK);
                    }
                    assert_memory_equal(made.pool, want.pool, want.bytes);
                    free_cache(&made);
                    fixture_close(&open);
                }
            free_cache(&want);
            fixture_close(&reference);
        }
}

/* The promise of e4m3x2: bf16 comes back bit for bit down to amax / 14336. */
static void test_e4m3x2_returns_bf16(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    cache made = make_cache(OCTAVO_K_E4M3X2, OCTAVO_V_BF16, 64, 64, OCTAVO_BF16, 5);
    assert_int_equal(append(&open, &made, 0, 0, TOKENS_MAX, 3), OCTAVO_OK);
    int64_t exact = 0;
    for (int64_t row = 0; row < BATCH * TOKENS_MAX * HEADS; row++) {
        const int64_t h = row % HEADS, t = row / HEADS % TOKENS_MAX, b = row / HEADS / TOKENS_MAX;
        const octavo_ref_token at = octavo_ref_find(&made.view, b, h, t);
        double amax = 0.0;
        for (int64_t i = 0; i < 64; i++) amax = fmax(amax, fabs(element(&made.k, b, t, h, i)));
        for (int64_t i = 0; i < 64; i++) {
            const double x = element(&made.k, b, t, h, i);
            const double back = octavo_ref_k_code(&made.view, &at, 2, i) * octavo_ref_k_factor(&made.view, &at);
            if (fabs(x) < amax / 14336.0) continue;
            assert_true(x == back);
            exact++;
        }
    }
    assert_true(exact > 8000);
    free_cache(&made);
    fixture_close(&open);
}

static void test_extremes_give_finite_codes(void **state)
{
    (void)state;
    static const float amax[] = { 0x1p-149f, 0x1p-140f, 0x1p-133f, 1e-38f, 1e38f, FLT_MAX };
    fixture_device open = fixture_open(NULL), reference = fixture_open("ref");
    for (int k = 1; k <= K_COUNT; k++)
        for (int v = 1; v <= V_COUNT; v++) {
            cache made = make_cache((octavo_k_format)k, (octavo_v_format)v, 24, 24, OCTAVO_F32, 3);
            for (int64_t i = 0; i < BATCH * TOKENS_MAX * HEADS * 24; i++) {
                const float top = amax[i / 24 % 6],
                            x = i % 24 == 0 ? top : top * (fixture_get(made.k.data, OCTAVO_F32, i) / 31.0f);
                ((float *)made.k.data)[i] = x;
                ((float *)made.v.data)[i] = -x;
            }
            assert_int_equal(append(&open, &made, 0, 0, TOKENS_MAX, 3), OCTAVO_OK);
            for (int64_t t = 0; t < TOKENS_MAX; t++)
                for (int64_t i = 0; i < 24; i++) {
                    const octavo_ref_token at = octavo_ref_find(&made.view, 1, 2, t);
                    assert_true(isfinite(octavo_ref_k_code(&made.view, &at, octavo_k_plane_count((octavo_k_format)k), i)));
                    assert_true(isfinite(octavo_ref_v_stored(&made.view, &at, i)));
                    if (t % SUB == 0 && t + SUB <= TOKENS_MAX)
                        assert_true(isfinite(octavo_ref_v_mean(&made.view, 1, 2, t / SUB, i)));
                }
            uint8_t *bytes = fixture_memory(made.bytes, 0);
            memcpy(bytes, made.pool, made.bytes);
            memset(made.pool, POISON, made.bytes);
            assert_int_equal(append(&reference, &made, 0, 0, TOKENS_MAX, 3), OCTAVO_OK);
            assert_memory_equal(bytes, made.pool, made.bytes);
            free(bytes);
            free_cache(&made);
        }
    fixture_close(&open);
    fixture_close(&reference);
}

/* Smoothing and factors a channel, without scales a token: caller-owned planes in place. */
static void test_tensors_with_mean_and_channel_scale(void **state)
{
    (void)state;
    enum { D = 20 };
    static uint8_t k[2][BATCH][TOKENS_MAX][HEADS][D], v[BATCH][TOKENS_MAX][HEADS][D];
    static float k_mean[BATCH][HEADS][D], channel[HEADS][D];
    int index = 0;
    for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
        fixture_device open = fixture_open(level);
        cache from = make_cache(OCTAVO_K_BF16, OCTAVO_V_BF16, D, D, OCTAVO_F32, 21);
        octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
        config.k_format = OCTAVO_K_E4M3X2;
        config.v_format = OCTAVO_V_E4M3;
        config.kv_heads = HEADS;
        config.head_dim = D;
        octavo_tensor planes[2], values = octavo_tensor_view(v, OCTAVO_E4M3, 4, from.k.shape);
        for (int i = 0; i < 2; i++) planes[i] = octavo_tensor_view(k[i], OCTAVO_E4M3, 4, from.k.shape);
        octavo_kv_view view;
        assert_int_equal(octavo_kv_view_over_tensors(&config, planes, NULL, &values, NULL, NULL, &view), OCTAVO_OK);
        view.k_residual_exponent = 0;
        view.k_mean = &k_mean[0][0][0];
        view.v_channel_scale = &channel[0][0];
        for (int i = 0; i < BATCH * HEADS * D; i++) (&k_mean[0][0][0])[i] = (float)(i % 11) * 0.25f;
        for (int i = 0; i < HEADS * D; i++) (&channel[0][0])[i] = 0.125f * (float)(1 + i % 5);
        assert_int_equal(octavo_kv_append(&open.exec, &view, &from.k, &from.v, (const int32_t[BATCH]){ 0, 0 }), OCTAVO_OK);
        for (int64_t i = 0; i < BATCH * TOKENS_MAX * HEADS * D; i++) {
            const int64_t c = i % D, h = i / D % HEADS, b = i / (TOKENS_MAX * HEADS * D);
            const float x = ((const float *)from.k.data)[i] - k_mean[b][h][c],
                        y = ((const float *)from.v.data)[i] / channel[h][c];
            const uint8_t base = octavo_e4m3_from_float(x);
            assert_int_equal((&k[0][0][0][0][0])[i], base);
            assert_int_equal((&k[1][0][0][0][0])[i], octavo_e4m3_from_float(x - octavo_e4m3_to_float(base)));
            assert_int_equal((&v[0][0][0][0])[i], octavo_e4m3_from_float(y));
        }
        channel[1][2] = 0.0f;
        assert_refused(octavo_kv_append(&open.exec, &view, NULL, &from.v, (const int32_t[BATCH]){ 0, 0 }), OCTAVO_E_ARGUMENT,
                       "v_channel_scale[22] is 0");
        k_mean[1][1][1] = NAN;
        assert_refused(octavo_kv_append(&open.exec, &view, &from.k, NULL, (const int32_t[BATCH]){ 0, 0 }), OCTAVO_E_NONFINITE,
                       "after k_mean");
        free_cache(&from);
        fixture_close(&open);
    }
}

static void test_nonfinite_writes_nothing(void **state)
{
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    int index = 0;
    for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
        fixture_device open = fixture_open(level);
        uint64_t seed = 4;
        for (int i = 0; i < 12; i++) {
            cache made = make_cache(OCTAVO_K_INT4X2, OCTAVO_V_E4M3, 33, 17, i % 2 ? OCTAVO_F16 : OCTAVO_F32, 4);
            octavo_tensor *hurt = i % 4 < 2 ? &made.k : &made.v;
            const int64_t count = BATCH * TOKENS_MAX * HEADS * hurt->shape[3];
            fixture_put(hurt->data, hurt->dtype, fixture_random(&seed) % count, bad[i % 3]);
            assert_refused(append(&open, &made, 0, 0, TOKENS_MAX, 3), OCTAVO_E_NONFINITE, "k or v holds NaN");
            for (size_t j = 0; j < made.bytes; j++) assert_int_equal(made.pool[j], POISON);
            free_cache(&made);
        }
        fixture_close(&open);
    }
}

/* From the stored planes alone: the same mean rows, and norms of what the residual holds. */
static void test_block_metadata(void **state)
{
    (void)state;
    for (int k = 1; k <= K_COUNT; k++) {
        int index = 0;
        for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
            fixture_device open = fixture_open(level);
            cache made = make_cache((octavo_k_format)k, (octavo_v_format)(1 + k % V_COUNT), 33, 17, OCTAVO_BF16, 8);
            const int32_t lengths[BATCH] = { TOKENS_MAX, 6 };
            assert_int_equal(append(&open, &made, 0, 0, TOKENS_MAX, 3), OCTAVO_OK);
            uint8_t *before = fixture_memory(made.bytes, 0);
            memcpy(before, made.pool, made.bytes);
            octavo_kv_view view = made.view;
            view.lengths = lengths;
            if (view.k_norm.data)
                for (int64_t page = 0; page < PAGES; page++)
                    for (int64_t h = 0; h < HEADS; h++) memset(octavo_section_at(&view.k_norm, 0, page, h, 0), POISON, BLOCK);
            assert_int_equal(octavo_block_metadata(&open.exec, &view), OCTAVO_OK);
            for (int64_t t = 0; view.k_norm.data && t < TOKENS_MAX; t++)
                for (int64_t row = 0; row < BATCH * HEADS; row++) {
                    const octavo_ref_token at = octavo_ref_find(&view, row / HEADS, row % HEADS, t);
                    const uint8_t norm = *octavo_ref_at(&view.k_norm, &at);
                    double square = 0.0;
                    for (int64_t i = 0; i < 33; i++)
                        square += pow(octavo_ref_k_code(&view, &at, 2, i) - octavo_ref_k_code(&view, &at, 1, i), 2.0);
                    if (t >= lengths[row / HEADS]) assert_int_equal(norm, POISON);
                    else assert_int_equal(norm, octavo_ue4m4_from_float_up((float)(sqrt(square) * 1.000001)));
                    *octavo_section_at(&view.k_norm, at.row, at.page, at.head, at.in_block) =
                        before[octavo_ref_at(&view.k_norm, &at) - made.pool];
                }
            for (int64_t page = 0; view.k_norm.data && page < PAGES; page++) /* tokens that nobody appended */
                for (int64_t h = 0; h < HEADS; h++) {
                    uint8_t *norms = octavo_section_at(&view.k_norm, 0, page, h, 0);
                    memcpy(norms, before + (norms - made.pool), BLOCK);
                }
            assert_memory_equal(made.pool, before, made.bytes);
            free(before);
            free_cache(&made);
            fixture_close(&open);
        }
    }
}

static void test_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    cache made = make_cache(OCTAVO_K_INT8, OCTAVO_V_INT8, 16, 16, OCTAVO_F32, 1);
    const cache good = made;
    const int32_t positions[BATCH] = { 0, 0 };
    made.view.page_table = made.table[0];
#define REFUSED(change, call, status, words)  \
    do {                                      \
        made.view.page_table = made.table[0]; \
        change;                               \
        assert_refused(call, status, words);  \
        made = good;                          \
    } while (0)
#define APPEND(k, v) octavo_kv_append(&open.exec, &made.view, k, v, positions)
    REFUSED((void)0, APPEND(NULL, NULL), OCTAVO_E_ARGUMENT, "k and v are NULL");
    REFUSED((void)0, octavo_kv_append(&open.exec, &made.view, &made.k, NULL, NULL), OCTAVO_E_ARGUMENT, "positions is NULL");
    REFUSED((void)0, octavo_kv_append(&open.exec, NULL, &made.k, NULL, positions), OCTAVO_E_ARGUMENT, "view is NULL");
    REFUSED(made.k.dtype = OCTAVO_INT8, APPEND(&made.k, NULL), OCTAVO_E_ARGUMENT, "k has dtype int8, expected f32, f16, bf16");
    REFUSED(made.k.shape[0] = 1, APPEND(&made.k, NULL), OCTAVO_E_SHAPE, "k.shape[0] is 1, expected 2");
    REFUSED(made.v.shape[1] = 3, APPEND(&made.k, &made.v), OCTAVO_E_SHAPE, "v.shape[1] is 3, expected 29");
    REFUSED(made.v.shape[2] = 2, APPEND(NULL, &made.v), OCTAVO_E_SHAPE, "v.shape[2] is 2, expected 3");
    REFUSED(made.k.shape[3] = 15, APPEND(&made.k, NULL), OCTAVO_E_SHAPE, "k.shape[3] is 15, expected 16");
    REFUSED(made.k.data = made.pool, APPEND(&made.k, &made.v), OCTAVO_E_ARGUMENT, "k overlaps view.k[0]");
    REFUSED(made.view.v.data = NULL, APPEND(&made.k, &made.v), OCTAVO_E_ARGUMENT, "view.v.data is NULL");
    REFUSED(made.table[1][2] = PAGES, APPEND(&made.k, NULL), OCTAVO_E_RANGE, "page 9 for block 2");
    REFUSED((void)0, append(&open, &made, 4, 0, TOKENS_MAX, 3), OCTAVO_E_RANGE, "positions[1] is 4 with 29 tokens");
    REFUSED((void)0, append(&open, &made, -1, 0, 1, 3), OCTAVO_E_RANGE, "positions[1] is -1");
    for (size_t j = 0; j < made.bytes; j++) assert_int_equal(made.pool[j], POISON);
    made.view.v.data = NULL; /* K alone needs no V */
    assert_int_equal(append(&open, &made, 3, 0, TOKENS_MAX, 1), OCTAVO_OK);
    assert_refused(octavo_block_metadata(&open.exec, &made.view), OCTAVO_E_ARGUMENT, "lengths is NULL");
#undef REFUSED
#undef APPEND
    free_cache(&made);
    fixture_close(&open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format_within_its_step),
        cmocka_unit_test(test_same_bytes_on_every_level_and_in_any_pieces),
        cmocka_unit_test(test_e4m3x2_returns_bf16),
        cmocka_unit_test(test_extremes_give_finite_codes),
        cmocka_unit_test(test_tensors_with_mean_and_channel_scale),
        cmocka_unit_test(test_nonfinite_writes_nothing),
        cmocka_unit_test(test_block_metadata),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
