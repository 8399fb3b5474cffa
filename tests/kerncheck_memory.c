/* kerncheck_memory.c - the arena of a case: guarded blocks, runs on identical copies of it, comparison of whole copies.
 *
 * Every kernel works at the same addresses. Between runs the arena is put back to what it was, so that whatever a kernel did to
 * inputs, guards, padding or outputs shows in one comparison of arenas, once the check has accepted what its budget allows. */
#include "base/clock.h"
#include "kerncheck.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KC_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(KC_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

enum { BLOCKS_MAX = 64, GUARD = 128, ARENA_BYTES = 192 << 20, SCRATCH_BYTES = 256 << 20 };

typedef enum direction { IN = 1, OUT = 2, INOUT = 3 } direction;

typedef struct block {
    const char *name;
    size_t offset, bytes;
    octavo_dtype dtype;
    int is_output, is_workspace;
} block;

static uint8_t *arena, *before, *want, *other, *scratch;
static size_t used, scratch_used;
static block blocks[BLOCKS_MAX];
static int block_count, poison, quiet;
static char description[2048];
static double worst;

static void *reserve(size_t bytes)
{
    void *memory = aligned_alloc(4096, bytes);
    if (!memory) fprintf(stderr, "kerncheck: no memory for an arena of %zu bytes\n", bytes), exit(2);
    return memory;
}

enum { WIDE_BYTES = 16, WIDE_ELEMENTS = 8 };
static int wide; /* every block and row begins at whole pieces */

void kc_begin(void)
{
    if (!arena) {
        arena = reserve(ARENA_BYTES), before = reserve(ARENA_BYTES), want = reserve(ARENA_BYTES), other = reserve(ARENA_BYTES);
        scratch = reserve(SCRATCH_BYTES);
    }
    used = scratch_used = 0, block_count = 0, description[0] = 0, wide = 0;
    poison = kc_chance(50) ? 0xFF : 0x5A; /* a NaN in most formats; a number that is not 0 */
    memset(arena, poison, GUARD);
    used = GUARD;
}

void kc_align_wide(void) { wide = 1; }

int kc_draw_wide(const kc_pair *pair)
{
    if (pair->bench || !pair->device || !kc_chance(30)) return 0;
    kc_align_wide();
    return 1;
}

static void *add_block(const char *name, octavo_dtype dtype, size_t bytes, size_t alignment)
{
    if (wide && alignment < WIDE_BYTES) alignment = WIDE_BYTES;
    const size_t odd = alignment < 64 ? alignment * (size_t)kc_between(0, (int64_t)(64 / alignment) - 1) : 0;
    const size_t offset = (used + 63) / 64 * 64 + odd, end = offset + bytes + GUARD;
    if (block_count == BLOCKS_MAX || end > ARENA_BYTES) {
        fprintf(stderr, "kerncheck: a case does not fit (%s, %zu bytes)\n", name, bytes);
        exit(2);
    }
    memset(arena + used, poison, end - used);
    blocks[block_count++] = (block){ .name = name, .offset = offset, .bytes = bytes, .dtype = dtype };
    used = end;
    return arena + offset;
}

void *kc_array(const char *name, octavo_dtype dtype, int64_t elements)
{
    const size_t bytes = octavo_dtype_bytes(dtype);
    return add_block(name, dtype, bytes * (size_t)elements, bytes);
}

void *kc_bytes(const char *name, int64_t bytes, int64_t alignment)
{
    return add_block(name, OCTAVO_UINT8, (size_t)bytes, (size_t)alignment);
}

octavo_tensor kc_tensor(const char *name, octavo_dtype dtype, int32_t ndim, const int64_t *shape)
{
    octavo_tensor tensor = { .dtype = dtype, .ndim = ndim };
    int order[OCTAVO_MAX_DIMS]; /* the axes, innermost first */
    for (int i = 0; i < ndim; i++) order[i] = ndim - 1 - i;
    if (ndim > 2 && kc_chance(50)) { /* [B, T, H, D] or [B, H, T, D] */
        const int swap = order[1];
        order[1] = order[2], order[2] = swap;
    }
    const int padded = kc_chance(60);
    int64_t stride = 1;
    for (int i = 0; i < ndim; i++) {
        tensor.shape[order[i]] = shape[order[i]];
        tensor.strides[order[i]] = stride;
        stride = stride * (shape[order[i]] > 0 ? shape[order[i]] : 1) + (padded && kc_chance(60) ? kc_between(0, 9) * (wide ? WIDE_ELEMENTS : 1) : 0);
    }
    int64_t last = 0;
    for (int i = 0; i < ndim; i++) last += (shape[i] > 0 ? shape[i] - 1 : 0) * tensor.strides[i];
    tensor.data = kc_array(name, dtype, last + 1);
    return tensor;
}

