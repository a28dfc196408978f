"""Confidence intervals of ratios and their means, under resampling of images.

A metric is made of ratios: of a language, a class or a group c it is the sum of `hits[i, c]` over images i, divided by
the sum of `counts[i, c]`. Images are drawn with replacement, with all their captions and translations, which are no
evidence of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldclip.errors import DataError

Doubles = NDArray[np.float64]
Interval = tuple[float, float]

#: Draws held at a time; bounds the memory to 64 MB.
BLOCK = 1 << 24


def resampled_ratios(hits: ArrayLike, counts: ArrayLike, *, seed: int, resamples: int) -> Doubles:
    """The ratios [resamples, c] of `hits` [n, c] and `counts` [n, c]; NaN where nothing that counts was drawn.

    Raises:
        DataError: no items.
    """
    upper, lower = np.asarray(hits, np.float32), np.asarray(counts, np.float32)
    found = np.empty((resamples, upper.shape[1]))
    first = 0
    for draws in _draws(len(upper), seed, resamples):
        with np.errstate(invalid="ignore", divide="ignore"):
            found[first : first + len(draws)] = (draws @ upper).astype(np.float64) / (draws @ lower)
        first += len(draws)
    return found


def resampled(statistic: Callable[[NDArray[np.int64]], float], n: int, *, seed: int, resamples: int) -> Doubles:
    """Any statistic [resamples] of rows that are drawn from n with replacement."""
    random = np.random.default_rng(seed)
    return np.array([statistic(random.integers(_some(n), size=n)) for _ in range(resamples)])


def interval(values: Doubles, level: float = 0.95) -> Interval:
    """The percentile interval of resampled values [resamples]; those that are NaN do not count."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratios(hits: ArrayLike, counts: ArrayLike) -> Doubles:
    """The ratios [c] themselves; NaN where nothing counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Doubles = np.asarray(hits, np.float64).sum(0) / np.asarray(counts, np.float64).sum(0)
    return found


def _draws(n: int, seed: int, resamples: int) -> Iterator[NDArray[np.float32]]:
    """How often each of n items is drawn, float32 [some, n], until there are `resamples` rows."""
    random = np.random.default_rng(seed)
    height = max(1, BLOCK // _some(n))
    for first in range(0, resamples, height):
        rows = [np.bincount(random.integers(n, size=n), minlength=n) for _ in range(min(height, resamples - first))]
        yield np.array(rows, np.float32)


def _some(n: int) -> int:
    if not n:
        raise DataError("interval: no items, so no mean; leave the task out.")
    return n
