/* test_linear.c - the public linear layer: a result worked out by hand, packed weights, calls without tokens, and what it refuses. */
#include "encode_fixture.h"

enum { TOKENS = 3, IN = 64, OUT = 40, OTHER = 16, ALIGN = 64 };

/* One call with memory of its own: two parts over bf16 x. */
typedef struct layer {
    fixture_device open;
    uint16_t x[(TOKENS + 1) * IN];
    int8_t codes[OUT * IN];
    float wide[OTHER * IN], scales[OUT], bias[OUT], y[TOKENS * (OUT + OTHER)];
    octavo_linear_params params;
} layer;

static int code_at(int64_t row, int64_t column) { return (int)((row * 7 + column * 3) % 11) - 5; }
static int x_at(int64_t token, int64_t column) { return (int)((token * 5 + column) % 7) - 3; }

static void set_up(layer *c, const char *isa)
{
    static const int64_t x_shape[] = { TOKENS, IN }, w_shape[] = { OUT, IN }, other_shape[] = { OTHER, IN };
    memset(c, 0, sizeof *c);
    c->open = fixture_open(isa);
    for (int64_t i = 0; i < TOKENS * IN; i++) c->x[i] = octavo_bf16_from_float((float)x_at(i / IN, i % IN));
    for (int64_t i = 0; i < OUT * IN; i++) c->codes[i] = (int8_t)code_at(i / IN, i % IN);
    for (int64_t i = 0; i < OTHER * IN; i++) c->wide[i] = (float)code_at(i / IN, i % IN) * 0.5f;
    for (int i = 0; i < OUT; i++) c->scales[i] = i % 2 ? 0.25f : 2.0f, c->bias[i] = (float)i;
    c->params = (octavo_linear_params)OCTAVO_LINEAR_PARAMS_INIT;
    c->params.x = octavo_tensor_view(c->x, OCTAVO_BF16, 2, x_shape);
    c->params.precision = OCTAVO_LINEAR_BF16;
    c->params.part_count = 2;
    c->params.parts[0].weight = (octavo_weight){ .codes = octavo_tensor_view(c->codes, OCTAVO_INT8, 2, w_shape), .scales = c->scales, .block_rows = 1 };
    c->params.parts[0].bias = c->bias;
    c->params.parts[1].weight.codes = octavo_tensor_view(c->wide, OCTAVO_F32, 2, other_shape);
    /* both in one buffer, beside each other */
    c->params.parts[0].y = (octavo_tensor){ .data = c->y, .dtype = OCTAVO_F32, .ndim = 2, .shape = { TOKENS, OUT }, .strides = { OUT + OTHER, 1 } };
    c->params.parts[1].y = c->params.parts[0].y;
    c->params.parts[1].y.data = c->y + OUT;
    c->params.parts[1].y.shape[1] = OTHER;
}

static void tear_down(layer *c)
{
    if (c->open.exec.workspace) octavo_device_release(c->open.device, c->open.exec.workspace, c->open.exec.workspace_bytes);
    fixture_close(&c->open);
}

static octavo_status run(layer *c)
{
    size_t bytes;
    const octavo_status status = octavo_linear_workspace(&c->open.exec, &c->params, &bytes);
    if (status != OCTAVO_OK) return status;
    if (c->open.exec.workspace) octavo_device_release(c->open.device, c->open.exec.workspace, c->open.exec.workspace_bytes);
    assert_int_equal(octavo_device_allocate(c->open.device, bytes, &c->open.exec.workspace), OCTAVO_OK);
    c->open.exec.workspace_bytes = bytes;
    return octavo_linear(&c->open.exec, &c->params);
}

static float expected(int64_t token, int64_t row)
{
    int sum = 0;
    const int other = row >= OUT;
    for (int64_t i = 0; i < IN; i++) sum += x_at(token, i) * code_at(other ? row - OUT : row, i);
    return other ? (float)sum * 0.5f : (float)sum * (row % 2 ? 0.25f : 2.0f) + (float)row;
}

