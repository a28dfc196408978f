"""Training batches from decoded images in memory: for sets of a few hundred thousand small pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from worldclip.curation.sample import Candidates
from worldclip.loader.batches import Cursor, Window, batches
from worldclip.loader.images import augment, step_generator
from worldclip.loader.parts import Loaded, Part


@dataclass(frozen=True, kw_only=True)
class MemoryImages:
    """Curated pairs with their decoded images: one window that holds everything."""

    pixels: np.ndarray  #: uint8 [images, height, width, 3]
    candidates: Candidates
    token_ids: np.ndarray  #: int [distinct texts, length]
    text_of_candidate: np.ndarray  #: int64 [candidates], row of `token_ids`

    windows = 1

    def window(self, _number: int, _seed: int, _epoch: int) -> Window:
        """All images, whatever the epoch."""
        return Window(
            candidates=self.candidates,
            images=np.arange(len(self.candidates.keys)),
            texts=np.arange(len(self.text_of_candidate)),
            identity=self.text_of_candidate,
        )

    def load(self, part: Part, *, start: int, steps: int, cursor: Cursor) -> Iterator[Loaded]:
        """A rank's part of each batch from `start` to `steps`; each crop follows from seed, step and place."""
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        token_ids = torch.from_numpy(self.token_ids)
        for batch in batches(
            self,
            images=part.images,
            texts_per_image=part.texts_per_image,
            seed=part.seed,
            start=start,
            steps=steps,
            cursor=cursor,
        ):
            rows, valid = part.rows()
            crops = augment(
                pixels[batch.images[rows]],
                part.size,
                crop_scale=part.crop_scale,
                generator=step_generator(part.seed, batch.step),
                of=(part.images, torch.from_numpy(rows)),
            )
            ids = token_ids[self.text_of_candidate[batch.texts[:, rows]].ravel()]
            yield Loaded(
                batch=batch, pixels=crops, ids=ids.view(part.texts_per_image, len(rows), -1).long(), valid=valid
            )