void *kc_scratch(int64_t bytes)
{
    const size_t at = scratch_used;
    scratch_used += ((size_t)bytes + 63) / 64 * 64;
    if (scratch_used > SCRATCH_BYTES) fprintf(stderr, "kerncheck: no scratch memory left\n"), exit(2);
    return scratch + at;
}

/* ---- what is said ---- */

void kc_describe(const char *format, ...)
{
    const size_t length = strlen(description);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(description + length, sizeof description - length, format, arguments);
    va_end(arguments);
}

const char *kc_description(void) { return description; }

void kc_be_quiet(int be_quiet) { quiet = be_quiet; }

int kc_fail(const char *format, ...)
{
    if (quiet) return 0;
    va_list arguments;
    va_start(arguments, format);
    printf("    ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    return 0;
}

void kc_note(double share) { worst = share > worst ? share : worst; }
double kc_worst(void) { return worst; }
void kc_forget_worst(void) { worst = 0.0; }

/* ---- operands ---- */

static block *block_of(const void *data)
{
    const uint8_t *at = data;
    for (int i = 0; i < block_count; i++)
        if (at >= arena + blocks[i].offset && at <= arena + blocks[i].offset + blocks[i].bytes) return &blocks[i];
    fprintf(stderr, "kerncheck: an operand lies outside the arena\n");
    exit(2);
}

static void mark(const void *data, direction way)
{
    if (data && (way & OUT)) block_of(data)->is_output = 1;
}

static void mark_array(const char *name, const void *data, direction way, octavo_dtype dtype, int64_t elements)
{
    mark(data, way);
    if (!data || block_of(data)->bytes >= octavo_dtype_bytes(dtype) * (size_t)elements) return;
    fprintf(stderr, "kerncheck: %s is declared with more elements than its check gave it\n", name);
    exit(2);
}

static void mark_view(const octavo_kv_view *view, direction way)
{
    for (int i = 0; i < OCTAVO_MAX_PLANES; i++) mark(view->k[i].data, way);
    mark(view->k_scale.data, way), mark(view->k_norm.data, way), mark(view->v.data, way), mark(view->v_scale.data, way);
    mark(view->v_mean.data, way), mark(view->v_mean_scale.data, way);
}

#define MARK_A(way, member, dtype, elements) mark_array(#member, p->member, way, OCTAVO_##dtype, elements);
#define MARK_T(way, member) mark(p->member.data, way);
#define MARK_V(way, member) mark_view(p->member, way);
#define X(op, budget)                                                                                  \
    static void mark_##op(const octavo_##op##_params *p) { OCTAVO_OPERANDS_##op(MARK_A, MARK_T, MARK_V) }
OCTAVO_KERNEL_LIST(X)
#undef X

static void mark_outputs(kc_operation op, const void *params)
{
    switch (op) {
#define X(name, budget) case KC_##name: mark_##name(params); break;
        OCTAVO_KERNEL_LIST(X)
#undef X
    case KC_OPERATIONS: break;
    }
}

static octavo_status call(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params)
{
    switch (op) {
#define X(name, budget) case KC_##name: return kernels->name(exec, params);
        OCTAVO_KERNEL_LIST(X)
#undef X
    case KC_OPERATIONS: break;
    }
    return OCTAVO_E_UNSUPPORTED;
}

const char *kc_operation_name(kc_operation op)
{
    static const char *const names[] = {
#define X(op, budget) #op,
        OCTAVO_KERNEL_LIST(X)
#undef X
    };
    return names[op];
}

int kc_same_entry(kc_operation op, const octavo_kernels *a, const octavo_kernels *b)
{
    switch (op) {
#define X(name, budget) case KC_##name: return a->name == b->name;
        OCTAVO_KERNEL_LIST(X)
#undef X
    case KC_OPERATIONS: break;
    }
    return 1;
}

int kc_has_entry(kc_operation op, const octavo_kernels *a)
{
    static const octavo_kernels none;
    return !kc_same_entry(op, a, &none);
}

/* ---- runs ---- */

static void reverse_order(void *user, int64_t count, octavo_task task, void *argument)
{
    (void)user;
    for (int64_t i = count; i-- > 0;) task(argument, i);
}

/* Guards are out of bounds for the sanitizer only while a kernel runs. */
static void fence(int up)
{
    size_t from = 0;
    for (int i = 0; i <= block_count; i++) {
        const size_t to = i < block_count ? blocks[i].offset : used;
        if (up) ASAN_POISON_MEMORY_REGION(arena + from, to - from);
        else    ASAN_UNPOISON_MEMORY_REGION(arena + from, to - from);
        if (i < block_count) from = blocks[i].offset + blocks[i].bytes;
    }
}

static octavo_status run_once(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params)
{
    fence(1);
    const octavo_status status = call(op, kernels, exec, params);
    fence(0);
    if (exec->workspace) memset(exec->workspace, poison, exec->workspace_bytes);
    return status;
}

/* The first byte at which two arenas differ; used: nowhere. */
static size_t difference(const uint8_t *a, const uint8_t *b, size_t from, size_t to)
{
    if (!memcmp(a + from, b + from, to - from)) return used;
    while (a[from] == b[from]) from++;
    return from;
}

/* Names what lies at an offset, in elements of its block. */
static int fail_at(size_t at, const char *how)
{
    for (int i = 0; i < block_count; i++) {
        const block *of = &blocks[i];
        if (at < of->offset + of->bytes && at >= of->offset) {
            const size_t element = (at - of->offset) / octavo_dtype_bytes(of->dtype);
            if (of->dtype == OCTAVO_F32)
                return kc_fail("%s[%zu] %s: %.9g, the reference has %.9g", of->name, element, how,
                               kc_load(OCTAVO_F32, arena + of->offset, (int64_t)element),
                               kc_load(OCTAVO_F32, want + of->offset, (int64_t)element));
            return kc_fail("%s[%zu] %s: byte %02x, the reference has %02x", of->name, element, how, arena[at], want[at]);
        }
        if (at < of->offset) return kc_fail("%zu bytes before %s: a guard %s", of->offset - at, of->name, how);
    }
    return kc_fail("a guard behind %s %s", blocks[block_count - 1].name, how);
}

/* Whether the reference wrote to its outputs alone, and to nothing when it refused. */
static int reference_kept_out(octavo_status status)
{
    size_t from = 0;
    for (int i = 0; i <= block_count; i++) {
        if (i < block_count && !(blocks[i].is_output && status == OCTAVO_OK)) continue;
        const size_t to = i < block_count ? blocks[i].offset : used, at = difference(want, before, from, to);
        if (at != used) return fail_at(at, status == OCTAVO_OK ? "was written by the reference" : "was written by a refusing reference");
        if (i < block_count) from = to + blocks[i].bytes;
    }
    return 1;
}

enum { BENCH_TRIALS = 5 };

static kc_outcome time_on_device(const kc_pair *pair, kc_operation op, const octavo_exec *exec, const void *params)
{
    const double seconds = kc_device_time(op, pair->tested, exec, params, arena, used);
    if (seconds < 0.0) return kc_fail("refused the benchmark's case: %s", octavo_last_error()), KC_FAILED;
    printf("bench,%s,%s,%.0f,\"%s\"\n", kc_operation_name(op), pair->level, seconds * 1e9, description);
    return KC_SETTLED;
}

static kc_outcome time_it(const kc_pair *pair, kc_operation op, const octavo_exec *exec, const void *params)
{
    double best = HUGE_VAL, total = 0.0;
    if (pair->device) return time_on_device(pair, op, exec, params);
    for (int i = 0; i < BENCH_TRIALS || (total < 0.2 && i < 200); i++) {
        const double start = octavo_clock_seconds();
        if (call(op, pair->tested, exec, params) != OCTAVO_OK) return kc_fail("refused the benchmark's case"), KC_FAILED;
        const double seconds = octavo_clock_seconds() - start;
        best = fmin(best, seconds), total += seconds;
    }
    printf("bench,%s,%s,%.0f,\"%s\"\n", kc_operation_name(op), pair->level, best * 1e9, description);
    return KC_SETTLED;
}

/* On a device: what the reference refuses for its content is reported in the status word instead, and outputs hold what they may. */
static kc_outcome run_on_device(const kc_pair *pair, kc_operation op, const octavo_exec *exec, const void *params, octavo_status wanted)
{
    for (int run = 0; run < 2; run++) {
        int32_t word = 0;
        memcpy(arena, before, used);
        const octavo_status status = kc_device_call(op, pair->tested, exec, params, arena, used, &word);
        if (exec->workspace) memset(exec->workspace, poison, exec->workspace_bytes);
        if (status != OCTAVO_OK) return kc_fail("returns '%s': %s", octavo_status_text(status), octavo_last_error()), KC_FAILED;
        if (word != (int32_t)wanted)
            return kc_fail("reports '%s', the reference '%s'", octavo_status_text((octavo_status)word), octavo_status_text(wanted)), KC_FAILED;
        if (!run) memcpy(other, arena, used);
    }
    const size_t at = difference(arena, other, 0, used);
    if (at != used) return fail_at(at, "differs from run to run"), KC_FAILED;
    if (wanted == OCTAVO_OK) return KC_COMPARE;
    for (int i = 0; i < block_count; i++)
        if (blocks[i].is_output) kc_accept(arena + blocks[i].offset, blocks[i].bytes);
    return kc_finish() ? KC_SETTLED : KC_FAILED;
}

kc_outcome kc_run(const kc_pair *pair, kc_operation op, void *params, size_t workspace_bytes)
{
    octavo_exec exec = OCTAVO_EXEC_INIT, reversed;
    if (workspace_bytes) {
        exec.workspace = add_block("workspace", OCTAVO_UINT8, workspace_bytes, 64);
        exec.workspace_bytes = workspace_bytes;
        blocks[block_count - 1].is_workspace = 1;
    }
    mark_outputs(op, params);
    if (pair->bench) return time_it(pair, op, &exec, params);
    reversed = exec;
    reversed.parallel_for = reverse_order;

    memcpy(before, arena, used);
    const octavo_status wanted = run_once(op, pair->ref, &exec, params);
    memcpy(want, arena, used);
    if (!reference_kept_out(wanted)) return KC_FAILED;

    if (pair->device) return run_on_device(pair, op, &exec, params, wanted);
    memcpy(arena, before, used);
    const octavo_status serial = run_once(op, pair->tested, &reversed, params);
    memcpy(other, arena, used);
    memcpy(arena, before, used);
    const octavo_status parallel = run_once(op, pair->tested, &exec, params);
    if (serial != wanted || parallel != wanted) {
        kc_fail("returns '%s', the reference '%s'", octavo_status_text(serial != wanted ? serial : parallel), octavo_status_text(wanted));
        return KC_FAILED;
    }
    const size_t at = difference(arena, other, 0, used);
    if (at != used) return fail_at(at, "depends on how the tasks were run"), KC_FAILED;
    if (wanted != OCTAVO_OK) return kc_finish() ? KC_SETTLED : KC_FAILED;
    return KC_COMPARE;
}

/* ---- comparison ---- */

const void *kc_want(const void *tested) { return want + ((const uint8_t *)tested - arena); }

void kc_accept(void *tested, size_t bytes) { memcpy(tested, kc_want(tested), bytes); }

static int is_close(double got, double wanted, double budget)
{
    if (got == wanted) return 1; /* equal infinities, too */
    if (isnan(wanted)) return isnan(got);
    const double error = fabs(got - wanted);
    if (!(error <= budget)) return 0;
    kc_note(error / budget);
    return 1;
}

int kc_close(const char *name, float *tested, int64_t index, double budget)
{
    const float *wanted = kc_want(tested);
    const double got = (double)tested[index], expected = (double)wanted[index];
    if (!is_close(got, expected, budget))
        return kc_fail("%s[%lld] is %.9g, expected %.9g within %.3g: off by %.3g", name, (long long)index, got, expected, budget,
                       fabs(got - expected));
    kc_accept(tested + index, sizeof *tested);
    return 1;
}

int kc_close_tensor(const char *name, const octavo_tensor *tested, int64_t element, double budget)
{
    const double got = kc_load(tested->dtype, tested->data, element), expected = kc_load(tested->dtype, kc_want(tested->data), element);
    if (!is_close(got, expected, budget))
        return kc_fail("%s, element %lld is %.9g, expected %.9g within %.3g: off by %.3g", name, (long long)element, got, expected,
                       budget, fabs(got - expected));
    const size_t bytes = octavo_dtype_bytes(tested->dtype);
    kc_accept((uint8_t *)tested->data + bytes * (size_t)element, bytes);
    return 1;
}

static void accept_nans(const block *of)
{
    for (size_t i = 0; of->is_output && of->dtype == OCTAVO_F32 && i < of->bytes / sizeof(float); i++) {
        float *tested = (float *)(void *)(arena + of->offset) + i;
        const float *wanted = kc_want(tested);
        if (isnan(*tested) && isnan(*wanted)) kc_accept(tested, sizeof *tested);
    }
}

int kc_finish(void)
{
    for (int i = 0; i < block_count; i++) {
        accept_nans(&blocks[i]);
        if (blocks[i].is_workspace) kc_accept(arena + blocks[i].offset, blocks[i].bytes);
    }
    const size_t at = difference(arena, want, 0, used);
    if (at == used) return 1;
    return fail_at(at, "differs");
}
