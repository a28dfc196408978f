"""Captions in many languages, one an image: Flickr30k-200, XTD-200 and XTD-10."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import images_below, read_lines, read_rows
from worldclip.evaluation.pictures import Features, Pictures, Place, from_places
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Captioned, retrieve
from worldclip.evaluation.suites.imagenet import fingerprint

#: `fingerprint` of the sorted codes of Flickr30k-200 and XTD-200.
FLORES_FINGERPRINT, FLORES = "2259347b81f4", 201

#: Languages of XTD-10, which are eleven, and which of the repository's folders has their captions.
XTD10 = dict.fromkeys(("en", "es", "it", "ko", "pl", "ru", "tr", "zh"), "XTD10") | {
    "de": "MIC",
    "fr": "MIC",
    "jp": "STAIR",
}

#: The paper's columns are recalls at 5, whatever its text says; see docs/evaluation.md.
METRICS = ("t2i_r5", "i2t_r5", "t2i_r1", "i2t_r1")


def score_flores(names: str, task: str, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Flickr30k-200 or XTD-200: a file of captions a language, `names` being the file of image names."""
    folder = folders[0]
    files = {
        path.stem: path for path in sorted(folder.glob("*.txt")) if re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", path.stem)
    }
    if not files:
        raise MissingData(f"{folder}: no files like eng_Latn.txt, one a language.")
    codes = fingerprint(sorted(files))
    settings = {"codes_fingerprint": codes, "complete": codes == FLORES_FINGERPRINT}
    return _score(task, folder / names, files, folders[1], features, options, settings)


def score_xtd10(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """XTD-10, as its repository lays it out."""
    folder = folders[0]
    files = {
        language: folder / home / f"test_1kcaptions_{language}.txt"
        for language, home in XTD10.items()
        if (folder / home / f"test_1kcaptions_{language}.txt").is_file()
    }
    if not files:
        raise MissingData(f"{folder}: no XTD10/test_1kcaptions_<language>.txt, nor MIC/ or STAIR/.")
    settings = {"complete": files.keys() == XTD10.keys()}
    return _score("xtd10", folder / "XTD10" / "test_image_names.txt", files, folders[1], features, options, settings)


def _score(
    task: str,
    names: Path,
    files: Mapping[str, Path],
    images: Path,
    features: Features,
    options: Options,
    settings: Mapping[str, object],
) -> list[Record]:
    keys = [line.strip() for line in read_lines(names)]
    captions = {}
    for language, path in files.items():
        lines = read_lines(path)
        if len(lines) != len(keys):
            raise DataError(
                f"{path}: {len(lines)} captions for {len(keys)} images of {names.name}; lines would be shifted."
            )
        captions[language] = [[line] for line in lines]
    data = Captioned(pictures=find_images(task, images, keys), captions=captions, settings=settings)
    return [retrieve(task, data, features, options, metric=METRICS[0])]


def find_images(name: str, folder: Path, names: Sequence[str]) -> Pictures:
    """Images by their file names, at any depth in a folder, or in a table with columns `filename` and `image`.

    Raises:
        MissingData: some are not there; captions are never shifted to make up for them.
    """
    place = {path.name: path for path in images_below(folder)}
    if place:
        _all_there(folder, names, place)
        return from_places(name, names, [Place(place[each]) for each in names])
    table = read_rows(folder)
    rows = {each: row for row, each in enumerate(table.column("filename"))}
    _all_there(folder, names, rows)
    every = table.pictures(name, "image", [str(row) for row in range(len(table))])
    chosen = [rows[each] for each in names]
    return Pictures(name=name, keys=tuple(names), read=lambda wanted: every.read([chosen[row] for row in wanted]))


def _all_there(folder: Path, names: Sequence[str], found: Mapping[str, object]) -> None:
    if missing := [name for name in names if name not in found]:
        raise MissingData(f"{folder}: {len(missing)} of {len(names)} images are not there, the first is {missing[0]}.")


_COCO = ("coco", "coco2014", "train2014")

BENCHMARKS = (
    Benchmark(
        name="flickr30k-200",
        suites=("flickr30k-200", "paper"),
        metrics=METRICS,
        folders=(("flickr30k-200",), ("flickr30k", "flickr30k-images")),
        n=1_000,
        source=Source(
            names="github.com/visheratin/nllb-clip data/flickr30k-200; images: nlphuji/flickr30k on Hugging Face, or "
            "shannon.cs.illinois.edu/DenotationGraph",
            layout="flickr30k-200/<flores code>.txt, filenames.txt; flickr30k/ with *.jpg or Parquet (filename, image)",
            licence="texts as their repository says; images of Flickr users, non-commercial research",
        ),
        score=partial(score_flores, "filenames.txt", "flickr30k-200"),
    ),
    Benchmark(
        name="xtd200",
        suites=("xtd200", "paper"),
        metrics=METRICS,
        folders=(("xtd200",), _COCO),
        n=1_000,
        source=Source(
            names="github.com/visheratin/nllb-clip data/xtd200; images: cocodataset.org, train2014",
            layout="xtd200/<flores code>.txt, test_image_names.txt; coco/train2014/COCO_train2014_*.jpg",
            licence="texts as their repository says; images of Flickr users",
        ),
        score=partial(score_flores, "test_image_names.txt", "xtd200"),
    ),
    Benchmark(
        name="xtd10",
        suites=("xtd10", "paper"),
        metrics=METRICS,
        folders=(("xtd10", "Cross-lingual-Test-Dataset-XTD10"), _COCO),
        n=1_000,
        source=Source(
            names="github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10; images: cocodataset.org, train2014",
            layout="xtd10/XTD10/test_1kcaptions_<language>.txt and test_image_names.txt, MIC/, STAIR/; coco/train2014/",
            licence="texts as their repository says; images of Flickr users",
        ),
        score=score_xtd10,
    ),
)
