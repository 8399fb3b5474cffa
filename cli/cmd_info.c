/* cmd_info.c - `octavo info`: what this build and this machine have. */
#define _GNU_SOURCE
#include "bench_device.h"
#include "bench_read_speed.h"
#include "cli.h"
#include "external.h"
#include "machine.h"
#include "octavo/octavo.h"
#include "options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPUS_MOST = 64 };

typedef struct info {
    const char *isa; /* in use; owned by the device */
    char cpu[MACHINE_NAME_BYTES];
    int openmp, onednn, cuda, gnuplot;
    int gpus;             /* that the CUDA backend opens             */
    char cuda_reason[256]; /* why there are none; empty: there are some */
    double read_gbps, gpu_read_gbps[GPUS_MOST]; /* 0: not asked for      */
} info;

/* 1: `word` is one of the blank-separated words of `text`. */
static int has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += length)
        if ((at == text || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return 1;
    return 0;
}

static json_t *levels(const info *facts)
{
    json_t *list = json_array();
    const char *name;
    for (int i = 0; (name = octavo_isa_name(i)) != NULL; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:b}", "name", name, "available", octavo_isa_available(i), "chosen",
                                              strcmp(name, facts->isa) == 0));
    return list;
}

/* What is known of GPU number `index`; zeros where its driver does not say. */
static octavo_device_info gpu_info(int index)
{
    octavo_device_info gpu = OCTAVO_DEVICE_INFO_INIT;
    if (octavo_cuda_device_info(index, &gpu) != OCTAVO_OK) gpu = (octavo_device_info)OCTAVO_DEVICE_INFO_INIT;
    return gpu;
}

static json_t *device_names(const info *facts)
{
    json_t *list = json_pack("[s]", "cpu");
    for (int i = 0; i < facts->gpus; i++) json_array_append_new(list, json_sprintf("cuda:%d", i));
    return list;
}

/* NULL where none was measured. */
static json_t *read_speed(const info *facts, int gpu)
{
    return gpu < GPUS_MOST && facts->gpu_read_gbps[gpu] > 0 ? json_real(facts->gpu_read_gbps[gpu]) : NULL;
}

static json_t *gpus(const info *facts)
{
    json_t *list = json_array();
    for (int i = 0; i < facts->gpus; i++) {
        const octavo_device_info gpu = gpu_info(i);
        json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:I, s:i, s:[i, i], s:o*}", "device", json_sprintf("cuda:%d", i), "name", gpu.name,
                                              "memory_bytes", (json_int_t)gpu.memory_bytes, "l2_bytes", (json_int_t)gpu.l2_bytes,
                                              "multiprocessors", gpu.multiprocessors, "compute_capability", gpu.compute_major, gpu.compute_minor,
                                              "read_gbps", read_speed(facts, i)));
    }
    return list;
}

static void print_gpus(const info *facts)
{
    for (int i = 0; i < facts->gpus; i++) {
        const octavo_device_info gpu = gpu_info(i);
        printf(", cuda:%d (%s, %d multiprocessors, %.1f GiB, compute capability %d.%d", i, gpu.name, gpu.multiprocessors,
               (double)gpu.memory_bytes / (1 << 30), gpu.compute_major, gpu.compute_minor);
        if (i < GPUS_MOST && facts->gpu_read_gbps[i] > 0) printf(", reads %.0f GB/s", facts->gpu_read_gbps[i]);
        printf(")");
    }
    printf("\n");
    if (facts->cuda_reason[0]) printf("no GPU     %s\n", facts->cuda_reason);
}

static int print_json(const info *facts)
{
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:o, s:s, s:o, s:o, s:s, s:{s:b, s:b, s:b, s:b, s:b, s:b}, s:o*}",
                             "schema", "octavo-info-1", "version", octavo_version(), "build_id", octavo_build_id(),
                             "build_options", octavo_build_options(), "cpu", facts->cpu, "threads", machine_threads(),
                             "llc_bytes", (json_int_t)machine_llc_bytes(), "isa_levels", levels(facts), "isa", facts->isa,
                             "devices", device_names(facts), "gpus", gpus(facts), "cuda_reason", facts->cuda_reason,
                             "parts", "openmp", facts->openmp, "onednn", facts->onednn, "cuda", facts->cuda, "jansson", 1,
                             "pcre2", 1, "gnuplot", facts->gnuplot,
                             "read_gbps", facts->read_gbps > 0 ? json_real(facts->read_gbps) : NULL);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(root);
    return text ? cli_finish_output() : cli_refuse("there is no memory for the JSON text");
}

