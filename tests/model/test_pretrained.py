"""Weights of others: there and back through every format, judged by CLIP's layout computed plainly, and refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel, MetaClip2Model

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.model import released as names
from worldclip.model.layout import clip_logits, from_clip, to_clip
from worldclip.model.pretrained import Golden, Pretrained, differences, logits, model_config, read, write
from worldclip.model.released import Released
from worldclip.model.sizes import build_model
from worldclip.tokenizer import OURS, SpecialIds, special_ids, train_tokenizer

CONFIG = ModelConfig(
    vision=TowerConfig(layers=2, width=48, heads=3, mlp_ratio=157 / 48),
    text=TowerConfig(layers=3, width=32, heads=2),
    embedding=24,
    image_size=32,
    patch_size=8,
    activation="quick_gelu",
)
CONTEXT = 77
TEXTS = ["a dog", "ein Hund", "犬", "หมา", "собака"] * 4
FORMATS = ("transformers", "open_clip", "pt")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 60, CONTEXT)


def built(tokenizer: Tokenizer, **changes: object) -> MetaClip2Model:
    config = dataclasses.replace(CONFIG, **changes)
    model = build_model(
        config, vocab_size=tokenizer.get_vocab_size(), context_length=CONTEXT, temperature=0.07, seed=4
    ).eval()
    with torch.no_grad():  # Norms and biases that are not those of a fresh model, so that a lost one shows.
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> MetaClip2Model:
    return built(tokenizer)


@pytest.fixture
def tiny_name(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A released model of the size of the tests: the sizes of the paper take gigabytes."""
    monkeypatch.setitem(names.RELEASED, "tiny", Released(model=CONFIG, vocab_size=tokenizer.get_vocab_size()))
    return "tiny"


def equal(one: MetaClip2Model, two: MetaClip2Model) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def plain(model: MetaClip2Model, activation: str = "quick_gelu") -> torch.Tensor:
    golden = Golden.of(model)
    config = model_config(model)
    with torch.no_grad():
        return clip_logits(
            to_clip(model.state_dict()),
            golden.pixels,
            golden.ids,
            heads=(config.vision.heads, config.text.heads),
            activation=activation,
            end=model.config.text_config.eos_token_id,
        )


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_clips_layout_computed_plainly_gives_the_models_logits(tokenizer: Tokenizer, activation: str) -> None:
    model = built(tokenizer, activation=activation)
    expected = logits(model, Golden.of(model))
    assert expected.std() > 0.05
    torch.testing.assert_close(plain(model, activation), expected, rtol=0, atol=1e-5)
    other = "gelu" if activation == "quick_gelu" else "quick_gelu"
    assert (plain(model, other) - expected).abs().max() > 1e-3  # The golden inputs see the wrong activation.


def test_a_lost_weight_shows_on_golden_inputs(model: MetaClip2Model) -> None:
    golden, changed = Golden.of(model), MetaClip2Model(model.config).eval()
    expected = logits(model, golden)
    for name, value in to_clip(model.state_dict()).items():
        weights = to_clip(model.state_dict()) | {name: value.roll(1, 0) if value.ndim else value + 0.1}
        changed.load_state_dict(from_clip(weights))
        seen = (logits(changed, golden) - expected).abs().max()
        assert seen > 1e-4, name


