/* decode_amx.c - decode attention on AMX tiles: the algorithms of avx512 over tiles of the two inner products. */
#include "cpu/amx/amx_decode.h"
#include <string.h>

octavo_status octavo_block_score_by_avx512(const octavo_exec *exec, const octavo_block_score_params *p,
                                           const octavo_decode_tiles *tiles);
octavo_status octavo_block_attend_by_avx512(const octavo_exec *exec, const octavo_block_attend_params *p,
                                            const octavo_decode_tiles *tiles);
octavo_status octavo_decode_fused_by_avx512(const octavo_exec *exec, const octavo_decode_fused_params *p,
                                            const octavo_decode_tiles *tiles);

octavo_status octavo_block_score_amx(const octavo_exec *exec, const octavo_block_score_params *p);
octavo_status octavo_block_attend_amx(const octavo_exec *exec, const octavo_block_attend_params *p);
octavo_status octavo_decode_fused_amx(const octavo_exec *exec, const octavo_decode_fused_params *p);

/* A constant, because compilers believe that the instruction reads eight bytes of it. */
const octavo_amx_tiles octavo_amx_whole_tiles = {
    .palette = 1,
    .row_bytes = { AMX_ROW_BYTES, AMX_ROW_BYTES, AMX_ROW_BYTES, AMX_ROW_BYTES, AMX_ROW_BYTES, AMX_ROW_BYTES, AMX_ROW_BYTES,
                   AMX_ROW_BYTES },
    .rows = { AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS, AMX_ROWS },
};

static void enter(void) { _tile_loadconfig(&octavo_amx_whole_tiles); }

static void leave(void) { _tile_release(); }

/* The multiplier sleeps after some 300 ns without a product, and takes about as long to wake: one without a purpose keeps it up.
 */
static void keep_awake(void) { _tile_dpbssd(7, 5, 6); }

static const octavo_decode_tiles amx_tiles = {
    .dot = octavo_amx_dot,
    .axpy = octavo_amx_axpy,
    .scan = octavo_amx_scan,
    .attend = octavo_amx_attend,
    .pack = octavo_amx_pack,
    .enter = enter,
    .leave = leave,
    .keep_awake = keep_awake,
};

octavo_status octavo_block_score_amx(const octavo_exec *exec, const octavo_block_score_params *p)
{
    return octavo_block_score_by_avx512(exec, p, &amx_tiles);
}

octavo_status octavo_block_attend_amx(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    return octavo_block_attend_by_avx512(exec, p, &amx_tiles);
}

octavo_status octavo_decode_fused_amx(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    return octavo_decode_fused_by_avx512(exec, p, &amx_tiles);
}
