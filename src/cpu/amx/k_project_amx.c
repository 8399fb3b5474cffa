/* k_project_amx.c - the K projection on AMX tiles: W's rows are one operand as they lie in memory, h is packed for the other.
 *
 * A tile of W times a tile of h adds to a tile of sums. Products of bf16 are exact in float32. h in f16 or f32 is the exact sum
 * of two or three bf16 terms, e4m3 and int8 codes are exact as bf16, and scales multiply sums: so all weights of at most eight
 * significant bits are projected here. Others, and scale blocks that hold no whole pairs of steps, go down to avx512.
 * One token is bound by memory; many tokens by the tiles' loads from the second-level cache. */
#include "base/parallel.h"
#include "cpu/amx/project_operands_amx.h"
#include "cpu/body/k_project_turn.h"

octavo_status octavo_k_project_amx(const octavo_exec *exec, const octavo_k_project_params *p);
octavo_status octavo_k_project_avx512(const octavo_exec *exec, const octavo_k_project_params *p);
octavo_status octavo_kv_append_avx512(const octavo_exec *exec, const octavo_kv_append_params *p);

/* With few tokens W's way from memory decides, and its rows are multiplied where they lie. With many, a panel of W is multiplied
 * from the first-level cache: a copy, since rows that are a power of two apart would share its sets, and short enough that a pair
 * of token groups fits beside it. */
enum { FEW_GROUPS = 4, SEGMENT_LONG = 16, SEGMENT_SHORT = 8, STRIP_SHORT = 64, STRIP_LONG = 256 };

/* One chunk of tokens. */
typedef struct projection {
    const octavo_k_project_params *p;
    octavo_project_sizes sizes;
    int64_t first, tokens, groups; /* of the chunk                                                         */
    int64_t steps, segment;        /* steps of a row of W; steps of a block, at most SEGMENT_LONG          */
    int64_t strip_rows;            /* rows of W that one task projects                                     */
    int terms;
    int wide;                      /* W is bf16                                                            */
    int in_place;                  /* and its memory serves as tiles                                       */
    int block_scales;              /* a row has several scales                                             */
    float *y, *turns;
    uint8_t *h;                    /* [segments][groups][steps of the segment][terms] tiles                */
    uint8_t *sums;                 /* [rows / 16][groups] tiles                                            */
    code_table table;
} projection;

/* A panel of rows times a segment of columns. */
typedef struct block {
    int64_t row, rows; /* fewer than PANEL_ROWS at W's end                 */
    int64_t step, steps;
} block;

/* Where a block's tiles of W are: the second 16 rows lie `second` behind the first, the next step `next` behind the last. */
typedef struct panel_tiles {
    const uint8_t *first;
    int64_t stride, second, next;
} panel_tiles;

/* ---- h ---- */

static uint8_t *h_tiles(const projection *c, int64_t group, int64_t step)
{
    const int64_t begin = step / c->segment * c->segment, left = c->steps - begin, width = left < c->segment ? left : c->segment;
    return c->h + (begin * c->groups + group * width + (step - begin)) * c->terms * TILE_BYTES;
}

static void pack_group(void *argument, int64_t group)
{
    const projection *c = argument;
    const int64_t n = group * GROUP, left = c->tokens - n;
    for (int64_t step = 0; step < c->steps; step++)
        pack_step(c->p, c->first + n, left < GROUP ? left : GROUP, step, c->terms, c->wide ? COLUMNS_IN_ORDER : COLUMNS_EVEN_ODD,
                  h_tiles(c, group, step));
}

/* ---- W ---- */

static const uint8_t *w_at(const projection *c, int64_t row, int64_t column)
{
    const octavo_tensor *codes = &c->p->weight.codes;
    return (const uint8_t *)codes->data + (row * codes->strides[0] + column) * (c->wide ? 2 : 1);
}

/* Asks for columns of some rows of a block before they are needed: a panel's rows lie in pages of their own, where the hardware
 * would have to find 32 streams. */
