"""OpenAI CLIP's random weights, which the paper keeps (section 3.3: standard CLIP but for the vocabulary).

transformers' own rule differs: it swaps the deviations of an attention's inputs and output, and gives the image tower
the text tower's rule. Deviations here, for a tower of `width` and `layers`:

| weights | image tower | text tower |
|---|---|---|
| class token, image positions | width^-1/2 | - |
| patches | uniform, (3 x inputs)^-1/2 | - |
| tokens, text positions | - | 0.02, 0.01 |
| query, key, value | uniform, (2 x width)^-1/2 | width^-1/2 |
| attention output | uniform, (3 x width)^-1/2 | (2 x layers x width)^-1/2 |
| MLP in | uniform, (3 x width)^-1/2 | (2 x width)^-1/2 |
| MLP out | uniform, (3 x hidden)^-1/2 | (2 x layers x width)^-1/2 |
| MLP biases | uniform, (3 x inputs)^-1/2 | the same |
| projection | width^-1/2 | width^-1/2 |

All are normal but where "uniform" stands. Attention biases are 0, norms 1 and 0, the logit scale log(1 / temperature).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import MetaClip2Model


def init_weights(model: MetaClip2Model, temperature: float) -> None:
    """Draw all weights of `model` in place, from torch's global generator."""
    with torch.no_grad():
        _image_tower(model)
        _text_tower(model)
        model.logit_scale.fill_(math.log(1 / temperature))


def _image_tower(model: MetaClip2Model) -> None:
    embeddings, width = model.vision_model.embeddings, model.config.vision_config.hidden_size
    _normal(embeddings.class_embedding, width**-0.5)
    _normal(embeddings.position_embedding.weight, width**-0.5)
    _uniform(embeddings.patch_embedding.weight, embeddings.patch_embedding.weight[0].numel())
    for block in model.vision_model.encoder.layers:
        for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            _uniform(part.weight, 2 * width / 3)
        _uniform(block.self_attn.out_proj.weight, width)
        for part in (block.mlp.fc1, block.mlp.fc2):
            _uniform(part.weight, part.in_features)
        _biases_and_norms(block)
    for norm in (model.vision_model.pre_layrnorm, model.vision_model.post_layernorm):
        norm.reset_parameters()
    _normal(model.visual_projection.weight, width**-0.5)


def _text_tower(model: MetaClip2Model) -> None:
    embeddings, width = model.text_model.embeddings, model.config.text_config.hidden_size
    _normal(embeddings.token_embedding.weight, 0.02)
    _normal(embeddings.position_embedding.weight, 0.01)
    layers = model.text_model.encoder.layers
    output = (2 * len(layers) * width) ** -0.5
    for block in layers:
        for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            _normal(part.weight, width**-0.5)
        _normal(block.self_attn.out_proj.weight, output)
        _normal(block.mlp.fc1.weight, (2 * width) ** -0.5)
        _normal(block.mlp.fc2.weight, output)
        _biases_and_norms(block)
    model.text_model.final_layer_norm.reset_parameters()
    _normal(model.text_projection.weight, width**-0.5)


def _biases_and_norms(block: Any) -> None:
    for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj, block.self_attn.out_proj):
        part.bias.zero_()
    for part in (block.mlp.fc1, block.mlp.fc2):
        _uniform(part.bias, part.in_features)
    for norm in (block.layer_norm1, block.layer_norm2):
        norm.reset_parameters()


def _normal(weight: torch.Tensor, deviation: float) -> None:
    nn.init.normal_(weight, std=deviation)


def _uniform(weight: torch.Tensor, inputs: float) -> None:
    """Uniform in +-inputs^-1/2, whose standard deviation is (3 x inputs)^-1/2."""
    nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5)
