/* engine_pool.c - an engine that owns its pool, page table and lengths, and lets the library write and read the pages.
 *
 * Three sequences of different length grow in a shared pool whose pages are handed out in no order. Each step appends one token
 * a sequence and attends, once exactly and once with the light blocks dropped; both are compared with plain float attention. */
#include <octavo/octavo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 3, Q_HEADS = 8, KV_HEADS = 2, DIM = 64, BLOCK = 32, TOKENS = 1024, STEPS = 4, PAGES = BATCH * TOKENS / BLOCK };

static const int64_t prompt_tokens[BATCH] = { 1000, 333, 64 };

#define TRY(call)                                              \
    do {                                                       \
        if ((call) != OCTAVO_OK) {                             \
            fprintf(stderr, "%s\n", octavo_last_error());      \
            return 1;                                          \
        }                                                      \
    } while (0)

/* What the engine would get from its model, and keeps here to check the answers. */
static float k[BATCH][TOKENS][KV_HEADS][DIM], v[BATCH][TOKENS][KV_HEADS][DIM];
static float q[BATCH][Q_HEADS][DIM], out[BATCH][Q_HEADS][DIM], skipped[BATCH][KV_HEADS];

/* What the engine owns. */
typedef struct engine {
    octavo_device *device;
    void *pool;
    int32_t page_table[BATCH][TOKENS / BLOCK];
    int32_t lengths[BATCH];
    int32_t free_pages[PAGES], free_count;
} engine;

static float gaussian(void)
{
    static unsigned state = 1;
    float sum = -6.0f; /* of twelve uniform numbers: near enough */
    for (int i = 0; i < 12; i++) sum += (float)((state = state * 1664525u + 1013904223u) >> 8) / 16777216.0f;
    return sum;
}

/* Keys that look like a real model's: most say nothing; the first and the newest tokens, and here and there one, say much. */
static void make_model_data(void)
{
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < KV_HEADS; h++)
            for (int t = 0; t < TOKENS; t++) {
                const float loud = t < 4 || t % 301 == 300 || t > prompt_tokens[b] - 16 ? 1.2f : 0.0f;
                for (int d = 0; d < DIM; d++) {
                    k[b][t][h][d] = gaussian() + (d % 2 ? loud : -loud);
                    v[b][t][h][d] = gaussian();
                }
            }
}

static void make_queries(void)
{
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < Q_HEADS; h++)
            for (int d = 0; d < DIM; d++) q[b][h][d] = 0.5f * gaussian() + (d % 2 ? 1.0f : -1.0f);
}

/* Makes room for the sequence's next `tokens` tokens. */
static void take_pages(engine *e, int b, int64_t tokens)
{
    const int64_t last = (e->lengths[b] + tokens - 1) / BLOCK;
    for (int64_t block = (e->lengths[b] + BLOCK - 1) / BLOCK; block <= last; block++)
        e->page_table[b][block] = e->free_pages[--e->free_count];
}

static octavo_tensor rows(float *data, int64_t batch, int64_t tokens, int64_t heads, int64_t batch_stride)
{
    const int64_t shape[] = { batch, tokens, heads, DIM };
    octavo_tensor tensor = octavo_tensor_view(data, OCTAVO_F32, 4, shape);
    tensor.strides[0] = batch_stride;
    return tensor;
}

/* Root of the mean square error of all outputs relative to float attention over the unquantised keys and values. */
static double relative_error(const engine *e)
{
    static double weight[TOKENS];
    double error = 0.0, norm = 0.0;
    for (int b = 0; b < BATCH; b++)
        for (int h = 0; h < Q_HEADS; h++) {
            const int kv_head = h / (Q_HEADS / KV_HEADS);
            double sum = 0.0;
            for (int t = 0; t < e->lengths[b]; t++) {
                double score = 0.0;
                for (int d = 0; d < DIM; d++) score += (double)q[b][h][d] * (double)k[b][t][kv_head][d];
                sum += weight[t] = exp(score / sqrt((double)DIM));
            }
            for (int d = 0; d < DIM; d++) {
                double exact = 0.0;
                for (int t = 0; t < e->lengths[b]; t++) exact += weight[t] / sum * (double)v[b][t][kv_head][d];
                error += (out[b][h][d] - exact) * (out[b][h][d] - exact);
                norm += exact * exact;
            }
        }
    return sqrt(error / norm);
}

