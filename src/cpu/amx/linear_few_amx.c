/* linear_few_amx.c - products of a few tokens on AMX tiles: strips of W, which memory bounds. W's rows are multiplied where they lie,
 * or from their packed tiles, and a panel's sums stay on the stack. */
#include "cpu/amx/linear_amx.h"
#include "cpu/amx/linear_finish_amx.h"
#include "cpu/amx/linear_panel_amx.h"

enum { FEW_GROUPS = OCTAVO_LINEAR_FEW / GROUP, PAIR_BYTES = 4 * TILE_BYTES };

/* tile `sum` += tiles w and x, of which `right` or else the other is the right operand. */
#define TILE_PRODUCT(sum, w, x)                                                            \
    do {                                                                                   \
        if (integer && right) _tile_dpbssd(sum, x, w);                                     \
        else if (integer) _tile_dpbssd(sum, w, x);                                         \
        else if (right) _tile_dpbf16ps(sum, x, w);                                         \
        else _tile_dpbf16ps(sum, w, x);                                                    \
    } while (0)

/* Adds a block's products to 2 x 2 tiles of sums, or 2 x 1 where a group is alone. `ask`: memory to ask for meanwhile. */
static inline __attribute__((always_inline)) void multiply_tiles(const product *c, const block *at, const panel_tiles *w, int64_t group,
                                                                 int w_terms, int terms, int integer, int pair, int right, int fresh,
                                                                 uint8_t *sums, int64_t second, fetch ask[2])
{
    const uint8_t *x0 = linear_x_tiles(c->job, group, at->step), *x1 = pair ? linear_x_tiles(c->job, group + 1, at->step) : x0, *w0 = w->first;
    fetch first = ask[0], other = ask[1]; /* in registers */
    compiler_barrier();
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(2, sums + second, 64);
        if (pair) {
            _tile_loadd(1, sums + TILE_BYTES, 64);
            _tile_loadd(3, sums + second + TILE_BYTES, 64);
        }
    }
    for (int64_t s = 0; s < at->steps; s++) {
        fetch_lines(&first);
        fetch_lines(&other);
        for (int i = 0; i < w_terms * terms; i++) {
            const int w_term = i / terms, term = i % terms;
            if (term == 0) {
                _tile_loadd(4, w0, w->stride);
                _tile_loadd(5, w0 + w->second, w->stride);
                w0 += w->next;
            }
            if (w_term + term >= TERMS_MAX) continue; /* at most 2^-21 of the product: each term is within 2^-7 of the one before */
            _tile_stream_loadd(6, x0 + term * TILE_BYTES, 64);
            if (pair) _tile_stream_loadd(7, x1 + term * TILE_BYTES, 64);
            TILE_PRODUCT(0, 4, 6);
            TILE_PRODUCT(2, 5, 6);
            if (!pair) continue;
            TILE_PRODUCT(1, 4, 7);
            TILE_PRODUCT(3, 5, 7);
        }
        x0 += terms * TILE_BYTES, x1 += terms * TILE_BYTES;
    }
    _tile_stored(0, sums, 64);
    _tile_stored(2, sums + second, 64);
    if (pair) {
        _tile_stored(1, sums + TILE_BYTES, 64);
        _tile_stored(3, sums + second + TILE_BYTES, 64);
    }
    compiler_barrier();
    ask[0] = first, ask[1] = other;
}

static inline __attribute__((always_inline)) void multiply_as(const product *c, const block *at, const panel_tiles *w, int64_t group, int pair,
                                                              int right, int fresh, uint8_t *sums, int64_t second, fetch ask[2])
{
    const int terms = c->job->terms, w_terms = c->plan->terms;
    if (c->job->integer) multiply_tiles(c, at, w, group, 1, 1, 1, pair, right, fresh, sums, second, ask);
    else if (terms == 1 && w_terms == 1) multiply_tiles(c, at, w, group, 1, 1, 0, pair, right, fresh, sums, second, ask);
    else multiply_tiles(c, at, w, group, w_terms, terms, 0, pair, right, fresh, sums, second, ask);
}

static void multiply(const product *c, const block *at, const panel_tiles *w, int64_t group, int pair, int fresh, uint8_t *sums,
                     int64_t second, fetch ask[2])
{
    if (c->job->w_right) {
        if (pair) multiply_as(c, at, w, group, 1, 1, fresh, sums, second, ask);
        else multiply_as(c, at, w, group, 0, 1, fresh, sums, second, ask);
    } else {
        if (pair) multiply_as(c, at, w, group, 1, 0, fresh, sums, second, ask);
        else multiply_as(c, at, w, group, 0, 0, fresh, sums, second, ask);
    }
}

