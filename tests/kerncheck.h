/* kerncheck.h - what the checks of all operations share: random cases, one arena for their memory, comparison with the reference. */
#ifndef KERNCHECK_H
#define KERNCHECK_H

#include "kernel/kernels.h"
#include "kernel/visibility.h"

/* What is under test, against what. */
typedef struct kc_pair {
    const octavo_kernels *ref, *tested;
    const char *level;
    int bench;  /* 1: draw the one large case that is timed          */
    int device; /* 1: `tested` runs on the device of kc_device_open */
} kc_pair;

typedef enum kc_operation {
#define X(op, budget) KC_##op,
    OCTAVO_KERNEL_LIST(X)
#undef X
    KC_OPERATIONS
} kc_operation;

/* Each draws one case, runs it and compares. 0: it failed, and kc_fail said how. */
#define X(op, budget) int kc_check_##op(const kc_pair *pair);
OCTAVO_KERNEL_LIST(X)
#undef X

const char *kc_operation_name(kc_operation op);
/* 1: the two tables have the same entry. */
int kc_same_entry(kc_operation op, const octavo_kernels *a, const octavo_kernels *b);
int kc_has_entry(kc_operation op, const octavo_kernels *a);

/* Opens a GPU for the tested side of pairs; NULL after a sentence on stderr. */
const octavo_kernels *kc_device_open(const char *name, const char **level);
/* What is left of a case's memory once a call has run over a copy of it on the device: `arena` [used] is copied there, the pointers of
 * params and exec into it are moved, and afterwards it is copied back. *word: the call's sticky status. */
octavo_status kc_device_call(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params, uint8_t *arena,
                             size_t used, int32_t *word);
/* Seconds of one such call in a graph of many; negative: it was refused. */
double kc_device_time(kc_operation op, const octavo_kernels *kernels, const octavo_exec *exec, const void *params, const uint8_t *arena,
                      size_t used);

/* `rounds` cases from `seed` on; 0: one failed. *worst is the largest error that was seen, as a share of its budget. */
int kc_check_rounds(kc_operation op, const kc_pair *pair, uint64_t seed, int64_t rounds, double *worst);
/* Installs planted faults one after the other; returns how many of them no check caught. */
int kc_check_faults(uint64_t seed);

/* ---- random numbers (kerncheck_random.c): one stream, a function of the seed alone ---- */

void kc_seed(uint64_t seed);
uint64_t kc_random(void);
int64_t kc_between(int64_t low, int64_t high); /* both included */
int kc_chance(int percent);
double kc_uniform(double low, double high);
float kc_normal(void); /* mean 0, deviation 1, within +-3.5 */
#define KC_PICK(array) ((array)[kc_between(0, (int64_t)(sizeof(array) / sizeof *(array)) - 1)])

/* Rounds to a dtype and stores; loads. */
void kc_store(octavo_dtype dtype, void *data, int64_t element, float x);
double kc_load(octavo_dtype dtype, const void *data, int64_t element);

/* ---- memory (kerncheck_memory.c) ---- */

/* Forgets the last case. */
void kc_begin(void);
/* A poisoned block between guards, aligned for its elements and no better. Everything a kernel sees is made of these. */
void *kc_array(const char *name, octavo_dtype dtype, int64_t elements);
void *kc_bytes(const char *name, int64_t bytes, int64_t alignment);
/* A poisoned tensor over its own block: random padding and order of the leading axes, a contiguous last one. */
octavo_tensor kc_tensor(const char *name, octavo_dtype dtype, int32_t ndim, const int64_t *shape);
/* From here to the end of the case: blocks are aligned to 16 bytes, and tensors' strides are multiples of 8 elements. */
void kc_align_wide(void);
/* Does that for some cases on a device, which then should have as many elements as its kernels for many want: returns 1. */
int kc_draw_wide(const kc_pair *pair);
/* Memory of the test's own, which no kernel sees. */
void *kc_scratch(int64_t bytes);

