"""The training loop (paper, section 3.3): draw pairs, augment, contrast, step. Resumes at any step, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.curation.sample import Candidates
from worldclip.errors import WorldclipError
from worldclip.loader.batches import batches
from worldclip.loader.images import augment, normalize, step_generator
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD, image_features, text_features
from worldclip.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from worldclip.train.loss import clip_loss
from worldclip.train.optim import MAX_LOGIT_SCALE, build_optimizer, learning_rate

LOSS_POINTS = 100  #: points of a run's loss curve


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Curated pairs, ready for the loop."""

    pixels: np.ndarray  #: uint8 [images, height, width, 3]
    candidates: Candidates
    token_ids: np.ndarray  #: int [distinct texts, length]
    text_of_candidate: np.ndarray  #: int64 [candidates], row of `token_ids`

    def positives(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Which texts of a batch are also texts of its other images.

        Args:
            images: int64 [n].
            texts: int64 [k, n], rows of `token_ids`.

        Returns:
            bool [k, n, n]: whether texts[j, m] is a candidate text of images[i].
        """
        distinct, column = np.unique(texts, return_inverse=True)
        place = np.full(len(self.token_ids), -1)
        place[distinct] = np.arange(len(distinct))
        first, after = self.candidates.offsets[images], self.candidates.offsets[images + 1]
        own = np.concatenate([self.text_of_candidate[low:high] for low, high in zip(first, after, strict=True)])
        row = np.repeat(np.arange(len(images)), after - first)
        found = place[own]
        has = np.zeros((len(images), len(distinct)), bool)
        has[row[found >= 0], found[found >= 0]] = True
        return has[:, column.reshape(texts.shape)].transpose(1, 0, 2)


def hardware_precision() -> str:
    """bf16 where the processor multiplies it in hardware tiles, else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


def train(
    model: MetaClip2Model,
    data: TrainingData,
    config: TrainConfig,
    *,
    seed: int,
    key: str,
    checkpoint: Path,
    progress: Callable[[int, int, float], None] | None = None,
) -> Progress:
    """Train `model` in place for `config.seen_pairs` pairs.

    Args:
        key: names recipe and data; a checkpoint with another key is not resumed.
        checkpoint: written every `config.checkpoint_seconds`, and read if it is there.
        progress: called after each step with steps done, steps in all and the loss.

    Raises:
        WorldclipError: the loss is not finite.
    """
    torch.set_num_threads(config.threads)
    precision = hardware_precision() if config.precision == "auto" else config.precision
    images_per_step = max(1, config.batch_size // config.texts_per_image)
    pairs_per_step = images_per_step * config.texts_per_image
    steps = max(1, round(config.seen_pairs / pairs_per_step))
    every = max(1, steps // LOSS_POINTS)

    optimizer = build_optimizer(model, config)
    done = load_checkpoint(checkpoint, model, optimizer, key)
    pixels = torch.from_numpy(data.pixels).permute(0, 3, 1, 2)
    token_ids = torch.from_numpy(data.token_ids)
    size = model.config.vision_config.image_size
    started, saved = time.monotonic() - done.seconds, time.monotonic()
    model.train()
    for batch in batches(
        data.candidates,
        images=images_per_step,
        texts_per_image=config.texts_per_image,
        seed=seed,
        start=done.step,
        steps=steps,
    ):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(batch.step, steps, config)
        crops = augment(
            pixels[batch.images],
            size,
            crop_scale=config.crop_scale,
            color_jitter=config.color_jitter,
            generator=step_generator(seed, batch.step),
        )
        rows = data.text_of_candidate[batch.texts]
        ids = token_ids[rows.ravel()].long()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            images = image_features(model, normalize(crops, IMAGE_MEAN, IMAGE_STD))
            texts = text_features(model, ids)
        loss = clip_loss(
            images,
            texts.view(config.texts_per_image, images_per_step, -1),
            model.logit_scale.exp(),
            torch.from_numpy(data.positives(batch.images, rows)) if config.shared_texts == "positives" else None,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

        value = loss.item()
        if not np.isfinite(value):
            raise WorldclipError(
                f"The loss is {value} at step {batch.step} of {steps}. Lower train.lr (now {config.lr}) or set "
                "train.precision=fp32, and run again: it resumes from the last checkpoint."
            )
        done.step = batch.step + 1
        done.pending.append(value)
        done.seconds = time.monotonic() - started
        if done.step % every == 0 or done.step == steps:
            done.losses.append([done.step * pairs_per_step, float(np.mean(done.pending))])
            done.pending = []
        if progress:
            progress(done.step, steps, value)
        if time.monotonic() - saved > config.checkpoint_seconds or done.step == steps:
            save_checkpoint(checkpoint, model, optimizer, done)
            saved = time.monotonic()
    model.eval()
    return done
