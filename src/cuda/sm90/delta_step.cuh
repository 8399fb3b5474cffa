/* delta_step.cuh - what delta in one pass does with 64 tokens: copies them, scores them, adds their values or their mass. */
#ifndef OCTAVO_CUDA_SM90_DELTA_STEP_CUH
#define OCTAVO_CUDA_SM90_DELTA_STEP_CUH

#include "cuda/sm90/attend_stream.cuh"

enum { DELTA_WARPS = STREAM_WARPS, DELTA_THREADS = 32 * DELTA_WARPS, DELTA_DIM = 128, STEP_TOKENS = 64, STEP_TILES = STEP_TOKENS / TILE_TOKENS };
enum { STEPS_MOST = DELTA_WARPS / 2 /* of a block */, SLOT_BYTES = STEP_TOKENS * DELTA_DIM, SET_BYTES = STEP_TOKENS * STREAM_ROWS * 4 };
enum { MEANS_BYTES = TILE_TOKENS * DELTA_DIM };

/* Beside a slot, as in a page of 64 tokens: scales of K, the mean row, 16 bytes of which the first is its exponent. Then scales of V: what is not
 * there is zero from the beginning on, so that nothing may come where the other's would be. */
static __host__ __device__ constexpr int mean_at(int base) { return STEP_TOKENS * key_width(base); }
static __host__ __device__ constexpr int exponent_at(int base) { return mean_at(base) + DELTA_DIM; }
static __host__ __device__ constexpr int value_scales_at(int base) { return exponent_at(base) + PIECE; }

/* Slots that V of a step fills. */
static __host__ __device__ constexpr int value_parts(int value) { return value_is_half(value) ? 2 : 1; }

/* A kernel: formats, warps that decide together, whether dropped units may leave their means. */
template <int BASE_KIND, int VALUE_KIND, int TEAM_WARPS> struct delta_kind {
    static constexpr int BASE = BASE_KIND, VALUE = VALUE_KIND, TEAM = TEAM_WARPS, SPAN = TEAM * STEP_TOKENS, TEAMS = DELTA_WARPS / TEAM;
    static constexpr int VOTES = TEAM > 1 ? TEAMS : 0; /* teams that have to vote */
    static constexpr bool MEANS = TEAM == 1;
    static constexpr bool AHEAD = TEAM > 1; /* units are taken two ahead: with one base on its way a number and a page come too late otherwise.
                                             * Else warps have units on offer */
    static constexpr int SLOTS = MEANS ? 2 : 3, BASES = 2 /* slots that may hold bases */, ALL_SLOTS = SLOTS * DELTA_WARPS;
    static constexpr int SIDE = MEANS ? value_scales_at(BASE) + STEP_TOKENS * value_width(VALUE) : STEP_TOKENS; /* bytes beside a slot */
    static constexpr int PARTS = 1 + value_parts(VALUE); /* of a kept unit beside its base */
    static constexpr int BYTES = DELTA_WARPS * (SLOTS * SLOT_BYTES + BASES * SET_BYTES + (MEANS ? MEANS_BYTES : 0));
    static_assert(MEANS || (key_width(BASE) == 1 && value_width(VALUE) == 0), "");
};

struct delta_call {
    stream_call of; /* its maps: K's base, V; boxes of a slot */
    CUtensorMap more;
    octavo_section v_mean, v_mean_scale; /* of units */
    const float *thresholds;             /* [batch, q_heads] or NULL */
    uint8_t *kept;                       /* [batch, kv_heads, units] */
    float delta;                         /* in units of ln 2 */
    float residual;                      /* a code of K's second plane in codes of its first */
    int units, block_steps_shift;        /* steps of a block: 2^that  */
    int last_units;                      /* of which a team has one base at a time on its way */
    int keep_first_blocks, keep_last_blocks;
    bool compensate;
    bool together; /* a unit's scales, mean row and exponent lie one behind the other */
};

/* What is a warp's own. */
struct delta_warp {
    uint32_t ring, sides, full; /* of its slots */
    uint32_t scores, means;     /* of kept units that wait; mean rows of dropped units */
    float *masses;              /* [16, 8] of dropped units, in units of ln 2 */
    int dropped, exponent;      /* units; p of the mean row of the one whose number is the lane's */
    int member; /* token of a unit with which its part begins */
};

template <class KIND>
static __device__ __forceinline__ delta_warp delta_warp_of(const stream_block &k, float *masses)
{
    const uint32_t warp = threadIdx.x / 32, scores = k.ring + KIND::ALL_SLOTS * SLOT_BYTES, means = scores + DELTA_WARPS * KIND::BASES * SET_BYTES;
    return { k.ring + warp * KIND::SLOTS * SLOT_BYTES, k.scales + warp * KIND::SLOTS * KIND::SIDE, k.full + warp * KIND::SLOTS * 8,
             scores + warp * KIND::BASES * SET_BYTES, means + warp * MEANS_BYTES, masses, 0, 0, (int)warp % KIND::TEAM * STEP_TOKENS };
}

