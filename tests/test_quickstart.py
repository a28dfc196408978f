"""The whole road through the real command, at its smallest: what it writes, that it is repeatable, that it resumes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from click.testing import CliRunner, Result
from PIL import Image

from worldclip.cli import main
from worldclip.packages import Cache
from worldclip.storage import read_json, read_table, sweep

pytestmark = pytest.mark.packages

#: Fields of results.json that are measured and so differ from run to run (docs/results.md).
MEASURED = frozenset({"seconds", "train_seconds", "total_seconds", "peak_rss_mb", "machine"})

#: What of a run's folder holds measurements.
MEASURED_FILES = frozenset({"results.json", "report.html", ".lock"})


def without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_measured(each) for key, each in value.items() if key not in MEASURED}
    return [without_measured(each) for each in value] if isinstance(value, list) else value


def results(folder: Path) -> Any:
    return without_measured(read_json(folder / "results.json"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a run's folder that must be the same again."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if name not in MEASURED_FILES and not name.startswith("stages/")
    }


def changed_at(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("recipe.json", ".lock")
    }


def copied(road: Path, folder: Path) -> Path:
    return Path(shutil.copytree(road, folder))


def test_results_hold_what_is_documented(road: Path) -> None:
    found = read_json(road / "results.json")
    documented = {"schema", "worldclip", "config", "config_hash", "machine", "data", "training", "evaluation"}
    assert set(found) == documented | {"examples", "summary"}
    summary = found["summary"]
    assert set(summary) == {
        "heldout_emoji_top1_en", "heldout_emoji_top1_mean", "languages", "train_seconds", "total_seconds", "peak_rss_mb"
    }  # fmt: skip
    emoji = found["evaluation"]["worldwide"]["heldout_emoji"]
    assert set(emoji["languages"]) == {"en", "fr", "th"}
    assert summary["heldout_emoji_top1_en"] == emoji["languages"]["en"]["top1"]
    assert summary["heldout_emoji_top1_mean"] == np.mean([row["top1"] for row in emoji["languages"].values()])
    assert 0 < summary["train_seconds"] < summary["total_seconds"]
    training = found["training"]["worldwide"]
    assert (training["seen_pairs"], training["steps"]) == (4096, 32)
    assert training["loss"][0][1] > training["loss"][-1][1], "it learns"
    assert 0 < training["english_share"] < 1
    assert set(found["training"]) == {"worldwide"}
    assert [entry["lang"] for entry in found["examples"]["retrieve"]] == ["fr"]
    page = (road / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert sweep(road) == 0, "temporary files are left"


def test_a_second_run_computes_nothing(road: Path, small_cache: Cache) -> None:
    before, recipe = changed_at(road), (road / "recipe.json").read_bytes()
    began = time.monotonic()
    done = tiny.worldclip(small_cache, "quickstart", "--run", road)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 15
    assert changed_at(road) == before
    assert (road / "recipe.json").read_bytes() == recipe
    assert done.stderr.count("done before") == 7


@pytest.fixture
def here(small_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process, which has torch loaded already."""
    monkeypatch.setenv("WORLDCLIP_CACHE", str(small_cache.folder))
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


def test_stages_one_by_one_give_the_same(road: Path, here: Callable[..., Result], tmp_path: Path) -> None:
    stages = (["metadata", "build"], ["pairs", "packaged"], ["curate"], ["train"], ["evaluate", "--json"], ["report"])
    for number, stage in enumerate(stages):
        settings = tiny.settings() if number == 0 else []
        done = here(*stage, "--run", tmp_path, *settings)
        assert done.exit_code == 0, done.output
        if "--json" in stage:
            assert [row["lang"] for row in json.loads(done.stdout)] == ["en", "fr", "th"]
    first, second = contents(road), contents(tmp_path)
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert results(road) == results(tmp_path)


def test_the_english_model_is_added_later(road: Path, small_cache: Cache, tmp_path: Path) -> None:
    folder = copied(road, tmp_path / "run")
    before = changed_at(folder)
    done = tiny.worldclip(small_cache, "quickstart", "--run", folder, "--compare", "english")
    assert done.returncode == 0, done.stderr
    found = read_json(folder / "results.json")
    assert set(found["training"]) == set(found["evaluation"]) == {"worldwide", "english"}
    worldwide, english = found["training"]["worldwide"], found["training"]["english"]
    assert english["seen_pairs"] == pytest.approx(worldwide["seen_pairs"] * worldwide["english_share"], rel=0.05)
    assert english["english_share"] == 1
    assert english["steps"] == pytest.approx(worldwide["steps"], abs=1)
    after = changed_at(folder)
    again = {"results.json", "report.html", "stages/report.json", "stages/report.begun"}
    assert {name for name in before if after[name] != before[name]} == again
    assert "english" not in {path.name for path in (folder / "english").iterdir() if path.name in ("metadata", "pairs")}


