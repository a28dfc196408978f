"""`worldclip clean`: opt-outs, copies, evaluation images, unsafe images, faces."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import engine_of, engine_option, json_option, workers_option
from worldclip.cli.terminal import TerminalReporter, show_summary, told
from worldclip.errors import InputError

a_folder = click.Path(path_type=Path, file_okay=False)
a_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def clean() -> None:
    """Remove opt-outs, copies, evaluation images and unsafe images; blur faces.

    First `look` at the images, then `remove` from the pairs; `restore` takes reasons back.
    """


@clean.command("look")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", type=a_folder, required=True, help="Folder for what is seen.")
@click.option("--model", type=click.Path(path_type=Path), default=Path("runs/quickstart/model"), show_default=True,
              help="Embeds images: a model folder, or an ONNX file.")  # fmt: skip
@click.option("--no-model", is_flag=True, help="Do not embed: no near copies, no evaluation images.")
@click.option("--classifier", type=a_file, help="ONNX file that scores images, e.g. NudeNet's.")
@click.option("--faces", type=a_file, help="ONNX file that finds faces, e.g. CenterFace.")
@workers_option
@engine_option
@json_option
@told
def clean_look(
    images: Path,
    out: Path,
    model: Path,
    no_model: bool,
    classifier: Path | None,
    faces: Path | None,
    workers: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Look at every image of IMAGES once: hash, code, scores, faces.

    IMAGES is what img2dataset wrote, a WebDataset tar, or a folder of images.
    """
    from worldclip.clean import Embedder, Eyes, look
    from worldclip.hygiene.onnx_models import OnnxTower
    from worldclip.run import locked
    from worldclip.storage import file_digest

    embedder = None
    if model.suffix == ".onnx" and not no_model:
        OnnxTower.open(model)
        embedder = Embedder(name=file_digest(model), open=OnnxTower.open, path=model)
    elif not no_model:
        from worldclip.model.encoder import fingerprint_of
        from worldclip.model.image_tower import ImageTower

        ImageTower.open(model)
        embedder = Embedder(name=fingerprint_of(model), open=ImageTower.open, path=model)
    eyes = Eyes(embedder=embedder, classifier=classifier, faces=faces)
    with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        summary = look(images, out, eyes, engine=chosen, report=reporter.progress)
    show_summary(summary, as_json)


@clean.command("remove")
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--out", type=a_folder, required=True, help="Folder for what is left.")
@click.option("--opt-out", type=a_file, help="List of URLs, domains, SHA-256.")
@click.option("--ignore-signals", is_flag=True, help="Keep images whose pages say noai.")
@click.option("--looks", type=a_folder, help="What `clean look` saw of these pairs.")
@click.option("--evaluation", type=a_folder, help="What `clean look` saw of evaluation images.")
@click.option("--radius", type=click.IntRange(0, 16), default=0, show_default=True, metavar="BITS",
              help="Near copies differ in at most so many bits of 64.")  # fmt: skip
@click.option("--evaluation-radius", type=click.IntRange(0, 16), default=3, show_default=True, metavar="BITS",
              help="The same for evaluation images.")  # fmt: skip
@click.option("--unsafe", multiple=True, metavar="LABEL=SCORE", help="Remove from this score on; repeat.")
@workers_option
@engine_option
@json_option
@told
def clean_remove(
    pairs: Path,
    out: Path,
    opt_out: Path | None,
    ignore_signals: bool,
    looks: Path | None,
    evaluation: Path | None,
    radius: int,
    evaluation_radius: int,
    unsafe: tuple[str, ...],
    workers: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Remove from PAIRS, a Parquet file or a folder of them, what must go; every removal is written down."""
    from worldclip.clean import Rules, remove
    from worldclip.run import locked

    rules = Rules(
        opt_out=opt_out,
        signals=not ignore_signals,
        radius=radius,
        evaluation_radius=evaluation_radius,
        unsafe=tuple(map(_limit, unsafe)),
    )
    with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        summary = remove(
            sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs],
            out,
            rules,
            looks=_looks(looks),
            evaluation=_looks(evaluation),
            engine=chosen,
            report=reporter.progress,
        )
    show_summary(summary, as_json)


@clean.command("restore")
@click.argument("out", type=a_folder)
@click.option("--reason", "reasons", multiple=True, help="Bring back what it alone removed; repeat. None: nothing.")
@workers_option
@json_option
@told
def clean_restore(out: Path, reasons: tuple[str, ...], workers: int | None, as_json: bool) -> None:
    """Bring back what was removed in OUT for some reasons alone; without a reason, remove all of it again."""
    from worldclip.clean import restore
    from worldclip.run import locked

    with locked(out), TerminalReporter() as reporter, engine_of("local", workers, reporter) as chosen:
        summary = restore(out, reasons, engine=chosen, report=reporter.progress)
    show_summary(summary, as_json)


@clean.command("blur")
@click.argument("looks", type=a_folder)
@click.option("--out", type=a_folder, required=True, help="Folder for the tars.")
@workers_option
@engine_option
@json_option
@told
def clean_blur(looks: Path, out: Path, workers: int | None, engine: str, as_json: bool) -> None:
    """Write the tars that LOOKS saw (with --faces) again, every face made unrecognisable."""
    from worldclip.clean import blur_faces
    from worldclip.run import locked

    with locked(out), TerminalReporter() as reporter, engine_of(engine, workers, reporter) as chosen:
        summary = blur_faces(_looks(looks), out, engine=chosen, report=reporter.progress)
    show_summary(summary, as_json)


def _looks(folder: Path | None) -> list[Path]:
    found = sorted(folder.glob("looks-*.parquet")) if folder else []
    if folder and not found:
        raise InputError(f"{folder}: nothing that `worldclip clean look` wrote is there.")
    return found


def _limit(given: str) -> tuple[str, float]:
    label, _, score = given.rpartition("=")
    try:
        return label, float(score)
    except ValueError:
        raise InputError(f"--unsafe {given}: needed is LABEL=SCORE, e.g. --unsafe BUTTOCKS_EXPOSED=0.5.") from None
