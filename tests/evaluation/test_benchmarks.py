"""Every benchmark on a miniature in its true layout, against the plain scorers of `brute`."""

from __future__ import annotations

from pathlib import Path

import layouts_of as layouts
import pytest
from miniature import Miniature, write

from worldclip.errors import MissingData
from worldclip.evaluation.benchmarks import BENCHMARKS, SUITES, Options, locate, run
from worldclip.evaluation.suites import datacomp, slip
from worldclip.evaluation.suites.imagenet import read_facts

#: All 80 templates are tried where ImageNet itself is.
TEMPLATES_80 = [row["template"] for row in read_facts("imagenet_templates.tsv")]

DATACOMP = {task.record: task for task in datacomp.TASKS}
SLIP = {f"slip/{task.key}": task for task in slip.TASKS}
SLIP_WDS = {f"slip-wds/{task.key}": task for task in slip.TASKS if task.webdataset}


def build(name: str, data: Path, pngs: list[bytes]) -> Miniature:
    """The miniature of a benchmark."""
    few = layouts.FEW_TEMPLATES
    wnid = layouts.WNIDS.__getitem__
    match name:
        case "imagenet":
            return layouts.imagenet_like(data, pngs, name, "imagenet/val", wnid, TEMPLATES_80)
        case "imagenetv2":
            return layouts.imagenet_like(data, pngs, name, f"{name}/imagenetv2-matched-frequency-format-val", str, few)
        case "imagenet_sketch":
            return layouts.imagenet_like(data, pngs, name, f"{name}/sketch", wnid, few)
        case "imagenet-a" | "imagenet-r" | "imagenet-o":
            return layouts.imagenet_like(data, pngs, name, name, wnid, few, subset=True)
        case "objectnet":
            return layouts.objectnet(data, pngs, few)
        case "slip/imagenet":
            return layouts.imagenet_like(data, pngs, name, "imagenet/val", wnid, few)
        case "babel-imagenet":
            return layouts.babel(data, pngs)
        case "xm3600":
            return layouts.xm3600(data, pngs)
        case "cvqa":
            return layouts.cvqa(data, pngs)
        case "flickr30k-200" | "xtd200":
            return layouts.flores(data, pngs, name)
        case "xtd10":
            return layouts.xtd10(data, pngs)
        case "dollar-street":
            return layouts.dollar_street(data, pngs, few)
        case "geode":
            return layouts.geode(data, pngs, few)
        case "gldv2":
            return layouts.gldv2(data, pngs)
        case "alignment":
            return layouts.pairs(data, pngs)
        case "datacomp/misc/winogavil":
            return layouts.winogavil(data, pngs, DATACOMP[name])
        case _ if name in SLIP:
            return layouts.slip_task(data, pngs, SLIP[name])
        case _ if name in SLIP_WDS:
            folder = BENCHMARKS[name].folders[0][0]
            return layouts.webdataset(data, pngs, folder, name, name, 2 if "SST2" in name else 7)
        case _ if DATACOMP[name].metric == "mean_r1":
            return layouts.caption_task(data, pngs, DATACOMP[name], as_shards="flickr" in name)
        case _:
            task = DATACOMP[name]
            classes = min(int(task.classes), 7)
            return layouts.webdataset(data, pngs, BENCHMARKS[name].folders[0][0], name, task.key, classes)


def options(data: Path) -> Options:
    """Few templates and few resamples."""
    return Options(resamples=20, templates=write(data / "templates.txt", "\n".join(layouts.FEW_TEMPLATES)))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if not name.startswith("fewshot/")])
def test_a_benchmark_scores_what_plain_python_scores(name: str, tmp_path: Path, pngs: list[bytes]) -> None:
    miniature = build(name, tmp_path, pngs)
    chosen = Options(resamples=20) if name == "imagenet" else options(tmp_path)
    records = run(BENCHMARKS[name], tmp_path, miniature.eyes, options=chosen)
    expected = miniature.expected()
    assert {record.task for record in records} == set(expected)
    for record in records:
        assert dict(record.values) == pytest.approx(expected[record.task] | {}, abs=1e-4), record.task
        assert record.value == record.values[record.metric]
        assert record.metric in BENCHMARKS[name].metrics or name == "babel-imagenet"
        assert not record.settings["complete"] or BENCHMARKS[name].n is None
        for metric, (low, high) in record.intervals.items():
            assert low <= high, metric
            assert low >= -1e-9 or record.task == "alignment"
        # It is no empty test: some are right, some are wrong.
        telling = "worst_group_acc1_no_other" if "fmow" in name else record.metric
        assert 0 < record.values[telling] < 100, record.task


@pytest.mark.parametrize("name", BENCHMARKS)
def test_data_that_is_not_there_is_told_with_where_to_get_it(name: str, tmp_path: Path) -> None:
    benchmark = BENCHMARKS[name]
    with pytest.raises(MissingData) as told:
        locate(benchmark, tmp_path)
    assert benchmark.name in str(told.value)
    assert all(
        part in str(told.value) for part in (*benchmark.folders[0], benchmark.source.names, benchmark.source.licence)
    )


def test_the_suites_are_those_of_the_paper() -> None:
    assert {suite: len(names) for suite, names in SUITES.items()} == {
        "imagenet": 7,
        "slip26": 26,
        "slip26-wds-variant": 22,
        "datacomp38": 38,
        "babel-imagenet": 1,
        "xm3600": 1,
        "cvqa": 1,
        "flickr30k-200": 1,
        "xtd10": 1,
        "xtd200": 1,
        "dollar-street": 1,
        "geode": 1,
        "gldv2": 1,
        "geography": 7,
        "fewshot": 4,
        "alignment": 1,
        "paper": len(BENCHMARKS) - 22,
    }


def test_the_documentation_names_every_benchmark_its_folders_and_metrics() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, benchmark in BENCHMARKS.items():
        if name.startswith("slip-wds/"):
            assert benchmark.folders[0][1] in text
            continue
        assert benchmark.metrics[0] in rows[name], name
        assert benchmark.n is None or f"{benchmark.n:,}" in rows[name], name
        if not name.startswith("slip/"):
            assert all(f"`{folders[0]}/`" in rows[name] for folders in benchmark.folders), name
    assert all(f"`{suite}`" in text for suite in SUITES)
