/* model_config_rope.c - the rotary embedding's frequencies, from either way in which config.json describes them. */
#include "base/error.h"
#include "model/model_config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

/* Where the numbers stand: `parameters` may lack rope_theta, which older files keep beside it. */
typedef struct rope_source {
    octavo_json_object parameters;
    double theta;
    int32_t max_tokens, dim;
} rope_source;

/* 1 where `name` is among the layers' types, or the file does not list them. */
static int is_used(const octavo_json_object *root, const char *name)
{
    const json_t *types = json_object_get(root->json, "layer_types"), *type;
    size_t i;
    if (!json_is_array(types)) return 1;
    json_array_foreach(types, i, type)
        if (json_is_string(type) && !strcmp(json_string_value(type), name)) return 1;
    return 0;
}

/* One dictionary a type of layer is fine as long as all layers rotate alike. */
static octavo_status flatten(const octavo_json_object *root, octavo_json_object *parameters)
{
    enum { FIELDS_MAX = 64 }; /* each is looked for in a list as long as the model is deep */
    const char *key;
    json_t *value;
    const json_t *chosen = NULL;
    if (json_object_size(parameters->json) > FIELDS_MAX)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%.*s' has %zu fields, expected at most %d", root->label,
                           (int)strlen(parameters->prefix) - 1, parameters->prefix, json_object_size(parameters->json), FIELDS_MAX);
    json_object_foreach((json_t *)(uintptr_t)parameters->json, key, value) {
        if (!json_is_object(value) || !is_used(root, key)) continue;
        if (chosen && !json_equal(chosen, value))
            return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%s%.60s' differs from other layers' positions, which is not supported",
                               root->label, parameters->prefix, key);
        chosen = value;
    }
    if (chosen) parameters->json = chosen;
    return OCTAVO_OK;
}

static octavo_status find_source(const octavo_json_object *root, rope_source *source)
{
    OCTAVO_TRY(octavo_json_child(root, "rope_scaling", "rope_scaling.", &source->parameters));
    if (!source->parameters.json || json_object_size(source->parameters.json) == 0)
        OCTAVO_TRY(octavo_json_child(root, "rope_parameters", "rope_parameters.", &source->parameters));
    OCTAVO_TRY(flatten(root, &source->parameters));
    enum { THETA_MAX_LOG10 = 15 };
    const double low = 1.01, high = pow(10, THETA_MAX_LOG10);
    OCTAVO_TRY(octavo_json_number(root, "rope_theta", OCTAVO_JSON_OPTIONAL, low, high, &source->theta));
    OCTAVO_TRY(octavo_json_number(&source->parameters, "rope_theta", OCTAVO_JSON_OPTIONAL, low, high, &source->theta));
    double part = 1;
    OCTAVO_TRY(octavo_json_number(root, "partial_rotary_factor", OCTAVO_JSON_OPTIONAL, 0, 1, &part));
    OCTAVO_TRY(octavo_json_number(&source->parameters, "partial_rotary_factor", OCTAVO_JSON_OPTIONAL, 0, 1, &part));
    if (part < 1)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field 'partial_rotary_factor' is %g, but only 1 is supported", root->label, part);
    return OCTAVO_OK;
}

/* In float32 where the reference implementation is: at position 100 000 a last bit of a frequency is visible. */
static void plain_frequencies(const rope_source *s, float *inv_freq)
{
    for (int32_t i = 0; i < s->dim / 2; i++) {
        const float exponent = (float)(2 * i) / (float)s->dim;
        inv_freq[i] = 1.0f / (float)pow((double)(float)s->theta, (double)exponent);
    }
}

static octavo_status read_factor(const rope_source *s, octavo_json_need need, double *factor)
{
    return octavo_json_number(&s->parameters, "factor", need, 1e-3, 1e6, factor);
}

/* The length that the model was first trained for; *given says whether the file names it. */
static octavo_status read_original(const octavo_json_object *root, const rope_source *s, double *original, bool *given)
{
    static const char KEY[] = "original_max_position_embeddings";
    double length = 0;
    OCTAVO_TRY(octavo_json_number(&s->parameters, KEY, OCTAVO_JSON_OPTIONAL, 1, INT32_MAX, &length));
    OCTAVO_TRY(octavo_json_number(root, KEY, OCTAVO_JSON_OPTIONAL, 1, INT32_MAX, &length));
    *given = length > 0;
    *original = *given ? length : (double)s->max_tokens;
    return OCTAVO_OK;
}

static octavo_status scale_linear(const rope_source *s, float *inv_freq)
{
    double factor = 1;
    OCTAVO_TRY(read_factor(s, OCTAVO_JSON_REQUIRED, &factor));
    for (int32_t i = 0; i < s->dim / 2; i++) inv_freq[i] /= (float)factor;
    return OCTAVO_OK;
}

