"""Hygiene over shards, on an engine: look at each image once, then remove by what was seen and by what pairs say.

    look     images -> <out>/looks-*.parquet: content hash, 64-bit code, scores, faces of each image
    remove   pairs (and looks) -> <out>/removals.parquet: id, reason, detail; <out>/pairs-*.parquet: what is left
    restore  the same folder, some reasons left out
    blur     images and looks -> tars with faces blurred

The steps themselves (`hygiene/`) are pure; this file reads, writes and hands shards to the engine. How images are
embedded is the caller's: a function from pictures to vectors, made anew in each worker.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from worldclip.curation.sample import id_keys
from worldclip.engines import Engine, Task
from worldclip.errors import ConfigError, DataError, InputError, MissingData
from worldclip.hygiene.dedup import CodeIndex, exact_copies, leaks, near_copies, signs
from worldclip.hygiene.optout import OptOut, signalled
from worldclip.hygiene.removals import REMOVALS, counts, gathered, leaving_out, removals, without
from worldclip.hygiene.safety import CenterFace, Classifier, blur, open_picture
from worldclip.pairs.downloads import Image as Found
from worldclip.pairs.downloads import image_files, read_images
from worldclip.pairs.tables import IMAGE_SUFFIXES
from worldclip.storage import digest, file_digest, read_json, read_table, replacing, write_json, write_table

Report = Callable[[str, int, int], None]

#: Pictures to vectors: float [n, d] of n pictures in RGB.
Embed = Callable[[Sequence[Image.Image]], np.ndarray]

#: One row an image. `code` is null without an embedder; `faces` are left, top, right, bottom (pixels) and score.
LOOKS = pa.schema(
    [
        ("id", pa.string()),
        ("place", pa.string()),
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("code", pa.uint64()),
        ("scores", pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))),
        ("faces", pa.list_(pa.list_(pa.float32()))),
    ]
)

#: Keys of the metadata of a file of looks: what was counted, and what its codes were made with.
_TALLY, _CODES = b"worldclip.tally", b"worldclip.codes"

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """How to embed. `open` is called once a worker, and can be pickled; `name` tells models apart (a fingerprint)."""

    name: str
    open: Callable[[], Embed]


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """What to look with; each is left out where it is None."""

    embedder: Embedder | None = None
    classifier: Path | None = None
    faces: Path | None = None
    seed: int = 0


def look(images: Path, out: Path, eyes: Eyes, *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Look at every image of img2dataset's folder (or of any WebDataset) once; return the summary.

    Raises:
        DataError: there are no images.
        InputError: `out` holds what was seen of other images, or with other models.
        ShardsFailed: some tars could not be looked at.
    """
    places = image_files(images)
    _question(out, [*map(str, places), *_identity(eyes)])
    files = [out / f"looks-{number:05d}-of-{len(places):05d}.parquet" for number in range(len(places))]
    engine.run(
        [
            Task(name=str(place), function=_look, arguments=(place, eyes, path), output=path)
            for place, path in zip(places, files, strict=True)
        ],
        partial(report, "look") if report else None,
    )
    reasons: Counter[str] = Counter()
    seen = faces = with_faces = 0
    for path in files:
        table = read_table(path, ["faces"])
        lengths = table.column("faces").combine_chunks().value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        seen, faces, with_faces = seen + len(table), faces + int(lengths.sum()), with_faces + int((lengths > 0).sum())
        reasons.update(json.loads((pq.read_metadata(path).metadata or {})[_TALLY]))
    summary = {"images": seen, "with_faces": with_faces, "faces": faces, "set_aside": dict(sorted(reasons.items()))}
    write_json(out / "summary.json", summary)
    return summary


def _identity(eyes: Eyes) -> list[str]:
    return [
        eyes.embedder.name if eyes.embedder else "",
        *(file_digest(path) if path else "" for path in (eyes.classifier, eyes.faces)),
        str(eyes.seed),
    ]


