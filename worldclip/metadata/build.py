"""The tasks of which lists from dumps are made: each reads files and writes some, and knows of no engine.

a source file -> its counts by list        the counts of a list's files -> the list
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError
from worldclip.languages import ALIASES, LANGUAGES, OTHER, Rule, list_of_wikipedia, list_of_wordnet
from worldclip.metadata.concepts import own_concepts
from worldclip.metadata.counts import PAGE, Blocks, ceil_share, merged, top
from worldclip.metadata.entries import Caps, entry_list, write_entries
from worldclip.metadata.ngrams import Limits, count_ngrams, segmented, tokens, top_pairs
from worldclip.metadata.reading import READING, telling
from worldclip.metadata.segment import Chinese, Segmenter, segmenter
from worldclip.metadata.titles import count_views, views
from worldclip.metadata.wikipedia import articles
from worldclip.metadata.wordnet import lmf_lemmas, omw_lemmas, princeton_lemmas
from worldclip.storage import read_json, replacing, write_json

Kind = Literal["text", "views", "omw", "princeton", "lmf", "concepts"]

#: What is set aside of all words, pairs and titles before the rules of entries are asked.
RARER, LOOSER, LESS_SEEN = "u: less frequent", "b: too rare or of lower PMI", "t: fewer views"

_SCORED = pa.schema([("entry", pa.string()), ("score", pa.float64())])


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is taken of each source; the defaults are the paper's.

    `word_share` and `title_share` are shares of the distinct words and titles; `pairs_per_word` of the words kept.
    `pmi` is the release's fixed threshold (30 bits admit nothing below 2^30 tokens); None ranks by PMI alone, among
    pairs seen `least_count` times. `chinese` is the segmenter of Chinese.
    """

    caps: Caps = field(default_factory=Caps)
    word_share: float = 0.10
    pairs_per_word: float = 0.40
    title_share: float = 0.76
    least_count: int = 5
    pmi: float | None = None
    rule: Rule = "corrected"
    chinese: Chinese = "jieba"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file to read: what it holds, and the Wikipedia or list that it is of, if it is of one."""

    path: Path
    kind: Kind
    code: str = ""


_DUMP = re.compile(
    r"(?P<code>\w+?)wiki-(?P<form>.*?(?:pages-articles(?:-multistream)?|pages-meta-current|cirrussearch-content))"
    r"(?P<part>\d*)\.(?:xml|json)(?:-p\d+p\d+)?(?:\.bz2|\.gz|)"
)
#: CirrusSearch's dumps since 2025, and the exports of all pages' content beside the dumps.
_INDEX = re.compile(r"(?P<code>\w+?)wiki_(?P<form>content-\d{8})(?P<part>-\d+)\.json(?:\.bz2|\.gz|)")
_EXPORT = re.compile(r"(?P<code>\w+?)wiki-(?P<form>\d{4}-\d\d-\d\d)(?P<part>-p\d+p\d+)\.xml(?:\.bz2|\.gz|)")
_HUB = re.compile(r"(?:\d{8}\.)?([a-z][\w-]*)")
#: By the hour, or by the day those of people: `-spider` and `-automated` are left out.
_VIEWS = re.compile(r"pageviews-\d{8}-(?:\d{6}|user)(?:\.gz|\.bz2)?")
_TAB = re.compile(r"wn-(?:data|wikt|cldr|nodia)?-?(\w+)\.tab(?:\.gz|\.xz)?")
_LMF = re.compile(r".*\.xml(?:\.gz|\.xz)?")


def find_sources(folder: Path) -> tuple[list[Source], list[Path]]:
    """The files below `folder`, in any depth, known by the names they are published under; and those that are not.

    `swwiki-20240501-pages-articles.xml.bz2`, `swwiki-2026-05-01-p1p9.xml.bz2`, `20231101.sw/*.parquet`,
    `swwiki_content-20260503-00000.json.bz2`, `swwiki-...-cirrussearch-content.json.gz`, `pageviews-20240501-000000.gz`,
    `wn-data-fin.tab`, `data.noun`, `oewn-2024.xml.gz`.

    Raises:
        DataError: a dump is of no Wikipedia that we know, or the text of one is there twice.
    """
    sources, unknown = [], []
    forms: dict[str, set[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if dump := next(filter(None, (name.fullmatch(path.name) for name in (_DUMP, _INDEX, _EXPORT))), None):
            sources.append(Source(path=path, kind="text", code=_wikipedia(dump["code"], path)))
            form = f"{dump['form']}, in {'parts' if dump['part'] else 'one file'}"
            forms.setdefault(sources[-1].code, set()).add(form)
        elif path.suffix == ".parquet" and (hub := _HUB.fullmatch(path.parent.name)):
            sources.append(Source(path=path, kind="text", code=_wikipedia(hub[1].replace("-", "_"), path)))
            forms.setdefault(sources[-1].code, set()).add(f"Parquet in {path.parent}")
        elif _VIEWS.fullmatch(path.name):
            sources.append(Source(path=path, kind="views"))
        elif tab := _TAB.fullmatch(path.name):
            sources.append(Source(path=path, kind="omw", code=list_of_wordnet(tab[1])))
        elif path.name in ("data.noun", "data.verb", "data.adj", "data.adv"):
            sources.append(Source(path=path, kind="princeton", code="en"))
        elif _LMF.fullmatch(path.name):
            sources.append(Source(path=path, kind="lmf"))
        else:
            unknown.append(path)
    for code, found in forms.items():
        if len(found) > 1:
            raise DataError(
                f"{folder}: holds the text of {code}wiki {len(found)} times ({'; '.join(sorted(found))}); its words "
                "would be counted as often. Keep one."
            )
    return sources, unknown


def _wikipedia(code: str, path: Path) -> str:
    code = ALIASES.get(code, code)
    if code not in LANGUAGES or code == OTHER:
        raise DataError(f"{path}: there is no Wikipedia {code!r} in the table of languages; rename or remove it.")
    return code


def read_source(source: Source, chinese: Chinese, limits: Limits, out: Path) -> None:
    """Read one file; write its counts into the folder of `out`, and then `out`, the JSON that tells of them.

    The JSON has `lists` (or Wikipedias, of text and views) and `set_aside`; of text, also `articles` and `tokens`.
    How far the file is read is told beside the folder (`reading.telling`).
    """
    folder = out.parent
    if folder.exists():
        shutil.rmtree(folder)  # what a killed task left would be counted twice
    folder.mkdir(parents=True)
    set_aside: Counter[str] = Counter()
    told: dict[str, Any] = {"lists": [source.code]}
    with telling(folder.with_suffix(READING)):
        if source.kind == "text":
            told |= _count_text(source, segmenter(source.code, chinese), folder, limits, set_aside)
        elif source.kind == "views":
            told["lists"] = count_views(views(source.path, set_aside), folder)
        else:
            told["lists"] = _by_list(_rows(source, set_aside), folder)
    write_json(out, {**told, "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count}})


def _count_text(
    source: Source, segment: Segmenter | None, folder: Path, limits: Limits, set_aside: Counter[str]
) -> dict[str, int]:
    count = 0

    def texts() -> Iterator[str]:
        nonlocal count
        for _, text in articles(source.path, set_aside):
            count += 1
            yield text

    total = count_ngrams(texts(), segmented(segment) if segment else tokens, folder, limits)
    return {"articles": count, "tokens": total}


def _rows(source: Source, set_aside: Counter[str]) -> Iterator[tuple[str, str, float]]:
    if source.kind == "lmf":
        return lmf_lemmas(source.path, set_aside)
    if source.kind == "concepts":
        return own_concepts(source.path, set_aside)
    read = omw_lemmas if source.kind == "omw" else princeton_lemmas
    return ((source.code, lemma, score) for lemma, score in read(source.path, set_aside))


def _by_list(rows: Iterable[tuple[str, str, float]], folder: Path, most: int = 100_000) -> list[str]:
    """Part rows by their list into `<list>.parquet`, of which at most `most` rows are in memory; return the lists."""
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        waiting: dict[str, list[tuple[str, float]]] = {}

        def write() -> None:
            for lang, part in waiting.items():
                if lang not in writers:
                    temporary = stack.enter_context(replacing(folder / f"{lang}.parquet"))
                    writers[lang] = stack.enter_context(pq.ParquetWriter(temporary, _SCORED, compression="zstd"))
                writers[lang].write_table(pa.table(list(zip(*part, strict=True)), schema=_SCORED))
            waiting.clear()

        for at, (lang, entry, score) in enumerate(rows, start=1):
            waiting.setdefault(lang, []).append((entry, score))
            if at % most == 0:
                write()
        write()
    return sorted(writers)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The files that `read_source` wrote for one list."""

    text: list[Path] = field(default_factory=list)  #: folders with words and pairs
    tokens: int = 0  #: in all these texts
    titles: list[Path] = field(default_factory=list)
    lemmas: list[Path] = field(default_factory=list)
    concepts: list[Path] = field(default_factory=list)


