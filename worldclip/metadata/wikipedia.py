"""Article text of Wikipedia, a stream from any of the forms in which it is published.

`pages-articles` XML (plain, gz, bz2 also of several streams), CirrusSearch content dumps (JSON lines, gz: text without
markup) and the Parquet files of the hub's `wikimedia/wikipedia`. One article is in memory at a time. What is no
article (redirects, other namespaces, pages too long) is counted; a file that is broken is an error that names it, as
its counts would silently be those of another corpus.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

import pyarrow as pa
import pyarrow.parquet as pq
from mwparserfromhell.parser import ParserError

from worldclip.errors import DataError, MissingData
from worldclip.metadata.reading import batches, lines, parsed
from worldclip.metadata.wikitext import PREFIXES, plain_text

Articles = Iterator[tuple[str, str]]

#: Characters; MediaWiki allows 2 MiB a page.
LONGEST_PAGE = 4_000_000

#: Bytes of a line of JSON, a page with all that is told of it.
_LONGEST_LINE = 32_000_000

#: Names of files and categories: a dump tells of three.
_MOST_PREFIXES = 1000

_HALVES = re.compile("[\ud800-\udfff]")


def articles(path: Path, set_aside: Counter[str]) -> Articles:
    """(title, plain text) of each article of a dump, by the file's name: Parquet, JSON lines, or XML.

    What is left out is added to `set_aside` by reason.

    Raises:
        MissingData: it is not there.
        DataError: it is not such a dump, or is cut short.
    """
    if path.suffix == ".parquet":
        return _from_parquet(path, set_aside)
    if ".json" in path.suffixes:
        return _from_cirrus(path, set_aside)
    return _from_xml(path, set_aside)


# Parquet of wikimedia/wikipedia: id, url, title, text.


def _from_parquet(path: Path, set_aside: Counter[str]) -> Articles:
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:  # as pages are needed
            if lacking := {"title", "text"} - set(file.schema_arrow.names):
                raise DataError(f"{path}: has no column {', '.join(sorted(lacking))}; articles need title and text.")
            for batch in batches(path, file, 256, ["title", "text"]):
                for title, text in zip(*(batch.column(name).to_pylist() for name in ("title", "text")), strict=True):
                    if isinstance(title, str) and isinstance(text, str) and len(text) <= LONGEST_PAGE:
                        yield title, text
                    else:
                        set_aside["article: null or too long"] += 1
    except FileNotFoundError:
        raise MissingData(f"{path}: not found.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}); fetch it again.") from None


# CirrusSearch: lines in pairs, {"index": ...} then the page.


def _from_cirrus(path: Path, set_aside: Counter[str]) -> Articles:
    pages = 0
    for line in lines(path, _LONGEST_LINE):
        try:
            page = json.loads(line) if line else None
        except (ValueError, RecursionError):
            page = None
        if line is None:
            set_aside["article: too long"] += 1
        elif not isinstance(page, dict):
            set_aside["article: malformed line"] += 1
        elif "index" in page and "title" not in page:
            continue
        elif page.get("namespace") != 0:
            set_aside["article: other namespace"] += 1
        elif not isinstance(page.get("title"), str) or not isinstance(page.get("text"), str):
            set_aside["article: malformed line"] += 1
        elif len(page["text"]) > LONGEST_PAGE:
            set_aside["article: too long"] += 1
        else:
            pages += 1
            # JSON can hold halves of a character, which no other file can.
            yield _HALVES.sub("\ufffd", page["title"]), _HALVES.sub("\ufffd", page["text"])
    if not pages and set_aside["article: malformed line"]:
        raise DataError(f"{path}: holds no page of a CirrusSearch content dump; is it another file?")


# pages-articles XML.


def _from_xml(path: Path, set_aside: Counter[str]) -> Articles:
    reader = _Pages(path, set_aside)
    for _ in parsed(path, reader.parser, "XML dump"):
        yield from _prose(reader.taken(), reader.prefixes, set_aside)
    if not reader.root.startswith("mediawiki"):
        raise DataError(f"{path}: its root is <{reader.root}>, a dump's is <mediawiki>; is it another file?")


def _prose(pages: list[tuple[str, str]], prefixes: frozenset[str], set_aside: Counter[str]) -> Articles:
    for title, wikitext in pages:
        try:
            text = plain_text(wikitext, prefixes)
        except ParserError:
            set_aside["article: wikitext that cannot be parsed"] += 1
        else:
            yield title, text


class _Pages:
    """Articles of a dump, as expat's events tell of them."""

    def __init__(self, path: Path, set_aside: Counter[str]) -> None:
        self._path, self._set_aside = path, set_aside
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 16
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.prefixes = PREFIXES
        self.root = ""
        self._fields: dict[str, str] = {}
        self._parts: list[str] = []
        self._length = 0
        self._redirect = False
        self._namespace = ""
        self._taken: list[tuple[str, str]] = []

    def taken(self) -> list[tuple[str, str]]:
        """The articles since the last call: title and wikitext."""
        taken, self._taken = self._taken, []
        return taken

    def _doctype(self, *_: object) -> None:
        # Dumps have none; entities declared in one can grow without bound.
        raise DataError(f"{self._path}: declares a document type, which no dump does; it was not read.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        self._parts, self._length = [], 0
        if name == "page":
            self._fields, self._redirect = {}, False
        elif name == "redirect":
            self._redirect = True
        elif name == "namespace":
            self._namespace = attributes.get("key", "")

    def _characters(self, data: str) -> None:
        self._length += len(data)
        if self._length <= LONGEST_PAGE:
            self._parts.append(data)

    def _end(self, name: str) -> None:
        if name in ("title", "ns", "text"):
            self._fields[name] = "".join(self._parts) if self._length <= LONGEST_PAGE else ""
            if self._length > LONGEST_PAGE:
                self._set_aside["article: too long"] += 1
        elif name == "namespace" and self._namespace in ("-2", "6", "14") and len(self.prefixes) < _MOST_PREFIXES:
            self.prefixes |= {"".join(self._parts).strip().casefold()}
        elif name == "page":
            self._finish()
        self._parts, self._length = [], 0

    def _finish(self) -> None:
        title, text = self._fields.get("title", ""), self._fields.get("text", "")
        if self._fields.get("ns", "0").strip() != "0":
            self._set_aside["article: other namespace"] += 1
        elif self._redirect or _REDIRECT.match(text):
            self._set_aside["article: redirect"] += 1
        elif not title or not text:
            self._set_aside["article: without title or text"] += 1
        else:
            self._taken.append((title, text))


_REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)  # dumps of old versions do not mark them otherwise
