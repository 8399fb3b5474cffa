/* decode_tiles_sm80.cu - which decode calls the matrix kernels take, and their plan; all others go to the kernels for any size. */
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/tile/tile_launch.cuh"

/* K's second plane in codes of its first. */
static float residual_of(const octavo_kv_view *kv)
{
    if (kv->k_format == OCTAVO_K_INT8X2) return 1.0f / 254.0f;
    return kv->k_format == OCTAVO_K_E4M3X2 && kv->k_residual_exponent ? 0.0625f : 1.0f;
}

/* Tiles of 16 tokens lie within a page and a unit, and products of q are exact in the type that K is decoded to. */
static bool keys_fit(const octavo_decode_input *in, key_kind key)
{
    const octavo_kv_view *kv = in->kv;
    const int pieces = key_pieces(key, kv->head_dim);
    if (key == KEY_NONE || kv->head_dim % 32 || kv->block_tokens % TILE_TOKENS || kv->sub_block_tokens % TILE_TOKENS) return false;
    if (kv->block_tokens & (kv->block_tokens - 1)) return false; /* a power of two; units divide it */
    if (in->q.dtype == OCTAVO_F32 || (key == KEY_BF16 && in->q.dtype != OCTAVO_BF16)) return false;
    for (int i = 0; i < key_planes(key); i++)
        if (!rows_fit(&kv->k[i], pieces)) return false;
    return true;
}

/* K's planes and scales lie densely; formats that have none of those scales need none. */
static bool keys_are_dense(const octavo_kv_view *kv, key_kind key)
{
    bool dense = key_width(key) == 0 || (kv->k_scale.data && scales_are_dense(&kv->k_scale, key_width(key)) &&
                                         section_is_dense(kv, &kv->k_scale, key_width(key)));
    for (int i = 0; i < key_planes(key); i++) dense = dense && section_is_dense(kv, &kv->k[i], PIECE * key_pieces(key, kv->head_dim));
    return dense;
}

static bool values_are_dense(const octavo_kv_view *kv, value_kind value)
{
    const bool scales = value_width(value) == 0 || (kv->v_scale.data && scales_are_dense(&kv->v_scale, value_width(value)) &&
                                                    section_is_dense(kv, &kv->v_scale, value_width(value)));
    return scales && section_is_dense(kv, &kv->v, PIECE * value_pieces(value, kv->v_dim));
}

octavo_status octavo_attend_tiles(const octavo_exec *exec, const octavo_block_attend_params *p, bool *done)
{
    const octavo_kv_view *kv = p->in.kv;
    const key_kind key = key_kind_of(kv->k_format, p->in.planes);
    const value_kind value = value_kind_of(kv->v_format);
    *done = false;
    if (p->scores || p->log_upper || p->part_dropped || kv->v_dim != kv->head_dim || value == VALUE_ANY || !keys_fit(&p->in, key)) return OCTAVO_OK;
    if (!rows_fit(&kv->v, value_pieces(value, kv->v_dim)) || p->splits > 65535) return OCTAVO_OK;
    if (p->kept && octavo_view_units(kv) > UNITS_MOST) return OCTAVO_OK;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && p->kept && !rows_fit(&kv->v_mean, kv->v_dim / PIECE)) return OCTAVO_OK;
    const attend_tiles_call call = { decode_call_of(&p->in), *p, p->split_units, residual_of(kv), 0,
                                     scales_are_dense(&kv->k_scale, octavo_k_scale_bytes(kv->k_format)),
                                     scales_are_dense(&kv->v_scale, octavo_v_scale_bytes(kv->v_format)),
                                     keys_are_dense(kv, key) && values_are_dense(kv, value) };
    switch (kv->head_dim) {
    case 64:  return octavo_attend_tiles_64(exec, call, key, value, done);
    case 96:  return octavo_attend_tiles_96(exec, call, key, value, done);
    case 128: return key_planes(key) > 1 ? octavo_attend_tiles_128_nested(exec, call, key, value, done)
                                         : octavo_attend_tiles_128(exec, call, key, value, done);
    case 256: return octavo_attend_tiles_256(exec, call, key, value, done);
    default:  return OCTAVO_OK;
    }
}

octavo_status octavo_score_tiles(const octavo_exec *exec, const octavo_block_score_params *p, bool *done)
{
    const octavo_kv_view *kv = p->in.kv;
    const key_kind key = key_kind_of(kv->k_format, p->in.planes);
    *done = false;
    if (p->only || p->log_upper || p->scores || !keys_fit(&p->in, key)) return OCTAVO_OK;
    const score_tiles_call call = { decode_call_of(&p->in), *p, residual_of(kv), 0, 0,
                                    scales_are_dense(&kv->k_scale, octavo_k_scale_bytes(kv->k_format)), keys_are_dense(kv, key) };
    switch (kv->head_dim) {
    case 64:  return octavo_score_tiles_64(exec, call, key, done);
    case 96:  return octavo_score_tiles_96(exec, call, key, done);
    case 128: return octavo_score_tiles_128(exec, call, key, done);
    case 256: return octavo_score_tiles_256(exec, call, key, done);
    default:  return OCTAVO_OK;
    }
}
