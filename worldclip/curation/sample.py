"""Balance: which pairs are kept (paper, section 3.2, stage 3), drawn from hash(seed, epoch, id) alone.

A text is kept with probability 1 - prod(1 - p) over its matched entries. Of the candidate texts of an image one is
drawn uniformly first, and that one decides. A draw depends on the seed, the epoch and the image's id: never on the
order of rows, the sharding, the worker or the engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keep_probability(matches: pa.ListArray, probability: np.ndarray) -> np.ndarray:
    """Probability that each text is kept if it is the one drawn; 0 for a text without matches.

    Args:
        matches: list<uint32> [n], ids of each text's entries.
        probability: float64 [entries], see `threshold.entry_probability`.

    Returns:
        float64 [n].
    """
    lengths = matches.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    result = np.zeros(len(matches))
    some = lengths > 0
    if some.any():
        missed = 1.0 - probability[matches.flatten().to_numpy(zero_copy_only=False)]
        starts = np.concatenate([[0], np.cumsum(lengths[some])[:-1]])
        result[some] = 1.0 - np.multiply.reduceat(missed, starts)
    return result


def id_keys(ids: Iterable[str]) -> np.ndarray:
    """64 bits of SHA-256 of each id, uint64 [n]: what draws are made from."""
    return np.array([int.from_bytes(hashlib.sha256(each.encode()).digest()[:8], "little") for each in ids], np.uint64)


def uniform(keys: np.ndarray, seed: int, epoch: int, stream: int) -> np.ndarray:
    """A float64 in [0, 1) for each key; `stream` tells apart the draws of one epoch. The mixer is SplitMix64's."""
    with np.errstate(over="ignore"):
        state = keys.copy()
        for value in (seed, epoch, stream):
            state += _GOLDEN * np.uint64(value + 1)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_probability(image: np.ndarray, kind: np.ndarray | None) -> np.ndarray:
    """Probability that each text is the one drawn of its image's texts.

    Args:
        image: int64 [n], image of each text.
        kind: int64 [n], kind of each text: every kind of an image gets the same turn, shared by its texts. On the web,
            where an image has one text of a kind, this is uniform. None: every text gets the same turn.

    Returns:
        float64 [n], summing to 1 over each image.
    """
    if kind is None:
        _, row, count = np.unique(image, return_inverse=True, return_counts=True)
        return 1.0 / count[row]
    groups, group, texts = np.unique(np.stack([image, kind]), axis=1, return_inverse=True, return_counts=True)
    _, row, kinds = np.unique(groups[0], return_inverse=True, return_counts=True)
    turn: np.ndarray = (1.0 / (kinds[row] * texts))[group.ravel()]
    return turn


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidate texts of each image: those with a match. Texts of image i are rows offsets[i] to offsets[i + 1]."""

    keys: np.ndarray  #: uint64 [images], see `id_keys`
    offsets: np.ndarray  #: int64 [images + 1]
    keep_probability: np.ndarray  #: float64 [texts]
    draw_probability: np.ndarray | None = None  #: float64 [texts], sums to 1 in each image; None is uniform

    def draw(self, images: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one candidate text of each image, uniformly or by `draw_probability`, then keep it or not.

        Args:
            images: int64 [n], positions of the images asked for.

        Returns:
            texts: int64 [n], row of the text drawn.
            kept: bool [n].
        """
        keys, first = self.keys[images], self.offsets[images]
        number = self.offsets[images + 1] - first
        if self.draw_probability is None:
            texts = first + (uniform(keys, seed, epoch, 0) * number).astype(np.int64)
        else:
            texts = self._draw_by(self.draw_probability, images, uniform(keys, seed, epoch, 0))
        return texts, uniform(keys, seed, epoch, 1) < self.keep_probability[texts]

    def draw_more(self, images: np.ndarray, seed: int, epoch: int, stream: int) -> np.ndarray:
        """Draw a further text of each kept image as the first is distributed given that it was kept.

        A text that is drawn and then kept falls on candidate j with probability proportional to draw_probability[j] *
        keep_probability[j]: so is this one. Used where one image is trained with several texts at once.

        Returns:
            texts: int64 [n].
        """
        weights = (
            self.keep_probability if self.draw_probability is None else self.keep_probability * self.draw_probability
        )
        return self._draw_by(weights, images, uniform(self.keys[images], seed, epoch, 1 + stream))

    def _draw_by(self, weights: np.ndarray, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The text of each image on which `drawn` in [0, 1) falls, where texts are as wide as their weights."""
        cumulated = np.concatenate([[0.0], np.cumsum(weights)])
        low, high = cumulated[self.offsets[images]], cumulated[self.offsets[images + 1]]
        target = low + drawn * (high - low)
        rows = np.searchsorted(cumulated, target, side="right") - 1
        inside: np.ndarray = np.clip(rows, self.offsets[images], self.offsets[images + 1] - 1)
        return inside
