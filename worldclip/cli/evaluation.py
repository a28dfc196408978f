"""`worldclip evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import (
    json_option,
    run_of,
    run_option,
)
from worldclip.cli.terminal import TerminalReporter, show, told


@click.command()
@run_option
@json_option
@told
def evaluate(folder: Path, as_json: bool) -> None:
    """Zero-shot and retrieval in every language on the held-out pictures."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = run_of(folder, (), reporter)
        pipeline.evaluate_model(run)
        pipeline.write_results(run)
    languages = run.figures("evaluate")["heldout_emoji"]["languages"]
    show(
        [{"lang": lang, **{name: row[name] for name in ("n", "top1", "top5")}} for lang, row in languages.items()],
        as_json,
    )
