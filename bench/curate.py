"""Parquet of pairs in, curated Parquet out: `curate` beside the same work done the release's way, and its memory.

The release's way, as its paper and code organise the work: fastText and an Aho-Corasick automaton for each row, rows
as JSON between the passes. Ours is `worldclip curate` whole: reading, language, matching, counts, thresholds, draws,
writing. Both answer the same question on the same pairs, and keep the same images.

The texts are packaged names, keywords and sentences of 29 languages, 44 % English, two and a number joined to one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
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

#: Texts of the comparison, of the timed runs, and of the two runs whose memory is compared.
COMPARED, TIMED, MEMORY = 200_000, 2_000_000, (1_000_000, 20_000_000)
CHECK_COMPARED = 5_000

SHARD = 250_000

_ALONE = """
import json, resource, sys
from pathlib import Path
from bench.curate import metadata_of
from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.engines import LocalEngine
folder = Path(sys.argv[1])
curate(sorted((folder / "pairs").glob("*.parquet")), metadata_of(folder), folder / "curated", CurationConfig(), seed=0,
       engine=LocalEngine(workers=0))
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row of the comparison; without `check`, rows of speed on one and two workers and of memory.

    Raises:
        WorldclipError: the two ways keep different images, or give other counts.
    """
    compared = CHECK_COMPARED if check else COMPARED
    with tempfile.TemporaryDirectory() as root:
        home = Path(root)
        phrases = make_metadata(Cache(cache_folder()), home, 20_000 if check else ENGLISH_ENTRIES)
        metadata = metadata_of(home)
        small = home / "small"
        make_pairs(small / "pairs", phrases, compared, compared)
        ours, _ = _ours(small, metadata, 0)  # compiles
        began = time.perf_counter()
        theirs = _release_way(small / "pairs", metadata, small / "theirs.jsonl")
        their_rate = compared / (time.perf_counter() - began - theirs.pop("building"))
        if ours != theirs:
            raise WorldclipError("bench: curate: the two ways differ in what they keep.")
        told = {
            "answers": "equal",
            "texts": compared,
            "kept": len(ours["kept"]),
            "english_entries": len(metadata.entries["en"]),
        }
        if check:
            yield told
            return
        rates = {}
        for workers in (1, 2):
            folder = home / f"timed{workers}"
            make_pairs(folder / "pairs", phrases, TIMED, SHARD)
            _index(folder, metadata)
            _, seconds = _ours(folder, metadata, workers)
            rates[workers] = TIMED / seconds
        yield {
            **told,
            "texts_per_second_and_core": round(rates[1]),
            "release_way_texts_per_second_and_core": round(their_rate),
            "ratio": round(rates[1] / their_rate, 1),
            "two_workers": round(rates[2]),
            "scaling": round(rates[2] / rates[1], 2),
        }
        for texts in MEMORY:
            yield {"texts_in_one_shard": texts, "peak_mb": round(_peak_alone(home / str(texts), home, phrases, texts))}


def _ours(folder: Path, metadata: Metadata, workers: int) -> tuple[dict[str, Any], float]:
    pairs = sorted((folder / "pairs").glob("*.parquet"))
    began = time.perf_counter()
    summary = curate(pairs, metadata, folder / "curated", CurationConfig(), seed=0, engine=LocalEngine(workers=workers))
    seconds = time.perf_counter() - began
    kept = []
    for path in sorted((folder / "curated").glob("curated-*.parquet")):
        table = read_table(path, ["id", "kept"])
        kept += table.filter(table.column("kept")).column("id").to_pylist()
    table = read_table(folder / "curated" / "thresholds.parquet")
    limits = {row["lang"]: row["t"] for row in table.to_pylist() if row["matches"]}
    return {"kept": sorted(kept), "limits": limits, "texts": summary["texts"]}, seconds


def _index(folder: Path, metadata: Metadata) -> None:
    """Make the indexes alone: the automata of the other way are made before its clock, too."""
    for name, entries in metadata.entries.items():
        build_index(entries, "paper", folder / "curated" / "index" / name)


def _release_way(pairs: Path, metadata: Metadata, between: Path) -> dict[str, Any]:
    """The same pairs, a row at a time."""
    began = time.perf_counter()
    automata = {}
    for lang, entries in metadata.entries.items():
        automata[lang] = ahocorasick.Automaton()
        for position, entry in enumerate(entries.to_pylist()):
            automata[lang].add_word(padded(entry), position)
        automata[lang].make_automaton()
    building = time.perf_counter() - began

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


def _peak_alone(folder: Path, home: Path, phrases: dict[str, pa.Array], texts: int) -> float:
    """MiB that one process needs at most, all texts in one file."""
    make_pairs(folder / "pairs", phrases, texts, texts)
    for path in home.glob("*.arrow"):
        (folder / path.name).symlink_to(path)
    done = subprocess.run([sys.executable, "-c", _ALONE, str(folder)], capture_output=True, text=True, check=True)
    return float(done.stdout)


# What is curated.


def make_metadata(cache: Cache, home: Path, english: int) -> dict[str, pa.Array]:
    """Write starter lists, the English one of `english` entries; return phrases of each language to make texts of."""
    lists = starter.build(cache, home / "starter", languages=QUICKSTART_LANGUAGES, report=lambda _: None).entries
    phrases = _phrases(cache)
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


def _phrases(cache: Cache) -> dict[str, pa.Array]:
    found = {}
    for lang in QUICKSTART_LANGUAGES:
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
