/* stream_map_sm90.cu - what the copy engine is told about the sections of a view. */
#include "cuda/sm90/stream_launch.cuh"
#include <cudaTypedefs.h>

octavo_status octavo_stream_map(const octavo_kv_view *kv, const octavo_section *section, int row_bytes, int tokens, CUtensorMap *map)
{
    enum { ROWS_ANY = 1 << 30 /* how many rows a view has is known to the caller alone */, AXES = 5 };
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
                                      "cuTensorMapEncodeTiled"));
    if (!found || result != cudaDriverEntryPointSuccess) return octavo_cuda_fail(OCTAVO_E_DEVICE, "the NVIDIA driver has no cuTensorMapEncodeTiled");
    const bool paged = kv->page_table != nullptr;
    const cuuint32_t box_bytes = (cuuint32_t)(row_bytes < BOX_BYTES ? row_bytes : BOX_BYTES);
    const cuuint64_t size[AXES] = { (cuuint64_t)row_bytes, (cuuint64_t)(paged ? kv->block_tokens : kv->max_tokens), (cuuint64_t)kv->kv_heads,
                                    (cuuint64_t)(paged ? kv->pages : 1), (cuuint64_t)(section->sequence_bytes ? ROWS_ANY : 1) };
    const int64_t strides[AXES - 1] = { section->token_bytes, section->head_bytes, section->page_bytes, section->sequence_bytes };
    const cuuint32_t box[AXES] = { box_bytes, (cuuint32_t)tokens, 1, 1, 1 }, step[AXES] = { 1, 1, 1, 1, 1 };
    cuuint64_t stride[AXES - 1];
    for (int i = 0; i < AXES - 1; i++) stride[i] = strides[i] ? (cuuint64_t)strides[i] : (cuuint64_t)PIECE; /* of an axis of size one */
    const CUresult made = ((PFN_cuTensorMapEncodeTiled_v12000)found)(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, AXES, section->data, size, stride, box, step,
                                                                     CU_TENSOR_MAP_INTERLEAVE_NONE, row_bytes < BOX_BYTES ? CU_TENSOR_MAP_SWIZZLE_64B
                                                                                                                          : CU_TENSOR_MAP_SWIZZLE_128B,
                                                                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return made == CUDA_SUCCESS ? OCTAVO_OK : octavo_cuda_fail(OCTAVO_E_DEVICE, "cuTensorMapEncodeTiled refused keys or values with error %d", (int)made);
}