def build_list(code: str, parts: Parts, selection: Selection, out: Path, facts: Path) -> None:
    """Write one list to `out` and then its facts (entries, tokens, what was set aside, hash) as JSON to `facts`."""
    set_aside: Counter[str] = Counter()
    table = entry_list(_found(code, parts, selection, set_aside), selection.caps, set_aside)
    hashed = write_entries(out, table, code)
    write_json(
        facts,
        {
            "entries": len(table),
            "hash": hashed,
            "tokens": parts.tokens,
            "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count},
        },
    )


def _found(
    code: str, parts: Parts, selection: Selection, set_aside: Counter[str]
) -> Iterator[tuple[str, Iterable[tuple[str, float]]]]:
    def but_best(blocks: Blocks, reason: str) -> Blocks:
        for block in blocks:
            set_aside[reason] += len(block)
            yield block

    yield "w", _scored(parts.lemmas)
    if parts.text:
        words = [folder / "words.parquet" for folder in parts.text]
        unigrams = top(but_best(merged(words), RARER), selection.word_share, selection.caps.unigrams)
        set_aside[RARER] -= len(unigrams)
        yield "u", unigrams
        bigrams = top_pairs(
            but_best(merged([folder / "pairs.parquet" for folder in parts.text]), LOOSER),
            merged(words),
            parts.tokens,
            least_count=selection.least_count,
            threshold=selection.pmi,
            cap=min(selection.caps.bigrams, ceil_share(len(unigrams), selection.pairs_per_word)),
            # The release joins without a space where a segmenter divided the words.
            joint=" " if LANGUAGES[code].spaced else "",
            folder=parts.text[0],
        )
        set_aside[LOOSER] -= len(bigrams)
        yield "b", bigrams
    titles = top(but_best(merged(parts.titles), LESS_SEEN), selection.title_share, selection.caps.titles)
    set_aside[LESS_SEEN] -= len(titles)
    yield "t", titles
    yield "c", _scored(parts.concepts)


def _scored(paths: Iterable[Path]) -> Iterator[tuple[str, float]]:
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE) as file:
            for batch in file.iter_batches(use_threads=False):
                yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def parts_of(read: Iterable[tuple[Source, Path]], rule: Rule) -> dict[str, Parts]:
    """The parts of each list, from the sources and the JSON files that tell what was read of them."""
    parts: dict[str, dict[str, Any]] = {}
    for source, out in read:
        told = read_json(out)
        for code in told["lists"]:
            joined = list_of_wikipedia(code, rule) if source.kind in ("text", "views") else code
            mine = parts.setdefault(joined, {"text": [], "tokens": 0, "titles": [], "lemmas": [], "concepts": []})
            if source.kind == "text":
                mine["text"].append(out.parent)
                mine["tokens"] += told["tokens"]
            else:
                kind = {"views": "titles", "concepts": "concepts"}.get(source.kind, "lemmas")
                mine[kind].append(out.parent / f"{code}.parquet")
    return {code: Parts(**each) for code, each in sorted(parts.items())}
