/* bench_peak_x86.c - the peak by what each level multiplies with: AMX tiles of bf16 or int8, vectors of int8, fused float32 products of 64 or
 * 32 bytes.
 *
 * Operands are random: processors run slower on them than on zeros. Functions carry the instruction sets that they need; the caller
 * names a level that the machine has. */
#include "bench_peak.h"
#include "machine.h"
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { TILE_ROWS = 16, TILE_BYTES = 1024, CHAINS = 12, TILE_STEPS = 1 << 19, VECTOR_STEPS = 1 << 22 };

static void fill_tiles(uint16_t tiles[4][TILE_BYTES / 2], int integer)
{
    uint32_t random = 12345;
    for (int i = 0; i < 4 * TILE_BYTES / 2; i++) {
        random = random * 1664525u + 1013904223u;
        /* bf16 of magnitudes from 0.5 to 2, both signs; as int8 any pair of codes */
        tiles[i / (TILE_BYTES / 2)][i % (TILE_BYTES / 2)] = (uint16_t)(integer ? random >> 16 : (random >> 16 & 0x80FFu) | 0x3F00u);
    }
}

__attribute__((target("amx-tile,amx-bf16,amx-int8"))) static void multiply_tiles(int integer, int64_t steps)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64))) = { .palette = 1 };
    uint16_t tiles[4][TILE_BYTES / 2] __attribute__((aligned(64)));
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = TILE_ROWS;
    fill_tiles(tiles, integer);
    __asm__ volatile("" ::: "memory"); /* compilers do not know that tile instructions read memory */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, tiles[0], 64);
    _tile_loadd(5, tiles[1], 64);
    _tile_loadd(6, tiles[2], 64);
    _tile_loadd(7, tiles[3], 64);
    for (int64_t i = 0; i < steps; i++) {
        if (integer) {
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_release();
}

/* sums = sums * b + a in CHAINS chains that do not wait for each other; returns one of them. */
#define VECTOR_LOOP(type, splat, fma, first)                                             \
    type sums[CHAINS];                                                                   \
    type a = splat(0.3f);                                                                \
    const type b = splat(0.71f);                                                         \
    for (int c = 0; c < CHAINS; c++) sums[c] = splat(0.1f * (float)c);                   \
    for (int64_t i = 0; i < steps; i++) {                                                \
        _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++) sums[c] = fma(sums[c], b, a); \
        __asm__ volatile("" : "+x"(a));                                                  \
    }                                                                                    \
    type total = sums[0];                                                                \
    for (int c = 1; c < CHAINS; c++) total = fma(total, b, sums[c]);                     \
    return first(total)

__attribute__((target("avx512f"))) static float multiply_512(int64_t steps) { VECTOR_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_cvtss_f32); }
__attribute__((target("avx2,fma"))) static float multiply_256(int64_t steps) { VECTOR_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_cvtss_f32); }
static float multiply_128(int64_t steps)
{
#define PRODUCT_AND_SUM(x, y, z) _mm_add_ps(_mm_mul_ps(x, y), z)
    VECTOR_LOOP(__m128, _mm_set1_ps, PRODUCT_AND_SUM, _mm_cvtss_f32);
}

/* The same with products of four int8. */
__attribute__((target("avx512f,avx512vnni"))) static float multiply_codes(int64_t steps)
{
    __m512i sums[CHAINS], x = _mm512_set1_epi32(0x7B13A9C5);
    const __m512i w = _mm512_set1_epi32(0x59E71D83);
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sums[c] = _mm512_set1_epi32(c);
    for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm512_dpbusd_epi32(sums[c], x, w);
            __asm__("" : "+v"(sums[c])); /* a compiler left alone copies each */
        }
        __asm__ volatile("" : "+v"(x));
    }
    __m512i total = sums[0];
#pragma GCC unroll 12
    for (int c = 1; c < CHAINS; c++) total = _mm512_add_epi32(total, sums[c]);
    return (float)_mm512_cvtsi512_si32(total);
}

static int on_tiles(const char *isa, octavo_linear_precision precision) { return !strcmp(isa, "amx") && precision != OCTAVO_LINEAR_F32; }

/* avx512 and the levels that add to it. */
static int has_512(const char *isa) { return !strcmp(isa, "amx") || !strncmp(isa, "avx512", strlen("avx512")); }

static int on_codes(const char *isa, octavo_linear_precision precision)
{
    return precision == OCTAVO_LINEAR_INT8 && (!strcmp(isa, "avx512_vnni") || !strcmp(isa, "avx512_bf16"));
}

/* Operations of one thread's work. */
static double work(const char *isa, octavo_linear_precision precision, float *sum)
{
    if (on_tiles(isa, precision)) {
        const int integer = precision == OCTAVO_LINEAR_INT8;
        multiply_tiles(integer, TILE_STEPS);
        return 4.0 * TILE_STEPS * 2 * TILE_ROWS * TILE_ROWS * (integer ? 64 : 32);
    }
    if (on_codes(isa, precision)) {
        *sum += multiply_codes(VECTOR_STEPS);
        return 2.0 * 64 * CHAINS * VECTOR_STEPS;
    }
    const int bytes = has_512(isa) ? 64 : !strcmp(isa, "avx2") ? 32 : 16;
    *sum += bytes == 64 ? multiply_512(VECTOR_STEPS) : bytes == 32 ? multiply_256(VECTOR_STEPS) : multiply_128(VECTOR_STEPS);
    return 2.0 * bytes / 4 * CHAINS * VECTOR_STEPS;
}

double bench_peak_measure(const char *isa, octavo_linear_precision precision, int threads)
{
    double operations = 0, best = 0;
    float sum = 0;
    for (int trial = 0; trial < 3; trial++) {
        operations = 0;
        const double start = machine_seconds();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : operations, sum)
        for (int t = 0; t < threads; t++) operations += work(isa, precision, &sum);
        const double rate = operations / (machine_seconds() - start + (sum == 0.125f ? 1e-9 : 0)) * 1e-12; /* keeps the sums alive */
        if (rate > best) best = rate;
    }
    return best;
}

const char *bench_peak_name(const char *isa, octavo_linear_precision precision)
{
    if (on_tiles(isa, precision)) return precision == OCTAVO_LINEAR_INT8 ? "amx int8" : "amx bf16";
    if (on_codes(isa, precision)) return "avx512 int8";
    if (has_512(isa)) return "avx512 f32";
    return !strcmp(isa, "avx2") ? "avx2 f32" : "sse f32";
}
