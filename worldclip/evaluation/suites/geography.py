"""Cultural diversity, zero-shot: Dollar Street, GeoDE, and landmarks of the world (GLDv2)."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import read_csv
from worldclip.evaluation.pictures import Features, Pictures, check_unique, from_files
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Labelled, classify
from worldclip.evaluation.suites import imagenet

NO_FILE = "image file not found"

#: Usage of the queries of GLDv2 that count.
USED = ("Public", "Private")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Images of a list, and one column of it an image (or more)."""

    pictures: Pictures
    rows: Sequence[dict[str, str]]
    absent: int  #: images of the list whose file is not there

    def column(self, name: str) -> list[str]:
        """A column's values, one an image."""
        return [row[name] for row in self.rows]


def read_dollar_street(folder: Path, part: str) -> Listed:
    """The `train` or `test` part of Dollar Street; both are scored zero-shot."""
    home = folder / "dataset_dollarstreet" if (folder / "dataset_dollarstreet").is_dir() else folder
    columns = ("imageRelPath", "imagenet_sysnet_id", "country.id", "region.id")
    return _listed("dollar-street", home, home / f"images_v2_imagenet_{part}.csv", columns, "imageRelPath")


def read_geode(folder: Path) -> Listed:
    """All of GeoDE."""
    columns = ("object", "region", "ip_country", "file_path")
    return _listed("geode", folder / "images", folder / "index.csv", columns, "file_path")


def _listed(name: str, root: Path, path: Path, columns: Sequence[str], files: str) -> Listed:
    rows = list(read_csv(path, columns))
    found = [row for row in rows if (root / row[files]).is_file()]
    if not found:
        raise MissingData(f"{path}: none of its {len(rows)} images is below {root}.")
    pictures = from_files(name, root, [row[files] for row in found])
    return Listed(pictures=pictures, rows=found, absent=len(rows) - len(found))


