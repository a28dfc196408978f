"""Files as they are published, unpacked (bzip2, also of several streams; gzip; xz): as bytes, lines or XML.

How far a file is read is told by the way (`telling`), in bytes of it as it lies on the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import pyarrow.parquet as pq

from worldclip.errors import DataError, MissingData
from worldclip.storage import TEMPORARY

_PACKED: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)

_CHUNK = 1 << 16

#: Bytes of a tag of XML: expat holds what it has not seen the end of.
_LONGEST_TAG = 1_000_000

#: Elements inside each other: expat holds those that are open. Dumps and wordnets have six at most.
_DEEPEST = 100

#: Seconds between two tellings of how far a file is read, and what the files end in that tell it.
PACE, READING = 0.5, f".read{TEMPORARY}"

#: Is given the bytes that a reader has just read.
_tell: ContextVar[Callable[[float], None]] = ContextVar("_tell", default=lambda _: None)


@contextmanager
def telling(path: Path, pace: float = PACE) -> Iterator[None]:
    """While this lasts, keep in the file `path` how many bytes the readers have read; then remove it.

    A file, as whoever reads may be in another process or on another machine. It is written anew every `pace` seconds,
    first after as many, so that small files leave none.
    """
    read, due = 0.0, time.monotonic() + pace

    def tell(more: float) -> None:
        nonlocal read, due
        read += more
        if (now := time.monotonic()) >= due:
            due = now + pace
            with suppress(OSError):  # no work fails for its progress
                beside = path.with_name(f"{path.name}{TEMPORARY}")
                beside.write_text(str(round(read)))
                beside.replace(path)

    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)
        path.unlink(missing_ok=True)


def told(folder: Path) -> int:
    """Bytes that all readers have read which tell of it in `folder`."""
    total = 0
    for path in folder.glob(f"*{READING}"):
        with suppress(OSError):  # it has ended meanwhile
            total += int(path.read_text())
    return total


class _Told(FileIO):
    """A file whose bytes are told of as they are read."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        _tell.get()(count)
        return count


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked by its ending (.bz2, .gz, .xz).

    Raises:
        MissingData: it is not there.
        DataError: while reading: it is cut short or damaged.
    """
    try:
        with BufferedReader(_Told(path), _CHUNK) as raw:
            if path.suffix not in _PACKED:
                yield raw
                return
            with _PACKED[path.suffix](raw) as file:
                yield file
    except FileNotFoundError:
        raise MissingData(f"{path}: not found.") from None
    except _BROKEN as error:
        raise DataError(f"{path}: is cut short or damaged ({error}); fetch it again.") from None


def lines(path: Path, longest: int) -> Iterator[bytes | None]:
    """The lines of a file, unpacked; None for each that is longer than `longest` bytes.

    Raises:
        MissingData: it is not there.
        DataError: it is cut short or damaged.
    """
    with opened(path) as file:
        while line := file.readline(longest):
            if len(line) < longest or line.endswith(b"\n"):
                yield line
                continue
            while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
                pass
            yield None


def parsed(path: Path, parser: expat.XMLParserType, what: str) -> Iterator[None]:
    """Give a file, unpacked, to a parser; stop after each chunk, so that what its handlers gathered can be taken.

    Raises:
        MissingData: it is not there.
        DataError: it is cut short, damaged, or no well-formed XML; `what` says what it should be.
    """
    fed = depth = 0
    start: Any = parser.StartElementHandler
    end: Any = parser.EndElementHandler

    def open_one(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise DataError(f"{path}: has more than {_DEEPEST} elements inside each other; no {what} has.")
        start(name, attributes)

    def close_one(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.StartElementHandler, parser.EndElementHandler = open_one, close_one
    with opened(path) as file:
        chunk = b"-"
        while chunk:
            chunk = file.read(_CHUNK)
            try:
                parser.Parse(chunk, not chunk)
            except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: of the encoding it names
                raise DataError(f"{path}: is no well-formed {what} ({error}); fetch it again.") from None
            fed += len(chunk)
            if fed - parser.CurrentByteIndex > _LONGEST_TAG:
                raise DataError(f"{path}: has a tag of more than {_LONGEST_TAG:,} bytes; no {what} has.")
            yield


def batches(path: Path, file: pq.ParquetFile, rows: int = 8192, columns: list[str] | None = None) -> Iterator[Any]:
    """The record batches of a Parquet file; of its bytes, each is told of as its share of the rows."""
    tell, size = _tell.get(), path.stat().st_size / max(file.metadata.num_rows, 1)
    for batch in file.iter_batches(rows, columns=columns, use_threads=False):
        tell(len(batch) * size)
        yield batch
