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
from worldclip.evaluation.pictures import Features, Pictures, from_files
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Captioned, retrieve

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
    """Read the data: `captions.jsonl`, or Babel-ImageNet's `xm3600.json`, or Parquet with a row an image.

    Raises:
        MissingData: none of them is there, or an image is not.
        DataError: they are not what they should be.
    """
    if (folder / "captions.jsonl").is_file():
        rows = read_jsonl(folder / "captions.jsonl")
        return _from_rows(rows, _images(folder, [_key(row, folder) for row in rows]))
    if (folder / "xm3600.json").is_file():
        return _from_lists(folder)
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
    layout="captions.jsonl and images/<key>.jpg; or xm3600.json of Babel-ImageNet, and images/; or Parquet",
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
