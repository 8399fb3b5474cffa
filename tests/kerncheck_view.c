/* kerncheck_view.c - random views over random layouts: pages of ours, an engine's own, and strided tensors. */
#include "kerncheck.h"
#include "kerncheck_rows.h"
#include "kernel/page.h"

#include <string.h>

typedef enum layout { OUR_PAGES = 0, ENGINE_PAGES = 1, TENSORS = 2 } layout;

static const char *const layout_names[] = { "our pages", "an engine's pages", "strided tensors" };

/* What is drawn before there is any memory. */
typedef struct plan {
    layout kind;
    unsigned flags;
    int64_t longest; /* tokens of the longest sequence  */
    int64_t blocks;  /* that the longest sequence needs */
    int32_t *lengths;
} plan;

static int32_t draw_dim(void)
{
    static const int32_t favoured[] = { 64, 96, 128, 256 };
    return kc_chance(65) ? KC_PICK(favoured) : (int32_t)kc_between(1, 300);
}

static void draw_blocks(octavo_kv_view *view)
{
    static const int32_t usual[] = { 16, 32, 64, 128 };
    view->block_tokens = kc_chance(70) ? KC_PICK(usual) : (int32_t)kc_between(1, 100);
    view->sub_block_tokens = view->block_tokens;
    if (kc_chance(60)) return;
    do view->sub_block_tokens = (int32_t)kc_between(1, view->block_tokens);
    while (view->block_tokens % view->sub_block_tokens);
}

static void draw_formats(octavo_kv_view *view, unsigned flags)
{
    view->k_format = (octavo_k_format)(flags & KC_NORMS ? kc_between(OCTAVO_K_E4M3X2, OCTAVO_K_INT4X2) : kc_between(OCTAVO_K_BF16, OCTAVO_K_F32));
    view->v_format = (octavo_v_format)kc_between(OCTAVO_V_BF16, OCTAVO_V_F32);
    view->k_residual_exponent = view->k_format == OCTAVO_K_E4M3X2 && kc_chance(75) ? 4 : 0;
}

enum { WIDE_BYTES = 16 };
enum { WORK = 160000, LONG_WORK = 1000000, TILED_WORK = 5000000, BARE_WORK = 200000, BENCH_TOKENS = 8192 };

/* What kernels that copy whole tiles of rows take. */
static void draw_tiled(kc_decode *c, plan *of)
{
    static const int32_t dims[] = { 64, 64, 128, 128, 256, 96 }, blocks[] = { 16, 32, 64, 128 };
    static const int tiles[] = { 64, 128 };
    octavo_kv_view *view = &c->view;
    if (kc_chance(70)) {
        const int halves = kc_chance(40);
        view->k_format = halves ? OCTAVO_K_F16 : OCTAVO_K_BF16, view->v_format = halves ? OCTAVO_V_F16 : OCTAVO_V_BF16;
    }
    do {
        view->head_dim = view->v_dim = KC_PICK(dims);
        view->kv_heads = (int32_t)kc_between(1, 2), view->batch = kc_between(1, 3), c->group = kc_between(1, 3);
        c->q_tokens = kc_chance(50) ? kc_between(1, 300) : KC_PICK(tiles) * kc_between(1, 3) + kc_between(-1, 1);
        of->longest = kc_chance(40) ? kc_between(1, 600) : KC_PICK(tiles) * kc_between(1, 5) + kc_between(-1, 1);
    } while (view->batch * view->kv_heads * c->group * c->q_tokens * view->head_dim * of->longest > TILED_WORK);
    view->block_tokens = view->sub_block_tokens = KC_PICK(blocks);
    kc_align_wide();
}

