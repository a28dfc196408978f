"""Random weights are OpenAI CLIP's: standard deviations judged by torch's own layers where it has them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import MetaClip2Model

from worldclip.config import ModelConfig, TowerConfig
from worldclip.model.sizes import build_model

CONFIG = ModelConfig(
    vision=TowerConfig(layers=3, width=192, heads=3),
    text=TowerConfig(layers=2, width=128, heads=2, mlp_ratio=2.0),
    embedding=160,
    image_size=64,
    patch_size=16,
)


@pytest.fixture(scope="module")
def model() -> MetaClip2Model:
    return build_model(CONFIG, vocab_size=2_000, context_length=77, temperature=0.05, seed=0)


VISION, TEXT = 192, 128
DEVIATIONS = {
    "vision_model.embeddings.class_embedding": VISION**-0.5,
    "vision_model.embeddings.position_embedding.weight": VISION**-0.5,
    "vision_model.embeddings.patch_embedding.weight": (3 * 3 * 16 * 16) ** -0.5,
    "vision_model.encoder.layers.1.self_attn.q_proj.weight": (2 * VISION) ** -0.5,
    "vision_model.encoder.layers.2.self_attn.v_proj.weight": (2 * VISION) ** -0.5,
    "vision_model.encoder.layers.0.self_attn.out_proj.weight": (3 * VISION) ** -0.5,
    "vision_model.encoder.layers.0.mlp.fc1.weight": (3 * VISION) ** -0.5,
    "vision_model.encoder.layers.0.mlp.fc1.bias": (3 * VISION) ** -0.5,
    "vision_model.encoder.layers.0.mlp.fc2.weight": (3 * 4 * VISION) ** -0.5,
    "visual_projection.weight": VISION**-0.5,
    "text_model.embeddings.token_embedding.weight": 0.02,
    "text_model.embeddings.position_embedding.weight": 0.01,
    "text_model.encoder.layers.0.self_attn.k_proj.weight": TEXT**-0.5,
    "text_model.encoder.layers.1.self_attn.out_proj.weight": (2 * 2 * TEXT) ** -0.5,
    "text_model.encoder.layers.1.mlp.fc1.weight": (2 * TEXT) ** -0.5,
    "text_model.encoder.layers.1.mlp.fc2.weight": (2 * 2 * TEXT) ** -0.5,
    "text_model.encoder.layers.1.mlp.fc2.bias": (3 * 2 * TEXT) ** -0.5,
    "text_projection.weight": TEXT**-0.5,
}


@pytest.mark.parametrize(("name", "deviation"), DEVIATIONS.items())
def test_standard_deviations(model: MetaClip2Model, name: str, deviation: float) -> None:
    weight = model.get_parameter(name)
    sure = 5 / math.sqrt(2 * weight.numel())  # five standard errors of an estimated deviation
    assert weight.std().item() == pytest.approx(deviation, rel=sure)
    assert abs(weight.mean().item()) < 5 * deviation / math.sqrt(weight.numel())


def test_the_image_tower_begins_as_torchs_own_layers_do(model: MetaClip2Model) -> None:
    block = model.vision_model.encoder.layers[0]
    torch.manual_seed(1)
    attention, linear, patches = (
        nn.MultiheadAttention(VISION, 3),
        nn.Linear(4 * VISION, VISION),
        nn.Conv2d(3, VISION, 16),
    )
    for found, expected in (
        (block.self_attn.k_proj.weight, attention.in_proj_weight),
        (block.self_attn.out_proj.weight, attention.out_proj.weight),
        (block.mlp.fc2.weight, linear.weight),
        (block.mlp.fc2.bias, linear.bias),
        (model.vision_model.embeddings.patch_embedding.weight, patches.weight),
    ):
        assert found.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.03)  # uniform: same bounds


def test_what_is_not_drawn(model: MetaClip2Model) -> None:
    for name, weight in model.named_parameters():
        if "norm" in name or "layrnorm" in name:
            assert (weight == (1 if name.endswith("weight") else 0)).all()
        if "self_attn" in name and name.endswith("bias"):
            assert not weight.any()
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.05))