def _question(out: Path, parts: Iterable[str]) -> None:
    """Refuse a folder that holds the answer to another question."""
    key, path = digest(*parts), out / "question.json"
    if path.exists() and read_json(path).get("key") != key:
        raise InputError(f"{out}: holds the answer to another question (other inputs or models). Choose another --out.")
    write_json(path, {"key": key})


@cache
def _embed(embedder: Embedder) -> Embed:
    return embedder.open()


@cache
def _classifier(path: Path) -> Classifier:
    return Classifier.open(path)


@cache
def _face_detector(path: Path) -> CenterFace:
    return CenterFace.open(path)


def _look(place: Path, eyes: Eyes, out: Path) -> None:
    reasons: Counter[str] = Counter()
    images = read_images(place, reasons)
    parts = [LOOKS.empty_table()]
    while batch := list(islice(images, BATCH)):
        parts.append(_looked_at(batch, eyes, reasons))
    codes = f"{eyes.embedder.name} {eyes.seed}" if eyes.embedder else ""
    metadata: dict[bytes | str, bytes | str] = {_TALLY: json.dumps(dict(sorted(reasons.items()))), _CODES: codes}
    write_table(out, pa.concat_tables(parts).replace_schema_metadata(metadata))


def _looked_at(images: Sequence[Found], eyes: Eyes, reasons: Counter[str]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    pictures: list[Image.Image] = []
    for image in images:
        try:
            picture = open_picture(image.data)
        except DataError as error:
            reasons[f"image: {error}"] += 1
            continue
        pictures.append(picture)
        sha256 = hashlib.sha256(image.data).hexdigest()
        row: dict[str, Any] = {"id": image.id, "place": str(image.place), "key": image.key, "sha256": sha256}
        if eyes.classifier:
            scores = _classifier(eyes.classifier).scores(picture)
            row["scores"] = [{"label": label, "score": score} for label, score in scores.items()]
        if eyes.faces:
            row["faces"] = _face_detector(eyes.faces)(picture).tolist()
        rows.append(row)
    if eyes.embedder and pictures:
        for row, code in zip(rows, signs(_embed(eyes.embedder)(pictures), eyes.seed).tolist(), strict=True):
            row["code"] = code
    return pa.Table.from_pylist(rows, LOOKS)


# Removing.


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What to remove. `unsafe` maps a classifier's label to the score from which on an image goes; `radius` is in bits.

    `signals` honours what pages said of their images (`noai`, `noimageai`, `tdm_reserved`).
    """

    opt_out: Path | None = None
    signals: bool = True
    radius: int = 0
    unsafe: tuple[tuple[str, float], ...] = ()


def remove(
    pairs: Sequence[Path],
    out: Path,
    rules: Rules,
    *,
    looks: Sequence[Path] = (),
    evaluation: Sequence[Path] = (),
    engine: Engine,
    report: Report | None = None,
) -> dict[str, Any]:
    """Find what must go, write it down, write the pairs without it, and return the summary.

    Args:
        pairs: Parquet files of pairs; they stay as they are.
        looks: what `look` wrote of their images; without it there is no removal by content, copies or scores.
        evaluation: what `look` wrote of the evaluation images, with the same model and seed.

    Raises:
        MissingData: there are no pairs.
        DataError: looks and evaluation do not go together, or have no codes.
        InputError: `out` holds another answer.
        ShardsFailed: some shards failed every try.
    """
    if not pairs:
        raise MissingData(f"There are no pairs to clean for {out}.")
    if evaluation and not looks:
        raise ConfigError("Evaluation images are compared with images, not with pairs: give --looks of these.")
    _check_codes([*looks, *evaluation])
    asked = [file_digest(path) for path in (*pairs, *looks, *evaluation)]
    listed = file_digest(rules.opt_out) if rules.opt_out else ""
    _question(out, [*asked, listed, str((rules.signals, rules.radius, rules.unsafe))])
    folder = out / "steps"

    def run(what: str, function: Callable[..., None], shards: Sequence[Path], *more: Any) -> list[Path]:
        outputs = [folder / f"{what}-{number:05d}.parquet" for number in range(len(shards))]
        engine.run(
            [
                Task(name=f"{what} {shard.name} {number}", function=function, arguments=(shard, *more, output),
                     output=output)
                for number, (shard, output) in enumerate(zip(shards, outputs, strict=True))
            ],
            partial(report, what) if report else None,
        )  # fmt: skip
        return outputs

    parts = [read_table(path) for path in run("pairs", _told_by_pairs, pairs, rules)]
    parts.append(_copies(pairs, "url", "same URL"))
    if looks:
        parts += [read_table(path) for path in run("looks", _told_by_looks, looks, rules)]
        parts.append(_copies(looks, "sha256", "same bytes"))
        if _codes_of(looks[0]):
            places = _build_index(looks, folder / "index")
            starts = dict(zip(looks, places, strict=True))
            found = [
                output
                for path in looks
                for output in run(f"near-{path.stem}", _near, [path], folder / "index", starts[path], rules.radius)
            ]
            parts.append(_near_copies(looks, found, folder / "index"))
    if evaluation:
        _build_index(evaluation, folder / "evaluation")
        names = tuple(name for path in evaluation for name in _ids(path))
        parts += [
            read_table(path) for path in run("evaluation", _leaks, looks, folder / "evaluation", names, rules.radius)
        ]
    removed = gathered(parts)
    write_table(out / "removals.parquet", removed)
    write_json(out / "pairs.json", [str(path.resolve()) for path in pairs])
    return _apply(out, removed, engine, report)


def restore(out: Path, reasons: Sequence[str], *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Write the pairs of a folder that `remove` wrote again, with what some reasons alone had removed.

    `removals.parquet` stays whole; called without reasons, all of it is removed again.

    Raises:
        ConfigError: nothing was removed for such a reason; names those that there are.
        MissingData: the folder, or the pairs it was made of, are not there.
    """
    removed = read_table(out / "removals.parquet")
    known = counts(removed)
    if unknown := sorted(set(reasons) - set(known)):
        raise ConfigError(f"{out}: nothing was removed for {unknown[0]!r}; reasons are {', '.join(known) or 'none'}.")
    return _apply(out, leaving_out(removed, reasons), engine, report)


def _apply(out: Path, removed: pa.Table, engine: Engine, report: Report | None) -> dict[str, Any]:
    pairs = [Path(path) for path in read_json(out / "pairs.json")]
    if missing := [path for path in pairs if not path.is_file()]:
        raise MissingData(f"{missing[0]}: the pairs that {out} was made of are gone.")
    write_table(out / "steps" / "applied.parquet", removed)
    outputs = [out / f"pairs-{number:05d}-of-{len(pairs):05d}.parquet" for number in range(len(pairs))]
    for path in outputs:
        path.unlink(missing_ok=True)
    engine.run(
        [
            Task(name=path.name, function=_write_left, arguments=(shard, out / "steps" / "applied.parquet", path),
                 output=path)
            for shard, path in zip(pairs, outputs, strict=True)
        ],
        partial(report, "write") if report else None,
    )  # fmt: skip
    before = sum(pq.read_metadata(path).num_rows for path in pairs)
    left = sum(pq.read_metadata(path).num_rows for path in outputs)
    summary = {"pairs": before, "left": left, "removed": before - left, "reasons": counts(removed)}
    write_json(out / "summary.json", summary)
    return summary


def _write_left(pairs: Path, removed: Path, out: Path) -> None:
    table = pq.ParquetFile(pairs)
    gone = read_table(removed, ["id"])
    with (
        table,
        replacing(out) as temporary,
        pq.ParquetWriter(temporary, table.schema_arrow, compression="zstd") as file,
    ):
        for batch in table.iter_batches(batch_size=65536):
            file.write_table(without(pa.Table.from_batches([batch]), gone))


def _columns(path: Path, wanted: Sequence[str]) -> pa.Table:
    """Those of some columns that a file has."""
    names = pq.read_schema(path).names
    if "id" not in names:
        raise DataError(f"{path}: needs a column 'id'; found {', '.join(names) or 'no columns'}.")
    return read_table(path, [name for name in wanted if name in names])


def _told_by_pairs(pairs: Path, rules: Rules, out: Path) -> None:
    table = _columns(pairs, ["id", "url", "sha256", "noai", "noimageai", "tdm_reserved"])
    parts = [signalled(table)] if rules.signals else []
    if rules.opt_out:
        parts.append(OptOut.read(rules.opt_out).found_in(table))
    write_table(out, gathered(parts))


def _told_by_looks(looks: Path, rules: Rules, out: Path) -> None:
    table = read_table(looks, ["id", "sha256", "scores"])
    parts = [OptOut.read(rules.opt_out).found_in(table)] if rules.opt_out else []
    limits = dict(rules.unsafe)
    parts.append(
        removals(
            (image, f"unsafe ({each['label']})", f"{each['score']:.3f}")
            for image, scores in zip(table.column("id").to_pylist(), table.column("scores").to_pylist(), strict=True)
            for each in scores or ()
            if each["score"] >= limits.get(each["label"], float("inf"))
        )
    )
    write_table(out, gathered(parts))


def _copies(files: Sequence[Path], column: str, reason: str) -> pa.Table:
    """Exact copies over all files. Held are 64 bits a row, then only the rows whose bits are not alone."""
    keys = [_keys(path, column) for path in files]
    values, counted = np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]), return_counts=True)
    shared = values[(counted > 1) & (values != _NOTHING)]
    ids: list[str] = []
    told: list[str | None] = []
    if len(shared):
        for path, own in zip(files, keys, strict=True):
            rows = read_table(path, ["id", column]).filter(pa.array(np.isin(own, shared))) if len(own) else None
            ids += rows.column("id").to_pylist() if rows else []
            told += rows.column(column).to_pylist() if rows else []
    # One image may stand in several places under one id: that is no copy.
    first = dict(sorted(zip(ids, told, strict=True), key=lambda pair: (pair[0], pair[1] or ""), reverse=True))
    return exact_copies(list(first), list(first.values()), reason)


