"""CLIP's contrastive loss (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def clip_loss(image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Mean over texts and directions of the cross-entropy of each image among texts and each text among images.

    Args:
        image_features: [n, d], L2-normalised.
        text_features: [k, n, d], L2-normalised; text_features[j, i] belongs to image i. Each of the k sets of texts is
            contrasted with the images by itself, so that an image's other texts are never its negatives.
        logit_scale: scalar, already exponentiated.
    """
    labels = torch.arange(len(image_features), device=image_features.device)
    logits = logit_scale * (image_features @ text_features.transpose(1, 2))  # [k, images, texts]
    count = len(text_features)
    by_image = cross_entropy(logits.flatten(0, 1), labels.repeat(count))
    by_text = cross_entropy(logits.transpose(1, 2).flatten(0, 1), labels.repeat(count))
    return (by_image + by_text) / 2
