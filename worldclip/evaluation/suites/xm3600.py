"""XM3600: 3,600 images with about two captions in each of 36 locales. All captions of an image count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import read_jsonl, read_rows, read_text
from worldclip.evaluation.pictures import Features, Pictures, Place, from_files, from_places
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Captioned, retrieve
from worldclip.evaluation.tfrecords import find_splits, read_examples

#: The 36, as the data names them.
LOCALES = (
    *("ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr", "hu", "id", "it"),
    *("ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh"),
)


@dataclass(frozen=True, kw_only=True)
class Crossmodal:
    """The images, the captions of each by locale, and the locale of the region that each image is from (or "")."""

    pictures: Pictures
    captions: Mapping[str, Sequence[Sequence[str]]]
    regions: Sequence[str]


def read(folder: Path) -> Crossmodal:
    """Read the data in whatever layout it is.

    `captions.jsonl`, or Babel-ImageNet's `xm3600.json`, or the TFRecord files of TensorFlow Datasets, a split a locale,
    or Parquet with a row an image, or with a split a locale.

    Raises:
        MissingData: none of them is there, or an image is not.
        DataError: they are not what they should be.
    """
    if (folder / "captions.jsonl").is_file():
        rows = read_jsonl(folder / "captions.jsonl")
        return _from_rows(rows, _images(folder, [_key(row, folder) for row in rows]))
    if (folder / "xm3600.json").is_file():
        return _from_lists(folder)
    if splits := find_splits(folder):
        return _from_records(folder, splits)
    if locales := [locale for locale in LOCALES if any((folder / "data").glob(f"{locale}-*.parquet"))]:
        return _from_tables(folder, locales)
    table = read_rows(folder)
    rows = table.columns.to_pylist()
    return _from_rows(rows, table.pictures("xm3600", "image", [_key(row, folder) for row in rows]))


def _from_rows(rows: Sequence[Mapping[str, Any]], pictures: Pictures) -> Crossmodal:
    captions: dict[str, list[list[str]]] = {}
    for locale in LOCALES:
        own = [row.get(locale) for row in rows]
        if any(own):
            captions[locale] = [_captions(each) for each in own]
    if not captions:
        raise DataError(
            f"{pictures.name}: none of the 36 locales has a caption; found {', '.join(rows[0]) or 'nothing'}."
        )
    return Crossmodal(
        pictures=pictures, captions=captions, regions=[str(row.get("image/locale") or "") for row in rows]
    )


def _captions(entry: Any) -> list[str]:
    found = entry.get("caption") if isinstance(entry, dict) else entry
    return list(found or [])


def _from_lists(folder: Path) -> Crossmodal:
    try:
        found = json.loads(read_text(folder / "xm3600.json"))
        names = [Path(name).stem for name in found["images"]]
        captions = {
            locale: [list(each) for each in found["captions"][locale]]
            for locale in LOCALES
            if locale in found["captions"]
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / 'xm3600.json'}: needs lists `images` and `captions` by locale ({error!r})."
        ) from None
    return Crossmodal(pictures=_images(folder, names), captions=captions, regions=[""] * len(names))


def _from_records(folder: Path, splits: Mapping[str, Sequence[Path]]) -> Crossmodal:
    """TensorFlow Datasets: an image lies in the split of each locale, under its key and the locale's code."""
    captions: dict[str, dict[str, list[str]]] = {}
    places: dict[str, Place] = {}
    for locale in (each for each in LOCALES if each in splits):
        own = captions[locale] = {}
        for file in splits[locale]:
            for values, lies in read_examples(file):
                if not values.get("image/id") or "image" not in lies:
                    raise DataError(f"{file}: an example has no `image/id` or no `image`; found {', '.join(values)}.")
                key = values["image/id"][0].decode().removesuffix(f"_{locale}")
                own[key] = [text.decode() for name in ("captions", "caption") for text in values.get(name, ())]
                places.setdefault(key, lies["image"])
    keys = sorted(places)
    return _from_locales(folder, from_places("xm3600", keys, [places[key] for key in keys]), captions, {})


def _from_tables(folder: Path, locales: Sequence[str]) -> Crossmodal:
    """Parquet files `data/<locale>-*.parquet`, each with all images; those of the first locale are read."""
    tables = {locale: read_rows(folder, locale) for locale in locales}
    rows = {locale: {_key(row, folder): row for row in table.columns.to_pylist()} for locale, table in tables.items()}
    captions = {
        locale: {key: _captions(row.get("captions")) for key, row in own.items()} for locale, own in rows.items()
    }
    first = tables[locales[0]]
    pictures = first.pictures("xm3600", "image", [_key(row, folder) for row in first.columns.to_pylist()])
    regions = {key: str(row.get("image_locale") or "") for key, row in rows[locales[0]].items()}
    return _from_locales(folder, pictures, captions, regions)


def _from_locales(
    folder: Path,
    pictures: Pictures,
    captions: Mapping[str, Mapping[str, Sequence[str]]],
    regions: Mapping[str, str],
) -> Crossmodal:
    """Captions by locale and key, put together by key; each locale has its rows in an order of its own."""
    for locale, own in captions.items():
        if own.keys() != set(pictures.keys):
            raise DataError(
                f"{folder}: split {locale} has {len(own)} images, not the {len(pictures)} that all locales have."
            )
    return Crossmodal(
        pictures=pictures,
        captions={locale: [own[key] for key in pictures.keys] for locale, own in captions.items()},
        regions=[regions.get(key, "") for key in pictures.keys],
    )


def _key(row: Mapping[str, Any], folder: Path) -> str:
    key = row.get("image/key") or row.get("image_id") or row.get("key")
    if not key:
        raise DataError(f"{folder}: a row has no `image/key`.")
    return str(key)


def _images(folder: Path, keys: Sequence[str]) -> Pictures:
    files = [f"images/{key}.jpg" for key in keys]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise MissingData(f"{folder / missing[0]}: not there, nor are {len(missing) - 1} more; fetch images.tgz again.")
    return from_files("xm3600", folder, files)


def score(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Retrieval both ways in each locale; means over locales. Beside it, for comparison only, by first captions."""
    data = read(folders[0])
    settings = {"complete": tuple(sorted(data.captions)) == LOCALES}
    first = {locale: [each[:1] for each in captions] for locale, captions in data.captions.items()}
    return [
        retrieve(task, Captioned(pictures=data.pictures, captions=captions, settings=settings), features, options)
        for task, captions in (("xm3600", data.captions), ("xm3600_first_caption", first))
    ]


SOURCE = Source(
    names="google.github.io/crossmodal-3600: captions.zip and images.tgz",
    layout="captions.jsonl and images/<key>.jpg; or xm3600.json of Babel-ImageNet, and images/; or TensorFlow "
    "Datasets' 1.0.0/xm3600-<locale>.tfrecord-*; or Parquet, a row an image, or data/<locale>-*.parquet",
    licence="CC BY 4.0 (captions); images CC BY 2.0",
)

FOLDERS = ("xm3600", "crossmodal-3600")

BENCHMARKS = (
    Benchmark(
        name="xm3600",
        suites=("xm3600", "paper"),
        metrics=("t2i_r1", "i2t_r1"),
        folders=(FOLDERS,),
        n=3_600,
        source=SOURCE,
        score=score,
    ),
)