struct delta_slot {
    uint32_t data, side, full;
};

template <class KIND> static __device__ __forceinline__ delta_slot slot_of(const delta_warp &w, int i)
{
    return { w.ring + i * SLOT_BYTES, w.sides + i * KIND::SIDE, w.full + 8 * i };
}

/* ---- copies ---- */

/* Where 64 tokens lie. */
struct step_place {
    int token, at, page, row;
    bool there; /* all of them */
};

static __device__ __forceinline__ step_place place_of(const delta_call &d, const stream_block &k, int token, int page)
{
    const int in_block = token & ((1 << d.of.shift) - 1);
    return { token, k.table ? in_block : token, page, k.row * d.of.row_step, token + STEP_TOKENS <= k.length };
}

/* Bytes of their scales that the copy engine brings. */
static __device__ __forceinline__ uint32_t scale_bytes(const octavo_section *section, const step_place &at, int width)
{
    return width && section->data && at.there ? STEP_TOKENS * width : 0;
}

/* Scales of the tokens to `to`: by the copy engine, or by all lanes where there may be no memory behind the last of them. */
template <int WIDTH>
static __device__ __forceinline__ void ask_for_scales(const delta_call &d, const stream_block &k, const octavo_section *section, const step_place &at,
                                                      uint32_t to, uint32_t full)
{
    if (WIDTH == 0 || !section->data) return;
    const uint8_t *from = scales_of(section, k, at.page) + (at.token & ((1 << d.of.shift) - 1)) * WIDTH;
    const int lane = threadIdx.x % 32;
    if (at.there) {
        if (lane == 0) copy_bytes(to, from, STEP_TOKENS * WIDTH, full);
        return;
    }
#pragma unroll
    for (int i = lane; i < STEP_TOKENS; i += 32) {
        const bool there = at.token + i < k.length;
        if (WIDTH == 1) store_shared_u8(to + i, there ? from[i] : 0);
        else store_shared_u16(to + 2 * i, there ? ((const uint16_t *)from)[i] : 0);
    }
}

/* Where a unit's mean row lies. */
static __device__ __forceinline__ stored_token mean_of(const delta_call &d, const stream_block &k, int token, int page)
{
    return { k.row, page, k.head, token / STEP_TOKENS & ((1 << d.block_steps_shift) - 1) };
}

/* The base, with the unit's mean row where it may be dropped, and a hint that its p will be wanted. AGAIN: others read it, too. */
template <int BASE, bool MEAN, bool AGAIN>
static __device__ __forceinline__ void ask_for_base(const delta_call &d, const stream_block &k, int token, int page, const delta_slot &to)
{
    const step_place at = place_of(d, k, token, page);
    const stored_token mean = mean_of(d, k, token, page);
    const bool means = MEAN && d.compensate && at.there, together = means && d.together;
    if (threadIdx.x % 32 == 0) {
        mbarrier_report_and_expect(to.full, SLOT_BYTES + scale_bytes(&d.of.k_scale, at, key_width(BASE)) + (means ? DELTA_DIM : 0) + (together ? PIECE : 0));
        if (together) copy_bytes(to.side, scales_of(&d.of.k_scale, k, at.page), exponent_at(BASE) + PIECE, to.full); /* what is small first */
        else if (means) copy_bytes(to.side + mean_at(BASE), stored_at(&d.v_mean, mean), DELTA_DIM, to.full);
    }
    if (!together) ask_for_scales<key_width(BASE)>(d, k, &d.of.k_scale, at, to.side, to.full);
    if (threadIdx.x % 32 == 0) (AGAIN ? copy_box_5 : copy_box_5_once)(to.data, &d.of.k, to.full, 0, at.at, k.head, k.table ? at.page : 0, at.row);
    if (means && !together && threadIdx.x % 32 == 1) prefetch_line(stored_at(&d.v_mean_scale, mean));
}

