"""A world of coloured squares that a tiny CLIP learns in a second, and a program that torchrun starts to learn it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from transformers import MetaClip2Model

from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.curation.sample import Candidates, id_keys
from worldclip.loader.memory import MemoryImages
from worldclip.loader.parts import Loaded, Part
from worldclip.model.sizes import build_model
from worldclip.tokenizer import END, PAD, START
from worldclip.train.loop import train
from worldclip.train.ranks import Ranks, started

IMAGES, TEXTS, LENGTH = 48, 3, 6
TOWER = TowerConfig(layers=2, width=16, heads=2)
MODEL = ModelConfig(vision=TOWER, text=TOWER, embedding=8, image_size=8, patch_size=4)
CONFIG = TrainConfig(
    seen_pairs=12 * 16, batch_size=16, lr=2e-3, warmup_steps=3, precision="fp32", threads=1, checkpoint_seconds=1e9
)


def data() -> MemoryImages:
    """Each image has a colour of its own, and texts that name it; the rows of the texts are in no order."""
    noise = np.random.default_rng(0)
    colours = noise.integers(0, 256, (IMAGES, 1, 1, 3))
    pixels = (colours + noise.integers(-5, 6, (IMAGES, 10, 10, 3))).clip(0, 255).astype(np.uint8)
    ids = np.full((IMAGES * TEXTS, LENGTH), PAD)
    ids[:, 0] = START
    for row in range(IMAGES * TEXTS):
        ids[row, 1:3] = 4 + row // TEXTS, 60 + row % TEXTS
        ids[row, 3] = END
    candidates = Candidates(
        keys=id_keys(map(str, range(IMAGES))),
        offsets=np.arange(0, IMAGES * TEXTS + 1, TEXTS),
        keep_probability=noise.choice([0.3, 0.7, 1.0], IMAGES * TEXTS),
    )
    order = noise.permutation(IMAGES * TEXTS)
    return MemoryImages(
        pixels=pixels, candidates=candidates, token_ids=ids[order].astype(np.int32), text_of_candidate=np.argsort(order)
    )


def model() -> MetaClip2Model:
    return build_model(MODEL, vocab_size=70, context_length=LENGTH, temperature=0.07, seed=0)


VARIANTS: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": "ddp"},
    "ddp in pieces": {"parallel": "ddp", "accumulate": 3},
    "fsdp": {"parallel": "fsdp"},
    "fsdp in pieces": {"parallel": "fsdp", "accumulate": 2, "gradient_checkpointing": True},
}


def learn(ranks: Ranks, out: Path, variant: str) -> None:
    """Train one variant and write weights, losses and the keys of the images seen.

    "ddp!4" is ended by SIGTERM in its fourth step, "ddp~0.2" by kill -9 0.2 seconds after its first batch; all variants
    with an end go on in one folder of checkpoints.
    """
    name, _, after = variant.partition("~")
    name, _, end = name.partition("!")
    seen: list[list[int]] = []

    class Loader:
        """Notes what it loads."""

        def load(self, part: Part, **of: Any) -> Iterator[Loaded]:
            for loaded in data().load(part, **of):
                if after and not seen:
                    timer = threading.Timer(float(after), os.kill, (os.getpid(), signal.SIGKILL))
                    timer.daemon = True
                    timer.start()
                seen.append(loaded.batch.keys.tolist())
                if end and len(seen) == int(end) and ranks.rank == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield loaded

    made, folder = model(), out / ("checkpoints" if end or after else f"{name} checkpoints")
    config = replace(CONFIG, **VARIANTS[name], **({"checkpoint_seconds": 0.0} if after else {}))
    try:
        done = train(made, Loader(), config, seed=0, key="k", checkpoints=folder, ranks=ranks)
    except SystemExit as stopped:
        if stopped.code != 128 + signal.SIGTERM:
            raise
    else:
        weights = {name: value.detach().contiguous() for name, value in made.state_dict().items()}
        save_file(weights, out / f"{name}-{ranks.rank}.safetensors")
        np.save(out / f"{name}-{ranks.rank}.npy", np.array([loss for _, loss in done.losses]))
    if ranks.rank == 0:
        np.save(out / f"seen-{len(list(out.glob('seen-*')))}.npy", np.array(seen, np.uint64))


if __name__ == "__main__":
    with started() as together:
        for each in sys.argv[2:]:
            learn(together, Path(sys.argv[1]), each)
