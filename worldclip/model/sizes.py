"""A `MetaClip2Model` of any size from random weights, and the folder that `transformers` loads (paper, section 4.1)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import MetaClip2Config, MetaClip2Model
from transformers.utils import logging as transformers_logging

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import StorageError
from worldclip.model.init import init_weights
from worldclip.storage import write_bytes, write_json
from worldclip.tokenizer import OURS, SpecialIds, special_ids

#: OpenAI CLIP's, kept by the paper: mean and standard deviation of each channel, of pixels in [0, 1].
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def _tower(tower: TowerConfig, config: ModelConfig) -> dict[str, object]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": round(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": config.activation,
        "projection_dim": config.embedding,
    }


def build_model(
    config: ModelConfig,
    *,
    vocab_size: int,
    context_length: int,
    temperature: float,
    seed: int,
    special: SpecialIds = OURS,
) -> MetaClip2Model:
    """A model with OpenAI CLIP's random weights (`init.py`); the same seed gives the same weights.

    Args:
        temperature: the logit scale starts at 1 / temperature.
        special: the ids that the tokenizer gives to start, padding and end of sequence.
    """
    whole = transformers_config(config, vocab_size=vocab_size, context_length=context_length, special=special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MetaClip2Model(whole)
        init_weights(model, temperature)
    return model


def transformers_config(
    config: ModelConfig, *, vocab_size: int, context_length: int, special: SpecialIds = OURS
) -> MetaClip2Config:
    """What `transformers` needs to know of a model."""
    text = _tower(config.text, config) | {
        "vocab_size": vocab_size,
        "max_position_embeddings": context_length,
        "bos_token_id": special.start,
        "pad_token_id": special.pad,
        "eos_token_id": special.end,
    }
    vision = _tower(config.vision, config) | {"image_size": config.image_size, "patch_size": config.patch_size}
    return MetaClip2Config(text_config=text, vision_config=vision, projection_dim=config.embedding)


def save_model(model: MetaClip2Model, tokenizer: Tokenizer, folder: Path, *, crop: bool = False) -> None:
    """Write a folder that `AutoModel`, `AutoProcessor` and the zero-shot pipeline of `transformers` load.

    Args:
        crop: pictures are resized by their shorter side and cropped, as the released models want them; else squashed.

    Raises:
        StorageError: the disk refused.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder}: the model could not be written ({error}). Free space and run again.") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    save_tokenizer(tokenizer, folder, model.config.text_config.max_position_embeddings)
    image_processor = image_processing(model.config.vision_config.image_size, crop=crop)
    write_json(folder / "preprocessor_config.json", image_processor)
    write_json(
        folder / "processor_config.json", {"processor_class": "CLIPProcessor", "image_processor": image_processor}
    )


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write a tokenizer as `transformers` loads it; it truncates, pads and keeps literal tokens as ours does."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()  # transformers truncates and pads by itself and would meet ours as state left behind.
    plain.no_padding()
    state = plain.to_str(pretty=True)
    write_bytes(folder / "tokenizer.json", state.encode())
    special, model = special_ids(tokenizer), json.loads(state)["model"]
    unknown = model.get("unk_token") or (
        model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
    )
    names = {"bos_token": special.start, "eos_token": special.end, "pad_token": special.pad}
    # Without the class's name transformers takes XLMRobertaTokenizer, which replaces our normaliser.
    write_json(
        folder / "tokenizer_config.json",
        {name: tokenizer.id_to_token(at) for name, at in names.items() if at is not None}
        | ({"unk_token": unknown} if unknown else {})
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "split_special_tokens": True,  # A literal "</s>" is text.
            "model_max_length": context_length,
            "model_input_names": ["input_ids", "attention_mask"],
            "processor_class": "CLIPProcessor",
        },
    )


def image_processing(side: int, *, crop: bool) -> dict[str, object]:
    """How pictures become pixels, as `transformers` writes it down: bicubic, to `side` x `side`."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if crop else {"height": side, "width": side},
        "resample": 3,
        "do_center_crop": crop,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "processor_class": "CLIPProcessor",
    }