static inline void prefetch_rows(const projection *c, const block *of, int64_t from, int64_t count)
{
    const int64_t bytes = of->steps * STEP * (c->wide ? 2 : 1);
    for (int64_t r = from; r < from + count && r < of->rows; r++) {
        const uint8_t *row = w_at(c, of->row + r, of->step * STEP);
        for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)row + i, _MM_HINT_T1);
    }
}

/* The block's tiles: W itself where it is bf16 and whole, else a copy in `scratch`. `next` is fetched meanwhile. */
static panel_tiles find_tiles(const projection *c, const block *at, const block *next, uint8_t *scratch)
{
    const int64_t column = at->step * STEP, left = c->sizes.hidden - column, width = at->steps * STEP;
    if (c->in_place && at->rows == PANEL_ROWS && left >= width) {
        const int64_t stride = c->p->weight.codes.strides[0] * 2;
        return (panel_tiles){ w_at(c, at->row, column), stride, TILE_ROWS * stride, 64 };
    }
    for (int64_t r = 0; r < PANEL_ROWS; r++) {
        uint8_t *out = scratch + r / TILE_ROWS * TILE_BYTES + r % TILE_ROWS * 64;
        const int64_t count = r >= at->rows ? 0 : left < width ? left : width;
        if (count < width)
            for (int64_t s = 0; s < at->steps; s++) memset(out + s * 2 * TILE_BYTES, 0, 64);
        if (count == 0) continue;
        prefetch_rows(c, next, r, 1);
        if (c->wide) copy_row((const uint16_t *)(const void *)w_at(c, at->row + r, column), count, out, 2 * TILE_BYTES);
        else widen_row(w_at(c, at->row + r, column), count, &c->table, out, 2 * TILE_BYTES);
    }
    return (panel_tiles){ scratch, 64, TILE_BYTES, 2 * TILE_BYTES };
}

/* ---- sums ---- */

/* Compilers do not know that tile instructions read and write memory. */
static inline void compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

