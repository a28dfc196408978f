"""What is decayed and what is not, and the learning rate of every step."""

from __future__ import annotations

import math

import pytest
import torch

from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.model.sizes import build_model
from worldclip.train.optim import MAX_LOGIT_SCALE, Muon, build_optimizers, learning_rate

CONFIG = TrainConfig(
    seen_pairs=1, batch_size=1, lr=0.01, warmup_steps=10, weight_decay=0.2, beta1=0.8, beta2=0.9, eps=1e-5
)


def test_matrices_are_decayed_all_else_is_not() -> None:
    tower = TowerConfig(layers=1, width=8, heads=1)
    config = ModelConfig(vision=tower, text=tower, embedding=4, image_size=8, patch_size=4)
    model = build_model(config, vocab_size=9, context_length=5, temperature=0.07, seed=0)
    decayed, others = build_optimizers(model, CONFIG)[0].param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.2, 0.0)
    for group in (decayed, others):
        assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    of_others = {names[id(parameter)] for parameter in others["params"]}
    assert not of_decayed & of_others
    assert of_decayed | of_others == set(names.values())
    assert "logit_scale" in of_others
    assert all("norm" in name or name.endswith(("bias", "logit_scale", "class_embedding")) for name in of_others)
    assert not any("norm" in name or name.endswith("bias") for name in of_decayed)
    assert {"text_projection.weight", "vision_model.embeddings.patch_embedding.weight"} <= of_decayed


def test_a_step_without_gradient_shrinks_matrices_alone() -> None:
    model = torch.nn.Linear(3, 3)
    before = [model.weight.detach().clone(), model.bias.detach().clone()]
    (optimizer,) = build_optimizers(model, CONFIG)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight, before[0] * (1 - 0.01 * 0.2))
    assert torch.equal(model.bias, before[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-3), (torch.float32, 2e-2)])
def test_muon_steps_as_that_of_torch(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((12, 12), (24, 12), (12, 24), (24, 12))]
    ours, torchs = ([torch.nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.1, weight_decay=0.3, dtype=dtype),
        torch.optim.Muon(torchs, lr=0.1, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for mine, other in zip(ours, torchs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, before in zip(ours, torchs, start, strict=True):
        assert (mine - other).abs().max() < tolerance < 0.1 < (mine - before).abs().max()


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_half_cosine() -> None:
    rates = [learning_rate(step, 110, CONFIG) for step in range(110)]
    assert rates[:10] == pytest.approx([0.001 * step for step in range(1, 11)])
    assert max(rates) == 0.01 == rates[10]
    assert rates[60] == pytest.approx(0.005)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[35] == pytest.approx(0.01 * (1 + math.cos(math.pi / 4)) / 2)
    assert 0 < rates[-1] < 1e-5
    assert learning_rate(110, 110, CONFIG) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 10), (10, 10), (5, 10), (3, 0), (11, 10)])
def test_short_runs_have_a_learning_rate_at_every_step(steps: int, warmup: int) -> None:
    config = TrainConfig(seen_pairs=1, batch_size=1, lr=0.01, warmup_steps=warmup)
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    assert all(0 < rate <= 0.01 for rate in rates)


def test_the_logit_scale_ends_at_a_hundred() -> None:
    assert math.exp(MAX_LOGIT_SCALE) == pytest.approx(100)
