"""The layouts that benchmarks come in: WebDataset, folders of classes, file lists, Hugging Face tables, text files.

Every reader keeps rows and texts together by name, never by luck of the order, and stops with the name of what is
missing or has no place.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.metrics import Ints
from worldclip.evaluation.pictures import (
    Pictures,
    Place,
    check_pointer,
    from_files,
    from_places,
    from_table,
)

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


# Text files.


def read_text(path: Path) -> str:
    """A UTF-8 text file, whatever the locale says; its line ends are as they are.

    Raises:
        MissingData: it is not there.
        DataError: it is a Git-LFS pointer or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingData(f"{path}: cannot be read ({error.strerror}); the benchmark needs it.") from None
    check_pointer(data, path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}).") from None


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, split at \n alone (U+2028 is part of a caption), less a final \r; the last needs no \n."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, blank ones too: what stands in line i belongs to row i."""
    return split_lines(read_text(path))


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header that has at least `columns`, one after another.

    Raises:
        DataError: a column is missing, or a row is short.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found = reader.fieldnames or []
    if missing := [name for name in columns if name not in found]:
        raise DataError(f"{path}: no column {missing[0]!r}; found {', '.join(found) or 'nothing'}.")
    for number, row in enumerate(reader, 2):
        if any(row[name] is None for name in columns):
            raise DataError(f"{path}: row {number} is short; it needs {', '.join(columns)}.")
        yield row


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        DataError: a line is no JSON object.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error.msg}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object.")
        rows.append(row)
    return rows


# WebDataset, as CLIP_benchmark and DataComp write it.


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The samples of a WebDataset: images, and the bytes of each other member by suffix (`cls`, `npy`, `txt`)."""

    folder: Path
    pictures: Pictures
    fields: Mapping[str, list[bytes]]

    def field(self, suffix: str) -> list[bytes]:
        """One member a sample.

        Raises:
            DataError: a sample has none.
        """
        found = self.fields.get(suffix, [])
        if len(found) != len(self.pictures):
            raise DataError(
                f"{self.folder}: {len(self.pictures)} samples, of which {len(found)} have a .{suffix}; all need one."
            )
        return found

    def labels(self) -> Ints:
        """The class of each image, from `.cls`."""
        try:
            return np.array([int(data) for data in self.field("cls")], np.int64)
        except ValueError as error:
            raise DataError(f"{self.folder}: a .cls member is not a number ({error}).") from None

    def captions(self) -> list[list[str]]:
        """The captions of each image, from `.txt`."""
        return [split_lines(data.decode("utf-8")) for data in self.field("txt")]

    def metadata(self) -> NDArray[Any]:
        """A row of numbers an image, from `.npy`: [n, columns]."""
        try:
            return np.stack([np.load(io.BytesIO(data), allow_pickle=False).ravel() for data in self.field("npy")])
        except ValueError as error:
            raise DataError(f"{self.folder}: an .npy member is not a plain array like the others ({error}).") from None


def read_shards(folder: Path, split: str = "test") -> Shards:
    """Index the tar shards of a WebDataset; images stay where they are.

    Raises:
        MissingData: `nshards.txt` or a shard that it counts is not there.
        DataError: a shard is a Git-LFS pointer or no tar file; samples without an image, or two with one key.
    """
    text = read_text(folder / split / "nshards.txt").strip()
    if not text.isdecimal():
        raise DataError(f"{folder / split / 'nshards.txt'}: holds {text[:40]!r}, not the number of shards.")
    samples: dict[str, dict[str, Place | bytes]] = {}
    for number in range(int(text)):
        path = folder / split / f"{number}.tar"
        for key, suffix, member in _members(path):
            sample = samples.setdefault(f"{number}/{key}", {})
            if suffix in sample:
                raise DataError(f"{path}: sample {key!r} has two .{suffix}; the shard is damaged or was merged twice.")
            sample[suffix] = member
    images = [_image_of(sample, f"{folder}: sample {key}") for key, sample in samples.items()]
    name = folder.name
    fields: dict[str, list[bytes]] = {}
    for sample in samples.values():
        for suffix, member in sample.items():
            if isinstance(member, bytes):
                fields.setdefault(suffix, []).append(member)
    return Shards(folder=folder, pictures=from_places(name, list(samples), images), fields=fields)


def _image_of(sample: Mapping[str, Place | bytes], where: str) -> Place:
    images = [member for member in sample.values() if isinstance(member, Place)]
    if len(images) != 1:
        raise DataError(f"{where} has {len(images)} images ({', '.join(sorted(sample))}); needs one.")
    return images[0]


def _members(path: Path) -> Iterator[tuple[str, str, Place | bytes]]:
    """Key, suffix and place (of an image) or bytes of each member of a shard."""
    try:
        with open(path, "rb") as file:
            check_pointer(file.read(64), path)
        with tarfile.open(path) as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                file_of = tar.extractfile(member)
                if file_of is None:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    yield key, suffix.lower(), Place(path, member.offset_data, member.size)
                else:
                    yield key, suffix.lower(), file_of.read()
    except FileNotFoundError:
        raise MissingData(f"{path}: shard not found, though nshards.txt counts it. Fetch it again.") from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: is not a whole tar file ({error}). Fetch it again.") from None


# Folders and lists of files.

#: From the name of a folder to the class that its images belong to; None where it has none.
ClassOf = Callable[[str], int | None]


def read_class_folders(name: str, folder: Path, class_of: ClassOf) -> tuple[Pictures, Ints]:
    """Images in one folder a class (at any depth in it); the class comes from the folder's name, never its place.

    Raises:
        MissingData: no such folder, or no image in it.
        DataError: a folder that is no class.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder}: no such folder; {name} needs one folder a class there.")
    files: list[str] = []
    labels: list[int] = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = class_of(each.name)
        if label is None:
            raise DataError(
                f"{each}: {each.name!r} is no class of {name}. Remove the folder if it does not belong there, or give "
                "it the data set's own name."
            )
        found = images_below(each)
        files += [path.relative_to(folder).as_posix() for path in found]
        labels += [label] * len(found)
    if not files:
        raise MissingData(f"{folder}: no images in its folders; {name} needs one folder a class.")
    return from_files(name, folder, files), np.array(labels, np.int64)


