/* kerncheck_rows.h - the numbers in a random view: what mood they are in, and how a row is stored. */
#ifndef KERNCHECK_ROWS_H
#define KERNCHECK_ROWS_H

#include "kerncheck.h"

typedef enum kc_mood_kind {
    KC_PLAIN    = 0,
    KC_HOT      = 1, /* some tokens stand out                                       */
    KC_SINK     = 2, /* the first token far above a flat tail                       */
    KC_ZEROS    = 3, /* rows of zeros among others                                  */
    KC_TINY     = 4, /* so small that scales leave their usual range                */
    KC_OUTLIERS = 5, /* one channel far above the others                            */
    KC_LARGE    = 6, /* scores of hundreds of nats                                  */
    KC_CODES    = 7, /* planes of random codes                                      */
    KC_ALIGNED  = 8, /* planes of random codes whose residuals point along the query */
    KC_MOODS
} kc_mood_kind;

typedef struct kc_mood {
    kc_mood_kind kind;
    float amplitude, v_amplitude, q_amplitude;
    int64_t channel;        /* the outlier's */
    const float *direction; /* [kv_heads, head_dim] unit vectors that queries point along */
} kc_mood;

kc_mood kc_draw_mood(const kc_decode *c);
void kc_draw_q(kc_decode *c, const kc_mood *mood);
/* Draws and encodes K and V of one token; key [head_dim] receives what was encoded. */
void kc_store_row(const kc_decode *c, const kc_mood *mood, int64_t row, int64_t head, int64_t token, float *key);

#endif
