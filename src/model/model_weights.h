/* model_weights.h - a loaded model from the inside: the weights of each part, on the device. */
#ifndef OCTAVO_MODEL_MODEL_WEIGHTS_H
#define OCTAVO_MODEL_MODEL_WEIGHTS_H

#include "octavo/model.h"

/* One linear layer. weight.codes.data NULL: the model has none. */
typedef struct octavo_lm_linear {
    octavo_weight weight;  /* [out, in] as stored, or as quantised at load */
    const void *packed;    /* for the model's precision, or NULL           */
    const float *bias;     /* [out] or NULL                                */
    const float *x_scale;  /* [1] static scale of the input, or NULL       */
} octavo_lm_linear;

typedef struct octavo_lm_norm {
    const float *weight; /* [width] */
    const float *bias;   /* [width] or NULL */
} octavo_lm_norm;

typedef struct octavo_lm_ffn {
    octavo_lm_linear gate; /* gated only */
    octavo_lm_linear up, down;
} octavo_lm_ffn;

typedef struct octavo_lm_layer {
    octavo_lm_norm attention_norm, ffn_norm;
    octavo_lm_norm q_norm, k_norm; /* weight NULL: none */
    octavo_lm_linear q, k, v, o;
    octavo_lm_ffn ffn;             /* dense layers */
    octavo_lm_linear router;       /* sparse layers: [experts, hidden] */
    const octavo_lm_ffn *experts;  /* [experts] */
    float k_scale, v_scale;        /* of a static eight-bit cache, as the checkpoint names them; 0: not given */
} octavo_lm_layer;

typedef struct octavo_lm_weights {
    octavo_tensor embedding;    /* [vocab, hidden] f32, f16 or bf16                       */
    octavo_tensor positions;    /* [max_tokens, hidden] or data NULL                      */
    octavo_lm_layer *layers;    /* [layers]                                               */
    octavo_lm_norm final_norm;  /* weight NULL: none                                      */
    octavo_lm_linear head;      /* [vocab, hidden]: the embedding itself where tied       */
} octavo_lm_weights;

/* 1: the weights of all experts are alike and evenly apart, and share their static scales. */
int octavo_experts_are_even(const octavo_lm_ffn *experts, int32_t count);

octavo_device *octavo_model_device(const octavo_model *model);
const octavo_lm_weights *octavo_model_weights(const octavo_model *model);
/* The precision of embedding-sized and routing products: f32 where the model's is f32, else bf16. */
octavo_linear_precision octavo_model_head_precision(const octavo_model *model);

#endif
