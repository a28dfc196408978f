"""Averages over the tasks of a suite, under names that say when some are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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
    """The averages of SLIP and of DataComp, one record each (`slip`, `datacomp`) if one of its tasks was scored.

    SLIP-26 is the plain mean of its 26 tasks. With fewer it is `slip_partial(n)`; where CLIP_benchmark's copies stand
    in for some it is `slip26-wds-variant`, or `slip_wds_variant_partial(n)`. DataComp's average needs all 38, DC-37 all
    but WinoGAViL; with fewer tasks it is `datacomp_partial(n)`.

    Args:
        records: of one model.
        exclude: names of tasks to leave out of all averages. An average lacks them as it lacks those that are missing,
            and tells which of its own they are (setting `exclude`).
    """
    by_task = {record.task: record for record in records if record.task not in set(exclude)}
    found = [*_slip(by_task), *_datacomp(by_task)]
    own = {each.task: sorted(name for name in exclude if _suite_of(name) == each.task) for each in found}
    return [
        replace(each, settings={**each.settings, "exclude": own[each.task]}) if own[each.task] else each
        for each in found
    ]


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


def _suite_of(task: str) -> str:
    return task.partition("/")[0].removesuffix("-wds")


def _slip(by_task: Mapping[str, Record]) -> list[Record]:
    own = [by_task[f"slip/{task.key}"] for task in slip.TASKS if f"slip/{task.key}" in by_task]
    either = [by_task.get(f"slip/{task.key}", by_task.get(f"slip-wds/{task.key}")) for task in slip.TASKS]
    mixed = [record for record in either if record is not None]
    means: dict[str, list[Record]] = {}
    if own:
        means["slip26" if len(own) == len(slip.TASKS) else f"slip_partial({len(own)})"] = own
    if len(mixed) > len(own):
        whole = len(mixed) == len(slip.TASKS)
        means["slip26-wds-variant" if whole else f"slip_wds_variant_partial({len(mixed)})"] = mixed
    return [_summary("slip", means, complete="slip26" in means)] if means else []


def _datacomp(by_task: Mapping[str, Record]) -> list[Record]:
    present = [by_task[task.record] for task in datacomp.TASKS if task.record in by_task]
    if not present:
        return []
    whole = len(present) == len(datacomp.TASKS)
    means = {"dc38" if whole else f"datacomp_partial({len(present)})": present}
    without = [record for record in present if record.task != NOT_IN_DC37]
    if len(without) == len(datacomp.TASKS) - 1:
        means["dc37"] = without
    for group, name in GROUPS.items():
        names = [task.record for task in datacomp.TASKS if task.group == group]
        if all(each in by_task for each in names):
            means[name] = [by_task[each] for each in names]
    return [_summary("datacomp", means, complete=whole)]


def _summary(task: str, means: Mapping[str, Sequence[Record]], *, complete: bool) -> Record:
    """One record of several means; the first is the headline."""
    found = {name: mean(records) for name, records in means.items()}
    records = next(iter(means.values()))
    return Record(
        task=task,
        metric=next(iter(means)),
        value=next(iter(found.values()))[0],
        n=len(records),
        values={name: value for name, (value, _) in found.items()},
        intervals={name: interval for name, (_, interval) in found.items()},
        per_group={record.task: {"n": record.n, record.metric: record.value} for record in records},
        settings={
            "tasks": len(records),
            "complete": complete and all(record.settings.get("complete", True) for record in records),
        },
    )
