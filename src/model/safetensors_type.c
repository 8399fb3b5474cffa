/* safetensors_type.c - the dtypes of the file format, and which of them are ours. */
#include "model/safetensors.h"
#include <string.h>

static const octavo_safetensors_type TYPES[] = {
    { "F64", 64, OCTAVO_F64 },      { "F32", 32, OCTAVO_F32 },       { "F16", 16, OCTAVO_F16 },
    { "BF16", 16, OCTAVO_BF16 },    { "F8_E4M3", 8, OCTAVO_E4M3 },   { "F8_E5M2", 8, OCTAVO_E5M2 },
    { "I8", 8, OCTAVO_INT8 },       { "U8", 8, OCTAVO_UINT8 },       { "I32", 32, OCTAVO_INT32 },
    { "I64", 64, OCTAVO_INT64 },    { "BOOL", 8, 0 },                { "I16", 16, 0 },
    { "U16", 16, 0 },               { "U32", 32, 0 },                { "U64", 64, 0 },
    { "C64", 64, 0 },               { "F8_E8M0", 8, 0 },             { "F8_E4M3FNUZ", 8, 0 },
    { "F8_E5M2FNUZ", 8, 0 },        { "F6_E2M3", 6, 0 },             { "F6_E3M2", 6, 0 },
    { "F4", 4, 0 },
};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

const octavo_safetensors_type *octavo_safetensors_type_by_name(const char *name)
{
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (strcmp(TYPES[i].name, name) == 0) return &TYPES[i];
    return NULL;
}

const octavo_safetensors_type *octavo_safetensors_type_of(octavo_dtype dtype)
{
    for (size_t i = 0; i < TYPE_COUNT && TYPES[i].dtype; i++)
        if (TYPES[i].dtype == dtype) return &TYPES[i];
    return NULL;
}
