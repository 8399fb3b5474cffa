/* mapped_file.c - a regular file as read-only memory. */
#define _GNU_SOURCE 1
#include "base/mapped_file.h"
#include "base/checked.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static octavo_status regular_file_bytes(int descriptor, const char *path, size_t *bytes)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0) return octavo_fail(OCTAVO_E_IO, "file '%s': %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return octavo_fail(OCTAVO_E_IO, "file '%s' is a directory, expected a regular file", path);
    if (!S_ISREG(info.st_mode)) return octavo_fail(OCTAVO_E_IO, "file '%s' is not a regular file", path);
    if (info.st_size == 0) return octavo_fail(OCTAVO_E_FORMAT, "file '%s' is empty", path);
    if (!octavo_checked_size_from_int64(info.st_size, bytes))
        return octavo_fail(OCTAVO_E_IO, "file '%s' is too large for this address space", path);
    return OCTAVO_OK;
}

static void advise(void *data, size_t bytes, unsigned hints)
{
    if (hints & OCTAVO_MAP_SEQUENTIAL) (void)madvise(data, bytes, MADV_SEQUENTIAL);
    if (hints & OCTAVO_MAP_RANDOM) (void)madvise(data, bytes, MADV_RANDOM);
    if (hints & OCTAVO_MAP_PREFETCH) (void)madvise(data, bytes, MADV_WILLNEED);
}

octavo_status octavo_mapped_file_init(octavo_mapped_file *file, const char *path, unsigned hints)
{
    *file = (octavo_mapped_file){ 0 };
    if (!path || !*path) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'path' is empty, expected the name of a file");

    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would wait */
    if (descriptor < 0 && errno == ENOENT) return octavo_fail(OCTAVO_E_IO, "file '%s' does not exist", path);
    if (descriptor < 0) return octavo_fail(OCTAVO_E_IO, "file '%s' cannot be read: %s", path, strerror(errno));

    size_t bytes = 0;
    octavo_status status;
    OCTAVO_TRY_GOTO(status, regular_file_bytes(descriptor, path, &bytes), done);
    void *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
        status = octavo_fail(OCTAVO_E_IO, "file '%s' cannot be mapped: %s", path, strerror(errno));
        goto done;
    }
    advise(data, bytes, hints);
    *file = (octavo_mapped_file){ .data = data, .bytes = bytes };
done:
    close(descriptor); /* the mapping keeps the file */
    return status;
}

void octavo_mapped_file_fini(octavo_mapped_file *file)
{
    if (file->data) munmap((void *)(uintptr_t)file->data, file->bytes);
    *file = (octavo_mapped_file){ 0 };
}
