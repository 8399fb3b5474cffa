/* bench_gemm_plain.c - a plain matrix product for builds without oneDNN: a row of W at a time, its dot products by the compiler. */
#include "bench_element.h"
#include "bench_gemm.h"
#include "cli.h"
#include <stdlib.h>

struct bench_gemm {
    int64_t tokens, rows, hidden;
    octavo_dtype dtype;
    int threads;
};

const char *bench_gemm_name(void) { return "plain"; }

int bench_gemm_create(int64_t tokens, int64_t rows, int64_t hidden, octavo_dtype dtype, int threads, bench_gemm **gemm)
{
    *gemm = malloc(sizeof **gemm);
    if (!*gemm) return cli_refuse("there is no memory for the plain product");
    **gemm = (bench_gemm){ tokens, rows, hidden, dtype, threads };
    return EXIT_DONE;
}

void bench_gemm_destroy(bench_gemm *gemm) { free(gemm); }

static float dot_f32(const float *a, const float *b, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static float dot_bf16(const uint16_t *a, const uint16_t *b, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += element_from_bf16(a[i]) * element_from_bf16(b[i]);
    return sum;
}

int bench_gemm_run(bench_gemm *gemm, const void *h, const void *w, float *y)
{
    const int64_t rows = gemm->rows, hidden = gemm->hidden;
#pragma omp parallel for num_threads(gemm->threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t t = 0; t < gemm->tokens; t++)
            y[t * rows + row] = gemm->dtype == OCTAVO_F32 ? dot_f32((const float *)h + t * hidden, (const float *)w + row * hidden, hidden)
                                                          : dot_bf16((const uint16_t *)h + t * hidden, (const uint16_t *)w + row * hidden, hidden);
    return EXIT_DONE;
}
