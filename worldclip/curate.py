"""Algorithm 1 over shards of pairs, on an engine: match -> count -> thresholds -> sample.

    <folder>/index/<list>             the entries of each list, ready to be matched
    <folder>/counts-*.parquet         stage 1: matches of each entry that occurs in a shard
    <folder>/matches-*.parquet        stage 1: language and matched concepts of each text
    <folder>/counts.npz               matches of each entry in all shards, one int64 vector a list
    <folder>/thresholds.parquet       stage 2, with the figures of each language
    <folder>/probability.npy          stage 2: probability of each entry, all lists one after the other
    <folder>/curated-*.parquet        stage 3: candidate texts with their probability of being kept
    <folder>/summary.json             what went in, what was kept, what was dropped and why
    <folder>/manifest.json            hashes of all that went in

A shard that fails every try is quarantined: all others are curated, the summary names it, and the run fails at its end.
The tasks of a shard are in `stages.py`; the parts of the algorithm (`curation/`) are pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip import __version__
from worldclip.config import CurationConfig, as_dict
from worldclip.curation import entry_probability, tail_share, tail_threshold
from worldclip.curation.lid import packaged_model
from worldclip.curation.size import UNIT, ListSample, english_threshold, within
from worldclip.engines import Engine, Task, kept_workers
from worldclip.errors import ConfigError, MissingData, ShardsFailed
from worldclip.metadata.entries import Metadata
from worldclip.schema import THRESHOLDS
from worldclip.stages import (
    ENGLISH,
    MERGED,
    Question,
    build_index,
    forget,
    input_hash,
    match_shard,
    sample_shard,
    tally_of,
    thin_shard,
)
from worldclip.storage import file_digest, read_table, replacing, write_json, write_table

#: Images whose texts tell how many pairs a threshold keeps, where a size is asked for.
SIZE_SAMPLE = 1_000_000

Report = Callable[[str, int, int], None]


def entry_lists(metadata: Metadata, config: CurationConfig) -> dict[str, pa.Array | pa.ChunkedArray]:
    """The lists that texts are matched against: one a language, English alone, or all merged into one."""
    if config.metadata == "merged":
        return {
            MERGED: pc.unique(pa.chunked_array([chunk for each in metadata.entries.values() for chunk in each.chunks]))
        }
    if ENGLISH not in metadata.entries:
        raise ConfigError(
            f"The metadata has no list {ENGLISH!r}, which thresholds start from; lists: {', '.join(metadata.entries)}."
        )
    if config.metadata == "english":
        return {ENGLISH: metadata.entries[ENGLISH]}
    return dict(metadata.entries)


@kept_workers()
def curate(
    pairs: Sequence[str | Path],
    metadata: Metadata,
    folder: Path,
    config: CurationConfig,
    *,
    seed: int,
    engine: Engine,
    report: Report | None = None,
) -> dict[str, Any]:
    """Run Algorithm 1 and return the summary that is also written.

    What is already done in `folder` is kept: the caller empties it when the question has changed.

    Args:
        pairs: Parquet shards, see `schema.as_pairs`; paths, or URLs of a store that fsspec knows.
        report: called with a step's name, shards done and shards in all.

    Raises:
        ConfigError: the configuration asks for a threshold that it does not define.
        MissingData: there are no pairs.
        ShardsFailed: some shards could not be done; the others are curated without them.
    """
    if not pairs:
        raise MissingData(f"There are no pairs to curate for {folder}. Make them first: `worldclip pairs packaged`.")
    lists = entry_lists(metadata, config)
    if config.metadata == "merged" and config.t_en is None and config.target_pairs is None:
        raise ConfigError("curation.metadata=merged has no English counts to take t_en from: give curation.t_en.")
    forget()
    question = Question(folder=folder, lists=tuple(lists), metadata=metadata.hash, rule=metadata.rule, config=config)
    run = Steps(engine, report)
    index = {name: question.index / name for name in lists}
    run.all(
        "index",
        [
            Task(name=f"index {name}", function=build_index, arguments=(lists[name], config.rule, path), output=path)
            for name, path in index.items()
        ],
    )
    shards = [Shard(each, folder, f"{number:05d}-of-{len(pairs):05d}") for number, each in enumerate(map(str, pairs))]
    shards = run.shards("match", shards, "matches", match_shard, lambda shard: (shard.source, question, shard.counts))
    totals = merge_counts([each.counts for each in shards], {name: len(entries) for name, entries in lists.items()})
    tallies = [tally_of(shard.matches, question) for shard in shards]
    limits = _limits(totals, config)
    if config.target_pairs or config.language_floor or config.language_cap:
        images = sum(tally["figures"]["images"] for tally in tallies)
        share = min(1.0, SIZE_SAMPLE / max(images, 1))
        shards = run.shards("size", shards, "thin", thin_shard, lambda shard: (shard.matches, question, share))
        limits = _sized(limits, totals, config, _samples([shard.thin for shard in shards], share))
    _write_counts(folder / "counts.npz", totals)
    bases = _write_probability(question, totals, limits, [shard.curated for shard in shards])
    shards = run.shards("sample", shards, "curated", sample_shard, lambda shard: (shard.matches, question, bases, seed))

    table = thresholds(totals, limits)
    summary = _summary(table, tallies, [tally_of(shard.curated, question) for shard in shards], question)
    summary["quarantined"] = dict(sorted(run.failures.items()))
    write_table(folder / "thresholds.parquet", _with_figures(table, summary, question))
    write_json(folder / "manifest.json", {
        "worldclip": __version__,
        "metadata": metadata.hash,
        "lid": file_digest(Path(config.lid) if config.lid else packaged_model()),
        "config": as_dict(config),
        "seed": seed,
        "pairs": [[Path(shard.source).name, input_hash(shard.matches)] for shard in shards],
    })  # fmt: skip
    write_json(folder / "summary.json", summary)
    if run.failures:
        raise ShardsFailed(run.failures)
    return summary


class Shard:
    """One shard of pairs and the files that are made of it."""

    def __init__(self, source: str, folder: Path, name: str) -> None:
        self.source = source
        self.counts, self.matches, self.thin, self.curated = (
            folder / f"{kind}-{name}.parquet" for kind in ("counts", "matches", "thin", "curated")
        )


class Steps:
    """Hands tasks to the engine; shards that fail every try are left out of what follows."""

    def __init__(self, engine: Engine, report: Report | None) -> None:
        self._engine, self._report = engine, report
        self.failures: dict[str, str] = {}

    def all(self, what: str, tasks: Sequence[Task]) -> None:
        """Run tasks that must all be done."""
        self._engine.run(tasks, partial(self._report, what) if self._report else None)

    def shards(
        self, what: str, shards: Sequence[Shard], output: str, function: Callable[..., None],
        arguments: Callable[[Shard], tuple[Any, ...]],
    ) -> list[Shard]:  # fmt: skip
        """Run one task a shard and return the shards for which it is done.

        Raises:
            ShardsFailed: it is done for none.
        """
        tasks = [
            Task(
                name=each.source,
                function=function,
                arguments=(*arguments(each), getattr(each, output)),
                output=getattr(each, output),
            )
            for each in shards
        ]
        try:
            self.all(what, tasks)
        except ShardsFailed as error:
            self.failures |= error.failures
        done = [each for each in shards if each.source not in self.failures]
        if not done:
            raise ShardsFailed(self.failures)
        return done


# Stage 1, all shards together.


def merge_counts(paths: Sequence[Path], entries: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Add up the counts of all shards: list -> int64 [entries]. The order does not matter."""
    totals = {name: np.zeros(length, np.int64) for name, length in entries.items()}
    for path in paths:
        table = read_table(path)
        names = table.column("list").combine_chunks().dictionary_encode()
        entry, count = (table.column(name).to_numpy() for name in ("entry", "count"))
        codes = names.indices.to_numpy()
        for code, name in enumerate(names.dictionary.to_pylist()):
            totals[name][entry[codes == code]] += count[codes == code]  # each entry once in a file
    return totals


