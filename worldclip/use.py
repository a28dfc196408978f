"""Use a model at once: classify a picture, embed a folder, search it with words in any language.

Any folder works that transformers' `AutoModel` and `AutoProcessor` load and that has an image and a text side: ours
and the official ones (`MetaClip2Model`), `CLIPModel`, `SiglipModel`. Nothing is downloaded and nothing is unpickled.

    encoder = Encoder.open(Path("runs/quickstart/model"))
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
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageOps
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging as transformers_logging

from worldclip import storage
from worldclip.errors import ConfigError, DataError, MissingData

#: File names (lower case) that `embed` reads.
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

#: Key of the Parquet file metadata that holds the fingerprint of the model that made the embeddings.
MODEL_KEY = "worldclip.model"

#: The files of a model folder that decide its embeddings.
_MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "preprocessor_config.json",
    "processor_config.json",
)

#: A picture longer than this many times its width is set aside: resizing its short side would make it enormous.
_LONGEST_ASPECT = 50

#: Rows of a row group of an embeddings file; what is held in memory while embedding.
_GROUP = 4096

_THUMBNAIL = 192


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model and its processor, as two functions from pictures and texts to the same unit sphere.

    `context` is the number of tokens that every text is padded or cut to, `dimension` that of the embeddings;
    `logit_scale` is the factor (not its logarithm) on cosine similarities before a softmax.
    """

    folder: Path
    model: Any
    processor: Any
    context: int
    dimension: int
    logit_scale: float

    @staticmethod
    def open(folder: Path) -> Encoder:
        """Load a model folder, in float32, on the CPU.

        Raises:
            MissingData: there is no such folder, or no `config.json` in it.
            DataError: it is not a model of images and texts, is incomplete, or its parts do not fit each other.
        """
        if not (folder / "config.json").is_file():
            raise MissingData(
                f"{folder}: no config.json there, so it is not a model folder. Give the folder that training wrote "
                "(it ends in /model), or any CLIP-like folder saved by transformers' save_pretrained."
            )
        model, missing = _load(folder)
        if missing:
            raise DataError(
                f"{folder}: its weights lack {len(missing)} of the model's tensors ({', '.join(missing[:3])}, ...). "
                "The folder is incomplete or its config.json belongs to another model; copy or export it again."
            )
        processor = _part(folder, AutoProcessor)
        if not all(hasattr(model, name) for name in ("get_image_features", "get_text_features", "logit_scale")):
            raise DataError(
                f"{folder}: holds a {type(model).__name__}, which does not embed both images and texts. "
                "Needed: MetaClip2Model, CLIPModel, SiglipModel or another of their kind."
            )
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise DataError(
                f"{folder}: its processor ({type(processor).__name__}) lacks the image or the text side. "
                "Needed: tokenizer.json with tokenizer_config.json, and preprocessor_config.json."
            )
        text = model.config.text_config
        if tokenizer.pad_token_id is None or len(tokenizer) > text.vocab_size:
            raise DataError(
                f"{folder}: the tokenizer ({len(tokenizer)} tokens, padding {tokenizer.pad_token!r}) does not fit the "
                f"model ({text.vocab_size} tokens; a padding token is needed). Copy the tokenizer it was trained with."
            )
        return Encoder(
            folder=folder,
            model=model,
            processor=processor,
            context=int(min(text.max_position_embeddings, tokenizer.model_max_length)),
            dimension=int(getattr(model.config, "projection_dim", None) or text.projection_size),
            logit_scale=float(model.logit_scale.detach().exp()),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and bytes of the folder's files that decide its embeddings."""
        files = sorted({path.name: path for pattern in _MODEL_FILES for path in self.folder.glob(pattern)}.items())
        return storage.digest(*(part for name, path in files for part in (name, storage.file_digest(path))))

    def images(self, pictures: Iterable[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Embed pictures of any mode and size: float32 [n, dimension], rows of length 1.

        Transparent pixels become white, then the folder's own preprocessing runs. Pictures are taken one by one, so
        that a generator of large ones needs the memory of one.
        """
        prepare = self.processor.image_processor
        pixels = (prepare(images=on_white(picture), return_tensors="pt")["pixel_values"][0] for picture in pictures)
        found = [np.zeros((0, self.dimension), np.float32)]
        with torch.inference_mode():
            while batch := list(islice(pixels, batch_size)):
                found.append(_normalised(self.model.get_image_features(pixel_values=torch.stack(batch))))
        return np.concatenate(found)

    def texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts of any language: float32 [n, dimension], rows of length 1; longer ones are cut to `context`."""
        found = [np.zeros((0, self.dimension), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                # One fixed length for all: what SigLIP needs, and what makes an embedding independent of its batch.
                tokens = self.processor.tokenizer(
                    list(texts[start : start + batch_size]),
                    padding="max_length",
                    truncation=True,
                    max_length=self.context,
                    return_tensors="pt",
                )
                found.append(_normalised(self.model.get_text_features(**tokens)))
        return np.concatenate(found)


def _load(folder: Path) -> tuple[Any, list[str]]:
    """The model, ready to run, and the names of the tensors that its weights lack."""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what is missing is reported by us, as an error
    try:
        model, info = _part(folder, AutoModel, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
    return model.eval(), sorted(info["missing_keys"])


def _part(folder: Path, kind: Any, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the parsers below raise anything, tokenizers a bare Exception
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{folder}: transformers' {kind.__name__} cannot load it ({type(error).__name__}: {reason}). "
            "Needed: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, preprocessor_config.json."
        ) from error


def _normalised(output: Any) -> np.ndarray:
    return torch.nn.functional.normalize(output.pooler_output.float(), dim=-1).numpy()


def on_white(picture: Image.Image) -> Image.Image:
    """The picture in RGB; palettes are resolved, transparency is laid on white, 16-bit greys are scaled to 8 bits."""
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def read_picture(data: bytes, where: Path) -> Image.Image:
    """Decode a picture (the first frame of an animation), turned upright as its camera noted.

    Raises:
        DataError: it is broken, cut short, of an unknown format, enormous or a mere line.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if max(width, height) > _LONGEST_ASPECT * min(width, height):
                raise DataError(f"{where}: {width} x {height} pixels is a line, not a picture.")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except DataError:
        raise
    except Exception as error:  # decoders of arbitrary bytes raise nearly every type there is
        raise DataError(f"{where}: cannot be read as a picture ({type(error).__name__}: {error}).") from error


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
