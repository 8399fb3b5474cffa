/* bench_result_file.c - the file that a measurement is kept in. */
#define _GNU_SOURCE
#include "bench_result.h"
#include "cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t FILE_BYTES_MOST = (size_t)16 << 20;

int bench_result_load(const char *path, bench_result *result, char *reason, size_t reason_bytes)
{
    memset(result, 0, sizeof *result);
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(reason, reason_bytes, "%s", strerror(errno));
        return errno == ENOENT ? 1 : -1;
    }
    char *text = malloc(FILE_BYTES_MOST + 1);
    const size_t size = text ? fread(text, 1, FILE_BYTES_MOST + 1, file) : 0;
    int status = -1;
    if (!text || ferror(file))
        snprintf(reason, reason_bytes, "it could not be read");
    else if (size > FILE_BYTES_MOST)
        snprintf(reason, reason_bytes, "it is longer than %zu MiB", FILE_BYTES_MOST >> 20);
    else
        status = bench_result_parse(text, size, result, reason, reason_bytes);
    free(text);
    fclose(file);
    return status;
}

int bench_result_store(const char *path, const char *text)
{
    const size_t bytes = strlen(path) + sizeof ".XXXXXX";
    char *temporary = malloc(bytes);
    if (!temporary) return cli_refuse("there is no memory to write '%s'", path);
    snprintf(temporary, bytes, "%s.XXXXXX", path);
    const int descriptor = mkstemp(temporary);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!file) {
        const int status = cli_refuse("'%s' cannot be written: %s", path, strerror(errno));
        if (descriptor >= 0) {
            close(descriptor);
            unlink(temporary);
        }
        free(temporary);
        return status;
    }
    const mode_t mask = umask(0);
    umask(mask);
    int failed = fputs(text, file) == EOF || fflush(file) != 0 || fchmod(descriptor, 0666 & ~mask) != 0 || fsync(descriptor) != 0;
    int reason = errno;
    if (fclose(file) != 0 && !failed) failed = 1, reason = errno;
    if (!failed && rename(temporary, path) != 0) failed = 1, reason = errno;
    if (failed) unlink(temporary);
    free(temporary);
    return failed ? cli_refuse("'%s' cannot be written: %s", path, strerror(reason)) : EXIT_DONE;
}