/* Part 1 of a kept step, the rest of K, or one of V. */
template <int BASE, int VALUE>
static __device__ __forceinline__ void ask_for_part(const delta_call &d, const stream_block &k, int token, int page, int part, const delta_slot &to)
{
    constexpr int PARTS = value_parts(VALUE);
    const step_place at = place_of(d, k, token, page);
    const int in_step = (part - 2) * (STEP_TOKENS / PARTS), map_page = k.table ? at.page : 0;
    if (threadIdx.x % 32 == 0) {
        mbarrier_report_and_expect(to.full, SLOT_BYTES + (part == 1 ? scale_bytes(&d.of.k_scale, at, key_width(BASE))
                                                                    : scale_bytes(&d.of.v_scale, at, value_width(VALUE))));
        if (part == 1) copy_box_5_once(to.data, &d.more, to.full, 0, at.at, k.head, map_page, at.row);
        else
#pragma unroll
            for (int i = 0; i < PARTS; i++)
                copy_box_5_once(to.data + i * (SLOT_BYTES / PARTS), &d.of.v, to.full, i * BOX_BYTES, at.at + in_step, k.head, map_page, at.row);
    }
    if (part == 1) ask_for_scales<key_width(BASE)>(d, k, &d.of.k_scale, at, to.side, to.full);
    else ask_for_scales<value_width(VALUE)>(d, k, &d.of.v_scale, at, to.side + value_scales_at(BASE), to.full);
}

/* Hints that a team's first pages, the length, the newest page and the counts will be wanted. */
template <class KIND> static __device__ __forceinline__ void hint_of_pages(const stream_call &c, const stream_block &k, int first, int stride)
{
    enum { LENGTH = KIND::BASES + 1, COUNTS, NEWEST };
    const int lane = threadIdx.x % 32;
    if (c.sequences) return;
    const int32_t *table = k.table ? k.table + k.b * c.page_table_stride : nullptr;
    const int64_t token = (int64_t)(first + lane * stride) * KIND::SPAN;
    if (lane < LENGTH && table && token < c.max_tokens) prefetch_line(table + (token >> c.shift));
    if (lane == LENGTH) prefetch_line(c.lengths + k.b);
    if (lane == COUNTS) prefetch_line(c.counts + k.b * c.kv_heads + k.head);
    if (lane != NEWEST || !table) return;
    const int length = clamped_length(c, __ldcg(c.lengths + k.b)); /* which the kernel before may yet change */
    if (length > 0) prefetch_line(table + ((length - 1) >> c.shift));
}

/* ---- scores ---- */

/* x [.] = sums of a plane in units of ln 2. */
template <int BASE>
static __device__ __forceinline__ void step_scores(const stream_queries<DELTA_DIM, BASE> &q, const delta_slot &slot, float factor, float (&x)[STEP_TILES][4])
{
    const int g = threadIdx.x % 32 / 4;
    stream_scores<DELTA_DIM, BASE, STEP_TILES>(x, q.q, slot.data);
#pragma unroll
    for (int j = 0; j < STEP_TILES; j++) {
        const uint32_t scales = slot.side + j * TILE_TOKENS * key_width(BASE);
        const float low = factor * tile_factor<key_width(BASE)>(scales, g), high = factor * tile_factor<key_width(BASE)>(scales, g + 8);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] *= (i < 2 ? low : high) * q.scale[i % 2];
    }
}

/* Largest of the scores in the lane's columns. */
static __device__ __forceinline__ float column_max(const float (&x)[STEP_TILES][4], int i)
{
    float max = NOTHING;
#pragma unroll
    for (int j = 0; j < STEP_TILES; j++) max = fmaxf(max, fmaxf(x[j][i], x[j][i + 2]));
#pragma unroll
    for (int step = 4; step < 32; step *= 2) max = fmaxf(max, __shfl_xor_sync(WHOLE_WARP, max, step));
    return max;
}

/* From which score on a row keeps a unit, in units of ln 2. */
static __device__ __forceinline__ float least_score(const delta_call &d, const stream_block &k, const float (*found)[STREAM_ROWS], int row)
{
    if (row >= d.of.rows) return -NOTHING;
    if (d.thresholds) return d.thresholds[(k.b * d.of.kv_heads + k.head) * d.of.group + row / d.of.q_tokens] * LOG2_E - d.delta;
    float most = found[0][row];
#pragma unroll
    for (int i = 1; i < DELTA_WARPS; i++) most = fmaxf(most, found[i][row]);
    return most - d.delta;
}

/* A kept step's scores wait in shared memory, each lane's for itself. */
static __device__ __forceinline__ void put_scores(uint32_t set, const float (&x)[STEP_TILES][4])
{
#pragma unroll
    for (int j = 0; j < STEP_TILES; j++)
        store_shared_16(set + PIECE * (32 * j + threadIdx.x % 32),
                        make_uint4(__float_as_uint(x[j][0]), __float_as_uint(x[j][1]), __float_as_uint(x[j][2]), __float_as_uint(x[j][3])));
}

static __device__ __forceinline__ uint4 load_shared_16(uint32_t from)
{
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(from) : "memory");
    return x;
}

