"""CLIP's contrastive loss (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax


def clip_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    logit_scale: torch.Tensor,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over texts and directions of the cross-entropy of each image among texts and each text among images.

    Args:
        image_features: [n, d], L2-normalised.
        text_features: [k, n, d], L2-normalised; text_features[j, i] was drawn for image i. Each of the k sets of texts
            is contrasted with the images by itself, so that an image's other texts are never its negatives.
        logit_scale: scalar, already exponentiated.
        positives: bool [k, n, n]; positives[j, i, m] tells whether text m of set j is a text of image i. Its row and
            column share the target evenly. None is the paper's loss: only the pairs that were drawn.
    """
    logits = logit_scale * (image_features @ text_features.transpose(1, 2))  # [k, images, texts]
    if positives is None:
        drawn = [log_softmax(logits, dim).diagonal(dim1=1, dim2=2) for dim in (1, 2)]
        return -torch.stack(drawn).mean()
    weights = positives.float()
    shared = [(log_softmax(logits, dim) * weights).sum(dim) / weights.sum(dim) for dim in (1, 2)]
    return -torch.stack(shared).mean()
