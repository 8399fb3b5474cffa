/* decode_minimal.c - appends tokens to a cache and attends to them: the answer is what was stored with the key asked for. */
#include <octavo/octavo.h>
#include <stdio.h>

#define TRY(call) do { if ((call) != OCTAVO_OK) return fprintf(stderr, "%s\n", octavo_last_error()), 1; } while (0)
enum { TOKENS = 200, DIM = 64, WANTED = 123 };
static float k[TOKENS][DIM], v[TOKENS][DIM], q[DIM], out[DIM];

int main(void)
{
    unsigned state = 1; /* keys of random signs, no two much alike; token t stores t */
    for (int i = 0; i < TOKENS * DIM; i++) {
        k[i / DIM][i % DIM] = (state = state * 1664525u + 1013904223u) >> 31 ? 1.0f : -1.0f;
        v[i / DIM][i % DIM] = (float)(i / DIM);
    }
    for (int i = 0; i < DIM; i++) q[i] = 4.0f * k[WANTED][i];

    octavo_context *context; octavo_device *device; octavo_kvcache *cache; octavo_kv_view view; int32_t sequence;
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    config.page.k_format = OCTAVO_K_E4M3X2; config.page.v_format = OCTAVO_V_INT8;
    config.page.kv_heads = 1; config.page.head_dim = DIM;
    config.max_sequences = 1; config.max_tokens = 1024; config.pages = 16;
    TRY(octavo_context_create(NULL, &context));
    TRY(octavo_device_open(context, "cpu", &device));
    TRY(octavo_kvcache_create(device, &config, &cache));

    octavo_exec exec = OCTAVO_EXEC_INIT;
    const int64_t stored[] = { 1, TOKENS, 1, DIM }, asked[] = { 1, 1, 1, DIM };
    const octavo_tensor kt = octavo_tensor_view(k, OCTAVO_F32, 4, stored), vt = octavo_tensor_view(v, OCTAVO_F32, 4, stored);
    exec.device = device;
    TRY(octavo_kvcache_sequence(cache, &sequence));
    TRY(octavo_kvcache_reserve(cache, sequence, TOKENS));
    TRY(octavo_kvcache_append(&exec, cache, 0, 1, &sequence, &kt, &vt));
    TRY(octavo_kvcache_view(cache, 0, 1, &sequence, &view));

    octavo_decode_params decode = OCTAVO_DECODE_PARAMS_INIT;
    decode.kv = &view;
    decode.q = octavo_tensor_view(q, OCTAVO_F32, 4, asked);
    decode.out = octavo_tensor_view(out, OCTAVO_F32, 4, asked);
    TRY(octavo_attention_decode_workspace(&exec, &decode, &exec.workspace_bytes));
    TRY(octavo_device_allocate(device, exec.workspace_bytes, &exec.workspace));
    TRY(octavo_attention_decode(&exec, &decode));
    printf("asked for token %d, the answer is %.2f\n", WANTED, (double)out[0]);

    octavo_device_release(device, exec.workspace, exec.workspace_bytes);
    octavo_kvcache_destroy(cache); octavo_device_close(device); octavo_context_destroy(context);
    return out[0] > WANTED - 0.5f && out[0] < WANTED + 0.5f ? 0 : 1;
}
