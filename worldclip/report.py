"""The report of a run: what was trained on what, and how well it does, as one HTML file that loads nothing.

`render` reads `results.json` (schema 1, `docs/results.md`) and lays it out. Charts are inline SVG that stretch with
the page while their labels stay text, so that they can be read on a phone. Every section whose numbers are absent is
left out, every single number that is absent is a dash.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined

from worldclip import storage
from worldclip.errors import DataError
from worldclip.languages import LANGUAGES

#: The version of results.json that this module reads.
SCHEMA = 1

_ABSENT = "–"

#: Between a number and its unit: a space that no line breaks at.
_NBSP = "\N{NO-BREAK SPACE}"

#: Models in the order in which they are shown, with their names; "worldwide" gives the page its colour.
_MODELS = {"worldwide": "worldwide", "english": "English only"}


def render(results: Mapping[str, Any], pictures: Mapping[str, bytes], path: Path) -> None:
    """Write the report of one run as one self-contained HTML file.

    `results` is the content of results.json; `pictures` maps a picture's id, as `results["examples"]` names it, to
    its PNG bytes (an id without a picture is shown by its name). The same input gives the same bytes.

    Raises:
        DataError: `results` is not of schema 1.
        StorageError: `path` cannot be written.
    """
    if results.get("schema") != SCHEMA:
        raise DataError(
            f"results: schema is {results.get('schema')!r}; this version of worldclip reads schema {SCHEMA}. "
            "Run the evaluation again to write results.json anew."
        )
    html = (
        environment()
        .get_template("report.html.j2")
        .render(
            r=results,
            pictures={
                name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()
            },
            models=_MODELS,
            bars=accuracy_bars(results),
            curves=head_tail_plots(results),
            loss=loss_plot(results),
            comparison=comparison_rows(results),
            settings=flat(results.get("config") or {}),
        )
    )
    storage.write_bytes(path, html.encode())


@cache
def environment() -> Environment:
    """Where the templates of all pages are, with the filters that write numbers and languages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "whole": whole,
        "short": short,
        "percent": percent,
        "duration": duration,
        "language": language_name,
    }
    return environment


# Numbers, as a reader wants them.


def _absent(value: object) -> bool:
    return value is None or isinstance(value, Undefined) or (isinstance(value, float) and not math.isfinite(value))


def whole(value: Any) -> str:
    """1234567 -> 1,234,567."""
    return _ABSENT if _absent(value) else f"{round(value):,}"


def short(value: Any) -> str:
    """1234567 -> 1.23 M: three significant digits from ten thousand up."""
    if _absent(value):
        return _ABSENT
    for factor, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(factor, 1e4):
            scaled = value / factor
            return f"{scaled:.{max(0, 2 - int(math.log10(abs(scaled))))}f}{_NBSP}{unit}"
    return f"{round(value, 2):,g}" if isinstance(value, float) else f"{value:,}"


def percent(value: Any) -> str:
    """0.3123 -> 31.2 %, 0.0006 -> 0.06 %."""
    return _ABSENT if _absent(value) else f"{100 * value:.{1 if value == 0 or abs(value) >= 0.01 else 2}f}{_NBSP}%"


def duration(seconds: Any) -> str:
    """392 -> 6 min 32 s."""
    if _absent(seconds):
        return _ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return shown.replace(" ", _NBSP)


