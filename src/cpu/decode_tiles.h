/* decode_tiles.h - the two inner products of decode attention, and how a level replaces them.
 *
 * Everything between them (scales, caps, masks, softmax, merging) is in body/ and the same for every level. Both work on a tile:
 * up to DECODE_ROWS rows of a group's queries by up to DECODE_TOKENS tokens that lie at a constant stride. */
#ifndef OCTAVO_CPU_DECODE_TILES_H
#define OCTAVO_CPU_DECODE_TILES_H

#include "kernel/kernels.h"

enum {
    DECODE_TOKENS = 64, /* their K and V of one head stay in the first-level cache */
    DECODE_ROWS = 16,   /* of q, before the tokens are gone through again           */
    DECODE_PAD = 64,    /* bytes and floats that packed rows are padded to          */
    DECODE_UNITS = 64   /* that a level scans at once                               */
};

/* The queries of one kv head of one sequence, packed once a call. */
typedef struct octavo_decode_q {
    const float *rows; /* [rows, row_floats], zeros behind head_dim; int4x2: both halves of the row, each padded */
    int64_t row_floats;
    const uint8_t *packed; /* what `pack` of the level made of them */
    int64_t row_count, head_dim;
    octavo_k_format format;
    octavo_dtype dtype; /* of the caller's q: how many bits its elements have */
    int32_t residual_exponent;
} octavo_decode_q;

/* Rows that are needed next. A burst of prefetches would stop the work that it should hide behind, so lines are asked for as the
 * work on a span goes on: every step of it names what it is worth in cycles, about, and the next span's lines are spread over the
 * sum. */
enum { DECODE_LINE_CREDIT = 1 << 12 };
typedef struct octavo_decode_ahead {
    struct octavo_decode_run {
        const uint8_t *at;
        int64_t stride, bytes, rows;
    } run[OCTAVO_MAX_PLANES + 4]; /* scales and norms, planes, values */
    size_t current, runs;
    int64_t offset;       /* the next line: of which run, where in its row */
    int64_t lines, work;  /* of the whole span                             */
    int64_t credit, rate; /* lines in DECODE_LINE_CREDIT a cycle           */
} octavo_decode_ahead;

/* Asks for up to `lines` lines. Inline, because a call would clear the vector registers of the loops around it. */
static inline __attribute__((always_inline)) void octavo_decode_fetch_lines(octavo_decode_ahead *ahead, int64_t lines)
{
    while (lines > 0 && ahead->current < ahead->runs) {
        struct octavo_decode_run *run = &ahead->run[ahead->current];
        for (; lines > 0 && ahead->offset < run->bytes; lines--, ahead->offset += 64)
            __builtin_prefetch(run->at + ahead->offset, 0, 2); /* into the second level: there are more places on the way to it */
        if (ahead->offset < run->bytes) return;
        ahead->offset = 0;
        run->at += run->stride;
        if (--run->rows == 0) ahead->current++;
    }
}

/* After `cycles` of work. */
static inline __attribute__((always_inline)) void octavo_decode_fetch(octavo_decode_ahead *ahead, int64_t cycles)
{
    ahead->work += cycles;
    ahead->credit += cycles * ahead->rate;
    if (ahead->credit < DECODE_LINE_CREDIT) return;
    octavo_decode_fetch_lines(ahead, ahead->credit / DECODE_LINE_CREDIT);
    ahead->credit %= DECODE_LINE_CREDIT;
}

static inline void octavo_decode_fetch_rest(octavo_decode_ahead *ahead) { octavo_decode_fetch_lines(ahead, INT64_MAX); }

/* Consecutive tokens of one kv head. */
typedef struct octavo_decode_span {
    int64_t token, tokens;                         /* the first one in its sequence; 1 .. DECODE_TOKENS */
    int64_t page, in_block;                        /* where the first one is                            */
    const uint8_t *k[OCTAVO_MAX_PLANES], *v;       /* of the first token                                */
    int64_t k_stride[OCTAVO_MAX_PLANES], v_stride; /* bytes                                             */
    octavo_decode_ahead *ahead;
} octavo_decode_span;

/* dots[r][t] = q row (row + r) . codes of token t, summed over the first planes, for r < rows <= DECODE_ROWS; [rows,
 * DECODE_TOKENS]. Columns from span->tokens on may be written with anything. */
typedef void octavo_decode_dot(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots);

/* out[r][i] += sum over t of weights[r][t] * code i of token t; weights [rows, DECODE_TOKENS]. */
typedef void octavo_decode_axpy(float *out, int64_t out_stride, const float *weights, int64_t rows,
                                const octavo_decode_span *span, int64_t v_dim);

