"""A linear probe by ridge regression on frozen embeddings, for few-shot classification (big_vision's `fewshot_lsr`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation.metrics import Floats, Ints

Doubles = NDArray[np.float64]

#: Strength of the penalty, and value of the constant feature, which is penalised like the others.
PENALTY, CONSTANT = 2.0**10, 100.0

#: Rows that are predicted at a time.
ROWS = 8192


def probe(shots: Floats, labels: Ints, test: Floats, classes: int, penalty: float = PENALTY) -> Ints:
    """Learn from `shots` [k, d] with `labels` [k] and predict the class of each row of `test` [m, d]; int64 [m].

    Features are whitened by the mean and deviation of the shots and get a constant one; targets are -1 and +1.

    Raises:
        DataError: no shots, or a label that is no class.
    """
    if not len(shots) or len(shots) != len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"probe: {len(shots)} shots with {len(labels)} labels of {classes} classes; none may be without."
        )
    values = shots.astype(np.float64)
    mean, deviation = values.mean(0), values.std(0) + 1e-5
    weights = solve(_whitened(values, mean, deviation), 2.0 * (labels[:, None] == np.arange(classes)) - 1, penalty)
    found = [np.zeros(0, np.int64)]
    for first in range(0, len(test), ROWS):
        some = _whitened(test[first : first + ROWS].astype(np.float64), mean, deviation)
        found.append(np.argmax(some @ weights, axis=1))
    return np.concatenate(found)


def solve(x: Doubles, y: Doubles, penalty: float, *, dual: bool | None = None) -> Doubles:
    """The W that minimises |XW - Y|^2 + penalty |W|^2, for X [n, d] and Y [n, c]; [d, c].

    Args:
        dual: solve for n instead of d unknowns; by default whichever is smaller.
    """
    found: NDArray[np.floating]
    if len(x) < x.shape[1] if dual is None else dual:
        found = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        found = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return found.astype(np.float64)


def _whitened(values: Doubles, mean: Doubles, deviation: Doubles) -> Doubles:
    return np.hstack([(values - mean) / deviation, np.full((len(values), 1), CONSTANT)])
