"""Using a model: real MetaClip2 and CLIP folders, small and untrained, judged by direct calls of transformers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipModel,
    pipeline,
)

from worldclip import use
from worldclip.errors import ConfigError, DataError, MissingData, StorageError

LABELS = ["chien", "gato", "犬", "собака", "หมา", "كلب", "red apple", "a green house by the sea and a very long road"]
CONTEXT = 64
PIXELS = 32


def save_processor(folder: Path, processor: str, image_processor: str) -> int:
    """Train a small tokenizer, write the processor's files as training does, and return the vocabulary's size."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*LABELS, "This is a photo of"] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    size = {"height": PIXELS, "width": PIXELS}
    prepare = {"image_processor_type": image_processor, "do_convert_rgb": True, "do_resize": True, "size": size,
               "resample": 3, "do_center_crop": False, "crop_size": size, "do_rescale": True, "rescale_factor": 1 / 255,
               "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}  # fmt: skip
    for name, content in {
        "tokenizer_config.json": special
        | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
        | {"model_input_names": ["input_ids", "attention_mask"] if processor == "CLIPProcessor" else ["input_ids"]},
        "preprocessor_config.json": prepare | {"processor_class": processor},
        "processor_config.json": {"processor_class": processor, "image_processor": prepare},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return tokenizer.get_vocab_size()


def save(folder: Path, config: Any, model: Any, seed: int = 0) -> Path:
    folder.mkdir()
    siglip = model is SiglipModel
    kind = "Siglip" if siglip else "CLIP"
    vocabulary = save_processor(folder, f"{kind}Processor", f"{kind}ImageProcessor")
    tower: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tower |= {"projection_size": 32} if siglip else {"projection_dim": 24}
    text = tower | {"vocab_size": vocabulary, "max_position_embeddings": CONTEXT}
    text |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(seed)
    made = model(
        config(
            text_config=text,
            vision_config=tower | {"image_size": PIXELS, "patch_size": 8},
            **({} if siglip else {"projection_dim": 24}),
        )
    )
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "metaclip2": save(base / "metaclip2", MetaClip2Config, MetaClip2Model),
        "clip": save(base / "clip", CLIPConfig, CLIPModel),
        "siglip": save(base / "siglip", SiglipConfig, SiglipModel),
    }


@pytest.fixture(scope="module")
def encoder(folders: dict[str, Path]) -> use.Encoder:
    return use.Encoder.open(folders["metaclip2"])


def picture(at: int, size: tuple[int, int] = (60, 48), mode: str = "RGB") -> Image.Image:
    made = Image.new(mode, size)
    draw = ImageDraw.Draw(made)
    draw.ellipse((at % 20, 4, 20 + at, 40), fill=(at * 40 % 256, 90, 255 - at * 25 % 256) if mode == "RGB" else None)
    return made


@pytest.mark.parametrize("kind", ["metaclip2", "clip", "siglip"])
def test_embeddings_are_those_of_the_model(folders: dict[str, Path], kind: str) -> None:
    encoder = use.Encoder.open(folders[kind])
    pictures = [picture(at) for at in range(5)]
    model = AutoModel.from_pretrained(folders[kind]).eval()
    processor = AutoProcessor.from_pretrained(folders[kind])
    inputs = processor(
        text=LABELS, images=pictures, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model(**inputs)
    images = encoder.images(iter(pictures), batch_size=2)
    texts = encoder.texts(LABELS, batch_size=3)
    assert images.dtype == texts.dtype == np.float32
    assert images.shape == (5, encoder.dimension)
    assert texts.shape == (len(LABELS), encoder.dimension)
    np.testing.assert_allclose(images, expected.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(texts, expected.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    logits = encoder.logit_scale * images @ texts.T
    np.testing.assert_allclose(
        logits - logits[:, :1], (expected.logits_per_image - expected.logits_per_image[:, :1]).numpy(), atol=1e-3
    )


def test_no_input_gives_no_rows(encoder: use.Encoder) -> None:
    assert encoder.images([]).shape == encoder.texts([]).shape == (0, encoder.dimension)


def test_a_text_that_is_too_long_is_cut(encoder: use.Encoder) -> None:
    assert np.isfinite(encoder.texts(["犬 " * 500])).all()


def test_classify_is_what_the_zero_shot_pipeline_says(
    folders: dict[str, Path], encoder: use.Encoder, tmp_path: Path
) -> None:
    picture(3).save(tmp_path / "a.png")
    ours = use.classify(encoder, tmp_path / "a.png", LABELS)
    zero_shot = pipeline("zero-shot-image-classification", model=str(folders["metaclip2"]))
    theirs = zero_shot(str(tmp_path / "a.png"), candidate_labels=LABELS, hypothesis_template="{}")
    assert [label for label, _ in ours] == [answer["label"] for answer in theirs]
    np.testing.assert_allclose([p for _, p in ours], [answer["score"] for answer in theirs], atol=1e-5)
    assert sum(p for _, p in ours) == pytest.approx(1)


def test_ties_keep_the_order_of_the_labels(encoder: use.Encoder, tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.png")
    answers = use.classify(encoder, tmp_path / "a.png", ["犬", "犬", "犬"])
    assert [p for _, p in answers] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("labels", [[], ["dog", "  "]])
def test_labels_must_be_words(encoder: use.Encoder, tmp_path: Path, labels: list[str]) -> None:
    picture(3).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="labels"):
        use.classify(encoder, tmp_path / "a.png", labels)


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
        shown = use.on_white(made)
        assert (shown.mode, shown.getpixel((1, 1))) == ("RGB", expected), made.mode


def test_a_camera_held_sideways_is_turned_upright() -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(data, "JPEG", exif=exif)
    assert use.read_picture(data.getvalue(), Path("a.jpg")).size == (20, 40)


def fill(folder: Path) -> dict[str, int]:
    """Pictures good and bad; the names of the good ones with what was drawn."""
    good = {"b.png": 1, "a/c.JPG": 2, "a/d.webp": 3, "e.gif": 4, "z.bmp": 5}
    (folder / "a").mkdir(parents=True)
    for name, at in good.items():
        picture(at).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.png").write_text("not a picture")
    Image.new("RGB", (1, 600)).save(folder / "line.png")
    (folder / "notes.txt").write_text("not looked at")
    return good


def test_embed_writes_a_sorted_table_and_counts_what_it_sets_aside(encoder: use.Encoder, tmp_path: Path) -> None:
    good = fill(tmp_path / "in")
    seen: list[tuple[int, int]] = []
    report = use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet", lambda *at: seen.append(at))
    assert seen == [(at, 9) for at in range(1, 10)]
    assert report.embedded == 5
    assert report.dimension == 24
    assert [Path(name).name for name, _ in report.set_aside] == ["broken.png", "empty.jpg", "line.png", "words.png"]
    assert report.reasons == {"not readable as a picture": 4}
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.types == [pa.string(), pa.string(), pa.list_(pa.float32(), 24)]
    assert table.schema.metadata[use.MODEL_KEY.encode()].decode() == encoder.fingerprint
    paths = [Path(name) for name in table["path"].to_pylist()]
    assert [path.as_posix() for path in paths] == sorted((tmp_path / "in" / name).as_posix() for name in good)
    assert table["sha256"].to_pylist() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    expected = encoder.images(use.read_picture(path.read_bytes(), path) for path in paths)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), expected, atol=1e-6)


def test_embed_gives_the_same_bytes_whatever_the_row_groups_hold(
    encoder: use.Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in")
    use.embed(encoder, tmp_path / "in", tmp_path / "one.parquet")
    use.embed(encoder, tmp_path / "in", tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    monkeypatch.setattr(use, "_GROUP", 2)
    use.embed(encoder, tmp_path / "in", tmp_path / "three.parquet")
    one, three = pq.read_table(tmp_path / "one.parquet"), pq.read_table(tmp_path / "three.parquet")
    assert pq.ParquetFile(tmp_path / "three.parquet").num_row_groups == 3
    assert one.drop(["embedding"]).equals(three.drop(["embedding"]))
    np.testing.assert_allclose(
        np.array(one["embedding"].to_pylist()), np.array(three["embedding"].to_pylist()), atol=1e-6
    )


@pytest.mark.skipif(os.name != "posix", reason="names are bytes only on POSIX")
def test_a_name_that_is_not_utf8_is_set_aside(encoder: use.Encoder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(1).save(tmp_path / "in" / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_bytes((tmp_path / "in" / "a.png").read_bytes())
    report = use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    assert (report.embedded, report.reasons) == (1, {"name is not UTF-8": 1})


def test_embed_says_when_there_is_nothing_to_embed(encoder: use.Encoder, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no such folder"):
        use.embed(encoder, tmp_path / "nowhere", tmp_path / "out.parquet")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("not a picture")
    with pytest.raises(DataError, match="1 files there"):
        use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    (tmp_path / "out.parquet").mkdir()
    picture(1).save(tmp_path / "in" / "b.png")
    with pytest.raises(StorageError, match=r"out\.parquet"):
        use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.parquet"]


def test_search_finds_the_nearest(encoder: use.Encoder, tmp_path: Path) -> None:
    fill(tmp_path / "in")
    use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    scores = np.array(table["embedding"].to_pylist(), np.float32) @ encoder.texts(["หมา"])[0]
    order = sorted(range(5), key=lambda at: (-scores[at], at))
    hits = use.search(encoder, "หมา", tmp_path / "out.parquet", 3)
    assert [path for path, _ in hits] == [table["path"][at].as_py() for at in order[:3]]
    np.testing.assert_allclose([score for _, score in hits], scores[order[:3]], atol=1e-6)
    assert len(use.search(encoder, "หมา", tmp_path / "out.parquet", 99)) == 5


def test_search_refuses_what_it_cannot_compare(folders: dict[str, Path], encoder: use.Encoder, tmp_path: Path) -> None:
    fill(tmp_path / "in")
    other = use.Encoder.open(save(tmp_path / "other", MetaClip2Config, MetaClip2Model, seed=1))
    use.embed(other, tmp_path / "in", tmp_path / "other.parquet")
    with pytest.raises(DataError, match=rf"model {other.fingerprint[:12]}, not by .*Embed the pictures again"):
        use.search(encoder, "หมา", tmp_path / "other.parquet", 3)
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="made by something else"):
        use.search(encoder, "หมา", tmp_path / "plain.parquet", 3)
    with pytest.raises(MissingData):
        use.search(encoder, "หมา", tmp_path / "nowhere.parquet", 3)
    for query, k in (("หมา", 0), (" ", 3)):
        with pytest.raises(ConfigError, match="needed"):
            use.search(encoder, query, tmp_path / "other.parquet", k)


def test_the_fingerprint_is_of_what_decides_the_embeddings(encoder: use.Encoder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder.folder, copy)
    (copy / "README.md").write_text("words")
    assert use.Encoder.open(copy).fingerprint == encoder.fingerprint
    prepare = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(prepare | {"resample": 2}))
    assert use.Encoder.open(copy).fingerprint != encoder.fingerprint


def test_a_missing_or_broken_picture_is_named(encoder: use.Encoder, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"nowhere\.png"):
        use.classify(encoder, tmp_path / "nowhere.png", LABELS)
    with pytest.raises(DataError, match="Give the path of a picture"):
        use.classify(encoder, tmp_path, LABELS)
    (tmp_path / "bad.png").write_text("words")
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as a picture"):
        use.classify(encoder, tmp_path / "bad.png", LABELS)


def test_folders_that_hold_no_model_are_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no config\.json"):
        use.Encoder.open(tmp_path / "nowhere")
    bert = tmp_path / "bert"
    bert.mkdir()
    BertModel(
        BertConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(bert)
    save_processor(bert, "CLIPProcessor", "CLIPImageProcessor")
    with pytest.raises(DataError, match="BertModel, which does not embed both"):
        use.Encoder.open(bert)

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
        (broken("config", config__json="{"), "AutoModel cannot load it"),
        (broken("deeper", config__json=json.dumps(config)), "weights lack 16 of the model's tensors"),
        (broken("tokens", tokenizer__json="{}"), "AutoProcessor cannot load it"),
        (
            broken("pixels", ("preprocessor_config.json", "processor_config.json")),
            "AutoProcessor cannot load|lacks the",
        ),
        (broken("padding", tokenizer_config__json='{"tokenizer_class": "PreTrainedTokenizerFast"}'), "does not fit"),
    ):
        with pytest.raises(DataError, match=said):
            use.Encoder.open(folder)


def test_pages_hold_their_pictures(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    use.html_page(tmp_path / "c.html", "كلب", [("<b>犬</b>", 0.91), ("cat", 0.09)], tmp_path / "a.png")
    use.html_page(tmp_path / "s.html", "หมา", [(str(tmp_path / "a.png"), 0.31), (str(tmp_path / "gone.png"), 0.2)])
    classified, found = (
        (tmp_path / "c.html").read_text(encoding="utf-8"),
        (tmp_path / "s.html").read_text(encoding="utf-8"),
    )
    assert "&lt;b&gt;犬&lt;/b&gt;" in classified
    assert "91.0 %" in classified
    assert '<h1 dir="auto">كلب</h1>' in classified
    assert classified.count("data:image/png;base64,") == found.count("data:image/png;base64,") == 1
    assert "no picture" in found
    assert "0.310" in found
    for page in (classified, found):
        assert "http:" not in page
        assert "https:" not in page
        assert "<script" not in page
