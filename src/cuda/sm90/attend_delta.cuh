/* attend_delta.cuh - delta in one pass: a warp scores 64 tokens by K's base and, where their unit is kept, asks for the rest of K and for
 * V, or adds up its mass where it is dropped; merged as dense streams are.
 *
 * A unit is a step of 64 tokens of one warp, or four steps of a team of warps that decides together. All that a warp reads goes through
 * its two slots, in the order in which it was asked for: whichever slot is free gets a part of the first kept unit that waits, or
 * else the next base. A team's first units are its own; then whoever is ready takes the next one, since neither the memory's
 * speed nor what is kept is the same for all. In a short call all units are somebody's own, as a number that is taken comes later than
 * bases do. A warp that decides alone has its next unit on offer, for itself or for one of its block that has no more. The mean rows of
 * 16 dropped units are multiplied together. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_DELTA_CUH
#define OCTAVO_CUDA_SM90_ATTEND_DELTA_CUH

#include "cuda/sm90/delta_step.cuh"

/* ---- what is asked for ---- */

/* What a warp's slots hold in the order in which it was asked for, and the kept units that wait. */
template <class KIND> struct delta_queue {
    int item[KIND::SLOTS]; /* 4 * unit + part: 0 its base, 1 the rest of K, 2 and more V */
    int slot[KIND::SLOTS], page[KIND::SLOTS]; /* of the item */
    int count, bases; /* of the items; how many are bases */
    int wanted[KIND::BASES], wanted_page[KIND::BASES], waiting, part; /* the first one's next part */
    int asked, decided; /* bases so far */
    int first_set, last_set; /* of the scores of kept units */
    uint32_t free, parities; /* a bit a slot */
    bool dry; /* neither the warp nor its block had another unit */
};

/* A unit that is to be asked for, as the team's first lane tells the others. */
struct unit_order {
    int unit, page;
};
enum { ORDERS = 4 /* more than there are bases at a time */ };

/* Up to so many units of a team the next kernel's blocks may begin beside this one's; of longer calls they begin when units run out. Up to
 * so many all are the teams' own. */
enum { SHORT_ROUNDS = 16, OWN_ROUNDS = 8 };

/* What the team's first lane knows of the units to come: one with its page on its way, and in KIND::AHEAD the number of the one after it. The
 * fewer are taken ahead of their time, the sooner the last one ends. */
struct unit_supply {
    unit_order next;
    stream_count number;
    int begin, units;   /* from where on units are taken, before it the team's own; that there are */
    int stride, round;  /* from one of its own to the next; which of them `next` is */
    const int *pages;   /* of its own */
    int last;           /* units of which one base at a time is on its way */
    bool taken;         /* `next` went on offer, and no other unit has come in its place */
};

/* A unit on offer, and none. */
typedef unsigned long long unit_offer;
static constexpr unit_offer NO_OFFER = ~0ull;

static __device__ __forceinline__ int page_of_token(const delta_call &d, const stream_block &k, int token)
{
    const int block = token >> d.of.shift;
    return !k.table || token >= d.of.max_tokens ? block : k.table[block];
}

static __device__ __forceinline__ void take_number(const delta_call &d, const stream_block &k, unit_supply &of)
{
    if (of.next.unit < of.units && of.begin < of.units) of.number = atomicAdd(d.of.counts + k.b * d.of.kv_heads + k.head, (stream_count)1);
}

/* The number that was taken becomes a unit, whose page is asked for; or it is the team's own one after this. */
template <class KIND> static __device__ __forceinline__ void next_order(const delta_call &d, const stream_block &k, unit_supply &of)
{
    stream_count *word = d.of.counts + k.b * d.of.kv_heads + k.head;
    if (of.next.unit >= of.units) return;
    if (of.begin >= of.units) {
        of.next.unit += of.stride;
        if (of.next.unit < of.units) of.next.page = of.pages[++of.round];
        return;
    }
    of.next.unit = of.begin + (int)(counted(word, of.number, 1) & ((1u << DONE_SHIFT) - 1));
    if (of.next.unit < of.units) of.next.page = page_of_token(d, k, of.next.unit * KIND::SPAN);
}

/* Puts the warp's next unit on offer, if the last one is gone. */
static __device__ __forceinline__ void offer_unit(const delta_call &d, const stream_block &k, unit_supply &of, unit_offer *offer)
{
    if (of.taken || of.next.unit >= of.units || *(volatile unit_offer *)offer != NO_OFFER) return;
    atomicExch(offer, (unit_offer)of.next.unit << 32 | (uint32_t)of.next.page);
    take_number(d, k, of), of.taken = true;
}

