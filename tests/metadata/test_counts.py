"""Files of counts: merged by blocks, the top of them, files that are none."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.errors import DataError
from worldclip.metadata import counts
from worldclip.metadata.counts import COUNTED, ceil_share, merge_runs, merged, read_blocks, top, write_blocks


def written(path: Path, content: dict[str, int]) -> Path:
    write_blocks(path, [pa.table([list(content), list(content.values())], schema=COUNTED).sort_by("key")])
    return path


files = st.lists(st.dictionaries(st.text("abß猫\U0001f600", max_size=3), st.integers(1, 9), max_size=9), max_size=7)


@given(files, st.integers(2, 4), st.integers(1, 9))
def test_merged_is_the_sum(
    tmp_path_factory: pytest.TempPathFactory, contents: list[dict[str, int]], at_once: int, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = [written(folder / f"run-{at}", content) for at, content in enumerate(contents)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "FILES", at_once)  # so that files are merged in two steps and more
        patch.setattr(counts, "ROWS", rows)
        keys = [key for block in merged(paths) for key in block.column("key").to_pylist()]
        assert keys == sorted({key for content in contents for key in content})
        merge_runs(paths, folder / "all")
    expected = sum(map(Counter, contents), start=Counter[str]())
    assert {row["key"]: row["count"] for block in read_blocks(folder / "all") for row in block.to_pylist()} == expected
    assert [path.name for path in folder.iterdir()] == ["all"]


def test_blocks_are_merged_by_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "ROWS", 1)  # a thousand rows a file, the least
    paths = [written(tmp_path / f"{at}", {f"{key:05d}": at + 1 for key in range(at, 20_000, 3)}) for at in range(4)]
    blocks = list(merged(paths))
    assert max(map(len, blocks)) <= 4000
    rows = [row for block in blocks for row in block.to_pylist()]
    assert [row["key"] for row in rows] == [f"{key:05d}" for key in range(20_000)]
    assert [row["count"] for row in rows] == [
        [1, 2, 3][key % 3] + 4 * (key % 3 == 0 and key >= 3) for key in range(20_000)
    ]


def test_of_a_file_only_what_is_asked_for_is_in_memory(tmp_path: Path) -> None:
    keys = [hashlib.sha256(str(at).encode()).hexdigest() for at in range(100_000)]
    path = written(tmp_path / "a", dict.fromkeys(keys, 1))
    before = pa.total_allocated_bytes()
    stream = read_blocks(path, 1000)
    assert len(next(stream)) == 1000
    assert pa.total_allocated_bytes() - before < path.stat().st_size / 4


def test_the_top_is_that_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "BLOCK", 10)
    rows = [(f"w{at:03d}", at * 37 % 101) for at in range(200)]
    full = sorted(rows, key=lambda row: (-row[1], row[0]))
    blocks = [pa.table(list(zip(*rows[start : start + 8], strict=True)), schema=COUNTED) for start in range(0, 200, 8)]
    for share, cap, length in ((0.1, 1000, 20), (1.0, 7, 7), (0.101, 1000, 21), (0.0, 5, 0)):
        assert top(iter(blocks), share, cap) == full[:length]
    assert (ceil_share(11, 0.1), ceil_share(10, 0.1), ceil_share(100, 0.76), ceil_share(0, 0.1)) == (2, 1, 76, 0)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as counts"):
        list(read_blocks(tmp_path / "a"))
