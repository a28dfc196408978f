"""Images embedded by whatever model folder there is: with texts or without, with a pooler or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hygiene.photo_tars import scene
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from worldclip.errors import DataError, MissingData
from worldclip.model.image_tower import ImageTower


def vit(folder: Path, *, pooler: bool) -> ViTModel:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    model = ViTModel(config, add_pooling_layer=pooler).eval()
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model


@pytest.mark.parametrize("pooler", [True, False])
def test_a_vit_gives_what_its_pooler_gives_or_the_mean_of_its_states(tmp_path: Path, pooler: bool) -> None:
    model = vit(tmp_path, pooler=pooler)
    pictures = [scene(seed) for seed in range(3)]
    pixels = ViTImageProcessorPil.from_pretrained(tmp_path)(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        output = model(pixel_values=pixels)
    expected = output.pooler_output if pooler else output.last_hidden_state.mean(dim=1)
    found = ImageTower.open(tmp_path)(pictures)
    assert found.shape == (3, 32)
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_what_is_no_image_tower_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no config\.json there"):
        ImageTower.open(tmp_path)
    vit(tmp_path, pooler=True)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(DataError, match="cannot load it"):
        ImageTower.open(tmp_path)
