"""Readers of wordnets: the formats' own rows, and rows that are none."""

from __future__ import annotations

import lzma
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from dumps import BOMB

from worldclip.errors import DataError
from worldclip.metadata.wordnet import (
    GAP,
    MALFORMED,
    lmf_lemmas,
    multiwordnet_lemmas,
    omw_lemmas,
    princeton_lemmas,
    thai_lemmas,
)


def test_princeton(tmp_path: Path) -> None:
    path = tmp_path / "data.adj"
    path.write_text(
        "  1 This software and database is being provided to you  \n"
        '00019769 00 s 02 handy 0 ready_to_hand(p) 0 002 & 00019169 a 0000 + 04726275 n 0101 | easy; "a spot"\n'
        "00000002 00 s 01 handy 2 000 | useful\n"
        "08970180 15 n 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 The_Hague 0 'hood 0 000 | eleven lemmas\n"
        "00000003 00 s 0g broken 0 000 | no count\n"
        "cut sho\n"
        "00000004 00 s 04 cut 0 short",
        encoding="utf-8",
    )
    set_aside: Counter[str] = Counter()
    assert dict(princeton_lemmas(path, set_aside)) == {
        "handy": 2, "ready_to_hand": 1, "The_Hague": 1, "'hood": 1, **dict.fromkeys("abcdefghi", 1),
    }  # fmt: skip
    assert set_aside == {MALFORMED: 3}


def test_multiwordnet(tmp_path: Path) -> None:
    path = tmp_path / "french_lemma.sql"
    path.write_text(
        "DROP TABLE IF EXISTS french_lemma;\n"
        'INSERT INTO french_lemma VALUES ("n#1","n","6_août","Y");\n'
        'INSERT INTO french_lemma VALUES ("n#2","n","6_août","Y");\n'
        'INSERT INTO french_lemma VALUES ("v#1","2","s\'\'énerver","N");\n'
        'INSERT INTO french_lemma VALUES ("n#3","n","dit ""le Grand""","N");\n'
        'INSERT INTO hebrew_lemma VALUES ("n#4","n","צַ\\\'רְטֶר","N");\n'
        'INSERT INTO french_lemma VALUES ("n#5","n","GAP!","N");\n'
        'INSERT INTO french_lemma VALUES ("n#5","n");\n',
        encoding="utf-8",
    )
    set_aside: Counter[str] = Counter()
    assert dict(multiwordnet_lemmas(path, set_aside)) == {"6_août": 2, "s'énerver": 1, 'dit "le Grand"': 1, "צ'רטר": 1}
    assert set_aside == {MALFORMED: 1, GAP: 1}


def test_thai(tmp_path: Path) -> None:
    path = tmp_path / "wordnet_th.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE word_synset (synsetid text, li text, PRIMARY KEY (synsetid, li))")
        connection.executemany(
            "INSERT INTO word_synset VALUES (?, ?)", [("1-n", "หมา"), ("2-n", "หมา"), ("1-n", "สุนัข"), ("3-n", None)]
        )
    connection.close()
    before = path.read_bytes()
    set_aside: Counter[str] = Counter()
    assert dict(thai_lemmas(path, set_aside)) == {"หมา": 2, "สุนัข": 1}
    assert set_aside == {MALFORMED: 1}
    assert path.read_bytes() == before
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(DataError, match="not the Thai WordNet's database"):
        list(thai_lemmas(path, set_aside))


def test_omw_and_lmf(tmp_path: Path) -> None:
    set_aside: Counter[str] = Counter()
    (tmp_path / "a.tab").write_text("# name\n1-n\tfin:lemma\tkoira\n2-n\tlemma\tkoira\n1-n\tfin:def\t0\tx\nbad\n")
    assert dict(omw_lemmas(tmp_path / "a.tab", set_aside)) == {"koira": 2}
    entry = '<LexicalEntry id="a"><Lemma writtenForm="{}" partOfSpeech="n"/><Sense/><Sense/></LexicalEntry>'
    lexicons = "".join(f'<Lexicon language="{tag}">{entry.format(word)}</Lexicon>' for tag, word in
                       (("als", "qen"), ("nb", "hund"), ("xx", "")))  # fmt: skip
    doctype = '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">'
    (tmp_path / "a.xml").write_text(f"{doctype}<LexicalResource>{lexicons}</LexicalResource>")
    assert list(lmf_lemmas(tmp_path / "a.xml", set_aside)) == [("sq", "qen", 2), ("no", "hund", 2)]
    assert set_aside == {"w: malformed row": 2}
    (tmp_path / "a.xml").write_text(f"{BOMB.replace(' x ', ' LexicalResource ')}<LexicalResource/>")
    with pytest.raises(DataError, match="declares an entity"):
        list(lmf_lemmas(tmp_path / "a.xml", set_aside))
    (tmp_path / "a.xml").write_text("<LexicalResource><Lexicon")
    with pytest.raises(DataError, match="no well-formed WN-LMF"):
        list(lmf_lemmas(tmp_path / "a.xml", set_aside))
    (tmp_path / "a.xml").write_text("<html/>")
    with pytest.raises(DataError, match="its root is <html>"):
        list(lmf_lemmas(tmp_path / "a.xml", set_aside))
    (tmp_path / "a.xml.xz").write_bytes(lzma.compress(b"<LexicalResource>" * 99)[:-20])
    with pytest.raises(DataError, match=r"a\.xml\.xz"):
        list(lmf_lemmas(tmp_path / "a.xml.xz", set_aside))


def test_rows_of_another_encoding_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tab").write_bytes("1-n\tdeu:lemma\tBär\n".encode("latin-1") + "1-n\tdeu:lemma\tÄhre\n".encode())
    set_aside: Counter[str] = Counter()
    assert dict(omw_lemmas(tmp_path / "a.tab", set_aside)) == {"Ähre": 1}
    row = "08970180 15 n 01 {} 0 000 | ours\n"
    (tmp_path / "a").write_bytes(row.format("Bär").encode("latin-1") + row.format("Ähre").encode())
    assert dict(princeton_lemmas(tmp_path / "a", set_aside)) == {"Ähre": 1}
    assert set_aside == {MALFORMED: 2}


def test_rows_without_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5_000_000)
    for read in (omw_lemmas, princeton_lemmas):
        set_aside: Counter[str] = Counter()
        assert list(read(tmp_path / "a", set_aside)) == []
        assert set_aside == {MALFORMED: 1}
