"""The paper's runs: scales, hardware and scores as their docstrings say, and what they cost by hand."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from worldclip.cli import main
from worldclip.config import TowerConfig, as_dict
from worldclip.costs import Hardware, activation_bytes, cost, pair_flops, tower_flops
from worldclip.errors import ConfigError
from worldclip.model.released import RELEASED
from worldclip.paper_recipes import (
    PAPER,
    TEACHER,
    h14_english,
    h14_non_english,
    h14_worldwide,
    h14_worldwide_1x,
    recipe_of,
)
from worldclip.recipes import ABLATION_ROWS


def test_seen_pairs_and_batches_are_the_papers() -> None:
    said = {h14_english: (13, 32_768), h14_worldwide_1x: (13, 32_768), h14_worldwide: (29, 75_366)}
    for made, (billions, batch) in said.items():
        assert round(made().train.seen_pairs / 1e9) == billions
        assert made().train.batch_size == batch
    assert round(h14_non_english().train.seen_pairs / 1e9) == 17
    assert len({made().train.seen_pairs // made().train.batch_size for made in PAPER}) == 1  # steps stay


def test_every_run_of_the_tables_and_every_released_student_is_there() -> None:
    names = {made.__name__ for made in PAPER}
    assert {f"b32_row{row}" for row in range(1, 6)} < names
    assert {"b32_gemma", "b32_xlm_r", "b32_xlm_v"} < names
    students = [made() for made in PAPER if made.__name__.endswith("_distilled")]
    assert {recipe.train.teacher for recipe in students} == {TEACHER}
    small = [each for name, each in RELEASED.items() if "H-14" not in name and "bigG" not in name]
    found = [(recipe.model, recipe.tokenizer.vocab_size) for recipe in students]
    assert set(found) == {(each.model, each.vocab_size) for each in small if each.model.image_size != 378}
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("made", PAPER)
def test_docstrings_say_command_hardware_time_and_score(made: object) -> None:
    told, name = " ".join(made.__doc__.split()), made.__name__
    recipe = made()
    assert recipe.name == name
    assert f"-m worldclip train --run runs/{name}`" in told
    nodes, each = map(int, re.search(r"--nnodes (\d+) --nproc-per-node (\d+)", told).groups())
    gpus = int(re.search(r"Hardware: (\d+) H100", told)[1])
    assert nodes * each == gpus
    days = float(re.search(r"Time: ([\d.]+) days", told)[1])
    assert cost(recipe, Hardware(gpus=gpus)).days == pytest.approx(days, abs=0.051)
    assert re.search(r"Paper: (ImageNet|CVQA LOCAL) \d\d\.\d", told)


def test_rows_of_the_ablation_are_curated_as_the_rows_say() -> None:
    for row in range(1, 6):
        found = recipe_of(f"b32_row{row}")().curation
        expected = ABLATION_ROWS[row]
        assert (found.texts, found.metadata, found.thresholds) == (
            expected.texts,
            expected.metadata,
            expected.thresholds,
        )
        assert found.t_en == 170_000


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("ViT-B-32-worldwide", 14.78),
        ("ViT-B-16-worldwide", 41.09),
        ("ViT-L-14-worldwide", 175.33),
        ("ViT-H-14-quickgelu-worldwide", 381.68),
    ],
)
def test_flops_of_a_pair_are_those_that_open_clip_publishes_for_its_sizes(name: str, published: float) -> None:
    assert pair_flops(RELEASED[name].model, 77) / 1e9 == pytest.approx(published, abs=0.006)


def test_flops_and_bytes_by_hand() -> None:
    tower = TowerConfig(layers=2, width=4, heads=1, mlp_ratio=3.0)
    # a block: four 4x4 products and two of 4x12 at 2 FLOPs, five positions; scores and values: 2 x 2 x 25 x 4
    assert tower_flops(tower, 5) == 2 * (5 * 2 * (4 * 16 + 2 * 48) + 400)
    block = 2 * 5 * (14 * 4 + 2 * 12)
    assert activation_bytes(tower, 5, checkpointing=False) == 2 * block
    assert activation_bytes(tower, 5, checkpointing=True) == 2 * 2 * 5 * 4 + block


def test_costs_follow_what_they_depend_on() -> None:
    recipe = h14_worldwide()
    base = cost(recipe, Hardware())
    assert base.steps == 390_625
    assert base.parameters.tokens == 901_629 * 1024
    assert cost(recipe, Hardware(gpus=192)).days == pytest.approx(2 * base.days)
    assert cost(recipe, Hardware(gpus=192)).money == pytest.approx(base.money)
    assert cost(recipe, Hardware(price=5.0)).money == pytest.approx(2 * base.money)
    assert cost(recipe, Hardware(checkpointing=False)).total == pytest.approx(0.75 * base.total, rel=0.01)
    assert cost(recipe, Hardware(checkpointing=False)).activations > 5 * base.activations
    assert base.sharded == base.states / 384
    assert cost(recipe, Hardware(gpu="a100")).gpu_days == pytest.approx(989 / 312 * base.gpu_days)
    student, teacher = recipe_of("b32_distilled")(), RELEASED[TEACHER].model
    taught, alone = cost(student, Hardware()), cost(recipe_of("b32_xlm_v")(), Hardware())
    assert (taught.total - alone.total) / student.train.seen_pairs == pytest.approx(pair_flops(teacher, 77), rel=0.001)


def test_the_command_prints_recipes_and_costs() -> None:
    run = CliRunner()
    done = run.invoke(main, ["recipe", "l14_worldwide", "--set", "train.lr=0.001"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["train"]["lr"] == 0.001
    assert found["model"] == as_dict(RELEASED["ViT-L-14-worldwide"].model)
    assert "Babel-ImageNet 44.2" in done.stderr
    done = run.invoke(main, ["recipe", "l14_worldwide", "--cost", "--gpu", "a100", "--gpus", "64", "--json"])
    assert done.exit_code == 0
    rows = {row["figure"]: row["value"] for row in json.loads(done.stdout)}
    expected = cost(recipe_of("l14_worldwide")(), Hardware(gpu="a100", gpus=64))
    assert rows["GPU-days"] == expected.gpu_days
    done = run.invoke(main, ["recipe", "h15"])
    assert done.exit_code == 2
    assert "no recipe has that name. There are: quickstart, h14_worldwide," in " ".join(done.output.split())
    with pytest.raises(ConfigError, match="'h15': no recipe"):
        recipe_of("h15")


def test_a_tokenizer_of_others_is_named() -> None:
    assert recipe_of("h14_worldwide")().tokenizer.file == "facebook/xlm-v-base"
    assert recipe_of("quickstart")().tokenizer.file is None
