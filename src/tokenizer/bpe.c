/* bpe.c - merges the tokens of a piece in order of rank, leftmost first, through a linked list and a heap. */
#include "tokenizer/bpe.h"
#include "base/error.h"
#include "tokenizer/utf8.h"
#include <stdlib.h>

typedef struct octavo_bpe_symbol {
    int32_t id;         /* -1: merged into the one before it */
    int32_t prev, next; /* positions; -1: none */
} octavo_bpe_symbol;

typedef struct octavo_bpe_candidate {
    uint64_t order; /* rank, then position of the left one */
    int32_t id;     /* of what the two become */
} octavo_bpe_candidate;

octavo_status octavo_id_list_append(octavo_id_list *list, int32_t id)
{
    void *ids = list->ids;
    const octavo_status status = octavo_array_grow(&ids, &list->capacity, list->count + 1, sizeof *list->ids);
    list->ids = ids;
    OCTAVO_TRY(status);
    list->ids[list->count++] = id;
    return OCTAVO_OK;
}

void octavo_bpe_work_fini(octavo_bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (octavo_bpe_work){ 0 };
}

/* ---- the heap ---------------------------------------------------------------------------------------------------- */

static octavo_status push(octavo_bpe_work *work, const octavo_bpe_merge *merge, int32_t position)
{
    void *heap = work->heap;
    const octavo_status status = octavo_array_grow(&heap, &work->heap_capacity, work->heap_count + 1, sizeof *work->heap);
    work->heap = heap;
    OCTAVO_TRY(status);
    const octavo_bpe_candidate fresh = { (uint64_t)(uint32_t)merge->rank << 32 | (uint32_t)position, merge->id };
    size_t at = work->heap_count++;
    while (at > 0 && work->heap[(at - 1) / 2].order > fresh.order) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = fresh;
    return OCTAVO_OK;
}

static octavo_bpe_candidate pop(octavo_bpe_work *work)
{
    octavo_bpe_candidate *heap = work->heap;
    const octavo_bpe_candidate top = heap[0], last = heap[--work->heap_count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < work->heap_count; at = child) {
        if (child + 1 < work->heap_count && heap[child + 1].order < heap[child].order) child++;
        if (last.order <= heap[child].order) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return top;
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static octavo_status consider(const octavo_bpe *bpe, octavo_bpe_work *work, int32_t left)
{
    const octavo_bpe_symbol *symbols = work->symbols;
    if (left < 0 || symbols[left].next < 0) return OCTAVO_OK;
    const octavo_bpe_merge *merge = octavo_bpe_find_merge(bpe, symbols[left].id, symbols[symbols[left].next].id);
    return merge ? push(work, merge, left) : OCTAVO_OK;
}

/* A candidate may be out of date: it counts if its place still holds two that become the same token. */
static bool is_current(const octavo_bpe *bpe, const octavo_bpe_symbol *symbols, int32_t left, int32_t id)
{
    if (symbols[left].id < 0 || symbols[left].next < 0) return false;
    const octavo_bpe_merge *merge = octavo_bpe_find_merge(bpe, symbols[left].id, symbols[symbols[left].next].id);
    return merge && merge->id == id;
}

static octavo_status merge_all(const octavo_bpe *bpe, octavo_bpe_work *work)
{
    octavo_bpe_symbol *symbols = work->symbols;
    work->heap_count = 0;
    for (size_t i = 0; i + 1 < work->symbol_count; i++) OCTAVO_TRY(consider(bpe, work, (int32_t)i));
    while (work->heap_count > 0) {
        const octavo_bpe_candidate best = pop(work);
        const int32_t left = (int32_t)(uint32_t)best.order;
        if (!is_current(bpe, symbols, left, best.id)) continue;
        const int32_t right = symbols[left].next, after = symbols[right].next;
        symbols[left].id = best.id;
        symbols[left].next = after;
        symbols[right].id = -1;
        if (after >= 0) symbols[after].prev = left;
        OCTAVO_TRY(consider(bpe, work, symbols[left].prev));
        OCTAVO_TRY(consider(bpe, work, left));
    }
    return OCTAVO_OK;
}

/* ---- characters to tokens ---------------------------------------------------------------------------------------- */

/* There is room: a piece has no more symbols than bytes. */
static void add_symbol(octavo_bpe_work *work, int32_t id)
{
    const int32_t at = (int32_t)work->symbol_count++;
    work->symbols[at] = (octavo_bpe_symbol){ id, at - 1, at + 1 };
}

static bool add_bytes(const octavo_bpe *bpe, octavo_bpe_work *work, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (bpe->byte_ids[(uint8_t)text[i]] < 0) return false;
    for (size_t i = 0; i < bytes; i++) add_symbol(work, bpe->byte_ids[(uint8_t)text[i]]);
    return true;
}

static int32_t character_id(const octavo_bpe *bpe, const char *text, size_t bytes)
{
    const uint32_t point = octavo_utf8_decode(text);
    return point < BPE_DIRECT_POINTS ? bpe->point_ids[point] : octavo_vocab_model_id(bpe->vocab, text, bytes);
}

/* An unknown character is held back until the next known one, so that a row of them can become one token. */
static void add_characters(const octavo_bpe *bpe, octavo_bpe_work *work, const char *text, size_t bytes)
{
    bool held = false;
    work->symbol_count = 0;
    for (size_t at = 0, length; at < bytes; at += length) {
        length = octavo_utf8_bytes(text[at]);
        const int32_t id = character_id(bpe, text + at, length);
        if (id >= 0) {
            if (held) add_symbol(work, bpe->unknown);
            held = false;
            add_symbol(work, id);
        } else if (bpe->byte_fallback && add_bytes(bpe, work, text + at, length)) {
            continue;
        } else if (bpe->unknown >= 0) {
            if (held && !bpe->fuse_unknown) add_symbol(work, bpe->unknown);
            held = true;
        }
    }
    if (held) add_symbol(work, bpe->unknown);
    if (work->symbol_count) work->symbols[work->symbol_count - 1].next = -1;
}

octavo_status octavo_bpe_encode(const octavo_bpe *bpe, octavo_bpe_work *work, const char *text, size_t bytes, octavo_id_list *out)
{
    if (!bytes) return OCTAVO_OK;
    if (bytes > INT32_MAX) return octavo_fail(OCTAVO_E_UNSUPPORTED, "a text has a piece of %zu bytes, expected at most %d", bytes, INT32_MAX);
    const int32_t whole = bpe->ignore_merges ? octavo_vocab_model_id(bpe->vocab, text, bytes) : -1;
    if (whole >= 0) return octavo_id_list_append(out, whole);
    void *symbols = work->symbols;
    const octavo_status status = octavo_array_grow(&symbols, &work->symbol_capacity, bytes, sizeof *work->symbols);
    work->symbols = symbols;
    OCTAVO_TRY(status);
    add_characters(bpe, work, text, bytes);
    OCTAVO_TRY(merge_all(bpe, work));
    for (size_t i = 0; i < work->symbol_count; i++)
        if (work->symbols[i].id >= 0) OCTAVO_TRY(octavo_id_list_append(out, work->symbols[i].id));
    return OCTAVO_OK;
}
