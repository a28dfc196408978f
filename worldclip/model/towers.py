"""The two towers of a CLIP-like model folder, with the preprocessing and the text preparation of its family.

    config.json + *.safetensors      transformers: ours, MetaClip2, CLIP, SigLIP, SigLIP 2, AltCLIP, Chinese-CLIP, ...
    config.json + *_model.onnx       the same, exported: `vision_model.onnx` and `text_model.onnx`, here or in onnx/
    open_clip_config.json            open_clip's own format; needs the package open_clip

Nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import math
import os
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from worldclip.errors import DataError, MissingData
from worldclip.storage import read_json

#: What a tower takes of one picture, or of several stacked: by name, as the family's image processor names it.
Prepared = dict[str, torch.Tensor]

#: CLIP's bound of the logit scale, taken where a pair of ONNX towers comes without one; ours write the trained one.
_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one kind take their texts.

    `context`: tokens a text is cut to, where it is fewer than the folder says. `padded`: every text is padded to the
    context, because the feature depends on it; the others' features do not see padding (they are causal and read at
    the end of the text, or masked), so they get none. `masked`: a padded row comes with its attention mask.
    `canonical`: texts are lower-cased, without punctuation.
    """

    context: int | None = None
    padded: bool = False
    masked: bool = False
    canonical: bool = False


#: By transformers' `model_type`.
FAMILIES = {
    "clip": Family(),
    "metaclip_2": Family(),
    "siglip": Family(padded=True, canonical=True),
    "siglip2": Family(padded=True, canonical=True),
    "altclip": Family(context=77),
    "chinese_clip": Family(context=52),
}

#: Of a kind that is not known: padding as long as the context, with the mask that its tokenizer makes.
_UNKNOWN = Family(padded=True, masked=True)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is done otherwise than a folder says; None leaves it as it is.

    `resize`: "shortest" scales the short side and crops the middle, "squash" scales both sides to the square.
    `resample` is PIL's number. `normalise` is mean and standard deviation of all channels. `end` is the id at which a
    text's feature is read.
    """

    activation: str | None = None
    resize: Literal["shortest", "squash"] | None = None
    resample: int | None = None
    normalise: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    end: int | None = None
    padded: bool | None = None
    canonical: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Towers:
    """A model as functions. Texts are cut to `context` tokens; features are not yet normalised, of `dimension` numbers.

    `prepare` takes an RGB picture. `tokenize` gives each text's ids without padding, or all of one length where the
    family needs it, and `lengths` how many each has before it is cut. `images` takes prepared pictures stacked, `texts`
    ids int64 [n, length] of one length; both give float32 [n, dimension]. `logit_scale` is the factor on cosine
    similarities. `settings` tells what was done, for a record.
    """

    prepare: Callable[[Image.Image], Prepared]
    tokenize: Callable[[Sequence[str]], list[list[int]]]
    lengths: Callable[[Sequence[str]], list[int]]
    images: Callable[[Prepared], torch.Tensor]
    texts: Callable[[torch.Tensor], torch.Tensor]
    context: int
    dimension: int
    logit_scale: float
    settings: dict[str, Any]


def load(folder: Path, changes: Changes) -> Towers:
    """Load a folder's towers, in float32.

    Raises:
        MissingData: there is no such folder, or no model in it; or a package is missing that reads it.
        DataError: it is not a model of images and texts, is incomplete, or its parts do not fit each other.
    """
    if (folder / "config.json").is_file():
        onnx = next((place for place in (folder, folder / "onnx") if (place / "text_model.onnx").is_file()), None)
        if onnx and not any(folder.glob("*.safetensors")):
            return _onnx_towers(folder, onnx, changes)
        return _transformers_towers(folder, changes)
    if (folder / "open_clip_config.json").is_file():
        return _open_clip_towers(folder, changes)
    raise MissingData(
        f"{folder}: no config.json there, so it is not a model folder. Give the folder that training wrote "
        "(it ends in /model), or any CLIP-like folder saved by transformers' save_pretrained."
    )


def device() -> torch.device:
    """The processor that towers run on: under torchrun, each process's own GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


# transformers


