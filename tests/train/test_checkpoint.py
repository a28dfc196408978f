"""A checkpoint gives back all of a run, refuses what is none, and is not taken for another run's."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from worldclip.config import TrainConfig
from worldclip.errors import DataError
from worldclip.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from worldclip.train.optim import build_optimizer

CONFIG = TrainConfig(seen_pairs=1, batch_size=1)
PROGRESS = Progress(key="run", step=3, seconds=1.5, losses=[[64.0, 2.5]], pending=[2.25, 1.0])


def made(seed: int, steps: int = 0) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = build_optimizer(model, CONFIG)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 3), 0.5 + step)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def state(model: torch.nn.Module, optimizer: torch.optim.AdamW) -> str:
    torch.set_printoptions(precision=17, threshold=100_000)
    try:
        return repr((model.state_dict(), optimizer.state_dict()))
    finally:
        torch.set_printoptions(profile="default")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model, optimizer = made(0, steps=3)
    save_checkpoint(tmp_path / "c.pt", model, optimizer, PROGRESS)
    again, other = made(1)
    assert load_checkpoint(tmp_path / "c.pt", again, other, "run") == PROGRESS
    assert state(again, other) == state(model, optimizer)
    for each in ((model, optimizer), (again, other)):
        each[1].zero_grad()
        each[0](torch.ones(1, 3)).sum().backward()
        each[1].step()
    assert state(again, other) == state(model, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_without_a_checkpoint_a_run_begins(tmp_path: Path) -> None:
    model, optimizer = made(0)
    before = state(model, optimizer)
    assert load_checkpoint(tmp_path / "c.pt", model, optimizer, "run") == Progress(key="run")
    assert state(model, optimizer) == before


def test_another_runs_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", *made(0, steps=1), PROGRESS)
    model, optimizer = made(1)
    before = state(model, optimizer)
    assert load_checkpoint(tmp_path / "c.pt", model, optimizer, "other") == Progress(key="other")
    assert state(model, optimizer) == before


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "unpickled")


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "weights alone", "other progress", "pickle", "evil"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.pt"
    model, optimizer = made(0, steps=1)
    save_checkpoint(path, model, optimizer, PROGRESS)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "weights alone":
        torch.save(model.state_dict(), path)
    elif kind == "other progress":
        torch.save({"model": {}, "optimizer": {}, "progress": {"epoch": 3}}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"progress": {"key": "run"}}))
    else:
        torch.save({"progress": Evil(tmp_path / "proof")}, path)
    with pytest.raises(DataError, match=r"c\.pt: is not a readable checkpoint .* Delete it to train from the start"):
        load_checkpoint(path, model, optimizer, "run")
    assert not (tmp_path / "proof").exists()
