/* model_fixture.h - the texts of config.json that the tests of models start from, with fields replaced. */
#ifndef OCTAVO_TESTS_MODEL_FIXTURE_H
#define OCTAVO_TESTS_MODEL_FIXTURE_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURE_LLAMA                                                                                                            \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"silu\",\"hidden_size\":8,\"intermediate_size\":12,"               \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":512,"                \
    "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"vocab_size\":10,\"bos_token_id\":1,\"eos_token_id\":2}"
#define FIXTURE_GPT2                                                                                                             \
    "{\"architectures\":[\"GPT2LMHeadModel\"],\"activation_function\":\"gelu_new\",\"n_embd\":8,\"n_head\":2,\"n_inner\":null,"     \
    "\"n_layer\":2,\"n_positions\":16,\"layer_norm_epsilon\":1e-5,\"vocab_size\":10,\"tie_word_embeddings\":true}"

/* `base` with the fields of `patch`; "drop": "name" takes one out. The caller frees the text. */
static inline char *fixture_config(const char *base, const char *patch)
{
    json_t *config = json_loads(base, 0, NULL), *changes = json_loads(patch, 0, NULL);
    if (!config || !changes || json_object_update(config, changes)) abort();
    const char *drop = json_string_value(json_object_get(config, "drop"));
    if (drop) json_object_del(config, drop);
    json_object_del(config, "drop");
    char *text = json_dumps(config, JSON_COMPACT);
    json_decref(changes);
    json_decref(config);
    if (!text) abort();
    return text;
}

#endif