/* Consecutive units of one kv head, of which every row sees every token. */
typedef struct octavo_decode_units {
    const uint8_t *const *k, *const *scale; /* [count + 1] base rows and scales of each; of the last only as what comes next */
    int64_t count, tokens, k_stride;        /* count <= DECODE_UNITS; tokens of a unit; bytes        */
    float softmax_scale;
    float *max, *sum; /* [DECODE_ROWS, DECODE_UNITS] of each row: the largest score, and the sum of exp(score - largest) */
} octavo_decode_units;

/* Rows [row, row + rows) of q against the base of all units, q rounded to 15 bits or more; rows <= DECODE_ROWS. */
typedef void octavo_decode_scan(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_units *units);

/* DECODE_TOKENS tokens of one kv head, which every row sees, and where the sums of their split grow. */
typedef struct octavo_decode_unit {
    const uint8_t *k[OCTAVO_MAX_PLANES], *v, *k_scale, *v_scale; /* of the first token */
    float *max, *sum, *out; /* [rows], and row r of the output at r * out_stride: weights relative to the largest score so far */
} octavo_decode_unit;

typedef struct octavo_decode_pass {
    const octavo_decode_unit *units; /* [count + 1]: of the last only as what comes next */
    int64_t count, rows;
    int64_t k_stride[OCTAVO_MAX_PLANES], v_stride, out_stride; /* bytes; out_stride: floats */
    float softmax_scale;
} octavo_decode_pass;

/* Attends units one after the other. */
typedef void octavo_decode_attend(const octavo_decode_q *q, const octavo_decode_pass *pass);

typedef struct octavo_decode_tiles {
    octavo_decode_dot *(*dot)(const octavo_kv_view *kv, int32_t planes);
    octavo_decode_axpy *(*axpy)(octavo_v_format format);
    octavo_decode_scan *(*scan)(const octavo_kv_view *kv); /* of views that the level scans unit by unit; else, or returns, NULL */
    /* Of views, planes and queries whose units the level attends together; else, or returns, NULL. */
    octavo_decode_attend *(*attend)(const octavo_kv_view *kv, int32_t planes, int64_t rows, octavo_dtype q_dtype);
    /* Writes octavo_decode_packed_bytes() at most; NULL: the level reads the float rows. */
    void (*pack)(const octavo_decode_q *q, uint8_t *packed);
    void (*enter)(void), (*leave)(void); /* around a task, on its thread; NULL: nothing to do */
    void (*keep_awake)(void);            /* called every few hundred cycles between tiles; NULL: no unit falls asleep */
} octavo_decode_tiles;

/* Floats of one packed row. */
static inline int64_t octavo_decode_row_floats(octavo_k_format format, int64_t head_dim)
{
    return format == OCTAVO_K_INT4X2 ? 2 * octavo_round_up((head_dim + 1) / 2, DECODE_PAD)
                                     : octavo_round_up(head_dim, DECODE_PAD);
}

/* Bytes for a level's own form of the queries: three terms of two bytes for each element, in groups of four rows, and
 * four scales a row. */
static inline int64_t octavo_decode_packed_bytes(int64_t rows, int64_t row_floats)
{
    return octavo_round_up(rows, 4) * row_floats * 8 + octavo_round_up(rows, DECODE_ROWS) * 16;
}

/* How the workspace of a call is cut up. */
typedef struct octavo_decode_layout {
    int64_t q_bytes, packed_bytes; /* of one kv head of one sequence                             */
    int64_t heads;                 /* batch * kv_heads                                           */
    int64_t task_floats, tasks;    /* scratch of one task                                        */
    int64_t codes_at;              /* floats of it before the codes that rows of K and V become  */
    int64_t head_floats;           /* thresholds of one kv head of one sequence                  */
    int64_t total_bytes;
} octavo_decode_layout;

enum {
    SCORE_TASK_TOKENS = 4096, /* tokens that one task of block_score takes */
    SCORE_STATES = 6,         /* floats a row: largest and sum of scores, upper and lower bounds    */
    ATTEND_STATES = 2         /* largest score and sum                                               */
};

static inline int64_t octavo_decode_score_units(const octavo_kv_view *kv)
{
    const int64_t units = SCORE_TASK_TOKENS / kv->sub_block_tokens;
    return units > 0 ? units : 1;
}

octavo_decode_layout octavo_decode_layout_score(const octavo_block_score_params *p);
octavo_decode_layout octavo_decode_layout_attend(const octavo_block_attend_params *p);
octavo_decode_layout octavo_decode_layout_fused(const octavo_decode_fused_params *p);

#endif
