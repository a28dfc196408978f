"""What an evaluation finds: one JSON record a task."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from worldclip import __version__
from worldclip.errors import DataError
from worldclip.storage import read_json, write_json

#: What a record holds of one class, group or language: "n" (items) and metrics in percent.
Part = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One model's result on one task. All metrics are percent (but alignment and uniformity, which are plain numbers).

    The k of a recall or accuracy is part of its metric's name: `acc5`, `t2i_r1`.
    """

    task: str
    metric: str  #: the headline metric, a key of `values`
    value: float  #: the same as `values[metric]`
    n: int  #: items that were scored
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  #: 95 %, of metrics in `values`
    per_class: Mapping[str, Part] = field(default_factory=dict)
    per_group: Mapping[str, Part] = field(default_factory=dict)
    per_language: Mapping[str, Part] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)  #: reason -> items
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)  #: rows, sha256 of the list of keys
    version: str = __version__

    @property
    def file_name(self) -> str:
        """Name of its file in a folder of results."""
        return f"{self.task.replace('/', '-')}.json"


def mean_over(parts: Mapping[str, Part], metric: str, only: Collection[str] | None = None) -> float:
    """Unweighted mean of a metric over languages or groups: those of `only` that are there, or all."""
    return float(np.mean([part[metric] for name, part in parts.items() if only is None or name in only]))


def write_record(folder: Path, record: Record) -> Path:
    """Write a record to its file in `folder`, whole or not at all; return the path."""
    path = folder / record.file_name
    write_json(path, asdict(record))
    return path


def read_records(folder: Path) -> list[Record]:
    """All records of a folder of results, by task.

    Raises:
        DataError: a JSON file in it is not a record.
    """
    return sorted((read_record(path) for path in folder.glob("*.json")), key=lambda record: record.task)


def read_record(path: Path) -> Record:
    """One record.

    Raises:
        MissingData: the file is not there.
        DataError: it is not a record.
    """
    found = read_json(path)
    known = {each.name for each in fields(Record)}
    needed = {"task", "metric", "value", "n", "values"}
    if not isinstance(found, dict) or not needed <= found.keys() <= known:
        keys = sorted(found) if isinstance(found, dict) else json.dumps(found)[:80]
        raise DataError(f"{path}: is not a record of an evaluation (found {keys}). Delete it and evaluate again.")
    intervals = {name: (low, high) for name, (low, high) in found.get("intervals", {}).items()}
    return Record(**{**found, "intervals": intervals})
