"""`python -m bench.image_tower FOLDER`: the packaged MobileNetV2 (ImageNet) as a model folder of transformers.

Its convolutions stand in the same order in torchvision's file as in transformers' model; a photograph's class says
whether they came through.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

from worldclip.packages import Cache, cache_folder

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write(folder: Path) -> None:
    """Write config, weights and image processor."""
    file = next(Cache(cache_folder()).path("image-tower").rglob("*.pth"))
    given = torch.load(file, map_location="cpu", weights_only=True)
    config = MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5, num_labels=1000)
    model = MobileNetV2ForImageClassification(config)
    body = [name for name in given if not name.startswith("classifier.")]
    ours = list(model.mobilenet_v2.state_dict())
    if len(body) != len(ours):
        raise SystemExit(f"{file}: {len(body)} tensors, needed are {len(ours)}.")
    weights = {f"mobilenet_v2.{mine}": given[theirs] for mine, theirs in zip(ours, body, strict=True)}
    weights |= {f"classifier.{name}": given[f"classifier.1.{name}"] for name in ("weight", "bias")}
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    size = {"height": 224, "width": 224}
    MobileNetV2ImageProcessor(
        size={"shortest_edge": 256}, crop_size=size, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
