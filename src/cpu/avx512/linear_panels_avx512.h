/* linear_panels_avx512.h - linear layers by products of words: four int8, or two bf16.
 *
 * A task multiplies a strip of a weight's rows with a batch of tokens: a panel of PANEL_ROWS rows at a time, of which a segment of columns is
 * turned into the first-level cache, so that sixteen rows lie side by side in a vector, and a word of a token is broadcast to their sums.
 *
 * Included after what an element is: CODE_BYTES and CODE_ZERO (each byte of an element that is worth nothing), linear_scale (of a finite
 * token), linear_encode, linear_add, linear_row_sum and linear_begin (a sum less what its row adds by CODE_ZERO), linear_sum (as float). */
#ifndef OCTAVO_CPU_AVX512_LINEAR_PANELS_AVX512_H
#define OCTAVO_CPU_AVX512_LINEAR_PANELS_AVX512_H

#include "base/parallel.h"
#include "cpu/avx512/turn_avx512.h"
#include "kernel/linear_plan.h"

enum {
    PANEL_ROWS = 32,
    SEGMENT = 512,    /* bytes of a row: a panel's fill a third of the first-level cache, or half of a small one */
    WORD = 4,         /* bytes                                                                         */
    BAND = 8,         /* tokens whose sums with a panel the registers hold                              */
    BATCH = 256 / CODE_BYTES, /* tokens of a task: their x stays in the second-level cache              */
    STRIP_MOST = 256, /* rows of a task                                                                 */
    TASKS_LEAST = 32, /* that are worth shorter strips                                                  */
    SERIAL = 1 << 18  /* products that do not pay for waking other threads                              */
};

typedef struct linear_call {
    const octavo_linear_params *p;
    int64_t in, tokens, batches, strip_rows;
    int64_t bytes, x_stride; /* of a row of W and x */
    int64_t grain;    /* tokens of a task that loads */
    uint8_t *x;       /* [tokens, a whole number of BANDs] */
    float *factors;
} linear_call;

/* ---- x ---- */

static int load_scale(const linear_call *of, int64_t t, float *scale)
{
    const octavo_linear_params *p = of->p;
    const int64_t at = octavo_linear_x_row(p, t);
    float chunk[ROWS_CHUNK], amax = 0.0f;
    for (int64_t first = 0; first < of->in; first += ROWS_CHUNK) {
        const int64_t count = of->in - first < ROWS_CHUNK ? of->in - first : ROWS_CHUNK;
        const float *x = rows_at(chunk, &p->x, at + first, count);
        if (rows_nonfinite(x, count)) return 0;
        amax = rows_amax(amax, x, count);
    }
    *scale = linear_scale(p, amax);
    return 1;
}

/* A token's codes; zeros for one that is not finite, and for those behind the last. */
static void load_token(const linear_call *of, int64_t t)
{
    uint8_t *codes = of->x + t * of->x_stride;
    float chunk[ROWS_CHUNK], scale = 1.0f;
    const int finite = t < of->tokens && load_scale(of, t, &scale);
    if (t < of->tokens) of->factors[t] = finite ? scale : NAN;
    for (int64_t first = 0; finite && first < of->in; first += ROWS_CHUNK) {
        const int64_t count = of->in - first < ROWS_CHUNK ? of->in - first : ROWS_CHUNK;
        const float *x = rows_at(chunk, &of->p->x, octavo_linear_x_row(of->p, t) + first, count);
        linear_encode(codes + first * CODE_BYTES, x, count, scale);
    }
    const int64_t loaded = finite ? of->bytes : 0;
    memset(codes + loaded, CODE_ZERO, (size_t)(of->x_stride - loaded));
}

static void load_tokens(void *argument, int64_t task)
{
    const linear_call *of = argument;
    for (int64_t t = task * of->grain; t < (task + 1) * of->grain && t < octavo_round_up(of->tokens, BAND); t++) load_token(of, t);
}

/* ---- W ---- */