static int print_text(const info *facts)
{
    const char *name;
    printf("octavo %s, build %s\n", octavo_version(), octavo_build_id());
    printf("built for  %s\n", octavo_build_options());
    printf("processor  %s\n", facts->cpu);
    printf("threads    %d\n", machine_threads());
    printf("cache      %.1f MiB (last level)\n", (double)machine_llc_bytes() / (1 << 20));
    printf("ISA levels");
    for (int i = 0; (name = octavo_isa_name(i)) != NULL; i++)
        printf(" %s%s", name, strcmp(name, facts->isa) == 0 ? " (chosen)" : octavo_isa_available(i) ? "" : " (not on this machine)");
    printf("\ndevices    cpu");
    if (facts->read_gbps > 0) printf(" (reads %.1f GB/s)", facts->read_gbps);
    print_gpus(facts);
    printf("parts      OpenMP %s, oneDNN %s, CUDA %s, jansson yes, PCRE2 yes, gnuplot %s\n", facts->openmp ? "yes" : "no", facts->onednn ? "yes" : "no",
           facts->cuda ? "yes" : "no", facts->gnuplot ? "yes" : "no");
    return cli_finish_output();
}

/* The best of a few passes. */
static int measure_cpu(info *facts)
{
    enum { PASSES = 5 };
    bench_read_speed speed;
    const int status = bench_read_speed_init(&speed, machine_threads());
    for (int i = 0; status == EXIT_DONE && i < PASSES; i++) {
        const double gbps = bench_read_speed_measure(&speed);
        if (gbps > facts->read_gbps) facts->read_gbps = gbps;
    }
    bench_read_speed_fini(&speed);
    return status;
}

static int measure_gpus(octavo_context *context, info *facts)
{
    int status = EXIT_DONE;
    for (int i = 0; status == EXIT_DONE && i < facts->gpus && i < GPUS_MOST; i++) {
        octavo_exec exec = OCTAVO_EXEC_INIT;
        char name[24];
        snprintf(name, sizeof name, "cuda:%d", i);
        if (octavo_device_open(context, name, &exec.device) == OCTAVO_OK && octavo_device_stream_create(exec.device, &exec.stream) == OCTAVO_OK)
            status = bench_device_read_speed(&exec, &facts->gpu_read_gbps[i]);
        else
            status = cli_refuse_last();
        octavo_device_stream_destroy(exec.device, exec.stream);
        octavo_device_close(exec.device);
    }
    return status;
}

int cmd_info(int argc, char **argv)
{
    int json = 0, read = 0, status;
    const option options[] = { { "json", 0, OPTION_FLAG, NULL, "prints JSON", &json, 0, 0 },
                               { "read-speed", 0, OPTION_FLAG, NULL, "measures how fast each device reads its memory", &read, 0, 0 },
                               { 0 } };
    const command_line line = {
        .usage = "octavo info [--read-speed] [--json]",
        .about = "Version, build, instruction sets with the one in use (OCTAVO_ISA forces a lower\none), devices and optional parts.\n",
        .options = options,
    };
    if (options_parse(&line, argc, argv, &status) == OPTIONS_STOP) return status;
    octavo_context *context = NULL;
    octavo_device *device = NULL;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_open(context, "cpu", &device) == OCTAVO_OK) {
        const char *built = octavo_build_options();
        info facts = { .isa = octavo_device_isa(device), .openmp = has_word(built, "openmp"), .onednn = has_word(built, "onednn"),
                       .cuda = has_word(built, "cuda"), .gnuplot = external_exists("gnuplot") };
        machine_cpu_name(facts.cpu);
        if (octavo_cuda_device_count(&facts.gpus) != OCTAVO_OK) snprintf(facts.cuda_reason, sizeof facts.cuda_reason, "%s", octavo_last_error());
        status = read ? measure_cpu(&facts) : EXIT_DONE;
        if (status == EXIT_DONE && read) status = measure_gpus(context, &facts);
        if (status == EXIT_DONE) status = json ? print_json(&facts) : print_text(&facts);
        octavo_device_close(device);
    } else {
        status = cli_refuse_last();
    }
    octavo_context_destroy(context);
    return status;
}
