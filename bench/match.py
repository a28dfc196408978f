"""Matching packaged texts against starter lists: `Index` beside pyahocorasick, one core, same answers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ahocorasick
import pyarrow as pa

from worldclip.curation.match import Index, padded
from worldclip.errors import WorldclipError
from worldclip.metadata import starter
from worldclip.packages import Cache, cache_folder

LANGUAGES = ("en", "de", "ar", "th", "zh", "ja")
MARKS = ",.;:?!`"


def _prepared(text: str) -> str:
    for mark in MARKS:
        text = text.replace(mark, f" {mark} ")
    return f" {text.translate({9: 32, 10: 32, 13: 32})} "


def _peer(entries: list[str]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for position, entry in enumerate(entries):
        automaton.add_word(padded(entry), position)
    automaton.make_automaton()
    return automaton


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a language: texts a second of both, their ratio, and the size of the index.

    Raises:
        WorldclipError: the two do not give the same ids.
    """
    texts = 20_000 if check else 200_000
    cache = Cache(cache_folder())
    with tempfile.TemporaryDirectory() as folder:
        lists = starter.build(cache, Path(folder), languages=LANGUAGES, report=lambda _: None).entries
    for lang in LANGUAGES:
        entries = lists[lang].to_pylist()
        captions = _texts(cache, lang, texts)
        array = pa.array(captions)
        began = time.perf_counter()
        index = Index.build(entries)
        build_seconds = time.perf_counter() - began
        index.match(array[:100])  # compiled before it is timed
        began = time.perf_counter()
        ours = index.match(array)
        our_seconds = time.perf_counter() - began

        automaton = _peer(entries)
        began = time.perf_counter()
        theirs = [sorted({position for _, position in automaton.iter(_prepared(text))}) for text in captions]
        their_seconds = time.perf_counter() - began
        if ours.to_pylist() != theirs:
            raise WorldclipError(f"bench: match: {lang}: Index and pyahocorasick give different ids.")
        yield {
            "lang": lang,
            "entries": len(entries),
            "texts": len(captions),
            "texts_per_second": round(len(captions) / our_seconds),
            "pyahocorasick_texts_per_second": round(len(captions) / their_seconds),
            "ratio": round(their_seconds / our_seconds, 2),
            "build_seconds": round(build_seconds, 2),
            "bytes_per_entry": round(index.nbytes / len(entries), 1),
            "answers": "equal",
        }


def _texts(cache: Cache, lang: str, count: int) -> list[str]:
    """Texts like alt-texts: names and keywords of two drawings, until there are `count`."""
    path = cache.path("cldr-annotations") / "annotations" / lang / "annotations.json"
    drawings = json.loads(path.read_bytes())["annotations"]["annotations"].values()
    told = [", ".join([*each.get("tts", []), *each.get("default", [])]) for each in drawings]
    return [f"{told[at % len(told)]}. {told[(at * 7 + at // len(told)) % len(told)]}" for at in range(count)]
