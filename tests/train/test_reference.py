"""The loop beside a plain one: dense AdamW, the whole matrix of similarities, one process, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize

from worldclip.config import TrainConfig
from worldclip.loader.batches import batches
from worldclip.loader.images import augment, step_generator
from worldclip.loader.images import normalize as normalized
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.train.loop import train
from worldclip.train.optim import MAX_LOGIT_SCALE, learning_rate

CONFIG = worlds.CONFIG
STEPS = 12


def plain(config: TrainConfig) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and losses of the recipe in the plainest PyTorch."""
    data, model = worlds.data(), worlds.model()
    decayed = [each for each in model.parameters() if each.ndim >= 2]
    others = [each for each in model.parameters() if each.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )
    losses = []
    size = config.batch_size
    pixels = torch.from_numpy(data.pixels).permute(0, 3, 1, 2)
    for batch in batches(data, images=size, texts_per_image=1, seed=0, start=0, steps=STEPS):
        crops = augment(pixels[batch.images], 8, crop_scale=config.crop_scale, generator=step_generator(0, batch.step))
        ids = torch.from_numpy(data.token_ids[data.text_of_candidate[batch.texts[0]]]).long()
        output = model(input_ids=ids, pixel_values=normalized(crops, IMAGE_MEAN, IMAGE_STD))
        images, texts = normalize(output.image_embeds, dim=-1), normalize(output.text_embeds, dim=-1)
        logits = model.logit_scale.exp() * images @ texts.T
        target = torch.arange(size)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(batch.step, STEPS, config)
        optimizer.step()
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        losses.append(loss.item())
    return {name: value.detach() for name, value in model.state_dict().items()}, losses


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, torch.Tensor], list[float]]:
    return plain(CONFIG)


def close(
    found: dict[str, torch.Tensor], losses: list[float], expected: tuple[dict[str, torch.Tensor], list[float]]
) -> None:
    """Losses to 1e-5; weights to 2e-4 of the 0.02 that a weight can move in these steps.

    Where a gradient is nearly 0, AdamW makes a step's direction of its rounding: hence more than a few last bits.
    """
    np.testing.assert_allclose(losses, expected[1], rtol=1e-5)
    for name, value in expected[0].items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


VARIANTS = {
    "plain": {},
    "pieces": {"accumulate": 4},
    "pieces that do not divide": {"accumulate": 5},
    "checkpointed": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_process(variant: str, reference: tuple[dict[str, torch.Tensor], list[float]], tmp_path: Path) -> None:
    model = worlds.model()
    done = train(model, worlds.data(), replace(CONFIG, **VARIANTS[variant]), seed=0, key="k", checkpoints=tmp_path)
    close(model.state_dict(), [loss for _, loss in done.losses], reference)


@pytest.mark.slow
# What torch's compiler does itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled(reference: tuple[dict[str, torch.Tensor], list[float]], tmp_path: Path) -> None:
    model = worlds.model()
    done = train(model, worlds.data(), replace(CONFIG, compile=True), seed=0, key="k", checkpoints=tmp_path)
    close(model.state_dict(), [loss for _, loss in done.losses], reference)


def torchrun(processes: int, out: Path, *variants: str) -> None:
    """Train the variants in so many processes, one after the other; each rank writes its weights and losses."""
    program = Path(__file__).parents[1] / "worlds.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, "--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend", "c10d",
         "--rdzv-endpoint", "127.0.0.1:0", str(program), str(out), *variants],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    torchrun(2, out, "ddp", "fsdp in pieces")
    return out


def of_ranks(out: Path, variant: str, reference: tuple[dict[str, torch.Tensor], list[float]]) -> None:
    weights = [load_file(out / f"{variant}-{rank}.safetensors") for rank in range(2)]
    losses = [np.load(out / f"{variant}-{rank}.npy").tolist() for rank in range(2)]
    close(weights[0], losses[0], reference)
    assert losses[0] == losses[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # to the bit


@pytest.mark.parametrize("variant", ["ddp", "fsdp in pieces"])
def test_two_ranks(variant: str, two_ranks: Path, reference: tuple[dict[str, torch.Tensor], list[float]]) -> None:
    of_ranks(two_ranks, variant, reference)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ddp in pieces", "fsdp"])
def test_two_ranks_otherwise(
    variant: str, tmp_path: Path, reference: tuple[dict[str, torch.Tensor], list[float]]
) -> None:
    torchrun(2, tmp_path, variant)
    of_ranks(tmp_path, variant, reference)


@pytest.mark.slow
def test_from_two_ranks_to_one_and_back(tmp_path: Path, reference: tuple[dict[str, torch.Tensor], list[float]]) -> None:
    # SIGTERM after five steps of each; the samples of all of them are those of an undisturbed run.
    for processes, variant in ((2, "fsdp!5"), (1, "ddp!5"), (2, "ddp!9")):
        torchrun(processes, tmp_path, variant)
    seen = [np.load(tmp_path / f"seen-{number}.npy") for number in range(3)]
    whole = batches(worlds.data(), images=16, texts_per_image=1, seed=0, start=0, steps=STEPS)
    assert [len(each) for each in seen] == [5, 5, 2]
    assert np.concatenate(seen).tolist() == [batch.keys.tolist() for batch in whole]
    close(load_file(tmp_path / "ddp-0.safetensors"), np.load(tmp_path / "ddp-0.npy").tolist(), reference)
