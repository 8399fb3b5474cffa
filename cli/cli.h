/* cli.h - what every command shares: exit statuses, refusals, and the commands themselves. */
#ifndef OCTAVO_CLI_CLI_H
#define OCTAVO_CLI_CLI_H

/* 1 is for a check that failed, 2 for wrong use, wrong input or a machine that cannot do it. */
enum { EXIT_DONE = 0, EXIT_CHECK_FAILED = 1, EXIT_REFUSED = 2 };

/* Prints "octavo: " and one sentence to stderr, control characters replaced, and returns EXIT_REFUSED. */
int cli_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with octavo_last_error(). */
int cli_refuse_last(void);
/* A message that is not an error, to stderr. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Flushes stdout: EXIT_DONE, or EXIT_REFUSED after a sentence when the results could not be written. */
int cli_finish_output(void);

/* argv[0] is the command's own name. */
int cmd_info(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_bench_decode(int argc, char **argv);
int cmd_bench_kproj(int argc, char **argv);
int cmd_bench_linear(int argc, char **argv);
int cmd_bench_model(int argc, char **argv);
int cmd_bench_prefill(int argc, char **argv);
int cmd_plot(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_record(int argc, char **argv);
int cmd_rollout(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);

typedef struct cli_command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} cli_command;

/* Runs the command that argv[1] names, or prints the list of them. `prefix`: "octavo" or "octavo bench". */
int cli_dispatch(const char *prefix, const cli_command *commands, int argc, char **argv);

#endif
