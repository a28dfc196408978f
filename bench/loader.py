"""The loader beside webdataset, Pillow and torchvision-style transforms in NumPy, on the same JPEGs, in one process.

The JPEGs are packaged photographs (GCompris) enlarged or reduced to sizes that photographs of the web have, and encoded
again at quality 90: their content is real, their size is chosen.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image

from worldclip.errors import WorldclipError
from worldclip.loader.images import Crops, _decoded, decode_crop
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.packages import Cache, cache_folder
from worldclip.pairs import gcompris

SIZE = 224
SCALE = 0.7  #: smallest side of a crop

#: Longer sides: img2dataset's usual 256 and 384, and what the web serves.
SIDES = (384, 640, 1024, 1600)


def photographs() -> list[bytes]:
    """The files of the packaged photographs."""
    folder = Cache(cache_folder()).path("photographs") / "usr/share/gcompris-qt/rcc"
    return [item.image for activity in gcompris.ACTIVITIES for item in gcompris.photographs(folder / f"{activity}.rcc")]


def jpegs(count: int, side: int) -> list[bytes]:
    """So many JPEGs whose longer side has `side` pixels."""
    sources = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs()]
    found = []
    for number in range(count):
        image = sources[number % len(sources)]
        factor = side / max(image.size)
        file = io.BytesIO()
        image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS).save(
            file, "JPEG", quality=90
        )
        found.append(file.getvalue())
    return found


def peer(data: bytes, chance: random.Random) -> np.ndarray:
    """RandomResizedCrop, ToTensor and Normalize as torchvision does them, by Pillow and NumPy: float32 [3, n, n]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    side, stretch = chance.uniform(SCALE, 1), chance.uniform(0.8, 1.25) ** 0.5
    shorter = min(width, height)
    wide, high = min(side * stretch * shorter, width), min(side / stretch * shorter, height)
    left, top = chance.uniform(0, width - wide), chance.uniform(0, height - high)
    crop = image.crop((round(left), round(top), round(left + wide), round(top + high)))
    pixels = np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) / 255
    return ((pixels - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)).transpose(2, 0, 1)


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a size: images a second of both, and how far their pixels are from each other.

    Raises:
        WorldclipError: the two do not show the same picture.
    """
    torch.set_num_threads(1)  # as in the processes that decode
    for side in SIDES[1:2] if check else SIDES:
        files = jpegs(8 if check else 300, side)
        with tempfile.TemporaryDirectory() as folder:
            tar = Path(folder, "images.tar")
            offsets = _write(tar, files)
            crops = Crops.draw(np.arange(len(files), dtype=np.uint64), 0, 0, SCALE)
            difference = max(_difference(data, at) for at, data in enumerate(files[:8]))
            if difference > 6:
                raise WorldclipError(
                    f"bench: loader: pixels of {side} px differ by {difference:.1f} of 255 on average."
                )
            ours = theirs = float("inf")
            for _ in range(1 if check else 3):
                began = time.process_time()
                descriptor = os.open(tar, os.O_RDONLY)
                batch = np.empty((len(files), 3, SIZE, SIZE), np.uint8)
                for at, (offset, size) in enumerate(offsets):
                    batch[at] = decode_crop(os.pread(descriptor, size, offset), SIZE, crops, at).transpose(2, 0, 1)
                os.close(descriptor)
                ours = min(ours, time.process_time() - began)
                began = time.process_time()
                chance = random.Random(0)
                stream = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
                found = np.stack([peer(sample["jpg"], chance) for sample in stream])
                theirs = min(theirs, time.process_time() - began)
                if found.shape != batch.shape:
                    raise WorldclipError(f"bench: loader: {len(found)} images, not {len(batch)}.")
        yield {
            "longer_side": side,
            "mean_kb": round(sum(map(len, files)) / len(files) / 1000),
            "images_per_second_and_core": round(len(files) / ours),
            "webdataset_pillow_numpy": round(len(files) / theirs),
            "ratio": round(theirs / ours, 2),
            "mean_difference_of_255": round(difference, 2),
        }


def _difference(data: bytes, at: int) -> float:
    """Mean difference between our crop and the same crop of the whole decoded image by Pillow."""
    crops = Crops.draw(np.arange(at + 1, dtype=np.uint64), 0, 0, SCALE)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    # Ours takes whole pixels of the picture as it is decoded, at a half or a quarter of its size perhaps.
    scaled = _decoded(data, SIZE, crops, at).shape[1::-1]
    box = [edge * image.size[way % 2] / scaled[way % 2] for way, edge in enumerate(crops.box(at, *scaled))]
    whole = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return float(np.abs(np.asarray(whole, np.float32) - decode_crop(data, SIZE, crops, at)).mean())


def _write(path: Path, files: list[bytes]) -> list[tuple[int, int]]:
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        return [(member.offset_data, member.size) for member in tar]
