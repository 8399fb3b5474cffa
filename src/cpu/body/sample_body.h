/* sample_body.h - sampling; included after a level's vocabulary.
 *
 * Only as much of a row is put in order as the filters and `uniform` ask for: bands of logits from the largest down, each a little
 * deeper than the last, are collected by vector comparisons and sorted by their bits. A row stays on one thread. */
#include "base/parallel.h"
#include "cpu/body/logit_rows_body.h"
#include "kernel/sample_plan.h"

octavo_status SIMD(sample)(const octavo_exec *exec, const octavo_sample_params *p);

enum { SAMPLE_DIGITS = 256, SAMPLE_FEW = 24 }; /* fewer candidates are sorted by insertion */
#define SAMPLE_DEEPER 1.5f  /* how much deeper the next band reaches, in nats below the largest */
#define SAMPLE_DEEPEST 70.0f /* below it weights are 0 */

typedef struct sample_job {
    const octavo_sample_params *p;
    octavo_sample_layout at;
    uint8_t *workspace;
    float *most;  /* [rows] */
    int refused;  /* set by any task */
} sample_job;

/* One row on its way. */
typedef struct sample_state {
    const octavo_sample_row *how;
    const float *logits;
    int64_t vocab, limit;      /* limit: top_k, at most vocab                         */
    float most, inverse;       /* the largest logit; of the temperature              */
    double all;                /* mass of the whole row, where it is asked for       */
    octavo_sample_candidate *sorted, *other;
    double *cumulative;        /* [count] mass up to and with each candidate         */
    int64_t count;             /* candidates in order so far                         */
    float reached;             /* every logit from here up is among them             */
} sample_state;

/* Grows as the logit falls; both zeros are the same. */
static inline uint32_t sample_key(float x)
{
    const uint32_t bits = octavo_float_bits(x + 0.0f);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFFu;
}
static inline float sample_logit(uint32_t key) { return octavo_float_from_bits(key >> 31 ? key : ~key & 0x7FFFFFFFu); }

static inline float sample_exponent(const sample_state *s, int64_t i) { return (sample_logit(s->sorted[i].key) - s->most) * s->inverse; }

static int sample_has_top_p(const sample_state *s) { return s->how->top_p > 0.0f && s->how->top_p < 1.0f; }

/* ---- order ---- */

static void sample_sort_few(octavo_sample_candidate *x, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        const octavo_sample_candidate moved = x[i];
        int64_t at = i;
        for (; at > 0 && x[at - 1].key > moved.key; at--) x[at] = x[at - 1];
        x[at] = moved;
    }
}

