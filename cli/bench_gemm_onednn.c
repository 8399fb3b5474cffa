/* bench_gemm_onednn.c - oneDNN's matrix product; the one file that knows its versions 2 and 3. */
#include "bench_gemm.h"
#include "cli.h"
#include <dnnl.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { H, W, Y, OPERANDS };

struct bench_gemm {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_memory_t memory[OPERANDS];
    int threads;
};

const char *bench_gemm_name(void) { return "onednn"; }

static void use_threads(int threads)
{
#ifdef _OPENMP
    omp_set_num_threads(threads); /* oneDNN asks for nothing else */
#else
    (void)threads;
#endif
}

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
static const_dnnl_memory_desc_t layout_of(const layout *of) { return *of; }
static void layout_fini(layout *of) { dnnl_memory_desc_destroy(*of); }
static dnnl_status_t layout_init(layout *of, dnnl_dims_t sizes, dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(of, 2, sizes, type, strides);
}
static dnnl_status_t describe_product(dnnl_primitive_desc_t *product, dnnl_engine_t engine, const layout of[OPERANDS])
{
    return dnnl_matmul_primitive_desc_create(product, engine, of[H], of[W], NULL, of[Y], NULL);
}
#else
typedef dnnl_memory_desc_t layout;
static const dnnl_memory_desc_t *layout_of(const layout *of) { return of; }
static void layout_fini(layout *of) { (void)of; }
static dnnl_status_t layout_init(layout *of, dnnl_dims_t sizes, dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(of, 2, sizes, type, strides);
}
static dnnl_status_t describe_product(dnnl_primitive_desc_t *product, dnnl_engine_t engine, const layout of[OPERANDS])
{
    dnnl_matmul_desc_t matmul;
    const dnnl_status_t status = dnnl_matmul_desc_init(&matmul, &of[H], &of[W], NULL, &of[Y]);
    return status == dnnl_success ? dnnl_primitive_desc_create(product, &matmul, NULL, engine, NULL) : status;
}
#endif

static dnnl_status_t prepare(bench_gemm *gemm, int64_t tokens, int64_t rows, int64_t hidden, octavo_dtype dtype)
{
    const dnnl_data_type_t type = dtype == OCTAVO_BF16 ? dnnl_bf16 : dnnl_f32, types[OPERANDS] = { type, type, dnnl_f32 };
    dnnl_dims_t sizes[OPERANDS] = { { tokens, hidden }, { hidden, rows }, { tokens, rows } };
    dnnl_dims_t strides[OPERANDS] = { { hidden, 1 }, { 1, hidden }, { rows, 1 } };
    layout layouts[OPERANDS];
    dnnl_primitive_desc_t described = NULL;
    int made = 0;
    dnnl_status_t status = dnnl_engine_create(&gemm->engine, dnnl_cpu, 0);
    if (status == dnnl_success) status = dnnl_stream_create(&gemm->stream, gemm->engine, dnnl_stream_default_flags);
    for (int i = 0; status == dnnl_success && i < OPERANDS; i++) {
        status = layout_init(&layouts[i], sizes[i], types[i], strides[i]);
        if (status != dnnl_success) break;
        made++;
        status = dnnl_memory_create(&gemm->memory[i], layout_of(&layouts[i]), gemm->engine, DNNL_MEMORY_NONE);
    }
    if (status == dnnl_success) status = describe_product(&described, gemm->engine, layouts);
    if (status == dnnl_success) status = dnnl_primitive_create(&gemm->product, described);
    if (described) dnnl_primitive_desc_destroy(described);
    while (made > 0) layout_fini(&layouts[--made]);
    return status;
}

int bench_gemm_create(int64_t tokens, int64_t rows, int64_t hidden, octavo_dtype dtype, int threads, bench_gemm **gemm)
{
    *gemm = calloc(1, sizeof **gemm);
    if (!*gemm) return cli_refuse("there is no memory for oneDNN's product");
    (*gemm)->threads = threads;
    use_threads(threads);
    const dnnl_status_t status = prepare(*gemm, tokens, rows, hidden, dtype);
    if (status == dnnl_success) return EXIT_DONE;
    bench_gemm_destroy(*gemm);
    *gemm = NULL;
    return cli_refuse("oneDNN does not multiply %s here: status %d", octavo_dtype_name(dtype), (int)status);
}

void bench_gemm_destroy(bench_gemm *gemm)
{
    if (!gemm) return;
    for (int i = 0; i < OPERANDS; i++)
        if (gemm->memory[i]) dnnl_memory_destroy(gemm->memory[i]);
    if (gemm->product) dnnl_primitive_destroy(gemm->product);
    if (gemm->stream) dnnl_stream_destroy(gemm->stream);
    if (gemm->engine) dnnl_engine_destroy(gemm->engine);
    free(gemm);
}

int bench_gemm_run(bench_gemm *gemm, const void *h, const void *w, float *y)
{
    void *data[OPERANDS] = { (void *)(uintptr_t)h, (void *)(uintptr_t)w, y };
    use_threads(gemm->threads);
    dnnl_status_t status = dnnl_success;
    for (int i = 0; status == dnnl_success && i < OPERANDS; i++) status = dnnl_memory_set_data_handle(gemm->memory[i], data[i]);
    const dnnl_exec_arg_t arguments[] = { { DNNL_ARG_SRC, gemm->memory[H] }, { DNNL_ARG_WEIGHTS, gemm->memory[W] },
                                          { DNNL_ARG_DST, gemm->memory[Y] } };
    if (status == dnnl_success) status = dnnl_primitive_execute(gemm->product, gemm->stream, OPERANDS, arguments);
    if (status == dnnl_success) status = dnnl_stream_wait(gemm->stream);
    return status == dnnl_success ? EXIT_DONE : cli_refuse("oneDNN's product failed: status %d", (int)status);
}
