/* attention_prefill_amx.c - attention of many queries on AMX tiles: bf16 or INT8 scores, bf16 weights. */
#include "cpu/amx/prefill_softmax_amx.h"
#include <immintrin.h>

octavo_status octavo_attention_prefill_avx512(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_prefill_step octavo_prefill_sum_avx512, octavo_prefill_means_avx512, octavo_prefill_most_avx512, octavo_prefill_scales_avx512;

/* Operand of ldtilecfg: a constant, because compilers believe that the instruction reads eight bytes of it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
static const tile_config whole_tiles = { .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 } };

static inline void compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

/* A task's memory and state. */
typedef struct prefill_tile {
    prefill_head head;
    prefill_plan plan;
    const octavo_prefill_task *task;
    const uint8_t *packed;
    uint8_t *q, *sum;          /* tiles Q' and O'                                   */
    float *factor, *shift;     /* [rows] of a score, in powers of two; what the keys lack, in nats */
    float *most, *mass;        /* [rows] see prefill_rows                           */
    int32_t *sink_end, *near_begin, *end; /* [rows]                                 */
    float *score, *spare;      /* [PREFILL_KEYS, PREFILL_ROW_PAD]; [PREFILL_SIDE, k_dim] and more */
    uint8_t *weights;          /* tiles P'                                          */
} prefill_tile;

static void init(prefill_tile *at, const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    const int64_t rows = call->layout.rows;
    float *next = (float *)(void *)task->scratch;
    at->task = task;
    at->plan = prefill_plan_of(call->p, &call->layout);
    at->packed = octavo_prefill_packed_at(call, task->slot);
    at->q = (uint8_t *)next, next += rows * call->layout.k_dim;
    at->sum = (uint8_t *)next, next += rows * call->layout.v_dim;
    at->score = next, next += PREFILL_KEYS * PREFILL_ROW_PAD;
    at->weights = (uint8_t *)next, next += PREFILL_KEYS * PREFILL_ROW_PAD;
#define TAKE(member) at->member = (void *)next, next += rows
    TAKE(factor), TAKE(shift), TAKE(most), TAKE(mass), TAKE(sink_end), TAKE(near_begin), TAKE(end);
#undef TAKE
    at->spare = next;
    at->head = prefill_head_of(call, task->slot, next);
}

/* ---- queries ---- */

/* One row of queries into column `row` of its tiles, by way of `rows`: [PREFILL_SIDE] rows of bytes, 64 a step. */
static void pack_query(const prefill_plan *plan, uint8_t *rows, int64_t side, const float *row)
{
    for (int64_t s = 0; s < plan->steps; s++) {
        uint8_t *to = rows + (s * PREFILL_SIDE + side) * 64;
        if (plan->is_int8) {
            _mm512_storeu_si512(to, prefill_int8(row + 64 * s));
            continue;
        }
        const __m512 low = _mm512_loadu_ps(row + 32 * s), high = _mm512_loadu_ps(row + 32 * s + 16);
        const __m512i first = prefill_bf16(low, high);
        _mm512_storeu_si512(to, first);
        if (plan->q_terms > 1)
            _mm512_storeu_si512(to + plan->k_steps * PREFILL_TILE, prefill_bf16(prefill_rest(low, _mm512_castsi512_si256(first)),
                                                                               prefill_rest(high, _mm512_extracti64x4_epi64(first, 1))));
    }
}

static uint8_t *q_tiles(const prefill_tile *at, int64_t side) { return at->q + side * at->plan.q_terms * at->plan.k_steps * PREFILL_TILE; }

/* Rows are packed as they are loaded, and their tiles turned when all are there. */
static void load_queries(prefill_tile *at)
{
    const octavo_prefill_task *task = at->task;
    const octavo_prefill_params *p = at->head.p;
    const int64_t k_dim = at->head.k_dim, heads = task->heads, sides = task->padded_rows / PREFILL_SIDE;
    const float log2_scale = fabsf(p->softmax_scale) * (p->soft_cap > 0.0f ? 1.0f : 0x1.715476p+0f);
    float scale[OCTAVO_PREFILL_BLOCK], shift[OCTAVO_PREFILL_BLOCK], *rows = at->spare + k_dim;
    memset(at->q, 0, (size_t)(sides * at->plan.q_terms * at->plan.k_steps) * PREFILL_TILE);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t first = 0; first < task->tokens; first += OCTAVO_PREFILL_BLOCK) {
            const int64_t left = task->tokens - first, count = left < OCTAVO_PREFILL_BLOCK ? left : OCTAVO_PREFILL_BLOCK;
            prefill_load_queries(&at->head, task->q_head + h, task->token + first, count, rows, k_dim, scale, shift);
            for (int64_t i = 0; i < count; i++) {
                const int64_t row = (first + i) * heads + h;
                if (p->softmax_scale < 0.0f) prefill_scale_row(rows + i * k_dim, -1.0f, k_dim);
                pack_query(&at->plan, q_tiles(at, row / PREFILL_SIDE), row % PREFILL_SIDE, rows + i * k_dim);
                at->factor[row] = scale[i] * log2_scale;
                at->shift[row] = shift[i];
            }
        }
    for (int64_t tile = 0; tile < sides * at->plan.q_terms * at->plan.k_steps; tile++) {
        __m512i x[PREFILL_SIDE];
        for (int i = 0; i < PREFILL_SIDE; i++) x[i] = _mm512_loadu_si512(at->q + tile * PREFILL_TILE + 64 * i);
        prefill_turn(x);
        for (int i = 0; i < PREFILL_SIDE; i++) _mm512_storeu_si512(at->q + tile * PREFILL_TILE + 64 * i, x[i]);
    }
}

