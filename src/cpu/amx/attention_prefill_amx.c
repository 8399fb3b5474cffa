/* attention_prefill_amx.c - attention of many queries on AMX tiles: bf16 or INT8 scores, bf16 weights. */
#include "cpu/amx/prefill_softmax_amx.h"
#include <immintrin.h>

octavo_status octavo_attention_prefill_avx512(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_prefill_step octavo_prefill_sum_avx512, octavo_prefill_means_avx512, octavo_prefill_most_avx512, octavo_prefill_scales_avx512,
                    octavo_prefill_rests_avx512;

/* Operand of ldtilecfg: a constant, because compilers believe that the instruction reads eight bytes of it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
static const tile_config whole_tiles = { .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 } };

enum { DIM_MOST = 512 }; /* wider heads take the vectors of avx512 */

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
    float *score, *spare;      /* [2, 32, PREFILL_ROW_PAD], at the end [PREFILL_SIDE, v_dim]; [1 + OCTAVO_PREFILL_BLOCK, k_dim] */
    uint8_t *weights;          /* tiles P' of two units                             */
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
    at->score = next, next += PREFILL_SIDE * DIM_MOST;
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

/* ---- the pipeline ----
 *
 * Each step takes three things that do not wait for each other: the scores of a block of 32 keys (coming), the weights of the block
 * before it (now), and a part of the values of the unit before that one (gone). The multiplier and the vector units are apart, and the
 * processor looks some five hundred instructions ahead: so a few products are issued, then the weights of a few keys found. */

typedef struct prefill_stage {
    prefill_tile *at;
    prefill_weighing now;
    /* whose values are being added */
    const prefill_unit *gone;
    int64_t channel, parts; /* the next of its channels' tiles; steps that are left to do it in */
} prefill_stage;

/* How a step is compiled: with scores of one kind, `plain` where it can be (prefill_weigh_side), and `pace` pairs of keys for every two
 * products. One side of a pair takes about as long as a product; much more between two would keep the second out of sight. */
typedef struct prefill_variant {
    prefill_scores how;
    int plain, pace;
} prefill_variant;

PREFILL_INLINE void weigh_meanwhile(prefill_weighing *now, const prefill_variant *by, int side)
{
    if (now->left == 0) return;
    if (by->pace == 1) {
        prefill_weigh_side(now, side, by->plain);
    } else {
        prefill_weigh_side(now, 0, by->plain);
        prefill_weigh_side(now, 1, by->plain);
    }
}

/* Four products of two tiles by two. */
PREFILL_INLINE void multiply(prefill_weighing *now, const prefill_variant *by, const uint8_t *a, int64_t a_next, const uint8_t *b, int64_t b_next,
                             int is_int8)
{
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    if (is_int8) _tile_dpbssd(0, 4, 6);
    else         _tile_dpbf16ps(0, 4, 6);
    weigh_meanwhile(now, by, 0);
    _tile_loadd(7, b + b_next, 64);
    if (is_int8) _tile_dpbssd(1, 4, 7);
    else         _tile_dpbf16ps(1, 4, 7);
    weigh_meanwhile(now, by, 1);
    _tile_loadd(5, a + a_next, 64);
    if (is_int8) _tile_dpbssd(2, 5, 6);
    else         _tile_dpbf16ps(2, 5, 6);
    weigh_meanwhile(now, by, 0);
    if (is_int8) _tile_dpbssd(3, 5, 7);
    else         _tile_dpbf16ps(3, 5, 7);
    weigh_meanwhile(now, by, 1);
}

/* Scores of a block of keys: [32, PREFILL_ROW_PAD]. */
PREFILL_INLINE void multiply_keys(prefill_stage *of, const prefill_variant *by, const prefill_unit *unit, int64_t block, float *score)
{
    const prefill_plan *plan = &of->at->plan;
    const int64_t k_next = plan->k_steps * PREFILL_TILE, q_next = plan->q_terms * k_next;
    const uint8_t *k_terms = of->at->packed + (size_t)unit->tile * plan->k_tile + 2 * block * k_next, *q_terms = q_tiles(of->at, unit->side);
    const int products = plan->q_terms > 1 ? 3 : unit->marks & PREFILL_K_REST ? 2 : 1;
    enum { STRIDE = PREFILL_ROW_PAD * 4 };
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int product = 0; product < products; product++) { /* first by first, second by first, first by second terms */
        if (product == 1 && !(unit->marks & PREFILL_K_REST)) continue;
        const uint8_t *k = k_terms + (product == 1 ? PREFILL_SIDES * k_next : 0), *q = q_terms + (product == 2 ? k_next : 0);
        for (int64_t s = 0; s < plan->steps; s++) {
            multiply(&of->now, by, k + s * PREFILL_TILE, k_next, q + s * PREFILL_TILE, q_next, by->how.is_int8);
        }
    }
    _tile_stored(0, score, STRIDE);
    _tile_stored(1, score + 16, STRIDE);
    _tile_stored(2, score + 16 * PREFILL_ROW_PAD, STRIDE);
    _tile_stored(3, score + 16 * PREFILL_ROW_PAD + 16, STRIDE);
}

