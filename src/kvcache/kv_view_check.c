/* kv_view_check.c - what may be wrong with a view that somebody else made. */
#include "kvcache/kv_view_check.h"
#include "base/checked.h"
#include "base/error.h"
#include "device/device.h"
#include "kernel/page.h"
#include <stdbool.h>

enum { DIM_MAX = 65536 };
static const int64_t REACH_MAX = INT64_C(1) << 56; /* bytes; no address space is larger */

/* ---- formats and dimensions ---- */

static octavo_status check_dim(const char *name, int64_t value)
{
    if (value >= 1 && value <= DIM_MAX) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_ARGUMENT, "%s is %lld, expected 1 to %d", name, (long long)value, DIM_MAX);
}

static octavo_status check_formats(octavo_k_format k_format, octavo_v_format v_format, int parts)
{
    if ((parts & OCTAVO_VIEW_K) && ((int)k_format < OCTAVO_K_BF16 || (int)k_format > OCTAVO_K_F32))
        return octavo_fail(OCTAVO_E_ARGUMENT, "k_format is %d, expected one of octavo_k_format", (int)k_format);
    if ((parts & OCTAVO_VIEW_V) && ((int)v_format < OCTAVO_V_BF16 || (int)v_format > OCTAVO_V_F32))
        return octavo_fail(OCTAVO_E_ARGUMENT, "v_format is %d, expected one of octavo_v_format", (int)v_format);
    return OCTAVO_OK;
}

static octavo_status check_blocks(int32_t block_tokens, int32_t sub_block_tokens)
{
    OCTAVO_TRY(check_dim("block_tokens", block_tokens));
    OCTAVO_TRY(check_dim("sub_block_tokens", sub_block_tokens));
    if (block_tokens % sub_block_tokens)
        return octavo_fail(OCTAVO_E_SHAPE, "sub_block_tokens is %d, expected a divisor of block_tokens = %d", sub_block_tokens,
                           block_tokens);
    return OCTAVO_OK;
}

octavo_status octavo_page_config_check(const octavo_page_config *config, octavo_page_config *made)
{
    if (!config) return octavo_fail(OCTAVO_E_ARGUMENT, "config is NULL, expected an octavo_page_config");
    OCTAVO_TRY(octavo_struct_check("octavo_page_config", config->struct_size, sizeof *config));
    *made = *config;
    if (made->v_dim == 0) made->v_dim = made->head_dim;
    if (made->block_tokens == 0) made->block_tokens = OCTAVO_BLOCK_TOKENS_DEFAULT;
    if (made->sub_block_tokens == 0) made->sub_block_tokens = made->block_tokens;
    OCTAVO_TRY(check_formats(made->k_format, made->v_format, OCTAVO_VIEW_ALL));
    OCTAVO_TRY(check_dim("kv_heads", made->kv_heads));
    OCTAVO_TRY(check_dim("head_dim", made->head_dim));
    OCTAVO_TRY(check_dim("v_dim", made->v_dim));
    return check_blocks(made->block_tokens, made->sub_block_tokens);
}

/* ---- sections ---- */

static int64_t view_blocks(const octavo_kv_view *view) { return (view->max_tokens - 1) / view->block_tokens + 1; }

/* The last of `count` steps, or false where it is out of reach. */
static bool last_step(int64_t count, int64_t stride, int64_t *last)
{
    return octavo_checked_mul_int64(count - 1, stride, last) && *last < REACH_MAX && *last > -REACH_MAX;
}

