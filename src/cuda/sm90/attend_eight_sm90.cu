/* attend_eight_sm90.cu - which decode calls in FP8 go to the eight-bit matrix unit: those with more rows than a stream multiplies at once. */
#include "cuda/sm90/stream_launch.cuh"
#include "cuda/sm90/attend_eight.cuh"

enum { ROWS_MOST = 64 };

template <int DIM, int ROWS> static octavo_status launch_eight(const octavo_exec *exec, eight_call *call, const octavo_kv_view *kv)
{
    typedef eight_layout<DIM, ROWS> L;
    call->row_tiles = (call->of.rows + ROWS - 1) / ROWS;
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], DIM, EIGHT_TOKENS, &call->of.k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, DIM, EIGHT_TOKENS, &call->of.v));
    const dim3 grid((unsigned)call->of.splits, (unsigned)kv->kv_heads, (unsigned)(kv->batch * call->row_tiles));
    return octavo_cuda_launch(attend_eight<L>, "decode_fused", grid, EIGHT_THREADS, (size_t)L::BYTES, exec, *call);
}

/* As few columns as hold the rows; more rows than fit are further blocks. */
template <int DIM> static octavo_status launch_rows(const octavo_exec *exec, eight_call *call, const octavo_kv_view *kv)
{
    if (call->of.rows <= 8) return launch_eight<DIM, 8>(exec, call, kv);
    if (call->of.rows <= 16) return launch_eight<DIM, 16>(exec, call, kv);
    if (call->of.rows <= 32 || DIM > 128) return launch_eight<DIM, 32>(exec, call, kv);
    return launch_eight<DIM, DIM <= 128 ? 64 : 32>(exec, call, kv);
}

octavo_status octavo_attend_eight(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    eight_call call = { *of, 0, (int)p->splits, p->part_lse };
    const int64_t groups = kv->batch * kv->kv_heads * ((of->rows + ROWS_MOST - 1) / ROWS_MOST), slots = 2 * (int64_t)machine.processors;
    const int64_t fit = groups < slots ? slots / groups : 1;
    call.of.splits = (int)(fit < p->splits ? fit : p->splits);
    return kv->head_dim == 64    ? launch_rows<64>(exec, &call, kv)
           : kv->head_dim == 128 ? launch_rows<128>(exec, &call, kv)
                                 : launch_rows<256>(exec, &call, kv);
}
