"""The page of an evaluation: beside the paper's Table 1, by language and by region, worst first; one file, no loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worldclip import storage
from worldclip.evaluation.compare import headline, paper_value, part_interval
from worldclip.evaluation.evaluate import read_results
from worldclip.evaluation.paper import COLUMNS, columns_of, scores
from worldclip.evaluation.records import Part, Record
from worldclip.languages import LANGUAGES, code_of_iso_639_3
from worldclip.report import environment

#: More bars than this are drawn smaller, in more columns.
MANY = 60

#: Classes of a task that are shown, the worst.
CLASSES = 20

#: Tasks whose parts are other tasks, with scores on scales of their own: not regions.
_OF_TASKS = ("slip", "datacomp")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One language, region or class: its value in percent, its interval, a second metric, and how many items."""

    name: str
    code: str
    value: float
    low: float | None
    high: float | None
    second: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The parts of one task by one metric, worst first; `second` is the metric that is drawn as a dot."""

    task: str
    metric: str
    second: str | None
    bars: list[Bar]

    @property
    def mean(self) -> float:
        """Unweighted mean over the bars."""
        return sum(bar.value for bar in self.bars) / len(self.bars)


def write_page(out: Path) -> Path:
    """Write `report.html` of an evaluation's folder; return its path. The same results give the same bytes.

    Raises:
        MissingData: no evaluation was written there.
        StorageError: the page cannot be written.
    """
    records, model = read_results(out)
    own = columns_of(records)
    page = (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            model=model,
            records=sorted(records.values(), key=lambda record: record.task),
            paper_value=paper_value,
            columns=[column.name for column in COLUMNS if column.name in own],
            own=own,
            partial={column.name for column in COLUMNS if column.name in own and _partial(records[column.task])},
            paper=scores(),
            languages=[chart for record in records.values() if (chart := _chart(record, record.per_language))],
            groups=[
                chart
                for record in records.values()
                if not record.task.startswith(_OF_TASKS) and (chart := _chart(record, record.per_group))
            ],
            classes=[chart for record in records.values() if (chart := _chart(record, record.per_class, CLASSES))],
            many=MANY,
        )
    )
    path = out / "report.html"
    storage.write_bytes(path, page.encode())
    return path


def _partial(record: Record) -> bool:
    return not record.settings.get("complete", True)


def _chart(record: Record, parts: Mapping[str, Part], at_most: int | None = None) -> Chart | None:
    """A record's parts by the headline metric that they have, or None where they have none."""
    metric = next((found for part in parts.values() if (found := headline(record, part))), None)
    if metric is None:
        return None
    others = (name for part in parts.values() for name in part if name != metric and f"{name}_low" in part)
    second = next(others, None)
    bars = []
    for code, part in parts.items():
        if metric in part:
            low, high = part_interval(part, metric) or (None, None)
            bars.append(
                Bar(
                    name=language_name(code) if parts is record.per_language else code,
                    code=code,
                    value=part[metric],
                    low=low,
                    high=high,
                    second=part.get(second) if second else None,
                    n=int(part.get("n", 0)),
                )
            )
    bars.sort(key=lambda bar: (bar.value, bar.code))
    return Chart(task=record.task, metric=metric, second=second, bars=bars[:at_most])


def language_name(code: str) -> str:
    """The English name of a language as a benchmark writes it: "DE", "fil", "eng_Latn", "jp"; else the code."""
    plain = code.lower().replace("-", "_")
    base, _, script = plain.partition("_")
    # A code with a script is FLORES', whose `als` is not Wikipedia's.
    own = code_of_iso_639_3(base) if len(script) == 4 and len(base) == 3 else None
    for each in (plain, own or base):
        if each in _names():
            return _names()[each] + (f" ({script.title()})" if each != plain else "")
    return code


@cache
def _names() -> dict[str, str]:
    """Names by every code that means a language; a Wikipedia's own code comes before the others'."""
    found: dict[str, str] = {"jp": LANGUAGES["ja"].name, "eng": LANGUAGES["en"].name}
    codes: Iterable[tuple[str, ...]]
    for codes in (
        ((language.code,) for language in LANGUAGES.values()),
        (language.tags for language in LANGUAGES.values()),
        (language.wordnets for language in LANGUAGES.values()),
    ):
        for language, own in zip(LANGUAGES.values(), codes, strict=True):
            for code in own:
                found.setdefault(code.lower().replace("-", "_"), language.name)
    return found
