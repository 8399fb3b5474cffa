/* plot_points.c - decides which measurements share a picture, and which a curve. */
#include "plot_points.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void describe(plot_point *point)
{
    const bench_result *r = point->result;
    char data[RESULT_TEXT_BYTES + 64];
    if (strcmp(r->data, "recording") == 0)
        snprintf(data, sizeof data, "%s, layer %" PRId64, r->file, r->layer);
    else
        snprintf(data, sizeof data, "synthetic, hot %g, seed %" PRId64, r->hot, r->seed);
    snprintf(point->scene, sizeof point->scene,
             "%s; %" PRId64 "/%" PRId64 " heads of %" PRId64 ", batch %" PRId64 ", %" PRId64 " queries\n%s, %s, %" PRId64 " threads", data,
             r->q_heads, r->kv_heads, r->head_dim, r->batch, r->queries, r->cpu, r->isa, r->threads);
    const int mass = strcmp(r->select, "mass") == 0 || strcmp(r->select, "certified") == 0, delta = strcmp(r->select, "delta") == 0;
    point->threshold = mass ? r->epsilon : delta ? r->delta : 0;
    if (mass || delta) snprintf(point->number, sizeof point->number, "%.3g", point->threshold);
    if (r->sub_block == r->block)
        snprintf(point->block, sizeof point->block, "block %" PRId64, r->block);
    else
        snprintf(point->block, sizeof point->block, "block %" PRId64 "/%" PRId64, r->block, r->sub_block);
    snprintf(point->curve, sizeof point->curve, "K %s, V %s, %s%s%s%s", r->cache_k, r->cache_v,
             strcmp(r->select, "none") == 0 ? "dense" : r->select, strcmp(r->compensate, "none") == 0 ? "" : " compensated",
             strcmp(r->attention, "exact") == 0 ? "" : ", fp8 products", strcmp(r->splits, "fill") == 0 ? "" : ", fixed splits");
}

plot_point *plot_points_of(const bench_result *results, size_t result_count, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < result_count; i++) *count += results[i].row_count;
    plot_point *points = calloc(*count ? *count : 1, sizeof *points), *next = points;
    for (size_t i = 0; points && i < result_count; i++)
        for (size_t j = 0; j < results[i].row_count; j++, next++) {
            next->result = &results[i];
            next->row = &results[i].rows[j];
            next->age = i;
            describe(next);
        }
    return points;
}

static int compare_numbers(double a, double b) { return (a > b) - (a < b); }

static int same_curve(const plot_point *a, const plot_point *b, plot_by by)
{
    return strcmp(a->curve, b->curve) == 0 && strcmp(a->block, b->block) == 0 && (by == PLOT_BY_CURVE || compare_numbers(a->threshold, b->threshold) == 0);
}

static int compare_points(const plot_point *a, const plot_point *b, plot_by by)
{
    const int64_t x = a->row->tokens, y = b->row->tokens;
    const int scene = strcmp(a->scene, b->scene), curve = strcmp(a->curve, b->curve), block = strcmp(a->block, b->block);
    const int threshold = compare_numbers(a->threshold, b->threshold), length = (x > y) - (x < y);
    if (scene || curve || block) return scene ? scene : curve ? curve : block;
    if (by == PLOT_BY_THRESHOLD && (threshold || length)) return threshold ? threshold : length;
    if (length || threshold) return length ? length : threshold;
    return (a->age > b->age) - (a->age < b->age);
}

static int compare_by_threshold(const void *a, const void *b) { return compare_points(a, b, PLOT_BY_THRESHOLD); }
static int compare_by_curve(const void *a, const void *b) { return compare_points(a, b, PLOT_BY_CURVE); }

void plot_points_sort(plot_point *points, size_t *count, plot_by by)
{
    size_t kept = 0;
    qsort(points, *count, sizeof *points, by == PLOT_BY_CURVE ? compare_by_curve : compare_by_threshold);
    for (size_t i = 0; i < *count; i++) {
        const plot_point *next = &points[i + 1];
        const int again = i + 1 < *count && strcmp(points[i].scene, next->scene) == 0 && same_curve(&points[i], next, PLOT_BY_THRESHOLD) &&
                          points[i].row->tokens == next->row->tokens;
        if (!again) points[kept++] = points[i];
    }
    *count = kept;
}

plot_span plot_scene(const plot_point *points, size_t count)
{
    size_t n = 1;
    while (n < count && strcmp(points[0].scene, points[n].scene) == 0) n++;
    return (plot_span){ points, n };
}

plot_span plot_curve(const plot_point *points, size_t count, plot_by by)
{
    size_t n = 1;
    while (n < count && same_curve(&points[0], &points[n], by)) n++;
    return (plot_span){ points, n };
}

int plot_has_one_block(plot_span scene)
{
    for (size_t i = 1; i < scene.count; i++)
        if (strcmp(scene.points[0].block, scene.points[i].block) != 0) return 0;
    return 1;
}
