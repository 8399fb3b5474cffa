/* encode_fixture.h - devices of every level, random data and refusals, for the tests of what encodes. */
#ifndef OCTAVO_TESTS_ENCODE_FIXTURE_H
#define OCTAVO_TESTS_ENCODE_FIXTURE_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "octavo/octavo.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A device of one level. */
typedef struct fixture_device {
    octavo_context *context;
    octavo_device *device;
    octavo_exec exec;
} fixture_device;

static inline fixture_device fixture_open(const char *isa)
{
    fixture_device made = { .exec = OCTAVO_EXEC_INIT };
    octavo_context_config config = OCTAVO_CONTEXT_CONFIG_INIT;
    config.isa = isa;
    assert_int_equal(octavo_context_create(&config, &made.context), OCTAVO_OK);
    assert_int_equal(octavo_device_open(made.context, "cpu", &made.device), OCTAVO_OK);
    made.exec.device = made.device;
    return made;
}

static inline void fixture_close(fixture_device *open)
{
    octavo_device_close(open->device);
    octavo_context_destroy(open->context);
}

/* The next level from *index on that this machine runs, or NULL. */
static inline const char *fixture_level(int *index)
{
    for (; octavo_isa_name(*index); ++*index)
        if (octavo_isa_available(*index)) return octavo_isa_name((*index)++);
    return NULL;
}

static inline void *fixture_memory(size_t bytes, int fill)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes ? 0 : 64));
    assert_non_null(memory);
    memset(memory, fill, bytes);
    return memory;
}

static inline uint32_t fixture_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* In (-1, 1), now and then zero, tiny or thirty times larger. */
static inline float fixture_value(uint64_t *state)
{
    const float x = ((float)fixture_random(state) - 0x1p30f) * 0x1p-30f;
    switch (fixture_random(state) % 64) {
    case 0:  return 0.0f;
    case 1:  return x * 1e-5f;
    case 2:  return x * 30.0f;
    case 3:  return -0.0f;
    default: return x;
    }
}

/* Element i of memory of f32, f16 or bf16. */
static inline void fixture_put(void *data, octavo_dtype dtype, int64_t i, float x)
{
    if (dtype == OCTAVO_F32) ((float *)data)[i] = x;
    else if (dtype == OCTAVO_F16) ((uint16_t *)data)[i] = octavo_fp16_from_float(x);
    else ((uint16_t *)data)[i] = octavo_bf16_from_float(x);
}

static inline float fixture_get(const void *data, octavo_dtype dtype, int64_t i)
{
    if (dtype == OCTAVO_F32) return ((const float *)data)[i];
    return dtype == OCTAVO_F16 ? octavo_fp16_to_float(((const uint16_t *)data)[i])
                               : octavo_bf16_to_float(((const uint16_t *)data)[i]);
}

/* The call failed in this way and its sentence holds these words. */
#define assert_refused(call, status, words)                             \
    do {                                                                \
        assert_int_equal(call, status);                                 \
        if (!strstr(octavo_last_error(), words)) fail_msg("'%s' lacks '%s'", octavo_last_error(), words); \
    } while (0)

#endif
