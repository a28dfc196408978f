"""ONNX towers beside torch's, and a process that cannot import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, MetaClip2Model

from worldclip import use
from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import DataError, MissingData
from worldclip.model.encoder import Encoder
from worldclip.model.export import onnx_differences, write_onnx
from worldclip.model.features import text_features
from worldclip.model.onnx_graph import Precision, as_bytes
from worldclip.model.pretrained import Golden, Pretrained
from worldclip.model.serve import OnnxEncoder, pixels
from worldclip.model.sizes import build_model, save_model
from worldclip.tokenizer import encode, train_tokenizer

CONFIG = ModelConfig(
    vision=TowerConfig(layers=2, width=48, heads=3, mlp_ratio=3.0),
    text=TowerConfig(layers=2, width=32, heads=2),
    embedding=24,
    image_size=32,
    patch_size=8,
)
CONTEXT = 20
TEXTS = ["a dog", "ein kleiner Hund", "犬", "หมา", "", "the </s> tag", "a very long text " * 9, "собака"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 2, 90, CONTEXT)


def built(tokenizer: Tokenizer, activation: str = "gelu") -> MetaClip2Model:
    config = CONFIG if activation == "gelu" else ModelConfig(**{**vars(CONFIG), "activation": activation})
    return build_model(
        config, vocab_size=tokenizer.get_vocab_size(), context_length=CONTEXT, temperature=0.05, seed=3
    ).eval()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> MetaClip2Model:
    return built(tokenizer)


@pytest.fixture(scope="module")
def folders(model: MetaClip2Model, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as transformers holds it, and its towers in each precision."""
    place = tmp_path_factory.mktemp("onnx")
    save_model(model, tokenizer, place / "torch")
    for precision in ("fp32", "fp16", "int8"):
        write_onnx(Pretrained(model=model, tokenizer=tokenizer, crop=False), place / precision, precision)
    return place


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(5)
    sizes = [(32, 32), (70, 40), (33, 90)]
    noise = [Image.fromarray(draw.integers(0, 256, (high, wide, 3), np.uint8)) for wide, high in sizes]
    clear = Image.new("RGBA", (40, 40), (200, 10, 10, 0))
    return [*noise, clear, noise[1].convert("L"), noise[2].convert("P")]


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 2e-6), ("fp16", 2e-3), ("int8", 3e-2)])
def test_towers_are_as_near_to_torch_as_their_precision(
    folders: Path, model: MetaClip2Model, tokenizer: Tokenizer, precision: Precision, bound: float
) -> None:
    found = onnx_differences(Pretrained(model=model, tokenizer=tokenizer, crop=False), folders / precision)
    assert max(found["images"], found["texts"]) < bound
    if precision != "fp32":
        assert min(found["images"], found["texts"]) > 1e-6  # it is another precision


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_quick_gelu_is_kept(tokenizer: Tokenizer, tmp_path: Path, precision: Precision) -> None:
    whole = Pretrained(model=built(tokenizer, "quick_gelu"), tokenizer=tokenizer, crop=True)
    write_onnx(whole, tmp_path / "a", precision)
    found = onnx_differences(whole, tmp_path / "a")
    assert max(found["images"], found["texts"]) < 2e-3
    other = onnx_differences(Pretrained(model=built(tokenizer), tokenizer=tokenizer, crop=True), tmp_path / "a")
    assert min(other["images"], other["texts"]) > 1e-3


def test_pictures_and_texts_are_embedded_as_by_torch(folders: Path) -> None:
    ours, theirs = OnnxEncoder.open(folders / "fp32"), Encoder.open(folders / "torch")
    np.testing.assert_allclose(ours.images(pictures()), theirs.images(pictures()), atol=2e-5)
    np.testing.assert_allclose(ours.texts(TEXTS), theirs.texts(TEXTS), atol=2e-6)
    assert ours.logit_scale == pytest.approx(theirs.logit_scale)
    assert ours.dimension == theirs.dimension == 24
    assert ours.images([]).shape == ours.texts([]).shape == (0, 24)


