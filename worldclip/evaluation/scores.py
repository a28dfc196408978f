"""Metrics of predictions: per class, per group, of rankings; of sets. In NumPy, as fractions; ties by lowest index.

Beside those on embeddings in `worldclip.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation.metrics import Floats, Hits, Ints

Doubles = NDArray[np.float64]


def one_hot(labels: Ints, classes: int) -> NDArray[np.float32]:
    """1 at [i, labels[i]], else 0: float32 [n, classes]."""
    found = np.zeros((len(labels), classes), np.float32)
    found[np.arange(len(labels)), labels] = 1
    return found


def mean_per_class(hits: Hits, labels: Ints) -> float:
    """Mean over classes of the fraction of their items [n] that were hit, over classes that have items.

    A class that is only predicted has no recall, and does not count.
    """
    _check(hits, labels)
    counts = np.bincount(labels)
    present = counts > 0
    return float((np.bincount(labels, weights=hits)[present] / counts[present]).mean())


def macro_f1(predictions: Ints, labels: Ints) -> float:
    """Mean of the classes' F1, over classes that occur in `labels` [n]."""
    _check(predictions, labels)
    classes = int(max(predictions.max(), labels.max())) + 1
    right = np.bincount(labels[predictions == labels], minlength=classes)
    predicted, true = np.bincount(predictions, minlength=classes), np.bincount(labels, minlength=classes)
    present = true > 0
    return float((2 * right[present] / (predicted[present] + true[present])).mean())


def roc_auc(scores: Floats | Doubles, positive: Hits) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; a tie counts one half.

    Raises:
        DataError: all items [n] are of one kind.
    """
    _check(scores, positive)
    above, below = int(positive.sum()), int((~positive).sum())
    if not above or not below:
        raise DataError(f"ROC AUC: {above} positive and {below} negative items; needs both.")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of each distinct score, counted from 1; equals share their mean
    return float((ranks[place][positive].sum() - above * (above + 1) / 2) / (above * below))


def average_precision_11(scores: Floats | Doubles, positive: Hits) -> float:
    """PASCAL VOC 2007's average precision: the mean over recalls 0, 0.1 .. 1 of the best precision from there on.

    Raises:
        DataError: no positive item.
    """
    _check(scores, positive)
    ordered = positive[np.argsort(-scores, kind="stable")]
    if not ordered.any():
        raise DataError("average precision: no positive item.")
    found = np.cumsum(ordered)
    precision = found / np.arange(1, len(ordered) + 1)
    # Recall is compared in whole numbers, as 0.3 is not 3/10 in floating point.
    return float(np.mean([precision[found * 10 >= tenths * found[-1]].max() for tenths in range(11)]))


def jaccard(predicted: Collection[int], true: Collection[int]) -> float:
    """How many items two sets share, of all they have; 1 if both are empty."""
    union = {*predicted, *true}
    return len({*predicted} & {*true}) / len(union) if union else 1.0


def best(scores: Floats, count: int) -> Ints:
    """Indices of the `count` largest scores [n], best first; the lowest index first among equals."""
    return np.argsort(-scores, kind="stable")[:count]


def alignment(left: Floats, right: Floats, alpha: float = 2.0) -> float:
    """Mean over pairs of the distance of unit vectors [n, d], to the power of alpha (Wang & Isola, 2020)."""
    _check(left, right)
    distances = np.linalg.norm(left.astype(np.float64) - right, axis=1)
    return float((distances**alpha).mean())


def uniformity(features: Floats, t: float = 2.0, rows: int = 1024) -> float:
    """Log of the mean over pairs i < j of exp(-t |x_i - x_j|^2), for unit vectors [n, d] (Wang & Isola, 2020).

    Args:
        rows: rows of distances held at a time.

    Raises:
        DataError: fewer than two vectors.
    """
    n = len(features)
    if n < 2:
        raise DataError(f"uniformity: {n} vectors; needs two.")
    largest, total = -np.inf, 0.0  # The sum is total * exp(largest), so that nothing underflows.
    values = features.astype(np.float64)
    squares = (values * values).sum(1)
    for first in range(0, n, rows):
        block = values[first : first + rows]
        distances = squares[first : first + rows, None] + squares - 2 * block @ values.T
        exponents = -t * np.maximum(distances, 0)[np.arange(n) > np.arange(first, first + len(block))[:, None]]
        if not len(exponents):
            continue
        new = max(largest, float(exponents.max()))
        total = total * np.exp(largest - new) + float(np.exp(exponents - new).sum())
        largest = new
    return float(largest + np.log(total) - np.log(n * (n - 1) / 2))


def _check(values: NDArray[np.generic], others: NDArray[np.generic]) -> None:
    if len(values) != len(others) or not len(values):
        raise DataError(f"metric: {len(values)} and {len(others)} items; needs as many of both, and one at least.")
