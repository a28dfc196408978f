"""CVQA: questions on images of 39 cultures, four answers each, in the local language and in English."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.bootstrap import Interval
from worldclip.evaluation.layouts import Rows, read_rows
from worldclip.evaluation.metrics import Floats, Hits, Ints, wilson_interval
from worldclip.evaluation.pictures import Features
from worldclip.evaluation.records import Part, Record
from worldclip.evaluation.scores import one_hot
from worldclip.evaluation.scoring import embed_pictures, embed_texts, fingerprint

OPTIONS = 4

#: Columns of question and options, by the language that they are in.
COLUMNS = {"local": ("Question", "Options"), "en": ("Translated Question", "Translated Options")}

#: Rows whose texts are embedded at a time.
ROWS = 2048


def score(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """The answer is the option whose `question option` is nearest to the image; accuracy over all rows."""
    table = read_rows(folders[0])
    pictures = table.pictures("cvqa", "image", [str(key) for key in table.column("ID")])
    labels = np.array(table.column("Label"), np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < OPTIONS:
        raise DataError(f"{folders[0]}: labels {labels.min()} to {labels.max()}; allowed are 0 to {OPTIONS - 1}.")
    images, rows, left_out = embed_pictures(features, pictures)
    subsets, place = np.unique([subset_name(each) for each in table.column("Subset")], return_inverse=True)
    hits: dict[str, Hits] = {}
    cut: dict[str, int] = {}
    for name in COLUMNS:
        texts = read_texts(table, name)
        hits[name] = choose(images, [texts[row] for row in rows], features) == labels[rows]
        cut[name] = int(features.truncated([text for four in texts for text in four]).reshape(-1, OPTIONS).any(1).sum())
    groups = one_hot(place[rows], len(subsets))
    values: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, hit in hits.items():
        macro = bootstrap.ratios(groups * hit[:, None], groups)
        values |= {name: 100 * float(hit.mean()), f"{name}_macro": 100 * float(np.nanmean(macro))}
        every = np.ones((len(rows), 1))
        for metric, upper, lower in ((name, hit[:, None], every), (f"{name}_macro", groups * hit[:, None], groups)):
            draws = bootstrap.resampled_ratios(upper, lower, seed=options.seed, resamples=options.resamples)
            low, high = bootstrap.interval(np.nanmean(draws, axis=1))
            intervals[metric] = (100 * low, 100 * high)
    return [
        Record(
            task="cvqa",
            metric="local",
            value=values["local"],
            n=len(rows),
            values=values,
            intervals=intervals,
            per_group={
                str(subset): _part({name: hit[place[rows] == number] for name, hit in hits.items()})
                for number, subset in enumerate(subsets)
            },
            left_out=left_out,
            settings={"truncated_rows": cut, "subsets": len(subsets)},
            fingerprint=fingerprint(pictures),
        )
    ]


def choose(images: Floats, texts: Sequence[Sequence[str]], features: Features) -> Ints:
    """Which of its four texts is nearest to each image [n, d]; of equals the first. int64 [n]."""
    found = [np.zeros(0, np.int64)]
    for first in range(0, len(images), ROWS):
        some = texts[first : first + ROWS]
        embedded = embed_texts(features, [text for four in some for text in four])
        # Row by row, so that equal texts have equal products and tie.
        products = embedded * np.repeat(images[first : first + ROWS], OPTIONS, axis=0)
        found.append(products.sum(axis=1).reshape(-1, OPTIONS).argmax(axis=1))
    return np.concatenate(found)


def read_texts(table: Rows, name: str) -> list[list[str]]:
    """Question and option, joined by a space, four a row.

    Raises:
        DataError: a row has not four options.
    """
    question, options = COLUMNS[name]
    found = []
    for row, (asked, entry) in enumerate(zip(table.column(question), table.column(options), strict=True)):
        four = _options(entry)
        if len(four) != OPTIONS:
            raise DataError(f"{table.folder}: row {row} has {len(four)} {options!r}, not {OPTIONS}: {entry!r:.80}.")
        found.append([f"{asked} {option}" for option in four])
    return found


def _options(entry: Any) -> list[str]:
    """A list of texts; older revisions hold it as the text of a Python list."""
    if isinstance(entry, str):
        try:
            entry = ast.literal_eval(entry)
        except (ValueError, SyntaxError):
            return []
    return [str(each) for each in entry] if isinstance(entry, list | tuple) else []


def subset_name(subset: str) -> str:
    """`('Korean', 'South Korea')` -> `Korean, South Korea`."""
    try:
        parts = ast.literal_eval(subset)
    except (ValueError, SyntaxError):
        return str(subset)
    return ", ".join(map(str, parts)) if isinstance(parts, list | tuple) else str(parts)


def _part(hits: dict[str, Hits]) -> Part:
    part: dict[str, float] = {"n": len(hits["local"])}
    for name, hit in hits.items():
        if len(hit):
            low, high = wilson_interval(hit)
            part |= {name: 100 * float(hit.mean()), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
    return part


BENCHMARKS = (
    Benchmark(
        name="cvqa",
        suites=("cvqa", "paper"),
        metrics=("en", "local"),
        folders=(("cvqa",),),
        n=10_374,
        source=Source(
            names="afaji/cvqa on Hugging Face, split test",
            layout="Parquet files (data/test-*.parquet) or saved to disk (test/state.json, *.arrow)",
            licence="each image's own, told in its column License; mostly CC BY-SA",
        ),
        score=score,
    ),
)