/* The warp's unit on offer or, where it is `out` of them, as its first lane knows, another's; unit `end` if there is none before that. */
static __device__ __forceinline__ unit_order take_offer(unit_offer *offers, int end, bool out)
{
    const int lane = threadIdx.x % 32;
    unit_offer *offer = offers + (threadIdx.x / 32 + lane) % DELTA_WARPS;
    unit_offer x = NO_OFFER;
    if (lane < DELTA_WARPS) x = *(volatile unit_offer *)offer;
    uint32_t there = __ballot_sync(WHOLE_WARP, x != NO_OFFER && (int)(x >> 32) < end);
    if (!__any_sync(WHOLE_WARP, lane == 0 && out)) there &= 1;
#pragma unroll 1
    for (; there; there &= there - 1) {
        const int from = __ffs((int)there) - 1;
        if (lane == from) x = atomicExch(offer, NO_OFFER); /* another may have been there in the meantime */
        const unit_offer got = __shfl_sync(WHOLE_WARP, x, from);
        if (got != NO_OFFER) return { (int)(got >> 32), (int)(uint32_t)got };
    }
    return { end, 0 };
}

/* An item at the queue's end. */
template <class KIND> static __device__ __forceinline__ void push_item(delta_queue<KIND> &q, int item, int slot, int page)
{
#pragma unroll
    for (int i = 0; i < KIND::SLOTS; i++)
        if (i == q.count) q.item[i] = item, q.slot[i] = slot, q.page[i] = page;
    q.count++, q.free &= ~(1u << slot);
}

/* The first item has been read. */
template <class KIND> static __device__ __forceinline__ void pop_item(delta_queue<KIND> &q)
{
    q.count--, q.free |= 1u << q.slot[0], q.bases -= (q.item[0] & 3) == 0;
#pragma unroll
    for (int i = 0; i + 1 < KIND::SLOTS; i++) q.item[i] = q.item[i + 1], q.slot[i] = q.slot[i + 1], q.page[i] = q.page[i + 1];
}

/* Fills the free slots. */
template <class KIND>
static __device__ __forceinline__ void ask_for_next(const delta_call &d, const stream_block &k, const delta_warp &w, const unit_order *orders, unit_offer *offers,
                                                    const unit_supply &supply, delta_queue<KIND> &q)
{
#pragma unroll 1
    while (q.free) {
        const int free = __ffs((int)q.free) - 1;
        const delta_slot to = slot_of<KIND>(w, free);
        if (q.waiting) {
            const int unit = q.wanted[0], page = q.wanted_page[0];
            ask_for_part<KIND::BASE, KIND::VALUE>(d, k, unit * KIND::SPAN + w.member, page, q.part, to);
            push_item(q, 4 * unit + q.part, free, page);
            if (q.part++ < KIND::PARTS) continue;
            q.part = 1, q.waiting--;
#pragma unroll
            for (int i = 0; i + 1 < KIND::BASES; i++) q.wanted[i] = q.wanted[i + 1], q.wanted_page[i] = q.wanted_page[i + 1];
        } else {
            if (q.bases == KIND::BASES || q.dry) return;
            const int end = q.bases > 0 ? supply.units - supply.last : supply.units;
            const unit_order order = KIND::AHEAD ? orders[q.asked % ORDERS] : take_offer(offers, end, supply.next.unit >= supply.units);
            if (order.unit >= end) {
                if (!KIND::AHEAD && q.bases == 0) q.dry = __any_sync(WHOLE_WARP, threadIdx.x % 32 == 0 && supply.next.unit >= supply.units);
                return;
            }
            ask_for_base<KIND::BASE, KIND::MEANS, false>(d, k, order.unit * KIND::SPAN + w.member, order.page, to);
            push_item(q, 4 * order.unit, free, order.page);
            q.asked++, q.bases++;
        }
    }
}

/* ---- decisions ---- */

/* What a team votes through: a word a warp, of two votes in turn, and a barrier that all of its threads report to. A named barrier would do, but
 * racecheck loses sight of __syncthreads() behind named barriers that groups of warps pass a different number of times. */
struct team_votes {
    uint32_t words, barrier, parity;
};

