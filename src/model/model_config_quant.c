/* model_config_quant.c - which convention of eight-bit weights a checkpoint follows. */
#include "base/error.h"
#include "model/model_config.h"
#include <string.h>

enum { BLOCK_MAX = 1 << 20 };

static bool is_pattern(const char *name) { return strchr(name, '*') || !strncmp(name, "re:", 3); }

/* Plain names, of which there may be many, are looked up; patterns are tried one by one. */
static octavo_status keep_excluded(const octavo_json_object *o, const char *key, octavo_model_quant *quant)
{
    const json_t *list, *entry;
    size_t i;
    OCTAVO_TRY(octavo_json_list(o, key, &list));
    if (!list) return OCTAVO_OK;
    if (!quant->excluded) quant->excluded = json_object();
    if (!quant->patterns) quant->patterns = json_array();
    json_array_foreach(list, i, entry) {
        const char *name = json_string_value(entry);
        if (!name)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%s' has an entry %zu that is not a string", o->label, o->prefix, key, i);
        const bool pattern = is_pattern(name);
        quant->pattern_bytes += pattern ? strlen(name) : 0;
        if (pattern ? json_array_append_new(quant->patterns, json_string(name)) : json_object_set_new(quant->excluded, name, json_true()))
            return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for field '%s%s'", o->label, o->prefix, key);
    }
    return OCTAVO_OK;
}

void octavo_model_quant_fini(octavo_model_quant *quant)
{
    json_decref(quant->excluded);
    json_decref(quant->patterns);
    *quant = (octavo_model_quant){ 0 };
}

/* [rows, columns] that share a scale. */
static octavo_status read_block(const octavo_json_object *o, const char *key, octavo_model_quant *quant)
{
    const json_t *list;
    OCTAVO_TRY(octavo_json_list(o, key, &list));
    if (!list) return OCTAVO_OK;
    const json_t *rows = json_array_get(list, 0), *cols = json_array_get(list, 1);
    const int64_t r = json_is_integer(rows) ? json_integer_value(rows) : 0, c = json_is_integer(cols) ? json_integer_value(cols) : 0;
    if (json_array_size(list) != 2 || r < 1 || c < 1 || r > BLOCK_MAX || c > BLOCK_MAX)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%s' is not two whole numbers from 1 to %d", o->label, o->prefix, key, BLOCK_MAX);
    if (quant->block_rows && (quant->block_rows != r || quant->block_cols != c))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%s%s' differs from another group's, which is not supported", o->label,
                           o->prefix, key);
    quant->block_rows = r;
    quant->block_cols = c;
    quant->layouts |= OCTAVO_SCALE_BLOCK;
    return OCTAVO_OK;
}

/* A field that has to have one of two values where it is there at all. */
static octavo_status expect_text(const octavo_json_object *o, const char *key, octavo_json_need need, const char *first, const char *second)
{
    const char *value = first;
    OCTAVO_TRY(octavo_json_text(o, key, need, &value));
    if (!strcmp(value, first) || !strcmp(value, second)) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%s%s' is '%.60s', but only '%s'%s%s%s is supported", o->label, o->prefix, key,
                       value, first, first == second ? "" : " or '", first == second ? "" : second, first == second ? "" : "'");
}

static octavo_status read_fp8(const octavo_json_object *o, octavo_model_quant *quant)
{
    OCTAVO_TRY(expect_text(o, "fmt", OCTAVO_JSON_OPTIONAL, "e4m3", "float8_e4m3fn"));
    OCTAVO_TRY(expect_text(o, "activation_scheme", OCTAVO_JSON_OPTIONAL, "dynamic", "static"));
    OCTAVO_TRY(read_block(o, "weight_block_size", quant));
    if (!quant->layouts) quant->layouts = OCTAVO_SCALE_TENSOR;
    OCTAVO_TRY(keep_excluded(o, "ignored_layers", quant));
    return keep_excluded(o, "modules_to_not_convert", quant);
}

static octavo_status read_group(const octavo_json_object *group, octavo_model_quant *quant)
{
    octavo_json_object weights;
    int64_t bits = 0;
    bool symmetric = true;
    const char *strategy = NULL;
    OCTAVO_TRY(octavo_json_child(group, "weights", "quantization_config.config_groups.weights.", &weights));
    if (!weights.json) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_int64(&weights, "num_bits", OCTAVO_JSON_REQUIRED, 1, 64, &bits));
    if (bits != 8)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%snum_bits' is %lld, but only 8 is supported", weights.label, weights.prefix,
                           (long long)bits);
    OCTAVO_TRY(expect_text(&weights, "type", OCTAVO_JSON_REQUIRED, "float", "float"));
    OCTAVO_TRY(octavo_json_flag(&weights, "symmetric", &symmetric));
    if (!symmetric)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%ssymmetric' is false, but only true is supported", weights.label, weights.prefix);
    OCTAVO_TRY(octavo_json_text(&weights, "strategy", OCTAVO_JSON_REQUIRED, &strategy));
    if (!strcmp(strategy, "tensor")) quant->layouts |= OCTAVO_SCALE_TENSOR;
    else if (!strcmp(strategy, "channel")) quant->layouts |= OCTAVO_SCALE_CHANNEL;
    else if (strcmp(strategy, "block"))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%sstrategy' is '%.60s', expected tensor, channel or block", weights.label,
                           weights.prefix, strategy);
    else {
        OCTAVO_TRY(read_block(&weights, "block_structure", quant));
        if (!quant->block_rows)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: has no field '%sblock_structure'", weights.label, weights.prefix);
    }
    return OCTAVO_OK;
}

