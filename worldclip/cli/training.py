"""`worldclip train`."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import (
    run_of,
    run_option,
    set_option,
)
from worldclip.cli.terminal import TerminalReporter, told


@click.command()
@run_option
@set_option
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget, in image-text pairs.")
@told
def train(folder: Path, settings: tuple[str, ...], seen_pairs: int | None) -> None:
    """Train tokenizer and model on the curated pairs; resumes by itself."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = run_of(folder, settings, reporter, seen_pairs)
        pipeline.build_tokenizer(run)
        pipeline.train_model(run)
