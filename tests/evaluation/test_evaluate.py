"""`worldclip evaluate --suite`, `--compare` and `worldclip check`, by the real commands on small real data sets."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_folders
import numpy as np
import pytest
from click.testing import CliRunner, Result
from model_folders import LABELS, picture
from namespace import UNSHARE, cannot_unshare

from worldclip.cli import main
from worldclip.evaluation import evaluate
from worldclip.evaluation.compare import compare, compare_languages
from worldclip.evaluation.records import Record, read_record, write_record
from worldclip.model.encoder import Encoder
from worldclip.storage import read_json


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folders.save("metaclip2", tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XM3600 with twelve images in two locales, GeoDE with twelve in two regions."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("xm3600/images", "geode/images"):
        (folder / name).mkdir(parents=True)
    with open(folder / "xm3600" / "captions.jsonl", "w", encoding="utf-8") as file:
        for at in range(12):
            picture(3 * at, (60 + at, 48)).save(folder / "xm3600" / "images" / f"{at:016x}.jpg")
            row: dict[str, Any] = {"image/key": f"{at:016x}", "image/locale": "en"}
            # Only words that the small tokenizer knows: others would be one token and tie.
            one, two, three = LABELS[at % 8], LABELS[at * 5 % 7], LABELS[at // 2]
            row["en"] = {"caption": [f"{one} {two}", f"{three} {one} {three}"]}
            row["th"] = {"caption": [f"{two} {one} {two}"]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    with open(folder / "geode" / "index.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["object", "region", "ip_country", "file_path"])
        for at in range(12):
            picture(2 * at + 1, (50, 64 + at)).save(folder / "geode" / "images" / f"{at}.jpg")
            table.writerow([["hand_soap", "stove", "dog"][at % 3], ["Africa", "Europe"][at % 2], "x", f"{at}.jpg"])
    return folder


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def evaluated(model: Path, data: Path, out: Path, suite: str = "xm3600,geode,gldv2", *more: object) -> Result:
    return command("evaluate", "--model", model, "--suite", suite, "--data", data, "--out", out, *more)


@pytest.fixture(scope="module")
def first(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation."""
    out = tmp_path_factory.mktemp("out")
    done = evaluated(model, data, out)
    assert done.exit_code == 0, done.output
    return out


def test_all_that_is_there_is_scored_and_the_rest_is_told(first: Path, model: Path, data: Path) -> None:
    again = evaluated(model, data, first, "xm3600,geode,gldv2", "--json")
    assert again.exit_code == 0
    rows = json.loads(again.stdout)
    assert [row["task"] for row in rows if "task" in row] == ["geode", "xm3600", "xm3600_first_caption"]
    assert [row["missing"] for row in rows if "missing" in row] == ["gldv2"]
    assert "Layout:" in next(row["where"] for row in rows if "missing" in row)
    assert {row["task"]: row["paper"] for row in rows if "task" in row}["geode"] == 93.4
    record = read_record(first / "records" / "xm3600.json")
    assert record.settings["resize"] == "shortest"
    assert record.settings["model"] == Encoder.open(model).fingerprint
    assert not record.settings["complete"]
    assert (first / "report.html").is_file()


def test_scores_are_those_of_the_encoder(first: Path, model: Path, data: Path) -> None:
    """The road through the command, the kept features and the records, against plain loops over the embeddings."""
    encoder = Encoder.open(model)
    rows = [json.loads(line) for line in (data / "xm3600" / "captions.jsonl").read_text("utf-8").splitlines()]
    images = encoder.embed_prepared(
        [
            encoder.prepare((data / "xm3600" / "images" / f"{row['image/key']}.jpg").read_bytes(), row["image/key"])
            for row in rows
        ]
    )
    record = read_record(first / "records" / "xm3600.json")
    # Of an untrained model no caption need be right at 1: the tokenizer's training differs from run to run.
    assert any(part["t2i_r5"] > 0 for part in record.per_language.values())
    for locale in ("en", "th"):
        captions = [(at, text) for at, row in enumerate(rows) for text in row[locale]["caption"]]
        scores = images @ encoder.texts([text for _, text in captions]).T
        ranked = np.argsort(-scores, axis=0, kind="stable")
        for k in (1, 5):
            t2i = np.mean([at in ranked[:k, column] for column, (at, _) in enumerate(captions)])
            assert record.per_language[locale][f"t2i_r{k}"] == pytest.approx(100 * t2i)
        i2t = np.mean([captions[int(scores[at].argmax())][0] == at for at in range(12)])
        assert record.per_language[locale]["i2t_r1"] == pytest.approx(100 * i2t)


