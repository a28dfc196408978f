"""An exported model without torch: pictures and texts to embeddings by onnxruntime, tokenizers, NumPy and PIL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from worldclip import storage
from worldclip.errors import DataError, MissingData
from worldclip.model.pixels import on_white
from worldclip.tokenizer import SpecialIds, encode, lengths
from worldclip.tokenizer.files import read_tokenizer
from worldclip.tokenizer.rows import with_rows

#: The two graphs of a folder, as transformers names them.
IMAGE_GRAPH, TEXT_GRAPH = "vision_model.onnx", "text_model.onnx"


@dataclass(frozen=True, kw_only=True)
class OnnxEncoder:
    """A folder that `worldclip export --to onnx` wrote, opened: pictures and texts to the same unit sphere."""

    folder: Path
    image_session: Any
    text_session: Any
    tokenizer: Tokenizer
    special: SpecialIds
    processing: dict[str, Any]  #: preprocessor_config.json
    dimension: int  #: numbers of an embedding
    logit_scale: float  #: the factor (not its logarithm) on cosine similarities before a softmax

    @staticmethod
    def open(folder: Path, threads: int = 0) -> OnnxEncoder:
        """Load a folder; `threads` of one product, 0 for as many as there are cores.

        Raises:
            MissingData: a file of the folder or onnxruntime is not there.
            DataError: a file does not hold what it should.
        """
        config = storage.read_json(folder / "config.json")
        try:
            text = config["text_config"]
            special = SpecialIds(start=text.get("bos_token_id"), pad=text["pad_token_id"], end=text["eos_token_id"])
            context = text["max_position_embeddings"]
            dimension, scale = config["projection_dim"], math.exp(config["logit_scale_init_value"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder}/config.json: lacks {error}. Export the model again.") from error
        return OnnxEncoder(
            folder=folder,
            image_session=_session(folder / IMAGE_GRAPH, threads),
            text_session=_session(folder / TEXT_GRAPH, threads),
            tokenizer=with_rows(read_tokenizer(folder), special, context),
            special=special,
            processing=storage.read_json(folder / "preprocessor_config.json"),
            dimension=dimension,
            logit_scale=scale,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and bytes of the folder's files."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return storage.digest(*(part for path in files for part in (path.name, storage.file_digest(path))))

    def images(self, pictures: Iterable[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Embed pictures of any mode and size: float32 [n, dimension], rows of length 1.

        Transparent pixels become white. Pictures are taken one by one, so that a generator of large ones needs the
        memory of one.
        """
        prepared = (pixels(on_white(picture), self.processing) for picture in pictures)
        found = [np.zeros((0, self.dimension), np.float32)]
        while batch := list(islice(prepared, batch_size)):
            found.append(self.image_session.run(None, {"pixel_values": np.stack(batch)})[0])
        return np.concatenate(found)

    def texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts of any language: float32 [n, dimension], rows of length 1; longer ones are cut to the context.

        Texts of like length make a batch, cut to its longest: what follows a text's end never changes its feature.
        """
        ids = encode(self.tokenizer, texts)
        each = lengths(ids, self.special)
        found = np.zeros((len(texts), self.dimension), np.float32)
        order = np.argsort(each, kind="stable")
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            found[rows] = self.text_session.run(None, {"input_ids": ids[rows, : each[rows].max()]})[0]
        return found


def pixels(picture: Image.Image, processing: dict[str, Any]) -> np.ndarray:
    """An RGB picture as the image tower takes it, float32 [3, side, side], by a `preprocessor_config.json`."""
    size = processing["size"]
    if short := size.get("shortest_edge"):
        width, height = picture.size
        longer = int(short * max(width, height) / min(width, height))
        wanted = (short, longer) if width <= height else (longer, short)
    else:
        wanted = (size["width"], size["height"])
    picture = picture.resize(wanted, Image.Resampling(processing["resample"]))
    if processing["do_center_crop"]:
        side = processing["crop_size"]
        left, top = (picture.width - side["width"]) // 2, (picture.height - side["height"]) // 2
        picture = picture.crop((left, top, left + side["width"], top + side["height"]))
    mean, deviation = (np.array(processing[name], np.float32) for name in ("image_mean", "image_std"))
    values = np.asarray(picture, np.float32) * np.float32(processing["rescale_factor"])
    return np.ascontiguousarray(((values - mean) / deviation).transpose(2, 0, 1))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingData(
            f"{path}: onnxruntime is not installed, which runs it. Run `pip install 'worldclip[serve]'`."
        ) from None
    if not path.is_file():
        raise MissingData(f"{path}: not found. Export the model with `worldclip export MODEL --to onnx`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds are many
        raise DataError(f"{path}: onnxruntime cannot load it ({str(error)[:300]}). Export it again.") from error
