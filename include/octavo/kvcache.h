/* kvcache.h - how K and V are stored, views over memory that anyone may own, and the optional cache manager.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A *block* is block_tokens consecutive tokens of a sequence; a *page* holds one block of one layer for every kv head.
 * A *unit* is what pruning keeps or drops: sub_block_tokens tokens, by default the whole block. */
#ifndef OCTAVO_KVCACHE_H
#define OCTAVO_KVCACHE_H

#include "octavo/context.h"

OCTAVO_BEGIN_DECLS

/* How K is stored. x2: two nested planes, of which the first alone (the base) is a usable number. */
typedef enum octavo_k_format {
    OCTAVO_K_BF16   = 1,
    OCTAVO_K_F16    = 2,
    OCTAVO_K_E4M3   = 3, /* e4m3(k * 2^p), p an int8 a token and head                                */
    OCTAVO_K_E5M2   = 4, /* e5m2(k * 2^p)                                                            */
    OCTAVO_K_INT8   = 5, /* round(k / s), s = amax / 127 as bf16, rounded up                         */
    OCTAVO_K_E4M3X2 = 6, /* and e4m3((k * 2^p - base) * 2^residual_exponent)                         */
    OCTAVO_K_E5M2X2 = 7, /* and e5m2(k * 2^p - base)                                                 */
    OCTAVO_K_INT8X2 = 8, /* and round((k / s - base) * 254)                                          */
    OCTAVO_K_INT4X2 = 9, /* int8's code c as nibbles: c >> 4, read as (16 * (c >> 4) + 7.5) * s; c & 15 */
    OCTAVO_K_F32    = 10 /* float32: for comparisons, not for speed                                      */
} octavo_k_format;

typedef enum octavo_v_format {
    OCTAVO_V_BF16 = 1,
    OCTAVO_V_F16  = 2,
    OCTAVO_V_E4M3 = 3, /* e4m3(v * 2^p), p an int8 a token and head; or a factor a channel (v_channel_scale) */
    OCTAVO_V_INT8 = 4, /* round(v / s), s bf16 a token and head                                             */
    OCTAVO_V_F32  = 5
} octavo_v_format;

/* "e4m3x2", "bf16", ... as the program's options spell them; never NULL. */
OCTAVO_API const char *octavo_k_format_name(octavo_k_format format);
OCTAVO_API const char *octavo_v_format_name(octavo_v_format format);
/* OCTAVO_E_ARGUMENT: no such name. */
OCTAVO_API octavo_status octavo_k_format_parse(const char *name, octavo_k_format *format);
OCTAVO_API octavo_status octavo_v_format_parse(const char *name, octavo_v_format *format);

enum { OCTAVO_MAX_PLANES = 3 };

/* One array inside a view. The row of token t (in its block j) and head h of sequence row r starts at
 *     data + page * page_bytes + r * sequence_bytes + h * head_bytes + (t - j * block_tokens) * token_bytes
 * where page is page_table[r * page_table_stride + j], or j itself where the view has no page table. Rows are contiguous. */
typedef struct octavo_section {
    void *data; /* NULL: absent */
    int64_t page_bytes, sequence_bytes, head_bytes, token_bytes;
} octavo_section;

/* K and V of one layer for a batch of sequences. Everything is borrowed. */
typedef struct octavo_kv_view {
    size_t struct_size;
    octavo_k_format k_format;
    octavo_v_format v_format;
    octavo_device_kind device_kind; /* where all that the view points to lies; what lies on a GPU the host never reads */
    int32_t k_residual_exponent; /* e4m3x2: 4 as this library writes it, or 0; ignored otherwise */
    int32_t kv_heads, head_dim, v_dim;
    int32_t block_tokens, sub_block_tokens; /* tokens; sub divides block */
    int64_t batch;
    int64_t max_tokens;         /* no length exceeds it; units are counted up to it */
    const int32_t *lengths;     /* [rows] tokens stored, on the view's device       */
    const int32_t *sequences;   /* [batch] row of each sequence; NULL: row b is b   */
    const int32_t *page_table;  /* [rows, page_table_stride]; NULL: pages in order  */
    int64_t page_table_stride;
    int64_t pages;              /* pages that the pool holds; used to check the table */
    octavo_section k[OCTAVO_MAX_PLANES]; /* rows of the planes: head_dim elements; int4x2: (head_dim + 1) / 2 bytes, element i
                                          * in the low nibble of byte i, element i + (head_dim + 1) / 2 in the high one */
    octavo_section k_scale;     /* int8 p (e4m3*, e5m2*; absent: p = 0) or bf16 s (int8*, int4x2); token_bytes apart */
    octavo_section k_norm;      /* ue4m4 a token: ||k - base|| in units of 2^-p or s, rounded up; needed by `certified` */
    octavo_section v;           /* rows of v_dim elements                                       */
    octavo_section v_scale;     /* int8 p (e4m3; absent: p = 0) or bf16 s (int8)                */
    octavo_section v_mean;      /* e4m3 rows of v_dim, one a *unit*: token_bytes is the distance between units */
    octavo_section v_mean_scale; /* int8 p of each mean row, one a unit                          */
    const float *k_mean;          /* [rows, kv_heads, head_dim] subtracted before encoding; NULL: zero */
    const float *v_channel_scale; /* [kv_heads, v_dim] factor that multiplies a decoded e4m3 V back; NULL: one */
} octavo_kv_view;
#define OCTAVO_KV_VIEW_INIT OCTAVO_INIT_STRUCT(octavo_kv_view)

