"""All benchmarks by name, and the suites that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from worldclip.evaluation.averages import summaries
from worldclip.evaluation.benchmark import Benchmark, Options, Source, locate, run
from worldclip.evaluation.paper import scores_of
from worldclip.evaluation.records import Record
from worldclip.evaluation.suites import (
    alignment,
    babel,
    cvqa,
    datacomp,
    fewshot,
    geography,
    imagenet,
    slip,
    translated,
    xm3600,
)

__all__ = ["BENCHMARKS", "SUITES", "Benchmark", "Options", "Record", "Source", "locate", "run", "summaries"]

_SUITES = (imagenet, slip, datacomp, babel, xm3600, cvqa, translated, geography, fewshot, alignment)

#: Name -> benchmark.
BENCHMARKS: Mapping[str, Benchmark] = {
    each.name: replace(each, paper=scores_of(each.name)) for suite in _SUITES for each in suite.BENCHMARKS
}

#: Suite -> names of its benchmarks; `paper` is every benchmark that the paper reports.
SUITES: Mapping[str, tuple[str, ...]] = {
    suite: tuple(name for name, each in BENCHMARKS.items() if suite in each.suites)
    for suite in dict.fromkeys(suite for each in BENCHMARKS.values() for suite in each.suites)
}