/* What kernels that stream pages of one plane take. */
static void draw_streamed(kc_decode *c, plan *of)
{
    static const octavo_k_format keys[] = { OCTAVO_K_BF16, OCTAVO_K_F16, OCTAVO_K_E4M3, OCTAVO_K_E5M2, OCTAVO_K_INT8, OCTAVO_K_E4M3X2 };
    static const octavo_v_format values[] = { OCTAVO_V_BF16, OCTAVO_V_F16, OCTAVO_V_E4M3, OCTAVO_V_E4M3, OCTAVO_V_INT8, OCTAVO_V_E4M3 };
    static const int32_t dims[] = { 64, 128, 128, 256 }, blocks[] = { 32, 64, 128 };
    octavo_kv_view *view = &c->view;
    const int64_t pair = kc_between(0, 5);
    view->k_format = keys[pair], view->v_format = pair == 2 && kc_chance(20) ? OCTAVO_V_BF16 : values[pair];
    const int wide = of->flags & KC_MEANS && kc_chance(35); /* the FFA prototype's layout: blocks of 256 tokens */
    if (of->flags & KC_MEANS) { /* and of two, where units are dropped */
        static const octavo_k_format nested[] = { OCTAVO_K_E4M3X2, OCTAVO_K_INT8X2, OCTAVO_K_INT4X2 };
        view->k_format = wide ? OCTAVO_K_E5M2X2 : nested[pair % 3];
        view->v_format = wide ? OCTAVO_V_F16 : (pair % 3 > 0) != kc_chance(25) ? OCTAVO_V_INT8 : OCTAVO_V_E4M3;
        view->k_residual_exponent = view->k_format == OCTAVO_K_E4M3X2 && kc_chance(75) ? 4 : 0;
    }
    do {
        view->head_dim = view->v_dim = of->flags & KC_MEANS && kc_chance(80) ? 128 : KC_PICK(dims);
        view->kv_heads = (int32_t)kc_between(1, 4), view->batch = kc_between(1, 3), c->group = kc_between(1, 8);
        c->q_tokens = kc_chance(60) ? 1 : kc_between(1, 8 / c->group + 1);
        if (kc_chance(20)) c->group = kc_between(1, 16), c->q_tokens = kc_between(1, 12);
        of->longest = kc_between(1, wide ? 2600 : kc_chance(60) ? 300 : kc_chance(80) ? 1500 : 7000);
    } while (view->batch * view->kv_heads * c->group * c->q_tokens * view->head_dim * of->longest > LONG_WORK);
    view->block_tokens = view->sub_block_tokens = wide || (of->flags & KC_MEANS && kc_chance(20)) ? 256 : KC_PICK(blocks);
    if (view->block_tokens > 64 && !(wide && kc_chance(50))) view->sub_block_tokens = 64;
    kc_align_wide();
}

/* Dimensions whose product with some dozens of tokens is work that a scalar reference does in milliseconds. */
static void draw_dims(kc_decode *c, plan *of)
{
    octavo_kv_view *view = &c->view;
    int64_t limit;
    do {
        view->head_dim = draw_dim();
        view->v_dim = kc_chance(80) ? view->head_dim : draw_dim();
        view->kv_heads = (int32_t)kc_between(1, 4);
        view->batch = kc_between(1, 3);
        c->group = kc_chance(70) ? 1 << kc_between(0, 3) : kc_between(1, 16);
        c->q_tokens = of->flags & KC_LONG_Q ? kc_between(1, kc_chance(50) ? 40 : 200) : kc_chance(60) ? 1 : kc_between(1, 16);
        const int64_t widest = view->head_dim > view->v_dim ? view->head_dim : view->v_dim;
        limit = (of->flags & KC_LONG_Q ? LONG_WORK : WORK) / (view->batch * view->kv_heads * c->group * c->q_tokens * widest);
    } while (limit < 16 || (limit < 100 && kc_chance(80)));
    draw_blocks(view);
    if (of->flags & KC_BARE) limit = BARE_WORK / (view->batch * view->kv_heads * c->group * c->q_tokens) * view->sub_block_tokens;
    const int64_t most = of->flags & KC_BARE ? (kc_chance(90) ? 300 : 5000) * view->sub_block_tokens : 800;
    of->longest = kc_between(1, limit < most ? limit : most);
}

static void set_bench(kc_decode *c, plan *of)
{
    octavo_kv_view *view = &c->view;
    view->k_format = OCTAVO_K_E4M3X2, view->v_format = OCTAVO_V_E4M3, view->k_residual_exponent = 4;
    view->head_dim = view->v_dim = 128, view->kv_heads = 8, view->batch = 1;
    view->block_tokens = view->sub_block_tokens = 64;
    c->group = 4, c->q_tokens = of->flags & KC_LONG_Q ? 256 : 1;
    of->longest = of->flags & KC_LONG_Q ? 1024 : BENCH_TOKENS;
    of->kind = OUR_PAGES;
}

