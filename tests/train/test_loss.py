"""The contrastive loss against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from worldclip.train.loss import clip_loss


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(made, dim=-1)


def plainly(images: list[list[float]], sets: list[list[list[float]]], scale: float) -> float:
    """The mean over sets of texts, directions and pairs of -log(softmax at the pair's own place)."""
    losses = []
    for texts in sets:
        logits = [[scale * sum(a * b for a, b in zip(i, t, strict=True)) for t in texts] for i in images]
        for rows in (logits, list(zip(*logits, strict=True))):
            for place, row in enumerate(rows):
                losses.append(math.log(sum(math.exp(value) for value in row)) - row[place])
    return sum(losses) / len(losses)


def plainly_with_positives(
    images: list[list[float]], sets: list[list[list[float]]], scale: float, positives: list[list[list[bool]]]
) -> float:
    """The same, where a row's target is shared evenly by all of its positives."""
    losses = []
    for texts, positive in zip(sets, positives, strict=True):
        logits = [[scale * sum(a * b for a, b in zip(i, t, strict=True)) for t in texts] for i in images]
        for rows, hits in ((logits, positive), (zip(*logits, strict=True), zip(*positive, strict=True))):
            for row, hit in zip(rows, hits, strict=True):
                whole = math.log(sum(math.exp(value) for value in row))
                shares = [whole - value for value, good in zip(row, hit, strict=True) if good]
                losses.append(sum(shares) / len(shares))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("pairs", "sets"), [(2, 1), (5, 1), (6, 3)])
def test_with_positives_like_a_plain_loop(pairs: int, sets: int) -> None:
    images, texts = features(pairs, 4), features(sets, pairs, 4, seed=1)
    chance = torch.rand(sets, pairs, pairs, generator=torch.Generator().manual_seed(2))
    positives = (chance < 0.4) | torch.eye(pairs, dtype=torch.bool)
    loss = clip_loss(images, texts, torch.tensor(7.0, dtype=torch.float64), positives)
    expected = plainly_with_positives(images.tolist(), texts.tolist(), 7.0, positives.tolist())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_drawn_pairs_alone_as_positives_are_the_papers_loss() -> None:
    images, texts, scale = features(5, 4), features(3, 5, 4, seed=1), torch.tensor(9.0, dtype=torch.float64)
    alone = torch.eye(5, dtype=torch.bool).expand(3, 5, 5)
    torch.testing.assert_close(clip_loss(images, texts, scale, alone), clip_loss(images, texts, scale))


@pytest.mark.parametrize(("pairs", "sets"), [(1, 1), (2, 1), (5, 1), (5, 3), (3, 8)])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_like_a_plain_loop(pairs: int, sets: int, scale: float) -> None:
    images, texts = features(pairs, 4), features(sets, pairs, 4, seed=1)
    loss = clip_loss(images, texts, torch.tensor(scale, dtype=torch.float64))
    assert loss.item() == pytest.approx(plainly(images.tolist(), texts.tolist(), scale), abs=1e-9)


def test_a_pair_alone_has_nothing_to_be_told_from() -> None:
    assert clip_loss(features(1, 4), features(1, 1, 4), torch.tensor(10.0)).item() == 0


def test_other_texts_of_an_image_are_not_its_negatives() -> None:
    # Two images with orthogonal features, each with the same text twice: as good as with one.
    images = torch.eye(2)
    texts = torch.eye(2).repeat(4, 1, 1)
    scale = torch.tensor(5.0)
    torch.testing.assert_close(clip_loss(images, texts, scale), clip_loss(images, texts[:1], scale))
    assert clip_loss(images, texts, torch.tensor(100.0)).item() < 1e-6


def test_random_features_begin_at_the_logarithm_of_the_batch() -> None:
    assert clip_loss(features(512, 64), features(1, 512, 64, seed=1), torch.tensor(1.0)).item() == pytest.approx(
        math.log(512), abs=0.02
    )


def test_the_gradient_pulls_pairs_together() -> None:
    images, texts = features(4, 8).requires_grad_(), features(1, 4, 8, seed=1)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, s: clip_loss(i, texts, s), (images, scale))
    clip_loss(images, texts, scale).backward()
    assert images.grad is not None
    assert ((images.grad * texts[0]).sum(1) < 0).all()
