/* cmd_bench.c - `octavo bench`: chooses the benchmark. */
#include "cli.h"

static const cli_command BENCHMARKS[] = {
    { "decode", "attention of a new token over a stored cache", cmd_bench_decode },
    { "prefill", "attention of many new tokens, exact and in eight bits", cmd_bench_prefill },
    { "linear", "a linear layer in any precision", cmd_bench_linear },
    { "kproj", "the K projection with RoPE and encoding in one call", cmd_bench_kproj },
    { "model", "a whole model: prompts, and decode with and without pruning", cmd_bench_model },
    { 0 },
};

int cmd_bench(int argc, char **argv) { return cli_dispatch("octavo bench", BENCHMARKS, argc, argv); }
