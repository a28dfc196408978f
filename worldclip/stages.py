"""Algorithm 1 on one shard of pairs: the tasks that an engine runs (`curate.py` says in which order).

A shard streams through in batches of rows, so that memory does not grow with it. Of the texts of a batch each distinct
one is identified and matched once, however many images carry it. What was read, set aside and found is told in the
metadata of the files, beside the hash of the concept lists.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip.config import CurationConfig
from worldclip.curation import Index, LanguageId
from worldclip.curation.count import add
from worldclip.curation.sample import Candidates, draw_probability, id_keys, keep_probability_of
from worldclip.curation.size import UNIT
from worldclip.errors import DataError
from worldclip.languages import Rule, metadata_code
from worldclip.pairs.rows import LONGEST_TEXT
from worldclip.pairs.sources import opened
from worldclip.schema import COUNTS, CURATED, MATCHED_TEXT, MATCHES, as_pairs, only_utf8
from worldclip.storage import read_table, stream_digest, write_table, writing_table

ENGLISH = "en"
MERGED = "merged"  #: the one list of all languages' entries (the paper's ablation, row 3)

#: A batch holds so many rows, or fewer where they are so large (bytes as Parquet counts them).
BATCH_ROWS, BATCH_BYTES = 65_536, 64 * 2**20

#: Keys of the files' metadata: the hash of the concept lists, SHA-256 of the shard of pairs, and what was counted.
METADATA, INPUT, TALLY = "worldclip.metadata", "worldclip.input", "worldclip.tally"

NO_ID, NO_TEXT = "images without an id", "texts that are null"
NOT_UTF8, TOO_LONG = "texts that are not UTF-8", "texts longer than 64 KiB"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What all tasks of a run share."""

    folder: Path  #: of the run
    lists: tuple[str, ...]  #: names of the concept lists, in order
    metadata: str  #: hash of the concept lists
    rule: Rule = "corrected"  #: by which a label's list is found
    config: CurationConfig

    @property
    def index(self) -> Path:
        """The folder of the lists' indexes."""
        return self.folder / "index"

    @property
    def probability(self) -> Path:
        """Probability of each entry of all lists, one after the other, float64."""
        return self.folder / "probability.npy"

    def list_of(self, lang: str) -> str:
        """The list that a text of language `lang` is matched against."""
        return {"per_language": lang, "english": ENGLISH, "merged": MERGED}[self.config.metadata]

    def place_of(self, lang: str | None) -> int:
        """The place of that list among `lists`; -1 where there is none, or where texts of `lang` are not asked for."""
        wanted = lang is not None and (self.config.texts == "all" or lang == ENGLISH)
        name = self.list_of(lang) if wanted and lang is not None else None
        return self.lists.index(name) if name in self.lists else -1


def build_index(entries: pa.Array | pa.ChunkedArray, rule: str, path: Path) -> None:
    """Write the index of one list."""
    Index.build(entries, rule).save(path)


@cache
def open_index(path: Path) -> Index:
    """Once a process: the arrays are mapped, and shared with the other processes."""
    return Index.open(path)


@cache
def _language_id(path: str | None) -> LanguageId:
    return LanguageId.open(path)


@cache
def _probability(path: Path) -> np.ndarray:
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def forget() -> None:
    """Forget the files that this process has opened: a folder may hold another run's by now."""
    for each in (open_index, _language_id, _probability):
        each.cache_clear()


# Stage 1: match and count.


def match_shard(pairs: str, question: Question, counts: Path, out: Path) -> None:
    """Write the matches of one shard of pairs, and before them their counts: language and concepts of each text."""
    tally: Counter[str] = Counter()
    langs: Counter[str] = Counter()
    found: dict[int, np.ndarray] = {}
    repeated = [f"texts.list.element.{name}" for name in ("kind", "lang")]
    with opened(pairs) as file, writing_table(out, repeated) as writer:
        hashed = stream_digest(file)
        for table in _batches(file, pairs):
            writer.write(_match(clean(as_pairs(table, pairs), tally), question, tally, langs, found))
        _write_counts(counts, found, question)
        writer.close(
            {
                METADATA: question.metadata,
                INPUT: hashed,
                TALLY: json.dumps({"figures": tally, "langs": langs}, sort_keys=True),
            }
        )