/* Whether x holds for any thread of the team. What `meanwhile` does does not wait for the others. */
template <int TEAM, class WORK> static __device__ __forceinline__ bool team_any(team_votes &of, bool x, WORK meanwhile)
{
    static_assert(TEAM == 1 || TEAM == 4, "words that are read at once");
    x = __any_sync(WHOLE_WARP, x);
    if (TEAM == 1) return meanwhile(), x;
    const uint32_t words = of.words + of.parity * PIECE;
    if (threadIdx.x % 32 == 0) store_shared(words + 4 * (threadIdx.x / 32 % TEAM), x);
    mbarrier_report(of.barrier);
    meanwhile();
    mbarrier_wait(of.barrier, of.parity);
    of.parity ^= 1;
    const uint4 all = load_shared_16(words);
    return (all.x | all.y | all.z | all.w) != 0;
}

/* What a warp decides by: from `least` on a unit is kept; tokens that its two columns see, and that all do; the blocks that are kept. */
struct delta_rule {
    float least[2];
    int ends[2], all_see_to, first_end, last_begin;
};

/* The largest score of each row in the first block and in the newest, a warp a step of 64 tokens, through its last slot. */
template <class KIND>
static __device__ __forceinline__ void find_thresholds(const stream_queries<DELTA_DIM, KIND::BASE> &queries, const delta_warp &w, const delta_rule &rule, int step,
                                                       bool there, float (*found)[STREAM_ROWS], uint32_t *parities)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const delta_slot slot = slot_of<KIND>(w, KIND::SLOTS - 1);
    float x[STEP_TILES][4];
    if (there) {
        mbarrier_wait(slot.full, 0);
        *parities = 1u << (KIND::SLOTS - 1);
        __syncwarp();
        step_scores<KIND::BASE>(queries, slot, 1.0f, x);
        hide_beyond(step * STEP_TOKENS, rule.ends, threadIdx.x % 32 / 4, x);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float max = there ? column_max(x, i) : NOTHING;
        if (lane < 4) found[warp][2 * lane + i] = max;
    }
    __syncwarp();
}

/* Decides on a unit by the scores x of its base; those of one that is kept wait for the rest of it. meanwhile: see team_any(). */
template <class KIND, class WORK>
static __device__ __forceinline__ void take_base(const delta_call &d, const stream_block &k, float (&x)[STEP_TILES][4],
                                                 const delta_rule &rule, delta_warp &w, delta_queue<KIND> &q, team_votes &votes, WORK meanwhile,
                                                 uint8_t *kept, stream_state<DELTA_DIM> &of)
{
    const int unit = q.item[0] >> 2, page = q.page[0], block = unit * KIND::SPAN >> d.of.shift;
    const bool whole = (unit + 1) * KIND::SPAN <= rule.all_see_to;
    const delta_slot slot = slot_of<KIND>(w, q.slot[0]);
    bool keep = !whole || block < rule.first_end || block >= rule.last_begin;
    if (!whole) hide_beyond(unit * KIND::SPAN + w.member, rule.ends, threadIdx.x % 32 / 4, x);
#pragma unroll
    for (int i = 0; i < STEP_TILES * 4; i++) keep |= x[i / 4][i % 4] >= rule.least[i % 2];
    keep = team_any<KIND::TEAM>(votes, keep, meanwhile);
    if (threadIdx.x % 32 == 0 && w.member == 0) kept[unit] = keep ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_DROPPED;
    if (keep) {
        put_scores(w.scores + q.last_set * SET_BYTES, x);
        q.last_set = q.last_set + 1 < KIND::BASES ? q.last_set + 1 : 0;
#pragma unroll
        for (int i = 0; i < KIND::BASES; i++)
            if (i == q.waiting) q.wanted[i] = unit, q.wanted_page[i] = page;
        q.waiting++;
    } else if (KIND::MEANS && d.compensate) {
        drop_unit<KIND::BASE, KIND::VALUE>(w, x, slot.side, stored_at(&d.v_mean_scale, mean_of(d, k, unit * KIND::SPAN, page)), d.together, of);
    }
}

/* ---- the kernel ---- */