/* Adds a block's products to 2 x 2 tiles of sums, or 2 x 1 where a group is alone. `fetch`: the block to ask for meanwhile. */
static inline __attribute__((always_inline)) void multiply_block(const projection *c, const block *at, const panel_tiles *w, int64_t group,
                                                                 int pair, int fresh, uint8_t *sums, int64_t sums_second,
                                                                 const block *fetch)
{
    const uint8_t *h0 = h_tiles(c, group, at->step), *h1 = pair ? h_tiles(c, group + 1, at->step) : h0, *w0 = w->first;
    compiler_barrier();
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(2, sums + sums_second, 64);
        if (pair) {
            _tile_loadd(1, sums + TILE_BYTES, 64);
            _tile_loadd(3, sums + sums_second + TILE_BYTES, 64);
        }
    }
    const int64_t rows_a_step = (PANEL_ROWS + at->steps - 1) / at->steps;
    for (int64_t s = 0; s < at->steps; s++) {
        _tile_loadd(4, w0, w->stride);
        _tile_loadd(5, w0 + w->second, w->stride);
        if (fetch) prefetch_rows(c, fetch, s * rows_a_step, rows_a_step);
        for (int term = 0; term < c->terms; term++, h0 += TILE_BYTES, h1 += TILE_BYTES) {
            _tile_loadd(6, h0, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            if (!pair) continue;
            _tile_loadd(7, h1, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        w0 += w->next;
    }
    _tile_stored(0, sums, 64);
    _tile_stored(2, sums + sums_second, 64);
    if (pair) {
        _tile_stored(1, sums + TILE_BYTES, 64);
        _tile_stored(3, sums + sums_second + TILE_BYTES, 64);
    }
    compiler_barrier();
}

/* sums = (fresh ? 0 : sums) + scale * part, a scale a row, for one or two groups. */
static void add_scaled(const projection *c, const block *at, int64_t groups, int fresh, const uint8_t *part, uint8_t *sums)
{
    for (int64_t r = 0; r < at->rows; r++) {
        const __m512 scale = _mm512_set1_ps(octavo_project_scale(&c->p->weight, at->row + r, at->step * STEP));
        for (int64_t g = 0; g < groups; g++) {
            const int64_t in_tile = g * TILE_BYTES + r % TILE_ROWS * 64, lower = r / TILE_ROWS;
            float *sum = (float *)(void *)(sums + in_tile + lower * c->groups * TILE_BYTES);
            const __m512 more = _mm512_mul_ps(scale, _mm512_load_ps(part + in_tile + lower * 2 * TILE_BYTES));
            _mm512_store_ps(sum, fresh ? more : _mm512_add_ps(_mm512_load_ps(sum), more));
        }
    }
}

static void project_block(const projection *c, const block *at, const block *next, uint8_t *scratch)
{
    uint8_t part[4 * TILE_BYTES] __attribute__((aligned(64)));
    const panel_tiles w = find_tiles(c, at, next, scratch);
    const int fresh = at->step == 0;
    for (int64_t group = 0; group < c->groups; group += 2) {
        uint8_t *sums = c->sums + (at->row / TILE_ROWS * c->groups + group) * TILE_BYTES;
        uint8_t *to = c->block_scales ? part : sums;
        const int64_t lower = c->block_scales ? 2 * TILE_BYTES : c->groups * TILE_BYTES;
        const block *fetch = group == 0 && w.first != scratch ? next : NULL;
        if (group + 1 < c->groups) multiply_block(c, at, &w, group, 1, fresh || c->block_scales, to, lower, fetch);
        else multiply_block(c, at, &w, group, 0, fresh || c->block_scales, to, lower, fetch);
        if (c->block_scales) add_scaled(c, at, group + 1 < c->groups ? 2 : 1, fresh, part, sums);
    }
}

/* ---- strips of W ---- */

/* Up to 16 finished rows as columns of y, scaled where a row has one scale, with their bias. */
static void finish_rows(const projection *c, int64_t row)
{
    const int64_t left = c->sizes.rows - row;
    const __mmask16 there = (__mmask16)(left >= TILE_ROWS ? 0xFFFF : (1 << left) - 1);
    float scales[TILE_ROWS] = { 0 };
    for (int64_t r = 0; r < TILE_ROWS && r < left; r++) scales[r] = c->block_scales ? 1.0f : octavo_project_scale(&c->p->weight, row + r, 0);
    const __m512 scale = _mm512_loadu_ps(scales), bias = c->p->bias ? _mm512_maskz_loadu_ps(there, c->p->bias + row) : _mm512_setzero_ps();
    for (int64_t group = 0; group < c->groups; group++) {
        const uint8_t *sums = c->sums + (row / TILE_ROWS * c->groups + group) * TILE_BYTES;
        __m512i x[TILE_ROWS];
        for (int i = 0; i < TILE_ROWS; i++) x[i] = _mm512_load_si512(sums + i * 64);
        transpose_tile(x);
        for (int64_t t = 0; t < TILE_ROWS && group * GROUP + t < c->tokens; t++)
            _mm512_mask_storeu_ps(c->y + (c->first + group * GROUP + t) * c->sizes.rows + row, there,
                                  _mm512_add_ps(_mm512_mul_ps(_mm512_castsi512_ps(x[t]), scale), bias));
    }
}

/* Block number i of a strip. Few tokens: along the rows, as memory lies; many: down the strip, so that the segment's h stays in the
 * second-level cache for all of it. */
static block block_of(const projection *c, int64_t begin, int64_t end, int64_t i)
{
    const int64_t panels = (end - begin + PANEL_ROWS - 1) / PANEL_ROWS, segments = (c->steps + c->segment - 1) / c->segment;
    const int along = c->groups <= FEW_GROUPS;
    const int64_t panel = along ? i / segments : i % panels, segment = along ? i % segments : i / panels;
    const int64_t row = begin + panel * PANEL_ROWS, step = segment * c->segment;
    if (i >= panels * segments) return (block){ .row = end };
    return (block){ .row = row, .rows = end - row < PANEL_ROWS ? end - row : PANEL_ROWS, .step = step,
                    .steps = c->steps - step < c->segment ? c->steps - step : c->segment };
}

static void configure_tiles(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64))) = { .palette = 1 };
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = TILE_ROWS;
    compiler_barrier();
    _tile_loadconfig(&config);
}

