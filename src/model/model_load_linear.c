/* model_load_linear.c - one linear layer of a checkpoint: used as it lies, rounded to bf16, or quantised, as the precision asks. */
#include "base/checked.h"
#include "base/error.h"
#include "base/parallel.h"
#include "format/bf16.h"
#include "model/model_load.h"
#include "octavo/quant.h"
#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 16, TILE_COLS = 256, CHUNK_ELEMENTS = 4 << 20, CODES_ALIGN = 64 };

/* W [out, in] as the file has it: its rows or, in a transposed file, its columns from `first`. */
typedef struct source {
    octavo_stored weight, scale; /* scale.view.data NULL: the weight is floats */
    int64_t block_rows, block_cols;
    octavo_weight_order order;
    int64_t out, in, first, total;
} source;

/* What becomes of it: codes [out, in] of `dtype` and, for eight bits, scales [out] behind them. */
typedef struct conversion {
    const source *from;
    octavo_dtype dtype;
    int64_t first_row, rows;
    uint8_t *codes;  /* bf16 alone */
    float *floats;   /* [rows, in] */
} conversion;

static size_t scales_at(const source *s) { return ((size_t)(s->out * s->in) + CODES_ALIGN - 1) / CODES_ALIGN * CODES_ALIGN; }

/* Row `row` of W, `count` columns from `col`, as floats. */
static void read_row(const source *s, int64_t row, int64_t col, int64_t count, float *out)
{
    const int64_t r = s->first + row;
    if (s->order == OCTAVO_WEIGHT_IN_OUT) octavo_stored_floats(&s->weight.view, col * s->total + r, s->total, count, out);
    else octavo_stored_floats(&s->weight.view, r * s->in + col, 1, count, out);
    if (!s->scale.view.data) return;
    const int64_t width = s->block_cols ? s->block_cols : s->in, blocks = (s->in - 1) / width + 1;
    const int64_t line = s->block_rows ? r / s->block_rows * blocks : 0;
    float scale = 1;
    for (int64_t i = 0; i < count; i++) {
        if (i == 0 || (col + i) % width == 0) octavo_stored_floats(&s->scale.view, line + (col + i) / width, 1, 1, &scale);
        out[i] *= scale;
    }
}

/* A tile of a few rows: a transposed file is then read in whole cache lines. */
static void convert_tile(void *argument, int64_t index)
{
    const conversion *c = argument;
    const int64_t across = (c->from->in - 1) / TILE_COLS + 1, col = index % across * TILE_COLS;
    const int64_t begin = index / across * TILE_ROWS, end = begin + TILE_ROWS < c->rows ? begin + TILE_ROWS : c->rows;
    const int64_t count = col + TILE_COLS < c->from->in ? TILE_COLS : c->from->in - col;
    for (int64_t row = begin; row < end; row++) {
        float line[TILE_COLS];
        const int64_t at = row * c->from->in + col;
        read_row(c->from, c->first_row + row, col, count, line);
        if (c->floats) memcpy(c->floats + at, line, (size_t)count * sizeof *line);
        else if (c->dtype == OCTAVO_F32) memcpy(c->codes + 4 * at, line, (size_t)count * sizeof *line);
        else for (int64_t i = 0; i < count; i++) {
            const uint16_t code = octavo_bf16_from_float(line[i]);
            memcpy(c->codes + 2 * (at + i), &code, sizeof code);
        }
    }
}

static void convert(const octavo_loader *loader, conversion *c)
{
    const int64_t across = (c->from->in - 1) / TILE_COLS + 1, down = (c->rows - 1) / TILE_ROWS + 1;
    octavo_parallel(&loader->host, across * down, convert_tile, c);
}

static octavo_status fill_floats(const octavo_loader *loader, const void *argument, void *to)
{
    conversion c = *(const conversion *)argument;
    c.rows = c.from->out;
    c.codes = to;
    convert(loader, &c);
    return OCTAVO_OK;
}

static octavo_status quantize_rows(const octavo_loader *loader, const conversion *c, octavo_tensor x, int64_t first_row, uint8_t *to)
{
    const source *s = c->from;
    octavo_quantize_params p = OCTAVO_QUANTIZE_PARAMS_INIT;
    p.x = x;
    p.codes = octavo_tensor_view(to + first_row * s->in, c->dtype, 2, x.shape);
    p.scales = (float *)(void *)(to + scales_at(s)) + first_row;
    p.granularity = OCTAVO_PER_TOKEN; /* a row of W is a channel of the product */
    const octavo_status status = octavo_quantize(&loader->host, &p);
    if (status != OCTAVO_E_NONFINITE) return status;
    return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' holds NaN or Inf, which cannot be quantised", s->weight.label, s->weight.name);
}

