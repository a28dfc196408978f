"""The optimiser and the learning rate of each step (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.distributed.tensor import DTensor

from worldclip.config import TrainConfig

MAX_LOGIT_SCALE = math.log(100.0)


def build_optimizers(model: torch.nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimisers that `config.optimizer` names, with weight decay on matrices only: none on biases, norms, scale.

    "adamw" is the paper's. "muon" steps the matrices inside the towers' blocks along their orthogonalised momentum,
    scaled to the size of AdamW's steps so that one learning rate serves both; embeddings, projections, biases, norms
    and the logit scale stay with AdamW. What does not ask for gradients is left out, but for the logit scale, whose
    gradient the loop makes by itself. Their state is there from the start, so that a checkpoint can be read into it.
    """
    chosen = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or name.endswith("logit_scale")
    }
    inside = {
        name: parameter
        for name, parameter in chosen.items()
        if config.optimizer == "muon" and parameter.ndim == 2 and ".encoder.layers." in name
    }
    rest = [parameter for name, parameter in chosen.items() if name not in inside]
    groups = [
        {
            # What FSDP shards is stepped apart from what is whole.
            "params": [each for each in rest if (each.ndim >= 2) == decayed and isinstance(each, DTensor) == sharded],
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for decayed in (True, False)
        for sharded in (False, True)
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )
    ]
    for parameter in rest:
        optimizers[0].state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    if inside:
        muon = torch.optim.Muon(
            list(inside.values()),
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        for parameter in inside.values():
            muon.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        optimizers.append(muon)
    return optimizers


def gradient_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of all gradients together, sharded ones counted whole."""
    norms = [torch.nn.utils.get_total_norm([each for each in gradients if not isinstance(each, DTensor)])]
    if sharded := [each for each in gradients if isinstance(each, DTensor)]:
        norms.append(torch.nn.utils.get_total_norm(sharded).full_tensor())  # type: ignore[attr-defined]
    return torch.stack(norms).norm() if len(norms) > 1 else norms[0]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
