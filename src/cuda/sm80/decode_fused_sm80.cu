/* decode_fused_sm80.cu - the one-pass rules from the operations that there are: none and base attend at once; delta scores, selects
 * and attends. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/tile/decode_call.cuh"

enum { THREADS = 256, WORKSPACE_ALIGN = 64 };

struct mask_call {
    octavo_kv_view kv;
    int64_t q_tokens, window, sink_tokens, units;
    uint8_t *kept;
};

/* Every visible unit is kept. Grid (units, batch * kv heads), a thread a unit. */
static __global__ void __launch_bounds__(THREADS) mask_visible(const __grid_constant__ mask_call c)
{
    const int64_t unit = (int64_t)blockIdx.x * THREADS + threadIdx.x, length = sequence_length(&c.kv, blockIdx.y / c.kv.kv_heads);
    if (unit >= c.units) return;
    const octavo_unit_view seen = octavo_unit_seen(&c.kv, length, c.q_tokens, c.window, c.sink_tokens, unit);
    c.kept[(int64_t)blockIdx.y * c.units + unit] = seen == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT;
}

static octavo_block_attend_params attend_params(const octavo_decode_fused_params *p)
{
    octavo_block_attend_params attend = {};
    attend.in = p->in, attend.splits = p->splits, attend.split_units = p->split_units;
    attend.part_out = p->part_out, attend.part_lse = p->part_lse, attend.part_kept = p->part_kept, attend.part_dropped = p->part_dropped;
    return attend;
}

static octavo_status attend_all(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    octavo_block_attend_params attend = attend_params(p);
    if (p->rule == OCTAVO_SELECT_BASE) attend.in.planes = 1;
    if (p->kept) {
        const octavo_kv_view *kv = p->in.kv;
        const mask_call call = { *kv, p->in.q.shape[1], p->in.window, p->in.sink_tokens, octavo_view_units(kv), p->kept };
        const dim3 grid((unsigned)octavo_cuda_ceil(call.units, THREADS), (unsigned)(kv->batch * kv->kv_heads));
        mask_visible<<<grid, THREADS, 0, octavo_cuda_stream(exec)>>>(call);
        OCTAVO_CUDA_TRY(octavo_cuda_launched("decode_fused"));
    }
    return octavo_block_attend_cuda(exec, &attend);
}

octavo_status octavo_decode_above_threshold(const octavo_exec *exec, const octavo_decode_fused_params *p, octavo_score_entry *score_units,
                                            octavo_select_entry *select_units)
{
    const int64_t cells = octavo_row_elements(&p->in) * octavo_view_units(p->in.kv);
    const size_t used = ((size_t)cells * 2 * sizeof(float) + WORKSPACE_ALIGN - 1) / WORKSPACE_ALIGN * WORKSPACE_ALIGN;
    if (exec->workspace_bytes < used)
        return octavo_cuda_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes, expected %zu", exec->workspace_bytes, used);
    octavo_exec rest = *exec; /* what the scan and the selection may use */
    rest.workspace = (uint8_t *)exec->workspace + used, rest.workspace_bytes = exec->workspace_bytes - used;
    octavo_block_score_params score = {};
    score.in = p->in, score.in.planes = 1;
    score.unit_max = (float *)exec->workspace, score.log_mass = score.unit_max + cells;
    OCTAVO_CUDA_TRY(score_units(&rest, &score));

    octavo_block_select_params select = {};
    select.kv = p->in.kv, select.q_heads = p->in.q.shape[2], select.q_tokens = p->in.q.shape[1];
    select.window = p->in.window, select.sink_tokens = p->in.sink_tokens;
    select.rule = OCTAVO_SELECT_DELTA, select.delta = p->delta, select.thresholds = p->thresholds;
    select.keep_first_blocks = p->keep_first_blocks, select.keep_last_blocks = p->keep_last_blocks;
    select.unit_max = score.unit_max, select.log_mass = score.log_mass, select.kept = p->kept;
    OCTAVO_CUDA_TRY(select_units(&rest, &select));

    octavo_block_attend_params attend = attend_params(p);
    attend.kept = p->kept, attend.log_mass = score.log_mass, attend.compensate = p->compensate;
    return octavo_block_attend_cuda(&rest, &attend);
}

octavo_status octavo_decode_fused_cuda(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    return p->rule == OCTAVO_SELECT_DELTA ? octavo_decode_above_threshold(exec, p, octavo_block_score_cuda, octavo_block_select_cuda)
                                          : attend_all(exec, p);
}
