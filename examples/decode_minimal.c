/* decode_minimal.c - appends tokens to a cache and attends to them: the answer is what was stored with the key asked for. */
#include <math.h>
#include <octavo/octavo.h>
#include <stdio.h>

#define TRY(call) do { if ((call) != OCTAVO_OK) return fprintf(stderr, "%s\n", octavo_last_error()), 1; } while (0)
enum { TOKENS = 200, DIM = 64, WANTED = 123 };
static float k[TOKENS * DIM], v[TOKENS * DIM], q[DIM], out[DIM];

int main(void)
{
    for (int i = 0; i < TOKENS * DIM; i++) k[i] = cosf((float)(i * i % 10007)), v[i] = (float)(i / DIM);
    for (int i = 0; i < DIM; i++) q[i] = 8.0f * k[WANTED * DIM + i];

    octavo_context *context; octavo_kvcache *cache; octavo_kv_view view; int32_t sequence;
    octavo_exec exec = OCTAVO_EXEC_INIT;
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    config.page.k_format = OCTAVO_K_E4M3X2; config.page.v_format = OCTAVO_V_INT8;
    config.page.kv_heads = 1; config.page.head_dim = DIM;
    config.max_sequences = 1; config.max_tokens = 1024; config.pages = 16;
    TRY(octavo_context_create(NULL, &context));
    TRY(octavo_device_open(context, "cpu", &exec.device));
    TRY(octavo_kvcache_create(exec.device, &config, &cache));
    TRY(octavo_kvcache_sequence(cache, &sequence));
    TRY(octavo_kvcache_reserve(cache, sequence, TOKENS));

    const int64_t stored[] = { 1, TOKENS, 1, DIM }, asked[] = { 1, 1, 1, DIM };
    const octavo_tensor kt = octavo_tensor_view(k, OCTAVO_F32, 4, stored), vt = octavo_tensor_view(v, OCTAVO_F32, 4, stored);
    TRY(octavo_kvcache_append(&exec, cache, 0, 1, &sequence, &kt, &vt));
    TRY(octavo_kvcache_view(cache, 0, 1, &sequence, &view));
    octavo_decode_params decode = OCTAVO_DECODE_PARAMS_INIT;
    decode.kv = &view;
    decode.q = octavo_tensor_view(q, OCTAVO_F32, 4, asked);
    decode.out = octavo_tensor_view(out, OCTAVO_F32, 4, asked);
    TRY(octavo_attention_decode_workspace(&exec, &decode, &exec.workspace_bytes));
    TRY(octavo_device_allocate(exec.device, exec.workspace_bytes, &exec.workspace));
    TRY(octavo_attention_decode(&exec, &decode));
    printf("asked for token %d, the answer is %.2f\n", WANTED, (double)out[0]);

    octavo_device_release(exec.device, exec.workspace, exec.workspace_bytes);
    octavo_kvcache_destroy(cache); octavo_device_close(exec.device); octavo_context_destroy(context);
    return !(fabsf(out[0] - WANTED) < 0.5f);
}
