/* linear_many_amx.c - products of many tokens on AMX tiles: blocks of strips and tokens, which the tiles' loads bound.
 *
 * A panel of W, the right operand, is multiplied from the first-level cache. x is loaded as a stream, or it would drive W out. A
 * block's sums and a segment of its x stay in the second-level cache; the next segment of x is fetched meanwhile. The tiles never
 * pause: two groups' sums leave them in the first step of the next two groups, and what becomes of them is done a few rows at a
 * time beside that pair's other steps. */
#include "cpu/amx/linear_amx.h"
#include "cpu/amx/linear_finish_amx.h"
#include "cpu/amx/linear_panel_amx.h"

enum {
    PAIR_TOKENS = 2 * GROUP,
    PAIR_BYTES = 4 * TILE_BYTES, /* the first group's sums with the upper and the lower rows of W, the second's */
    INFINITE = 0x18              /* of vfpclassps: +Inf or -Inf                                                 */
};

/* What becomes of a panel's sums. */
typedef struct panel_rest {
    const linear_job *job;
    const part_plan *plan;
    /* Tokens [begin, end) of a pair whose sums are at `sums`: to y, or to `total` first. NULL: they stay where they are. */
    void (*move)(const struct panel_rest *rest, const uint8_t *sums, uint8_t *total, int64_t group, int64_t begin, int64_t end);
    panel_finish finish;
    float scales[PANEL_ROWS]; /* of a block of scales */
    int fresh, last;          /* of a row's blocks    */
} panel_rest;

/* The pair that is in the tiles, or has just left them, and the memory to ask for. */
typedef struct pipeline {
    const panel_rest *rest;
    uint8_t *sums; /* where they go                                        */
    uint8_t *total;
    int64_t group; /* the pair's first                                     */
    fetch ask[2];
} pipeline;

/* The pair's token t in its sums: the upper rows, TILE_BYTES behind them the lower ones. */
static inline int64_t row_at(int64_t t) { return t / GROUP * 2 * TILE_BYTES + t % GROUP * STEP_BYTES; }

/* ---- sums ---- */

/* What is not finite in x has left no finite sum, so that only where one is infinite x has to be looked at. */
static inline __attribute__((always_inline)) void finish_rows(octavo_dtype dtype, octavo_store how, int integer, const panel_rest *rest,
                                                              const uint8_t *sums, int64_t group, int64_t begin, int64_t end)
{
    const octavo_tensor *y = &rest->plan->part->y;
    const row_finish *upper = &rest->finish.upper, *lower = &rest->finish.lower;
    for (int64_t t = begin; t < end; t++) {
        const int64_t n = group * GROUP + t, to = n * y->strides[0] + rest->finish.row;
        const uint8_t *at = sums + row_at(t);
        __m512 factor = _mm512_set1_ps(rest->job->factors[n]), x0 = _mm512_load_ps(at), x1 = _mm512_load_ps(at + TILE_BYTES);
        if (integer) x0 = _mm512_cvtepi32_ps(_mm512_castps_si512(x0)), x1 = _mm512_cvtepi32_ps(_mm512_castps_si512(x1));
        else if (_mm512_fpclass_ps_mask(x0, INFINITE) | _mm512_fpclass_ps_mask(x1, INFINITE)) factor = _mm512_set1_ps(linear_factor(rest->job, n));
        x0 = _mm512_fmadd_ps(_mm512_mul_ps(x0, upper->scale), factor, upper->bias);
        x1 = _mm512_fmadd_ps(_mm512_mul_ps(x1, lower->scale), factor, lower->bias);
        linear_store_16(dtype, how, y->data, to, upper->there, x0);
        linear_store_16(dtype, how, y->data, to + TILE_ROWS, lower->there, x1);
    }
}

#define FINISH(name, dtype, how, integer)                                                                                        \
    static void name(const panel_rest *rest, const uint8_t *sums, uint8_t *total, int64_t group, int64_t begin, int64_t end)     \
    {                                                                                                                            \
        (void)total;                                                                                                             \
        finish_rows(dtype, how, integer, rest, sums, group, begin, end);                                                         \
    }
FINISH(finish_f32, OCTAVO_F32, OCTAVO_STORE_SET, 0)
FINISH(finish_bf16, OCTAVO_BF16, OCTAVO_STORE_SET, 0)
FINISH(add_f32, OCTAVO_F32, OCTAVO_STORE_ADD, 0)
FINISH(finish_any, rest->plan->part->y.dtype, rest->job->p->store, rest->job->integer)