def _batches(file: IO[bytes], where: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Rows of a Parquet file, a batch at a time; one of no rows where there are none.

    Raises:
        DataError: it is not Parquet, or is cut short.
    """
    try:
        # Without pre-buffering, pages are read as they are needed, not a row group at once.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
            groups = [parquet.metadata.row_group(at) for at in range(parquet.metadata.num_row_groups)]
            largest = max((each.total_byte_size / max(each.num_rows, 1) for each in groups), default=0.0)
            rows = max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(largest, 1.0))))
            if not parquet.metadata.num_rows:
                yield parquet.schema_arrow.empty_table()
            for batch in parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: cannot be read as Parquet ({error}). Mend it or take it away.") from None


def clean(table: pa.Table, tally: Counter[str]) -> pa.Table:
    """Pairs without the rows that have no id, and with null for texts that are not UTF-8; both are counted."""
    ids = only_utf8(table.column("id").combine_chunks())
    if ids.null_count:
        tally[NO_ID] += ids.null_count
        table = table.filter(ids.is_valid())
        ids = ids.drop_null()
    table = table.set_column(table.schema.get_field_index("id"), MATCHES.field("id"), ids)
    texts = table.column("texts").combine_chunks()
    flat = texts.flatten()
    kinds, values = (flat.field(name) for name in ("kind", "text"))
    tally[NO_TEXT] += values.null_count
    good, known = only_utf8(values), only_utf8(kinds)
    if good is not values or known is not kinds:
        tally[NOT_UTF8] += good.null_count - values.null_count
        structs = pa.StructArray.from_arrays([known, good], fields=list(texts.type.value_type))
        column = pa.ListArray.from_arrays(_offsets(texts), structs, type=texts.type)
        table = table.set_column(table.schema.get_field_index("texts"), table.schema.field("texts"), column)
    return table


def _match(
    table: pa.Table, question: Question, tally: Counter[str], langs: Counter[str], counts: dict[int, np.ndarray]
) -> pa.Table:
    texts = table.column("texts").combine_chunks()
    flat = texts.flatten()
    tally["images"] += len(table)
    tally["texts"] += len(flat)
    encoded = flat.field("text").dictionary_encode()
    distinct, indices = encoded.dictionary, encoded.indices
    times = np.bincount(indices.drop_null().to_numpy(), minlength=len(distinct))
    # Captions are short; what is not is not read.
    long = pc.greater(pc.binary_length(distinct), LONGEST_TEXT)
    if long.true_count:
        tally[TOO_LONG] += int(times[long.to_numpy(zero_copy_only=False)].sum())
        distinct = pc.if_else(long, pa.scalar(None, pa.string()), distinct)

    identifier = _language_id(question.config.lid)
    labels = identifier.predict(distinct, script_check=question.config.script_check)[0].dictionary_encode()
    known = [metadata_code(label, question.rule) for label in labels.dictionary.to_pylist()]
    lang = pa.array(known, pa.string()).take(labels.indices)
    place_of = np.array([*map(question.place_of, known), -1])  # the last is that of a null
    places = place_of[labels.indices.fill_null(len(known)).to_numpy()]
    for name, count in zip(known, np.bincount(labels.indices.fill_null(len(known)).to_numpy(), times), strict=False):
        langs[name] += int(count)

    order = np.argsort(places, kind="stable")
    ordered = distinct.take(pa.array(order))
    bounds = np.searchsorted(places[order], np.arange(-1, len(question.lists) + 1))
    parts = [pa.array([[]] * int(bounds[1]), pa.list_(pa.uint32()))]
    for place in np.unique(places[places >= 0]):
        first, end = bounds[place + 1], bounds[place + 2]
        index = open_index(question.index / question.lists[place])
        parts.append(index.match(ordered.slice(first, end - first)))
        if place not in counts:
            counts[place] = np.zeros(len(index), np.int64)
        add(counts[place], parts[-1], times[order[first:end]])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    found = pa.concat_arrays(parts).take(pa.array(back)).take(indices)

    matched = pa.StructArray.from_arrays(
        [flat.field("kind"), flat.field("text"), lang.take(indices), found], fields=list(MATCHED_TEXT)
    )
    column = pa.ListArray.from_arrays(_offsets(texts), matched, type=MATCHES.field("texts").type)
    return table.set_column(table.schema.get_field_index("texts"), MATCHES.field("texts"), column)


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets from 0 into `lists.flatten()`, a null list counted as an empty one."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _write_counts(path: Path, counts: Mapping[int, np.ndarray], question: Question) -> None:
    """Only the entries that occur: a shard holds few of the millions there are."""
    parts = [COUNTS.empty_table()]
    for place, vector in sorted(counts.items()):
        entries = np.flatnonzero(vector)
        name = pa.array([question.lists[place]]).take(pa.array(np.zeros(len(entries), np.int32)))
        columns = [name, pa.array(entries.astype(np.uint32)), pa.array(vector[entries])]
        parts.append(pa.Table.from_arrays(columns, schema=COUNTS))
    write_table(path, pa.concat_tables(parts).replace_schema_metadata({METADATA: question.metadata}))


# Stage 3: balance.


def sample_shard(matches: Path, question: Question, limits_bases: Mapping[str, int], seed: int, out: Path) -> None:
    """The probability of each matched text of one shard, and the offline draw of epoch 0 as `kept`.

    Args:
        limits_bases: where the probabilities of each list begin in `question.probability`.
    """
    tally: Counter[str] = Counter()
    langs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with open(matches, "rb") as file, writing_table(out, ["kind", "lang"]) as writer:
        for table in _batches(file, str(matches)):
            writer.write(_sample(table, question, limits_bases, seed, tally, langs))
        writer.close(
            {METADATA: question.metadata, TALLY: json.dumps({"figures": tally, "langs": langs}, sort_keys=True)}
        )


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """The texts of a batch that have a match, and what each is to its image."""

    texts: pa.StructArray
    rows: np.ndarray  #: of their images
    turns: np.ndarray  #: see `draw_probability`


def _matched(table: pa.Table, config: CurationConfig) -> _Matched:
    texts = table.column("texts").combine_chunks()
    flat = texts.flatten()
    some = pc.greater(pc.list_value_length(flat.field("matches")).fill_null(0), 0)
    rows = pc.list_parent_indices(texts).filter(some).to_numpy()
    flat = flat.filter(some)
    by_kind = config.draw == "by_kind"
    kinds = flat.field("kind").dictionary_encode().indices.fill_null(-1).to_numpy() if by_kind else None
    return _Matched(texts=flat, rows=rows, turns=draw_probability(rows, kinds))


def _sample(
    table: pa.Table,
    question: Question,
    bases: Mapping[str, int],
    seed: int,
    tally: Counter[str],
    langs: defaultdict[str, Counter[str]],
) -> pa.Table:
    found = _matched(table, question.config)
    lang = found.texts.field("lang").dictionary_encode()
    names, codes = lang.dictionary.to_pylist(), lang.indices.to_numpy()
    base = np.array([bases[question.list_of(name)] for name in names], np.int64)[codes]
    share = keep_probability_of(found.texts.field("matches"), base, _probability(question.probability))

    ids = table.column("id").combine_chunks()
    by_kind = question.config.draw == "by_kind"
    candidates = candidates_of(ids, found.rows, share, found.turns if by_kind else None)
    images = np.flatnonzero(np.diff(candidates.offsets))
    drawn, keep = candidates.draw(images, seed, 0)
    kept = np.zeros(len(share), bool)
    kept[drawn[keep]] = True
    columns = {
        "id": ids.take(pa.array(found.rows)),
        "kind": found.texts.field("kind"),
        "text": found.texts.field("text"),
        "lang": found.texts.field("lang"),
        "keep_probability": pa.array(share),
        "draw_probability": pa.array(found.turns),
        "kept": pa.array(kept),
    }
    # What speaks of the image passes through; what is a list as long as its texts would not fit a row a text.
    columns |= {
        field.name: table.column(field.name).take(pa.array(found.rows))
        for field in table.schema
        if field.name not in columns and not pa.types.is_list(field.type)
    }
    tally["images"] += len(images)
    # Fixed-point numbers add up to the same sum in any order and sharding.
    weights = np.rint(share * UNIT), np.rint(share * found.turns * UNIT), kept, np.ones(len(kept))
    for figure, weight in zip(("expected", "seen", "kept", "matched"), weights, strict=True):
        for name, value in zip(names, np.bincount(codes, weight, len(names)), strict=True):
            langs[name][figure] += int(value)
    return pa.table(columns).cast(_sampled_schema(columns))


def _sampled_schema(columns: Mapping[str, Any]) -> pa.Schema:
    return pa.schema(
        [CURATED.field(name) if name in CURATED.names else pa.field(name, each.type) for name, each in columns.items()]
    )


def candidates_of(
    ids: pa.Array | list[str], rows: np.ndarray, probability: np.ndarray, turns: np.ndarray | None = None
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


# Part of stage 2, where a size is asked for.


def thin_shard(matches: Path, question: Question, share: float, out: Path) -> None:
    """The matched texts of the images of one shard whose hash is among the lowest `share` of all hashes."""
    limit = min(int(share * 2**64), 2**64 - 1)
    with open(matches, "rb") as file, writing_table(out) as writer:
        for table in _batches(file, str(matches), ["id", "texts"]):
            low = id_keys(table.column("id")) <= np.uint64(limit)
            found = _matched(table.filter(pa.array(low)), question.config)
            names = {lang: question.list_of(lang) for lang in found.texts.field("lang").unique().to_pylist()}
            of_text = [names[lang] for lang in found.texts.field("lang").to_pylist()]
            columns = {"list": pa.array(of_text, pa.string()), "matches": found.texts.field("matches")}
            writer.write(pa.table(columns | {"turn": pa.array(found.turns)}))
        writer.close({METADATA: question.metadata})


def tally_of(path: Path, question: Question) -> dict[str, Any]:
    """What a task told of a file that it wrote.

    Raises:
        DataError: the file was made with other concept lists.
    """
    facts = _facts(path)
    if facts.get(METADATA) != question.metadata:
        raise DataError(
            f"{path}: was made with other metadata ({str(facts.get(METADATA))[:12]}, not {question.metadata[:12]}). "
            "Curate into a folder of its own."
        )
    return dict(json.loads(facts[TALLY])) if TALLY in facts else {}


def input_hash(matches: Path) -> str:
    """SHA-256 (hex) of the shard of pairs that matches were made of."""
    return _facts(matches)[INPUT]


def _facts(path: Path) -> dict[str, str]:
    try:
        found = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None
    return {key.decode(): value.decode() for key, value in found.items()}


def counts_of(path: Path) -> pa.Table:
    """A shard's counts, `schema.COUNTS`."""
    return read_table(path)
