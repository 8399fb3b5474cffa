/* block_metadata_ref.c - residual norms and mean rows from planes as they are stored, as it is defined. */
#include "ref/install_ref.h"
#include "ref/plane_codec_ref.h"

/* The norm of what the residual plane adds to the base, in units of 2^-p or s. */
static void stored_norm(const octavo_kv_view *kv, const octavo_ref_token *at)
{
    double lane[OCTAVO_REF_NORM_LANES] = { 0 }, step = 1.0;
    const uint8_t *more = octavo_ref_at(&kv->k[1], at);
    for (int64_t i = 0; i < kv->head_dim; i++) {
        double rest = 0.0;
        switch (kv->k_format) {
        case OCTAVO_K_E4M3X2: rest = (double)octavo_e4m3_to_float(more[i]); step = ldexp(1.0, kv->k_residual_exponent); break;
        case OCTAVO_K_E5M2X2: rest = (double)octavo_e5m2_to_float(more[i]); break;
        case OCTAVO_K_INT8X2: rest = (double)(int8_t)more[i]; step = 254.0; break;
        default:              rest = (double)octavo_ref_nibble(more, i, kv->head_dim) - 7.5; break;
        }
        lane[i % OCTAVO_REF_NORM_LANES] += rest * rest;
    }
    *octavo_section_at(&kv->k_norm, at->row, at->page, at->head, at->in_block) = octavo_ref_norm_code(octavo_ref_norm(lane) / step);
}

octavo_status octavo_block_metadata_ref(const octavo_exec *exec, const octavo_block_metadata_params *p)
{
    (void)exec;
    const octavo_kv_view *kv = p->kv;
    const int norms = kv->k_norm.data && octavo_k_plane_count(kv->k_format) > 1;
    for (int64_t b = 0; b < kv->batch; b++) {
        const int64_t length = kv->lengths[octavo_view_row(kv, b)];
        for (int64_t head = 0; head < kv->kv_heads; head++)
            for (int64_t token = 0; token < length; token++) {
                octavo_ref_token at = octavo_ref_find(kv, b, head, token);
                if (norms) stored_norm(kv, &at);
                if ((token + 1) % kv->sub_block_tokens) continue;
                at.in_block -= kv->sub_block_tokens - 1;
                octavo_ref_unit_mean(kv, &at);
            }
    }
    return OCTAVO_OK;
}
