/* bench_settings.c - the options of `octavo bench decode` and what they may be. */
#include "bench_settings.h"
#include "cli.h"
#include "machine.h"
#include "options.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS_MOST = INT32_MAX, HEADS_MOST = 65536, DIM_MOST = 65536, WORD_BYTES = 64 };

typedef struct bench_words {
    const char *synthetic, *queries, *lengths, *attention;
} bench_words;

/* Copies the text up to `stop` or its end and moves *text past it; 0: it does not fit. */
static int take_word(const char **text, char stop, char word[WORD_BYTES])
{
    const char *end = strchr(*text, stop);
    const size_t length = end ? (size_t)(end - *text) : strlen(*text);
    if (length >= WORD_BYTES) return 0;
    memcpy(word, *text, length);
    word[length] = '\0';
    *text += length + (end != NULL);
    return 1;
}

static int parse_synthetic(const char *text, bench_synthetic *synthetic)
{
    const struct {
        const char *name;
        int64_t *value, least, most;
    } keys[] = {
        { "batch", &synthetic->batch, 1, TOKENS_MOST },      { "q_heads", &synthetic->q_heads, 1, HEADS_MOST },
        { "kv_heads", &synthetic->kv_heads, 1, HEADS_MOST }, { "head_dim", &synthetic->head_dim, 1, DIM_MOST },
        { "tokens", &synthetic->tokens, 1, TOKENS_MOST },    { "seed", &synthetic->seed, 0, INT32_MAX },
    };
    enum { KEYS = sizeof keys / sizeof *keys };
    unsigned seen = 0;
    for (const char *rest = text; *rest;) {
        char word[WORD_BYTES];
        if (!take_word(&rest, ',', word)) return cli_refuse("option --synthetic has an entry of more than %d characters", WORD_BYTES - 1);
        char *value = strchr(word, '=');
        if (!value) return cli_refuse("option --synthetic has '%s', expected KEY=NUMBER", word);
        *value++ = '\0';
        unsigned key = 0;
        while (key < KEYS && strcmp(word, keys[key].name) != 0) key++;
        if (key == KEYS && strcmp(word, "hot") != 0)
            return cli_refuse("option --synthetic has no '%s', expected batch, q_heads, kv_heads, head_dim, tokens, hot or seed", word);
        if (seen & 1u << key) return cli_refuse("option --synthetic has '%s' twice", word);
        seen |= 1u << key;
        if (key == KEYS) {
            if (!options_number(value, &synthetic->hot) || synthetic->hot < 0 || synthetic->hot > 1)
                return cli_refuse("option --synthetic has hot '%s', expected a share from 0 to 1", value);
        } else if (!options_integer(value, keys[key].least, keys[key].most, keys[key].value)) {
            return cli_refuse("option --synthetic has %s '%s', expected a whole number from %" PRId64 " to %" PRId64, word, value,
                              keys[key].least, keys[key].most);
        }
    }
    if (synthetic->q_heads % synthetic->kv_heads != 0)
        return cli_refuse("q_heads is %" PRId64 ", expected a multiple of kv_heads, %" PRId64, synthetic->q_heads, synthetic->kv_heads);
    return EXIT_DONE;
}

static int add_length(bench_settings *settings, int64_t length)
{
    if (settings->length_count == BENCH_LENGTHS_MOST) return cli_refuse("option --lengths names more than %d lengths", BENCH_LENGTHS_MOST);
    settings->lengths[settings->length_count++] = length;
    return EXIT_DONE;
}

/* FROM:TO:STEP, or a list of numbers. */
static int parse_lengths(const char *text, bench_settings *settings)
{
    const char *rest = text;
    char word[WORD_BYTES];
    int64_t range[3];
    int status = EXIT_DONE;
    if (strchr(text, ':')) {
        for (int i = 0; i < 3; i++)
            if (!take_word(&rest, ':', word) || !options_integer(word, 1, TOKENS_MOST, &range[i]))
                return cli_refuse("option --lengths is '%s', expected FROM:TO:STEP with numbers from 1 to %d", text, TOKENS_MOST);
        if (*rest || range[1] < range[0]) return cli_refuse("option --lengths is '%s', expected FROM:TO:STEP with FROM <= TO", text);
        for (int64_t length = range[0]; length <= range[1] && status == EXIT_DONE; length += range[2]) status = add_length(settings, length);
        return status;
    }
    if (text[strlen(text) - 1] == ',') return cli_refuse("option --lengths is '%s', which ends in a comma", text);
    while (*rest && status == EXIT_DONE) {
        int64_t length;
        if (!take_word(&rest, ',', word) || !options_integer(word, 1, TOKENS_MOST, &length))
            return cli_refuse("option --lengths is '%s', expected FROM:TO:STEP or N,N with numbers from 1 to %d", text, TOKENS_MOST);
        status = add_length(settings, length);
    }
    return status;
}

