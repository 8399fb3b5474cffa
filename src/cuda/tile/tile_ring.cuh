/* tile_ring.cuh - a warp's ring of stages in shared memory, filled by asynchronous copies of tiles of 16 tokens.
 *
 * A stage holds `tiles` tiles, each: K plane 0, K plane 1, V, K's scales, V's scales; rows of 16-byte pieces placed by tile_piece. */
#ifndef OCTAVO_CUDA_TILE_TILE_RING_CUH
#define OCTAVO_CUDA_TILE_TILE_RING_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"
#include "cuda/tile/tile_kinds.cuh"

enum { STAGES = 3 };

/* Byte offsets in a tile. */
struct tile_layout {
    int more, v, k_scale, v_scale, bytes;
};

/* Without values (VALUE_ANY) the tile ends behind K's scales. */
static __host__ __device__ constexpr tile_layout tile_layout_of(int key, int value, int dim)
{
    const int plane = TILE_TOKENS * PIECE * key_pieces(key, dim), keys = plane * key_planes(key);
    const int values = value == VALUE_ANY ? 0 : TILE_TOKENS * PIECE * value_pieces(value, dim);
    return { plane, keys, keys + values, keys + values + SCALES_BYTES, keys + values + (value == VALUE_ANY ? 1 : 2) * SCALES_BYTES };
}

/* Copies the rows of one plane of 16 tokens, of which `tokens` exist; the others become zeros. Rows that lie one behind the other
 * need no address arithmetic. */
template <int PIECES> static __device__ __forceinline__ void copy_rows(uint32_t to, const uint8_t *from, int token_bytes, int tokens)
{
    const int lane = threadIdx.x % 32;
    if (token_bytes == PIECES * PIECE && tokens >= TILE_TOKENS) {
#pragma unroll
        for (int i = 0; i < TILE_TOKENS * PIECES / 32; i++)
            copy_16(to + PIECE * tile_piece<PIECES>((lane + 32 * i) / PIECES, (lane + 32 * i) % PIECES), from + PIECE * lane + 32 * PIECE * i, 16);
        return;
    }
#pragma unroll 1
    for (int at = lane; at < TILE_TOKENS * PIECES; at += 32) {
        const int row = at / PIECES, c = at % PIECES, there = row < tokens;
        copy_16(to + PIECE * tile_piece<PIECES>(row, c), from + (there ? row * token_bytes + PIECE * c : 0), there ? 16 : 0);
    }
}

/* The same where rows are known to be dense and there; `from` is the lane's own piece of the first 512 bytes. */
template <int PIECES> static __device__ __forceinline__ void copy_dense(uint32_t to, const uint8_t *from)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TILE_TOKENS * PIECES / 32; i++)
        copy_16(to + PIECE * tile_piece<PIECES>((lane + 32 * i) / PIECES, (lane + 32 * i) % PIECES), from + 32 * PIECE * i, 16);
}

/* Scales of 16 tokens, `width` bytes each, side by side in shared memory. Those that lie so in memory, too, and aligned, are copied
 * like rows; others are read and stored. */
static __device__ __forceinline__ void copy_scales(uint32_t to, const octavo_section *section, int width, const uint8_t *from, int tokens, bool dense)
{
    const int lane = threadIdx.x % 32;
    if (!section->data) return;
    if (dense && tokens >= TILE_TOKENS) { /* else there may be no memory behind them */
        if (lane < width) copy_16(to + 16 * lane, from + 16 * lane, 16);
        return;
    }
    if (lane >= TILE_TOKENS) return;
    const uint8_t *scale = from + (lane < tokens ? lane * section->token_bytes : 0);
    if (width == 1) asm volatile("st.shared.u8 [%0], %1;" ::"r"(to + lane), "r"((uint32_t)(lane < tokens ? *scale : 0)) : "memory");
    else asm volatile("st.shared.u16 [%0], %1;" ::"r"(to + 2 * lane), "h"(lane < tokens ? *(const uint16_t *)scale : (uint16_t)0) : "memory");
}

static __device__ __forceinline__ uint4 load_piece(uint32_t from)
{
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(from) : "memory");
    return x;
}

/* Rows of 16-bit elements of a tile become what E4M3 with a power of two of their own makes of them, in their place. A lane has every
 * second piece of a row. */
