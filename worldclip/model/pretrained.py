"""Weights of others and ours, strictly, both ways: transformers' folders, the authors' `.pt`, open_clip's folders.

| format | what it is | says by itself |
|---|---|---|
| transformers | `config.json`, `*.safetensors`, tokenizer, processor: training's and the hub's folders | all |
| open_clip | `open_clip_config.json`, `open_clip_model.safetensors`, tokenizer | all |
| pt | one file of weights in CLIP's layout, as the authors publish them | neither activation nor heads: name the size |

A conversion is judged by logits on golden inputs: those of the `MetaClip2Model` beside those of `layout.clip_logits`,
which computes from CLIP's layout alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from transformers import MetaClip2Config, MetaClip2Model
from transformers.initialization import no_init_weights

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.model.layout import Weights, clip_logits, from_clip, to_clip
from worldclip.model.released import CONTEXT_LENGTH, hidden, released
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD, save_model, save_tokenizer, transformers_config
from worldclip.storage import read_json, replacing, write_bytes, write_json
from worldclip.tokenizer import SpecialIds, special_ids
from worldclip.tokenizer.files import open_tokenizer

Format = Literal["transformers", "open_clip", "pt"]

#: What other trainers keep beside the weights in one state dict, and what does not change a feature.
_NOT_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")

#: Fields of an open_clip configuration that are read; a model with others is not one that we can hold.
_OPEN_CLIP_FIELDS = {
    "model_cfg": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
    "text_cfg": {
        *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"),
        *("hf_tokenizer_name", "pool_type", "eos_id", "pad_id"),
    },
}


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model with what belongs beside it."""

    model: MetaClip2Model  #: fp32, ready to run
    tokenizer: Tokenizer | None
    crop: bool  #: pictures are resized by their shorter side and cropped, else squashed


def read(path: Path, *, size: str | None = None, tokenizer: Path | None = None) -> Pretrained:
    """Read a model of any of the three formats.

    Args:
        size: name of a released model; what a `.pt` file holds, and a check on the others.
        tokenizer: file or folder of a tokenizer to put in the place of the format's own.

    Raises:
        MissingData: there is no such file or folder.
        ConfigError: a `.pt` file without `size`, or a size that is not released.
        DataError: the weights do not fit; names the keys. Or the tokenizer does not.
    """
    if path.is_file():
        found = _read_file(path, size)
    elif (path / "open_clip_config.json").is_file():
        found = _read_open_clip(path)
    elif (path / "config.json").is_file():
        found = _read_transformers(path)
    else:
        raise MissingData(
            f"{path}: is no model. Give a folder with config.json (transformers) or open_clip_config.json (open_clip), "
            "or a .pt or .safetensors file in CLIP's layout."
        )
    if size and path.is_dir():
        expected = released(size)
        config = transformers_config(expected.model, vocab_size=expected.vocab_size, context_length=CONTEXT_LENGTH)
        _check(found.model.state_dict(), _shapes(config), f"{path} as {size}")
    if tokenizer:
        text = found.model.config.text_config
        opened = open_tokenizer(tokenizer, text.max_position_embeddings)
        found = Pretrained(model=found.model, tokenizer=opened, crop=found.crop)
    if found.tokenizer:
        _check_tokenizer(found.model, found.tokenizer, path)
    return found


def _check_tokenizer(model: MetaClip2Model, tokenizer: Tokenizer, path: Path) -> None:
    text, special = model.config.text_config, special_ids(tokenizer)
    if tokenizer.get_vocab_size() > text.vocab_size or special.end != text.eos_token_id:
        raise DataError(
            f"{path}: the tokenizer ({tokenizer.get_vocab_size():,} tokens, end of sequence {special.end}) does not "
            f"fit the model ({text.vocab_size:,} tokens, end of sequence {text.eos_token_id}). Give the one "
            "it was trained with (--tokenizer)."
        )


