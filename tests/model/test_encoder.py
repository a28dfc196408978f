"""Any model folder: the embeddings are those of its family, by direct calls of transformers on small real folders."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import model_folders
import numpy as np
import pytest
import torch
from model_folders import LABELS, picture
from PIL import Image
from transformers import AutoModel, AutoProcessor, BertConfig, BertModel

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import DataError, MissingData
from worldclip.model.encoder import Encoder
from worldclip.model.pixels import on_white, read_picture
from worldclip.model.pretrained import Pretrained, write
from worldclip.model.sizes import build_model
from worldclip.model.towers import Changes, canonical
from worldclip.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {family: model_folders.save(family, base / family) for family in model_folders.FAMILIES}


@pytest.fixture(scope="module")
def encoder(folders: dict[str, Path]) -> Encoder:
    return Encoder.open(folders["metaclip2"])


def png(made: Image.Image) -> bytes:
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


#: Texts that a family's own tokenizer and our preparation must read alike: case, punctuation, spaces, length.
TEXTS = [*LABELS, "Red Apple,  a GREEN house!", "犬 " * 500]


@pytest.mark.parametrize("family", model_folders.FAMILIES)
def test_embeddings_are_those_of_the_family(folders: dict[str, Path], family: str) -> None:
    """Our batches of one length against its own processor, padded to the context as it was trained."""
    encoder = Encoder.open(folders[family])
    pictures = [picture(at, (60 + at, 48)) for at in range(5)]
    model = AutoModel.from_pretrained(folders[family]).eval()
    processor = AutoProcessor.from_pretrained(folders[family])
    texts = [canonical(text) for text in TEXTS] if family == "siglip2" else TEXTS
    inputs = processor(
        text=texts,
        images=pictures,
        padding="max_length",
        truncation=True,
        max_length=encoder.towers.context,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = model(**inputs)
    images = encoder.images(iter(pictures), batch_size=2)
    ours = encoder.texts(TEXTS, batch_size=3)
    assert images.dtype == ours.dtype == np.float32
    assert images.shape == (5, encoder.dimension)
    assert ours.shape == (len(TEXTS), encoder.dimension)
    np.testing.assert_allclose(images, expected.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours, expected.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    logits = encoder.logit_scale * images @ ours.T
    theirs = expected.logits_per_image.numpy()
    np.testing.assert_allclose(logits - logits[:, :1], theirs - theirs[:, :1], atol=1e-3)
    prepared = [encoder.prepare(png(each), "a.png") for each in pictures]
    np.testing.assert_allclose(encoder.embed_prepared(prepared), images, atol=1e-6)


@pytest.mark.parametrize(("family", "context"), [("metaclip2", 64), ("altclip", 64), ("chinese_clip", 52)])
def test_what_is_too_long_is_told(folders: dict[str, Path], family: str, context: int) -> None:
    encoder = Encoder.open(folders[family])
    assert encoder.towers.context == context
    fits = " ".join(["犬"] * ((context - 2) // (2 if family == "metaclip2" or family == "altclip" else 1)))
    assert encoder.truncated([fits, fits + " 犬 犬", "犬"]).tolist() == [False, True, False]
    assert encoder.truncated([]).tolist() == []


def test_siglips_form_of_a_text() -> None:
    assert canonical("  A_red  apple, (or two)!\tОдин’s ") == "a red apple or two один’s"


def test_a_siglip_row_is_as_long_as_in_training(folders: dict[str, Path]) -> None:
    """A shorter row gives another feature: the trap that fixed padding avoids."""
    encoder = Encoder.open(folders["siglip"])
    assert {len(ids) for ids in encoder.towers.tokenize(TEXTS)} == {encoder.towers.context}
    unpadded = Encoder.open(folders["siglip"], Changes(padded=False))
    assert np.abs(unpadded.texts(["gato"]) - encoder.texts(["gato"])).max() > 1e-2


def test_a_feature_is_read_at_the_first_end(folders: dict[str, Path]) -> None:
    """A literal "</s>" in a caption ends it, and crashes nothing; the end is also there where a text was cut."""
    encoder = Encoder.open(folders["metaclip2"])
    assert [ids.index(2) for ids in encoder.towers.tokenize(["犬", "犬 " * 500])] == [3, encoder.towers.context - 1]
    cut = encoder.texts(["犬", "犬</s>gato", "犬</s>chien"])
    np.testing.assert_allclose(cut[1], cut[2], atol=1e-6)


def test_changes_are_made_and_told(folders: dict[str, Path]) -> None:
    wide = [picture(5, (90, 40))]
    as_is = Encoder.open(folders["metaclip2"])
    squashed = Encoder.open(folders["metaclip2"], Changes(resize="squash"))
    assert (as_is.towers.settings["resize"], squashed.towers.settings["resize"]) == ("shortest", "squash")
    assert np.abs(as_is.images(wide) - squashed.images(wide)).max() > 1e-3
    assert as_is.fingerprint != squashed.fingerprint
    plain = Encoder.open(folders["metaclip2"], Changes(activation="gelu"))
    assert plain.towers.settings["activation"] == "gelu"
    assert np.abs(as_is.texts(["犬"]) - plain.texts(["犬"])).max() > 1e-4
    back = Encoder.open(folders["siglip"], Changes(resize="shortest"))
    assert back.towers.settings["resize"] == "shortest"


def test_a_palette_is_resolved_before_it_is_resized(folders: dict[str, Path]) -> None:
    """PIL would resize palette indices by the nearest; and a benchmark's alpha is dropped, not laid on white."""
    encoder = Encoder.open(folders["clip"])
    colours = picture(5, (90, 70))
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE)
    clear = palette.convert("RGB")
    clear.putalpha(0)
    same = [encoder.prepare(png(each), "a.png")["pixel_values"] for each in (palette, palette.convert("RGB"), clear)]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=0)
    torch.testing.assert_close(same[0], same[2], rtol=0, atol=0)
    with pytest.raises(DataError, match=r"b\.png: cannot be read as a picture"):
        encoder.prepare(b"no picture", "b.png")


