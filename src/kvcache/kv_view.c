/* kv_view.c - views over pages and over a caller's tensors. */
#include "base/checked.h"
#include "base/error.h"
#include "base/tensor_match.h"
#include "kernel/page.h"
#include "kvcache/kv_view_check.h"
#include "octavo/attention.h"

enum { RESIDUAL_EXPONENT = 4 }; /* as this library writes e4m3x2 */

int64_t octavo_kv_view_units(const octavo_kv_view *view)
{
    return view && view->sub_block_tokens > 0 && view->max_tokens > 0 ? octavo_view_units(view) : 0;
}

octavo_status octavo_page_bytes(const octavo_page_config *config, size_t *bytes)
{
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    octavo_page_config page;
    OCTAVO_TRY(octavo_page_config_check(config, &page));
    if (!octavo_checked_size_from_int64(octavo_page_layout_of(&page).page_bytes, bytes)) {
        *bytes = 0;
        return octavo_fail(OCTAVO_E_RANGE, "a page takes more bytes than a size_t holds");
    }
    return OCTAVO_OK;
}

/* What both kinds of views take over from the config. */
static octavo_kv_view view_of(const octavo_page_config *page)
{
    return (octavo_kv_view){ .struct_size = sizeof(octavo_kv_view),
                             .k_format = page->k_format,
                             .v_format = page->v_format,
                             .k_residual_exponent = page->k_format == OCTAVO_K_E4M3X2 ? RESIDUAL_EXPONENT : 0,
                             .kv_heads = page->kv_heads,
                             .head_dim = page->head_dim,
                             .v_dim = page->v_dim,
                             .block_tokens = page->block_tokens,
                             .sub_block_tokens = page->sub_block_tokens };
}

/* ---- pages ---- */

static octavo_section page_section(uint8_t *pool, int64_t offset, int64_t page_stride, int64_t head_bytes, int64_t entry_bytes)
{
    if (offset < 0) return (octavo_section){ 0 };
    return (octavo_section){ pool + offset, page_stride, 0, head_bytes, entry_bytes };
}

octavo_status octavo_kv_view_over_pool(const octavo_page_config *config, void *pool, int64_t pages, int64_t page_stride,
                                       octavo_kv_view *view)
{
    octavo_page_config page;
    if (!view) return octavo_fail(OCTAVO_E_ARGUMENT, "view is NULL, expected where to put the view");
    OCTAVO_TRY(octavo_page_config_check(config, &page));
    const octavo_page_layout at = octavo_page_layout_of(&page);
    if (!pool) return octavo_fail(OCTAVO_E_ARGUMENT, "pool is NULL, expected memory for the pages");
    if ((uintptr_t)pool % OCTAVO_PAGE_ALIGN)
        return octavo_fail(OCTAVO_E_ARGUMENT, "pool is not aligned, expected a multiple of %d bytes", OCTAVO_PAGE_ALIGN);
    if (pages < 1 || pages > INT32_MAX)
        return octavo_fail(OCTAVO_E_ARGUMENT, "pages is %lld, expected 1 to %d", (long long)pages, INT32_MAX);
    if (page_stride == 0) page_stride = at.page_bytes;
    if (page_stride < at.page_bytes || page_stride % OCTAVO_PAGE_ALIGN)
        return octavo_fail(OCTAVO_E_ARGUMENT, "page_stride is %lld, expected 0 or a multiple of %d from the page's %lld bytes on",
                           (long long)page_stride, OCTAVO_PAGE_ALIGN, (long long)at.page_bytes);
    int64_t pool_bytes;
    if (!octavo_checked_mul_int64(pages, page_stride, &pool_bytes))
        return octavo_fail(OCTAVO_E_RANGE, "%lld pages of %lld bytes do not fit the address space", (long long)pages,
                           (long long)page_stride);

    octavo_kv_view made = view_of(&page);
    uint8_t *base = pool;
    made.pages = pages;
    for (int i = 0; i < OCTAVO_MAX_PLANES; i++)
        made.k[i] = page_section(base, at.k[i], page_stride, at.head_bytes, octavo_k_row_bytes(page.k_format, page.head_dim));
    made.k_scale      = page_section(base, at.k_scale, page_stride, at.head_bytes, octavo_k_scale_bytes(page.k_format));
    made.k_norm       = page_section(base, at.k_norm, page_stride, at.head_bytes, 1);
    made.v            = page_section(base, at.v, page_stride, at.head_bytes, octavo_v_row_bytes(page.v_format, page.v_dim));
    made.v_scale      = page_section(base, at.v_scale, page_stride, at.head_bytes, octavo_v_scale_bytes(page.v_format));
    made.v_mean       = page_section(base, at.v_mean, page_stride, at.head_bytes, page.v_dim);
    made.v_mean_scale = page_section(base, at.v_mean_scale, page_stride, at.head_bytes, 1);
    *view = made;
    return OCTAVO_OK;
}