static octavo_status check_section(const octavo_kv_view *view, const octavo_section *section, const char *name, int64_t entries,
                                   int64_t alignment)
{
    if (!section->data) return OCTAVO_OK;
    const int64_t strides[] = { section->page_bytes, section->sequence_bytes, section->head_bytes, section->token_bytes };
    const int64_t counts[] = { view->page_table ? view->pages : view_blocks(view), view->batch, view->kv_heads, entries };
    bool aligned = (uintptr_t)section->data % (size_t)alignment == 0;
    for (int i = 0; i < 4; i++) {
        int64_t last;
        if (!last_step(counts[i], strides[i], &last))
            return octavo_fail(OCTAVO_E_RANGE, "view.%s has %lld steps of %lld bytes, expected to fit the address space", name,
                               (long long)counts[i], (long long)strides[i]);
        aligned = aligned && strides[i] % alignment == 0;
    }
    if (!aligned)
        return octavo_fail(OCTAVO_E_ARGUMENT,
                           "view.%s is not aligned, expected its data and strides to be multiples of %lld bytes", name,
                           (long long)alignment);
    return OCTAVO_OK;
}

static octavo_status missing(const char *name, const char *format)
{
    return octavo_fail(OCTAVO_E_ARGUMENT, "view.%s.data is NULL, expected memory: the format %s needs it", name, format);
}

static octavo_status check_k(const octavo_kv_view *view)
{
    static const char *const names[OCTAVO_MAX_PLANES] = { "k[0]", "k[1]", "k[2]" };
    const char *format = octavo_k_format_name(view->k_format);
    const int64_t scale_bytes = octavo_k_scale_bytes(view->k_format), tokens = view->block_tokens;
    OCTAVO_TRY(check_dim("view.head_dim", view->head_dim));
    if (view->k_format == OCTAVO_K_E4M3X2 && view->k_residual_exponent != 0 && view->k_residual_exponent != 4)
        return octavo_fail(OCTAVO_E_ARGUMENT, "view.k_residual_exponent is %d, expected 4 or 0", view->k_residual_exponent);
    for (int32_t i = 0; i < octavo_k_plane_count(view->k_format); i++) {
        if (!view->k[i].data) return missing(names[i], format);
        OCTAVO_TRY(check_section(view, &view->k[i], names[i], tokens, octavo_k_element_bytes(view->k_format)));
    }
    if (scale_bytes == 2 && !view->k_scale.data) return missing("k_scale", format);
    OCTAVO_TRY(check_section(view, &view->k_scale, "k_scale", tokens, scale_bytes == 2 ? 2 : 1));
    return check_section(view, &view->k_norm, "k_norm", tokens, 1);
}

static octavo_status check_v(const octavo_kv_view *view)
{
    const char *format = octavo_v_format_name(view->v_format);
    const int64_t scale_bytes = octavo_v_scale_bytes(view->v_format), tokens = view->block_tokens;
    OCTAVO_TRY(check_dim("view.v_dim", view->v_dim));
    if (!view->v.data) return missing("v", format);
    OCTAVO_TRY(check_section(view, &view->v, "v", tokens, octavo_v_element_bytes(view->v_format)));
    if (scale_bytes == 2 && !view->v_scale.data) return missing("v_scale", format);
    OCTAVO_TRY(check_section(view, &view->v_scale, "v_scale", tokens, scale_bytes == 2 ? 2 : 1));
    if (!view->v_mean.data != !view->v_mean_scale.data)
        return octavo_fail(OCTAVO_E_ARGUMENT, "view.%s.data is NULL, expected v_mean and v_mean_scale both or neither",
                           view->v_mean.data ? "v_mean_scale" : "v_mean");
    const int64_t units = tokens / view->sub_block_tokens;
    OCTAVO_TRY(check_section(view, &view->v_mean, "v_mean", units, 1));
    OCTAVO_TRY(check_section(view, &view->v_mean_scale, "v_mean_scale", units, 1));
    if (view->v_channel_scale && view->v_format != OCTAVO_V_E4M3)
        return octavo_fail(OCTAVO_E_ARGUMENT,
                           "view.v_channel_scale is given for %s, expected NULL: factors a channel belong to e4m3", format);
    return OCTAVO_OK;
}

