"""The entry list of one language: ordered, capped, filtered, written with its hash (section 1 of the recipe).

An entry's id is its position in the list, so a list must never change under counts, thresholds and matches made with
it. The same sources give the same list and the same bytes; the list's hash travels in its file and, through the
folder's hash, in everything made from it.

    <folder>/<language>.parquet     one list (`schema.ENTRIES`), its language and hash in the file metadata
    <folder>/manifest.json          the lists' hashes, the hash of all, sources and licences, what was set aside
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldclip.errors import DataError, MissingData
from worldclip.languages import LANGUAGES, Rule
from worldclip.schema import ENTRIES, validate
from worldclip.storage import digest, read_json, read_table, write_json, write_table

#: Version of the rules by which entries are cleaned and ordered; part of every file.
BUILDER = "1"

#: The sources in the order in which entries are listed and credited.
SOURCES = {"n": "numbers", "w": "wordnet", "u": "unigrams", "b": "bigrams", "t": "titles", "c": "concepts"}

#: "0" to "99" begin every list.
NUMBERS = tuple(str(number) for number in range(100))

#: Longer entries, in characters, are dropped.
LONGEST = 256

MANIFEST = "manifest.json"

_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


@dataclass(frozen=True, kw_only=True)
class Caps:
    """The most entries that one language takes from a source: the sizes of the paper's English list.

    Every lemma of the wordnets is taken. The caps count what a source brings, also where an earlier source brought it.
    """

    unigrams: int = 251_465
    bigrams: int = 100_646
    titles: int = 61_235
    concepts: int = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The lists of a metadata folder: M of Algorithm 1.

    `entries` maps a language to its entries (string, position = id), languages in order of their codes; `hash` is the
    SHA-256 (hex) over all lists. `rule` is that by which Wikipedias joined the lists, and texts find theirs.
    """

    entries: Mapping[str, pa.ChunkedArray[pa.StringScalar]]
    hash: str
    rule: Rule = "corrected"


def entry_list(
    sources: Iterable[tuple[str, Iterable[tuple[str, float]]]],
    caps: Caps,
    set_aside: Counter[str] | None = None,
) -> pa.Table:
    """Build the list of one language from its sources.

    Args:
        sources: pairs of a source's letter ("w", "u", "b", "t" or "c", in any order, also repeatedly) and its
            entries, each with a score (count, PMI or page views; finite). An entry that a source brings twice keeps its
            best score.
        caps: the most entries from each source.
        set_aside: counts of what is left out are added to it, by source and reason; listed entries and these counts
            add up to what came in.

    Returns:
        `schema.ENTRIES`: the numbers, then each source's entries by falling score, then by code points; each entry
        once, credited to the first source that has it.

    Raises:
        DataError: a source's letter is not known.
    """
    set_aside = Counter() if set_aside is None else set_aside
    best: dict[str, dict[str, float]] = {letter: {} for letter in SOURCES if letter != "n"}
    for letter, scored in sources:
        if letter not in best:
            raise DataError(f"entries: source {letter!r} is not known; allowed: {', '.join(best)}.")
        kept = best[letter]
        for raw, score in scored:
            entry = _clean(raw, letter)
            if reason := _unfit(entry, letter):
                set_aside[f"{letter}: {reason}"] += 1
            elif entry not in kept:
                kept[entry] = score
            else:
                set_aside[f"{letter}: repeated"] += 1
                kept[entry] = max(kept[entry], score)
    most = {"u": caps.unigrams, "b": caps.bigrams, "t": caps.titles, "c": caps.concepts}
    listed = dict.fromkeys(NUMBERS, ("n", 0.0))
    for letter, kept in best.items():
        ranked = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
        top = ranked[: most.get(letter)]
        set_aside[f"{letter}: over the cap"] += len(ranked) - len(top)
        for entry, score in top:
            if entry in listed:
                set_aside[f"{letter}: in an earlier source"] += 1
            else:
                listed[entry] = (letter, score)
    return pa.table(
        [list(listed), [letter for letter, _ in listed.values()], [score for _, score in listed.values()]],
        schema=ENTRIES,
    )


def _clean(raw: str, letter: str) -> str:
    """Undo the notation of wordnets and titles; white space becomes single spaces, as in prepared texts."""
    if letter in "wt":
        raw = raw.replace("_", " ")
    if letter == "w":
        raw = raw.replace("+", "")
    return raw if raw.isalnum() else " ".join(raw.split())


def _unfit(entry: str, letter: str) -> str | None:
    """Why an entry cannot be listed, or None."""
    if not entry:
        return "empty"
    if len(entry) > LONGEST:
        return f"longer than {LONGEST} characters"
    if not entry[0].isalnum() and all(_is_punctuation(character) for character in entry):
        return "punctuation only"
    if letter == "t" and ":" in entry:
        return "title with a colon"
    return None


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character)[0] in "PZC"