static void assert_y(const layer *c, float times)
{
    for (int64_t i = 0; i < TOKENS * (OUT + OTHER); i++)
        assert_float_equal(c->y[i], times * expected(i / (OUT + OTHER), i % (OUT + OTHER)), 0.0);
}

/* Small whole numbers are exact at every level and precision. */
static void exact_at_every_level(void **state)
{
    (void)state;
    for (int level = 0; fixture_level(&level);)
        for (int precision = OCTAVO_LINEAR_F32; precision <= OCTAVO_LINEAR_BF16; precision++) {
            layer c;
            set_up(&c, octavo_isa_name(level - 1));
            c.params.precision = (octavo_linear_precision)precision;
            assert_int_equal(run(&c), OCTAVO_OK);
            assert_y(&c, 1.0f);
            c.params.store = OCTAVO_STORE_ADD;
            assert_int_equal(run(&c), OCTAVO_OK);
            assert_y(&c, 2.0f);
            tear_down(&c);
        }
}

/* int8 with a static scale of 1 takes these x as they are; without one, the largest of a token (3) is code 127. */
static void int8_quantises_x(void **state)
{
    (void)state;
    static const float one = 1.0f;
    for (int level = 0; fixture_level(&level);) {
        layer c;
        set_up(&c, octavo_isa_name(level - 1));
        c.params.precision = OCTAVO_LINEAR_INT8;
        c.params.part_count = 1;
        c.params.x_scale = &one;
        assert_int_equal(run(&c), OCTAVO_OK);
        for (int64_t t = 0; t < TOKENS; t++)
            for (int64_t r = 0; r < OUT; r++) assert_float_equal(c.y[t * (OUT + OTHER) + r], expected(t, r), 0.0);
        c.params.x_scale = NULL;
        assert_int_equal(run(&c), OCTAVO_OK);
        for (int64_t r = 0; r < OUT; r++) {
            int sum = 0;
            for (int64_t i = 0; i < IN; i++) sum += (int)rintf((float)x_at(1, i) / (3.0f / 127.0f)) * code_at(r, i);
            const float wanted = (float)sum * (3.0f / 127.0f) * (r % 2 ? 0.25f : 2.0f) + (float)r;
            assert_float_equal(c.y[OUT + OTHER + r], wanted, 1e-4);
        }
        tear_down(&c);
    }
}

static void packed_gives_the_same(void **state)
{
    (void)state;
    for (int level = 0; fixture_level(&level);) {
        layer c;
        size_t bytes[2];
        void *packed[2] = { NULL, NULL };
        set_up(&c, octavo_isa_name(level - 1));
        for (int i = 0; i < 2; i++) {
            const octavo_weight *weight = &c.params.parts[i].weight;
            assert_int_equal(octavo_linear_packed_bytes(&c.open.exec, weight, c.params.precision, &bytes[i]), OCTAVO_OK);
            if (bytes[i] == 0) {
                assert_refused(octavo_linear_pack(&c.open.exec, weight, c.params.precision, c.y), OCTAVO_E_ARGUMENT, "as it lies");
                continue;
            }
            packed[i] = fixture_memory(bytes[i], 0xA5);
            assert_refused(octavo_linear_pack(&c.open.exec, weight, c.params.precision, (uint8_t *)packed[i] + 4), OCTAVO_E_ARGUMENT, "packed");
            assert_int_equal(octavo_linear_pack(&c.open.exec, weight, c.params.precision, packed[i]), OCTAVO_OK);
            c.params.parts[i].packed = packed[i];
        }
        assert_int_equal(run(&c), OCTAVO_OK);
        assert_y(&c, 1.0f);
        free(packed[0]);
        free(packed[1]);
        tear_down(&c);
    }
}