static octavo_status read_compressed(const octavo_json_object *o, octavo_model_quant *quant)
{
    octavo_json_object groups, sparsity, group = { o->label, "quantization_config.config_groups.", NULL };
    const char *key;
    OCTAVO_TRY(expect_text(o, "format", OCTAVO_JSON_REQUIRED, "float-quantized", "naive-quantized"));
    OCTAVO_TRY(octavo_json_child(o, "sparsity_config", "quantization_config.sparsity_config.", &sparsity));
    OCTAVO_TRY(expect_text(&sparsity, "format", OCTAVO_JSON_OPTIONAL, "dense", "dense"));
    OCTAVO_TRY(octavo_json_child(o, "config_groups", "quantization_config.config_groups.", &groups));
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)groups.json, key, value) {
        group.json = value;
        if (!json_is_object(value))
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%.60s' is not an object", o->label, groups.prefix, key);
        OCTAVO_TRY(read_group(&group, quant));
    }
    if (!quant->layouts)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'quantization_config.config_groups' names no group with weights", o->label);
    return keep_excluded(o, "ignore", quant);
}

static octavo_status read_modelopt(const octavo_json_object *o, octavo_model_quant *quant)
{
    const char *algorithm = NULL;
    OCTAVO_TRY(octavo_json_text(o, "quant_algo", OCTAVO_JSON_OPTIONAL, &algorithm));
    if (!algorithm) return OCTAVO_OK;
    quant->source = o->label;
    if (!strcmp(algorithm, "FP8")) quant->layouts = OCTAVO_SCALE_TENSOR;
    else if (!strcmp(algorithm, "FP8_PER_CHANNEL_PER_TOKEN")) quant->layouts = OCTAVO_SCALE_CHANNEL;
    else
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%squant_algo' is '%.60s', expected FP8 or FP8_PER_CHANNEL_PER_TOKEN", o->label,
                           o->prefix, algorithm);
    OCTAVO_TRY(keep_excluded(o, "ignore", quant));
    return keep_excluded(o, "exclude_modules", quant);
}

octavo_status octavo_model_config_quant(const octavo_json_object *root, octavo_model_quant *quant)
{
    octavo_json_object o;
    const char *method = NULL;
    OCTAVO_TRY(octavo_json_child(root, "quantization_config", "quantization_config.", &o));
    if (!o.json) OCTAVO_TRY(octavo_json_child(root, "compression_config", "compression_config.", &o));
    if (!o.json) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_text(&o, "quant_method", OCTAVO_JSON_REQUIRED, &method));
    if (!strcmp(method, "modelopt")) return read_modelopt(&o, quant);
    quant->source = root->label;
    if (!strcmp(method, "fp8")) return read_fp8(&o, quant);
    if (!strcmp(method, "compressed-tensors")) return read_compressed(&o, quant);
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%squant_method' is '%.60s', expected fp8, compressed-tensors or modelopt",
                       root->label, o.prefix, method);
}

octavo_status octavo_model_modelopt_quant(const octavo_json_object *root, octavo_model_quant *quant)
{
    octavo_json_object o;
    OCTAVO_TRY(octavo_json_child(root, "quantization", "quantization.", &o));
    return o.json ? read_modelopt(&o, quant) : OCTAVO_OK;
}

/* ---- Lists of modules that stay floats ---- */

/* '*' stands for any text, a byte 1 for any single character. Iterative: the last '*' alone is ever taken back. */
static bool glob_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == *text || *pattern == 1) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else return false;
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

/* A regular expression of letters, '.', '.*', escaped points and a closing '$' as a glob; false: it has more than these. */
static bool glob_from_regex(const char *regex, char *glob, size_t bytes)
{
    size_t length = 0;
    if (*regex == '^') regex++; /* such patterns match from the start anyway */
    for (; *regex; regex++) {
        char c = *regex;
        if (c == '$' && !regex[1]) break;
        if (c == '.' && regex[1] == '*') {
            c = '*';
            regex++;
        } else if (c == '.') c = 1;
        else if (c == '\\' && strchr(".-_/", regex[1]) && regex[1]) c = *++regex;
        else if (strchr("\\[](){}*+?|^$\1", c)) return false;
        if (length + 2 >= bytes) return false;
        glob[length++] = c;
    }
    if (*regex != '$') glob[length++] = '*';
    glob[length] = 0;
    return true;
}

bool octavo_model_quant_excludes(const octavo_model_quant *quant, const char *module)
{
    enum { GLOB_BYTES = 512 };
    size_t i;
    const json_t *entry;
    if (json_object_get(quant->excluded, module)) return true;
    json_array_foreach(quant->patterns, i, entry) {
        const char *pattern = json_string_value(entry);
        char glob[GLOB_BYTES];
        if (strncmp(pattern, "re:", 3)) {
            if (glob_matches(pattern, module)) return true;
        } else if (glob_from_regex(pattern + 3, glob, sizeof glob) && glob_matches(glob, module)) return true;
    }
    return false;
}
