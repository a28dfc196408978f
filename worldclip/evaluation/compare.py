"""Two models side by side: every metric that both have, what is outside of the intervals, and the paper's number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from worldclip.evaluation.paper import COLUMNS, scores
from worldclip.evaluation.records import Part, Record

#: The paper's model beside whose numbers others are put.
PAPER_MODEL = "MetaCLIP 2 H/14 WW 29B"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two models, or of one language of a task. `b` minus `a` is `by`; all in the metric's own unit.

    `outside`: the difference is larger than the 95 % interval of the difference of two independent estimates; None
    where there are no intervals. Both models saw the same items, so this is on the safe side. `paper` is the paper's
    number for its largest worldwide model. `note` tells what keeps two numbers from being compared.
    """

    task: str
    metric: str
    a: float
    b: float
    outside: bool | None
    paper: float | None = None
    language: str = ""
    note: str = ""

    @property
    def by(self) -> float:
        """How much `b` is above `a`."""
        return self.b - self.a


def compare(a: Mapping[str, Record], b: Mapping[str, Record]) -> list[Difference]:
    """The metrics of the tasks that both models have a record of: headline first, then the others by name."""
    return [
        Difference(
            task=task,
            metric=metric,
            a=a[task].values[metric],
            b=b[task].values[metric],
            outside=_outside(_estimate(a[task], metric), _estimate(b[task], metric)),
            paper=paper_value(task, metric),
            note=_note(a[task], b[task]),
        )
        for task in sorted(a.keys() & b.keys())
        for metric in _headline_first(a[task], b[task])
    ]


def compare_languages(a: Record, b: Record) -> list[Difference]:
    """The headline metric of one task in each language that both have, largest difference first."""
    found = []
    for language in sorted(a.per_language.keys() & b.per_language.keys()):
        first, second = a.per_language[language], b.per_language[language]
        metric = headline(a, first)
        if metric is not None and metric in second:
            outside = _outside(
                (first[metric], part_interval(first, metric)), (second[metric], part_interval(second, metric))
            )
            found.append(
                Difference(
                    task=a.task, metric=metric, language=language, a=first[metric], b=second[metric], outside=outside
                )
            )
    return sorted(found, key=lambda each: (-abs(each.by), each.language))


def headline(record: Record, part: Part) -> str | None:
    """The metric that stands for a language or group: the record's own, or else its first one that has an interval."""
    if record.metric in part:
        return record.metric
    return next((name for name in part if f"{name}_low" in part), None)


def part_interval(part: Part, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a metric of one language or group."""
    return (part[f"{metric}_low"], part[f"{metric}_high"]) if f"{metric}_low" in part else None


def _headline_first(a: Record, b: Record) -> list[str]:
    shared = a.values.keys() & b.values.keys()
    return sorted(shared, key=lambda name: (name != a.metric, name))


#: A value and its interval.
_Estimate = tuple[float, tuple[float, float] | None]


def _estimate(record: Record, metric: str) -> _Estimate:
    return record.values[metric], record.intervals.get(metric)


def _outside(a: tuple[float, tuple[float, float] | None], b: tuple[float, tuple[float, float] | None]) -> bool | None:
    """Whether two numbers differ by more than their intervals, on the sides that face each other, allow together."""
    (low, low_interval), (high, high_interval) = sorted((a, b), key=lambda each: each[0])
    if low_interval is None or high_interval is None:
        return None
    return high - low > math.hypot(low_interval[1] - low, high - high_interval[0])


def _note(a: Record, b: Record) -> str:
    if a.fingerprint != b.fingerprint:
        return "not the same data"
    for name in ("exclude", "templates", "templates_fingerprint", "names_fingerprint", "border", "clean_names"):
        if a.settings.get(name) != b.settings.get(name):
            return f"not the same {name}"
    return ""


@cache
def _paper() -> dict[tuple[str, str], float]:
    own = scores()[PAPER_MODEL]
    return {(column.task, column.metric): own[column.name] for column in COLUMNS if column.name in own}


def paper_value(task: str, metric: str) -> float | None:
    """What the paper prints for its largest worldwide model, if it does."""
    return _paper().get((task, metric))
