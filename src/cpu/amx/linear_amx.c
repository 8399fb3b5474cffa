/* linear_amx.c - linear layers on AMX tiles: W as it lies, copied a panel at a time or packed once, times x packed a call.
 *
 * A tile of W times a tile of x adds to a tile of sums: products of bf16 are exact in float32, those of int8 in int32, and scales
 * multiply sums. Float weights that must not be rounded are multiplied as sums of terms, too: six products of bf16 take less time
 * than one of float32. A few tokens of them, and scale blocks that hold no whole pairs of steps, go down to avx512. */
#include "cpu/amx/linear_amx.h"
#include "cpu/amx/linear_panel_amx.h"
#include "format/bf16.h"
#include "format/fp8_e4m3.h"

octavo_status octavo_linear_amx(const octavo_exec *exec, const octavo_linear_params *p);
octavo_status octavo_linear_avx512(const octavo_exec *exec, const octavo_linear_params *p);
size_t octavo_linear_packed_bytes_amx(const octavo_weight *weight, octavo_linear_precision precision);
octavo_status octavo_linear_pack_amx(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, void *packed);

enum {
    BLOCKS_LEAST = 8,      /* tasks that are worth shorter strips                                    */
    SERIAL_BYTES = 1 << 15 /* of W that do not pay for waking other threads                         */
};

static void code_table_init(code_table *table, octavo_dtype dtype)
{
    table->signed_magnitude = dtype == OCTAVO_E4M3;
    for (int code = 0; code < 256; code++) {
        const float x = dtype == OCTAVO_E4M3 ? octavo_e4m3_to_float((uint8_t)code) : (float)(int8_t)(uint8_t)code;
        const uint16_t bits = octavo_bf16_from_float(x);
        table->low[code] = (uint8_t)(bits & 255u);
        table->high[code] = (uint8_t)(bits >> 8);
    }
}

/* Few tokens of float weights that must not be rounded are bound by memory without tiles, too. */
static tile_source source_of(const octavo_weight *weight, octavo_linear_precision precision, int64_t tokens)
{
    const octavo_dtype dtype = weight->codes.dtype;
    if (octavo_weight_has_blocks(weight) && weight->block_cols % (2 * STEP)) return TILES_NONE;
    if (dtype == OCTAVO_BF16 || precision == OCTAVO_LINEAR_INT8) return TILES_IN_MEMORY;
    if (dtype == OCTAVO_E4M3 || dtype == OCTAVO_INT8) return TILES_WIDENED;
    if (precision == OCTAVO_LINEAR_BF16) return TILES_ROUNDED;
    return tokens > OCTAVO_LINEAR_FEW ? TILES_SPLIT : TILES_NONE;
}

/* bf16 terms whose sum is what enters the products: 8 significant bits each. */
static int terms_of(octavo_dtype dtype) { return dtype == OCTAVO_F32 ? TERMS_MAX : dtype == OCTAVO_F16 ? 2 : 1; }

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

static void plan_part(const linear_job *job, const octavo_linear_part *part, part_plan *plan)
{
    const octavo_tensor *codes = &part->weight.codes;
    plan->part = part;
    plan->source = source_of(&part->weight, job->p->precision, job->tokens);
    plan->terms = plan->source == TILES_SPLIT ? terms_of(codes->dtype) : 1;
    plan->rows = codes->shape[0];
    plan->code_bytes = (int64_t)(codes->dtype == OCTAVO_F32 ? 4 : codes->dtype == OCTAVO_E4M3 || codes->dtype == OCTAVO_INT8 ? 1 : 2);
    plan->block_scales = octavo_weight_has_blocks(&part->weight);
    plan->segment = plan->source == TILES_SPLIT ? SEGMENT_SPLIT : job->segment;
    if (plan->block_scales) plan->segment = gcd(part->weight.block_cols / STEP, plan->segment);
    plan->strips = (plan->rows + job->strip_rows - 1) / job->strip_rows;
    if (plan->source == TILES_WIDENED) code_table_init(&plan->table, codes->dtype);
}

/* A row of x and W in steps. */
static void cut_rows(linear_job *job)
{
    job->columns = job->integer ? 2 * STEP : STEP;
    job->steps = octavo_round_up(job->in, 2 * STEP) / job->columns;
}

/* A few tokens of weights that are not all packed read them where they lie. */
static int takes_w_right(const octavo_linear_params *p, int few)
{
    int packed = 1;
    for (int i = 0; i < p->part_count; i++) packed = packed && p->parts[i].packed;
    return packed || !few;
}

/* Pairs of groups of bf16 in whole steps need no packing where a tile's rows fall into different sets of the first-level cache. */
static int64_t direct_groups(const linear_job *job)
{
    const octavo_tensor *x = &job->p->x;
    const int64_t stride = x->strides[0] * 2;
    const int as_it_is = x->ndim == 2 && x->dtype == OCTAVO_BF16 && !octavo_linear_quantises(job->p) && !job->interleaved && job->in % (2 * STEP) == 0;
    if (!as_it_is || (uintptr_t)x->data % STEP_BYTES || stride % STEP_BYTES || stride / STEP_BYTES % 8 == 0) return 0;
    return job->tokens / (2 * GROUP) * 2;
}

