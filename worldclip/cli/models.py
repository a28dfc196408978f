"""`worldclip export` and `worldclip tokenizer`: models and vocabularies from and for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from worldclip.cli.options import json_option
from worldclip.cli.terminal import show, told

if TYPE_CHECKING:
    from worldclip.model.export import Target
    from worldclip.model.onnx_graph import Precision


@click.command()
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder to write.")
@click.option(
    "--to", "target", type=click.Choice(["transformers", "open_clip", "pt", "onnx"]), required=True, help="Format."
)
@click.option("--size", metavar="NAME", help="Released model that a file of weights holds, e.g. ViT-B-32-worldwide.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Tokenizer to put beside it: a file or a folder.")
@click.option(
    "--trim-vocab",
    "texts",
    type=click.Path(path_type=Path),
    help="Keep the tokens that these texts need: Parquet with a column text, or lines of text.",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True, help="Of ONNX."
)
@json_option
@told
def export(
    source: Path,
    out: Path,
    target: str,
    size: str | None,
    tokenizer: Path | None,
    texts: Path | None,
    precision: str,
    as_json: bool,
) -> None:
    """Write a model in another format, and say how far its logits on golden inputs are from the original's.

    MODEL is a folder of transformers or open_clip, or a file of weights as the authors publish them.
    """
    from worldclip.model.export import export as write
    from worldclip.tokenizer.texts import read_texts

    covered = [text for each in read_texts(texts).values() for text in each] if texts else None
    report = write(
        source,
        out,
        cast("Target", target),
        size=size,
        tokenizer=tokenizer,
        covered=covered,
        precision=cast("Precision", precision),
    )
    show([{"figure": name, "value": value} for name, value in report.items()], as_json)


@click.group()
def tokenizer() -> None:
    """Vocabularies: train one, and see what a language's texts cost in each."""


@tokenizer.command("train")
@click.argument("texts", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="tokenizer.json to write.")
@click.option("--vocab-size", type=click.IntRange(min=8), default=32_000, show_default=True, help="Tokens.")
@click.option("--context-length", type=click.IntRange(min=3), default=77, show_default=True, help="Tokens of a text.")
@click.option("--kind", type=click.Choice(["unigram", "bpe"]), default="unigram", show_default=True)
@told
def tokenizer_train(texts: Path, out: Path, vocab_size: int, context_length: int, kind: str) -> None:
    """Train on texts: Parquet with a column text (curated pairs are), or lines of text."""
    from worldclip.storage import write_bytes
    from worldclip.tokenizer import train_tokenizer
    from worldclip.tokenizer.texts import read_texts

    every = [text for each in read_texts(texts).values() for text in each]
    trained = train_tokenizer(every, vocab_size, context_length, "bpe" if kind == "bpe" else "unigram")
    write_bytes(out, trained.to_str(pretty=True).encode())
    click.echo(f"{trained.get_vocab_size():,} tokens from {len(every):,} texts: {out}")


@tokenizer.command("report")
@click.argument("tokenizers", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--texts", type=click.Path(path_type=Path), required=True, help="Parquet with text and lang, or lines.")
@click.option("--context-length", type=click.IntRange(min=3), default=77, show_default=True, help="Tokens of a text.")
@json_option
@told
def tokenizer_report(tokenizers: tuple[Path, ...], texts: Path, context_length: int, as_json: bool) -> None:
    """Tokens a text and share of texts that are cut, for each language and tokenizer."""
    from dataclasses import asdict

    from worldclip.tokenizer.costs import text_costs
    from worldclip.tokenizer.files import open_tokenizer
    from worldclip.tokenizer.texts import read_texts

    languages = read_texts(texts)
    rows = []
    for path in tokenizers:
        opened = open_tokenizer(path, context_length)
        rows += [
            {"tokenizer": str(path), "vocabulary": opened.get_vocab_size(), **asdict(cost)}
            for cost in text_costs(opened, languages)
        ]
    show(rows, as_json)
