"""Tuning and distilling by the command: a tiny run goes on from its own model, larger, locked, or taught by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from worldclip.packages import Cache

pytestmark = pytest.mark.packages


def train(cache: Cache, run: Path, *settings: str) -> str:
    options = [part for setting in settings for part in ("--set", setting)]
    done = tiny.worldclip(cache, "train", "--run", run, "--set", "train.seen_pairs=512", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_locked_image_tower_at_a_larger_size_and_what_was_forgotten(
    road: Path, small_cache: Cache, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(road, run)
    start = road / "model"
    table = train(
        small_cache,
        run,
        *(f"train.start={start}", f"tokenizer.file={start}", "train.locked_image=true", "model.image_size=32"),
    )
    before, after = load_file(start / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    positions = "vision_model.embeddings.position_embedding.weight"
    assert (len(before[positions]), len(after[positions])) == (5, 17)  # patches of 8 pixels
    changed = {name for name in before if name != positions and not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if name.startswith(("vision", "visual"))]
    rows = json.loads((run / "forgotten.json").read_text())
    assert {(row["set"], row["lang"]) for row in rows} >= {("heldout_emoji", lang) for lang in ("en", "fr", "th")}
    assert all(row["change"] == pytest.approx(row["after"] - row["before"]) for row in rows)
    assert "before" in table
    assert "heldout" in table


def test_a_run_is_taught_by_a_model_whose_features_are_kept(road: Path, small_cache: Cache, tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    shutil.copytree(road, run)
    train(small_cache, run, f"train.teacher={road / 'model'}", f"train.teacher_cache={kept}")
    files = sorted(kept.iterdir())
    assert [path.name.partition("-")[2] for path in files] == ["images.npy", "texts.npy"]
    written = [path.stat().st_mtime_ns for path in files]
    train(small_cache, run, f"train.teacher={road / 'model'}", f"train.teacher_cache={kept}", "train.lr=1e-4")
    assert [path.stat().st_mtime_ns for path in files] == written  # another student, the same pass
    done = tiny.worldclip(small_cache, "train", "--run", run, "--set", "train.start=nowhere")
    assert done.returncode == 2
    assert "nowhere: is no model" in " ".join(done.stderr.split())


def test_students_of_one_run_are_whole_models_and_made_once(road: Path, small_cache: Cache, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(road, run)
    command = (
        *("train", "--run", run, "--set", "train.seen_pairs=512", "--set", f"train.teacher={road / 'model'}"),
        *("--student", "small:model.vision.width=24,model.vision.heads=1"),
    )
    done = tiny.worldclip(small_cache, *command)
    assert done.returncode == 0, done.stderr
    widths = {
        folder: json.loads((folder / "config.json").read_text())["vision_config"]["hidden_size"]
        for folder in (run / "model", run / "students" / "small" / "model")
    }
    assert [width == 24 for width in widths.values()] == [False, True]
    written = {folder: (folder / "model.safetensors").stat().st_mtime_ns for folder in widths}
    shutil.rmtree(run / "model")
    again = tiny.worldclip(small_cache, *command)
    assert again.returncode == 0, again.stderr
    assert "1 of 2 models done before" in again.stderr + again.stdout
    now = {folder: (folder / "model.safetensors").stat().st_mtime_ns for folder in widths}
    assert [now[folder] == written[folder] for folder in widths] == [False, True]
    wrong = tiny.worldclip(small_cache, *command, "--student", "other:train.lr=1")
    assert wrong.returncode == 2
    assert "differ in `model` alone" in " ".join(wrong.stderr.split())
