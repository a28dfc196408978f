"""The two towers as one module whose forward pass is what a step needs, wrapped for one process, DDP or FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.model.features import encode_texts, image_features
from worldclip.train.ranks import Ranks


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


def wrap(model: MetaClip2Model, config: TrainConfig, ranks: Ranks) -> torch.nn.Module:
    """The towers, ready for a step on these ranks: compiled, checkpointed and sharded as the recipe says.

    What does not ask for gradients stays whole on every rank: frozen parts, and the token embedding and logit scale,
    which the loop exchanges by itself.
    """
    towers = Towers(model)
    # The last block of a tower is never called as a whole (`last_block`): it goes with what is around the blocks.
    layers = [*model.vision_model.encoder.layers[:-1], *model.text_model.encoder.layers[:-1]]
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
