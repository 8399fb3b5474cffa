/* prefill_tiles_sm80.cu - attention of many queries through the matrix unit, softmax as it goes.
 *
 * A block has ROWS rows of a kv head (tokens times the heads of its group), a warp 16 of them. Keys and values come KEYS at a time, are
 * decoded once for the block to bf16 terms in shared memory, and products of terms are summed in float32. Logarithms are to base 2
 * until the end. The last tokens come first, since under a causal mask they see most. Bound by the matrix unit. */
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/tile/prefill_lanes.cuh"
#include "cuda/tile/prefill_operands.cuh"

enum { ROWS = 64, THREADS = 128, WARP_ROWS = 16, PAD = 8 /* elements; rows of 16 bytes then lie in different banks */ };

template <int DIM> struct prefill_shape {
    enum { KEYS = DIM > 128 ? 32 : 64, STRIDE = DIM + PAD, CHUNKS = DIM / EIGHT, BLOCKS = DIM > 128 ? 1 : 2 /* a processor */ };
    enum { Q_BYTES = ROWS * STRIDE * 2, KV_BYTES = KEYS * STRIDE * 2 }; /* of a term */
};

/* Of the keys of a tile. */
template <int KEYS> struct tile_keys {
    key_row k[KEYS];
    const uint8_t *v[KEYS]; /* NULL: nobody sees the key */
    float k_factor[KEYS], v_factor[KEYS];
};

static __device__ __forceinline__ void put_terms(uint8_t *to, int second, const term_pairs &terms, int count)
{
    *(uint4 *)to = make_uint4(terms.first[0], terms.first[1], terms.first[2], terms.first[3]);
    if (count > 1) *(uint4 *)(to + second) = make_uint4(terms.second[0], terms.second[1], terms.second[2], terms.second[3]);
}

template <int DIM>
static __device__ void load_queries(const prefill_call &c, const prefill_place &at, int64_t first_row, uint8_t *q, row_spans<ROWS> *spans)
{
    typedef prefill_shape<DIM> S;
    for (int i = (int)threadIdx.x; i < ROWS * S::CHUNKS; i += THREADS) {
        const int r = i / S::CHUNKS, chunk = i % S::CHUNKS;
        const int64_t row = first_row + r;
        term_pairs terms = {};
        if (row < c.rows && row / c.group < at.queries) terms = load_query_terms(c, prefill_q_at(c, at, row), EIGHT * chunk);
        put_terms(q + (r * S::STRIDE + EIGHT * chunk) * 2, S::Q_BYTES, terms, c.q_terms);
    }
    find_spans(c, at, first_row, spans);
}

/* Finds the keys [begin, begin + KEYS), as far as a row of the block sees them, and decodes them. */
template <int DIM>
static __device__ void load_tile(const prefill_call &c, const prefill_place &at, const octavo_span &seen, int64_t begin,
                                 tile_keys<prefill_shape<DIM>::KEYS> *keys, uint8_t *k, uint8_t *v)
{
    typedef prefill_shape<DIM> S;
    __syncthreads(); /* the tile before has been used */
    if (threadIdx.x < S::KEYS) {
        const int64_t token = begin + threadIdx.x;
        stored_token found;
        const bool there = octavo_span_sees(&seen, token) && prefill_find(c, at, token, &found);
        keys->v[threadIdx.x] = nullptr, keys->k_factor[threadIdx.x] = keys->v_factor[threadIdx.x] = 0.0f;
        if (there) {
            keys->k[threadIdx.x] = find_key(&c.kv, found, octavo_k_plane_count(c.kv.k_format));
            keys->v[threadIdx.x] = stored_at(&c.kv.v, found);
            keys->k_factor[threadIdx.x] = row_factor(&c.kv.k_scale, octavo_k_scale_bytes(c.kv.k_format), found) * c.k_unit;
            keys->v_factor[threadIdx.x] = row_factor(&c.kv.v_scale, octavo_v_scale_bytes(c.kv.v_format), found);
        }
    }
    __syncthreads();
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < S::KEYS * S::CHUNKS; i += THREADS) {
        const int r = i / S::CHUNKS, chunk = i % S::CHUNKS, to = (r * S::STRIDE + EIGHT * chunk) * 2;
        const bool there = keys->v[r] != nullptr;
        term_pairs terms = {};
        if (there) terms = load_key(c, keys->k[r], EIGHT * chunk);
        put_terms(k + to, S::KV_BYTES, terms, c.k_terms);
        terms = {};
        if (there) terms = load_value(c, keys->v[r], EIGHT * chunk);
        put_terms(v + to, S::KV_BYTES, terms, c.v_terms);
    }
    __syncthreads();
}

