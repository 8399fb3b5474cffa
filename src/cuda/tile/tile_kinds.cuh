/* tile_kinds.cuh - what the matrix kernels know of the formats at compile time, and how rows of 16 tokens lie in shared memory. */
#ifndef OCTAVO_CUDA_TILE_TILE_KINDS_CUH
#define OCTAVO_CUDA_TILE_TILE_KINDS_CUH

#include "kernel/kernels.h"

/* K as a call reads it: a format with all its planes, or the base of a nested one. ANY is decided at run time. */
enum key_kind { KEY_ANY, KEY_BF16, KEY_F16, KEY_E4M3, KEY_E5M2, KEY_INT8, KEY_INT4_BASE, KEY_E4M3X2, KEY_E5M2X2, KEY_INT8X2, KEY_INT4X2, KEY_NONE };
enum value_kind { VALUE_ANY, VALUE_BF16, VALUE_F16, VALUE_E4M3, VALUE_INT8 };

/* Tiles of a stage: about 8 KiB, so that three stages of eight warps fill a multiprocessor's shared memory. */
static __host__ __device__ constexpr int stage_tiles(int tile_bytes) { return tile_bytes > 4600 ? 1 : tile_bytes > 2300 ? 2 : 4; }

static inline key_kind key_kind_of(octavo_k_format format, int planes)
{
    switch (format) {
    case OCTAVO_K_BF16:   return KEY_BF16;
    case OCTAVO_K_F16:    return KEY_F16;
    case OCTAVO_K_E4M3:   return KEY_E4M3;
    case OCTAVO_K_E5M2:   return KEY_E5M2;
    case OCTAVO_K_INT8:   return KEY_INT8;
    case OCTAVO_K_E4M3X2: return planes > 1 ? KEY_E4M3X2 : KEY_E4M3;
    case OCTAVO_K_E5M2X2: return planes > 1 ? KEY_E5M2X2 : KEY_E5M2;
    case OCTAVO_K_INT8X2: return planes > 1 ? KEY_INT8X2 : KEY_INT8;
    case OCTAVO_K_INT4X2: return planes > 1 ? KEY_INT4X2 : KEY_INT4_BASE;
    default:              return KEY_NONE;
    }
}

static inline value_kind value_kind_of(octavo_v_format format)
{
    switch (format) {
    case OCTAVO_V_BF16: return VALUE_BF16;
    case OCTAVO_V_F16:  return VALUE_F16;
    case OCTAVO_V_E4M3: return VALUE_E4M3;
    case OCTAVO_V_INT8: return VALUE_INT8;
    default:            return VALUE_ANY; /* not for these kernels */
    }
}

static __host__ __device__ constexpr int key_planes(int kind) { return kind >= KEY_E4M3X2 ? 2 : 1; }
static __host__ __device__ constexpr bool key_is_bf16(int kind) { return kind == KEY_BF16; } /* else products are in f16 */

/* 16-byte pieces of a row of a plane. */
static __host__ __device__ constexpr int key_pieces(int kind, int dim)
{
    return kind == KEY_BF16 || kind == KEY_F16 ? dim / 8 : kind == KEY_INT4_BASE || kind == KEY_INT4X2 ? dim / 32 : dim / 16;
}
static __host__ __device__ constexpr int value_pieces(int kind, int dim) { return kind == VALUE_BF16 || kind == VALUE_F16 ? dim / 8 : dim / 16; }

/* Bytes of a token's scale: formats that may lack one have it as zeros, an exponent of 0, in shared memory. */
static __host__ __device__ constexpr int key_width(int kind)
{
    return kind == KEY_BF16 || kind == KEY_F16 || kind == KEY_NONE ? 0 : kind == KEY_E4M3 || kind == KEY_E5M2 || kind == KEY_E4M3X2 || kind == KEY_E5M2X2 ? 1 : 2;
}
static __host__ __device__ constexpr int value_width(int kind) { return kind == VALUE_E4M3 ? 1 : kind == VALUE_INT8 ? 2 : 0; }

enum { TILE_TOKENS = 16, PIECE = 16, SCALES_BYTES = 32 /* of 16 tokens */ };

/* Where piece c of row r of a tile lies. Eight rows of one column of pieces are in eight different groups of four banks. */
template <int PIECES> static __device__ __forceinline__ int tile_piece(int r, int c)
{
    if (PIECES % 8 == 0) return r * PIECES + (c ^ (r & 7));
    if (PIECES % 4 == 0) return r * PIECES + (c ^ ((r >> 1) & 3));
    if (PIECES % 2 == 0) return r * PIECES + (c ^ ((r >> 2) & 1));
    return r * PIECES + c;
}

#endif