static octavo_status fill_quantized(const octavo_loader *loader, const void *argument, void *to)
{
    conversion c = *(const conversion *)argument;
    const source *s = c.from;
    if (octavo_stored_is_float(&s->weight) && octavo_stored_is_aligned(&s->weight) && s->order == OCTAVO_WEIGHT_OUT_IN) {
        uint8_t *data = (uint8_t *)s->weight.view.data + (size_t)(s->first * s->in) * octavo_dtype_bytes(s->weight.view.dtype);
        return quantize_rows(loader, &c, octavo_tensor_view(data, s->weight.view.dtype, 2, (int64_t[]){ s->out, s->in }), 0, to);
    }
    const int64_t most = CHUNK_ELEMENTS / s->in > 0 ? CHUNK_ELEMENTS / s->in : 1, chunk = most < s->out ? most : s->out;
    c.floats = malloc((size_t)(chunk * s->in) * sizeof *c.floats);
    if (!c.floats) return octavo_fail(OCTAVO_E_NOMEM, "no memory to quantise %lld rows", (long long)chunk);
    octavo_status status = OCTAVO_OK;
    for (c.first_row = 0; c.first_row < s->out && status == OCTAVO_OK; c.first_row += chunk) {
        c.rows = s->out - c.first_row < chunk ? s->out - c.first_row : chunk;
        convert(loader, &c);
        const octavo_tensor x = octavo_tensor_view(c.floats, OCTAVO_F32, 2, (int64_t[]){ c.rows, s->in });
        status = quantize_rows(loader, &c, x, c.first_row, to);
    }
    free(c.floats);
    return status;
}

/* The dtype that the precision asks for. */
static octavo_dtype wanted_dtype(octavo_linear_precision precision, octavo_dtype stored)
{
    switch (precision) {
    case OCTAVO_LINEAR_FP8:  return OCTAVO_E4M3;
    case OCTAVO_LINEAR_INT8: return OCTAVO_INT8;
    case OCTAVO_LINEAR_BF16: return stored == OCTAVO_E4M3 ? OCTAVO_E4M3 : OCTAVO_BF16;
    default:                 return stored;
    }
}

static octavo_status find_source(const octavo_loader *loader, const octavo_linear_request *r, source *s)
{
    memset(s, 0, sizeof *s);
    const octavo_model_names *names = loader->description->family->names;
    const int is_table = r->module == names->embedding || r->module == names->positions || r->module == names->head;
    s->order = is_table ? OCTAVO_WEIGHT_OUT_IN : loader->description->family->weight_order;
    s->out = r->out;
    s->in = r->in;
    s->first = r->first;
    s->total = r->total;
    const int turned = s->order == OCTAVO_WEIGHT_IN_OUT;
    OCTAVO_TRY(octavo_load_find(loader, r->module, ".weight", OCTAVO_JSON_REQUIRED, &s->weight));
    OCTAVO_TRY(octavo_load_check_shape(&s->weight, 2, (int64_t[]){ turned ? r->in : r->total, turned ? r->total : r->in }));
    if (octavo_stored_is_float(&s->weight)) return OCTAVO_OK;
    if (turned || r->total != r->out)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype F8_E4M3, which is not supported in this architecture", s->weight.label,
                           s->weight.name);
    return octavo_load_weight_scale(loader, r->module, &s->weight, &s->scale, &s->block_rows, &s->block_cols);
}

static octavo_tensor on_device(const octavo_loader *loader, const void *data, octavo_dtype dtype, int64_t rows, int64_t cols)
{
    octavo_tensor tensor = octavo_tensor_view((void *)(uintptr_t)data, dtype, 2, (int64_t[]){ rows, cols });
    tensor.device_kind = octavo_device_kind_of(loader->exec.device);
    const char *number = strchr(octavo_device_name(loader->exec.device), ':'); /* cuda:1 */
    tensor.device_index = number ? (int32_t)strtol(number + 1, NULL, 10) : 0;
    return tensor;
}

static octavo_status quantize(octavo_loader *loader, const source *s, octavo_dtype dtype, octavo_weight *weight)
{
    const conversion c = { .from = s, .dtype = dtype };
    const void *at;
    OCTAVO_TRY(octavo_load_make(loader, scales_at(s) + (size_t)s->out * sizeof(float), fill_quantized, &c, &at));
    weight->codes = on_device(loader, at, dtype, s->out, s->in);
    weight->scales = octavo_load_is_measuring(loader) ? at : (const float *)(const void *)((const uint8_t *)at + scales_at(s));
    weight->block_rows = 1;
    weight->block_cols = 0;
    return OCTAVO_OK;
}