/* score[n] += q k^T of the warp's rows and keys [8 n, 8 n + 8). */
template <int DIM, int TILES>
static __device__ __forceinline__ void add_scores(const prefill_call &c, float (&score)[TILES][4], uint32_t q, uint32_t k)
{
    typedef prefill_shape<DIM> S;
    const int lane = (int)threadIdx.x % 32;
    const uint32_t q_at = q + ((lane % 16) * S::STRIDE + lane / 16 * 8) * 2, k_at = k + ((lane % 8 + lane / 16 * 8) * S::STRIDE + lane / 8 % 2 * 8) * 2;
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        uint32_t first[4], second[4];
        ldmatrix(first, q_at + 32 * step);
        if (c.q_terms > 1) ldmatrix(second, q_at + S::Q_BYTES + 32 * step);
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            uint32_t keys[4];
            ldmatrix(keys, k_at + (8 * n * S::STRIDE + 16 * step) * 2);
            mma_bf16(score[n], first, keys[0], keys[1]);
            mma_bf16(score[n + 1], first, keys[2], keys[3]);
            if (c.q_terms > 1) mma_bf16(score[n], second, keys[0], keys[1]), mma_bf16(score[n + 1], second, keys[2], keys[3]);
            if (c.k_terms > 1) {
                ldmatrix(keys, k_at + S::KV_BYTES + (8 * n * S::STRIDE + 16 * step) * 2);
                mma_bf16(score[n], first, keys[0], keys[1]);
                mma_bf16(score[n + 1], first, keys[2], keys[3]);
            }
        }
    }
}

/* out += weights times values; weights take in the values' factors and become bf16. */
template <int DIM, int TILES>
static __device__ __forceinline__ void add_values(const prefill_call &c, const float (&weight)[TILES][4], const float *v_factor, uint32_t v,
                                                  float (&out)[DIM / 8][4])
{
    typedef prefill_shape<DIM> S;
    const int lane = (int)threadIdx.x % 32, t = lane % 4;
    const uint32_t v_at = v + ((lane % 8 + lane / 8 % 2 * 8) * S::STRIDE + lane / 16 * 8) * 2;
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
        const float2 low = *(const float2 *)(v_factor + 8 * n + 2 * t), high = *(const float2 *)(v_factor + 8 * n + 8 + 2 * t);
        const uint32_t a[4] = { pack_bf16(weight[n][0] * low.x, weight[n][1] * low.y), pack_bf16(weight[n][2] * low.x, weight[n][3] * low.y),
                                pack_bf16(weight[n + 1][0] * high.x, weight[n + 1][1] * high.y),
                                pack_bf16(weight[n + 1][2] * high.x, weight[n + 1][3] * high.y) };
#pragma unroll
        for (int m = 0; m < DIM / 8; m += 2) {
            uint32_t values[4];
            ldmatrix_transposed(values, v_at + (8 * n * S::STRIDE + 8 * m) * 2);
            mma_bf16(out[m], a, values[0], values[1]);
            mma_bf16(out[m + 1], a, values[2], values[3]);
            if (c.v_terms == 1) continue;
            ldmatrix_transposed(values, v_at + S::KV_BYTES + (8 * n * S::STRIDE + 8 * m) * 2);
            mma_bf16(out[m], a, values[0], values[1]);
            mma_bf16(out[m + 1], a, values[2], values[3]);
        }
    }
}

