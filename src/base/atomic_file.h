/* atomic_file.h - a file that appears under its name whole or not at all. */
#ifndef OCTAVO_BASE_ATOMIC_FILE_H
#define OCTAVO_BASE_ATOMIC_FILE_H

#include "base/sibling.h"
#include "octavo/status.h"
#include <stdio.h>

/* Between init and commit or abort, write to `stream` or through octavo_atomic_file_write. */
typedef struct octavo_atomic_file {
    FILE *stream;
    char *path;           /* where it will appear           */
    char *temporary_path; /* where it is written, beside it */
} octavo_atomic_file;

/* A file already under that name stays as it is until commit, and hands on its permissions; a link is followed.
 * OCTAVO_E_IO: the folder is missing or not writable, or the name belongs to something that is no regular file. */
OCTAVO_SIBLING octavo_status octavo_atomic_file_init(octavo_atomic_file *file, const char *path);
OCTAVO_SIBLING octavo_status octavo_atomic_file_write(octavo_atomic_file *file, const void *data, size_t bytes);
/* Reports every error of the writes before it, too. Ends the file either way: after a failure nothing has changed. */
OCTAVO_SIBLING octavo_status octavo_atomic_file_commit(octavo_atomic_file *file);
/* Removes what was written. Nothing to do for a zeroed, committed or aborted one, so it fits a cleanup label. */
OCTAVO_SIBLING void octavo_atomic_file_abort(octavo_atomic_file *file);

#endif
