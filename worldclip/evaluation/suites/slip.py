"""The 26 tasks of SLIP, as MetaCLIP reports them.

Names and templates are read from the suite's own `labels.json` and `templates.json`. Folders become classes by name or
by the data set's own numbers, never by the order they happen to sort in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import (
    ClassOf,
    by_name,
    by_number,
    read_class_folders,
    read_file_list,
    read_text,
)
from worldclip.evaluation.metrics import Ints
from worldclip.evaluation.pictures import Features, Pictures
from worldclip.evaluation.records import Record
from worldclip.evaluation.scoring import Labelled, classify
from worldclip.evaluation.suites import imagenet, pixels
from worldclip.evaluation.suites.facts import read_facts
from worldclip.evaluation.suites.webdataset import read_labelled

Names = Sequence[Sequence[str]]

#: Makes the map from folders to classes out of a task's names.
Rule = Callable[[Names], ClassOf]

#: Folders of Country211, in order of its classes: ISO 3166-1 codes, and XK for Kosovo.
COUNTRIES = tuple(row["folder"] for row in read_facts("country211_folders.tsv"))

#: Caltech-101's folders whose class has another name.
CALTECH = {
    "BACKGROUND_Google": "background",
    "Faces": "off-center face",
    "Faces_easy": "centered face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "side of a car",
    "cougar_body": "body of a cougar cat",
    "cougar_face": "face of a cougar cat",
    "crocodile_head": "head of a crocodile",
    "flamingo_head": "head of a flamingo",
    "snoopy": "snoopy (cartoon beagle)",
    "yin_yang": "yin and yang symbol",
}

#: FER2013's folders by word, and its own numbers, which are not in the order of the names.
EMOTIONS = {
    "disgust": "disgusted",
    "fear": "fearful",
    "surprise": "surprised",
    **dict(zip("0123456", ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"), strict=True)),
}

#: A word of the class's name for each folder; names are whole phrases there.
EUROSAT = {
    "AnnualCrop": "annual crop",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland",
    "Highway": "highway",
    "Industrial": "industrial",
    "Pasture": "pasture",
    "PermanentCrop": "permanent crop",
    "Residential": "residential",
    "River": "river",
    "SeaLake": "lake",
}

#: The same; with these MetaCLIP's order of names and that of SLIP's, which differ, both come out right.
KITTI = {"above_20": "distance", "below_20": "nearby", "below_8": "left or right", "no_vehicle": "no car"}


def _named(aliases: Mapping[str, str]) -> Rule:
    return lambda names: by_name(names, aliases)


def _numbered(first: int = 0) -> Rule:
    return lambda names: by_number(len(names), first)


def _either(names: Names) -> ClassOf:
    """By number where the folder or label is one, else by name, whose parts may be turned round (`/a/apse/indoor`)."""
    number, name = by_number(len(names)), by_name(names)

    def class_of(folder: str) -> int | None:
        if folder.isdecimal():
            return number(folder)
        parts = [part for part in folder.split("/") if len(part) > 1]
        found = name(" ".join(parts))
        return name(" ".join(reversed(parts))) if found is None else found

    return class_of


def _birds(names: Names) -> ClassOf:
    """CUB-200's folders begin with their number: `001.Black_footed_Albatross`."""
    number = by_number(len(names), first=1)
    return lambda folder: number(folder.partition(".")[0])


def _countries(names: Names) -> ClassOf:
    place = {code: number for number, code in enumerate(COUNTRIES)}
    if len(names) != len(COUNTRIES):
        raise DataError(f"labels: {len(names)} countries; Country211 has {len(COUNTRIES)}.")
    return place.get


def _keyword(words: Mapping[str, str]) -> Rule:
    def rule(names: Names) -> ClassOf:
        place = {}
        for folder, word in words.items():
            found = [number for number, each in enumerate(names) if word in each[0]]
            if len(found) != 1:
                raise DataError(
                    f"labels: {len(found)} of the classes have {word!r} in their name; folder {folder} is one."
                )
            place[folder] = found[0]
        return place.get

    return rule


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the 26."""

    key: str  #: its name in MetaCLIP's files
    slip_key: str  #: and in SLIP's
    n: int | None  #: images; KITTI's and some other parts are drawn anew by whoever makes them
    metric: str
    split: str  #: the folder, or the file list
    layout: str  #: folders, list or arrays
    labels: str  #: fingerprint of its names
    templates: str  #: and of its templates
    webdataset: str  #: CLIP_benchmark's name, if it has the task


def _task(row: Mapping[str, str]) -> Task:
    texts = {name: value for name, value in row.items() if name != "n"}
    return Task(n=int(row["n"]) if row["n"] else None, **texts)


#: How folders (or listed labels) become classes; all others by name.
RULES: Mapping[str, Rule] = {
    "CUB200": _birds,
    "SUN397": _either,
    "StanfordCars": _either,
    "Caltech101": _named(CALTECH),
    "Flowers102": _numbered(first=1),
    "FacialEmotionRecognition2013": _named(EMOTIONS),
    "EuroSAT": _keyword(EUROSAT),
    "GTSRB": _numbered(),
    "KITTI": _keyword(KITTI),
    "Country211": _countries,
    "PatchCamelyon": _numbered(),
    "CLEVRCounts": _named({f"count_{number}": str(number) for number in range(3, 11)}),
    "HatefulMemes": _numbered(),
}

#: Those that come as arrays of pixels.
ARRAYS: Mapping[str, Callable[[Path], tuple[Pictures, Ints]]] = {
    "CIFAR10": pixels.read_cifar10,
    "CIFAR100": pixels.read_cifar100,
    "MNIST": pixels.read_mnist,
    "STL10": pixels.read_stl10,
}

TASKS = tuple(_task(row) for row in read_facts("slip_tasks.tsv"))


def names_fingerprint(names: Names) -> str:
    """Fingerprint of a task's names; synonyms are joined by `|`."""
    return imagenet.fingerprint(["|".join(each) for each in names])