/* What becomes of a row's sums. */
struct stored_end {
    const prefill_call &c;
    const prefill_place &at;
    __device__ float shift(int64_t row) const { return prefill_shift(c, at, row); }
    __device__ prefill_rest rest(int64_t) const { return {}; }
    __device__ float element(float x, float share, int64_t d, float) const { return share == 0.0f ? 0.0f : x * channel_factor(&c.kv, at.head, d); }
};

/* Grid (tiles of rows, kv heads, batch). */
template <int DIM> static __global__ void __launch_bounds__(THREADS, prefill_shape<DIM>::BLOCKS) prefill_tiles(const __grid_constant__ prefill_call c)
{
    typedef prefill_shape<DIM> S;
    enum { TILES = S::KEYS / 8 };
    extern __shared__ __align__(16) uint8_t q[];
    __shared__ tile_keys<S::KEYS> keys;
    __shared__ row_spans<ROWS> spans;
    wait_for_kernel_before();
    const prefill_place at = prefill_place_of(c, blockIdx.z, blockIdx.y);
    const int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4;
    const int64_t first_row = (int64_t)(gridDim.x - 1 - blockIdx.x) * ROWS, first_token = first_row / c.group;
    if (first_token >= at.queries) return;
    uint8_t *k = q + c.q_terms * S::Q_BYTES, *v = k + c.k_terms * S::KV_BYTES;

    /* 1. the queries, and what they see: all rows together, each, and each of the lane's */
    const tile_sight sight = tile_sight_of(c, at, first_row, ROWS);
    load_queries<DIM>(c, at, first_row, q, &spans);
    __syncthreads();
    lane_rows rows = lane_rows_of(spans, WARP_ROWS * warp + g);

    /* 2. tiles of keys */
    float out[DIM / 8][4] = {};
    const float scale[2] = { c.p.softmax_scale, c.p.softmax_scale };
    for (int64_t begin = 0; begin < sight.seen.end; begin += S::KEYS) {
        if (begin >= sight.seen.sink_end && begin + S::KEYS <= sight.seen.near_begin) continue;
        load_tile<DIM>(c, at, sight.seen, begin, &keys, k, v);
        float score[TILES][4] = {};
        add_scores<DIM, TILES>(c, score, shared_address(q) + warp * WARP_ROWS * S::STRIDE * 2, shared_address(k));
        weigh_tile<DIM, TILES>(score, keys.k_factor, scale, c.p.soft_cap, (int)begin, tile_whole(sight, begin, S::KEYS), &rows, out);
        add_values<DIM, TILES>(c, score, keys.v_factor, shared_address(v), out);
    }

    /* 3. results */
    put_rows<DIM>(c, at, first_row + WARP_ROWS * warp, rows, out, stored_end{ c, at });
}

template <int DIM> static octavo_status launch(const octavo_exec *exec, const prefill_call &call, bool *done)
{
    typedef prefill_shape<DIM> S;
    const int bytes = call.q_terms * S::Q_BYTES + call.k_terms * S::KV_BYTES + call.v_terms * S::KV_BYTES;
    int most;
    OCTAVO_CUDA_TRY(octavo_cuda_shared_most(&most));
    *done = bytes + (int)(sizeof(tile_keys<S::KEYS>) + sizeof(row_spans<ROWS>)) <= most;
    if (!*done) return OCTAVO_OK;
    const dim3 grid((unsigned)octavo_cuda_ceil(call.rows, ROWS), (unsigned)call.kv.kv_heads, (unsigned)call.kv.batch);
    return octavo_cuda_launch(prefill_tiles<DIM>, "attention_prefill", grid, THREADS, (size_t)bytes, exec, call);
}

octavo_status octavo_prefill_tiles(const octavo_exec *exec, const prefill_call &call, bool *done)
{
    const int32_t dim = call.kv.head_dim > call.kv.v_dim ? call.kv.head_dim : call.kv.v_dim;
    *done = false;
    if (dim <= 64) return launch<64>(exec, call, done);
    if (dim <= 96) return launch<96>(exec, call, done);
    if (dim <= 128) return launch<128>(exec, call, done);
    return dim <= 256 ? launch<256>(exec, call, done) : OCTAVO_OK;
}
