/* normalizer.c - reads and applies a normalizer: Prepend, Replace, NFC and sequences of them. */
#include "tokenizer/normalizer.h"
#include "base/error.h"
#include "tokenizer/nfc.h"
#include <string.h>

enum { DEPTH_MOST = 8, TEXT_BYTES_MOST = 256, GROWTH_MOST = 16, GROWTH_LEAST = 4096 };

static octavo_status read_text(octavo_byte_buffer *out, const octavo_json_field *field)
{
    const char *text;
    size_t bytes;
    OCTAVO_TRY(octavo_json_field_text(field, &text, &bytes));
    if (bytes > TEXT_BYTES_MOST)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "has %zu bytes, expected at most %d", bytes, TEXT_BYTES_MOST);
    return octavo_byte_buffer_append(out, text, bytes);
}

static octavo_status read_step(octavo_normalizer_step *step, const octavo_json_field *field, const char *type)
{
    const octavo_json_field name = octavo_json_member(field, "type"), prepend = octavo_json_member(field, "prepend");
    const octavo_json_field pattern = octavo_json_member(field, "pattern"), content = octavo_json_member(field, "content");
    if (strcmp(type, "NFC") == 0) {
        step->kind = OCTAVO_NORMALIZER_NFC;
        return octavo_json_known(field, "type");
    }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = OCTAVO_NORMALIZER_PREPEND;
        OCTAVO_TRY(octavo_json_known(field, "type prepend"));
        return read_text(&step->text, &prepend);
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = OCTAVO_NORMALIZER_REPLACE;
        OCTAVO_TRY(octavo_json_known(field, "type pattern content"));
        OCTAVO_TRY(octavo_pattern_read(&step->pattern, &pattern));
        return read_text(&step->text, &content);
    }
    return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &name, "is '%.40s', expected Sequence, Prepend, Replace or NFC", type);
}

static octavo_status read_any(octavo_normalizer *normalizer, const octavo_json_field *field, int depth)
{
    const octavo_json_field name = octavo_json_member(field, "type"), list = octavo_json_member(field, "normalizers");
    const char *type;
    size_t bytes, count;
    OCTAVO_TRY(octavo_json_object(field));
    OCTAVO_TRY(octavo_json_field_text(&name, &type, &bytes));
    if (strcmp(type, "Sequence") != 0) {
        if (normalizer->count == NORMALIZER_STEPS_MOST)
            return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is one step too many, expected at most %d", NORMALIZER_STEPS_MOST);
        return read_step(&normalizer->steps[normalizer->count++], field, type);
    }
    OCTAVO_TRY(octavo_json_known(field, "type normalizers"));
    OCTAVO_TRY(octavo_json_field_list(&list, &count));
    if (depth == DEPTH_MOST) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is a sequence within %d others", DEPTH_MOST);
    for (size_t i = 0; i < count; i++) {
        const octavo_json_field element = octavo_json_element(&list, i);
        OCTAVO_TRY(read_any(normalizer, &element, depth + 1));
    }
    return OCTAVO_OK;
}

octavo_status octavo_normalizer_init(octavo_normalizer *normalizer, const octavo_json_field *field)
{
    return octavo_json_absent(field) ? OCTAVO_OK : read_any(normalizer, field, 0);
}

void octavo_normalizer_fini(octavo_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        octavo_pattern_fini(&normalizer->steps[i].pattern);
        octavo_byte_buffer_fini(&normalizer->steps[i].text);
    }
}

static octavo_status replace(const octavo_normalizer_step *step, octavo_pattern_work *work, const octavo_byte_buffer *in,
                             octavo_byte_buffer *out)
{
    octavo_pattern_scan scan = { 0 };
    octavo_span found;
    size_t copied = 0;
    for (;;) {
        OCTAVO_TRY(octavo_pattern_next(&step->pattern, work, in->data, in->count, &scan, &found));
        const size_t upto = found.begin == SIZE_MAX ? in->count : found.begin;
        OCTAVO_TRY(octavo_byte_buffer_append(out, in->data + copied, upto - copied));
        if (found.begin == SIZE_MAX) return OCTAVO_OK;
        OCTAVO_TRY(octavo_byte_buffer_append(out, step->text.data, step->text.count));
        copied = found.end;
    }
}

static octavo_status apply_step(const octavo_normalizer_step *step, octavo_pattern_work *work, const octavo_byte_buffer *in,
                                octavo_byte_buffer *out)
{
    switch (step->kind) {
    case OCTAVO_NORMALIZER_PREPEND:
        OCTAVO_TRY(octavo_byte_buffer_append(out, step->text.data, step->text.count));
        return octavo_byte_buffer_append(out, in->data, in->count);
    case OCTAVO_NORMALIZER_REPLACE: return replace(step, work, in, out);
    case OCTAVO_NORMALIZER_NFC: return octavo_nfc_append(out, in->data, in->count);
    }
    return OCTAVO_OK;
}

octavo_status octavo_normalizer_apply(const octavo_normalizer *normalizer, octavo_pattern_work *work, const char *text, size_t bytes,
                                      octavo_byte_buffer *out, octavo_byte_buffer *spare)
{
    out->count = 0;
    OCTAVO_TRY(octavo_byte_buffer_append(out, text, bytes));
    for (size_t i = 0; i < normalizer->count && out->count; i++) {
        spare->count = 0;
        OCTAVO_TRY(apply_step(&normalizer->steps[i], work, out, spare));
        if (spare->count / GROWTH_MOST > bytes + GROWTH_LEAST)
            return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: the normalizer makes a text of %zu bytes more than %d times as long", work->label,
                               bytes, GROWTH_MOST);
        const octavo_byte_buffer swapped = *out;
        *out = *spare;
        *spare = swapped;
    }
    return OCTAVO_OK;
}