/* The file's own bytes, or those rounded and put in order. */
static octavo_status keep(octavo_loader *loader, const source *s, octavo_dtype dtype, octavo_weight *weight)
{
    const void *at;
    const octavo_dtype stored = s->weight.view.dtype;
    const size_t element = octavo_dtype_bytes(dtype), bytes = (size_t)(s->out * s->in) * element;
    if (dtype == stored && s->order == OCTAVO_WEIGHT_OUT_IN && octavo_stored_is_aligned(&s->weight)) {
        OCTAVO_TRY(octavo_load_place(loader, (const uint8_t *)s->weight.view.data + (size_t)(s->first * s->in) * element, bytes, &at));
    } else {
        const octavo_dtype made = dtype == OCTAVO_F16 ? OCTAVO_F32 : dtype; /* an F16 that has to move anyway */
        const conversion c = { .from = s, .dtype = made };
        OCTAVO_TRY(octavo_load_make(loader, (size_t)(s->out * s->in) * octavo_dtype_bytes(made), fill_floats, &c, &at));
        dtype = made;
    }
    weight->codes = on_device(loader, at, dtype, s->out, s->in);
    weight->scales = NULL;
    weight->block_rows = s->block_rows;
    weight->block_cols = s->block_cols;
    return s->scale.view.data ? octavo_load_scale_values(loader, &s->scale, &weight->scales) : OCTAVO_OK;
}

/* Scales of inputs: of use where codes of x are e4m3, too. */
static octavo_status load_x_scale(octavo_loader *loader, const char *module, const float **at)
{
    octavo_stored scale;
    float value;
    OCTAVO_TRY(octavo_load_single_scale(loader, module, ".input_scale", &scale, &value));
    if (!scale.view.data) return OCTAVO_OK;
    if (!loader->last_x_scale_at || loader->last_x_scale != value) {
        OCTAVO_TRY(octavo_load_scale_values(loader, &scale, &loader->last_x_scale_at));
        loader->last_x_scale = value;
    }
    *at = loader->last_x_scale_at;
    return OCTAVO_OK;
}

static octavo_status pack(octavo_loader *loader, octavo_linear_precision precision, octavo_lm_linear *linear)
{
    size_t bytes;
    void *at;
    OCTAVO_TRY(octavo_linear_packed_bytes(&loader->exec, &linear->weight, precision, &bytes));
    if (bytes == 0) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_take(loader, bytes, &at));
    linear->packed = at;
    return octavo_load_is_measuring(loader) ? OCTAVO_OK : octavo_linear_pack(&loader->exec, &linear->weight, precision, at);
}

static octavo_status load_bias(octavo_loader *loader, const octavo_linear_request *r, octavo_lm_linear *linear)
{
    if (!r->bias) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_vector(loader, r->module, ".bias", OCTAVO_JSON_REQUIRED, r->total, &linear->bias));
    if (!octavo_load_is_measuring(loader)) linear->bias += r->first;
    return OCTAVO_OK;
}

octavo_status octavo_load_linear(octavo_loader *loader, const octavo_linear_request *request, octavo_lm_linear *linear)
{
    source s;
    *linear = (octavo_lm_linear){ 0 };
    OCTAVO_TRY(find_source(loader, request, &s));
    const octavo_dtype stored = s.weight.view.dtype, dtype = wanted_dtype(request->precision, stored);
    const int is_eight_bit = dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8;
    if (request->same && request->same->dtype == dtype) linear->weight.codes = *request->same;
    else if (is_eight_bit && stored != dtype) OCTAVO_TRY(quantize(loader, &s, dtype, &linear->weight));
    else OCTAVO_TRY(keep(loader, &s, dtype, &linear->weight));
    OCTAVO_TRY(load_bias(loader, request, linear));
    if (request->precision == OCTAVO_LINEAR_FP8 && stored == OCTAVO_E4M3) OCTAVO_TRY(load_x_scale(loader, request->module, &linear->x_scale));
    return pack(loader, request->precision, linear);
}

octavo_status octavo_load_table(octavo_loader *loader, const char *module, int64_t rows, int64_t width, octavo_tensor *table)
{
    source s;
    octavo_weight weight;
    const octavo_linear_request r = { .module = module, .out = rows, .in = width, .total = rows };
    OCTAVO_TRY(find_source(loader, &r, &s));
    if (!octavo_stored_is_float(&s.weight))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype F8_E4M3, expected F32, F16 or BF16", s.weight.label, s.weight.name);
    OCTAVO_TRY(keep(loader, &s, s.weight.view.dtype, &weight));
    *table = weight.codes;
    return OCTAVO_OK;
}

int64_t octavo_linear_read_bytes(const octavo_lm_linear *linear)
{
    const octavo_weight *w = &linear->weight;
    if (!w->codes.data) return 0;
    const int64_t out = w->codes.shape[0], in = w->codes.shape[1];
    const int64_t down = w->block_rows ? (out - 1) / w->block_rows + 1 : 1, across = w->block_cols ? (in - 1) / w->block_cols + 1 : 1;
    return out * in * (int64_t)octavo_dtype_bytes(w->codes.dtype) + (w->scales ? down * across * (int64_t)sizeof(float) : 0) +
           (linear->bias ? out * (int64_t)sizeof(float) : 0);
}
