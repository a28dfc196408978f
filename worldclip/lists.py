"""Lists from dumps, on an engine: count each file, merge a language's counts, write its list.

    <folder>/work/key.json        what the work below was made of; other sources or options begin anew
    <folder>/work/text/*/         counts of one dump file        <folder>/work/views/*/   views of one file
    <folder>/work/lists/*.json    facts of one finished list
    <folder>/<list>.parquet       the lists                      <folder>/manifest.json   written last

Each file and each list is one task, done once; after kill -9 the same command goes on. The tasks' own order and number
of workers leave no trace in the bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation.rules import RULES, dead
from worldclip.engines import LocalEngine, Task
from worldclip.errors import ConfigError, MissingData
from worldclip.languages import LANGUAGES, list_of_wikipedia
from worldclip.metadata.build import Selection, build_list, count_text, count_titles, find_sources
from worldclip.metadata.concepts import own_concepts
from worldclip.metadata.entries import (
    BUILDER,
    MANIFEST,
    NUMBERS,
    Metadata,
    metadata_info,
    read_entries,
    read_metadata,
    write_manifest,
)
from worldclip.metadata.ngrams import Limits
from worldclip.metadata.wordnet import lmf_lemmas
from worldclip.storage import digest, read_json, write_json

Report = Callable[[str, int, int], None]


def build_lists(
    sources: Path,
    folder: Path,
    *,
    engine: LocalEngine,
    languages: tuple[str, ...] | None = None,
    concepts: Path | None = None,
    selection: Selection | None = None,
    limits: Limits | None = None,
    report: Report | None = None,
) -> Metadata:
    """Build the lists of the files below `sources` (`metadata.build.find_sources`) into `folder` and return them.

    Args:
        languages: the lists to build; all that the sources reach by default.
        concepts: your own list (`metadata.concepts.own_concepts`).
        limits: how much counting holds in memory; it changes no byte.
        report: called with a step's name, tasks done and tasks in all.

    Raises:
        ConfigError: a list is not known.
        MissingData: the sources reach no list that was asked for, or a segmenter is missing.
        ShardsFailed: some files or lists could not be done, each with its reason; all others are.
    """
    selection, limits = selection or Selection(), limits or Limits()
    if unknown := [code for code in languages or () if code not in LANGUAGES]:
        raise ConfigError(f"languages: no list is called {', '.join(unknown)}; allowed: {', '.join(LANGUAGES)}.")
    found = find_sources(sources)
    wanted = set(languages or LANGUAGES)
    work = folder / "work"
    files = [*sum(found.texts.values(), ()), *found.views, *sum(found.wordnets.values(), ()), *found.lexicons]
    if concepts:
        if not concepts.is_file():
            raise MissingData(f"{concepts}: not found; --concepts takes a text file, CSV or Parquet.")
        files.append(concepts)
    _begin(work, _key(files, sources, selection, languages))
    (folder / MANIFEST).unlink(missing_ok=True)  # a folder without one is unfinished

    def run(what: str, tasks: list[Task]) -> None:
        engine.run(tasks, partial(report, what) if report else None)

    counted: dict[str, list[Path]] = {}
    tasks = []
    for code, paths in found.texts.items():
        joined = list_of_wikipedia(code, selection.rule)
        for path in paths if joined in wanted else ():
            name = path.relative_to(sources).as_posix()
            out = work / "text" / digest(name)[:16] / "done.json"
            counted.setdefault(joined, []).append(out)
            tasks.append(Task(name=name, function=count_text, arguments=(path, code, limits, out), output=out))
    run("text", tasks)
    tasks, viewed = [], []
    for path in found.views:
        name = path.relative_to(sources).as_posix()
        viewed.append(work / "views" / digest(name)[:16] / "done.json")
        tasks.append(Task(name=name, function=count_titles, arguments=(path, viewed[-1]), output=viewed[-1]))
    run("views", tasks)

    reached = set(counted) | set(found.wordnets)
    reached |= {list_of_wikipedia(code, selection.rule) for path in viewed for code in read_json(path)["wikipedias"]}
    reached |= {lang for path in found.lexicons for lang, _, _ in lmf_lemmas(path, Counter())}
    reached |= {lang for lang, _, _ in own_concepts(concepts, Counter())} if concepts else set()
    codes = sorted(reached & wanted)
    if not codes:
        raise MissingData(
            f"{sources}: holds no dump, page views, wordnet or concepts for {', '.join(languages or ('any list',))}. "
            "Files keep the names they are published under; `worldclip metadata download` fetches some."
        )
    facts = {code: work / "lists" / f"{code}.json" for code in codes}
    run(
        "lists",
        [
            Task(
                name=f"list {code}",
                function=build_list,
                arguments=(
                    code, found, counted.get(code, []), viewed, concepts, selection, folder / f"{code}.parquet",
                    facts[code],
                ),
                output=facts[code],
            )
            for code in codes
        ],
    )  # fmt: skip
    told = {code: read_json(path) for code, path in facts.items()}
    hashes = {code: fact["hash"] for code, fact in told.items() if fact["entries"] > len(NUMBERS)}
    write_manifest(
        folder,
        hashes,
        {
            "languages": told,
            "selection": asdict(selection),
            "files": sorted(path.name for path in files),
            "unread_files": sorted(path.name for path in found.unknown),
            "views": [read_json(path)["set_aside"] for path in viewed],
        },
    )
    return read_metadata(folder)


def _key(files: list[Path], sources: Path, selection: Selection, languages: tuple[str, ...] | None) -> str:
    parts = [BUILDER, repr(selection), repr(languages)]
    for path in files:
        name = path.relative_to(sources).as_posix() if path.is_relative_to(sources) else path.name
        # Dumps are too large to hash again at each start; their size and time of change tell.
        told = path.stat()
        parts += [name, f"{told.st_size} {told.st_mtime_ns}"]
    return digest(*parts)


def _begin(work: Path, key: str) -> None:
    path = work / "key.json"
    if path.exists() and read_json(path) == key:
        return
    if work.exists():
        shutil.rmtree(work)
    write_json(path, key)


def info(folder: Path) -> list[dict[str, Any]]:
    """`metadata_info` with the entries that each matching rule can never find."""
    rows: list[dict[str, Any]] = []
    for row in metadata_info(folder).to_pylist():
        column = read_entries(folder / f"{row['lang']}.parquet").column("entry")
        hashed = row.pop("hash")
        rows.append(
            {**row, **{f"dead_{rule}": pc.sum(dead(column, rule)).as_py() or 0 for rule in RULES}, "hash": hashed}
        )
    return rows


def compare(first: Path, second: Path) -> list[dict[str, Any]]:
    """Two versions of lists, one row a language: entries of both, how many are common, only in one, and moved ids."""
    before, after = read_metadata(first).entries, read_metadata(second).entries
    rows = []
    for lang in sorted(before.keys() | after.keys()):
        empty = pa.chunked_array([], pa.string())
        old, new = before.get(lang, empty), after.get(lang, empty)
        at = pc.index_in(old, value_set=new.combine_chunks()).to_pylist()
        common = sum(position is not None for position in at)
        moved = sum(new_id not in (None, old_id) for old_id, new_id in enumerate(at))
        rows.append(
            {
                "lang": lang, "first": len(old), "second": len(new), "common": common, "removed": len(old) - common,
                "added": len(new) - common, "ids_moved": moved, "same": bool(old.equals(new)),
            }
        )  # fmt: skip
    return rows
