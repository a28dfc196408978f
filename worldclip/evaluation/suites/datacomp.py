"""DataComp's 38 tasks: WebDatasets with their own names and templates, two caption sets, and WinoGAViL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.layouts import read_rows, read_shards
from worldclip.evaluation.pictures import Features, Pictures, from_table
from worldclip.evaluation.records import Record
from worldclip.evaluation.scores import best, jaccard
from worldclip.evaluation.scoring import Captioned, classify, embed_pictures, embed_texts, fingerprint, retrieve
from worldclip.evaluation.suites.facts import read_facts
from worldclip.evaluation.suites.webdataset import is_webdataset, labelled, read_labelled

#: WILDS' names of FMoW's regions, by number. The last has 4 images; DataComp counts it, and so do we.
FMOW_REGIONS, FMOW_OTHER = ("Asia", "Europe", "Africa", "Americas", "Oceania", "Other"), "Other"

#: Tasks whose groups are told by the first column of their metadata, and the names of its numbers where known.
GROUPS: Mapping[str, Sequence[str]] = {
    "wilds/fmow": FMOW_REGIONS,
    "fairness/dollar_street": (),
    "fairness/geode": (),
}

#: Instances of WinoGAViL with fewer candidates do not count.
WINOGAVIL_CANDIDATES = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the 38."""

    key: str  #: DataComp's name
    name: str  #: how its result tables call it
    n: int
    classes: str
    metric: str
    group: str  #: imagenet, shifts, vtab, retrieval, or none

    @property
    def record(self) -> str:
        """The task's name in records."""
        return f"datacomp/{self.key}"


TASKS = tuple(
    Task(
        key=row["key"],
        name=row["name"],
        n=int(row["n"]),
        classes=row["classes"],
        metric=row["metric"],
        group=row["group"],
    )
    for row in read_facts("datacomp_tasks.tsv")
)


