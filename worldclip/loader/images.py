"""Images of WebDataset shards, decoded once, and the augmentation of training (paper, section 3.3)."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from worldclip.errors import DataError, MissingData

_STEP_STREAM = 0x5EED  # Keeps the augmentation's generator apart from others made from the same seed.


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """Images in memory. Row i of `pixels` belongs to keys[i]; what could not be read is in `set_aside`."""

    keys: list[str]
    pixels: np.ndarray  #: uint8 [n, size, size, 3]
    set_aside: Mapping[str, str]  #: key -> reason


def decode(data: bytes, size: int) -> np.ndarray:
    """One image file as RGB on white, squashed to size x size (bicubic) if it is not so already; uint8."""
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_images(shards: Sequence[Path], size: int) -> DecodedImages:
    """Decode every image of some tar shards. The key is the member's name up to its first dot.

    Raises:
        MissingData: a shard is not there.
        DataError: a shard is no tar file, or is cut short.
    """
    keys: list[str] = []
    pixels: list[np.ndarray] = []
    set_aside: dict[str, str] = {}
    for shard in shards:
        try:
            with tarfile.open(shard) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    key = member.name.partition(".")[0]
                    if file is None:
                        continue
                    try:
                        pixels.append(decode(file.read(), size))
                        keys.append(key)
                    except (
                        UnidentifiedImageError,
                        OSError,
                        ValueError,
                        SyntaxError,
                        Image.DecompressionBombError,
                    ) as error:
                        set_aside[key] = f"unreadable image: {error}"
        except FileNotFoundError:
            raise MissingData(f"{shard}: image shard not found. Run the stage that writes it first.") from None
        except (tarfile.TarError, EOFError) as error:
            raise DataError(
                f"{shard}: is not a whole tar file ({error}). Delete it and make the pairs again."
            ) from None
    return DecodedImages(
        keys=keys, pixels=np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8), set_aside=set_aside
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, whichever run or resumption it belongs to."""
    state = np.random.SeedSequence([_STEP_STREAM, seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def augment(
    pixels: torch.Tensor, size: int, *, crop_scale: float, color_jitter: float, generator: torch.Generator
) -> torch.Tensor:
    """Random resized crop and, if asked for, colour jitter.

    Args:
        pixels: uint8 [n, 3, height, width].
        size: pixels on a side of the result.
        crop_scale: a crop's sides are drawn between this share of the image's side and all of it, its aspect ratio
            between 4/5 and 5/4.
        color_jitter: strength of random channel gain, brightness and desaturation; 0 for none.

    Returns:
        float32 [n, 3, size, size] in [0, 1].
    """
    count = len(pixels)

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    images = pixels.float() / 255
    side = draw(crop_scale, 1.0)
    aspect = torch.exp(draw(-math.log(1.25), math.log(1.25)) / 2)
    width, height = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = width, height
    affine[:, 0, 2], affine[:, 1, 2] = draw(-1, 1) * (1 - width), draw(-1, 1) * (1 - height)
    grid = torch.nn.functional.affine_grid(affine, [count, 3, size, size], align_corners=False)
    images = torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if color_jitter:
        images = images * (1 + color_jitter * draw(-1, 1, 3, 1, 1)) + color_jitter / 2 * draw(-1, 1, 1, 1, 1)
        grey = (2 * color_jitter * draw(0, 1, 1, 1, 1)).clamp(max=1)
        images = images * (1 - grey) + images.mean(1, keepdim=True) * grey
    return images.clamp(0, 1)


def resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [n, 3, h, w] -> float32 [n, 3, size, size] in [0, 1], bicubic and antialiased: what evaluation sees."""
    images = torch.nn.functional.interpolate(pixels.float() / 255, (size, size), mode="bicubic", antialias=True)
    return images.clamp(0, 1)


def normalize(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Subtract each channel's mean and divide by its standard deviation."""
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
