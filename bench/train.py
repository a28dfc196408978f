"""Training S/16 beside the usual stack: transformers, a plain PyTorch loop, dense AdamW, webdataset, Pillow, NumPy.

Same model, weights, images, texts, batch and threads; each in a process of its own, so that memory is told apart. The
peer pads texts to the context, as `tokenizer(..., padding="max_length")` does in that stack; the token ids are drawn
from the vocabulary with Zipf's law, since XLM-V's own vocabulary of 901,629 is not in a package.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import webdataset
from torch.nn.functional import cross_entropy, normalize
from transformers import MetaClip2Model

from bench import peak_mb
from bench.loader import jpegs, peer
from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.errors import WorldclipError
from worldclip.loader.batches import Batch, Cursor
from worldclip.loader.images import Crops, decode_crop
from worldclip.loader.parts import Loaded, Part
from worldclip.model.sizes import build_model
from worldclip.tokenizer import END, PAD, START
from worldclip.train.ranks import Ranks
from worldclip.train.trainer import Trainer

LENGTH, MEAN_TOKENS = 77, 16


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a vocabulary: samples a second and peak memory of both.

    Raises:
        WorldclipError: the losses of the two are not the same.
    """
    for vocabulary in (2_000,) if check else (901_629, 32_000):
        with TemporaryDirectory() as folder:
            told = {
                side: json.loads(
                    subprocess.run(
                        [sys.executable, "-m", "bench.train", side, str(vocabulary), folder, str(int(check))],
                        capture_output=True, text=True, check=True,
                    ).stdout.splitlines()[-1]
                )
                for side in ("ours", "peer")
            }  # fmt: skip
        ours, peer = told["ours"], told["peer"]
        for mine, theirs in zip(ours["losses"], peer["losses"], strict=True):
            if abs(mine - theirs) > 0.1 * theirs:  # the two draw other crops
                raise WorldclipError(f"bench: train: losses {ours['losses']} and {peer['losses']}.")
        yield {
            "vocabulary": vocabulary,
            "batch": ours["batch"],
            "samples_per_second": round(ours["rate"], 2),
            "peer_samples_per_second": round(peer["rate"], 2),
            "ratio": round(ours["rate"] / peer["rate"], 2),
            "peak_mb": ours["peak_mb"],
            "peer_peak_mb": peer["peak_mb"],
            "losses": [round(loss, 4) for loss in ours["losses"]],
        }


def _model(vocabulary: int, *, small: bool) -> MetaClip2Model:
    """S/16 (paper, section 4.1), or a small one of the same shape."""
    tower = TowerConfig(layers=1 if small else 12, width=48 if small else 384, heads=6)
    config = ModelConfig(vision=tower, text=tower, embedding=tower.width, image_size=224, patch_size=16)
    return build_model(config, vocab_size=vocabulary, context_length=LENGTH, temperature=0.07, seed=0)


def _ids(vocabulary: int, steps: int, batch: int) -> torch.Tensor:
    """Token ids, int64 [steps, batch, LENGTH]: lengths around `MEAN_TOKENS`, pieces by Zipf's law."""
    chance = np.random.default_rng(0)
    ids = np.full((steps, batch, LENGTH), PAD)
    lengths = np.clip(chance.poisson(MEAN_TOKENS, (steps, batch)), 3, LENGTH)
    pieces = np.minimum(chance.zipf(1.2, ids.shape) + END, vocabulary - 1)
    place = np.arange(LENGTH)
    ids = np.where(place < lengths[..., None], pieces, ids)
    ids[..., 0] = START
    ids[place == lengths[..., None] - 1] = END
    return torch.from_numpy(ids)


def _ours(model: MetaClip2Model, tar: Path, ids: torch.Tensor, config: TrainConfig) -> Callable[[int], float]:
    """What does a step and gives its loss: this package's loader and loop."""
    trainer = Trainer(model, config, Ranks(), seed=0, steps=len(ids))
    part = Part(images=config.batch_size, texts_per_image=1, size=224, crop_scale=config.crop_scale, seed=0)
    with tarfile.open(tar) as members:
        places = [(member.offset_data, member.size) for member in members]
    file = open(tar, "rb")  # noqa: SIM115 - as long as the process

    def step(number: int) -> float:
        rows = np.arange(number * config.batch_size, (number + 1) * config.batch_size)
        crops = Crops.draw(rows.astype(np.uint64), 0, 0, config.crop_scale)
        pixels = np.empty((len(rows), 3, 224, 224), np.uint8)
        for at, row in enumerate(rows):
            file.seek(places[row][0])
            pixels[at] = decode_crop(file.read(places[row][1]), 224, crops, at).transpose(2, 0, 1)
        nothing = np.zeros(len(rows), np.int64)
        batch = Batch(
            step=number, epoch=0, after=Cursor(), images=rows, keys=nothing, epochs=nothing, texts=rows[None],
            identity=rows[None], own=(),
        )  # fmt: skip
        trainer.set_learning_rate(number)
        loaded = Loaded(batch=batch, pixels=torch.from_numpy(pixels), ids=ids[number][None])
        return trainer.step(loaded, part, 1.0)[0]

    return step


def _peer(model: MetaClip2Model, tar: Path, ids: torch.Tensor, config: TrainConfig) -> Callable[[int], float]:
    """The same in the usual stack."""
    decayed = [each for each in model.parameters() if each.ndim >= 2]
    others = [each for each in model.parameters() if each.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True,
    )  # fmt: skip
    chance = random.Random(0)
    stream = iter(webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False))
    model.train()

    def step(number: int) -> float:
        pixels = np.stack([peer(next(stream)["jpg"], chance) for _ in range(config.batch_size)])
        output = model(input_ids=ids[number], pixel_values=torch.from_numpy(pixels))
        logits = model.logit_scale.exp() * normalize(output.image_embeds) @ normalize(output.text_embeds).T
        target = torch.arange(len(logits))
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (number + 1) / config.warmup_steps)
        optimizer.step()
        model.logit_scale.data.clamp_(max=float(np.log(100)))
        return float(loss.detach())

    return step


def main(side: str, vocabulary: int, folder: str, *, check: bool) -> None:
    """Time one side and print what was found as JSON."""
    batch, steps = (4, 3) if check else (16, 5)
    torch.set_num_threads(2)
    config = TrainConfig(seen_pairs=batch * steps, batch_size=batch, precision="fp32", warmup_steps=2_000)
    tar = Path(folder, f"{side}.tar")
    with tarfile.open(tar, "w") as file:
        for number, data in enumerate(jpegs(batch * steps, 640)):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    make = _ours if side == "ours" else _peer
    step = make(_model(vocabulary, small=check), tar, _ids(vocabulary, steps, batch), config)
    losses, ends = [], []
    for number in range(steps):
        losses.append(step(number))
        ends.append(time.perf_counter())
    rate = batch * (steps - 1) / (ends[-1] - ends[0])  # the first step warms up
    peak = round(peak_mb())
    print(json.dumps({"rate": rate, "losses": losses, "peak_mb": peak, "batch": batch}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], check=sys.argv[4] == "1")
