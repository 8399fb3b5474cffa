/* test_layer.c - norms, rotation, activations, rows, routing and sampling: values known exactly on every level, and refusals. */
#include "encode_fixture.h"

enum { POISON = 0x5A };

static octavo_tensor view2(void *data, octavo_dtype dtype, int64_t rows, int64_t columns)
{
    return octavo_tensor_view(data, dtype, 2, (const int64_t[]){ rows, columns });
}

/* The body runs once a level with `open` at hand. */
#define EACH_LEVEL(open)                                                                     \
    for (int level_ = 0, once_ = 0; (once_ = fixture_level(&level_) != NULL) != 0;)          \
        for (fixture_device open = fixture_open(octavo_isa_name(level_ - 1)); once_; once_ = 0, fixture_close(&open))

static void assert_near(double got, double want, double error)
{
    if (!(fabs(got - want) <= error)) fail_msg("%.9g, expected %.9g within %.3g", got, want, error);
}

/* ---- values ---- */

static void norm_values(void **state)
{
    (void)state;
    EACH_LEVEL(open)
        for (int64_t width = 1; width <= 70; width++) {
            float x[70], y[70], weight[70], bias[70];
            octavo_norm_params p = OCTAVO_NORM_PARAMS_INIT;
            p.x = view2(x, OCTAVO_F32, 1, width), p.y = view2(y, OCTAVO_F32, 1, width);
            p.weight = weight;
            for (int64_t i = 0; i < width; i++) x[i] = i % 2 ? -2.0f : 2.0f, weight[i] = (float)i, bias[i] = 0.5f;
            assert_int_equal(octavo_norm(&open.exec, &p), OCTAVO_OK); /* the root of the mean square is 2 */
            for (int64_t i = 0; i < width; i++) assert_near((double)y[i], (i % 2 ? -1.0 : 1.0) * (double)i, 1e-5);
            p.kind = OCTAVO_NORM_LAYER, p.bias = bias, p.y = p.x;
            for (int64_t i = 0; i < width; i++) x[i] += 7.0f;
            assert_int_equal(octavo_norm(&open.exec, &p), OCTAVO_OK); /* in place */
            if (width % 2 == 0)
                for (int64_t i = 0; i < width; i++) assert_near((double)x[i], (i % 2 ? -1.0 : 1.0) * (double)i + 0.5, 1e-4);
        }
}

static void activation_values(void **state)
{
    (void)state;
    static const double want[4][5] = { /* of 0, 1, -2, 30, -200 */
        { 0.0, 1.0, 0.0, 30.0, 0.0 },
        { 0.0, 0.7310585786300049, -0.2384058440442351, 29.999999999997, 0.0 },
        { 0.0, 0.8413447460685429, -0.0455002638963584, 30.0, 0.0 },
        { 0.0, 0.8411919906082768, -0.0454023059122394, 30.0, 0.0 },
    };
    EACH_LEVEL(open)
        for (int kind = 0; kind < 4; kind++) {
            float gate[] = { 0.0f, 1.0f, -2.0f, 30.0f, -200.0f }, up[] = { 3.0f, 2.0f, 1.0f, -1.0f, 4.0f }, y[5];
            octavo_activate_params p = OCTAVO_ACTIVATE_PARAMS_INIT;
            p.activation = (octavo_activation)kind;
            p.gate = view2(gate, OCTAVO_F32, 1, 5), p.y = view2(y, OCTAVO_F32, 1, 5);
            assert_int_equal(octavo_activate(&open.exec, &p), OCTAVO_OK);
            for (int i = 0; i < 5; i++) assert_near((double)y[i], want[kind][i], 3e-6);
            p.up = view2(up, OCTAVO_F32, 1, 5), p.y = p.up;
            assert_int_equal(octavo_activate(&open.exec, &p), OCTAVO_OK);
            const float factors[] = { 3.0f, 2.0f, 1.0f, -1.0f, 4.0f };
            for (int i = 0; i < 5; i++) assert_near((double)up[i], want[kind][i] * (double)factors[i], 6e-6);
        }
}

