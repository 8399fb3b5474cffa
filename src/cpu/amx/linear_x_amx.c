/* linear_x_amx.c - x as AMX wants it: rounded, split or quantised, in tiles or in rows. */
#include "cpu/amx/linear_amx.h"

/* ---- elements ---- */

/* 16 elements from `at` on, of which the first `count` (0..16) exist; zeros for the rest. */
static inline __m512 load_16(const octavo_tensor *x, int64_t at, int64_t count)
{
    const __mmask16 there = (__mmask16)(count >= 16 ? 0xFFFF : count > 0 ? (1 << count) - 1 : 0);
    if (x->dtype == OCTAVO_F32) return _mm512_maskz_loadu_ps(there, (const float *)x->data + at);
    const __m256i half = _mm256_maskz_loadu_epi16(there, (const uint16_t *)x->data + at);
    if (x->dtype == OCTAVO_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Nearest e4m3 with ties to even, saturated: four significant bits, or a multiple of 2^-9 below 2^-6. */
static inline __m512 round_e4m3(__m512 x)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u), bits = _mm512_andnot_si512(sign, _mm512_castps_si512(x));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFFF)));
    const __m512 normal = _mm512_castsi512_ps(_mm512_and_si512(near, _mm512_set1_epi32((int)0xFFF00000u)));
    const __m512 shift = _mm512_set1_ps(0x1.8p14f), magnitude = _mm512_castsi512_ps(bits);
    const __mmask16 small = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
    const __m512 rounded = _mm512_mask_sub_ps(normal, small, _mm512_add_ps(magnitude, shift), shift);
    const __m512 held = _mm512_min_ps(rounded, _mm512_set1_ps(OCTAVO_E4M3_MAX));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(held), _mm512_and_si512(sign, _mm512_castps_si512(x))));
}

static inline __m128i round_int8(__m512 x)
{
    const __m512 most = _mm512_set1_ps(127.0f), held = _mm512_max_ps(_mm512_min_ps(x, most), _mm512_sub_ps(_mm512_setzero_ps(), most));
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(held));
}

/* The upper halves of 32 floats. */
static inline __m512i cut_32(__m512 low, __m512 high)
{
    const __m256i first = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(low), 16));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(high), 16)), 1);
}

/* 32 columns of a token from `at` on, of which `count` exist, as the terms whose sum is what enters the products. Cutting keeps
 * every rest exact; Inf leaves a NaN. */
static inline void load_32(const linear_job *job, int64_t at, int64_t count, float scale, __m512i out[TERMS_MAX])
{
    const octavo_tensor *x = &job->p->x;
    if (x->dtype == OCTAVO_BF16 && !octavo_linear_quantises(job->p)) {
        const __mmask32 there = count >= 32 ? 0xFFFFFFFFu : count > 0 ? (1u << count) - 1u : 0u;
        out[0] = _mm512_maskz_loadu_epi16(there, (const uint16_t *)x->data + at);
        return;
    }
    __m512 low = load_16(x, at, count), high = load_16(x, at + 16, count - 16);
    if (job->p->precision == OCTAVO_LINEAR_BF16) {
        out[0] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        return;
    }
    if (job->p->precision == OCTAVO_LINEAR_FP8) {
        out[0] = cut_32(round_e4m3(_mm512_div_ps(low, _mm512_set1_ps(scale))), round_e4m3(_mm512_div_ps(high, _mm512_set1_ps(scale))));
        return;
    }
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u);
    for (int term = 0; term < job->terms; term++) {
        out[term] = cut_32(low, high);
        low  = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(low), upper)));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(high), upper)));
    }
}

