"""Faces: found by a detector of the user's choice, and made unrecognisable; all else of a picture stays untouched.

open_detector(path)     CenterFace, which a package ships (`worldclip pairs fetch`, licence MIT), or a YOLO detector
blur(picture, boxes)    the faces made unrecognisable
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageFilter

from worldclip.errors import DataError
from worldclip.hygiene.onnx_models import Input, open_session, run_on
from worldclip.hygiene.safety import input_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class FaceDetector(Protocol):
    """Anything that finds faces."""

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """Boxes of a picture in RGB: float64 [faces, 5], left, top, right, bottom in pixels, and a score."""


def open_detector(path: Path) -> FaceDetector:
    """Open an ONNX file: with a JSON file of the same name beside it (or NudeNet's own) `Yolo`, else `CenterFace`.

    Raises:
        MissingData: it, or what it needs to run, is not there.
        DataError: it is damaged or none of these.
    """
    return Yolo.open(path) if input_of(path) else CenterFace.open(path)


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
        session = open_session(path, any_size=True)
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


@dataclass(frozen=True, kw_only=True)
class Yolo:
    """A YOLO detector, whose output is [1, 4 + labels, boxes]: what it calls a face (any label with "face") is one."""

    session: InferenceSession
    input: Input
    threshold: float = 0.2

    @staticmethod
    def open(path: Path) -> Yolo:
        """Open `model.onnx` with `model.json` beside it; NudeNet's own file needs none.

        Raises:
            MissingData: one of them, or onnxruntime, is not there.
            DataError: they are damaged, do not fit each other, or no label is a face's.
        """
        told = input_of(path)
        if told is None or not any("face" in label.casefold() for label in told.labels):
            raise DataError(f"{path.with_suffix('.json')}: needs a label that holds 'face'.")
        found = Yolo(session=open_session(path), input=told)
        try:
            found(Image.new("RGB", (8, 8)))
        except DataError as error:
            raise DataError(f"{path}: does not fit {path.with_suffix('.json').name} ({error}).") from None
        return found

    def __call__(self, picture: Image.Image) -> np.ndarray:
        """See `FaceDetector`."""
        output = run_on(self.session, self.input.array(picture)).astype(np.float64)
        labels = self.input.labels
        if output.ndim != 3 or output.shape[:2] != (1, 4 + len(labels)):
            raise DataError(f"its output is {list(output.shape)}, not [1, {4 + len(labels)}, boxes]")
        faces = [4 + at for at, label in enumerate(labels) if "face" in label.casefold()]
        scores = output[0, faces].max(axis=0)
        x, y, wide, tall = output[0, :4, scores > self.threshold].T
        boxes = np.stack([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2], axis=1)
        padded = self.input.fit == "pad"
        sides = (max(picture.size),) * 2 if padded else picture.size  # a padded picture begins at the left and the top
        boxes *= np.tile(np.array(sides) / self.input.size, 2)
        limits = np.tile(np.array(picture.size, np.float64), 2)
        return _apart(np.column_stack([np.clip(boxes, 0, limits), scores[scores > self.threshold]]))


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
