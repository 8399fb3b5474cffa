/* cuda_devices.cu - the plug-in's entry: devices, memory, streams, graphs. */
#include "cuda/cuda_blas.h"
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "octavo/version.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

static const octavo_cuda_host *host; /* set once, by the entry, before anything else is called */

const octavo_cuda_host *octavo_cuda_host_get(void) { return host; }

octavo_status octavo_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return OCTAVO_OK;
    cudaGetLastError(); /* an error that is not sticky ends here */
    const octavo_status status = error == cudaErrorMemoryAllocation ? OCTAVO_E_NOMEM : OCTAVO_E_DEVICE;
    if (error == cudaErrorNoKernelImageForDevice)
        return octavo_cuda_fail(status, "%s: this build of the backend holds no code for the GPU, see OCTAVO_CUDA_CODE of its CMake configuration", what);
    return octavo_cuda_fail(status, "%s: %s", what, cudaGetErrorString(error));
}

octavo_status octavo_cuda_shared_most(int *bytes)
{
    enum { DECLARED_MOST = 2048 };
    int device = 0;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDevice(&device), "cudaGetDevice"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute"));
    *bytes -= DECLARED_MOST;
    return OCTAVO_OK;
}

octavo_status octavo_cuda_machine_of(octavo_cuda_machine *machine)
{
    int device = 0;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDevice(&device), "cudaGetDevice"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaDeviceGetAttribute(&machine->processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute"));
    return octavo_cuda_check(cudaDeviceGetAttribute(&machine->major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
}

/* Makes `index` the thread's device for one function and gives the thread its own back. */
namespace {
class on_device {
    int before = -1;

public:
    octavo_status status;
    explicit on_device(int index)
    {
        if (cudaGetDevice(&before) != cudaSuccess) before = -1;
        status = before == index ? OCTAVO_OK : octavo_cuda_check(cudaSetDevice(index), "cudaSetDevice");
    }
    ~on_device()
    {
        if (before >= 0) cudaSetDevice(before);
    }
    on_device(const on_device &) = delete;
    on_device &operator=(const on_device &) = delete;
};
}

#define ON_DEVICE(index)          \
    const on_device here_(index); \
    if (here_.status != OCTAVO_OK) return here_.status

static octavo_status device_count(int *count)
{
    *count = 0;
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error == cudaSuccess) return *count ? OCTAVO_OK : octavo_cuda_fail(OCTAVO_E_DEVICE, "there is no GPU in this machine");
    cudaGetLastError();
    *count = 0;
    if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice)
        return octavo_cuda_fail(OCTAVO_E_DEVICE, "%s", error == cudaErrorNoDevice
                                ? "there is no GPU in this machine, or its driver does not show one"
                                : "the NVIDIA driver is missing, or older than the CUDA run time needs");
    return octavo_cuda_check(error, "cudaGetDeviceCount");
}

static octavo_status device_info(int index, octavo_device_info *info)
{
    cudaDeviceProp of;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDeviceProperties(&of, index), "cudaGetDeviceProperties"));
    std::snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, of.name);
    info->memory_bytes = (int64_t)of.totalGlobalMem;
    info->l2_bytes = of.l2CacheSize;
    info->multiprocessors = of.multiProcessorCount;
    info->compute_major = of.major;
    info->compute_minor = of.minor;
    return OCTAVO_OK;
}

/* What OCTAVO_CUDA_LEVEL of the environment allows: everything, or sm80 alone. */
static octavo_status level_allowed(bool *sm90)
{
    const char *most = std::getenv("OCTAVO_CUDA_LEVEL");
    *sm90 = !most || !*most || !std::strcmp(most, "sm90");
    if (*sm90 || !std::strcmp(most, "sm80")) return OCTAVO_OK;
    return octavo_cuda_fail(OCTAVO_E_ARGUMENT, "OCTAVO_CUDA_LEVEL is '%s', expected sm80 or sm90", most);
}

static octavo_status install(int index, octavo_kernels *kernels, const char **level)
{
    octavo_device_info info = {};
    bool sm90;
    OCTAVO_CUDA_TRY(level_allowed(&sm90));
    OCTAVO_CUDA_TRY(device_info(index, &info));
    ON_DEVICE(index);
    octavo_cuda_blas_open();
    octavo_install_sm80(kernels);
    *level = "sm80";
    if (info.compute_major == 9 && sm90) octavo_install_sm90(kernels), *level = "sm90";
    return OCTAVO_OK;
}

/* ---- memory and streams ---- */

static octavo_status allocate(int index, size_t bytes, void **memory)
{
    ON_DEVICE(index);
    *memory = nullptr;
    const cudaError_t error = cudaMalloc(memory, bytes ? bytes : 1);
    if (error == cudaSuccess) return OCTAVO_OK;
    *memory = nullptr;
    if (error != cudaErrorMemoryAllocation) return octavo_cuda_check(error, "cudaMalloc");
    cudaGetLastError();
    return octavo_cuda_fail(OCTAVO_E_NOMEM, "no memory for %zu bytes on cuda:%d", bytes, index);
}

