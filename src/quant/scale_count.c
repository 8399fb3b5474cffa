/* scale_count.c - how many scales a granularity has. */
#include "base/checked.h"
#include "octavo/quant.h"

int64_t octavo_scale_count(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols)
{
    if (rows < 1 || cols < 1) return 0;
    switch (granularity) {
    case OCTAVO_PER_TENSOR:  return 1;
    case OCTAVO_PER_TOKEN:   return rows;
    case OCTAVO_PER_CHANNEL: return cols;
    case OCTAVO_PER_BLOCK: {
        int64_t count;
        if (block_rows < 1 || block_cols < 1) return 0;
        return octavo_checked_mul_int64((rows - 1) / block_rows + 1, (cols - 1) / block_cols + 1, &count) ? count : 0;
    }
    }
    return 0;
}
