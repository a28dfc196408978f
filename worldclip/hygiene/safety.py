"""Unsafe images and faces, by ONNX models of the user's choice (`pip install 'worldclip[safety]'`).

    Classifier.open(model.onnx)     scores of each label for a picture; what to remove above is the caller's rule
    FaceDetector                    whatever gives boxes of faces: CenterFace.open(centerface.onnx), or one's own
    blur(picture, boxes)            the faces made unrecognisable, all else untouched

How a classifier wants its pictures is told by a JSON file of the same name beside it (`Input`). No model is part of
worldclip; which packages ship some that were tried is in docs/hygiene.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from worldclip.errors import DataError, MissingData
from worldclip.storage import read_json

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

#: Pictures of more pixels are not opened: a small file can hold an enormous one.
MOST_PIXELS = 100_000_000


def open_picture(data: bytes) -> Image.Image:
    """An image file's picture in RGB, upright (EXIF), transparency on white.

    Raises:
        DataError: it is not a picture, is cut short, or is larger than 100 megapixels.
    """
    try:
        picture: Image.Image = Image.open(BytesIO(data))
        if picture.width * picture.height > MOST_PIXELS:
            raise DataError(f"{picture.width} x {picture.height} pixels; allowed are {MOST_PIXELS:,} in all")
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            upon = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(upon, picture.convert("RGBA"))
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"not a whole picture ({type(error).__name__})") from None


@dataclass(frozen=True, kw_only=True)
class Input:
    """How a classifier wants its pictures, and what its outputs are called.

    `size` is the side of its square input. With `fit` "pad" a picture keeps its shape and black fills the rest. A
    pixel v of 0 to 255 becomes (v / 255 - mean) / std, channels in `order`. `softmax` turns outputs to probabilities.
    """

    labels: tuple[str, ...]
    size: int
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
        unknown = sorted(set(content) - set(known)) if isinstance(content, dict) else []
        if not isinstance(content, dict) or unknown or not {"labels", "size"} <= set(content):
            raise DataError(f"{path}: needs `labels` and `size`, allowed are {', '.join(known)}; found {content!r}.")
        content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
        found = Input(**content)
        good = (
            all(isinstance(label, str) for label in found.labels) and isinstance(found.size, int) and found.size > 0
            and len(found.mean) == len(found.std) == 3 and found.order in ("rgb", "bgr")
            and found.fit in ("stretch", "pad")
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
        pixels = (np.asarray(fitted, np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(
            self.std, np.float32
        )
        channels = pixels.transpose(2, 0, 1)[None]
        return np.ascontiguousarray(channels if self.order == "rgb" else channels[:, ::-1])


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that gives each label of a picture a score.

    Its output is [n, labels], or that of a YOLO detector, [n, 4 + labels, boxes], of which the best box counts.
    """

    session: InferenceSession
    input: Input

    @staticmethod
    def open(path: Path) -> Classifier:
        """Open `model.onnx` with `model.json` beside it.

        Raises:
            MissingData: one of them, or onnxruntime, is not there.
            DataError: they are damaged or do not fit each other.
        """
        found = Classifier(session=_session(path), input=Input.read(path.with_suffix(".json")))
        blank = Image.new("RGB", (8, 8))
        try:
            found.scores(blank)
        except (DataError, RuntimeError, ValueError) as error:
            raise DataError(f"{path}: does not fit {path.with_suffix('.json').name} ({error}).") from None
        return found

    def scores(self, picture: Image.Image) -> dict[str, float]:
        """The score of each label for a picture in RGB.

        Raises:
            DataError: the model's output is not of as many labels.
        """
        name = self.session.get_inputs()[0].name
        output = np.asarray(self.session.run(None, {name: self.input.array(picture)})[0], np.float64)
        labels = self.input.labels
        if output.ndim == 3 and output.shape[1] == 4 + len(labels):
            output = output[:, 4:].max(axis=2)
        if output.shape != (1, len(labels)):
            raise DataError(f"its output is {list(output.shape)}, for {len(labels)} labels")
        if self.input.softmax:
            output = np.exp(output - output.max())
            output /= output.sum()
        return {label: float(score) for label, score in zip(labels, output[0], strict=True)}


class FaceDetector(Protocol):
    """Anything that finds faces."""

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """Boxes of a picture in RGB: float64 [faces, 5], left, top, right, bottom in pixels, and a score."""


