/* memory_available.c - how much memory the machine could still give: what Linux says in /proc/meminfo. */
#include "base/memory_available.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 256, KIB = 1024 };

static size_t number_after(const char *text, size_t unit)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    return end == text || errno || value > SIZE_MAX / unit ? SIZE_MAX : (size_t)value * unit;
}

size_t octavo_memory_available(void)
{
    static const char KEY[] = "MemAvailable:"; /* followed by a number and kB */
    size_t bytes = SIZE_MAX;
    char line[LINE_BYTES];
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return bytes;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, KEY, sizeof KEY - 1)) bytes = number_after(line + sizeof KEY - 1, KIB);
    fclose(file);
    return bytes;
}