def test_there_and_back_is_the_same_bytes(model: MetaClip2Model) -> None:
    weights = model.state_dict()
    back = from_clip(to_clip(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize("kind", FORMATS)
def test_through_a_format_and_back(
    model: MetaClip2Model, tokenizer: Tokenizer, tiny_name: str, tmp_path: Path, kind: str
) -> None:
    source = Pretrained(model=model, tokenizer=tokenizer, crop=True)
    write(source, tmp_path, kind)
    found = read(tmp_path / "model.pt", size=tiny_name) if kind == "pt" else read(tmp_path)
    assert equal(found.model, model)
    assert model_config(found.model) == CONFIG
    assert found.crop is True
    assert (found.model.config.text_config.pad_token_id, found.model.config.text_config.eos_token_id) == (1, 2)
    if kind != "pt":
        assert special_ids(found.tokenizer) == OURS
        assert found.tokenizer.encode("a </s> dog").ids == tokenizer.encode("a </s> dog").ids
    told = differences(source, tmp_path, kind)
    assert told["read back"] < 1e-5  # the weights are equal; where they lie in memory moves the last bits of a product
    assert told["CLIP's layout"] < 1e-5 < 0.1 < told["largest logit"]


def test_around_all_formats(model: MetaClip2Model, tokenizer: Tokenizer, tiny_name: str, tmp_path: Path) -> None:
    found = Pretrained(model=model, tokenizer=tokenizer, crop=False)
    for kind in ("open_clip", "transformers", "pt", "open_clip", "transformers"):
        write(found, tmp_path / kind, kind)
        if kind == "pt":
            (tmp_path / "tokenizer").mkdir()
            (tmp_path / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_str())
            found = read(tmp_path / "pt" / "model.pt", size=tiny_name, tokenizer=tmp_path / "tokenizer")
        else:
            found = read(tmp_path / kind)
            assert found.crop is (tmp_path / "tokenizer").exists()
    assert equal(AutoModel.from_pretrained(tmp_path / "transformers"), model)


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "ddp", "half", "custom_text", "buffers", "safetensors"])
def test_what_trainers_leave_around_the_weights(
    model: MetaClip2Model, tiny_name: str, tmp_path: Path, wrapped: str
) -> None:
    weights = to_clip(model.state_dict())
    path = tmp_path / ("model.safetensors" if wrapped == "safetensors" else "model.pt")
    if wrapped == "state_dict":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    elif wrapped == "ddp":
        torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, path)
    elif wrapped == "half":
        torch.save({name: value.half() for name, value in weights.items()}, path)
    elif wrapped == "custom_text":
        kept = {name: value for name, value in weights.items() if name.startswith("visual.") or name == "logit_scale"}
        torch.save(kept | {f"text.{name}": value for name, value in weights.items() if name not in kept}, path)
    elif wrapped == "buffers":
        torch.save(weights | {"attn_mask": torch.zeros(77, 77), "input_resolution": torch.tensor(32)}, path)
    elif wrapped == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    found = read(path, size=tiny_name).model
    tolerance = 1e-3 if wrapped == "half" else 0
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=tolerance)
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32}


def test_weights_that_do_not_fit_are_named(model: MetaClip2Model, tiny_name: str, tmp_path: Path) -> None:
    weights = to_clip(model.state_dict())
    value = weights.pop("visual.ln_pre.bias")
    weights["visual.ln_before.bias"] = value
    weights["positional_embedding"] = weights["positional_embedding"][:64]
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(
        DataError,
        match=r"model.pt as tiny: does not fit the model. It lacks 1: visual.ln_pre.bias; it has besides 1: "
        r"visual.ln_before.bias; it has of another shape 1: positional_embedding \(64, 32\) instead of \(77, 32\)",
    ):
        read(tmp_path / "model.pt", size=tiny_name)


def test_a_file_of_another_size(model: MetaClip2Model, tmp_path: Path) -> None:
    torch.save(to_clip(model.state_dict()), tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"lacks 228: transformer\.resblocks\.10\.attn.*of another shape 73: ln_final"):
        read(tmp_path / "model.pt", size="ViT-S-16-mT5-worldwide")
    with pytest.raises(ConfigError, match=r"tell neither the activation .* nor the number of heads"):
        read(tmp_path / "model.pt")


def test_a_folder_is_checked_against_a_name(
    model: MetaClip2Model, tokenizer: Tokenizer, tiny_name: str, tmp_path: Path
) -> None:
    write(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path, "transformers")
    assert read(tmp_path, size=tiny_name)
    with pytest.raises(DataError, match="as ViT-S-16-mT5-worldwide: does not fit"):
        read(tmp_path, size="ViT-S-16-mT5-worldwide")


@pytest.mark.parametrize("what", ["text", "pickle", "list", "module"])
def test_files_that_hold_no_weights(model: MetaClip2Model, tiny_name: str, tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.pt"
    if what == "text":
        path.write_text("weights")
    elif what == "pickle":
        torch.save({"a": Path("x")}, path)
    elif what == "list":
        torch.save([torch.zeros(1)], path)
    else:
        torch.save(torch.nn.Linear(1, 1), path)  # Code inside: never run.
    with pytest.raises(DataError, match=r"cannot be read as weights|holds a list"):
        read(path, size=tiny_name)


def test_a_transformers_folder_that_lacks_a_weight(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path, "transformers")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"It lacks 1: text_projection.weight\."):
        read(tmp_path)


