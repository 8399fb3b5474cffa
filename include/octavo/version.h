/* version.h - which library this is.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_VERSION_H
#define OCTAVO_VERSION_H

#include "octavo/export.h"

OCTAVO_BEGIN_DECLS

#define OCTAVO_VERSION_MAJOR 0
#define OCTAVO_VERSION_MINOR 1
#define OCTAVO_VERSION_PATCH 0

/* As "0.1.0": of the library that is running, which may differ from the macros that the caller was compiled with. */
OCTAVO_API const char *octavo_version(void);

/* Sixteen hexadecimal digits that change with any source file, compiler or flag: results of one build carry one id. */
OCTAVO_API const char *octavo_build_id(void);

/* Processor, compiler, build type and optional parts, separated by spaces: "x86_64 GNU 12.2.0 RelWithDebInfo openmp". */
OCTAVO_API const char *octavo_build_options(void);

OCTAVO_END_DECLS

#endif
