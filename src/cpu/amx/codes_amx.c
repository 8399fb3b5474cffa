/* codes_amx.c - the eight-bit formats' magnitudes as bf16, which holds them exactly; those of e4m3 times 2^8. */
#include "cpu/amx/amx_decode.h"

/* m * 2^-9 for m < 8, else (8 + m % 8) * 2^(m / 8 - 10), times 2^-shift; m = 127 is NaN. */
#define E4M3_TINY(m, shift) \
    ((m) == 0 ? 0 : (m) == 1 ? (118 - (shift)) << 7 : (m) < 4 ? (119 - (shift)) << 7 | ((m) & 1) << 6 : (120 - (shift)) << 7 | ((m) & 3) << 5)
#define E4M3(m, shift) ((m) < 8 ? E4M3_TINY(m, shift) : (m) == 127 ? 0x7FC0 : (((m) >> 3) + 120 - (shift)) << 7 | ((m) & 7) << 4)
/* m * 2^-16 for m < 4, else (4 + m % 4) * 2^(m / 4 - 17); from 124 on Inf and NaN. */
#define E5M2_TINY(m) ((m) == 0 ? 0 : (m) == 1 ? 111 << 7 : 112 << 7 | ((m) & 1) << 6)
#define E5M2(m, shift) ((m) < 4 ? E5M2_TINY(m) : (m) == 124 ? 0x7F80 : (m) > 124 ? 0x7FC0 : (((m) >> 2) + 112) << 7 | ((m) & 3) << 5)

#define LOW(format, shift, m) (uint8_t)(format(m, shift) & 0xFF)
#define HIGH(format, shift, m) (uint8_t)(format(m, shift) >> 8)
#define EIGHT(byte, format, shift, m)                                                                                      \
    byte(format, shift, m), byte(format, shift, m + 1), byte(format, shift, m + 2), byte(format, shift, m + 3),            \
    byte(format, shift, m + 4), byte(format, shift, m + 5), byte(format, shift, m + 6), byte(format, shift, m + 7)
#define ALL(byte, format, shift)                                                                                           \
    { EIGHT(byte, format, shift, 0), EIGHT(byte, format, shift, 8), EIGHT(byte, format, shift, 16),                        \
      EIGHT(byte, format, shift, 24), EIGHT(byte, format, shift, 32), EIGHT(byte, format, shift, 40),                      \
      EIGHT(byte, format, shift, 48), EIGHT(byte, format, shift, 56), EIGHT(byte, format, shift, 64),                      \
      EIGHT(byte, format, shift, 72), EIGHT(byte, format, shift, 80), EIGHT(byte, format, shift, 88),                      \
      EIGHT(byte, format, shift, 96), EIGHT(byte, format, shift, 104), EIGHT(byte, format, shift, 112),                    \
      EIGHT(byte, format, shift, 120) }

const octavo_amx_codes octavo_amx_e4m3 = { ALL(LOW, E4M3, -8), ALL(HIGH, E4M3, -8) };
const octavo_amx_codes octavo_amx_e4m3_sixteenth = { ALL(LOW, E4M3, -4), ALL(HIGH, E4M3, -4) };
const octavo_amx_codes octavo_amx_e5m2 = { ALL(LOW, E5M2, 0), ALL(HIGH, E5M2, 0) };
