/* attention_prefill_avx512_bf16.c - attention of many queries: INT8 scores by vpdpbusd, all else by vdpbf16ps. */
#include "cpu/avx512/prefill_pairs_avx512.h"

/* Words are pairs of bf16. */
static inline __m512 prefill_multiply(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

#include "cpu/avx512/prefill_vectors_avx512.h"

octavo_status octavo_attention_prefill_avx512(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_attention_prefill_avx512_bf16(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_prefill_step octavo_prefill_pack_avx512_bf16;

void octavo_prefill_pack_avx512_bf16(const octavo_prefill_call *call, int64_t slot, int64_t tile, float *scratch)
{
    prefill_pack(call, slot, tile, scratch);
}

octavo_status octavo_attention_prefill_avx512_bf16(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    static const octavo_prefill_work work = { .operands = PREFILL_PAIR_OPERANDS, .sum = octavo_prefill_sum_avx512, .means = octavo_prefill_means_avx512,
                                              .most = octavo_prefill_most_avx512, .scales = octavo_prefill_scales_avx512,
                                              .rests = octavo_prefill_rests_avx512,
                                              .pack = octavo_prefill_pack_avx512_bf16, .attend = prefill_attend };
    return prefill_takes(p) ? octavo_prefill_run(exec, p, &work) : octavo_attention_prefill_avx512(exec, p);
}