static __device__ __forceinline__ void load_scores(uint32_t set, int tile, float (&x)[4])
{
    const uint4 bits = load_shared_16(set + PIECE * (32 * tile + threadIdx.x % 32));
    x[0] = __uint_as_float(bits.x), x[1] = __uint_as_float(bits.y), x[2] = __uint_as_float(bits.z), x[3] = __uint_as_float(bits.w);
}

/* ---- kept units ---- */

/* What the rest of K adds joins the scores. */
static __device__ __forceinline__ void refine_scores(uint32_t set, float (&x)[STEP_TILES][4])
{
#pragma unroll
    for (int j = 0; j < STEP_TILES; j++) {
        float base[4];
        load_scores(set, j, base);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = base[i] == NOTHING ? NOTHING : base[i] + x[j][i];
    }
    put_scores(set, x);
}

/* Part `part` of V, of which the sequence has `left` tokens from the step's first on. */
template <int BASE, int VALUE>
static __device__ __forceinline__ void add_values(int left, int part, const delta_slot &slot, uint32_t set, stream_state<DELTA_DIM> &of)
{
    constexpr int TOKENS = STEP_TOKENS / value_parts(VALUE), TILES = TOKENS / TILE_TOKENS, ROW = SLOT_BYTES / TOKENS;
    const int g = threadIdx.x % 32 / 4, end = left - part * TOKENS, there = end > 0 ? end : 0;
    if (there < TOKENS) clear_rows<ROW, TOKENS>(slot.data, there);
    float x[TILES][4];
    value_factors<VALUE> factors[TILES];
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        factors[j] = value_factors_of<VALUE>(slot.side + value_scales_at(BASE) + j * TILE_TOKENS * value_width(VALUE), g);
        load_scores(set, part * TILES + j, x[j]);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] += factors[j].exponent[i / 2];
    }
    weigh_stage<DELTA_DIM, VALUE, TILES>(of, x, factors);
#pragma unroll
    for (int j = 0; j < TILES; j++) stream_outputs<DELTA_DIM, VALUE, TILES>(of.out, x[j], slot.data + j * tile_stride<ROW>());
}

/* ---- dropped units ---- */

/* The mean rows that are there, each with its unit's mass. */
static __device__ __forceinline__ void finish_dropped(delta_warp &w, stream_state<DELTA_DIM> &of)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float y[1][4];
    value_factors<VALUE_E4M3> factors[1];
    __syncwarp();
    factors[0].plain = true;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int found = __shfl_sync(WHOLE_WARP, w.exponent, g + 8 * i);
        put_exponent(factors[0], i, g + 8 * i < w.dropped ? found : 0);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int unit = g + i / 2 * 8;
        y[0][i] = unit < w.dropped ? w.masses[unit * STREAM_ROWS + 2 * t + i % 2] + factors[0].exponent[i / 2] : NOTHING;
    }
    weigh_stage<DELTA_DIM, VALUE_E4M3, 1>(of, y, factors);
    stream_outputs<DELTA_DIM, VALUE_E4M3, 1>(of.out, y[0], w.means);
    w.dropped = 0;
    __syncwarp();
}

/* Sixteen elements of a mean row as the outputs of V's format lie: a lane's two of a product are neighbours where V has 8 bits, and eight
 * apart where it has 16. */
template <int VALUE> static __device__ __forceinline__ uint4 mean_piece(uint4 x)
{
    if (!value_is_half(VALUE)) return x;
    return make_uint4(permute(x.x, x.z, 0x5140), permute(x.x, x.z, 0x7362), permute(x.y, x.w, 0x5140), permute(x.y, x.w, 0x7362));
}

/* A dropped unit joins the others: its mass, and its mean row from `side`. What is in memory is not waited for before the next one. */
template <int BASE, int VALUE>
static __device__ __forceinline__ void drop_unit(delta_warp &w, const float (&x)[STEP_TILES][4], uint32_t side, const uint8_t *exponent, bool together,
                                                 stream_state<DELTA_DIM> &of)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    if (w.dropped == TILE_TOKENS) finish_dropped(w, of);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float max = column_max(x, i);
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < STEP_TILES; j++) sum += exp2_fast(x[j][i] - max) + exp2_fast(x[j][i + 2] - max);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (lane < 4) w.masses[w.dropped * STREAM_ROWS + 2 * t + i] = max + log2_fast(sum);
    }
    if (lane < DELTA_DIM / PIECE)
        store_shared_16(w.means + PIECE * tile_piece<DELTA_DIM / PIECE>(w.dropped, lane),
                        mean_piece<VALUE>(load_shared_16(side + mean_at(BASE) + PIECE * lane)));
    if (lane == w.dropped) w.exponent = together ? (int8_t)load_shared_word(side + exponent_at(BASE)) : (int8_t)*exponent;
    w.dropped++;
}

#endif
