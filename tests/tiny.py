"""The whole road at its smallest: a cache cut from the fetched packages, a recipe of seconds, the real command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldclip.packages import Cache

#: Emoji drawings of each style; the ones spread over the list that both styles have.
DRAWINGS = 160

STYLES = ("twemoji", "emojione")

#: What is linked whole.
WHOLE = ("cldr-annotations", "wordfreq")

STAMPS = "usr/share/tuxpaint/stamps"

SETTINGS = (
    "pairs.languages=en,fr,th",
    "metadata.languages=en,fr,th",
    "pairs.image_size=16",
    "pairs.shards=2",
    "curation.t_en=4",
    "tokenizer.vocab_size=2000",
    "tokenizer.context_length=16",
    "model.image_size=16",
    "model.embedding=16",
    *(f"model.{side}.{name}" for side in ("vision", "text") for name in ("layers=1", "width=16", "heads=2")),
    "train.seen_pairs=4096",
    "train.batch_size=128",
    "train.texts_per_image=4",
    "train.warmup_steps=4",
    "train.threads=1",
    "train.checkpoint_seconds=0.02",
)


def trimmed_cache(cache: Cache, folder: Path) -> Cache:
    """A cache of two emoji styles with `DRAWINGS` drawings each, the names, one word list and the fruit stamps."""
    small = Cache(folder)
    small.packages.mkdir(parents=True)
    for name in WHOLE:
        (small.packages / cache.path(name).name).symlink_to(cache.path(name))
    icons = {style: _read(cache.path(f"emoji-{style}") / "icons.json") for style in STYLES}
    common = sorted(set.intersection(*(set(each["icons"]) for each in icons.values())))
    names = [*common[:: len(common) // DRAWINGS][:DRAWINGS], "sunflower"]  # A sunflower is asked for in the report.
    for style, each in icons.items():
        own = small.packages / cache.path(f"emoji-{style}").name
        own.mkdir()
        drawings = {name: each["icons"][name] for name in names}
        sizes = {side: each[side] for side in ("width", "height") if side in each}
        (own / "icons.json").write_text(json.dumps({"icons": drawings, **sizes}))
        chars = _read(cache.path(f"emoji-{style}") / "chars.json")
        (own / "chars.json").write_text(json.dumps({code: name for code, name in chars.items() if name in drawings}))
    if "stamps" in cache.present():
        fruit = f"{STAMPS}/food/fruit"
        shutil.copytree(cache.path("stamps") / fruit, small.packages / cache.path("stamps").name / fruit)
    return small


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def environment(cache: Cache, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the command runs with: that cache, no terminal, no network."""
    return {**os.environ, "WORLDCLIP_CACHE": str(cache.folder), "COLUMNS": "80", "HF_HUB_OFFLINE": "1"} | dict(
        changes or {}
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "worldclip", *map(str, arguments)]


def settings(*changes: str) -> list[str]:
    """`--set` options of the tiny recipe, with changes."""
    return [part for setting in (*SETTINGS, *changes) for part in ("--set", setting)]


def worldclip(
    cache: Cache,
    *arguments: object,
    changes: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the real command to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(cache, changes),
        cwd=cwd,
        preexec_fn=before,  # to limit the size of files, as a full disk does
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
