"""All benchmarks by name, and the suites that they make."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from worldclip.evaluation.benchmark import Benchmark, Options, Source, locate, run
from worldclip.evaluation.records import Record

__all__ = ["BENCHMARKS", "SUITES", "Benchmark", "Options", "Record", "Source", "locate", "run"]

#: Name -> benchmark.
BENCHMARKS: Mapping[str, Benchmark] = {each.name: each for each in chain[Benchmark]()}

#: Suite -> names of its benchmarks; `paper` is every benchmark that the paper reports.
SUITES: Mapping[str, tuple[str, ...]] = {
    suite: tuple(name for name, each in BENCHMARKS.items() if suite in each.suites)
    for suite in sorted({suite for each in BENCHMARKS.values() for suite in each.suites})
}
