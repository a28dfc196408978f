"""CLIP's contrastive loss (paper, section 3.3), in tiles: memory grows with the batch, not with its square."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

TILE = 1024  #: rows of the matrix of similarities that are held at once


def clip_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    positives: torch.Tensor | None = None,
    *,
    own: slice = slice(None),
    valid: torch.Tensor | None = None,
    tile: int = TILE,
) -> torch.Tensor:
    """Mean over texts and directions of the cross-entropy of each image among texts and each text among images.

    Args:
        image_features: [n, d], L2-normalised; of the whole batch, gathered from all ranks.
        text_features: [k, n, d], L2-normalised; text_features[j, i] was drawn for image i. Each of the k sets of texts
            is contrasted with the images by itself, so that an image's other texts are never its negatives.
        logit_scale: scalar, already exponentiated.
        positives: bool [k, n, n]; positives[j, i, m] tells whether text m of set j is a text of image i. Its row and
            column share the target evenly. None is the paper's loss: only the pairs that were drawn.
        own: the images and texts whose cross-entropy is computed here. Added up over ranks, the parts are the loss,
            and the gradients of the parts are its gradient.
        valid: bool [n]; what is False takes no part, as if the batch were smaller. None: all do.
        tile: rows held at once: memory is O(tile * n + n * d).
    """
    sets = len(text_features)
    count = len(image_features) if valid is None else int(valid.sum())
    total = image_features.new_zeros(())
    for number in range(sets):
        of_set = None if positives is None else positives[number]
        for anchors, others, target in (
            (image_features, text_features[number], of_set),
            (text_features[number], image_features, None if of_set is None else of_set.T),
        ):
            total = total + _CrossEntropy.apply(anchors, others, logit_scale, target, own, valid, tile)  # type: ignore[no-untyped-call]
    return total / (2 * sets * max(count, 1))


class _CrossEntropy(torch.autograd.Function):
    """Sum over the own anchors of their cross-entropy among all others; gradients are made on the way, tile by tile."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: torch.Tensor,
        others: torch.Tensor,
        scale: torch.Tensor,
        target: torch.Tensor | None,
        own: slice,
        valid: torch.Tensor | None,
        tile: int,
    ) -> torch.Tensor:
        total, scale_gradient = anchors.new_zeros(()), anchors.new_zeros(())
        anchor_gradient, other_gradient = torch.zeros_like(anchors), torch.zeros_like(others)
        places = torch.arange(len(anchors), device=anchors.device)[own]
        if valid is not None:
            places = places[valid[own]]
        for rows in places.split(tile):  # type: ignore[no-untyped-call]
            similarity = anchors[rows] @ others.T
            logits = scale * similarity
            if valid is not None:
                logits.masked_fill_(~valid, float("-inf"))
            logs = torch.log_softmax(logits, 1)
            if target is None:
                total -= logs.gather(1, rows[:, None]).sum()
                gradient = logs.exp_()
                gradient[torch.arange(len(rows), device=rows.device), rows] -= 1
            else:
                share = target[rows].to(logs) if valid is None else (target[rows] & valid).to(logs)
                share /= share.sum(1, keepdim=True)
                total -= torch.where(share > 0, share * logs, 0).sum()
                gradient = logs.exp_() - share
            scale_gradient += (gradient * similarity).sum()
            gradient *= scale
            anchor_gradient[rows] = gradient @ others
            other_gradient += gradient.T @ anchors[rows]
        ctx.save_for_backward(anchor_gradient, other_gradient, scale_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        anchors, others, scale = ctx.saved_tensors
        return gradient * anchors, gradient * others, gradient * scale, None, None, None, None
