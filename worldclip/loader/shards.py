"""Training batches from WebDataset tars, read where they lie: local, or in a store by fsspec.

    <folder>/dataset.json        the shards in their order, what was set aside when they were indexed, English share
    <folder>/shard-00000.arrow   of each tar, one row an image: key, place in the tar, texts and their matches
    <folder>/probability.npy     float64, one an entry of all lists: what each epoch's draws are made from

`worldclip shards` writes such a folder. The Arrow and npy files are memory-mapped. A shard is a unit of shuffling: each
epoch takes the shards in another order, some of them at a time make a window, and a window is shuffled as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldclip.curation.sample import Candidates, keep_probability, uniform
from worldclip.errors import DataError
from worldclip.loader.batches import Window
from worldclip.storage import file_digest, read_json

DATASET = "dataset.json"
PROBABILITY = "probability.npy"

#: A candidate text: `key` is 64 bits of its hash, `draw` its turn among its image's, `matches` places in `probability`.
TEXT = pa.struct([
    ("text", pa.string()), ("key", pa.uint64()), ("draw", pa.float64()), ("matches", pa.list_(pa.uint32()))
])  # fmt: skip

#: One row an image: `key` is 64 bits of its id's hash; its file is `size` bytes of the tar from `offset` on.
SHARD = pa.schema([
    ("id", pa.string()), ("key", pa.uint64()), ("offset", pa.int64()), ("size", pa.int64()), ("texts", pa.list_(TEXT))
])  # fmt: skip

_SHARD_STREAM = 1 << 21
_OPEN = 256  #: memory maps that a process keeps


@lru_cache(maxsize=_OPEN)
def _table(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run `worldclip shards` again.") from None


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """An indexed set of tars.

    Args:
        folder: of the index.
        window_images: images that are shuffled together, about.
    """

    folder: Path
    window_images: int

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `dataset.json` tells."""
        about: dict[str, Any] = read_json(self.folder / DATASET)
        if not sum(shard["samples"] for shard in about["shards"]):
            raise DataError(f"{self.folder}: holds no image with a candidate text. Check ids and curation.")
        return about

    @cached_property
    def digest(self) -> str:
        """Of what was indexed: the same data give the same batches."""
        return file_digest(self.folder / DATASET)

    @cached_property
    def tars(self) -> list[str]:
        """Paths or URLs of the tars."""
        return [shard["images"] for shard in self.about["shards"]]

    @cached_property
    def _first(self) -> np.ndarray:
        """int64 [shards + 1]: number of each shard's first image."""
        return np.cumsum([0, *(shard["samples"] for shard in self.about["shards"])])

    @cached_property
    def _first_text(self) -> np.ndarray:
        return np.cumsum([0, *(shard["texts"] for shard in self.about["shards"])])

    @cached_property
    def _probability(self) -> np.ndarray:
        array: np.ndarray = np.load(self.folder / PROBABILITY, mmap_mode="r", allow_pickle=False)
        return array

    @property
    def images(self) -> int:
        """Images with a candidate text."""
        return int(self._first[-1])

    def shard(self, number: int) -> pa.Table:
        """The index of a shard, memory-mapped: `SHARD`."""
        return _table(self.folder / f"shard-{number:05d}.arrow")

    @property
    def _shards_per_window(self) -> int:
        return max(1, round(self.window_images * len(self.tars) / self.images))

    @property
    def windows(self) -> int:
        """Windows an epoch."""
        return -(-len(self.tars) // self._shards_per_window)

    def window(self, number: int, seed: int, epoch: int) -> Window:
        """The shards of a window, which are other ones in each epoch."""
        order = np.argsort(uniform(np.arange(len(self.tars), dtype=np.uint64), seed, epoch, _SHARD_STREAM))
        shards = order[number * self._shards_per_window :][: self._shards_per_window].tolist()
        tables = [self.shard(shard) for shard in shards]
        lists = [table.column("texts").combine_chunks() for table in tables]
        texts = pa.concat_arrays([each.flatten() for each in lists])
        lengths = np.concatenate([each.value_lengths().to_numpy() for each in lists])
        own_turns = self.about["draw"] == "by_kind"
        return Window(
            candidates=Candidates(
                keys=np.concatenate([table.column("key").to_numpy() for table in tables]),
                offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                keep_probability=keep_probability(texts.field("matches"), self._probability),
                draw_probability=texts.field("draw").to_numpy() if own_turns else None,
            ),
            images=_ranges(self._first, shards),
            texts=_ranges(self._first_text, shards),
            identity=texts.field("key").to_numpy(),
        )

    def places(self, images: np.ndarray) -> list[tuple[int, int, int]]:
        """Shard, offset and size of some images, by their numbers."""
        shards = np.searchsorted(self._first, images, side="right") - 1
        found = []
        for image, number in zip(images.tolist(), shards.tolist(), strict=True):
            table, row = self.shard(number), image - int(self._first[number])
            found.append((number, table.column("offset")[row].as_py(), table.column("size")[row].as_py()))
        return found

    def texts(self, numbers: np.ndarray) -> list[str]:
        """Some candidate texts, by their numbers."""
        shards = np.searchsorted(self._first_text, numbers, side="right") - 1
        found: list[str] = [""] * len(numbers)
        for shard in np.unique(shards).tolist():
            own = np.flatnonzero(shards == shard)
            flat = self.shard(shard).column("texts").combine_chunks().flatten().field("text")
            taken = flat.take(pa.array(numbers[own] - self._first_text[shard])).to_pylist()
            for place, text in zip(own.tolist(), taken, strict=True):
                found[place] = text
        return found


def _ranges(first: np.ndarray, numbers: list[int]) -> np.ndarray:
    return np.concatenate([np.arange(first[number], first[number + 1]) for number in numbers])
