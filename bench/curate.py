"""Parquet of pairs in, curated Parquet out: `curate` beside the same work done the release's way.

The release's way, as its paper and code organise the work: fastText and an Aho-Corasick automaton for each row, rows
as JSON between the passes. Ours is `curate` whole: reading, language, matching, counts, thresholds, draws, writing.
Both answer the same question on the same pairs, and keep the same images.

The release's way is timed without the start of its process and the building of its automata. Ours is timed from the
start of a process to its end, workers and what they load included, on indexes made before; `steady` is what remains
where that start is a small part: the difference of two sizes.

The texts are packaged names, keywords and sentences of 29 languages, 44 % English, two and a number joined to one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import ahocorasick
import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.match import _prepared
from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.curation import tail_share, tail_threshold
from worldclip.curation.lid import packaged_model
from worldclip.curation.match import padded
from worldclip.curation.sample import id_keys, uniform
from worldclip.engines import LocalEngine
from worldclip.errors import WorldclipError
from worldclip.languages import metadata_code
from worldclip.metadata import starter
from worldclip.metadata.entries import Metadata
from worldclip.packages import Cache, cache_folder
from worldclip.recipes import QUICKSTART_LANGUAGES
from worldclip.stages import build_index
from worldclip.storage import read_table

ENGLISH_ENTRIES, ENGLISH_SHARE = 500_000, 0.44

#: Texts of the comparison, and of the timed runs.
COMPARED, CHECK_COMPARED, TIMED = 200_000, 5_000, (1_000_000, 10_000_000)

#: Languages of a check, which is to be quick.
CHECK_LANGUAGES = ("en", "th")

SHARD = 250_000


#: Curates a folder in a process of its own; prints its peak (MiB) and the images it met.
ALONE = """
import json, sys
from pathlib import Path
from bench import peak_mb
from bench.curate import metadata_of
from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.engines import LocalEngine
home, folder, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
summary = curate(sorted((folder / "pairs").glob("*.parquet")), metadata_of(home), folder / "curated", CurationConfig(),
                 seed=0, engine=LocalEngine(workers=workers))