/* Empty, one token, fewer than the call's queries, around block edges, anything. */
static int32_t draw_length(const kc_decode *c, int64_t longest)
{
    const int64_t block = c->view.block_tokens, edges = longest / block;
    int64_t length = kc_between(0, longest);
    switch (kc_between(0, 9)) {
    case 0: length = 0; break;
    case 1: length = 1; break;
    case 2: length = kc_between(0, c->q_tokens); break;
    case 3: length = edges * block; break;
    case 4: length = edges * block + kc_between(-1, 1); break;
    case 5: length = longest; break;
    default: break;
    }
    return (int32_t)(length < 0 ? 0 : length > longest ? longest : length);
}

static void draw_lengths(kc_decode *c, plan *of, int bench)
{
    octavo_kv_view *view = &c->view;
    c->view_rows = view->batch + (bench ? 0 : kc_between(0, 2));
    const int mapped = !bench && (c->view_rows > view->batch || kc_chance(30));
    of->lengths = kc_array("lengths", OCTAVO_INT32, c->view_rows);
    for (int64_t r = 0; r < c->view_rows; r++) of->lengths[r] = bench || r == 0 ? (int32_t)of->longest : draw_length(c, of->longest);
    view->lengths = of->lengths;
    view->max_tokens = of->longest + (bench || kc_chance(50) ? 0 : kc_between(0, 2 * view->block_tokens));
    of->blocks = (of->longest + view->block_tokens - 1) / view->block_tokens;
    if (!mapped) return;
    int32_t *sequences = kc_array("sequences", OCTAVO_INT32, view->batch);
    const int32_t first = (int32_t)kc_between(0, c->view_rows - 1);
    for (int64_t b = 0; b < view->batch; b++) sequences[b] = (int32_t)((first + b) % c->view_rows); /* distinct */
    view->sequences = sequences;
}

static void draw_visibility(kc_decode *c, int bench)
{
    octavo_decode_input *in = &c->in;
    in->softmax_scale = kc_chance(80) ? (float)(1.0 / sqrt((double)c->view.head_dim)) : (float)kc_uniform(0.01, 0.5);
    in->planes = octavo_k_plane_count(c->view.k_format);
    if (bench) return;
    if (kc_chance(c->tiled ? 8 : 25)) in->soft_cap = (float)kc_uniform(0.5, 60.0);
    if (kc_chance(c->tiled ? 15 : 35)) {
        in->window = kc_between(1, c->view.max_tokens + 3);
        in->sink_tokens = kc_chance(50) ? kc_between(0, 2 * c->view.block_tokens) : 0;
    }
}

/* A block of which no query of the call sees a token; its page may be gone. */
static int is_out_of_sight(const kc_decode *c, int64_t row, int64_t block)
{
    const int64_t units = c->view.block_tokens / c->view.sub_block_tokens;
    for (int64_t u = block * units; u < (block + 1) * units; u++)
        if (octavo_unit_seen(&c->view, c->view.lengths[row], c->q_tokens, c->in.window, c->in.sink_tokens, u) != OCTAVO_UNIT_INVISIBLE)
            return 0;
    return 1;
}

/* Shuffled pages, some of them shared; no page where no query of the call looks. */
static void draw_page_table(kc_decode *c, const plan *of)
{
    octavo_kv_view *view = &c->view;
    const int64_t stride = of->blocks + kc_between(0, 3), pages = c->view_rows * of->blocks + kc_between(0, 3);
    int32_t *table = kc_array("page_table", OCTAVO_INT32, c->view_rows * stride);
    int32_t *order = kc_scratch(pages * (int64_t)sizeof *order);
    for (int64_t i = 0; i < pages; i++) order[i] = (int32_t)i;
    for (int64_t i = pages; i-- > 1;) {
        const int64_t j = kc_between(0, i);
        const int32_t swap = order[i];
        order[i] = order[j], order[j] = swap;
    }
    const int shared = !(of->flags & KC_WRITABLE) && kc_chance(30);
    for (int64_t r = 0; r < c->view_rows; r++)
        for (int64_t j = 0; j < stride; j++) {
            const int reached = j * view->block_tokens < of->lengths[r] || (of->flags & KC_WRITABLE && j < of->blocks);
            const int gone = !(of->flags & KC_WRITABLE) && reached && is_out_of_sight(c, r, j);
            int32_t page = j < of->blocks ? order[r * of->blocks + j] : 0;
            if (shared && reached && kc_chance(30)) page = order[kc_between(0, pages - 1)];
            table[r * stride + j] = reached && !gone ? page : kc_chance(50) ? INT32_MAX : -1;
        }
    view->page_table = table, view->page_table_stride = stride, view->pages = pages;
}

