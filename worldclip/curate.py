"""Algorithm 1 over shards of pairs, on an engine: match -> count -> thresholds -> sample.

    <folder>/index/<list>             the entries of each list, ready to be matched
    <folder>/matches-*.parquet        stage 1: language and matched concepts of each text
    <folder>/counts-*.npz             stage 1: matches of each entry, one int64 vector a list
    <folder>/thresholds.parquet       stage 2, with the figures of each language
    <folder>/curated-*.parquet        stage 3: candidate texts with their probability of being kept
    <folder>/summary.json             what went in, what was kept, what was dropped and why

The parts themselves (`curation/`) are pure; this file reads, writes and hands shards to the engine.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.config import CurationConfig
from worldclip.curation import Index, LanguageId, entry_probability, keep_probability, tail_share, tail_threshold
from worldclip.curation.count import count
from worldclip.curation.sample import Candidates, draw_probability, id_keys
from worldclip.engines import Engine, Task
from worldclip.errors import ConfigError, MissingData
from worldclip.languages import metadata_code
from worldclip.metadata.entries import Metadata
from worldclip.schema import CURATED, MATCHED_TEXT, MATCHES, THRESHOLDS, as_pairs, validate
from worldclip.storage import read_table, replacing, write_json, write_table

ENGLISH = "en"
_UNIT = 2**32
MERGED = "merged"  #: the one list of all languages' entries (the paper's ablation, row 3)

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


def curate(
    pairs: Sequence[Path],
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
        pairs: Parquet shards, see `schema.as_pairs`.
        report: called with a step's name, shards done and shards in all.

    Raises:
        ConfigError: the configuration asks for a threshold that it does not define.
        MissingData: there are no pairs.
        ShardsFailed: some shards could not be done; all others are.
    """
    if not pairs:
        raise MissingData(f"There are no pairs to curate for {folder}. Make them first: `worldclip pairs packaged`.")
    lists = entry_lists(metadata, config)
    if config.metadata == "merged" and config.t_en is None:
        raise ConfigError("curation.metadata=merged has no English counts to take t_en from: give curation.t_en.")

    _open_index.cache_clear()  # The folder may have held another run's.

    def run(what: str, tasks: Sequence[Task]) -> None:
        engine.run(tasks, partial(report, what) if report else None)

    index = folder / "index"
    run(
        "index",
        [
            Task(name=name, function=_build_index, arguments=(entries, index / name), output=index / name)
            for name, entries in lists.items()
        ],
    )
    names = [f"{number:05d}-of-{len(pairs):05d}" for number in range(len(pairs))]
    matches = [folder / f"matches-{name}.parquet" for name in names]
    counts = [folder / f"counts-{name}.npz" for name in names]
    run(
        "match",
        [
            Task(
                name=shard.name, function=_match_shard, arguments=(shard, index, tuple(lists), config, out), output=out
            )
            for shard, out in zip(pairs, matches, strict=True)
        ],
    )
    run(
        "count",
        [
            Task(
                name=shard.name, function=_count_shard, arguments=(shard, index, tuple(lists), config, out), output=out
            )
            for shard, out in zip(matches, counts, strict=True)
        ],
    )
    totals = merge_counts(counts)
    table = thresholds(totals, config)
    limits = dict(zip(table.column("lang").to_pylist(), table.column("t").to_pylist(), strict=True))
    total_path = folder / "counts.npz"
    _write_counts(total_path, totals)
    curated = [folder / f"curated-{name}.parquet" for name in names]
    run(
        "sample",
        [
            Task(
                name=shard.name,
                function=_sample_shard,
                arguments=(shard, total_path, limits, config, seed, out),
                output=out,
            )
            for shard, out in zip(matches, curated, strict=True)
        ],
    )
    summary = _summary(table, matches, curated, metadata)
    for name, figure in (("pairs", "matched"), ("expected_kept", "expected_kept")):
        at = table.schema.get_field_index(name)
        figures: defaultdict[str, float] = defaultdict(float)
        for row in summary["languages"]:
            figures[list_of(row["lang"], config)] += row[figure]
        values = [figures[lang] for lang in table.column("lang").to_pylist()]
        table = table.set_column(at, THRESHOLDS.field(name), pa.array(values, THRESHOLDS.field(name).type))
    write_table(folder / "thresholds.parquet", table)
    write_json(folder / "summary.json", summary)
    return summary


def list_of(lang: str, config: CurationConfig) -> str:
    """The list that a text of language `lang` is matched against."""
    return {"per_language": lang, "english": ENGLISH, "merged": MERGED}[config.metadata]