template <int PIECES, bool BF16> static __device__ __forceinline__ void round_tile(uint32_t tile)
{
    const int row = threadIdx.x % 16, side = threadIdx.x % 32 / 16;
    uint32_t most = 0; /* magnitudes compare as integers */
#pragma unroll 1
    for (int c = side; c < PIECES; c += 2) {
        const uint4 piece = load_piece(tile + PIECE * tile_piece<PIECES>(row, c));
        const uint32_t x[4] = { piece.x, piece.y, piece.z, piece.w };
#pragma unroll
        for (int i = 0; i < 4; i++) most = __vmaxu2(most, x[i] & 0x7fff7fffu);
    }
    most = __vmaxu2(most, __shfl_xor_sync(WHOLE_WARP, most, 16));
    most = most > (most << 16) ? most : most << 16; /* the larger half in the upper one */
    const int32_t p = octavo_row_exponent(BF16 ? bf16_high(most) : f16_high(most));
    const float up = octavo_power_of_two(p), down = octavo_power_of_two(-p);
#pragma unroll 1
    for (int c = side; c < PIECES; c += 2) {
        const uint32_t at = tile + PIECE * tile_piece<PIECES>(row, c);
        const uint4 piece = load_piece(at);
        uint32_t x[4] = { piece.x, piece.y, piece.z, piece.w };
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            float y[4];
#pragma unroll
            for (int j = 0; j < 2; j++)
                y[2 * j] = up * (BF16 ? bf16_low(x[i + j]) : f16_low(x[i + j])), y[2 * j + 1] = up * (BF16 ? bf16_high(x[i + j]) : f16_high(x[i + j]));
            uint32_t pair[2];
            e4m3_to_f16(pack_e4m3(y[0], y[1], y[2], y[3]), &pair[0], &pair[1]);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float low = f16_low(pair[j]) * down, high = f16_high(pair[j]) * down;
                x[i + j] = BF16 ? pack_bf16(low, high) : pack_f16(low, high);
            }
        }
        store_shared_16(at, make_uint4(x[0], x[1], x[2], x[3]));
    }
    __syncwarp();
}

/* The factor of token `token` of a tile: 2^-p, s or 1. */
template <int WIDTH> static __device__ __forceinline__ float tile_factor(uint32_t scales, int token)
{
    uint32_t code = 0;
    if (WIDTH == 0) return 1.0f;
    if (WIDTH == 1) {
        asm volatile("ld.shared.s8 %0, [%1];" : "=r"(code) : "r"(scales + token) : "memory");
        return __uint_as_float((uint32_t)(127 - (int)code) << 23);
    }
    asm volatile("ld.shared.u16 %0, [%1];" : "=r"(code) : "r"(scales + 2 * token) : "memory");
    return __uint_as_float(code << 16);
}

/* Whether rows lie one behind the other, in pages like those of K's base. */
static inline bool section_is_dense(const octavo_kv_view *kv, const octavo_section *section, int64_t row_bytes)
{
    return section->token_bytes == row_bytes && section->page_bytes == kv->k[0].page_bytes;
}

/* Whether a section's rows can be copied in 16-byte pieces. */
static inline bool rows_fit(const octavo_section *section, int pieces)
{
    const int64_t bits = (int64_t)(uintptr_t)section->data | section->page_bytes | section->sequence_bytes | section->head_bytes | section->token_bytes;
    return pieces > 0 && bits % PIECE == 0 && section->token_bytes < 1 << 26 && section->token_bytes > -(1 << 26);
}

/* Where tiles of one sequence and kv head lie in a view whose blocks are a power of two of tokens. */
struct tile_pages {
    const octavo_kv_view *kv;
    const int32_t *table; /* the sequence's row of the page table; NULL: pages in order */
    int shift, mask;      /* of block_tokens */
    const uint8_t *k[2], *v, *k_scale, *v_scale; /* page 0's first token; where tiles are dense, the lane's own piece */
};

static __device__ __forceinline__ const uint8_t *section_base(const octavo_section *section, int64_t row, int64_t head)
{
    return (const uint8_t *)section->data + row * section->sequence_bytes + head * section->head_bytes;
}

static __device__ __forceinline__ tile_pages tile_pages_of(const octavo_kv_view *kv, int64_t b, int64_t head)
{
    const int64_t row = octavo_view_row(kv, b);
    return { kv, kv->page_table ? kv->page_table + row * kv->page_table_stride : nullptr, 31 - __clz(kv->block_tokens), kv->block_tokens - 1,
             { section_base(&kv->k[0], row, head), section_base(&kv->k[1], row, head) }, section_base(&kv->v, row, head),
             section_base(&kv->k_scale, row, head), section_base(&kv->v_scale, row, head) };
}

/* The same for dense tiles, whose sections all have page_bytes of K's first. */
static __device__ __forceinline__ tile_pages dense_pages_of(const octavo_kv_view *kv, int64_t b, int64_t head)
{
    const int piece = PIECE * (int)(threadIdx.x % 32);
    tile_pages of = tile_pages_of(kv, b, head);
    of.k[0] += piece, of.k[1] += piece, of.v += piece, of.k_scale += piece, of.v_scale += piece;
    return of;
}

static __device__ __forceinline__ int tile_page(const tile_pages &of, int token)
{
    const int block = token >> of.shift;
    return of.table ? of.table[block] : block;
}

/* The rows or scales of the tile that begins at `in_block` of a page. */
static __device__ __forceinline__ const uint8_t *tile_rows(const uint8_t *base, const octavo_section *section, int page, int in_block)
{
    return base + page * section->page_bytes + in_block * (int)section->token_bytes;
}

/* Whether 16 tokens' scales lie side by side at multiples of 16 bytes, wherever a tile begins. */
static inline bool scales_are_dense(const octavo_section *section, int64_t width)
{
    const int64_t bits = (int64_t)(uintptr_t)section->data | section->page_bytes | section->sequence_bytes | section->head_bytes;
    return section->token_bytes == width && bits % PIECE == 0;
}

#endif
