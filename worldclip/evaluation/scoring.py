"""From a benchmark's pictures and texts to its record: classification, and retrieval in many languages.

Everything that is data of a benchmark comes in as values; nothing here reads files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Options
from worldclip.evaluation.bootstrap import Doubles, Interval
from worldclip.evaluation.metrics import (
    Floats,
    Hits,
    Ints,
    best_ranks,
    class_features,
    nearest,
    wilson_interval,
)
from worldclip.evaluation.pictures import Features, Pictures
from worldclip.evaluation.records import Part, Record, mean_over
from worldclip.evaluation.scores import macro_f1, mean_per_class, one_hot, roc_auc

#: Texts that are embedded at a time where classes have many prompts.
TEXTS = 1 << 14

UNREADABLE = "unreadable image"

RECALLS = (1, 5, 10)


# Embeddings.


def embed_texts(features: Features, texts: Sequence[str]) -> Floats:
    """Embed each distinct text once, so that equal texts are equal bit by bit and tie: float32 [n, d]."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    found: Floats = features.texts(list(place))[[place[text] for text in texts]]
    return found


def embed_classes(
    features: Features, names: Sequence[Sequence[str]], templates: Sequence[str], placeholder: str = "{}"
) -> Floats:
    """One embedding a class by the standard rule, over all templates and all of the class's names: float32 [c, d].

    Args:
        names: one or more names of each class; equal classes get equal rows, bit by bit.
        templates: `placeholder` stands for the name, and is replaced literally: a name may hold braces.

    Raises:
        DataError: no templates, or one without the placeholder.
    """
    if not templates or not all(placeholder in template for template in templates):
        bad = next((template for template in templates if placeholder not in template), "none at all")
        raise DataError(f"templates: each needs {placeholder} for the name; found {bad!r}.")
    distinct = list(dict.fromkeys(tuple(each) for each in names))
    found: list[Floats] = []
    height = max(1, TEXTS // len(templates))
    for first in range(0, len(distinct), height):
        texts = [
            (number, template.replace(placeholder, name))
            for number, each in enumerate(distinct[first : first + height])
            for name in each
            for template in templates
        ]
        rows = embed_texts(features, [text for _, text in texts])
        owners = np.array([number for number, _ in texts])
        found.append(class_features(rows, owners, min(height, len(distinct) - first)))
    place = {each: number for number, each in enumerate(distinct)}
    stacked: Floats = np.concatenate(found)[[place[tuple(each)] for each in names]]
    return stacked


def embed_pictures(features: Features, pictures: Pictures) -> tuple[Floats, Ints, dict[str, int]]:
    """Embed what can be read: float32 [m, d], the rows [m] of `pictures` they are, and how many were left out.

    Raises:
        DataError: not one picture can be read.
    """
    rows = features.images(pictures)
    readable = np.flatnonzero(~np.isnan(rows).all(axis=1))
    if not len(readable):
        raise DataError(f"{pictures.name}: none of {len(pictures)} pictures can be read.")
    lost = len(pictures) - len(readable)
    return rows[readable], readable, {UNREADABLE: lost} if lost else {}


def fingerprint(pictures: Pictures) -> dict[str, Any]:
    """What a record says of its data."""
    return {"rows": len(pictures), "sha256": pictures.fingerprint}


# Classification.


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Pictures with a class each, and the texts of the classes."""

    pictures: Pictures
    labels: Ints | Sequence[Sequence[int]]  #: [n]; or all right classes of each picture
    names: Sequence[Sequence[str]]  #: one or more of each class
    templates: Sequence[str]
    placeholder: str = "{}"
    groups: Sequence[str] | None = None  #: of each picture
    other_group: str | None = None  #: a group without which worst-group metrics are told as well
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of the images: which were hit among the best 1 and 5, and by which class."""

    labels: Ints | None  #: [m], of tasks with one right class an image
    predictions: Ints  #: [m]
    hits: Mapping[int, Hits]
    margins: Doubles  #: [m] score of class 1 less that of class 0
    classes: int
    groups: NDArray[np.str_] | None


#: A metric: hits and counts [m, c], of which the ratios are made to one number by the function.
Ratios = tuple[NDArray[Any], NDArray[Any], Callable[[Doubles], Doubles]]


def classify(task: str, data: Labelled, features: Features, options: Options, *, metric: str = "acc1") -> Record:
    """Score zero-shot classification.

    Args:
        metric: the headline: acc1, acc5, mean_per_class, acc1_acc5_mean, worst_group_acc1, worst_group_acc5, macro_f1
            or roc_auc. Those that the task allows are all in the record.

    Raises:
        DataError: labels, names and pictures do not fit each other.
    """
    images, rows, left_out = embed_pictures(features, data.pictures)
    classes = embed_classes(features, data.names, data.templates, data.placeholder)
    judged = _judge(images, classes, data, rows)
    ratios = _ratios(judged, data.other_group)
    statistics = _statistics(judged)
    values, intervals = {}, {}
    for name, (hits, counts, reduce) in ratios.items():
        values[name] = 100 * float(reduce(bootstrap.ratios(hits, counts)[None])[0])
        draws = bootstrap.resampled_ratios(hits, counts, seed=options.seed, resamples=options.resamples)
        intervals[name] = _percent(bootstrap.interval(reduce(draws)))
    for name, statistic in statistics.items():
        values[name] = 100 * statistic(np.arange(len(rows)))
        if name == metric:
            draws = bootstrap.resampled(statistic, len(rows), seed=options.seed, resamples=options.resamples)
            intervals[name] = _percent(bootstrap.interval(draws))
    if metric not in values:
        raise DataError(f"{task}: {metric} cannot be told of these images and classes; only {', '.join(values)} can.")
    return Record(
        task=task,
        metric=metric,
        value=values[metric],
        n=len(rows),
        values=values,
        intervals=intervals,
        per_class={} if judged.labels is None else _parts(data.names, judged.labels, judged.hits),
        per_group={} if judged.groups is None else _group_parts(judged.groups, judged.hits),
        left_out=left_out,
        settings={"classes": len(data.names), "templates": len(data.templates), **data.settings},
        fingerprint=fingerprint(data.pictures),
    )


def _judge(images: Floats, classes: Floats, data: Labelled, rows: Ints) -> Judged:
    labels = [np.atleast_1d(np.asarray(label)) for label in data.labels]
    if len(labels) != len(data.pictures) or not all(len(each) for each in labels):
        raise DataError(f"{data.pictures.name}: {len(data.pictures)} images, {len(labels)} labels; each needs one.")
    chosen = [labels[row] for row in rows]
    if min(each.min() for each in chosen) < 0 or max(each.max() for each in chosen) >= len(classes):
        raise DataError(f"{data.pictures.name}: a label is not among 0 to {len(classes) - 1}, the classes.")
    owners = np.repeat(np.arange(len(rows)), [len(each) for each in chosen])
    ranks = best_ranks(images, classes, owners, np.concatenate(chosen))
    scores = images.astype(np.float64) @ classes[:2].T
    return Judged(
        labels=np.concatenate(chosen) if len(owners) == len(rows) else None,
        predictions=nearest(images, classes),
        hits={k: ranks < k for k in (1, 5) if k <= len(classes)},
        margins=scores[:, -1] - scores[:, 0],
        classes=len(classes),
        groups=None if data.groups is None else np.array(data.groups, np.str_)[rows],
    )


def _ratios(judged: Judged, other_group: str | None) -> dict[str, Ratios]:
    every = np.ones((len(judged.predictions), 1), np.float32)
    found: dict[str, Ratios] = {f"acc{k}": (hit[:, None], every, _only) for k, hit in judged.hits.items()}
    if 5 in judged.hits:
        both = np.stack([judged.hits[1], judged.hits[5]], axis=1)
        found["acc1_acc5_mean"] = (both, np.ones(both.shape, np.float32), _mean)
    if judged.groups is not None:
        names, place = np.unique(judged.groups, return_inverse=True)
        groups = one_hot(place, len(names))
        for k, hit in judged.hits.items():
            found[f"worst_group_acc{k}"] = (groups * hit[:, None], groups, _least)
            if other_group is not None:
                kept = groups[:, names != other_group]
                found[f"worst_group_acc{k}_no_other"] = (kept * hit[:, None], kept, _least)
    return found


def _statistics(judged: Judged) -> dict[str, Callable[[Ints], float]]:
    """Metrics that are no ratios of a few sums, as functions of rows; they need one right class an image."""
    labels = judged.labels
    if labels is None:
        return {}

    def auc(rows: Ints) -> float:
        positive = labels[rows] == 1
        return roc_auc(judged.margins[rows], positive) if 0 < positive.sum() < len(rows) else float("nan")

    found: dict[str, Callable[[Ints], float]] = {
        "mean_per_class": lambda rows: mean_per_class(judged.hits[1][rows], labels[rows]),
        "macro_f1": lambda rows: macro_f1(judged.predictions[rows], labels[rows]),
    }
    return found | ({"roc_auc": auc} if judged.classes == 2 and 0 < (labels == 1).sum() < len(labels) else {})


def _only(ratios: Doubles) -> Doubles:
    return ratios[:, 0]


def _mean(ratios: Doubles) -> Doubles:
    """Mean over those that have items; NaN where none has."""
    present = ~np.isnan(ratios)
    with np.errstate(invalid="ignore"):
        found: Doubles = np.where(present, ratios, 0).sum(1) / present.sum(1)
    return found


def _least(ratios: Doubles) -> Doubles:
    found: Doubles = np.fmin.reduce(ratios, axis=1)
    return found


def _parts(names: Sequence[Sequence[str]], labels: Ints, hits: Mapping[int, Hits]) -> dict[str, Part]:
    """By the first name of each class; where several classes share it, by name and number."""
    count = Counter(each[0] for each in names)
    found: dict[str, Part] = {}
    for label in np.unique(labels).tolist():
        name = names[label][0]
        found[name if count[name] == 1 else f"{name} ({label})"] = _hit_rates(hits, labels == label)
    return found


def _group_parts(groups: NDArray[np.str_], hits: Mapping[int, Hits]) -> dict[str, Part]:
    return {str(group): _hit_rates(hits, groups == group) for group in np.unique(groups)}


def _hit_rates(hits: Mapping[int, Hits], chosen: Hits) -> Part:
    part: dict[str, float] = {"n": int(chosen.sum())}
    for k, hit in hits.items():
        low, high = _percent(wilson_interval(hit[chosen]))
        part |= {f"acc{k}": 100 * float(hit[chosen].mean()), f"acc{k}_low": low, f"acc{k}_high": high}
    return part


# Retrieval.


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """Pictures with captions in one or more languages."""

    pictures: Pictures
    captions: Mapping[str, Sequence[Sequence[str]]]  #: language -> the captions of each picture, none or many
    settings: Mapping[str, Any] = field(default_factory=dict)


def retrieve(task: str, data: Captioned, features: Features, options: Options, *, metric: str = "t2i_r1") -> Record:
    """Score retrieval, each language among its own captions; a record's values are unweighted means over languages.

    Text to image: over captions, the owner is among the k best of all images. Image to text: over images with a
    caption, one of its captions is among the k best of all. `mean_r1` is the mean of both at k = 1. Intervals come
    from drawing images, each with its captions in all languages.

    Raises:
        DataError: not one list of captions a picture, or a language without a caption.
    """
    images, rows, left_out = embed_pictures(features, data.pictures)
    names = [f"{way}_r{k}" for k in RECALLS for way in ("t2i", "i2t")]
    # By metric and language, per image: how many of its queries were hit, and how many it has.
    hits = np.zeros((len(names), len(data.captions), len(rows)), np.float32)
    counts = np.zeros_like(hits)
    for place, (language, captions) in enumerate(data.captions.items()):
        if len(captions) != len(data.pictures):
            raise DataError(f"{task}: {len(captions)} lists of captions in {language}, {len(data.pictures)} images.")
        owned = [captions[row] for row in rows]
        hits[:, place], counts[:, place] = _retrieved(images, owned, features, f"{task}: {language}")
    per_language: dict[str, dict[str, float]] = {
        language: {"n": len(rows), "texts": sum(len(captions[row]) for row in rows)}
        for language, captions in data.captions.items()
    }
    values, intervals, drawn = {}, {}, {}
    for number, name in enumerate(names):
        found = bootstrap.ratios(hits[number].T, counts[number].T)
        drawn[name] = bootstrap.resampled_ratios(
            hits[number].T, counts[number].T, seed=options.seed, resamples=options.resamples
        )
        intervals[name] = _percent(bootstrap.interval(_mean(drawn[name])))
        for place, part in enumerate(per_language.values()):
            low, high = _percent(bootstrap.interval(drawn[name][:, place]))
            part |= {name: 100 * float(found[place]), f"{name}_low": low, f"{name}_high": high}
        values[name] = mean_over(per_language, name)
    values["mean_r1"] = (values["t2i_r1"] + values["i2t_r1"]) / 2
    intervals["mean_r1"] = _percent(bootstrap.interval((_mean(drawn["t2i_r1"]) + _mean(drawn["i2t_r1"])) / 2))
    return Record(
        task=task,
        metric=metric,
        value=values[metric],
        n=len(rows),
        values=values,
        intervals=intervals,
        per_language=per_language,
        left_out=left_out,
        settings={"languages": len(data.captions), "recalls": list(RECALLS), **data.settings},
        fingerprint=fingerprint(data.pictures),
    )


def _retrieved(
    images: Floats, captions: Sequence[Sequence[str]], features: Features, where: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries hit and queries asked, float32 [metrics, images] both, in the order of `retrieve`'s names."""
    owner = np.repeat(np.arange(len(images)), [len(each) for each in captions])
    if not len(owner):
        raise DataError(f"{where}: no caption; leave the language out.")
    texts = embed_texts(features, [caption for each in captions for caption in each])
    asked = np.bincount(owner, minlength=len(images))
    own = np.flatnonzero(asked)
    places = np.arange(len(owner))
    t2i = best_ranks(texts, images, places, owner)
    i2t = best_ranks(images[own], texts, np.searchsorted(own, owner), places)
    hits, counts = [], []
    for k in RECALLS:
        hits.append(np.bincount(owner, weights=t2i < k, minlength=len(images)))
        hits.append(np.bincount(own, weights=i2t < k, minlength=len(images)))
        counts += [asked, asked > 0]
    return np.array(hits, np.float32), np.array(counts, np.float32)


def _percent(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]