/* ---- sections ---- */

/* An array of `entries` rows a block and head (tokens or units), with strides of its own. */
static void draw_section(const kc_decode *c, const plan *of, octavo_section *section, const char *name, int64_t row_bytes, int64_t align,
                         int64_t entries, int64_t all_entries)
{
    const octavo_kv_view *view = &c->view;
    const int64_t heads = view->kv_heads, spans = of->kind == TENSORS ? c->view_rows : view->pages;
    const int64_t count = of->kind == TENSORS ? all_entries : entries; /* of a sequence, of a page */
    const int padded = kc_chance(50), by_token = kc_chance(50);
    int64_t token, head, span;
    if (c->tiled && row_bytes % WIDE_BYTES == 0) align = WIDE_BYTES;
    if (c->tiled && row_bytes < WIDE_BYTES && kc_chance(60)) { /* scales side by side, in rows of whole pieces */
        token = row_bytes, head = (count * token + WIDE_BYTES - 1) / WIDE_BYTES * WIDE_BYTES, span = heads * head;
    } else if (by_token) { /* [token][head][dim] */
        head = row_bytes + (padded ? align * kc_between(0, 5) : 0);
        token = heads * head + (padded ? align * kc_between(0, 5) : 0);
        span = count * token + (padded ? align * kc_between(0, 9) : 0);
    } else { /* [head][token][dim] */
        token = row_bytes + (padded ? align * kc_between(0, 5) : 0);
        head = count * token + (padded ? align * kc_between(0, 5) : 0);
        span = heads * head + (padded ? align * kc_between(0, 9) : 0);
    }
    section->token_bytes = token, section->head_bytes = head;
    section->page_bytes = of->kind == TENSORS ? entries * token : span;
    section->sequence_bytes = of->kind == TENSORS ? span : 0;
    const int64_t bytes = spans && count ? (spans - 1) * span + (heads - 1) * head + (count - 1) * token + row_bytes : 0;
    section->data = kc_bytes(name, bytes, align);
}

static void draw_sections(kc_decode *c, const plan *of)
{
    octavo_kv_view *view = &c->view;
    static const char *const planes[] = { "k[0]", "k[1]", "k[2]" };
    const int64_t tokens = view->block_tokens, units = tokens / view->sub_block_tokens, all = of->kind == TENSORS ? of->longest : tokens;
    const int64_t all_units = (all + view->sub_block_tokens - 1) / view->sub_block_tokens;
    const int64_t k_align = octavo_k_element_bytes(view->k_format), v_align = octavo_v_element_bytes(view->v_format);
    for (int i = 0; i < octavo_k_plane_count(view->k_format); i++)
        draw_section(c, of, &view->k[i], planes[i], octavo_k_row_bytes(view->k_format, view->head_dim), k_align, tokens, all);
    draw_section(c, of, &view->v, "v", octavo_v_row_bytes(view->v_format, view->v_dim), v_align, tokens, all);
    const int64_t k_scale = octavo_k_scale_bytes(view->k_format), v_scale = octavo_v_scale_bytes(view->v_format);
    if (k_scale == 2 || (k_scale == 1 && kc_chance(70)))
        draw_section(c, of, &view->k_scale, "k_scale", k_scale, k_scale, tokens, all);
    if (v_scale == 2 || (v_scale == 1 && kc_chance(60)))
        draw_section(c, of, &view->v_scale, "v_scale", v_scale, v_scale, tokens, all);
    if (of->flags & KC_NORMS) draw_section(c, of, &view->k_norm, "k_norm", 1, 1, tokens, all);
    if (!(of->flags & KC_MEANS)) return;
    draw_section(c, of, &view->v_mean, "v_mean", view->v_dim, 1, units, all_units);
    draw_section(c, of, &view->v_mean_scale, "v_mean_scale", 1, 1, units, all_units);
}

