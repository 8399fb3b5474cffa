/* sample_plan.h - the workspace of sampling on a CPU, and what every level of it shares. */
#ifndef OCTAVO_KERNEL_SAMPLE_PLAN_H
#define OCTAVO_KERNEL_SAMPLE_PLAN_H

#include "kernel/kernels.h"
#include <float.h>

/* Below it a temperature is taken for 0: its inverse would not be a float. */
#define OCTAVO_SAMPLE_COLDEST FLT_MIN

/* Rows are sampled this many at a time, each by one task with a part of the workspace of its own. */
enum { OCTAVO_SAMPLE_LANES = 8 };

/* A candidate: the sort key of its logit, and its id. */
typedef struct octavo_sample_candidate {
    uint32_t key;
    int32_t id;
} octavo_sample_candidate;

/* Byte offsets: in the workspace, and in a lane's part of it. */
typedef struct octavo_sample_layout {
    int64_t lanes;
    size_t most;               /* [rows] f32 largest logits                                             */
    size_t first, lane_bytes;  /* the first lane, and from one to the next; the reference's order is first */
    size_t other, cumulative;  /* in a lane: candidates [vocab], once more for sorting, then [vocab] f64 */
    size_t bytes;              /* SIZE_MAX: it does not fit                                              */
} octavo_sample_layout;

static inline size_t octavo_sample_place(size_t *end, int64_t count, size_t element_bytes)
{
    const size_t begin = *end;
    size_t bytes, padded;
    const int too_big = __builtin_mul_overflow((size_t)count, element_bytes, &bytes) ||
                        __builtin_add_overflow(bytes, (size_t)63, &padded) ||
                        __builtin_add_overflow(begin, padded & ~(size_t)63, end);
    if (too_big) *end = SIZE_MAX;
    return begin;
}

static inline octavo_sample_layout octavo_sample_layout_of(const octavo_sample_params *p)
{
    const int64_t rows = p->logits.shape[0], vocab = p->logits.shape[1];
    const int64_t most = OCTAVO_SAMPLE_LANES;
    octavo_sample_layout at;
    at.lanes = rows < most ? rows : most, at.lane_bytes = at.bytes = 0;
    octavo_sample_place(&at.lane_bytes, vocab, sizeof(octavo_sample_candidate));
    at.other = octavo_sample_place(&at.lane_bytes, vocab, sizeof(octavo_sample_candidate));
    at.cumulative = octavo_sample_place(&at.lane_bytes, vocab, sizeof(double));
    at.first = 0;
    octavo_sample_place(&at.bytes, at.lanes, at.lane_bytes);
    at.most = octavo_sample_place(&at.bytes, rows, sizeof(float));
    return at;
}

#endif
