/* model_hash.c - hashes samples of a checkpoint's files. */
#define _GNU_SOURCE
#include "model_hash.h"
#include "cli.h"
#include "fnv.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAMPLE_BYTES = 4096, SAMPLES = 256 };

static int is_part(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && entry->d_name[0] != '.' && (strcmp(dot, ".json") == 0 || strcmp(dot, ".safetensors") == 0);
}

static int hash_file(int folder, const char *name, fnv_hash *hash)
{
    static const int64_t ALL = (int64_t)SAMPLES * SAMPLE_BYTES;
    char bytes[SAMPLE_BYTES];
    struct stat facts;
    const int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    int good = fstat(file, &facts) == 0;
    const int64_t size = good ? (int64_t)facts.st_size : 0, step = size > ALL ? size / SAMPLES : SAMPLE_BYTES;
    fnv_add(hash, name, strlen(name) + 1);
    fnv_add(hash, &size, sizeof size);
    for (int64_t at = 0; good && at < size; at += step) {
        const ssize_t count = pread(file, bytes, sizeof bytes, (off_t)at);
        good = count > 0;
        if (good) fnv_add(hash, bytes, (size_t)count);
    }
    close(file);
    return good;
}

int model_hash_folder(const char *folder, char hash[MODEL_HASH_BYTES])
{
    struct dirent **names = NULL;
    fnv_hash state = FNV_START;
    const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int count = descriptor < 0 ? -1 : scandir(folder, &names, is_part, alphasort);
    int good = count >= 0;
    for (int i = 0; i < count; i++) {
        if (good) good = hash_file(descriptor, names[i]->d_name, &state);
        free(names[i]);
    }
    free(names);
    const int reason = errno;
    if (descriptor >= 0) close(descriptor);
    snprintf(hash, MODEL_HASH_BYTES, "%016" PRIx64, state);
    return good ? EXIT_DONE : cli_refuse("the folder '%s' cannot be read: %s", folder, strerror(reason));
}