_NOTHING = np.uint64(0)


def _keys(path: Path, column: str) -> np.ndarray:
    """64 bits of each value, 0 for null; empty where the file lacks the column."""
    if column not in pq.read_schema(path).names:
        return np.zeros(0, np.uint64)
    values = read_table(path, [column]).column(column).to_pylist()
    keys = id_keys(value or "" for value in values)
    keys[[value is None for value in values]] = _NOTHING
    return keys


def _ids(path: Path) -> list[str]:
    return [str(each) for each in read_table(path, ["id"]).column("id").to_pylist()]


def _codes_of(path: Path) -> str:
    """What a file's codes were made with; empty where it has none."""
    return ((pq.read_metadata(path).metadata or {}).get(_CODES) or b"").decode()


def _check_codes(looks: Sequence[Path]) -> None:
    made = {_codes_of(path): path for path in looks}
    if len(made) > 1:
        one, other = list(made)[:2]
        raise DataError(
            f"{made[one]} and {made[other]}: their codes cannot be compared, as they were made with "
            f"{one or 'no model'} and {other or 'no model'}. Look at both with the same model and seed."
        )


def _codes(path: Path) -> np.ndarray:
    return np.asarray(read_table(path, ["code"]).column("code").to_numpy())


def _build_index(looks: Sequence[Path], folder: Path) -> list[int]:
    """Index the codes of all files; return where each file's begin."""
    codes = [_codes(path) for path in looks]
    CodeIndex.build(np.concatenate([np.zeros(0, np.uint64), *codes])).save(folder)
    return [0, *np.cumsum([len(each) for each in codes])[:-1].tolist()]