def images_below(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def read_file_list(name: str, folder: Path, split: str, class_of: ClassOf) -> tuple[Pictures, Ints]:
    """Images listed in `<split>_images.npy` (paths), their classes in `<split>_labels.npy` (numbers or names).

    Raises:
        MissingData: a list is not there.
        DataError: the lists differ in length, hold Python objects, or name a class that there is not.
    """
    paths, labels = (_array(folder / f"{split}_{kind}.npy") for kind in ("images", "labels"))
    if len(paths) != len(labels):
        raise DataError(f"{folder}: {len(paths)} images but {len(labels)} labels in the lists of {split!r}.")
    numbers = [class_of(str(label)) for label in labels]
    if None in numbers:
        raise DataError(f"{folder}: label {str(labels[numbers.index(None)])!r} is no class of {name}.")
    return from_files(name, folder, [str(path) for path in paths]), np.array(numbers, np.int64)


def _array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise MissingData(f"{path}: not found; the file list needs it.") from None
    except ValueError as error:
        raise DataError(f"{path}: is not a plain array ({error}); save paths as strings, not as objects.") from None


def by_name(names: Sequence[Sequence[str]], aliases: Mapping[str, str] | None = None) -> ClassOf:
    """Find a class by its name, whatever the case, spaces and punctuation; `aliases` maps a folder to a class's name.

    Names that only differ in those are told apart by their exact spelling.
    """
    exact = {name: number for number, each in reversed([*enumerate(names)]) for name in each}
    loose: dict[str, int | None] = {}
    for number, each in enumerate(names):
        for key in {_letters(name) for name in each}:
            loose[key] = None if key in loose and loose[key] != number else number
    known = aliases or {}

    def class_of(folder: str) -> int | None:
        name = known.get(folder, folder)
        found = exact.get(name)
        return loose.get(_letters(name)) if found is None else found

    return class_of


def by_number(classes: int, first: int = 0) -> ClassOf:
    """Folders that are named by number, padded or not: `int("0012")` is 12, whatever the order of the names."""

    def class_of(folder: str) -> int | None:
        number = int(folder) - first if re.fullmatch(r"\d+", folder, re.ASCII) else -1
        return number if 0 <= number < classes else None

    return class_of


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


# Tables of Hugging Face.


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Parquet or Arrow files, one after another; all columns but those of images are in `columns`."""

    folder: Path
    files: tuple[Path, ...]
    columns: pa.Table

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def column(self, name: str) -> list[Any]:
        """A column's values.

        Raises:
            DataError: there is none.
        """
        if name not in self.columns.column_names:
            raise DataError(
                f"{self.folder}: no column {name!r}; found {', '.join(self.columns.column_names)} beside images."
            )
        values: list[Any] = self.columns.column(name).to_pylist()
        return values

    def pictures(self, name: str, column: str, keys: Sequence[str]) -> Pictures:
        """The images of a column."""
        return from_table(name, keys, self.files, column)


def read_rows(folder: Path, split: str = "test") -> Rows:
    """A data set of Hugging Face: saved to disk (Arrow files with state.json) or Parquet files.

    Looks in `folder/split`, then in `folder` and `folder/data` (there only at files `split-*` if there are any).

    Raises:
        MissingData: no such files.
        DataError: a file is damaged, or their columns differ.
    """
    files = _table_files(folder, split)
    try:
        tables = [_small_columns(file) for file in files]
        return Rows(folder=folder, files=tuple(files), columns=pa.concat_tables(tables))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}: cannot be read as a table ({error}).") from None


def _table_files(folder: Path, split: str) -> list[Path]:
    for place in (folder / split, folder, folder / "data"):
        if (place / "state.json").is_file():
            try:
                return [place / each["filename"] for each in json.loads(read_text(place / "state.json"))["_data_files"]]
            except (KeyError, TypeError, json.JSONDecodeError) as error:
                raise DataError(f"{place / 'state.json'}: does not list its data files ({error}).") from None
        files = sorted(place.glob("*.parquet"))
        if files:
            return [file for file in files if file.name.startswith(f"{split}-")] or files
    raise MissingData(f"{folder}: no Parquet files and no state.json (a data set saved to disk) of split {split!r}.")


def _small_columns(file: Path) -> pa.Table:
    """All columns of a file that are not images."""
    with open(file, "rb") as opened:
        check_pointer(opened.read(64), file)
    if file.suffix == ".parquet":
        schema = pq.read_schema(file)
        return pq.read_table(file, columns=[field.name for field in schema if not _is_image(field.type)])
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        names = [field.name for field in stream.schema if not _is_image(field.type)]
        return pa.concat_tables([stream.read_all().select(names)])


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_image(kind.value_type)
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
