"""The evaluation's tasks, per language: classify images by names, and find images and captions by each other.

A model comes in as `encode_texts`, from n strings to float32 [n, d], and as the features of its images; nothing here
knows a framework. Order of names, captions and languages does not matter: classes are sorted by concept, texts by
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worldclip.errors import DataError
from worldclip.evaluation.metrics import (
    Floats,
    Ints,
    best_ranks,
    chance_recall,
    class_features,
    wilson_interval,
    zero_shot,
)

EncodeTexts = Callable[[list[str]], Floats]

#: A value of a record: a number, an interval, or counts of what was left out by reason.
Value = int | float | tuple[float, float] | dict[str, int]

RECALLS = (1, 5, 10)

NOT_TRAINED = "concept not in training"
NO_NAME = "no name in this language"
NO_CAPTION = "no caption in this language"
TOO_FEW = "fewer than two classes"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Results by language, and the languages that have none.

    `records[language]` always holds (fractions; counts of images unless said otherwise)

        n, classes              images classified, classes they are told apart by
        top1, top5              accuracy
        top1_interval           Wilson's, 95 %
        chance_top1, chance_top5
        duplicate_names         classes whose text another class has, too; of equals the first by concept wins
        left_out                reason -> images; n + all of left_out = all images given

    and for a retrieval suite also

        images, texts           what is retrieved from, each image with at least one text
        i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5, t2i_r10, and each as chance_i2t_r1 ...

    `absent` maps a reason to the languages that have no record for it.
    """

    records: dict[str, dict[str, Value]]
    absent: dict[str, list[str]]


def classify_suite(
    encode_texts: EncodeTexts,
    image_features: Floats,
    concepts: Sequence[str],
    names: Mapping[str, Mapping[str, str]],
    *,
    trained: Collection[str],
    prompts: Mapping[str, Sequence[str]] | None = None,
) -> Suite:
    """Classify each image among all concepts of the images that were trained and have a name, in every language.

    Args:
        encode_texts: from n distinct strings to [n, d].
        image_features: [n, d], L2-normalised.
        concepts: the concept of each image.
        names: language -> concept -> name; blank names count as none.
        trained: the concepts that training images show (in other styles); others cannot be known.
        prompts: language -> templates with `{}` for the name, ensembled by the standard rule; the name alone where a
            language has none.

    Raises:
        DataError: as many concepts as images are needed; or features that do not fit or are not numbers.
    """
    if len(concepts) != len(image_features):
        raise DataError(f"classify: {len(image_features)} images, but {len(concepts)} concepts; needs one an image.")
    depicted = sorted(set(concepts) & set(trained))
    untrained = sum(concept not in set(depicted) for concept in concepts)
    records: dict[str, dict[str, Value]] = {}
    absent: dict[str, list[str]] = {}
    for language in sorted(names):
        named = _filled(names[language])
        classes = [concept for concept in depicted if concept in named]
        if len(classes) < 2:
            absent.setdefault(TOO_FEW, []).append(language)
            continue
        index = {concept: number for number, concept in enumerate(classes)}
        rows = np.array([row for row, concept in enumerate(concepts) if concept in index])
        labels = np.array([index[concepts[row]] for row in rows])
        texts = [named[concept] for concept in classes]
        features = _encode_classes(encode_texts, texts, (prompts or {}).get(language, ("{}",)))
        records[language] = {
            **_classified(image_features[rows], labels, features),
            "duplicate_names": len(texts) - len(set(texts)),
            "left_out": {NOT_TRAINED: untrained, NO_NAME: len(concepts) - untrained - len(rows)},
        }
    return Suite(records=records, absent=absent)


