"""Small dumps, and the real shortened ones, for the tests of this folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from worldclip.metadata.wikipedia import articles
from worldclip.packages import Cache, cache_folder

#: A document type that declares entities made of entities.
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'


def xml(pages: list[tuple[str, str]], extra: str = "", head: str = "") -> bytes:
    """A dump of articles (title, wikitext), other elements before them."""
    body = "".join(
        f"<page><title>{escape(title)}</title><ns>0</ns><revision><text>{escape(text)}</text></revision></page>"
        for title, text in pages
    )
    return f"{head}<mediawiki>{extra}{body}</mediawiki>".encode()


def read(path: Path) -> tuple[list[tuple[str, str]], Counter[str]]:
    """All articles of a file and what was set aside."""
    set_aside: Counter[str] = Counter()
    return list(articles(path, set_aside)), set_aside


def real_dumps() -> list[Path]:
    """The shortened dumps of the English and Bulgarian Wikipedia that a package ships."""
    cache = Cache(cache_folder())
    if "wikipedia-samples" not in cache.present():
        pytest.skip("the shortened dumps are not in the cache")
    return sorted((cache.path("wikipedia-samples") / "gensim/test/test_data").glob("*wiki*.bz2"))