/* Sums of a block of scales, added to the total. */
static void scale_rows(const panel_rest *rest, const uint8_t *sums, uint8_t *total, int64_t group, int64_t begin, int64_t end)
{
    const __m512 upper = _mm512_loadu_ps(rest->scales), lower = _mm512_loadu_ps(rest->scales + TILE_ROWS);
    for (int64_t t = begin; t < end; t++) {
        const uint8_t *from = sums + row_at(t);
        uint8_t *to = total + row_at(t);
        const __m512 x0 = _mm512_load_ps(from), x1 = _mm512_load_ps(from + TILE_BYTES);
        _mm512_store_ps(to, rest->fresh ? _mm512_mul_ps(upper, x0) : _mm512_fmadd_ps(upper, x0, _mm512_load_ps(to)));
        _mm512_store_ps(to + TILE_BYTES, rest->fresh ? _mm512_mul_ps(lower, x1) : _mm512_fmadd_ps(lower, x1, _mm512_load_ps(to + TILE_BYTES)));
    }
    if (rest->last) finish_rows(rest->plan->part->y.dtype, rest->job->p->store, 0, rest, total, group, begin, end);
}

static void panel_rest_init(panel_rest *rest, const linear_job *job, const part_plan *plan, const block *at)
{
    const octavo_dtype dtype = plan->part->y.dtype;
    const octavo_store how = job->p->store;
    rest->job = job, rest->plan = plan, rest->move = NULL;
    rest->fresh = at->step == 0, rest->last = at->step + at->steps == job->steps;
    if (rest->last) {
        rest->finish = panel_finish_of(plan, at->row);
        if (job->integer || (dtype != OCTAVO_F32 && how == OCTAVO_STORE_ADD) || dtype == OCTAVO_F16) rest->move = finish_any;
        else rest->move = how == OCTAVO_STORE_ADD ? add_f32 : dtype == OCTAVO_F32 ? finish_f32 : finish_bf16;
    }
    if (!plan->block_scales) return;
    rest->move = scale_rows;
    for (int64_t r = 0; r < PANEL_ROWS; r++)
        rest->scales[r] = r < at->rows ? octavo_weight_scale(&plan->part->weight, at->row + r, at->step * STEP) : 0.0f;
}

/* Rows of the pair that has left the tiles, from *moved on. */
static inline void move_rows(const pipeline *p, int64_t *moved, int64_t end)
{
    const int64_t left = p->rest->job->tokens - p->group * GROUP, all = left < PAIR_TOKENS ? left : PAIR_TOKENS, until = end < all ? end : all;
    if (until > *moved) p->rest->move(p->rest, p->sums, p->total, p->group, *moved, until);
    *moved = end;
}

/* ---- products ---- */

/* A step of two groups of x; the next one lies `step` bytes behind. */
typedef struct x_pair {
    const uint8_t *first, *second;
    int64_t row, step;
} x_pair;

/* A group without a second one is multiplied twice. */
static inline x_pair x_pair_of(const linear_job *job, int64_t group, int alone, int64_t step)
{
    if (group >= job->direct) {
        const uint8_t *first = linear_x_tiles(job, group, step);
        return (x_pair){ first, alone ? first : linear_x_tiles(job, group + 1, step), STEP_BYTES, job->terms * TILE_BYTES };
    }
    const int64_t row = job->p->x.strides[0] * 2;
    const uint8_t *first = (const uint8_t *)job->p->x.data + group * GROUP * row + step * STEP_BYTES;
    return (x_pair){ first, first + GROUP * row, row, STEP_BYTES };
}

/* tile `sum` += tiles x and w. */
#define TILE_PRODUCT(sum, x, w)                                                            \
    do {                                                                                   \
        if (integer) _tile_dpbssd(sum, x, w);                                              \
        else _tile_dpbf16ps(sum, x, w);                                                    \
    } while (0)
/* In a pair's first product the sums before it leave the tile. */
#define TILE_TURN(sum, offset)                                                             \
    do {                                                                                   \
        if (!first) break;                                                                 \
        _tile_stored(sum, leaving + (offset), STEP_BYTES);                                 \
        if (sums) _tile_loadd(sum, sums + (offset), STEP_BYTES);                           \
        else _tile_zero(sum);                                                              \
    } while (0)

