"""Models of any size: the same weights from the same seed, features judged by transformers' own, folders it loads."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModel, AutoProcessor, AutoTokenizer, MetaClip2Model, pipeline

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import StorageError
from worldclip.loader.images import decode, normalize, resize
from worldclip.model import features as of_towers
from worldclip.model.features import image_features, text_features
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD, build_model, save_model
from worldclip.tokenizer import END, PAD, START, encode, train_tokenizer

CONFIG = ModelConfig(
    vision=TowerConfig(layers=2, width=32, heads=2),
    text=TowerConfig(layers=2, width=24, heads=3, mlp_ratio=2.5),
    embedding=16,
    image_size=16,
    patch_size=8,
)
CONTEXT = 20
TEXTS = ["a dog", "ein kleiner Hund", "犬", "หมา", "", "the </s> tag", "a very long text " * 9, "Ｄog É", "x\ny"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = train_tokenizer([*TEXTS, "a photo of ."] * 2, 100, CONTEXT)
    return Tokenizer.from_str(tokenizer.to_str())


def build(seed: int = 0, vocab_size: int = 100, config: ModelConfig = CONFIG) -> MetaClip2Model:
    model = build_model(config, vocab_size=vocab_size, context_length=CONTEXT, temperature=0.07, seed=seed)
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> MetaClip2Model:
    return build(vocab_size=tokenizer.get_vocab_size())


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two, other = build(1).state_dict(), build(1).state_dict(), build(2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["text_projection.weight"], other["text_projection.weight"])


def test_building_a_model_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    build(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_shapes_are_those_asked_for(model: MetaClip2Model) -> None:
    weights = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert weights["vision_model.embeddings.patch_embedding.weight"] == (32, 3, 8, 8)
    assert weights["vision_model.encoder.layers.1.mlp.fc1.weight"] == (128, 32)
    assert weights["text_model.encoder.layers.1.mlp.fc1.weight"] == (60, 24)
    assert weights["text_model.embeddings.position_embedding.weight"] == (CONTEXT, 24)
    assert weights["visual_projection.weight"] == (16, 32)
    assert weights["text_projection.weight"] == (16, 24)
    assert not [name for name in weights if "layers.2." in name]
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    text = model.config.text_config
    assert (text.bos_token_id, text.pad_token_id, text.eos_token_id) == (START, PAD, END)
    assert {text.hidden_act, model.config.vision_config.hidden_act} == {"gelu"}


def ids(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    return torch.from_numpy(encode(tokenizer, texts))


@pytest.mark.parametrize("chunk", [1, 2, 5, 512])
def test_text_features_are_those_of_transformers_in_any_chunks(
    model: MetaClip2Model, tokenizer: Tokenizer, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_towers, "TEXT_CHUNK", chunk)
    tokens = ids(tokenizer, TEXTS * 3)
    with torch.no_grad():
        found = text_features(model, tokens)
        expected = model.get_text_features(input_ids=tokens).pooler_output
    assert (found.shape, found.dtype) == ((len(TEXTS) * 3, 16), torch.float32)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), rtol=1e-5, atol=2e-6)


def test_padding_and_company_do_not_change_a_text(model: MetaClip2Model, tokenizer: Tokenizer) -> None:
    tokens = ids(tokenizer, TEXTS)
    with torch.no_grad():
        together = text_features(model, tokens)
        for row, of_row in zip(tokens, together, strict=True):
            length = int((row != PAD).sum())
            torch.testing.assert_close(text_features(model, row[None, :length])[0], of_row, rtol=1e-5, atol=2e-6)


def test_gradients_of_all_weights_are_those_of_transformers(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_towers, "TEXT_CHUNK", 2)
    # The rows of the embedding are looked up once for all chunks: their gradient must still be whole.
    tokens = ids(tokenizer, TEXTS)
    target = torch.randn(len(TEXTS), 16, generator=torch.Generator().manual_seed(0))
    ours, theirs = build(vocab_size=tokenizer.get_vocab_size()), build(vocab_size=tokenizer.get_vocab_size())
    (text_features(ours, tokens) * target).sum().backward()
    features = theirs.get_text_features(input_ids=tokens).pooler_output
    (torch.nn.functional.normalize(features, dim=-1) * target).sum().backward()
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None, name
        else:
            torch.testing.assert_close(
                mine.grad, other.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_image_features_are_those_of_transformers(model: MetaClip2Model) -> None:
    pixels = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = image_features(model, pixels)
        expected = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


@pytest.fixture(scope="module")
def folder(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (size, size, 3), np.uint8)) for size in (16, 16, 16)]


def test_a_saved_folder_is_loaded_by_transformers(folder: Path, model: MetaClip2Model) -> None:
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is MetaClip2Model
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    assert loaded.logit_scale.item() == model.logit_scale.item()


def test_the_saved_tokenizer_gives_our_ids(folder: Path, tokenizer: Tokenizer) -> None:
    for loaded in (AutoTokenizer.from_pretrained(folder), AutoProcessor.from_pretrained(folder).tokenizer):
        found = loaded(TEXTS, padding="max_length", truncation=True, return_tensors="np")
        assert found["input_ids"].tolist() == encode(tokenizer, TEXTS).tolist()
        assert found["attention_mask"].tolist() == (encode(tokenizer, TEXTS) != PAD).astype(int).tolist()
        assert loaded.model_max_length == CONTEXT
        assert (loaded.bos_token_id, loaded.pad_token_id, loaded.eos_token_id) == (START, PAD, END)


def test_saving_leaves_the_tokenizer_as_it_was(folder: Path, tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, ["a"]).shape == (1, CONTEXT)
    assert json.loads((folder / "tokenizer.json").read_text("utf-8"))["truncation"] is None


def test_the_saved_folder_gives_the_same_features(
    folder: Path, model: MetaClip2Model, tokenizer: Tokenizer, pictures: list[Image.Image]
) -> None:
    loaded, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    inputs = processor(text=TEXTS, images=pictures, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        output = loaded(**inputs)
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        images = image_features(model, normalize(resize(pixels, 16), IMAGE_MEAN, IMAGE_STD))
        texts = text_features(model, ids(tokenizer, TEXTS))
    torch.testing.assert_close(output.image_embeds, images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.text_embeds, texts, rtol=1e-4, atol=1e-5)


def test_larger_pictures_are_squashed_as_ours_are(folder: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 24, 3), np.uint8))
    picture.save(tmp_path / "x.png")
    processor = AutoProcessor.from_pretrained(folder)
    theirs = processor(images=[picture], return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(decode((tmp_path / "x.png").read_bytes(), 16).copy()).permute(2, 0, 1)[None]
    torch.testing.assert_close(theirs, normalize(pixels.float() / 255, IMAGE_MEAN, IMAGE_STD), rtol=1e-4, atol=1e-4)


def test_the_zero_shot_pipeline_ranks_as_our_features_do(
    folder: Path, model: MetaClip2Model, tokenizer: Tokenizer, pictures: list[Image.Image]
) -> None:
    labels = ["a dog", "ein kleiner Hund", "犬", "หมา"]
    classify = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")
    answers = classify(pictures, candidate_labels=labels, hypothesis_template="{}")
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    with torch.no_grad():
        images = image_features(model, normalize(pixels.float() / 255, IMAGE_MEAN, IMAGE_STD))
        scores = (model.logit_scale.exp() * images @ text_features(model, ids(tokenizer, labels)).T).softmax(1)
    for answer, row in zip(answers, scores, strict=True):
        found = {each["label"]: each["score"] for each in answer}
        assert [found[label] for label in labels] == pytest.approx(row.tolist(), rel=1e-4)


def test_saving_twice_gives_the_same_bytes(
    folder: Path, model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(model, tokenizer, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files fails the very call that a full disk fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"model: the model could not be written .*File too large"):
        save_model(model, tokenizer, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