def test_what_is_finished_is_not_done_again(
    first: Path, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first, out)
    (out / "records" / "geode.json").unlink()
    scored = []
    real = evaluate.run

    def noted(benchmark: Any, *arguments: Any, **options: Any) -> Any:
        scored.append(benchmark.name)
        return real(benchmark, *arguments, **options)

    monkeypatch.setattr(evaluate, "run", noted)
    done = evaluated(model, data, out)
    assert done.exit_code == 0
    assert scored == ["geode", "gldv2"], "one whose record is gone, and one that is missing"
    assert "xm3600: done before" in done.stderr
    for path in (first / "records").iterdir():
        assert (out / "records" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_is_of_one_model(first: Path, model: Path, data: Path, tmp_path: Path) -> None:
    other = model_folders.save("metaclip2", tmp_path / "other", seed=1)
    for done in (evaluated(other, data, first), evaluated(model, data, first, "geode", "--resize", "squash")):
        assert done.exit_code == 2
        assert "Choose another --out" in done.stderr


def test_wrong_options_and_absent_data_end_with_two(model: Path, data: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("evaluate", "--model", model), "go with --suite"),
        (("evaluate", "--model", model, "--suite", "paper"), "--suite needs --data"),
        (("evaluate", "--suite", "imagnet", "--data", data), "there is none. Suites: "),
        (("evaluate", "--suite", " , ", "--data", data), "names no suite"),
        (("evaluate", "--exclude", "geode"), "go with --suite"),
        (
            ("evaluate", "--suite", "geode", "--data", data, "--exclude", "wino"),
            "--exclude wino: there is none. Suites: ",
        ),
        (("evaluate", "--suite", "geode", "--data", data, "--exclude", "geography"), "--exclude leaves nothing of it"),
        (("evaluate", "--model", tmp_path, "--suite", "geode", "--data", data), "not a model folder"),
        (("evaluate", "--compare", tmp_path, tmp_path), "no results there"),
    ):
        done = command(*arguments, *(() if "--compare" in arguments else ("--run", tmp_path / "run")))
        assert done.exit_code == 2, arguments
        assert said in " ".join(done.stderr.split())
    done = evaluated(model, data, tmp_path / "out", "gldv2,xtd10")
    assert done.exit_code == 2
    assert "gldv2: needs gldv2/" in done.stderr
    assert "xtd10: needs xtd10/" in done.stderr


