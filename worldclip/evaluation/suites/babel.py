"""Babel-ImageNet: ImageNet's validation images, classified by the names of their classes in up to 298 languages."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import read_text
from worldclip.evaluation.metrics import Floats, Hits, Ints, best_ranks, wilson_interval
from worldclip.evaluation.pictures import Features
from worldclip.evaluation.records import Part, Record, mean_over
from worldclip.evaluation.scoring import embed_classes, embed_pictures, fingerprint
from worldclip.evaluation.suites import imagenet

Counts = NDArray[np.float32]

#: Language -> classes, and their names in it.
Languages = Mapping[str, tuple[list[int], list[str]]]

ALL, SOME, PROMPTS = "babel_imagenet-298.json", "babel_imagenet.json", "nllb_dist13b_prompts.json"

#: Scored by OpenAI's names and templates: the data's own English names and prompts are worse, and not what is reported.
ENGLISH = "EN"

#: What `languages_fingerprint` gives for the file of 298, and `prompts_fingerprint` for the prompts.
LANGUAGES_FINGERPRINT, PROMPTS_FINGERPRINT = "d7343718159c", "145673c823ce"

#: Languages that each average should have.
AVERAGES = {
    "babel_90": 90,
    "babel_90_no_en": 89,
    "babel_93": 93,
    "babel_298_fallback": 298,
    "babel_298_label_only": 298,
}


def read_languages(path: Path) -> dict[str, tuple[list[int], list[str]]]:
    """The classes that have a name in each language, and the names.

    Raises:
        MissingData: the file is not there.
        DataError: it is not `{language: [[classes], [names]]}` with as many names as classes of ImageNet.
    """
    found: dict[str, tuple[list[int], list[str]]] = {}
    for language, entry in _object(path).items():
        classes, names = entry if isinstance(entry, list) and len(entry) == 2 else ([], [])
        if not classes or len(classes) != len(names) or not set(classes) <= set(range(len(imagenet.class_ids()))):
            raise DataError(f"{path}: {language} is not [[classes], [names]], one name a class, classes 0 to 999.")
        found[language] = (classes, names)
    return found


def read_prompts(path: Path) -> dict[str, list[str]]:
    """The prompts of each language that has some.

    Raises:
        MissingData: the file is not there.
        DataError: a prompt has not exactly one `{}`.
    """
    found = {language: list(prompts) for language, prompts in _object(path).items()}
    for language, prompts in found.items():
        if bad := [prompt for prompt in prompts if prompt.count("{}") != 1]:
            raise DataError(f"{path}: prompt {bad[0]!r} of {language} needs exactly one {{}}.")
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: is not a JSON object by language.")
    return found


def averaged(languages: Collection[str], prompts: Collection[str], some: Collection[str]) -> dict[str, set[str]]:
    """The languages of each average.

    Args:
        languages: all that have names.
        prompts: those that have prompts.
        some: those of the smaller file.
    """
    return {
        "babel_90": {*prompts},
        "babel_90_no_en": {*prompts} - {ENGLISH},
        "babel_93": {*some},
        "babel_298_fallback": {*languages},
        "babel_298_label_only": {*languages},
    }


def languages_fingerprint(languages: Languages) -> str:
    """First 12 hex digits of SHA-256 over the languages, sorted, with their classes and names."""
    return _hash(
        f"{language}\t{','.join(map(str, classes))}\t{'|'.join(names)}"
        for language, (classes, names) in sorted(languages.items())
    )


def prompts_fingerprint(prompts: Mapping[str, Sequence[str]]) -> str:
    """The same over prompts."""
    return _hash(f"{language}\t{'|'.join(each)}" for language, each in sorted(prompts.items()))


def _hash(lines: Iterable[str]) -> str:
    return imagenet.fingerprint(list(lines))


def score(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Top-1 per language among the classes that it has names for, over the images of those; means over languages."""
    folder, images_folder = folders
    languages = read_languages(next((folder / name for name in (ALL, SOME) if (folder / name).is_file()), folder / ALL))
    some = set(read_languages(folder / SOME)) if (folder / SOME).is_file() else set()
    prompts = read_prompts(folder / PROMPTS)
    data = imagenet.validation(images_folder, options)
    images, rows, left_out = embed_pictures(features, data.pictures)
    labels = np.asarray(data.labels, np.int64)[rows]
    settings: dict[str, Any] = {
        "languages_fingerprint": languages_fingerprint(languages),
        "prompts_fingerprint": prompts_fingerprint(prompts),
    }
    settings["texts_as_in_paper"] = [*settings.values()] == [LANGUAGES_FINGERPRINT, PROMPTS_FINGERPRINT]
    if ENGLISH in languages:
        languages[ENGLISH] = [*range(len(data.names))], [each[0] for each in data.names]
        prompts[ENGLISH] = imagenet.templates(options)

    # Per image and language: hit by prompts (else the bare name), hit by the bare name, and whether it is asked.
    names = sorted(languages)
    prompted, bare, asked = np.zeros((3, len(rows), len(names)), np.float32)
    for place, language in enumerate(names):
        classes, words = languages[language]
        chosen = np.flatnonzero(np.isin(labels, classes))
        asked[chosen, place] = 1
        for hits, templates in ((prompted, prompts.get(language, ["{}"])), (bare, ["{}"])):
            if len(chosen):
                embedded = embed_classes(features, [(word,) for word in words], templates)
                hits[chosen, place] = _hits(images[chosen], labels[chosen], np.array(classes), embedded)

    per_language = _per_language(names, prompted, bare, asked, languages)
    values, intervals, numbers = {}, {}, {}
    for name, own in averaged(names, prompts, some).items():
        hits, metric = (bare, "label_only_acc1") if name == "babel_298_label_only" else (prompted, "acc1")
        # A language none of whose classes is in a part of ImageNet has no accuracy.
        places = [place for place, language in enumerate(names) if language in own and asked[:, place].any()]
        if places:
            draws = bootstrap.resampled_ratios(
                hits[:, places], asked[:, places], seed=options.seed, resamples=options.resamples
            )
            values[name] = mean_over(per_language, metric, own)
            low, high = bootstrap.interval(np.nanmean(draws, axis=1))
            intervals[name], numbers[name] = (100 * low, 100 * high), len(places)
    return [
        Record(
            task="babel-imagenet",
            metric="babel_90",
            value=values["babel_90"],
            n=len(rows),
            values=values,
            intervals=intervals,
            per_language=per_language,
            left_out=left_out,
            settings={**settings, "languages": numbers, "complete": numbers == AVERAGES},
            fingerprint=fingerprint(data.pictures),
        )
    ]


