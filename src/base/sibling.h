/* sibling.h - marks what liboctavo shows to its own other libraries of exactly the same version, beside the public API. */
#ifndef OCTAVO_BASE_SIBLING_H
#define OCTAVO_BASE_SIBLING_H

#include "octavo/export.h"

/* One copy of the last error and of the file handling serves all of them; tools/check_symbols.py knows the word. */
#define OCTAVO_SIBLING OCTAVO_API

#endif
