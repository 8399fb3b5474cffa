/* attend_eight_sm90.cu - decode calls in FP8 over E4M3 with more rows than a stream multiplies at once. */
#include "cuda/sm90/stream_launch.cuh"
#include "cuda/sm90/attend_eight.cuh"

template <int DIM> static octavo_status launch_eight(const octavo_exec *exec, eight_call *call, const octavo_kv_view *kv)
{
    typedef eight_layout<DIM> L;
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    const int64_t groups = kv->batch * kv->kv_heads * call->row_tiles, slots = (int64_t)L::BLOCKS * machine.processors, fit = groups < slots ? slots / groups : 1;
    call->of.splits = (int)(fit < call->all_splits ? fit : call->all_splits);
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], DIM, EIGHT_TOKENS, &call->of.k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, DIM, EIGHT_TOKENS, &call->of.v));
    const dim3 grid((unsigned)call->of.splits, (unsigned)kv->kv_heads, (unsigned)(kv->batch * call->row_tiles));
    return octavo_cuda_launch(attend_eight<L>, "decode_fused", grid, EIGHT_THREADS, (size_t)L::BYTES, exec, *call);
}

octavo_status octavo_attend_eight(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    eight_call call = { *of, (of->rows + EIGHT_ROWS - 1) / EIGHT_ROWS, (int)p->splits, p->part_lse };
    return kv->head_dim == 64    ? launch_eight<64>(exec, &call, kv)
           : kv->head_dim == 128 ? launch_eight<128>(exec, &call, kv)
                                 : launch_eight<256>(exec, &call, kv);
}