def score_task(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Score one of the 26 on its own files."""
    names, templates = read_texts(folders[0], task)
    pictures, labels = _read_pictures(task, folders[0], names)
    data = Labelled(
        pictures=pictures, labels=labels, names=names, templates=templates, settings=_settings(task, names, templates)
    )
    return [classify(f"slip/{task.key}", data, features, options, metric=task.metric)]


def score_imagenet(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Task 26, ImageNet's validation set, with the 80 templates."""
    data = imagenet.validation(folders[0], options)
    return [classify(f"slip/{task.key}", data, features, options, metric=task.metric)]


def score_variant(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """A task on CLIP_benchmark's copy: other parts of the data, other templates, not comparable with the paper."""
    data = read_labelled(folders[0])
    data = replace(data, settings={**data.settings, "variant": "slip26-wds-variant"})
    return [classify(f"slip-wds/{task.key}", data, features, options, metric=task.metric)]


def read_texts(folder: Path, task: Task) -> tuple[Names, list[str]]:
    """A task's names, one or more a class, and templates.

    Raises:
        MissingData: `labels.json` or `templates.json` is not there, or lacks the task.
        DataError: they are not lists of strings.
    """
    labels, templates = (_entry(folder / f"{each}.json", task) for each in ("labels", "templates"))
    names = [(label,) if isinstance(label, str) else tuple(label) for label in labels]
    if not all(isinstance(name, str) for each in (*names, templates) for name in each):
        raise DataError(f"{folder}: labels and templates of {task.key} are not strings.")
    return names, list(templates)


def _entry(path: Path, task: Task) -> list[Any]:
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}).") from None
    entry = found.get(task.key, found.get(task.slip_key)) if isinstance(found, dict) else None
    if not isinstance(entry, list) or not entry:
        raise MissingData(f"{path}: has no list {task.key!r} or {task.slip_key!r}.")
    return entry


def _settings(task: Task, names: Names, templates: Sequence[str]) -> dict[str, Any]:
    found = names_fingerprint(names), imagenet.fingerprint(templates)
    return {
        "labels_fingerprint": found[0],
        "templates_fingerprint": found[1],
        "texts_as_in_paper": found == (task.labels, task.templates),
    }


def _read_pictures(task: Task, folder: Path, names: Names) -> tuple[Pictures, Ints]:
    homes = [folder / name for name in (task.slip_key, task.key) if (folder / name).is_dir()]
    if not homes:
        raise MissingData(f"{folder}: no folder {task.slip_key}/ (or {task.key}/) with the images of this task.")
    if task.key in ARRAYS:
        return ARRAYS[task.key](homes[0])
    class_of = RULES.get(task.key, by_name)(names)
    if task.layout == "list":
        return read_file_list(task.key, homes[0], task.split, class_of)
    return read_class_folders(task.key, homes[0] / task.split, class_of)


def _layout(task: Task) -> str:
    texts = "slip/labels.json and slip/templates.json of the suite, and"
    if task.layout == "list":
        return f"{texts} slip/{task.slip_key}/{task.split}_images.npy, {task.split}_labels.npy"
    if task.layout == "arrays":
        return f"{texts} slip/{task.slip_key}/ with the files of its test set, as its authors pack them"
    return f"{texts} slip/{task.slip_key}/{task.split}/<class>/*"


_TEXTS_FROM = (
    "github.com/facebookresearch/MetaCLIP clipeval/slip (names, templates; CC BY-NC 4.0) or facebookresearch/SLIP (MIT)"
)

BENCHMARKS = (
    *(
        Benchmark(
            name=f"slip/{task.key}",
            suites=("slip26", "paper"),
            metrics=(task.metric,),
            folders=(imagenet.VALIDATION_FOLDERS,) if task.key == "imagenet" else (("slip",),),
            n=task.n,
            source=imagenet.SHIFTS[0].source
            if task.key == "imagenet"
            else Source(
                names=f"{_TEXTS_FROM}; images of {task.key} from its authors",
                layout=_layout(task),
                licence="each data set's own",
            ),
            score=partial(score_imagenet if task.key == "imagenet" else score_task, task),
        )
        for task in TASKS
    ),
    *(
        Benchmark(
            name=f"slip-wds/{task.key}",
            suites=("slip26-wds-variant",),
            metrics=(task.metric,),
            folders=((f"wds_{task.webdataset}_test", f"wds_{task.webdataset}"),),
            source=Source(
                names=f"djghosh/wds_{task.webdataset}_test or clip-benchmark/wds_{task.webdataset} on Hugging Face",
                layout="WebDataset of CLIP_benchmark",
                licence="each data set's own",
            ),
            score=partial(score_variant, task),
        )
        for task in TASKS
        if task.webdataset
    ),
)
