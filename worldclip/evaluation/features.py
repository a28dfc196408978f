"""Embeddings that are computed once: pictures and texts by their content, shared by all suites, kept in a folder.

Naive: embed each benchmark's pictures, and each class's prompts one class after another, padded to the context. Here a
picture or text is embedded once for a model, whatever benchmark, language or class it occurs in; texts of one length
make a batch (`Encoder.texts`); pictures are decoded by threads while the model works.

What is kept is a set of segments, `<kind>-<digest>.npy`: keys (SHA-256 of the content, cut to 128 bits) and unit
vectors, sorted by key, memory-mapped when read. A segment is whole or not there, so that a killed evaluation goes on
where it was. Under torchrun each process embeds its part of what is missing, and all read the segments of all.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation.metrics import Floats
from worldclip.evaluation.pictures import Pictures
from worldclip.storage import digest, replacing, sweep

if TYPE_CHECKING:
    from worldclip.model.encoder import Encoder

Keys = NDArray[np.bytes_]

#: Texts and pictures of a segment, at most: what is lost when a process is killed.
TEXTS, PICTURES = 16_384, 2_048

#: Pictures of a batch; as many batches are prepared ahead of the model as `_AHEAD` says.
BATCH = 64
_AHEAD = 2


def _alone() -> None:
    """Nobody to wait for."""


def _silent(what: str, done: int, total: int) -> None:
    """Nobody to tell."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which one of how many processes this is. `barrier` returns when all have called it."""

    rank: int = 0
    size: int = 1
    barrier: Callable[[], None] = _alone


