/* session_fixture.h - the device and the small checkpoints that tests of sessions open. */
#ifndef OCTAVO_TESTS_SESSION_FIXTURE_H
#define OCTAVO_TESTS_SESSION_FIXTURE_H

#include "octavo/model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { CHECKPOINT_PATH_BYTES = 512 };

static octavo_context *context;
static octavo_device *device; /* NULL: this machine has none of the name */

static inline int open_device(const char *name)
{
    return octavo_context_create(NULL, &context) != OCTAVO_OK || octavo_device_open(context, name, &device) != OCTAVO_OK;
}

static inline int open_cpu(void **state)
{
    (void)state;
    return open_device("cpu");
}

static inline int close_device(void **state)
{
    (void)state;
    octavo_device_close(device);
    octavo_context_destroy(context);
    device = NULL;
    return 0;
}

static inline octavo_model *open_model(const char *path, int32_t linear)
{
    octavo_model *model = NULL;
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    if (!device) skip();
    options.linear = linear;
    if (octavo_model_open(device, path, &options, &model) != OCTAVO_OK) fail_msg("%s: %s", path, octavo_last_error());
    return model;
}

static inline octavo_model *open_tiny(int32_t linear)
{
    char path[CHECKPOINT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/tests/golden/tiny-llama", getenv("OCTAVO_SOURCE_DIR") ? getenv("OCTAVO_SOURCE_DIR") : ".");
    return open_model(path, linear);
}

/* `check` for each of the checkpoints of ../shared that are named; skips where there are none. */
static inline void check_shared(const char *const *folders, size_t count, int32_t linear, void (*check)(octavo_model *model))
{
    const char *shared = getenv("OCTAVO_SHARED") ? getenv("OCTAVO_SHARED") : "../shared";
    char path[CHECKPOINT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/checkpoints", shared);
    if (access(path, R_OK) != 0) {
        print_message("no %s: the other architectures are not tried\n", path);
        skip();
    }
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/checkpoints/%s", shared, folders[i]);
        octavo_model *model = open_model(path, linear);
        check(model);
        octavo_model_close(model);
    }
}

#endif
