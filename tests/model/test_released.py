"""Released models by name: what is known of them, counted without building one and judged by transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers import MetaClip2Model

from worldclip.errors import ConfigError
from worldclip.model.released import CONTEXT_LENGTH, RELEASED, parameters, patches, released
from worldclip.model.sizes import transformers_config


def test_every_size_and_resolution_of_the_paper_has_a_name() -> None:
    said = {
        # vision layers x width / heads, text layers x width / heads, embedding, patch, resolutions, mT5 variant
        "S-16": ((12, 384, 6), (12, 384, 6), 384, 16, (224, 384), True),
        "M-16": ((12, 512, 8), (12, 512, 8), 512, 16, (224, 384), True),
        "B-32": ((12, 768, 12), (12, 512, 8), 512, 32, (224, 384), True),
        "B-16": ((12, 768, 12), (12, 512, 8), 512, 16, (224, 384), False),
        "L-14": ((24, 1024, 16), (12, 768, 12), 768, 14, (224, 378), False),
        "H-14": ((32, 1280, 16), (24, 1024, 16), 1024, 14, (224, 378), False),
        "bigG-14": ((48, 1664, 16), (32, 1280, 20), 1280, 14, (224, 378), False),
    }
    seen = set()
    for size, (vision, text, embedding, patch, resolutions, mt5) in said.items():
        names = {name for name in RELEASED if name.startswith(f"ViT-{size}-")}
        assert len(names) == len(resolutions) + mt5
        assert {RELEASED[name].model.image_size for name in names} == set(resolutions)
        for name in names:
            model = RELEASED[name].model
            assert (model.vision.layers, model.vision.width, model.vision.heads) == vision
            assert (model.text.layers, model.text.width, model.text.heads) == text
            assert (model.embedding, model.patch_size) == (embedding, patch)
        seen |= names
    assert seen == RELEASED.keys()


def test_only_the_huge_model_at_224_pixels_has_quick_gelu() -> None:
    assert [name for name, each in RELEASED.items() if each.model.activation == "quick_gelu"] == [
        "ViT-H-14-quickgelu-worldwide"
    ]


def test_vocabularies_and_where_a_text_ends() -> None:
    for name, each in RELEASED.items():
        known = (250_000, None, 1, 1) if "mT5" in name else (901_629, 0, 1, 2)
        assert (each.vocab_size, each.special.start, each.special.pad, each.special.end) == known


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_are_counted_as_the_model_has_them(name: str) -> None:
    each = released(name)
    with torch.device("meta"):
        model = MetaClip2Model(
            transformers_config(
                each.model, vocab_size=each.vocab_size, context_length=CONTEXT_LENGTH, special=each.special
            )
        )
    counted = parameters(each.model, vocab_size=each.vocab_size, context_length=CONTEXT_LENGTH)
    assert counted.total == sum(weight.numel() for weight in model.parameters())
    assert counted.tokens == model.text_model.embeddings.token_embedding.weight.numel()
    assert counted.image == sum(
        weight.numel() for name, weight in model.named_parameters() if name.startswith(("vision", "visual"))
    )
    assert patches(each.model) == model.vision_model.embeddings.position_embedding.weight.shape[0]
    assert model.vision_model.encoder.layers[0].mlp.fc1.out_features == (
        8192 if "bigG" in name else 4 * each.model.vision.width
    )


def test_the_embedding_of_xlm_v_in_numbers_of_the_paper() -> None:
    of = {name: parameters(RELEASED[name].model, vocab_size=901_629, context_length=77).tokens for name in RELEASED}
    assert round(of["ViT-S-16-worldwide"] / 1e6) == 346
    assert round(of["ViT-H-14-quickgelu-worldwide"] / 1e6) == 923


def test_a_name_that_is_not_released() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean ViT-H-14-378-worldwide\? There are: ViT-S-16-worldwide"):
        released("ViT-H-14-384-worldwide")
