"""Files that are either whole or not there.

Everything that worldclip writes goes to a temporary name beside its target, is flushed to the disk, and is renamed:
a reader, or the same command after kill -9 or a full disk, never meets half a file. What a finished piece of work
consists of is told by a manifest, written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError, MissingData, StorageError

TEMPORARY = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success flush it to disk and rename it to `path`, else remove it.

    Raises:
        StorageError: the disk refused (full, read-only, no permission); `path` is as it was before.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: could not be written ({error.strerror or error}). Nothing half-written is left; "
            "free space or choose another folder and run the same command again."
        ) from error
    finally:
        with suppress(OSError):  # Where even this is refused, the error above has said so.
            temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove temporary files and folders that a killed run left below `folder`; return how many."""
    stale = list(folder.rglob(f"*{TEMPORARY}")) if folder.exists() else []
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingData: it is not there.
        DataError: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingData(f"{path}: not found. Run the stage that writes it first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not JSON ({error}). Delete it and run the stage that writes it again.") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all. The same table gives the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=65536)


class TableWriter:
    """Writes a Parquet file part by part; see `writing_table`."""

    def __init__(self, path: Path, repeated: Sequence[str]) -> None:
        self._path, self._repeated = path, list(repeated)
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Write rows as a row group; all parts have the schema of the first."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", use_dictionary=self._repeated, write_statistics=False
            )
        self._writer.write_table(table)

    def close(self, facts: Mapping[str, str]) -> None:
        """End the file with its metadata.

        Raises:
            StorageError: nothing was written to it.
        """
        if self._writer is None:
            raise StorageError(f"{self._path}: no table was written to it.")
        self._writer.add_key_value_metadata(dict(facts))
        self._writer.close()


@contextmanager
def writing_table(path: Path, repeated: Sequence[str] = ()) -> Iterator[TableWriter]:
    """A writer of a Parquet file that is whole or not there: it must be closed before it is left.

    Args:
        repeated: columns (Parquet's paths) whose values repeat, as labels do. Only these get a dictionary: to look for
            repeats among texts and ids costs as much as to write them.
    """
    with replacing(path) as temporary:
        yield TableWriter(temporary, repeated)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Raises:
        MissingData: it is not there.
        DataError: it is not Parquet, or is cut short.
    """
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise MissingData(f"{path}: not found. Run the stage that writes it first.") from None
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None


def digest(*parts: str | bytes) -> str:
    """SHA-256 (hex) over the parts, each preceded by its length, so that no two lists of parts collide."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stream_digest(file: IO[bytes]) -> str:
    """SHA-256 (hex) of an open file's bytes; it stands at its beginning before and after."""
    found = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
    file.seek(0)
    return found


def free_bytes(folder: Path) -> int:
    """Free space, in bytes, of the disk that holds `folder` or its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
