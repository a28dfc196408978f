"""One recipe in one folder: which stages are finished, and what they found.

A finished stage leaves a marker, `stages/<name>.json`: a key made of its part of the recipe and of the keys of the
stages before it, its time, its figures, and the files it wrote. A stage whose marker fits is not run again; one that
was cut short goes on where it was (shards that are done, the last checkpoint); one whose key changed starts anew.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worldclip import __version__
from worldclip.config import Recipe, config_hash
from worldclip.engines import Engine
from worldclip.errors import InputError, MissingData
from worldclip.packages import Cache
from worldclip.storage import read_json, sweep, write_json

STAGES = ("metadata", "pairs", "curate", "tokenizer", "train", "evaluate", "report")

#: Where each stage writes, below the run's folder.
COMMANDS = {
    "metadata": "worldclip metadata build",
    "pairs": "worldclip pairs packaged",
    "curate": "worldclip curate",
    "tokenizer": "worldclip train",
    "train": "worldclip train",
    "evaluate": "worldclip evaluate",
    "report": "worldclip report",
}

FOLDERS = {"metadata": "metadata", "pairs": "pairs", "curate": "curated", "tokenizer": "tokenizer", "train": "model"}


class Reporter(Protocol):
    """Who is told how a run is going."""

    def line(self, text: str) -> None:
        """Say something once."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """So much of a piece of work is done."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe in one folder.

    `elsewhere` tells the folder of the run that a stage belongs to, when it is another one: runs that are compared
    share what is the same in them.
    """

    folder: Path
    recipe: Recipe
    cache: Cache
    engine: Engine
    reporter: Reporter
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    def home(self, stage: str) -> Path:
        """The folder of the run that a stage belongs to."""
        return self.elsewhere.get(stage, self.folder)

    def path(self, stage: str) -> Path:
        """The folder that a stage writes to."""
        return self.home(stage) / FOLDERS[stage]

    def key(self, stage: str) -> str:
        """What a stage's result depends on: its part of the recipe and all that comes before it."""
        recipe = self.recipe
        before: dict[str, tuple[object, ...]] = {
            "metadata": (__version__, recipe.metadata, sorted(self.cache.present())),
            "pairs": (__version__, recipe.pairs, sorted(self.cache.present())),
        }
        if stage in before:
            return config_hash(stage, *before[stage])
        if stage == "curate":
            return config_hash(stage, self.key("metadata"), self.key("pairs"), recipe.curation)
        if stage == "tokenizer":
            return config_hash(stage, self.key("curate"), recipe.tokenizer)
        if stage == "train":
            return config_hash(stage, self.key("tokenizer"), recipe.model, recipe.train.deciding(), recipe.seed)
        return config_hash(stage, self.key("train"))

    def marker(self, stage: str) -> Path:
        """The file that tells that a stage is finished."""
        return self.home(stage) / "stages" / f"{stage}.json"

    def figures(self, stage: str) -> dict[str, Any]:
        """What a finished stage reported.

        Raises:
            MissingData: the stage has not been run with this recipe; names the command that runs it.
        """
        path = self.marker(stage)
        done = read_json(path) if path.exists() else {}
        if done.get("key") != self.key(stage):
            raise MissingData(
                f"{self.folder}: stage {stage!r} has not been run with this recipe. Run `{COMMANDS[stage]}` first."
            )
        return dict(done["figures"])

    def finished(self, stage: str) -> bool:
        """Whether a stage's marker fits this recipe and every file that it names is there, whole."""
        path = self.marker(stage)
        done = read_json(path) if path.exists() else {}
        root = path.parent.parent
        return done.get("key") == self.key(stage) and all(
            (root / name).is_file() and (root / name).stat().st_size == size for name, size in done["files"].items()
        )

    def stage(self, stage: str, work: Callable[[], dict[str, Any]], files: Sequence[Path] = ()) -> bool:
        """Run one stage unless it is finished; return whether it was run.

        Args:
            work: does it and returns its figures. Its folder is kept from an earlier try with the same key that was
                cut short.
            files: results outside of the stage's folder.
        """
        if self.finished(stage):
            self.reporter.line(f"{stage}: done before")
            return False
        marker, begun, key = self.marker(stage), self.marker(stage).with_suffix(".begun"), self.key(stage)
        folder = self.path(stage) if stage in FOLDERS else None
        if folder:
            # A finished stage whose files have changed since cannot be trusted in any part.
            cut_short = begun.exists() and not marker.exists() and read_json(begun)["key"] == key
            if folder.exists() and not cut_short:
                shutil.rmtree(folder)
            sweep(folder)
            folder.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        write_json(begun, {"key": key})
        began = time.monotonic()
        figures = work()
        root = marker.parent.parent
        written = [*files, *(path for path in (folder.rglob("*") if folder else ()) if path.is_file())]
        write_json(
            marker,
            {
                "stage": stage,
                "key": key,
                "seconds": round(time.monotonic() - began, 3),
                "peak_rss_mb": round(peak_rss_mb(self.engine.workers), 1),
                "figures": figures,
                "files": {str(path.relative_to(root)): path.stat().st_size for path in sorted(written)},
            },
        )
        return True


def curated_shards(run: Run) -> list[Path]:
    """The shards of candidate texts that the curate stage wrote."""
    return sorted(run.path("curate").glob("curated-*.parquet"))


def peak_rss_mb(workers: int) -> float:
    """MiB used at once so far, at most: this process's peak and, for each worker, the largest child's."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + workers * child) / 2**20


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder: two commands that write to it at once would mix their results.

    Raises:
        InputError: another process holds it, or it is a URL.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):  # a Path of s3://bucket is s3:/bucket
        raise InputError(
            f"{folder}: is a URL, and this command writes to a local or mounted disk. Name a folder there; "
            "`worldclip publish FOLDER URL` sends it when it is finished."
        )
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(
            f"{folder}: another worldclip command is at work in this folder. Wait for it, or use another."
        ) from None
    finally:
        os.close(descriptor)