/* What a page holds, for whoever owns the pool. */
typedef struct octavo_page_config {
    size_t struct_size;
    octavo_k_format k_format;
    octavo_v_format v_format;
    int32_t kv_heads, head_dim;
    int32_t v_dim;            /* 0: head_dim                */
    int32_t block_tokens;     /* 0: 64                      */
    int32_t sub_block_tokens; /* 0: block_tokens            */
} octavo_page_config;
#define OCTAVO_PAGE_CONFIG_INIT OCTAVO_INIT_STRUCT(octavo_page_config)

/* Bytes of one page, a multiple of 256. OCTAVO_E_ARGUMENT, OCTAVO_E_SHAPE, OCTAVO_E_RANGE (overflow): *bytes is 0. */
OCTAVO_API octavo_status octavo_page_bytes(const octavo_page_config *config, size_t *bytes);

/* Sets the formats, shapes and sections of *view for pages in this library's layout that lie page_stride bytes apart in `pool`
 * (page_stride 0: octavo_page_bytes). Both are multiples of 64 bytes; at multiples of 256 rows of 128 bytes are single lines
 * of a GPU's second-level cache. The caller then sets batch, max_tokens, lengths, sequences and the page table. */
OCTAVO_API octavo_status octavo_kv_view_over_pool(const octavo_page_config *config, void *pool, int64_t pages, int64_t page_stride,
                                                  octavo_kv_view *view);

/* The same over a caller's tensors in place: k[planes] and v are [batch, tokens, kv_heads, dim] with any strides but a
 * contiguous last axis (transpose the first three axes for head-major tensors); k_scale and v_scale [batch, tokens, kv_heads]
 * or NULL. config gives formats and block sizes. Metadata sections stay absent: see octavo_block_metadata. */
OCTAVO_API octavo_status octavo_kv_view_over_tensors(const octavo_page_config *config, const octavo_tensor *k_planes,
                                                     const octavo_tensor *k_scale, const octavo_tensor *v,
                                                     const octavo_tensor *v_scale, const int32_t *lengths, octavo_kv_view *view);

/* Checks a view on the host: shapes, required sections, and where it lies in CPU memory that lengths fit and that every page index that a
 * length reaches lies within `pages`. OCTAVO_E_RANGE: a stale or foreign page index. */
OCTAVO_API octavo_status octavo_kv_view_check(const octavo_kv_view *view);

/* Encodes tokens into a view: token i of sequence b goes to position positions[b] + i. k and v are [batch, tokens, kv_heads,
 * dim], f32, f16 or bf16, any strides with a contiguous last axis; either may be NULL. Mean rows of units that become full are
 * written when v is given. lengths are neither read nor changed. OCTAVO_E_NONFINITE: nothing was written. */
OCTAVO_API octavo_status octavo_kv_append(const octavo_exec *exec, const octavo_kv_view *view, const octavo_tensor *k,
                                          const octavo_tensor *v, const int32_t *positions);

/* Writes k_norm (of nested planes: the norm of the residual) and v_mean, v_mean_scale of all full units below the lengths, from
 * the planes as they are stored. Sections that are absent are left out. */
OCTAVO_API octavo_status octavo_block_metadata(const octavo_exec *exec, const octavo_kv_view *view);

/* ---- The cache manager: optional, one writer; const calls may run concurrently. ---- */

typedef struct octavo_kvcache octavo_kvcache;

/* Layers whose pages live and die together. */
typedef struct octavo_kvcache_group {
    int32_t layers;
    int32_t sink_tokens; /* with a window: the first tokens that stay visible */
    int64_t window;      /* tokens; 0: full attention. Pages that no later query sees are given back by reserve */
} octavo_kvcache_group;

typedef struct octavo_kvcache_config {
    size_t struct_size;
    octavo_page_config page;
    const octavo_kvcache_group *groups; /* layers are numbered through all groups; NULL: one group of `layers` */
    int32_t group_count;
    int32_t layers;                     /* without groups; 0: 1 */
    int32_t max_sequences;
    int64_t max_tokens;                 /* of one sequence                       */
    int64_t pages;                      /* of each group, for each of its layers */
    void *memory;                       /* the caller's, 4096-byte aligned, or NULL: allocated from the device */
    size_t memory_bytes;
} octavo_kvcache_config;
#define OCTAVO_KVCACHE_CONFIG_INIT OCTAVO_INIT_STRUCT(octavo_kvcache_config)

