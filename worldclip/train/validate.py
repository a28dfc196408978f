"""Validation inside of the loop: pairs that are not trained on, as one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from worldclip.loader.batches import Cursor
from worldclip.loader.parts import Loader, Part
from worldclip.train.ranks import Ranks


def retrieval(loader: Loader, *, images: int, size: int, ranks: Ranks) -> Callable[..., dict[str, float]]:
    """What the loop calls: how often the first of some held-out images' and texts' neighbours is the right one.

    Args:
        loader: of the held-out pairs; one draw of them is taken.
        images: how many.
        size: pixels on a side that the model takes.
    """
    part = Part(images=images, texts_per_image=1, size=size, crop_scale=1.0, seed=0, rank=ranks.rank, ranks=ranks.size)

    def validate(encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> dict[str, float]:
        (loaded,) = loader.load(part, start=0, steps=1, cursor=Cursor())
        features = ranks.gather(encode(loaded.pixels, loaded.ids))
        if loaded.valid is not None:
            features = features[ranks.gather(loaded.valid.to(features.device))]
        found, texts = features.chunk(2, dim=1)
        similarity = found @ texts.T
        right = torch.arange(len(similarity), device=similarity.device)
        return {
            "image to text R@1": float((similarity.argmax(1) == right).float().mean()),
            "text to image R@1": float((similarity.argmax(0) == right).float().mean()),
        }

    return validate