static void start_rows(prefill_tile *at)
{
    for (int64_t row = 0; row < at->task->padded_rows; row++) {
        const octavo_span span = octavo_prefill_span(at->head.p, at->head.b, octavo_prefill_row_token(at->task, row));
        at->sink_end[row] = (int32_t)span.sink_end, at->near_begin[row] = (int32_t)span.near_begin, at->end[row] = (int32_t)span.end;
        at->most[row] = PREFILL_NOTHING, at->mass[row] = 0.0f;
        if (row >= at->task->rows) at->factor[row] = 0.0f;
    }
    memset(at->sum, 0, (size_t)(at->task->padded_rows / PREFILL_SIDE * at->plan.v_all) * PREFILL_TILE);
}

/* ---- products ---- */

/* Adds the product of 32 keys' and 32 queries' terms to tiles 0 to 3. */
PREFILL_INLINE void multiply_terms(const uint8_t *k, int64_t k_next, const uint8_t *q, int64_t q_next, int64_t steps, int is_int8)
{
    for (int64_t s = 0; s < steps; s++, k += PREFILL_TILE, q += PREFILL_TILE) {
        _tile_loadd(4, k, 64);
        _tile_loadd(6, q, 64);
        _tile_loadd(5, k + k_next, 64);
        _tile_loadd(7, q + q_next, 64);
        if (is_int8) {
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

/* Scores of 32 keys and 32 queries, turned around. */
PREFILL_INLINE void multiply_keys(const prefill_tile *at, int64_t tile, int64_t block, int64_t side, int marks, int is_int8)
{
    const prefill_plan *plan = &at->plan;
    const uint8_t *k = at->packed + (size_t)tile * plan->k_tile + 2 * block * plan->k_steps * PREFILL_TILE, *q = q_tiles(at, side);
    const int64_t k_next = plan->k_steps * PREFILL_TILE, q_next = plan->q_terms * k_next, k_term = PREFILL_SIDES * k_next;
    uint8_t *score = (uint8_t *)(at->score + 32 * block * PREFILL_ROW_PAD);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    multiply_terms(k, k_next, q, q_next, plan->steps, is_int8);
    if (marks & PREFILL_K_REST) multiply_terms(k + k_term, k_next, q, q_next, plan->steps, is_int8);
    if (plan->q_terms > 1) multiply_terms(k, k_next, q + k_next, q_next, plan->steps, is_int8);
    enum { STRIDE = PREFILL_ROW_PAD * 4 };
    _tile_stored(0, score, STRIDE);
    _tile_stored(1, score + 64, STRIDE);
    _tile_stored(2, score + 16 * STRIDE, STRIDE);
    _tile_stored(3, score + 16 * STRIDE + 64, STRIDE);
}

/* Adds the values of key blocks [from, to) of 32, weighted, to the sums of 32 queries. */
PREFILL_INLINE void multiply_values(const prefill_tile *at, int64_t tile, int64_t side, int64_t from, int64_t to, int marks)
{
    const prefill_plan *plan = &at->plan;
    const int64_t v_term = plan->v_all * PREFILL_BLOCKS32 * PREFILL_TILE, sum_next = plan->v_all * PREFILL_TILE;
    for (int64_t channel = 0; channel < plan->v_sides; channel += 2) {
        uint8_t *sum = at->sum + (side * plan->v_all + channel) * PREFILL_TILE;
        _tile_loadd(0, sum, 64);
        _tile_loadd(1, sum + sum_next, 64);
        _tile_loadd(2, sum + PREFILL_TILE, 64);
        _tile_loadd(3, sum + sum_next + PREFILL_TILE, 64);
        for (int term = 0; term <= (marks & PREFILL_V_REST ? 1 : 0); term++) {
            const uint8_t *v = at->packed + plan->v_at + (size_t)tile * plan->v_tile + term * v_term + channel * PREFILL_BLOCKS32 * PREFILL_TILE;
            for (int64_t block = from; block < to; block++) {
                _tile_loadd(4, v + block * PREFILL_TILE, 64);
                _tile_loadd(6, at->weights + 2 * block * PREFILL_TILE, 64);
                _tile_loadd(5, v + (block + PREFILL_BLOCKS32) * PREFILL_TILE, 64);
                _tile_loadd(7, at->weights + (2 * block + 1) * PREFILL_TILE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, sum, 64);
        _tile_stored(1, sum + sum_next, 64);
        _tile_stored(2, sum + PREFILL_TILE, 64);
        _tile_stored(3, sum + sum_next + PREFILL_TILE, 64);
    }
}

/* ---- softmax ---- */

/* A larger score than before: what was summed shrinks by a power of two. */
static void raise_most(prefill_tile *at, int64_t side, const prefill_pair *largest)
{
    for (int col = 0; col < 2; col++) {
        float *most = at->most + (side + col) * PREFILL_SIDE, *mass = at->mass + (side + col) * PREFILL_SIDE;
        const __m512 before = _mm512_loadu_ps(most);
        const __m512 up = _mm512_roundscale_ps(largest->x[col], _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC), now = _mm512_max_ps(up, before);
        if (!_mm512_cmp_ps_mask(now, before, _CMP_GT_OQ)) continue;
        const __m512 shrink = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_sub_ps(before, now));
        _mm512_storeu_ps(most, now);
        _mm512_storeu_ps(mass, _mm512_mul_ps(_mm512_loadu_ps(mass), shrink));
        float *sum = (float *)(void *)(at->sum + (side + col) * at->plan.v_all * PREFILL_TILE);
        for (int64_t channel = 0; channel < at->plan.v_sides * PREFILL_SIDE; channel++)
            _mm512_storeu_ps(sum + 16 * channel, _mm512_mul_ps(_mm512_loadu_ps(sum + 16 * channel), shrink));
    }
}

/* 32 rows from `side` on and a tile of keys, of which blocks [from, to) of 32 are seen. */
PREFILL_INLINE void attend_tile(prefill_tile *at, int64_t tile, int64_t side, int64_t from, int64_t to, prefill_scores_of *of)
{
    const int marks = at->packed[at->plan.marks_at + (size_t)tile];
    const int64_t row = side * PREFILL_SIDE;
    const prefill_rows rows = { .factor = at->factor + row, .most = at->most + row, .mass = at->mass + row, .sink_end = at->sink_end + row,
                                .near_begin = at->near_begin + row, .end = at->end + row };
    compiler_barrier();
    for (int64_t block = from; block < to; block++) multiply_keys(at, tile, block, side, marks, of->is_int8);
    compiler_barrier();
    const prefill_pair largest = prefill_largest(of, &rows, 32 * from, 32 * to);
    raise_most(at, side, &largest);
    const prefill_pair mass = prefill_weigh(of, &rows, 32 * from, 32 * to);
    for (int col = 0; col < 2; col++) _mm512_storeu_ps(rows.mass + 16 * col, _mm512_add_ps(_mm512_loadu_ps(rows.mass + 16 * col), mass.x[col]));
    compiler_barrier();
    multiply_values(at, tile, side, from, to, marks);
    compiler_barrier();
}

/* The variants whose differences would cost something if they were looked up for every vector. */
static void attend_plain(prefill_tile *at, int64_t tile, int64_t side, int64_t from, int64_t to, const prefill_scores_of *of)
{
    prefill_scores_of plain = { .kind = PREFILL_PLAIN, .score = of->score, .weights = of->weights, .factor = of->factor, .begin = of->begin };
    attend_tile(at, tile, side, from, to, &plain);
}

static void attend_blocked(prefill_tile *at, int64_t tile, int64_t side, int64_t from, int64_t to, const prefill_scores_of *of)
{
    prefill_scores_of blocked = { .kind = PREFILL_BLOCKED, .is_int8 = 1, .score = of->score, .weights = of->weights, .factor = of->factor,
                                  .begin = of->begin };
    attend_tile(at, tile, side, from, to, &blocked);
}

static void attend_any(prefill_tile *at, int64_t tile, int64_t side, int64_t from, int64_t to, const prefill_scores_of *of)
{
    prefill_scores_of any = *of;
    if (any.is_int8) any.is_int8 = 1, attend_tile(at, tile, side, from, to, &any);
    else             any.is_int8 = 0, attend_tile(at, tile, side, from, to, &any);
}

/* ---- the whole ---- */

/* All rows of the task and one tile of keys. */
static void attend_keys(prefill_tile *at, int64_t tile)
{
    const prefill_plan *plan = &at->plan;
    const int64_t begin = tile * PREFILL_KEYS;
    prefill_scores_of of = { .kind = plan->kind, .is_int8 = plan->is_int8, .soft_cap = at->head.p->soft_cap, .begin = begin,
                             .factor = (const float *)(const void *)(at->packed + plan->factor_at) + begin,
                             .weight = plan->weighted ? (const float *)(const void *)(at->packed + plan->weight_at) + begin : NULL,
                             .score = at->score, .weights = at->weights };
    for (int64_t row = 0; row < at->task->padded_rows; row += PREFILL_ROW_PAD) {
        const int64_t end_row = row + PREFILL_ROW_PAD - 1;
        const octavo_span first = { at->sink_end[row], at->near_begin[row], at->end[row] };
        const octavo_span last = { at->sink_end[end_row], at->near_begin[end_row], at->end[end_row] };
        const octavo_prefill_sight sight = octavo_prefill_sight_of(&first, &last, begin, begin + PREFILL_KEYS);
        if (sight == PREFILL_UNSEEN) continue;
        int64_t from = 0, to = (last.end - begin + 31) / 32;
        if (to > PREFILL_BLOCKS32) to = PREFILL_BLOCKS32;
        if (begin >= last.sink_end && first.near_begin > begin) from = (first.near_begin - begin) / 32;
        of.masked = sight != PREFILL_WHOLE;
        const int special = of.masked || plan->weighted;
        if (plan->kind == PREFILL_PLAIN && !special) attend_plain(at, tile, row / PREFILL_SIDE, from, to, &of);
        else if (plan->kind == PREFILL_BLOCKED && !special) attend_blocked(at, tile, row / PREFILL_SIDE, from, to, &of);
        else attend_any(at, tile, row / PREFILL_SIDE, from, to, &of);
    }
}

/* Turns sixteen queries' sums back into rows, and stores them. */
static void finish(prefill_tile *at)
{
    const int64_t v_dim = at->head.v_dim;
    float *rows = at->score; /* [PREFILL_SIDE, v_dim], together with the weights behind it and the spare rows */
    for (int64_t side = 0; side < at->task->padded_rows / PREFILL_SIDE; side++) {
        for (int64_t channel = 0; channel < at->plan.v_all; channel++) {
            __m512i x[PREFILL_SIDE];
            for (int i = 0; i < PREFILL_SIDE; i++) x[i] = _mm512_loadu_si512(at->sum + (side * at->plan.v_all + channel) * PREFILL_TILE + 64 * i);
            prefill_turn(x);
            for (int i = 0; i < PREFILL_SIDE; i++) _mm512_storeu_si512(rows + i * v_dim + 16 * channel, x[i]);
        }
        for (int64_t i = 0; i < PREFILL_SIDE && side * PREFILL_SIDE + i < at->task->rows; i++) {
            const int64_t row = side * PREFILL_SIDE + i;
            prefill_finish_row(&at->head, octavo_prefill_row_head(at->task, row), octavo_prefill_row_token(at->task, row), rows + i * v_dim,
                               at->most[row] * 0x1.62e430p-1f, at->mass[row], at->shift[row]);
        }
    }
}

static void attend(const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    prefill_tile at;
    init(&at, call, task);
    load_queries(&at);
    start_rows(&at);
    const int64_t last = task->padded_rows - 1;
    const octavo_span first_sees = { at.sink_end[0], at.near_begin[0], at.end[0] }, last_sees = { at.sink_end[last], at.near_begin[last], at.end[last] };
    _tile_loadconfig(&whole_tiles);
    for (int64_t tile = 0; tile * PREFILL_KEYS < last_sees.end; tile++)
        if (octavo_prefill_sight_of(&first_sees, &last_sees, tile * PREFILL_KEYS, (tile + 1) * PREFILL_KEYS) != PREFILL_UNSEEN) attend_keys(&at, tile);
    _tile_release();
    finish(&at);
}

enum { DIM_MOST = 512 }; /* rows that fit in a lane's spare memory, and sums that stay exact in 32 bits */

octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    static const octavo_prefill_work work = { .sum = octavo_prefill_sum_avx512, .means = octavo_prefill_means_avx512, .most = octavo_prefill_most_avx512,
                                              .scales = octavo_prefill_scales_avx512, .pack = octavo_prefill_pack_amx, .attend = attend };
    const int exact_f32 = p->precision == OCTAVO_ATTENTION_EXACT && (p->kv->k_format == OCTAVO_K_F32 || p->kv->v_format == OCTAVO_V_F32);
    if (exact_f32 || p->kv->head_dim > DIM_MOST || p->kv->v_dim > DIM_MOST) return octavo_attention_prefill_avx512(exec, p);
    return octavo_prefill_run(exec, p, &work);
}
