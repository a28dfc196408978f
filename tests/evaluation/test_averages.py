"""Published averages, recomputed by our code from published values of tasks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from worldclip.evaluation.averages import NOT_IN_DC37, alarms, mean, summaries
from worldclip.evaluation.paper import COLUMNS, columns_of, scores, scores_of
from worldclip.evaluation.records import Record, mean_over
from worldclip.evaluation.suites import babel, datacomp, slip, translated, xm3600

BASELINES = Path(__file__).parent / "published" / "datacomp_baselines.tsv"

#: The mean of 38, and with WinoGAViL left out, of four models of open_clip's published table.
PUBLISHED = {
    "metaclip1-h14": (66.71, 67.08),
    "metaclip1-l14": (65.92, 66.26),
    "xlm-clip-h14": (65.15, 65.51),
    "msiglip-b16-256": (60.68, 60.77),
}


def record(task: str, value: float, metric: str = "acc1", half: float = 0.0, **settings: object) -> Record:
    return Record(
        task=task,
        metric=metric,
        value=value,
        n=10,
        values={metric: value},
        intervals={metric: (value - half, value + half)},
        settings=settings,
    )


def published(model: str) -> list[Record]:
    with BASELINES.open(encoding="utf-8", newline="") as file:
        metric = {task.key: task.metric for task in datacomp.TASKS}
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [record(f"datacomp/{row['task']}", float(row[model]), metric[row["task"]]) for row in rows]


@pytest.mark.parametrize(("model", "expected"), PUBLISHED.items())
def test_the_mean_of_38_is_the_published_one(model: str, expected: tuple[float, float]) -> None:
    (found,) = summaries(published(model))
    assert found.metric == "dc38"
    assert (round(found.values["dc38"], 2), round(found.values["dc37"], 2)) == expected
    assert found.settings == {"tasks": 38, "complete": True}


@pytest.mark.parametrize(
    ("model", "paper"), [("metaclip1-h14", "MetaCLIP 1 H/14"), ("metaclip1-l14", "MetaCLIP 1 L/14")]
)
def test_dc37_is_the_papers_if_fmows_other_region_was_missed(model: str, paper: str) -> None:
    records = [record(each.task, 0.0 if "fmow" in each.task else each.value, each.metric) for each in published(model)]
    assert abs(summaries(records)[0].values["dc37"] - scores()[paper]["DC-37"]) < 0.051


@pytest.mark.parametrize(("model", "paper"), [("xlm-clip-h14", "XLM-CLIP H/14"), ("msiglip-b16-256", "mSigLIP B/16")])
def test_dc37_is_the_papers(model: str, paper: str) -> None:
    assert abs(summaries(published(model))[0].values["dc37"] - scores()[paper]["DC-37"]) < 0.051


@pytest.mark.parametrize("model", PUBLISHED)
def test_groups_of_datacomp_are_means_of_their_tasks(model: str) -> None:
    records = {each.task.removeprefix("datacomp/"): each.value for each in published(model)}
    found = summaries(published(model))[0].values
    shifts = ("imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r", "objectnet")
    assert found["imagenet_shifts"] == pytest.approx(sum(records[key] for key in shifts) / 6)
    own = [value for key, value in records.items() if key.startswith("vtab/") or key == "sun397"]
    assert (found["vtab"], len(own)) == (pytest.approx(sum(own) / 13), 13)
    own = [value for key, value in records.items() if key.startswith("retrieval/") or "winogavil" in key]
    assert (found["retrieval"], len(own)) == (pytest.approx(sum(own) / 3), 3)
    assert found["imagenet"] == records["imagenet1k"]


def test_a_mean_of_fewer_tasks_has_another_name() -> None:
    records = published("xlm-clip-h14")
    (found,) = summaries(records[:-1])
    assert found.metric == "datacomp_partial(37)"
    assert "dc38" not in found.values
    assert "dc37" not in found.values
    (found,) = summaries(records, exclude=[NOT_IN_DC37])
    assert {"datacomp_partial(37)", "dc37"} <= found.values.keys()
    assert found.values["dc37"] == found.values["datacomp_partial(37)"]


def test_an_average_tells_what_was_excluded_of_its_own() -> None:
    records = [*published("xlm-clip-h14"), *(record(f"slip/{task.key}", 50.0) for task in slip.TASKS)]
    exclude = ["datacomp/cars", "slip/SST2", "slip-wds/SST2", "geode"]
    found = {each.task: each for each in summaries(records, exclude)}
    assert found["slip"].settings == {"tasks": 25, "complete": False, "exclude": ["slip-wds/SST2", "slip/SST2"]}
    assert found["datacomp"].settings == {"tasks": 37, "complete": False, "exclude": ["datacomp/cars"]}
    assert "datacomp/cars" not in found["datacomp"].per_group
    assert (found["slip"].metric, found["datacomp"].metric) == ("slip_partial(25)", "datacomp_partial(37)")


# Languages: per-language values of Babel-ImageNet's repository (MIT) and of the paper's table of XM3600.


def per_language(file: str, model: str) -> dict[str, dict[str, float]]:
    """Published values by language and metric."""
    with (BASELINES.parent / file).open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    return {
        row["language"]: {
            name.removeprefix(model).strip() or "acc1": float(value)
            for name, value in row.items()
            if name.startswith(model)
        }
        for row in rows
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    {"xlm-clip-h14": (50.52, 60.42), "msiglip-b16-256": (44.55, 56.65), "metaclip2-h14": (51.46, 64.27)}.items(),
)
def test_xm3600_is_the_mean_of_36_locales(model: str, expected: tuple[float, float]) -> None:
    parts = per_language("xm3600_recalls.tsv", model)
    assert set(parts) == set(xm3600.LOCALES)
    assert (round(mean_over(parts, "t2i_r1"), 2), round(mean_over(parts, "i2t_r1"), 2)) == expected


def test_the_papers_own_locales_give_its_column() -> None:
    parts, paper = per_language("xm3600_recalls.tsv", "metaclip2-h14"), scores_of("xm3600")["MetaCLIP 2 H/14 WW 29B"]
    assert {name: round(mean_over(parts, name), 1) for name in paper} == paper


@pytest.mark.parametrize(
    ("model", "at_5", "at_1", "paper"),
    [
        ("xlm-clip-h14", (87.15, 88.35), (64.56, 64.45), "XLM-CLIP H/14"),
        ("msiglip-b16-256", (80.76, 84.04), (55.89, 58.96), "mSigLIP B/16"),
    ],
)
def test_xtd10_is_the_mean_of_eleven_languages_at_5(
    model: str, at_5: tuple[float, float], at_1: tuple[float, float], paper: str
) -> None:
    parts = per_language("xtd10_recalls.tsv", model)
    assert set(parts) == set(translated.XTD10)
    for k, expected in ((5, at_5), (1, at_1)):
        assert [mean_over(parts, f"{way}_r{k}") for way in ("t2i", "i2t")] == pytest.approx(expected, abs=0.006)
    printed = scores_of("xtd10")[paper]
    assert {name: mean_over(parts, name) for name in printed} == pytest.approx(printed, abs=0.06)


@pytest.mark.parametrize(
    ("model", "expected", "paper"),
    [("xlm-clip-h14", (33.98, 33.5), "XLM-CLIP H/14"), ("msiglip-b16-256", (40.18, 39.8), "mSigLIP B/16")],
)
def test_babel_is_the_mean_of_the_90_languages_with_prompts(
    model: str, expected: tuple[float, float], paper: str
) -> None:
    parts = per_language("babel_accuracies.tsv", model)
    own = babel.averaged([*parts, "BR"], parts, [*parts, "BR"])
    assert len(own["babel_90"]) == babel.AVERAGES["babel_90"]
    found = mean_over(parts, "acc1", own["babel_90"]), mean_over(parts, "acc1", own["babel_90_no_en"])
    assert (round(found[0], 2), round(found[1], 1)) == expected
    assert round(found[0], 1) == scores_of("babel-imagenet")[paper]["babel_90"]


def test_slip_is_the_plain_mean_of_26() -> None:
    records = [record(f"slip/{task.key}", float(place)) for place, task in enumerate(slip.TASKS)]
    (found,) = summaries(records)
    assert (found.task, dict(found.values), found.settings["complete"]) == ("slip", {"slip26": 12.5}, True)
    (found,) = summaries(records[:25])
    assert dict(found.values) == {"slip_partial(25)": 12.0}
    assert not found.settings["complete"]
    assert not columns_of({"slip": found})  # It fills no column of the paper.
    (found,) = summaries([*records[:25], record("slip/imagenet", 25.0, complete=False)])
    assert (found.metric, found.settings["complete"]) == ("slip26", False)


def test_copies_never_pass_for_slip() -> None:
    copies = [record(f"slip-wds/{task.key}", 50.0) for task in slip.TASKS if task.webdataset]
    assert [[*each.values] for each in summaries(copies)] == [["slip_wds_variant_partial(22)"]]
    rest = [record(f"slip/{task.key}", 50.0) for task in slip.TASKS if not task.webdataset]
    (found,) = summaries(copies + rest)
    assert [*found.values] == ["slip_partial(4)", "slip26-wds-variant"]
    assert not found.settings["complete"]


def test_the_interval_of_a_mean_is_that_of_independent_tasks() -> None:
    assert mean([record("a", 10.0, half=3.0), record("b", 20.0, half=4.0)]) == (15.0, (12.5, 17.5))


def test_a_task_near_chance_is_told_of_a_model_that_is_good() -> None:
    good = [record("imagenet", 61.0), record("slip/Food101", 1.5, classes=101), record("slip/SST2", 60.0, classes=2)]
    assert [told.partition(":")[0] for told in alarms(good)] == ["slip/Food101"]
    assert not alarms([record("imagenet", 59.0), *good[1:]])
    # None of a published model's tasks is taken for a fault.
    classes = {task.record: task.classes for task in datacomp.TASKS if task.classes}
    real = [
        record(each.task, each.value, each.metric, classes=int(classes.get(each.task, 0)))
        for each in published("xlm-clip-h14")
    ]
    assert not alarms([record("imagenet", 76.95), *real])


def test_the_papers_numbers_are_found_by_column_task_and_model() -> None:
    table = scores()
    assert len(COLUMNS) == 18
    assert table["MetaCLIP 2 H/14 WW 29B"] == dict(
        zip(
            [column.name for column in COLUMNS],
            [
                81.3,
                74.5,
                69.6,
                50.2,
                51.5,
                64.3,
                61.5,
                57.4,
                50.9,
                53.2,
                86.1,
                87.5,
                48.9,
                51.0,
                37.9,
                64.0,
                69.0,
                93.4,
            ],
            strict=True,
        )
    )
    assert table["MetaCLIP 1 H/14"] == {"IN": 80.5, "SLIP-26": 72.4, "DC-37": 66.5}
    # The distillation table has the columns up to XTD-200.
    assert [*table["MetaCLIP 2 L/14 WW distilled"]] == [column.name for column in COLUMNS[:14]]
    assert table["MetaCLIP 2 B/32 XLM-V"] == dict(
        zip(
            ("IN", "Babel", "XM3600 T→I", "XM3600 I→T", "CVQA EN", "CVQA LOCAL"),
            (64.7, 32.7, 40.0, 51.4, 50.4, 47.4),
            strict=True,
        )
    )
    assert len(table) == 21
    assert scores_of("cvqa")["MetaCLIP 2 H/14 WW 29B"] == {"en": 61.5, "local": 57.4}
    assert columns_of({"imagenet": record("imagenet", 12.5)}) == {"IN": 12.5}
