"""The image tower of any model folder, whether or not the model also reads texts: what hygiene embeds images with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor

from worldclip.errors import DataError
from worldclip.model.encoder import Encoder
from worldclip.model.pixels import on_white
from worldclip.model.towers import load_model, load_part
from worldclip.storage import read_json


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """Pictures to vectors: the image features of a CLIP; of any other model (ViT, DINOv2, MobileNet...) what its pooler
    gives, or where it has none the mean over its last hidden states.
    """

    embed: Callable[[Sequence[Image.Image]], np.ndarray]

    @staticmethod
    def open(folder: Path) -> ImageTower:
        """Load a model folder, in float32.

        Raises:
            MissingData: there is no model.
            DataError: it cannot be loaded, is incomplete, or embeds no images.
        """
        path = folder / "config.json"
        if not path.is_file() or "text_config" in read_json(path):
            return ImageTower(embed=Encoder.open(folder).images)
        model, missing = load_model(folder, load_part(folder, AutoConfig))
        # The pooler of a ViT is often left out, as nothing but its own head reads it: without weights it is noise.
        if missing and not all("pooler" in name for name in missing):
            raise DataError(f"{folder}: its weights lack {len(missing)} tensors ({', '.join(missing[:3])}, ...).")
        if missing:
            model.pooler = None
        prepare = load_part(folder, AutoImageProcessor)

        def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
            pixels = prepare(images=[on_white(each) for each in pictures], return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                return _pooled(model(pixel_values=pixels))

        try:
            embed([Image.new("RGB", (64, 64))])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{folder}: a {type(model).__name__} embeds no images ({error}).") from None
        return ImageTower(embed=embed)

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Embed pictures of any mode and size: float32 [n, d]."""
        return self.embed(pictures)


def _pooled(output: Any) -> np.ndarray:
    pooled = output.get("pooler_output")
    if pooled is None:
        hidden = output["last_hidden_state"]
        pooled = hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
    return np.asarray(pooled.float().flatten(1))
