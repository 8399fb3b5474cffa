/* activate_body.h - activations and gated products; included after a level's vocabulary. */
#include "base/parallel.h"
#include "cpu/body/decode_math_body.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(activate)(const octavo_exec *exec, const octavo_activate_params *p);

enum { ACTIVATE_STRIP = 16 * ROWS_CHUNK }; /* elements of a task: an exponential each, some ten microseconds */

typedef struct activate_job {
    const octavo_activate_params *p;
    int64_t rows, cols, band, strips; /* a task is `band` rows of one strip of columns */
} activate_job;

/* x / (1 + exp(-t)): 0 times x where the exponential would leave float32, which keeps the NaN of -Inf. */
static inline vf32 activate_sigmoid(vf32 x, vf32 t)
{
    const vf32 e = v_exp(v_min(v_sub(v_zero(), t), v_splat(80.0f)));
    return v_if_less(t, v_splat(-80.0f), v_mul(x, v_zero()), v_div(x, v_add(v_splat(1.0f), e)));
}

/* x (1 + erf(x / sqrt(2))) / 2. Below 1 erf is an odd polynomial; from there exp of a polynomial is what misses of 1, and so all of
 * the result where x is negative. Past 4 it is less than half a unit in the last place of 1. */
static inline vf32 activate_gelu(vf32 x)
{
    const vf32 half = v_mul(x, v_splat(0.5f)), z = v_mul(v_abs(x), v_splat(0x1.6a09e6p-1f)), zz = v_mul(z, z);
    vf32 small = v_fma(zz, v_splat(0x1.496bc8p-14f), v_splat(-0x1.a3f7a6p-11f));
    small = v_fma(small, zz, v_splat(0x1.5405ccp-8f));
    small = v_fma(small, zz, v_splat(-0x1.b7f910p-6f));
    small = v_fma(small, zz, v_splat(0x1.ce2cf8p-4f));
    small = v_fma(small, zz, v_splat(-0x1.81273ep-2f));
    small = v_fma(small, zz, v_splat(0x1.06eba8p-3f));
    const vf32 erf = v_fma(small, z, z), signed_erf = v_if_less(x, v_zero(), v_sub(v_zero(), erf), erf);
    const vf32 held = v_min(z, v_splat(4.0f));
    vf32 power = v_fma(held, v_splat(-0x1.852dc4p-13f), v_splat(0x1.814d24p-9f));
    power = v_fma(power, held, v_splat(-0x1.654246p-6f));
    power = v_fma(power, held, v_splat(0x1.a60a96p-4f));
    power = v_fma(power, held, v_splat(0x1.46c582p-1f));
    power = v_fma(power, held, v_splat(0x1.2085b2p+0f));
    power = v_fma(power, held, v_splat(0x1.72e404p-12f));
    const vf32 missing = v_if_less(z, v_splat(4.0f), v_exp(v_sub(v_zero(), power)), v_zero());
    const vf32 large = v_if_less(x, v_zero(), missing, v_sub(v_splat(2.0f), missing));
    return v_mul(half, v_if_less(z, v_splat(1.0f), v_add(v_splat(1.0f), signed_erf), large));
}

/* (1 + tanh(t)) / 2 is 1 / (1 + exp(-2 t)). */
static inline vf32 activate_gelu_tanh(vf32 x)
{
    const vf32 cubic = v_mul(v_mul(v_splat(0.044715f), v_mul(x, x)), x);
    return activate_sigmoid(x, v_mul(v_splat(0x1.988454p+0f /* 2 sqrt(2 / pi) */), v_add(x, cubic)));
}

static inline __attribute__((always_inline)) vf32 activate_vector(octavo_activation activation, vf32 x)
{
    switch (activation) {
    case OCTAVO_ACTIVATION_RELU: return v_if_less(x, v_zero(), v_zero(), x);
    case OCTAVO_ACTIVATION_SILU: return activate_sigmoid(x, x);
    case OCTAVO_ACTIVATION_GELU: return activate_gelu(x);
    default:                     return activate_gelu_tanh(x);
    }
}

/* y may be gate or up. */
static inline __attribute__((always_inline)) void activate_floats(octavo_activation activation, float *y, const float *gate,
                                                                  const float *up, int64_t n)
{
    int64_t i = 0;
    for (; i + SIMD_F32 <= n; i += SIMD_F32) {
        const vf32 x = activate_vector(activation, v_load(gate + i));
        v_store(y + i, up ? v_mul(x, v_load(up + i)) : x);
    }
    if (i == n) return;
    const vf32 x = activate_vector(activation, v_load_part(gate + i, n - i));
    v_store_part(y + i, up ? v_mul(x, v_load_part(up + i, n - i)) : x, n - i);
}

/* n <= ROWS_CHUNK elements of row r from column c on. */
static void activate_chunk(const octavo_activate_params *p, int64_t r, int64_t c, int64_t n)
{
    float gate_buffer[ROWS_CHUNK], up_buffer[ROWS_CHUNK];
    const int64_t y_at = r * p->y.strides[0] + c;
    const float *gate = rows_at(gate_buffer, &p->gate, r * p->gate.strides[0] + c, n);
    const float *up = p->up.data ? rows_at(up_buffer, &p->up, r * p->up.strides[0] + c, n) : NULL;
    float *y = p->y.dtype == OCTAVO_F32 ? (float *)p->y.data + y_at : gate_buffer;
    switch (p->activation) {
    case OCTAVO_ACTIVATION_RELU: activate_floats(OCTAVO_ACTIVATION_RELU, y, gate, up, n); break;
    case OCTAVO_ACTIVATION_SILU: activate_floats(OCTAVO_ACTIVATION_SILU, y, gate, up, n); break;
    case OCTAVO_ACTIVATION_GELU: activate_floats(OCTAVO_ACTIVATION_GELU, y, gate, up, n); break;
    default:                     activate_floats(OCTAVO_ACTIVATION_GELU_TANH, y, gate, up, n); break;
    }
    if (y == gate_buffer) rows_store(&p->y, y_at, y, n);
}

static void activate_task(void *argument, int64_t index)
{
    const activate_job *job = argument;
    const int64_t row = index / job->strips * job->band, first = index % job->strips * ACTIVATE_STRIP;
    const int64_t end = first + ACTIVATE_STRIP < job->cols ? first + ACTIVATE_STRIP : job->cols;
    for (int64_t r = row; r < row + job->band && r < job->rows; r++)
        for (int64_t c = first; c < end; c += ROWS_CHUNK) activate_chunk(job->p, r, c, end - c < ROWS_CHUNK ? end - c : ROWS_CHUNK);
}

octavo_status SIMD(activate)(const octavo_exec *exec, const octavo_activate_params *p)
{
    activate_job job = { .p = p, .rows = p->gate.shape[0], .cols = p->gate.shape[1] };
    job.strips = (job.cols - 1) / ACTIVATE_STRIP + 1;
    job.band = job.cols < ACTIVATE_STRIP ? ACTIVATE_STRIP / job.cols : 1;
    octavo_parallel(exec, ((job.rows - 1) / job.band + 1) * job.strips, activate_task, &job);
    return OCTAVO_OK;
}
