"""A rank's part of a batch: what a loader is asked for, and what it gives to the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from worldclip.loader.batches import Batch, Cursor


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which images of each batch a rank loads, and how."""

    images: int  #: of a whole batch
    texts_per_image: int
    size: int  #: pixels on a side that the model takes
    crop_scale: float
    seed: int
    rank: int = 0
    ranks: int = 1
    pieces: int = 1  #: equal pieces that the rank's part is divided into, for accumulation

    @property
    def length(self) -> int:
        """Rows of a rank's part: as many on every rank, the last ones beyond the batch if it does not divide."""
        return -(-self.images // (self.ranks * self.pieces)) * self.pieces

    def rows(self) -> tuple[np.ndarray, torch.Tensor | None]:
        """This rank's places in the batch, int64 [length], and which of them are any, bool [length]; None: all."""
        places = np.arange(self.rank * self.length, (self.rank + 1) * self.length)
        if self.length * self.ranks == self.images:
            return places, None
        return np.minimum(places, self.images - 1), torch.from_numpy(places < self.images)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A rank's part of a batch, ready for the towers."""

    batch: Batch
    pixels: torch.Tensor  #: [n, 3, size, size]: uint8, or float32 in [0, 1]
    ids: torch.Tensor  #: int64 [k, n, length]
    valid: torch.Tensor | None = None  #: bool [n], False for padding and for images that could not be read
    set_aside: Mapping[str, int] = field(default_factory=dict)  #: images that could not be read, by reason


class Loader(Protocol):
    """Where batches come from."""

    def load(self, part: Part, *, start: int, steps: int, cursor: Cursor) -> Iterator[Loaded]:
        """A rank's part of the batches `start` to `steps` (exclusive); `cursor` is where the first one begins."""
