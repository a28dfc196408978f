"""The hand-over to img2dataset, which downloads images, and back.

    pairs or a curated table --write_list--> Parquet that img2dataset takes: `url, caption, id`
    img2dataset's folder     --read_images--> id and bytes of each image that it got

img2dataset carries the column `id` through when told to (`--save_additional_columns '["id"]'`), so that nothing depends
on how it names its files. Its tables and tars are also sources of pairs themselves (`tables`).
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError, MissingData
from worldclip.pairs.rows import normalised, url_id
from worldclip.pairs.sources import find_sources, opened
from worldclip.pairs.tables import IMAGE_SUFFIXES
from worldclip.storage import replacing

#: What img2dataset is given.
DOWNLOAD_LIST = pa.schema([("url", pa.string()), ("caption", pa.string()), ("id", pa.string())])

#: What to tell img2dataset of a list; its further options (size, processes, format) are the user's.
OPTIONS = ("--input_format", "parquet", "--url_col", "url", "--caption_col", "caption",
           "--save_additional_columns", '["id"]')  # fmt: skip

#: Longest image that is read (bytes).
LONGEST_IMAGE = 256 * 2**20


def tables_of(inputs: Sequence[str]) -> list[str]:
    """The tables that paths, patterns, folders and URLs name; of what curation wrote, the curated ones alone.

    Raises:
        MissingData, ConfigError, StorageError: there is none; see `find_sources`.
    """
    found = [source.path for source in find_sources(inputs) if source.kind == "parquet"]
    if not found:
        raise MissingData(f"{', '.join(inputs)}: no Parquet file there. `worldclip pairs extract` makes them.")
    return [path for path in found if PurePosixPath(path).name.startswith("curated-")] or found


def write_list(tables: Sequence[str | Path], out: Path) -> int:
    """Write the list of images to download, once each, with their first text; return how many they are.

    Args:
        tables: pairs (`id, texts, url`) or what curation gave (`id, text, url, kept`), of which only the kept are.
            An image of curated tables is in one of them only, its rows together.

    Raises:
        DataError: a table has no `id`, `url` or text, or a URL is null.
    """
    written = 0
    with replacing(out) as temporary, pq.ParquetWriter(temporary, DOWNLOAD_LIST, compression="zstd") as writer:
        for path in tables:
            last = None
            for batch in _batches(str(path)):
                found = []
                for row in batch.to_pylist():
                    texts = row.get("texts")
                    text = texts[0]["text"] if texts else row.get("text")
                    if row.get("kept", True) and row["id"] != last:
                        last = row["id"]
                        found.append({"url": row["url"], "caption": text, "id": row["id"]})
                if any(each["url"] is None for each in found):
                    raise DataError(
                        f"{path}: an image has no URL, so it cannot be downloaded; its table has its bytes."
                    )
                writer.write_table(pa.Table.from_pylist(found, DOWNLOAD_LIST))
                written += len(found)
    return written


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    try:
        with opened(path) as source, pq.ParquetFile(source) as file:
            names = file.schema_arrow.names
            texts = [name for name in ("texts", "text") if name in names][:1]
            if not {"id", "url"} <= set(names) or not texts:
                raise DataError(
                    f"{path}: needs `id`, `url` and `texts` or `text`; found {', '.join(names)}. Give pairs that "
                    "`worldclip pairs extract` wrote, or what `worldclip curate` made of them."
                )
            wanted = ["id", "url", *texts, *(["kept"] if "kept" in names else [])]
            yield from file.iter_batches(batch_size=8192, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that is here. `place` is its tar or folder, `key` its name there without the ending."""

    id: str
    place: Path
    key: str
    suffix: str
    data: bytes


def image_files(folder: Path) -> list[Path]:
    """The tars below a folder, and the folders below it that hold image files; sorted.

    Raises:
        DataError: there is neither.
    """
    found = {path for path in folder.rglob("*.tar") if path.is_file()} if folder.is_dir() else {folder}
    if folder.is_dir():
        found |= {path.parent for suffix in IMAGE_SUFFIXES for path in folder.rglob(f"*.{suffix}")}
    if not found or not all(path.exists() for path in found):
        raise DataError(f"{folder}: no tar and no image file there. Give a folder that img2dataset wrote.")
    return sorted(found)


def read_images(place: Path, reasons: Counter[str]) -> Iterator[Image]:
    """The images of a tar, or of the files in one folder, that img2dataset wrote (`webdataset` or `files`).

    An image's id is its JSON's `id`, else that of its `url`, else its key. What cannot be read is counted in `reasons`.
    """
    members = _of_tar(place, reasons) if place.is_file() else _of_folder(place)
    sample: dict[str, bytes] = {}
    last = ""
    for key, suffix, data in members:
        if key != last:
            yield from _image(place, last, sample, reasons)
            sample, last = {}, key
        sample[suffix] = data
    yield from _image(place, last, sample, reasons)


def _of_tar(path: Path, reasons: Counter[str]) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                if not member.isreg() or suffix.lower() not in (*IMAGE_SUFFIXES, "json"):
                    continue
                if member.size > LONGEST_IMAGE:
                    reasons["image longer than 256 MiB"] += 1
                    continue
                content = tar.extractfile(member)
                if content is not None:
                    yield key, suffix.lower(), content.read()
    except (EOFError, OSError, zlib.error, tarfile.TarError) as error:
        reasons[f"tar damaged or cut short, the rest is lost ({type(error).__name__})"] += 1


def _of_folder(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    files = [path for path in folder.iterdir() if path.suffix[1:].lower() in (*IMAGE_SUFFIXES, "json")]
    keys = {path.stem for path in files if path.suffix != ".json"}
    for path in sorted(files, key=lambda path: (path.stem, path.suffix)):
        if path.stem in keys:
            yield path.stem, path.suffix[1:].lower(), path.read_bytes()


def _image(place: Path, key: str, sample: dict[str, bytes], reasons: Counter[str]) -> Iterator[Image]:
    suffix = next((name for name in IMAGE_SUFFIXES if name in sample), None)
    if suffix is None:
        return
    record: Any = {}
    if "json" in sample:
        try:
            record = json.loads(sample["json"])
        except ValueError:
            reasons["JSON beside an image that is none; its key is its id"] += 1
    record = record if isinstance(record, dict) else {}
    url = normalised(record["url"]) if isinstance(record.get("url"), str) else None
    own = record.get("id") if isinstance(record.get("id"), str) else None
    yield Image(id=own or (url and url_id(url)) or key, place=place, key=key, suffix=suffix, data=sample[suffix])
