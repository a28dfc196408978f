"""`worldclip classify`, `embed` and `search`: a model in any language."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import (
    html_option,
    json_option,
    model_option,
)
from worldclip.cli.terminal import TerminalReporter, show, told


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--labels", required=True, help='Names to choose from, in any language: "chien,gato,犬,собака".')
@model_option
@html_option
@json_option
@told
def classify(image: Path, labels: str, model: Path, html: Path | None, as_json: bool) -> None:
    """Which of some names fits an image best."""
    from worldclip import use

    names = [name.strip() for name in labels.split(",") if name.strip()]
    answers = use.classify(use.open_model(model), image, names)
    if html:
        use.html_page(html, f"{image.name}", answers, image)
    show([{"label": label, "probability": probability} for label, probability in answers], as_json)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Parquet file to write.")
@model_option
@json_option
@told
def embed(folder: Path, out: Path, model: Path, as_json: bool) -> None:
    """Embed every image below a folder."""
    from worldclip import use

    with TerminalReporter() as reporter:
        done = use.embed(use.open_model(model), folder, out, lambda at, total: reporter.progress("embed", at, total))
    show([{"embedded": done.embedded, "set aside": sum(done.reasons.values()), **done.reasons}], as_json)


@click.command()
@click.argument("query")
@click.option(
    "--in",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="What `worldclip embed` wrote.",
)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Images to show.")
@model_option
@html_option
@json_option
@told
def search(query: str, table: Path, k: int, model: Path, html: Path | None, as_json: bool) -> None:
    """Find the images that fit a text in any language."""
    from worldclip import use

    answers = use.search(use.open_model(model), query, table, k)
    if html:
        use.html_page(html, query, answers)
    show([{"image": path, "score": score} for path, score in answers], as_json)