/* Which arrays there are, for operations that ask no more of them. */
static void draw_presence(kc_decode *c)
{
    octavo_kv_view *view = &c->view;
    void *somewhere = kc_bytes("view", 1, 1);
    view->k[0].data = view->v.data = somewhere;
    if (octavo_k_plane_count(view->k_format) > 1) view->k[1].data = somewhere;
    if (octavo_k_scale_bytes(view->k_format) == 2 || kc_chance(70)) view->k_scale.data = somewhere;
    if (octavo_v_scale_bytes(view->v_format) == 2 || kc_chance(70)) view->v_scale.data = somewhere;
    if (kc_chance(50)) view->k_norm.data = somewhere;
}

static octavo_section section_in_page(uint8_t *pool, int64_t offset, int64_t stride, int64_t head_bytes, int64_t row_bytes)
{
    if (offset < 0) return (octavo_section){ 0 };
    return (octavo_section){ pool + offset, stride, 0, head_bytes, row_bytes };
}

static void lay_out_pages(kc_decode *c, unsigned flags)
{
    octavo_kv_view *view = &c->view;
    const octavo_page_config config = { .struct_size = sizeof config, .k_format = view->k_format, .v_format = view->v_format,
                                        .kv_heads = view->kv_heads, .head_dim = view->head_dim, .v_dim = view->v_dim,
                                        .block_tokens = view->block_tokens, .sub_block_tokens = view->sub_block_tokens };
    const octavo_page_layout at = octavo_page_layout_of(&config);
    const int64_t stride = at.page_bytes + (kc_chance(30) ? OCTAVO_PAGE_ALIGN * kc_between(1, 3) : 0);
    uint8_t *pool = kc_bytes("pool", (view->pages - 1) * stride + at.page_bytes, OCTAVO_PAGE_ALIGN);
    const int64_t head = at.head_bytes, k_row = octavo_k_row_bytes(view->k_format, view->head_dim);
    for (int i = 0; i < OCTAVO_MAX_PLANES; i++) view->k[i] = section_in_page(pool, at.k[i], stride, head, k_row);
    view->v = section_in_page(pool, at.v, stride, head, octavo_v_row_bytes(view->v_format, view->v_dim));
    view->k_scale = section_in_page(pool, at.k_scale, stride, head, octavo_k_scale_bytes(view->k_format));
    view->v_scale = section_in_page(pool, at.v_scale, stride, head, octavo_v_scale_bytes(view->v_format));
    view->k_norm = section_in_page(pool, at.k_norm, stride, head, 1);
    if (!(flags & KC_MEANS)) return;
    view->v_mean = section_in_page(pool, at.v_mean, stride, head, view->v_dim);
    view->v_mean_scale = section_in_page(pool, at.v_mean_scale, stride, head, 1);
}

static void draw_channel_scale(octavo_kv_view *view)
{
    if (view->v_format != OCTAVO_V_E4M3 || view->v_scale.data || kc_chance(40)) return;
    float *scale = kc_array("v_channel_scale", OCTAVO_F32, (int64_t)view->kv_heads * view->v_dim);
    for (int64_t i = 0; i < (int64_t)view->kv_heads * view->v_dim; i++) scale[i] = (float)kc_uniform(0.01, 1.0);
    view->v_channel_scale = scale;
}

/* ---- the whole ---- */

int64_t kc_slot(const octavo_kv_view *view, int64_t row, int64_t block)
{
    const int64_t blocks = (view->max_tokens + view->block_tokens - 1) / view->block_tokens;
    return view->page_table ? octavo_view_page(view, row, block) : row * blocks + block;
}