/* ---- tensors ---- */

/* Dtypes that rows of a format may have: their own, or plain bytes. */
static unsigned k_plane_dtypes(octavo_k_format format)
{
    switch (format) {
    case OCTAVO_K_F32:    return OCTAVO_DTYPE_BIT(OCTAVO_F32);
    case OCTAVO_K_BF16:   return OCTAVO_DTYPE_BIT(OCTAVO_BF16);
    case OCTAVO_K_F16:    return OCTAVO_DTYPE_BIT(OCTAVO_F16);
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2: return OCTAVO_DTYPE_BIT(OCTAVO_E4M3) | OCTAVO_DTYPE_BIT(OCTAVO_UINT8);
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2: return OCTAVO_DTYPE_BIT(OCTAVO_E5M2) | OCTAVO_DTYPE_BIT(OCTAVO_UINT8);
    case OCTAVO_K_INT4X2: return OCTAVO_DTYPE_BIT(OCTAVO_UINT8) | OCTAVO_DTYPE_BIT(OCTAVO_INT8);
    default:              return OCTAVO_DTYPE_BIT(OCTAVO_INT8);
    }
}

static unsigned v_dtypes(octavo_v_format format)
{
    switch (format) {
    case OCTAVO_V_F32:  return OCTAVO_DTYPE_BIT(OCTAVO_F32);
    case OCTAVO_V_BF16: return OCTAVO_DTYPE_BIT(OCTAVO_BF16);
    case OCTAVO_V_F16:  return OCTAVO_DTYPE_BIT(OCTAVO_F16);
    case OCTAVO_V_E4M3: return OCTAVO_DTYPE_BIT(OCTAVO_E4M3) | OCTAVO_DTYPE_BIT(OCTAVO_UINT8);
    default:            return OCTAVO_DTYPE_BIT(OCTAVO_INT8);
    }
}

static unsigned scale_dtypes(int64_t scale_bytes)
{
    return scale_bytes == 1 ? OCTAVO_DTYPE_BIT(OCTAVO_INT8) : OCTAVO_DTYPE_BIT(OCTAVO_BF16);
}

/* [batch, tokens, kv_heads, ...] as blocks in order. */
static octavo_status tensor_section(const octavo_tensor *tensor, const char *name, int32_t block_tokens, octavo_section *section)
{
    const int64_t bytes = (int64_t)octavo_dtype_bytes(tensor->dtype);
    section->data           = tensor->data;
    section->sequence_bytes = tensor->shape[0] > 1 ? tensor->strides[0] * bytes : 0;
    section->token_bytes    = tensor->shape[1] > 1 ? tensor->strides[1] * bytes : 0;
    section->head_bytes     = tensor->shape[2] > 1 ? tensor->strides[2] * bytes : 0;
    if (!octavo_checked_mul_int64(section->token_bytes, block_tokens, &section->page_bytes))
        return octavo_fail(OCTAVO_E_RANGE, "%s.strides[1] is %lld, expected blocks of tokens to fit the address space", name,
                           (long long)tensor->strides[1]);
    return OCTAVO_OK;
}