/* One pair turns by its angle; tokens at position 0 and what lies past rotary_dim keep their bits. */
static void rope_values(void **state)
{
    (void)state;
    enum { DIM = 6, TOKENS = 3, HEADS = 2 };
    EACH_LEVEL(open)
        for (int style = OCTAVO_ROPE_NONE; style <= OCTAVO_ROPE_INTERLEAVED; style++) {
            float x[TOKENS][HEADS][DIM], inv_freq[] = { 1.0f, 0.5f };
            const int32_t positions[TOKENS] = { 0, 1, -3 };
            octavo_rope_apply_params p = OCTAVO_ROPE_APPLY_PARAMS_INIT;
            p.x = octavo_tensor_view(x, OCTAVO_F32, 4, (const int64_t[]){ 1, TOKENS, HEADS, DIM });
            p.rope = (octavo_rope){ (octavo_rope_style)style, 4, inv_freq, 0.0f };
            p.positions = positions;
            for (int i = 0; i < TOKENS * HEADS * DIM; i++) (&x[0][0][0])[i] = (float)(i % DIM + 1);
            assert_int_equal(octavo_rope_apply(&open.exec, &p), OCTAVO_OK);
            for (int t = 0; t < TOKENS; t++)
                for (int i = 0; i < 2 && style != OCTAVO_ROPE_NONE; i++) {
                    const int low = style == OCTAVO_ROPE_ROTATE_HALF ? i : 2 * i, high = style == OCTAVO_ROPE_ROTATE_HALF ? i + 2 : 2 * i + 1;
                    const double angle = (double)positions[t] * (double)inv_freq[i], a = low + 1, b = high + 1;
                    assert_near((double)x[t][1][low], a * cos(angle) - b * sin(angle), positions[t] ? 2e-6 : 0.0);
                    assert_near((double)x[t][1][high], b * cos(angle) + a * sin(angle), positions[t] ? 2e-6 : 0.0);
                }
            for (int i = style == OCTAVO_ROPE_NONE ? 0 : 4; i < DIM; i++) assert_true(x[1][1][i] == (float)(i + 1));
        }
}

static void rows_values(void **state)
{
    (void)state;
    EACH_LEVEL(open) {
        uint16_t table[] = { 0x3F80, 0x4000, 0x7FC1, 0xC000 /* bf16: 1, 2, a NaN, -2 */ }, copied[6];
        float add[] = { 0.25f, 0.5f }, sums[6], y[] = { 100.0f, 200.0f };
        const int32_t rows[] = { 1, 0, 0 }, add_rows[] = { 0, 0, 0 };
        octavo_gather_rows_params p = OCTAVO_GATHER_ROWS_PARAMS_INIT;
        p.table = view2(table, OCTAVO_BF16, 2, 2), p.y = view2(copied, OCTAVO_BF16, 3, 2), p.rows = rows;
        assert_int_equal(octavo_gather_rows(&open.exec, &p), OCTAVO_OK);
        assert_true(copied[0] == 0x7FC1 && copied[1] == 0xC000 && copied[2] == 0x3F80 && copied[5] == 0x4000);
        p.add = view2(add, OCTAVO_F32, 1, 2), p.add_rows = add_rows, p.y = view2(sums, OCTAVO_F32, 3, 2);
        assert_int_equal(octavo_gather_rows(&open.exec, &p), OCTAVO_OK);
        assert_true(isnan(sums[0]) && sums[1] == -1.5f && sums[2] == 1.25f && sums[3] == 2.5f);

        octavo_combine_rows_params c = OCTAVO_COMBINE_ROWS_PARAMS_INIT;
        const int32_t slots[] = { 2, -1, 1 };
        const float weights[] = { 0.5f, NAN, 2.0f };
        c.x = view2(sums, OCTAVO_F32, 3, 2), c.y = view2(y, OCTAVO_F32, 1, 2), c.slots = slots, c.weights = weights, c.choices = 3;
        assert_int_equal(octavo_combine_rows(&open.exec, &c), OCTAVO_OK);
        assert_true(y[0] == 100.0f + 0.625f + 2.5f && y[1] == 200.0f + 1.25f + 5.0f);
    }
}

