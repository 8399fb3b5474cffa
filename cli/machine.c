/* machine.c - reads what Linux tells about processor, caches and memory, and maps huge pages. */
#define _GNU_SOURCE
#include "machine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static const size_t HUGE_PAGE = (size_t)2 << 20;

void machine_cpu_name(char name[MACHINE_NAME_BYTES])
{
    char line[512];
    struct utsname system;
    snprintf(name, MACHINE_NAME_BYTES, "%s", uname(&system) == 0 ? system.machine : "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = '\0';
        if (colon[1] && colon[2]) snprintf(name, MACHINE_NAME_BYTES, "%.*s", MACHINE_NAME_BYTES - 1, colon + 2);
        break;
    }
    fclose(file);
}

void machine_label(const octavo_device *device, char label[MACHINE_LABEL_BYTES])
{
    char cpu[MACHINE_NAME_BYTES];
    const char *number = strchr(octavo_device_name(device), ':');
    octavo_device_info gpu = OCTAVO_DEVICE_INFO_INIT;
    machine_cpu_name(cpu);
    if (number && octavo_device_kind_of(device) == OCTAVO_DEVICE_CUDA && octavo_cuda_device_info(atoi(number + 1), &gpu) == OCTAVO_OK)
        snprintf(label, MACHINE_LABEL_BYTES, "%.90s; %.90s", cpu, gpu.name); /* both have room */
    else
        snprintf(label, MACHINE_LABEL_BYTES, "%s", cpu);
    for (char *c = label; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f) *c = '?';
}

int machine_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* The first number of a small file, in bytes where it ends in K or M; -1: none. */
static int64_t read_number(const char *path)
{
    char text[64] = "", unit = 0;
    int64_t number = -1;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    if (fgets(text, sizeof text, file) && sscanf(text, "%" SCNd64 "%c", &number, &unit) >= 1 && number < INT64_MAX >> 20) {
        if (unit == 'K') number <<= 10;
        if (unit == 'M') number <<= 20;
    }
    fclose(file);
    return number;
}

int64_t machine_llc_bytes(void)
{
    int64_t best_level = 0, best_bytes = 0;
    for (int index = 0; index < 8; index++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", index);
        const int64_t level = read_number(path);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        const int64_t bytes = read_number(path);
        if (bytes > 0 && level >= best_level) {
            best_level = level;
            best_bytes = bytes;
        }
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    if (best_level < 2 && sysconf(_SC_LEVEL3_CACHE_SIZE) > 0) best_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return best_bytes > 0 ? best_bytes : (int64_t)32 << 20;
}

int64_t machine_available_bytes(void)
{
    int64_t available = -1;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %" SCNd64, &available) == 1) {
            available <<= 10;
            break;
        }
    if (file) fclose(file);
    if (available < 0) available = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    const int64_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
    if (limit > 0 && used >= 0 && limit - used < available) available = limit > used ? limit - used : 0;
    return available;
}

void *machine_map(size_t bytes)
{
    size_t length;
    if (bytes == 0 || __builtin_add_overflow(bytes, 2 * HUGE_PAGE, &length)) return NULL;
    const size_t kept = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint8_t *start = mmap(NULL, kept + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    /* A huge page begins at a multiple of its size: what lies around that is given back. */
    const size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (before) munmap(start, before);
    munmap(start + before + kept, HUGE_PAGE - before);
    madvise(start + before, kept, MADV_HUGEPAGE);
    return start + before;
}

void machine_unmap(void *memory, size_t bytes)
{
    if (memory) munmap(memory, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
}

double machine_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