def language_name(code: str) -> str:
    """The English name of a language, or its code where there is none."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested recipe as (dotted name, value), the form in which a recipe field is set."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


# Charts: positions are percentages of the plot, from its left and from its top.


@dataclass(frozen=True, kw_only=True)
class Line:
    """One SVG path; `style` is its CSS class, `label` its name in the legend."""

    path: str
    style: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Lines over two axes; ticks are (position, label), `rule` is the height of a horizontal line."""

    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    rule: float | None = None
    lang: str = ""
    t: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Top-1 of one language with its interval and top-5; positions are percentages of the track."""

    lang: str
    top1: float
    width: float
    low: float | None
    high: float | None
    top5: float | None
    english: float | None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """All languages, best first; `chance` is a percentage of the track, whose whole width is the fraction `scale`."""

    rows: Sequence[Bar]
    chance: float | None
    scale: float


def _nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `wanted` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * at for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in points)


def accuracy_bars(results: Mapping[str, Any]) -> Bars | None:
    """Held-out drawings: top-1 of every language, best first, or None where nothing was evaluated."""
    found = _task(results, "worldwide", "heldout_emoji")
    languages = {lang: score for lang, score in _languages(found).items() if not _absent(score.get("top1"))}
    if not languages:
        return None
    english = _languages(_task(results, "english", "heldout_emoji"))
    shown: list[Any] = [score.get(key) for score in languages.values() for key in ("top1", "top5")]
    top = min(1.0, math.ceil(20 * max(value for value in shown if not _absent(value))) / 20) or 0.05

    def place(value: Any) -> float | None:
        return None if _absent(value) else round(100 * min(max(value, 0.0), top) / top, 2)

    rows = []
    for lang, score in sorted(languages.items(), key=lambda item: (-item[1]["top1"], item[0])):
        low, high = score.get("top1_interval") or (None, None)
        rows.append(
            Bar(
                lang=lang,
                top1=score["top1"],
                width=place(score["top1"]) or 0.0,
                low=place(low),
                high=place(high),
                top5=place(score.get("top5")),
                english=place(english.get(lang, {}).get("top1")),
            )
        )
    return Bars(rows=rows, chance=place(found.get("chance_top1")), scale=top)


def head_tail_plots(results: Mapping[str, Any]) -> list[Plot]:
    """One log-log plot a language: counts by rank before curation, and as expected after it (at most t each).

    The most frequent concept's count decides the order, English first; all plots share their axes.
    """
    curves = {
        lang: curve for lang, curve in ((results.get("data") or {}).get("curves") or {}).items() if curve.get("counts")
    }
    if not curves:
        return []
    ranks = math.ceil(max(math.log10(max(point[0], 10)) for curve in curves.values() for point in curve["counts"]))
    counts = math.ceil(max(math.log10(max(point[1], 10)) for curve in curves.values() for point in curve["counts"]))

    def place(rank: float, count: float) -> tuple[float, float]:
        return 100 * math.log10(max(rank, 1)) / ranks, 100 - 100 * math.log10(max(count, 1)) / counts

    plots = []
    for lang, curve in sorted(curves.items(), key=lambda item: (item[0] != "en", -item[1]["counts"][0][1], item[0])):
        t = curve.get("t")
        before = [place(rank, count) for rank, count in curve["counts"] if count > 0]
        after = [place(rank, count if _absent(t) else min(count, t)) for rank, count in curve["counts"] if count > 0]
        plots.append(
            Plot(
                lines=[
                    Line(path=_path([*before, *reversed(after)]) + "Z", style="removed", label="left out"),
                    Line(path=_path(before), style="before", label="before"),
                    Line(path=_path(after), style="worldwide", label="after"),
                ],
                x_ticks=[(100 * power / ranks, _power(power)) for power in range(ranks + 1)],
                y_ticks=[(100 - 100 * power / counts, _power(power)) for power in range(counts + 1)],
                rule=None if _absent(t) else round(place(1, t)[1], 2),
                lang=lang,
                t=t,
            )
        )
    return plots


def curve(counts: np.ndarray, points: int = 100) -> list[list[int]]:
    """[rank, matches] of a list's entries at about `points` ranks spaced evenly on a logarithmic scale.

    Args:
        counts: int64 [entries], matches of each.
    """
    ordered = np.sort(counts[counts > 0])[::-1]
    if not len(ordered):
        return []
    ranks = np.unique(np.geomspace(1, len(ordered), points).round().astype(np.int64))
    return [[int(rank), int(ordered[rank - 1])] for rank in ranks]


def _power(exponent: int) -> str:
    return (
        f"{10**exponent}"
        if exponent < 3
        else f"{10 ** (exponent - 3)}k"
        if exponent < 6
        else f"{10 ** (exponent - 6)}M"
    )


def loss_plot(results: Mapping[str, Any]) -> Plot | None:
    """Contrastive loss against pairs seen, one line a model, or None where none was trained."""
    training = results.get("training") or {}
    curves = {
        model: [(seen, loss) for seen, loss in training[model]["loss"] if not _absent(loss)]
        for model in _MODELS
        if (training.get(model) or {}).get("loss")
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    right = max(seen for seen, _ in points) or 1
    least, most = min(loss for _, loss in points), max(loss for _, loss in points)
    margin = 0.05 * (most - least) or 0.5
    low, high = float(max(0.0, least - margin)), float(most + margin)

    def height(loss: float) -> float:
        return 100 - 100 * (loss - low) / (high - low)

    return Plot(
        lines=[
            Line(
                path=_path([(100 * seen / right, height(loss)) for seen, loss in curve]),
                style=model,
                label=_MODELS[model],
            )
            for model, curve in curves.items()
            if curve
        ],
        x_ticks=[(100 * tick / right, short(tick)) for tick in _nice_ticks(0, right, 4)],
        y_ticks=[(height(tick), f"{tick:g}") for tick in _nice_ticks(low, high, 4)],
    )


def comparison_rows(results: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(what, worldwide, English only): top-1 fractions of both models side by side; empty without an English one."""
    if not (results.get("evaluation") or {}).get("english"):
        return []
    rows: list[tuple[str, Any, Any]] = []
    for task, name in (("heldout_emoji", "Held-out drawings"), ("stamps", "Stamps"), ("photographs", "Photographs")):
        world, english = (_languages(_task(results, model, task)) for model in _MODELS)
        if world and english:
            rows += [
                (f"{name}, English", world.get("en", {}).get("top1"), english.get("en", {}).get("top1")),
                (f"{name}, mean of the other languages", _mean_of_others(world), _mean_of_others(english)),
            ]
    return [row for row in rows if not all(_absent(value) for value in row[1:])]


def _mean_of_others(scores: Mapping[str, Mapping[str, Any]]) -> float | None:
    values = [score["top1"] for lang, score in scores.items() if lang != "en" and not _absent(score.get("top1"))]
    return sum(values) / len(values) if values else None


def _task(results: Mapping[str, Any], model: str, task: str) -> Mapping[str, Any]:
    return ((results.get("evaluation") or {}).get(model) or {}).get(task) or {}


def _languages(task: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return task.get("languages") or {}
