/* atomic_file.c - a file that appears under its name whole or not at all. */
#define _GNU_SOURCE 1
#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_TRIES = 100, SUFFIX_BYTES = 48, NEW_FILE_MODE = 0666, PERMISSION_BITS = 0777 };

static octavo_status io_failure(const char *what, const char *path)
{
    return octavo_fail(OCTAVO_E_IO, "file '%s' cannot be %s: %s", path, what, strerror(errno));
}

/* Resolves links, so that renaming replaces the file and not the link to it. */
static octavo_status resolve_target(const char *path, char **resolved, mode_t *permissions)
{
    struct stat info;
    *permissions = 0;
    if (stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode)) return octavo_fail(OCTAVO_E_IO, "file '%s' is a directory, expected a file name", path);
        if (!S_ISREG(info.st_mode)) return octavo_fail(OCTAVO_E_IO, "file '%s' exists and is not a regular file", path);
        *permissions = info.st_mode & PERMISSION_BITS;
        *resolved = realpath(path, NULL);
        return *resolved ? OCTAVO_OK : io_failure("resolved", path);
    }
    if (errno != ENOENT) return io_failure("written", path);
    *resolved = strdup(path);
    return *resolved ? OCTAVO_OK : octavo_fail(OCTAVO_E_NOMEM, "no memory for the file name '%s'", path);
}

/* Leaves the descriptor in *descriptor; mkstemp would force the mode 0600 on every file. */
static octavo_status open_beside(octavo_atomic_file *file, const char *path, int *descriptor)
{
    size_t bytes;
    if (octavo_checked_add_size(strlen(file->path), SUFFIX_BYTES, &bytes)) file->temporary_path = malloc(bytes);
    if (!file->temporary_path) return octavo_fail(OCTAVO_E_NOMEM, "no memory for the file name '%s'", path);
    for (int attempt = 0; attempt < NAME_TRIES; attempt++) {
        snprintf(file->temporary_path, bytes, "%s.%ld-%d.tmp", file->path, (long)getpid(), attempt);
        *descriptor = open(file->temporary_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, NEW_FILE_MODE);
        if (*descriptor >= 0) return OCTAVO_OK;
        if (errno != EEXIST) break;
    }
    const octavo_status status = io_failure("written", path);
    free(file->temporary_path); /* it is not ours to remove */
    file->temporary_path = NULL;
    return status;
}

octavo_status octavo_atomic_file_init(octavo_atomic_file *file, const char *path)
{
    *file = (octavo_atomic_file){ 0 };
    if (!path || !*path) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'path' is empty, expected the name of a file");

    mode_t permissions;
    int descriptor = -1;
    octavo_status status;
    OCTAVO_TRY_GOTO(status, resolve_target(path, &file->path, &permissions), fail);
    OCTAVO_TRY_GOTO(status, open_beside(file, path, &descriptor), fail);
    if (permissions != 0 && fchmod(descriptor, permissions) != 0) {
        status = io_failure("given its permissions", path);
        goto fail;
    }
    file->stream = fdopen(descriptor, "wb");
    if (!file->stream) {
        status = io_failure("written", path);
        goto fail;
    }
    return OCTAVO_OK;
fail:
    if (descriptor >= 0) close(descriptor);
    octavo_atomic_file_abort(file);
    return status;
}

octavo_status octavo_atomic_file_write(octavo_atomic_file *file, const void *data, size_t bytes)
{
    if (bytes != 0 && fwrite(data, 1, bytes, file->stream) != bytes) return io_failure("written", file->path);
    return OCTAVO_OK;
}

/* Makes the new name last through a power failure. Some file systems cannot; the file is whole all the same. */
static void sync_folder(char *path)
{
    const int folder = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    (void)fsync(folder);
    close(folder);
}

octavo_status octavo_atomic_file_commit(octavo_atomic_file *file)
{
    octavo_status status = OCTAVO_OK;
    const int had_error = ferror(file->stream);
    if (had_error) status = octavo_fail(OCTAVO_E_IO, "file '%s' cannot be written: an earlier write failed", file->path);
    else if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0) status = io_failure("written", file->path);

    if (fclose(file->stream) != 0 && status == OCTAVO_OK) status = io_failure("written", file->path);
    file->stream = NULL;
    if (status == OCTAVO_OK && rename(file->temporary_path, file->path) != 0) status = io_failure("replaced", file->path);
    if (status == OCTAVO_OK) {
        free(file->temporary_path);
        file->temporary_path = NULL;
        sync_folder(file->path);
    }
    octavo_atomic_file_abort(file);
    return status;
}

void octavo_atomic_file_abort(octavo_atomic_file *file)
{
    if (file->stream) fclose(file->stream);
    if (file->temporary_path) unlink(file->temporary_path);
    free(file->temporary_path);
    free(file->path);
    *file = (octavo_atomic_file){ 0 };
}
