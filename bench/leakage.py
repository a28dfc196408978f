"""Evaluation photographs hidden in training in eight forms each, found by codes of a real model, MobileNetV2."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.image_tower import write as write_tower
from worldclip.errors import WorldclipError
from worldclip.hygiene.codes import distances, signs
from worldclip.model.image_tower import ImageTower
from worldclip.packages import Cache, cache_folder
from worldclip.pairs import packaged

RADII = (0, 2, 3, 4, 6, 8, 10)


def _forms(picture: Image.Image) -> dict[str, Image.Image]:
    """The forms in which an evaluation image may be met again."""
    width, height = picture.size

    def encoded(form: Image.Image, kind: str, quality: int) -> Image.Image:
        file = io.BytesIO()
        form.save(file, kind, quality=quality)
        return Image.open(file).convert("RGB")

    box = (width // 20, height // 20, width - width // 20, height - height // 20)
    return {
        "JPEG, quality 90": encoded(picture, "JPEG", 90),
        "JPEG, quality 30": encoded(picture, "JPEG", 30),
        "WebP, quality 50": encoded(picture, "WEBP", 50),
        "half the size": picture.resize((width // 2, height // 2)),
        "a quarter, JPEG 60": encoded(picture.resize((width // 4, height // 4)), "JPEG", 60),
        "twice the size": picture.resize((width * 2, height * 2), Image.Resampling.BICUBIC),
        "cropped by 5 % a side": picture.crop(box),
        "grey": picture.convert("L").convert("RGB"),
    }


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """What is found of each form of a photograph by radius, and how often different pictures are as near.

    Raises:
        WorldclipError: a photograph was not found again.
    """
    cache = Cache(cache_folder())
    if missing := {"image-tower", "photographs", "stamps"} - cache.present():
        yield {"not measured": f"without the optional packages {', '.join(sorted(missing))}"}
        return
    with tempfile.TemporaryDirectory() as folder:
        write_tower(Path(folder))
        tower = ImageTower.open(Path(folder))
    most = 6 if check else None
    photographs = _opened(islice(packaged.photographs(cache, ["en"], 448), most))
    codes = _embedded(tower, photographs)
    forms = [_forms(picture) for picture in photographs]
    apart = {name: distances(_embedded(tower, [each[name] for each in forms]), codes) for name in forms[0]}
    stamps = _opened(islice(packaged.stamps(cache, ["en"], 224), most))
    between = np.bitwise_count(codes[:, None] ^ codes)[np.triu_indices(len(codes), 1)]
    across = np.bitwise_count(_embedded(tower, stamps)[:, None] ^ codes).ravel()
    for name, bits in apart.items():
        if name == "JPEG, quality 90" and bits.max() > 8:
            raise WorldclipError("bench: leakage: a photograph was not found again after it was compressed.")
        yield {"form": name, "photographs": len(bits)} | {
            f"found_within_{radius}": round(float((bits <= radius).mean()), 3) for radius in RADII
        }
    for name, bits in (("photograph and another one", between), ("stamp and photograph", across)):
        yield {"different pictures": name, "pairs": len(bits)} | {
            f"pairs_within_{radius}": int((bits <= radius).sum()) for radius in RADII
        }


def _opened(pictures: Iterator[packaged.Picture]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(each.png)).convert("RGB") for each in pictures]


def _embedded(tower: ImageTower, pictures: list[Image.Image]) -> np.ndarray:
    return signs(np.concatenate([tower(pictures[at : at + 32]) for at in range(0, len(pictures), 32)]))