def entries_hash(table: pa.Table, language: str) -> str:
    """SHA-256 (hex) over the language and the entries in their order."""
    entries = [str(entry).encode() for entry in table.column("entry").to_pylist()]
    lengths = np.array([len(entry) for entry in entries], "<u4")
    return digest(language, lengths.tobytes(), b"".join(entries))


def write_entries(path: Path, table: pa.Table, language: str) -> str:
    """Write one language's list with its language and hash in the file metadata; return the hash.

    Raises:
        DataError: the table is no list of entries.
    """
    table = _validated(table, path)
    hashed = entries_hash(table, language)
    facts = {"worldclip.language": language, "worldclip.builder": BUILDER, "worldclip.hash": hashed}
    write_table(path, table.replace_schema_metadata(facts))
    return hashed


def read_entries(path: Path) -> pa.Table:
    """Read one language's list; its file metadata is `table.schema.metadata` (`schema.ENTRIES_METADATA`).

    Raises:
        MissingData: it is not there.
        DataError: it is not a list of entries, or not the list whose hash it carries.
    """
    table = _validated(read_table(path), path)
    facts = table.schema.metadata or {}
    language, written = (facts.get(f"worldclip.{key}".encode(), b"").decode() for key in ("language", "hash"))
    found = entries_hash(table, language)
    if found != written:
        raise DataError(
            f"{path}: the entries (hash {found[:12]}) are not those it was written with ({written[:12] or 'no hash'}). "
            "Entry ids would mean other concepts; build the metadata again."
        )
    return table


def _validated(table: pa.Table, path: Path) -> pa.Table:
    table = validate(table, ENTRIES, str(path))
    if nulls := table.column("entry").null_count:
        raise DataError(f"{path}: column 'entry' holds {nulls} nulls, allowed are none; build the list again.")
    return table


def write_manifest(folder: Path, hashes: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Finish a folder of lists: write its manifest, remove lists it does not name, return the hash over all.

    `hashes` maps each language to its list's hash; `facts` (sources, licences, set-aside counts) are stored beside.
    """
    whole = digest(*(part for language in sorted(hashes) for part in (language, hashes[language])))
    write_json(folder / MANIFEST, {**facts, "builder": BUILDER, "hash": whole, "lists": dict(hashes)})
    for path in folder.glob("*.parquet"):
        if path.stem not in hashes:
            path.unlink()
    return whole


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a metadata folder.

    Raises:
        MissingData: the folder was never finished.
        DataError: it is no manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise MissingData(f"{path}: not found, so {folder} is no finished metadata. Run `worldclip metadata build`.")
    content = read_json(path)
    manifest: dict[str, Any] = content if isinstance(content, dict) else {}
    if not isinstance(manifest.get("lists"), dict) or not isinstance(manifest.get("hash"), str):
        raise DataError(f"{path}: needs 'lists' (language to hash) and 'hash'; build the metadata again.")
    return manifest


def read_metadata(folder: Path) -> Metadata:
    """Read all lists of a folder and check them against its manifest.

    Raises:
        MissingData: the folder was never finished, or a list is gone.
        DataError: a list is not the one that the manifest names.
    """
    manifest = read_manifest(folder)
    entries = {language: table.column("entry") for language, table in _tables(folder, manifest)}
    return Metadata(entries=entries, hash=manifest["hash"], rule=manifest.get("selection", {}).get("rule", "corrected"))


def metadata_info(folder: Path) -> pa.Table:
    """One row a language: lang, name, script, entries, one count a source (`SOURCES`), hash; most entries first."""
    manifest = read_manifest(folder)
    rows = []
    for language, table in _tables(folder, manifest):
        known = LANGUAGES.get(language)
        counted = Counter(table.column("source").to_pylist())
        rows.append(
            {
                "lang": language,
                "name": known.name if known else language,
                "script": known.script if known else "Zyyy",
                "entries": len(table),
                **{name: counted[letter] for letter, name in SOURCES.items()},
                "hash": manifest["lists"][language],
            }
        )
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (-row["entries"], row["lang"])))


def _tables(folder: Path, manifest: Mapping[str, Any]) -> Sequence[tuple[str, pa.Table]]:
    tables = []
    for language, hashed in sorted(manifest["lists"].items()):
        path = folder / f"{language}.parquet"
        table = read_entries(path)
        if table.schema.metadata[b"worldclip.hash"].decode() != hashed:
            raise DataError(f"{path}: is not the list that {folder / MANIFEST} names; build the metadata again.")
        tables.append((language, table))
    return tables
