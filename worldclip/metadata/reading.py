"""Files as they are published: plain, or packed by bzip2 (also of several streams), gzip or xz."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from worldclip.errors import DataError, MissingData

_PACKED: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


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
