/* mapped_file.h - a regular file as read-only memory. */
#ifndef OCTAVO_BASE_MAPPED_FILE_H
#define OCTAVO_BASE_MAPPED_FILE_H

#include "base/sibling.h"
#include "octavo/status.h"

typedef struct octavo_mapped_file {
    const uint8_t *data; /* [bytes] */
    size_t bytes;
} octavo_mapped_file;

/* How it will be read; may be combined. Hints only, never an error. */
typedef enum octavo_map_hint {
    OCTAVO_MAP_NORMAL     = 0,
    OCTAVO_MAP_SEQUENTIAL = 1, /* once, front to back  */
    OCTAVO_MAP_RANDOM     = 2, /* no read-ahead        */
    OCTAVO_MAP_PREFETCH   = 4  /* all of it, soon      */
} octavo_map_hint;

/* OCTAVO_E_IO: missing, unreadable, or not a regular file; OCTAVO_E_FORMAT: empty. After a failure *file is empty and needs
 * no _fini. Who truncates the file while it is mapped makes reads past its new end raise SIGBUS. */
OCTAVO_SIBLING octavo_status octavo_mapped_file_init(octavo_mapped_file *file, const char *path, unsigned hints);
/* Also for a zeroed or an already finished one. */
OCTAVO_SIBLING void octavo_mapped_file_fini(octavo_mapped_file *file);

#endif
