"""What a recipe costs before anything is run: FLOPs, GPU-days, memory a GPU and money (docs/costs.md has the formulas).

Everything here is arithmetic over sizes; nothing was measured. What is assumed is a field of `Hardware`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worldclip.config import ModelConfig, Recipe, TowerConfig
from worldclip.model.released import RELEASED, Parameters, hidden, parameters, patches

#: bf16 peak without sparsity, FLOP/s; memory, bytes. Vendors' data sheets.
GPUS = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "b200": (2250e12, 192e9),
}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What is trained on, and what is assumed of it."""

    gpu: str = "h100"
    gpus: int = 384  #: the paper's: 48 nodes of 8
    utilisation: float = 0.35  #: share of the peak that useful work reaches; assumed
    price: float = 2.5  #: of a GPU for an hour, in any currency; assumed
    checkpointing: bool = True  #: blocks are computed again on the way back


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a whole run."""

    parameters: Parameters
    steps: int
    forward: float  #: FLOPs of a pair, both towers
    total: float  #: FLOPs of the run
    gpu_days: float
    days: float  #: on `Hardware.gpus`
    states: float  #: bytes a GPU of weights, gradients and moments, all held on each (DDP)
    sharded: float  #: the same over all GPUs (FSDP)
    activations: float  #: bytes a GPU at its share of the batch
    money: float


def tower_flops(tower: TowerConfig, length: int) -> float:
    """Forward pass of one sequence through the blocks: a product of [n, a] and [a, b] is 2nab."""
    width, inner = tower.width, hidden(tower)
    products = 2 * length * (4 * width * width + 2 * width * inner)
    attention = 2 * 2 * length * length * width  # scores, and the values they weigh
    return float(tower.layers * (products + attention))


def pair_flops(model: ModelConfig, context_length: int) -> float:
    """Forward pass of one image and one text of full length, without the loss."""
    length, vision, text = patches(model), model.vision.width, model.text.width
    image = tower_flops(model.vision, length) + 2 * (length - 1) * 3 * model.patch_size**2 * vision
    words = tower_flops(model.text, context_length)
    return image + words + 2 * (vision + text) * model.embedding


def activation_bytes(tower: TowerConfig, length: int, *, checkpointing: bool) -> float:
    """Of one sequence in bf16: what each block leaves for the way back, or only what it begins with.

    A block with fused attention keeps some 14 widths and 2 hidden widths a position (inputs of norms and products,
    query, key, value, sums). With checkpointing each block keeps its input, and one at a time is whole.
    """
    width, inner = tower.width, hidden(tower)
    block = 2.0 * length * (14 * width + 2 * inner)
    return tower.layers * 2.0 * length * width + block if checkpointing else tower.layers * block


def cost(recipe: Recipe, hardware: Hardware) -> Cost:
    """What a recipe costs on some hardware."""
    model, config = recipe.model, recipe.train
    context = recipe.tokenizer.context_length
    counted = parameters(model, vocab_size=recipe.tokenizer.vocab_size, context_length=context)
    forward = pair_flops(model, context)
    loss = 2.0 * config.batch_size * model.embedding  # a pair's row of similarities
    passes = 4 if hardware.checkpointing else 3  # forward, twice as much back, forward again
    each = passes * forward + 3 * loss
    if config.teacher is not None:
        taught = RELEASED[config.teacher].model
        each += pair_flops(taught, context) + 2 * loss
    total = each * config.seen_pairs
    peak, _ = GPUS[hardware.gpu]
    seconds = total / (peak * hardware.utilisation)
    share = config.batch_size / hardware.gpus
    activations = share * (
        activation_bytes(model.vision, patches(model), checkpointing=hardware.checkpointing)
        + activation_bytes(model.text, context, checkpointing=hardware.checkpointing)
    )
    # Weight, gradient and two moments in fp32; the embedding has a gradient only for the rows of a batch.
    dense = 16.0 * (counted.total - counted.tokens)
    touched = min(recipe.tokenizer.vocab_size, config.batch_size * context)
    states = dense + 12.0 * counted.tokens + 4.0 * touched * model.text.width
    return Cost(
        parameters=counted,
        steps=max(1, round(config.seen_pairs / config.batch_size)),
        forward=forward,
        total=total,
        gpu_days=seconds / 86_400,
        days=seconds / hardware.gpus / 86_400,
        states=states,
        sharded=states / hardware.gpus,
        activations=activations + 2 * 4.0 * config.batch_size * model.embedding,
        money=seconds / 3_600 * hardware.price,
    )


def figures(found: Cost) -> list[dict[str, Any]]:
    """A cost as rows of name, value and unit."""
    giga = 1e9
    rows = (
        ("parameters", found.parameters.total / 1e6, "million"),
        ("of these the token embedding", found.parameters.tokens / 1e6, "million"),
        ("steps", found.steps, ""),
        ("forward pass of a pair", found.forward / giga, "GFLOP"),
        ("whole run", found.total / 1e21, "ZFLOP"),
        ("GPU-days", found.gpu_days, "days"),
        ("time", found.days, "days"),
        ("weights, gradients, moments a GPU", found.states / giga, "GB"),
        ("the same, sharded over all", found.sharded / giga, "GB"),
        ("activations a GPU", found.activations / giga, "GB"),
        ("cost", found.money, "of the price's currency"),
    )
    return [{"figure": name, "value": value, "unit": unit} for name, value, unit in rows]