static void project_strip(void *argument, int64_t strip)
{
    const projection *c = argument;
    uint8_t scratch[SEGMENT_LONG * 2 * TILE_BYTES] __attribute__((aligned(64)));
    const int64_t begin = strip * c->strip_rows, left = c->sizes.rows - begin, end = begin + (left < c->strip_rows ? left : c->strip_rows);
    configure_tiles();
    block at = block_of(c, begin, end, 0);
    for (int64_t i = 1; at.rows > 0; i++) {
        const block next = block_of(c, begin, end, i);
        project_block(c, &at, &next, scratch);
        at = next;
    }
    _tile_release();
    for (int64_t row = begin; row < end; row += TILE_ROWS) finish_rows(c, row);
}

/* ---- a few tokens and narrow codes: dot products of rows, since what tiles would save here is less than what filling them takes ---- */

enum { DOT_TOKENS_MOST = 4, DOT_AHEAD = 2048 /* bytes; rows mostly lie one behind the other */ };

static void pack_dots(const projection *c)
{
    __m512i split[TERMS_MAX];
    for (int64_t t = 0; t < c->tokens; t++)
        for (int64_t step = 0; step < c->steps; step++) {
            load_step(&c->p->h, octavo_project_h_row(c->p, c->first + t), step, c->terms, COLUMNS_EVEN_ODD, split);
            for (int term = 0; term < c->terms; term++)
                _mm512_store_si512(c->h + ((t * c->terms + term) * c->steps + step) * 64, split[term]);
        }
}

/* Row `row` of W times every token, to y. */
static inline __attribute__((always_inline)) void dot_row(const projection *c, int64_t row, int64_t tokens, int signed_magnitude,
                                                          const __m512i low[4], const __m512i high[4])
{
    const int64_t together = c->block_scales ? c->p->weight.block_cols : c->sizes.hidden;
    const uint8_t *codes = w_at(c, row, 0);
    __m512 sum[DOT_TOKENS_MOST];
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++) sum[t] = _mm512_setzero_ps();
    for (int64_t column = 0; column < c->sizes.hidden; column += together) {
        const int64_t end = column + together < c->sizes.hidden ? column + together : c->sizes.hidden;
        __m512 part[DOT_TOKENS_MOST][2];
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) part[t][0] = part[t][1] = _mm512_setzero_ps();
        for (int64_t i = column; i < end; i += 64) {
            __m512i wide[2];
            const __mmask64 there = end - i >= 64 ? ~0ull : (1ull << (end - i)) - 1ull;
            _mm_prefetch((const char *)codes + i + DOT_AHEAD, _MM_HINT_T0);
            widen(low, high, signed_magnitude, _mm512_maskz_loadu_epi8(there, codes + i), wide);
#pragma GCC unroll 4
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t term = 0; term < c->terms; term++) {
                    const uint8_t *h = c->h + ((t * c->terms + term) * c->steps + i / STEP) * 64;
                    part[t][0] = _mm512_dpbf16_ps(part[t][0], (__m512bh)wide[0], (__m512bh)_mm512_load_si512(h));
                    part[t][1] = _mm512_dpbf16_ps(part[t][1], (__m512bh)wide[1], (__m512bh)_mm512_load_si512(h + 64));
                }
        }
        const __m512 scale = _mm512_set1_ps(octavo_project_scale(&c->p->weight, row, column));
#pragma GCC unroll 4
        for (int64_t t = 0; t < tokens; t++) sum[t] = _mm512_fmadd_ps(scale, _mm512_add_ps(part[t][0], part[t][1]), sum[t]);
    }
#pragma GCC unroll 4
    for (int64_t t = 0; t < tokens; t++)
        c->y[(c->first + t) * c->sizes.rows + row] = _mm512_reduce_add_ps(sum[t]) + (c->p->bias ? c->p->bias[row] : 0.0f);
}

