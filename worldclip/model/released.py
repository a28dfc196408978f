"""Every released size of Meta CLIP 2 by name (paper, section 4.1 and its distilled models), and what it amounts to.

No torch here: a recipe names a model, and a plan counts its parameters and its work, without building it.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import ConfigError
from worldclip.tokenizer import OURS, SpecialIds

#: Tokens of a text, both special tokens included, in every released model.
CONTEXT_LENGTH = 77


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released model: its towers, and the vocabulary that its text tower reads."""

    model: ModelConfig
    vocab_size: int = 901_629  #: XLM-V's
    special: SpecialIds = OURS
    tokenizer: str = "facebook/xlm-v-base"


def _mt5(model: ModelConfig) -> Released:
    """With mT5's vocabulary as SigLIP's multilingual models cut it: no start, and padding is the end of sequence."""
    return Released(
        model=model,
        vocab_size=250_000,
        special=SpecialIds(start=None, pad=1, end=1),
        tokenizer="google/siglip-so400m-patch16-256-i18n",
    )


def _model(
    vision: TowerConfig,
    text: TowerConfig,
    embedding: int,
    patch_size: int,
    image_size: int = 224,
    activation: Literal["gelu", "quick_gelu"] = "gelu",
) -> ModelConfig:
    return ModelConfig(
        vision=vision,
        text=text,
        embedding=embedding,
        image_size=image_size,
        patch_size=patch_size,
        activation=activation,
    )


_S16 = _model(TowerConfig(layers=12, width=384, heads=6), TowerConfig(layers=12, width=384, heads=6), 384, 16)
_M16 = _model(TowerConfig(layers=12, width=512, heads=8), TowerConfig(layers=12, width=512, heads=8), 512, 16)
_B32 = _model(TowerConfig(layers=12, width=768, heads=12), TowerConfig(layers=12, width=512, heads=8), 512, 32)
_B16 = _model(TowerConfig(layers=12, width=768, heads=12), TowerConfig(layers=12, width=512, heads=8), 512, 16)
_L14 = _model(TowerConfig(layers=24, width=1024, heads=16), TowerConfig(layers=12, width=768, heads=12), 768, 14)
_H14 = _model(TowerConfig(layers=32, width=1280, heads=16), TowerConfig(layers=24, width=1024, heads=16), 1024, 14)
_BIGG14 = _model(
    TowerConfig(layers=48, width=1664, heads=16, mlp_ratio=4.9231),
    TowerConfig(layers=32, width=1280, heads=20),
    1280,
    14,
)


def _all() -> dict[str, Released]:
    bases = {"S-16": _S16, "M-16": _M16, "B-32": _B32, "B-16": _B16, "L-14": _L14, "H-14": _H14, "bigG-14": _BIGG14}
    found = {}
    for name, model in bases.items():
        large = 384 if model.patch_size in {16, 32} else 378
        # Of all worldwide models only H/14 at 224 pixels was trained with the approximation x * sigmoid(1.702 x).
        quick = name == "H-14"
        first = f"ViT-{name}-quickgelu-worldwide" if quick else f"ViT-{name}-worldwide"
        activation: Literal["gelu", "quick_gelu"] = "quick_gelu" if quick else "gelu"
        found[first] = Released(model=dataclasses.replace(model, activation=activation))
        found[f"ViT-{name}-{large}-worldwide"] = Released(model=dataclasses.replace(model, image_size=large))
        if name in {"S-16", "M-16", "B-32"}:
            found[f"ViT-{name}-mT5-worldwide"] = _mt5(model)
    return found


#: Name -> model. `ViT-<size>[-<resolution>|-mT5|-quickgelu]-worldwide`; without a resolution, 224 pixels.
RELEASED = _all()


def released(name: str) -> Released:
    """The released model of a name.

    Raises:
        ConfigError: there is none; says which there are.
    """
    if name not in RELEASED:
        close = difflib.get_close_matches(name, RELEASED, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{name!r}: no released model has that name.{hint} There are: {', '.join(RELEASED)}.")
    return RELEASED[name]


def patches(model: ModelConfig) -> int:
    """Positions of the image tower: one a patch, and the class token."""
    return (model.image_size // model.patch_size) ** 2 + 1


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Trained numbers of a model, by where they are."""

    image: int  #: image tower with its projection
    text: int  #: text tower with its projection, without the token embedding
    tokens: int  #: the token embedding

    @property
    def total(self) -> int:
        """All of them, the logit scale included."""
        return self.image + self.text + self.tokens + 1


def hidden(tower: TowerConfig) -> int:
    """Width of a block's MLP."""
    return round(tower.width * tower.mlp_ratio)


def _blocks(tower: TowerConfig) -> int:
    width, inner = tower.width, hidden(tower)
    attention = 4 * (width * width + width)
    mlp = width * inner + inner + inner * width + width
    return tower.layers * (attention + mlp + 2 * 2 * width)


def parameters(model: ModelConfig, *, vocab_size: int, context_length: int) -> Parameters:
    """Parameters of a model, counted from its sizes."""
    vision, text = model.vision.width, model.text.width
    image = 3 * model.patch_size**2 * vision + vision + patches(model) * vision  # patches, class token, positions
    image += _blocks(model.vision) + 2 * 2 * vision + vision * model.embedding  # norms before and after the blocks
    words = context_length * text + _blocks(model.text) + 2 * text + text * model.embedding
    return Parameters(image=image, text=words, tokens=vocab_size * text)