print(json.dumps([peak_mb(), summary["images"]]))
"""


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """Rows of answers, of whole processes by texts and workers, and of what more texts cost.

    Raises:
        WorldclipError: the two ways keep different images, or find other thresholds; images are lost.
    """
    compared = CHECK_COMPARED if check else COMPARED
    with tempfile.TemporaryDirectory() as root:
        home = Path(root)
        phrases = make_metadata(home, check)
        metadata = metadata_of(home)
        make_pairs(home / "small" / "pairs", phrases, compared, compared)
        ours = _ours(home / "small", metadata)  # compiles, too
        began = time.process_time()
        theirs = _release_way(home / "small" / "pairs", metadata, home / "theirs.jsonl")
        release = compared / (time.process_time() - began - theirs.pop("building"))
        if ours != theirs:
            raise WorldclipError("bench: curate: the two ways differ in what they keep.")
        yield {
            "answers": "equal",
            "texts": compared,
            "bytes_a_text": round(_mean_bytes(home / "small" / "pairs"), 1),
            "kept": len(ours["kept"]),
            "entries": sum(map(len, metadata.entries.values())),
            "english_entries": len(metadata.entries["en"]),
            "release_way_texts_per_cpu_second": round(release),
        }
        if not check:
            yield from _timed(home, phrases, metadata, release)


def _timed(home: Path, phrases: dict[str, pa.Array], metadata: Metadata, release: float) -> Iterator[dict[str, Any]]:
    spent: dict[tuple[int, int], tuple[float, float]] = {}
    for texts in TIMED:
        folder = home / str(texts)
        make_pairs(folder / "pairs", phrases, texts, SHARD)
        build_indexes(folder, metadata)
        for workers in (1, 2):
            seconds, cpu, _ = alone(home, folder, workers, texts)
            spent[texts, workers] = seconds, cpu
            yield _row(f"{texts:,}", workers, texts, seconds, cpu, spent[texts, 1][0], release)
    few, many = TIMED
    for workers in (1, 2):
        seconds, cpu = (after - before for before, after in zip(spent[few, workers], spent[many, workers], strict=True))
        one = spent[many, 1][0] - spent[few, 1][0]
        yield _row("steady", workers, many - few, seconds, cpu, one, release)


def _row(what: str, workers: int, texts: int, seconds: float, cpu: float, one: float, release: float) -> dict[str, Any]:
    return {
        "texts": what,
        "workers": workers,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "texts_per_second": round(texts / seconds),
        "texts_per_cpu_second": round(texts / cpu),
        "of_one_worker": round(one / seconds, 2),
        "of_the_release_way": round(texts / cpu / release, 1),
    }


def alone(home: Path, folder: Path, workers: int, texts: int) -> tuple[float, float, float]:
    """Curate a folder anew in a process of its own: its seconds, CPU seconds of it and its workers, its peak (MiB).

    Raises:
        WorldclipError: images are lost.
    """
    for path in (folder / "curated").glob("*.*"):
        path.unlink()
    command = [sys.executable, "-c", ALONE, str(home), str(folder), str(workers)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, images = json.loads(done.stdout)
    if images != texts:
        raise WorldclipError(f"bench: curate: {images} images came of {texts}.")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def _mean_bytes(pairs: Path) -> float:
    return float(pc.mean(pc.binary_length(read_table(next(pairs.glob("*.parquet"))).column("text"))).as_py())


def _ours(folder: Path, metadata: Metadata) -> dict[str, Any]:
    pairs = sorted((folder / "pairs").glob("*.parquet"))
    summary = curate(pairs, metadata, folder / "curated", CurationConfig(), seed=0, engine=LocalEngine(workers=0))
    kept = []
    for path in sorted((folder / "curated").glob("curated-*.parquet")):
        table = read_table(path, ["id", "kept"])
        kept += table.filter(table.column("kept")).column("id").to_pylist()
    table = read_table(folder / "curated" / "thresholds.parquet")
    limits = {row["lang"]: row["t"] for row in table.to_pylist() if row["matches"]}
    return {"kept": sorted(kept), "limits": limits, "texts": summary["texts"]}


def build_indexes(folder: Path, metadata: Metadata) -> None:
    """Make the indexes alone: the automata of the other way are made before its clock, too."""
    for name, entries in metadata.entries.items():
        build_index(entries, "paper", folder / "curated" / "index" / name)


def _release_way(pairs: Path, metadata: Metadata, between: Path) -> dict[str, Any]:
    """The same pairs, a row at a time."""
    began = time.process_time()
    automata = {}
    for lang, entries in metadata.entries.items():
        automata[lang] = ahocorasick.Automaton()
        for position, entry in enumerate(entries.to_pylist()):
            automata[lang].add_word(padded(entry), position)
        automata[lang].make_automaton()
    building = time.process_time() - began

    model = fasttext.load_model(str(packaged_model()))
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    number = 0
    with open(between, "w", encoding="utf-8") as out:
        for path in sorted(pairs.glob("*.parquet")):
            for row in read_table(path).to_pylist():
                number += 1
                lang = metadata_code(model.predict(row["text"].replace("\n", " "))[0][0].removeprefix("__label__"))
                found: list[int] = []
                if lang in automata:
                    found = sorted({position for _, position in automata[lang].iter(_prepared(row["text"]))})
                    counts[lang].update(found)
                out.write(json.dumps({**row, "lang": lang, "matches": found}) + "\n")
    vectors = {
        lang: np.array([found[at] for at in range(len(metadata.entries[lang]))]) for lang, found in counts.items()
    }
    t_en = tail_threshold(0.06, vectors["en"])
    p = tail_share(t_en, vectors["en"])
    limits = {lang: t_en if lang == "en" else tail_threshold(p, vector) for lang, vector in vectors.items()}
    kept = []
    with open(between, encoding="utf-8") as lines, open(between.with_suffix(".kept"), "w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            if row["matches"]:
                lang = row["lang"]
                share = 1 - prod(1 - min(1.0, limits[lang] / counts[lang][each]) for each in row["matches"])
                if uniform(id_keys([row["id"]]), 0, 0, 1)[0] < share:
                    kept.append(row["id"])
                    out.write(json.dumps(row) + "\n")
    return {"kept": sorted(kept), "limits": limits, "texts": number, "building": building}


# What is curated.


def make_metadata(home: Path, check: bool) -> dict[str, pa.Array]:
    """Write starter lists, filled up in English; return phrases of each language to make texts of."""
    cache = Cache(cache_folder())
    langs = CHECK_LANGUAGES if check else QUICKSTART_LANGUAGES
    english = 0 if check else ENGLISH_ENTRIES
    lists = starter.build(cache, home / "starter", languages=langs, report=lambda _: None).entries
    phrases = _phrases(cache, langs)
    words = [
        word
        for bucket in starter._buckets(next((cache.path("wordfreq") / "wordfreq/data").glob("large_en*")))
        for word in bucket
    ]
    # English, filled up with rarer words, then with pairs of words.
    pairs = (
        f"{one} {other}" for step in range(1, 1000) for one, other in zip(words[:3000], words[step:3000], strict=False)
    )
    more = dict.fromkeys(lists["en"].to_pylist())
    for entry in (*words, *pairs):
        if len(more) >= english:
            break
        more.setdefault(entry)
    for lang, entries in (lists | {"en": pa.chunked_array([list(more)])}).items():
        table = pa.table({"entry": entries})
        with pa.OSFile(str(home / f"{lang}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return phrases


def metadata_of(home: Path) -> Metadata:
    """What `make_metadata` wrote."""
    tables = {path.stem: pa.ipc.open_file(path.read_bytes()).read_all() for path in sorted(home.glob("*.arrow"))}
    return Metadata(entries={lang: table.column("entry") for lang, table in tables.items()}, hash="bench")


def _phrases(cache: Cache, langs: Sequence[str]) -> dict[str, pa.Array]:
    found = {}
    for lang in langs:
        path = cache.path("cldr-annotations") / "annotations" / lang / "annotations.json"
        drawings = json.loads(path.read_bytes())["annotations"]["annotations"].values()
        names = [(each["tts"][0], ", ".join(each.get("default", ()))) for each in drawings if each.get("tts")]
        found[lang] = pa.array([text for both in names for text in both])  # a name, then its keywords
    return found


def make_pairs(folder: Path, phrases: dict[str, pa.Array], texts: int, shard: int) -> None:
    """Write pairs of one text each to files of `shard` rows."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(5)
    langs = list(phrases)
    others = (1 - ENGLISH_SHARE) / (len(langs) - 1)
    shares = [ENGLISH_SHARE if lang == "en" else others for lang in langs]
    for first in range(0, texts, shard):
        with pq.ParquetWriter(folder / f"pairs-{first:010d}.parquet", _PAIRS, compression="zstd") as writer:
            for at in range(first, min(first + shard, texts), 250_000):
                number = min(250_000, first + shard - at, texts - at)
                counts = draw.multinomial(number, shares)
                made = pa.concat_arrays(
                    [_joined(phrases[lang], count, draw) for lang, count in zip(langs, counts, strict=True)]
                ).take(pa.array(draw.permutation(number)))
                ids = pc.binary_join_element_wise(
                    "https://example.org/images/", pa.array(range(at, at + number)).cast(pa.string()), ".jpg", ""
                )
                writer.write_table(pa.table({"id": ids, "text": made}, schema=_PAIRS))


_PAIRS = pa.schema([("id", pa.string()), ("text", pa.string())])


def _joined(phrases: pa.Array, count: int, draw: np.random.Generator) -> pa.Array:
    one = phrases.take(pa.array(draw.integers(0, len(phrases), count)))
    other = phrases.take(pa.array(draw.integers(0, len(phrases) // 2, count) * 2))
    number = pa.array(draw.integers(0, 10_000, count)).cast(pa.string())
    return pc.binary_join_element_wise(one, other, number, " ")
