"""Any CLIP-like model as two functions, from pictures and from texts to the same unit sphere.

encoder = Encoder.open(Path("runs/quickstart/model"))
encoder.images([Image.open("dog.png")]) @ encoder.texts(["chien", "gato", "犬"]).T
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from worldclip import storage
from worldclip.model.pixels import on_white, read_benchmark_picture
from worldclip.model.towers import Changes, Prepared, Towers, load

Floats = NDArray[np.float32]

#: The files of a model folder that decide its embeddings.
_MODEL_FILES = (
    "config.json",
    "open_clip_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "*_model.onnx*",
    "onnx/*_model.onnx*",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "preprocessor_config.json",
    "processor_config.json",
)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model folder, opened; `towers` runs it, `changes` is what is done otherwise than the folder says."""

    folder: Path
    towers: Towers
    changes: Changes

    @staticmethod
    def open(folder: Path, changes: Changes | None = None) -> Encoder:
        """Load a model folder of any kind that `worldclip.model.towers` reads, in float32.

        Raises:
            MissingData: there is no such folder, or no model in it; or a package is missing that reads it.
            DataError: it is not a model of images and texts, is incomplete, or its parts do not fit each other.
        """
        changes = changes or Changes()
        return Encoder(folder=folder, towers=load(folder, changes), changes=changes)

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""
        return self.towers.dimension

    @property
    def logit_scale(self) -> float:
        """The factor (not its logarithm) on cosine similarities before a softmax."""
        return self.towers.logit_scale

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and bytes of the folder's files that decide its embeddings, and the changes."""
        return fingerprint_of(self.folder, *(() if self.changes == Changes() else (repr(self.changes),)))

    def images(self, pictures: Iterable[Image.Image], batch_size: int = 64) -> Floats:
        """Embed pictures of any mode and size: float32 [n, dimension], rows of length 1.

        Transparent pixels become white, then the folder's own preprocessing runs. Pictures are taken one by one, so
        that a generator of large ones needs the memory of one.
        """
        prepared = (self.towers.prepare(on_white(picture)) for picture in pictures)
        found = [np.zeros((0, self.dimension), np.float32)]
        while batch := list(islice(prepared, batch_size)):
            found.append(self.embed_prepared(batch))
        return np.concatenate(found)

    def prepare(self, data: bytes, where: str) -> Prepared:
        """Decode a benchmark's picture and prepare it; many threads may do so at once.

        Raises:
            DataError: it cannot be read; `where` says which it is.
        """
        return self.towers.prepare(read_benchmark_picture(data, where))

    @torch.inference_mode()
    def embed_prepared(self, batch: Sequence[Prepared]) -> Floats:
        """Embed a batch of what `towers.prepare` gave: float32 [n, dimension], rows of length 1."""
        stacked = {name: torch.stack([each[name] for each in batch]) for name in batch[0]}
        return _normalised(self.towers.images(stacked))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 256) -> Floats:
        """Embed texts of any language: float32 [n, dimension], rows of length 1; longer ones are cut to the context.

        Naive: all texts padded to the context, in the order given. Here texts of one length make a batch and nothing
        is padded, where the family allows it: most texts are a fraction of the context.
        """
        ids = self.towers.tokenize(texts)
        found = np.empty((len(texts), self.dimension), np.float32)
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        for _, group in groupby(order, key=lambda at: len(ids[at])):
            while rows := list(islice(group, batch_size)):
                found[rows] = _normalised(self.towers.texts(torch.tensor([ids[at] for at in rows])))
        return found

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the texts are longer than the model reads: bool [n]."""
        return np.array([length > self.towers.context for length in self.towers.lengths(texts)], bool)


def fingerprint_of(folder: Path, *more: str) -> str:
    """SHA-256 (hex) over the names and bytes of a model folder's files that decide its embeddings, and of `more`."""
    files = sorted({path.name: path for pattern in _MODEL_FILES for path in folder.glob(pattern)}.items())
    return storage.digest(*(part for name, path in files for part in (name, storage.file_digest(path))), *more)


def _normalised(features: torch.Tensor) -> Floats:
    unit: Floats = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return unit
