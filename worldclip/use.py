"""Use a model at once: classify a picture, embed a folder, search it with words in any language.

Any model folder works that `worldclip.model.towers` reads: ours and the official ones, other CLIPs, SigLIPs, ONNX.
What `worldclip export --to onnx` wrote runs without torch.

    encoder = open_model(Path("runs/quickstart/model"))
    classify(encoder, Path("dog.png"), ["chien", "gato", "犬", "собака"])
    embed(encoder, Path("pictures"), Path("emb.parquet"))
    search(encoder, "หมา", Path("emb.parquet"), k=5)
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from worldclip import storage
from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.model.pixels import on_white, read_picture
from worldclip.model.serve import IMAGE_GRAPH, TEXT_GRAPH, OnnxEncoder

#: File names (lower case) that `embed` reads.
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

#: Key of the Parquet file metadata that holds the fingerprint of the model that made the embeddings.
MODEL_KEY = "worldclip.model"

#: Rows of a row group of an embeddings file; what is held in memory while embedding.
_GROUP = 4096

_THUMBNAIL = 192


class Encoder(Protocol):
    """A model as two functions, from pictures and from texts to the same unit sphere."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""

    @property
    def logit_scale(self) -> float:
        """The factor (not its logarithm) on cosine similarities before a softmax."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides its embeddings."""

    def images(self, pictures: Iterable[Image.Image]) -> np.ndarray:
        """Embed pictures: float32 [n, dimension], rows of length 1."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: float32 [n, dimension], rows of length 1."""


def open_model(folder: Path) -> Encoder:
    """Open a model folder; torch is loaded only for those that need it.

    Raises:
        MissingData: there is no model, or a package is missing that reads it.
        DataError: it is not a model of images and texts, is incomplete, or its parts do not fit each other.
    """
    graphs = all((folder / name).is_file() for name in (IMAGE_GRAPH, TEXT_GRAPH))
    if graphs and storage.read_json(folder / "config.json").get("model_type") == "metaclip_2":
        return OnnxEncoder.open(folder)
    try:
        from worldclip.model.encoder import Encoder as TorchEncoder
    except ModuleNotFoundError as error:
        raise MissingData(
            f"{folder}: {error.name} is not installed, which runs it. Run `pip install 'worldclip[train]'`, or give a "
            "folder that `worldclip export --to onnx` wrote."
        ) from None
    return TorchEncoder.open(folder)


def _read_picture_file(path: Path) -> Image.Image:
    try:
        return read_picture(path.read_bytes(), path)
    except FileNotFoundError:
        raise MissingData(f"{path}: not found. Give the path of a picture.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Give the path of a picture.") from error


def classify(encoder: Encoder, image: Path, labels: Sequence[str]) -> list[tuple[str, float]]:
    """Zero-shot classification: each label with its probability among the labels, highest first, ties as given.

    The probabilities are a softmax over scaled cosine similarities (for SigLIP too: its bias cancels out). Labels are
    used as they are, with no template around them.

    Raises:
        MissingData: there is no such picture.
        DataError: it cannot be read as one.
        ConfigError: no labels, or a blank one.
    """
    if not labels or not all(label.strip() for label in labels):
        raise ConfigError(f"labels: {list(labels)}; needed: one or more, none of them blank.")
    picture = encoder.images([_read_picture_file(image)])[0].astype(np.float64)
    logits = encoder.logit_scale * (encoder.texts(labels).astype(np.float64) @ picture)
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    return [(labels[at], float(probabilities[at])) for at in np.argsort(-probabilities, kind="stable")]


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What `embed` did: `embedded` pictures are in the table; `set_aside` are (path, reason) of those that are not."""

    embedded: int
    dimension: int
    set_aside: tuple[tuple[str, str], ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How many pictures were set aside for each reason."""
        return dict(sorted(Counter(reason for _, reason in self.set_aside).items()))


