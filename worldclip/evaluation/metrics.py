"""Zero-shot classification and retrieval on embeddings, in NumPy.

Embeddings are float32 and L2-normalised, a score is a dot product (the logit scale is monotone and left out). Ties
go to the lowest index, always. Rows that are equal bit by bit are scored once, as a matrix product may otherwise
round two equal columns differently and break a true tie. All results are fractions, not percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Hits = NDArray[np.bool_]

#: Scores held at a time; bounds the memory of a call to about 20 bytes a score, 80 MB.
TILE = 1 << 22


class ZeroShot(TypedDict):
    """`accuracy[k]`: the fraction of images with their class among the k best; `hits[k]`: which images, bool [n]."""

    accuracy: dict[int, float]
    hits: dict[int, Hits]


class Retrieval(TypedDict):
    """Recall at each k, image to text (over images) and text to image (over texts), and the items that were hit."""

    i2t: dict[int, float]
    t2i: dict[int, float]
    i2t_hits: dict[int, Hits]
    t2i_hits: dict[int, Hits]


def topk_hits(scores: Floats, labels: Ints, k: int) -> Hits:
    """Tell for each row of `scores` [n, c] whether its label is among the k largest; ties: the lowest index wins.

    Returns:
        bool [n].

    Raises:
        DataError: a label is not a column, or a score is not a number.
    """
    _check_indices(labels, len(scores), scores.shape[1], "labels")
    return _ranks(scores, labels) < k


def zero_shot(image_features: Floats, labels: Ints, class_features: Floats, ks: Sequence[int] = (1, 5)) -> ZeroShot:
    """Classify images [n, d] by the nearest of the class embeddings [c, d]; `labels` [n] are indices of classes.

    Raises:
        DataError: no images, a label that is not a class, or a feature that is not a number.
    """
    _check_indices(labels, len(image_features), len(class_features), "labels")
    ranks = best_ranks(image_features, class_features, np.arange(len(labels)), labels)
    hits = {k: ranks < k for k in ks}
    return {"accuracy": _means(hits), "hits": hits}


def retrieval(image_features: Floats, text_features: Floats, owner: Ints, ks: Sequence[int] = (1, 5, 10)) -> Retrieval:
    """Retrieve texts [m, d] by images [n, d] and images by texts; text j belongs to image `owner[j]`.

    Image to text: any of the image's own texts is among the k best of all texts; mean over the images that own one (an
    image without a text only distracts). Text to image: the owner is among the k best of all images; mean over texts.
    Every text of an image counts, not only its first.

    Raises:
        DataError: no texts, an owner that is not an image, or a feature that is not a number.
    """
    _check_indices(owner, len(text_features), len(image_features), "owner")
    texts = np.arange(len(text_features))
    images, row = np.unique(owner, return_inverse=True)
    i2t = best_ranks(image_features[images], text_features, row, texts)
    t2i = best_ranks(text_features, image_features, texts, owner)
    i2t_hits, t2i_hits = {k: i2t < k for k in ks}, {k: t2i < k for k in ks}
    return {"i2t": _means(i2t_hits), "t2i": _means(t2i_hits), "i2t_hits": i2t_hits, "t2i_hits": t2i_hits}


def best_ranks(queries: Floats, gallery: Floats, query: Ints, relevant: Ints) -> Ints:
    """Rank of each query's best relevant item among all of the gallery; 0 is first, ties go to the lowest index.

    Args:
        queries: [q, d].
        gallery: [g, d].
        query: [p], one side of the pairs that belong together, as indices of queries; each occurs at least once.
        relevant: [p], the other side, as indices of the gallery.

    Returns:
        int64 [q].

    Raises:
        DataError: a feature is not a number, the widths differ, or a query has no relevant item.
    """
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"features: {queries.shape[1]} numbers wide on one side, {gallery.shape[1]} on the other; "
            "embed images and texts by the same model."
        )
    if len(np.unique(query)) != len(queries):
        raise DataError(
            f"ranking: {len(queries)} queries, only {len(np.unique(query))} with a relevant item; drop those."
        )
    order = np.argsort(query, kind="stable")
    query, relevant = query[order], relevant[order]
    distinct, copies = _distinct_rows(gallery)
    ranks = np.empty(len(queries), np.int64)
    height = max(1, TILE // max(1, len(gallery)))
    for low in range(0, len(queries), height):
        tile = queries[low : low + height]
        scores = (tile @ distinct.T)[:, copies]
        mine = slice(*np.searchsorted(query, [low, low + len(tile)]))
        own = np.full(scores.shape, -np.inf, scores.dtype)
        at = query[mine] - low, relevant[mine]
        own[at] = scores[at]
        # argmax takes the lowest index among equals, so this is the item that is met first.
        ranks[low : low + len(tile)] = _ranks(scores, own.argmax(axis=1))
    return ranks


def nearest(image_features: Floats, class_features: Floats) -> Ints:
    """Index of the nearest of the class embeddings [c, d] for each image [n, d]; ties: the lowest. int64 [n].

    Raises:
        DataError: a feature is not a number.
    """
    distinct, copies = _distinct_rows(class_features)
    height = max(1, TILE // max(1, len(class_features)))
    found = [np.zeros(0, np.int64)]
    for low in range(0, len(image_features), height):
        scores = (image_features[low : low + height] @ distinct.T)[:, copies]
        _check_numbers(scores)
        found.append(scores.argmax(axis=1))
    return np.concatenate(found)


def class_features(text_features: Floats, class_of_text: Ints, classes: int) -> Floats:
    """One embedding a class from all its texts: normalise each, average, normalise (CLIP's standard rule).

    Args:
        text_features: [t, d], every prompt of every class, in any order.
        class_of_text: [t], the class of each, 0 to `classes` - 1.
        classes: how many classes there are.

    Returns:
        float32 [classes, d].

    Raises:
        DataError: a class without a text, or a text of no class.
    """
    _check_indices(class_of_text, len(text_features), classes, "class_of_text")
    counts = np.bincount(class_of_text, minlength=classes)
    if not counts.all():
        raise DataError(f"class_of_text: class {int(counts.argmin())} of {classes} has no text; leave it out.")
    sums = np.zeros((classes, text_features.shape[1]))
    np.add.at(sums, class_of_text, _normalised(text_features.astype(np.float64)))
    return _normalised(sums / counts[:, None]).astype(np.float32)


def wilson_interval(hits: Hits, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the accuracy that `hits` [n] shows; sensible also at no hit or only hits.

    Raises:
        DataError: no items.
    """
    n = _count(hits)
    accuracy = float(hits.mean())
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding may miss the exact ends by an ulp, the accuracy is inside by definition.
    return max(0.0, min(centre - half, accuracy)), min(1.0, max(centre + half, accuracy))


def bootstrap_interval(
    hits: Hits | NDArray[np.float64], seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of `hits` [n] under resampling of the items; the same seed gives the same.

    For a mean over several languages give each image's mean over them: then images are resampled, not their
    translations, which are no new evidence.

    Raises:
        DataError: no items.
    """
    n = _count(hits)
    random = np.random.default_rng(seed)
    means = [hits[random.integers(n, size=n)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance_recall(relevant: Ints, gallery: int, k: int) -> float:
    """Recall of k blind draws from `gallery` items, of which `relevant` [q] are right; mean over queries."""
    missed = np.ones(len(relevant))
    for drawn in range(min(k, gallery)):
        missed *= np.clip(gallery - relevant - drawn, 0, None) / (gallery - drawn)
    return float(1 - missed.mean())


def _ranks(scores: Floats, targets: Ints) -> Ints:
    """How many columns of each row come before the row's target: larger ones, and equal ones of lower index."""
    _check_numbers(scores)
    own = scores[np.arange(len(scores)), targets][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None]
    ranks: Ints = np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)
    return ranks


def _check_numbers(scores: Floats) -> None:
    if np.isnan(scores).any():
        raise DataError(
            "scores: hold NaN, so the model's embeddings do; it has diverged. Train with a lower learning rate."
        )


def _distinct_rows(rows: Floats) -> tuple[Floats, Ints]:
    """The distinct rows, in order of their first occurrence, and for each row its place among them."""
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, copies = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return rows[first[order]], place[copies]


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays one, and scores 0 everywhere."""
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float64).tiny)


def _means(hits: dict[int, Hits]) -> dict[int, float]:
    return {k: float(hit.mean()) for k, hit in hits.items()}


def _count(items: NDArray[np.bool_] | NDArray[np.float64]) -> int:
    if not len(items):
        raise DataError("interval: no items, so no mean; leave the task out.")
    return len(items)


def _check_indices(indices: Ints, count: int, below: int, what: str) -> None:
    if len(indices) != count or not count:
        raise DataError(f"{what}: {len(indices)} indices for {count} rows; needs one a row, and a row.")
    if indices.min() < 0 or indices.max() >= below:
        raise DataError(f"{what}: found {int(indices.min())} to {int(indices.max())}; allowed are 0 to {below - 1}.")