static int parse_words(const bench_words *words, bench_settings *settings)
{
    if (octavo_attention_precision_parse(words->attention, &settings->attention) != OCTAVO_OK)
        return cli_refuse("option --attention: %s", octavo_last_error());
    if (strcmp(words->queries, "all") == 0)
        settings->queries = BENCH_QUERIES_ALL;
    else if (strcmp(words->queries, "last") == 0)
        settings->queries = 1;
    else if (!options_integer(words->queries, 1, TOKENS_MOST, &settings->queries))
        return cli_refuse("option --queries is '%s', expected last, all or a number from 1", words->queries);
    return words->lengths ? parse_lengths(words->lengths, settings) : EXIT_DONE;
}

static int check_settings(const bench_words *words, bench_settings *settings)
{
    if (!settings->file == !words->synthetic)
        return cli_refuse(settings->file ? "options --data and --synthetic exclude each other"
                                         : "one of the options --data FILE and --synthetic SPEC is needed");
    if (settings->file && settings->layer < 0) return cli_refuse("option --data needs --layer N");
    if (!settings->file && settings->layer >= 0) return cli_refuse("option --layer belongs to --data");
    if (words->synthetic) {
        const int64_t batch = settings->batch;
        const int named = strstr(words->synthetic, "batch=") != NULL;
        if (batch && named && batch != settings->synthetic.batch)
            return cli_refuse("option --batch is %" PRId64 ", but --synthetic says batch=%" PRId64, batch, settings->synthetic.batch);
        if (batch) settings->synthetic.batch = batch;
    }
    return EXIT_DONE;
}

int bench_settings_parse(int argc, char **argv, bench_settings *settings, int *status)
{
    bench_words words = { .queries = "last", .attention = "exact" };
    *settings = (bench_settings){
        .layer = -1, .cache = CACHE_OPTIONS_INIT, .repeat = 15, .device = "cpu",
        .synthetic = { .batch = 1, .q_heads = 32, .kv_heads = 8, .head_dim = 128, .tokens = 131072, .hot = 0.05, .seed = 1 },
    };
    settings->threads = machine_threads();
    settings->cache.k_word = "e4m3x2";
    settings->cache.v_word = "bf16";
    option cache_rows[CACHE_OPTION_ROWS + 1] = { 0 };
    cache_options_rows(&settings->cache, CACHE_K_NAMES "\n(default e4m3x2)", CACHE_V_NAMES " (default bf16)", cache_rows);
    const option options[] = {
        { "data", 0, OPTION_TEXT, "FILE", "recorded layers, a safetensors file", &settings->file, 0, 0 },
        { "layer", 0, OPTION_INTEGER, "N", "the layer of FILE", &settings->layer, 0, INT32_MAX },
        { "synthetic", 0, OPTION_TEXT, "SPEC",
          "made-up data, for time only: batch=1,q_heads=32,kv_heads=8,\nhead_dim=128,tokens=131072,hot=0.05,seed=1 (the defaults)",
          &words.synthetic, 0, 0 },
        { "attention", 0, OPTION_TEXT, "TYPE", "what products are computed in: exact fp8 (default exact)", &words.attention, 0, 0 },
        { "queries", 0, OPTION_TEXT, "WHICH", "for the errors: last, all or the N newest (default last)", &words.queries, 0, 0 },
        { "batch", 0, OPTION_INTEGER, "N", "sequences of a timed call, each with its own pages\n(default: as many as the data have)",
          &settings->batch, 1, 65536 },
        { "lengths", 0, OPTION_TEXT, "LIST", "FROM:TO:STEP or N,N: tokens in the cache, the data's last\n(default: all)", &words.lengths, 0, 0 },
        { "max-tokens", 0, OPTION_INTEGER, "N", "tokens that calls are planned for, as those of a graph are\n(default: as many as the cache has)",
          &settings->max_tokens, 1, TOKENS_MOST },
        { "repeat", 0, OPTION_INTEGER, "N", "timed calls, of which the median is reported (default 15)", &settings->repeat, 1, 100000 },
        { "threads", 't', OPTION_INTEGER, "N", "default: as many as OpenMP uses", &settings->threads, 1, 4096 },
        { "device", 0, OPTION_TEXT, "NAME", "cpu or cuda:N, default cpu", &settings->device, 0, 0 },
        { "out", 0, OPTION_TEXT, "DIR", "keeps the result there, and reads it back the next time", &settings->out, 0, 0 },
        { "fresh", 0, OPTION_FLAG, NULL, "measures even if DIR has the result", &settings->fresh, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON (docs/JSON.md) instead of a table", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench decode (--data FILE --layer N | --synthetic SPEC) [OPTIONS]",
        .about = "Times one new token's attention over a cache of stored K and V, caches cold, and\n"
                 "compares its output with float64 attention over the unquantised inputs. Beside it\n"
                 "runs the baseline: exact attention over bf16.\n",
        .options = options,
        .more = cache_rows,
    };
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = words.synthetic ? parse_synthetic(words.synthetic, &settings->synthetic) : EXIT_DONE;
    if (*status == EXIT_DONE) *status = cache_options_check(&settings->cache);
    if (*status == EXIT_DONE) *status = parse_words(&words, settings);
    if (*status == EXIT_DONE) *status = check_settings(&words, settings);
    return *status == EXIT_DONE;
}
