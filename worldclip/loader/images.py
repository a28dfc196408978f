"""Images of WebDataset shards, decoded once, and the augmentation of training (paper, section 3.3)."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional

from worldclip.curation.sample import uniform
from worldclip.errors import DataError, MissingData

_CROP_STREAM = 1 << 22
_STEP_STREAM = 0x5EED  # Keeps the augmentation's generator apart from others made from the same seed.


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """Images in memory. Row i of `pixels` belongs to keys[i]; what could not be read is in `set_aside`."""

    keys: list[str]
    pixels: np.ndarray  #: uint8 [n, size, size, 3]
    set_aside: Mapping[str, str]  #: key -> reason


#: What an image file that is broken, or a bomb, ends in.
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)

MOST_PIXELS = 100_000_000  #: of an image that is decoded; a small file can claim to hold far more


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Where random resized crops lie, one an image: all float64 [n]."""

    width: np.ndarray  #: as a share of the image's shorter side
    height: np.ndarray
    x: np.ndarray  #: 0: at the left border, 1: at the right one
    y: np.ndarray

    @classmethod
    def draw(cls, keys: np.ndarray, seed: int, epoch: int, crop_scale: float) -> Crops:
        """Crops as `augment` draws them, from hash(seed, epoch, image): the same in any batch and worker."""
        side, aspect, x, y = (uniform(keys, seed, epoch, _CROP_STREAM + number) for number in range(4))
        side = crop_scale + (1 - crop_scale) * side
        stretch = np.exp((2 * aspect - 1) * math.log(1.25) / 2)
        return cls(width=side * stretch, height=side / stretch, x=x, y=y)

    def box(self, at: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of crop `at` in an image of so many pixels, of which it takes whole ones."""
        shorter = min(width, height)
        wide, high = min(self.width[at] * shorter, width), min(self.height[at] * shorter, height)
        left, top = self.x[at] * (width - wide), self.y[at] * (height - high)
        first, upper = min(round(left), width - 1), min(round(top), height - 1)
        return first, upper, max(round(left + wide), first + 1), max(round(top + high), upper + 1)


def decode_crop(data: bytes, size: int, crops: Crops, at: int) -> np.ndarray:
    """Crop `at` of one image file, as RGB on white, size x size (bicubic, antialiased); uint8 [size, size, 3].

    A JPEG is decoded at the smallest scale (1/8, 1/4 or 1/2, in the domain of its cosine transform) at which the crop
    still has `size` pixels on a side: most pixels of a large photograph are never made.

    Raises:
        One of `UNREADABLE`: it cannot be read.
    """
    pixels = _decoded(data, size, crops, at)
    left, top, right, bottom = crops.box(at, pixels.shape[1], pixels.shape[0])
    cut = torch.from_numpy(pixels[top:bottom, left:right]).permute(2, 0, 1)[None]
    # Of bytes in this layout torch has a vectorised kernel, four times as fast as Pillow's, with the same weights.
    found = functional.interpolate(cut, size=(size, size), mode="bicubic", antialias=True)
    return found[0].permute(1, 2, 0).numpy()


def _decoded(data: bytes, size: int, crops: Crops, at: int) -> np.ndarray:
    """The picture whole, a JPEG at the scale that the crop needs; uint8 [height, width, 3]."""
    if data[:2] == b"\xff\xd8":
        try:
            return _decode_jpeg(data, size, crops, at)
        except _Unsupported:
            pass
    image = _opened(data)
    return np.array(image if image.mode == "RGB" else _on_white(image))


class _Unsupported(Exception):
    """A JPEG of four colours, which Pillow reads."""


def _decode_jpeg(data: bytes, size: int, crops: Crops, at: int) -> np.ndarray:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(width, height)
    if colours in ("CMYK", "YCCK"):
        raise _Unsupported
    left, top, right, bottom = crops.box(at, width, height)
    # The format offers all eighths, but only halves, quarters and eighths are fast.
    enough = min((right - left) / size, (bottom - top) / size)
    factor = next((each for each in (8, 4, 2) if enough >= each), 1)
    pixels: np.ndarray = simplejpeg.decode_jpeg(
        data, fastupsample=True, min_width=width // factor, min_height=height // factor, strict=False
    )
    return pixels


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    _check_pixels(*image.size)
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def decode(data: bytes, size: int) -> np.ndarray:
    """One image file as RGB on white, squashed to size x size (bicubic) if it is not so already; uint8."""
    image = _on_white(_opened(data))
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
                    except UNREADABLE as error:
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


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The random numbers of one step, whichever run or resumption it belongs to; `stream` tells apart their uses."""
    state = np.random.SeedSequence([_STEP_STREAM, seed, step, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def augment(
    pixels: torch.Tensor,
    size: int,
    *,
    crop_scale: float,
    generator: torch.Generator,
    of: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Random resized crop.

    Args:
        pixels: uint8 [n, 3, height, width].
        size: pixels on a side of the result.
        crop_scale: a crop's sides are drawn between this share of the image's side and all of it, its aspect ratio
            between 4/5 and 5/4.
        of: the size of the batch that the images are part of, and their places in it, int64 [n]: whoever crops a part
            of a batch crops as whoever crops all of it.

    Returns:
        float32 [n, 3, size, size] in [0, 1].
    """
    whole, places = (len(pixels), slice(None)) if of is None else of

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.empty(whole).uniform_(low, high, generator=generator)[places]

    side = draw(crop_scale, 1.0)
    aspect = torch.exp(draw(-math.log(1.25), math.log(1.25)) / 2)
    width, height = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    affine = torch.zeros(len(pixels), 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = width, height
    affine[:, 0, 2], affine[:, 1, 2] = draw(-1, 1) * (1 - width), draw(-1, 1) * (1 - height)
    grid = functional.affine_grid(affine, [len(pixels), 3, size, size], align_corners=False)
    images = pixels.float() / 255
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jitter(
    images: torch.Tensor, strength: float, *, generator: torch.Generator, of: tuple[int, torch.Tensor]
) -> torch.Tensor:
    """Random channel gain, brightness and desaturation of float images [n, 3, height, width] in [0, 1].

    Args:
        strength: of the changes; 0 for none.
        generator: on the CPU, so that any device draws the same.
        of: see `augment`.
    """
    if not strength:
        return images
    whole, places = of

    def draw(low: float, high: float, channels: int) -> torch.Tensor:
        return torch.empty(whole, channels, 1, 1).uniform_(low, high, generator=generator)[places].to(images.device)

    images = images * (1 + strength * draw(-1, 1, 3)) + strength / 2 * draw(-1, 1, 1)
    grey = (2 * strength * draw(0, 1, 1)).clamp(max=1)
    images = images * (1 - grey) + images.mean(1, keepdim=True) * grey
    return images.clamp(0, 1)


def resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [n, 3, h, w] -> float32 [n, 3, size, size] in [0, 1], bicubic and antialiased: what evaluation sees."""
    images = functional.interpolate(pixels.float() / 255, (size, size), mode="bicubic", antialias=True)
    return images.clamp(0, 1)


def normalize(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Subtract each channel's mean and divide by its standard deviation."""
    center, spread = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return (images - center) / spread