/* Device memory that a cache with this config takes. OCTAVO_E_RANGE: more than fits in a size_t. */
OCTAVO_API octavo_status octavo_kvcache_memory_bytes(const octavo_kvcache_config *config, size_t *bytes);
OCTAVO_API octavo_status octavo_kvcache_create(octavo_device *device, const octavo_kvcache_config *config, octavo_kvcache **cache);
OCTAVO_API void octavo_kvcache_destroy(octavo_kvcache *cache); /* NULL is fine; the caller's memory stays the caller's */

/* An empty sequence. OCTAVO_E_RANGE: max_sequences are alive. */
OCTAVO_API octavo_status octavo_kvcache_sequence(octavo_kvcache *cache, int32_t *sequence);
/* A second sequence with the same content; pages are shared until one of them is written. Room that the parent had reserved in
 * its last page is shared, too: reserve again before the next append. */
OCTAVO_API octavo_status octavo_kvcache_fork(octavo_kvcache *cache, int32_t parent, int32_t *child);
OCTAVO_API octavo_status octavo_kvcache_free(octavo_kvcache *cache, int32_t sequence);

/* Makes room for `tokens` more tokens: takes pages, copies a shared page that would be written. Changes no content.
 * OCTAVO_E_NOMEM: the pool is too small and the cache is as it was; OCTAVO_E_RANGE: past max_tokens. */
OCTAVO_API octavo_status octavo_kvcache_reserve(octavo_kvcache *cache, int32_t sequence, int64_t tokens);

/* Appends to one layer: k and v as in octavo_kv_append, one row of the batch a sequence, and the layer's lengths grow by their
 * tokens. k is NULL where octavo_k_project wrote it before. Never allocates. OCTAVO_E_ARGUMENT: a sequence is named twice.
 * OCTAVO_E_RANGE: reserve first. OCTAVO_E_NONFINITE: nothing was written and no length changed. */
OCTAVO_API octavo_status octavo_kvcache_append(const octavo_exec *exec, octavo_kvcache *cache, int32_t layer, int64_t batch,
                                               const int32_t *sequences, const octavo_tensor *k, const octavo_tensor *v);

/* `tokens` new tokens of each of `batch` sequences, for all layers at once: what can be recorded in a graph of a whole decode step. */
typedef struct octavo_kvcache_step {
    size_t struct_size;
    int64_t batch, tokens;
    const int32_t *sequences;        /* [batch] on the host, none twice                                   */
    const int32_t *device_sequences; /* [batch] the same on the device; on the CPU it may be `sequences`  */
    int32_t *first;                  /* [batch] on the device: position of each sequence's first new token */
    int32_t *positions;              /* [batch, tokens] on the device: of all new tokens, or NULL         */
} octavo_kvcache_step;
#define OCTAVO_KVCACHE_STEP_INIT OCTAVO_INIT_STRUCT(octavo_kvcache_step)

/* The host's part of a step: checks that there is room in every layer, flushes, and counts the tokens. A replay needs it, too.
 * OCTAVO_E_ARGUMENT: a sequence is named twice; OCTAVO_E_RANGE: reserve first. Nothing was changed. */
OCTAVO_API octavo_status octavo_kvcache_step_begin(const octavo_exec *exec, octavo_kvcache *cache, const octavo_kvcache_step *step);
/* The device's part, once behind each begin, called or replayed: the lengths grow, `first` and `positions` are written. Then
 * octavo_kv_append fills each layer's view at `first`; if it fails, truncate. */
OCTAVO_API octavo_status octavo_kvcache_step_advance(const octavo_exec *exec, octavo_kvcache *cache, const octavo_kvcache_step *step);

/* Forgets all tokens from `length` on, in every layer, and reserved room with them. OCTAVO_E_RANGE: longer than the sequence, or
 * the window's pages that the shorter sequence would see are gone. */
OCTAVO_API octavo_status octavo_kvcache_truncate(octavo_kvcache *cache, int32_t sequence, int64_t length);

/* Tokens stored for a layer; -1: no such sequence or layer. */
OCTAVO_API int64_t octavo_kvcache_length(const octavo_kvcache *cache, int32_t sequence, int32_t layer);
/* Pages of a group that are free. */
OCTAVO_API int64_t octavo_kvcache_free_pages(const octavo_kvcache *cache, int32_t group);

/* On a GPU: puts what reserve, fork, truncate and free changed in order with the work on exec->stream. append and step_begin do so by
 * themselves; call it where a decode follows one of those without an append between. On the CPU there is nothing to do. */
OCTAVO_API octavo_status octavo_kvcache_flush(const octavo_exec *exec, octavo_kvcache *cache);

/* The layer of these sequences as a view. `sequences` is borrowed and must outlive the view, which a reserve, append, fork,
 * truncate or free leaves valid, but with the content of that time. Its max_tokens is the cache's; lower it to the batch's largest
 * length for smaller kept masks. Blocks that left a group's window have page -1: decode with that window and those sink tokens;
 * such a view does not pass octavo_kv_view_check.
 * On a GPU `sequences` is the host's array all the same: set the view's own to a copy of it there. */
OCTAVO_API octavo_status octavo_kvcache_view(const octavo_kvcache *cache, int32_t layer, int64_t batch, const int32_t *sequences,
                                             octavo_kv_view *view);

OCTAVO_END_DECLS

#endif
