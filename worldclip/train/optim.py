"""The optimiser and the learning rate of each step (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.distributed.tensor import DTensor

from worldclip.config import TrainConfig

MAX_LOGIT_SCALE = math.log(100.0)


def hardware_precision() -> str:
    """bf16 where the processor multiplies it in hardware tiles, else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


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
        optimizers.append(Muon(list(inside.values()), lr=config.lr, weight_decay=config.weight_decay))
    return optimizers


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) as `torch.optim.Muon` with `match_rms_adamw` defines it, matrices of a shape together.

    torch's own orthogonalises in bf16 alone, one matrix after the other. A processor without bf16 products spends
    three quarters of a small model's step on that; here it is fp32 there.

    Args:
        params: matrices, all fp32.
        lr: as AdamW's.
        dtype: of the products; None takes bf16 where the hardware multiplies it.
    """

    MOMENTUM = 0.95
    COEFFICIENTS = (3.4445, -4.7750, 2.0315)  #: of the Newton-Schulz iteration
    ITERATIONS = 5

    def __init__(
        self, params: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype or (torch.bfloat16 if hardware_precision() == "bf16" else torch.float32)
        for parameter in params:
            self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One step along the orthogonalised momentum, with decoupled weight decay."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    momentum = self.state[parameter]["momentum_buffer"].lerp_(parameter.grad, 1 - self.MOMENTUM)
                    update = parameter.grad.lerp(momentum, self.MOMENTUM)
                    by_shape.setdefault(parameter.shape, []).append((parameter, update))
            for shape, found in by_shape.items():
                parameters = [parameter for parameter, _ in found]
                steps = self._orthogonalised(torch.stack([update for _, update in found]))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                # 0.2 is the size of AdamW's steps: one learning rate serves both.
                torch._foreach_add_(parameters, list(steps.unbind()), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])

    def _orthogonalised(self, matrices: torch.Tensor) -> torch.Tensor:
        """The orthogonal factors of matrices [n, rows, columns], nearly: singular values come out about 1."""
        tall = matrices.shape[1] > matrices.shape[2]
        found = (matrices.mT if tall else matrices).to(self._dtype)
        found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        first, second, third = self.COEFFICIENTS
        for _ in range(self.ITERATIONS):
            gram = found @ found.mT
            found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), found, beta=first)
        return (found.mT if tall else found).to(matrices.dtype)


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
