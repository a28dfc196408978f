"""Rows that are not in the batch cost nothing, and end where dense AdamW takes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldclip.train.embedding import NODES, LazyEmbedding, gauss, missed_steps

ROWS, WIDTH = 40, 6


def rate(step: int, steps: int) -> float:
    return 1e-2 * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)


def both(
    steps: int, betas: tuple[float, float], *, seed: int = 0, scale: float = 1e-3, dtype: torch.dtype = torch.float64
) -> tuple[LazyEmbedding, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A lazy and a dense run: rows are touched ever more rarely, some in the beginning alone, the last one never.

    Returns:
        the lazy rows, dense weights, and dense moments.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(ROWS, WIDTH, generator=generator, dtype=dtype)
    lazy = LazyEmbedding(torch.nn.Parameter(start.clone()), betas=betas, eps=1e-6, weight_decay=0.1, steps=steps)
    dense = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([dense], betas=betas, eps=1e-6, weight_decay=0.1)
    for step in range(steps):
        chance = torch.rand(ROWS, generator=generator)
        touched = chance < 1.0 / (1 + torch.arange(ROWS))
        touched[-10:-1] |= step < 3
        touched[-1] = False
        rows = touched.nonzero()[:, 0]
        size = scale * 10 ** (4 * torch.rand(len(rows), 1, generator=generator) - 3)
        gradient = size * torch.randn(len(rows), WIDTH, generator=generator, dtype=dtype)
        vectors = lazy.catch_up(rows)
        torch.testing.assert_close(vectors, dense.detach()[rows], rtol=1e-4, atol=1e-4)
        lazy.step(rows, gradient, rate(step, steps))
        optimizer.param_groups[0]["lr"] = rate(step, steps)
        dense.grad = torch.zeros_like(dense).index_copy_(0, rows, gradient)
        optimizer.step()
    state = optimizer.state[dense]
    return lazy, dense.detach(), state["exp_avg"], state["exp_avg_sq"]


#: Largest error of a weight, where the weights are about 1 and a row moves by up to 0.1 between two touches.
BOUNDS = {(0.9, 0.98): 2e-8, (0.9, 0.95): 2e-7, (0.9, 0.999): 1e-8}


@pytest.mark.parametrize("betas", BOUNDS)
@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-2, 10.0])
def test_lazy_rows_end_where_dense_adamw_takes_them(betas: tuple[float, float], scale: float) -> None:
    lazy, dense, first, second = both(400, betas, scale=scale)
    before = lazy.weight.clone()
    current = lazy.current(torch.arange(ROWS))
    assert torch.equal(lazy.weight, before)
    lazy.flush(chunk=7)
    assert torch.equal(lazy.weight, current)
    assert (lazy.weight - dense).abs().max() < BOUNDS[betas]
    torch.testing.assert_close(lazy.exp_avg, first, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(lazy.exp_avg_sq, second, rtol=1e-9, atol=1e-20)
    assert lazy.last.tolist() == [400] * ROWS


def test_rows_that_are_left_alone_are_not_written() -> None:
    lazy, *_ = both(30, (0.9, 0.98))
    before = [tensor.clone() for tensor in (lazy.weight.data, *lazy.state().values())]
    rows = torch.tensor([3, 8])
    lazy.catch_up(rows)
    lazy.rates = torch.cat([lazy.rates, torch.zeros(1, dtype=torch.float64)])
    lazy.step(rows, torch.ones(2, WIDTH, dtype=torch.float64), 1e-2)
    others = [row for row in range(ROWS) if row not in (3, 8)]
    for old, new in zip(before[:4], (lazy.weight.data, lazy.exp_avg, lazy.exp_avg_sq, lazy.last), strict=True):
        assert torch.equal(old[others], new[others])
        assert not torch.equal(old[rows], new[rows])


def test_in_single_precision_the_error_is_that_of_rounding() -> None:
    lazy, dense, *_ = both(200, (0.9, 0.98), dtype=torch.float32)
    lazy.flush()
    assert (lazy.weight - dense).abs().max() < 5e-6


def test_each_step_touching_every_row_is_plain_adamw() -> None:
    weight = torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    dense = torch.nn.Parameter(weight.detach().clone())
    lazy = LazyEmbedding(weight, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, steps=9)
    optimizer = torch.optim.AdamW([dense], lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    rows = torch.arange(5)
    for step in range(9):
        gradient = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        lazy.catch_up(rows)
        lazy.step(rows, gradient, 1e-2)
        dense.grad = gradient
        optimizer.step()
        torch.testing.assert_close(weight.detach(), dense.detach(), rtol=1e-6, atol=1e-7)


@given(
    gap=st.integers(1, 600),
    since=st.integers(1, 300),
    spread=st.floats(-9, 2),
    betas=st.sampled_from([(0.9, 0.98, 2e-6), (0.9, 0.95, 3e-5), (0.9, 0.999, 5e-7)]),
)
def test_missed_steps_in_one_go_are_those_steps_one_by_one(
    gap: int, since: int, spread: float, betas: tuple[float, float, float]
) -> None:
    # The error is a share of how far the row moves, whatever sqrt(v) is beside eps.
    beta1, beta2, bound = betas
    rates = np.array([rate(step, since + gap) for step in range(since + gap)])
    decay, nodes, weights = missed_steps(np.array([since]), rates, (beta1, beta2), 0.1)
    root, moved, kept = 10**spread, 0.0, 1.0
    for number in range(since + 1, since + gap + 1):
        missed, lr = number - since, rates[number - 1]
        moved, kept = moved * (1 - 0.1 * lr), kept * (1 - 0.1 * lr)
        moved += lr * beta1**missed / (1 - beta1**number) / (root * np.sqrt(beta2**missed / (1 - beta2**number)) + 1e-6)
    found = (weights[0] / (nodes[0] * root + 1e-6)).sum()
    assert found == pytest.approx(moved, rel=1e-9 if gap <= NODES else bound)
    assert decay[0] == pytest.approx(kept, rel=1e-12)


def test_gauss_is_exact_for_few_points_and_for_polynomials() -> None:
    noise = np.random.default_rng(0)
    points, mass = noise.uniform(-3, 1, (20, 30)), noise.uniform(0, 1, (20, 30))
    mass[:10, 3:] = 0  # three points
    mass[10] = 0
    nodes, weights = gauss(points, mass, 4)
    for power in range(8):
        np.testing.assert_allclose((weights * nodes**power).sum(1), (mass * points**power).sum(1), rtol=1e-9, atol=1e-9)
    few = (mass[:10] * np.exp(-points[:10])).sum(1)
    np.testing.assert_allclose((weights[:10] * np.exp(-nodes[:10])).sum(1), few, rtol=1e-9)
