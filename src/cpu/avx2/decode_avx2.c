/* decode_avx2.c - decode attention for avx2: its vector words, and the algorithms spoken in them. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/block_attend_body.h"
#include "cpu/body/block_score_body.h"
#include "cpu/body/block_select_body.h"
#include "cpu/body/decode_fused_body.h"
#include "cpu/body/decode_operations_body.h"
#include "cpu/body/partial_merge_body.h"
