"""From curated texts and WebDataset tars of their images to what training reads (`loader/shards.py`).

The tars stay as they are: those of `worldclip pairs packaged`, of img2dataset, or any others whose samples are named by
the id of their image. Beside them comes an index: where each image lies, its candidate texts and the entries that they
match. The entries' probabilities are one array, so other thresholds are other numbers in one file.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation import entry_probability
from worldclip.curation.sample import id_keys
from worldclip.engines import Engine, Task
from worldclip.errors import DataError, MissingData
from worldclip.loader.shards import DATASET, PROBABILITY, SHARD, TEXT
from worldclip.pairs.rows import normalised, url_id
from worldclip.pairs.tables import IMAGE_SUFFIXES
from worldclip.storage import read_json, read_table, replacing, write_json

_PLACE = np.dtype([("key", "<u8"), ("shard", "<i4"), ("row", "<i4")])
_PLACES = "places.npy"


def index_shards(
    images: Sequence[str],
    curated: Path,
    folder: Path,
    *,
    engine: Engine,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Index tars of images for training; what is done in `folder` is kept.

    Args:
        images: paths or URLs of uncompressed tars.
        curated: folder that `curate` wrote. Its ids take 16 bytes an image of memory while this runs.

    Returns:
        What `dataset.json` holds: `shards` (images, samples, texts), `set_aside` by reason, `english_share`, `draw`.

    Raises:
        MissingData: no tar, or nothing curated.
        ShardsFailed: a tar cannot be opened at all.
    """
    matches = sorted(curated.glob("matches-*.parquet"))
    if not images or not matches:
        raise MissingData(f"Nothing to index: {len(images)} tars, {len(matches)} shards of matches in {curated}.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_array(folder / _PLACES, _places(matches))
    thresholds = read_table(curated / "thresholds.parquet")
    limits = dict(zip(thresholds.column("lang").to_pylist(), thresholds.column("t").to_pylist(), strict=True))
    with np.load(curated / "counts.npz", allow_pickle=False) as counts:
        lists = {name: entry_probability(limits[name], counts[name]) for name in sorted(counts.files)}
    _write_array(folder / PROBABILITY, np.concatenate(list(lists.values())))
    first = dict(zip(lists, np.cumsum([0, *map(len, lists.values())])[:-1].tolist(), strict=True))
    outputs = [folder / f"shard-{number:05d}.arrow" for number in range(len(images))]
    tasks = [
        Task(name=tar, function=_index_tar, arguments=(tar, tuple(matches), first, folder / _PLACES, out), output=out)
        for tar, out in zip(images, outputs, strict=True)
    ]
    engine.run(tasks, partial(report, "index") if report else None)
    (folder / _PLACES).unlink()
    set_aside: Counter[str] = Counter()
    shards, by_kind = [], False
    for tar, out in zip(images, outputs, strict=True):
        told = json.loads(pa.ipc.open_file(pa.memory_map(str(out))).schema.metadata[b"worldclip.index"])
        set_aside.update(told["set_aside"])
        by_kind = by_kind or told["by_kind"]
        shards.append({"images": tar, "samples": told["samples"], "texts": told["texts"]})
    about = {
        "shards": shards,
        "set_aside": dict(sorted(set_aside.items())),
        "english_share": read_json(curated / "summary.json")["english_share"],
        "draw": "by_kind" if by_kind else "uniform",
    }
    write_json(folder / DATASET, about)
    return about


def expanded(patterns: Sequence[str]) -> list[str]:
    """Tars that paths, URLs and patterns name, sorted.

    Raises:
        MissingData: a pattern names none.
    """
    found: list[str] = []
    for pattern in patterns:
        if not any(mark in pattern for mark in "*?["):
            found.append(pattern)
            continue
        store, path = fsspec.core.url_to_fs(pattern)
        named = [store.unstrip_protocol(each) if "://" in pattern else each for each in store.glob(path)]
        if not named:
            raise MissingData(f"{pattern}: names no tar.")
        found += named
    return sorted(found)


def _write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _places(matches: Sequence[Path]) -> np.ndarray:
    """Shard and row of each image, by its id and, where there is such a column, its key; sorted."""
    parts = []
    for number, path in enumerate(matches):
        columns = [name for name in ("id", "key") if name in pa.parquet.read_schema(path).names]
        table = read_table(path, columns)
        for name in columns:
            part = np.empty(len(table), _PLACE)
            part["key"] = id_keys(table.column(name).to_pylist())
            part["shard"], part["row"] = number, np.arange(len(table))
            parts.append(part)
    return np.sort(np.concatenate(parts), order="key", kind="stable")


@dataclass(frozen=True, kw_only=True)
class _Member:
    """An image of a tar: the id it goes by, and where its bytes are."""

    id: str
    offset: int
    size: int


def _members(url: str, set_aside: Counter[str]) -> Iterator[_Member]:
    """The images of a tar in their order; of a tar that is cut short, those that are whole."""
    with fsspec.open(url, "rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        name, image, record = None, None, b""
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    key, _, suffix = member.name.rpartition("/")[2].partition(".")
                    if key != name:
                        yield from _member(name, image, record)
                        name, image, record = key, None, b""
                    if not member.isreg() or member.offset_data + member.size > end:
                        continue
                    if suffix.lower() in IMAGE_SUFFIXES:
                        image = (member.offset_data, member.size)
                    elif suffix == "json":
                        content = tar.extractfile(member)
                        record = content.read() if content else b""
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes some cuts for the end
                    raise EOFError
        except (tarfile.TarError, EOFError):
            set_aside[f"{url}: damaged or cut short, the rest is lost"] += 1
        yield from _member(name, image, record)


def _member(name: str | None, image: tuple[int, int] | None, record: bytes) -> Iterator[_Member]:
    """The sample that has been read: its id is its JSON's `id`, else that of its `url`, else its name."""
    if name is None or image is None:
        return
    try:
        told = json.loads(record)
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    url = normalised(told["url"]) if isinstance(told.get("url"), str) else None
    own = told["id"] if isinstance(told.get("id"), str) else None
    yield _Member(id=own or (url and url_id(url)) or name, offset=image[0], size=image[1])


def _index_tar(tar: str, matches: tuple[Path, ...], first: dict[str, int], places: Path, out: Path) -> None:
    """Write the index of one tar."""
    set_aside: Counter[str] = Counter()
    members = list(_members(tar, set_aside))
    known = np.load(places, mmap_mode="r", allow_pickle=False)
    keys = id_keys(member.id for member in members)
    at = np.minimum(np.searchsorted(known["key"], keys), len(known) - 1)
    found = np.flatnonzero(known["key"][at] == keys)
    set_aside["images without pairs"] += len(members) - len(found)
    where = known[at[found]]
    parts, order, by_kind = (
        [pa.table({"id": [], "texts": []}, pa.schema([SHARD.field("id"), SHARD.field("texts")]))],
        [],
        False,
    )
    for shard in np.unique(where["shard"]).tolist():
        own = np.flatnonzero(where["shard"] == shard)
        table, turns = _candidates(matches[shard], first)
        by_kind = by_kind or turns
        parts.append(table.take(pa.array(where["row"][own])))
        order.append(own)
    table = pa.concat_tables(parts).combine_chunks()
    place = np.concatenate([np.zeros(0, np.int64), *order])
    rows = found[place]
    table = pa.table(
        {
            "id": table.column("id"),
            "key": pa.array(id_keys(table.column("id").to_pylist()), pa.uint64()),
            "offset": pa.array([members[row].offset for row in rows], pa.int64()),
            "size": pa.array([members[row].size for row in rows], pa.int64()),
            "texts": table.column("texts"),
        },
        SHARD,
    ).take(pa.array(np.argsort(place)))
    table = table.filter(pc.greater(pc.list_value_length(table.column("texts")), 0)).combine_chunks()
    set_aside["images without a matched text"] += len(rows) - len(table)
    told = {
        "samples": len(table),
        "texts": int(pc.sum(pc.list_value_length(table.column("texts"))).as_py() or 0),
        "by_kind": by_kind,
        "set_aside": dict(+set_aside),
    }
    schema = SHARD.with_metadata({"worldclip.index": json.dumps(told)})
    with replacing(out) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_table(table.cast(schema), max_chunksize=max(1, len(table)))


def _candidates(matches: Path, first: dict[str, int]) -> tuple[pa.Table, bool]:
    """`id` and `texts` (those with a match) of each image, and whether their turns are other than even."""
    table = read_table(matches, ["id", "texts"])
    lists = table.column("texts").combine_chunks()
    flat, rows = lists.flatten(), pc.list_parent_indices(lists)
    matched = pc.greater(pc.list_value_length(flat.field("matches")).fill_null(0), 0)
    flat, rows = flat.filter(matched), rows.filter(matched).to_numpy()
    curated = matches.with_name(matches.name.replace("matches-", "curated-", 1))
    turns = read_table(curated, ["draw_probability"]).column("draw_probability").to_numpy()
    if len(turns) != len(flat):
        raise DataError(f"{curated}: has {len(turns)} texts, not the {len(flat)} of {matches.name}. Curate again.")
    # The list of a text is its language's, or the only one there is.
    only = next(iter(first)) if len(first) == 1 else None
    starts = np.array([first[only or lang] for lang in flat.field("lang").to_pylist()], np.int64)
    ids = (
        flat.field("matches").combine_chunks()
        if isinstance(flat.field("matches"), pa.ChunkedArray)
        else flat.field("matches")
    )
    lengths = ids.value_lengths().to_numpy()
    values = ids.flatten().to_numpy().astype(np.int64) + np.repeat(starts, lengths)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    texts = pa.StructArray.from_arrays(
        [
            flat.field("text"),
            pa.array(id_keys(flat.field("text").to_pylist()), pa.uint64()),
            pa.array(turns),
            pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.uint32))),
        ],
        fields=list(TEXT),
    )
    count = np.bincount(rows, minlength=len(table))
    ends = pa.array(np.concatenate([[0], np.cumsum(count)]).astype(np.int32))
    even = bool(np.allclose(turns, 1 / np.repeat(count, count)))
    whole = pa.ListArray.from_arrays(ends, texts, type=SHARD.field("texts").type)
    return pa.table({"id": table.column("id"), "texts": whole}), not even