/* Bytes [first, first + count) of a panel's rows, turned: [SEGMENT / WORD, PANEL_ROWS] words; rows past the end repeat the last one. `start`:
 * what linear_begin takes. */
static void turn_panel(const octavo_tensor *w, int64_t row, int64_t first, int64_t count, uint8_t *panel, __m512i start[2])
{
    for (int64_t side = 0; side < 2; side++) {
        start[side] = _mm512_setzero_si512();
        for (int64_t i = 0; i < count; i += 64) {
            const __mmask64 there = count - i < 64 ? (1ull << (count - i)) - 1ull : ~0ull;
            __m512i words[16];
            for (int64_t r = 0; r < 16; r++) {
                const int64_t of = row + side * 16 + r < w->shape[0] ? row + side * 16 + r : w->shape[0] - 1;
                const uint8_t *codes = (const uint8_t *)w->data + of * w->strides[0] * CODE_BYTES + first + i;
                words[r] = _mm512_maskz_loadu_epi8(there, codes);
                __builtin_prefetch(codes + SEGMENT, 0, 2); /* runs of a segment are too short for the processor to see coming */
            }
            turn_words(words);
            for (int64_t j = 0; j < 16; j++) {
                start[side] = linear_row_sum(start[side], words[j]);
                _mm512_store_si512(panel + (i / WORD + j) * PANEL_ROWS * WORD + side * 64, words[j]);
            }
        }
    }
}

/* ---- products ---- */

