"""Pictures of a benchmark: keys in a fixed order, encoded bytes that are read when asked for.

Nothing is decoded here and at most one picture (one small batch of a table) is held in memory. Beside them stands what
a benchmark needs of a model: `Features`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from worldclip.errors import DataError, MissingData

Floats = NDArray[np.float32]

#: Rows of a table's image column that are held at once.
BATCH = 32

#: A Git-LFS pointer begins with this.
POINTER = b"version https://git-lfs"


class Features(Protocol):
    """What a benchmark asks of a model: unit vectors of pictures and texts, in one space."""

    def images(self, pictures: Pictures) -> Floats:
        """L2-normalised float32 [n, d], row i for `pictures.keys[i]`; a picture that cannot be read is all NaN."""

    def texts(self, texts: Sequence[str]) -> Floats:
        """L2-normalised float32 [n, d], row i for `texts[i]`."""

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the texts [n] are longer than the model reads, so that their end is cut off."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A re-iterable sequence of (key, encoded image); the same order each time.

    `read(rows)` gives the bytes of those rows, in that order; ascending rows are read fastest.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Sequence[int]], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return zip(self.keys, self.read(range(len(self))), strict=True)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the keys, joined by line feeds."""
        return hashlib.sha256("\n".join(self.keys).encode()).hexdigest()

    def take(self, rows: Sequence[int]) -> Pictures:
        """Only these rows, in this order."""
        chosen = [int(row) for row in rows]
        return Pictures(
            name=self.name,
            keys=tuple(self.keys[row] for row in chosen),
            read=lambda again: self.read([chosen[row] for row in again]),
        )


@dataclass(frozen=True)
class Place:
    """Where an encoded image lies: a whole file, or `size` bytes of it from `start` on."""

    path: Path
    start: int = 0
    size: int = -1

    def bytes(self) -> bytes:
        """Read it.

        Raises:
            MissingData: the file is not there.
            DataError: it is a Git-LFS pointer, or cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except FileNotFoundError:
            raise MissingData(f"{self.path}: image not found, though the benchmark lists it.") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}).") from None
        check_pointer(data, self.path)
        return data


def check_pointer(data: bytes, path: Path) -> None:
    """Refuse a Git-LFS pointer, which stands where a file should have been fetched.

    Raises:
        DataError: `data` is one.
    """
    if data.startswith(POINTER):
        raise DataError(
            f"{path}: is a Git-LFS pointer, not the file itself. Run `git lfs pull` in the repository it came from."
        )


def from_places(name: str, keys: Sequence[str], places: Sequence[Place]) -> Pictures:
    """Pictures that are files, or parts of tar files. `keys` are unique.

    Raises:
        DataError: two pictures have the same key.
    """
    check_unique(name, keys)
    return Pictures(name=name, keys=tuple(keys), read=lambda rows: (places[row].bytes() for row in rows))


def from_files(name: str, folder: Path, files: Sequence[str]) -> Pictures:
    """Pictures that are files below `folder`, named by relative path, which is also the key."""
    return from_places(name, files, [Place(folder / file) for file in files])


def from_arrays(name: str, keys: Sequence[str], arrays: NDArray[np.uint8]) -> Pictures:
    """Pictures that are given as pixels, uint8 [n, h, w] or [n, h, w, 3]; they are encoded as PNG, without loss."""

    def png(pixels: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    return Pictures(name=name, keys=tuple(keys), read=lambda rows: (png(arrays[row]) for row in rows))


def from_table(
    name: str,
    keys: Sequence[str],
    files: Sequence[Path],
    column: str,
    cells: Sequence[tuple[int, int]] | None = None,
) -> Pictures:
    """Pictures in a column of Parquet or Arrow stream files; row i of the files one after another is `keys[i]`.

    The column holds bytes, or structs of `bytes` and `path` as Hugging Face writes them (a path without bytes is read
    from beside the file).

    Args:
        cells: for a column of lists of images: row and place in its list of each picture.

    Raises:
        DataError: two pictures have the same key.
    """
    check_unique(name, keys)

    def read(rows: Sequence[int]) -> Iterator[bytes]:
        ends = np.cumsum([row_count(file) for file in files])
        chosen = [(row, None) if cells is None else cells[row] for row in rows]
        which = np.searchsorted(ends, [row for row, _ in chosen], side="right")
        for place, group in groupby(zip(which.tolist(), chosen, strict=True), key=lambda pair: pair[0]):
            first = int(ends[place - 1]) if place else 0
            wanted = [(row - first, item) for _, (row, item) in group]
            found = _cells(files[place], column, [row for row, _ in wanted])
            for (row, item), cell in zip(wanted, found, strict=True):
                yield _image(cell if item is None else cell[item], files[place], row)

    return Pictures(name=name, keys=tuple(keys), read=read)


def row_count(file: Path) -> int:
    """Rows of a Parquet or Arrow stream file."""
    if file.suffix == ".parquet":
        return int(pq.read_metadata(file).num_rows)
    return sum(batch.num_rows for batch in arrow_batches(file))


def arrow_batches(file: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow stream file, mapped into memory."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream


def _cells(file: Path, column: str, rows: Sequence[int]) -> Iterator[Any]:
    """The values in some rows of one file. Going back starts the file anew."""
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and rows[stop] >= rows[stop - 1]:
            stop += 1
        yield from _ascending_cells(file, column, rows[start:stop])
        start = stop


def _ascending_cells(file: Path, column: str, rows: Sequence[int]) -> Iterator[Any]:
    first, wanted = 0, iter(rows)
    row = next(wanted, None)
    for batch in _batches(file, column, rows):
        if isinstance(batch, int):  # This many rows were passed over unread.
            first += batch
            continue
        while row is not None and row < first + len(batch):
            yield batch[row - first].as_py()
            row = next(wanted, None)
        first += len(batch)
        if row is None:
            return


def _batches(file: Path, column: str, rows: Sequence[int]) -> Iterator[pa.Array | int]:
    """The column, a batch at a time; a number stands for a row group that holds none of the rows."""
    if file.suffix != ".parquet":
        for batch in arrow_batches(file):
            yield batch.column(column)
        return
    with pq.ParquetFile(file) as table:
        first = 0
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            if np.searchsorted(rows, first) == np.searchsorted(rows, first + count):
                yield count
            else:
                for batch in table.iter_batches(BATCH, row_groups=[group], columns=[column]):
                    yield batch.column(0)
            first += count


def _image(cell: Any, file: Path, row: int) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None and isinstance(cell, dict) and cell.get("path"):
        return Place(file.parent / cell["path"]).bytes()
    if not isinstance(data, bytes):
        raise DataError(f"{file}: row {row} holds no image; needs bytes, or a struct of bytes and path.")
    check_pointer(data, file)
    return data


def check_unique(name: str, keys: Sequence[str]) -> None:
    """Refuse keys that name two pictures.

    Raises:
        DataError: tells the first that is repeated.
    """
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        repeated = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"{name}: two pictures have the key {repeated!r}; the data set is damaged or was merged twice.")
