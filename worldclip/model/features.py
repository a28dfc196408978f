"""L2-normalised features of a `MetaClip2Model`'s towers, as training and export compute them.

Both towers read their feature at one token, so of the last block only that token is computed: the keys and values of
all, and one query, one row of the MLP. It saves most of what a tower of one block costs, and less of a deeper one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import MetaClip2Model
from transformers.masking_utils import create_causal_mask

TEXT_CHUNK = 512  #: texts of like length that are encoded together


def image_features(model: MetaClip2Model, pixels: torch.Tensor) -> torch.Tensor:
    """L2-normalised features [n, d] of images [n, 3, size, size], normalised pixels."""
    tower = model.vision_model
    states = tower.pre_layrnorm(tower.embeddings(pixels))
    first = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    pooled = _blocks(tower.encoder.layers, states, first, causal=False)
    return _normalized(model.visual_projection(tower.post_layernorm(pooled)))


def text_lengths(model: MetaClip2Model, ids: torch.Tensor) -> torch.Tensor:
    """Tokens of each text up to its first end of sequence, int64 [...] of ids [..., length]."""
    end: int = model.config.text_config.eos_token_id
    return (ids == end).int().argmax(-1) + 1


def text_features(model: MetaClip2Model, ids: torch.Tensor) -> torch.Tensor:
    """L2-normalised features [n, d] of token ids [n, length]."""
    rows, local = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    weight = model.text_model.embeddings.token_embedding.weight
    return encode_texts(model, local, text_lengths(model, ids), weight[rows])


def encode_texts(model: MetaClip2Model, ids: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """L2-normalised features [n, d] of texts.

    They are encoded in chunks of like length, each cut to its own longest: the tower is causal and reads its feature
    at the first end of sequence, so padding never changes a feature, it only costs time. The rows of the embedding
    that occur are looked up once for all chunks, since each look-up's gradient is as large as the whole vocabulary.

    Args:
        ids: int64 [n, length], places among `rows`.
        lengths: int64 [n].
        rows: [u, width], of the token embedding.
    """
    tower = model.text_model
    order = torch.argsort(lengths, stable=True)
    pooled = []
    for part in order.split(TEXT_CHUNK):  # type: ignore[no-untyped-call]
        inputs = {"input_ids": ids[part, : int(lengths[part].max())]}
        states = torch.func.functional_call(tower.embeddings, {"token_embedding.weight": rows}, kwargs=inputs)
        mask = create_causal_mask(config=tower.config, inputs_embeds=states, attention_mask=None, past_key_values=None)
        pooled.append(_blocks(tower.encoder.layers, states, lengths[part] - 1, mask, causal=True))
    states = tower.final_layer_norm(torch.cat(pooled)[torch.argsort(order)])
    return _normalized(model.text_projection(states))


def _blocks(
    layers: nn.ModuleList, states: torch.Tensor, places: torch.Tensor, mask: torch.Tensor | None = None, *, causal: bool
) -> torch.Tensor:
    """What a tower's blocks make of the tokens [n, length, width] at one place [n] of each row: [n, width]."""
    for layer in layers[:-1]:
        states = layer(states, mask, is_causal=causal)
    return last_block(layers[-1], states, places, causal=causal)


def last_block(layer: Any, states: torch.Tensor, places: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """The output [n, width] of a block at one place of each row; causal: that place sees none behind it."""
    attention = layer.self_attn
    count, length, _ = states.shape
    row = torch.arange(count, device=states.device)
    normed = layer.layer_norm1(states)
    query = attention.q_proj(normed[row, places]).view(count, attention.num_heads, 1, -1)
    key, value = (
        part(normed).view(count, length, attention.num_heads, -1).transpose(1, 2)
        for part in (attention.k_proj, attention.v_proj)
    )
    scores = query @ key.transpose(2, 3) * attention.scale
    if causal:
        behind = torch.arange(length, device=states.device) > places.unsqueeze(1)
        scores = scores.masked_fill(behind[:, None, None], float("-inf"))
    mixed = scores.softmax(-1).to(value.dtype) @ value
    state = states[row, places] + attention.out_proj(mixed.reshape(count, -1))
    return state + layer.mlp(layer.layer_norm2(state))  # type: ignore[no-any-return]


def _normalized(features: torch.Tensor) -> torch.Tensor:
    return normalize(features.float(), dim=-1)
