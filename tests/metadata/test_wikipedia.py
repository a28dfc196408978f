"""Dumps in all their forms, and files that are none."""

from __future__ import annotations

import bz2
import gzip
import json
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import BOMB, read, real_dumps, xml

from worldclip.errors import DataError, MissingData
from worldclip.metadata import wikipedia

PAGES = [("Mbwa", "Mbwa ni mnyama."), ("Paka", "Paka pia.")]


def test_forms_of_a_dump_give_the_same_articles(tmp_path: Path) -> None:
    raw = xml(PAGES, "<page><title>R</title><ns>0</ns><redirect title='x'/><text>y</text></page>"
                     "<page><title>S</title><ns>0</ns><text>#REDIRECT [[x]]</text></page>"
                     "<page><title>E</title><ns>0</ns><text/></page>"
                     "<page><title>T:R</title><ns>1</ns><text>y</text></page>")  # fmt: skip
    cuts = [0, len(raw) // 3, len(raw) // 2, len(raw)]
    streams = b"".join(bz2.compress(raw[start:end]) for start, end in pairwise(cuts))
    for name, content in (
        ("a.xml", raw),
        ("a.xml.gz", gzip.compress(raw)),
        ("a.xml.bz2", bz2.compress(raw)),
        ("multistream.xml.bz2", streams),
        ("b.xml", raw.decode().encode("utf-16")),
    ):
        (tmp_path / name).write_bytes(content)
        found, set_aside = read(tmp_path / name)
        assert found == PAGES
        assert set_aside == {
            "article: redirect": 2, "article: other namespace": 1, "article: without title or text": 1
        }  # fmt: skip


def test_files_and_categories_are_known_by_the_names_of_the_dump(tmp_path: Path) -> None:
    names = "<siteinfo><namespaces><namespace key='6'>Picha</namespace></namespaces></siteinfo>"
    (tmp_path / "a.xml").write_bytes(xml([("A", "[[Picha:x.jpg|no]] a [[picha:y.jpg]] [[Mbwa]]")], names))
    assert read(tmp_path / "a.xml")[0] == [("A", "a Mbwa")]


def test_cirrus(tmp_path: Path) -> None:
    lines = [
        json.dumps(row)
        for title, text in [*PAGES, ("half \ud83d", "a \udc00 b")]
        for row in ({"index": {}}, {"namespace": 0, "title": title, "text": text})
    ]
    junk = [
        "{",
        '{"title":"x"}',
        "[1]",
        '{"namespace":0,"title":"x","text":7}',
        '{"namespace":4,"title":"x"}',
        "[" * 99999,
    ]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress("\n".join([*lines, *junk]).encode()))
    found, set_aside = read(tmp_path / "a.json.gz")
    assert found == [*PAGES, ("half \ufffd", "a \ufffd b")]
    assert set_aside == {"article: malformed line": 4, "article: other namespace": 2}


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    rows = {
        "id": ["1", "2", "3"], "url": ["u"] * 3, "title": ["Mbwa", "Paka", None], "text": [*(t for _, t in PAGES), "x"],
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (PAGES, {"article: null or too long": 1})
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no column title"):
        read(tmp_path / "b.parquet")
    texts = pa.array(["Bär".encode("latin-1")]).view(pa.string())
    pq.write_table(pa.table({"title": ["x"], "text": texts}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read as Parquet.*utf-8"):
        read(tmp_path / "d.parquet")
    pq.write_table(pa.table({"title": [1], "text": [2]}), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet") == ([], {"article: null or too long": 1})


def test_articles_that_are_too_long_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "LONGEST_PAGE", 1000)
    monkeypatch.setattr(wikipedia, "_LONGEST_LINE", 5000)
    (tmp_path / "a.xml").write_bytes(xml([("long", "x" * 1001), *PAGES]))
    assert read(tmp_path / "a.xml")[0] == PAGES
    assert read(tmp_path / "a.xml")[1]["article: too long"] == 1
    rows = [{"namespace": 0, "title": "x", "text": "y" * length} for length in (1000, 1001, 9000)]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, rows)))
    assert len(read(tmp_path / "a.json")[0]) == 1
    assert read(tmp_path / "a.json")[1] == {"article: too long": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", xml(PAGES)[:-30], "no well-formed"),
        ("a.xml", b"", "no well-formed"),
        ("a.xml", b"<mediawiki><page>\xff\xfe</page></mediawiki>", "no well-formed"),
        ("a.xml", b"<?xml version='1.0' encoding='klingon'?><mediawiki/>", "no well-formed"),
        ("a.xml", b"<?xml version='1.0' encoding='gb18030'?><mediawiki/>", "no well-formed"),
        ("a.xml", "<mediawiki>é</mediawiki>".encode("latin-1"), "no well-formed"),
        ("a.xml", xml([("A", "&b;")], head=BOMB), "document type"),
        ("a.xml", b"<mediawiki " + b"a" * 2_000_000, "tag of more than"),
        ("a.xml", b"<html></html>", "its root is <html>"),
        ("a.xml.bz2", bz2.compress(xml([("A", "x " * 9999)]))[:-20], "cut short"),
        ("a.xml.bz2", bz2.compress(xml(PAGES)) + bz2.compress(b"x" * 9999)[:-9], "cut short"),
        ("a.xml.gz", gzip.compress(xml(PAGES))[:-9], "cut short"),
        ("a.xml.gz", gzip.compress(xml(PAGES)) + b"junk", "damaged"),
        ("a.xml.bz2", b"no bz2", "damaged"),
        ("a.parquet", b"no parquet", "Parquet"),
        ("a.json", b"{\nx\n", "no page"),
    ],
)
def test_broken_dumps_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        read(tmp_path / name)
    assert name in str(told.value)


def test_a_dump_that_is_not_there(tmp_path: Path) -> None:
    for name in ("a.xml", "a.json.gz", "a.parquet"):
        with pytest.raises(MissingData, match="not found"):
            read(tmp_path / name)


def test_memory_is_of_one_page(tmp_path: Path) -> None:
    page = ("A", "word " * 20_000)
    peaks = []
    for pages in (20, 200):
        (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(xml([page] * pages), 1))
        tracemalloc.start()
        assert sum(1 for _ in wikipedia.articles(tmp_path / "a.xml.bz2", Counter())) == pages
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 8_000_000


@pytest.mark.packages
def test_real_dumps() -> None:
    articles, set_aside = [], Counter[str]()
    for path in real_dumps():
        found, left_out = read(path)
        articles += found
        set_aside += left_out
    assert len(articles) == 112
    assert set_aside == {"article: redirect": 99, "article: other namespace": 3}
    text = next(text for title, text in articles if title == "Григориански календар")
    assert text.startswith("Григорианският календар")
