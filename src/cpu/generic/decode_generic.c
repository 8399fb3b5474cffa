/* decode_generic.c - decode attention for generic: its vector words, and the algorithms spoken in them. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/block_attend_body.h"
#include "cpu/body/block_score_body.h"
#include "cpu/body/block_select_body.h"
#include "cpu/body/decode_fused_body.h"
#include "cpu/body/decode_operations_body.h"
#include "cpu/body/partial_merge_body.h"
