/* kerncheck.c - checks, then times, every kernel that differs from the level below it.
 *
 *   kerncheck                              everything this machine can run, from a new seed
 *   kerncheck 7 block_score                seed 7, one operation
 *   kerncheck 7 block_score --level avx2   of one level; --rounds 1: that seed's first case alone
 *   kerncheck --bench                      one CSV row a kernel and level instead
 *   kerncheck --device cuda:0              the kernels of a GPU instead, each against the reference
 *   kerncheck --faults                     plants faults in real kernels, which the checks have to catch
 *
 * A backend needs no entry here: if installing it changed a field, that is tested. */
#include "device/levels.h"
#include "kerncheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct request {
    uint64_t seed;
    int64_t rounds;
    int operation; /* -1: all */
    const char *level;  /* NULL: all        */
    const char *device; /* NULL: the levels */
    int bench, faults;
} request;

enum { ROUNDS = 120, ROUNDS_QUICK = 12 };

static int usage(const char *wrong)
{
    fprintf(stderr, "kerncheck: '%s' is not understood\n"
                    "kerncheck [SEED] [OPERATION] [--level NAME | --device NAME] [--rounds N | --quick] [--bench | --faults]\n"
                    "operations:", wrong);
    for (int op = 0; op < KC_OPERATIONS; op++) fprintf(stderr, " %s", kc_operation_name((kc_operation)op));
    fprintf(stderr, "\nlevels:");
    for (int i = 0; i < octavo_level_count; i++) fprintf(stderr, " %s", octavo_levels[i].name);
    fprintf(stderr, "\n");
    return 2;
}

static int operation_of(const char *name)
{
    for (int op = 0; op < KC_OPERATIONS; op++)
        if (!strcmp(name, kc_operation_name((kc_operation)op))) return op;
    return -1;
}

static int is_level(const char *name)
{
    for (int i = 0; i < octavo_level_count; i++)
        if (!strcmp(name, octavo_levels[i].name)) return 1;
    return 0;
}

static int is_number(const char *text, uint64_t *number)
{
    char *end;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end;
}

static int parse(int argc, char **argv, request *of)
{
    *of = (request){ .seed = (uint64_t)time(NULL) % 1000000, .rounds = ROUNDS, .operation = -1 };
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : "";
        uint64_t number;
        if (is_number(word, &number)) of->seed = number;
        else if (!strcmp(word, "--bench")) of->bench = 1;
        else if (!strcmp(word, "--faults")) of->faults = 1;
        else if (!strcmp(word, "--quick")) of->rounds = ROUNDS_QUICK;
        else if (!strcmp(word, "--rounds") && is_number(next, &number) && number > 0 && number < 1u << 30)
            of->rounds = (int64_t)number, i++;
        else if (!strcmp(word, "--device") && *next) of->device = next, i++;
        else if (!strcmp(word, "--level") && is_level(next)) of->level = next, i++;
        else if (operation_of(word) >= 0) of->operation = operation_of(word);
        else return usage(word);
    }
    return 0;
}

int kc_check_rounds(kc_operation op, const kc_pair *pair, uint64_t seed, int64_t rounds, double *worst)
{
    int ok = 1;
    kc_forget_worst();
    for (int64_t round = 0; round < rounds && ok; round++) {
        kc_seed(seed + (uint64_t)round);
        kc_begin();
        switch (op) {
#define X(name, budget) case KC_##name: ok = kc_check_##name(pair); break;
            OCTAVO_KERNEL_LIST(X)
#undef X
        case KC_OPERATIONS: break;
        }
        if (ok) continue;
        kc_fail("case: %s", kc_description());
        kc_fail("repeat: kerncheck %llu %s --%s %s --rounds 1", (unsigned long long)(seed + (uint64_t)round), kc_operation_name(op),
                pair->device ? "device" : "level", pair->level);
    }
    *worst = kc_worst();
    return ok;
}

static const char *budget_of(kc_operation op)
{
    static const char *const names[] = {
#define X(name, budget) #budget,
        OCTAVO_KERNEL_LIST(X)
#undef X
    };
    return names[op] + strlen("OCTAVO_BUDGET_");
}

/* Checks one kernel of one level; returns whether it failed. */
static int check(const request *of, kc_operation op, const kc_pair *pair)
{
    double worst;
    if (of->bench) return !kc_check_rounds(op, pair, of->seed, 1, &worst);
    const int ok = kc_check_rounds(op, pair, of->seed, of->rounds, &worst);
    if (!ok) printf("%-14s %-8s FAILED\n", kc_operation_name(op), pair->level);
    else printf("%-14s %-8s ok, worst %.3f of %s\n", kc_operation_name(op), pair->level, worst, budget_of(op));
    fflush(stdout);
    return !ok;
}

static int check_levels(const request *of)
{
    octavo_kernels ref = { 0 }, below = { 0 };
    int checked = 0, failed = 0;
    octavo_levels[0].install(&ref);
    if (of->bench) printf("bench,operation,level,ns,case\n");
    for (int i = 0; i < octavo_level_count; i++) {
        octavo_kernels level = below;
        octavo_levels[i].install(&level);
        for (int op = 0; op < KC_OPERATIONS; op++) {
            if (kc_same_entry((kc_operation)op, &level, &below) || (of->operation >= 0 && op != of->operation)) continue;
            if (of->level && strcmp(of->level, octavo_levels[i].name)) continue;
            const kc_pair pair = { .ref = &ref, .tested = &level, .level = octavo_levels[i].name, .bench = of->bench };
            checked++, failed += check(of, (kc_operation)op, &pair);
        }
        below = level;
    }
    for (int op = 0; op < KC_OPERATIONS; op++)
        if (!kc_has_entry((kc_operation)op, &ref))
            failed++, printf("%-14s ref      is missing\n", kc_operation_name((kc_operation)op));
    printf("%d checked, %d failed\n", checked, failed);
    return failed != 0 || checked == 0;
}

/* Every kernel of a GPU against the reference. */
static int check_device(const request *of)
{
    octavo_kernels ref = { 0 };
    const char *level;
    int checked = 0, failed = 0;
    const octavo_kernels *kernels = kc_device_open(of->device, &level);
    if (!kernels) return 2;
    octavo_levels[0].install(&ref);
    if (of->bench) printf("bench,operation,device,ns,case\n");
    for (int op = 0; op < KC_OPERATIONS; op++) {
        if (!kc_has_entry((kc_operation)op, kernels) || (of->operation >= 0 && op != of->operation)) continue;
        const kc_pair pair = { .ref = &ref, .tested = kernels, .level = of->device, .bench = of->bench, .device = 1 };
        checked++, failed += check(of, (kc_operation)op, &pair);
    }
    printf("%d checked at level %s, %d failed\n", checked, level, failed);
    return failed != 0 || checked == 0;
}

int main(int argc, char **argv)
{
    request of;
    if (parse(argc, argv, &of)) return 2;
    printf("seed %llu\n", (unsigned long long)of.seed);
    if (of.device) return check_device(&of);
    if (!of.faults) return check_levels(&of);
    const int missed = kc_check_faults(of.seed);
    printf("%d missed\n", missed);
    return missed != 0;
}
