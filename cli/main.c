/* main.c - the program `octavo`: finds the command and runs it. */
#include "cli.h"
#include "octavo/octavo.h"
#include <stdio.h>
#include <string.h>

static const cli_command COMMANDS[] = {
    { "info", "version, build, instruction sets, devices and optional parts", cmd_info },
    { "generate", "continues a text", cmd_generate },
    { "perplexity", "how well a model predicts a text", cmd_perplexity },
    { "verify", "a model's logits against those of another implementation", cmd_verify },
    { "record", "layers of a model over a text, for bench decode", cmd_record },
    { "rollout", "several sampled answers a prompt, with their log-probabilities", cmd_rollout },
    { "tokenize", "text as token ids, and back", cmd_tokenize },
    { "bench", "speed and error of an operation, measured", cmd_bench },
    { "plot", "pictures of what bench measured", cmd_plot },
    { 0 },
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("octavo %s\n", octavo_version());
        return cli_finish_output();
    }
    return cli_dispatch("octavo", COMMANDS, argc, argv);
}
