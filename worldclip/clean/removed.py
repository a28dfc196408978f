"""The ids that are removed, in two files that the processes of a machine share, however many they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation.sample import id_keys
from worldclip.storage import replacing


@dataclass(frozen=True, kw_only=True)
class RemovedIds:
    """The ids that are removed, for look-ups: 64 bits of each, sorted, beside the ids in that order, memory-mapped."""

    keys: np.ndarray  #: uint64 [n], ascending
    ids: pa.StringArray

    @staticmethod
    def write(removed: pa.Table, folder: Path) -> None:
        """Write `removed.npy` and `removed.arrow`."""
        ids = removed.column("id").unique()
        keys = id_keys(ids.to_pylist())
        order = np.argsort(keys, kind="stable")
        table = pa.table({"id": ids.take(pa.array(order))})
        with replacing(folder / "removed.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, keys[order])
        with replacing(folder / "removed.arrow") as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
            writer.write_table(table)

    @staticmethod
    def open(folder: Path) -> RemovedIds:
        """Open what `write` wrote: the processes of a machine share it."""
        with pa.memory_map(str(folder / "removed.arrow")) as source:
            ids = pa.ipc.open_file(source).read_all().column("id").combine_chunks()
        return RemovedIds(keys=np.load(folder / "removed.npy", mmap_mode="r", allow_pickle=False), ids=ids)

    def without(self, table: pa.Table) -> pa.Table:
        """The rows of a table with `id` that are not removed."""
        ids = table.column("id")
        keys = id_keys(ids.to_pylist())
        first = np.searchsorted(self.keys, keys, "left")
        last = np.searchsorted(self.keys, keys, "right")
        # Equal keys are candidates, hardly ever more than one; the ids themselves decide.
        places = [np.arange(*span) for span in zip(first[last > first], last[last > first], strict=True)]
        candidates = self.ids.take(pa.array(np.concatenate([np.zeros(0, np.int64), *places])))
        return table.filter(pc.invert(pc.is_in(ids, candidates)))
