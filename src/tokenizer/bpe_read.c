/* bpe_read.c - reads the model of a tokenizer.json: vocabulary and merges. */
#include "base/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/hash.h"
#include "tokenizer/utf8.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_LINE "#version" /* opens the list of merges in files of the oldest kind */

static octavo_status read_vocab(octavo_vocab *vocab, const octavo_json_field *field)
{
    const char *key;
    json_t *value;
    OCTAVO_TRY(octavo_json_object(field));
    json_object_foreach((json_t *)(uintptr_t)field->value, key, value) {
        const octavo_json_field member = octavo_json_member(field, key);
        octavo_token *token;
        int64_t id = 0;
        OCTAVO_TRY(octavo_json_whole(&member, 0, INT32_MAX - 1, &id));
        OCTAVO_TRY(octavo_vocab_add(vocab, key, strlen(key), (int32_t)id, &token));
        token->in_model = true;
    }
    return OCTAVO_OK;
}

static octavo_bpe_merge *slot_of(const octavo_bpe *bpe, int32_t left, int32_t right)
{
    const size_t mask = bpe->slot_count - 1;
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = octavo_hash_number(bpe->vocab->seed, pair) & mask;
    while (bpe->slots[at].left >= 0 && (bpe->slots[at].left != left || bpe->slots[at].right != right)) at = (at + 1) & mask;
    return &bpe->slots[at];
}

const octavo_bpe_merge *octavo_bpe_find_merge(const octavo_bpe *bpe, int32_t left, int32_t right)
{
    const octavo_bpe_merge *merge = slot_of(bpe, left, right);
    return merge->left >= 0 ? merge : NULL;
}

/* Where a merge's two halves stand: a list of two, or one string with a blank between them. */
typedef struct halves {
    const char *text[2];
    size_t bytes[2];
} halves;

static octavo_status read_halves(const octavo_json_field *merge, halves *out)
{
    if (json_is_array(merge->value)) {
        const octavo_json_field left = octavo_json_element(merge, 0), right = octavo_json_element(merge, 1);
        if (json_array_size(merge->value) != 2) return octavo_json_fail(OCTAVO_E_FORMAT, merge, "is not a list of two tokens");
        OCTAVO_TRY(octavo_json_field_text(&left, &out->text[0], &out->bytes[0]));
        return octavo_json_field_text(&right, &out->text[1], &out->bytes[1]);
    }
    const char *line;
    size_t bytes;
    OCTAVO_TRY(octavo_json_field_text(merge, &line, &bytes));
    const char *blank = memchr(line, ' ', bytes);
    if (!blank || memchr(blank + 1, ' ', (size_t)(line + bytes - blank - 1)))
        return octavo_json_fail(OCTAVO_E_FORMAT, merge, "is not two tokens with one blank between them");
    *out = (halves){ { line, blank + 1 }, { (size_t)(blank - line), (size_t)(line + bytes - blank - 1) } };
    return OCTAVO_OK;
}

static octavo_status read_merge(octavo_bpe *bpe, const octavo_json_field *field, int32_t rank, octavo_byte_buffer *joined)
{
    halves half;
    OCTAVO_TRY(read_halves(field, &half));
    joined->count = 0;
    OCTAVO_TRY(octavo_byte_buffer_append(joined, half.text[0], half.bytes[0]));
    OCTAVO_TRY(octavo_byte_buffer_append(joined, half.text[1], half.bytes[1]));
    const int32_t left = octavo_vocab_model_id(bpe->vocab, half.text[0], half.bytes[0]);
    const int32_t right = octavo_vocab_model_id(bpe->vocab, half.text[1], half.bytes[1]);
    const int32_t whole = octavo_vocab_model_id(bpe->vocab, joined->data, joined->count);
    if (left < 0 || right < 0 || whole < 0)
        return octavo_json_fail(OCTAVO_E_FORMAT, field, "needs '%.40s', which model.vocab lacks",
                                left < 0 ? half.text[0] : right < 0 ? half.text[1] : "the merged token");
    *slot_of(bpe, left, right) = (octavo_bpe_merge){ left, right, rank, whole };
    return OCTAVO_OK;
}

static octavo_status read_merges(octavo_bpe *bpe, const octavo_json_field *field)
{
    size_t count;
    octavo_byte_buffer joined = { 0 };
    octavo_status status = OCTAVO_OK;
    OCTAVO_TRY(octavo_json_field_list(field, &count));
    bpe->slot_count = 2;
    while (bpe->slot_count / 2 < count) bpe->slot_count *= 2;
    bpe->slots = count < INT32_MAX ? malloc(bpe->slot_count * sizeof *bpe->slots) : NULL;
    if (!bpe->slots) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for %zu merges", field->label, count);
    for (size_t i = 0; i < bpe->slot_count; i++) bpe->slots[i].left = -1;
    int32_t rank = 0;
    for (size_t i = 0; status == OCTAVO_OK && i < count; i++) {
        const octavo_json_field merge = octavo_json_element(field, i);
        const char *line = json_string_value(merge.value);
        if (line && strncmp(line, VERSION_LINE, strlen(VERSION_LINE)) == 0) continue;
        status = read_merge(bpe, &merge, rank++, &joined);
    }
    octavo_byte_buffer_fini(&joined);
    return status;
}

