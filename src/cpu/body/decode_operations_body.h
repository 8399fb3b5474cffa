/* decode_operations_body.h - the decode operations over a level's own float32 tiles. After the bodies. */

octavo_status SIMD(block_score)(const octavo_exec *exec, const octavo_block_score_params *p);
octavo_status SIMD(block_attend)(const octavo_exec *exec, const octavo_block_attend_params *p);
octavo_status SIMD(decode_fused)(const octavo_exec *exec, const octavo_decode_fused_params *p);

static const octavo_decode_tiles float_tiles = { .dot = SIMD(decode_dot), .axpy = SIMD(decode_axpy) };

octavo_status SIMD(block_score)(const octavo_exec *exec, const octavo_block_score_params *p)
{
    return SIMD(block_score_by)(exec, p, &float_tiles);
}

octavo_status SIMD(block_attend)(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    return SIMD(block_attend_by)(exec, p, &float_tiles);
}

octavo_status SIMD(decode_fused)(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    return SIMD(decode_fused_by)(exec, p, &float_tiles);
}