static void release(int index, void *memory)
{
    const on_device here(index);
    if (here.status == OCTAVO_OK) cudaFree(memory);
}

static octavo_status copy_on(int index, void *stream, void *to, const void *from, size_t bytes, cudaMemcpyKind kind, const char *what)
{
    ON_DEVICE(index);
    return octavo_cuda_check(cudaMemcpyAsync(to, from, bytes, kind, (cudaStream_t)stream), what);
}

static octavo_status synchronize(int index, void *stream)
{
    ON_DEVICE(index);
    return octavo_cuda_check(cudaStreamSynchronize((cudaStream_t)stream), "waiting for the stream");
}

/* Pageable host memory is staged before the call returns, so it is the caller's again. */
static octavo_status upload(int index, void *stream, void *to, const void *from, size_t bytes)
{
    return copy_on(index, stream, to, from, bytes, cudaMemcpyHostToDevice, "copying to the device");
}

static octavo_status download(int index, void *stream, void *to, const void *from, size_t bytes)
{
    OCTAVO_CUDA_TRY(copy_on(index, stream, to, from, bytes, cudaMemcpyDeviceToHost, "copying from the device"));
    return synchronize(index, stream);
}

static octavo_status copy(int index, void *stream, void *to, const void *from, size_t bytes)
{
    return copy_on(index, stream, to, from, bytes, cudaMemcpyDeviceToDevice, "copying on the device");
}

static octavo_status stream_create(int index, void **stream)
{
    ON_DEVICE(index);
    cudaStream_t made = nullptr;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreate"));
    *stream = made;
    return OCTAVO_OK;
}

static void stream_destroy(int index, void *stream)
{
    const on_device here(index);
    if (here.status == OCTAVO_OK) cudaStreamDestroy((cudaStream_t)stream);
}

/* ---- graphs ---- */

struct recorded {
    cudaGraphExec_t graph;
    cudaEvent_t before, after;
};

static octavo_status graph_begin(int index, void *stream)
{
    ON_DEVICE(index);
    return octavo_cuda_check(cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeThreadLocal), "recording a graph");
}

static void graph_destroy(int index, void *graph)
{
    const on_device here(index);
    recorded *of = (recorded *)graph;
    if (of->before) cudaEventDestroy(of->before);
    if (of->after) cudaEventDestroy(of->after);
    if (of->graph) cudaGraphExecDestroy(of->graph);
    delete of;
}

static octavo_status graph_end(int index, void *stream, void **graph)
{
    ON_DEVICE(index);
    cudaGraph_t captured = nullptr;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaStreamEndCapture((cudaStream_t)stream, &captured), "recording a graph"));
    recorded *made = new (std::nothrow) recorded();
    if (!made) return octavo_cuda_fail(OCTAVO_E_NOMEM, "no memory for a graph");
    octavo_status status = octavo_cuda_check(cudaGraphInstantiate(&made->graph, captured, 0), "making a graph");
    if (status == OCTAVO_OK) status = octavo_cuda_check(cudaEventCreate(&made->before), "cudaEventCreate");
    if (status == OCTAVO_OK) status = octavo_cuda_check(cudaEventCreate(&made->after), "cudaEventCreate");
    cudaGraphDestroy(captured);
    if (status != OCTAVO_OK) graph_destroy(index, made);
    else *graph = made;
    return status;
}

static octavo_status graph_replay(int index, void *graph, void *stream)
{
    ON_DEVICE(index);
    return octavo_cuda_check(cudaGraphLaunch(((recorded *)graph)->graph, (cudaStream_t)stream), "replaying a graph");
}

static octavo_status graph_time(int index, void *graph, void *stream, double *seconds)
{
    ON_DEVICE(index);
    const recorded *of = (const recorded *)graph;
    float milliseconds = 0.0f;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaEventRecord(of->before, (cudaStream_t)stream), "cudaEventRecord"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGraphLaunch(of->graph, (cudaStream_t)stream), "replaying a graph"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaEventRecord(of->after, (cudaStream_t)stream), "cudaEventRecord"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaEventSynchronize(of->after), "waiting for the graph"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaEventElapsedTime(&milliseconds, of->before, of->after), "cudaEventElapsedTime"));
    *seconds = 1e-3 * (double)milliseconds;
    return OCTAVO_OK;
}

static octavo_status checksum(int index, void *stream, const void *data, size_t bytes, uint64_t *sum)
{
    ON_DEVICE(index);
    return octavo_cuda_checksum((cudaStream_t)stream, data, bytes, sum);
}

extern "C" const octavo_cuda_backend *octavo_cuda_backend_of(const octavo_cuda_host *from)
{
    static octavo_cuda_backend backend;
    host = from;
    backend = { sizeof backend, octavo_version(), octavo_build_id(), device_count, device_info, install, allocate, release, upload, download,
                copy, synchronize, stream_create, stream_destroy, checksum, graph_begin, graph_end, graph_replay, graph_time, graph_destroy };
    return &backend;
}
