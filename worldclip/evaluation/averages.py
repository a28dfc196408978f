"""Averages over the tasks of a suite, under names that say when some are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from worldclip.evaluation.bootstrap import Interval
from worldclip.evaluation.records import Record
from worldclip.evaluation.suites import datacomp, slip

#: The paper's DC-37 is in no public code; DataComp's 38 without this task is the best-supported reading.
NOT_IN_DC37 = "datacomp/misc/winogavil"

#: Top-1 on ImageNet, in percent, of a model that is above chance on every task of this many classes; with fewer
#: classes (CLEVR, KITTI, PatchCamelyon) good models are near chance as well.
GOOD, MANY_CLASSES = 60.0, 10

#: DataComp's group averages, by the groups of its tasks.
GROUPS = {"imagenet": "imagenet", "shifts": "imagenet_shifts", "vtab": "vtab", "retrieval": "retrieval"}


def summaries(records: Iterable[Record], exclude: Sequence[str] = ()) -> list[Record]:
    """The suites' averages, one record a suite of which a task was scored.

    SLIP-26 is the plain mean of its 26 tasks. With fewer it is `slip_partial(n)`; where CLIP_benchmark's copies stand
    in for some it is `slip26-wds-variant`, or `slip_wds_variant_partial(n)`. DataComp's average needs all 38, DC-37 all
    but WinoGAViL; with fewer tasks it is `datacomp_partial(n)`.

    Args:
        records: of one model.
        exclude: names of tasks to leave out of all averages; their number tells that they are.
    """
    by_task = {record.task: record for record in records if record.task not in set(exclude)}
    return [*_slip(by_task), *_datacomp(by_task)]


def alarms(records: Iterable[Record]) -> list[str]:
    """Tasks near chance, of a model that knows ImageNet: their folders may be mapped to the wrong classes.

    Returns:
        A sentence a task, if the model has more than 60 % on ImageNet and less than twice chance there.
    """
    by_task = {record.task: record for record in records}
    if "imagenet" not in by_task or by_task["imagenet"].value <= GOOD:
        return []
    return [
        f"{task}: {record.value:.1f} % of {classes} classes is near chance; check what its folders are called."
        for task, record in sorted(by_task.items())
        if (classes := record.settings.get("classes", 0)) >= MANY_CLASSES
        and record.metric in ("acc1", "mean_per_class")
        and record.value < 200 / classes
    ]


def mean(records: Sequence[Record]) -> tuple[float, Interval]:
    """Mean of headline values, and its 95 % interval, as of independent tasks with theirs."""
    value = float(np.mean([record.value for record in records]))
    half = math.sqrt(sum(_half_width(record) ** 2 for record in records)) / len(records)
    return value, (value - half, value + half)


def _half_width(record: Record) -> float:
    low, high = record.intervals.get(record.metric, (record.value, record.value))
    return (high - low) / 2


def _slip(by_task: Mapping[str, Record]) -> list[Record]:
    own = [by_task[f"slip/{task.key}"] for task in slip.TASKS if f"slip/{task.key}" in by_task]
    found = [_average(f"slip_partial({len(own)})" if len(own) < len(slip.TASKS) else "slip26", own)] if own else []
    either = [by_task.get(f"slip/{task.key}", by_task.get(f"slip-wds/{task.key}")) for task in slip.TASKS]
    mixed = [record for record in either if record is not None]
    if any(record.task.startswith("slip-wds/") for record in mixed):
        whole = len(mixed) == len(slip.TASKS)
        found.append(_average("slip26-wds-variant" if whole else f"slip_wds_variant_partial({len(mixed)})", mixed))
    return found


def _datacomp(by_task: Mapping[str, Record]) -> list[Record]:
    present = {task.record: task for task in datacomp.TASKS if task.record in by_task}
    if not present:
        return []
    means = {f"datacomp_partial({len(present)})": [*present]}
    if len(present) == len(datacomp.TASKS):
        means = {"dc38": [*present]}
    if present.keys() | {NOT_IN_DC37} == {task.record for task in datacomp.TASKS}:
        means["dc37"] = [name for name in present if name != NOT_IN_DC37]
    for group, name in GROUPS.items():
        of_group = [task.record for task in datacomp.TASKS if task.group == group]
        if all(each in present for each in of_group):
            means[name] = of_group
    found = {name: mean([by_task[each] for each in names]) for name, names in means.items()}
    records = [by_task[name] for name in present]
    return [
        Record(
            task="datacomp38",
            metric=next(iter(means)),
            value=next(iter(found.values()))[0],
            n=len(records),
            values={name: value for name, (value, _) in found.items()},
            intervals={name: interval for name, (_, interval) in found.items()},
            per_group={record.task: {"n": record.n, record.metric: record.value} for record in records},
            settings={"tasks": len(records), "complete": _complete(records) and len(records) == len(datacomp.TASKS)},
        )
    ]


def _average(name: str, records: Sequence[Record]) -> Record:
    value, interval = mean(records)
    return Record(
        task=name,
        metric="mean",
        value=value,
        n=len(records),
        values={"mean": value},
        intervals={"mean": interval},
        per_group={record.task: {"n": record.n, record.metric: record.value} for record in records},
        settings={"tasks": len(records), "complete": _complete(records) and name == "slip26"},
    )


def _complete(records: Sequence[Record]) -> bool:
    return all(record.settings.get("complete", True) for record in records)