def _hits(images: Floats, labels: Ints, classes: Ints, embedded: Floats) -> Hits:
    """Whether each image is nearest to its own class; `labels` are among `classes`, which may be in any order."""
    order = np.argsort(classes)
    targets = order[np.searchsorted(classes, labels, sorter=order)]
    found: Hits = best_ranks(images, embedded, np.arange(len(labels)), targets) == 0
    return found


def _per_language(
    names: Sequence[str], prompted: Counts, bare: Counts, asked: Counts, languages: Languages
) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for place, language in enumerate(names):
        chosen = asked[:, place] > 0
        if chosen.any():
            hits = prompted[chosen, place] > 0
            low, high = wilson_interval(hits)
            found[language] = {
                "n": int(chosen.sum()),
                "classes": len(languages[language][0]),
                "acc1": 100 * float(hits.mean()),
                "acc1_low": 100 * low,
                "acc1_high": 100 * high,
                "label_only_acc1": 100 * float(bare[chosen, place].mean()),
            }
    return found


BENCHMARKS = (
    Benchmark(
        name="babel-imagenet",
        suites=("babel-imagenet", "paper"),
        metrics=tuple(AVERAGES),
        folders=(("babel-imagenet", "Babel-ImageNet/data"), imagenet.VALIDATION_FOLDERS),
        n=50_000,
        source=Source(
            names="github.com/gregor-ge/Babel-ImageNet, folder data/; and ImageNet's validation images",
            layout=f"{ALL}, {SOME}, {PROMPTS}; and imagenet/ as for the benchmark imagenet",
            licence="MIT; names from BabelNet, non-commercial (CC BY-NC-SA 4.0)",
        ),
        score=score,
    ),
)
