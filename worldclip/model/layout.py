"""The two ways in which CLIP's weights are laid out, and the one between them.

`MetaClip2Model` of transformers keeps query, key and value apart. CLIP's own layout, which the authors' `.pt` files and
open_clip share, stacks them in one matrix (`in_proj_weight`), and holds the projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]

#: transformers' names and CLIP's, of what is outside the blocks.
_NAMES = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    **{f"vision_model.pre_layrnorm.{part}": f"visual.ln_pre.{part}" for part in ("weight", "bias")},
    **{f"vision_model.post_layernorm.{part}": f"visual.ln_post.{part}" for part in ("weight", "bias")},
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    **{f"text_model.final_layer_norm.{part}": f"ln_final.{part}" for part in ("weight", "bias")},
    "text_projection.weight": "text_projection",
}
_TRANSPOSED = {"visual.proj", "text_projection"}

#: The same inside a block; query, key and value apart.
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TOWERS = {
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.encoder.layers": "transformer.resblocks",
}
_OF_BLOCK = re.compile(rf"({'|'.join(map(re.escape, _TOWERS))})\.(\d+)\.(.+)\.(weight|bias)")
_OF_CLIP_BLOCK = re.compile(rf"({'|'.join(map(re.escape, _TOWERS.values()))})\.(\d+)\.(.+?)[._](weight|bias)")


def to_clip(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Weights of a `MetaClip2Model` in CLIP's layout."""
    found: Weights = {}
    for name, value in weights.items():
        if own := _NAMES.get(name):
            found[own] = value.T.contiguous() if own in _TRANSPOSED else value
            continue
        tower, block, part, kind = _parts(_OF_BLOCK, name)
        prefix = f"{_TOWERS[tower]}.{block}"
        if part in _PARTS:
            found[f"{prefix}.{_PARTS[part]}.{kind}"] = value
        elif part == "self_attn.q_proj":
            own = f"{tower}.{block}.self_attn"
            found[f"{prefix}.attn.in_proj_{kind}"] = torch.cat([weights[f"{own}.{at}_proj.{kind}"] for at in "qkv"])
    return found


def from_clip(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Weights in CLIP's layout as those of a `MetaClip2Model`."""
    names = {own: name for name, own in _NAMES.items()}
    parts = {own: name for name, own in _PARTS.items()}
    towers = {own: name for name, own in _TOWERS.items()}
    found: Weights = {}
    for name, value in weights.items():
        if other := names.get(name):
            found[other] = value.T.contiguous() if name in _TRANSPOSED else value
            continue
        tower, block, part, kind = _parts(_OF_CLIP_BLOCK, name)
        prefix = f"{towers[tower]}.{block}"
        if part in parts:
            found[f"{prefix}.{parts[part]}.{kind}"] = value
        else:
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                found[f"{prefix}.self_attn.{letter}_proj.{kind}"] = third.contiguous()
    return found


def _parts(pattern: re.Pattern[str], name: str) -> tuple[str, str, str, str]:
    found = pattern.fullmatch(name)
    if found is None:
        raise KeyError(name)
    tower, block, part, kind = found.groups()
    return tower, block, part, kind


def clip_logits(
    weights: Mapping[str, torch.Tensor],
    pixels: torch.Tensor,
    ids: torch.Tensor,
    *,
    heads: tuple[int, int],
    activation: str,
    end: int,
) -> torch.Tensor:
    """Logits [images, texts] computed from CLIP's layout alone, in plain operations: the judge of a conversion.

    Args:
        pixels: float [images, 3, side, side], normalised.
        ids: int [texts, length]; the feature is read at the first `end`.
        heads: of the image tower, of the text tower.
        activation: gelu or quick_gelu.
    """
    width = weights["visual.class_embedding"].numel()
    patch = weights["visual.conv1.weight"].shape[-1]
    states = functional.conv2d(pixels, weights["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
    first = weights["visual.class_embedding"].expand(len(pixels), 1, width)
    states = torch.cat([first, states], 1) + weights["visual.positional_embedding"]
    states = _norm(weights, "visual.ln_pre", states)
    states = _blocks(weights, "visual.", states, heads[0], activation, mask=None)
    images = _norm(weights, "visual.ln_post", states[:, 0]) @ weights["visual.proj"]

    length = ids.shape[1]
    states = weights["token_embedding.weight"][ids] + weights["positional_embedding"][:length]
    mask = torch.full((length, length), -torch.inf).triu(1)
    states = _norm(weights, "ln_final", _blocks(weights, "", states, heads[1], activation, mask=mask))
    ends = (ids == end).int().argmax(1)
    texts = states[torch.arange(len(ids)), ends] @ weights["text_projection"]
    images, texts = functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)
    return weights["logit_scale"].exp() * images @ texts.T


def _norm(weights: Mapping[str, torch.Tensor], name: str, states: torch.Tensor) -> torch.Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.layer_norm(states, weight.shape, weight, bias, eps=1e-5)


def _blocks(
    weights: Mapping[str, torch.Tensor],
    tower: str,
    states: torch.Tensor,
    heads: int,
    activation: str,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    batch, length, width = states.shape
    block = 0
    while f"{tower}transformer.resblocks.{block}.ln_1.weight" in weights:
        at = f"{tower}transformer.resblocks.{block}"
        mixed = functional.linear(
            _norm(weights, f"{at}.ln_1", states),
            weights[f"{at}.attn.in_proj_weight"],
            weights[f"{at}.attn.in_proj_bias"],
        )
        query, key, value = mixed.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // heads) ** 0.5
        seen = (scores if mask is None else scores + mask).softmax(-1) @ value
        states = states + functional.linear(
            seen.transpose(1, 2).reshape(batch, length, width),
            weights[f"{at}.attn.out_proj.weight"],
            weights[f"{at}.attn.out_proj.bias"],
        )
        inner = functional.linear(
            _norm(weights, f"{at}.ln_2", states), weights[f"{at}.mlp.c_fc.weight"], weights[f"{at}.mlp.c_fc.bias"]
        )
        inner = inner * torch.sigmoid(1.702 * inner) if activation == "quick_gelu" else functional.gelu(inner)
        states = states + functional.linear(inner, weights[f"{at}.mlp.c_proj.weight"], weights[f"{at}.mlp.c_proj.bias"])
        block += 1
    return states
