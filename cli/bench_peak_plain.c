/* bench_peak_plain.c - the peak by plain float32 products and sums, which the compiler widens as far as the build allows. */
#include "bench_peak.h"
#include "machine.h"
#include <stdint.h>
#include <string.h>

typedef float wide __attribute__((vector_size(16)));
enum { CHAINS = 12, STEPS = 1 << 21 };

static float multiply(int64_t steps)
{
    wide sums[CHAINS];
    float total = 0;
    memset(sums, 0, sizeof sums);
    wide a = { 0.3f, -0.7f, 0.9f, -0.1f };
    const wide b = { 0.5f, 0.25f, -0.75f, 0.6f };
    for (int64_t i = 0; i < steps; i++) {
        for (int c = 0; c < CHAINS; c++) sums[c] = sums[c] * b + a;
        __asm__ volatile("" : "+m"(a));
    }
    for (int c = 0; c < CHAINS; c++) total += sums[c][0];
    return total;
}

double bench_peak_measure(const char *isa, octavo_linear_precision precision, int threads)
{
    (void)isa, (void)precision;
    float total = 0;
    multiply(STEPS / 64);
    const double start = machine_seconds();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : total)
    for (int t = 0; t < threads; t++) total += multiply(STEPS);
    const double seconds = machine_seconds() - start + (total == 0.125f ? 1e-9 : 0); /* keeps the sums alive */
    return 2.0 * 4 * CHAINS * STEPS * threads / seconds * 1e-12;
}

const char *bench_peak_name(const char *isa, octavo_linear_precision precision)
{
    (void)isa, (void)precision;
    return "f32";
}
