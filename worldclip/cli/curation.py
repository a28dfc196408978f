"""`worldclip curate`: Algorithm 1."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from worldclip.cli.options import (
    engine_of,
    engine_option,
    json_option,
    run_of,
    run_option,
    set_option,
    workers_option,
)
from worldclip.cli.terminal import TerminalReporter, show_summary, told
from worldclip.errors import InputError


@click.command()
@run_option
@set_option
@click.option("--pairs", "tables", help="Your own pairs: a Parquet file, a folder or a pattern of them; s3://... too.")
@click.option("--metadata", "lists", type=click.Path(path_type=Path, file_okay=False), help="Your own metadata folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where your curated pairs go.")
@workers_option
@engine_option
@json_option
@told
def curate(
    folder: Path,
    settings: tuple[str, ...],
    tables: str | None,
    lists: Path | None,
    out: Path | None,
    workers: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Algorithm 1: language, matches, counts, thresholds, balance.

    Curates the run's pairs; with --pairs, --metadata and --out, your own. The same command goes on where it was
    stopped. Settings: --set curation.t_en=20000, curation.tail_share=0.06, curation.target_pairs=1000000; all are in
    docs/curation.md.
    """
    from worldclip import pipeline
    from worldclip.config import CurationConfig, Recipe, override
    from worldclip.recipes import quickstart
    from worldclip.run import locked
    from worldclip.storage import read_json

    if (tables, lists, out) == (None, None, None):
        with locked(folder), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
            run = dataclasses.replace(run_of(folder, settings, reporter), engine=chosen)
            pipeline.curate_pairs(run)
            summary = read_json(run.path("curate") / "summary.json")
    elif tables is None or lists is None or out is None:
        raise InputError(
            "--pairs, --metadata and --out go together: give all three, or none to curate the run's own pairs."
        )
    else:
        recipe: Recipe = override(dataclasses.replace(quickstart(), curation=CurationConfig()), settings)
        with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
            summary = pipeline.curate_tables(tables, lists, out, recipe.curation, engine=chosen, reporter=reporter)
    if as_json:
        show_summary(summary, as_json)