def test_models_of_another_kind(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path / "hf", "transformers")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(DataError, match="is of a 'siglip' model; needed: 'metaclip_2'"):
        read(tmp_path / "hf")
    write(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path / "oc", "open_clip")
    path = tmp_path / "oc" / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"model_cfg": config["model_cfg"] | {"custom_text": True}}))
    with pytest.raises(DataError, match="model_cfg has custom_text, which no CLIP of ours has"):
        read(tmp_path / "oc")
    config["model_cfg"]["text_cfg"]["pool_type"] = "argmax"
    path.write_text(json.dumps(config))
    with pytest.raises(DataError, match="pool_type is 'argmax'; needed: 'eos'"):
        read(tmp_path / "oc")
    with pytest.raises(MissingData, match="is no model"):
        read(tmp_path)


def test_a_tokenizer_that_does_not_fit(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path, "transformers")
    larger = train_tokenizer([*TEXTS, "the quick brown fox jumps over the lazy dog"], 90, CONTEXT)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "tokenizer.json").write_text(larger.to_str())
    with pytest.raises(DataError, match=r"the tokenizer \(\d+ tokens, end of sequence 2\) does not fit the model"):
        read(tmp_path, tokenizer=tmp_path / "large")
    with pytest.raises(ConfigError, match="comes without a tokenizer"):
        write(Pretrained(model=model, tokenizer=None, crop=False), tmp_path / "x", "transformers")


def test_a_vocabulary_whose_padding_is_its_end(tmp_path: Path) -> None:
    special = SpecialIds(start=None, pad=1, end=1)
    model = build_model(CONFIG, vocab_size=50, context_length=9, temperature=0.07, seed=0, special=special).eval()
    golden = Golden.of(model)
    assert (golden.ids[0] == 1).sum() == 8
    torch.testing.assert_close(plain(model), logits(model, golden), rtol=0, atol=1e-5)


JUDGE = """
import sys, torch
for missing in ("nms", "qnms"):
    torch.library.define("torchvision::" + missing, "(Tensor boxes, Tensor scores, float overlap) -> Tensor")
import open_clip
golden = torch.load(sys.argv[1] + "/golden.pt", weights_only=True)
model = open_clip.create_model("local-dir:" + sys.argv[1], precision="fp32").eval()
tokenizer = open_clip.get_tokenizer("local-dir:" + sys.argv[1])
with torch.no_grad():
    images = model.encode_image(golden["pixels"], normalize=True)
    texts = model.encode_text(golden["ids"], normalize=True)
    logits = model.logit_scale.exp() * images @ texts.T
    model.visual.proj.mul_(-1)
torch.save({"logits": logits, "ids": tokenizer(["a dog", "ein Hund"])}, sys.argv[1] + "/judged.pt")
torch.save(model.state_dict(), sys.argv[1] + "/theirs.pt")
"""


@pytest.mark.slow
def test_open_clip_gives_the_same_logits(
    model: MetaClip2Model, tokenizer: Tokenizer, tiny_name: str, tmp_path: Path
) -> None:
    """open_clip loads what was written, and what it saves is read. OPEN_CLIP is the folder it is installed in."""
    place = os.environ.get("OPEN_CLIP")
    if not place:
        pytest.skip("open_clip is optional: docs/models.md says how to install it beside")
    write(Pretrained(model=model, tokenizer=tokenizer, crop=True), tmp_path, "open_clip")
    golden = Golden.of(model)
    torch.save({"pixels": golden.pixels, "ids": golden.ids}, tmp_path / "golden.pt")
    env = {**os.environ, "PYTHONPATH": place, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", JUDGE, tmp_path], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    judged = torch.load(tmp_path / "judged.pt", weights_only=True)
    torch.testing.assert_close(judged["logits"], logits(model, golden), rtol=0, atol=1e-5)
    assert judged["ids"].tolist() == [tokenizer.encode(text).ids for text in ("a dog", "ein Hund")]
    theirs = read(tmp_path / "theirs.pt", size=tiny_name).model
    torch.testing.assert_close(logits(theirs, golden), -judged["logits"], rtol=0, atol=1e-5)
