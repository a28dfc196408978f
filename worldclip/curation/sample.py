"""Balance: which pairs are kept (paper, section 3.2, stage 3), drawn from hash(seed, epoch, id) alone.

A text is kept with probability 1 - prod(1 - p) over its matched entries. Of the candidate texts of an image one is
drawn uniformly first, and that one decides. A draw depends on the seed, the epoch and the image's id: never on the
order of rows, the sharding, the worker or the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from worldclip.curation.sha256 import first_64_bits
from worldclip.curation.texts import buffers, read_only

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keep_probability(matches: pa.ListArray, probability: np.ndarray) -> np.ndarray:
    """Probability that each text is kept if it is the one drawn; 0 for a text without matches.

    Args:
        matches: list<uint32> [n], ids of each text's entries.
        probability: float64 [entries], see `threshold.entry_probability`.

    Returns:
        float64 [n].
    """
    return keep_probability_of(matches, np.zeros(len(matches), np.int64), probability)


def keep_probability_of(matches: pa.ListArray, bases: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The same for texts of many lists, whose probabilities stand one after the other.

    Args:
        bases: int64 [n], where the probabilities of each text's list begin.
        probability: float64, of all lists' entries.
    """
    lengths = matches.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ids = matches.flatten().to_numpy(zero_copy_only=False)
    kept: np.ndarray = _kept(*map(read_only, (lengths, ids, bases, probability)))
    return kept


@numba.njit(cache=True, nogil=True)
def _kept(lengths, ids, bases, probability):  # type: ignore[no-untyped-def]
    result = np.zeros(len(lengths))
    at = 0
    for text in range(len(lengths)):
        missed = 1.0
        for position in range(at, at + lengths[text]):
            missed *= 1.0 - probability[bases[text] + ids[position]]
        result[text] = 1.0 - missed
        at += lengths[text]
    return result


def id_keys(ids: pa.Array | pa.ChunkedArray | Iterable[str]) -> np.ndarray:
    """64 bits of SHA-256 of each id, uint64 [n]: what draws are made from."""
    array = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(list(ids), pa.large_string())
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    keys: np.ndarray = first_64_bits(*buffers(array.cast(pa.large_string())))
    return keys


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
    texts = np.bincount(image)[image]
    if kind is None:
        same: np.ndarray = 1.0 / texts
        return same
    # One number for each image and kind; the smallest kind may be a null's -1.
    code = image * (kind.max(initial=0) + 2) + kind + 1
    groups, group, of_kind = np.unique(code, return_inverse=True, return_counts=True)
    kinds = np.bincount(groups // (kind.max(initial=0) + 2))[image]
    turn: np.ndarray = 1.0 / (kinds * of_kind[group])
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
        drawn_texts: np.ndarray = _falls_on(weights, self.offsets[images], self.offsets[images + 1], drawn)
        return drawn_texts


@numba.njit(cache=True, nogil=True)
def _falls_on(weights, firsts, ends, drawn):  # type: ignore[no-untyped-def]
    """Summed up image by image, so that no image's draw depends, in its last bits, on what stands before it."""
    texts = np.empty(len(firsts), np.int64)
    for image in range(len(firsts)):
        whole = 0.0
        for text in range(firsts[image], ends[image]):
            whole += weights[text]
        target, passed, text = drawn[image] * whole, 0.0, firsts[image]
        while text < ends[image] - 1:
            passed += weights[text]
            if target < passed:
                break
            text += 1
        texts[image] = text
    return texts
