"""Look at every image once: its bytes' hash, the code of its embedding, a classifier's scores, its faces.

How images are embedded is the caller's: a function from pictures to vectors, opened anew in each worker.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from worldclip.clean.steps import Report, Steps
from worldclip.engines import Engine
from worldclip.errors import DataError, InputError
from worldclip.hygiene.codes import signs
from worldclip.hygiene.faces import FaceDetector, open_detector
from worldclip.hygiene.onnx_models import open_picture
from worldclip.hygiene.safety import Classifier
from worldclip.pairs.downloads import Image as Found
from worldclip.pairs.downloads import image_files, read_images
from worldclip.storage import digest, file_digest, read_json, read_table, write_json, write_table

#: Pictures to vectors: float [n, d] of n pictures in RGB.
Embed = Callable[[Sequence[Image.Image]], np.ndarray]

#: One row an image. `code` is null without an embedder; `faces` are left, top, right, bottom (pixels) and score.
LOOKS = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("code", pa.uint64()),
        ("scores", pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))),
        ("faces", pa.list_(pa.list_(pa.float32()))),
    ]
)

#: Key of the metadata of a file of looks: JSON of its `place`, what its `codes` were made with, what was `set_aside`.
_KEY = b"worldclip.looks"

#: Images, and pixels in all, that are embedded at once.
BATCH, BATCH_PIXELS = 64, 64_000_000


def told_of(looks: Path) -> dict[str, Any]:
    """What a file of looks says of itself: `place`, `codes` (empty without an embedder), `set_aside`.

    Raises:
        DataError: `look` did not write it.
    """
    try:
        told = (pq.read_schema(looks).metadata or {}).get(_KEY)
    except (pa.ArrowException, OSError):
        told = None
    if told is None:
        raise DataError(f"{looks}: is not what `worldclip clean look` writes. Look at the images first.")
    return dict(json.loads(told))


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """How to embed: `open(path)`, a module-level function, is called once a worker; `name` tells models apart."""

    name: str
    open: Callable[[Path], Embed]
    path: Path


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
    ask(out, [*(f"{place} {_size(place)}" for place in places), *_identity(eyes)])
    files = [out / f"looks-{number:05d}-of-{len(places):05d}.parquet" for number in range(len(places))]
    Steps(folder=out, engine=engine, report=report).into("look", _look, places, files, eyes)
    reasons: Counter[str] = Counter()
    seen = faces = with_faces = 0
    for path in files:
        lengths = pc.fill_null(pc.list_value_length(read_table(path, ["faces"]).column("faces")), 0).to_numpy()
        seen, faces, with_faces = seen + len(lengths), faces + int(lengths.sum()), with_faces + int((lengths > 0).sum())
        reasons.update(told_of(path)["set_aside"])
    summary = {"images": seen, "with_faces": with_faces, "faces": faces, "set_aside": dict(sorted(reasons.items()))}
    write_json(out / "summary.json", summary)
    return summary


def _identity(eyes: Eyes) -> list[str]:
    return [
        eyes.embedder.name if eyes.embedder else "",
        *(file_digest(path) if path else "" for path in (eyes.classifier, eyes.faces)),
        str(eyes.seed),
    ]


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.iterdir()) if path.is_file())


def ask(out: Path, parts: Iterable[str]) -> None:
    """Refuse a folder that holds the answer to another question."""
    key, path = digest(*parts), out / "question.json"
    if path.exists() and read_json(path).get("key") != key:
        raise InputError(f"{out}: holds the answer to another question (other inputs or models). Choose another --out.")
    write_json(path, {"key": key})


@cache
def _embed(embedder: Embedder) -> Embed:
    return embedder.open(embedder.path)


@cache
def _classifier(path: Path) -> Classifier:
    return Classifier.open(path)


@cache
def _face_detector(path: Path) -> FaceDetector:
    return open_detector(path)


def _look(place: Path, eyes: Eyes, out: Path) -> None:
    reasons: Counter[str] = Counter()
    parts = [LOOKS.empty_table()]
    batch: list[tuple[Found, Image.Image]] = []
    for image in read_images(place, reasons):
        try:
            batch.append((image, open_picture(image.data)))
        except DataError as error:
            reasons[f"image: {error}"] += 1
        if len(batch) >= BATCH or sum(picture.width * picture.height for _, picture in batch) >= BATCH_PIXELS:
            parts.append(_seen(batch, eyes))
            batch = []
    parts.append(_seen(batch, eyes))
    codes = f"{eyes.embedder.name} {eyes.seed}" if eyes.embedder else ""
    write_looks(out, pa.concat_tables(parts), place=str(place), codes=codes, set_aside=reasons)


def write_looks(
    out: Path, table: pa.Table, *, codes: str, place: str = "", set_aside: Mapping[str, int] | None = None
) -> None:
    """Write a file of looks from some of its columns (`id` is needed), e.g. of codes that were made elsewhere.

    Args:
        codes: what they were made with: only equal ones are compared.
    """
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in LOOKS
    ]
    told = {"place": place, "codes": codes, "set_aside": dict(sorted((set_aside or {}).items()))}
    write_table(out, pa.Table.from_arrays(columns, schema=LOOKS.with_metadata({_KEY: json.dumps(told)})))


def _seen(batch: Sequence[tuple[Found, Image.Image]], eyes: Eyes) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for image, picture in batch:
        row: dict[str, Any] = {"id": image.id, "key": image.key, "sha256": hashlib.sha256(image.data).hexdigest()}
        if eyes.classifier:
            scores = _classifier(eyes.classifier).scores(picture)
            row["scores"] = [{"label": label, "score": score} for label, score in scores.items()]
        if eyes.faces:
            row["faces"] = _face_detector(eyes.faces)(picture).tolist()
        rows.append(row)
    if eyes.embedder and rows:
        codes = signs(_embed(eyes.embedder)([picture for _, picture in batch]), eyes.seed)
        for row, code in zip(rows, codes.tolist(), strict=True):
            row["code"] = code
    return pa.Table.from_pylist(rows, LOOKS)