/* sums = (fresh ? 0 : sums) + scale * part, a scale a row of W, for one or two groups. */
static void add_scaled(const float scales[PANEL_ROWS], int right, int64_t groups, int fresh, const uint8_t *part, uint8_t *sums, int64_t second)
{
    for (int64_t r = 0; r < PANEL_ROWS; r++) {
        const __m512 scale = right ? _mm512_loadu_ps(scales + r / TILE_ROWS * TILE_ROWS) : _mm512_set1_ps(scales[r]);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t in_tile = g * TILE_BYTES + r % TILE_ROWS * 64, lower = r / TILE_ROWS;
            float *sum = (float *)(void *)(sums + in_tile + lower * second);
            const __m512 more = _mm512_load_ps(part + in_tile + lower * 2 * TILE_BYTES);
            _mm512_store_ps(sum, fresh ? _mm512_mul_ps(scale, more) : _mm512_fmadd_ps(scale, more, _mm512_load_ps(sum)));
        }
    }
}

/* A block times groups [first, first + groups), added to sums whose second 16 rows lie `groups` tiles behind the first. The last
 * block of a panel ends in y, a pair of groups behind the products: what tiles store is not read before it has arrived, and the
 * stores to y run beside the next products. Where that block is the only one its sums need no more than two places in turn. */
static void multiply_groups(const product *c, const block *at, const panel_tiles *w, int64_t first, int64_t groups, uint8_t *sums, fetch ask[2])
{
    uint8_t part[2 * PAIR_BYTES] __attribute__((aligned(64)));
    float scales[PANEL_ROWS] = { 0 };
    const int fresh = at->step == 0, last = at->step + at->steps == c->job->steps, blocks = c->plan->block_scales;
    const int turns = fresh && last && !blocks;
    const int64_t second = (turns ? 2 : groups) * TILE_BYTES;
    const panel_finish finish = last ? panel_finish_of(c->plan, at->row) : (panel_finish){ 0 };
    const uint8_t *before = NULL;
    for (int64_t r = 0; r < at->rows && blocks; r++)
        scales[r] = octavo_weight_scale(&c->plan->part->weight, at->row + r, at->step * STEP);
    for (int64_t group = 0; group < groups; group += 2) {
        const int pair = group + 1 < groups;
        uint8_t *to = turns ? part + group / 2 % 2 * PAIR_BYTES : sums + group * TILE_BYTES;
        multiply(c, at, w, first + group, pair, fresh || blocks, blocks ? part : to, blocks ? 2 * TILE_BYTES : second, ask);
        if (blocks) add_scaled(scales, c->job->w_right, pair + 1, fresh, part, to, second);
        if (last && before) linear_finish_groups(c->job, c->plan, &finish, first + group - 2, 2, before, second);
        before = to;
    }
    const int64_t end = (groups - 1) / 2 * 2;
    if (last) linear_finish_groups(c->job, c->plan, &finish, first + end, groups - end, before, second);
}

/* ---- strips ---- */

/* Block number i of a strip, along the rows, as memory lies. */
static block few_block(const linear_job *job, const part_plan *plan, int64_t begin, int64_t end, int64_t i)
{
    const int64_t segments = (job->steps + plan->segment - 1) / plan->segment;
    const int64_t row = begin + i / segments * PANEL_ROWS, step = i % segments * plan->segment;
    if (row >= end) return (block){ .row = end };
    return (block){ .row = row, .rows = end - row < PANEL_ROWS ? end - row : PANEL_ROWS, .step = step,
                    .steps = job->steps - step < plan->segment ? job->steps - step : plan->segment };
}

void linear_few_strip(void *argument, int64_t strip)
{
    const linear_job *job = argument;
    const part_plan *plan = linear_find_strip(job, &strip);
    uint8_t scratch[SCRATCH_BYTES] __attribute__((aligned(64))), sums[2 * FEW_GROUPS * TILE_BYTES] __attribute__((aligned(64)));
    const int64_t begin = strip * job->strip_rows, end = begin + job->strip_rows < plan->rows ? begin + job->strip_rows : plan->rows;
    configure_tiles();
    block at = few_block(job, plan, begin, end, 0);
    for (int64_t i = 1; at.rows > 0; i++) {
        const block next = few_block(job, plan, begin, end, i);
        const panel_tiles w = find_tiles(job, plan, &at, scratch);
        fetch ask[2] = { fetch_block(job, plan, &next, (job->groups + 1) / 2 * at.steps) };
        multiply_groups(&(product){ job, plan }, &at, &w, 0, job->groups, sums, ask);
        at = next;
    }
    _tile_release();
}
