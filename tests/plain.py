"""Algorithm 1 whole, in the words of `reference`: pairs of real names and keywords, and what is to come of them.

python plain.py FOLDER [HOST:PORT]     curates what `driven` wrote to a folder, on two workers or a Ray cluster's
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import reference

from worldclip.config import CurationConfig
from worldclip.curate import MERGED, curate
from worldclip.curation.lid import packaged_model
from worldclip.engines import Engine, LocalEngine, Task
from worldclip.engines.ray import ray_engine
from worldclip.languages import metadata_code
from worldclip.metadata import starter
from worldclip.metadata.entries import Metadata, read_metadata
from worldclip.packages import Cache
from worldclip.schema import PAIRS
from worldclip.storage import read_json, read_table, write_bytes, write_json, write_table

LANGUAGES = ("de", "en", "fr", "ja", "ru", "zh")
SEED = 11
SHARDS = (1, 2, 5)
CONFIG = CurationConfig(t_en=6)
Row = tuple[str, list[tuple[str, str]]]
GOLDEN, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def plain_uniform(key: str, *values: int) -> float:
    state = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    for value in values:
        state = (state + GOLDEN * (value + 1)) & MASK
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return (state >> 11) / 2**53


@dataclass(frozen=True)
class World:
    """Pairs and metadata, and the language that fastText gives each text."""

    rows: list[Row]
    lists: dict[str, list[str]]
    langs: dict[str, str]

    @property
    def metadata(self) -> Metadata:
        return Metadata(entries={lang: pa.chunked_array([entries]) for lang, entries in self.lists.items()}, hash="0")


def world_of(cache: Cache, folder: Path) -> World:
    """Every twentieth emoji; of the metadata the entries that could occur, and some that do not. Writes to a folder."""
    named = {}
    for lang in LANGUAGES:
        path = cache.path("cldr-annotations") / "annotations" / lang / "annotations.json"
        named[lang] = json.loads(path.read_text("utf-8"))["annotations"]["annotations"]
    rows: list[Row] = []
    for emoji in sorted(named["en"])[::20]:
        texts = [
            (kind, text)
            for lang in LANGUAGES
            for kind, key in (("keyword", "default"), ("title", "tts"))
            for text in named[lang].get(emoji, {}).get(key, ())
        ]
        rows.append((f"emoji/{ord(emoji[0]):x}-{len(rows)}", texts))
    rows[3] = (rows[3][0], [])
    everything = {text for _, texts in rows for _, text in texts}
    pieces = {text[at : at + size] for text in everything for at in range(len(text)) for size in range(1, 9)}
    pieces |= {word for text in everything for word in text.split()}
    starter.build(cache, folder, languages=LANGUAGES, report=lambda _: None)
    lists = {
        lang: [entry for at, entry in enumerate(entries.to_pylist()) if at % 500 == 0 or entry in pieces][:1500]
        for lang, entries in read_metadata(folder).entries.items()
    }
    model = fasttext.load_model(str(packaged_model()))
    langs = {text: metadata_code(model.predict(text)[0][0].removeprefix("__label__")) for text in everything}
    return World(rows, lists, langs)


@dataclass(frozen=True)
class Plain:
    """What Algorithm 1 says, in the reference's words."""

    counts: dict[str, list[int]]
    limits: dict[str, int]
    rows: dict[str, list[tuple[str, str, str, float, bool]]]  #: id -> kind, text, language, probability, kept