def retrieve_suite(
    encode_texts: EncodeTexts,
    image_features: Floats,
    images: Sequence[str],
    captions: Mapping[str, Mapping[str, str]],
    *,
    descriptions: Mapping[str, Mapping[str, str]] | None = None,
) -> Suite:
    """Classify images among the distinct captions of a language, and retrieve both ways.

    Images with one caption are one class, and that caption is one text that owns all of them: finding any is a hit.
    Descriptions are further texts of their images for retrieval (all of an image's texts count), and no classes.

    Args:
        encode_texts: from n distinct strings to [n, d].
        image_features: [n, d], L2-normalised.
        images: the id of each image, unique.
        captions: language -> image id -> caption; blank ones count as none. Ids of other images are no concern here.
        descriptions: language -> image id -> description.

    Raises:
        DataError: not one unique id an image; or features that do not fit or are not numbers.
    """
    if len(images) != len(image_features) or len(set(images)) != len(images):
        raise DataError(
            f"retrieve: {len(image_features)} images, {len(images)} ids, {len(set(images))} of them distinct; "
            "needs one id of its own for each image."
        )
    records: dict[str, dict[str, Value]] = {}
    absent: dict[str, list[str]] = {}
    for language in sorted(captions):
        captioned = _filled(captions[language])
        described = _filled((descriptions or {}).get(language, {}))
        titles = sorted({captioned[image] for image in images if image in captioned})
        if len(titles) < 2:
            absent.setdefault(TOO_FEW, []).append(language)
            continue
        index = {title: number for number, title in enumerate(titles)}
        texts = titles + sorted({described[image] for image in images if image in described} - index.keys())
        place = {text: number for number, text in enumerate(texts)}
        features = _encode_classes(encode_texts, texts, ("{}",))
        rows = np.array([row for row, image in enumerate(images) if image in captioned])
        labels = np.array([index[captioned[images[row]]] for row in rows])
        owned = [
            (row, place[kind[image]])
            for row, image in enumerate(images)
            for kind in (captioned, described)
            if image in kind
        ]
        records[language] = {
            **_classified(image_features[rows], labels, features[: len(titles)]),
            "duplicate_names": 0,
            "left_out": {NO_CAPTION: len(images) - len(rows)},
            **_retrieved(image_features, features, np.array(sorted(set(owned)))),
        }
    return Suite(records=records, absent=absent)


def _filled(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: text.strip() for key, text in texts.items() if text.strip()}


def _encode_classes(encode_texts: EncodeTexts, names: Sequence[str], prompts: Sequence[str]) -> Floats:
    """Embed each name by its prompts; each distinct text is encoded once, so equal names are equal bit by bit."""
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    distinct = sorted(set(texts))
    features = encode_texts(distinct)
    if features.ndim != 2 or len(features) != len(distinct):
        raise DataError(f"encode_texts: gave shape {features.shape} for {len(distinct)} texts; needs one row a text.")
    place = {text: number for number, text in enumerate(distinct)}
    each = features[[place[text] for text in texts]]
    return class_features(each, np.repeat(np.arange(len(names)), len(prompts)), len(names))


def _classified(image_features: Floats, labels: Ints, features: Floats) -> dict[str, Value]:
    found = zero_shot(image_features, labels, features, ks=(1, 5))
    return {
        "n": len(labels),
        "classes": len(features),
        "top1": found["accuracy"][1],
        "top5": found["accuracy"][5],
        "top1_interval": wilson_interval(found["hits"][1]),
        "chance_top1": 1 / len(features),
        "chance_top5": min(5, len(features)) / len(features),
    }


def _retrieved(image_features: Floats, text_features: Floats, owned: Ints) -> dict[str, Value]:
    """Recall both ways; `owned` [p, 2] are the pairs of image and text that belong together."""
    images, image = np.unique(owned[:, 0], return_inverse=True)
    text = owned[:, 1]
    gallery = image_features[images]
    record: dict[str, Value] = {"images": len(images), "texts": len(text_features)}
    for way, queries, answers, query, answer in (
        ("i2t", gallery, text_features, image, text),
        ("t2i", text_features, gallery, text, image),
    ):
        ranks = best_ranks(queries, answers, query, answer)
        for k in RECALLS:
            record[f"{way}_r{k}"] = float((ranks < k).mean())
            record[f"chance_{way}_r{k}"] = chance_recall(np.bincount(query), len(answers), k)
    return record
