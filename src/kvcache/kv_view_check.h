/* kv_view_check.h - what calls that take a view check of it; octavo_kv_view_check() of the public header checks still more. */
#ifndef OCTAVO_KVCACHE_KV_VIEW_CHECK_H
#define OCTAVO_KVCACHE_KV_VIEW_CHECK_H

#include "base/extent.h"
#include "octavo/kvcache.h"

/* What a call is going to touch. */
enum { OCTAVO_VIEW_K = 1, OCTAVO_VIEW_V = 2, OCTAVO_VIEW_LENGTHS = 4, OCTAVO_VIEW_ALL = 7 };

/* The host's part, whose cost depends on no size: version, formats, dimensions, sections that the formats need, their alignment
 * and reach, the page table's width. NULL is an error, too. */
octavo_status octavo_kv_view_validate_parts(const octavo_kv_view *view, int parts);
octavo_status octavo_kv_view_validate(const octavo_kv_view *view); /* OCTAVO_VIEW_ALL */

/* Views over CPU memory: rows of `sequences` are not negative. */
octavo_status octavo_kv_view_check_rows(const octavo_kv_view *view);

/* Views over CPU memory: the pages of blocks [first, end) of batch entry b lie within `pages`. OCTAVO_E_RANGE: a stale one. */
octavo_status octavo_kv_view_check_pages(const octavo_kv_view *view, int64_t b, int64_t first, int64_t end);

/* Views over CPU memory: `tokens` new tokens of every sequence from its position on lie within max_tokens and in pages that
 * exist. */
octavo_status octavo_kv_view_check_positions(const octavo_kv_view *view, const int32_t *positions, int64_t tokens);

/* The memory between the first and the last byte of a section (empty where it is absent) as far as this batch reaches it; entries
 * of a page are `entry_bytes` long, and `entries` of them lie in a page. CPU memory, O(batch). */
octavo_extent octavo_section_extent(const octavo_kv_view *view, const octavo_section *section, int64_t entries,
                                    int64_t entry_bytes);

/* OCTAVO_E_ARGUMENT where `memory` touches a section of these parts; `name` is what the sentence calls it. */
octavo_status octavo_kv_view_check_overlap(const octavo_kv_view *view, int parts, octavo_extent memory, const char *name);

/* Formats, dimensions and block sizes of a page; zeros become the documented defaults in *made. */
octavo_status octavo_page_config_check(const octavo_page_config *config, octavo_page_config *made);

#endif