def _near(looks: Path, index: Path, start: int, radius: int, out: Path) -> None:
    """Pairs of places of near images; the first is of this file, the second comes after it."""
    rows, found = CodeIndex.open(index).near(_codes(looks), radius)
    later = found > rows + start
    write_table(out, pa.table({"first": rows[later] + start, "second": found[later]}))


def _near_copies(looks: Sequence[Path], found: Sequence[Path], index: Path) -> pa.Table:
    """Held are the pairs, and the ids of the images in them."""
    tables = [read_table(path) for path in found]
    first, second = (
        np.concatenate([table.column(name).to_numpy() for table in tables]) for name in ("first", "second")
    )
    involved, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    ids: list[str] = []
    start = 0
    for path in looks:
        count = pq.read_metadata(path).num_rows
        own = involved[(involved >= start) & (involved < start + count)] - start
        ids += read_table(path, ["id"]).column("id").take(pa.array(own)).to_pylist() if len(own) else []
        start += count
    codes = np.asarray(CodeIndex.open(index).codes[involved])
    one, other = places[: len(first)], places[len(first) :]
    return _not_itself(near_copies(ids, codes, one, other))


def _not_itself(removed: pa.Table) -> pa.Table:
    """Without rows that say that an image is a copy of itself: it stands in two places."""
    rows = removed.to_pylist()
    return removals(
        (row["id"], row["reason"], row["detail"]) for row in rows if row["detail"].rpartition(" (")[0] != row["id"]
    )


