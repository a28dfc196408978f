"""Tuning: from a folder, at another resolution, with the image tower locked; refusals name what differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import ConfigError
from worldclip.model.features import image_features
from worldclip.model.sizes import build_model, save_model
from worldclip.model.start import lock_image_tower, resize_positions, started
from worldclip.tokenizer import OURS, SpecialIds, train_tokenizer

CONFIG = ModelConfig(
    vision=TowerConfig(layers=1, width=16, heads=2, mlp_ratio=35 / 16),
    text=TowerConfig(layers=1, width=16, heads=2),
    embedding=8,
    image_size=32,
    patch_size=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("start")
    tokenizer = train_tokenizer(["a dog", "ein Hund"] * 3, 40, 12)
    model = build_model(CONFIG, vocab_size=40, context_length=12, temperature=0.07, seed=2).eval()
    save_model(model, tokenizer, place)
    return place


def test_it_starts_where_the_folder_is(folder: Path) -> None:
    model = started(folder, CONFIG, vocab_size=20, special=OURS)
    expected = build_model(CONFIG, vocab_size=40, context_length=12, temperature=0.07, seed=2).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_at_another_resolution_a_smooth_grid_of_positions_stays_what_it_is(folder: Path) -> None:
    model = started(folder, CONFIG, vocab_size=20, special=OURS)
    ramp = torch.linspace(-1, 1, 4)
    with torch.no_grad():  # positions that rise from left to right, and by channel
        grid = (ramp[None, :, None] * torch.arange(1, 17)).expand(4, 4, 16)
        model.vision_model.embeddings.position_embedding.weight[1:] = grid.reshape(16, 16)
    first = model.vision_model.embeddings.position_embedding.weight[0].clone()
    resize_positions(model, 64)
    weight = model.vision_model.embeddings.position_embedding.weight
    assert weight.shape == (65, 16)
    assert torch.equal(weight[0], first)
    found = weight[1:].detach().reshape(8, 8, 16)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)  # the same in every line
    assert (found[0, 1:, 3] > found[0, :-1, 3]).all()
    centres = (torch.arange(8) + 0.5) / 2 - 0.5  # where the new patches lie among the old ones
    inside = slice(2, 6)
    expected = (centres * 2 / 3 - 1)[inside]
    assert torch.allclose(found[0, inside, 0], expected, atol=0.03)
    with torch.no_grad():
        assert image_features(model, torch.zeros(2, 3, 64, 64)).shape == (2, 8)


def test_a_larger_start_is_saved_and_read_again(folder: Path, tmp_path: Path) -> None:
    larger = dataclasses.replace(CONFIG, image_size=64)
    model = started(folder, larger, vocab_size=20, special=OURS)
    tokenizer = train_tokenizer(["a dog", "ein Hund"] * 3, 40, 12)
    save_model(model, tokenizer, tmp_path / "larger")
    again = started(tmp_path / "larger", larger, vocab_size=20, special=OURS)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    back = started(tmp_path / "larger", CONFIG, vocab_size=20, special=OURS)
    assert back.config.vision_config.image_size == 32


def test_the_locked_tower_asks_for_nothing(folder: Path) -> None:
    model = started(folder, CONFIG, vocab_size=20, special=OURS)
    lock_image_tower(model)
    asked = {name.partition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    assert asked == {"text_model", "text_projection", "logit_scale"}


def test_what_does_not_fit_is_named(folder: Path) -> None:
    other = dataclasses.replace(CONFIG, embedding=12, text=TowerConfig(layers=1, width=32, heads=2))
    with pytest.raises(ConfigError, match=r"set model\.text\.width=16, .*embedding=8"):
        started(folder, other, vocab_size=20, special=OURS)
    with pytest.raises(ConfigError, match=r"reads 40 tokens and ends at 2; the tokenizer has 50"):
        started(folder, CONFIG, vocab_size=50, special=OURS)
    with pytest.raises(ConfigError, match="ends at 1"):
        started(folder, CONFIG, vocab_size=20, special=SpecialIds(start=None, pad=1, end=1))
    with pytest.raises(ConfigError, match="patches of 8 pixels do not divide it"):
        started(folder, dataclasses.replace(CONFIG, image_size=36), vocab_size=20, special=OURS)
