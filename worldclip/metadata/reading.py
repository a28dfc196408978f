"""Files as they are published, unpacked (bzip2, also of several streams; gzip; xz): as bytes, lines or XML."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from worldclip.errors import DataError, MissingData

_PACKED: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)

_CHUNK = 1 << 16

#: Bytes of a tag of XML: expat holds what it has not seen the end of.
_LONGEST_TAG = 1_000_000


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked by its ending (.bz2, .gz, .xz).

    Raises:
        MissingData: it is not there.
        DataError: while reading: it is cut short or damaged.
    """
    try:
        with _PACKED.get(path.suffix, open)(path, "rb") as file:
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
    fed = 0
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