def score_classes(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Zero-shot classification of a WebDataset, with groups where the task has some."""
    folder = folders[0]
    if task.key not in GROUPS:
        return [classify(task.record, read_labelled(folder), features, options, metric=task.metric)]
    shards = read_shards(folder)
    names = GROUPS[task.key]
    numbers = shards.metadata()[:, 0].astype(np.int64)
    groups = [names[number] if 0 <= number < len(names) else str(number) for number in numbers.tolist()]
    other = FMOW_OTHER if task.key == "wilds/fmow" else None
    data = replace(labelled(folder, shards), groups=groups, other_group=other)
    return [classify(task.record, data, features, options, metric=task.metric)]


def score_captions(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Retrieval both ways with all captions of an image; the mean of both at k = 1 counts."""
    pictures, captions = read_captioned(folders[0])
    data = Captioned(pictures=pictures, captions={"en": captions})
    return [retrieve(task.record, data, features, options, metric=task.metric)]


def read_captioned(folder: Path) -> tuple[Pictures, list[list[str]]]:
    """Pictures with all their captions: a WebDataset with `.txt`, or a table with columns `image` and `caption`.

    Raises:
        MissingData: neither is there.
        DataError: it is not what it should be.
    """
    if is_webdataset(folder):
        shards = read_shards(folder)
        return shards.pictures, shards.captions()
    rows = read_rows(folder)
    captions = [[each] if isinstance(each, str) else list(each) for each in rows.column("caption")]
    return rows.pictures(folder.name, "image", [str(row) for row in range(len(rows))]), captions


def score_winogavil(task: Task, folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Choose the associations of a cue: as many candidates of highest cosine as there are; mean Jaccard index."""
    rows = read_rows(folders[0])
    cues, candidates, associations = (rows.column(name) for name in ("cue", "candidates", "associations"))
    cells = [(row, place) for row, each in enumerate(candidates) for place in range(len(each))]
    keys = [f"{row}/{place}" for row, place in cells]
    pictures = from_table(folders[0].name, keys, rows.files, "candidate_images", cells)
    images, readable, left_out = embed_pictures(features, pictures)
    texts = embed_texts(features, [winogavil_prompt(cue) for cue in cues])
    ends = np.searchsorted(readable, np.cumsum([0, *map(len, candidates)]))
    scores = np.full(len(rows), np.nan)  # of instances whose images can all be read
    for row, (each, true) in enumerate(zip(candidates, associations, strict=True)):
        own = images[ends[row] : ends[row + 1]]
        if len(own) == len(each):
            right = {place for place, name in enumerate(each) if name in set(true)}
            scores[row] = jaccard(best(own @ texts[row], len(right)).tolist(), right)
    sizes = np.array([len(each) for each in candidates])
    chosen = {
        task.metric: sizes >= WINOGAVIL_CANDIDATES,
        "jaccard_5_6": sizes < WINOGAVIL_CANDIDATES,
        "jaccard": sizes > 0,
    }
    kept = {name: scores[mask & ~np.isnan(scores)] for name, mask in chosen.items()}
    kept = {name: values for name, values in kept.items() if len(values)}
    if task.metric not in kept:
        raise DataError(f"{folders[0]}: no instance with {WINOGAVIL_CANDIDATES} candidates or more.")
    intervals = {}
    for name, values in kept.items():
        ones = np.ones((len(values), 1))
        draws = bootstrap.resampled_ratios(values[:, None], ones, seed=options.seed, resamples=options.resamples)
        low, high = bootstrap.interval(draws[:, 0])
        intervals[name] = (100 * low, 100 * high)
    return [
        Record(
            task=task.record,
            metric=task.metric,
            value=100 * float(kept[task.metric].mean()),
            n=int((~np.isnan(scores)).sum()),
            left_out=left_out,
            values={name: 100 * float(values.mean()) for name, values in kept.items()},
            intervals=intervals,
            settings={"counted": len(kept[task.metric])},
            fingerprint=fingerprint(pictures),
        )
    ]


def winogavil_prompt(cue: str) -> str:
    """`An` before a, e, i, o, u, else `A`; the cue in lower case."""
    cue = cue.lower()
    return f"{'An' if cue.startswith(tuple('aeiou')) else 'A'} {cue}"


_SCORES = {"mean_r1": score_captions, "jaccard_10_12": score_winogavil}


def _folders(task: Task) -> tuple[str, ...]:
    name = task.key.removeprefix("fairness/").replace("/", "-")
    plain = task.key.rpartition("/")[2]
    also = {
        "Flickr": ("wds_flickr30k_test", "wds_flickr30k"),
        "MSCOCO": ("wds_mscoco_captions_test", "wds_mscoco_captions"),
    }
    return (f"wds_{name}_test", f"wds_{name}", *also.get(task.name, ()), *((plain,) if task.metric in _SCORES else ()))


def _source(task: Task) -> Source:
    if task.metric in _SCORES:
        return Source(
            names=f"nlphuji/{task.key.rpartition('/')[2]} on Hugging Face, its Parquet branch",
            layout="Parquet or saved to disk, columns "
            + ("cue, candidates, candidate_images, associations" if "wino" in task.key else "image, caption"),
            licence="CC BY 4.0" if "wino" in task.key else "images of Flickr users; captions CC BY 4.0",
        )
    return Source(
        names=f"djghosh/{_folders(task)[0]} on Hugging Face",
        layout="WebDataset: classnames.txt, zeroshot_classification_templates.txt, test/nshards.txt, test/*.tar",
        licence="each data set's own",
    )


BENCHMARKS = tuple(
    Benchmark(
        name=task.record,
        suites=("datacomp38", "paper"),
        metrics=(task.metric,),
        folders=(_folders(task),),
        n=task.n,
        source=_source(task),
        score=partial(_SCORES.get(task.metric, score_classes), task),
    )
    for task in TASKS
)
