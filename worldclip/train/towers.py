"""The two towers as one module whose forward pass is what a step needs, wrapped for one process, DDP or FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.train.ranks import Ranks

TEXT_CHUNK = 512  #: texts of like length that are encoded together


class Towers(torch.nn.Module):
    """Features of images and texts; the rows of the token embedding come from outside."""

    def __init__(self, model: MetaClip2Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Features of images and their texts side by side.

        Args:
            pixels: float [n, 3, size, size], normalised.
            ids: int64 [k, n, length], places among `rows`.
            lengths: int64 [k, n], of the texts, their end of sequence included.
            rows: float [u, width], of the token embedding.

        Returns:
            float32 [n, (1 + k) * d]: the features of the image and of its k texts, each L2-normalised.
        """
        sets, count, length = ids.shape
        images = image_features(self.model, pixels)
        texts = encode_texts(self.model, ids.reshape(-1, length), lengths.flatten(), rows)
        return torch.cat([images, *texts.view(sets, count, -1)], dim=1)


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


def wrap(model: MetaClip2Model, config: TrainConfig, ranks: Ranks) -> torch.nn.Module:
    """The towers, ready for a step on these ranks: compiled, checkpointed and sharded as the recipe says.

    What does not ask for gradients stays whole on every rank: frozen parts, and the token embedding and logit scale,
    which the loop exchanges by itself.
    """
    towers = Towers(model)
    layers = [*model.vision_model.encoder.layers, *model.text_model.encoder.layers]
    if config.gradient_checkpointing:
        # Newer versions of transformers call it by its other name.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if config.compile:
        for layer in layers:
            layer.compile()
    if ranks.size == 1:
        return towers
    if config.parallel == "fsdp":
        ignored = {parameter for parameter in model.parameters() if not parameter.requires_grad}
        for layer in layers:
            fully_shard(layer, ignored_params=ignored)
        fully_shard(towers, ignored_params=ignored)
        return towers
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(towers, device_ids=devices)


@contextmanager
def syncing(towers: torch.nn.Module, *, last: bool) -> Iterator[None]:
    """Gradients are exchanged between ranks in the backward pass of a step's last piece alone."""
    if isinstance(towers, DistributedDataParallel) and not last:
        with towers.no_sync():
            yield
        return
    if isinstance(towers, FSDPModule):
        towers.set_requires_gradient_sync(last)
    yield