/* 64 columns as int8. */
static inline __m512i load_64(const linear_job *job, int64_t at, int64_t count, float scale)
{
    __m512i out = _mm512_setzero_si512();
    const __m512 by = _mm512_set1_ps(scale);
    out = _mm512_inserti32x4(out, round_int8(_mm512_div_ps(load_16(&job->p->x, at, count), by)), 0);
    out = _mm512_inserti32x4(out, round_int8(_mm512_div_ps(load_16(&job->p->x, at + 16, count - 16), by)), 1);
    out = _mm512_inserti32x4(out, round_int8(_mm512_div_ps(load_16(&job->p->x, at + 32, count - 32), by)), 2);
    return _mm512_inserti32x4(out, round_int8(_mm512_div_ps(load_16(&job->p->x, at + 48, count - 48), by)), 3);
}

/* One step of the token whose row begins at `row`. */
static inline __attribute__((always_inline)) void load_step(const linear_job *job, int64_t row, int64_t step, float scale, __m512i out[TERMS_MAX])
{
    const int64_t column = job->interleaved ? step / 2 * 2 * STEP : step * job->columns, left = job->in - column;
    if (job->integer) {
        out[0] = load_64(job, row + column, left, scale);
        return;
    }
    load_32(job, row + column, left, scale, out);
    if (!job->interleaved) return;
    __m512i more[TERMS_MAX];
    load_32(job, row + column + STEP, left - STEP, scale, more);
    const __m512i parity = _mm512_set1_epi32(step % 2 ? 0x00010001 : 0);
    const __m512i pick = _mm512_or_si512(parity, _mm512_add_epi32(_mm512_set1_epi32(0x00020000),
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(0x00040004))));
    for (int term = 0; term < job->terms; term++) out[term] = _mm512_permutex2var_epi16(out[term], pick, more[term]);
}

/* ---- tokens ---- */

static int finite_bf16(const uint16_t *x, int64_t count)
{
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i += 32) {
        const __mmask32 there = count - i >= 32 ? 0xFFFFFFFFu : (1u << (count - i)) - 1u;
        most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_set1_epi16(0x7FFF), _mm512_maskz_loadu_epi16(there, x + i)));
    }
    return _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(0x7F80)) == 0;
}

/* The scale of a token's codes, or 1; NaN where it is not finite as it is rounded. Comparing bits keeps NaNs. */
static float find_factor(const linear_job *job, int64_t row)
{
    const octavo_tensor *x = &job->p->x;
    if (x->dtype == OCTAVO_BF16 && !octavo_linear_quantises(job->p)) return finite_bf16((const uint16_t *)x->data + row, job->in) ? 1.0f : NAN;
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < job->in; i += 16)
        most = _mm512_max_epi32(most, _mm512_and_si512(magnitude, _mm512_castps_si512(load_16(x, row + i, job->in - i))));
    const int32_t bits = _mm512_reduce_max_epi32(most);
    const int32_t rounds_to_inf = job->p->precision == OCTAVO_LINEAR_BF16 ? 0x7F7F8000 : 0x7F800000;
    if (bits >= rounds_to_inf) return NAN;
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    return octavo_linear_quantises(job->p) ? octavo_linear_x_scale(job->p, amax) : 1.0f;
}

/* One step of up to 16 tokens, a row each: whole steps of bf16 are only moved. */
static inline void load_rows(const linear_job *job, const int64_t row[GROUP], const float *factors, int64_t tokens, int64_t step,
                             __m512i rows[TERMS_MAX][TILE_ROWS])
{
    const octavo_tensor *x = &job->p->x;
    const int moved = x->dtype == OCTAVO_BF16 && !octavo_linear_quantises(job->p) && !job->interleaved && (step + 1) * STEP <= job->in;
    __m512i split[TERMS_MAX];
    for (int64_t t = 0; t < tokens && moved; t++) rows[0][t] = _mm512_loadu_si512((const uint16_t *)x->data + row[t] + step * STEP);
    for (int64_t t = 0; t < tokens && !moved; t++) {
        load_step(job, row[t], step, factors[t], split);
        for (int term = 0; term < job->terms; term++) rows[term][t] = split[term];
    }
    for (int term = 0; term < job->terms; term++)
        for (int64_t t = tokens; t < TILE_ROWS; t++) rows[term][t] = _mm512_setzero_si512();
}

