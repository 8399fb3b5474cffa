/* memory_available.h - how much memory the machine could still give, asked before a large claim. */
#ifndef OCTAVO_BASE_MEMORY_AVAILABLE_H
#define OCTAVO_BASE_MEMORY_AVAILABLE_H

#include "base/sibling.h"
#include <stddef.h>

/* Bytes of main memory that can be claimed without swapping; SIZE_MAX where the system does not say. */
OCTAVO_SIBLING size_t octavo_memory_available(void);

#endif
