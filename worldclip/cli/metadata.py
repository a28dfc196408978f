"""`worldclip metadata`: concept lists of each language."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

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
from worldclip.cli.terminal import TerminalReporter, show, told
from worldclip.errors import InputError
from worldclip.languages import Rule


@click.group()
def metadata() -> None:
    """Concept lists of each language."""


@metadata.command("build")
@run_option
@set_option
@click.option("--sources", type=click.Path(path_type=Path, file_okay=False), help="Folder of dumps: build from these.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where the lists from dumps go.")
@click.option("--concepts", type=click.Path(path_type=Path, dir_okay=False), help="Your own list: text, CSV, Parquet.")
@click.option("--pmi", type=float, help="Least PMI; release: 30.  [default: by rank]")
@click.option(
    "--rule", type=click.Choice(get_args(Rule)), help="Which list each Wikipedia joins.  [default: corrected]"
)
@workers_option
@engine_option
@told
def metadata_build(
    folder: Path,
    settings: tuple[str, ...],
    sources: Path | None,
    out: Path | None,
    concepts: Path | None,
    pmi: float | None,
    rule: Rule | None,
    workers: int | None,
    engine: str,
) -> None:
    """Starter lists from packages; with --sources and --out, lists from dumps.

    Dumps keep the names they are published under. --set metadata.languages=sw,yo builds these alone. The same command
    goes on where it was stopped.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    if (sources, out, concepts, pmi, rule, workers, engine) == (*[None] * 6, "local"):
        with locked(folder), TerminalReporter() as reporter:
            pipeline.build_metadata(run_of(folder, settings, reporter))
        return
    if sources is None or out is None:
        raise InputError(
            "Lists from dumps need both --sources and --out; --concepts, --pmi, --rule, --workers and --engine "
            "go with them."
        )
    from worldclip.config import Recipe, override
    from worldclip.lists import build_lists
    from worldclip.metadata.build import Selection
    from worldclip.recipes import quickstart as quickstart_recipe

    recipe: Recipe = override(quickstart_recipe(), settings)
    with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as where:
        lists = build_lists(
            sources,
            out,
            engine=where,
            languages=recipe.metadata.languages,
            concepts=concepts,
            selection=Selection(pmi=pmi, rule=rule or "corrected", chinese=recipe.metadata.chinese),
            report=reporter.progress,
        )
        reporter.line(f"metadata: {sum(map(len, lists.entries.values())):,} entries in {len(lists.entries)} lists")


@metadata.command("download")
@click.option("--lang", "codes", multiple=True, required=True, help="Wikipedia as dumps write it, e.g. zh_yue; repeat.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the dumps.")
@click.option("--date", default="latest", show_default=True, help="Date of the dump, YYYYMMDD.")
@click.option("--server", default="https://dumps.wikimedia.org", show_default=True, help="Server or mirror.")
@told
def metadata_download(codes: tuple[str, ...], out: Path, date: str, server: str) -> None:
    """Fetch article dumps: one at a time, resumed, checked by their sums."""
    from worldclip.metadata.download import articles_of, download

    with TerminalReporter() as reporter:
        for code in codes:
            for path in download(articles_of(code, server.rstrip("/"), date), out, reporter.progress):
                reporter.line(f"{path}")


@metadata.command("info")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/quickstart/metadata"))
@click.argument("other", type=click.Path(path_type=Path, file_okay=False), required=False)
@json_option
@told
def metadata_info(folder: Path, other: Path | None, as_json: bool) -> None:
    """Entries of each language by source, script, dead entries and hash; with two folders, what differs."""
    from worldclip import lists
    from worldclip.metadata.entries import SOURCES

    rows = lists.compare(folder, other) if other else lists.info(folder)
    if not as_json and not other:  # what tells nothing is not in the table
        hidden = {"name", "numbers"} | {name for name in SOURCES.values() if not any(row[name] for row in rows)}
        rows = [
            {name: value for name, value in row.items() if name not in hidden} | {"hash": row["hash"][:8]}
            for row in rows
        ]
    show(rows, as_json)