def thresholds(counts: Mapping[str, np.ndarray], config: CurationConfig) -> pa.Table:
    """Stage 2: one row a list, the table `schema.THRESHOLDS`; `pairs` and `expected_kept` are filled by the summary."""
    t_en = config.t_en if config.t_en is not None else tail_threshold(config.tail_share, counts[ENGLISH])
    p = tail_share(t_en, counts[ENGLISH] if ENGLISH in counts else counts[MERGED])
    rows = []
    for lang, vector in sorted(counts.items()):
        own = config.thresholds == "t_lang" and lang not in (ENGLISH, MERGED)
        t = tail_threshold(p, vector) if own else t_en
        head = int((vector >= t).sum()) if vector.any() else 0
        rows.append(
            {
                "lang": lang,
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


def merge_counts(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Add up the counts of all shards; the order does not matter."""
    totals: dict[str, np.ndarray] = {}
    for path in paths:
        for lang, vector in read_counts(path).items():
            totals[lang] = totals[lang] + vector if lang in totals else vector
    return totals


def read_counts(path: Path) -> dict[str, np.ndarray]:
    """Matches of each entry: list -> int64 [entries]."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _write_counts(path: Path, counts: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        arrays: dict[str, Any] = dict(sorted(counts.items()))
        np.savez(file, **arrays)


@cache
def _open_index(path: Path) -> Index:
    """Once a process: the arrays are mapped, and shared with the other processes."""
    return Index.open(path)


@cache
def _language_id() -> LanguageId:
    return LanguageId.open()


def _build_index(entries: pa.Array | pa.ChunkedArray, path: Path) -> None:
    Index.build(entries).save(path)


def _match_shard(pairs: Path, index: Path, lists: tuple[str, ...], config: CurationConfig, out: Path) -> None:
    """Stage 1 for one shard. Each distinct text is identified and matched once, however often it stands there."""
    table = as_pairs(read_table(pairs), str(pairs))
    texts = table.column("texts").combine_chunks()
    flat = texts.flatten()
    encoded = flat.field("text").dictionary_encode()
    distinct = encoded.dictionary
    labels, _ = _language_id().predict(distinct)
    langs = np.array([metadata_code(label) for label in labels.to_pylist()], object)
    wanted = np.array([list_of(lang, config) for lang in langs], object)
    if config.texts == "english":
        wanted[langs != ENGLISH] = None

    parts: list[pa.ListArray] = []
    rows: list[np.ndarray] = []
    for name in sorted(set(wanted[wanted != None].tolist())):  # noqa: E711 - elementwise
        if name in lists:
            own = np.flatnonzero(wanted == name)
            rows.append(own)
            parts.append(_open_index(index / name).match(distinct.take(pa.array(own))))
    unmatched = np.setdiff1d(np.arange(len(distinct)), np.concatenate([*rows, np.zeros(0, np.int64)]))
    parts.append(pa.array([[]] * len(unmatched), pa.list_(pa.uint32())))
    order = np.argsort(np.concatenate([*rows, unmatched]), kind="stable")
    found = pa.concat_arrays([part.cast(pa.list_(pa.uint32())) for part in parts]).take(pa.array(order))

    matched = pa.StructArray.from_arrays(
        [
            flat.field("kind"),
            flat.field("text"),
            pa.array(langs, pa.string()).take(encoded.indices),
            found.take(encoded.indices),
        ],
        fields=list(MATCHED_TEXT),
    )
    column = pa.ListArray.from_arrays(_offsets(texts), matched, type=MATCHES.field("texts").type)
    write_table(out, table.set_column(table.schema.get_field_index("texts"), MATCHES.field("texts"), column))


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets from 0 into `lists.flatten()`, a null list counted as an empty one."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _list_names(langs: pa.Array, config: CurationConfig) -> np.ndarray:
    """The list of each text, as an object array of names."""
    names = {lang: list_of(lang, config) for lang in langs.unique().to_pylist()}
    return np.array([names[lang] for lang in langs.to_pylist()], object)


def _count_shard(matches: Path, index: Path, lists: tuple[str, ...], config: CurationConfig, out: Path) -> None:
    flat = read_table(matches, ["texts"]).column("texts").combine_chunks().flatten()
    names = _list_names(flat.field("lang"), config)
    ids = flat.field("matches")
    _write_counts(
        out,
        {name: count(ids.filter(pa.array(names == name)), len(_open_index(index / name))) for name in lists},
    )


def _sample_shard(
    matches: Path, counts: Path, limits: Mapping[str, int], config: CurationConfig, seed: int, out: Path
) -> None:
    """Stage 3 for one shard: the probability of each matched text, and the offline draw of epoch 0 as `kept`."""
    table = validate(read_table(matches), MATCHES, str(matches))
    texts = table.column("texts").combine_chunks()
    flat = texts.flatten()
    names = _list_names(flat.field("lang"), config)
    ids = flat.field("matches")
    probability = np.zeros(len(flat))
    for name, vector in read_counts(counts).items():
        own = names == name
        if own.any():
            probability[own] = keep_probability(ids.filter(pa.array(own)), entry_probability(limits[name], vector))

    rows = pc.list_parent_indices(texts)
    matched = pc.greater(pc.list_value_length(ids).fill_null(0), 0)
    keep = matched.to_numpy(zero_copy_only=False)
    flat, rows, probability = flat.filter(matched), rows.filter(matched), probability[keep]
    by_kind = config.draw == "by_kind"
    kinds = flat.field("kind").dictionary_encode().indices.fill_null(-1).to_numpy()
    turns = draw_probability(rows.to_numpy(), kinds if by_kind else None)
    candidates = candidates_of(table.column("id").to_pylist(), rows.to_numpy(), probability, turns if by_kind else None)
    drawn, kept = candidates.draw(np.flatnonzero(np.diff(candidates.offsets)), seed, 0)
    chosen = np.zeros(len(flat), bool)
    chosen[drawn[kept]] = True
    columns = {
        "id": table.column("id").take(rows),
        "kind": flat.field("kind"),
        "text": flat.field("text"),
        "lang": flat.field("lang"),
        "keep_probability": pa.array(probability),
        "draw_probability": pa.array(turns),
        "kept": pa.array(chosen),
    }
    # What speaks of the image passes through; what is a list as long as its texts would not fit a row a text.
    columns |= {
        field.name: table.column(field.name).take(rows)
        for field in table.schema
        if field.name not in columns and not pa.types.is_list(field.type)
    }
    write_table(out, validate(pa.table(columns), CURATED, str(out)))


def candidates_of(
    ids: Sequence[str], rows: np.ndarray, probability: np.ndarray, turns: np.ndarray | None = None
) -> Candidates:
    """Candidate texts grouped by image.

    Args:
        ids: of the images.
        rows: image of each text, ascending.
        probability: keep_probability of each text.
        turns: draw_probability of each text; None is uniform.
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(ids)))]).astype(np.int64)
    return Candidates(keys=id_keys(ids), offsets=offsets, keep_probability=probability, draw_probability=turns)


def _summary(table: pa.Table, matches: Sequence[Path], curated: Sequence[Path], metadata: Metadata) -> dict[str, Any]:
    """Count what went in and what came out, by language of the texts; English share of the pairs to be seen."""
    texts: Counter[str | None] = Counter()  # None: the text itself is null
    images = 0
    for path in matches:
        column = read_table(path, ["texts"]).column("texts").combine_chunks()
        images += len(column)
        counted = column.flatten().field("lang").value_counts()
        texts.update(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))
    matched: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    with_candidates = 0
    for path in curated:
        part = read_table(path, ["id", "lang", "keep_probability", "draw_probability", "kept"])
        if not len(part):
            continue
        with_candidates += len(part.column("id").unique())
        probability = part.column("keep_probability").to_numpy()
        # Fixed-point numbers add up to the same sum in any order and sharding.
        weights = np.rint(probability * _UNIT).astype(np.int64)
        drawn = np.rint(probability * part.column("draw_probability").to_numpy() * _UNIT).astype(np.int64)
        lang = part.column("lang").to_numpy()
        chosen = part.column("kept").to_numpy()
        for name in np.unique(lang.astype(str)):
            own = lang == name
            matched[name] += int(own.sum())
            kept[name] += int(chosen[own].sum())
            expected[name] += int(weights[own].sum())
            seen[name] += int(drawn[own].sum())
    total, null = sum(texts.values()), texts.pop(None, 0)
    all_seen = max(sum(seen.values()), 1)
    rows = {row["lang"]: row for row in table.to_pylist()}
    languages = [
        {
            "lang": lang,
            "texts": texts[lang],
            "matched": matched[lang],
            "kept": kept[lang],
            "expected_kept": expected[lang] / _UNIT,
            "seen_share": seen[lang] / all_seen,
            **{name: rows[lang][name] for name in ("t", "p", "entries", "head", "tail") if lang in rows},
        }
        for lang in sorted(filter(None, texts))
    ]
    return {
        "metadata_hash": metadata.hash,
        "images": images,
        "texts": total,
        "matched_texts": sum(matched.values()),
        "expected_kept": sum(expected.values()) / _UNIT,
        "kept": sum(kept.values()),
        "english_share": seen[ENGLISH] / all_seen,
        "dropped": {
            "texts without a matched entry": total - null - sum(matched.values()),
            "texts that are null": null,
            "images without such a text": images - with_candidates,
        },
        "languages": languages,
    }
