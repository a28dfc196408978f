"""Matching: `Index` beside pyahocorasick, ahocorasick_rs and Polars, one core, same answers, six languages.

Lists are the packaged starter lists, filled up with pairs of their short entries, as the bigrams of real lists are.
Rates are texts a CPU second. Ours begin with texts as they are; peers are given prepared ones (marks between spaces).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import ahocorasick_rs
import numba
import numpy as np
import polars
import pyarrow as pa
from pyarrow import feather

from worldclip.curation.match import Index, padded
from worldclip.curation.search import search
from worldclip.curation.texts import buffers
from worldclip.errors import WorldclipError
from worldclip.languages import LANGUAGES as TABLE
from worldclip.metadata import starter
from worldclip.packages import Cache, cache_folder

LANGUAGES = ("en", "de", "zh", "ja", "th", "ar")
SIZES, CHECK_SIZES = (10_000, 100_000, 500_000, 5_000_000), (10_000,)
#: The largest list that peers are given: beyond, they need minutes and tens of gigabytes.
PEERS_UP_TO, POLARS_UP_TO = 500_000, 100_000
#: Entries of all of the paper's lists together, about.
ALL_LISTS = 27_000_000
TEXTS, PEER_TEXTS, CHECK_TEXTS, TIMES = 200_000, 60_000, 2_000, 3
MARKS = ",.;:?!`"

_OPENS = """
import re, sys, time
import pyarrow as pa
from worldclip.curation.match import Index
texts = pa.array(sys.stdin.readline().rstrip("\\n").split("\\t"))
began = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter() - began
index.match(texts)
print(opened, flush=True)
sys.stdin.readline()
maps = open("/proc/self/smaps").read().split(sys.argv[1])[1:]
print(sum(int(re.search(r"Pss: *(\\d+)", each)[1]) for each in maps), flush=True)
sys.stdin.readline()
"""

_BUILDS = """
import sys, time
from pathlib import Path
import pyarrow.feather as feather
from bench import peak_mb
from worldclip.curation.match import Index
entries = feather.read_table(sys.argv[1]).column(0)
began = time.perf_counter()
Index.build(entries).save(Path(sys.argv[2]))
print(time.perf_counter() - began, peak_mb())
"""


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a language and size; then what the largest common list costs in memory, and what bounds the speed.

    Raises:
        WorldclipError: two matchers do not give the same ids.
    """
    cache, languages = Cache(cache_folder()), LANGUAGES[::2] if check else LANGUAGES
    with tempfile.TemporaryDirectory() as folder:
        lists = starter.build(cache, Path(folder), languages=languages, report=lambda _: None).entries
        for size in CHECK_SIZES if check else SIZES:
            for lang in languages:
                captions = _texts(cache, lang, CHECK_TEXTS if check else TEXTS)
                entries = _entries(lists[lang].to_pylist(), size, spaced=TABLE[lang].spaced)
                path = Path(folder, "index")
                row, index = _ours(entries, captions, path)
                yield {"lang": lang, "entries": len(entries), **row, **_peers(entries, captions, index, check=check)}
                if lang == "en" and size == (CHECK_SIZES if check else SIZES[2:3])[0]:
                    yield {"lang": lang, "entries": len(entries), **_processes(path, captions)}
                    yield {"lang": lang, "entries": len(entries), **_threads(index, captions)}
                path.unlink()
        yield _largest(lists["en"].to_pylist(), Path(folder), CHECK_SIZES[0] if check else ALL_LISTS)


def _entries(real: list[str], size: int, *, spaced: bool) -> list[str]:
    """So many entries: the real ones, then pairs of their short ones, in an order that is always the same."""
    short = [entry for entry in real if len(entry) <= (8 if spaced else 3) and " " not in entry]
    entries = dict.fromkeys(real[:size])
    step = 1
    while len(entries) < size:
        for at, entry in enumerate(short):
            if len(entries) == size:
                break
            entries[f"{entry}{' ' if spaced else ''}{short[(at * 7 + step * 7919) % len(short)]}"] = None
        step += 1
    return list(entries)


