"""L2-normalised features of a `MetaClip2Model`'s towers, as training and export compute them."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize
from transformers import MetaClip2Model

TEXT_CHUNK = 512  #: texts of like length that are encoded together


def image_features(model: MetaClip2Model, pixels: torch.Tensor) -> torch.Tensor:
    """L2-normalised features [n, d] of images [n, 3, size, size], normalised pixels."""
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return _normalized(model.visual_projection(pooled))


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
    order = torch.argsort(lengths, stable=True)
    weights = {"embeddings.token_embedding.weight": rows}
    features = []
    for part in order.split(TEXT_CHUNK):  # type: ignore[no-untyped-call]
        inputs = {"input_ids": ids[part, : int(lengths[part].max())]}
        # The tower would look for the end of sequence by its id, which is another among the rows that occur.
        states = torch.func.functional_call(model.text_model, weights, kwargs=inputs).last_hidden_state
        pooled = states[torch.arange(len(part), device=ids.device), lengths[part] - 1]
        features.append(model.text_projection(pooled))
    return _normalized(torch.cat(features)[torch.argsort(order)])


def _normalized(features: torch.Tensor) -> torch.Tensor:
    return normalize(features.float(), dim=-1)
