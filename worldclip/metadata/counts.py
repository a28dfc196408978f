"""Counts of words, pairs and titles as sorted files, and what is done with such files as streams.

A file holds (key, count), each key once, in the order of the keys' UTF-8. Of files that are merged, one block each is
in memory, whatever their size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError
from worldclip.storage import TEMPORARY, replacing

COUNTED = pa.schema([("key", pa.string()), ("count", pa.int64())])

#: Tables of COUNTED; no key of one sorts before any key of an earlier one, or is equal to it.
Blocks = Iterator[pa.Table]

#: Rows of a block, where a file is written.
BLOCK = 65_536

#: Bytes of a page of a file: the least that is unpacked of it at once.
PAGE = 65_536

#: Files that are merged at once, and rows of all their blocks together.
FILES, ROWS = 200, 200_000


def write_blocks(path: Path, blocks: Iterable[pa.Table]) -> None:
    """Write blocks to a file, whole or not at all."""
    # No dictionary: each key is there once, and whoever reads would hold it.
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, COUNTED, compression="zstd", use_dictionary=False, data_page_size=PAGE) as writer,
    ):
        for block in blocks:
            writer.write_table(block, row_group_size=BLOCK)


def read_blocks(path: Path, rows: int = BLOCK) -> Blocks:
    """The blocks of a file, of at most `rows` rows.

    Raises:
        DataError: it is no such file.
    """
    try:
        # By itself Arrow reads a file whole before it gives the first batch.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE) as file:
            for batch in file.iter_batches(rows, use_threads=False):
                yield pa.Table.from_batches([batch], COUNTED)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as counts ({error}); delete it and build again.") from None


def merged(paths: Sequence[Path]) -> Blocks:
    """The counts of files added up, as blocks in the same order."""
    if len(paths) <= FILES:
        yield from _merged([read_blocks(path, max(1000, ROWS // max(len(paths), 1))) for path in paths])
        return
    with TemporaryDirectory(dir=paths[0].parent, suffix=TEMPORARY) as folder:
        parts = [Path(folder, str(at)) for at in range(0, len(paths), FILES)]
        for at, part in enumerate(parts):
            write_blocks(part, merged(paths[at * FILES : (at + 1) * FILES]))
        yield from merged(parts)


def _merged(streams: Sequence[Blocks]) -> Blocks:
    heads = [(block, stream) for stream in streams if (block := next(stream, None))]
    while heads:
        # Up to the least of the blocks' last keys, all rows of all files are in memory.
        bound = min(block.column("key")[-1].as_py() for block, _ in heads)
        taken, rest = [], []
        for block, stream in heads:
            keys = block.column("key")
            at = bisect_right(keys, bound, key=methodcaller("as_py"))
            taken.append(block.slice(0, at))
            if left := block.slice(at) if at < len(block) else next(stream, None):
                rest.append((left, stream))
        heads = rest
        yield taken[0] if len(taken) == 1 else _added(pa.concat_tables(taken))


def _added(rows: pa.Table) -> pa.Table:
    summed = rows.group_by("key", use_threads=False).aggregate([("count", "sum")])
    return summed.rename_columns(["key", "count"]).sort_by("key")


def merge_runs(runs: Sequence[Path], path: Path) -> None:
    """Merge runs into one file and remove them."""
    write_blocks(path, merged(runs))
    for run in runs:
        run.unlink()


def top(blocks: Blocks, share: float, cap: int) -> list[tuple[str, int]]:
    """The most frequent `share` of the distinct keys, at most `cap`; by falling count, then by code points."""
    kept = COUNTED.empty_table()
    distinct = 0
    for block in blocks:
        distinct += len(block)
        kept = pa.concat_tables([kept, block])
        if len(kept) > 2 * cap + BLOCK:
            kept = ranked(kept, "count", cap)
    kept = ranked(kept, "count", min(cap, ceil_share(distinct, share)))
    return list(zip(kept.column("key").to_pylist(), kept.column("count").to_pylist(), strict=True))


def ranked(rows: pa.Table, by: str, most: int) -> pa.Table:
    """The rows of highest value in the column `by`; equal ones by the code points of their key."""
    return rows.sort_by([(by, "descending"), ("key", "ascending")]).slice(0, most).combine_chunks()


def ceil_share(number: int, share: float) -> int:
    """So much of a number, rounded up: of eleven words, 10 % is two."""
    return -int(-number * share // 1)