/* Adds the next part of a unit's weighted values to its sums: all of it where no steps are left. */
PREFILL_INLINE void multiply_values(prefill_stage *of, const prefill_variant *by)
{
    const prefill_tile *at = of->at;
    const prefill_plan *plan = &at->plan;
    const prefill_unit *unit = of->gone;
    const int64_t v_term = plan->v_all * PREFILL_BLOCKS32 * PREFILL_TILE, sum_next = plan->v_all * PREFILL_TILE;
    const uint8_t *values = at->packed + plan->v_at + (size_t)unit->tile * plan->v_tile;
    const int64_t pairs = (plan->v_sides - of->channel) / 2, end = of->channel + (pairs + of->parts - 1) / of->parts * 2;
    for (; of->channel < end; of->channel += 2) {
        uint8_t *sum = at->sum + (unit->side * plan->v_all + of->channel) * PREFILL_TILE;
        _tile_loadd(0, sum, 64);
        _tile_loadd(1, sum + sum_next, 64);
        _tile_loadd(2, sum + PREFILL_TILE, 64);
        _tile_loadd(3, sum + sum_next + PREFILL_TILE, 64);
        for (int term = 0; term <= (unit->marks & PREFILL_V_REST ? 1 : 0); term++)
            for (int64_t block = unit->from; block < unit->to; block++) {
                multiply(&of->now, by, values + term * v_term + (of->channel * PREFILL_BLOCKS32 + block) * PREFILL_TILE, PREFILL_BLOCKS32 * PREFILL_TILE,
                         unit->weights + 2 * block * PREFILL_TILE, PREFILL_TILE, 0);
            }
        _tile_stored(0, sum, 64);
        _tile_stored(1, sum + sum_next, 64);
        _tile_stored(2, sum + PREFILL_TILE, 64);
        _tile_stored(3, sum + sum_next + PREFILL_TILE, 64);
    }
    of->parts--;
}

/* From now on a unit's values are added, in `parts` steps: first what was summed shrinks. */
static void begin_values(prefill_stage *of, const prefill_unit *unit, int64_t parts)
{
    const prefill_tile *at = of->at;
    of->gone = unit, of->channel = 0, of->parts = parts;
    for (int col = 0; col < 2 && unit->shrinks; col++) {
        float *sum = (float *)(void *)(at->sum + (unit->side + col) * at->plan.v_all * PREFILL_TILE);
        for (int64_t channel = 0; channel < at->plan.v_sides * PREFILL_SIDE; channel++)
            _mm512_storeu_ps(sum + 16 * channel, _mm512_mul_ps(_mm512_loadu_ps(sum + 16 * channel), unit->shrink.x[col]));
    }
}

static prefill_rows rows_of(const prefill_tile *at, const prefill_unit *unit)
{
    const int64_t row = unit->side * PREFILL_SIDE;
    return (prefill_rows){ .factor = at->factor + row, .most = at->most + row, .mass = at->mass + row, .sink_end = at->sink_end + row,
                           .near_begin = at->near_begin + row, .end = at->end + row };
}

/* A block has much larger scores than were seen before: the mass and the unit's weights so far shrink now, the sums when the unit's
 * values are added. Weights up to 2^PREFILL_HEADROOM are let be, so that this is rare. */