static void route_values(void **state)
{
    (void)state;
    EACH_LEVEL(open) {
        const float ln2 = 0.69314718f;
        float logits[] = { 0.0f, ln2, 2.0f * ln2, -INFINITY, /* 1/7, 2/7, 4/7, 0 */
                           5.0f, 5.0f, 5.0f, 5.0f,           /* ties */
                           NAN, 1.0f, 3.0f, NAN }, weights[6];
        int32_t experts[6], offsets[5], order[6], slots[6];
        octavo_route_params p = OCTAVO_ROUTE_PARAMS_INIT;
        p.logits = view2(logits, OCTAVO_F32, 3, 4), p.choices = 2;
        p.experts = experts, p.weights = weights, p.offsets = offsets, p.order = order, p.slots = slots;
        assert_int_equal(octavo_route(&open.exec, &p), OCTAVO_OK);
        assert_memory_equal(experts, ((int32_t[]){ 2, 1, 0, 1, 2, 1 }), sizeof experts);
        assert_memory_equal(offsets, ((int32_t[]){ 0, 1, 4, 6, 6 }), sizeof offsets);
        assert_memory_equal(order, ((int32_t[]){ 1, 0, 1, 2, 0, 2 }), sizeof order);
        assert_memory_equal(slots, ((int32_t[]){ 4, 1, 0, 2, 5, 3 }), sizeof slots);
        assert_near((double)weights[0], 4.0 / 7.0, 1e-6), assert_near((double)weights[1], 2.0 / 7.0, 1e-6);
        assert_near((double)weights[3], 0.25, 1e-6), assert_true(isnan(weights[4]) && isnan(weights[5]));
        p.weighting = OCTAVO_ROUTE_RENORMALISE;
        assert_int_equal(octavo_route(&open.exec, &p), OCTAVO_OK);
        assert_near((double)weights[0], 2.0 / 3.0, 1e-6), assert_near((double)weights[3], 0.5, 1e-6);
    }
}

/* ---- sampling ---- */

static const float EIGHTHS[] = { -INFINITY, 0.0f, 0.69314718f, 0.0f, 1.3862944f }; /* 0, 1/8, 2/8, 1/8, 4/8 */

typedef struct drawn {
    int32_t token;
    float sampled_logprob, logprob;
} drawn;

static drawn draw(const octavo_exec *exec, const float *logits, int64_t vocab, octavo_sample_row row)
{
    drawn result = { -1, NAN, NAN };
    octavo_exec with_workspace = *exec;
    octavo_sample_params p = OCTAVO_SAMPLE_PARAMS_INIT;
    p.logits = view2((void *)(uintptr_t)logits, OCTAVO_F32, 1, vocab);
    p.rows = &row, p.tokens = &result.token, p.sampled_logprob = &result.sampled_logprob, p.logprob = &result.logprob;
    assert_int_equal(octavo_sample_workspace(exec, &p, &with_workspace.workspace_bytes), OCTAVO_OK);
    with_workspace.workspace = fixture_memory(with_workspace.workspace_bytes, POISON);
    assert_int_equal(octavo_sample(&with_workspace, &p), OCTAVO_OK);
    free(with_workspace.workspace);
    return result;
}

