"""FastText's file format, read from its bytes: supervised models, whole (`.bin`) or quantised (`.ftz`).

A file holds arguments, a dictionary of words and labels, a matrix of input rows (a row for each word, then one for each
bucket of hashed n-grams, or for those that were kept) and a matrix of output rows (one a label). A quantised matrix
stores bytes, each of which chooses one of 256 vectors of a few dimensions. Everything is checked here, so that kernels
can trust what they read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldclip.curation.fasttext_kernels import entries_of, joined
from worldclip.curation.texts import read_only
from worldclip.errors import DataError, MissingData

LABEL = "__label__"
_MAGIC, _VERSIONS = 793712314, (11, 12)
_SUPERVISED = 3
#: How a model was trained, by its number: what output rows mean.
LOSSES = ("", "hierarchical softmax", "negative sampling", "softmax", "one against all")
_LONGEST = 100  # n-grams
_KSUB = 256  # vectors that a byte chooses from


@dataclass(frozen=True, kw_only=True)
class FastTextModel:
    """A supervised model.

    Attributes:
        labels: without their prefix, in the order of the output rows.
        label_counts: how often training saw them, int64 [labels].
        loss: number of the training loss (`LOSSES`).
        word_ngrams, buckets, min_chars, max_chars: which n-grams of words and of characters have rows.
        words, word_ends: the dictionary, labels after words, as it is in the file: uint8, and int64 [entries].
        word_count: entries that are words.
        kept: bucket and row (after the words') of n-grams that were kept, int64 [n, 2]; None if all buckets have rows.
        rows: input, float32 [rows, dimensions].
        output, output_norms: float32 [labels, dimensions]; float32 [labels], by which its products are multiplied.
    """

    labels: tuple[str, ...]
    label_counts: np.ndarray
    loss: int
    word_ngrams: int
    buckets: int
    min_chars: int
    max_chars: int
    words: np.ndarray
    word_ends: np.ndarray
    word_count: int
    kept: np.ndarray | None
    rows: np.ndarray
    output: np.ndarray
    output_norms: np.ndarray


def read_model(path: Path) -> FastTextModel:
    """Read a model; a matrix that is not quantised stays in the file, mapped into memory.

    Raises:
        MissingData: there is no such file.
        DataError: it is no supervised fastText model, cut short, or damaged.
    """
    if not path.is_file():
        raise MissingData(f"{path}: language identification model not found.")
    try:
        return _Reader(np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)).model()
    except _Malformed as error:
        raise DataError(f"{path}: is not a fastText model ({error}).") from None


class _Malformed(Exception):
    """What is wrong with a file."""


def _check(fine: bool, problem: str) -> None:
    if not fine:
        raise _Malformed(problem)


class _Reader:
    """Reads a file from part to part."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.at = read_only(np.asarray(data)), 0

    def array(self, kind: type[np.generic], *shape: int) -> np.ndarray:
        """The next array, as a view of the file."""
        _check(min(shape) >= 0, "a size in it is negative")
        count = 1
        for side in shape:
            count *= int(side)
        size = count * np.dtype(kind).itemsize
        _check(size <= len(self.data) - self.at, f"it is cut short at {len(self.data)} bytes")
        part = self.data[self.at : self.at + size].view(kind)
        self.at += size
        return part.reshape(shape)

    def numbers(self, kind: type[np.generic], count: int) -> list[int]:
        values: list[int] = self.array(kind, count).tolist()
        return values

    def flag(self) -> bool:
        (value,) = self.numbers(np.uint8, 1)
        _check(value in (0, 1), f"a flag in it is {value}")
        return bool(value)

    def model(self) -> FastTextModel:
        _check(len(self.data) >= 8 and self.numbers(np.int32, 1) == [_MAGIC], "it does not begin as one")
        (version,) = self.numbers(np.int32, 1)
        _check(version in _VERSIONS, f"its format version is {version}; allowed: {', '.join(map(str, _VERSIONS))}")
        dim, _, _, _, _, word_ngrams, loss, kind, buckets, minn, maxn, _ = self.numbers(np.int32, 12)
        self.array(np.float64, 1)
        _check(kind == _SUPERVISED, "it is of word vectors; only a supervised model names labels")
        _check(0 < loss < len(LOSSES), f"its loss is {loss}; allowed: 1 to {len(LOSSES) - 1}")
        maxn = maxn if version > 11 else 0
        hashes = maxn > 0 or word_ngrams > 1
        lengths = (minn, maxn, word_ngrams)
        _check(min(lengths) >= 0 and max(lengths) <= _LONGEST, f"its n-grams are of {lengths} characters and words")
        _check(dim > 0 and buckets >= (1 if hashes else 0), f"it has {dim} dimensions and {buckets} buckets")

        entries, word_count, label_count, _ = *self.numbers(np.int32, 3), self.array(np.int64, 1)
        (kept_count,) = self.numbers(np.int64, 1)
        _check(word_count >= 0 and label_count > 0 and entries == word_count + label_count, "its dictionary is damaged")
        words, ends, counts = self.dictionary(entries, word_count)
        kept = self.kept(kept_count, buckets) if kept_count >= 0 else None

        quantised = self.flag()
        _check(quantised or kept_count < 0, "buckets are missing from a matrix that is not quantised")
        rows, norms = self.quantised(dim) if quantised else self.dense(dim)
        if norms is not None:
            rows = rows * norms[:, None]
        own = buckets if hashes else 0
        needed = word_count + (own if kept is None else int(kept[:, 1].max(initial=-1)) + 1)
        _check(len(rows) >= needed, f"it has {len(rows)} rows of input; its dictionary needs {needed}")
        output, norms = self.quantised(dim) if self.flag() and quantised else self.dense(dim)
        _check(len(output) == label_count, f"it has {label_count} labels, and {len(output)} rows of output")
        _check(bool(np.isfinite(output).all()), "its output holds what is no number")
        names = [bytes(words[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)][word_count:]
        return FastTextModel(
            labels=tuple(name.decode("utf-8", "replace").removeprefix(LABEL) for name in names),
            label_counts=counts[word_count:],
            loss=loss,
            word_ngrams=word_ngrams,
            buckets=buckets,
            min_chars=minn,
            max_chars=maxn,
            words=words,
            word_ends=ends,
            word_count=word_count,
            kept=kept,
            rows=rows,
            output=output,
            output_norms=np.ones(len(output), np.float32) if norms is None else norms,
        )

    def dictionary(self, entries: int, word_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Its entries one after the other (uint8), where each ends, and how often it was seen (int64 [entries])."""
        _check(10 * entries <= len(self.data) - self.at, f"it is cut short at {len(self.data)} bytes")
        begins, ends, kinds = (np.zeros(entries, np.int64) for _ in range(3))
        counts = np.zeros(entries, np.int64)
        end = entries_of(self.data, self.at, begins, ends, counts, kinds)
        _check(end >= 0, "it is cut short in its dictionary")
        _check(bool((kinds == (np.arange(entries) >= word_count)).all()), "its dictionary has words among its labels")
        _check(bool((counts >= 0).all()) and float(counts.sum(dtype=np.float64)) < 1e15, "its counts are damaged")
        self.at = end
        return joined(self.data, begins, ends), np.cumsum(ends - begins), counts

    def kept(self, count: int, buckets: int) -> np.ndarray:
        """Bucket and row (after those of words) of kept n-grams, int64 [count, 2]; of equal ones the last first."""
        pairs = self.array(np.int32, count, 2)[::-1].astype(np.int64)
        _check(bool((pairs >= 0).all()) and bool((pairs[:, 0] < max(1, buckets)).all()), "its buckets are damaged")
        return pairs

    def dense(self, dim: int) -> tuple[np.ndarray, None]:
        rows, columns = self.numbers(np.int64, 2)
        _check(columns == dim, f"it has {dim} dimensions, and a matrix of {columns} columns")
        return self.array(np.float32, rows, columns), None

    def quantised(self, dim: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows that codes stand for, and their norms, which may be quantised as well."""
        normed = self.flag()
        rows, columns = self.numbers(np.int64, 2)
        (size,) = self.numbers(np.int32, 1)
        _check(columns == dim, f"it has {dim} dimensions, and a matrix of {columns} columns")
        matrix = self.quantiser(self.array(np.uint8, size), rows, dim)
        if not normed:
            return matrix, None
        return matrix, self.quantiser(self.array(np.uint8, rows), rows, 1)[:, 0]

    def quantiser(self, codes: np.ndarray, rows: int, dim: int) -> np.ndarray:
        """The vectors that codes choose, float32 [rows, dim]."""
        columns, parts, width, last = self.numbers(np.int32, 4)
        fits = columns == dim and parts > 0 and width > 0 and 0 < last <= width and (parts - 1) * width + last == dim
        _check(fits and len(codes) == rows * parts, "a quantiser in it does not fit its matrix")
        centroids = self.array(np.float32, dim * _KSUB)
        codes = codes.reshape(rows, parts)
        matrix = np.empty((rows, dim), np.float32)
        for part in range(parts):
            own = slice(part * width, min((part + 1) * width, dim))
            size = own.stop - own.start
            begin = part * _KSUB * width
            matrix[:, own] = centroids[begin : begin + _KSUB * size].reshape(_KSUB, size)[codes[:, part]]
        return matrix
