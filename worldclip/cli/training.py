"""`worldclip shards`, `worldclip train`."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import click

from worldclip.cli.options import engine_of, engine_option, run_of, run_option, set_option, workers_option
from worldclip.cli.terminal import TerminalReporter, show, told
from worldclip.errors import InputError


@click.command()
@run_option
@click.option("--curated", type=click.Path(path_type=Path, file_okay=False), help="What `worldclip curate` wrote.")
@click.option("--images", multiple=True, metavar="TAR", help="WebDataset tars, or a pattern; also in a store (s3://).")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where the index goes.")
@workers_option
@engine_option
@told
def shards(
    folder: Path, curated: Path | None, images: tuple[str, ...], out: Path | None, workers: int | None, engine: str
) -> None:
    """Index image tars and curated texts, so that training reads images where they lie.

    Of the run's own pictures; with --curated, --images and --out, of yours. The same command goes on where it was
    stopped.
    """
    from worldclip import pipeline
    from worldclip.run import locked
    from worldclip.shards import expanded, index_shards

    if (curated, images, out) == (None, (), None):
        with locked(folder), TerminalReporter() as reporter:
            pipeline.index_images(run_of(folder, (), reporter))
        return
    if curated is None or not images or out is None:
        raise InputError("--curated, --images and --out go together: give all three, or none for the run's own.")
    with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        about = index_shards(expanded(images), curated, out, engine=chosen, report=reporter.progress)
        for reason, count in about["set_aside"].items():
            reporter.line(f"set aside: {count:,} {reason}")
        reporter.line(f"{sum(shard['samples'] for shard in about['shards']):,} images: {out}")


@click.command()
@run_option
@set_option
@click.option("--seen-pairs", type=click.IntRange(min=1), help="Training budget, in image-text pairs.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="What `worldclip shards` wrote.")
@click.option(
    "--student",
    "students",
    multiple=True,
    metavar="NAME:FIELD=VALUE,...",
    help="Also train such a model, on the same batches and teacher's passes.",
)
@told
def train(
    folder: Path, settings: tuple[str, ...], seen_pairs: int | None, data: Path | None, students: tuple[str, ...]
) -> None:
    """Train tokenizer and model on the curated pairs; resumes by itself.

    From pictures in memory; with --data, from shards. With several processes: torchrun ... -m -- worldclip train ...
    """
    from worldclip import pipeline
    from worldclip.run import locked
    from worldclip.train.ranks import started
    from worldclip.train.stage import student_run, train_model

    if data is not None:
        settings = (*settings, f"train.data={data}")
    with started() as ranks, ExitStack() as stack, TerminalReporter(quiet=ranks.rank > 0) as reporter:
        if ranks.rank == 0:
            stack.enter_context(locked(folder))
            pipeline.build_tokenizer(run_of(folder, settings, reporter, seen_pairs))
        ranks.barrier()
        run = run_of(folder, settings, reporter, seen_pairs, write=ranks.rank == 0)
        others = [student_run(run, *_student(text)) for text in students]
        train_model(run, ranks, others)
        if ranks.rank == 0 and run.recipe.train.start and run.finished("pairs"):
            show(pipeline.forgotten(run), as_json=False)


def _student(text: str) -> tuple[str, list[str]]:
    """`small:model.image_size=32,model.vision.width=64` as a name and settings."""
    name, colon, settings = text.partition(":")
    if not colon or not re.fullmatch(r"\w[\w.-]*", name) or not settings:
        raise InputError(f"--student {text!r}: write NAME:FIELD=VALUE,..., for example small:model.vision.width=64.")
    return name, settings.split(",")