def export(folder: Path, family: str, out: Path) -> Path:
    """A folder of two ONNX towers, exported as transformers' own exporter names them."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, out / path.name)
    (out / "onnx").mkdir()
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class Tower(torch.nn.Module):
        def __init__(self, embed: Any) -> None:
            super().__init__()
            self.model, self.embed = model, embed

        def forward(self, inputs: torch.Tensor) -> Any:
            return self.embed(inputs).pooler_output

    ids, pixels = torch.tensor([[0, 5, 6, 2]] * 2), torch.rand(2, 3, model_folders.PIXELS, model_folders.PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older exporter needs no further package, and says that it is older
        for name, embed, example, axes, output in (
            ("text_model", model.get_text_features, ids, {0: "n", 1: "length"}, "text_embeds"),
            ("vision_model", model.get_image_features, pixels, {0: "n"}, "image_embeds"),
        ):
            source = "input_ids" if name == "text_model" else "pixel_values"
            torch.onnx.export(
                Tower(embed), (example,), str(out / "onnx" / f"{name}.onnx"), dynamo=False, opset_version=17,
                input_names=[source], output_names=[output], dynamic_axes={source: axes, output: {0: "n"}},
            )  # fmt: skip
    return out


@pytest.mark.parametrize("family", ["clip", "metaclip2"])
def test_a_pair_of_onnx_towers(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source, exported = Encoder.open(folders[family]), Encoder.open(export(folders[family], family, tmp_path / "onnx"))
    np.testing.assert_allclose(exported.texts(TEXTS), source.texts(TEXTS), atol=1e-5)
    pictures = [picture(at) for at in range(3)]
    np.testing.assert_allclose(exported.images(pictures), source.images(pictures), atol=1e-5)
    assert exported.fingerprint != source.fingerprint
    (exported.folder / "onnx" / "text_model.onnx").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"text_model\.onnx: onnxruntime cannot load it"):
        Encoder.open(exported.folder)


def test_a_folder_of_open_clip_needs_open_clip(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    if importlib.util.find_spec("open_clip"):
        pytest.skip("open_clip is installed")
    with pytest.raises(MissingData, match="pip install open-clip-torch"):
        Encoder.open(tmp_path)


def test_no_input_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.images([]).shape == encoder.texts([]).shape == (0, encoder.dimension)


def test_a_text_that_is_too_long_is_cut(encoder: Encoder) -> None:
    assert np.isfinite(encoder.texts(["犬 " * 500])).all()


def test_pictures_of_every_mode_lie_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    grey16 = Image.fromarray(np.full((4, 4), 128 * 256, np.uint16))
    through = palette.copy()
    through.info["transparency"] = 0
    for made, expected in (
        (clear, (255, 255, 255)),
        (half, (127, 127, 127)),
        (palette, (10, 20, 30)),
        (through, (255, 255, 255)),
        (grey16, (128, 128, 128)),
        (Image.new("CMYK", (4, 4)), (255, 255, 255)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
    ):
        shown = on_white(made)
        assert (shown.mode, shown.getpixel((1, 1))) == ("RGB", expected), made.mode


def test_a_camera_held_sideways_is_turned_upright() -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(data, "JPEG", exif=exif)
    assert read_picture(data.getvalue(), Path("a.jpg")).size == (20, 40)


def test_the_fingerprint_is_of_what_decides_the_embeddings(encoder: Encoder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder.folder, copy)
    (copy / "README.md").write_text("words")
    assert Encoder.open(copy).fingerprint == encoder.fingerprint
    prepare = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(prepare | {"resample": 2}))
    assert Encoder.open(copy).fingerprint != encoder.fingerprint


def test_folders_that_hold_no_model_are_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no config\.json"):
        Encoder.open(tmp_path / "nowhere")
    bert = tmp_path / "bert"
    bert.mkdir()
    BertModel(
        BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(bert)
    model_folders.save_processor(bert)
    with pytest.raises(DataError, match="BertModel, which does not embed both"):
        Encoder.open(bert)

    def broken(name: str, drop: tuple[str, ...] = (), **write: str) -> Path:
        shutil.copytree(folders["metaclip2"], tmp_path / name)
        for file in drop:
            (tmp_path / name / file).unlink()
        for file, content in write.items():
            (tmp_path / name / file.replace("__", ".")).write_text(content)
        return tmp_path / name

    config = json.loads((folders["metaclip2"] / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    for folder, said in (
        (broken("weights", ("model.safetensors",)), "AutoModel cannot load it"),
        (broken("cut", model__safetensors="cut"), "AutoModel cannot load it"),
        (broken("config", config__json="{"), "AutoConfig cannot load it"),
        (broken("deeper", config__json=json.dumps(config)), "weights lack 16 of the model's tensors"),
        (broken("tokens", tokenizer__json="{}"), "AutoTokenizer cannot load it"),
        (
            broken("pixels", ("preprocessor_config.json", "processor_config.json")),
            "AutoImageProcessor cannot load",
        ),
        (broken("padding", tokenizer_config__json='{"tokenizer_class": "PreTrainedTokenizerFast"}'), "does not fit"),
    ):
        with pytest.raises(DataError, match=said):
            Encoder.open(folder)


OPEN_CLIP = """
import sys, torch
from pathlib import Path
import numpy as np
for missing in ("nms", "qnms"):
    torch.library.define("torchvision::" + missing, "(Tensor boxes, Tensor scores, float overlap) -> Tensor")
