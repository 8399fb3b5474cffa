/* attention_prefill_amx.c - attention of many queries on AMX tiles: bf16 or INT8 scores, bf16 weights. */
#include "cpu/avx512/prefill_pairs_avx512.h"
#include "cpu/avx512/prefill_task_avx512.h"
#include <immintrin.h>

octavo_status octavo_attention_prefill_avx512(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_prefill_step octavo_prefill_sum_avx512, octavo_prefill_means_avx512, octavo_prefill_most_avx512, octavo_prefill_scales_avx512,
                    octavo_prefill_rests_avx512;
octavo_prefill_step octavo_prefill_pack_avx512_bf16;

/* Operand of ldtilecfg: a constant, because compilers believe that the instruction reads eight bytes of it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
static const tile_config whole_tiles = { .palette = 1, .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 } };

static inline void compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

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
    const uint8_t *k_terms = of->at->packed + (size_t)unit->tile * plan->k_tile + 2 * block * k_next, *q_terms = prefill_q_tiles(of->at, unit->side);
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
    of->gone = unit, of->channel = 0, of->parts = parts;
    prefill_shrink_sums(of->at, unit);
}

/* Weights that are stored already shrink: exactly, but for what is too small to count. */
static inline void shrink_weights(const prefill_unit *unit, int64_t to, const prefill_pair *shrink)
{
    const __m512i high = _mm512_set1_epi32((int)0xFFFF0000u);
    for (int64_t tile = 2 * unit->from; tile < 2 * to; tile++)
        for (int64_t j = 0; j < PREFILL_SIDE; j++) {
            uint8_t *at = unit->weights + tile * PREFILL_TILE + 64 * j;
            const __m512i pairs = _mm512_loadu_si512(at);
            const __m512 first = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), shrink->x[tile % 2]);
            const __m512 second = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(pairs, high)), shrink->x[tile % 2]);
            _mm512_storeu_si512(at, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(first), 16), _mm512_and_si512(_mm512_castps_si512(second), high)));
        }
}

/* A block's scores are larger than a row's weights allow: those of the unit so far shrink now, the sums when the unit's values are added. */
PREFILL_INLINE void raise_most(prefill_unit *unit, int64_t block, const prefill_rows *rows, const prefill_pair *largest)
{
    prefill_pair shrink;
    if (prefill_raise_most(unit, rows, largest, &shrink)) shrink_weights(unit, block, &shrink);
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
    const prefill_rows rows = prefill_rows_of(of->at, coming);
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
            if (!prefill_unit_of(at, tile, row, unit)) continue;
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

static void attend(const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    prefill_tile at;
    prefill_task_init(&at, call, task);
    prefill_task_queries(&at);
    prefill_task_start(&at);
    const int64_t last = task->padded_rows - 1;
    const octavo_span first_sees = { at.sink_end[0], at.near_begin[0], at.end[0] }, last_sees = { at.sink_end[last], at.near_begin[last], at.end[last] };
    _tile_loadconfig(&whole_tiles);
    if (at.plan.kind == PREFILL_PLAIN) attend_plain(&at, &first_sees, &last_sees);
    else if (at.plan.kind == PREFILL_BLOCKED) attend_blocked(&at, &first_sees, &last_sees);
    else attend_keyed(&at, &first_sees, &last_sees);
    _tile_release();
    prefill_task_finish(&at);
}

octavo_status octavo_attention_prefill_amx(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    static const octavo_prefill_work work = { .sum = octavo_prefill_sum_avx512, .means = octavo_prefill_means_avx512, .most = octavo_prefill_most_avx512,
                                              .scales = octavo_prefill_scales_avx512, .rests = octavo_prefill_rests_avx512, .pack = octavo_prefill_pack_avx512_bf16, .attend = attend };
    const int exact_f32 = p->precision == OCTAVO_ATTENTION_EXACT && (p->kv->k_format == OCTAVO_K_F32 || p->kv->v_format == OCTAVO_V_F32);
    if (exact_f32 || p->kv->head_dim > PREFILL_DIM_MOST || p->kv->v_dim > PREFILL_DIM_MOST) return octavo_attention_prefill_avx512(exec, p);
    return octavo_prefill_run(exec, p, &work);
}