/* One step, or one of its terms. Loads are as far from each other as they can be. */
static inline __attribute__((always_inline)) void multiply_step(const uint8_t *w, int load_w, const uint8_t *x0, const uint8_t *x1, int64_t x_row,
                                                                int integer, int first, uint8_t *leaving, const uint8_t *sums)
{
    if (load_w) _tile_loadd(4, w, STEP_BYTES);
    _tile_stream_loadd(6, x0, x_row);
    TILE_TURN(0, 0);
    TILE_PRODUCT(0, 6, 4);
    if (load_w) _tile_loadd(5, w + TILE_BYTES, STEP_BYTES);
    TILE_TURN(1, TILE_BYTES);
    TILE_PRODUCT(1, 6, 5);
    _tile_stream_loadd(7, x1, x_row);
    TILE_TURN(2, 2 * TILE_BYTES);
    TILE_PRODUCT(2, 7, 4);
    TILE_TURN(3, 3 * TILE_BYTES);
    TILE_PRODUCT(3, 7, 5);
}

/* A block times a pair of groups, added to `sums` (NULL: to zero), which then stay in the tiles. */
static inline __attribute__((always_inline)) void multiply_pair(const block *at, const uint8_t *w, const x_pair *x,
                                                                int w_terms, int terms, int integer, const uint8_t *sums, pipeline *p)
{
    const uint8_t *x0 = x->first, *x1 = x->second;
    const int64_t each = p->rest->move ? at->steps > 2 ? (PAIR_TOKENS + at->steps - 3) / (at->steps - 2) : PAIR_TOKENS : 0;
    fetch first_ask = p->ask[0], other_ask = p->ask[1]; /* in registers */
    int64_t moved = 0;
    compiler_barrier();
    multiply_step(w, 1, x0, x1, x->row, integer, 1, p->sums, sums);
    for (int64_t s = 0; s < at->steps; s++) {
        for (int i = s == 0; i < w_terms * terms; i++) {
            const int w_term = i / terms, term = i % terms;
            if (w_term + term >= TERMS_MAX) continue; /* at most 2^-21 of the product: each term is within 2^-7 of the one before */
            multiply_step(w + w_term * 2 * TILE_BYTES, term == 0, x0 + term * TILE_BYTES, x1 + term * TILE_BYTES, x->row, integer, 0, NULL, NULL);
        }
        w += w_terms * 2 * TILE_BYTES, x0 += x->step, x1 += x->step;
        fetch_lines(&first_ask);
        fetch_lines(&other_ask);
        compiler_barrier();
        if (s > 1 && each) move_rows(p, &moved, moved + each);
    }
    compiler_barrier();
    if (p->rest->move) move_rows(p, &moved, PAIR_TOKENS);
    p->ask[0] = first_ask, p->ask[1] = other_ask;
}

static void multiply(const product *c, const block *at, const uint8_t *w, const x_pair *x, const uint8_t *sums, pipeline *p)
{
    const int terms = c->job->terms, w_terms = c->plan->terms;
    if (c->job->integer) multiply_pair(at, w, x, 1, 1, 1, sums, p);
    else if (terms == 1 && w_terms == 1) multiply_pair(at, w, x, 1, 1, 0, sums, p);
    else multiply_pair(at, w, x, w_terms, terms, 0, sums, p);
}

/* The last pair's sums leave the tiles. */
static void drain(pipeline *p)
{
    int64_t moved = 0;
    compiler_barrier();
    _tile_stored(0, p->sums, STEP_BYTES);
    _tile_stored(1, p->sums + TILE_BYTES, STEP_BYTES);
    _tile_stored(2, p->sums + 2 * TILE_BYTES, STEP_BYTES);
    _tile_stored(3, p->sums + 3 * TILE_BYTES, STEP_BYTES);
    compiler_barrier();
    if (p->rest->move) move_rows(p, &moved, PAIR_TOKENS);
}

/* A block times groups [first, first + groups), added to sums. Those that need not be kept pass through one place. */
static void multiply_groups(const product *c, const block *at, const uint8_t *w, int64_t first, int64_t groups, uint8_t *sums,
                            const panel_rest *rest, uint8_t *place, pipeline *p)
{
    const int kept = !rest->last && !c->plan->block_scales, fresh = rest->fresh || c->plan->block_scales;
    for (int64_t group = 0; group < groups; group += 2) {
        uint8_t *total = sums + group * 2 * TILE_BYTES;
        const x_pair x = x_pair_of(c->job, first + group, group + 1 == groups, at->step);
        multiply(c, at, w, &x, fresh ? NULL : total, p);
        p->rest = rest, p->group = first + group, p->total = total, p->sums = kept ? total : place;
    }
}

