/* model_rollout_file.c - one writer, appending whole lines to a file of answers. */
#define _GNU_SOURCE
#include "model_rollout_file.h"
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse_system(const char *path) { return cli_refuse("'%s' cannot be written: %s", path, strerror(errno)); }

static int take_up(rollout_file *file, const json_t *header)
{
    char reason[JSONL_REASON_BYTES];
    int64_t keep;
    if (rollout_scan(file->file, header, &file->done, &keep, reason) != 0) return cli_refuse("'%s' is not continued, %s", file->path, reason);
    if (fseeko(file->file, (off_t)keep, SEEK_SET) != 0 || ftruncate(fileno(file->file), (off_t)keep) != 0) return refuse_system(file->path);
    return keep == 0 ? rollout_file_write(file, json_deep_copy(header)) : EXIT_DONE;
}

int rollout_file_open(rollout_file *file, const char *path, const json_t *header, int64_t prompts, int64_t samples)
{
    struct stat facts;
    *file = (rollout_file){ .path = path, .done = { .prompts = prompts, .samples = samples } };
    file->done.done = calloc((size_t)prompts, (size_t)samples);
    if (!file->done.done) return cli_refuse("there is no memory for %" PRId64 " answers", prompts * samples);
    const int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) return refuse_system(path);
    file->file = fdopen(descriptor, "r+");
    if (!file->file) {
        close(descriptor);
        return refuse_system(path);
    }
    if (fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode)) return cli_refuse("'%s' is not a file, so nothing could be continued", path);
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) return cli_refuse("'%s' is being written by another run", path);
    return take_up(file, header);
}

void rollout_file_close(rollout_file *file)
{
    if (file->file) fclose(file->file);
    free(file->done.done);
    *file = (rollout_file){ 0 };
}

int rollout_file_has(const rollout_file *file, int64_t prompt, int64_t sample) { return file->done.done[prompt * file->done.samples + sample]; }

int rollout_file_write(rollout_file *file, json_t *line)
{
    char *text = line ? json_dumps(line, ANSWER_FLAGS) : NULL;
    json_decref(line);
    if (!text) return cli_refuse("there is no memory for an answer, or it is not a finite number");
    const int failed = fputs(text, file->file) == EOF || putc('\n', file->file) == EOF || fflush(file->file) != 0;
    free(text);
    return failed ? refuse_system(file->path) : EXIT_DONE;
}
