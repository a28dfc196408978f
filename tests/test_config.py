"""Configs: printed, parsed and hashed without loss, and clear words for every wrong setting."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.config import CurationConfig, Recipe, TowerConfig, TrainConfig, as_dict, config_hash, from_dict, override
from worldclip.errors import ConfigError
from worldclip.recipes import ABLATION_ROWS, quickstart, with_curation_row

ROWS = st.sampled_from(sorted(ABLATION_ROWS))


@given(row=ROWS, t_en=st.none() | st.integers(0, 10**9), lr=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_printed_and_parsed_it_is_the_same(row: int, t_en: int | None, lr: float, seed: int) -> None:
    recipe = dataclasses.replace(with_curation_row(quickstart(), row, t_en), seed=seed)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, lr=lr))
    again = from_dict(Recipe, json.loads(json.dumps(as_dict(recipe))))
    assert again == recipe
    assert config_hash(again) == config_hash(recipe)


def test_configs_cannot_be_changed_or_made_by_position() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        quickstart().train.lr = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        TowerConfig(1, 2, 3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("train.lr=3e-4", "train.lr", 3e-4),
        ("train.lr=1", "train.lr", 1.0),
        ("train.batch_size=256", "train.batch_size", 256),
        ("train.seen_pairs=3e6", "train.seen_pairs", 3_000_000),
        ("curation.t_en=100", "curation.t_en", 100),
        ("curation.t_en=null", "curation.t_en", None),
        ("curation.thresholds=t_en", "curation.thresholds", "t_en"),
        ("pairs.languages=en,de , th", "pairs.languages", ("en", "de", "th")),
        ('pairs.languages=["en"]', "pairs.languages", ("en",)),
        ("metadata.languages=null", "metadata.languages", None),
        ("metadata.languages=en,de", "metadata.languages", ("en", "de")),
        ("metadata.free_only=true", "metadata.free_only", True),
        ("model.vision.width=96", "model.vision.width", 96),
        ("name=a=b", "name", "a=b"),
        ('model.text={"layers": 1, "width": 8, "heads": 1}', "model.text", TowerConfig(layers=1, width=8, heads=1)),
    ],
)
def test_settings(setting: str, path: str, value: Any) -> None:
    found: Any = override(quickstart(), [setting])
    for part in path.split("."):
        found = getattr(found, part)
    assert (found, type(found)) == (value, type(value))


def test_only_what_is_set_changes() -> None:
    before = as_dict(quickstart())
    after = as_dict(override(quickstart(), ["train.lr=0.5", "seed=7", "train.lr=0.25"]))
    before["train"]["lr"], before["seed"] = 0.25, 7
    assert after == before


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train.lr", "write it as path=value"),
        ("train.learning=1", r"recipe\.train: unknown field 'learning'"),
        ("train.warmup_step=1", "Did you mean 'warmup_steps'"),
        ("trian.lr=1", "there is no part 'trian'; parts: name, seed, metadata"),
        ("train.lr.x=1", "there is no part 'lr'"),
        ("=1", "unknown field ''"),
        ("train=1", r"recipe\.train: is 1 \(int\); needs TrainConfig"),
        ('train={"lr": 1}', r"recipe\.train: lacks seen_pairs, batch_size"),
        ("train.lr=fast", r"recipe\.train\.lr: is 'fast' \(str\); needs float"),
        ("train.lr=true", r"recipe\.train\.lr: is True \(bool\); needs float"),
        ("train.lr=null", r"recipe\.train\.lr: is None"),
        ("train.lr=NaN", r"recipe\.train\.lr: is nan \(float\); needs float"),
        ("train.lr=Infinity", r"recipe\.train\.lr: is inf"),
        ("train.batch_size=2.5", r"recipe\.train\.batch_size: is 2\.5 \(float\); needs int"),
        ("train.batch_size=1e999", r"recipe\.train\.batch_size: is inf"),
        ("train.batch_size=false", r"is False \(bool\); needs int"),
        ("train.precision=fp8", r"recipe\.train\.precision: is 'fp8'; allowed: 'fp32', 'bf16', 'fp16', 'auto'"),
        ("curation.rule=exact", r"recipe\.curation\.rule: is 'exact'; allowed: 'paper', 'unicode'"),
        ("curation.t_en=many", r"recipe\.curation\.t_en: is 'many' \(str\); needs int"),
        ("pairs.languages=7", r"recipe\.pairs\.languages: is 7 \(int\); needs tuple"),
        ("pairs.languages=[1]", r"recipe\.pairs\.languages: is 1 \(int\); needs str"),
        ('pairs.languages={"en": 1}', r"recipe\.pairs\.languages: is {'en': 1} \(dict\)"),
        ("name=7", r"recipe\.name: is 7 \(int\); needs str"),
        ("metadata.free_only=1", r"is 1 \(int\); needs bool"),
    ],
)
def test_wrong_settings(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        override(quickstart(), [setting])


@given(text=st.text(max_size=12), value=st.text(max_size=8))
def test_no_setting_ends_in_a_traceback(text: str, value: str) -> None:
    for setting in (text, f"{text}={value}", f"train.{text}={value}", f"train.lr={value}", f"pairs.languages={value}"):
        with contextlib.suppress(ConfigError):
            assert isinstance(override(quickstart(), [setting]), Recipe)


def test_missing_fields_are_named() -> None:
    with pytest.raises(ConfigError, match=r"tower: lacks layers, heads\."):
        from_dict(TowerConfig, {"width": 8}, "tower")


def test_the_hash_tells_every_value_apart() -> None:
    recipe = quickstart()
    changed = [
        override(recipe, [setting])
        for setting in ("seed=1", "train.lr=1e-9", "curation.t_en=0", "pairs.languages=en", "metadata.free_only=true")
    ]
    assert len({config_hash(each) for each in [recipe, *changed]}) == 6
    assert config_hash("a", "b") != config_hash("ab")
    assert config_hash(recipe.curation, 1) != config_hash(recipe.curation, 2)


def test_the_hash_is_the_same_in_another_process() -> None:
    program = """
from worldclip.config import config_hash
from worldclip.recipes import quickstart
print(config_hash(quickstart(), 1))
"""
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
        assert done.stdout.strip() == config_hash(quickstart(), 1)


def test_every_field_of_a_config_says_its_type_to_the_parser() -> None:
    # A field of a kind that the parser does not know would refuse every value, even its own default.
    for config in (CurationConfig(), TrainConfig(seen_pairs=1, batch_size=1), quickstart()):
        assert from_dict(type(config), as_dict(config)) == config