/* How many tokens decides how work is cut; how it is cut never changes a sum. */
static void cut_work(linear_job *job, int few)
{
    int64_t rows = 0;
    for (int i = 0; i < job->p->part_count; i++) rows += octavo_linear_out(job->p, i);
    job->w_right = takes_w_right(job->p, few);
    job->segment = few || job->terms == 1 ? SEGMENT : SEGMENT_TERMS; /* with more terms x would leave the second-level cache */
    job->chunk = job->groups < OCTAVO_LINEAR_CHUNK / GROUP ? job->groups : OCTAVO_LINEAR_CHUNK / GROUP;
    job->chunks = (job->groups + job->chunk - 1) / job->chunk;
    const int64_t wanted = octavo_round_up(rows * job->chunks / BLOCKS_LEAST + 1, PANEL_ROWS);
    job->strip_rows = few || wanted < OCTAVO_LINEAR_STRIP_LEAST ? OCTAVO_LINEAR_STRIP_LEAST : wanted > OCTAVO_LINEAR_STRIP ? OCTAVO_LINEAR_STRIP : wanted;
}

static octavo_status run(const octavo_exec *exec, linear_job *job, int few)
{
    int64_t strips = 0, bytes = 0;
    for (int i = 0; i < job->p->part_count; i++) {
        plan_part(job, &job->p->parts[i], &job->parts[i]);
        strips += job->parts[i].strips, bytes += job->parts[i].rows * job->in * job->parts[i].code_bytes;
    }
    job->blocks = strips * job->chunks;
    const int dots = job->interleaved && job->tokens <= DOT_TOKENS_MOST;
    const octavo_task task = dots ? linear_dot_strip : few ? linear_few_strip : linear_many_slot;
    job->strips = strips;
    if (job->slots > job->blocks) job->slots = job->blocks;
    if (dots) linear_pack_rows(job);
    else if (few) linear_pack_tiles(exec, job);
    else memset(job->states, 0, (size_t)job->chunks * sizeof *job->states);
    if (few && bytes <= SERIAL_BYTES)
        for (int64_t i = 0; i < strips; i++) task(job, i);
    else octavo_parallel(exec, few ? strips : job->slots, task, job);
    return OCTAVO_OK;
}

/* Parts whose weights want x in different orders, or of which one is not for tiles, are calls of their own. */
static octavo_status split(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params one = *p;
    one.part_count = 1;
    for (int i = 0; i < p->part_count; i++) {
        one.parts[0] = p->parts[i];
        const octavo_status status = octavo_linear_amx(exec, &one);
        if (status != OCTAVO_OK) return status;
    }
    return OCTAVO_OK;
}

octavo_status octavo_linear_amx(const octavo_exec *exec, const octavo_linear_params *p)
{
    const int64_t tokens = octavo_linear_tokens(p);
    const tile_source source = source_of(&p->parts[0].weight, p->precision, tokens);
    for (int i = 1; i < p->part_count; i++) {
        const tile_source other = source_of(&p->parts[i].weight, p->precision, tokens);
        if ((other == TILES_WIDENED) != (source == TILES_WIDENED) || (other == TILES_NONE) != (source == TILES_NONE)) return split(exec, p);
    }
    if (source == TILES_NONE) return octavo_linear_avx512(exec, p);
    const octavo_linear_layout at = octavo_linear_layout_of(p);
    uint8_t *workspace = exec->workspace;
    linear_job job = { .p = p, .tokens = tokens, .in = octavo_linear_in(p), .interleaved = source == TILES_WIDENED,
                       .terms = p->precision == OCTAVO_LINEAR_F32 ? terms_of(p->x.dtype) : 1,
                       .integer = p->precision == OCTAVO_LINEAR_INT8, .x = workspace + at.x,
                       .factors = (float *)(void *)(workspace + at.factors), .sums = workspace + at.sums, .slots = (int64_t)at.slots,
                       .states = (chunk_state *)(void *)(workspace + at.chunks) };
    const int few = tokens <= OCTAVO_LINEAR_FEW;
    cut_rows(&job);
    job.groups = (job.tokens + GROUP - 1) / GROUP;
    cut_work(&job, few);
    if (!few) job.direct = direct_groups(&job);
    return run(exec, &job, few);
}

/* ---- packing ---- */

typedef struct packing {
    const linear_job *job;
    uint8_t *packed;
} packing;

static void pack_panel(void *argument, int64_t panel)
{
    const packing *c = argument;
    const part_plan *plan = c->job->parts;
    const int64_t row = panel * PANEL_ROWS, left = plan->rows - row;
    const block at = { .row = row, .rows = left < PANEL_ROWS ? left : PANEL_ROWS, .step = 0, .steps = c->job->steps };
    copy_tiles(c->job, plan, &at, c->packed + packed_at(c->job, row, 0));
}

/* Eight-bit codes that are widened stay as they are: packed they would take twice the memory. */
static linear_job packing_job(const octavo_linear_params *p, const octavo_weight *weight)
{
    linear_job job = { .p = p, .in = weight->codes.shape[1], .integer = p->precision == OCTAVO_LINEAR_INT8, .strip_rows = PANEL_ROWS, .w_right = 1 };
    cut_rows(&job);
    job.segment = job.steps;
    plan_part(&job, &p->parts[0], &job.parts[0]);
    return job;
}

size_t octavo_linear_packed_bytes_amx(const octavo_weight *weight, octavo_linear_precision precision)
{
    const tile_source source = source_of(weight, precision, 0);
    if (source != TILES_IN_MEMORY && source != TILES_ROUNDED) return 0;
    const octavo_linear_params p = { .precision = precision, .parts = { { .weight = *weight } } };
    const linear_job job = packing_job(&p, weight);
    return (size_t)(octavo_round_up(weight->codes.shape[0], PANEL_ROWS) * job.steps * STEP_BYTES);
}

octavo_status octavo_linear_pack_amx(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, void *packed)
{
    const octavo_linear_params p = { .precision = precision, .parts = { { .weight = *weight } } };
    const linear_job job = packing_job(&p, weight);
    octavo_parallel(exec, (job.parts[0].rows + PANEL_ROWS - 1) / PANEL_ROWS, pack_panel, &(packing){ &job, packed });
    return OCTAVO_OK;
}
