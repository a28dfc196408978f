"""`worldclip evaluate` and `worldclip check`: how good a model is, and whether it is the model that it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worldclip.cli.options import json_option, run_of, run_option
from worldclip.cli.terminal import TerminalReporter, show, told
from worldclip.errors import DataError, InputError

if TYPE_CHECKING:
    from worldclip.evaluation.compare import Difference

folder_type = click.Path(path_type=Path, file_okay=False)
file_type = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@run_option
@click.option("--model", type=folder_type, help="Any CLIP folder.  [default: the run's model]")
@click.option("--suite", help="Suites or benchmarks, by commas; `paper` is all.")
@click.option("--data", type=folder_type, help="Folder of the benchmarks' data.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Suite or benchmark to leave out; repeatable.")
@click.option("--out", type=folder_type, help="Where results go.  [default: the run's evaluation/]")
@click.option("--resize", type=click.Choice(["shortest", "squash"]), help="Not as the model's folder says.")
@click.option("--templates", type=file_type, help="ImageNet's templates, one a line.")
@click.option("--classnames", type=file_type, help="ImageNet's 1,000 names, one a line.")
@click.option(
    "--objectnet-crop-border", type=click.IntRange(min=0), default=0, metavar="N", help="Pixels to cut off ObjectNet's."
)
@click.option("--geode-clean-names", is_flag=True, help="Spaces for underscores in GeoDE's names.")
@click.option(
    "--compare", type=(folder_type, folder_type), help="Two --out folders: print what differs.", metavar="A B"
)
@json_option
@told
def evaluate(
    folder: Path,
    model: Path | None,
    suite: str | None,
    data: Path | None,
    exclude: tuple[str, ...],
    out: Path | None,
    resize: str | None,
    templates: Path | None,
    classnames: Path | None,
    objectnet_crop_border: int,
    geode_clean_names: bool,
    compare: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Score a model, in every language.

    Without --suite: the run's model on the packaged held-out pictures. With --suite and --data: any model on the
    benchmarks of the paper; what is done is not done again.
    """
    if compare:
        _compare(*compare, as_json)
        return
    options = {
        "templates": templates,
        "classnames": classnames,
        "objectnet_crop_border": objectnet_crop_border,
        "geode_clean_names": geode_clean_names,
    }
    if suite is None:
        if any((model, data, exclude, out, resize, *options.values())):
            raise InputError("All options but --run and --json go with --suite; `--suite paper` is all benchmarks.")
        _packaged(folder, as_json)
        return
    if data is None:
        raise InputError("--suite needs --data, the folder that holds the benchmarks' data.")
    _suites(model or folder / "model", (suite, exclude), data, out or folder / "evaluation", resize, options, as_json)


def _packaged(folder: Path, as_json: bool) -> None:
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        run = run_of(folder, (), reporter)
        pipeline.evaluate_model(run)
        pipeline.write_results(run)
    found = run.figures("evaluate")
    rows = [_packaged_row(found, lang) for lang in found["heldout_emoji"]["languages"]]
    show(rows, as_json)


def _packaged_row(found: Any, lang: str) -> dict[str, Any]:
    """One language: top-1 and top-5 on the drawings; top-1, its chance and recall at 1 both ways on the other sets."""
    drawings = found["heldout_emoji"]["languages"][lang]
    row = {"lang": lang, "n": drawings["n"], "top1": drawings["top1"], "top5": drawings["top5"]}
    for name in ("stamps", "photographs"):
        own = found.get(name, {"languages": {}})["languages"].get(lang, {})
        for key, short in (
            ("n", "n"),
            ("top1", "top1"),
            ("chance_top1", "chance"),
            ("i2t_r1", "i2t"),
            ("t2i_r1", "t2i"),
        ):
            row[f"{name} {short}"] = own.get(key, "")
    return row


