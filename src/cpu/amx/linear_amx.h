/* linear_amx.h - what the files of linear layers on AMX tiles share.
 *
 * A tile is 16 rows of 64 bytes. The left operand of a product is 16 rows of a matrix, a step of their columns (32 of bf16, 64 of
 * int8); the right one is the same step of 16 rows of the other matrix, 4 bytes of each in a row; sums are float32 or int32, the left
 * operand's rows down, the right one's across. W as it lies is a left operand. Copied or packed it is a right one: then x needs no
 * transposing before the product, nor do the sums behind it. x in f16 or f32 that must not be rounded is the exact sum of two
 * or three bf16 terms; e4m3 and int8 codes are exact as bf16. */
#ifndef OCTAVO_CPU_AMX_LINEAR_AMX_H
#define OCTAVO_CPU_AMX_LINEAR_AMX_H

#include "base/parallel.h"
#include "kernel/linear_plan.h"
#include <immintrin.h>
#include <string.h>

enum {
    TILE_ROWS = 16, TILE_BYTES = 1024, STEP_BYTES = 64,
    STEP = 32,                       /* columns of a step of bf16                    */
    GROUP = OCTAVO_LINEAR_GROUP,     /* tokens of a tile of x                        */
    PANEL_ROWS = 2 * TILE_ROWS,      /* rows of W that are multiplied together       */
    TERMS_MAX = 3,
    DOT_TOKENS_MOST = 4              /* up to which eight-bit codes are multiplied a row at a time */
};

/* How a weight becomes tiles. */
typedef enum tile_source {
    TILES_IN_MEMORY = 0, /* bf16, or int8 times int8: its memory serves as tiles */
    TILES_WIDENED   = 1, /* eight-bit codes as bf16                             */
    TILES_ROUNDED   = 2, /* f32 or f16 rounded to bf16                          */
    TILES_SPLIT     = 3, /* f32 or f16 as three or two bf16 terms               */
    TILES_NONE      = 4  /* not on tiles                                        */
} tile_source;

/* The bf16 of each of 256 codes, low bytes and high bytes apart: 64 look-ups take two shuffles a half of the codes. */
typedef struct code_table {
    uint8_t low[256], high[256];
    int signed_magnitude; /* the upper half of the codes is the lower with the sign bit set */
} code_table;

typedef struct part_plan {
    const octavo_linear_part *part;
    tile_source source;
    int64_t rows, code_bytes;
    int64_t segment;    /* steps of a block, dividing the job's segment */
    int64_t strips;
    int terms;          /* bf16 terms of an element                     */
    int block_scales;   /* a row has several scales                     */
    code_table table;
} part_plan;

/* How far the work on a chunk of tokens is: what is taken and, of packing, what is done. A cache line of its own. */
typedef struct chunk_state {
    int64_t strips, groups, packed, reserved[OCTAVO_LINEAR_CHUNK_WORDS - 3];
} chunk_state;

typedef struct linear_job {
    const octavo_linear_params *p;
    int64_t tokens, groups, in;
    int64_t steps, segment;      /* steps of a row; steps that x keeps together                     */
    int64_t columns;             /* of a step                                                       */
    int64_t strip_rows, chunk;   /* of a task; chunk: token groups                                  */
    int64_t chunks, blocks;
    int terms;
    int integer;                 /* int8 times int8                                                 */
    int w_right;                 /* W is the right operand                                          */
    int interleaved;             /* of two steps first the even columns, then the odd ones, as widening leaves them */
    int64_t direct;              /* groups of x that are multiplied where they lie                  */
    uint8_t *x;                  /* the others: [segments][groups][steps of the segment][terms] tiles; for dots [tokens][terms][steps] rows */
    float *factors;
    uint8_t *sums;               /* [slots][strip rows / 16][chunk] tiles                           */
    int64_t slots, strips;       /* slots: tasks that share the chunks                              */
    chunk_state *states;         /* [chunks]                                                        */
    part_plan parts[OCTAVO_LINEAR_PARTS];
} linear_job;

/* What is multiplied. */
typedef struct product {
    const linear_job *job;
    const part_plan *plan;
} product;

/* linear_x_amx.c: packs x and finds the tokens' factors, as tiles or as rows. */
void linear_pack_tiles(const octavo_exec *exec, const linear_job *job);
void linear_pack_group(const linear_job *job, int64_t group);
/* What its sums are multiplied by; NaN where a token is not finite. */
float linear_factor(const linear_job *job, int64_t token);
void linear_pack_rows(const linear_job *job);

/* linear_few_amx.c: a strip with few tokens. linear_many_amx.c: a slot's share of the chunks with many. */
void linear_few_strip(void *argument, int64_t strip);
void linear_many_slot(void *argument, int64_t slot);

/* linear_dots_amx.c: a strip with up to DOT_TOKENS_MOST tokens and eight-bit codes. */
void linear_dot_strip(void *argument, int64_t strip);

/* The part that a strip of a call belongs to; *strip becomes its number there. */
static inline const part_plan *linear_find_strip(const linear_job *job, int64_t *strip)
{
    const part_plan *plan = job->parts;
    for (; *strip >= plan->strips; plan++) *strip -= plan->strips;
    return plan;
}

static inline const uint8_t *linear_w_at(const part_plan *plan, int64_t row, int64_t column)
{
    const octavo_tensor *codes = &plan->part->weight.codes;
    return (const uint8_t *)codes->data + (row * codes->strides[0] + column) * plan->code_bytes;
}

/* Compilers do not know that tile instructions read and write memory. */
static inline void compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

static inline void configure_tiles(void)
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

static inline uint8_t *linear_x_tiles(const linear_job *job, int64_t group, int64_t step)
{
    const int64_t begin = step / job->segment * job->segment, left = job->steps - begin, width = left < job->segment ? left : job->segment;
    return job->x + (begin * job->groups + group * width + (step - begin)) * job->terms * TILE_BYTES;
}

/* The 16x16 transpose of 32-bit elements: a left operand becomes a right one. */
static inline __attribute__((always_inline)) void transpose_tile(__m512i x[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        a[2 * i]     = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i]     = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* now 4x4 of 128 bits: even columns of the first and second eight rows, then odd ones */
        const __m512i even_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xDD);
        const __m512i even_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xDD);
        x[i]      = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        x[i + 4]  = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        x[i + 8]  = _mm512_shuffle_i32x4(even_low, even_high, 0xDD);
        x[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xDD);
    }
}

#endif
