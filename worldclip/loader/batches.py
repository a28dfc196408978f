"""Which image is trained with which texts at which step: online curation (paper, section 3.2, stage 3).

Each epoch draws anew, for every image, one candidate text and whether it is kept. A batch depends on the seed and the
step alone, so a run that is resumed at a step meets the very same batches that it would have met.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worldclip.curation.sample import Candidates, uniform
from worldclip.errors import DataError

_SHUFFLE_STREAM = 1 << 20  # Far from the streams that draw texts.


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's pairs: image i goes with texts[0, i], texts[1, i], ..."""

    step: int
    epoch: int  #: of the batch's last image
    images: np.ndarray  #: int64 [images]
    texts: np.ndarray  #: int64 [texts_per_image, images], rows of the candidate table


def batches(
    candidates: Candidates, *, images: int, texts_per_image: int, seed: int, start: int, steps: int
) -> Iterator[Batch]:
    """Batches `start` to `steps` (exclusive) of a run.

    Args:
        images: images a batch.
        texts_per_image: texts drawn for each of them.

    Raises:
        DataError: no candidate can ever be kept.
    """
    everything = np.arange(len(candidates.keys))
    if not (candidates.keep_probability > 0).any():
        raise DataError("There is nothing to train on: no image has a text with a matched entry. Check the metadata.")
    waiting_images = np.zeros(0, np.int64)
    waiting_texts = np.zeros((texts_per_image, 0), np.int64)
    step = epoch = 0
    while step < steps:
        order = np.argsort(uniform(candidates.keys, seed, epoch, _SHUFFLE_STREAM), kind="stable")
        order = order[candidates.offsets[order + 1] > candidates.offsets[order]]
        first, kept = candidates.draw(everything[order], seed, epoch)
        chosen = order[kept]
        texts = [first[kept]]
        texts += [candidates.draw_more(chosen, seed, epoch, number) for number in range(1, texts_per_image)]
        waiting_images = np.concatenate([waiting_images, chosen])
        waiting_texts = np.concatenate([waiting_texts, np.stack(texts)], axis=1)
        while len(waiting_images) >= images and step < steps:
            if step >= start:
                yield Batch(step=step, epoch=epoch, images=waiting_images[:images], texts=waiting_texts[:, :images])
            waiting_images, waiting_texts = waiting_images[images:], waiting_texts[:, images:]
            step += 1
        epoch += 1
