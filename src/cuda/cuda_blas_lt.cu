/* cuda_blas_lt.cu - cuBLASLt, loaded at run time. Its matrices are column-major: y^T [out, tokens] = (w^T)^T x^T. */
#include "cuda/cuda_blas.h"
#include "cuda/cuda_call.h"
#include <cublasLt.h>
#include <dlfcn.h>
#include <mutex>

#define TEXT_OF(number) TEXT_OF_(number)
#define TEXT_OF_(number) #number

enum { DEVICES_MOST = 64, WORKSPACE_ALIGN = 256 };

/* What is used of the library. */
#define FUNCTIONS(X)                     \
    X(cublasLtCreate)                    \
    X(cublasLtMatmul)                    \
    X(cublasLtMatmulAlgoGetHeuristic)    \
    X(cublasLtMatmulDescCreate)          \
    X(cublasLtMatmulDescDestroy)         \
    X(cublasLtMatmulDescSetAttribute)    \
    X(cublasLtMatmulPreferenceCreate)    \
    X(cublasLtMatmulPreferenceDestroy)   \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatrixLayoutCreate)        \
    X(cublasLtMatrixLayoutDestroy)

#define X(name) static decltype(&name) call_##name;
FUNCTIONS(X)
#undef X

static std::mutex opening;
static void *library;
static cublasLtHandle_t handles[DEVICES_MOST]; /* set once a device is open, before any call on it */

static bool load(void)
{
    if (library) return true;
    void *loaded = dlopen("libcublasLt.so." TEXT_OF(CUBLAS_VER_MAJOR), RTLD_NOW | RTLD_LOCAL);
    if (!loaded) return false;
    bool whole = true;
#define X(name) whole = (call_##name = (decltype(&name))dlsym(loaded, #name)) != nullptr && whole;
    FUNCTIONS(X)
#undef X
    if (whole) library = loaded;
    else dlclose(loaded);
    return whole;
}

void octavo_cuda_blas_open(void)
{
    const std::lock_guard<std::mutex> lock(opening);
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess || device >= DEVICES_MOST || handles[device] || !load()) return;
    if (call_cublasLtCreate(&handles[device]) != CUBLAS_STATUS_SUCCESS) handles[device] = nullptr;
}

namespace {
/* Everything that describes one product; destroyed with it. */
class description {
public:
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
    bool made = false;

    explicit description(const octavo_cuda_product &of)
    {
        const cublasOperation_t transposed = CUBLAS_OP_T;
        const cudaDataType_t type = type_of(of.dtype), scale = CUDA_R_32F;
        made = call_cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, scale) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatrixLayoutCreate(&w, type, (uint64_t)of.in, (uint64_t)of.out, of.w_stride) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatrixLayoutCreate(&x, type, (uint64_t)of.in, (uint64_t)of.tokens, of.x_stride) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatrixLayoutCreate(&y, type_of(of.y_dtype), (uint64_t)of.out, (uint64_t)of.tokens, of.y_stride) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS && set_bias(of) && set_preference(of);
    }
    ~description()
    {
        if (preference) call_cublasLtMatmulPreferenceDestroy(preference);
        if (y) call_cublasLtMatrixLayoutDestroy(y);
        if (x) call_cublasLtMatrixLayoutDestroy(x);
        if (w) call_cublasLtMatrixLayoutDestroy(w);
        if (operation) call_cublasLtMatmulDescDestroy(operation);
    }
    description(const description &) = delete;
    description &operator=(const description &) = delete;

private:
    static cudaDataType_t type_of(octavo_dtype dtype) { return dtype == OCTAVO_F32 ? CUDA_R_32F : dtype == OCTAVO_F16 ? CUDA_R_16F : CUDA_R_16BF; }

    bool set_bias(const octavo_cuda_product &of)
    {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        return !of.bias ||
               (call_cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) == CUBLAS_STATUS_SUCCESS &&
                call_cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &of.bias, sizeof of.bias) == CUBLAS_STATUS_SUCCESS);
    }

    /* Parts of a sum that is split meet in float32. */
    bool set_preference(const octavo_cuda_product &of)
    {
        const uint64_t bytes = of.workspace_bytes;
        const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        return call_cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes) == CUBLAS_STATUS_SUCCESS &&
               call_cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes) ==
                   CUBLAS_STATUS_SUCCESS;
    }
};
}

static octavo_status run(cublasLtHandle_t handle, const octavo_exec *exec, const octavo_cuda_product &of, bool *done)
{
    const description its(of);
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    if (!its.made || call_cublasLtMatmulAlgoGetHeuristic(handle, its.operation, its.w, its.x, its.y, its.y, its.preference, 1, &best, &found) !=
                         CUBLAS_STATUS_SUCCESS || found == 0)
        return OCTAVO_OK;
    const float one = 1.0f, before = of.store == OCTAVO_STORE_ADD ? 1.0f : 0.0f;
    const cublasStatus_t status = call_cublasLtMatmul(handle, its.operation, &one, of.w, its.w, of.x, its.x, &before, of.y, its.y, of.y, its.y,
                                                      &best.algo, of.workspace, of.workspace_bytes, octavo_cuda_stream(exec));
    *done = true;
    if (status == CUBLAS_STATUS_SUCCESS) return OCTAVO_OK;
    return octavo_cuda_fail(OCTAVO_E_DEVICE, "cuBLASLt failed with status %d on %lld x %lld by %lld tokens", (int)status, (long long)of.out,
                            (long long)of.in, (long long)of.tokens);
}

octavo_status octavo_cuda_blas_multiply(const octavo_exec *exec, const octavo_cuda_product *product, bool *done)
{
    octavo_cuda_product of = *product;
    int device = 0;
    *done = false;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDevice(&device), "cudaGetDevice"));
    if (device >= DEVICES_MOST || !handles[device]) return OCTAVO_OK;
    const size_t skipped = (WORKSPACE_ALIGN - (uintptr_t)of.workspace % WORKSPACE_ALIGN) % WORKSPACE_ALIGN;
    if (of.workspace_bytes > skipped) of.workspace = (uint8_t *)of.workspace + skipped, of.workspace_bytes -= skipped;
    else of.workspace = nullptr, of.workspace_bytes = 0;
    return run(handles[device], exec, of, done);
}
