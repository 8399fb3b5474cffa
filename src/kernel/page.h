/* page.h - the layout of a page, the one place that knows it.
 *
 * A page is one block (block_tokens tokens, BT) of one layer. Every run starts at a multiple of 64 bytes; planes, V and heads start at
 * multiples of 256, two lines of a GPU's second-level cache. What is read of a block that may be dropped lies together, at the head's begin:
 *
 *   page  = | head 0            | head 1 | ... | head kv_heads - 1 |       page_bytes = kv_heads * head_bytes
 *   head  = | K plane 0         | [BT][row bytes]   one contiguous run: a block of a plane of a head
 *           | K scales          | [BT] int8 p or bf16 s
 *           | V means           | [BT / SUB][v_dim] e4m3
 *           | V mean exponents  | [BT / SUB] int8
 *           | K plane 1 ...     | [BT][row bytes]
 *           | V                 | [BT][v_dim x 1, 2 or 4]
 *           | V scales          | [BT] int8 p or bf16 s
 *           | K residual norms  | [BT] ue4m4         (nested formats)
 */
#ifndef OCTAVO_KERNEL_PAGE_H
#define OCTAVO_KERNEL_PAGE_H

#include "kernel/planes.h"

enum { OCTAVO_PAGE_ALIGN = 64, OCTAVO_PAGE_LINE = 256, OCTAVO_BLOCK_TOKENS_DEFAULT = 64 };

typedef struct octavo_page_layout {
    int64_t k[OCTAVO_MAX_PLANES], v, k_scale, k_norm, v_scale, v_mean, v_mean_scale; /* offsets in a head; -1: absent */
    int64_t head_bytes, page_bytes;
} octavo_page_layout;

/* A run of so many bytes begins at a multiple of `align`. */
static inline int64_t octavo_page_run(int64_t *end, int64_t bytes, int64_t align)
{
    if (bytes == 0) return -1;
    const int64_t begin = octavo_round_up(*end, align);
    *end = begin + bytes;
    return begin;
}

/* The fields of `config` are set and bounded (no zero stands for a default; every dimension <= 65536). */
static inline octavo_page_layout octavo_page_layout_of(const octavo_page_config *config)
{
    const int64_t tokens = config->block_tokens, units = tokens / config->sub_block_tokens;
    const int32_t planes = octavo_k_plane_count(config->k_format);
    const int64_t plane = tokens * octavo_k_row_bytes(config->k_format, config->head_dim);
    octavo_page_layout at;
    int64_t end = 0;
    at.k[0]         = octavo_page_run(&end, plane, OCTAVO_PAGE_LINE);
    at.k_scale      = octavo_page_run(&end, tokens * octavo_k_scale_bytes(config->k_format), OCTAVO_PAGE_ALIGN);
    at.v_mean       = octavo_page_run(&end, units * config->v_dim, OCTAVO_PAGE_ALIGN);
    at.v_mean_scale = octavo_page_run(&end, units, OCTAVO_PAGE_ALIGN);
    for (int32_t i = 1; i < OCTAVO_MAX_PLANES; i++) at.k[i] = octavo_page_run(&end, i < planes ? plane : 0, OCTAVO_PAGE_LINE);
    at.v            = octavo_page_run(&end, tokens * octavo_v_row_bytes(config->v_format, config->v_dim), OCTAVO_PAGE_LINE);
    at.v_scale      = octavo_page_run(&end, tokens * octavo_v_scale_bytes(config->v_format), OCTAVO_PAGE_ALIGN);
    at.k_norm       = octavo_page_run(&end, planes > 1 ? tokens : 0, OCTAVO_PAGE_ALIGN);
    at.head_bytes = octavo_round_up(end, OCTAVO_PAGE_LINE);
    at.page_bytes = at.head_bytes * config->kv_heads;
    return at;
}

#endif
