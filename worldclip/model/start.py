"""Where training starts from when not from random weights: any model, perhaps at another resolution."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch.nn import functional
from transformers import MetaClip2Model

from worldclip.config import ModelConfig
from worldclip.errors import ConfigError
from worldclip.model.pretrained import model_config, read
from worldclip.tokenizer import SpecialIds


def started(path: Path, config: ModelConfig, *, vocab_size: int, special: SpecialIds) -> MetaClip2Model:
    """The model of a folder, its image tower at the resolution of `config`.

    Raises:
        ConfigError: the folder's model has other sizes, vocabulary or end of sequence than the recipe; names them.
        InputError: see `pretrained.read`.
    """
    model = read(path).model
    found, text = model_config(model), model.config.text_config
    wanted = dataclasses.replace(config, image_size=found.image_size)
    if _flat(found) != _flat(wanted):
        wrong = [f"{name}={value}" for name, value in _flat(found).items() if value != _flat(wanted)[name]]
        raise ConfigError(
            f"train.start: the model of {path} has other sizes than the recipe: set model.{', '.join(wrong)}."
        )
    if text.vocab_size < vocab_size or (text.eos_token_id, text.bos_token_id) != (special.end, special.start):
        raise ConfigError(
            f"train.start: the model of {path} reads {text.vocab_size:,} tokens and ends at {text.eos_token_id}; the "
            f"tokenizer has {vocab_size:,} and ends at {special.end}. Set tokenizer.file={path}."
        )
    resize_positions(model, config.image_size)
    return model


def _flat(config: ModelConfig) -> dict[str, object]:
    """Sizes by their paths; an MLP's width in place of its ratio, which may have been rounded."""
    flat: dict[str, object] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            inner = round(value.pop("mlp_ratio") * value["width"])
            flat |= {f"{name}.{part}": size for part, size in value.items()}
            flat[f"{name}.mlp_ratio"] = inner / value["width"]
        else:
            flat[name] = value
    return flat


def resize_positions(model: MetaClip2Model, image_size: int) -> None:
    """Let the image tower take pictures of `image_size` pixels: its positions are interpolated, bicubic, as a picture.

    Raises:
        ConfigError: the patches do not divide the size.
    """
    vision, embeddings = model.config.vision_config, model.vision_model.embeddings
    if image_size % vision.patch_size:
        raise ConfigError(f"model.image_size: is {image_size}; patches of {vision.patch_size} pixels do not divide it.")
    before, after = vision.image_size // vision.patch_size, image_size // vision.patch_size
    vision.image_size = embeddings.image_size = image_size
    if before == after:
        return
    weight = embeddings.position_embedding.weight.detach()
    grid = weight[1:].T.reshape(1, -1, before, before)
    grid = functional.interpolate(grid, size=(after, after), mode="bicubic", antialias=True, align_corners=False)
    positions = torch.cat([weight[:1], grid.reshape(-1, after * after).T])
    embeddings.num_patches, embeddings.num_positions = after * after, len(positions)
    embeddings.position_embedding = torch.nn.Embedding(*positions.shape)
    embeddings.position_embedding.weight = torch.nn.Parameter(positions.clone())
    embeddings.register_buffer("position_ids", torch.arange(len(positions)).expand(1, -1), persistent=False)


def lock_image_tower(model: MetaClip2Model) -> None:
    """Train the text tower alone against images as they are (locked-image tuning)."""
    model.vision_model.requires_grad_(False)
    model.visual_projection.requires_grad_(False)