static void sample_values(void **state)
{
    (void)state;
    static const struct {
        octavo_sample_row row; /* temperature, top_k, top_p, min_p, uniform */
        int32_t token;
        double share; /* under the filtered distribution */
    } cases[] = {
        { { 1.0f, 0, 1.0f, 0.0f, 0.0f }, 4, 0.5 },             { { 1.0f, 0, 0.0f, 0.0f, 0.499f }, 4, 0.5 },
        { { 1.0f, 0, 1.0f, 0.0f, 0.501f }, 2, 0.25 },          { { 1.0f, 0, 1.0f, 0.0f, 0.76f }, 1, 0.125 },
        { { 1.0f, 0, 1.0f, 0.0f, 0.9999f }, 3, 0.125 },        { { 1.0f, 0, 1.0f, 0.0f, 0x1.fffffep-1f }, 3, 0.125 },
        { { 1.0f, 2, 1.0f, 0.0f, 0.66f }, 4, 2.0 / 3.0 },      { { 1.0f, 2, 1.0f, 0.0f, 0.67f }, 2, 1.0 / 3.0 },
        { { 1.0f, 2, 0.66f, 0.0f, 0.99f }, 4, 1.0 },           /* 2/3 of what top_k left */
        { { 1.0f, 0, 0.66f, 0.0f, 0.99f }, 2, 1.0 / 3.0 },     { { 1.0f, 0, 0.74f, 0.3f, 0.99f }, 2, 1.0 / 3.0 },
        { { 1.0f, 0, 1.0f, 0.4f, 0.99f }, 2, 1.0 / 3.0 },      { { 1.0f, 0, 1.0f, 0.6f, 0.99f }, 4, 1.0 },
        { { 0.0f, 0, 1.0f, 0.0f, 0.99f }, 4, 1.0 },            { { 0.5f, 0, 1.0f, 0.0f, 0.99f }, 3, 1.0 / 22.0 },
        { { 1.0f, 100, 1.0f, 1.0f, 0.99f }, 4, 1.0 },          { { 1e-30f, 0, 1.0f, 0.0f, 0.99f }, 4, 1.0 },
    };
    static const double shares[] = { 0.0, 0.125, 0.25, 0.125, 0.5 };
    EACH_LEVEL(open) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const drawn got = draw(&open.exec, EIGHTHS, 5, cases[i].row);
            if (got.token != cases[i].token) fail_msg("case %zu: token %d, expected %d", i, got.token, cases[i].token);
            assert_near((double)got.sampled_logprob, log(cases[i].share), 1e-5);
            assert_near((double)got.logprob, log(shares[got.token]), 1e-5);
        }
        const float ties[] = { 1.0f, 2.0f, 2.0f, -0.0f, 0.0f };
        assert_int_equal(draw(&open.exec, ties, 5, (octavo_sample_row){ 0.0f, 0, 1.0f, 0.0f, 0.9f }).token, 1);
        assert_int_equal(draw(&open.exec, ties, 5, (octavo_sample_row){ 1.0f, 4, 1.0f, 0.0f, 0x1.fffffep-1f }).token, 3);
    }
}

/* A grid of uniforms draws every token as often as its share says, to one draw on either side of its interval. */
static void sample_shares(void **state)
{
    (void)state;
    enum { VOCAB = 300, DRAWS = 2000 };
    float logits[VOCAB];
    uint64_t seed = 5;
    for (int i = 0; i < VOCAB; i++) logits[i] = 3.0f * fixture_value(&seed);
    double whole = 0.0;
    for (int i = 0; i < VOCAB; i++) whole += exp((double)logits[i] / 0.8);
    EACH_LEVEL(open) {
        int counts[VOCAB] = { 0 };
        for (int i = 0; i < DRAWS; i++) {
            const octavo_sample_row row = { 0.8f, 0, 1.0f, 0.0f, ((float)i + 0.5f) / DRAWS };
            counts[draw(&open.exec, logits, VOCAB, row).token]++;
        }
        for (int i = 0; i < VOCAB; i++) assert_near(counts[i], DRAWS * exp((double)logits[i] / 0.8) / whole, 1.01);
    }
}

static void nonfinite_logits(void **state)
{
    (void)state;
    static const float rows[][3] = { { 1.0f, NAN, 0.0f }, { INFINITY, 1.0f, 2.0f }, { -INFINITY, -INFINITY, -INFINITY } };
    static const int32_t tops[] = { 0, 0, 0 };
    EACH_LEVEL(open)
        for (int i = 0; i < 3; i++) {
            float logits[6] = { 0.0f, 1.0f, 2.0f }, logprob[2];
            int32_t tokens[] = { 2, 1 }, top[2], drawn_tokens[] = { 77, 77 };
            memcpy(logits + 3, rows[i], sizeof rows[i]);
            octavo_token_logprob_params p = OCTAVO_TOKEN_LOGPROB_PARAMS_INIT;
            p.logits = view2(logits, OCTAVO_F32, 2, 3), p.tokens = tokens, p.logprob = logprob, p.top = top;
            assert_int_equal(octavo_token_logprob(&open.exec, &p), OCTAVO_OK);
            assert_near((double)logprob[0], -0.40760596444438, 1e-6);
            assert_true(isnan(logprob[1]) && top[0] == 2 && top[1] == tops[i]);
            octavo_sample_row how[2] = { { 1.0f, 0, 1.0f, 0.0f, 0.5f }, { 0.0f, 0, 1.0f, 0.0f, 0.5f } };
            octavo_sample_params s = OCTAVO_SAMPLE_PARAMS_INIT;
            s.logits = p.logits, s.rows = how, s.tokens = drawn_tokens;
            assert_int_equal(octavo_sample_workspace(&open.exec, &s, &open.exec.workspace_bytes), OCTAVO_OK);
            open.exec.workspace = fixture_memory(open.exec.workspace_bytes, POISON);
            assert_refused(octavo_sample(&open.exec, &s), OCTAVO_E_NONFINITE, "nothing was written");
            assert_true(drawn_tokens[0] == 77 && drawn_tokens[1] == 77);
            free(open.exec.workspace);
        }
}

