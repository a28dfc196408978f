"""The tasks of which lists from dumps are made: each reads files and writes one, and knows of no engine.

text file  -> n-gram counts        views file -> views by Wikipedia        counts, wordnets, concepts -> one list
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldclip.errors import DataError
from worldclip.languages import LANGUAGES, OTHER, Rule, list_of_wikipedia, list_of_wordnet
from worldclip.metadata.concepts import own_concepts
from worldclip.metadata.entries import Caps, entry_list, write_entries
from worldclip.metadata.ngrams import (
    Counts,
    Limits,
    ceil_share,
    count_ngrams,
    merged,
    read_counts,
    segmented,
    tokens,
    top_pairs,
    top_words,
    write_counts,
)
from worldclip.metadata.segment import segmenter
from worldclip.metadata.titles import count_views, views
from worldclip.metadata.wikipedia import articles
from worldclip.metadata.wordnet import lmf_lemmas, omw_lemmas, princeton_lemmas
from worldclip.storage import read_json, write_json

Scored = Iterator[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is taken of each source; the defaults are the paper's.

    `word_share` and `title_share` are shares of the distinct words and titles; `pairs_per_word` of the words kept.
    `pmi` is the release's fixed threshold (30 bits admit nothing below 2^30 tokens); None ranks by PMI alone, among
    pairs seen `least_count` times.
    """

    caps: Caps = field(default_factory=Caps)
    word_share: float = 0.10
    pairs_per_word: float = 0.40
    title_share: float = 0.76
    least_count: int = 5
    pmi: float | None = None
    rule: Rule = "corrected"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files below a folder, by what their names say they are."""

    texts: dict[str, tuple[Path, ...]]  #: by Wikipedia
    views: tuple[Path, ...]
    wordnets: dict[str, tuple[Path, ...]]  #: by list
    lexicons: tuple[Path, ...]  #: WN-LMF, which names its languages inside
    unknown: tuple[Path, ...]


_DUMP = re.compile(r"(\w+?)wiki-.*(?:pages-(?:meta-current|articles)|cirrussearch-content).*\.(?:xml|json|bz2|gz)")
_HUB = re.compile(r"(?:\d{8}\.)?([a-z][\w-]*)")
_VIEWS = re.compile(r"pageviews-\d{8}.*")
_TAB = re.compile(r"wn-(?:data|wikt|cldr|nodia)?-?(\w+)\.tab(?:\.gz)?")
_LMF = re.compile(r".*\.xml(?:\.gz|\.xz)?")


def find_sources(folder: Path) -> Sources:
    """Sort the files below `folder`, in any depth, by their names as they are published.

    `swwiki-20240501-pages-articles.xml.bz2`, `swwiki-...-cirrussearch-content.json.gz`, `20231101.sw/*.parquet`,
    `pageviews-*.gz`, `wn-data-fin.tab`, `data.noun`, `oewn-2024.xml.gz`. Other files are in `unknown`.

    Raises:
        DataError: a dump is of no Wikipedia that we know.
    """
    texts: dict[str, list[Path]] = {}
    wordnets: dict[str, list[Path]] = {}
    seen, lexicons, unknown = [], [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if dump := _DUMP.fullmatch(path.name):
            texts.setdefault(_wikipedia(dump[1], path), []).append(path)
        elif path.suffix == ".parquet" and (hub := _HUB.fullmatch(path.parent.name)):
            texts.setdefault(_wikipedia(hub[1].replace("-", "_"), path), []).append(path)
        elif _VIEWS.fullmatch(path.name):
            seen.append(path)
        elif tab := _TAB.fullmatch(path.name):
            wordnets.setdefault(list_of_wordnet(tab[1]), []).append(path)
        elif path.name in ("data.noun", "data.verb", "data.adj", "data.adv"):
            wordnets.setdefault("en", []).append(path)
        elif _LMF.fullmatch(path.name):
            lexicons.append(path)
        else:
            unknown.append(path)
    return Sources(
        texts={code: tuple(paths) for code, paths in sorted(texts.items())},
        views=tuple(seen),
        wordnets={code: tuple(paths) for code, paths in sorted(wordnets.items())},
        lexicons=tuple(lexicons),
        unknown=tuple(unknown),
    )


def _wikipedia(code: str, path: Path) -> str:
    if code not in LANGUAGES or code == OTHER:
        raise DataError(f"{path}: there is no Wikipedia {code!r} in the table of languages; rename or remove it.")
    return code


def count_text(path: Path, code: str, limits: Limits, out: Path) -> None:
    """Count one dump file's words and pairs into the folder of `out`, the JSON that says so when all is written."""
    _empty(out.parent)
    set_aside: Counter[str] = Counter()
    segment = segmenter(code)
    count = 0

    def texts() -> Iterator[str]:
        nonlocal count
        for _, text in articles(path, set_aside):
            count += 1
            yield text

    total = count_ngrams(texts(), segmented(segment) if segment else tokens, out.parent, limits)
    write_json(out, {"articles": count, "tokens": total, "set_aside": dict(sorted(set_aside.items()))})


