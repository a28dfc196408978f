"""Images that are alike, over all files: by a value (bytes, URL), by near codes, and with evaluation images.

    values       8 bytes of each row, from every file; the driver finds those that more than one row has
    involved     the rows that have one of these, with their ids
    removals     of the involved rows alone (`hygiene.dedup`)

Near codes have one step more: the distinct codes are indexed, and looked up in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldclip.clean.steps import Steps
from worldclip.curation.sample import id_keys
from worldclip.hygiene.codes import CodeIndex
from worldclip.hygiene.dedup import exact_copies, leaks, near_copies
from worldclip.storage import read_table, replacing, write_table

#: What stands for null among the 64-bit values of strings.
_NULL = np.uint64(0)
_NONE = np.zeros(0, np.uint64)

#: Codes that one task looks up.
LOOK_UPS = 2**20


def same_values(steps: Steps, column: str, reason: str, files: Sequence[Path], keys: Sequence[Path]) -> pa.Table:
    """Removals of all rows but one of those that share a string in `column`; `keys` is what `write_keys` wrote."""
    values, counted = np.unique(np.concatenate([_NONE, *map(_read, keys)]), return_counts=True)
    values = values[(counted > 1) & (values != _NULL)]
    table = pa.table({"id": pa.array([], pa.string()), column: pa.array([], pa.string())})
    if len(values):
        shared = steps.folder / f"{column}-shared.npy"
        _write(shared, values)
        involved = steps.run(f"{column}-involved", _involved, list(zip(files, keys, strict=True)), column, shared)
        table = pa.concat_tables([read_table(path) for path in involved])
    return exact_copies(table.column("id").combine_chunks(), table.column(column).combine_chunks(), reason)


def near_images(steps: Steps, looks: Sequence[Path], radius: int) -> pa.Table:
    """Removals such that no two images that stay have codes within `radius` bits."""
    codes, counted = np.unique(np.concatenate([_codes(path) for path in looks]), return_counts=True)
    first = second = np.zeros(0, np.uint64)
    if radius:
        CodeIndex.build(codes).save(steps.folder / "index")
        spans = [(start, min(start + LOOK_UPS, len(codes))) for start in range(0, len(codes), LOOK_UPS)]
        pairs = [_read(path) for path in steps.run("near", _near, spans, steps.folder / "index", radius)]
        first, second = np.concatenate([*pairs, np.zeros((2, 0), np.uint64)], axis=1)
    shared = steps.folder / "near-shared.npy"
    _write(shared, np.unique(np.concatenate([codes[counted > 1], first, second])))
    involved = steps.run("near-involved", _involved_codes, looks, shared)
    table = pa.concat_tables([read_table(path) for path in involved]).combine_chunks()
    return near_copies(table.column("id").combine_chunks(), table.column("code").to_numpy(), first, second)


def evaluation_images(steps: Steps, looks: Sequence[Path], evaluation: Sequence[Path], radius: int) -> list[pa.Table]:
    """Removals of images whose code is within `radius` bits of an evaluation image's; a table a file of looks."""
    folder = steps.folder / "evaluation"
    CodeIndex.build(np.concatenate([_codes(path) for path in evaluation])).save(folder)
    names = folder / "names.parquet"
    write_table(names, pa.concat_tables([read_table(path, ["id"]) for path in evaluation]))
    return [read_table(path) for path in steps.run("evaluation", _leaks, looks, folder, names, radius)]


def keys_of(output: Path) -> Path:
    """Where the task that writes `output` writes the keys of its file."""
    return output.with_name(f"{output.name}-keys.npy")


def write_keys(table: pa.Table, column: str, output: Path) -> None:
    """Write 64 bits of each string, before `output` itself; nothing equal to anything where there is no column."""
    values = table.column(column).to_pylist() if column in table.column_names else [None] * len(table)
    keys = id_keys(value or "" for value in values)
    keys[[value is None for value in values]] = _NULL
    _write(keys_of(output), keys)


def _involved(file: tuple[Path, Path], column: str, shared: Path, out: Path) -> None:
    path, keys = file
    table = read_table(path, ["id", column])
    write_table(out, table.filter(pa.array(np.isin(_read(keys), _read(shared)))))


def _involved_codes(path: Path, shared: Path, out: Path) -> None:
    write_table(out, read_table(path, ["id", "code"]).filter(pa.array(np.isin(_codes(path), _read(shared)))))


def _near(span: tuple[int, int], index: Path, radius: int, out: Path) -> None:
    """Codes of a span that are near ones that come later: uint64 [2, pairs]."""
    tables = CodeIndex.open(index)
    start, stop = span
    rows, found = tables.near(tables.codes[start:stop], radius)
    later = found > rows + start
    _write(out, np.stack([tables.codes[rows[later] + start], tables.codes[found[later]]]))


def _leaks(looks: Path, index: Path, names: Path, radius: int, out: Path) -> None:
    ids = read_table(looks, ["id"]).column("id").combine_chunks()
    evaluation = read_table(names).column("id").combine_chunks()
    write_table(out, leaks(ids, _codes(looks), CodeIndex.open(index), evaluation, radius))


def _codes(path: Path) -> np.ndarray:
    codes: np.ndarray = read_table(path, ["code"]).column("code").to_numpy()
    return codes


def _write(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _read(path: Path) -> np.ndarray:
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found