static void find_direct_ids(octavo_bpe *bpe)
{
    char text[sizeof "<0x00>"];
    for (uint32_t byte = 0; byte < 256; byte++) {
        const int bytes = snprintf(text, sizeof text, "<0x%02" PRIX32 ">", byte);
        bpe->byte_ids[byte] = octavo_vocab_model_id(bpe->vocab, text, (size_t)bytes);
    }
    for (uint32_t point = 0; point < BPE_DIRECT_POINTS; point++)
        bpe->point_ids[point] = octavo_vocab_model_id(bpe->vocab, text, octavo_utf8_encode(point, text));
}

/* What subword models of another kind need; empty strings are found in files that do not mean them. */
static octavo_status refuse_text(const octavo_json_field *model, const char *name)
{
    const octavo_json_field field = octavo_json_member(model, name);
    const char *text;
    size_t bytes = 0;
    if (!octavo_json_absent(&field)) OCTAVO_TRY(octavo_json_field_text(&field, &text, &bytes));
    return bytes ? octavo_json_fail(OCTAVO_E_UNSUPPORTED, &field, "is '%.40s', expected null", text) : OCTAVO_OK;
}

static octavo_status read_unknown(octavo_bpe *bpe, const octavo_json_field *field)
{
    const char *text;
    size_t bytes;
    bpe->unknown = -1;
    if (octavo_json_absent(field)) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_field_text(field, &text, &bytes));
    if (!bytes) return OCTAVO_OK;
    bpe->unknown = octavo_vocab_model_id(bpe->vocab, text, bytes);
    return bpe->unknown < 0 ? octavo_json_fail(OCTAVO_E_FORMAT, field, "is '%.40s', which model.vocab lacks", text) : OCTAVO_OK;
}

static octavo_status check_kind(const octavo_json_field *model)
{
    const octavo_json_field type = octavo_json_member(model, "type"), dropout = octavo_json_member(model, "dropout");
    const char *name = "BPE";
    size_t bytes;
    OCTAVO_TRY(octavo_json_object(model));
    if (type.value) OCTAVO_TRY(octavo_json_field_text(&type, &name, &bytes)); /* files of the oldest kind have none */
    if (strcmp(name, "BPE") != 0) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &type, "is '%.40s', expected 'BPE'", name);
    OCTAVO_TRY(octavo_json_known(model, "type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk byte_fallback "
                                        "ignore_merges vocab merges"));
    if (!octavo_json_absent(&dropout) && !(json_is_number(dropout.value) && json_number_value(dropout.value) == 0))
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &dropout, "makes the ids random, expected null");
    OCTAVO_TRY(refuse_text(model, "continuing_subword_prefix"));
    return refuse_text(model, "end_of_word_suffix");
}

octavo_status octavo_bpe_init(octavo_bpe *bpe, octavo_vocab *vocab, const octavo_json_field *model)
{
    const octavo_json_field tokens = octavo_json_member(model, "vocab"), merges = octavo_json_member(model, "merges");
    const octavo_json_field unknown = octavo_json_member(model, "unk_token"), fuse = octavo_json_member(model, "fuse_unk");
    const octavo_json_field fallback = octavo_json_member(model, "byte_fallback"), ignore = octavo_json_member(model, "ignore_merges");
    bpe->vocab = vocab;
    OCTAVO_TRY(check_kind(model));
    OCTAVO_TRY(octavo_json_bool(&fuse, OCTAVO_JSON_OPTIONAL, &bpe->fuse_unknown));
    OCTAVO_TRY(octavo_json_bool(&fallback, OCTAVO_JSON_OPTIONAL, &bpe->byte_fallback));
    OCTAVO_TRY(octavo_json_bool(&ignore, OCTAVO_JSON_OPTIONAL, &bpe->ignore_merges));
    OCTAVO_TRY(read_vocab(vocab, &tokens));
    OCTAVO_TRY(read_unknown(bpe, &unknown));
    OCTAVO_TRY(read_merges(bpe, &merges));
    find_direct_ids(bpe);
    return OCTAVO_OK;
}

void octavo_bpe_fini(octavo_bpe *bpe) { free(bpe->slots); }
