"""Options that commands share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worldclip.cli.terminal import TerminalReporter
from worldclip.errors import InputError

if TYPE_CHECKING:
    from worldclip.engines import Engine

run_option = click.option(
    "--run", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/quickstart"),
    show_default=True, help="Folder of the run.",
)  # fmt: skip
set_option = click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a recipe field, e.g. train.lr=1e-3."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
html_option = click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page with the results."
)
model_option = click.option(
    "--model", type=click.Path(path_type=Path), default=Path("runs/quickstart/model"), show_default=True,
    help="Model folder: ours, or any CLIP that transformers loads.",
)  # fmt: skip


workers_option = click.option("--workers", type=click.IntRange(min=0), help="Processes.  [default: one a core]")
engine_option = click.option(
    "--engine", default="local", show_default=True, metavar="local|ray:HOST:PORT|ray:start",
    help="Where to run: this machine's processes, a Ray cluster, or one of this machine alone.",
)  # fmt: skip


work_option = click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), help="Where files are made if --out is a URL."
)


@contextmanager
def output(
    out: str, work: Path | None, engine: str, workers: int | None
) -> Iterator[tuple[Path, TerminalReporter, Engine]]:
    """The local folder that a command writes, held for as long as it lasts, whom it tells, and the engine it runs on.

    Where `out` is a URL the folder is `work`, which is published at the end.
    """
    from worldclip.pairs.sources import store_of
    from worldclip.publish import publish
    from worldclip.run import locked

    url = "://" in out
    if url and work is None:
        raise InputError(
            f"--out {out}: files are made on a local or mounted disk first, and sent when all are done. "
            "Name a folder for them: --work DIR."
        )
    if work is not None and not url:
        raise InputError(f"--work {work}: goes with a URL; --out {out} is a folder.")
    if Path(out).is_file():
        raise InputError(f"--out {out}: is a file. Name a folder.")
    store_of(out)  # an unknown store is told before the work
    with locked(work or Path(out)), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        yield work or Path(out), reporter, chosen
        if url:
            publish(work or Path(out), out, engine=chosen, report=reporter.progress)
            reporter.line(f"published: {out}")


@contextmanager
def engine_of(name: str, workers: int | None, reporter: TerminalReporter) -> Iterator[Engine]:
    """The engine that an option names, for as long as a command lasts."""
    from worldclip.engines import LocalEngine

    if name == "local":
        yield LocalEngine(workers=(os.cpu_count() or 1) if workers is None else workers)
        return
    kind, colon, address = name.partition(":")
    if kind != "ray" or not colon:
        raise InputError(f"--engine {name}: allowed are local, ray:HOST:PORT (a cluster's head) and ray:start.")
    from worldclip.engines.ray import ray_engine

    with ray_engine(address, workers=workers, tell=reporter.line) as engine:
        yield engine


def run_of(
    folder: Path,
    settings: tuple[str, ...],
    reporter: TerminalReporter,
    seen_pairs: int | None = None,
    *,
    write: bool = True,
) -> Any:
    """The run in a folder: the recipe that it was begun with, or the quickstart's, with changes."""
    from worldclip.config import Recipe, as_dict, from_dict, override
    from worldclip.engines.local import LocalEngine
    from worldclip.packages import Cache, cache_folder
    from worldclip.recipes import quickstart
    from worldclip.run import Run
    from worldclip.storage import read_json, write_json

    path = folder / "recipe.json"
    recipe = from_dict(Recipe, read_json(path), str(path)) if path.exists() else quickstart()
    if seen_pairs is not None:
        settings = (*settings, f"train.seen_pairs={seen_pairs}")
    recipe = override(recipe, settings)
    if write:
        write_json(path, as_dict(recipe))
    return Run(
        folder=folder,
        recipe=recipe,
        cache=Cache(cache_folder()),
        engine=LocalEngine(workers=os.cpu_count() or 1),
        reporter=reporter,
    )
