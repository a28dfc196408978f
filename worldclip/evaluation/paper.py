"""What the paper prints, and which metric of which record each of its columns is.

Numbers: arXiv 2507.22062 and its NeurIPS 2025 version, tables 1 to 4, and the distilled L/14 of the latter's table 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worldclip.evaluation.records import Record
from worldclip.evaluation.suites.facts import read_facts


@dataclass(frozen=True)
class Column:
    """A column of the paper's tables."""

    name: str
    task: str  #: of the record
    metric: str  #: a key of its values


#: In the paper's order; the distillation table has the columns up to XTD-200.
COLUMNS = (
    Column("IN", "imagenet", "acc1"),
    Column("SLIP-26", "slip", "slip26"),
    Column("DC-37", "datacomp", "dc37"),
    Column("Babel", "babel-imagenet", "babel_90"),
    Column("XM3600 T→I", "xm3600", "t2i_r1"),
    Column("XM3600 I→T", "xm3600", "i2t_r1"),
    Column("CVQA EN", "cvqa", "en"),
    Column("CVQA LOCAL", "cvqa", "local"),
    Column("Flickr30k-200 T→I", "flickr30k-200", "t2i_r5"),
    Column("Flickr30k-200 I→T", "flickr30k-200", "i2t_r5"),
    Column("XTD-10 T→I", "xtd10", "t2i_r5"),
    Column("XTD-10 I→T", "xtd10", "i2t_r5"),
    Column("XTD-200 T→I", "xtd200", "t2i_r5"),
    Column("XTD-200 I→T", "xtd200", "i2t_r5"),
    Column("Dollar Street top-1", "dollar-street", "acc1"),
    Column("Dollar Street top-5", "dollar-street", "acc5"),
    Column("GLDv2", "gldv2", "acc1"),
    Column("GeoDE", "geode", "acc1"),
)


def scores() -> dict[str, dict[str, float]]:
    """Model -> column -> the paper's number; columns that it does not print are left out."""
    found: dict[str, dict[str, float]] = {}
    for row in read_facts("paper_scores.tsv"):
        model = row["model"]
        found[model] = {column.name: float(row[column.name]) for column in COLUMNS if row[column.name]}
    return found


def scores_of(task: str) -> dict[str, dict[str, float]]:
    """Model -> metric -> the paper's number, of one task."""
    found = {
        model: {column.metric: own[column.name] for column in COLUMNS if column.task == task and column.name in own}
        for model, own in scores().items()
    }
    return {model: own for model, own in found.items() if own}


def columns_of(records: Mapping[str, Record]) -> dict[str, float]:
    """Column -> value, for the columns that a model's records (by task) fill."""
    return {
        column.name: records[column.task].values[column.metric]
        for column in COLUMNS
        if column.task in records and column.metric in records[column.task].values
    }