def _texts(cache: Cache, lang: str, count: int) -> list[str]:
    """Texts as long as alt-texts: WordNet's glosses in English, else names and keywords of two drawings."""
    if lang == "en":
        files = sorted((cache.path("wordnet") / "dict").glob("data.*"))
        lines = [line for file in files for line in file.read_text("utf-8").splitlines() if not line.startswith("  ")]
        glosses = [line.partition("| ")[2].strip() for line in lines]
        np.random.default_rng(0).shuffle(glosses)
        return glosses[:count]
    path = cache.path("cldr-annotations") / "annotations" / lang / "annotations.json"
    drawings = json.loads(path.read_bytes())["annotations"]["annotations"].values()
    told = [", ".join([*each.get("tts", []), *each.get("default", [])]) for each in drawings]
    return [f"{told[at % len(told)]}. {told[(at * 7 + at // len(told)) % len(told)]}" for at in range(count)]


def _timed(work: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """CPU seconds of the fastest of some runs, and the last one's result."""
    seconds, result = [], None
    for _ in range(times):
        result = None
        began = time.process_time()
        result = work()
        seconds.append(max(time.process_time() - began, 1e-9))
    return min(seconds), result


def _ours(entries: list[str], captions: list[str], path: Path) -> tuple[dict[str, Any], Index]:
    array = pa.array(captions, pa.large_string())
    Index.build(entries[:9]).match(array[:9])  # compiled before it is timed
    listed = pa.array(entries, pa.large_string())
    building, built = _timed(lambda: Index.build(listed))
    built.save(path)
    opening = time.perf_counter()
    index = Index.open(path)
    opening = time.perf_counter() - opening
    index.match(array[:1000])
    seconds, _ = _timed(lambda: index.match(array), TIMES)
    data, offsets = buffers(array)
    paper, kinds, folded = index._rule
    _, table, _, records = index._arrays
    _, _, work = search(data, offsets, paper, kinds, folded, *index._arrays, index._record_bytes)
    lookups, asked = (work[:2] / len(captions)).tolist()
    bound = lookups * _latency(table.nbytes) + asked * _latency(records.nbytes)
    return {
        "texts_per_second": round(len(captions) / seconds),
        "mb_per_second": round(len(data) / seconds / 1e6, 1),
        "build_seconds": round(building, 2),
        "bytes_per_entry": round(path.stat().st_size / len(entries), 1),
        "open_ms": round(opening * 1e3, 2),
        "random_reads_per_text": round(lookups + asked, 1),
        "latency_bound_ns": round(bound),
        "ns_per_text": round(seconds / len(captions) * 1e9),
        "times_faster_than_one_read_after_the_other": round(bound / (seconds / len(captions) * 1e9), 2),
    }, index


@numba.njit(cache=True)
def _chase(following: np.ndarray, steps: int) -> int:
    at = 0
    for _ in range(steps):
        at = following[at]
    return at


def _latency(size: int) -> float:
    """Nanoseconds of a read that waits for the one before it, at random in so many bytes, a cache line each."""
    lines = max(2, size // 64)
    order = np.random.default_rng(0).permutation(lines)
    following = np.zeros(lines * 8, np.int64)
    following[order * 8] = np.roll(order, -1) * 8
    _chase(following, 10)
    return _timed(lambda: _chase(following, 200_000), TIMES)[0] / 200_000 * 1e9


def _prepared(text: str) -> str:
    for mark in MARKS:
        text = text.replace(mark, f" {mark} ")
    return f" {text.translate({9: 32, 10: 32, 13: 32})} "


def _peers(entries: list[str], captions: list[str], index: Index, *, check: bool) -> dict[str, Any]:
    """The same texts by the peers. They are given the preparation of texts for nothing; how long it takes is told."""
    if len(entries) > PEERS_UP_TO:
        return {}
    texts = captions[: CHECK_TEXTS if check else PEER_TEXTS]
    times = 1 if check else TIMES
    preparation, prepared = _timed(lambda: [_prepared(text) for text in texts], times)
    patterns = [padded(entry) for entry in entries]
    array = pa.array(texts, pa.large_string())
    ours, matches = _timed(lambda: index.match(array), TIMES)
    expected = matches.to_pylist()

    automaton = ahocorasick.Automaton()
    for position, pattern in enumerate(patterns):
        automaton.add_word(pattern, position)
    automaton.make_automaton()
    seconds, found = _timed(lambda: [sorted({at for _, at in automaton.iter(text)}) for text in prepared], times)
    rows = {"pyahocorasick": seconds}
    _equal("pyahocorasick", found, expected)
    ours = min(ours, _timed(lambda: index.match(array), TIMES)[0])  # again: a machine's speed changes within minutes
    rust = ahocorasick_rs.AhoCorasick(patterns)
    rows["ahocorasick_rs"], found = _timed(
        lambda: [sorted({at for at, *_ in rust.find_matches_as_indexes(text, overlapping=True)}) for text in prepared]
    )
    _equal("ahocorasick_rs", found, expected)
    if len(entries) <= POLARS_UP_TO:
        column = polars.Series(prepared)
        rows["polars_find_many"], places = _timed(lambda: column.str.find_many(patterns, overlapping=True))
        if [len(each) for each in places] != [sum(1 for _ in automaton.iter(text)) for text in prepared]:
            raise WorldclipError("bench: match: Polars finds another number of occurrences.")
    rates = {name: round(len(texts) / seconds) for name, seconds in rows.items()}
    ratios = {f"times_{name}": round(theirs / ours, 1) for name, theirs in rows.items()}
    prepared_too = round((rows["pyahocorasick"] + preparation) / ours, 1)
    return {"answers": "equal", **rates, **ratios, "times_pyahocorasick_and_preparation": prepared_too}


def _equal(peer: str, found: list[list[int]], expected: list[list[int]]) -> None:
    if found != expected:
        raise WorldclipError(f"bench: match: Index and {peer} give different ids.")


def _processes(path: Path, captions: list[str]) -> dict[str, Any]:
    """Resident memory (proportional set size) of the index, summed over processes that have opened it and matched."""
    path = Path(shutil.copy(path, path.with_suffix(".alone")))  # which this process has not mapped
    texts = "\t".join(captions).encode() + b"\n"  # so many that nearly all pages are read
    row: dict[str, Any] = {"index_mb": round(path.stat().st_size / 1e6, 2)}
    for count in (1, 2, 4):
        command = [sys.executable, "-c", _OPENS, str(path)]
        started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
        pipes = [(process.stdin, process.stdout) for process in started if process.stdin and process.stdout]
        for write, _ in pipes:
            write.write(texts)
            write.flush()
        opened = [float(read.readline()) for _, read in pipes]
        resident = []
        for write, read in pipes:
            write.write(b"\n")
            write.flush()
            resident.append(int(read.readline()) / 1e3)
        for process in started:
            process.communicate(b"\n")
        row[f"resident_mb_of_{count}"] = round(sum(resident), 2)
        row.setdefault("open_ms_in_a_fresh_process", round(max(opened) * 1e3, 2))  # of one, which nothing disturbs
    return row


def _largest(real: list[str], folder: Path, size: int) -> dict[str, Any]:
    """What it takes to build and save an index of so many entries, in a process of its own."""
    entries, path = folder / "entries", folder / "index"
    feather.write_feather(pa.table({"entry": pa.array(_entries(real, size, spaced=True), pa.large_string())}), entries)
    command = [sys.executable, "-c", _BUILDS, str(entries), str(path)]
    seconds, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()
    return {
        "entries": size,
        "built_and_saved_in_seconds": round(float(seconds), 1),
        "peak_mb": round(float(peak)),
        "bytes_per_entry": round(path.stat().st_size / size, 1),
    }


def _threads(index: Index, captions: list[str]) -> dict[str, Any]:
    """Wall time of the same texts on one thread and on two; and of arithmetic alone, which tells what two cores are."""
    array = pa.array(captions, pa.large_string())
    halves = [array[: len(array) // 2], array[len(array) // 2 :]]
    _arithmetic(1)
    return {
        "two_threads_times_one": _scaling([lambda half=half: index.match(half) for half in halves]),
        "two_threads_times_one_of_arithmetic": _scaling([lambda: _arithmetic(10_000_000)] * 2),
    }


def _scaling(works: Sequence[Callable[[], Any]]) -> float:
    """Wall time of two works one after the other, by that of both at once; the best of many runs of each."""

    def both() -> None:
        threads = [threading.Thread(target=work) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    walls = []
    for run_ in (lambda: [work() for work in works], both):
        spans = []
        for _ in range(20):
            began = time.perf_counter()
            run_()
            spans.append(time.perf_counter() - began)
        walls.append(min(spans))
    return round(walls[0] / walls[1], 2)


@numba.njit(nogil=True)
def _arithmetic(steps: int) -> int:
    a, b, c, d = 1, 2, 3, 4
    for step in range(steps):
        a, b, c, d = (a ^ step) + (a << 3), (b ^ step) + (b << 5), (c ^ step) + (c << 7), (d ^ step) + (d << 9)
    return a ^ b ^ c ^ d