@dataclass(kw_only=True)
class Store:
    """Vectors by the keys of what they are of. `folder` may be deleted at any time between evaluations."""

    folder: Path
    kind: str
    dimension: int
    _segments: dict[str, tuple[Keys, NDArray[np.void]]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Open the segments that have been written since.

        Raises:
            DataError: a segment is damaged.
        """
        for path in sorted(self.folder.glob(f"{self.kind}-*.npy")):
            if path.name not in self._segments:
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: cannot be read ({error}). Delete it: it is computed again.") from None
        if rows.dtype != self._dtype:
            raise DataError(f"{path}: does not hold vectors of {self.dimension} numbers. Delete it.")
        self._segments[path.name] = np.ascontiguousarray(rows["key"]), rows

    @property
    def _dtype(self) -> np.dtype[np.void]:
        return np.dtype([("key", "S16"), ("vector", "<f4", (self.dimension,))])

    def find(self, keys: Keys) -> Iterator[tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.int64]]]:
        """For each segment: which of the keys it holds, its rows, and at which of them; a key is found once."""
        left = np.arange(len(keys))
        for own, rows in self._segments.values():
            if not len(left):
                return
            at = np.searchsorted(own, keys[left])
            hit = own[np.minimum(at, len(own) - 1)] == keys[left]
            yield left[hit], rows, at[hit]
            left = left[~hit]

    def missing(self, keys: Keys) -> NDArray[np.int64]:
        """Which of the keys no segment holds: ascending indices."""
        absent = np.ones(len(keys), bool)
        for found, _, _ in self.find(keys):
            absent[found] = False
        return np.flatnonzero(absent)

    def vectors(self, keys: Keys) -> Floats:
        """The vectors of keys that are all there: float32 [n, dimension]."""
        vectors = np.empty((len(keys), self.dimension), np.float32)
        for found, rows, at in self.find(keys):
            vectors[found] = rows["vector"][at]
        return vectors

    def add(self, keys: Keys, vectors: Floats) -> None:
        """Write a segment."""
        order = np.argsort(keys, kind="stable")
        rows = np.empty(len(keys), self._dtype)
        rows["key"], rows["vector"] = keys[order], vectors[order]
        path = self.folder / f"{self.kind}-{digest(rows['key'].tobytes())[:32]}.npy"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, rows)
        self._open(path)


#: Called with what is done ("texts", "pictures"), how many are, of how many.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class EncoderFeatures:
    """What benchmarks ask of a model (`worldclip.evaluation.pictures.Features`), from an `Encoder`."""

    encoder: Encoder
    pictures: Store
    sentences: Store
    processes: Processes
    progress: Progress
    threads: int

    @staticmethod
    def open(
        encoder: Encoder,
        folder: Path,
        *,
        threads: int,
        processes: Processes | None = None,
        progress: Progress = _silent,
    ) -> EncoderFeatures:
        """Features of a model, kept below `folder`, which all processes share.

        Args:
            threads: that decode pictures.
        """
        own = folder / encoder.fingerprint[:32]
        processes = processes or Processes()
        if processes.rank == 0:
            sweep(own)
        own.mkdir(parents=True, exist_ok=True)
        processes.barrier()  # Nobody writes before what others left has been swept.
        return EncoderFeatures(
            encoder=encoder,
            pictures=Store(folder=own, kind="pictures", dimension=encoder.dimension),
            sentences=Store(folder=own, kind="texts", dimension=encoder.dimension),
            processes=processes,
            progress=progress,
            threads=threads,
        )

    def texts(self, texts: Sequence[str]) -> Floats:
        """L2-normalised float32 [n, d]; equal texts have equal rows, bit by bit."""
        keys = _keys(text.encode("utf-8", "surrogatepass") for text in texts)
        for part in self._todo(self.sentences, keys, "texts", TEXTS):
            self.sentences.add(keys[part], self.encoder.texts([texts[row] for row in part]))
        return self._gathered(self.sentences, keys)

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the texts [n] are longer than the model reads."""
        return self.encoder.truncated(texts)

    def images(self, pictures: Pictures) -> Floats:
        """L2-normalised float32 [n, d]; a picture that cannot be read is all NaN."""
        keys = _keys(data for _, data in pictures)
        with ThreadPoolExecutor(self.threads, "decode") as pool:
            for part in self._todo(self.pictures, keys, "pictures", PICTURES):
                vectors = np.full((len(part), self.encoder.dimension), np.nan, np.float32)
                prepared = self._prepared(pictures, part, pool)
                while batch := list(islice(prepared, BATCH)):
                    readable = [(at, picture) for at, picture in batch if picture is not None]
                    if readable:
                        rows, inputs = zip(*readable, strict=True)
                        vectors[list(rows)] = self.encoder.embed_prepared(inputs)
                self.pictures.add(keys[part], vectors)
        return self._gathered(self.pictures, keys)

    def _prepared(self, pictures: Pictures, rows: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, Any]]:
        """Each of the rows' number from 0 with the picture as the model takes it, or None: a few batches ahead."""
        ahead: deque[Future[Any]] = deque()
        done = 0
        for row, data in zip(rows, pictures.read(rows), strict=True):
            ahead.append(pool.submit(self._prepare, data, pictures.keys[row]))
            if len(ahead) > _AHEAD * BATCH:
                yield done, ahead.popleft().result()
                done += 1
        for at, future in enumerate(ahead, done):
            yield at, future.result()

    def _prepare(self, data: bytes, where: str) -> Any:
        try:
            return self.encoder.prepare(data, where)
        except DataError:
            return None  # Whose score it would have been counts it.

    def _todo(self, store: Store, keys: Keys, what: str, size: int) -> Iterator[list[int]]:
        """Rows that this process has to embed, a segment at a time: the first of each key that no segment holds.

        All processes must ask for the same keys in the same order.
        """
        self.processes.barrier()
        store.refresh()
        _, first = np.unique(keys, return_index=True)
        first.sort()
        mine = first[store.missing(keys[first])][self.processes.rank :: self.processes.size]
        for start in range(0, len(mine), size):
            self._tell(what, start, len(mine))
            yield mine[start : start + size].tolist()
        if len(mine):
            self._tell(what, len(mine), len(mine))

    def _tell(self, what: str, done: int, total: int) -> None:
        """The first process speaks for all: each has as much to do."""
        if self.processes.rank == 0:
            self.progress(what, done, total)

    def _gathered(self, store: Store, keys: Keys) -> Floats:
        self.processes.barrier()
        store.refresh()
        return store.vectors(keys)


def _keys(contents: Iterable[bytes]) -> Keys:
    """128 bits of each content's SHA-256."""
    return np.array([hashlib.sha256(content).digest()[:16] for content in contents], "S16")