def test_what_is_excluded_is_neither_scored_nor_averaged(first: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = evaluated(model, data, out, "paper", "--exclude", "geography,fewshot", "--exclude", "datacomp38", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert {row["task"] for row in rows if "task" in row} == {"xm3600", "xm3600_first_caption"}
    missing = {row["missing"] for row in rows if "missing" in row}
    assert not [name for name in missing if name.startswith(("geode", "gldv2", "fewshot/", "datacomp/"))]
    assert {"imagenet", "slip/Food101"} <= missing
    # Of tasks that an earlier command scored an average is made, but not of those that are left out.
    for task in ("cars", "mnist", "misc/winogavil"):
        write_record(out / "records", record(f"datacomp/{task}", 40.0 + len(task), 1.0)[f"datacomp/{task}"])
    whole = evaluated(model, data, out, "xm3600", "--json")
    part = evaluated(model, data, out, "xm3600,datacomp/cars", "--exclude", "datacomp/cars", "--json")
    values = [
        next((row["metric"], row["value"]) for row in json.loads(each.stdout) if row.get("task") == "datacomp")
        for each in (whole, part)
    ]
    assert values == [("datacomp_partial(3)", 47.67), ("datacomp_partial(2)", 49.5)]
    assert read_record(out / "records" / "datacomp.json").settings["exclude"] == ["datacomp/cars"]


def test_what_is_chosen_of_a_benchmark_is_in_its_record(first: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}.\n", encoding="utf-8")
    more = ("--geode-clean-names", "--templates", templates)
    assert evaluated(model, data, out, "geode", *more).exit_code == 0
    found = read_record(out / "records" / "geode.json")
    assert (found.settings["clean_names"], found.settings["templates"]) == (True, 1)
    assert "geode: done before" in evaluated(model, data, out, "geode", *more).stderr
    templates.write_text("the {}.\n", encoding="utf-8")
    assert "done before" not in evaluated(model, data, out, "geode", *more).stderr
    (difference, *_) = compare({"geode": found}, {"geode": read_record(out / "records" / "geode.json")})
    assert difference.note == "not the same templates_fingerprint"
    (difference, *_) = compare({"geode": found}, {"geode": read_record(first / "records" / "geode.json")})
    assert difference.note == "not the same templates"


def test_one_broken_set_does_not_take_the_others_down(model: Path, data: Path, tmp_path: Path) -> None:
    mended = tmp_path / "data"
    shutil.copytree(data, mended)
    (mended / "xm3600" / "captions.jsonl").write_text("{", encoding="utf-8")
    done = evaluated(model, mended, tmp_path / "out", "xm3600,geode")
    assert done.exit_code == 2
    assert "1 benchmark(s) could not be scored, the others are done: xm3600" in done.stderr
    assert (tmp_path / "out" / "records" / "geode.json").is_file()
    shutil.copy(data / "xm3600" / "captions.jsonl", mended / "xm3600" / "captions.jsonl")
    again = evaluated(model, mended, tmp_path / "out", "xm3600,geode")
    assert again.exit_code == 0
    assert "geode: done before" in again.stderr


@pytest.mark.slow
@pytest.mark.skipif(bool(cannot_unshare()), reason=cannot_unshare())
def test_under_torchrun_the_numbers_are_the_same(first: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(*UNSHARE, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "worldclip", "evaluate", "--model", model, "--suite", "xm3600,geode", "--data", data, "--out", out),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1, "one process speaks"
    for path in (first / "records").iterdir():
        assert read_record(out / "records" / path.name) == read_record(path)


# Two models side by side.


def record(task: str, value: float, half: float, **more: Any) -> dict[str, Record]:
    interval = (value - half, value + half)
    settings = {"values": {"acc1": value}, "intervals": {"acc1": interval}, "metric": "acc1", "value": value, "n": 100}
    return {task: Record(task=task, **{**settings, **more})}


def test_a_difference_is_marked_where_it_is_outside_the_intervals() -> None:
    a = record("imagenet", 60.0, 3.0) | record("only/a", 1.0, 1.0)
    for value, half, outside in ((64.9, 4.0, False), (65.1, 4.0, True), (55.1, 4.0, False), (54.9, 4.0, True)):
        (found,) = compare(a, record("imagenet", value, half))
        assert found.outside is outside, math.hypot(3, 4)
        assert found.by == pytest.approx(value - 60)
        assert found.paper == 81.3
    (found,) = compare(a, record("imagenet", 99.0, 1.0, intervals={}, fingerprint={"rows": 1}))
    assert (found.outside, found.note) == (None, "not the same data")

    def languages(values: dict[str, float]) -> dict[str, dict[str, float]]:
        return {code: {"n": 9, "acc1": at, "acc1_low": at - 3, "acc1_high": at + 3} for code, at in values.items()}

    one, two = (
        record("t", 50.0, 1.0, per_language=languages(own))["t"]
        for own in ({"de": 40.0, "fr": 50.0, "it": 1.0}, {"de": 41.0, "fr": 30.0, "sw": 1.0})
    )
    assert [(each.language, each.by, each.outside) for each in compare_languages(one, two)] == [
        ("fr", -20.0, True),
        ("de", 1.0, False),
    ]


def test_compare_prints_and_tells_a_machine(first: Path, data: Path, tmp_path: Path) -> None:
    other = model_folders.save("metaclip2", tmp_path / "other", seed=1)
    assert evaluated(other, data, tmp_path / "out").exit_code == 0
    rows = json.loads(command("evaluate", "--compare", first, tmp_path / "out", "--json").stdout)
    geode = next(row for row in rows if (row["task"], row["metric"], row["language"]) == ("geode", "acc1", ""))
    for name, folder in (("A", first), ("B", tmp_path / "out")):
        assert geode[name] == read_json(folder / "records" / "geode.json")["values"]["acc1"]
    assert geode["paper"] == 93.4
    assert {row["language"] for row in rows} == {"", "en", "th"}
    printed = command("evaluate", "--compare", first, tmp_path / "out")
    assert printed.exit_code == 0
    assert "Languages that differ most" in printed.stdout
    same = json.loads(command("evaluate", "--compare", first, first, "--json").stdout)
    assert all(row["B - A"] == 0 and not row["outside"] for row in same)


# A model that is not what it was.


def test_an_evaluation_refuses_a_model_that_changed(model: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    written = command("check", copy, "--write")
    assert (written.exit_code, (copy / "golden.json").is_file()) == (0, True)
    assert command("check", copy).exit_code == 0
    config = read_json(copy / "config.json")
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "gelu"
    (copy / "config.json").write_text(json.dumps(config))
    for done in (command("check", copy), evaluated(copy, data, tmp_path / "out", "geode")):
        assert done.exit_code == 2
        assert "with hidden_act = quick_gelu instead of gelu" in " ".join(done.stderr.split())
    assert not (tmp_path / "out" / "records").exists()
    elsewhere = command("check", model, "--golden", copy / "golden.json", "--json")
    assert json.loads(elsewhere.stdout) == [{"part": "vectors", "found": "as they were", "wrong": False}]
    assert "no golden.json to compare with" in command("check", model).stdout
    assert command("check", model, "--golden", tmp_path / "nowhere.json").exit_code == 2
