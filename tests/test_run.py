"""A run remembers what is finished, and redoes exactly what does not fit any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from worldclip.config import override
from worldclip.engines import LocalEngine
from worldclip.errors import InputError, MissingData
from worldclip.packages import PACKAGES, Cache
from worldclip.recipes import english_only, quickstart
from worldclip.run import FOLDERS, STAGES, Run, locked, peak_rss_mb
from worldclip.storage import read_json, write_bytes


@dataclass
class Told:
    """A reporter that remembers."""

    lines: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.lines.append(f"{what} {done}/{total} {note}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(
        folder=tmp_path / "run",
        recipe=quickstart(),
        cache=Cache(tmp_path / "cache"),
        engine=LocalEngine(workers=0),
        reporter=Told(),
    )


def ran(run: Run, stages: Sequence[str] = STAGES) -> list[str]:
    """Run the stages; each writes a file that says with which recipe. Return those that were not finished."""

    def work(stage: str) -> dict[str, Any]:
        folder = run.path(stage) if stage in FOLDERS else run.folder
        write_bytes(folder / f"{stage}.out", stage.encode())
        return {"stage": stage}

    files = {stage: () if stage in FOLDERS else (run.folder / f"{stage}.out",) for stage in STAGES}
    return [stage for stage in stages if run.stage(stage, lambda stage=stage: work(stage), files[stage])]  # type: ignore[misc]


def with_settings(run: Run, *settings: str) -> Run:
    return replace(run, recipe=override(run.recipe, settings))


def test_a_stage_is_not_run_twice(run: Run) -> None:
    assert ran(run) == list(STAGES)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert ran(run) == []
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    assert run.reporter.lines[-1] == "report: done before"  # type: ignore[attr-defined]
    assert all(run.finished(stage) and run.figures(stage) == {"stage": stage} for stage in STAGES)


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("metadata.free_only=true", "metadata"),
        ("pairs.image_size=64", "pairs"),
        ("curation.t_en=7", "curate"),
        ("seed=1", "train"),
        ("curation.seed=1", "curate"),
        ("tokenizer.vocab_size=99", "tokenizer"),
        ("train.lr=1", "train"),
        ("train.threads=1", "train"),
        ("model.embedding=8", "train"),
        ("train.checkpoint_seconds=1", None),
        ("name=other", None),
    ],
)
def test_a_changed_recipe_reruns_what_depends_on_it(run: Run, setting: str, first: str | None) -> None:
    ran(run)
    changed = with_settings(run, setting)
    expected = list(STAGES[STAGES.index(first) :]) if first else []
    if first == "metadata":
        expected.remove("pairs")
    assert ran(changed) == expected
    assert ran(changed) == []
    assert ran(run) == expected


def test_other_packages_rerun_what_is_made_from_them(run: Run) -> None:
    ran(run)
    (run.cache.packages / PACKAGES[0].folder).mkdir(parents=True)
    assert ran(run) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["truncated", "removed", "marker removed"])
def test_a_stage_whose_output_is_not_whole_is_run_again(run: Run, stage: str, how: str) -> None:
    ran(run)
    output = (run.path(stage) if stage in FOLDERS else run.folder) / f"{stage}.out"
    if how == "truncated":
        output.write_bytes(b"")
    elif how == "removed":
        output.unlink()
    else:
        run.marker(stage).unlink()
    assert not run.finished(stage)
    assert ran(run) == [stage]
    assert output.read_bytes() == stage.encode()


def test_a_stage_that_was_cut_short_finds_its_folder_as_it_was(run: Run) -> None:
    def cut_short() -> dict[str, Any]:
        write_bytes(run.path("curate") / "shard-1", b"done")
        (run.path("curate") / "shard-2.77.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("curate", cut_short)
    assert not run.finished("curate")
    seen: list[str] = []

    def look() -> dict[str, Any]:
        seen.extend(path.name for path in run.path("curate").iterdir())
        return {}

    assert run.stage("curate", look)
    assert seen == ["shard-1"]
    assert list(read_json(run.marker("curate"))["files"]) == ["curated/shard-1"]


def test_another_recipe_or_a_changed_output_finds_an_empty_folder(run: Run) -> None:
    for other in (run, with_settings(run, "curation.t_en=7"), run):
        seen: list[Path] = []

        def look(other: Run = other, seen: list[Path] = seen) -> dict[str, Any]:
            seen.extend(other.path("curate").iterdir())
            write_bytes(other.path("curate") / "shard-1", b"done")
            return {}

        assert other.stage("curate", look)
        assert seen == []
        # A shard that is cut short later must not be taken for one that is done.
        (other.path("curate") / "shard-1").write_bytes(b"")
        assert other.stage("curate", look)
        assert seen == []


def test_a_stage_that_has_not_run_names_its_command(run: Run) -> None:
    with pytest.raises(
        MissingData, match=r"stage 'curate' has not been run with this recipe\. Run `worldclip curate` first"
    ):
        run.figures("curate")
    ran(run)
    with pytest.raises(MissingData, match="Run `worldclip train` first"):
        with_settings(run, "train.lr=1").figures("train")


def test_the_marker_says_what_was_done(run: Run) -> None:
    ran(run)
    marker = read_json(run.folder / "stages" / "train.json")
    assert marker["files"] == {"model/train.out": 5}
    assert marker["seconds"] >= 0
    assert 10 < marker["peak_rss_mb"] < 100_000
    assert marker["key"] == run.key("train")


def test_runs_that_are_compared_share_metadata_and_pairs(run: Run) -> None:
    ran(run)
    english = replace(
        run,
        folder=run.folder / "english",
        recipe=english_only(run.recipe, 0.5),
        elsewhere={"metadata": run.folder, "pairs": run.folder},
    )
    assert ran(english) == ["curate", "tokenizer", "train", "evaluate", "report"]
    assert (english.path("pairs"), english.path("curate")) == (run.folder / "pairs", run.folder / "english/curated")
    assert ran(run) == []
    assert ran(english) == []


HOLDER = """
import sys
from pathlib import Path
from worldclip.run import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another worldclip command is at work in this folder"), locked(tmp_path):
            pass
        with locked(tmp_path / "other"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # Whoever is killed holds nothing.
    deadline = time.monotonic() + 5
    while True:
        try:
            with locked(tmp_path):
                break
        except InputError:
            assert time.monotonic() < deadline
    with locked(tmp_path):
        pass


def test_peak_memory_counts_workers() -> None:
    assert 10 < peak_rss_mb(0) <= peak_rss_mb(4)