static void fill(kc_decode *c, const plan *of)
{
    octavo_kv_view *view = &c->view;
    const int64_t blocks = (view->max_tokens + view->block_tokens - 1) / view->block_tokens;
    const int64_t slots = view->page_table ? view->pages : c->view_rows * blocks;
    uint8_t *done = kc_scratch(slots * view->block_tokens);
    float *truth = kc_scratch(slots * view->kv_heads * view->block_tokens * view->head_dim * (int64_t)sizeof *truth);
    memset(done, 0, (size_t)(slots * view->block_tokens));
    const kc_mood mood = kc_draw_mood(c);
    for (int64_t r = 0; r < c->view_rows; r++)
        for (int64_t t = 0; t < of->lengths[r]; t++) {
            const int64_t block = t / view->block_tokens;
            if (!(of->flags & KC_WRITABLE) && is_out_of_sight(c, r, block)) continue; /* stays poisoned */
            const int64_t slot = kc_slot(view, r, block), in_block = t % view->block_tokens;
            if (done[slot * view->block_tokens + in_block]++) continue;
            for (int64_t head = 0; head < view->kv_heads; head++)
                kc_store_row(c, &mood, r, head, t,
                             truth + ((slot * view->kv_heads + head) * view->block_tokens + in_block) * view->head_dim);
        }
    for (int64_t r = 0; r < c->view_rows && view->v_mean.data && !(of->flags & KC_WRITABLE); r++)
        for (int64_t u = 0; (u + 1) * view->sub_block_tokens <= of->lengths[r]; u++)
            for (int64_t head = 0; head < view->kv_heads; head++)
                if (!is_out_of_sight(c, r, u * view->sub_block_tokens / view->block_tokens)) kc_store_v_mean(view, r, head, u);
    c->truth = truth;
    kc_draw_q(c, &mood);
}

const float *kc_true_key(const kc_decode *c, int64_t b, int64_t head, int64_t token)
{
    const octavo_kv_view *view = &c->view;
    const int64_t slot = kc_slot(view, octavo_view_row(view, b), token / view->block_tokens);
    return c->truth + ((slot * view->kv_heads + head) * view->block_tokens + token % view->block_tokens) * view->head_dim;
}

void kc_draw_decode(kc_decode *c, const kc_pair *pair, unsigned flags)
{
    plan of = { .kind = (layout)kc_between(OUR_PAGES, TENSORS), .flags = flags };
    *c = (kc_decode){ .view = OCTAVO_KV_VIEW_INIT };
    if (pair->bench) {
        set_bench(c, &of);
    } else {
        draw_formats(&c->view, flags);
        c->tiled = flags & (KC_LONG_Q | KC_STREAMS) && kc_chance(50);
        if (c->tiled && flags & KC_STREAMS) draw_streamed(c, &of);
        else if (c->tiled) draw_tiled(c, &of);
        else draw_dims(c, &of);
    }
    c->q_heads = c->group * c->view.kv_heads, c->rows = c->group * c->q_tokens;
    draw_lengths(c, &of, pair->bench);
    draw_visibility(c, pair->bench);
    c->units = octavo_view_units(&c->view);
    if (of.kind != TENSORS) draw_page_table(c, &of);
    if (flags & KC_BARE) draw_presence(c);
    else if (of.kind == OUR_PAGES) lay_out_pages(c, flags);
    else draw_sections(c, &of);
    draw_channel_scale(&c->view);
    kc_describe("k=%s%s v=%s %s batch=%lld kv_heads=%d group=%lld q_tokens=%lld head_dim=%d v_dim=%d block=%d sub=%d tokens=%lld "
                "max_tokens=%lld window=%lld sinks=%lld cap=%g scale=%g",
                octavo_k_format_name(c->view.k_format), c->view.k_residual_exponent ? "" : "(0)", octavo_v_format_name(c->view.v_format),
                layout_names[of.kind], (long long)c->view.batch, c->view.kv_heads, (long long)c->group, (long long)c->q_tokens,
                c->view.head_dim, c->view.v_dim, c->view.block_tokens, c->view.sub_block_tokens, (long long)of.longest,
                (long long)c->view.max_tokens, (long long)c->in.window, (long long)c->in.sink_tokens, (double)c->in.soft_cap,
                (double)c->in.softmax_scale);
    c->in.kv = &c->view;
    if (!(flags & KC_BARE)) fill(c, &of);
}