static int attend(const engine *e, const octavo_kv_view *view, octavo_select_rule rule, double limit)
{
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = e->device;
    octavo_decode_params p = OCTAVO_DECODE_PARAMS_INIT;
    p.q = rows(&q[0][0][0], BATCH, 1, Q_HEADS, Q_HEADS * DIM);
    p.out = rows(&out[0][0][0], BATCH, 1, Q_HEADS, Q_HEADS * DIM);
    p.kv = view;
    p.select = rule;
    p.compensate = rule == OCTAVO_SELECT_MASS ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
    p.epsilon = 0.03f;
    p.skip_ratio = &skipped[0][0];
    TRY(octavo_attention_decode_workspace(&exec, &p, &exec.workspace_bytes));
    TRY(octavo_device_allocate(e->device, exec.workspace_bytes, &exec.workspace));
    TRY(octavo_attention_decode(&exec, &p));
    octavo_device_release(e->device, exec.workspace, exec.workspace_bytes);

    const double error = relative_error(e);
    printf("%-5s relative error %.2e (limit %.0e), blocks skipped in the longest sequence %2.0f %%\n",
           octavo_select_rule_name(rule), error, limit, 50.0 * (double)(skipped[0][0] + skipped[0][1]));
    return error <= limit ? 0 : 1;
}

/* One token a sequence: pages, append, attention. */
static int step(engine *e, octavo_kv_view *view)
{
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = e->device;
    float new_k[BATCH][KV_HEADS][DIM], new_v[BATCH][KV_HEADS][DIM];
    for (int b = 0; b < BATCH; b++) {
        take_pages(e, b, 1);
        for (int i = 0; i < KV_HEADS * DIM; i++) {
            (&new_k[b][0][0])[i] = (&k[b][e->lengths[b]][0][0])[i];
            (&new_v[b][0][0])[i] = (&v[b][e->lengths[b]][0][0])[i];
        }
    }
    const octavo_tensor kt = rows(&new_k[0][0][0], BATCH, 1, KV_HEADS, KV_HEADS * DIM);
    const octavo_tensor vt = rows(&new_v[0][0][0], BATCH, 1, KV_HEADS, KV_HEADS * DIM);
    TRY(octavo_kv_append(&exec, view, &kt, &vt, e->lengths));
    for (int b = 0; b < BATCH; b++) e->lengths[b]++;
    make_queries();
    return attend(e, view, OCTAVO_SELECT_NONE, 1e-2) || attend(e, view, OCTAVO_SELECT_MASS, 5e-2);
}

/* The prompts differ in length, so each is a batch of one: `row` says which row of the tables it is. */
static int fill_prompt(engine *e, octavo_kv_view view, int32_t row)
{
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = e->device;
    const int32_t position = 0;
    const octavo_tensor kt = rows(&k[row][0][0][0], 1, prompt_tokens[row], KV_HEADS, TOKENS * KV_HEADS * DIM);
    const octavo_tensor vt = rows(&v[row][0][0][0], 1, prompt_tokens[row], KV_HEADS, TOKENS * KV_HEADS * DIM);
    take_pages(e, row, prompt_tokens[row]);
    view.batch = 1;
    view.sequences = &row;
    TRY(octavo_kv_append(&exec, &view, &kt, &vt, &position));
    e->lengths[row] = (int32_t)prompt_tokens[row];
    return 0;
}

int main(void)
{
    static engine e;
    octavo_context *context;
    TRY(octavo_context_create(NULL, &context));
    TRY(octavo_device_open(context, "cpu", &e.device));
    make_model_data();

    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = OCTAVO_K_E4M3X2;
    page.v_format = OCTAVO_V_INT8;
    page.kv_heads = KV_HEADS;
    page.head_dim = DIM;
    page.block_tokens = BLOCK;
    size_t page_bytes;
    TRY(octavo_page_bytes(&page, &page_bytes));
    e.pool = aligned_alloc(64, PAGES * page_bytes);
    if (!e.pool) return 1;
    for (e.free_count = 0; e.free_count < PAGES; e.free_count++) e.free_pages[e.free_count] = e.free_count * 7 % PAGES; /* any order */

    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    TRY(octavo_kv_view_over_pool(&page, e.pool, PAGES, 0, &view));
    view.batch = BATCH;
    view.max_tokens = TOKENS;
    view.lengths = e.lengths;
    view.page_table = &e.page_table[0][0];
    view.page_table_stride = TOKENS / BLOCK;
    view.pages = PAGES;

    int failed = 0;
    for (int32_t b = 0; b < BATCH && !failed; b++) failed = fill_prompt(&e, view, b);
    for (int i = 0; i < STEPS && !failed; i++) failed = step(&e, &view);
    free(e.pool);
    octavo_device_close(e.device);
    octavo_context_destroy(context);
    return failed;
}
