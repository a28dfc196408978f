"""Models of pictures in ONNX files: how they want their pictures, and how they are run.

How a model wants its pictures is told by a JSON file of the same name beside it (`Input`). onnxruntime is optional
(`pip install 'worldclip[safety]'`), and torch is not needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from worldclip.errors import DataError, MissingData
from worldclip.storage import read_json

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_picture(data: bytes) -> Image.Image:
    """An image file's picture in RGB, upright (EXIF), transparency on white.

    Raises:
        DataError: it is not a picture, is cut short, or has more pixels than Pillow opens (89 million: a small file
            can hold an enormous picture).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(BytesIO(data))
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            upon = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(upon, picture.convert("RGBA"))
        return picture.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError("more than 89 million pixels") from None
    except Exception as error:  # decoders of arbitrary bytes raise nearly every type there is
        raise DataError(f"not a whole picture ({type(error).__name__})") from None


@dataclass(frozen=True, kw_only=True)
class Input:
    """How a model wants its pictures, and what its outputs are called.

    `size` is the side of its square input. With `fit` "pad" a picture keeps its shape and black fills the rest. A
    pixel v of 0 to 255 becomes (v / 255 - mean) / std, channels in `order`. `softmax` turns outputs to probabilities.
    A model that embeds has no `labels`.
    """

    size: int
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    order: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "pad"] = "stretch"
    softmax: bool = False

    @staticmethod
    def read(path: Path) -> Input:
        """Read a JSON object with these fields.

        Raises:
            MissingData: it is not there.
            DataError: a field is unknown, missing, or not of its kind.
        """
        content = read_json(path)
        known = [field.name for field in fields(Input)]
        if not isinstance(content, dict) or set(content) - set(known) or "size" not in content:
            raise DataError(f"{path}: needs `size`, allowed are {', '.join(known)}; found {content!r}.")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        found = Input(**values)
        good = (
            isinstance(found.labels, tuple) and all(isinstance(label, str) for label in found.labels)
            and type(found.size) is int and found.size > 0
            and _three_numbers(found.mean) and _three_numbers(found.std) and all(found.std)
            and found.order in ("rgb", "bgr") and found.fit in ("stretch", "pad") and type(found.softmax) is bool
        )  # fmt: skip
        if not good:
            raise DataError(f"{path}: a value is not of its kind: {asdict(found)}.")
        return found

    def array(self, picture: Image.Image) -> np.ndarray:
        """A picture in RGB as float32 [1, 3, size, size]."""
        side = (self.size, self.size)
        if self.fit == "pad":
            fitted = ImageOps.pad(picture, side, Image.Resampling.BILINEAR, color="black", centering=(0, 0))
        else:
            fitted = picture.resize(side, Image.Resampling.BILINEAR)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        pixels = (np.asarray(fitted, np.float32) / 255 - mean) / std
        channels = pixels.transpose(2, 0, 1)[None]
        return np.ascontiguousarray(channels if self.order == "rgb" else channels[:, ::-1])


def _three_numbers(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(type(each) in (int, float) for each in values)


@dataclass(frozen=True, kw_only=True)
class OnnxTower:
    """A model that embeds pictures: all numbers of its first output are a picture's embedding."""

    session: InferenceSession
    input: Input

    @staticmethod
    def open(path: Path) -> OnnxTower:
        """Open `model.onnx` with `model.json` beside it.

        Raises:
            MissingData: one of them, or onnxruntime, is not there.
            DataError: they are damaged or do not fit each other.
        """
        found = OnnxTower(session=open_session(path), input=Input.read(path.with_suffix(".json")))
        try:
            found([Image.new("RGB", (8, 8))])
        except DataError as error:
            raise DataError(f"{path}: does not fit {path.with_suffix('.json').name} ({error}).") from None
        return found

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Embed pictures in RGB, one at a time, so that no picture's embedding depends on others: float32 [n, d]."""
        return np.stack([run_on(self.session, self.input.array(picture)).reshape(-1) for picture in pictures])


def run_on(session: InferenceSession, array: np.ndarray) -> np.ndarray:
    """The first output of a model for its one input.

    Raises:
        DataError: it refuses the input.
    """
    try:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: array})[0])
    except Exception as error:  # onnxruntime's own classes are of no common base
        raise DataError(f"it refuses an input of {list(array.shape)}: {' '.join(str(error).split())[:200]}") from None


def open_session(path: Path, any_size: bool = False) -> InferenceSession:
    """Open an ONNX model on the CPU, in one thread; with `any_size`, its images may be of any number and size.

    Raises:
        MissingData: it, or onnxruntime (with `any_size` also onnx), is not there.
        DataError: it cannot be opened.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingData("onnxruntime is not installed. `pip install 'worldclip[safety]'` brings it.") from None
    if not path.is_file():
        raise MissingData(f"{path}: not found. Give an ONNX model.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        model: Any = _of_any_size(path) if any_size else str(path)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except MissingData:
        raise
    except Exception as error:  # its own classes are of no common base, protobuf's and onnx's come on top
        raise DataError(f"{path}: cannot be opened as an ONNX model ({' '.join(str(error).split())[:200]}).") from None


def _of_any_size(path: Path) -> bytes:
    try:
        import onnx
    except ImportError:
        raise MissingData("onnx is not installed. `pip install 'worldclip[safety]'` brings it.") from None
    model = onnx.load(str(path))
    for value, names in [(model.graph.input[0], "n h w"), *((each, "n y x") for each in model.graph.output)]:
        sides = value.type.tensor_type.shape.dim
        for at, name in zip((0, 2, 3), names.split(), strict=True):
            if len(sides) == 4:
                sides[at].dim_param = name
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())