/* A scale tensor [batch, tokens, kv_heads]; its last axis may have any stride, as it is indexed by section. */
static octavo_status scale_section(const octavo_tensor *tensor, const char *name, int64_t scale_bytes, const int64_t *shape,
                                   int32_t block_tokens, octavo_section *section)
{
    if (!tensor) return OCTAVO_OK;
    if (scale_bytes == 0) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is given, expected NULL: the format has no scales", name);
    octavo_tensor rows = *tensor; /* [batch, tokens, kv_heads, 1] */
    if (rows.ndim != 3) return octavo_fail(OCTAVO_E_SHAPE, "%s has %d dimensions, expected 3", name, rows.ndim);
    rows.ndim = 4;
    rows.shape[3] = 1;
    rows.strides[3] = 1;
    OCTAVO_TRY(
        octavo_tensor_match(name, &rows, scale_dtypes(scale_bytes) | OCTAVO_ANYWHERE, 4, (const int64_t[]){ shape[0], shape[1], shape[2], 1 }));
    return tensor_section(&rows, name, block_tokens, section);
}

static octavo_status check_place(const octavo_tensor *tensor, const char *name, const octavo_tensor *v)
{
    if (tensor->device_kind == v->device_kind && tensor->device_index == v->device_index) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_DEVICE, "%s lies on another device than v", name);
}

octavo_status octavo_kv_view_over_tensors(const octavo_page_config *config, const octavo_tensor *k_planes,
                                          const octavo_tensor *k_scale, const octavo_tensor *v, const octavo_tensor *v_scale,
                                          const int32_t *lengths, octavo_kv_view *view)
{
    static const char *const names[OCTAVO_MAX_PLANES] = { "k_planes[0]", "k_planes[1]", "k_planes[2]" };
    octavo_page_config page;
    if (!view) return octavo_fail(OCTAVO_E_ARGUMENT, "view is NULL, expected where to put the view");
    OCTAVO_TRY(octavo_page_config_check(config, &page));
    if (!k_planes || !v) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected a tensor", k_planes ? "v" : "k_planes");

    octavo_kv_view made = view_of(&page);
    made.device_kind = v->device_kind;
    const int64_t columns = page.k_format == OCTAVO_K_INT4X2 ? ((int64_t)page.head_dim + 1) / 2 : page.head_dim;
    int64_t shape[4] = { 0, 0, page.kv_heads, columns };
    for (int32_t i = 0; i < octavo_k_plane_count(page.k_format); i++) {
        OCTAVO_TRY(octavo_tensor_match(names[i], &k_planes[i], k_plane_dtypes(page.k_format) | OCTAVO_ANYWHERE, 4, shape));
        OCTAVO_TRY(tensor_section(&k_planes[i], names[i], page.block_tokens, &made.k[i]));
        shape[0] = k_planes[0].shape[0];
        shape[1] = k_planes[0].shape[1];
    }
    shape[3] = page.v_dim;
    OCTAVO_TRY(octavo_tensor_match("v", v, v_dtypes(page.v_format) | OCTAVO_ANYWHERE, 4, shape));
    OCTAVO_TRY(tensor_section(v, "v", page.block_tokens, &made.v));
    OCTAVO_TRY(scale_section(k_scale, "k_scale", octavo_k_scale_bytes(page.k_format), shape, page.block_tokens, &made.k_scale));
    OCTAVO_TRY(scale_section(v_scale, "v_scale", octavo_v_scale_bytes(page.v_format), shape, page.block_tokens, &made.v_scale));
    for (int32_t i = 0; i < octavo_k_plane_count(page.k_format); i++) OCTAVO_TRY(check_place(&k_planes[i], names[i], v));
    if (k_scale) OCTAVO_TRY(check_place(k_scale, "k_scale", v));
    if (v_scale) OCTAVO_TRY(check_place(v_scale, "v_scale", v));
    made.lengths    = lengths;
    made.batch      = shape[0];
    made.max_tokens = shape[1];
    made.pages      = (shape[1] - 1) / page.block_tokens + 1;
    OCTAVO_TRY(octavo_kv_view_validate_parts(&made, OCTAVO_VIEW_K | OCTAVO_VIEW_V));
    *view = made;
    return OCTAVO_OK;
}