/* Grid (kv heads, batch, splits); shared memory: KIND::BYTES. */
template <class KIND> static __global__ void __launch_bounds__(DELTA_THREADS, 1) attend_delta(const __grid_constant__ delta_call d)
{
    constexpr int BASE = KIND::BASE, VALUE = KIND::VALUE, BASES = KIND::BASES, SPAN = KIND::SPAN;
    extern __shared__ __align__(1024) uint8_t memory[];
    __shared__ __align__(128) uint8_t sides[KIND::ALL_SLOTS][KIND::SIDE];
    __shared__ float masses[KIND::MEANS ? DELTA_WARPS : 1][TILE_TOKENS * STREAM_ROWS], found[DELTA_WARPS][STREAM_ROWS];
    __shared__ unit_order orders[KIND::TEAMS][ORDERS];
    __shared__ unit_offer offers[DELTA_WARPS];
    __shared__ int own_pages[KIND::TEAMS][OWN_ROUNDS];
    __shared__ uint4 vote_words[KIND::TEAMS][2];
    __shared__ __align__(8) uint64_t barriers[KIND::ALL_SLOTS + KIND::VOTES];
    const stream_call &c = d.of;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, team = warp / KIND::TEAM;
    stream_block k = { (int)blockIdx.y, (int)blockIdx.x, (int)blockIdx.z, 0, 0, c.page_table,
                       shared_address(memory), shared_address(sides), shared_address(barriers) };
    delta_warp w = delta_warp_of<KIND>(k, masses[KIND::MEANS ? warp : 0]);
    team_votes votes = { shared_address(vote_words[team]), shared_address(barriers + KIND::ALL_SLOTS + team), 0 };

    /* 1: what no kernel before this one decides, and hints */
    if (threadIdx.x == 0) prefetch_map(&c.k), prefetch_map(&c.v), prefetch_map(&d.more);
    if (threadIdx.x < KIND::ALL_SLOTS + KIND::VOTES)
        mbarrier_init(k.full + 8 * threadIdx.x, threadIdx.x < KIND::ALL_SLOTS ? 1 : 32 * KIND::TEAM), mbarrier_init_done();
    if (threadIdx.x < DELTA_WARPS) offers[threadIdx.x] = NO_OFFER;
    for (int i = threadIdx.x; i < (int)sizeof sides / 4; i += DELTA_THREADS) ((uint32_t *)sides)[i] = 0; /* exponents of 0 where there are none */
    for (int i = lane; KIND::MEANS && i < MEANS_BYTES / PIECE; i += 32) store_shared_16(w.means + PIECE * i, make_uint4(0, 0, 0, 0));
    fence_for_engines();
    hint_of_queries<DELTA_DIM>(c, k);
    const int stride = c.splits * KIND::TEAMS, first = k.split * KIND::TEAMS + team;
    hint_of_pages<KIND>(c, k, first, stride);
    __syncthreads(); /* the barriers are there */
    wait_for_kernel_before();

    /* 2: the first bases, and before them the thresholds' */
    k.row = c.sequences ? c.sequences[k.b] : k.b;
    if (k.table) k.table += k.row * c.page_table_stride;
    const int raw_length = c.lengths[k.row];
    int first_pages[BASES + 1];
#pragma unroll
    for (int i = 0; i <= BASES; i++) first_pages[i] = page_of_token(d, k, (first + i * stride) * SPAN);
    const int own_page = page_of_token(d, k, (first + lane % OWN_ROUNDS * stride) * SPAN);
    unit_supply supply = { { first + BASES * stride, first_pages[BASES] }, 0, (BASES + 1) * stride, 0, stride, BASES, own_pages[team], 0, false };
    const bool supplies = lane == 0 && w.member == 0;
    if (KIND::AHEAD && supplies && (int64_t)OWN_ROUNDS * stride * SPAN < c.max_tokens) supply.number = atomicAdd(c.counts + k.b * c.kv_heads + k.head, (stream_count)1);
    uint32_t asked[DELTA_DIM / 16][2];
    ask_for_row<DELTA_DIM, BASE>(c, k, asked);
    k.length = clamped_length(c, raw_length);
    const int units = (k.length + SPAN - 1) / SPAN, newest = k.length > 0 ? (k.length - 1) >> c.shift : 0, steps = 1 << d.block_steps_shift;
    const int step = warp < steps ? warp : newest * steps + warp - steps; /* of the first block or the newest */
    const bool there = !d.thresholds && warp < 2 * steps && step * STEP_TOKENS < k.length;
    if (there) ask_for_base<BASE, false, true>(d, k, step * STEP_TOKENS, page_of_token(d, k, step * STEP_TOKENS), slot_of<KIND>(w, KIND::SLOTS - 1));
    if (!d.thresholds) __syncthreads();
    if (units <= SHORT_ROUNDS * stride) next_kernel_may_start();
    delta_queue<KIND> q = {};
    q.part = 1, q.asked = BASES, q.free = (1u << KIND::SLOTS) - 1;
    auto ask_for_first = [&](int i) {
        if (first + i * stride >= units) return;
        ask_for_base<BASE, KIND::MEANS, false>(d, k, (first + i * stride) * SPAN + w.member, first_pages[i], slot_of<KIND>(w, i));
        push_item(q, 4 * (first + i * stride), i, first_pages[i]), q.bases++;
    };
#pragma unroll
    for (int i = 0; i < BASES; i++)
        if (i < BASES - 1 || d.thresholds) ask_for_first(i); /* thresholds would have to wait for the last one */
    uint8_t *kept = d.kept + (int64_t)(k.b * c.kv_heads + k.head) * d.units;
    for (int unit = units + k.split * DELTA_THREADS + threadIdx.x; unit < d.units; unit += c.splits * DELTA_THREADS) kept[unit] = OCTAVO_UNIT_UNSEEN;
    if (w.member == 0 && lane < OWN_ROUNDS) own_pages[team][lane] = own_page;
    stream_queries<DELTA_DIM, BASE> queries;
    take_row<DELTA_DIM, BASE>(c, asked, queries);
    delta_rule rule;
    column_ends(c, k, t, rule.ends);
    rule.all_see_to = k.length - c.q_tokens + 1, rule.first_end = d.keep_first_blocks;
    rule.last_begin = d.keep_last_blocks > 0 ? newest - d.keep_last_blocks + 1 : newest;
    supply.units = units, supply.last = !KIND::AHEAD && units <= SHORT_ROUNDS * stride ? stride : d.last_units;
    if (units <= OWN_ROUNDS * stride) supply.begin = units;
    if (!d.thresholds) {
        find_thresholds<KIND>(queries, w, rule, step, there, found, &q.parities);
        __syncthreads();
        ask_for_first(BASES - 1);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) rule.least[i] = least_score(d, k, found, 2 * t + i);
    stream_state<DELTA_DIM> of;
    begin_state(of);

    auto supply_ahead = [&]() { /* which a team need not wait for */
        if (KIND::AHEAD && supplies) next_order<KIND>(d, k, supply), take_number(d, k, supply);
    };

    /* 3: the queue */
#pragma unroll 1
    while (!KIND::AHEAD || q.count > 0) {
        if (q.count > 0) {
            const delta_slot slot = slot_of<KIND>(w, q.slot[0]);
            const int part = q.item[0] & 3;
            mbarrier_wait(slot.full, q.parities >> q.slot[0] & 1);
            q.parities ^= 1u << q.slot[0];
            if (!KIND::AHEAD && supplies) offer_unit(d, k, supply, offers + warp);
            if (part == 0) {
                if (KIND::AHEAD && supplies) orders[team][(q.decided + BASES) % ORDERS] = supply.next;
                q.decided++;
            }
            __syncwarp();
            const uint32_t scores = w.scores + q.first_set * SET_BYTES;
            if (part < 2) { /* the same code for both planes: what is kept finds it there */
                float x[STEP_TILES][4];
                step_scores<BASE>(queries, slot, part == 0 ? 1.0f : d.residual, x);
                if (part == 0) take_base<KIND>(d, k, x, rule, w, q, votes, supply_ahead, kept, of);
                else refine_scores(scores, x);
            } else {
                add_values<BASE, VALUE>(k.length - (q.item[0] >> 2) * SPAN - w.member, part - 2, slot, scores, of);
            }
            if (part == KIND::PARTS) q.first_set = q.first_set + 1 < BASES ? q.first_set + 1 : 0;
            pop_item(q);
        } else if (!KIND::AHEAD && supplies) { /* what was on offer has gone to another */
            offer_unit(d, k, supply, offers + warp);
        }
        __syncwarp();
        ask_for_next<KIND>(d, k, w, orders[team], offers, supply, q);
        if (!KIND::AHEAD && supply.taken) next_order<KIND>(d, k, supply), supply.taken = false;
        if (!KIND::AHEAD && q.count == 0 && q.dry) break;
    }
    if (w.dropped > 0) finish_dropped(w, of);
    next_kernel_may_start();

    /* 4: results */
    put_results<DELTA_DIM, VALUE>(c, k, c.splits, of, *(stream_results<DELTA_DIM> *)memory);
    if (c.splits == 1 && threadIdx.x == 0) c.counts[k.b * c.kv_heads + k.head] = COUNTS_TAG << TAG_SHIFT; /* else it is the last block's work */
}

#endif