/* ---- refusals ---- */

#define REFUSED(p, good, change, call, status, words)   \
    do {                                                \
        p = good;                                       \
        change;                                         \
        assert_refused(call, status, words);            \
    } while (0)

static void norm_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float x[12], y[12], weight[4];
    octavo_norm_params good = OCTAVO_NORM_PARAMS_INIT, p;
    good.x = view2(x, OCTAVO_F32, 3, 4), good.y = view2(y, OCTAVO_F32, 3, 4), good.weight = weight;
#define NORM(change, status, words) REFUSED(p, good, change, octavo_norm(&open.exec, &p), status, words)
    assert_refused(octavo_norm(&open.exec, NULL), OCTAVO_E_ARGUMENT, "params is NULL");
    assert_refused(octavo_norm(NULL, &good), OCTAVO_E_ARGUMENT, "exec");
    NORM(p.struct_size = 4, OCTAVO_E_VERSION, "octavo_norm_params");
    NORM(p.kind = (octavo_norm_kind)2, OCTAVO_E_ARGUMENT, "kind is 2");
    NORM(p.x.ndim = 1, OCTAVO_E_SHAPE, "x has 1 dimensions");
    NORM(p.x.ndim = 4, OCTAVO_E_SHAPE, "x has 4 dimensions");
    NORM(p.x.dtype = OCTAVO_INT8, OCTAVO_E_ARGUMENT, "x has dtype int8");
    NORM(p.x.shape[0] = 0, OCTAVO_E_SHAPE, "x.shape[0] is 0");
    NORM(p.x.device_kind = OCTAVO_DEVICE_CUDA, OCTAVO_E_ARGUMENT, "x lies in GPU memory");
    NORM(p.y.shape[1] = 3, OCTAVO_E_SHAPE, "y.shape[1] is 3, expected 4");
    NORM(p.y.strides[0] = 2, OCTAVO_E_SHAPE, "y has strides");
    NORM(p.y.data = x + 4, OCTAVO_E_ARGUMENT, "y and x overlap");
    NORM((p.y = p.x, p.y.strides[0] = 4, p.x.strides[0] = 0), OCTAVO_E_ARGUMENT, "y and x overlap");
    NORM(p.weight = y + 8, OCTAVO_E_ARGUMENT, "y and weight overlap");
    NORM(p.bias = weight, OCTAVO_E_ARGUMENT, "bias is given");
    NORM(p.eps = -1.0f, OCTAVO_E_ARGUMENT, "eps is -1");
    NORM(p.eps = NAN, OCTAVO_E_ARGUMENT, "eps");
    fixture_close(&open);
}

static void rope_and_activation_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float x[24], y[24], inv_freq[3] = { 1.0f, 0.5f, 0.25f };
    int32_t positions[2] = { 0, 1 };
    octavo_rope_apply_params rope = OCTAVO_ROPE_APPLY_PARAMS_INIT, r;
    rope.x = octavo_tensor_view(x, OCTAVO_F32, 4, (const int64_t[]){ 1, 2, 2, 6 });
    rope.rope = (octavo_rope){ OCTAVO_ROPE_ROTATE_HALF, 0, inv_freq, 0.0f }, rope.positions = positions;
