"""Distillation, a term of the one loop's loss: a frozen teacher's similarities, both ways (paper, smaller models).

The student learns, beside the contrastive loss, to spread an image's similarity over the batch's texts, and a text's
over its images, as the teacher does at the teacher's own logit scale. The teacher may be of any size and resolution
and have a tokenizer of its own; widths of embeddings need not be equal, since only similarities are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import MetaClip2Model

from worldclip.loader.images import normalize
from worldclip.loader.parts import Loaded, Part
from worldclip.model.features import image_features, text_features
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.storage import replacing
from worldclip.train.loss import TILE


def distillation_loss(
    students: tuple[torch.Tensor, torch.Tensor],
    teachers: tuple[torch.Tensor, torch.Tensor],
    scale: float,
    *,
    own: slice = slice(None),
    valid: torch.Tensor | None = None,
    tile: int = TILE,
) -> torch.Tensor:
    """Mean over texts and directions of the divergence KL(teacher || student) of each one's similarities; 0 if equal.

    Args:
        students: images [n, d] and texts [k, n, d], L2-normalised, of the whole batch.
        teachers: the same of the teacher, of any width; no gradient reaches them.
        scale: the teacher's logit scale, of both distributions.
        own: see `clip_loss`; the parts of ranks add up.
        valid: see `clip_loss`.
        tile: rows held at once.
    """
    images, texts = students
    count = len(images) if valid is None else int(valid.sum())
    total = images.new_zeros(())
    for of_set, taught in zip(texts, teachers[1], strict=True):
        for anchors, others, taught_anchors, taught_others in (
            (images, of_set, teachers[0], taught),
            (of_set, images, taught, teachers[0]),
        ):
            total = total + _Divergence.apply(  # type: ignore[no-untyped-call]
                anchors, others, taught_anchors, taught_others, scale, own, valid, tile
            )
    return total / (2 * len(texts) * max(count, 1))


class _Divergence(torch.autograd.Function):
    """Sum over the own anchors of their divergence; gradients are made on the way, tile by tile."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: torch.Tensor,
        others: torch.Tensor,
        taught_anchors: torch.Tensor,
        taught_others: torch.Tensor,
        scale: float,
        own: slice,
        valid: torch.Tensor | None,
        tile: int,
    ) -> torch.Tensor:
        total = anchors.new_zeros(())
        anchor_gradient, other_gradient = torch.zeros_like(anchors), torch.zeros_like(others)
        places = torch.arange(len(anchors), device=anchors.device)[own]
        if valid is not None:
            places = places[valid[own]]
        for rows in places.split(tile):  # type: ignore[no-untyped-call]
            logits, taught = scale * anchors[rows] @ others.T, scale * taught_anchors[rows] @ taught_others.T
            if valid is not None:
                logits.masked_fill_(~valid, float("-inf"))
                taught.masked_fill_(~valid, float("-inf"))
            logs, target = torch.log_softmax(logits, 1), torch.log_softmax(taught, 1)
            shares = target.exp()
            total += torch.where(shares > 0, shares * (target - logs), 0).sum()
            gradient = (logs.exp_() - shares).mul_(scale)
            anchor_gradient[rows] = gradient @ others
            other_gradient += gradient.T @ anchors[rows]
        ctx.save_for_backward(anchor_gradient, other_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        anchors, others = ctx.saved_tensors
        return gradient * anchors, gradient * others, None, None, None, None, None, None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen model whose features of a batch are computed, or looked up where they were computed before.

    Where `ids` is None its tokenizer is the student's. `ids` and `text_of_candidate` are of texts that are known before
    training: the loader's in memory.
    """

    model: MetaClip2Model
    scale: float  #: its logit scale, exponentiated
    ids: np.ndarray | None = None  #: int [distinct texts, length], its own
    text_of_candidate: np.ndarray | None = None  #: int64 [candidates], row of `ids`
    known: tuple[np.ndarray, np.ndarray] | None = None  #: float32 features of all images, of all distinct texts

    @property
    def size(self) -> int:
        """Pixels on a side that its images need: none where its features are known."""
        return 0 if self.known else int(self.model.config.vision_config.image_size)

    @torch.no_grad()
    def features(self, loaded: Loaded, part: Part, pixels: torch.Tensor) -> torch.Tensor:
        """Features [n, (1 + k) * d] of a rank's part of a batch: of the image and of its k texts, L2-normalised.

        Args:
            pixels: float [n, 3, side, side], normalised, of any side.
        """
        places, _ = part.rows()
        device = pixels.device
        if self.known:
            images, texts = self.known
            rows = np.asarray(self.text_of_candidate)[loaded.batch.texts[:, places]]
            found = np.concatenate([images[loaded.batch.images[places]], *texts[rows]], axis=1)
            return torch.from_numpy(found).to(device)
        if self.ids is None:
            ids = loaded.ids.to(device)
        else:
            rows = np.asarray(self.text_of_candidate)[loaded.batch.texts[:, places]]
            ids = torch.from_numpy(self.ids[rows]).long().to(device)
        features = text_features(self.model, ids.reshape(-1, ids.shape[-1])).view(*ids.shape[:2], -1)
        return torch.cat([image_features(self.model, fitted(pixels, self.size)), *features], dim=1)


def frozen(model: MetaClip2Model, device: torch.device) -> MetaClip2Model:
    """A model as a teacher: nothing of it is trained."""
    return model.to(device).eval().requires_grad_(False)


def fitted(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels [n, 3, s, s] at another side, bicubic and antialiased; as they are if they fit."""
    if pixels.shape[-1] == side:
        return pixels
    return functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)


@torch.no_grad()
def known_features(
    model: MetaClip2Model,
    pixels: np.ndarray,
    ids: np.ndarray,
    files: Sequence[Path],
    report: Callable[[int, int], None],
    batch: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """A teacher's features of all images, uncropped, and of all distinct texts; from `files` if they are there.

    Computed once they serve any number of students and epochs, at the price that the teacher never sees the crop that
    the student sees.

    Args:
        pixels: uint8 [images, height, width, 3].
        ids: int [distinct texts, length], the teacher's own.
        files: of the images' features and of the texts': memory-mapped `.npy`.
        report: called with batches done and in all.

    Raises:
        StorageError: the disk refused.
    """
    if not all(file.exists() for file in files):
        side = model.config.vision_config.image_size
        starts = [range(0, len(each), batch) for each in (pixels, ids)]
        done, total = 0, sum(map(len, starts))
        for data, file, part in zip((pixels, ids), files, starts, strict=True):
            rows = []
            for start in part:
                piece = torch.from_numpy(np.ascontiguousarray(data[start : start + batch]))
                if data is pixels:
                    shown = fitted(normalize(piece.permute(0, 3, 1, 2).float() / 255, IMAGE_MEAN, IMAGE_STD), side)
                    rows.append(image_features(model, shown).numpy())
                else:
                    rows.append(text_features(model, piece.long()).numpy())
                done += 1
                report(done, total)
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, np.concatenate(rows))
    images, texts = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
    return images, texts