def score_dollar_street(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 and top-5 among ImageNet's 1,000 classes; an image may have several right ones."""
    parts = [read_dollar_street(folders[0], part) for part in ("train", "test")]
    names, templates = imagenet.class_names(None, options), imagenet.templates(options)
    data = Labelled(
        pictures=joined("dollar-street", parts),
        labels=[class_list(text, folders[0]) for part in parts for text in part.column("imagenet_sysnet_id")],
        names=[(name,) for name in names],
        templates=templates,
        groups=[region for part in parts for region in part.column("region.id")],
        settings=imagenet.prints(names, templates),
    )
    record = classify("dollar-street", data, features, options)
    return [_with_absent(record, sum(part.absent for part in parts))]


def joined(name: str, parts: Sequence[Listed]) -> Pictures:
    """The pictures of several lists, one after another."""
    ends = np.cumsum([0, *(len(part.rows) for part in parts)])

    def read(rows: Sequence[int]) -> Iterator[bytes]:
        for row in rows:
            place = int(np.searchsorted(ends, row, side="right")) - 1
            yield from parts[place].pictures.read([row - int(ends[place])])

    keys = [key for part in parts for key in part.pictures.keys]
    check_unique(name, keys)
    return Pictures(name=name, keys=tuple(keys), read=read)


def class_list(text: str, where: Path) -> list[int]:
    """`[414, 748]` -> [414, 748].

    Raises:
        DataError: it is no list of numbers.
    """
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = None
    if isinstance(found, int):
        found = [found]
    if not isinstance(found, list) or not found or not all(isinstance(each, int) for each in found):
        raise DataError(f"{where}: imagenet_sysnet_id {text!r} is no list of ImageNet's class numbers.")
    return found


def score_geode(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 among the 40 objects, by their raw names with underscores unless the option says otherwise."""
    found = read_geode(folders[0])
    objects = found.column("object")
    names = list(dict.fromkeys(objects))
    place = {name: number for number, name in enumerate(names)}
    clean, templates = options.geode_clean_names, imagenet.templates(options)
    data = Labelled(
        pictures=found.pictures,
        labels=np.array([place[name] for name in objects], np.int64),
        names=[(name.replace("_", " ") if clean else name,) for name in names],
        templates=templates,
        groups=found.column("region"),
        settings={"clean_names": clean, "templates_fingerprint": imagenet.fingerprint(templates)},
    )
    return [_with_absent(classify("geode", data, features, options), found.absent)]


def _with_absent(record: Record, absent: int) -> Record:
    return replace(record, left_out={**record.left_out, **({NO_FILE: absent} if absent else {})})


def score_gldv2(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 among the landmarks of all queries, by their bare names."""
    folder = folders[0]
    queries = [
        (row["id"], row["images"].split())
        for row in read_csv(folder / "retrieval_solution_v2.1.csv", ("id", "images", "Usage"))
        if row["Usage"] in USED
    ]
    wanted = {image for _, images in queries for image in images}
    landmark_of = {
        row["id"]: row["landmark_id"]
        for row in read_csv(folder / "index_image_to_landmark.csv", ("id", "landmark_id"))
        if row["id"] in wanted
    }
    if lost := sorted(wanted - landmark_of.keys()):
        raise DataError(f"{folder}: index image {lost[0]} has no landmark, nor have {len(lost) - 1} more.")
    categories = {
        row["landmark_id"]: row["category"]
        for row in read_csv(folder / "index_label_to_category.csv", ("landmark_id", "category"))
    }
    landmarks = list(dict.fromkeys(landmark_of[image] for _, images in queries for image in images))
    if lost := [landmark for landmark in landmarks if landmark not in categories]:
        raise DataError(f"{folder}: landmark {lost[0]} has no category.")
    names = [landmark_name(categories[landmark]) for landmark in landmarks]
    first = {name: number for number, name in reversed([*enumerate(names)])}
    labels = [
        first[landmark_name(categories[most_frequent([landmark_of[image] for image in images])])]
        for _, images in queries
    ]
    data = Labelled(
        pictures=from_files("gldv2", folder, [_gldv2_file(folder, query) for query, _ in queries]),
        labels=np.array(labels, np.int64),
        names=[(name,) for name in names],
        templates=("{}",),
        settings={
            "n_queries": len(queries),
            "n_landmarks": len(landmarks),
            "n_duplicate_names": len(names) - len(set(names)),
        },
    )
    return [classify("gldv2", data, features, options)]


def most_frequent(items: Sequence[str]) -> str:
    """The item that occurs most often; of equals the one that is met first."""
    return Counter(items).most_common(1)[0][0]


def landmark_name(category: str) -> str:
    """`http://commons.wikimedia.org/wiki/Category:Eiffel_Tower"` -> `Eiffel Tower`."""
    return category.rpartition(":")[2].replace("_", " ").removesuffix('"')


def _gldv2_file(folder: Path, query: str) -> str:
    nested, flat = f"test/{'/'.join(query[:3])}/{query}.jpg", f"test/{query}.jpg"
    for file in (flat, nested):
        if (folder / file).is_file():
            return file
    raise MissingData(f"{folder}: no image of query {query}; looked for {flat} and {nested}.")


DOLLAR_STREET = Source(
    names="mlcommons.org/datasets/dollar-street",
    layout="dataset_dollarstreet/images_v2_imagenet_train.csv, images_v2_imagenet_test.csv, and the images they list",
    licence="CC BY-SA 4.0",
)
GEODE = Source(
    names="geodiverse-data-collection.cs.princeton.edu", layout="index.csv, images/<file_path>", licence="CC BY 4.0"
)
DOLLAR_STREET_FOLDERS, GEODE_FOLDERS = ("dollar-street", "dollarstreet", "dataset_dollarstreet"), ("geode",)

BENCHMARKS = (
    Benchmark(
        name="dollar-street",
        suites=("dollar-street", "geography", "paper"),
        metrics=("acc1", "acc5"),
        folders=(DOLLAR_STREET_FOLDERS,),
        n=21_536,
        source=DOLLAR_STREET,
        score=score_dollar_street,
    ),
    Benchmark(
        name="geode",
        suites=("geode", "geography", "paper"),
        metrics=("acc1",),
        folders=(GEODE_FOLDERS,),
        n=61_940,
        source=GEODE,
        score=score_geode,
    ),
    Benchmark(
        name="gldv2",
        suites=("gldv2", "geography", "paper"),
        metrics=("acc1",),
        folders=(("gldv2", "google-landmarks-v2"),),
        source=Source(
            names="github.com/cvdfoundation/google-landmark: retrieval solution v2.1, index labels, test images",
            layout="retrieval_solution_v2.1.csv, index_image_to_landmark.csv, index_label_to_category.csv, "
            "test/<id>.jpg or test/a/b/c/<id>.jpg",
            licence="annotations CC BY 4.0; images each its own",
        ),
        score=score_gldv2,
    ),
)