/* A query of sizes needs no memory; a call without tokens writes nothing and needs no workspace. */
static void no_memory_and_no_tokens(void **state)
{
    (void)state;
    layer c;
    size_t bytes, bare;
    set_up(&c, NULL);
    const octavo_linear_params good = c.params;
    assert_int_equal(octavo_linear_workspace(&c.open.exec, &c.params, &bytes), OCTAVO_OK);
    assert_true(bytes > 0);
    c.params.x.data = NULL;
    for (int i = 0; i < 2; i++) c.params.parts[i].y.data = c.params.parts[i].weight.codes.data = NULL;
    assert_int_equal(octavo_linear_workspace(&c.open.exec, &c.params, &bare), OCTAVO_OK);
    assert_int_equal(bytes, bare);
    assert_refused(octavo_linear(&c.open.exec, &c.params), OCTAVO_E_ARGUMENT, "x has no data");
    c.params = good;
    c.params.x.shape[0] = c.params.parts[0].y.shape[0] = c.params.parts[1].y.shape[0] = 0;
    assert_int_equal(octavo_linear_workspace(&c.open.exec, &c.params, &bytes), OCTAVO_OK);
    assert_int_equal(bytes, 0);
    assert_int_equal(octavo_linear(&c.open.exec, &c.params), OCTAVO_OK);
    for (int i = 0; i < TOKENS * (OUT + OTHER); i++) assert_float_equal(c.y[i], 0.0, 0.0);
    c.params.parts[1].y.shape[0] = 1;
    assert_refused(octavo_linear(&c.open.exec, &c.params), OCTAVO_E_SHAPE, "parts[1].y.shape[0] is 1, expected 0");
    tear_down(&c);
}

static void names(void **state)
{
    (void)state;
    octavo_linear_precision precision;
    for (int i = OCTAVO_LINEAR_F32; i <= OCTAVO_LINEAR_INT8; i++) {
        assert_int_equal(octavo_linear_precision_parse(octavo_linear_precision_name((octavo_linear_precision)i), &precision), OCTAVO_OK);
        assert_int_equal((int)precision, i);
    }
    assert_string_equal(octavo_linear_precision_name((octavo_linear_precision)9), "unknown");
    assert_refused(octavo_linear_precision_parse("fp16", &precision), OCTAVO_E_ARGUMENT, "'fp16' is no linear precision");
    assert_refused(octavo_linear_precision_parse(NULL, &precision), OCTAVO_E_ARGUMENT, "NULL");
    assert_refused(octavo_linear_precision_parse("f32", NULL), OCTAVO_E_ARGUMENT, "NULL");
}

