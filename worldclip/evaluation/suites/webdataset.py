"""Classification tasks as CLIP_benchmark and DataComp publish them: a WebDataset with its own names and templates."""

from __future__ import annotations

from pathlib import Path

from worldclip.evaluation.layouts import Shards, read_lines, read_shards
from worldclip.evaluation.scoring import Labelled

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
PLACEHOLDER = "{c}"


def is_webdataset(folder: Path) -> bool:
    """Whether a folder holds one."""
    return (folder / "test" / "nshards.txt").is_file()


def read_labelled(folder: Path) -> Labelled:
    """Pictures with their classes, names and templates.

    Raises:
        MissingData: a file is not there.
        DataError: one is not what it should be.
    """
    return labelled(folder, read_shards(folder))


def labelled(folder: Path, shards: Shards) -> Labelled:
    """The same, from shards that are read already."""
    return Labelled(
        pictures=shards.pictures,
        labels=shards.labels(),
        names=[(name,) for name in read_lines(folder / CLASSNAMES)],
        templates=read_lines(folder / TEMPLATES),
        placeholder=PLACEHOLDER,
        settings={"layout": "webdataset"},
    )