from model_folders import picture
from worldclip.model.encoder import Encoder
for kind in ("open_clip", "transformers"):  # transformers is here beside torchvision, and must still resize by PIL
    encoder = Encoder.open(Path(sys.argv[1], kind))
    texts = ["a dog", "ein Hund", "a dog " * 60]
    np.savez(
        Path(sys.argv[1], kind + ".npz"),
        texts=encoder.texts(texts), images=encoder.images([picture(3, (90, 60)), picture(7, (50, 70))]),
        truncated=encoder.truncated(texts), scale=encoder.logit_scale,
    )
"""


@pytest.mark.slow
def test_a_folder_of_open_clip_gives_the_same_embeddings(tmp_path: Path) -> None:
    """open_clip itself runs it. OPEN_CLIP is the folder that it is installed in."""
    place = os.environ.get("OPEN_CLIP")
    if not place:
        pytest.skip("open_clip is optional: docs/models.md says how to install it beside")
    words = ["a dog", "ein Hund", "the quick brown fox jumps over the lazy dog"]
    tokenizer = train_tokenizer(words, 80, 40)
    tower = TowerConfig(layers=1, width=32, heads=2)
    config = ModelConfig(vision=tower, text=tower, embedding=16, image_size=32, patch_size=8)
    model = build_model(
        config, vocab_size=tokenizer.get_vocab_size(), context_length=40, temperature=0.07, seed=0
    ).eval()
    for kind in ("open_clip", "transformers"):
        write(Pretrained(model=model, tokenizer=tokenizer, crop=True), tmp_path / kind, kind)
    here = Path(__file__).parents[1]
    path = os.pathsep.join([str(here.parent), str(here), place])
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN_CLIP, tmp_path], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = Encoder.open(tmp_path / "transformers")
    expected = {
        "texts": found.texts(["a dog", "ein Hund", "a dog " * 60]),
        "images": found.images([picture(3, (90, 60)), picture(7, (50, 70))]),
        "truncated": [False, False, True],
        "scale": found.logit_scale,
    }
    for kind in ("open_clip", "transformers"):
        with np.load(tmp_path / f"{kind}.npz", allow_pickle=False) as judged:
            for name, value in expected.items():
                np.testing.assert_allclose(judged[name], value, atol=1e-5, rtol=1e-5, err_msg=f"{kind} {name}")
