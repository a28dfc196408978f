"""ImageNet-1k and its shifts: V2, Sketch, A, R, O, ObjectNet.

The 1,000 names and 80 templates are data that no image folder carries, so they lie beside this file. Names and
templates: OpenAI's lists, from open-clip-torch 3.3.0 (MIT licence). Folder names (WordNet ids in order of classes):
timm 1.0.31 (Apache-2.0). `fingerprint` of them is what the specification of the suite says.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import (
    ClassOf,
    by_number,
    images_below,
    read_class_folders,
    read_csv,
    read_lines,
    read_text,
)
from worldclip.evaluation.metrics import Ints
from worldclip.evaluation.pictures import Features, Pictures, from_files
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Labelled, classify
from worldclip.evaluation.suites.facts import read_facts
from worldclip.evaluation.suites.webdataset import CLASSNAMES, PLACEHOLDER, is_webdataset, read_labelled

#: What `fingerprint` gives for the 1,000 names and for the 80 templates.
NAMES_FINGERPRINT, TEMPLATES_FINGERPRINT = "571ae1c583b4", "4f976686fb65"

#: ObjectNet by ImageNet's names.
PROJECTED = "objectnet_projected"

#: In ObjectNet's `mappings/`: descriptions of ImageNet's classes, one a line; and the line of each class.
_LINES, _NUMBERS = "imagenet_to_label_2012_v2", "pytorch_to_imagenet_2012_id.json"

#: Names below the folder of all data; other suites use ImageNet's validation set as well.
VALIDATION_FOLDERS = ("imagenet", "wds_imagenet1k", "wds_imagenet1k_test")


def fingerprint(entries: Sequence[str]) -> str:
    """First 12 hex digits of SHA-256 over entries joined by line feeds."""
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:12]


@cache
def class_ids() -> dict[str, int]:
    """WordNet id (`n01440764`), as ImageNet's folders are named -> class, in order of classes."""
    return {row["wnid"]: number for number, row in enumerate(read_facts("imagenet_classes.tsv"))}


def class_names(folder: Path | None, options: Options) -> list[str]:
    """The 1,000 names: the user's file, else `classnames.txt` of the folder, else ours.

    Raises:
        DataError: a file that does not hold 1,000 lines.
    """
    own = folder / CLASSNAMES if folder and (folder / CLASSNAMES).is_file() else None
    path = options.classnames or own
    names = read_lines(path) if path else [row["name"] for row in read_facts("imagenet_classes.tsv")]
    if len(names) != len(class_ids()):
        raise DataError(f"{path}: {len(names)} names; ImageNet has {len(class_ids())}, one a line.")
    return names


def templates(options: Options) -> list[str]:
    """The 80 templates, `{}` for the name: the user's file, else ours."""
    if options.templates is None:
        return [row["template"] for row in read_facts("imagenet_templates.tsv")]
    return [line.replace(PLACEHOLDER, "{}") for line in read_lines(options.templates)]


def validation(folder: Path, options: Options) -> Labelled:
    """ImageNet's validation set with labels 0 to 999, as a folder a class, a flat folder with labels, or WebDataset."""
    return _read(folder, options, _wnid, subset=False)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A data set with ImageNet's classes, or some of them."""

    name: str
    folders: tuple[str, ...]
    n: int
    class_of: ClassOf
    subset: bool  #: only the classes that have images are candidates
    source: Source


def _wnid(folder: str) -> int | None:
    return class_ids().get(folder)