def _leaks(looks: Path, index: Path, names: Sequence[str], radius: int, out: Path) -> None:
    found = leaks(_ids(looks), _codes(looks), CodeIndex.open(index), names, radius)
    write_table(out, gathered([found, REMOVALS.empty_table()]))


# Blurring.


def blur_faces(looks: Sequence[Path], out: Path, *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Write the tars that were looked at again, with faces blurred; return how many images were changed.

    All other members are copied byte for byte. JPEG and WebP are written at quality 95.

    Raises:
        DataError: looks without faces, or of folders instead of tars.
        ShardsFailed: some tars failed every try.
    """
    tars: dict[Path, dict[str, np.ndarray]] = {}
    for path in looks:
        for row in read_table(path, ["place", "key", "faces"]).to_pylist():
            if row["faces"] is None:
                raise DataError(f"{path}: faces were not looked for. Run `worldclip hygiene look` with --faces first.")
            boxes = tars.setdefault(Path(row["place"]), {})
            if row["faces"]:
                boxes[row["key"]] = np.array(row["faces"], np.float64)
    if folder := next((place for place in tars if not place.is_file()), None):
        raise DataError(f"{folder}: is no tar; faces are blurred in WebDataset tars.")
    names = Counter(place.name for place in tars)
    if names and max(names.values()) > 1:
        raise DataError(f"Two tars are called {names.most_common(1)[0][0]}; blur each folder of them by itself.")
    engine.run(
        [
            Task(
                name=str(place), function=_blur_tar, arguments=(place, boxes, out / place.name), output=out / place.name
            )
            for place, boxes in sorted(tars.items())
        ],
        partial(report, "blur") if report else None,
    )
    return {
        "tars": len(tars),
        "images": sum(len(boxes) for boxes in tars.values()),
        "faces": sum(len(each) for boxes in tars.values() for each in boxes.values()),
    }


def _blur_tar(place: Path, boxes: Mapping[str, np.ndarray], out: Path) -> None:
    with replacing(out) as temporary, tarfile.open(place, "r|*") as source, tarfile.open(temporary, "w") as target:
        for member, data in _members(source):
            key, _, suffix = member.name.rpartition("/")[2].partition(".")
            if key in boxes and suffix.lower() in IMAGE_SUFFIXES:
                blurred = _blurred(data, boxes[key])
                member.size = len(blurred)
                target.addfile(member, io.BytesIO(blurred))
            else:
                target.addfile(member, io.BytesIO(data))


def _members(source: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for member in source:
        content = source.extractfile(member) if member.isreg() else None
        if content is not None:
            yield member, content.read()


def _blurred(data: bytes, boxes: np.ndarray) -> bytes:
    kind = Image.open(io.BytesIO(data)).format
    file = io.BytesIO()
    blur(open_picture(data), boxes).save(file, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    return file.getvalue()