def test_training_from_shards_is_validated_on_held_out_pairs(
    road: Path, here: Callable[..., Result], tmp_path: Path
) -> None:
    folder = copied(road, tmp_path / "run")
    for arguments in (
        ["shards"],
        ["train", "--data", folder / "shards", "--set", f"train.validation={folder / 'shards'}",
         "--set", "train.validate_steps=16", "--set", "train.validate_images=64"],
    ):  # fmt: skip
        done = here(*arguments, "--run", folder)
        assert done.exit_code == 0, done.output
    figures = read_json(folder / "stages" / "train.json")["figures"]
    assert [row["step"] for row in figures["validation"]] == [16, 32]
    for row in figures["validation"]:
        assert 0 <= row["image to text R@1"] <= 1 >= row["text to image R@1"] >= 0
    assert figures["loss"][0][1] > figures["loss"][-1][1], "it learns"
    alone = here("train", "--run", tmp_path / "run", "--set", "train.validation=null")
    assert alone.exit_code == 2
    assert "go together" in alone.output


def test_the_model_loads_in_transformers(road: Path) -> None:
    from transformers import AutoModel, AutoProcessor, pipeline

    model = AutoModel.from_pretrained(road / "model")
    processor = AutoProcessor.from_pretrained(road / "model")
    picture = Image.new("RGB", (40, 30), "red")
    inputs = processor(text=["un chat", "แมว"], images=picture, return_tensors="pt", padding="max_length")
    assert model(**inputs).logits_per_image.shape == (1, 2)
    answers = pipeline("zero-shot-image-classification", model=str(road / "model"))(
        picture, candidate_labels=["un chat", "แมว", "a cat"], hypothesis_template="{}"
    )
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-3)


def test_the_model_is_used(road: Path, here: Callable[..., Result], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    table = read_table(road / "examples.parquet").slice(0, 6)
    for number, png in enumerate(table.column("png").to_pylist()):
        (pictures / f"{number}.png").write_bytes(png)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    model, embeddings, page = ("--model", road / "model"), tmp_path / "emb.parquet", tmp_path / "page.html"

    labels = ("--labels", "chien,แมว,red apple", "--json", "--html", page)
    done = here("classify", pictures / "0.png", *labels, *model)
    assert done.exit_code == 0, done.output
    answers = json.loads(done.stdout)
    assert {answer["label"] for answer in answers} == {"chien", "แมว", "red apple"}
    assert sum(answer["probability"] for answer in answers) == pytest.approx(1)
    assert "แมว" in page.read_text()
    broken = here("classify", pictures / "broken.png", "--labels", "a,b", *model)
    assert broken.exit_code == 2
    assert "broken.png" in broken.stderr
    assert "Traceback" not in broken.stderr

    done = here("embed", pictures, "--out", embeddings, *model, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == [{"embedded": 6, "set aside": 1, "not readable as a picture": 1}]
    found = ("search", "แมว", "--in", embeddings, "-k", 3, *model)
    done = here(*found, "--json", "--html", page)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 3
    assert page.read_text().count("data:image/png") == 3


def alive(token: str) -> list[int]:
    """Processes that were started with `token` in their environment and have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended, or is another user's
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_the_same(road: Path, small_cache: Cache, tmp_path: Path) -> None:
    folder, token = tmp_path / "run", f"killed-{tmp_path}"
    arguments = ("quickstart", "--run", folder, *tiny.settings())
    moments = random.Random(0)
    killed = 0
    for _ in range(10):
        process = subprocess.Popen(
            tiny.command(*arguments),
            env=tiny.environment(small_cache, {"WORLDCLIP_TEST_TOKEN": token}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(moments.uniform(0.3, 6))
            if process.returncode == 0:  # finished in between: begin anew, there are moments left
                assert results(folder) == results(road)
                shutil.rmtree(folder)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        assert process.returncode in (0, -signal.SIGKILL)
        patience = time.monotonic() + 10
        while alive(token) and time.monotonic() < patience:
            time.sleep(0.1)
        assert alive(token) == [], "a worker outlived its driver"
    assert killed >= 5
    done = tiny.worldclip(small_cache, *arguments)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(road)
    first, second = contents(road), contents(folder)
    assert set(first) == set(second), "left by a killed run, or lost"
    assert [name for name in first if first[name] != second[name]] == []
