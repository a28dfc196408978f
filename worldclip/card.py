"""The data card of a curated folder: what was kept of what, and why, as one HTML file that loads nothing.

    gather(folder, lists)   what `curate` wrote -> <folder>/card.json: every number and text that the card shows
    render(folder)          <folder>/card.json -> <folder>/card.html

The work is bounded, however large the folder is: counts are read whole, of the tables of texts only the first rows
of at most `SHARDS` shards. The same folder gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip import __version__, storage
from worldclip.errors import DataError
from worldclip.report import curve, environment, flat, head_tail_plots

#: The version of card.json that this module writes and reads.
SCHEMA = 1

#: Shards of which the first rows are read for samples: images, and texts of them.
SHARDS, IMAGES, TEXTS = 16, 4096, 16384

#: Samples of each kind, and their languages; lists with their most and least mentioned concepts.
SAMPLES, SAMPLE_LANGUAGES, CONCEPT_LISTS, CONCEPTS = 2, 9, 40, 8

#: Longest text that is shown (characters), and most concepts of one.
LONGEST, MOST_CONCEPTS = 300, 12

_FIGURES = ("metadata_hash", "images", "texts", "matched_texts", "expected_kept", "kept", "english_share", "dropped")

#: Names of concepts by list and id.
Lists = Mapping[str, pa.Array | pa.ChunkedArray]


def gather(folder: Path, lists: Lists, pairs: Path | None = None) -> dict[str, Any]:
    """Write card.json from what `curate` wrote to `folder`, and return its content.

    Args:
        lists: the entries of each list.
        pairs: the file or folder of the pairs; what hygiene and extraction did there is told too.

    Raises:
        MissingData: the folder was not curated.
        DataError: one of its files is damaged.
    """
    summary = storage.read_json(folder / "summary.json")
    thresholds = storage.read_table(folder / "thresholds.parquet").to_pylist()
    with np.load(folder / "counts.npz", allow_pickle=False) as file:
        counts = {name: file[name] for name in file.files}
    limits = {row["lang"]: row["t"] for row in thresholds}
    mentioned = [row["lang"] for row in sorted(thresholds, key=lambda row: -row["matches"]) if row["matches"]]
    content = {
        "schema": SCHEMA,
        "worldclip": __version__,
        "figures": {name: summary.get(name) for name in _FIGURES},
        "before": dict(_before(pairs)) if pairs else {},
        "settings": dict(flat(_settings(folder))),
        "languages": summary["languages"],
        "thresholds": thresholds,
        "curves": {name: {"t": limits[name], "counts": curve(counts[name], 60)} for name in mentioned},
        "concepts": [_concepts(name, counts[name], limits[name], lists[name]) for name in mentioned[:CONCEPT_LISTS]],
        "samples": _samples(folder, counts, limits, lists),
    }
    storage.write_json(folder / "card.json", content)
    return content


def write(folder: Path, lists: Lists, pairs: Path | None = None) -> Path:
    """`gather`, then `render`."""
    gather(folder, lists, pairs)
    return render(folder)


def render(folder: Path) -> Path:
    """Write card.html from card.json; return its path.

    Raises:
        MissingData: there is no card.json.
        DataError: another version wrote it.
        StorageError: the page cannot be written.
    """
    card = storage.read_json(folder / "card.json")
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise DataError(
            f"{folder / 'card.json'}: is not of schema {SCHEMA}, which this version of worldclip reads. Curate again."
        )
    total = {name: sum(row[name] for row in card["languages"]) for name in ("texts", "kept")}
    page = environment().get_template("card.html.j2").render(
        c=card, total=total, curves=head_tail_plots({"data": {"curves": card["curves"]}})
    )  # fmt: skip
    storage.write_bytes(folder / "card.html", page.encode())
    return folder / "card.html"


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    given = storage.read_json(path).get("config", {}) if path.exists() else {}
    return {name: value for name, value in given.items() if value is not None}


def _before(pairs: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """What `clean remove` and `pairs extract` tell of the pairs that they wrote."""
    pairs = pairs if pairs.is_dir() else pairs.parent
    clean = pairs.resolve().parent
    if (clean / "removals.parquet").exists() and (clean / "summary.json").exists():
        summary = storage.read_json(clean / "summary.json")
        yield "hygiene", {name: summary[name] for name in ("pairs", "left", "reasons")}
        pairs = Path(storage.read_json(clean / "pairs.json")[0]).parent
    if (pairs / "summary.json").exists():
        summary = storage.read_json(pairs / "summary.json")
        if "set_aside" in summary and "records" in summary:
            yield "extraction", {name: summary[name] for name in ("records", "images", "texts", "set_aside")}


def _concepts(name: str, counts: np.ndarray, t: int, entries: pa.Array | pa.ChunkedArray) -> dict[str, Any]:
    """The most and the least mentioned concepts of a list; of equals those with the smallest ids."""
    ranked = np.lexsort((np.arange(len(counts)), -counts))
    some = ranked[counts[ranked] > 0]
    rare = np.lexsort((np.arange(len(counts)), counts))
    rare = rare[counts[rare] > 0][:CONCEPTS]

    def told(ids: np.ndarray) -> list[list[Any]]:
        return [[entries[int(at)].as_py(), int(counts[at])] for at in ids]

    return {
        "list": name, "t": t, "most": told(some[:CONCEPTS]), "least": told(rare[counts[rare] < max(t, 1)]),
        "never": int((counts == 0).sum()), "entries": len(counts),
    }  # fmt: skip


def _key(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _samples(
    folder: Path, counts: Mapping[str, np.ndarray], limits: Mapping[str, int], lists: Lists
) -> dict[str, list[dict[str, Any]]]:
    """Texts that were kept, not drawn, and without a concept: those with the smallest hashes of what was read."""
    found: defaultdict[tuple[str, str], list[tuple[bytes, dict[str, Any]]]] = defaultdict(list)
    paths = sorted(folder.glob("curated-*.parquet"))
    for path in paths[:: max(1, -(-len(paths) // SHARDS))]:
        matches = _first_rows(path.with_name(path.name.replace("curated-", "matches-", 1)), ["id", "texts"], IMAGES)
        curated = _first_rows(path, ["id", "text", "lang", "keep_probability", "kept"], TEXTS)
        of = _matches_of(matches)
        for (image, text), (lang, ids) in of.items():
            if not ids and text.strip():
                _offer(found["unmatched", lang], image, {"text": text[:LONGEST], "lang": lang})
        for row in curated.to_pylist():
            lang, ids = of.get((row["id"], row["text"]), ("", []))
            name = lang if lang in counts else next(iter(counts)) if len(counts) == 1 else ""
            if name and ids:
                probability = row["keep_probability"]
                sample = {
                    "text": row["text"][:LONGEST],
                    "lang": lang,
                    "probability": probability,
                    "list": name,
                    "ids": ids,
                }
                _offer(found["kept" if row["kept"] else "dropped", lang], row["id"], sample)
    for kind, lang in [key for key in found if key[0] != "unmatched"]:
        for _, sample in found[kind, lang]:
            name, ids = sample.pop("list"), sample.pop("ids")
            vector, t = counts[name], limits[name]
            rare = sorted(ids, key=lambda at: (vector[at], at))[:MOST_CONCEPTS]
            sample["concepts"] = [
                [lists[name][at].as_py(), int(vector[at]), min(1.0, t / max(int(vector[at]), 1))] for at in rare
            ]
    return {kind: _in_turn({lang: each for (what, lang), each in found.items() if what == kind})
            for kind in ("kept", "dropped", "unmatched")}  # fmt: skip


def _first_rows(path: Path, columns: Sequence[str], count: int) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=count, columns=columns):
                return pa.Table.from_batches([batch])
            return file.schema_arrow.empty_table().select(columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None


def _matches_of(table: pa.Table) -> dict[tuple[str, str], tuple[str, list[int]]]:
    """Language and concepts of each text of an image."""
    lengths = pc.fill_null(pc.list_value_length(table.column("texts")), 0).to_numpy()
    table = table.slice(0, max(1, int(np.searchsorted(np.cumsum(lengths), TEXTS))))
    texts = table.column("texts").combine_chunks()
    images = table.column("id").take(pc.list_parent_indices(texts)).to_pylist()
    flat_texts = texts.flatten()
    columns = [flat_texts.field(name).to_pylist() for name in ("text", "lang", "matches")]
    return {
        (image, text): (lang, ids or [])
        for image, text, lang, ids in zip(images, *columns, strict=True)
        if text is not None and lang is not None
    }


def _offer(held: list[tuple[bytes, dict[str, Any]]], image: str, sample: dict[str, Any]) -> None:
    """Hold the samples with the smallest hashes, a text once."""
    key = _key(image + sample["text"])
    if any(other["text"] == sample["text"] for _, other in held):
        return
    if len(held) < SAMPLES or key < held[-1][0]:
        held.append((key, sample))
        held.sort(key=lambda each: each[0])
        del held[SAMPLES:]


def _in_turn(found: Mapping[str, Sequence[tuple[bytes, dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Samples of some languages: English first, then by the smallest hashes of their codes."""
    chosen = sorted(found, key=lambda lang: (lang != "en", _key(lang)))[:SAMPLE_LANGUAGES]
    return [sample for lang in chosen for _, sample in found[lang]]
