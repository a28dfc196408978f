"""Pairs from crawls and tables, on an engine: read each source, then bring the rows of each image together.

    <out>/rows/*.parquet           one file a source: its rows, parted by image; removed at the end
    <out>/pairs-*.parquet          the pairs; an image's shard is a hash of its id
    <out>/summary.json             what went in, what came out, what was set aside and why

Each source and each shard of pairs is a task; the same command after kill -9 goes on where it stopped. The same sources
give the same bytes, in whatever order they are named and however many workers there are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip.curation.sample import id_keys
from worldclip.engines import Engine, Task
from worldclip.errors import DataError, InputError, MissingData
from worldclip.pairs.crawl import CRAWL_ROWS, read_archive
from worldclip.pairs.merge import common_schema, merge_bucket
from worldclip.pairs.rows import TALLY_KEY, RowWriter, Tally, tally_of
from worldclip.pairs.sources import Source, find_sources, opened
from worldclip.pairs.tables import JSON_ROWS, layout_of, read_json_lines, read_parquet, read_schema, read_tar
from worldclip.schema import as_pairs, check_ids
from worldclip.storage import digest, read_json, read_table, replacing, write_json, write_table

#: Bytes of sources that make a shard of pairs, unless told otherwise: what one worker holds of rows stays below that.
SHARD_BYTES = 256 * 2**20

Report = Callable[[str, int, int], None]


def extract(
    inputs: Sequence[str], out: Path, *, engine: Engine, shards: int | None = None, report: Report | None = None
) -> dict[str, Any]:
    """Read pairs from files, folders, patterns or URLs, write them to `out`, and return the summary.

    Args:
        shards: how many files of pairs; by default one for each 256 MiB of sources.
        report: called with a step's name, tasks done and tasks in all.

    Raises:
        MissingData: an input names nothing that can be read.
        DataError: no table has the columns that are needed, or tables do not go together.
        InputError: `out` holds the pairs of other sources.
        ShardsFailed: some sources could not be read; all others are.
    """
    sources = find_sources(inputs)
    check_tables([source.path for source in sources if source.kind == "parquet"], _check_layout)
    shards = shards or max(1, -(-sum(source.size for source in sources) // SHARD_BYTES))
    key = digest(str(shards), *(f"{source.path} {source.size}" for source in sources))
    question, summary_path = out / "question.json", out / "summary.json"
    if question.exists() and read_json(question)["key"] != key:
        raise InputError(f"{out}: holds the pairs of other sources, or in other shards. Choose another --out.")
    if summary_path.exists():
        return dict(read_json(summary_path))
    write_json(question, {"key": key, "sources": [source.path for source in sources]})

    rows = [out / "rows" / f"{number:06d}.parquet" for number in range(len(sources))]
    engine.run(
        [
            Task(name=source.path, function=_read_source, arguments=(source, shards, path), output=path)
            for source, path in zip(sources, rows, strict=True)
        ],
        partial(report, "read") if report else None,
    )
    schema = common_schema(pq.read_schema(path) for path in rows)
    pairs = [out / f"pairs-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
    engine.run(
        [
            Task(name=path.name, function=_merge, arguments=(tuple(rows), number, schema, path), output=path)
            for number, path in enumerate(pairs)
        ],
        partial(report, "merge") if report else None,
    )
    tally = Tally()
    for path in (*rows, *pairs):
        tally.merge(tally_of(path))
    counted = [_counts(path) for path in pairs]
    summary = {
        "sources": len(sources),
        "bytes": sum(source.size for source in sources),
        "records": tally.records,
        "texts_read": tally.texts,
        "images": sum(images for images, _ in counted),
        "texts": sum(texts for _, texts in counted),
        "set_aside": tally.as_dict()["set_aside"],
        "files_cut_short": [
            source.path
            for source, path in zip(sources, rows, strict=True)
            if any(reason.startswith("file:") for reason in tally_of(path)["set_aside"])
        ],
    }
    write_json(summary_path, summary)
    shutil.rmtree(out / "rows")
    return summary


def _check_layout(path: str) -> None:
    with opened(path) as file:
        layout_of(read_schema(file, path), path)


def check_tables(paths: Sequence[str], check: Callable[[str], None]) -> None:
    """Tell of tables that cannot be used before any work is begun; one good one is enough to begin.

    Raises:
        DataError: none can be used; what is wrong with the first.
    """
    first: DataError | None = None
    for path in paths:
        try:
            check(path)
        except DataError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _read_source(source: Source, buckets: int, out: Path) -> None:
    tally = Tally()
    with opened(source.path) as file, replacing(out) as temporary:
        match source.kind:
            case "parquet":
                schema = layout_of(read_schema(file, source.path), source.path).schema
                tables = read_parquet(file, source.path, tally)
            case "crawl":
                schema, tables = CRAWL_ROWS, read_archive(file, source.size, tally)
            case "jsonl":
                schema, tables = JSON_ROWS, read_json_lines(file, source.path, tally)
            case "tar":
                schema, tables = JSON_ROWS, read_tar(file, source.path, tally)
        with RowWriter(temporary, schema, buckets) as writer:
            for table in tables:
                writer.add(table)
            writer.finish(tally)


def _merge(rows: Sequence[Path], bucket: int, schema: pa.Schema, out: Path) -> None:
    tally = Tally()
    table = merge_bucket(rows, bucket, schema, tally)
    metadata: dict[bytes | str, bytes | str] = {TALLY_KEY: tally.as_json()}
    write_table(out, table.replace_schema_metadata(metadata))


def _counts(path: Path) -> tuple[int, int]:
    lengths = pc.list_value_length(read_table(path, ["texts"]).column("texts"))
    return len(lengths), int(pc.sum(lengths).as_py() or 0)


def check(folder: Path) -> list[dict[str, Any]]:
    """Check Parquet files of pairs, one by one and together: a row of figures a file, `problem` empty if all is well.

    64 bits of each id are held (8 bytes an image), to find images that stand in several files.

    Raises:
        MissingData: there is no Parquet file.
    """
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    if not files or not all(path.is_file() for path in files):
        raise MissingData(f"{folder}: no Parquet file there. Give a file of pairs, or a folder of them.")
    found: list[dict[str, Any]] = []
    seen = np.zeros(0, np.uint64)
    for path in files:
        row: dict[str, Any] = {"file": path.name, "images": 0, "texts": 0, "without text": 0, "null texts": 0,
                               "characters a text": 0.0, "problem": ""}  # fmt: skip
        found.append(row)
        try:
            table = as_pairs(read_table(path), str(path))
            check_ids(table, str(path))
            for name in ("id", "texts"):
                table.column(name).validate(full=True)
        except DataError as error:
            row["problem"] = str(error)
            continue
        except pa.ArrowInvalid as error:
            row["problem"] = f"{path}: {error}"
            continue
        texts = table.column("texts").combine_chunks()
        lengths = pc.utf8_length(texts.flatten().field("text"))
        row |= {
            "images": len(table),
            "texts": len(lengths),
            "without text": int(pc.sum(pc.equal(pc.list_value_length(texts).fill_null(0), 0)).as_py() or 0),
            "null texts": lengths.null_count,
            "characters a text": float(pc.mean(lengths).as_py() or 0),
        }
        keys = id_keys(table.column("id"))
        if repeated := int(np.isin(keys, seen).sum()):
            row["problem"] = f"{path}: {repeated} of its images stand in an earlier file too; ids must be unique."
        seen = np.union1d(seen, keys)
    return found
