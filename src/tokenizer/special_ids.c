/* special_ids.c - reads bos and eos out of a post_processor; what else it would add is left to the caller. */
#include "tokenizer/special_ids.h"
#include "base/error.h"
#include <string.h>

enum { DEPTH_MOST = 8 };

static octavo_status read_id(const octavo_vocab *vocab, const octavo_json_field *field, int32_t *id)
{
    int64_t number = 0;
    OCTAVO_TRY(octavo_json_whole(field, 0, INT32_MAX - 1, &number));
    if (!octavo_vocab_by_id(vocab, (int32_t)number)) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is the id of no token");
    *id = (int32_t)number;
    return OCTAVO_OK;
}

/* An element of a template: the id of a special token, by the template's own table; nothing for the place of the text. */
static octavo_status read_piece(const octavo_vocab *vocab, const octavo_json_field *processor, const octavo_json_field *piece, int32_t *id)
{
    const octavo_json_field special = octavo_json_member(piece, "SpecialToken"), name = octavo_json_member(&special, "id");
    const octavo_json_field table = octavo_json_member(processor, "special_tokens");
    const char *text;
    size_t bytes;
    if (!special.value) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_field_text(&name, &text, &bytes));
    const octavo_json_field entry = octavo_json_member(&table, text), ids = octavo_json_member(&entry, "ids");
    const octavo_json_field first = octavo_json_element(&ids, 0);
    return read_id(vocab, &first, id);
}

static octavo_status read_template(octavo_special_ids *ids, const octavo_vocab *vocab, const octavo_json_field *processor)
{
    const octavo_json_field single = octavo_json_member(processor, "single");
    size_t count;
    OCTAVO_TRY(octavo_json_field_list(&single, &count));
    if (!count) return OCTAVO_OK;
    const octavo_json_field first = octavo_json_element(&single, 0), last = octavo_json_element(&single, count - 1);
    OCTAVO_TRY(read_piece(vocab, processor, &first, &ids->bos));
    return read_piece(vocab, processor, &last, &ids->eos);
}

/* "cls" and "sep" are pairs of text and id. */
static octavo_status read_pairs(octavo_special_ids *ids, const octavo_vocab *vocab, const octavo_json_field *processor)
{
    const octavo_json_field cls = octavo_json_member(processor, "cls"), sep = octavo_json_member(processor, "sep");
    const octavo_json_field bos = octavo_json_element(&cls, 1), eos = octavo_json_element(&sep, 1);
    OCTAVO_TRY(read_id(vocab, &bos, &ids->bos));
    return read_id(vocab, &eos, &ids->eos);
}

static octavo_status read_any(octavo_special_ids *ids, const octavo_vocab *vocab, const octavo_json_field *field, int depth)
{
    const octavo_json_field name = octavo_json_member(field, "type"), list = octavo_json_member(field, "processors");
    const char *type;
    size_t bytes, count;
    OCTAVO_TRY(octavo_json_object(field));
    OCTAVO_TRY(octavo_json_field_text(&name, &type, &bytes));
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(ids, vocab, field);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) return read_pairs(ids, vocab, field);
    if (strcmp(type, "Sequence") != 0) return OCTAVO_OK; /* adds no tokens, or is not known: the caller asks for none */
    OCTAVO_TRY(octavo_json_field_list(&list, &count));
    if (depth == DEPTH_MOST) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is a sequence within %d others", DEPTH_MOST);
    for (size_t i = 0; i < count; i++) {
        const octavo_json_field element = octavo_json_element(&list, i);
        OCTAVO_TRY(read_any(ids, vocab, &element, depth + 1));
    }
    return OCTAVO_OK;
}

static int32_t first_known(const octavo_vocab *vocab, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const octavo_token *token = octavo_vocab_find(vocab, names[i], strlen(names[i]));
        if (token && token->special) return token->id;
    }
    return -1;
}

octavo_status octavo_special_ids_read(octavo_special_ids *ids, const octavo_vocab *vocab, const octavo_json_field *post_processor)
{
    static const char *const BOS[] = { "<s>", "<|begin_of_text|>", "<bos>", "<|bos|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>" };
    static const char *const EOS[] = { "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "<|endoftext|>", "<｜end▁of▁sentence｜>" };
    *ids = (octavo_special_ids){ -1, -1, 0 };
    if (!octavo_json_absent(post_processor)) OCTAVO_TRY(read_any(ids, vocab, post_processor, 0));
    ids->adds_bos = ids->bos >= 0;
    if (ids->bos < 0) ids->bos = first_known(vocab, BOS, sizeof BOS / sizeof *BOS);
    if (ids->eos < 0) ids->eos = first_known(vocab, EOS, sizeof EOS / sizeof *EOS);
    return OCTAVO_OK;
}
