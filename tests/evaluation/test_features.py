"""Features kept by content: each text and picture embedded once, the same numbers whatever was kept or who shares."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import model_folders
import numpy as np
import pytest
from model_folders import LABELS, picture
from namespace import UNSHARE, cannot_unshare

from worldclip.errors import DataError
from worldclip.evaluation import features
from worldclip.evaluation.features import EncoderFeatures
from worldclip.evaluation.pictures import Pictures
from worldclip.model.encoder import Encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.open(model_folders.save("metaclip2", tmp_path_factory.mktemp("models") / "model"))


class Counting:
    """An encoder that notes what it is asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.read: list[str] = []
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def texts(self, texts: Sequence[str]) -> Any:
        self.read += texts
        return self.encoder.texts(texts)

    def prepare(self, data: bytes, where: str) -> Any:
        self.seen.append(where)
        return self.encoder.prepare(data, where)


def pictures(count: int, name: str = "set") -> Pictures:
    """PNGs, the fourth of which is cut short and the last a copy of the first."""
    data = []
    for at in range(count - 1):
        file = io.BytesIO()
        picture(at % 40, (60 + at, 48)).save(file, "PNG")
        data.append(file.getvalue())
    data.append(data[0])
    data[3] = data[3][:40]
    return Pictures(
        name=name, keys=tuple(f"{at}.png" for at in range(count)), read=lambda rows: (data[row] for row in rows)
    )


def test_features_are_the_encoders(encoder: Encoder, tmp_path: Path) -> None:
    found = EncoderFeatures.open(encoder, tmp_path, threads=2)
    texts = [*LABELS, LABELS[0], "犬 " * 200]
    ours = found.texts(texts)
    np.testing.assert_allclose(ours, encoder.texts(texts), atol=1e-6)
    np.testing.assert_array_equal(ours[0], ours[len(LABELS)])
    vectors = found.images(pictures(9))
    assert np.flatnonzero(np.isnan(vectors).any(1)).tolist() == [3]
    assert np.isnan(vectors[3]).all(), "a picture that cannot be read has no number"
    drawn = [picture(at, (60 + at, 48)) for at in range(8)]
    np.testing.assert_allclose(np.delete(vectors[:8], 3, 0), np.delete(encoder.images(drawn), 3, 0), atol=1e-6)
    np.testing.assert_array_equal(vectors[8], vectors[0])
    assert found.truncated(texts).tolist() == [False] * (len(texts) - 1) + [True]
    assert found.texts([]).shape == (0, encoder.dimension)


def test_nothing_is_embedded_twice(encoder: Encoder, tmp_path: Path) -> None:
    first = Counting(encoder)
    found = EncoderFeatures.open(first, tmp_path, threads=2)  # type: ignore[arg-type]
    found.texts([*LABELS, *LABELS])
    found.texts([*reversed(LABELS), "犬", "one more"])
    assert sorted(first.read) == sorted([*LABELS, "one more"])
    found.images(pictures(9))
    found.images(pictures(12, "another set that holds the same pictures"))
    assert sorted(set(first.seen)) == sorted(first.seen), "a picture that was in both sets was prepared once"
    again = Counting(encoder)
    kept = EncoderFeatures.open(again, tmp_path, threads=2)  # type: ignore[arg-type]
    np.testing.assert_array_equal(kept.texts(LABELS), found.texts(LABELS))
    np.testing.assert_array_equal(kept.images(pictures(12)), found.images(pictures(12)))
    assert not again.read
    assert not again.seen


def test_another_model_has_features_of_its_own(encoder: Encoder, tmp_path: Path) -> None:
    EncoderFeatures.open(encoder, tmp_path, threads=1).texts(LABELS)
    other = Counting(Encoder.open(model_folders.save("metaclip2", tmp_path / "other", seed=1)))
    EncoderFeatures.open(other, tmp_path, threads=1).texts(LABELS)  # type: ignore[arg-type]
    assert other.read == LABELS


def test_a_killed_evaluation_goes_on(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that were finished are kept, what was half-written is swept away."""
    monkeypatch.setattr(features, "TEXTS", 3)

    class Killed(Counting):
        def texts(self, texts: Sequence[str]) -> Any:
            if len(self.read) >= 6:
                raise KeyboardInterrupt
            return super().texts(texts)

    killed = Killed(encoder)
    with pytest.raises(KeyboardInterrupt):
        EncoderFeatures.open(killed, tmp_path, threads=1).texts(LABELS)  # type: ignore[arg-type]
    folder = tmp_path / encoder.fingerprint[:32]
    (folder / "texts-half.npy.1.tmp").write_bytes(b"half")
    rest = Counting(encoder)
    EncoderFeatures.open(rest, tmp_path, threads=1).texts(LABELS)  # type: ignore[arg-type]
    assert sorted(killed.read + rest.read) == sorted(LABELS)
    assert not list(folder.glob("*.tmp"))


def test_a_damaged_segment_is_named(encoder: Encoder, tmp_path: Path) -> None:
    EncoderFeatures.open(encoder, tmp_path, threads=1).texts(LABELS)
    (segment,) = (tmp_path / encoder.fingerprint[:32]).glob("texts-*.npy")
    segment.write_bytes(segment.read_bytes()[:200])
    with pytest.raises(DataError, match=f"{segment.name}.*Delete it"):
        EncoderFeatures.open(encoder, tmp_path, threads=1).texts(LABELS)


def test_progress_is_told_by_segments(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "TEXTS", 3)
    told: list[tuple[str, int, int]] = []
    EncoderFeatures.open(encoder, tmp_path, threads=1, progress=lambda *at: told.append(at)).texts(LABELS)
    assert told == [("texts", 0, 8), ("texts", 3, 8), ("texts", 6, 8), ("texts", 8, 8)]


WORKER = """
import json, sys
from pathlib import Path
import test_features
from worldclip.evaluation.features import EncoderFeatures, Processes
from worldclip.model.encoder import Encoder
from worldclip.train.ranks import started

model, folder = map(Path, sys.argv[1:])
with started() as ranks:
    counting = test_features.Counting(Encoder.open(model))
    processes = Processes(rank=ranks.rank, size=ranks.size, barrier=ranks.barrier)
    found = EncoderFeatures.open(counting, folder / "features", threads=1, processes=processes)
    texts, images = found.texts(test_features.LABELS), found.images(test_features.pictures(12))
    again = found.texts([*test_features.LABELS, "one more"])
(folder / f"{ranks.rank}.json").write_text(json.dumps({
    "size": ranks.size, "read": counting.read, "seen": counting.seen,
    "texts": texts.tolist(), "images": images.tolist(), "again": again.tolist(),
}))
"""


@pytest.mark.skipif(bool(cannot_unshare()), reason=cannot_unshare())
def test_two_processes_share_the_work_and_give_the_same_numbers(encoder: Encoder, tmp_path: Path) -> None:
    """Under torchrun, in a network of nothing but loopback."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [
            *UNSHARE,
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(script, encoder.folder, tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{here.parent}:{here}:{here / 'evaluation'}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["size"] == second["size"] == 2
    alone = EncoderFeatures.open(encoder, tmp_path / "alone", threads=1)
    for name, expected in (("texts", alone.texts(LABELS)), ("images", alone.images(pictures(12)))):
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(np.array(first[name], np.float32), expected, atol=1e-6)
    assert sorted(first["read"] + second["read"]) == sorted([*LABELS, "one more"])
    assert len(first["read"]) >= 4
    assert len(second["read"]) >= 4
    assert len(first["seen"] + second["seen"]) == 11, "each picture is prepared by one of them"