def _transformers_towers(folder: Path, changes: Changes) -> Towers:
    config = _part(folder, AutoConfig)
    if changes.activation:
        config.text_config.hidden_act = config.vision_config.hidden_act = changes.activation
    if changes.end is not None:
        config.text_config.eos_token_id = changes.end
    model, missing = load_model(folder, config)
    if missing:
        raise DataError(
            f"{folder}: its weights lack {len(missing)} of the model's tensors ({', '.join(missing[:3])}, ...). "
            "The folder is incomplete or its config.json belongs to another model; copy or export it again."
        )
    if not all(hasattr(model, name) for name in ("get_image_features", "get_text_features", "logit_scale")):
        raise DataError(
            f"{folder}: holds a {type(model).__name__}, which does not embed both images and texts. "
            "Needed: MetaClip2Model, CLIPModel, SiglipModel or another of their kind."
        )
    model.to(where := device())
    family = _family(config.model_type, changes)
    tokenizer = _part(folder, AutoTokenizer)
    context = _context(folder, config, tokenizer, family)
    masked = family.masked and "attention_mask" in tokenizer.model_input_names

    def texts(ids: torch.Tensor) -> torch.Tensor:
        mask = {"attention_mask": (ids != tokenizer.pad_token_id).long().to(where)} if masked else {}
        features: torch.Tensor = model.get_text_features(input_ids=ids.to(where), **mask).pooler_output
        return features

    def images(prepared: Prepared) -> torch.Tensor:
        features: torch.Tensor = model.get_image_features(
            **{name: part.to(where) for name, part in prepared.items()}
        ).pooler_output
        return features

    prepare, settings = _image_preparation(folder, config, changes)
    return Towers(
        prepare=prepare,
        tokenize=_tokenization(tokenizer, family, context),
        lengths=_lengths(tokenizer, family),
        images=images,
        texts=texts,
        context=context,
        dimension=_dimension(config),
        logit_scale=float(model.logit_scale.detach().exp()),
        settings=settings | {"family": config.model_type, "activation": _activations(config)},
    )


def _dimension(config: Any) -> int:
    return int(getattr(config, "projection_dim", None) or config.text_config.projection_size)


