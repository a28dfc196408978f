"""One benchmark: what it is, where users get it, and how a model is scored on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from worldclip.errors import MissingData
from worldclip.evaluation.pictures import Features
from worldclip.evaluation.records import Record


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be chosen about a benchmark; the defaults are the paper's."""

    seed: int = 0  #: of bootstrap intervals and few-shot splits
    resamples: int = 1000  #: of a bootstrap interval
    classnames: Path | None = None  #: a file of 1,000 ImageNet names instead of ours, one a line
    templates: Path | None = None  #: a file of ImageNet templates instead of ours, one a line
    objectnet_crop_border: int = 0  #: pixels to cut off each side of ObjectNet's images
    geode_clean_names: bool = False  #: write GeoDE's class names with spaces instead of underscores
    shots: tuple[int, ...] = (5, 10, 25)  #: of few-shot geo-localisation, per group
    shot_seeds: int = 3  #: draws of shots to average over


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where users get a benchmark's data. Nothing is downloaded here."""

    names: str  #: what it is called, and where
    layout: str  #: what is expected in the folder
    licence: str


#: Reads the data in its folders, scores the model, and gives one record a task.
Score = Callable[[Sequence[Path], Features, Options], list[Record]]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark. `folders` are those it needs below the folder of all data, each under any of its names."""

    name: str
    suites: tuple[str, ...]
    metrics: tuple[str, ...]  #: the headline first
    folders: tuple[tuple[str, ...], ...]
    source: Source
    score: Score
    n: int | None = None  #: images (instances) of the whole data set, if they are fixed
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  #: model -> metric -> what the paper prints


def locate(benchmark: Benchmark, data: Path) -> list[Path]:
    """The folders of a benchmark's data.

    Raises:
        MissingData: one is not there; tells the names it may have, the layout, and where users get it.
    """
    found = []
    for names in benchmark.folders:
        present = [data / name for name in names if (data / name).is_dir()]
        if not present:
            source = benchmark.source
            raise MissingData(
                f"{benchmark.name}: needs {' or '.join(f'{name}/' for name in names)} in {data}, which is not there.\n"
                f"  Get it: {source.names}.\n  Layout: {source.layout}.\n  Licence: {source.licence}."
            )
        found.append(present[0])
    return found


def run(benchmark: Benchmark, data: Path, features: Features, *, options: Options | None = None) -> list[Record]:
    """Score a model on a benchmark whose data lies below `data`.

    A record's setting `complete` is false where fewer images were found than the whole data set has: such a value is
    not comparable with anybody's.

    Raises:
        MissingData: the data, or a part of it, is not there.
        DataError: it is not what it should be.
    """
    records = benchmark.score(locate(benchmark, data), features, options or Options())
    return [
        replace(record, settings={**record.settings, "complete": _complete(record, benchmark.n)}) for record in records
    ]


def _complete(record: Record, n: int | None) -> bool:
    return bool(record.settings.get("complete", True)) and n in (None, record.n)