/* Adds to sums [BAND, PANEL_ROWS] a segment's products, and `start`. */
static void multiply_band(uint32_t *sums, const __m512i start[2], const uint8_t *x, int64_t x_stride, const uint8_t *panel, int64_t count)
{
    __m512i sum[BAND][2];
#pragma GCC unroll 8
    for (int r = 0; r < BAND; r++)
        for (int side = 0; side < 2; side++) sum[r][side] = linear_begin(_mm512_loadu_si512(sums + r * PANEL_ROWS + 16 * side), start[side]);
    for (int64_t i = 0; i < count; i += 64, x += 64, panel += 64 * PANEL_ROWS) {
#pragma GCC unroll 4
        for (int j = 0; j < 64; j += WORD) {
            const __m512i first = _mm512_load_si512(panel + j * PANEL_ROWS), second = _mm512_load_si512(panel + j * PANEL_ROWS + 64);
#pragma GCC unroll 8
            for (int r = 0; r < BAND; r++) {
                int32_t word;
                memcpy(&word, x + r * x_stride + j, sizeof word);
                const __m512i all = _mm512_set1_epi32(word);
                sum[r][0] = linear_add(sum[r][0], all, first);
                sum[r][1] = linear_add(sum[r][1], all, second);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < BAND; r++)
        for (int side = 0; side < 2; side++) _mm512_storeu_si512(sums + r * PANEL_ROWS + 16 * side, sum[r][side]);
}

/* ---- y ---- */

/* What a panel's sums are multiplied by, and what is added; zeros for rows past the end. */
typedef struct panel_factors {
    float scale[PANEL_ROWS], bias[PANEL_ROWS];
} panel_factors;

static void store_panel(const linear_call *of, const octavo_linear_part *part, int64_t row, int64_t begin, int64_t end, const uint32_t *sums)
{
    const int64_t left = part->weight.codes.shape[0] - row, rows = left < PANEL_ROWS ? left : PANEL_ROWS;
    panel_factors by = { { 0 }, { 0 } };
    float out[PANEL_ROWS], before[PANEL_ROWS];
    for (int64_t r = 0; r < rows; r++) {
        by.scale[r] = octavo_weight_scale(&part->weight, row + r, 0);
        by.bias[r] = part->bias ? part->bias[row + r] : 0.0f;
    }
    for (int64_t t = begin; t < end; t++, sums += PANEL_ROWS) {
        const int64_t at = t * part->y.strides[0] + row;
        for (int64_t r = 0; r < PANEL_ROWS; r += SIMD_F32) {
            const vf32 sum = v_mul(linear_sum(_mm512_loadu_si512(sums + r)), v_load(by.scale + r));
            v_store(out + r, v_add(v_mul(sum, v_splat(of->factors[t])), v_load(by.bias + r)));
        }
        if (of->p->store == OCTAVO_STORE_ADD) {
            rows_load(before, &part->y, at, rows);
            for (int64_t r = 0; r < rows; r++) out[r] += before[r];
        }
        rows_store(&part->y, at, out, rows);
    }
}

/* ---- the whole ---- */

static void multiply_panel(const linear_call *of, const octavo_linear_part *part, int64_t row, int64_t begin, int64_t end)
{
    uint8_t panel[SEGMENT * PANEL_ROWS] __attribute__((aligned(64)));
    uint32_t sums[BATCH * PANEL_ROWS];
    __m512i start[2];
    memset(sums, 0, (size_t)(octavo_round_up(end - begin, BAND) * PANEL_ROWS) * sizeof *sums);
    for (int64_t first = 0; first < of->bytes; first += SEGMENT) {
        const int64_t count = of->bytes - first < SEGMENT ? of->bytes - first : SEGMENT;
        turn_panel(&part->weight.codes, row, first, count, panel, start);
        for (int64_t t = begin; t < end; t += BAND)
            multiply_band(sums + (t - begin) * PANEL_ROWS, start, of->x + t * of->x_stride + first, of->x_stride, panel, count);
    }
    store_panel(of, part, row, begin, end, sums);
}

static int64_t strips_of(const linear_call *of, int part) { return (octavo_linear_out(of->p, part) + of->strip_rows - 1) / of->strip_rows; }

/* Batch by batch, in each all strips. */
static void multiply_strip(void *argument, int64_t task)
{
    const linear_call *of = argument;
    const int64_t begin = task % of->batches * BATCH, end = begin + BATCH < of->tokens ? begin + BATCH : of->tokens;
    int64_t strip = task / of->batches;
    int part = 0;
    for (; strip >= strips_of(of, part); part++) strip -= strips_of(of, part);
    const int64_t rows = octavo_linear_out(of->p, part), first = strip * of->strip_rows, last = first + of->strip_rows < rows ? first + of->strip_rows : rows;
    for (int64_t row = first; row < last; row += PANEL_ROWS) multiply_panel(of, &of->p->parts[part], row, begin, end);
}

static int64_t all_strips(const linear_call *of)
{
    int64_t strips = 0;
    for (int i = 0; i < of->p->part_count; i++) strips += strips_of(of, i);
    return strips;
}

static octavo_status linear_run(const octavo_exec *exec, const octavo_linear_params *p)
{
    const octavo_linear_layout at = octavo_linear_layout_of(p);
    uint8_t *workspace = exec->workspace;
    linear_call of = { .p = p, .in = octavo_linear_in(p), .tokens = octavo_linear_tokens(p), .strip_rows = STRIP_MOST, .x = workspace + at.x,
                       .factors = (float *)(void *)(workspace + at.factors) };
    of.bytes = of.in * CODE_BYTES;
    of.x_stride = octavo_round_up(of.in, OCTAVO_LINEAR_STEP) * CODE_BYTES | 64; /* an odd number of cache lines: a band's lie in different sets */
    of.batches = (of.tokens + BATCH - 1) / BATCH;
    of.grain = of.in >= SERIAL / BATCH ? 1 : SERIAL / BATCH / of.in;
    while (of.strip_rows > PANEL_ROWS && all_strips(&of) * of.batches < TASKS_LEAST) of.strip_rows /= 2;
    const int64_t tasks = all_strips(&of) * of.batches;
    octavo_parallel(exec, (octavo_round_up(of.tokens, BAND) + of.grain - 1) / of.grain, load_tokens, &of);
    if (all_strips(&of) * of.strip_rows * of.in > SERIAL / of.tokens) octavo_parallel(exec, tasks, multiply_strip, &of);
    else for (int64_t i = 0; i < tasks; i++) multiply_strip(&of, i);
    return OCTAVO_OK;
}

#endif