#: A detector sees no picture larger than this (longer side, pixels).
_DETECTOR_SIDE = 1024

#: Boxes that overlap more (intersection over union) are one face.
_SAME_FACE = 0.3


@dataclass(frozen=True, kw_only=True)
class CenterFace:
    """The detector of Xu et al., CenterFace (2019): a map of how likely a face's centre is, and its size and offset."""

    session: InferenceSession
    threshold: float = 0.2

    @staticmethod
    def open(path: Path, threshold: float = 0.2) -> CenterFace:
        """Open centerface.onnx, whose input is made to be of any size.

        Raises:
            MissingData: it, or onnxruntime or onnx, is not there.
            DataError: it is not that model.
        """
        session = _session(path, any_size=True)
        if [len(output.shape) for output in session.get_outputs()] != [4, 4, 4, 4]:
            raise DataError(
                f"{path}: is no CenterFace model, whose four outputs are maps (heat, size, offset, points)."
            )
        return CenterFace(session=session, threshold=threshold)

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """See `FaceDetector`."""
        scale = min(1.0, _DETECTOR_SIDE / max(picture.size))
        # Its maps are of a 32nd of the input, four times refined: sides are multiples of 32.
        width, height = (max(32, round(side * scale / 32) * 32) for side in picture.size)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        name = self.session.get_inputs()[0].name
        heat, size, offset, _ = (
            np.asarray(each) for each in self.session.run(None, {name: pixels.transpose(2, 0, 1)[None]})
        )
        rows, columns = np.nonzero(heat[0, 0] > self.threshold)
        tall, wide = np.exp(size[0, :, rows, columns].T.astype(np.float64)) * 4
        down, right = offset[0, :, rows, columns].T
        middle_y, middle_x = (rows + down + 0.5) * 4, (columns + right + 0.5) * 4
        boxes = np.stack(
            [middle_x - wide / 2, middle_y - tall / 2, middle_x + wide / 2, middle_y + tall / 2], axis=1
        ) * np.tile([picture.width / width, picture.height / height], 2)  # fmt: skip
        limits = np.tile(np.array(picture.size, np.float64), 2)
        found = np.column_stack([np.clip(boxes, 0, limits), heat[0, 0, rows, columns]])
        return _apart(found)


def _apart(boxes: np.ndarray) -> np.ndarray:
    """The best box of each that overlap, best first."""
    kept: list[np.ndarray] = []
    for box in boxes[np.lexsort((boxes[:, 0], boxes[:, 1], -boxes[:, 4]))]:
        if all(_overlap(box, other) <= _SAME_FACE for other in kept):
            kept.append(box)
    return np.array(kept, np.float64).reshape(-1, 5)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:4], other[2:4]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    area = float(np.prod(one[2:4] - one[:2]) + np.prod(other[2:4] - other[:2]))
    return shared / max(area - shared, 1e-9)


#: What is left of a face: so many pixels of its longer side.
_REMAINS = 6


def blur(picture: Image.Image, boxes: np.ndarray, margin: float = 0.15) -> Image.Image:
    """A copy with every box, widened by `margin` of its sides, made unrecognisable.

    A box is first reduced to a few pixels, as a blur alone can be undone in part.

    Args:
        boxes: float [n, 4 or more], left, top, right, bottom.
    """
    result = picture.copy()
    for left, top, right, bottom in boxes[:, :4]:
        wide, tall = (right - left) * margin, (bottom - top) * margin
        box = (
            max(0, int(left - wide)), max(0, int(top - tall)),
            min(picture.width, int(np.ceil(right + wide))), min(picture.height, int(np.ceil(bottom + tall))),
        )  # fmt: skip
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        face = result.crop(box)
        longer = max(face.size)
        wide, tall = (max(1, round(side * _REMAINS / max(longer, _REMAINS))) for side in face.size)
        face = face.resize((wide, tall), Image.Resampling.BOX).resize(face.size, Image.Resampling.BICUBIC)
        result.paste(face.filter(ImageFilter.GaussianBlur(longer / _REMAINS / 2)), box)
    return result


def _session(path: Path, any_size: bool = False) -> InferenceSession:
    """Open an ONNX model on the CPU, in one thread; with `any_size`, its images may be of any number and size."""
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
        for at, name in zip((0, 2, 3), names.split(), strict=True):
            value.type.tensor_type.shape.dim[at].dim_param = name
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())
