"""The whole recipe in one folder: `quickstart`, its ablation, its report and its fields."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click

from worldclip.cli.options import (
    json_option,
    run_of,
    run_option,
    set_option,
)
from worldclip.cli.terminal import TerminalReporter, show, told


@click.command()
@run_option
@set_option
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget, in image-text pairs.")
@click.option(
    "--compare", type=click.Choice(["english"]), help="Also train the English-only model of the same English exposures."
)
@told
def quickstart(folder: Path, settings: tuple[str, ...], seen_pairs: int | None, compare: str | None) -> None:
    """The whole recipe on packaged pictures: metadata, curation, training, evaluation, report.

    A second run of the same command goes on where the first one stopped, and computes nothing twice.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = run_of(folder, settings, reporter, seen_pairs)
        pipeline.quickstart(run, compare_english=compare == "english")
        _print_summary(folder)


def _print_summary(folder: Path) -> None:
    from worldclip.storage import read_json

    summary = read_json(folder / "results.json")["summary"]
    show([{"figure": name, "value": value} for name, value in summary.items()], as_json=False)
    click.echo(f"report: {folder / 'report.html'}\nmodel:  {folder / 'model'}")


@click.command()
@run_option
@click.option("--curated", type=click.Path(path_type=Path, file_okay=False), help="Write the data card of this folder.")
@told
def report(folder: Path, curated: Path | None) -> None:
    """One HTML page: what was trained on what, and how well it does; or the data card of what was curated."""
    from worldclip import card, pipeline
    from worldclip.run import locked

    if curated is not None:
        click.echo(card.render(curated))
        return
    with locked(folder), TerminalReporter() as reporter:
        pipeline.write_report(run_of(folder, (), reporter))
    click.echo(folder / "report.html")


@click.command()
@run_option
@set_option
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each row.")
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget of each run, in image-text pairs.")
@json_option
@told
def ablate(folder: Path, settings: tuple[str, ...], seeds: int, seen_pairs: int | None, as_json: bool) -> None:
    """The five rows of the paper's ablation, each with several seeds, as a table with intervals."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        rows = pipeline.ablate(run_of(folder, settings, reporter, seen_pairs), seeds)
    show(rows, as_json)


@click.command()
@click.argument("name", default="quickstart")
@set_option
@click.option(
    "--cost", "costed", is_flag=True, help="Print instead what it costs, worked out on paper (docs/costs.md)."
)
@click.option("--gpu", type=click.Choice(["a100", "h100", "h200", "b200"]), default="h100", show_default=True)
@click.option("--gpus", type=click.IntRange(min=1), default=384, show_default=True, help="How many.")
@click.option("--price", type=click.FloatRange(min=0), default=2.5, show_default=True, help="Of a GPU for an hour.")
@json_option
@told
def recipe(
    name: str, settings: tuple[str, ...], costed: bool, gpu: str, gpus: int, price: float, as_json: bool
) -> None:
    """Print a recipe, with changes if any, as JSON: the quickstart's, or one of the paper's runs."""
    from worldclip.config import as_dict, override
    from worldclip.costs import Hardware, cost, figures
    from worldclip.paper_recipes import recipe_of

    made = recipe_of(name)
    chosen = override(made(), settings)
    if not costed:
        click.echo(inspect.getdoc(made), err=True)
        click.echo(json.dumps(as_dict(chosen), indent=2))
        return
    show(figures(cost(chosen, Hardware(gpu=gpu, gpus=gpus, price=price))), as_json)
