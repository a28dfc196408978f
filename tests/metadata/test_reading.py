"""How far a file is read, told in bytes of it on the disk by every reader; XML made to grow without bound."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import xml

from worldclip.errors import DataError
from worldclip.metadata.concepts import own_concepts
from worldclip.metadata.reading import READING, telling, told
from worldclip.metadata.titles import views
from worldclip.metadata.wikipedia import articles
from worldclip.metadata.wordnet import lmf_lemmas, omw_lemmas, princeton_lemmas

#: Such that no compression makes little of them.
WORDS = [random.Random(at).randbytes(30).hex() for at in range(20_000)]

LEXICON = "".join(f'<LexicalEntry><Lemma writtenForm="{word}"/></LexicalEntry>' for word in WORDS)


def parquet(path: Path, **columns: list[str]) -> None:
    pq.write_table(pa.table(columns), path, row_group_size=1000)


def tabled(path: Path) -> None:
    parquet(path, lang=["sw"] * len(WORDS), entry=WORDS)


def written(content: str | bytes, pack: Callable[[bytes], bytes] = bytes) -> Callable[[Path], Any]:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda path: path.write_bytes(pack(raw))


DUMP = xml([(word, word) for word in WORDS])
CIRRUS = "\n".join(json.dumps({"namespace": 0, "title": word, "text": word}) for word in WORDS)
READERS: dict[str, tuple[Callable[..., Iterator[Any]], Callable[[Path], Any]]] = {
    "a.xml": (articles, written(DUMP)),
    "a.xml.bz2": (articles, written(DUMP, bz2.compress)),
    "a.xml.gz": (articles, written(DUMP, gzip.compress)),
    "a.json.gz": (articles, written(CIRRUS, gzip.compress)),
    "a.parquet": (articles, lambda path: parquet(path, title=WORDS, text=WORDS)),
    "views.gz": (views, written("".join(f"en {word} 1 0\n" for word in WORDS), gzip.compress)),
    "views.bz2": (views, written("".join(f"en {word} 1 0\n" for word in WORDS), bz2.compress)),
    "lmf.xml": (lmf_lemmas, written(f"<LexicalResource>{LEXICON}</LexicalResource>")),
    "lmf.xml.xz": (lmf_lemmas, written(f"<LexicalResource>{LEXICON}</LexicalResource>", lzma.compress)),
    "own.csv": (own_concepts, written("lang,entry\n" + "".join(f"sw,{word}\n" for word in WORDS))),
    "own.sw.txt": (own_concepts, written("\n".join(WORDS))),
    "own.parquet": (own_concepts, tabled),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_tells_how_far_it_is(tmp_path: Path, name: str) -> None:
    read, write = READERS[name]
    path = tmp_path / name
    write(path)
    heard = []
    with telling(tmp_path / f"a{READING}", pace=0.0):
        for at, _ in enumerate(read(path, Counter())):
            if at % 100 == 0:
                heard.append(told(tmp_path))
        assert at == len(WORDS) - 1
        assert told(tmp_path) == path.stat().st_size
    assert all(before <= after for before, after in pairwise(heard))
    assert any(0 < count < path.stat().st_size for count in heard)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "read"), [("wn-data-fin.tab", omw_lemmas), ("data.noun", princeton_lemmas)])
def test_readers_that_add_up_first_tell_it_too(tmp_path: Path, name: str, read: Callable[..., Iterator[Any]]) -> None:
    (tmp_path / name).write_text("".join(f"1-n\tfin:lemma\t{word}\n" for word in WORDS))
    with telling(tmp_path / f"a{READING}", pace=0.0):
        next(read(tmp_path / name, Counter()), None)
        assert told(tmp_path) == (tmp_path / name).stat().st_size


def test_several_readers_add_up_and_small_files_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(xml([("A", "a")]))
    for name, count in (("b", 3), ("c", 4)):
        (tmp_path / f"{name}{READING}").write_text(str(count))
    with telling(tmp_path / f"a{READING}"):
        assert list(articles(tmp_path / "a.xml", Counter())) == [("A", "a")]
        assert told(tmp_path) == 7


def test_no_work_fails_for_its_progress(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(xml([("A", "a")]))
    with telling(tmp_path / "gone" / f"a{READING}", pace=0.0):
        assert list(articles(tmp_path / "a.xml", Counter())) == [("A", "a")]


@pytest.mark.parametrize(("read", "root"), [(articles, "mediawiki"), (lmf_lemmas, "LexicalResource")])
def test_elements_without_end_are_refused(tmp_path: Path, read: Callable[..., Iterator[Any]], root: str) -> None:
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(f"<{root}>".encode() + b"<a>" * 200_000))
    with pytest.raises(DataError, match="more than 100 elements inside each other"):
        list(read(tmp_path / "a.xml.bz2", Counter()))


def test_namespaces_without_end_do_not_hang(tmp_path: Path) -> None:
    names = "".join(f'<namespace key="6">{at}</namespace>' for at in range(200_000))
    (tmp_path / "a.xml").write_bytes(xml([("A", "a")], names))
    assert list(articles(tmp_path / "a.xml", Counter())) == [("A", "a")]
