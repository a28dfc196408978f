"""Which image is trained with which texts at which step: online curation (paper, section 3.2, stage 3).

Each epoch draws anew, for every image, one candidate text and whether it is kept. The images come in windows; what is
kept of a window is shuffled, and the windows of all epochs, one after the other, are cut into batches. All of it
follows from the seed: a `Cursor` in that stream is all that a resumed run needs to meet the very same samples, on any
number of ranks and workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldclip.curation.sample import Candidates, uniform
from worldclip.errors import DataError

_SHUFFLE_STREAM = 1 << 20  # Far from the streams that draw texts.


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A place in the stream: so many drawn images of one window of one epoch are behind it."""

    epoch: int = 0
    window: int = 0
    taken: int = 0


@dataclass(frozen=True, kw_only=True)
class Window:
    """Images that are shuffled together, with their candidate texts."""

    candidates: Candidates
    images: np.ndarray  #: int64 [images], their numbers among all images
    texts: np.ndarray  #: int64 [candidates], their numbers among all candidate texts
    identity: np.ndarray  #: [candidates], equal where the text is the same


class Pool(Protocol):
    """All images that there are to train on."""

    @property
    def windows(self) -> int:
        """Windows an epoch."""

    def window(self, number: int, seed: int, epoch: int) -> Window:
        """One window of one epoch; those of an epoch hold every image once."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's pairs: image i goes with texts[0, i], texts[1, i], ..."""

    step: int
    epoch: int  #: of the batch's last image
    after: Cursor  #: where the next batch begins
    images: np.ndarray  #: int64 [n], numbers of the images
    keys: np.ndarray  #: uint64 [n], what draws for them are made from
    epochs: np.ndarray  #: int64 [n], epoch of each of them
    texts: np.ndarray  #: int64 [k, n], numbers of the texts
    identity: np.ndarray  #: [k, n], equal where the text is the same
    own: tuple[np.ndarray, ...]  #: identities of all candidate texts of each image

    def positives(self) -> np.ndarray:
        """Bool [k, n, n]: whether texts[j, m] is a candidate text of images[i]."""
        distinct, column = np.unique(self.identity, return_inverse=True)
        has = np.zeros((len(self.images), len(distinct)), bool)
        row = np.repeat(np.arange(len(self.own)), [len(each) for each in self.own])
        flat = np.concatenate(self.own)
        place = np.minimum(np.searchsorted(distinct, flat), len(distinct) - 1)
        found = distinct[place] == flat
        has[row[found], place[found]] = True
        return has[:, column.reshape(self.identity.shape)].transpose(1, 0, 2)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What is kept of a window, shuffled: columns as those of `Batch`, texts and identities transposed."""

    window: Window
    place: np.ndarray  #: int64 [n], of the images in the window
    texts: np.ndarray  #: int64 [n, k], of their texts in the window
    epoch: int
    number: int

    def __len__(self) -> int:
        return len(self.place)


def batches(
    pool: Pool, *, images: int, texts_per_image: int, seed: int, start: int, steps: int, cursor: Cursor | None = None
) -> Iterator[Batch]:
    """Batches `start` to `steps` (exclusive) of a run.

    Args:
        images: images a batch.
        texts_per_image: texts drawn for each of them.
        cursor: where batch `start` begins; None finds it by going through all batches before.

    Raises:
        DataError: no candidate can ever be kept.
    """
    step, place = (0, Cursor()) if cursor is None else (start, cursor)
    pieces: list[tuple[_Drawn, int]] = []  # windows not used up, and how much of each is
    waiting = 0
    stream = _stream(pool, texts_per_image, seed, place)
    while step < steps:
        while waiting < images:
            drawn, taken = next(stream)
            pieces.append((drawn, taken))
            waiting += len(drawn) - taken
        parts = []
        missing = images
        while missing:
            drawn, taken = pieces[0]
            count = min(missing, len(drawn) - taken)
            parts.append((drawn, slice(taken, taken + count)))
            missing -= count
            if taken + count == len(drawn) and missing:
                pieces.pop(0)
            else:
                pieces[0] = (drawn, taken + count)
        waiting -= images
        if step >= start:
            yield _batch(step, parts)
        step += 1


def _stream(pool: Pool, texts_per_image: int, seed: int, place: Cursor) -> Iterator[tuple[_Drawn, int]]:
    """What is drawn of each window from `place` on, and how much of it is behind that place."""
    epoch, number, taken = place.epoch, place.window, place.taken
    possible = False
    while True:
        while number < pool.windows:
            drawn = _draw(pool.window(number, seed, epoch), texts_per_image, seed, epoch, number)
            possible = possible or bool((drawn.window.candidates.keep_probability > 0).any())
            yield drawn, taken
            number, taken = number + 1, 0
        if not possible and epoch > place.epoch:
            raise DataError(
                "There is nothing to train on: no image has a text with a matched entry. Check the metadata."
            )
        epoch, number = epoch + 1, 0


def _draw(window: Window, texts_per_image: int, seed: int, epoch: int, number: int) -> _Drawn:
    candidates = window.candidates
    order = np.argsort(uniform(candidates.keys, seed, epoch, _SHUFFLE_STREAM), kind="stable")
    order = order[candidates.offsets[order + 1] > candidates.offsets[order]]
    first, kept = candidates.draw(order, seed, epoch)
    chosen = order[kept]
    texts = [first[kept]]
    texts += [candidates.draw_more(chosen, seed, epoch, more) for more in range(1, texts_per_image)]
    return _Drawn(window=window, place=chosen, texts=np.stack(texts, 1), epoch=epoch, number=number)


def _batch(step: int, parts: list[tuple[_Drawn, slice]]) -> Batch:
    last, end = parts[-1]
    images, keys, epochs, texts, identity = [], [], [], [], []
    own: list[np.ndarray] = []
    for drawn, rows in parts:
        window, place, chosen = drawn.window, drawn.place[rows], drawn.texts[rows]
        offsets = window.candidates.offsets
        images.append(window.images[place])
        keys.append(window.candidates.keys[place])
        epochs.append(np.full(len(place), drawn.epoch))
        texts.append(window.texts[chosen])
        identity.append(window.identity[chosen])
        own += [window.identity[offsets[image] : offsets[image + 1]] for image in place]
    return Batch(
        step=step,
        epoch=last.epoch,
        after=Cursor(epoch=last.epoch, window=last.number, taken=end.stop),
        images=np.concatenate(images),
        keys=np.concatenate(keys),
        epochs=np.concatenate(epochs),
        texts=np.concatenate(texts).T,
        identity=np.concatenate(identity).T,
        own=tuple(own),
    )
