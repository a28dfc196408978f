"""Folders as img2dataset writes them, of pictures that tests draw."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def scene(seed: int, size: int = 96) -> Image.Image:
    """A picture with large and small shapes, as a photograph has; another one for each seed."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return Image.blend(coarse, Image.fromarray(draw.integers(0, 256, (size, size, 3), np.uint8)), 0.1)


def encoded(picture: Image.Image, kind: str = "JPEG", quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, quality=quality)
    return file.getvalue()


def write_tar(path: Path, images: Mapping[str, bytes], suffix: str = "jpg", members: Sequence[str] = ()) -> Path:
    """A tar of images with JSON beside each, its `id` the mapping's key; `members` stand there with no image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (name, data) in enumerate(images.items()):
            record = json.dumps({"id": name, "url": f"https://example.com/{name}.jpg", "key": f"{number:09d}"})
            for ending, content in ((suffix, data), ("json", record.encode()), ("txt", name.encode())):
                info = tarfile.TarInfo(f"{number:09d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        for name in members:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path