/* ---- blocks ---- */

/* The next segment of x, while this one is multiplied in `steps` steps of tiles. */
static fetch fetch_x(const linear_job *job, int64_t step, int64_t segment, int64_t first, int64_t groups, int64_t steps)
{
    const int64_t left = job->steps - step, width = left < segment ? left : segment;
    if (width <= 0 || first < job->direct) return (fetch){ 0 };
    return fetch_of(linear_x_tiles(job, first, step), groups * width * job->terms * TILE_BYTES, 1, 0, steps);
}

static void multiply_block(const linear_job *job, const part_plan *plan, int64_t begin, int64_t first, int64_t groups, uint8_t *sums)
{
    uint8_t scratch[SCRATCH_BYTES] __attribute__((aligned(64))), place[PAIR_BYTES] __attribute__((aligned(64)));
    panel_rest rests[2] = { { .job = job }, { .job = job } };
    pipeline p = { .rest = &rests[1], .sums = place };
    const product c = { job, plan };
    const int64_t end = begin + job->strip_rows < plan->rows ? begin + job->strip_rows : plan->rows;
    const int64_t panels = (end - begin + PANEL_ROWS - 1) / PANEL_ROWS, pairs = (groups + 1) / 2;
    int turn = 0;
    configure_tiles();
    for (int64_t step = 0; step < job->steps; step += plan->segment) {
        const int64_t after = step + plan->segment, steps = job->steps < after ? job->steps - step : plan->segment;
        p.ask[1] = fetch_x(job, after, plan->segment, first, groups, panels * pairs * steps);
        for (int64_t row = begin; row < end; row += PANEL_ROWS, turn ^= 1) {
            const block at = { .row = row, .rows = end - row < PANEL_ROWS ? end - row : PANEL_ROWS, .step = step, .steps = steps };
            block next = { .row = row + PANEL_ROWS, .rows = PANEL_ROWS, .step = step, .steps = steps };
            if (next.row >= end) next.row = begin, next.step = after;
            const panel_tiles w = find_tiles(job, plan, &at, scratch);
            uint8_t *panel_sums = sums + (row - begin) / PANEL_ROWS * pairs * PAIR_BYTES;
            p.ask[0] = fetch_block(job, plan, &next, pairs * steps);
            if (after >= job->steps) p.ask[1] = fetch_y(job, plan, row, first, groups, pairs * steps);
            panel_rest_init(&rests[turn], job, plan, &at);
            multiply_groups(&c, &at, w.first, first, groups, panel_sums, &rests[turn], place, &p);
        }
    }
    drain(&p);
    _tile_release();
}

/* ---- chunks ---- */

/* Packs what nobody has taken of a chunk's x, then waits for what others have. */
static void pack_chunk(const linear_job *job, chunk_state *state, int64_t first, int64_t groups)
{
    while (__atomic_load_n(&state->groups, __ATOMIC_RELAXED) < groups) {
        const int64_t g = __atomic_fetch_add(&state->groups, 1, __ATOMIC_RELAXED);
        if (g >= groups) break;
        linear_pack_group(job, first + g);
        __atomic_fetch_add(&state->packed, 1, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&state->packed, __ATOMIC_ACQUIRE) < groups) _mm_pause();
}

static void multiply_chunk(const linear_job *job, int64_t chunk, uint8_t *sums)
{
    chunk_state *state = &job->states[chunk];
    const int64_t first = chunk * job->chunk, left = job->groups - first, groups = left < job->chunk ? left : job->chunk;
    for (int64_t strip; (strip = __atomic_fetch_add(&state->strips, 1, __ATOMIC_RELAXED)) < job->strips;) {
        const part_plan *plan = linear_find_strip(job, &strip);
        pack_chunk(job, state, first, groups);
        multiply_block(job, plan, strip * job->strip_rows, first, groups, sums);
    }
}

/* A slot begins with its own chunks, so that threads whose slots lie together keep to theirs, and then helps with the others. */
void linear_many_slot(void *argument, int64_t slot)
{
    linear_job *job = argument;
    uint8_t *sums = job->sums + slot * OCTAVO_LINEAR_STRIP * octavo_round_up(job->chunk, 2) * GROUP * (int64_t)sizeof(float);
    const int64_t own = slot * job->chunks / job->slots;
    for (int64_t i = 0; i < job->chunks; i++) multiply_chunk(job, (own + i) % job->chunks, sums);
}
