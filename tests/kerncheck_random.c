/* kerncheck_random.c - the one stream of random numbers that cases are drawn from, and numbers in a dtype. */
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "kerncheck.h"

static uint64_t state;

void kc_seed(uint64_t seed) { state = seed; }

/* splitmix64: neighbouring seeds give unrelated streams, so that round i of a seed is round 0 of seed + i. */
uint64_t kc_random(void)
{
    uint64_t x = state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

int64_t kc_between(int64_t low, int64_t high)
{
    return low + (int64_t)(kc_random() % (uint64_t)(high - low + 1));
}

int kc_chance(int percent) { return kc_between(0, 99) < percent; }

double kc_uniform(double low, double high) { return low + (high - low) * (double)(kc_random() >> 11) * 0x1p-53; }

/* The sum of four uniform 16-bit numbers, centred and scaled to deviation 1. */
float kc_normal(void)
{
    const uint64_t x = kc_random();
    const int32_t sum = (int32_t)(x & 0xFFFF) + (int32_t)(x >> 16 & 0xFFFF) + (int32_t)(x >> 32 & 0xFFFF) + (int32_t)(x >> 48);
    return (float)(sum - 131070) * 2.6428e-5f; /* 1 / (65536 * sqrt(4 / 12)) */
}

void kc_store(octavo_dtype dtype, void *data, int64_t element, float x)
{
    switch (dtype) {
    case OCTAVO_F32:  ((float *)data)[element] = x; break;
    case OCTAVO_F16:  ((uint16_t *)data)[element] = octavo_fp16_from_float(x); break;
    case OCTAVO_BF16: ((uint16_t *)data)[element] = octavo_bf16_from_float(x); break;
    case OCTAVO_E4M3: ((uint8_t *)data)[element] = octavo_e4m3_from_float(x); break;
    case OCTAVO_E5M2: ((uint8_t *)data)[element] = octavo_e5m2_from_float(x); break;
    default:          ((int8_t *)data)[element] = (int8_t)fmaxf(-127.0f, fminf(rintf(x), 127.0f)); break;
    }
}

double kc_load(octavo_dtype dtype, const void *data, int64_t element)
{
    switch (dtype) {
    case OCTAVO_F32:  return (double)((const float *)data)[element];
    case OCTAVO_F16:  return (double)octavo_fp16_to_float(((const uint16_t *)data)[element]);
    case OCTAVO_BF16: return (double)octavo_bf16_to_float(((const uint16_t *)data)[element]);
    case OCTAVO_E4M3: return (double)octavo_e4m3_to_float(((const uint8_t *)data)[element]);
    case OCTAVO_E5M2: return (double)octavo_e5m2_to_float(((const uint8_t *)data)[element]);
    default:          return (double)((const int8_t *)data)[element];
    }
}