static void refusals(void **state)
{
    (void)state;
    layer c;
    set_up(&c, NULL);
    const octavo_linear_params good = c.params;
    assert_int_equal(run(&c), OCTAVO_OK);
    memset(c.y, 0, sizeof c.y);
#define REFUSED(change, status, words)             \
    do {                                           \
        c.params = good;                           \
        change;                                    \
        assert_refused(run(&c), status, words);    \
    } while (0)
    REFUSED(c.params.struct_size = 8, OCTAVO_E_VERSION, "struct_size");
    REFUSED(c.params.precision = (octavo_linear_precision)4, OCTAVO_E_ARGUMENT, "precision is 4");
    REFUSED(c.params.store = (octavo_store)2, OCTAVO_E_ARGUMENT, "store is 2");
    REFUSED(c.params.part_count = 0, OCTAVO_E_ARGUMENT, "part_count is 0");
    REFUSED(c.params.part_count = OCTAVO_LINEAR_PARTS + 1, OCTAVO_E_ARGUMENT, "part_count is 5");
    REFUSED(c.params.x.dtype = OCTAVO_INT8, OCTAVO_E_ARGUMENT, "x has dtype int8");
    REFUSED(c.params.x.ndim = 3, OCTAVO_E_SHAPE, "x has 3 dimensions");
    REFUSED(c.params.x.shape[0] = TOKENS + 1, OCTAVO_E_SHAPE, "parts[0].y.shape[0]");
    REFUSED(c.params.x.shape[1] = IN - 1, OCTAVO_E_SHAPE, "parts[0].weight.codes.shape[1]");
    REFUSED((c.params.x.shape[0] = INT64_MAX / 2, c.params.x.strides[0] = 0, c.params.parts[0].y.shape[0] = INT64_MAX / 2), OCTAVO_E_RANGE, "overflows");
    REFUSED(c.params.parts[0].weight.codes.dtype = OCTAVO_E5M2, OCTAVO_E_ARGUMENT, "parts[0].weight.codes has dtype e5m2");
    REFUSED(c.params.parts[0].weight.block_rows = -1, OCTAVO_E_ARGUMENT, "parts[0].weight.block_rows is -1");
    REFUSED(c.params.parts[1].y.shape[1] = OTHER + 1, OCTAVO_E_SHAPE, "parts[1].y.shape[1]");
    REFUSED(c.params.parts[1].y.dtype = OCTAVO_E4M3, OCTAVO_E_ARGUMENT, "parts[1].y has dtype e4m3");
    REFUSED(c.params.parts[1].y.strides[0] = 0, OCTAVO_E_SHAPE, "overlap");
    REFUSED(c.params.parts[0].packed = (uint8_t *)c.y + 1, OCTAVO_E_ARGUMENT, "parts[0].packed");
    REFUSED(c.params.precision = OCTAVO_LINEAR_FP8, OCTAVO_E_ARGUMENT, "parts[0].weight.codes has dtype int8, expected e4m3");
    REFUSED(c.params.precision = OCTAVO_LINEAR_INT8, OCTAVO_E_ARGUMENT, "parts[1].weight.codes has dtype f32, expected int8");
    REFUSED((c.params.precision = OCTAVO_LINEAR_INT8, c.params.parts[0].weight.block_cols = 32), OCTAVO_E_UNSUPPORTED, "block_cols is 32");
    REFUSED(c.params.parts[1].y.data = c.y + OUT - 1, OCTAVO_E_ARGUMENT, "parts[1].y lies over parts[0].y");
    REFUSED(c.params.parts[0].y.data = c.wide, OCTAVO_E_ARGUMENT, "parts[0].y lies over parts[1].weight.codes");
    REFUSED((c.params.parts[0].y.dtype = OCTAVO_BF16, c.params.parts[0].y.data = c.x + 8), OCTAVO_E_ARGUMENT, "parts[0].y lies over x");
    c.params = good;
    c.open.exec.workspace_bytes -= ALIGN;
    assert_refused(octavo_linear(&c.open.exec, &c.params), OCTAVO_E_RANGE, "workspace");
    c.open.exec.workspace_bytes += ALIGN;
    for (size_t i = 0; i < sizeof c.y / sizeof *c.y; i++) assert_float_equal(c.y[i], 0.0, 0.0);
    size_t bytes;
    assert_refused(octavo_linear_workspace(&c.open.exec, NULL, &bytes), OCTAVO_E_ARGUMENT, "params is NULL");
    tear_down(&c);
}

/* Columns past which int32 might not hold the sum of int8 products. */
static void int8_columns_are_limited(void **state)
{
    (void)state;
    layer c;
    set_up(&c, NULL);
    size_t bytes;
    c.params.precision = OCTAVO_LINEAR_INT8;
    c.params.part_count = 1;
    c.params.x.shape[1] = c.params.x.strides[0] = 131073;
    c.params.parts[0].weight.codes.shape[1] = c.params.parts[0].weight.codes.strides[0] = 131073;
    assert_refused(octavo_linear_workspace(&c.open.exec, &c.params, &bytes), OCTAVO_E_UNSUPPORTED, "131073 columns");
    tear_down(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_at_every_level),    cmocka_unit_test(int8_quantises_x), cmocka_unit_test(packed_gives_the_same),
        cmocka_unit_test(no_memory_and_no_tokens), cmocka_unit_test(names),            cmocka_unit_test(refusals),
        cmocka_unit_test(int8_columns_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
