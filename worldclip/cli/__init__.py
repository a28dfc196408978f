"""The command line: one subcommand a stage. Exit codes: 0 done, 1 failed, 2 bad usage or bad input."""

from __future__ import annotations

import click

from worldclip import __version__
from worldclip.cli.clean import clean
from worldclip.cli.curation import curate, publish
from worldclip.cli.evaluation import check, evaluate
from worldclip.cli.metadata import metadata
from worldclip.cli.models import export, tokenizer
from worldclip.cli.pairs import pairs
from worldclip.cli.runs import ablate, quickstart, recipe, report
from worldclip.cli.training import shards, train
from worldclip.cli.use import classify, embed, search


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Make worldwide CLIP models: metadata, curation, training, evaluation.

    Start with `worldclip quickstart`: the whole recipe on packaged pictures, in minutes.
    """


for _command in (
    *(quickstart, metadata, pairs, clean, curate, publish, shards, train, evaluate, check, report),
    *(classify, embed, search),
    *(export, tokenizer),
    *(recipe, ablate),
):
    main.add_command(_command)
