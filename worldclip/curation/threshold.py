"""Thresholds that keep the tail's share of the matches the same in every language (paper, section 3.2, stage 2)."""

from __future__ import annotations

import numpy as np


def tail_share(t: int, counts: np.ndarray) -> float:
    """The share p of all matches that fall on entries counted fewer than `t` times; 0 where nothing matched.

    Args:
        t: threshold between tail and head, in matches.
        counts: matches of each entry of one language, int64 [entries].
    """
    counts = np.asarray(counts, np.int64)
    total = int(counts.sum())
    return int(counts[counts < t].sum()) / total if total else 0.0


def tail_threshold(p: float, counts: np.ndarray) -> int:
    """The threshold t at which the share of the tail is nearest to `p`.

    Counts are sorted ascending and cumulated; t is the count at the first index whose cumulative share is nearest to
    p. 0 where nothing matched.
    """
    ordered = np.sort(np.asarray(counts, np.int64))
    total = int(ordered.sum())
    if not total:
        return 0
    return int(ordered[np.argmin(np.abs(np.cumsum(ordered) / total - p))])


def entry_probability(t: int, counts: np.ndarray) -> np.ndarray:
    """Probability of drawing each entry (stage 3): 1 in the tail (count < t), t / count in the head; float64."""
    counts = np.asarray(counts, np.int64)
    return np.where(counts < t, 1.0, t / np.maximum(counts, 1))
