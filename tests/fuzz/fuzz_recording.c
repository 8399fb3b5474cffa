/* fuzz_recording.c - every layer that a file lists is either refused or has shapes that belong together.
 * Reads with src/model/recording.c. */
#include "octavo/recording.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS_MAX = 8 };

static void require(int condition)
{
    if (!condition) abort();
}

static void check_recording(const octavo_recording *r)
{
    require(r->batch >= 1 && r->kv_heads >= 1 && r->tokens >= 1 && r->head_dim >= 1 && r->value_dim >= 1);
    require(r->q_heads >= r->kv_heads && r->q_heads % r->kv_heads == 0 && r->queries >= 1 && r->queries <= r->tokens);
    require(r->q.data && r->k.data && r->v.data && r->q.dtype == r->k.dtype && r->v.dtype == r->k.dtype);
    require(!r->h.data || (r->h.shape[0] == r->batch && r->h.shape[1] <= r->tokens));
    require(!r->q_unrope.data || r->q_unrope.shape[2] == r->queries);
    require(!r->k_unrope.data || r->k_unrope.shape[2] == r->tokens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    octavo_safetensors *file = NULL;
    if (octavo_safetensors_open_memory(data, size, &file) != OCTAVO_OK) return 0;
    int32_t layers[LAYERS_MAX];
    size_t count = 0;
    require(octavo_recording_layers(file, layers, LAYERS_MAX, &count) == OCTAVO_OK);
    for (size_t i = 0; i <= count && i < LAYERS_MAX; i++) {
        octavo_recording recording = OCTAVO_RECORDING_INIT;
        const int32_t layer = i < count ? layers[i] : 7; /* one that may be missing */
        if (octavo_recording_view(file, layer, &recording) == OCTAVO_OK) check_recording(&recording);
        else require(recording.k.data == NULL && octavo_last_error()[0] != 0);
        octavo_recording_close(&recording);
    }
    octavo_safetensors_close(file);
    return 0;
}
