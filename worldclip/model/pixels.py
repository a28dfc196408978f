"""Encoded pictures of any kind, as the RGB pictures that a model's own preprocessing begins with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from worldclip.errors import DataError

#: A picture longer than this many times its width is set aside: resizing its short side would make it enormous.
_LONGEST_ASPECT = 50


def on_white(picture: Image.Image) -> Image.Image:
    """The picture in RGB; palettes are resolved, transparency is laid on white, 16-bit greys are scaled to 8 bits."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def read_picture(data: bytes, where: Path) -> Image.Image:
    """Decode a picture (the first frame of an animation), turned upright as its camera noted.

    Raises:
        DataError: it is broken, cut short, of an unknown format, enormous or a mere line.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if max(width, height) > _LONGEST_ASPECT * min(width, height):
                raise DataError(f"{where}: {width} x {height} pixels is a line, not a picture.")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except DataError:
        raise
    except Exception as error:  # decoders of arbitrary bytes raise nearly every type there is
        raise DataError(f"{where}: cannot be read as a picture ({type(error).__name__}: {error}).") from error


def read_benchmark_picture(data: bytes, where: str) -> Image.Image:
    """Decode a benchmark's picture as its published scores were made: RGB first, alpha dropped, not turned upright.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except Exception as error:
        raise DataError(f"{where}: cannot be read as a picture ({type(error).__name__}: {error}).") from error
