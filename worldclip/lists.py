"""Lists from dumps, on an engine: count each file, merge a language's counts, write its list.

    <folder>/work  sources/*/      counts of one file, kept for the next build: only new files are counted
                   lists/*.json    facts of one list, and of what all were made
    <folder>/<list>.parquet       the lists                      <folder>/manifest.json   written last

Each file and each list is one task, done once; after kill -9 the same command goes on. The tasks' own order and number
of workers leave no trace in the bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation.rules import RULES, dead
from worldclip.engines import Engine, Task
from worldclip.errors import ConfigError, MissingData
from worldclip.languages import LANGUAGES, list_of_wikipedia
from worldclip.metadata.build import Selection, Source, build_list, find_sources, parts_of, read_source
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
from worldclip.metadata.reading import PACE, told
from worldclip.storage import digest, read_json, sweep, write_json

Report = Callable[[str, int, int], None]


def build_lists(
    sources: Path,
    folder: Path,
    *,
    engine: Engine,
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
        report: called with a step's name, how much of it is done and how much there is: "bytes read" of the sources'
            files, also within one file, wherever it is read; then "lists". Its first step is told by a thread.

    Raises:
        ConfigError: a list is not known.
        MissingData: the sources reach no list that was asked for, or a segmenter is missing.
        ShardsFailed: some files or lists could not be done, each with its reason; all others are.
    """
    selection, limits = selection or Selection(), limits or Limits()
    if unknown := [code for code in languages or () if code not in LANGUAGES]:
        raise ConfigError(f"languages: no list is called {', '.join(unknown)}; allowed: {', '.join(LANGUAGES)}.")
    wanted = set(languages or LANGUAGES)
    found, unread = find_sources(sources)
    found = [
        source for source in found if source.kind != "text" or list_of_wikipedia(source.code, selection.rule) in wanted
    ]
    if concepts:
        if not concepts.is_file():
            raise MissingData(f"{concepts}: not found; --concepts takes a text file, CSV or Parquet.")
        found.append(Source(path=concepts, kind="concepts"))
    names = [_name(source.path, sources) for source in found]
    work = folder / "work"
    outs = [
        work / "sources" / _version(name, source, selection) / "done.json"
        for name, source in zip(names, found, strict=True)
    ]
    _begin(work / "lists", digest(BUILDER, repr(selection), repr(languages), *(out.parent.name for out in outs)))
    (folder / MANIFEST).unlink(missing_ok=True)  # a folder without one is unfinished

    with _bytes_read(work / "sources", report) as progress:
        engine.run(
            [
                Task(
                    name=name,
                    function=read_source,
                    arguments=(source, selection.chinese, limits, out),
                    output=out,
                    size=source.path.stat().st_size,
                )
                for name, source, out in zip(names, found, outs, strict=True)
            ],
            progress,
        )
    parts = {
        code: mine for code, mine in parts_of(zip(found, outs, strict=True), selection.rule).items() if code in wanted
    }
    if not parts:
        raise MissingData(
            f"{sources}: holds no dump, page views, wordnet or concepts for {', '.join(languages or ('any list',))}. "
            "Files keep the names they are published under; `worldclip metadata download` fetches some."
        )
    facts = {code: work / "lists" / f"{code}.json" for code in parts}
    engine.run(
        [
            Task(
                name=f"list {code}",
                function=build_list,
                arguments=(code, mine, selection, folder / f"{code}.parquet", facts[code]),
                output=facts[code],
            )
            for code, mine in parts.items()
        ],
        partial(report, "lists") if report else None,
    )
    made = {code: read_json(path) for code, path in facts.items()}
    write_manifest(
        folder,
        {code: fact["hash"] for code, fact in made.items() if fact["entries"] > len(NUMBERS)},
        {
            "languages": made,
            "selection": asdict(selection),
            "sources": {name: read_json(out) for name, out in zip(names, outs, strict=True)},
            "unread_files": sorted(_name(path, sources) for path in unread),
        },
    )
    return read_metadata(folder)


@contextmanager
def _bytes_read(folder: Path, report: Report | None) -> Iterator[Callable[[int, int], None] | None]:
    """Give what an engine tells of files that are done; report it with what workers have read of others."""
    if report is None:
        yield None
        return
    sweep(folder)  # what killed workers told
    done, total = 0, 0
    ended = Event()

    def book(files_done: int, files: int) -> None:
        nonlocal done, total
        done, total = files_done, files

    def watch() -> None:
        while not ended.wait(PACE):
            if done < total:  # All of a file may be read before its counts are written.
                report("bytes read", min(done + told(folder), total - 1), total)

    watcher = Thread(target=watch, daemon=True, name="worldclip-bytes-read")
    watcher.start()
    try:
        yield book
    finally:
        ended.set()
        watcher.join()
        report("bytes read", done, total)


def _name(path: Path, sources: Path) -> str:
    return path.relative_to(sources).as_posix() if path.is_relative_to(sources) else path.name


def _version(name: str, source: Source, selection: Selection) -> str:
    # Dumps are too large to hash at each start; their size and time of change tell.
    facts = source.path.stat()
    return digest(BUILDER, name, f"{facts.st_size} {facts.st_mtime_ns}", source.code, selection.chinese)[:16]


def _begin(lists: Path, key: str) -> None:
    """Make lists anew if what they are made of is not what it was."""
    path = lists / "key.json"
    if path.exists() and read_json(path) == key:
        return
    if lists.exists():
        shutil.rmtree(lists)
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