static inline __attribute__((always_inline)) void dot_rows(const projection *c, int64_t begin, int64_t end, int64_t tokens,
                                                           int signed_magnitude)
{
    __m512i low[4], high[4];
    load_table(&c->table, low, high);
    for (int64_t row = begin; row < end; row++) dot_row(c, row, tokens, signed_magnitude, low, high);
}

static void dot_strip(void *argument, int64_t strip)
{
    const projection *c = argument;
    const int64_t begin = strip * c->strip_rows, left = c->sizes.rows - begin, end = begin + (left < c->strip_rows ? left : c->strip_rows);
    switch (c->tokens * 2 + c->table.signed_magnitude) {
    case 2:  dot_rows(c, begin, end, 1, 0); break;
    case 3:  dot_rows(c, begin, end, 1, 1); break;
    case 4:  dot_rows(c, begin, end, 2, 0); break;
    case 5:  dot_rows(c, begin, end, 2, 1); break;
    case 6:  dot_rows(c, begin, end, 3, 0); break;
    case 7:  dot_rows(c, begin, end, 3, 1); break;
    case 8:  dot_rows(c, begin, end, 4, 0); break;
    default: dot_rows(c, begin, end, 4, 1); break;
    }
}

static void rotate_group(void *argument, int64_t group)
{
    const projection *c = argument;
    for (int64_t t = group * GROUP; t < (group + 1) * GROUP && t < c->tokens; t++)
        project_rotate_token(c->p, c->sizes.rotary, c->first + t, c->y + (c->first + t) * c->sizes.rows, c->turns + t * c->sizes.rotary);
}

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

static int fits_tiles(const octavo_weight *weight)
{
    const octavo_dtype dtype = weight->codes.dtype;
    const int blocks = weight->scales && octavo_project_scale_columns(weight) < weight->codes.shape[1];
    return (dtype == OCTAVO_BF16 || dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8) && !(blocks && weight->block_cols % (2 * STEP));
}

octavo_status octavo_k_project_amx(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_weight *weight = &p->weight;
    if (!fits_tiles(weight)) return octavo_k_project_avx512(exec, p);
    const octavo_project_layout at = octavo_project_layout_of(p);
    uint8_t *workspace = exec->workspace;
    projection c = { .p = p, .sizes = octavo_project_sizes_of(p), .terms = terms_of(p->h.dtype), .wide = weight->codes.dtype == OCTAVO_BF16,
                     .y = (float *)(void *)(workspace + at.y), .turns = (float *)(void *)(workspace + at.turns), .h = workspace + at.h,
                     .sums = workspace + at.sums };
    c.steps = octavo_project_round_up(c.sizes.hidden, 2 * STEP) / STEP;
    c.block_scales = weight->scales && octavo_project_scale_columns(weight) < c.sizes.hidden;
    if (!c.wide) code_table_init(&c.table, weight->codes.dtype);
    for (c.first = 0; c.first < c.sizes.tokens; c.first += c.sizes.chunk) {
        const int64_t left = c.sizes.tokens - c.first;
        c.tokens = left < c.sizes.chunk ? left : c.sizes.chunk;
        c.groups = (c.tokens + GROUP - 1) / GROUP;
        const int few = c.groups <= FEW_GROUPS;
        c.strip_rows = few ? STRIP_SHORT : STRIP_LONG;
        c.segment = few ? SEGMENT_LONG : SEGMENT_SHORT;
        if (c.block_scales) c.segment = gcd(weight->block_cols / STEP, c.segment);
        c.in_place = c.wide && few;
        const int64_t strips = (c.sizes.rows + c.strip_rows - 1) / c.strip_rows;
        if (!c.wide && c.tokens <= DOT_TOKENS_MOST) {
            pack_dots(&c);
            octavo_parallel(exec, strips, dot_strip, &c);
        } else {
            octavo_parallel(exec, c.groups, pack_group, &c);
            octavo_parallel(exec, strips, project_strip, &c);
        }
        if (c.sizes.rotary > 0) octavo_parallel(exec, c.groups, rotate_group, &c);
    }
    const octavo_kv_append_params append = octavo_project_append_params(p, c.y);
    return octavo_kv_append_avx512(exec, &append);
}
