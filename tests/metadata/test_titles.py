"""Page views: lines of the hourly and the daily files, junk, sums by Wikipedia in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import random
from collections import Counter
from pathlib import Path

import pytest

from worldclip.errors import DataError
from worldclip.metadata.counts import read_blocks
from worldclip.metadata.titles import count_views, views, wikipedia_of

LINES = [
    b"en Dog 3 0", b"en.m Dog 2 0", b"en.b Dog 9 0", b"zh-yue \xe9\xa6\x99\xe6\xb8\xaf 4 0", b"en A:B 1 0",
    b"en Zero 0 0", b"junk", b"\xff\xfe x 1 0", b"en x -1 0", b"en " + b"y" * 20000 + b" 1 0", b"en - 9 0",
    b"sw.wikipedia Mbwa 12 mobile-web 7 A7", b"sw.wikipedia Mbwa null desktop 1 B1", b"commons.m F 5 0",
    b"sw.wikipedia Paka desktop 2 C2", b"en 1e999 9999999999999999999 0", b'"" x 1 0', b"en a b c d e f", b"",
]  # fmt: skip


def test_lines(tmp_path: Path) -> None:
    content = b"\n".join(LINES)
    for name, packed in (("a.gz", gzip.compress(content)), ("a.bz2", bz2.compress(content)), ("a", content)):
        (tmp_path / name).write_bytes(packed)
        set_aside: Counter[str] = Counter()
        assert list(views(tmp_path / name, set_aside)) == [
            ("en", "Dog", 3), ("en", "Dog", 2), ("zh_yue", "香港", 4), ("sw", "Mbwa", 7), ("sw", "Mbwa", 1),
            ("sw", "Paka", 2),
        ]  # fmt: skip
        assert set_aside == {
            "t: malformed line": 6, "t: other project": 3, "t: title with a colon": 1, "t: no views": 1,
            "t: no title": 1,
        }  # fmt: skip
        assert set_aside.total() + 6 == len(LINES) - 1


def test_junk_is_counted_and_ends(tmp_path: Path) -> None:
    rng = random.Random(1)
    (tmp_path / "a").write_bytes(rng.randbytes(500_000) + b"en Dog 1 0\n" + b"x" * 3_000_000)
    set_aside: Counter[str] = Counter()
    assert list(views(tmp_path / "a", set_aside)) == []
    assert set_aside["t: malformed line"] > 1000
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"en Dog 1 0\n" * 9999)[:-12])
    with pytest.raises(DataError, match="cut short"):
        list(views(tmp_path / "a.gz", set_aside))


@pytest.mark.parametrize(
    ("project", "code"),
    [
        ("en", "en"), ("en.m", "en"), ("en.zero", "en"), ("en.wikipedia", "en"), ("zh-min-nan.m", "zh_min_nan"),
        ("yue", "zh_yue"), ("be-x-old.m", "be_tarask"), ("simple", "simple"), ("other", None), ("en.d", None),
        ("commons.m", None), ("en.m.b", None), ("www.w", None), ("", None),
    ],
)  # fmt: skip
def test_project_codes(project: str, code: str | None) -> None:
    assert wikipedia_of(project) == code


def test_sums_are_exact_whatever_the_memory(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [(rng.choice(["en", "sw"]), f"T{rng.randrange(300)}", rng.randrange(1, 9)) for _ in range(5000)]
    expected: dict[str, Counter[str]] = {"en": Counter(), "sw": Counter()}
    for code, title, number in rows:
        expected[code][title] += number
    for most in (400, 10**6):
        folder = tmp_path / str(most)
        folder.mkdir()
        assert count_views(rows, folder, most) == ["en", "sw"]
        assert sorted(path.name for path in folder.iterdir()) == ["en.parquet", "sw.parquet"]
        for code, titles in expected.items():
            found = [row for block in read_blocks(folder / f"{code}.parquet") for row in block.to_pylist()]
            assert {row["key"]: row["count"] for row in found} == titles
