"""Opt-outs: by URL, domain and hash, and what pages say of themselves."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from worldclip.errors import DataError, MissingData
from worldclip.hygiene.optout import OptOut, signalled

HASH = "0123456789abcdef" * 4

LIST = f"""\ufeff# wishes
https://Example.com:443/a%20b/../kätze.jpg   # one image
pictures.example.org
*.bücher.example
sha256:{HASH.upper()}
{"f" * 64}
"""


def found(rows: list[dict[str, str | None]], tmp_path: Path) -> list[tuple[str, str, str]]:
    (tmp_path / "list.txt").write_text(LIST, encoding="utf-8")
    table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("id", "url", "sha256")]))
    removed = OptOut.read(tmp_path / "list.txt").found_in(table)
    return [tuple(row.values()) for row in removed.to_pylist()]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/k%C3%A4tze.jpg", "URL"),
        ("HTTPS://EXAMPLE.COM/kätze.jpg#top", "URL"),
        ("http://example.com/kätze.jpg", None),
        ("https://example.com/kätze.jpg?big", None),
        ("https://pictures.example.org/x.png", "domain"),
        ("http://img.Pictures.example.org.:8080/x.png", "domain"),
        ("https://notpictures.example.org/x.png", None),
        ("https://example.org/pictures.example.org", None),
        ("https://xn--bcher-kva.example/1", "domain"),
        ("https://i.BÜCHER.example/1", "domain"),
        ("data:image/png;base64,AAAA", None),
        ("not a url", None),
        (None, None),
    ],
)
def test_which_urls_are_meant(url: str | None, reason: str | None, tmp_path: Path) -> None:
    assert [row[1] for row in found([{"id": "1", "url": url, "sha256": None}], tmp_path)] == (
        [f"opted out by {reason}"] if reason else []
    )


def test_hashes_are_of_the_bytes_and_details_say_which_rule(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [
        {"id": "a", "url": None, "sha256": HASH},
        {"id": "b", "url": "https://pictures.example.org/", "sha256": "F" * 64},
        {"id": "c", "url": None, "sha256": "0" * 64},
    ]
    assert found(rows, tmp_path) == [
        ("a", "opted out by content hash", HASH),
        ("b", "opted out by content hash", "f" * 64),
        ("b", "opted out by domain", "pictures.example.org"),
    ]


def test_columns_that_are_not_there_are_no_wish() -> None:
    assert len(OptOut.parse(["example.com"], "list").found_in(pa.table({"id": ["a"]}))) == 0


@pytest.mark.parametrize("line", ["example.com/path", "ftp://example.com/a", "abcdef", "localhost", "http://", "a b.c"])
def test_a_wrong_line_is_never_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# fine\n{line}\n")
    with pytest.raises(DataError, match=r"list\.txt: line 2 is .*allowed are"):
        OptOut.read(tmp_path / "list.txt")


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.txt"):
        OptOut.read(tmp_path / "none.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8"):
        OptOut.read(tmp_path / "list.txt")


def test_what_pages_say() -> None:
    table = pa.table({"id": ["a", "b", "c"], "noai": [True, False, None], "tdm_reserved": [True, None, False]})
    assert [tuple(row.values()) for row in signalled(table).to_pylist()] == [
        ("a", "opted out by its page (noai)", "noai"),
        ("a", "opted out by its page (tdm_reserved)", "tdm_reserved"),
    ]