static octavo_status check_extent(const octavo_kv_view *view, int parts)
{
    if (view->batch < 1 || view->batch > INT32_MAX)
        return octavo_fail(OCTAVO_E_SHAPE, "view.batch is %lld, expected 1 to %d", (long long)view->batch, INT32_MAX);
    if (view->max_tokens < 1 || view->max_tokens > INT32_MAX)
        return octavo_fail(OCTAVO_E_SHAPE, "view.max_tokens is %lld, expected 1 to %d", (long long)view->max_tokens, INT32_MAX);
    if ((parts & OCTAVO_VIEW_LENGTHS) && !view->lengths)
        return octavo_fail(OCTAVO_E_ARGUMENT, "view.lengths is NULL, expected the tokens stored of each row");
    if (!view->page_table) return OCTAVO_OK;
    if (view->pages < 1 || view->pages > INT32_MAX)
        return octavo_fail(OCTAVO_E_SHAPE, "view.pages is %lld, expected 1 to %d with a page table", (long long)view->pages,
                           INT32_MAX);
    if (view->page_table_stride < view_blocks(view))
        return octavo_fail(OCTAVO_E_SHAPE,
                           "view.page_table_stride is %lld, expected at least %lld: the blocks of max_tokens = %lld",
                           (long long)view->page_table_stride, (long long)view_blocks(view), (long long)view->max_tokens);
    return OCTAVO_OK;
}

octavo_status octavo_kv_view_validate_parts(const octavo_kv_view *view, int parts)
{
    if (!view) return octavo_fail(OCTAVO_E_ARGUMENT, "the view is NULL, expected an octavo_kv_view");
    OCTAVO_TRY(octavo_struct_check("octavo_kv_view", view->struct_size, sizeof *view));
    OCTAVO_TRY(check_formats(view->k_format, view->v_format, parts));
    if (view->device_kind != OCTAVO_DEVICE_CPU && view->device_kind != OCTAVO_DEVICE_CUDA)
        return octavo_fail(OCTAVO_E_ARGUMENT, "view.device_kind is %d, expected one of octavo_device_kind", (int)view->device_kind);
    OCTAVO_TRY(check_dim("view.kv_heads", view->kv_heads));
    OCTAVO_TRY(check_blocks(view->block_tokens, view->sub_block_tokens));
    OCTAVO_TRY(check_extent(view, parts));
    if (parts & OCTAVO_VIEW_K) OCTAVO_TRY(check_k(view));
    if (parts & OCTAVO_VIEW_V) OCTAVO_TRY(check_v(view));
    return OCTAVO_OK;
}

octavo_status octavo_kv_view_validate(const octavo_kv_view *view) { return octavo_kv_view_validate_parts(view, OCTAVO_VIEW_ALL); }

/* ---- content on the CPU ---- */

static int is_on_host(const octavo_kv_view *view) { return view->device_kind == OCTAVO_DEVICE_CPU; }

octavo_status octavo_kv_view_check_rows(const octavo_kv_view *view)
{
    for (int64_t b = 0; is_on_host(view) && view->sequences && b < view->batch; b++)
        if (view->sequences[b] < 0)
            return octavo_fail(OCTAVO_E_RANGE, "view.sequences[%lld] is %d, expected a row, 0 or more", (long long)b,
                               view->sequences[b]);
    return OCTAVO_OK;
}

octavo_status octavo_kv_view_check_pages(const octavo_kv_view *view, int64_t b, int64_t first, int64_t end)
{
    if (!view->page_table || !is_on_host(view)) return OCTAVO_OK;
    const int64_t row = octavo_view_row(view, b);
    for (int64_t block = first; block < end; block++) {
        const int64_t page = octavo_view_page(view, row, block);
        if (page < 0 || page >= view->pages)
            return octavo_fail(OCTAVO_E_RANGE, "the page table's row %lld has page %lld for block %lld, expected 0 to %lld",
                               (long long)row, (long long)page, (long long)block, (long long)view->pages - 1);
    }
    return OCTAVO_OK;
}