/* What the case is, added to piece by piece; printed when it fails. */
void kc_describe(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *kc_description(void);
/* Prints one line about the case that failed; returns 0. */
int kc_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void kc_be_quiet(int quiet);

typedef enum kc_outcome {
    KC_FAILED  = 0,
    KC_SETTLED = 1, /* nothing is left to compare: refused alike, or only timed */
    KC_COMPARE = 2
} kc_outcome;

/* Runs the reference, then the tested kernel twice: on one thread with the tasks in reverse order, and on the default pool. Both
 * must give the same bits, the status of the reference, and leave everything but their outputs alone. Afterwards the outputs
 * are those of the tested kernel and kc_want() finds the reference's. */
kc_outcome kc_run(const kc_pair *pair, kc_operation op, void *params, size_t workspace_bytes);
/* The reference's copy of something in a block. */
const void *kc_want(const void *tested);
/* Accepts element `index` where it is within the budget of the reference's, or equal to it. */
int kc_close(const char *name, float *tested, int64_t index, double budget);
int kc_close_tensor(const char *name, const octavo_tensor *tested, int64_t element, double budget);
/* Accepts bytes whatever they are: what no contract defines, or what the check has judged by itself. */
void kc_accept(void *tested, size_t bytes);
/* Whatever was not accepted has to equal the reference, bit for bit (a NaN equals a NaN in float outputs). */
int kc_finish(void);
/* Notes an error as a share of its budget, for checks that do not use kc_close. */
void kc_note(double share);
double kc_worst(void);
void kc_forget_worst(void);

/* ---- views (kerncheck_view.c) ---- */

enum {
    KC_NORMS    = 1, /* nested K formats only, with residual norms */
    KC_MEANS    = 2, /* with mean rows                             */
    KC_WRITABLE = 4, /* the view is an output: no page is shared, every block has one, unwritten rows stay poisoned */
    KC_BARE     = 8, /* lengths and sizes alone, and more of them: for operations that read no planes */
    KC_LONG_Q   = 16, /* many query tokens, of which half the cases suit kernels that copy tiles of them (`tiled`) */
    KC_STREAMS  = 32 /* half the cases suit kernels that stream pages of one plane (`tiled`, too) */
};

/* A drawn decode input and its view. */
typedef struct kc_decode {
    octavo_decode_input in;
    octavo_kv_view view;
    int64_t view_rows; /* rows of lengths, page table and tensors */
    int64_t q_tokens, group, q_heads, rows, units;
    int eight; /* products may be of E4M3 codes, weights among them, and their sums have 13 bits */
    int tiled; /* usual formats and sizes, rows of whole 16 bytes, lengths around the edges of tiles */
    const float *truth; /* [slots, kv_heads, block_tokens, head_dim] keys before they were encoded; slot: see kc_slot */
} kc_decode;

void kc_draw_decode(kc_decode *c, const kc_pair *pair, unsigned flags);
/* Where a block of a view's row lives: its page, or its place among the blocks of all rows. */
int64_t kc_slot(const octavo_kv_view *view, int64_t row, int64_t block);
const float *kc_true_key(const kc_decode *c, int64_t b, int64_t head, int64_t token);

/* Decodes a row of K from its first planes. magnitude: the sum of what the planes add, each taken positive. */
void kc_decode_k(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token, int32_t planes, double *value, double *magnitude);
void kc_decode_v(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token, double *value);
/* What attention in FP8 takes a row for: E4M3 with a power of two of its own. */
void kc_round_row(double *x, int64_t dim);
/* Exact or FP8, into the description as well; FP8 now and then. */
octavo_attention_precision kc_draw_precision(const kc_pair *pair);
void kc_decode_mean(const octavo_kv_view *view, int64_t b, int64_t head, int64_t unit, double *value);
double kc_k_factor(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token);
double kc_v_factor(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token);
/* Stores the mean row of a full unit of a view's row. */
void kc_store_v_mean(const octavo_kv_view *view, int64_t row, int64_t head, int64_t unit);

/* ---- scores (kerncheck_scores.c) ---- */

/* [batch, kv_heads, rows, max_tokens]; what a row does not see is left at -inf, 0. */
typedef struct kc_scores {
    double *score, *error; /* in float64; the SCORE budget */
} kc_scores;

typedef enum kc_scan {
    KC_SCAN_EXACT_Q   = 0,
    KC_SCAN_QUANTISED = 1 /* q may be rounded to 15 bits where K has codes of a byte or less */
} kc_scan;

kc_scores kc_score_all(const kc_decode *c, int32_t planes, kc_scan scan);
/* The same from the keys before they were encoded, without a budget. */
double *kc_true_scores(const kc_decode *c);

octavo_span kc_span(const kc_decode *c, int64_t b, int64_t row);
int64_t kc_length(const kc_decode *c, int64_t b);
int64_t kc_q_row(const octavo_tensor *q, int64_t group, int64_t b, int64_t head, int64_t row);

/* log(exp(a) + exp(b)). */
double kc_log_add(double a, double b);

/* A legal random mask: only whole, unfixed units are dropped, about `percent` of them. */
void kc_draw_mask(const kc_decode *c, uint8_t *kept, int percent);

/* ---- partial results (kerncheck_partials.c) ---- */

/* Splits of a call: of so many units, or (split_units 0) as the kernel likes. */
void kc_draw_splits(const kc_decode *c, const kc_pair *pair, int64_t *splits, int64_t *split_units);

/* Compares the partial results of an attend with the reference's under the ATTEND budget. */
typedef struct kc_partials {
    const uint8_t *kept;             /* the decision, or NULL                                     */
    kc_scores scores;                /* of kept units, with their budget                          */
    const float *log_mass;           /* [batch, kv_heads, rows, units] of dropped units           */
    const double *log_mass_error;    /* the same shape; NULL: 0                                   */
    const float *log_upper;          /* for part_dropped, or NULL                                 */
    octavo_compensation compensate;
    int64_t splits, split_units;
    float *part_out, *part_lse, *part_kept, *part_dropped;
} kc_partials;
int kc_close_partials(const kc_decode *c, const kc_partials *p);

/* What a kernel put out that merged by itself, which takes the place of the first of its parts. */
typedef struct kc_merged {
    const octavo_tensor *out; /* [batch, q_tokens, q_heads, v_dim] */
    float *lse;
    int64_t splits;
    float *part_out, *part_lse;
} kc_merged;
int kc_take_merged(const kc_decode *c, const kc_merged *p);

#endif
