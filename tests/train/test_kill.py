"""kill -9 at random moments: the run that is left ends as one that was never disturbed, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

PROGRAM = Path(__file__).parents[1] / "worlds.py"


def learn(out: Path, variant: str) -> int:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(out), variant],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])},
        check=False,
        timeout=300,
    ).returncode


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    assert learn(tmp_path, "ddp") == 0
    weights = load_file(tmp_path / "ddp-0.safetensors")
    losses = np.load(tmp_path / "ddp-0.npy").tolist()
    chance, kills, runs = random.Random(0), 0, 0
    while kills < 10:  # a run that ends before it is killed is judged, and another begun
        folder = tmp_path / f"killed {runs}"
        folder.mkdir()
        while not (folder / "ddp-0.npy").exists():
            ended = learn(folder, f"ddp~{chance.uniform(0.0, 0.5)}" if kills < 10 else "ddp~600")
            assert ended in (0, -signal.SIGKILL)
            kills += ended == -signal.SIGKILL
        assert np.load(folder / "ddp-0.npy").tolist() == losses
        found = load_file(folder / "ddp-0.safetensors")
        assert all((found[name] == weights[name]).all() for name in weights)
        runs += 1
