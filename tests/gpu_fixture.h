/* gpu_fixture.h - the first GPU for a group of tests, NULL where there is none, and tensors on it. */
#ifndef OCTAVO_TESTS_GPU_FIXTURE_H
#define OCTAVO_TESTS_GPU_FIXTURE_H

#include "attention_fixture.h"

static octavo_context *context;
static octavo_device *gpu; /* NULL: there is none */

static inline int open_gpu(void **state)
{
    (void)state;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return 1;
    if (octavo_device_open(context, "cuda:0", &gpu) != OCTAVO_OK) {
        print_message("no GPU is tried: %s\n", octavo_last_error());
        gpu = NULL;
    }
    return 0;
}

static inline int close_gpu(void **state)
{
    (void)state;
    octavo_device_close(gpu);
    octavo_context_destroy(context);
    return 0;
}

static inline octavo_tensor tensor_there(void *data, octavo_dtype dtype, const int64_t shape[4])
{
    octavo_tensor tensor = octavo_tensor_view(data, dtype, 4, shape);
    tensor.device_kind = OCTAVO_DEVICE_CUDA;
    return tensor;
}

#endif