/* bf16 that stays as it is, for left operands: a token at a time, looked at on its way. */
static void move_group(const linear_job *job, int64_t group)
{
    const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
    for (int64_t t = 0; t < GROUP; t++) {
        const int64_t n = group * GROUP + t, left = n < job->tokens ? job->in : 0;
        const uint16_t *x = (const uint16_t *)job->p->x.data + (left ? octavo_linear_x_row(job->p, n) : 0);
        __m512i most = _mm512_setzero_si512();
        for (int64_t begin = 0; begin < job->steps; begin += job->segment) {
            const int64_t width = job->steps - begin < job->segment ? job->steps - begin : job->segment;
            uint8_t *out = job->x + (begin * job->groups + group * width) * TILE_BYTES + t * STEP_BYTES;
            for (int64_t column = begin * STEP, end = column + width * STEP; column < end; column += STEP, out += TILE_BYTES) {
                const int64_t count = left - column;
                const __mmask32 there = count >= STEP ? 0xFFFFFFFFu : count > 0 ? (1u << count) - 1u : 0u;
                const __m512i step = _mm512_maskz_loadu_epi16(there, x + column);
                most = _mm512_max_epu16(most, _mm512_and_si512(magnitude, step));
                _mm512_store_si512(out, step);
            }
        }
        if (left) job->factors[n] = _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(0x7F80)) ? NAN : 1.0f;
    }
}

float linear_factor(const linear_job *job, int64_t token) { return find_factor(job, octavo_linear_x_row(job->p, token)); }

void linear_pack_group(const linear_job *job, int64_t group)
{
    if (group < job->direct) {
        for (int64_t n = group * GROUP; n < (group + 1) * GROUP; n++) job->factors[n] = 1.0f;
        return;
    }
    const int moved = job->p->x.dtype == OCTAVO_BF16 && !octavo_linear_quantises(job->p) && !job->interleaved;
    if (moved && job->w_right) {
        move_group(job, group);
        return;
    }
    const int64_t first = group * GROUP, left = job->tokens - first, tokens = left < GROUP ? left : GROUP;
    __m512i rows[TERMS_MAX][TILE_ROWS];
    int64_t row[GROUP];
    for (int64_t t = 0; t < tokens; t++) {
        row[t] = octavo_linear_x_row(job->p, first + t);
        job->factors[first + t] = find_factor(job, row[t]);
    }
    for (int64_t step = 0; step < job->steps; step++) {
        uint8_t *tiles = linear_x_tiles(job, group, step);
        load_rows(job, row, job->factors + first, tokens, step, rows);
        for (int term = 0; term < job->terms; term++) {
            if (!job->w_right) transpose_tile(rows[term]);
            for (int i = 0; i < TILE_ROWS; i++) _mm512_store_si512(tiles + term * TILE_BYTES + i * 64, rows[term][i]);
        }
    }
}

static void pack_group(void *argument, int64_t group) { linear_pack_group(argument, group); }

void linear_pack_tiles(const octavo_exec *exec, const linear_job *job)
{
    octavo_parallel(exec, job->groups, pack_group, (void *)(uintptr_t)job);
}

void linear_pack_rows(const linear_job *job)
{
    __m512i split[TERMS_MAX];
    for (int64_t t = 0; t < job->tokens; t++) {
        const int64_t row = octavo_linear_x_row(job->p, t);
        job->factors[t] = find_factor(job, row);
        for (int64_t step = 0; step < job->steps; step++) {
            load_step(job, row, step, job->factors[t], split);
            for (int term = 0; term < job->terms; term++)
                _mm512_store_si512(job->x + ((t * job->terms + term) * job->steps + step) * STEP_BYTES, split[term]);
        }
    }
}
