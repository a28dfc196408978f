"""Each benchmark in its true layout, small: real drawings of the packages, and what a plain scorer makes of them.

A `Miniature` writes files and keeps the truth in memory; nothing is read back to tell what is expected.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brute
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from brute import Vector
from numpy.typing import NDArray
from PIL import Image

from worldclip.evaluation.pictures import Pictures
from worldclip.packages import Cache
from worldclip.pairs.drawing import draw
from worldclip.pairs.icons import drawings
from worldclip.storage import read_json

#: How many drawings there are, and their side.
DRAWINGS, SIDE = 40, 24


def drawn(cache: Cache) -> list[bytes]:
    """Some real drawings, as PNG."""
    folder = cache.path("emoji-twemoji")
    codes = sorted(read_json(folder / "chars.json"))
    sources = drawings(folder, dict.fromkeys(codes, ""), {})
    some = [sources[code] for code in sorted(sources)][:: len(sources) // DRAWINGS][:DRAWINGS]
    found = [draw(source, SIDE) for source in some]
    assert all(isinstance(each, bytes) for each in found)
    return [each for each in found if isinstance(each, bytes)]


def recoded(png: bytes, suffix: str, quality: int = 75) -> bytes:
    """The picture as JPEG, WebP, or what the suffix says."""
    file = io.BytesIO()
    kind = {"jpg": "JPEG", "JPEG": "JPEG", "webp": "WEBP", "png": "PNG"}[suffix]
    Image.open(io.BytesIO(png)).save(file, kind, quality=quality)
    return file.getvalue()


@dataclass
class Eyes:
    """A model that half knows: a picture is its thumbnail; a text that holds a known name is near that picture."""

    known: dict[str, bytes] = field(default_factory=dict)
    context: int = 60  #: characters that are read of a text
    asked: list[str] = field(default_factory=list)  #: every text it was given
    _read: dict[str, Vector] = field(default_factory=dict)

    def look(self, data: bytes) -> Vector:
        try:
            small = Image.open(io.BytesIO(data)).convert("RGB").resize((4, 3), Image.Resampling.BOX)
        except OSError:
            return [float("nan")] * 36
        values = np.asarray(small, np.float32).ravel() - 160.0
        return (values / np.linalg.norm(values)).astype(np.float32).tolist()

    def read(self, text: str) -> Vector:
        text = text[: self.context]
        if text not in self._read:
            self._read[text] = self._read_anew(text)
        return self._read[text]

    def _read_anew(self, text: str) -> Vector:
        noise = np.frombuffer(hashlib.shake_256(text.encode()).digest(36), np.int8).astype(np.float32)
        names = [name for name in self.known if name in text]
        vector = 0.09 * noise / np.linalg.norm(noise)
        if names:
            vector = 4 * vector + np.array(self.look(self.known[max(names, key=len)]))
        return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()

    def images(self, pictures: Pictures) -> NDArray[np.float32]:
        return np.array([self.look(data) for _, data in pictures], np.float32)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([self.read(text) for text in texts], np.float32)

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([len(text) > self.context for text in texts], np.bool_)


@dataclass
class Truth:
    """What a classification task is made of, as it should be read."""

    pictures: list[bytes]
    right: list[set[int]]
    sentences: list[list[str]]  #: of each class, all prompts of all its names
    groups: list[str] | None = None

    def scores(self, eyes: Eyes) -> dict[str, float]:
        images = [eyes.look(data) for data in self.pictures]
        classes = [brute.ensemble([eyes.read(text) for text in each]) for each in self.sentences]
        orders = [brute.order(image, classes) for image in images]
        labels = [min(each) for each in self.right]
        found = {f"acc{k}": brute.accuracy(orders, self.right, k) for k in (1, 5) if k <= len(classes)}
        found["mean_per_class"] = brute.mean_per_class(orders, labels)
        found["macro_f1"] = brute.macro_f1(orders, labels)
        if len(classes) == 2:
            margins = [brute.dot(image, classes[1]) - brute.dot(image, classes[0]) for image in images]
            found["roc_auc"] = brute.roc_auc(margins, [label == 1 for label in labels])
        if "acc5" in found:
            found["acc1_acc5_mean"] = (found["acc1"] + found["acc5"]) / 2
        if self.groups:
            for k in (1, 5):
                if k <= len(classes):
                    found[f"worst_group_acc{k}"] = min(brute.by_group(orders, self.right, self.groups, k).values())
        return found


@dataclass
class Miniature:
    """The folder of a benchmark's data and what it should give: task -> metric -> percent."""

    data: Path
    eyes: Eyes
    expected: Callable[[], dict[str, dict[str, float]]]
    parts: dict[str, Any] = field(default_factory=dict)


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        data = data.encode()
    path.write_bytes(data)
    return path


def write_shards(
    folder: Path, samples: Sequence[dict[str, bytes]], shards: int = 3, texts: dict[str, str] | None = None
) -> None:
    """A WebDataset: samples are members by suffix, dealt out in order."""
    for name, text in (texts or {}).items():
        write(folder / name, text)
    write(folder / "test" / "nshards.txt", f"{shards}\n")
    size = -(-len(samples) // shards)
    for shard in range(shards):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for row, sample in enumerate(samples[shard * size : (shard + 1) * size]):
                for suffix, data in sample.items():
                    info = tarfile.TarInfo(f"s{row:07d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def npy(values: Sequence[int]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, np.int64))
    return file.getvalue()


def image_cell(data: bytes, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path: Path, columns: dict[str, Any], types: dict[str, pa.DataType], row_group: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})
    pq.write_table(table, path, row_group_size=row_group)


def write_arrow(folder: Path, columns: dict[str, Any], types: dict[str, pa.DataType], files: int = 2) -> None:
    """As `datasets` saves to disk: Arrow streams and `state.json`."""
    folder.mkdir(parents=True)
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    size = -(-len(table) // files)
    for number, name in enumerate(names):
        part = table.slice(number * size, size)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(part, max_chunksize=3)
    write(folder / "state.json", json.dumps({"_data_files": [{"filename": name} for name in names]}))


def sentences(names: Sequence[Sequence[str]], templates: Sequence[str], placeholder: str = "{}") -> list[list[str]]:
    return [[template.replace(placeholder, name) for template in templates for name in each] for each in names]
