/* tokenizer_read.c - reads a tokenizer.json: everything in it is checked and made ready before the first text comes. */
#include "base/error.h"
#include "tokenizer/tokenizer.h"
#include <inttypes.h>

enum { FILE_BYTES_MOST = 100 * 1000 * 1000 };

static octavo_status read_tokens(octavo_tokenizer *t, const octavo_json_field *root)
{
    const octavo_json_field added = octavo_json_member(root, "added_tokens"), model = octavo_json_member(root, "model");
    int32_t twice;
    OCTAVO_TRY(octavo_bpe_init(&t->bpe, &t->vocab, &model));
    OCTAVO_TRY(octavo_added_tokens_init(&t->added, &t->vocab, &added));
    OCTAVO_TRY(octavo_vocab_seal(&t->vocab, &twice));
    if (twice >= 0) return octavo_json_fail(OCTAVO_E_FORMAT, &model, "and added_tokens give the id %" PRId32 " to two tokens", twice);
    return t->vocab.count ? OCTAVO_OK : octavo_json_fail(OCTAVO_E_FORMAT, &model, "has no tokens");
}

static octavo_status read_root(octavo_tokenizer *t, const octavo_json_field *root)
{
    const octavo_json_field normalizer = octavo_json_member(root, "normalizer"), pre = octavo_json_member(root, "pre_tokenizer");
    const octavo_json_field decoder = octavo_json_member(root, "decoder"), post = octavo_json_member(root, "post_processor");
    octavo_pattern_work work = { 0 };
    OCTAVO_TRY(octavo_json_object(root));
    OCTAVO_TRY(octavo_normalizer_init(&t->normalizer, &normalizer));
    OCTAVO_TRY(octavo_pre_tokenizer_init(&t->pre_tokenizer, &pre));
    OCTAVO_TRY(octavo_decoder_init(&t->decoder, &decoder));
    OCTAVO_TRY(read_tokens(t, root));
    OCTAVO_TRY(octavo_decoder_apply(&t->decoder, &t->vocab, &decoder));
    OCTAVO_TRY(octavo_special_ids_read(&t->ids, &t->vocab, &post));
    octavo_status status = octavo_pattern_work_init(&work, t->label, t->vocab.text.count);
    if (status == OCTAVO_OK) status = octavo_added_tokens_index(&t->added, &t->vocab, &t->normalizer, &work);
    octavo_pattern_work_fini(&work);
    return status;
}

octavo_status octavo_tokenizer_read(octavo_tokenizer *t, const void *data, size_t size)
{
    json_error_t error;
    if (size > FILE_BYTES_MOST)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: has %zu bytes, expected at most %d", t->label, size, FILE_BYTES_MOST);
    json_t *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
    if (!root && json_error_code(&error) == json_error_out_of_memory)
        return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for its %zu bytes", t->label, size);
    if (!root)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: is refused at line %d, byte %d: %s", t->label, error.line, error.position, error.text);
    const octavo_json_field field = { .label = t->label, .value = root };
    const octavo_status status = read_root(t, &field);
    json_decref(root);
    return status;
}
