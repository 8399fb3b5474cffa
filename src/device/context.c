/* context.c - contexts: the allocator, the log, the choice of a CPU level. */
#define _DEFAULT_SOURCE /* madvise */
#include "base/error.h"
#include "device/device.h"
#include "device/levels.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    LOG_BYTES = 512,
    HUGE_PAGE = 2 << 20,
    HUGE_LEAST = 8 << 20 /* less than a quarter of it can be lost to alignment */
};

struct octavo_context {
    octavo_allocator allocator;
    void (*log)(void *user, octavo_log_level level, const char *text);
    void *log_user;
    int level; /* index of the highest CPU level to install */
};

static void *default_allocate(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    void *memory = NULL;
    const int huge = bytes >= (size_t)HUGE_LEAST;
    if (alignment < sizeof(void *)) alignment = sizeof(void *);
    if (huge && alignment < HUGE_PAGE) alignment = HUGE_PAGE;
    if (posix_memalign(&memory, alignment, bytes ? bytes : 1)) return NULL;
#ifdef MADV_HUGEPAGE
    /* Looking pages up costs scattered blocks of a cache a few percent. Where the advice is refused, nothing is lost. */
    if (huge) madvise(memory, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
}

static void default_release(void *user, void *memory, size_t bytes)
{
    (void)user, (void)bytes;
    free(memory);
}

/* The index of the level that `name` asks for; NULL: the highest that runs here and pays. */
static octavo_status choose_level(const char *name, int *level)
{
    int best = 0;
    for (int i = 0; i < octavo_level_count; i++)
        if (octavo_level_available(i) && (!octavo_levels[i].pays || octavo_levels[i].pays())) best = i;
    *level = best;
    if (!name || !*name) return OCTAVO_OK;
    for (int i = 0; i < octavo_level_count; i++) {
        if (strcmp(name, octavo_levels[i].name)) continue;
        if (!octavo_level_available(i)) return octavo_fail(OCTAVO_E_DEVICE, "isa is '%s', which this machine does not have", name);
        *level = i;
        return OCTAVO_OK;
    }
    char known[LOG_BYTES] = "";
    for (int i = 0; i < octavo_level_count; i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, octavo_levels[i].name, sizeof known - strlen(known) - 1);
    }
    return octavo_fail(OCTAVO_E_ARGUMENT, "isa is '%s', expected one of %s", name, known);
}

octavo_status octavo_context_create(const octavo_context_config *config, octavo_context **context)
{
    if (!context) return octavo_fail(OCTAVO_E_ARGUMENT, "context is NULL, expected where to put the new context");
    *context = NULL;
    static const octavo_context_config DEFAULT = OCTAVO_CONTEXT_CONFIG_INIT;
    if (!config) config = &DEFAULT;
    OCTAVO_TRY(octavo_struct_check("octavo_context_config", config->struct_size, sizeof *config));
    octavo_allocator allocator = config->allocator;
    if (!allocator.allocate != !allocator.release)
        return octavo_fail(OCTAVO_E_ARGUMENT, "allocator has only one of allocate and release, expected both or neither");
    if (!allocator.allocate) allocator = (octavo_allocator){ default_allocate, default_release, NULL };
    int level = 0;
    OCTAVO_TRY(choose_level(config->isa ? config->isa : getenv("OCTAVO_ISA"), &level));
    octavo_context *made = allocator.allocate(allocator.user, sizeof *made, sizeof(void *));
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a context");
    *made = (octavo_context){ allocator, config->log, config->log_user, level };
    *context = made;
    return OCTAVO_OK;
}

void octavo_context_destroy(octavo_context *context)
{
    if (!context) return;
    const octavo_allocator allocator = context->allocator;
    allocator.release(allocator.user, context, sizeof *context);
}

int octavo_context_level(const octavo_context *context) { return context->level; }

void *octavo_context_allocate(octavo_context *context, size_t bytes, size_t alignment)
{
    return context->allocator.allocate(context->allocator.user, bytes, alignment);
}

void octavo_context_release(octavo_context *context, void *memory, size_t bytes)
{
    if (memory) context->allocator.release(context->allocator.user, memory, bytes);
}

void octavo_context_log(const octavo_context *context, octavo_log_level level, const char *format, ...)
{
    if (!context->log) return;
    char text[LOG_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    context->log(context->log_user, level, text);
}

octavo_status octavo_struct_check(const char *name, size_t struct_size, size_t expected)
{
    if (struct_size == expected) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_VERSION, "%s.struct_size is %zu, expected %zu: start from its INIT macro, with this version's header",
                       name, struct_size, expected);
}
