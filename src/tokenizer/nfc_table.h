/* nfc_table.h - what nfc.c needs to know about characters. */
#ifndef OCTAVO_TOKENIZER_NFC_TABLE_H
#define OCTAVO_TOKENIZER_NFC_TABLE_H

#include <stdint.h>

enum { NFC_SPLIT_COUNT = 2061, NFC_PAIR_COUNT = 941, NFC_CLASS_COUNT = 382 };

/* One step of a canonical decomposition; second is 0 where it is a single character. */
typedef struct octavo_nfc_split {
    uint32_t point, first, second;
} octavo_nfc_split;

typedef struct octavo_nfc_class {
    uint32_t first, last; /* a run of characters */
    uint32_t value;       /* their combining class, not 0 */
} octavo_nfc_class;

extern const octavo_nfc_split OCTAVO_NFC_SPLITS[NFC_SPLIT_COUNT]; /* ascending by point */
extern const uint16_t OCTAVO_NFC_PAIRS[NFC_PAIR_COUNT];           /* the splits that compose, ascending by first and second */
extern const octavo_nfc_class OCTAVO_NFC_CLASSES[NFC_CLASS_COUNT]; /* ascending */

#endif
