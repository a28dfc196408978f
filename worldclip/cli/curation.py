"""`worldclip curate`: Algorithm 1; `worldclip publish`: a finished folder to a store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from worldclip.cli.options import (
    engine_of,
    engine_option,
    json_option,
    output,
    run_of,
    run_option,
    set_option,
    work_option,
    workers_option,
)
from worldclip.cli.terminal import TerminalReporter, show_summary, told
from worldclip.errors import InputError


@click.command()
@run_option
@set_option
@click.option("--pairs", "tables", help="Your own pairs: a Parquet file, a folder or a pattern of them; s3://... too.")
@click.option("--metadata", "lists", type=click.Path(path_type=Path, file_okay=False), help="Your own metadata folder.")
@click.option("--out", help="Where your curated pairs go; s3://... too.")
@work_option
@workers_option
@engine_option
@json_option
@told
def curate(
    folder: Path,
    settings: tuple[str, ...],
    tables: str | None,
    lists: Path | None,
    out: str | None,
    work: Path | None,
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
        with output(out, work, engine, workers) as (place, reporter, chosen):
            summary = pipeline.curate_tables(tables, lists, place, recipe.curation, engine=chosen, reporter=reporter)
    if as_json:
        show_summary(summary, as_json)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("url")
@workers_option
@engine_option
@told
def publish(folder: Path, url: str, workers: int | None, engine: str) -> None:
    """Send a finished FOLDER to URL (s3://...): whole files, then `published.json`, which lists them.

    The same command goes on where it was stopped.
    """
    from worldclip import publish as store
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        about = store.publish(folder, url, engine=chosen, report=reporter.progress)
    click.echo(f"{len(about['files']):,} files: {url}")