octavo_status octavo_kv_view_check(const octavo_kv_view *view)
{
    OCTAVO_TRY(octavo_kv_view_validate(view));
    OCTAVO_TRY(octavo_kv_view_check_rows(view));
    for (int64_t b = 0; is_on_host(view) && b < view->batch; b++) {
        const int64_t row = octavo_view_row(view, b), length = view->lengths[row];
        if (length < 0 || length > view->max_tokens)
            return octavo_fail(OCTAVO_E_RANGE, "view.lengths[%lld] is %lld, expected 0 to max_tokens = %lld", (long long)row,
                               (long long)length, (long long)view->max_tokens);
        OCTAVO_TRY(octavo_kv_view_check_pages(view, b, 0, (length + view->block_tokens - 1) / view->block_tokens));
    }
    return OCTAVO_OK;
}

/* ---- overlap ---- */

octavo_extent octavo_section_extent(const octavo_kv_view *view, const octavo_section *section, int64_t entries,
                                    int64_t entry_bytes)
{
    if (!section->data) return (octavo_extent){ 0, 0 };
    int64_t rows = view->batch;
    for (int64_t b = 0; is_on_host(view) && view->sequences && b < view->batch; b++)
        if (view->sequences[b] >= rows) rows = (int64_t)view->sequences[b] + 1;
    int64_t pages = view->page_table ? view->pages : view_blocks(view), block_bytes;
    if (!view->page_table && octavo_checked_mul_int64(section->token_bytes, entries, &block_bytes) && block_bytes == section->page_bytes) { /* one run of tokens, whose last block may be short */
        const int64_t whole = view->max_tokens / view->block_tokens, rest = view->max_tokens % view->block_tokens;
        entries = whole * entries + (rest * entries + view->block_tokens - 1) / view->block_tokens;
        pages = 1;
    }
    const int64_t strides[] = { section->page_bytes, section->sequence_bytes, section->head_bytes, section->token_bytes };
    const int64_t counts[] = { pages, rows, view->kv_heads, entries };
    int64_t low = 0, high = entry_bytes;
    for (int i = 0; i < 4; i++) {
        int64_t last;
        if (!last_step(counts[i], strides[i], &last)) continue; /* rows beyond the address space: nothing can overlap them */
        if (last < 0) low += last;
        else high += last;
    }
    const uintptr_t data = (uintptr_t)section->data;
    return (octavo_extent){ data + (uintptr_t)low, data + (uintptr_t)high };
}

octavo_status octavo_kv_view_check_overlap(const octavo_kv_view *view, int parts, octavo_extent memory, const char *name)
{
    const int64_t tokens = view->block_tokens, units = tokens / view->sub_block_tokens;
    const int k = parts & OCTAVO_VIEW_K, v = parts & OCTAVO_VIEW_V;
    const int64_t k_bytes = k ? octavo_k_row_bytes(view->k_format, view->head_dim) : 0;
    const int32_t planes = k ? octavo_k_plane_count(view->k_format) : 0;
    const struct {
        const octavo_section *section;
        const char *name;
        int64_t entries, bytes;
        int touched;
    } sections[] = {
        { &view->k[0], "k[0]", tokens, k_bytes, k },
        { &view->k[1], "k[1]", tokens, k_bytes, planes > 1 },
        { &view->k[2], "k[2]", tokens, k_bytes, planes > 2 },
        { &view->k_scale, "k_scale", tokens, k ? octavo_k_scale_bytes(view->k_format) : 0, k },
        { &view->k_norm, "k_norm", tokens, 1, k },
        { &view->v, "v", tokens, v ? octavo_v_row_bytes(view->v_format, view->v_dim) : 0, v },
        { &view->v_scale, "v_scale", tokens, v ? octavo_v_scale_bytes(view->v_format) : 0, v },
        { &view->v_mean, "v_mean", units, view->v_dim, v },
        { &view->v_mean_scale, "v_mean_scale", units, 1, v },
    };
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (!sections[i].touched) continue;
        const octavo_extent extent = octavo_section_extent(view, sections[i].section, sections[i].entries, sections[i].bytes);
        if (octavo_extents_overlap(memory, extent))
            return octavo_fail(OCTAVO_E_ARGUMENT, "%s overlaps view.%s, expected memory of its own", name, sections[i].name);
    }
    return OCTAVO_OK;
}
