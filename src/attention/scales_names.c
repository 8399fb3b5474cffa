/* scales_names.c - what shares a scale in eight-bit prefill, as people write it. */
#include "base/error.h"
#include "base/name_index.h"
#include "octavo/prefill.h"

static const char *const NAMES[] = { "block", "token", "warp", "thread", "head", "tensor" };
enum { SCALES_COUNT = sizeof NAMES / sizeof *NAMES };

const char *octavo_prefill_scales_name(octavo_prefill_scales scales) { return octavo_name_at(NAMES, SCALES_COUNT, (int)scales); }

octavo_status octavo_prefill_scales_parse(const char *name, octavo_prefill_scales *scales)
{
    if (!scales) return octavo_fail(OCTAVO_E_ARGUMENT, "scales is NULL, expected where to put the value");
    const int index = octavo_name_index(NAMES, SCALES_COUNT, name);
    if (index < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "what shares a scale is '%s', expected block, token, warp, thread, head or tensor", name ? name : "NULL");
    *scales = (octavo_prefill_scales)index;
    return OCTAVO_OK;
}
