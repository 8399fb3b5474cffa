/* cuda_blas_none.cu - a toolkit without cuBLASLt: no product is taken. */
#include "cuda/cuda_blas.h"

void octavo_cuda_blas_open(void) {}

octavo_status octavo_cuda_blas_multiply(const octavo_exec *exec, const octavo_cuda_product *product, bool *done)
{
    (void)exec, (void)product;
    *done = false;
    return OCTAVO_OK;
}