def embed(encoder: Encoder, folder: Path, out: Path, progress: Callable[[int, int], None] | None = None) -> EmbedReport:
    """Embed every picture below `folder` (PICTURE_SUFFIXES) into one Parquet file, sorted by path.

    Columns: `path: string` (as `folder` was given, joined), `sha256: string` (hex, of the file),
    `embedding: fixed_size_list<float32>[dimension]` (length 1). `progress(done, total)` counts files. Pictures that
    cannot be read are set aside and counted.

    Raises:
        MissingData: there is no such folder.
        DataError: there is no picture in it, or none that can be read.
        StorageError: `out` cannot be written.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder}: no such folder. Give a folder of pictures.")
    paths = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()),
        key=lambda path: path.as_posix(),
    )
    schema = pa.schema(
        [("path", pa.string()), ("sha256", pa.string()), ("embedding", pa.list_(pa.float32(), encoder.dimension))],
        metadata={MODEL_KEY: encoder.fingerprint},
    )
    rows: list[tuple[str, str]] = []
    set_aside: list[tuple[str, str]] = []
    pictures = _readable(_reported(paths, progress), rows, set_aside)
    with storage.replacing(out) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while len(vectors := encoder.images(islice(pictures, _GROUP))):
                # `rows` ends with the pictures just embedded, for a generator runs no further than its last yield.
                names, hashes = zip(*rows[-len(vectors) :], strict=True)
                embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), encoder.dimension)
                writer.write_table(pa.table([pa.array(names), pa.array(hashes), embedding], schema=schema))
        if not rows:
            raise DataError(
                f"{folder}: {len(paths)} files there end in {', '.join(PICTURE_SUFFIXES)}, and none of them can be "
                "read as a picture. Give a folder of pictures."
            )
    return EmbedReport(embedded=len(rows), dimension=encoder.dimension, set_aside=tuple(set_aside))


def _reported(paths: Sequence[Path], progress: Callable[[int, int], None] | None) -> Iterator[Path]:
    for done, path in enumerate(paths, 1):
        yield path
        if progress:
            progress(done, len(paths))


def _readable(
    paths: Iterable[Path], rows: list[tuple[str, str]], set_aside: list[tuple[str, str]]
) -> Iterator[Image.Image]:
    """The pictures that can be read, each after its (path, SHA-256) was added to `rows`; others go to `set_aside`."""
    for path in paths:
        name = path.as_posix()
        try:
            name.encode()
            data = path.read_bytes()
            picture = read_picture(data, path)
        except UnicodeEncodeError:
            set_aside.append((ascii(name), "name is not UTF-8"))
        except DataError:
            set_aside.append((name, "not readable as a picture"))
        except OSError as error:
            set_aside.append((name, error.strerror or "file cannot be read"))
        else:
            rows.append((name, hashlib.sha256(data).hexdigest()))
            yield picture


def search(encoder: Encoder, query: str, table: Path, k: int) -> list[tuple[str, float]]:
    """The `k` pictures of an embeddings file nearest to `query`: path and cosine similarity, nearest first.

    Raises:
        MissingData: there is no such file.
        DataError: `embed` did not write it, or wrote it with another model.
        ConfigError: `k` is below 1 or `query` is blank.
    """
    if k < 1 or not query.strip():
        raise ConfigError(f"k = {k}, query = {query!r}; needed: k of 1 or more, and a query that is not blank.")
    found = storage.read_table(table)
    made_by = (found.schema.metadata or {}).get(MODEL_KEY.encode(), b"").decode()
    if made_by != encoder.fingerprint:
        raise DataError(
            f"{table}: its embeddings were made by {f'model {made_by[:12]}' if made_by else 'something else'}, not by "
            f"{encoder.folder} ({encoder.fingerprint[:12]}); the two cannot be compared. Embed the pictures again with "
            "this model, or search with the other one."
        )
    vectors = np.asarray(found["embedding"].combine_chunks().flatten()).reshape(-1, encoder.dimension)
    scores = vectors @ encoder.texts([query])[0]
    nearest = np.argsort(-scores, kind="stable")[:k]
    paths = found["path"].take(pa.array(nearest)).to_pylist()
    return [(path, float(scores[at])) for path, at in zip(paths, nearest, strict=True)]


def html_page(out: Path, heading: str, answers: Sequence[tuple[str, float]], image: Path | None = None) -> None:
    """Write one self-contained HTML page of answers, thumbnails inside.

    With `image` (classify) the answers are labels and probabilities beside that picture; without (search) they are
    paths and similarities, each shown as its picture, or as its name where the picture is no longer readable.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("answers.html.j2").render(
        heading=heading,
        image=_thumbnail(image, 2 * _THUMBNAIL) if image else None,
        answers=[(text, score, None if image else _thumbnail(Path(text), _THUMBNAIL)) for text, score in answers],
    )
    storage.write_bytes(out, page.encode())


def _thumbnail(path: Path, size: int) -> str | None:
    """A PNG data URI of at most `size` pixels a side, or None where there is no readable picture."""
    try:
        picture = on_white(_read_picture_file(path))
    except (DataError, MissingData):
        return None
    picture.thumbnail((size, size))
    png = io.BytesIO()
    picture.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
