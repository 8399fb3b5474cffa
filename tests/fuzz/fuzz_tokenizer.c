/* fuzz_tokenizer.c - any bytes are either refused as a tokenizer.json or encode and decode; a byte-level tokenizer gives every text
 * back. An input is the file, a zero byte, and a text (without a zero: the file is the text as well).
 * Reads with src/tokenizer/tokenizer_read.c, src/tokenizer/json_field.c, src/tokenizer/vocab.c, src/tokenizer/bpe_read.c,
 * src/tokenizer/added_tokens_read.c, src/tokenizer/normalizer.c, src/tokenizer/pre_tokenizer_read.c, src/tokenizer/pattern_syntax.c,
 * src/tokenizer/pattern.c, src/tokenizer/decoder.c and src/tokenizer/special_ids.c; then src/tokenizer/added_tokens.c,
 * src/tokenizer/nfc.c, src/tokenizer/pre_tokenizer.c, src/tokenizer/bpe.c, src/tokenizer/tokenizer_encode.c and
 * src/tokenizer/tokenizer_decode.c work. */
#include "octavo/tokenizer.h"
#include "tokenizer_fixture.h"

enum { TEXT_BYTES_MOST = 1 << 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

/* What every tokenizer keeps to, whatever its file says. */
static void check_text(const octavo_tokenizer *t, const char *text, size_t bytes, unsigned flags, int gives_back)
{
    size_t count = 0, again, made = 0, whole = 0;
    const octavo_status status = octavo_tokenizer_encode(t, text, bytes, flags, NULL, &count);
    if (status != OCTAVO_OK) {
        require(octavo_last_error()[0] != 0 && (status != OCTAVO_E_ARGUMENT || strstr(octavo_last_error(), "UTF-8")));
        return;
    }
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    again = count;
    require(ids && octavo_tokenizer_encode(t, text, bytes, flags, ids, &again) == OCTAVO_OK && again == count);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *piece;
        size_t length;
        require(ids[i] >= 0 && ids[i] < octavo_tokenizer_vocab_size(t));
        require(octavo_tokenizer_token_bytes(t, ids[i], &piece, &length) == OCTAVO_OK);
        made += length;
    }
    require(octavo_tokenizer_decode(t, ids, count, OCTAVO_TOKENIZER_PLAIN, NULL, &whole) == OCTAVO_OK && whole <= made);
    char *back = malloc(whole + 1);
    require(back && octavo_tokenizer_decode(t, ids, count, OCTAVO_TOKENIZER_PLAIN, back, &whole) == OCTAVO_OK);
    require(!gives_back || (whole == bytes && memcmp(back, text, bytes) == 0));
    if (count) {
        size_t less = count - 1, skipped = 0;
        require(octavo_tokenizer_encode(t, text, bytes, flags, ids, &less) == OCTAVO_E_RANGE && less == count);
        require(octavo_tokenizer_decode(t, ids, count, OCTAVO_TOKENIZER_SKIP_SPECIAL, NULL, &skipped) == OCTAVO_OK);
    }
    free(back);
    free(ids);
}

static void check_file(const char *file, size_t file_bytes, const char *text, size_t bytes)
{
    octavo_tokenizer *t = NULL;
    const octavo_status status = octavo_tokenizer_open_memory(file, file_bytes, &t);
    require((status == OCTAVO_OK) == (t != NULL));
    if (!t) {
        require(octavo_last_error()[0] != 0);
        return;
    }
    const int32_t ends[] = { octavo_tokenizer_bos_id(t), octavo_tokenizer_eos_id(t) };
    for (size_t i = 0; i < 2; i++) require(ends[i] >= -1 && ends[i] < octavo_tokenizer_vocab_size(t));
    check_text(t, text, bytes, OCTAVO_TOKENIZER_PARSE_SPECIAL | OCTAVO_TOKENIZER_ADD_BOS, 0);
    check_text(t, text, bytes, OCTAVO_TOKENIZER_PLAIN, 0);
    octavo_tokenizer_close(t);
}

/* GPT-2's way and a newer one, over a vocabulary of all bytes. */
static octavo_tokenizer *byte_level(int newer)
{
#define SWITCHES FIXTURE_SWITCHES(false, false, false, false)
    static const tokenizer_parts PARTS[] = {
        { .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", .vocab = ",\"\u0120t\":256,\"he\":257,\"\u0120the\":258",
          .merges = "\"\u0120 t\",\"h e\",\"\u0120t he\"", .added = FIXTURE_ADDED(300, "<|end|>", true, SWITCHES) },
        { .pre = FIXTURE_SPLIT("(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
                               "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"),
          .model = ",\"ignore_merges\":true", .added = FIXTURE_ADDED(300, "ab", false, SWITCHES) "," FIXTURE_ADDED(301, "abc", true, SWITCHES) },
    };
    octavo_tokenizer *t = NULL;
    const char *file = fixture_tokenizer(&PARTS[newer]);
    require(octavo_tokenizer_open_memory(file, strlen(file), &t) == OCTAVO_OK);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static octavo_tokenizer *known[2];
    const char *file = (const char *)data, *zero = size ? memchr(data, 0, size) : NULL;
    const size_t file_bytes = zero ? (size_t)(zero - file) : size;
    const char *text = zero ? zero + 1 : file;
    size_t bytes = zero ? size - file_bytes - 1 : size;
    if (bytes > TEXT_BYTES_MOST) bytes = TEXT_BYTES_MOST;
    check_file(size ? file : "", file_bytes, text, bytes);
    for (int i = 0; i < 2; i++) {
        if (!known[i]) known[i] = byte_level(i);
        check_text(known[i], text, bytes, OCTAVO_TOKENIZER_PARSE_SPECIAL, 1);
    }
    return 0;
}