def count_titles(path: Path, out: Path) -> None:
    """Add up one file's views by Wikipedia into the folder of `out`, the JSON that says so when all is written."""
    _empty(out.parent)
    set_aside: Counter[str] = Counter()
    codes = count_views(views(path, set_aside), out.parent)
    for code in codes:
        runs = sorted(out.parent.glob(f"{code}.run-*"))
        write_counts(out.parent / f"{code}.titles", merged(runs))
        for run in runs:
            run.unlink()
    write_json(out, {"wikipedias": codes, "set_aside": dict(sorted(set_aside.items()))})


def _empty(folder: Path) -> None:
    """What a killed task left would be counted twice."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def build_list(
    code: str,
    sources: Sources,
    counted: Sequence[Path],
    viewed: Sequence[Path],
    concepts: Path | None,
    selection: Selection,
    out: Path,
    facts: Path,
) -> None:
    """Write one list to `out` and then its facts (entries, what was set aside, hash) as JSON to `facts`.

    Args:
        code: the list.
        sources: all files.
        counted: the JSON files of `count_text` for all of the list's Wikipedias.
        viewed: the JSON files of `count_titles`.
        concepts: your own.
        selection: what is taken.
    """
    set_aside: Counter[str] = Counter()
    total = 0
    for path in counted:
        content = read_json(path)
        total += content["tokens"]
        set_aside.update(content["set_aside"])
    kept = list(_found(code, sources, counted, viewed, concepts, selection, total, set_aside))
    table = entry_list(kept, selection.caps, set_aside)
    hashed = write_entries(out, table, code)
    write_json(
        facts,
        {
            "entries": len(table),
            "hash": hashed,
            "tokens": total,
            "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count},
        },
    )


def _found(
    code: str,
    sources: Sources,
    counted: Sequence[Path],
    viewed: Sequence[Path],
    concepts: Path | None,
    selection: Selection,
    total: int,
    set_aside: Counter[str],
) -> Iterator[tuple[str, Any]]:
    for path in sources.wordnets.get(code, ()):
        yield "w", (princeton_lemmas if path.name.startswith("data.") else omw_lemmas)(path, set_aside)
    for path in sources.lexicons:
        yield "w", ((lemma, score) for lang, lemma, score in lmf_lemmas(path, set_aside) if lang == code)
    if counted:
        words = [path.parent / "words.parquet" for path in counted]
        unigrams = top_words(merged(words), selection.word_share, selection.caps.unigrams)
        yield "u", unigrams
        yield (
            "b",
            top_pairs(
                merged([path.parent / "pairs.parquet" for path in counted]),
                {word: count for word, count in merged(words) if count >= selection.least_count},
                total,
                least_count=selection.least_count,
                threshold=selection.pmi,
                cap=min(selection.caps.bigrams, ceil_share(len(unigrams), selection.pairs_per_word)),
                # The release joins without a space where a segmenter divided the words.
                joint=" " if LANGUAGES[code].spaced else "",
            ),
        )
    yield "t", _titles(code, viewed, selection)
    if concepts:
        yield "c", ((entry, score) for lang, entry, score in own_concepts(concepts, set_aside) if lang == code)


def _titles(code: str, viewed: Sequence[Path], selection: Selection) -> list[tuple[str, int]]:
    files = [
        path.parent / f"{wikipedia}.titles"
        for path in viewed
        for wikipedia in read_json(path)["wikipedias"]
        if list_of_wikipedia(wikipedia, selection.rule) == code
    ]
    counts: Counts = merged(files) if len(files) != 1 else read_counts(files[0])
    return top_words(counts, selection.title_share, selection.caps.titles)
