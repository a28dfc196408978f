"""The optimiser and the learning rate of each step (paper, section 3.3)."""

from __future__ import annotations

import math
from typing import Any

import torch

from worldclip.config import TrainConfig

MAX_LOGIT_SCALE = math.log(100.0)


class MuonWithAdamW:
    """Muon for the matrices inside the towers' blocks, AdamW for all else, stepped as one."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._parts = {"muon": muon, "adamw": adamw}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, for setting their learning rate."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad()

    def step(self) -> None:
        """Update every parameter."""
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of both."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


Optimizer = torch.optim.AdamW | MuonWithAdamW


def build_optimizer(model: torch.nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser that `config.optimizer` names, with weight decay on matrices only: none on biases, norms, scale.

    "adamw" is the paper's. "muon" steps the matrices inside the towers' blocks along their orthogonalised momentum,
    scaled to the size of AdamW's steps so that one learning rate serves both; embeddings, projections, biases, norms
    and the logit scale stay with AdamW.
    """
    inside = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if config.optimizer == "muon" and parameter.ndim == 2 and ".encoder.layers." in name
    }
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    adamw = torch.optim.AdamW(
        [
            {"params": [parameter for parameter in rest if parameter.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    if not inside:
        return adamw
    muon = torch.optim.Muon(
        [parameter for parameter in model.parameters() if id(parameter) in inside],
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )
    return MuonWithAdamW(muon, adamw)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
