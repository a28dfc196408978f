"""A checkpoint gives back all of a run, refuses what is none, and is not taken for another run's."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from worldclip.config import TrainConfig
from worldclip.errors import DataError, StorageError
from worldclip.loader.batches import Cursor
from worldclip.train.checkpoint import Checkpoints, Progress
from worldclip.train.ranks import Ranks

CONFIG = TrainConfig(seen_pairs=1, batch_size=1)


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(3, 4, generator=generator),
        "b.c": torch.randn(5, generator=generator).to(torch.bfloat16),
        "steps": torch.tensor(seed),
        "none": torch.zeros(0, 2),
    }


def progress(step: int = 3, key: str = "run") -> Progress:
    return Progress(
        key=key,
        step=step,
        cursor=Cursor(epoch=1, window=2, taken=5),
        seconds=1.5,
        losses=[[64.0, 0.1 + 0.2]],
        pending=[2.25, 1e-17],
        validation=[{"step": 2, "loss": 1.0}],
        bad_steps=1,
        set_aside={"unreadable image": 2},
    )


def at(folder: Path, config: TrainConfig = CONFIG) -> Checkpoints:
    return Checkpoints(folder, config, Ranks())


def saved(folder: Path, *steps: int, config: TrainConfig = CONFIG) -> Checkpoints:
    made = at(folder, config)
    for step in steps:
        made.save(state(step), progress(step))
    made.wait()
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    found = state(9)
    assert at(tmp_path).load(found, "run") == progress(3)
    for name, value in state(3).items():
        assert torch.equal(found[name], value), name


def test_the_state_is_that_of_the_moment_of_saving(tmp_path: Path) -> None:
    tensors, made = state(3), at(tmp_path)
    now = progress(3)
    made.save(tensors, now)
    tensors["a"].zero_()  # training goes on while it is written
    now.step, now.losses[0][1] = 4, 0.0
    made.wait()
    found = state(9)
    assert made.load(found, "run") == progress(3)
    assert torch.equal(found["a"], state(3)["a"])


def test_the_last_checkpoint_counts(tmp_path: Path) -> None:
    made = saved(tmp_path, 5, 30, 200)
    assert made.load(state(0), "run").step == 200
    assert made.steps() == [30, 200]


def test_the_last_few_and_some_for_good_are_kept(tmp_path: Path) -> None:
    config = TrainConfig(seen_pairs=1, batch_size=1, keep_checkpoints=3, keep_every_steps=10)
    assert saved(tmp_path, *range(2, 36, 3), config=config).steps() == [20, 29, 32, 35]


def test_without_a_checkpoint_a_run_begins(tmp_path: Path) -> None:
    tensors = state(4)
    assert at(tmp_path / "new").load(tensors, "run") == Progress(key="run")
    assert torch.equal(tensors["a"], state(4)["a"])


def test_another_runs_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    tensors = state(4)
    assert saved(tmp_path, 3).load(tensors, "other") == Progress(key="other")
    assert torch.equal(tensors["a"], state(4)["a"])


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    half = tmp_path / "step-00000007.tmp"
    half.mkdir()
    (half / "progress.json").write_text("{}")
    made = at(tmp_path)
    assert made.steps() == [3]
    assert not half.exists()
    made.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["cut", "text", "gone", "shape", "progress", "other progress"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, 3)
    folder = tmp_path / "step-00000003"
    weights = folder / "whole.safetensors"
    tensors = state(9)
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "text":
        weights.write_text("no checkpoint")
    elif damage == "gone":
        weights.unlink()
    elif damage == "shape":
        tensors["a"] = torch.zeros(4, 4)
    elif damage == "progress":
        (folder / "progress.json").write_text("{")
    else:
        (folder / "progress.json").write_text('{"epoch": 3, "cursor": {}}')
    with pytest.raises(DataError, match=r"step-00000003: is not a readable checkpoint .* Delete it to train from"):
        at(tmp_path).load(tensors, "run")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files fails the very call that a full disk fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    made = saved(tmp_path, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    made.save(state(4) | {"a": torch.zeros(3000)}, progress(4))
    with pytest.raises(StorageError, match=r"step-00000004: the checkpoint could not be written .*too large"):
        made.wait()
    assert at(tmp_path).load(state(0), "run") == progress(3)