def write(found: Pretrained, folder: Path, kind: Format) -> None:
    """Write a model in one of the formats.

    Raises:
        ConfigError: there is no tokenizer to put beside it.
        StorageError: the disk refused.
    """
    if kind == "pt":
        with replacing(folder / "model.pt") as temporary:
            torch.save(to_clip(found.model.state_dict()), temporary)
        return
    if found.tokenizer is None:
        raise ConfigError(f"{kind}: the model comes without a tokenizer. Give its file or folder (--tokenizer).")
    if kind == "transformers":
        save_model(found.model, found.tokenizer, folder, crop=found.crop)
        return
    write_bytes(folder / "open_clip_model.safetensors", save(to_clip(found.model.state_dict())))
    write_json(folder / "open_clip_config.json", _open_clip_config(found))
    save_tokenizer(found.tokenizer, folder, found.model.config.text_config.max_position_embeddings)


# transformers


def _read_transformers(folder: Path) -> Pretrained:
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "metaclip_2":
        raise DataError(f"{folder}/config.json: is of a {kind!r} model; needed: 'metaclip_2' (MetaClip2Model).")
    config = MetaClip2Config.from_pretrained(folder)
    towers = (config.vision_config, config.text_config)
    if config.vision_config.hidden_act != config.text_config.hidden_act or any(
        tower.hidden_act not in {"gelu", "quick_gelu"} or tower.layer_norm_eps != 1e-5 for tower in towers
    ):
        raise DataError(
            f"{folder}/config.json: activations {[tower.hidden_act for tower in towers]} and layer_norm_eps "
            f"{[tower.layer_norm_eps for tower in towers]}; CLIP's layout holds one of gelu and quick_gelu, and 1e-5."
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingData(f"{folder}: no *.safetensors there. Save the model with safetensors first.")
    weights = {name: value for file in files for name, value in _load(file).items()}
    weights = {name: value for name, value in weights.items() if not name.endswith("position_ids")}
    processor = folder / "preprocessor_config.json"
    crop = bool(read_json(processor).get("do_center_crop")) if processor.exists() else True
    tokenizer = None
    if (folder / "tokenizer.json").exists():
        tokenizer = open_tokenizer(folder, config.text_config.max_position_embeddings)
    return Pretrained(model=_filled(config, weights, str(folder)), tokenizer=tokenizer, crop=crop)


def _filled(config: MetaClip2Config, weights: Mapping[str, torch.Tensor], where: str) -> MetaClip2Model:
    config._attn_implementation = "eager"
    _check(weights, _shapes(config), where)
    with no_init_weights():
        model = MetaClip2Model(config)
    model.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return model.eval().requires_grad_(True)


def _shapes(config: MetaClip2Config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in MetaClip2Model(config).state_dict().items()}


def _check(weights: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuse weights that are not exactly those of a model, and name them."""
    wrong = {
        name: f"{tuple(weights[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    }
    parts = {
        "lacks": sorted(shapes.keys() - weights.keys()),
        "has besides": sorted(weights.keys() - shapes.keys()),
        "has of another shape": [f"{name} {told}" for name, told in sorted(wrong.items())],
    }
    if told := [f"{what} {len(names)}: {_some(names)}" for what, names in parts.items() if names]:
        raise DataError(f"{where}: does not fit the model. It {'; it '.join(told)}.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _load(file: Path) -> Weights:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read as safetensors ({error}).") from error


# CLIP's layout


def _from_clip(weights: Weights, config: MetaClip2Config, where: str) -> MetaClip2Model:
    """A model of `config` from weights in CLIP's layout, whose keys and shapes are checked in that layout."""
    with torch.device("meta"):
        expected = to_clip(MetaClip2Model(config).state_dict())
    _check(weights, {name: tuple(value.shape) for name, value in expected.items()}, where)
    return _filled(config, from_clip(weights), where)


def _plain(state: Mapping[str, Any], where: str) -> Weights:
    """The weights of a checkpoint: unwrapped, without the prefixes that wrappers leave, and without constants."""
    for inside in ("state_dict", "model"):
        if isinstance(state.get(inside), Mapping):
            state = state[inside]
    weights = {str(name).removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}
    if strange := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise DataError(f"{where}: holds what is not a tensor: {_some(strange)}.")
    if "text.token_embedding.weight" in weights:  # open_clip's models with a text tower of their own
        weights = {name.removeprefix("text."): value for name, value in weights.items()}
    return {name: value for name, value in weights.items() if name.rpartition(".")[2] not in _NOT_WEIGHTS}


def _read_file(path: Path, size: str | None) -> Pretrained:
    if size is None:
        raise ConfigError(
            f"{path}: weights alone tell neither the activation (gelu or quick_gelu) nor the number of heads. "
            "Name the released model that it holds (--size)."
        )
    expected = released(size)
    if path.suffix == ".safetensors":
        state: Any = _load(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises nearly anything
            raise DataError(f"{path}: cannot be read as weights ({str(error).splitlines()[0]}).") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: holds a {type(state).__name__}, not a state dict.")
    config = transformers_config(
        expected.model, vocab_size=expected.vocab_size, context_length=CONTEXT_LENGTH, special=expected.special
    )
    return Pretrained(
        model=_from_clip(_plain(state, str(path)), config, f"{path} as {size}"), tokenizer=None, crop=True
    )


# open_clip


def _read_open_clip(folder: Path) -> Pretrained:
    whole = read_json(folder / "open_clip_config.json")
    config = whole.get("model_cfg", {})
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    for name, part in (("model_cfg", config), ("vision_cfg", vision), ("text_cfg", text)):
        if strange := sorted(part.keys() - _OPEN_CLIP_FIELDS[name]):
            raise DataError(
                f"{folder}/open_clip_config.json: {name} has {', '.join(strange)}, which no CLIP of ours has."
            )
    if text.get("pool_type") != "eos":
        raise DataError(
            f"{folder}/open_clip_config.json: text_cfg.pool_type is {text.get('pool_type')!r}; needed: 'eos'."
        )
    try:
        model = ModelConfig(
            vision=TowerConfig(
                layers=vision["layers"],
                width=vision["width"],
                heads=vision["width"] // vision.get("head_width", 64),
                mlp_ratio=int(vision["width"] * vision.get("mlp_ratio", 4.0)) / vision["width"],
            ),
            text=TowerConfig(
                layers=text["layers"],
                width=text["width"],
                heads=text["heads"],
                mlp_ratio=int(text["width"] * text.get("mlp_ratio", 4.0)) / text["width"],
            ),
            embedding=config["embed_dim"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            activation="quick_gelu" if config.get("quick_gelu") else "gelu",
        )
        context, words = text.get("context_length", CONTEXT_LENGTH), text["vocab_size"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}/open_clip_config.json: lacks {error}.") from error
    tokenizer = open_tokenizer(folder, context) if (folder / "tokenizer.json").exists() else None
    special = (
        special_ids(tokenizer) if tokenizer else SpecialIds(start=None, pad=text.get("pad_id", 1), end=text["eos_id"])
    )
    built = transformers_config(model, vocab_size=words, context_length=context, special=special)
    weights = _plain(_load(folder / "open_clip_model.safetensors"), str(folder))
    crop = whole.get("preprocess_cfg", {}).get("resize_mode", "shortest") == "shortest"
    return Pretrained(model=_from_clip(weights, built, str(folder)), tokenizer=tokenizer, crop=crop)


def _open_clip_config(found: Pretrained) -> dict[str, Any]:
    config = model_config(found.model)
    text = found.model.config.text_config
    return {
        "model_cfg": {
            "embed_dim": config.embedding,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": config.image_size,
                "layers": config.vision.layers,
                "width": config.vision.width,
                "head_width": config.vision.width // config.vision.heads,
                "mlp_ratio": _open_clip_ratio(config.vision),
                "patch_size": config.patch_size,
            },
            "text_cfg": {
                "hf_tokenizer_name": "tokenizer.json",  # open_clip reads the one in the folder
                "pool_type": "eos",
                "eos_id": text.eos_token_id,
                "pad_id": text.pad_token_id,
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "width": config.text.width,
                "heads": config.text.heads,
                "layers": config.text.layers,
                "mlp_ratio": _open_clip_ratio(config.text),
            },
        },
        "preprocess_cfg": {
            "mean": list(IMAGE_MEAN),
            "std": list(IMAGE_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest" if found.crop else "squash",
        },
    }


def _open_clip_ratio(tower: TowerConfig) -> float:
    """A ratio that gives the MLP's width when multiplied and cut, as open_clip does."""
    inner = hidden(tower)
    return next(
        ratio for ratio in (inner / tower.width, (inner + 0.5) / tower.width) if int(tower.width * ratio) == inner
    )


def model_config(model: MetaClip2Model) -> ModelConfig:
    """The sizes of a model."""

    def tower(part: Any) -> TowerConfig:
        return TowerConfig(
            layers=part.num_hidden_layers,
            width=part.hidden_size,
            heads=part.num_attention_heads,
            mlp_ratio=part.intermediate_size / part.hidden_size,
        )

    vision = model.config.vision_config
    return ModelConfig(
        vision=tower(vision),
        text=tower(model.config.text_config),
        embedding=model.config.projection_dim,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        activation=vision.hidden_act,
    )


# Golden inputs


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs that every format must give the same logits for: the same on any machine, for a given model size."""

    pixels: torch.Tensor  #: float [4, 3, side, side]
    ids: torch.Tensor  #: int64 [6, context]: the shortest text, the longest, and others between

    @staticmethod
    def of(model: MetaClip2Model) -> Golden:
        """Golden inputs for a model's sizes."""
        text, side = model.config.text_config, model.config.vision_config.image_size
        generator = torch.Generator().manual_seed(20507)
        pixels = torch.randn(4, 3, side, side, generator=generator)
        context = text.max_position_embeddings
        special = {at for at in (text.bos_token_id, text.pad_token_id, text.eos_token_id) if at is not None}
        words = torch.tensor([at for at in range(min(text.vocab_size, 4096)) if at not in special])
        ids = words[torch.randint(len(words), (6, context), generator=generator)]
        if text.bos_token_id is not None:
            ids[:, 0] = text.bos_token_id
        for row, length in enumerate(torch.linspace(2, context, 6).round().int().tolist()):
            ids[row, length - 1 :] = text.pad_token_id
            ids[row, length - 1] = text.eos_token_id
        return Golden(pixels=pixels, ids=ids)


def logits(model: MetaClip2Model, golden: Golden) -> torch.Tensor:
    """Logits [4, 6] of a model on golden inputs."""
    with torch.inference_mode():
        output: torch.Tensor = model(input_ids=golden.ids, pixel_values=golden.pixels).logits_per_image
    return output


def differences(source: Pretrained, folder: Path, kind: Format) -> dict[str, float]:
    """The largest differences of logits on golden inputs between a model and what was written of it.

    `read back` is the model that is read from `folder`; `CLIP's layout` is computed from the weights alone.
    """
    golden = Golden.of(source.model)
    before = logits(source.model, golden)
    if kind == "transformers":
        after = _read_transformers(folder).model
        weights = to_clip(after.state_dict())
    elif kind == "open_clip":
        after = _read_open_clip(folder).model
        weights = _load(folder / "open_clip_model.safetensors")
    else:
        weights = torch.load(folder / "model.pt", weights_only=True)
        after = _from_clip(weights, source.model.config, str(folder))
    config = model_config(source.model)
    with torch.inference_mode():
        plain = clip_logits(
            weights,
            golden.pixels,
            golden.ids,
            heads=(config.vision.heads, config.text.heads),
            activation=config.activation,
            end=source.model.config.text_config.eos_token_id,
        )
    return {
        "read back": _largest(logits(after, golden) - before),
        "CLIP's layout": _largest(plain - before),
        "largest logit": _largest(before),
    }


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max())
