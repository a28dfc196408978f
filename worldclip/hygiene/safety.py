"""Unsafe images, by an ONNX classifier of the user's choice: a score for each label of a picture.

What to remove above which score is the caller's rule. No model is part of worldclip; `NUDENET` describes one that a
package ships (`worldclip pairs fetch`, licence AGPL-3.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from worldclip.errors import DataError
from worldclip.hygiene.onnx_models import Input, open_session, run_on

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NUDENET_FILE = "320n.onnx"

#: How NudeNet 3.4 (that file, a YOLOv8 detector) wants its pictures; its labels in the order of its outputs.
NUDENET = Input(
    labels=(
        "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED",
        "FEET_COVERED", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED",
        "ANUS_COVERED", "FEMALE_BREAST_COVERED", "BUTTOCKS_COVERED",
    ),
    size=320,
    fit="pad",
)  # fmt: skip


def input_of(path: Path) -> Input | None:
    """What is told of an ONNX file: by the JSON file beside it, or here if it is NudeNet's own; None if nothing is.

    Raises:
        DataError: the JSON file is not as it should be.
    """
    told = path.with_suffix(".json")
    if told.exists():
        return Input.read(told)
    return NUDENET if path.name == NUDENET_FILE else None


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that gives each label of a picture a score.

    Its output is [n, labels], or that of a YOLO detector, [n, 4 + labels, boxes], of which the best box counts.
    """

    session: InferenceSession
    input: Input

    @staticmethod
    def open(path: Path) -> Classifier:
        """Open `model.onnx` with `model.json` beside it; NudeNet's own file needs none.

        Raises:
            MissingData: one of them, or onnxruntime, is not there.
            DataError: they are damaged or do not fit each other.
        """
        session = open_session(path)
        found = Classifier(session=session, input=input_of(path) or Input.read(path.with_suffix(".json")))
        try:
            found.scores(Image.new("RGB", (8, 8)))
        except DataError as error:
            raise DataError(f"{path}: does not fit {path.with_suffix('.json').name} ({error}).") from None
        return found

    def scores(self, picture: Image.Image) -> dict[str, float]:
        """The score of each label for a picture in RGB.

        Raises:
            DataError: the model's output is not of as many labels.
        """
        output = run_on(self.session, self.input.array(picture)).astype(np.float64)
        labels = self.input.labels
        if output.ndim == 3 and output.shape[1] == 4 + len(labels):
            output = output[:, 4:].max(axis=2)
        if output.shape != (1, len(labels)):
            raise DataError(f"its output is {list(output.shape)}, for {len(labels)} labels")
        if self.input.softmax:
            output = np.exp(output - output.max())
            output /= output.sum()
        return {label: float(score) for label, score in zip(labels, output[0], strict=True)}
