"""`worldclip curate`: Algorithm 1."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import (
    run_of,
    run_option,
    set_option,
)
from worldclip.cli.terminal import TerminalReporter, told
from worldclip.errors import InputError


@click.command()
@run_option
@set_option
@click.option(
    "--pairs", "tables", type=click.Path(path_type=Path), help="Your own pairs: a Parquet file or a folder of them."
)
@click.option("--metadata", "lists", type=click.Path(path_type=Path, file_okay=False), help="Your own metadata folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where your curated pairs go.")
@told
def curate(folder: Path, settings: tuple[str, ...], tables: Path | None, lists: Path | None, out: Path | None) -> None:
    """Algorithm 1: language, matches, counts, thresholds, balance.

    Curates the run's pairs; with --pairs, --metadata and --out, your own.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    if (tables, lists, out) == (None, None, None):
        with locked(folder), TerminalReporter() as reporter:
            pipeline.curate_pairs(run_of(folder, settings, reporter))
        return
    if tables is None or lists is None or out is None:
        raise InputError(
            "--pairs, --metadata and --out go together: give all three, or none to curate the run's own pairs."
        )
    with locked(out), TerminalReporter() as reporter:
        pipeline.curate_tables(tables, lists, out, run_of(out, settings, reporter))