/* By the digits of the keys from the last on; candidates with equal keys keep their order, which is that of their ids. */
static void sample_sort(octavo_sample_candidate *x, octavo_sample_candidate *other, int64_t n)
{
    uint32_t starts[4][SAMPLE_DIGITS] = { { 0 } };
    octavo_sample_candidate *from = x, *to = other;
    if (n < SAMPLE_FEW) {
        sample_sort_few(x, n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int digit = 0; digit < 4; digit++) starts[digit][x[i].key >> 8 * digit & 255u]++;
    for (int digit = 0; digit < 4; digit++) {
        uint32_t *start = starts[digit], before = 0;
        if (start[x[0].key >> 8 * digit & 255u] == (uint32_t)n) continue; /* all alike */
        for (int i = 0; i < SAMPLE_DIGITS; i++) {
            const uint32_t count = start[i];
            start[i] = before;
            before += count;
        }
        for (int64_t i = 0; i < n; i++) to[start[from[i].key >> 8 * digit & 255u]++] = from[i];
        octavo_sample_candidate *swap = from;
        from = to, to = swap;
    }
    if (from != x) memcpy(x, from, (size_t)n * sizeof *x);
}

/* Appends the tokens whose logit is at least `floor` and below s->reached, by id. */
static int64_t sample_collect(const sample_state *s, float floor)
{
    int64_t count = s->count, i = 0;
    while (i < s->vocab) {
        if (i + LOGITS_BLOCK <= s->vocab && logits_block_most(s->logits + i) < floor) {
            i += LOGITS_BLOCK;
            continue;
        }
        const int64_t end = i + LOGITS_BLOCK < s->vocab ? i + LOGITS_BLOCK : s->vocab;
        for (; i < end; i++)
            if (s->logits[i] >= floor && s->logits[i] < s->reached)
                s->sorted[count++] = (octavo_sample_candidate){ sample_key(s->logits[i]), (int32_t)i };
    }
    return count;
}

/* The next band, down to `depth` nats below the largest. */
static void sample_extend(sample_state *s, float depth)
{
    const float floor = depth < SAMPLE_DEEPEST ? s->most - depth / s->inverse : -INFINITY;
    const int64_t end = sample_collect(s, floor);
    sample_sort(s->sorted + s->count, s->other, end - s->count);
    double sum = s->count > 0 ? s->cumulative[s->count - 1] : 0.0;
    while (s->count < end) {
        const int64_t n = end - s->count < SIMD_F32 ? end - s->count : SIMD_F32;
        float weights[SIMD_F32] = { 0.0f };
        for (int64_t i = 0; i < n; i++) weights[i] = sample_exponent(s, s->count + i);
        v_store(weights, v_exp(v_load(weights)));
        for (int64_t i = 0; i < n; i++) s->cumulative[s->count++] = sum += (double)weights[i];
    }
    s->reached = floor;
}

/* ---- filters ---- */

/* Whether nothing that is left below can matter. */
static int sample_is_enough(const sample_state *s)
{
    const octavo_sample_row *how = s->how;
    const double sum = s->cumulative[s->count - 1];
    const int has_top_k = s->limit < s->vocab;
    if (s->count >= s->limit) return 1;
    if (has_top_k && sample_has_top_p(s)) return 0; /* its share is one of top_k's mass */
    if (v_exp_one(sample_exponent(s, s->count - 1)) < how->min_p) return 1;
    if (sample_has_top_p(s)) return sum >= (double)how->top_p * s->all;
    return !has_top_k && how->min_p == 0.0f && sum > (double)how->uniform * s->all;
}

/* How many of those in order are left. */
static int64_t sample_filter(const sample_state *s)
{
    int64_t left = s->limit < s->count ? s->limit : s->count;
    if (sample_has_top_p(s)) {
        const double enough = (double)s->how->top_p * (s->limit < s->vocab ? s->cumulative[left - 1] : s->all);
        int64_t n = 1;
        while (n < left && s->cumulative[n - 1] < enough) n++;
        left = n;
    }
    while (left > 1 && v_exp_one(sample_exponent(s, left - 1)) < s->how->min_p) left--;
    return left;
}

/* The token's place in order; *whole: the mass of what was left. */
static int64_t sample_draw(sample_state *s, double *whole)
{
    const int unfiltered = s->limit == s->vocab && !sample_has_top_p(s) && s->how->min_p == 0.0f;
    if (unfiltered || (s->limit == s->vocab && sample_has_top_p(s))) s->all = logits_mass(s->logits, s->vocab, s->most, s->inverse);
    float depth = 1.0f;
    for (sample_extend(s, depth); !sample_is_enough(s); depth *= SAMPLE_DEEPER) sample_extend(s, depth * SAMPLE_DEEPER);
    const int64_t left = sample_filter(s);
    *whole = unfiltered ? s->all : s->cumulative[left - 1];
    int64_t chosen = 0;
    while (chosen + 1 < left && s->cumulative[chosen] <= (double)s->how->uniform * *whole) chosen++;
    while (chosen > 0 && s->cumulative[chosen] == s->cumulative[chosen - 1]) chosen--; /* rounding led past the last with a weight */
    return chosen;
}

/* ---- rows ---- */

static void sample_row(const sample_job *job, int64_t r, uint8_t *lane)
{
    const octavo_sample_params *p = job->p;
    sample_state s = { .how = &p->rows[r], .logits = (const float *)p->logits.data + r * p->logits.strides[0],
                       .vocab = p->logits.shape[1], .most = job->most[r], .inverse = 1.0f, .reached = INFINITY };
    s.limit = s.how->top_k > 0 && s.how->top_k < s.vocab ? s.how->top_k : s.vocab;
    s.sorted = (octavo_sample_candidate *)(void *)lane;
    s.other = (octavo_sample_candidate *)(void *)(lane + job->at.other);
    s.cumulative = (double *)(void *)(lane + job->at.cumulative);
    int32_t token;
    double sampled = 0.0;
    if (s.how->temperature < OCTAVO_SAMPLE_COLDEST) {
        token = logits_find(s.logits, s.vocab, s.most);
    } else {
        double whole;
        s.inverse = 1.0f / s.how->temperature;
        const int64_t chosen = sample_draw(&s, &whole);
        token = s.sorted[chosen].id;
        sampled = (double)sample_exponent(&s, chosen) - log(whole);
    }
    p->tokens[r] = token;
    if (p->sampled_logprob) p->sampled_logprob[r] = (float)sampled;
    if (!p->logprob) return;
    const double mass = s.all > 0.0 && s.inverse == 1.0f ? s.all : logits_mass(s.logits, s.vocab, s.most, 1.0f);
    p->logprob[r] = (float)((double)s.logits[token] - (double)s.most - log(mass));
}

static void sample_scan_task(void *argument, int64_t r)
{
    sample_job *job = argument;
    int odd;
    job->most[r] = logits_most((const float *)job->p->logits.data + r * job->p->logits.strides[0], job->p->logits.shape[1], &odd);
    if (odd || job->most[r] == -INFINITY) __atomic_store_n(&job->refused, 1, __ATOMIC_RELAXED);
}

static void sample_lane_task(void *argument, int64_t index)
{
    const sample_job *job = argument;
    for (int64_t r = index; r < job->p->logits.shape[0]; r += job->at.lanes)
        sample_row(job, r, job->workspace + job->at.first + (size_t)index * job->at.lane_bytes);
}

octavo_status SIMD(sample)(const octavo_exec *exec, const octavo_sample_params *p)
{
    sample_job job = { .p = p, .at = octavo_sample_layout_of(p), .workspace = exec->workspace };
    const int64_t rows = p->logits.shape[0];
    const int small = rows * p->logits.shape[1] < ROWS_GRAIN / 4;
    job.most = (float *)(void *)(job.workspace + job.at.most);
    if (small) for (int64_t r = 0; r < rows; r++) sample_scan_task(&job, r);
    else octavo_parallel(exec, rows, sample_scan_task, &job);
    if (job.refused) return OCTAVO_E_NONFINITE;
    if (small) for (int64_t lane = 0; lane < job.at.lanes; lane++) sample_lane_task(&job, lane);
    else octavo_parallel(exec, job.at.lanes, sample_lane_task, &job);
    return OCTAVO_OK;
}