/* Long waves are slowed down by the factor, short ones stay, those between are blended. */
static octavo_status scale_llama3(const octavo_json_object *root, const rope_source *s, float *inv_freq)
{
    double factor = 1, low = 1, high = 4, original = 0;
    bool given;
    OCTAVO_TRY(read_factor(s, OCTAVO_JSON_REQUIRED, &factor));
    OCTAVO_TRY(octavo_json_number(&s->parameters, "low_freq_factor", OCTAVO_JSON_REQUIRED, 1e-6, 1e6, &low));
    OCTAVO_TRY(octavo_json_number(&s->parameters, "high_freq_factor", OCTAVO_JSON_REQUIRED, 1e-6, 1e6, &high));
    if (!(high > low))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%shigh_freq_factor' is %g, expected more than low_freq_factor, %g", root->label,
                           s->parameters.prefix, high, low);
    OCTAVO_TRY(read_original(root, s, &original, &given));
    for (int32_t i = 0; i < s->dim / 2; i++) {
        const float plain = inv_freq[i], wave = (float)(2 * PI) / plain;
        if (wave < (float)(original / high)) continue;
        if (wave > (float)(original / low)) {
            inv_freq[i] = plain / (float)factor;
            continue;
        }
        const float smooth = ((float)original / wave - (float)low) / (float)(high - low);
        inv_freq[i] = (1.0f - smooth) * plain / (float)factor + smooth * plain;
    }
    return OCTAVO_OK;
}

/* The pair of dimensions that turns `rotations` times over the original length. */
static double yarn_dimension(const rope_source *s, double rotations, double original)
{
    return s->dim * log(original / (rotations * 2 * PI)) / (2 * log(s->theta));
}

static double yarn_scale(double factor, double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * log(factor) + 1.0; }

static octavo_status yarn_attention_factor(const rope_source *s, double factor, float *scale)
{
    double given = 0, mscale = 0, all = 0;
    OCTAVO_TRY(octavo_json_number(&s->parameters, "attention_factor", OCTAVO_JSON_OPTIONAL, 1e-6, 1e6, &given));
    OCTAVO_TRY(octavo_json_number(&s->parameters, "mscale", OCTAVO_JSON_OPTIONAL, 0, 1e6, &mscale));
    OCTAVO_TRY(octavo_json_number(&s->parameters, "mscale_all_dim", OCTAVO_JSON_OPTIONAL, 0, 1e6, &all));
    if (given > 0) *scale = (float)given;
    else if (mscale > 0 && all > 0) *scale = (float)(yarn_scale(factor, mscale) / yarn_scale(factor, all));
    else *scale = (float)yarn_scale(factor, 1);
    return OCTAVO_OK;
}

static octavo_status scale_yarn(const octavo_json_object *root, const rope_source *s, octavo_model_description *d)
{
    double factor = 0, fast = 0, slow = 0, original = 0;
    bool truncate = true, given;
    OCTAVO_TRY(read_original(root, s, &original, &given));
    OCTAVO_TRY(read_factor(s, OCTAVO_JSON_OPTIONAL, &factor));
    if (!(factor > 0)) factor = s->max_tokens / original;
    OCTAVO_TRY(octavo_json_number(&s->parameters, "beta_fast", OCTAVO_JSON_OPTIONAL, 0, 1e6, &fast));
    OCTAVO_TRY(octavo_json_number(&s->parameters, "beta_slow", OCTAVO_JSON_OPTIONAL, 0, 1e6, &slow));
    OCTAVO_TRY(octavo_json_flag(&s->parameters, "truncate", &truncate));
    OCTAVO_TRY(yarn_attention_factor(s, factor, &d->config.rope.scale));

    double low = yarn_dimension(s, fast > 0 ? fast : 32, original), high = yarn_dimension(s, slow > 0 ? slow : 1, original);
    if (truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, s->dim - 1);
    if (low == high) high += 0.001; /* a step, not a division by zero */
    for (int32_t i = 0; i < s->dim / 2; i++) {
        const float ramp = ((float)i - (float)low) / (float)(high - low);
        const float kept = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        const float slowed = 1.0f / ((float)factor * (1.0f / d->inv_freq[i]));
        d->inv_freq[i] = slowed * (1.0f - kept) + d->inv_freq[i] * kept;
    }
    /* Some files keep max_position_embeddings at the original length and leave the product to the reader. */
    const double stretched = fmin(floor(factor * original), INT32_MAX);
    if (given && stretched > (double)d->config.max_tokens) d->config.max_tokens = (int64_t)stretched;
    return OCTAVO_OK;
}

octavo_status octavo_model_config_rope(const octavo_json_object *root, octavo_model_description *description)
{
    octavo_model_config *config = &description->config;
    rope_source s = { .theta = description->family->rope_theta, .max_tokens = (int32_t)config->max_tokens, .dim = config->head_dim };
    const char *type = "default";
    OCTAVO_TRY(find_source(root, &s));
    OCTAVO_TRY(octavo_json_text(&s.parameters, "type", OCTAVO_JSON_OPTIONAL, &type));
    OCTAVO_TRY(octavo_json_text(&s.parameters, "rope_type", OCTAVO_JSON_OPTIONAL, &type));
    if (s.dim % 2)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: heads have %d dimensions, expected an even number to rotate", root->label, s.dim);
    description->inv_freq = calloc((size_t)s.dim / 2, sizeof *description->inv_freq);
    if (!description->inv_freq) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for its frequencies", root->label);
    config->rope = (octavo_rope){ OCTAVO_ROPE_ROTATE_HALF, s.dim, description->inv_freq, 1.0f };
    plain_frequencies(&s, description->inv_freq);
    if (!strcmp(type, "default")) return OCTAVO_OK;
    if (!strcmp(type, "linear")) return scale_linear(&s, description->inv_freq);
    if (!strcmp(type, "llama3")) return scale_llama3(root, &s, description->inv_freq);
    if (!strcmp(type, "yarn")) return scale_yarn(root, &s, description);
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: field '%srope_type' is '%.40s', expected default, linear, llama3 or yarn", root->label,
                       s.parameters.prefix, type);
}
