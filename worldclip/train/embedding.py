"""AdamW for the token embedding that costs as much as the rows of the batch, whatever the vocabulary.

A row that is not in the batch has no gradient, yet dense AdamW moves it: by weight decay, and by what is left of its
momentum. Here such a row is left alone, and when it is next needed it is brought up to date in one go. With its
moments m and v of step s, the k-th missed step would have moved it by

    lr[s+k] / (1 - beta1^(s+k)) * beta1^k * m / (c[k] * sqrt(v) + eps),   c[k] = sqrt(beta2^k / (1 - beta2^(s+k)))

so all of them together are m times an integral of 1 / (c * sqrt(v) + eps) over the points c[k], with positive weights
that are the same for every row last touched at step s. As a function of log c it is a smooth step, and Gauss's rule
with `NODES` points integrates it: exactly where no more than `NODES` steps were missed, and otherwise with an error
below 2e-6 of the movement for betas (0.9, 0.98) and 3e-5 for (0.9, 0.95); both are tested.
"""

from __future__ import annotations

import math

import numpy as np
import torch

NODES = 4
NEGLIGIBLE = 1e-12  #: missed steps whose momentum is below this share of the first are left out


class LazyEmbedding:
    """The rows of an embedding with their AdamW state, each up to date as of its own step.

    Args:
        weight: [vocabulary, width]; taken out of autograd: its gradients are handed to `step`.
        steps: optimiser steps of the whole run.
    """

    def __init__(
        self, weight: torch.nn.Parameter, *, betas: tuple[float, float], eps: float, weight_decay: float, steps: int
    ) -> None:
        weight.requires_grad_(False)
        weight.grad = None
        self.weight = weight
        self.exp_avg = torch.zeros_like(weight)
        self.exp_avg_sq = torch.zeros_like(weight)
        self.last = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)  #: step of each row's values
        self.rates = torch.zeros(steps, dtype=torch.float64)  #: learning rate of each step done
        self.done = torch.zeros((), dtype=torch.int64)  #: steps done
        self._betas, self._eps, self._weight_decay = betas, eps, weight_decay

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds beside the weights: the tensors themselves."""
        return {name: getattr(self, name) for name in ("exp_avg", "exp_avg_sq", "last", "rates", "done")}

    def current(self, rows: torch.Tensor) -> torch.Tensor:
        """The weights [n, width] of some distinct rows as dense AdamW would have them; changes nothing."""
        return self._caught_up(rows)[0]

    def catch_up(self, rows: torch.Tensor) -> torch.Tensor:
        """Bring distinct rows up to date and return their weights [n, width]."""
        weight, exp_avg, exp_avg_sq = self._caught_up(rows)
        self._write(rows, weight, exp_avg, exp_avg_sq)
        return weight

    def step(self, rows: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        """One step of AdamW, in which `rows` (distinct, up to date) have `gradient` [n, width] and all others none."""
        (beta1, beta2), number = self._betas, int(self.done) + 1
        exp_avg = self.exp_avg[rows].lerp_(gradient, 1 - beta1)
        exp_avg_sq = self.exp_avg_sq[rows].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (exp_avg_sq.sqrt() / math.sqrt(1 - beta2**number)).add_(self._eps)
        weight = self.weight[rows].mul_(1 - lr * self._weight_decay)
        weight.addcdiv_(exp_avg, spread, value=-lr / (1 - beta1**number))
        self.rates[number - 1] = lr
        self.done += 1
        self._write(rows, weight, exp_avg, exp_avg_sq)

    def flush(self, chunk: int = 65_536) -> None:
        """Bring every row up to date: before the weights are given away."""
        for rows in torch.arange(len(self.weight), device=self.weight.device).split(chunk):  # type: ignore[no-untyped-call]
            self.catch_up(rows)

    def _write(self, rows: torch.Tensor, weight: torch.Tensor, exp_avg: torch.Tensor, exp_avg_sq: torch.Tensor) -> None:
        for whole, part in ((self.weight.data, weight), (self.exp_avg, exp_avg), (self.exp_avg_sq, exp_avg_sq)):
            whole.index_copy_(0, rows, part)
        self.last[rows] = int(self.done)

    def _caught_up(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        since, of_row = self.last[rows].cpu().unique(return_inverse=True)  # type: ignore[no-untyped-call]
        decay, nodes, weights = missed_steps(
            since.numpy(), self.rates.numpy()[: int(self.done)], self._betas, self._weight_decay
        )

        def each_row(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(self.weight)[of_row.to(rows.device)].unsqueeze(1)

        weight, exp_avg, exp_avg_sq = self.weight[rows], self.exp_avg[rows], self.exp_avg_sq[rows]
        root = exp_avg_sq.sqrt()
        moved = torch.zeros_like(weight)
        for node in range(NODES):
            moved.add_(each_row(weights[:, node]) / (root * each_row(nodes[:, node])).add_(self._eps))
        gap = (int(self.done) - since).numpy()
        weight.mul_(each_row(decay)).addcmul_(exp_avg, moved, value=-1)
        exp_avg.mul_(each_row(self._betas[0] ** gap))
        exp_avg_sq.mul_(each_row(self._betas[1] ** gap))
        return weight, exp_avg, exp_avg_sq


def missed_steps(
    since: np.ndarray, rates: np.ndarray, betas: tuple[float, float], weight_decay: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the steps after `since` do to a row without gradient.

    Args:
        since: int64 [n], steps that the row has seen.
        rates: float64 [t], learning rate of every step done.

    Returns:
        decay: float64 [n]; nodes, weights: float64 [n, NODES], such that the row becomes
        `decay * w - m * sum(weights / (nodes * sqrt(v) + eps))`.
    """
    beta1, beta2 = betas
    done = len(rates)
    longest = math.ceil(math.log(NEGLIGIBLE) / math.log(beta1))  # always: a row must not depend on its company
    decays = np.concatenate([[0.0], np.cumsum(np.log1p(-rates * weight_decay))])  # log of the product up to each step
    missed = np.arange(1, longest + 1)
    number = since[:, None] + missed  # of the step, from 1
    inside = number <= done
    number = np.minimum(number, max(done, 1))
    rate = np.append(rates, 0.0)[number - 1] if done else np.zeros(number.shape)
    mass = np.where(
        inside, rate * beta1**missed / (1 - beta1**number) * np.exp(decays[-1] - decays[np.minimum(number, done)]), 0.0
    )
    points = 0.5 * (missed * np.log(beta2) - np.log1p(-(beta2**number)))
    nodes, weights = gauss(points, mass, NODES)
    return np.exp(decays[-1] - decays[since]), np.exp(nodes), weights


def gauss(points: np.ndarray, mass: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss's rule of each row's discrete measure, by Lanczos's method.

    Args:
        points: float64 [n, k].
        mass: float64 [n, k], not negative.

    Returns:
        nodes, weights: float64 [n, nodes]; where a measure has fewer points, further weights are 0.
    """
    total = mass.sum(1)
    vector = np.sqrt(mass / np.where(total > 0, total, 1.0)[:, None])
    basis = [vector]
    jacobi = np.zeros((len(points), nodes, nodes))
    for at in range(nodes):
        image = points * basis[at]
        jacobi[:, at, at] = (image * basis[at]).sum(1)
        if at + 1 == nodes:
            break
        for _ in range(2):  # Orthogonal to the last bits.
            for before in basis:
                image -= (image * before).sum(1)[:, None] * before
        length = np.sqrt((image * image).sum(1))
        length[length < 1e-10 * np.abs(points).max(1, initial=0.0)] = 0.0
        jacobi[:, at, at + 1] = jacobi[:, at + 1, at] = length
        basis.append(image / np.where(length > 0, length, np.inf)[:, None])
    values, vectors = np.linalg.eigh(jacobi)
    return values, total[:, None] * vectors[:, 0, :] ** 2