def score_shift(shift: Shift, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 on ImageNet or a shift of it."""
    data = _read(folders[0], options, shift.class_of, subset=shift.subset)
    return [classify(shift.name, data, features, options)]


def score_objectnet(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 among the 113 classes of ObjectNet that ImageNet has, by ObjectNet's own names in lower case.

    Beside it, where ObjectNet's files map its classes to ImageNet's, `objectnet_projected`: by ImageNet's names, the
    score of each of the 113 being the largest of its ImageNet classes.
    """
    folder, border = folders[0], options.objectnet_crop_border
    tasks = [("objectnet", read_labelled(folder))] if is_webdataset(folder) else _read_objectnet(folder, options)
    records = []
    for task, data in tasks:
        pictures = _cropped(data.pictures, border) if border else data.pictures
        settings = {**data.settings, "border": border}
        record = classify(task, replace(data, pictures=pictures, settings=settings), features, options)
        records.append(_top_1_alone(record) if task == PROJECTED else record)
    return records


def _top_1_alone(record: Record) -> Record:
    """What a ranking of ImageNet's classes tells of ObjectNet's: whose the first one is, and no more."""
    kept = {name: value for name, value in record.values.items() if name == "acc1"}
    return replace(record, values=kept, intervals={"acc1": record.intervals["acc1"]}, per_class={})


def _read(folder: Path, options: Options, class_of: ClassOf, *, subset: bool) -> Labelled:
    if is_webdataset(folder):
        data = read_labelled(folder)
        names = [name for each in data.names for name in each]
        own = class_names(None, options) if options.classnames and len(names) == len(class_ids()) else names
        if options.templates:
            data = replace(data, templates=templates(options), placeholder="{}")
        return replace(data, names=[(name,) for name in own], settings={**data.settings, **prints(own, data.templates)})
    pictures, labels = _read_images(folder, class_of)
    names = class_names(folder, options)
    prompts = templates(options)
    settings = {"layout": "folders", **prints(names, prompts)}
    if subset:
        kept, labels = np.unique(labels, return_inverse=True)
        names = [names[label] for label in kept]
    return Labelled(
        pictures=pictures, labels=labels, names=[(name,) for name in names], templates=prompts, settings=settings
    )


def prints(names: Sequence[str], prompts: Sequence[str]) -> dict[str, str]:
    """What a record tells of the names and templates it was made with."""
    return {
        "names_fingerprint": fingerprint(names),
        "templates_fingerprint": fingerprint([prompt.replace(PLACEHOLDER, "{}") for prompt in prompts]),
    }


def _read_images(folder: Path, class_of: ClassOf) -> tuple[Pictures, Ints]:
    # `train/` may lie beside `val/`, and some archives unpack into a folder of their own.
    inner = sorted(path for path in folder.iterdir() if path.name not in ("train", "test"))
    for home in (folder / "val", folder, *inner):
        if _has_classes(home, class_of):
            return read_class_folders(folder.name, home, class_of)
    return _read_flat(folder)


def _has_classes(folder: Path, class_of: ClassOf) -> bool:
    return (
        any(path.is_dir() and class_of(path.name) is not None for path in folder.iterdir())
        if folder.is_dir()
        else False
    )


def _read_flat(folder: Path) -> tuple[Pictures, Ints]:
    """All images in `val/`, with their classes in a file: by WordNet id (Kaggle's) or by number (`val.txt`)."""
    home = folder / "val"
    found = images_below(home) if home.is_dir() else []
    if not found:
        raise MissingData(f"{folder}: neither one folder a class (n01440764, ...) nor val/ILSVRC2012_val_*.JPEG.")
    if (folder / "LOC_val_solution.csv").is_file():
        rows = read_csv(folder / "LOC_val_solution.csv", ("ImageId", "PredictionString"))
        label_of = {row["ImageId"]: _wnid(row["PredictionString"].partition(" ")[0]) for row in rows}
    else:
        pairs = [line.rsplit(maxsplit=1) for line in read_lines(folder / "val.txt")]
        to_class = by_number(len(class_ids()))
        label_of = {Path(pair[0]).stem: to_class(pair[-1]) for pair in pairs}
    labels = [label_of.get(path.stem) for path in found]
    if None in labels:
        raise DataError(f"{found[labels.index(None)]}: no class for this image in {folder}'s file of labels.")
    pictures = from_files(folder.name, home, [path.relative_to(home).as_posix() for path in found])
    return pictures, np.array(labels, np.int64)


def _read_objectnet(folder: Path, options: Options) -> list[tuple[str, Labelled]]:
    root = folder / "objectnet-1.0" if (folder / "objectnet-1.0").is_dir() else folder
    label_of = json.loads(read_text(root / "mappings" / "folder_to_objectnet_label.json"))
    shared = json.loads(read_text(root / "mappings" / "objectnet_to_imagenet_1k.json"))
    kept = sorted(each for each, label in label_of.items() if label in shared)
    place = {each: number for number, each in enumerate(kept)}
    if unknown := sorted(
        path.name for path in (root / "images").iterdir() if path.is_dir() and path.name not in label_of
    ):
        raise DataError(f"{root / 'images' / unknown[0]}: no folder of ObjectNet; its mappings do not name it.")
    found = [(path, place[each]) for each in kept for path in images_below(root / "images" / each)]
    if not found:
        raise MissingData(f"{root / 'images'}: no images of classes that ImageNet has.")
    prompts, names = templates(options), class_names(None, options)
    labels = [label for _, label in found]
    own = Labelled(
        pictures=from_files(folder.name, root, [path.relative_to(root).as_posix() for path, _ in found]),
        labels=np.array(labels, np.int64),
        names=[(label_of[each].lower(),) for each in kept],
        templates=prompts,
        settings={"layout": "folders", "templates_fingerprint": fingerprint(prompts)},
    )
    if not all((root / "mappings" / each).is_file() for each in (_LINES, _NUMBERS)):
        return [("objectnet", own)]
    classes = _imagenet_classes(root / "mappings", [shared[label_of[each]] for each in kept])
    # Candidates are the classes' ImageNet classes one after another, so that of equals the first class wins.
    ends = np.cumsum([0, *map(len, classes)])
    projected = replace(
        own,
        labels=[range(ends[label], ends[label + 1]) for label in labels],
        names=[(names[each],) for several in classes for each in several],
        settings={"layout": "folders", **prints(names, prompts), "classes": len(kept)},
    )
    return [("objectnet", own), (PROJECTED, projected)]


def _imagenet_classes(folder: Path, descriptions: Sequence[str]) -> list[list[int]]:
    """ImageNet's classes by their descriptions, `a; b` for several, from ObjectNet's own tables."""
    try:
        numbers = {line: int(number) for number, line in json.loads(read_text(folder / _NUMBERS)).items()}
        class_of = {name.strip(): numbers[line] for line, name in enumerate(read_lines(folder / _LINES))}
        found = [[class_of[each.strip()] for each in several.split("; ")] for several in descriptions]
    except (json.JSONDecodeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: {_NUMBERS} and {_LINES} do not tell ImageNet's class of {error}.") from None
    if bad := [each for several in found for each in several if not 0 <= each < len(class_ids())]:
        raise DataError(f"{folder / _NUMBERS}: names class {bad[0]}; ImageNet's are 0 to {len(class_ids()) - 1}.")
    return found


def _cropped(pictures: Pictures, border: int) -> Pictures:
    """The pictures without `border` pixels on each side."""

    def crop(data: bytes) -> bytes:
        file = io.BytesIO()
        try:
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            image.crop((border, border, width - border, height - border)).save(file, "PNG")
        except OSError:
            return data  # It is left out and counted where it is embedded.
        return file.getvalue()

    def read(rows: Sequence[int]) -> Iterator[bytes]:
        return map(crop, pictures.read(rows))

    return Pictures(name=f"{pictures.name}-border-{border}", keys=pictures.keys, read=read)


def _shift(name: str, n: int, names: str, licence: str, *, folders: tuple[str, ...], subset: bool = False) -> Shift:
    numbered = name == "imagenetv2"
    folder = "one folder a class, named by its number" if numbered else "one folder a class, named by WordNet id"
    return Shift(
        name=name,
        folders=folders,
        n=n,
        class_of=by_number(len(class_ids())) if numbered else _wnid,
        subset=subset,
        source=Source(names=names, layout=f"{folder}, or CLIP_benchmark's WebDataset", licence=licence),
    )


def _folders(name: str) -> tuple[str, ...]:
    return (name, f"wds_{name}", f"wds_{name}_test")


#: The sets, by name; `imagenet` is the validation set.
SHIFTS = (
    Shift(
        name="imagenet",
        folders=VALIDATION_FOLDERS,
        n=50_000,
        class_of=_wnid,
        subset=False,
        source=Source(
            names="image-net.org, ILSVRC2012 validation images; or clip-benchmark/wds_imagenet1k on Hugging Face",
            layout="val/n01440764/*.JPEG; or val/ILSVRC2012_val_*.JPEG with LOC_val_solution.csv or val.txt "
            "(`name number`); or WebDataset",
            licence="non-commercial research, after registration",
        ),
    ),
    _shift(
        "imagenetv2",
        10_000,
        "github.com/modestyachts/ImageNetV2, matched-frequency",
        "MIT (code); images of Flickr users",
        folders=_folders("imagenetv2"),
    ),
    _shift(
        "imagenet_sketch", 50_889, "github.com/HaohanWang/ImageNet-Sketch", "MIT", folders=_folders("imagenet_sketch")
    ),
    _shift(
        "imagenet-a",
        7_500,
        "github.com/hendrycks/natural-adv-examples, imagenet-a",
        "MIT",
        folders=_folders("imagenet-a"),
        subset=True,
    ),
    _shift(
        "imagenet-r",
        30_000,
        "github.com/hendrycks/imagenet-r",
        "MIT",
        folders=_folders("imagenet-r"),
        subset=True,
    ),
    _shift(
        "imagenet-o",
        2_000,
        "github.com/hendrycks/natural-adv-examples, imagenet-o",
        "MIT",
        folders=_folders("imagenet-o"),
        subset=True,
    ),
)

BENCHMARKS = (
    *(
        Benchmark(
            name=shift.name,
            suites=("imagenet", "paper"),
            metrics=("acc1", "acc5"),
            folders=(shift.folders,),
            n=shift.n,
            source=shift.source,
            score=partial(score_shift, shift),
        )
        for shift in SHIFTS
    ),
    Benchmark(
        name="objectnet",
        suites=("imagenet", "paper"),
        metrics=("acc1", "acc5"),
        folders=(("objectnet", "wds_objectnet", "wds_objectnet_test"),),
        n=18_574,
        source=Source(
            names="objectnet.dev",
            layout="objectnet-1.0/images/<folder>/*.png and objectnet-1.0/mappings/*, or WebDataset",
            licence="CC BY 4.0, for testing only: never train on it",
        ),
        score=score_objectnet,
    ),
)