#define ROPE(change, status, words) REFUSED(r, rope, change, octavo_rope_apply(&open.exec, &r), status, words)
    ROPE(r.struct_size = 1, OCTAVO_E_VERSION, "octavo_rope_apply_params");
    ROPE(r.x.ndim = 3, OCTAVO_E_SHAPE, "x has 3 dimensions");
    ROPE(r.x.strides[1] = 0, OCTAVO_E_SHAPE, "x has strides");
    ROPE(r.rope.style = (octavo_rope_style)9, OCTAVO_E_ARGUMENT, "rope.style is 9");
    ROPE(r.rope.rotary_dim = 8, OCTAVO_E_ARGUMENT, "rope.rotary_dim is 8");
    ROPE(r.rope.rotary_dim = 3, OCTAVO_E_ARGUMENT, "rope.rotary_dim is 3");
    ROPE(r.rope.inv_freq = NULL, OCTAVO_E_ARGUMENT, "rope.inv_freq is NULL");
    ROPE(r.rope.inv_freq = x, OCTAVO_E_ARGUMENT, "x and rope.inv_freq overlap");
    ROPE(r.rope.scale = INFINITY, OCTAVO_E_ARGUMENT, "rope.scale");
    ROPE(r.positions = NULL, OCTAVO_E_ARGUMENT, "positions is NULL");

    octavo_activate_params good = OCTAVO_ACTIVATE_PARAMS_INIT, p;
    good.gate = view2(x, OCTAVO_F32, 2, 6), good.up = view2(x + 12, OCTAVO_F32, 2, 6), good.y = view2(y, OCTAVO_F32, 2, 6);
#define ACTIVATE(change, status, words) REFUSED(p, good, change, octavo_activate(&open.exec, &p), status, words)
    ACTIVATE(p.struct_size = 1, OCTAVO_E_VERSION, "octavo_activate_params");
    ACTIVATE(p.activation = (octavo_activation)4, OCTAVO_E_ARGUMENT, "activation is 4");
    ACTIVATE(p.activation = (octavo_activation)-1, OCTAVO_E_ARGUMENT, "activation is -1");
    ACTIVATE(p.gate.data = NULL, OCTAVO_E_ARGUMENT, "gate has no data");
    ACTIVATE(p.up.shape[0] = 3, OCTAVO_E_SHAPE, "up.shape[0] is 3");
    ACTIVATE(p.y.dtype = OCTAVO_E4M3, OCTAVO_E_ARGUMENT, "y has dtype e4m3");
    ACTIVATE(p.y.data = x + 6, OCTAVO_E_ARGUMENT, "y and gate overlap");
    ACTIVATE((p.y = p.gate, p.y.dtype = OCTAVO_BF16), OCTAVO_E_ARGUMENT, "y and gate overlap");
    ACTIVATE((p.y = p.gate, p.up.data = x + 6), OCTAVO_E_ARGUMENT, "y and up overlap");
    fixture_close(&open);
}

static void rows_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float table[8], add[4], y[12];
    int32_t rows[] = { 0, 1, 1 }, add_rows[] = { 0, 0, 0 }, slots[] = { -1, 1 };
    float weights[2] = { 1.0f, 1.0f };
    memset(y, POISON, sizeof y);
    octavo_gather_rows_params good = OCTAVO_GATHER_ROWS_PARAMS_INIT, p;
    good.table = view2(table, OCTAVO_F32, 2, 4), good.add = view2(add, OCTAVO_F32, 1, 4), good.y = view2(y, OCTAVO_F32, 3, 4);
    good.rows = rows, good.add_rows = add_rows;
