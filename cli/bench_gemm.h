/* bench_gemm.h - the matrix product that `octavo bench linear` and `kproj` are compared with: oneDNN's, or a plain one where it is missing. */
#ifndef OCTAVO_CLI_BENCH_GEMM_H
#define OCTAVO_CLI_BENCH_GEMM_H

#include "octavo/tensor.h"

/* y [tokens, rows] f32 = h [tokens, hidden] x W^T [rows, hidden], all row-major; h and W of one dtype, f32 or bf16. */
typedef struct bench_gemm bench_gemm;

/* "onednn" or "plain". */
const char *bench_gemm_name(void);
/* EXIT_REFUSED after a sentence; *gemm is then NULL. Everything that can be prepared is, apart from the weights. */
int bench_gemm_create(int64_t tokens, int64_t rows, int64_t hidden, octavo_dtype dtype, int threads, bench_gemm **gemm);
void bench_gemm_destroy(bench_gemm *gemm); /* NULL is fine */
int bench_gemm_run(bench_gemm *gemm, const void *h, const void *w, float *y);

#endif
