/* fuzz_model_config.c - a config.json is refused, or describes a model whose sizes belong together.
 * Reads with src/model/model_config.c, src/model/model_config_rope.c, src/model/model_config_quant.c, src/model/model_config_generation.c and src/model/model_config_json.c. */
#include "model/model_config.h"
#include "octavo/status.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void check_experts(const octavo_model_config *c)
{
    require(c->experts >= 0);
    if (c->experts > 0) require(c->experts_per_token >= 1 && c->experts_per_token <= c->experts && c->expert_intermediate >= 1);
    for (int32_t i = 0; c->sparse && i < c->layers; i++) require(c->sparse[i] <= 1);
}

static void check_config(const octavo_model_config *c)
{
    require(c->layers >= 1 && c->hidden >= 1 && c->vocab >= 1 && c->max_tokens >= 1 && c->intermediate >= 1);
    require(c->kv_heads >= 1 && c->q_heads % c->kv_heads == 0 && c->head_dim >= 1);
    require(isfinite(c->softmax_scale) && c->softmax_scale > 0 && c->norm_eps >= 0 && isfinite(c->clip_qkv) && c->clip_qkv >= 0);
    require(c->eos_count >= 0 && c->eos_count <= OCTAVO_MODEL_EOS && c->bos >= -1);
    for (int32_t i = 0; i < c->layers; i++) require(c->windows[i] >= 0);
    check_experts(c);
    if (c->position != OCTAVO_POSITION_ROPE) return;
    require(c->rope.rotary_dim % 2 == 0 && c->rope.rotary_dim <= c->head_dim && isfinite(c->rope.scale) && c->rope.scale > 0);
    for (int32_t i = 0; i < c->rope.rotary_dim / 2; i++) require(isfinite(c->rope.inv_freq[i]) && c->rope.inv_freq[i] >= 0);
}

static void check_generation(const octavo_model_config *c)
{
    check_config(c);
    require(c->temperature == -1 || (c->temperature >= 0 && isfinite(c->temperature)));
    require((c->top_p == -1 || (c->top_p >= 0 && c->top_p <= 1)) && (c->min_p == -1 || (c->min_p >= 0 && c->min_p <= 1)) && c->top_k >= -1);
    for (int32_t i = 0; i < c->eos_count; i++) require(c->eos[i] >= 0);
}

/* The text up to the next zero byte; *data is NULL behind the last. */
static size_t next_text(const uint8_t **data, size_t *size, const char **text)
{
    const uint8_t *zero = *size ? memchr(*data, 0, *size) : NULL;
    const size_t length = zero ? (size_t)(zero - *data) : *size;
    *text = (const char *)*data;
    *size -= zero ? length + 1 : length;
    *data = zero ? zero + 1 : NULL;
    return length;
}

/* Three texts with zero bytes between them: config.json, hf_quant_config.json, generation_config.json. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    octavo_model_description d;
    const char *text;
    size_t length = next_text(&data, &size, &text);
    if (octavo_model_description_init(&d, "config.json", text, length) != OCTAVO_OK) {
        require(octavo_last_error()[0] != 0 && d.windows == NULL);
        return 0;
    }
    check_config(&d.config);
    if (data) {
        length = next_text(&data, &size, &text);
        if (length > 0 && octavo_model_description_add_quant(&d, "hf_quant_config.json", text, length) != OCTAVO_OK) return 0;
    }
    if (data) {
        length = next_text(&data, &size, &text);
        if (octavo_model_description_add_generation(&d, "generation_config.json", text, length) != OCTAVO_OK) return 0;
        check_generation(&d.config);
    }
    require(d.quant.source || (!d.quant.layouts && !d.quant.excluded && !d.quant.patterns));
    require(!(d.quant.layouts & OCTAVO_SCALE_BLOCK) || (d.quant.block_rows >= 1 && d.quant.block_cols >= 1));
    octavo_model_quant_excludes(&d.quant, "model.layers.0.mlp.gate_proj");
    octavo_model_description_fini(&d);
    return 0;
}