def read_counts(path: Path) -> dict[str, np.ndarray]:
    """Matches of each entry: list -> int64 [entries]."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _write_counts(path: Path, counts: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        arrays: dict[str, Any] = dict(sorted(counts.items()))
        np.savez(file, **arrays)


# Stage 2.


def _limits(counts: Mapping[str, np.ndarray], config: CurationConfig, t_en: int | None = None) -> dict[str, int]:
    """The threshold of each list."""
    english = counts[ENGLISH] if ENGLISH in counts else counts[MERGED]
    if t_en is None:
        t_en = config.t_en if config.t_en is not None else tail_threshold(config.tail_share, english)
    limits = dict.fromkeys(sorted(counts), t_en)
    if config.thresholds == "t_lang":
        p = tail_share(t_en, english)
        limits |= {name: tail_threshold(p, counts[name]) for name in limits if name not in (ENGLISH, MERGED)}
    return limits


def _samples(paths: Sequence[Path], share: float) -> dict[str, ListSample]:
    table = pa.concat_tables([read_table(path) for path in paths])
    names = table.column("list").unique().to_pylist()
    own = {name: table.filter(pc.equal(table.column("list"), name)).combine_chunks() for name in names}
    return {
        name: ListSample(
            matches=pa.concat_arrays(each.column("matches").chunks), turns=each.column("turn").to_numpy(), share=share
        )
        for name, each in own.items()
    }


def _sized(
    limits: dict[str, int],
    counts: Mapping[str, np.ndarray],
    config: CurationConfig,
    samples: Mapping[str, ListSample],
) -> dict[str, int]:
    """Thresholds that keep what the configuration asks for; floors and caps come after the target."""
    if config.target_pairs is not None:
        t_en = english_threshold(config.target_pairs, samples, counts, lambda t: _limits(counts, config, t))
        limits = _limits(counts, config, t_en)
    floor, cap = config.language_floor, config.language_cap
    return limits | {name: within(limits[name], each, counts[name], floor, cap) for name, each in samples.items()}


def thresholds(counts: Mapping[str, np.ndarray], limits: Mapping[str, int]) -> pa.Table:
    """One row a list, the table `schema.THRESHOLDS`; `pairs` and `expected_kept` are filled from the summary."""
    rows = []
    for name, vector in sorted(counts.items()):
        t = limits[name]
        head = int((vector >= t).sum()) if vector.any() else 0
        rows.append(
            {
                "lang": name,
                "t": t,
                "p": tail_share(t, vector),
                "entries": len(vector),
                "head": head,
                "tail": len(vector) - head,
                "matches": int(vector.sum()),
                "pairs": 0,
                "expected_kept": 0.0,
            }
        )
    return pa.Table.from_pylist(rows, THRESHOLDS)


def _write_probability(
    question: Question, counts: Mapping[str, np.ndarray], limits: Mapping[str, int], curated: Sequence[Path]
) -> dict[str, int]:
    """Write all entries' probabilities, and return where those of each list begin.

    What was drawn by others is removed first: counts grow when a shard that was quarantined is mended.
    """
    ends = np.cumsum([len(counts[name]) for name in question.lists])
    vectors = [entry_probability(limits[name], counts[name]) for name in question.lists]
    whole, path = np.concatenate(vectors), question.probability
    if not path.exists() or not np.array_equal(np.load(path, allow_pickle=False), whole):
        for each in curated:
            each.unlink(missing_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, whole)
    return dict(zip(question.lists, [0, *map(int, ends[:-1])], strict=True))


# What is told at the end.


def _with_figures(table: pa.Table, summary: Mapping[str, Any], question: Question) -> pa.Table:
    """Add the pairs of each list, and how many are expected to be kept, to the table of thresholds."""
    for name, figure in (("pairs", "matched"), ("expected_kept", "expected_kept")):
        at = table.schema.get_field_index(name)
        figures: defaultdict[str, float] = defaultdict(float)
        for row in summary["languages"]:
            figures[question.list_of(row["lang"])] += row[figure]
        values = [figures[lang] for lang in table.column("lang").to_pylist()]
        table = table.set_column(at, THRESHOLDS.field(name), pa.array(values, THRESHOLDS.field(name).type))
    return table.replace_schema_metadata({"worldclip.metadata": question.metadata})


def _summary(
    table: pa.Table, matched: Sequence[Mapping[str, Any]], curated: Sequence[Mapping[str, Any]], question: Question
) -> dict[str, Any]:
    """What went in and what came out, by language of the texts; English share of the pairs to be seen."""
    figures: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for tally in matched:
        figures.update(tally["figures"])
        texts.update(tally["langs"])
    candidates = sum(tally["figures"].get("images", 0) for tally in curated)
    of: dict[str, Counter[str]] = {lang: Counter() for lang in texts}
    for tally in curated:
        for lang, told in tally["langs"].items():
            of[lang].update(told)
    total: Counter[str] = sum(of.values(), Counter())
    all_seen = max(total["seen"], 1)
    rows = {row["lang"]: row for row in table.to_pylist()}
    languages = [
        {
            "lang": lang,
            "texts": texts[lang],
            "matched": of[lang]["matched"],
            "kept": of[lang]["kept"],
            "expected_kept": of[lang]["expected"] / UNIT,
            "seen_share": of[lang]["seen"] / all_seen,
            **{name: rows[lang][name] for name in ("t", "p", "entries", "head", "tail") if lang in rows},
        }
        for lang in sorted(texts)
    ]
    set_aside = {name: figures[name] for name in figures if name not in ("images", "texts")}
    return {
        "metadata_hash": question.metadata,
        "images": figures["images"],
        "texts": figures["texts"],
        "matched_texts": total["matched"],
        "expected_kept": total["expected"] / UNIT,
        "expected_images": total["seen"] / UNIT,
        "kept": total["kept"],
        "english_share": of.get(ENGLISH, Counter())["seen"] / all_seen,
        "dropped": {
            "texts without a matched entry": sum(texts.values()) - total["matched"],
            **set_aside,
            "images without such a text": figures["images"] - candidates,
        },
        "languages": languages,
    }