#define GATHER(change, status, words) REFUSED(p, good, change, octavo_gather_rows(&open.exec, &p), status, words)
    GATHER(p.struct_size = 1, OCTAVO_E_VERSION, "octavo_gather_rows_params");
    GATHER(p.rows = NULL, OCTAVO_E_ARGUMENT, "rows is NULL");
    GATHER(p.y.shape[1] = 3, OCTAVO_E_SHAPE, "y.shape[1] is 3");
    GATHER(p.table.shape[0] = 1, OCTAVO_E_RANGE, "rows[1] is 1, expected 0 to 0");
    GATHER(p.add.ndim = 99, OCTAVO_E_SHAPE, "add has 99 dimensions");
    GATHER(p.add_rows = NULL, OCTAVO_E_ARGUMENT, "add_rows is NULL");
    GATHER(p.add.data = NULL, OCTAVO_E_ARGUMENT, "add_rows is given without add");
    GATHER(p.add_rows = rows, OCTAVO_E_RANGE, "add_rows[1] is 1");
    GATHER(p.y.data = table + 4, OCTAVO_E_ARGUMENT, "overlap");
    rows[2] = -1;
    GATHER((void)0, OCTAVO_E_RANGE, "rows[2] is -1");
    for (size_t i = 0; i < sizeof y; i++) assert_int_equal(((uint8_t *)y)[i], POISON);

    octavo_combine_rows_params sum = OCTAVO_COMBINE_ROWS_PARAMS_INIT, c;
    sum.x = view2(table, OCTAVO_F32, 2, 4), sum.y = view2(y, OCTAVO_F32, 1, 4), sum.slots = slots, sum.weights = weights, sum.choices = 2;
#define COMBINE(change, status, words) REFUSED(c, sum, change, octavo_combine_rows(&open.exec, &c), status, words)
    COMBINE(c.struct_size = 1, OCTAVO_E_VERSION, "octavo_combine_rows_params");
    COMBINE(c.y.dtype = OCTAVO_BF16, OCTAVO_E_ARGUMENT, "y has dtype bf16");
    COMBINE(c.choices = 0, OCTAVO_E_ARGUMENT, "choices is 0");
    COMBINE(c.choices = INT64_MAX / 2, OCTAVO_E_RANGE, "overflows");
    COMBINE(c.weights = NULL, OCTAVO_E_ARGUMENT, "weights is NULL");
    COMBINE(c.slots = NULL, OCTAVO_E_ARGUMENT, "slots is NULL");
    COMBINE(c.weights = y, OCTAVO_E_ARGUMENT, "y and weights overlap");
    COMBINE(c.y.data = table, OCTAVO_E_ARGUMENT, "y and x overlap");
    slots[0] = -2;
    COMBINE((void)0, OCTAVO_E_RANGE, "slots[0] is -2, expected -1 to 1");
    fixture_close(&open);
}

static void route_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float logits[8] = { 0 }, weights[4];
    int32_t experts[4], offsets[5], order[4], slots[4];
    octavo_route_params good = OCTAVO_ROUTE_PARAMS_INIT, p;
    good.logits = view2(logits, OCTAVO_F32, 2, 4), good.choices = 2;
    good.experts = experts, good.weights = weights, good.offsets = offsets, good.order = order, good.slots = slots;
#define ROUTE(change, status, words) REFUSED(p, good, change, octavo_route(&open.exec, &p), status, words)
    ROUTE(p.struct_size = 1, OCTAVO_E_VERSION, "octavo_route_params");
    ROUTE(p.logits.dtype = OCTAVO_BF16, OCTAVO_E_ARGUMENT, "logits has dtype bf16");
    ROUTE(p.choices = 5, OCTAVO_E_ARGUMENT, "choices is 5, expected 1 to 4");
    ROUTE(p.choices = 0, OCTAVO_E_ARGUMENT, "choices is 0");
    ROUTE(p.weighting = (octavo_route_weights)2, OCTAVO_E_ARGUMENT, "weighting is 2");
    ROUTE((p.logits.strides[0] = 0, p.logits.shape[0] = INT32_MAX), OCTAVO_E_RANGE, "int32");
    ROUTE(p.experts = NULL, OCTAVO_E_ARGUMENT, "experts is NULL");
    ROUTE(p.slots = NULL, OCTAVO_E_ARGUMENT, "slots is NULL");
    ROUTE(p.order = p.slots, OCTAVO_E_ARGUMENT, "order and slots overlap");
    ROUTE(p.weights = logits + 4, OCTAVO_E_ARGUMENT, "weights and logits overlap");
    fixture_close(&open);
}