PREFILL_INLINE void raise_most(prefill_unit *unit, int64_t block, const prefill_rows *rows, const prefill_pair *largest)
{
    const __m512 headroom = _mm512_set1_ps(PREFILL_HEADROOM);
    __mmask16 above[2];
    for (int col = 0; col < 2; col++)
        above[col] = _mm512_cmp_ps_mask(largest->x[col], _mm512_add_ps(_mm512_loadu_ps(rows->most + 16 * col), headroom), _CMP_GT_OQ);
    if (!(above[0] | above[1])) return;
    prefill_pair shrink;
    for (int col = 0; col < 2; col++) {
        const __m512 before = _mm512_loadu_ps(rows->most + 16 * col), mass = _mm512_loadu_ps(rows->mass + 16 * col);
        const __m512 up = _mm512_roundscale_ps(largest->x[col], _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC), now = _mm512_mask_mov_ps(before, above[col], up);
        shrink.x[col] = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_sub_ps(before, now));
        _mm512_storeu_ps(rows->most + 16 * col, now);
        _mm512_storeu_ps(rows->mass + 16 * col, _mm512_mul_ps(mass, shrink.x[col]));
        unit->shrink.x[col] = unit->shrinks ? _mm512_mul_ps(unit->shrink.x[col], shrink.x[col]) : shrink.x[col];
    }
    unit->shrinks = 1;
    prefill_shrink_weights(unit, block, &shrink);
}

/* One step. `coming` may be NULL; `weighed` is whose block is weighed now, or NULL. */
PREFILL_INLINE void advance_as(prefill_stage *of, const prefill_variant *by, prefill_unit *coming, int64_t block, float *score,
                               const prefill_unit *weighed)
{
    compiler_barrier();
    if (coming) multiply_keys(of, by, coming, block, score);
    if (of->gone && of->parts) multiply_values(of, by);
    if (weighed) {
        while (of->now.left) prefill_weigh_side(&of->now, 0, by->plain), prefill_weigh_side(&of->now, 1, by->plain);
        float *mass = of->at->mass + weighed->side * PREFILL_SIDE;
        _mm512_storeu_ps(mass, _mm512_add_ps(_mm512_loadu_ps(mass), of->now.mass[0]));
        _mm512_storeu_ps(mass + 16, _mm512_add_ps(_mm512_loadu_ps(mass + 16), of->now.mass[1]));
    }
    compiler_barrier();
    if (!coming) return;
    const prefill_rows rows = rows_of(of->at, coming);
    const prefill_pair largest = coming->masked ? prefill_largest(&by->how, coming, &rows, block, score, 1)
                                                : prefill_largest(&by->how, coming, &rows, block, score, 0);
    raise_most(coming, block, &rows, &largest);
    prefill_weighing_begin(&of->now, &by->how, coming, &rows, block, score);
}

PREFILL_INLINE void advance(prefill_stage *of, const prefill_scores *how, prefill_unit *coming, int64_t block, float *score,
                            const prefill_unit *weighed)
{
    const int64_t quads = of->at->plan.steps + (of->gone ? of->gone->to - of->gone->from : 0);
    if (weighed && (weighed->masked || weighed->weight)) advance_as(of, &(prefill_variant){ *how, 0, 2 }, coming, block, score, weighed);
    else if (quads < 8) advance_as(of, &(prefill_variant){ *how, 1, 2 }, coming, block, score, weighed);
    else                advance_as(of, &(prefill_variant){ *how, 1, 1 }, coming, block, score, weighed);
}

/* The unit of rows from `row` on and a tile of keys; 0: nothing of it is seen. */
static int unit_of(const prefill_tile *at, int64_t tile, int64_t row, prefill_unit *unit)
{
    const prefill_plan *plan = &at->plan;
    const int64_t begin = tile * PREFILL_KEYS, end_row = row + PREFILL_ROW_PAD - 1;
    const octavo_span first = { at->sink_end[row], at->near_begin[row], at->end[row] };
    const octavo_span last = { at->sink_end[end_row], at->near_begin[end_row], at->end[end_row] };
    const octavo_prefill_sight sight = octavo_prefill_sight_of(&first, &last, begin, begin + PREFILL_KEYS);
    if (sight == PREFILL_UNSEEN) return 0;
    unit->tile = tile, unit->side = row / PREFILL_SIDE, unit->begin = begin, unit->masked = sight != PREFILL_WHOLE, unit->shrinks = 0;
    unit->marks = at->packed[plan->marks_at + (size_t)tile];
    unit->factor = (const float *)(const void *)(at->packed + plan->factor_at) + begin;
    unit->weight = plan->weighted ? (const float *)(const void *)(at->packed + plan->weight_at) + begin : NULL;
    unit->to = (last.end - begin + 31) / 32 < PREFILL_BLOCKS32 ? (last.end - begin + 31) / 32 : PREFILL_BLOCKS32;
    unit->from = begin >= last.sink_end && first.near_begin > begin ? (first.near_begin - begin) / 32 : 0;
    return 1;
}

