"""Rows to files, files to pairs: whatever the order and the parting, one row an image, judged by plain dicts."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from worldclip.errors import DataError
from worldclip.pairs.merge import MOST_TEXTS, common_schema, merge_bucket
from worldclip.pairs.rows import ROWS, Rows, RowWriter, Tally, normalised, tally_of, url_id

SCHEMA = pa.schema([*ROWS, ("noai", pa.bool_()), ("width", pa.int64())])
KINDS = ("alt", "title", "caption", "zz")


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {"id": f"i{draw.randrange(40)}", "kind": draw.choice(KINDS), "text": f"t{draw.randrange(6)}", "url": None,
         "noai": draw.random() < 0.1, "width": draw.choice([None, draw.randrange(5)])}
        for _ in range(count)
    ]  # fmt: skip


def plainly(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One record an image: each text once under the first of its kinds; any flag, the smallest number."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        texts = kinds[row["id"]]
        texts[row["text"]] = min(
            texts.get(row["text"], row["kind"]), row["kind"], key=("alt", "title", "zz", "caption").index
        )
        image = found.setdefault(row["id"], {"noai": False, "width": None})
        image["noai"] |= row["noai"]
        if row["width"] is not None:
            image["width"] = row["width"] if image["width"] is None else min(image["width"], row["width"])
    return {name: found[name] | {"texts": sorted((kind, text) for text, kind in kinds[name].items())} for name in found}


@pytest.mark.parametrize("files", [1, 2, 5])
def test_any_parting_gives_the_same_pairs(tmp_path: Path, files: int) -> None:
    rows = rows_of(1500, 1)
    random.Random(files).shuffle(rows)
    paths = [tmp_path / f"{number}.parquet" for number in range(files)]
    read = Tally()
    for number, path in enumerate(paths):
        gathered = Rows(SCHEMA)
        with RowWriter(path, SCHEMA, 3) as writer:
            for at, row in enumerate(rows[number::files]):
                gathered.add(row)
                if at % 97 == 0:
                    writer.add(gathered.take())
            writer.add(gathered.take())
            writer.finish(Tally(records=len(rows[number::files])))
        read.merge(tally_of(path))
    tally = Tally()
    tables = [merge_bucket(paths, bucket, SCHEMA, tally) for bucket in range(3)]
    assert all(len(table) for table in tables)
    found = {row["id"]: row for table in tables for row in table.to_pylist()}
    assert sum(map(len, tables)) == len(found)
    expected = plainly(rows)
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert sorted((each["kind"], each["text"]) for each in row["texts"]) == expected[name]["texts"]
        assert (row["noai"], row["width"]) == (expected[name]["noai"], expected[name]["width"])
    # Nothing vanishes: what is not there went into what is.
    texts = sum(len(row["texts"]) for row in found.values())
    assert read.records == texts + sum((read.set_aside + tally.set_aside).values())


def test_texts_beyond_the_limit_of_one_image(tmp_path: Path) -> None:
    table = pa.table({"id": ["logo"] * 100, "kind": ["alt"] * 100, "text": [f"t{n:03d}" for n in range(100)],
                      "url": pa.nulls(100, pa.string())})  # fmt: skip
    with RowWriter(tmp_path / "a.parquet", ROWS, 1) as writer:
        writer.add(table)
        writer.finish(Tally())
    tally = Tally()
    (row,) = merge_bucket([tmp_path / "a.parquet"], 0, ROWS, tally).to_pylist()
    assert [each["text"] for each in row["texts"]] == [f"t{n:03d}" for n in range(MOST_TEXTS)]
    assert tally.set_aside["text: beyond the 64 of one image"] == 36


def test_columns_of_files_that_differ() -> None:
    small, large = (pa.schema([*ROWS, ("width", kind)]) for kind in (pa.int32(), pa.int64()))
    assert common_schema([small, large]).field("width").type == pa.int64()
    with pytest.raises(DataError, match="do not go together"):
        common_schema([small, pa.schema([*ROWS, ("width", pa.list_(pa.int8()))])])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://EXAMPLE.org:80/a/../b c.jpg#part", "http://example.org/b%20c.jpg"),
        ("https://bücher.example/ä?q=ü", "https://xn--bcher-kva.example/%C3%A4?q=%C3%BC"),
        ("  https://example.org  ", "https://example.org/"),
        ("ftp://example.org/a.jpg", None),
        ("no url", None),
        ("http://", None),
        ("https://example.org/" + "x" * 9000, None),
    ],
)
def test_one_spelling_of_a_url(url: str, expected: str | None) -> None:
    assert normalised(url) == expected
    if expected:
        assert normalised(expected) == expected
        assert len(url_id(expected)) == 32
