"""Thresholds for a size that is asked for: about N pairs in all, floors and caps of languages. Beyond the paper.

How many pairs a threshold keeps cannot be told from counts alone, as a text is kept for any of its concepts. So it is
told from the texts of some images, those whose hash of the id is smallest: the same ones in any order and sharding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from worldclip.curation.sample import keep_probability
from worldclip.curation.threshold import entry_probability

#: Sums of probabilities are of whole multiples of this part, so that they come out the same in any order.
UNIT = 2**32


@dataclass(frozen=True, kw_only=True)
class ListSample:
    """Matched texts of one list: those of `share` of all images.

    `matches` list<uint32> [n]; `turns` float64 [n], the probability of each to be the one drawn of its image's texts.
    """

    matches: pa.ListArray
    turns: np.ndarray
    share: float

    def expected(self, t: int, counts: np.ndarray) -> float:
        """Pairs that threshold `t` is expected to keep of all texts of this list; it does not fall as t rises."""
        drawn = self.turns * keep_probability(self.matches, entry_probability(t, counts))
        return int(np.rint(drawn * UNIT).astype(np.int64).sum()) / UNIT / self.share


def least(enough: Callable[[int], bool], high: int) -> int:
    """The least whole number in 0 ... `high` that is enough, where more is never less so; `high` if none is."""
    low = 0
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def english_threshold(
    pairs: int,
    samples: Mapping[str, ListSample],
    counts: Mapping[str, np.ndarray],
    limits_of: Callable[[int], Mapping[str, int]],
) -> int:
    """The t_en that keeps about `pairs` pairs of all languages together.

    Args:
        limits_of: the threshold of each list, for a t_en.
    """

    def expected(t_en: int) -> float:
        limits = limits_of(t_en)
        return sum(sample.expected(limits[name], counts[name]) for name, sample in samples.items())

    highest = max((int(vector.max(initial=0)) for vector in counts.values()), default=0) + 1
    t_en = least(lambda t: expected(t) >= pairs, highest)
    return t_en - 1 if t_en and pairs - expected(t_en - 1) < expected(t_en) - pairs else t_en


def within(t: int, sample: ListSample, counts: np.ndarray, floor: int | None, cap: int | None) -> int:
    """The threshold nearest to `t` at which a list keeps at least `floor` pairs (or all) and at most `cap`."""
    highest = int(counts.max(initial=0)) + 1
    if floor is not None and sample.expected(t, counts) < floor:
        t = least(lambda each: sample.expected(each, counts) >= floor, highest)
    if cap is not None and sample.expected(t, counts) > cap:
        t = max(0, least(lambda each: sample.expected(each, counts) > cap, highest) - 1)
    return t
