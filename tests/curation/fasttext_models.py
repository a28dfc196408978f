"""FastText models written byte by byte, small ones of every kind, for fastText itself to judge."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_AGAINST_ALL = 1, 2, 3, 4


@dataclass(kw_only=True)
class Model:
    """A model; `weights` gives a matrix of a shape."""

    words: list[str]
    labels: list[str]
    counts: list[int]
    loss: int = SOFTMAX
    dim: int = 4
    minn: int = 2
    maxn: int = 3
    word_ngrams: int = 1
    buckets: int = 16
    kept: list[tuple[int, int]] | None = None  #: bucket, row
    quantised: bool = False
    part: int = 2  #: dimensions that a code stands for
    normed: bool = False
    quantised_output: bool = False
    seed: int = 0
    coarse: bool = False  #: weights of few values, so that labels tie
    version: int = 12
    random: np.random.Generator = field(init=False)

    def weights(self, *shape: int) -> np.ndarray:
        if self.coarse:
            return self.random.integers(-1, 2, shape).astype(np.float32)
        return self.random.normal(0, 1, shape).astype(np.float32)

    def matrix(self, rows: int, quantised: bool) -> bytes:
        if not quantised:
            return struct.pack("<2q", rows, self.dim) + self.weights(rows, self.dim).tobytes()
        parts = -(-self.dim // self.part)
        last = self.dim - (parts - 1) * self.part
        codes = self.random.integers(0, 256, rows * parts, np.uint8)
        raw = struct.pack("<?2qi", self.normed, rows, self.dim, len(codes)) + codes.tobytes()
        raw += struct.pack("<4i", self.dim, parts, self.part, last) + self.weights(256 * self.dim).tobytes()
        if self.normed:
            raw += self.random.integers(0, 256, rows, np.uint8).tobytes()
            raw += struct.pack("<4i", 1, 1, 1, 1) + self.weights(256).tobytes()
        return raw

    def to_bytes(self) -> bytes:
        self.random = np.random.default_rng(self.seed)
        numbers = [self.dim, 5, 5, 1, 5, self.word_ngrams, self.loss, 3, self.buckets, self.minn, self.maxn, 100]
        raw = struct.pack("<2i12id", 793712314, self.version, *numbers, 1e-4)
        names = [*self.words, *(f"__label__{label}" for label in self.labels)]
        kept = -1 if self.kept is None else len(self.kept)
        raw += struct.pack("<3i2q", len(names), len(self.words), len(self.labels), 1000, kept)
        for at, name in enumerate(names):
            label = at >= len(self.words)
            raw += name.encode() + struct.pack("<bqb", 0, self.counts[at - len(self.words)] if label else 1, label)
        for bucket, row in self.kept or ():
            raw += struct.pack("<2i", bucket, row)
        rows = len(self.words) + (self.buckets if self.kept is None else max([0, *(row + 1 for _, row in self.kept)]))
        raw += struct.pack("<?", self.quantised) + self.matrix(rows, self.quantised)
        output = self.quantised and self.quantised_output
        return raw + struct.pack("<?", self.quantised_output) + self.matrix(len(self.labels), output)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path
