"""A model for others, with fewer words if wanted, and the proof: transformers, open_clip, CLIP's layout, ONNX."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from worldclip.errors import ConfigError, WorldclipError
from worldclip.model.features import image_features, text_features
from worldclip.model.layout import to_clip
from worldclip.model.onnx_graph import Precision, image_graph, text_graph, write_graph
from worldclip.model.pretrained import Golden, Pretrained, differences, model_config, read, write
from worldclip.model.serve import IMAGE_GRAPH, TEXT_GRAPH, OnnxEncoder
from worldclip.model.sizes import image_processing, save_tokenizer
from worldclip.storage import TEMPORARY, write_json
from worldclip.tokenizer import encode, special_ids
from worldclip.tokenizer.trim import trim

Target = Literal["transformers", "open_clip", "pt", "onnx"]


def export(
    source: Path,
    out: Path,
    target: Target,
    *,
    size: str | None = None,
    tokenizer: Path | None = None,
    covered: Sequence[str] | None = None,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Write the model of `source` to the new folder `out`, and say how far the two are apart.

    Args:
        size: name of a released model, see `pretrained.read`.
        tokenizer: a tokenizer to put beside it in the place of its own.
        covered: texts whose pieces suffice: the vocabulary is trimmed to them (`tokenizer.trim`).
        precision: of ONNX graphs.

    Returns:
        Figures: differences of logits or embeddings on golden inputs; of a trimmed vocabulary also its sizes and the
        largest difference of the covered texts' embeddings.

    Raises:
        ConfigError: `out` is there already; a precision without ONNX; a trimmed vocabulary without a tokenizer.
        InputError: see `pretrained.read`.
        StorageError: the disk refused; `out` is not there then.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already. Give the name of a new folder.")
    if precision != "fp32" and target != "onnx":
        raise ConfigError(f"--precision {precision}: only ONNX graphs have it; {target} keeps fp32.")
    found = read(source, size=size, tokenizer=tokenizer)
    report: dict[str, Any] = {}
    if covered is not None:
        found, report = trimmed(found, covered)
    temporary = out.with_name(out.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if target == "onnx":
            write_onnx(found, temporary, precision)
            report |= onnx_differences(found, temporary)
        else:
            write(found, temporary, target)
            report |= differences(found, temporary, target)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def trimmed(found: Pretrained, covered: Sequence[str]) -> tuple[Pretrained, dict[str, Any]]:
    """A model with only the words that `covered` needs, and the proof: its embeddings of them beside the model's own.

    Raises:
        ConfigError: the model comes without a tokenizer.
    """
    if found.tokenizer is None:
        raise ConfigError("--trim-vocab: the model comes without a tokenizer. Give its file or folder (--tokenizer).")
    if not any(text.strip() for text in covered):
        raise ConfigError("--trim-vocab: there is no text in the file.")
    model, before = found.model, encode(found.tokenizer, covered)
    proof = np.unique(before, axis=0)[:: max(1, len(before) // 1000)]  # of many texts, a thousand spread over all
    tokenizer, old = trim(found.tokenizer, covered)
    with torch.inference_mode():
        expected = text_features(model, torch.from_numpy(proof))
    special = special_ids(tokenizer)
    weights = model.text_model.embeddings.token_embedding.weight.detach()[torch.from_numpy(old)].clone()
    embedding = torch.nn.Embedding(*weights.shape)
    embedding.weight = torch.nn.Parameter(weights)
    model.text_model.embeddings.token_embedding = embedding
    text = model.config.text_config
    text.vocab_size, text.bos_token_id = len(old), special.start
    text.pad_token_id = special.pad
    text.eos_token_id = model.text_model.eos_token_id = special.end
    ids = encode(tokenizer, covered)
    if not np.array_equal(old[ids], before):
        raise WorldclipError("--trim-vocab: a covered text got other pieces. Nothing was written; please report it.")
    place = np.searchsorted(old, proof)
    with torch.inference_mode():
        features = text_features(model, torch.from_numpy(place))
    return Pretrained(model=model, tokenizer=tokenizer, crop=found.crop), {
        "tokens before": int(max(old.max() + 1, found.tokenizer.get_vocab_size())),
        "tokens after": len(old),
        "covered texts": len(covered),
        "their embeddings": float((features - expected).abs().max()),
    }


def write_onnx(found: Pretrained, folder: Path, precision: Precision) -> None:
    """Both towers as ONNX graphs, with the tokenizer, the preprocessing and the configuration that `OnnxEncoder` reads.

    Raises:
        ConfigError: the model comes without a tokenizer.
        StorageError: the disk refused.
    """
    if found.tokenizer is None:
        raise ConfigError("onnx: the model comes without a tokenizer. Give its file or folder (--tokenizer).")
    config, text = model_config(found.model), found.model.config.text_config
    weights = {name: value.detach().numpy() for name, value in to_clip(found.model.state_dict()).items()}
    write_graph(*image_graph(weights, config, precision), folder / IMAGE_GRAPH)
    write_graph(*text_graph(weights, config, text.eos_token_id, precision), folder / TEXT_GRAPH)
    save_tokenizer(found.tokenizer, folder, text.max_position_embeddings)
    write_json(folder / "preprocessor_config.json", image_processing(config.image_size, crop=found.crop))
    whole = found.model.config.to_dict() | {"logit_scale_init_value": float(weights["logit_scale"])}
    write_json(folder / "config.json", whole)


def onnx_differences(found: Pretrained, folder: Path) -> dict[str, float]:
    """The largest differences between a model's embeddings of golden inputs and those of its graphs."""
    golden, encoder = Golden.of(found.model), OnnxEncoder.open(folder)
    with torch.inference_mode():
        images = image_features(found.model, golden.pixels).numpy()
        texts = text_features(found.model, golden.ids).numpy()
    seen = encoder.image_session.run(None, {"pixel_values": golden.pixels.numpy()})[0]
    words = encoder.text_session.run(None, {"input_ids": golden.ids.numpy()})[0]
    scale = float(found.model.logit_scale.detach().exp())
    return {
        "images": float(np.abs(seen - images).max()),
        "texts": float(np.abs(words - texts).max()),
        "logits": float(np.abs(encoder.logit_scale * seen @ words.T - scale * images @ texts.T).max()),
    }
