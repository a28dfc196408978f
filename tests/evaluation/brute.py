"""Scorers in plain Python, written from the definitions, that judge those of the package and call nothing of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = list[float]


def dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def unit(vector: Vector) -> Vector:
    length = math.sqrt(dot(vector, vector))
    return [value / length for value in vector]


def ensemble(sentences: Sequence[Vector]) -> Vector:
    """Normalise each, average, normalise."""
    each = [unit(sentence) for sentence in sentences]
    return unit([sum(column) / len(each) for column in zip(*each, strict=True)])


def order(query: Vector, gallery: Sequence[Vector]) -> list[int]:
    """Indices from the best to the worst; the lowest first among equals."""
    scores = [dot(query, item) for item in gallery]
    return sorted(range(len(gallery)), key=lambda index: (-scores[index], index))


def accuracy(orders: Sequence[list[int]], right: Sequence[set[int]], k: int) -> float:
    return 100 * sum(bool(own & set(found[:k])) for found, own in zip(orders, right, strict=True)) / len(right)


def by_group(
    orders: Sequence[list[int]], right: Sequence[set[int]], groups: Sequence[object], k: int
) -> dict[object, float]:
    found = {}
    for group in set(groups):
        own = [row for row, each in enumerate(groups) if each == group]
        found[group] = accuracy([orders[row] for row in own], [right[row] for row in own], k)
    return found


def mean_per_class(orders: Sequence[list[int]], labels: Sequence[int]) -> float:
    each = by_group(orders, [{label} for label in labels], labels, 1)
    return sum(each.values()) / len(each)


def macro_f1(orders: Sequence[list[int]], labels: Sequence[int]) -> float:
    predicted = [found[0] for found in orders]
    scores = []
    for label in set(labels):
        both = sum(p == label == t for p, t in zip(predicted, labels, strict=True))
        precision = both / predicted.count(label) if label in predicted else 0.0
        recall = both / list(labels).count(label)
        scores.append(2 * precision * recall / (precision + recall) if both else 0.0)
    return 100 * sum(scores) / len(scores)


def roc_auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Over all pairs of a positive and a negative; a tie is half a win."""
    above = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    below = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    wins = sum((a > b) + (a == b) / 2 for a in above for b in below)
    return 100 * wins / (len(above) * len(below))


def recalls(images: Sequence[Vector], captions: Sequence[Sequence[Vector]]) -> dict[str, float]:
    """Text to image over captions; image to text over images with captions, any of its own counts."""
    texts = [(owner, text) for owner, each in enumerate(captions) for text in each]
    t2i = [order(text, images) for _, text in texts]
    asked = [row for row, each in enumerate(captions) if each]
    i2t = [order(images[row], [text for _, text in texts]) for row in asked]
    found = {}
    for k in (1, 5, 10):
        hits = [owner in ranked[:k] for (owner, _), ranked in zip(texts, t2i, strict=True)]
        found[f"t2i_r{k}"] = 100 * sum(hits) / len(hits)
        hits = [any(texts[index][0] == row for index in ranked[:k]) for row, ranked in zip(asked, i2t, strict=True)]
        found[f"i2t_r{k}"] = 100 * sum(hits) / len(hits)
    return found


def mean_recalls(languages: Sequence[dict[str, float]]) -> dict[str, float]:
    found = {name: sum(each[name] for each in languages) / len(languages) for name in languages[0]}
    return {**found, "mean_r1": (found["t2i_r1"] + found["i2t_r1"]) / 2}
