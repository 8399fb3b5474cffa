/* export.h - visibility, C linkage and struct initialisers, for every public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_EXPORT_H
#define OCTAVO_EXPORT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define OCTAVO_API
#else
#define OCTAVO_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
#define OCTAVO_BEGIN_DECLS extern "C" {
#define OCTAVO_END_DECLS }
#else
#define OCTAVO_BEGIN_DECLS
#define OCTAVO_END_DECLS
#endif

/* Every params or config struct begins with `size_t struct_size` and is started from its INIT macro:
 *     octavo_decode_params p = OCTAVO_DECODE_PARAMS_INIT;
 * All other fields are zero, and zero always means the documented default. */
#ifdef __cplusplus
template <typename T> inline T octavo_init_struct()
{
    T value = T();
    value.struct_size = sizeof(T);
    return value;
}
#define OCTAVO_INIT_STRUCT(type) octavo_init_struct<type>()
#else
#define OCTAVO_INIT_STRUCT(type) { .struct_size = sizeof(type) }
#endif

#endif
