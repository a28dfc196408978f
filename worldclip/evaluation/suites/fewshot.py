"""Few-shot geo-localisation (Figure 3): where a picture was taken, by a linear probe on a few pictures a place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Benchmark, Options, Score, Source
from worldclip.evaluation.metrics import Floats, Hits, Ints
from worldclip.evaluation.pictures import Features, Pictures
from worldclip.evaluation.records import Part, Record
from worldclip.evaluation.ridge import PENALTY, probe
from worldclip.evaluation.scoring import embed_pictures, fingerprint
from worldclip.evaluation.suites import geography, xm3600

#: The seed of the first draw of shots; further draws count on from it.
SHOT_SEED = 42

#: Rows of the pool that shots are drawn from, after a shuffle; the rest is for testing.
GEODE_POOL, XM3600_POOL = 20_000, 1_800

#: The picture's place, and whether it is for testing in each draw: bool [draws, n].
Split = tuple[Sequence[str], Hits]


def score_dollar_street(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Countries of Dollar Street; shots from its train part, the test part is tested."""
    parts = [geography.read_dollar_street(folders[0], part) for part in ("train", "test")]
    train, test = (len(part.rows) for part in parts)
    pictures = geography.joined("dollar-street", parts)
    places = [country for part in parts for country in part.column("country.id")]
    tested = np.tile(np.arange(train + test) >= train, (options.shot_seeds, 1))
    return [_score("fewshot/dollar-street-country", pictures, (places, tested), features, options)]


def score_geode(column: str, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Countries or regions of GeoDE."""
    found = geography.read_geode(folders[0])
    tested = shuffled(len(found.rows), GEODE_POOL, options)
    name = "fewshot/geode-region" if column == "region" else "fewshot/geode-country"
    return [_score(name, found.pictures, (found.column(column), tested), features, options)]


def score_xm3600(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Locales of the regions that XM3600's images are from."""
    data = xm3600.read(folders[0])
    if not all(data.regions):
        raise DataError(f"{folders[0]}: images have no `image/locale`; captions.jsonl has it, other layouts do not.")
    tested = shuffled(len(data.regions), XM3600_POOL, options)
    return [_score("fewshot/xm3600-locale", data.pictures, (data.regions, tested), features, options)]


def shuffled(n: int, pool: int, options: Options) -> Hits:
    """Which of n rows are tested in each draw: all but the first `pool` after a shuffle (of fewer rows, half)."""
    found = np.zeros((options.shot_seeds, n), np.bool_)
    for draw, tested in enumerate(found):
        order = np.random.default_rng(options.seed + draw).permutation(n)
        tested[order[pool if n > pool else n // 2 :]] = True
    return found


def draw_shots(places: Sequence[str], pool: Ints, shots: int, seed: int) -> Ints:
    """At most `shots` rows of each place in `pool`, as pandas draws them with `random_state=seed` in each group."""
    by_place: dict[str, list[int]] = {}
    for row in pool.tolist():
        by_place.setdefault(places[row], []).append(row)
    chosen: list[int] = []
    for _, rows in sorted(by_place.items()):
        random = np.random.RandomState(seed)
        chosen += [rows[at] for at in random.choice(len(rows), min(shots, len(rows)), replace=False)]
    return np.array(chosen, np.int64)


def hits_of(features: Floats, places: Sequence[str], shots: Ints, test: Ints) -> Hits:
    """Whether the probe tells the place of each test row; one whose place has no shot is missed."""
    known = sorted({places[row] for row in shots})
    number = {place: at for at, place in enumerate(known)}
    found = probe(features[shots], np.array([number[places[row]] for row in shots]), features[test], len(known))
    hits: Hits = np.array([number.get(places[row], -1) for row in test]) == found
    return hits


def _score(task: str, pictures: Pictures, split: Split, features: Features, options: Options) -> Record:
    images, rows, left_out = embed_pictures(features, pictures)
    places, tested = [split[0][row] for row in rows], split[1][:, rows]
    accuracies = np.zeros((len(tested), len(options.shots)))
    hits, asked = np.zeros((2, len(rows), len(options.shots)), np.float32)
    for draw, chosen in enumerate(tested):
        pool, test = np.flatnonzero(~chosen), np.flatnonzero(chosen)
        if not len(pool) or not len(test):
            raise DataError(f"{task}: {len(pool)} images to learn from and {len(test)} to test; needs some of both.")
        for place, shots in enumerate(options.shots):
            drawn = draw_shots(places, pool, shots, SHOT_SEED + draw)
            hit = hits_of(images, places, drawn, test)
            accuracies[draw, place] = hit.mean()
            hits[test, place] += hit
            asked[test, place] += 1
    draws = bootstrap.resampled_ratios(hits, asked, seed=options.seed, resamples=options.resamples)
    values: dict[str, float] = {}
    intervals: dict[str, bootstrap.Interval] = {}
    for place, shots in enumerate(options.shots):
        name = f"acc1_{shots}shot"
        values[name] = 100 * float(accuracies[:, place].mean())
        values[f"{name}_sd"] = 100 * float(accuracies[:, place].std(ddof=1)) if len(accuracies) > 1 else 0.0
        low, high = bootstrap.interval(draws[:, place])
        intervals[name] = (100 * low, 100 * high)
    return Record(
        task=task,
        metric=f"acc1_{options.shots[-1]}shot",
        value=values[f"acc1_{options.shots[-1]}shot"],
        n=len(rows),
        values=values,
        intervals=intervals,
        per_group=_per_place(places, hits[:, -1], asked[:, -1]),
        left_out=left_out,
        settings={"draws": len(tested), "shots": list(options.shots), "penalty": PENALTY, "seed": options.seed},
        fingerprint=fingerprint(pictures),
    )


def _per_place(places: Sequence[str], hits: Floats, asked: Floats) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for place in sorted(set(places)):
        own = np.array([each == place for each in places])
        if asked[own].any():
            found[place] = {"n": int(asked[own].sum()), "acc1": 100 * float(hits[own].sum() / asked[own].sum())}
    return found


def _benchmark(name: str, folders: tuple[str, ...], source: Source, n: int, score: Score) -> Benchmark:
    return Benchmark(
        name=f"fewshot/{name}",
        suites=("fewshot", "geography", "paper"),
        metrics=("acc1_25shot", "acc1_10shot", "acc1_5shot"),
        folders=(folders,),
        n=n,
        source=source,
        score=score,
    )


BENCHMARKS = (
    _benchmark(
        "dollar-street-country", geography.DOLLAR_STREET_FOLDERS, geography.DOLLAR_STREET, 21_536, score_dollar_street
    ),
    _benchmark("geode-country", geography.GEODE_FOLDERS, geography.GEODE, 61_940, partial(score_geode, "ip_country")),
    _benchmark("geode-region", geography.GEODE_FOLDERS, geography.GEODE, 61_940, partial(score_geode, "region")),
    _benchmark("xm3600-locale", xm3600.FOLDERS, xm3600.SOURCE, 3_600, score_xm3600),
)
