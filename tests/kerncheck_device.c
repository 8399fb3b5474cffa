/* kerncheck_device.c - runs a case on a GPU: its arena is copied there, and every operand's pointer moved, as kernels.h declares it. */
#include "device/device.h"
#include "kerncheck.h"

#include <stdio.h>
#include <stdlib.h>

enum { TIMED_CALLS = 20, TIMED_GRAPHS = 7 };

static octavo_context *context;
static octavo_device *device;
static uint8_t *memory; /* the arena's copy on the device */
static int32_t *status_word;
static void *stream;
static size_t memory_bytes;

static ptrdiff_t distance; /* from the arena to its copy */

static void give_up(const char *what)
{
    fprintf(stderr, "kerncheck: %s: %s\n", what, octavo_last_error());
    exit(2);
}

const octavo_kernels *kc_device_open(const char *name, const char **level)
{
    if (octavo_context_create(NULL, &context) != OCTAVO_OK || octavo_device_open(context, name, &device) != OCTAVO_OK ||
        octavo_device_stream_create(device, &stream) != OCTAVO_OK ||
        octavo_device_allocate(device, sizeof *status_word, (void **)&status_word) != OCTAVO_OK) {
        fprintf(stderr, "kerncheck: %s\n", octavo_last_error());
        return NULL;
    }
    *level = octavo_device_isa(device);
    return octavo_device_kernels(device);
}

/* ---- pointers ---- */

static void *moved(const void *at) { return at ? (void *)((uintptr_t)at + (uintptr_t)distance) : NULL; }

static void move_view(octavo_kv_view *view)
{
    octavo_section *sections[] = { &view->k_scale, &view->k_norm, &view->v, &view->v_scale, &view->v_mean, &view->v_mean_scale };
    for (int i = 0; i < OCTAVO_MAX_PLANES; i++) view->k[i].data = moved(view->k[i].data);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) sections[i]->data = moved(sections[i]->data);
    view->lengths = moved(view->lengths), view->sequences = moved(view->sequences), view->page_table = moved(view->page_table);
    view->k_mean = moved(view->k_mean), view->v_channel_scale = moved(view->v_channel_scale);
    view->device_kind = OCTAVO_DEVICE_CUDA;
}

#define MOVE_A(way, member, dtype, elements) there.member = moved(p->member);
#define MOVE_T(way, member) there.member.data = moved(p->member.data), there.member.device_kind = OCTAVO_DEVICE_CUDA;
#define MOVE_V(way, member)  \
    view = *p->member;       \
    move_view(&view);        \
    there.member = &view;
#define X(op, budget)                                                                                                    \
    static octavo_status call_##op(const octavo_kernels *kernels, const octavo_exec *exec, const octavo_##op##_params *p) \
    {                                                                                                                    \
        octavo_##op##_params there = *p;                                                                                 \
        octavo_kv_view view;                                                                                             \
        (void)&view;                                                                                                     \
        OCTAVO_OPERANDS_##op(MOVE_A, MOVE_T, MOVE_V)                                                                      \
        return kernels->op(exec, &there);                                                                                \
    }
OCTAVO_KERNEL_LIST(X)
#undef X

static octavo_status call_there(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params)
{
    switch (op) {
#define X(name, budget) case KC_##name: return call_##name(kernels, exec, params);
        OCTAVO_KERNEL_LIST(X)
#undef X
    case KC_OPERATIONS: break;
    }
    return OCTAVO_E_UNSUPPORTED;
}

/* ---- calls ---- */

/* The arena goes to the device; the exec that calls there use. */
static octavo_exec send(const octavo_exec *exec, const uint8_t *arena, size_t used)
{
    octavo_exec there = *exec;
    const int32_t zero = 0;
    there.device = device, there.stream = stream, there.device_status = status_word;
    if (used > memory_bytes) {
        octavo_device_release(device, memory, memory_bytes);
        memory_bytes = 2 * used;
        if (octavo_device_allocate(device, memory_bytes, (void **)&memory) != OCTAVO_OK) give_up("no room for the arena");
    }
    distance = (ptrdiff_t)((uintptr_t)memory - (uintptr_t)arena);
    there.workspace = moved(exec->workspace);
    if (octavo_device_upload(&there, memory, arena, used) != OCTAVO_OK ||
        octavo_device_upload(&there, status_word, &zero, sizeof zero) != OCTAVO_OK)
        give_up("the arena could not be copied");
    return there;
}

octavo_status kc_device_call(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params, uint8_t *arena,
                             size_t used, int32_t *word)
{
    const octavo_exec there = send(exec, arena, used);
    const octavo_status status = call_there(op, kernels, &there, params);
    if (octavo_device_synchronize(&there) != OCTAVO_OK || octavo_device_download(&there, arena, memory, used) != OCTAVO_OK ||
        octavo_device_download(&there, word, status_word, sizeof *word) != OCTAVO_OK)
        give_up(kc_description());
    return status;
}

double kc_device_time(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params, const uint8_t *arena,
                      size_t used)
{
    const octavo_exec there = send(exec, arena, used);
    void *graph = NULL;
    double best = HUGE_VAL, seconds;
    if (call_there(op, kernels, &there, params) != OCTAVO_OK) return -1.0;
    if (octavo_device_graph_begin(&there) != OCTAVO_OK) give_up("no graph");
    for (int i = 0; i < TIMED_CALLS; i++)
        if (call_there(op, kernels, &there, params) != OCTAVO_OK) give_up("refused in a graph");
    if (octavo_device_graph_end(&there, &graph) != OCTAVO_OK) give_up("no graph");
    for (int i = 0; i < TIMED_GRAPHS; i++) {
        if (octavo_device_graph_time(&there, graph, &seconds) != OCTAVO_OK) give_up("no time");
        best = fmin(best, seconds / TIMED_CALLS);
    }
    octavo_device_graph_destroy(device, graph);
    return best;
}