def plainly(world: World, config: CurationConfig) -> Plain:
    merged = list(dict.fromkeys(entry for lang in sorted(world.lists) for entry in world.lists[lang]))
    lists = {"per_language": world.lists, "english": {"en": world.lists["en"]}, "merged": {MERGED: merged}}[
        config.metadata
    ]

    def list_of(lang: str) -> str | None:
        name = {"per_language": lang, "english": "en", "merged": MERGED}[config.metadata]
        return name if name in lists and (config.texts == "all" or lang == "en") else None

    by_list = defaultdict(set)
    for text, lang in world.langs.items():
        by_list[list_of(lang)].add(text)
    matches: dict[str, list[int]] = {text: [] for text in by_list.pop(None, ())}
    for name, texts in by_list.items():
        matches |= zip(texts, reference.match(lists[name], list(texts)), strict=True)
    of_list = defaultdict(list)
    for _, texts in world.rows:
        for _, text in texts:
            of_list[list_of(world.langs[text])].append(matches[text])
    counts = {name: reference.count(len(entries), of_list[name]) for name, entries in lists.items()}

    t_en = config.t_en if config.t_en is not None else reference.p_to_t(config.tail_share, counts["en"])
    limits = dict.fromkeys(lists, t_en)
    if config.thresholds == "t_lang":
        p = reference.t_to_p(t_en, counts["en"])
        limits |= {lang: reference.p_to_t(p, counts[lang]) for lang in lists if lang != "en"}
    probability = {
        name: reference.probabilities(limits[name], counts[name]) if limits[name] else [0.0] * len(counts[name])
        for name in lists
    }

    rows = {}
    for name, texts in world.rows:
        found = [(kind, text, world.langs[text]) for kind, text in texts if matches[text]]
        if found:
            shares = [reference.keep_probability(matches[t], probability[list_of(lang)]) for _, t, lang in found]
            drawn = int(plain_uniform(name, SEED, 0, 0) * len(found))
            keep = plain_uniform(name, SEED, 0, 1) < shares[drawn]
            rows[name] = [
                (*text, share, keep and place == drawn)
                for place, (text, share) in enumerate(zip(found, shares, strict=True))
            ]
    return Plain(counts, limits, rows)


def write_pairs(folder: Path, rows: Sequence[Row], shards: int) -> list[Path]:
    paths = [folder / f"pairs-{shard}.parquet" for shard in range(shards)]
    for shard, path in enumerate(paths):
        own = rows[shard::shards]
        texts = [[{"kind": kind, "text": text} for kind, text in texts] for _, texts in own]
        columns = {"id": [name for name, _ in own], "texts": texts, "style": ["noto"] * len(own)}
        schema = pa.schema([*PAIRS, ("style", pa.string())])
        write_table(path, pa.table(columns, schema=schema))
    return paths


def run(world: World, folder: Path, config: CurationConfig, shards: int, engine: Engine) -> dict[str, Any]:
    pairs = write_pairs(folder, world.rows, shards)
    return curate(pairs, world.metadata, folder / "curated", config, seed=SEED, engine=engine)


def curated(folder: Path) -> dict[str, list[tuple[str, str, str, float, bool]]]:
    rows = defaultdict(list)
    for path in sorted((folder / "curated").glob("curated-*.parquet")):
        for row in read_table(path).to_pylist():
            assert row["style"] == "noto"
            rows[row["id"]].append((row["kind"], row["text"], row["lang"], row["keep_probability"], row["kept"]))
    return dict(rows)


def assert_same(found: Mapping[str, list[Any]], expected: Mapping[str, list[Any]]) -> None:
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert [(*row[:3], row[4]) for row in found[name]] == [(*row[:3], row[4]) for row in rows]
        np.testing.assert_allclose([row[3] for row in found[name]], [row[3] for row in rows], rtol=0, atol=1e-12)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def driven(world: World, folder: Path, hash_seed: str, cluster: str = "") -> None:
    """Curate in processes whose strings hash by a seed, driver and workers: folder/1/curated and so on, by shards."""
    for shards in SHARDS:
        write_pairs(folder / str(shards), world.rows, shards)
    write_json(folder / "lists.json", world.lists)
    environment = {
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path),
        "PYTHONHASHSEED": hash_seed,
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": {"PYTHONHASHSEED": hash_seed}}}),
    }
    subprocess.run([sys.executable, __file__, str(folder), cluster], env=os.environ | environment, check=True)
    here = subprocess.run(
        [sys.executable, "-c", "print(hash('worldclip'), end='')"],
        env=os.environ | environment, capture_output=True, check=True,
    )  # fmt: skip
    assert (folder / "hash").read_bytes() == here.stdout  # or the seed would not have reached the workers


def write_hash(path: Path) -> None:
    write_bytes(path, str(hash("worldclip")).encode())


def main(folder: Path, cluster: str) -> None:
    metadata = World([], read_json(folder / "lists.json"), {}).metadata
    local = nullcontext(LocalEngine(workers=2, tries=1))
    with ray_engine(cluster, workers=2, tell=print) if cluster else local as engine:
        for shards in map(str, SHARDS):
            pairs = sorted((folder / shards).glob("pairs-*.parquet"))
            curate(pairs, metadata, folder / shards / "curated", CONFIG, seed=SEED, engine=engine)
        engine.run([Task(name="hash", function=write_hash, arguments=(folder / "hash",), output=folder / "hash")])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