def _suites(
    model: Path,
    names: tuple[str, Sequence[str]],
    data: Path,
    out: Path,
    resize: Any,
    options: dict[str, Any],
    as_json: bool,
) -> None:
    """Score the suites of the first of `names` less those of the second."""
    from contextlib import nullcontext

    from worldclip.evaluation.benchmarks import Options
    from worldclip.evaluation.evaluate import check_folder, choose, evaluate, excluded, raise_failures
    from worldclip.evaluation.features import EncoderFeatures, Processes
    from worldclip.evaluation.page import write_page
    from worldclip.model.encoder import Encoder
    from worldclip.model.golden import refuse_wrong
    from worldclip.model.towers import Changes
    from worldclip.run import locked
    from worldclip.train.ranks import started

    exclude = excluded(names[1])
    benchmarks = choose(names[0], exclude)
    with started() as ranks:
        first = ranks.rank == 0
        with locked(out) if first else nullcontext(), TerminalReporter() as reporter:
            encoder = Encoder.open(model, Changes(resize=resize))
            notes = refuse_wrong(encoder) if resize is None else []
            if first:
                check_folder(out, encoder, notes)
                for note in notes:
                    reporter.line(note)
            features = EncoderFeatures.open(
                encoder,
                out / "features",
                threads=max(1, (os.cpu_count() or 1) // ranks.size),
                processes=Processes(rank=ranks.rank, size=ranks.size, barrier=ranks.barrier),
                progress=reporter.progress,
            )
            found = evaluate(benchmarks, data, out, features, Options(**options), reporter.line, exclude)
            if first:
                write_page(out)
    if not first:
        return
    _show_evaluation(found.records, found.missing, found.failed, as_json)
    if not as_json:
        click.echo(f"report: {out / 'report.html'}")
    raise_failures(found)


def _show_evaluation(records: Any, missing: Any, failed: Any, as_json: bool) -> None:
    from worldclip.evaluation.compare import paper_value

    rows = []
    for task, record in sorted(records.items()):
        low, high = record.intervals.get(record.metric, (None, None))
        rows.append(
            {
                "task": task,
                "metric": record.metric,
                "value": round(record.value, 2),
                "interval": "" if low is None else f"{low:.2f} - {high:.2f}",
                "paper": paper_value(task, record.metric),
                "n": record.n,
            }
        )
    if as_json:
        show([*rows, *({"missing": name, "where": where} for name, where in missing.items())], as_json=True)
        return
    show([{**row, "paper": "" if row["paper"] is None else f"{row['paper']:.1f}"} for row in rows], as_json=False)
    for name, where in (missing | failed).items():
        click.echo(f"\nnot scored: {where if where.startswith(name) else f'{name}: {where}'}")


def _compare(first: Path, second: Path, as_json: bool) -> None:
    from worldclip.evaluation.compare import compare, compare_languages
    from worldclip.evaluation.evaluate import read_results

    (a, _), (b, _) = read_results(first), read_results(second)
    differences = compare(a, b)
    if not differences:
        raise InputError(f"{first} and {second}: no task was scored for both. Evaluate both on one suite.")
    languages = [each for task in sorted(a.keys() & b.keys()) for each in compare_languages(a[task], b[task])]
    if as_json:
        show([_row(each) | {"language": each.language} for each in (*differences, *languages)], as_json=True)
        return
    show([_printed(each) for each in differences], as_json=False)
    if languages:
        click.echo("\nLanguages that differ most:")
        languages.sort(key=lambda each: (-abs(each.by), each.task, each.language))
        show([{"language": each.language, **_printed(each)} for each in languages[:20]], as_json=False)
    click.echo(f"\nA: {first}   B: {second}   *: outside the 95 % intervals   paper: MetaCLIP 2 H/14, worldwide, 29B")


def _row(each: Difference) -> dict[str, Any]:
    return {
        "task": each.task,
        "metric": each.metric,
        "A": each.a,
        "B": each.b,
        "B - A": each.by,
        "outside": each.outside,
        "paper": each.paper,
        "note": each.note,
    }


def _printed(each: Difference) -> dict[str, Any]:
    mark = "*" if each.outside else "" if each.outside is not None else "no interval"
    return {
        **{name: value for name, value in _row(each).items() if name in ("task", "metric")},
        **{name: round(value, 2) for name, value in (("A", each.a), ("B", each.b), ("B - A", each.by))},
        "mark": mark,
        "paper": "" if each.paper is None else f"{each.paper:.1f}",
        "note": each.note,
    }


@click.command()
@click.argument("model", type=folder_type)
@click.option("--write", is_flag=True, help="Keep golden.json in the folder: the model is right as it is.")
@click.option("--golden", type=click.Path(path_type=Path, dir_okay=False), help="Golden vectors from elsewhere.")
@json_option
@told
def check(model: Path, write: bool, golden: Path | None, as_json: bool) -> None:
    """Tell what a model folder does otherwise than the model that it was: activation, resize, end of text, padding.

    Golden vectors are written where the model is known to be right, and checked wherever it is copied or converted to.
    """
    from worldclip.model.encoder import Encoder
    from worldclip.model.golden import FILE, findings, read_golden, write_golden

    encoder = Encoder.open(model)
    if write:
        write_golden(encoder, model / FILE)
    kept = read_golden(golden) if golden else None
    found = findings(encoder, kept)
    compared = bool(golden) or (model / FILE).is_file()
    if not found or as_json:
        none = {
            "part": "vectors",
            "found": "as they were" if compared else f"no {FILE} to compare with",
            "wrong": False,
        }
        show([{"part": each.part, "found": each.text, "wrong": each.wrong} for each in found] or [none], as_json)
    for each in found:
        click.echo(f"{each.part}: {each.text}", err=True)
    if wrong := [each for each in found if each.wrong]:
        raise DataError(f"{model}: {len(wrong)} finding(s); it would score otherwise than the model that it was.")