def load_model(folder: Path, config: Any) -> tuple[Any, list[str]]:
    """The model, ready to run, and the names of the tensors that its weights lack."""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what is missing is reported by us, as an error
    try:
        model, info = _part(
            folder, AutoModel, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
    return model.eval(), sorted(info["missing_keys"])


def load_part(folder: Path, kind: Any) -> Any:
    """What one of transformers' Auto classes makes of a folder; nothing is downloaded.

    Raises:
        DataError: it cannot be loaded.
    """
    return _part(folder, kind)


def _part(folder: Path, kind: Any, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the parsers below raise anything, tokenizers a bare Exception
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{folder}: transformers' {kind.__name__} cannot load it ({type(error).__name__}: {reason}). "
            "Needed: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, preprocessor_config.json."
        ) from error


def _activations(config: Any) -> str:
    return " / ".join(dict.fromkeys([config.vision_config.hidden_act, config.text_config.hidden_act]))


def _family(model_type: str, changes: Changes) -> Family:
    family = FAMILIES.get(model_type, _UNKNOWN)
    if changes.padded is not None:
        family = replace(family, padded=changes.padded)
    if changes.canonical is not None:
        family = replace(family, canonical=changes.canonical)
    return family


# Texts.


def _context(folder: Path, config: Any, tokenizer: Any, family: Family) -> int:
    text = config.text_config
    if tokenizer.pad_token_id is None or len(tokenizer) > text.vocab_size:
        raise DataError(
            f"{folder}: the tokenizer ({len(tokenizer)} tokens, padding {tokenizer.pad_token!r}) does not fit the "
            f"model ({text.vocab_size} tokens; a padding token is needed). Copy the tokenizer it was trained with."
        )
    # RoBERTa's kind of position table begins after the padding id.
    positions = text.max_position_embeddings - (text.pad_token_id + 1 if config.model_type == "altclip" else 0)
    return int(min(positions, tokenizer.model_max_length, family.context or positions))


def _tokenization(tokenizer: Any, family: Family, context: int) -> Callable[[Sequence[str]], list[list[int]]]:
    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = tokenizer(
            [canonical(text) for text in texts] if family.canonical else list(texts),
            padding="max_length" if family.padded else False,
            truncation=True,
            max_length=context,
        )["input_ids"]
        return ids

    return tokenize


def _lengths(tokenizer: Any, family: Family) -> Callable[[Sequence[str]], list[int]]:
    def lengths(texts: Sequence[str]) -> list[int]:
        prepared = [canonical(text) for text in texts] if family.canonical else list(texts)
        # That some are longer than the model reads is what is asked for, and nothing to be warned of.
        found = tokenizer(prepared, padding=False, truncation=False, verbose=False)["input_ids"] if texts else []
        return [len(ids) for ids in found]

    return lengths


def canonical(text: str) -> str:
    """SigLIP's form of a text: underscores become spaces, ASCII punctuation goes, lower case, single spaces."""
    bare = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", bare).strip().lower()


# Pictures.


def _image_preparation(
    folder: Path, config: Any, changes: Changes
) -> tuple[Callable[[Image.Image], Prepared], dict[str, Any]]:
    """A function from an RGB picture to what the image tower takes of it, and its settings.

    PIL resizes, so that bicubic is antialiased, whether or not torchvision is there.
    """
    processor = _part(folder, AutoImageProcessor, backend="pil")
    side = getattr(config.vision_config, "image_size", None)
    if changes.resize == "squash":
        processor.size, processor.do_center_crop = {"height": side, "width": side}, False
    elif changes.resize == "shortest":
        processor.size, processor.do_center_crop = {"shortest_edge": side}, True
        processor.crop_size = {"height": side, "width": side}
    if changes.resample is not None:
        processor.resample = changes.resample
    if changes.normalise is not None:
        processor.image_mean, processor.image_std = (list(part) for part in changes.normalise)

    def prepare(picture: Image.Image) -> Prepared:
        return {name: part[0] for name, part in processor(images=picture, return_tensors="pt").items()}

    size = dict(processor.size or {})
    settings = {
        "resize": "patches" if not size else "shortest" if "shortest_edge" in size else "squash",
        "pixels": side,
        "resample": int(processor.resample),
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "dtype": "float32",
    }
    return prepare, settings


# ONNX


def _onnx_towers(folder: Path, place: Path, changes: Changes) -> Towers:
    config = _part(folder, AutoConfig)
    vision, text = (_session(place / f"{name}_model.onnx") for name in ("vision", "text"))
    taken = {entry.name: entry.shape for entry in text.get_inputs()}
    family = _family(config.model_type, changes)
    tokenizer = _part(folder, AutoTokenizer)
    context = _context(folder, config, tokenizer, family)
    if isinstance(length := taken["input_ids"][1], int):  # An export of one length: the causal towers do not mind.
        family, context = replace(family, padded=True), length

    def texts(ids: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": ids.numpy()}
        if "attention_mask" in taken:  # Only a padded row has something to mask: CLIP's padding is its end of text.
            real = inputs["input_ids"] != tokenizer.pad_token_id if family.padded else np.ones(ids.shape)
            inputs["attention_mask"] = real.astype(np.int64)
        return torch.from_numpy(text.run(["text_embeds"], inputs)[0])

    def images(prepared: Prepared) -> torch.Tensor:
        return torch.from_numpy(
            vision.run(["image_embeds"], {name: part.numpy() for name, part in prepared.items()})[0]
        )

    prepare, settings = _image_preparation(folder, config, changes)
    return Towers(
        prepare=prepare,
        tokenize=_tokenization(tokenizer, family, context),
        lengths=_lengths(tokenizer, family),
        images=images,
        texts=texts,
        context=context,
        dimension=_dimension(config),
        logit_scale=math.exp(getattr(config, "logit_scale_init_value", math.log(_SCALE))),
        settings=settings | {"family": f"{config.model_type}, ONNX"},
    )


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingData(
            f"{path}: onnxruntime is not installed, which runs it. Run `pip install 'worldclip[safety]'`, "
            "or give a folder with safetensors."
        ) from None
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds are many
        raise DataError(f"{path}: onnxruntime cannot load it ({error}). Export it again.") from error


# open_clip


def _open_clip_towers(folder: Path, changes: Changes) -> Towers:
    try:
        import open_clip
    except ModuleNotFoundError:
        raise MissingData(
            f"{folder}: is of open_clip's format, and the package open_clip is not installed. "
            "Run `pip install open-clip-torch`, or give the folder that transformers loads."
        ) from None
    if changes != Changes(resize=changes.resize):
        raise DataError(f"{folder}: only the resize mode of an open_clip folder can be changed.")
    config = read_json(folder / "open_clip_config.json")
    options = {"image_resize_mode": changes.resize} if changes.resize else {}
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", **options)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval().to(where := device())
    preprocess = config.get("preprocess_cfg", {})
    return Towers(
        prepare=lambda picture: {"pixel_values": transform(picture)},
        tokenize=lambda texts: tokenizer(list(texts)).tolist() if texts else [],
        lengths=lambda texts: [_open_clip_length(tokenizer, text) for text in texts],
        images=lambda prepared: model.encode_image(prepared["pixel_values"].to(where)),
        texts=lambda ids: model.encode_text(ids.to(where)),
        context=int(tokenizer.context_length),
        dimension=int(config["model_cfg"]["embed_dim"]),
        logit_scale=float(model.logit_scale.detach().exp()) if model.logit_scale is not None else math.nan,
        settings={
            "family": "open_clip",
            "activation": "quick_gelu" if config["model_cfg"].get("quick_gelu") else "gelu",
            "resize": changes.resize or preprocess.get("resize_mode", "shortest"),
            "dtype": "float32",
        },
    )


def _open_clip_length(tokenizer: Any, text: str) -> int:
    cleaned = tokenizer.clean_fn(text)
    if hasattr(tokenizer, "tokenizer"):  # a wrapper of transformers'
        return len(tokenizer.tokenizer(cleaned, verbose=False)["input_ids"])
    return len(tokenizer.encode(cleaned)) + 2  # its own does not count the marks of start and end