/* Tile by tile of keys, in each all rows. A unit's values wait for its last weights: they are added from the second step of the next
 * unit on, to the first of the one after it. */
PREFILL_INLINE void attend_units(prefill_tile *at, const prefill_scores *how, const octavo_span *first, const octavo_span *last)
{
    prefill_stage of = { .at = at, .now.by = prefill_constants_of() };
    prefill_unit units[3], *before = NULL; /* coming, weighed, gone */
    int64_t count = 0, blocks = 0;
    for (int64_t tile = 0; tile * PREFILL_KEYS < last->end; tile++) {
        if (octavo_prefill_sight_of(first, last, tile * PREFILL_KEYS, (tile + 1) * PREFILL_KEYS) == PREFILL_UNSEEN) continue;
        for (int64_t row = 0; row < at->task->padded_rows; row += PREFILL_ROW_PAD) {
            prefill_unit *unit = &units[count % 3];
            if (!unit_of(at, tile, row, unit)) continue;
            unit->weights = at->weights + count % 2 * PREFILL_KEYS * PREFILL_ROW_PAD * 2;
            for (int64_t block = unit->from; block < unit->to; block++, blocks++) {
                advance(&of, how, unit, block, at->score + blocks % 2 * 32 * PREFILL_ROW_PAD, block == unit->from ? before : unit);
                if (block == unit->from && before) begin_values(&of, before, unit->to - unit->from);
            }
            before = unit, count++;
        }
    }
    if (!before) return;
    advance(&of, how, NULL, 0, NULL, before);
    begin_values(&of, before, 1);
    advance(&of, how, NULL, 0, NULL, NULL);
}

/* The kinds of scores, each compiled by itself. */
static void attend_plain(prefill_tile *at, const octavo_span *first, const octavo_span *last)
{
    attend_units(at, &(prefill_scores){ PREFILL_PLAIN, 0, 0.0f }, first, last);
}
static void attend_blocked(prefill_tile *at, const octavo_span *first, const octavo_span *last)
{
    attend_units(at, &(prefill_scores){ PREFILL_BLOCKED, 1, 0.0f }, first, last);
}
static void attend_keyed(prefill_tile *at, const octavo_span *first, const octavo_span *last)
{
    const float cap = at->head.p->soft_cap;
    if (at->plan.is_int8) attend_units(at, &(prefill_scores){ PREFILL_KEYED, 1, cap }, first, last);
    else                  attend_units(at, &(prefill_scores){ PREFILL_KEYED, 0, cap }, first, last);
}

/* ---- the whole ---- */

/* Turns sixteen queries' sums back into rows, and stores them. */
static void finish(prefill_tile *at)
{
    const int64_t v_dim = at->head.v_dim;
    float *rows = at->score; /* [PREFILL_SIDE, v_dim] */
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
    if (at.plan.kind == PREFILL_PLAIN) attend_plain(&at, &first_sees, &last_sees);
    else if (at.plan.kind == PREFILL_BLOCKED) attend_blocked(&at, &first_sees, &last_sees);
    else attend_keyed(&at, &first_sees, &last_sees);
    _tile_release();
    finish(&at);
}

octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    static const octavo_prefill_work work = { .sum = octavo_prefill_sum_avx512, .means = octavo_prefill_means_avx512, .most = octavo_prefill_most_avx512,
                                              .scales = octavo_prefill_scales_avx512, .rests = octavo_prefill_rests_avx512, .pack = octavo_prefill_pack_amx, .attend = attend };
    const int exact_f32 = p->precision == OCTAVO_ATTENTION_EXACT && (p->kv->k_format == OCTAVO_K_F32 || p->kv->v_format == OCTAVO_V_F32);
    if (exact_f32 || p->kv->head_dim > DIM_MOST || p->kv->v_dim > DIM_MOST) return octavo_attention_prefill_avx512(exec, p);
    return octavo_prefill_run(exec, p, &work);
}