def test_torchs_encoder_reads_the_graphs_too(folders: Path) -> None:
    ours, theirs = OnnxEncoder.open(folders / "fp32"), Encoder.open(folders / "fp32")
    np.testing.assert_allclose(ours.images(pictures()), theirs.images(pictures()), atol=2e-5)
    np.testing.assert_allclose(ours.texts(TEXTS), theirs.texts(TEXTS), atol=2e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_embedding_does_not_depend_on_its_batch(folders: Path, precision: str) -> None:
    encoder = OnnxEncoder.open(folders / precision)
    np.testing.assert_allclose(encoder.images(pictures(), 1), encoder.images(pictures(), 64), atol=2e-6)
    np.testing.assert_allclose(encoder.texts(TEXTS, 1), encoder.texts(TEXTS, 64), atol=2e-6)


@pytest.mark.parametrize("crop", [True, False])
def test_pixels_are_those_of_transformers(
    model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path, crop: bool
) -> None:
    save_model(model, tokenizer, tmp_path, crop=crop)
    processing = json.loads((tmp_path / "preprocessor_config.json").read_text())
    judge = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for picture in pictures()[:3]:
        expected = judge(images=picture, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(pixels(picture, processing), expected, atol=1e-5)


def test_pooling_is_at_the_first_end(folders: Path, model: MetaClip2Model, tokenizer: Tokenizer) -> None:
    ids = encode(tokenizer, ["a dog"])
    ids[0, 10:] = 2
    (found,) = OnnxEncoder.open(folders / "fp32").text_session.run(None, {"input_ids": ids})
    with torch.no_grad():
        expected = text_features(model, torch.from_numpy(encode(tokenizer, ["a dog"]))).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_bytes_of_a_matrix() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    weight[2] = 0
    scale, held = as_bytes(weight)
    assert held.dtype == np.uint8
    assert np.abs(scale * (held.astype(np.float32) - 128) - weight).max() <= scale.max() / 2 + 1e-7


def test_large_constants_lie_beside_the_graph_and_files_are_reproducible(
    folders: Path, model: MetaClip2Model, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_onnx(Pretrained(model=model, tokenizer=tokenizer, crop=False), tmp_path / "again", "fp32")
    for path in sorted((tmp_path / "again").iterdir()):
        assert path.read_bytes() == (folders / "fp32" / path.name).read_bytes(), path.name
    graph = onnx.load(tmp_path / "again" / "text_model.onnx", load_external_data=False).graph
    outside = [each for each in graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    assert len(outside) > 10
    assert all(int(each.external_data[1].value) % 64 == 0 for each in outside)
    assert (tmp_path / "again" / "text_model.onnx").stat().st_size < 40_000


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from worldclip.cli import main
main()
"""


def without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_classify_embed_and_search_run_without_torch(folders: Path, tmp_path: Path) -> None:
    for at, picture in enumerate(pictures()[:3]):
        picture.save(tmp_path / f"{at}.png")
    model = folders / "fp32"
    expected = use.classify(Encoder.open(folders / "torch"), tmp_path / "0.png", ["a dog", "犬"])
    done = without_torch("classify", tmp_path / "0.png", "--labels", "a dog,犬", "--model", model, "--json")
    assert done.returncode == 0, done.stderr
    found = [(row["label"], row["probability"]) for row in json.loads(done.stdout)]
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [odds for _, odds in found] == pytest.approx([odds for _, odds in expected], abs=1e-4)

    done = without_torch("embed", tmp_path, "--out", tmp_path / "e.parquet", "--model", model, "--json")
    assert (done.returncode, json.loads(done.stdout)[0]["embedded"]) == (0, 3), done.stderr
    done = without_torch("search", "หมา", "--in", tmp_path / "e.parquet", "--model", model, "--json", "-k", 2)
    assert done.returncode == 0, done.stderr
    assert [Path(row["image"]).suffix for row in json.loads(done.stdout)] == [".png", ".png"]

    done = without_torch("classify", tmp_path / "0.png", "--labels", "a", "--model", folders / "torch")
    assert done.returncode == 2
    assert "torch is not installed, which runs it" in done.stderr
    assert "Traceback" not in done.stderr


def test_folders_that_are_not_whole(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"config\.json: not found"):
        OnnxEncoder.open(tmp_path)
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "vision_model.onnx"):
        (tmp_path / name).write_bytes((folders / "fp32" / name).read_bytes())
    with pytest.raises(DataError, match=r"vision_model.onnx: onnxruntime cannot load it"):
        OnnxEncoder.open(tmp_path)
    (tmp_path / "vision_model.onnx").unlink()
    with pytest.raises(MissingData, match=r"vision_model\.onnx: not found\. Export the model with"):
        OnnxEncoder.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="lacks 'text_config'"):
        OnnxEncoder.open(tmp_path)


def test_golden_inputs_are_of_the_models_sizes(model: MetaClip2Model) -> None:
    golden = Golden.of(model)
    assert golden.pixels.shape == (4, 3, 32, 32)
    assert (golden.ids == 2).sum(1).tolist() == [1] * 6
    assert ((golden.ids == 2).int().argmax(1) + 1).tolist()[::5] == [2, CONTEXT]
