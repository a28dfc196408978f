"""Where pairs are read from: files, folders and patterns, local or of any store that fsspec knows (s3://, ...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal, cast

import fsspec

from worldclip.errors import ConfigError, MissingData, StorageError

Kind = Literal["parquet", "tar", "jsonl", "crawl"]

#: Endings of names, lower case, and what such a file is.
KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".warc": "crawl",
    ".warc.gz": "crawl",
    ".warc.zst": "crawl",
    ".wat": "crawl",
    ".wat.gz": "crawl",
    ".wat.zst": "crawl",
}

#: What stores tell of a file that is another once the file is, in order of preference.
_CHANGED = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of pairs. `path` is local, or a URL that fsspec opens; `size` is in bytes.

    `changed` tells whether a file is still the same: its time, or what its store tells instead.
    """

    path: str
    size: int
    kind: Kind
    changed: str = ""

    @property
    def stem(self) -> str:
        """The name without folder and ending: `00012` of `.../00012.tar`."""
        return PurePosixPath(self.path).name.partition(".")[0]


def kind_of(path: str) -> Kind | None:
    """What a file is by its name, None where nothing here reads it."""
    return next((kind for ending, kind in KINDS.items() if path.lower().endswith(ending)), None)


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The files that paths, patterns (`*`, `**`) and folders name, sorted, each once.

    Of what lies in a folder, files that nothing here reads are passed over, and so is a tar beside a Parquet file of
    the same name: img2dataset writes both, and the table holds what is needed.

    Raises:
        MissingData: a path names nothing, or a folder holds nothing that can be read.
        ConfigError: a file that is named is of no kind known here, or its store is not known to fsspec.
        StorageError: a store refuses.
    """
    found: dict[str, Source] = {}
    for given in inputs:
        system, path = store_of(given)
        try:
            listed = not system.isfile(path)
            details = system.find(path, detail=True) if system.isdir(path) else {}
            if not details:
                details = system.glob(path, detail=True) if listed else {path: system.info(path)}
        except OSError as error:
            raise StorageError(f"{given}: cannot be listed ({error}).") from error
        sources = {}
        for name, info in details.items():
            kind = kind_of(name)
            if kind is None and not listed:
                raise ConfigError(f"{given}: its name must end in one of {', '.join(KINDS)}, which tells what it is.")
            if kind is not None and info["type"] == "file":
                full = name if "file" in _protocols(system) else system.unstrip_protocol(name)
                changed = next((str(info[name]) for name in _CHANGED if info.get(name)), "")
                sources[full] = Source(path=full, size=int(info["size"] or 0), kind=kind, changed=changed)
        if not sources:
            raise MissingData(f"{given}: nothing to read there. Readable are names that end in {', '.join(KINDS)}.")
        if listed:
            tables = {path.removesuffix(".parquet") for path in sources}
            sources = {path: each for path, each in sources.items() if path.removesuffix(".tar") not in tables
                       or each.kind != "tar"}  # fmt: skip
        found |= sources
    return [found[path] for path in sorted(found)]


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a source for reading; the file can seek.

    Raises:
        MissingData: it is not there.
        StorageError: the store refuses.
    """
    system, name = store_of(path)
    try:
        file = system.open(name, "rb")
    except FileNotFoundError:
        raise MissingData(f"{path}: not found.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error}).") from error
    with file:
        yield cast("IO[bytes]", file)


def store_of(path: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and its name there.

    Raises:
        ConfigError: fsspec does not know the store, or lacks its package.
    """
    try:
        system, name = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"{path}: its store cannot be reached ({error}). "
            "Stores need a package of their own, e.g. `pip install s3fs`."
        ) from None
    return system, str(name)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
