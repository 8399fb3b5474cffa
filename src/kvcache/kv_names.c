/* kv_names.c - the names of K and V formats, as the program's options spell them. */
#include "base/error.h"
#include "base/name_index.h"
#include "octavo/kvcache.h"
#include <string.h>

enum { NAMES_BYTES = 128 };

static const char *const k_names[] = {
    [OCTAVO_K_BF16] = "bf16",     [OCTAVO_K_F16] = "f16",       [OCTAVO_K_E4M3] = "e4m3",
    [OCTAVO_K_E5M2] = "e5m2",     [OCTAVO_K_INT8] = "int8",     [OCTAVO_K_E4M3X2] = "e4m3x2",
    [OCTAVO_K_E5M2X2] = "e5m2x2", [OCTAVO_K_INT8X2] = "int8x2", [OCTAVO_K_INT4X2] = "int4x2",
    [OCTAVO_K_F32] = "f32",
};
static const char *const v_names[] = {
    [OCTAVO_V_BF16] = "bf16", [OCTAVO_V_F16] = "f16", [OCTAVO_V_E4M3] = "e4m3", [OCTAVO_V_INT8] = "int8",
    [OCTAVO_V_F32] = "f32",
};
enum { K_END = sizeof k_names / sizeof *k_names, V_END = sizeof v_names / sizeof *v_names };

const char *octavo_k_format_name(octavo_k_format format)
{
    return octavo_name_at(k_names, K_END, (int)format);
}

const char *octavo_v_format_name(octavo_v_format format)
{
    return octavo_name_at(v_names, V_END, (int)format);
}

/* Index of `name` among names[1..end), or the failure that lists them. */
static octavo_status parse(const char *what, const char *name, const char *const *names, int end, int *index)
{
    if (!name) return octavo_fail(OCTAVO_E_ARGUMENT, "the name of a %s format is NULL", what);
    *index = octavo_name_index(names, end, name);
    if (*index > 0) return OCTAVO_OK;
    char known[NAMES_BYTES] = "";
    for (int i = 1; i < end; i++) {
        if (i > 1) strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, names[i], sizeof known - strlen(known) - 1);
    }
    return octavo_fail(OCTAVO_E_ARGUMENT, "'%s' is no %s format, expected one of %s", name, what, known);
}

octavo_status octavo_k_format_parse(const char *name, octavo_k_format *format)
{
    int index = 0;
    if (!format) return octavo_fail(OCTAVO_E_ARGUMENT, "format is NULL, expected where to put it");
    OCTAVO_TRY(parse("K", name, k_names, K_END, &index));
    *format = (octavo_k_format)index;
    return OCTAVO_OK;
}

octavo_status octavo_v_format_parse(const char *name, octavo_v_format *format)
{
    int index = 0;
    if (!format) return octavo_fail(OCTAVO_E_ARGUMENT, "format is NULL, expected where to put it");
    OCTAVO_TRY(parse("V", name, v_names, V_END, &index));
    *format = (octavo_v_format)index;
    return OCTAVO_OK;
}