static void logit_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float logits[8] = { 0 }, logprob[2];
    int32_t tokens[2] = { 0, 3 };
    octavo_sample_row row[2] = { { 1.0f, 0, 1.0f, 0.0f, 0.5f }, { 1.0f, 0, 1.0f, 0.0f, 0.5f } };
    size_t bytes;
    octavo_sample_params good = OCTAVO_SAMPLE_PARAMS_INIT, p;
    good.logits = view2(logits, OCTAVO_F32, 2, 4), good.rows = row, good.tokens = tokens, good.logprob = logprob;
    assert_int_equal(octavo_sample_workspace(&open.exec, &good, &bytes), OCTAVO_OK);
    open.exec.workspace = fixture_memory(bytes, POISON), open.exec.workspace_bytes = bytes;
#define SAMPLE(change, status, words) REFUSED(p, good, change, octavo_sample(&open.exec, &p), status, words)
#define SAMPLE_ROW(change, words)                                                       \
    do {                                                                                \
        row[1] = row[0];                                                                \
        SAMPLE(row[1].change, OCTAVO_E_ARGUMENT, "rows[1]." words);                     \
        row[1] = row[0];                                                                \
    } while (0)
    SAMPLE(p.struct_size = 1, OCTAVO_E_VERSION, "octavo_sample_params");
    SAMPLE(p.logits.dtype = OCTAVO_F16, OCTAVO_E_ARGUMENT, "logits has dtype f16");
    SAMPLE((p.logits.shape[1] = INT64_C(1) << 32, p.logits.shape[0] = 1), OCTAVO_E_RANGE, "token ids that fit int32");
    SAMPLE((p.logits.shape[0] = INT64_MAX, p.logits.shape[1] = 1, p.logits.strides[0] = 0), OCTAVO_E_RANGE, "no workspace is large enough");
    SAMPLE(p.rows = NULL, OCTAVO_E_ARGUMENT, "rows is NULL");
    SAMPLE(p.tokens = NULL, OCTAVO_E_ARGUMENT, "tokens is NULL");
    SAMPLE(p.sampled_logprob = logprob, OCTAVO_E_ARGUMENT, "sampled_logprob and logprob overlap");
    SAMPLE_ROW(temperature = -1.0f, "temperature is -1");
    SAMPLE_ROW(temperature = INFINITY, "temperature is inf");
    SAMPLE_ROW(top_k = -1, "top_k is -1");
    SAMPLE_ROW(top_p = 1.5f, "top_p is 1.5");
    SAMPLE_ROW(min_p = NAN, "min_p");
    SAMPLE_ROW(uniform = 1.0f, "uniform is 1");
    open.exec.workspace_bytes = bytes - 1;
    SAMPLE((void)0, OCTAVO_E_RANGE, "exec.workspace");
    free(open.exec.workspace);
    assert_refused(octavo_sample_workspace(&open.exec, &good, NULL), OCTAVO_E_ARGUMENT, "bytes is NULL");

    octavo_token_logprob_params of = OCTAVO_TOKEN_LOGPROB_PARAMS_INIT, l;
    of.logits = good.logits, of.tokens = tokens, of.logprob = logprob;
#define LOGPROB(change, status, words) REFUSED(l, of, change, octavo_token_logprob(&open.exec, &l), status, words)
    LOGPROB(l.struct_size = 1, OCTAVO_E_VERSION, "octavo_token_logprob_params");
    LOGPROB(l.tokens = NULL, OCTAVO_E_ARGUMENT, "tokens is NULL");
    LOGPROB(l.logprob = NULL, OCTAVO_E_ARGUMENT, "logprob is NULL");
    LOGPROB(l.logits.shape[1] = 3, OCTAVO_E_RANGE, "tokens[1] is 3, expected 0 to 2");
    LOGPROB(l.top = tokens, OCTAVO_E_ARGUMENT, "top and tokens overlap");
    fixture_close(&open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_values),     cmocka_unit_test(activation_values), cmocka_unit_test(rope_values),
        cmocka_unit_test(rows_values),     cmocka_unit_test(route_values),      cmocka_unit_test(sample_values),
        cmocka_unit_test(sample_shares),   cmocka_unit_test(nonfinite_logits),  cmocka_unit_test(norm_refusals),
        cmocka_unit_test(rope_and_activation_refusals), cmocka_unit_test(rows_refusals), cmocka_unit_test(route_refusals),
        cmocka_unit_test(logit_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
