"""`worldclip export` and `worldclip tokenizer`: what they write and say, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from worldclip.cli import main
from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import ConfigError
from worldclip.model.encoder import Encoder
from worldclip.model.export import export
from worldclip.model.sizes import build_model, save_model
from worldclip.tokenizer import special_ids, train_tokenizer

CONFIG = ModelConfig(
    vision=TowerConfig(layers=1, width=32, heads=2),
    text=TowerConfig(layers=1, width=32, heads=2),
    embedding=16,
    image_size=16,
    patch_size=8,
)
TEXTS = ["a small dog", "ein kleiner Hund", "子犬と猫", "หมากับแมว", "маленькая собака", "the cat and the dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("source")
    tokenizer = train_tokenizer(TEXTS * 4, 200, 16)
    model = build_model(
        CONFIG, vocab_size=tokenizer.get_vocab_size(), context_length=16, temperature=0.07, seed=1
    ).eval()
    save_model(model, tokenizer, place / "model")
    return place / "model"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(part) for part in arguments])


@pytest.mark.parametrize("target", ["transformers", "open_clip", "pt", "onnx"])
def test_every_format_is_written_and_judged(folder: Path, tmp_path: Path, target: str) -> None:
    done = run("export", folder, "--to", target, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    figures = {row["figure"]: row["value"] for row in json.loads(done.stdout)}
    largest = figures.get("largest logit", 1.0)
    assert all(value < 1e-4 for name, value in figures.items() if name != "largest logit")
    assert largest > 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_trimmed_vocabulary_gives_covered_texts_the_same_embeddings(folder: Path, tmp_path: Path) -> None:
    covered = TEXTS[:2]
    pq.write_table(pa.table({"text": [*covered, "猫"], "kept": [True, True, False]}), tmp_path / "texts.parquet")
    done = run(
        *("export", folder, "--to", "transformers", "--out", tmp_path / "out", "--json"),
        *("--trim-vocab", tmp_path / "texts.parquet"),
    )
    assert done.exit_code == 0, done.output
    figures = {row["figure"]: row["value"] for row in json.loads(done.stdout)}
    assert figures["tokens after"] < figures["tokens before"]
    assert (figures["covered texts"], figures["their embeddings"]) == (2, 0)
    before, after = Encoder.open(folder), Encoder.open(tmp_path / "out")
    np.testing.assert_array_equal(before.texts(covered), after.texts(covered))
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == figures["tokens after"]
    again = export(tmp_path / "out", tmp_path / "onnx", "onnx", covered=covered, precision="int8")
    assert again["tokens after"] <= figures["tokens after"]
    assert again["their embeddings"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--to", "onnx", "--trim-vocab", "{tmp}/none"), "no texts there"),
        (("--to", "onnx", "--tokenizer", "{tmp}/none"), "no such file"),
        (("--to", "open_clip", "--precision", "int8"), "only ONNX graphs have it; open_clip keeps fp32"),
        (("--to", "open_clip", "--size", "ViT-S-16-mT5-worldwide"), "does not fit the model"),
        (("--to", "open_clip", "--size", "ViT-S"), "no released model has that name"),
    ],
)
def test_what_is_refused_leaves_nothing(folder: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = run("export", folder, "--out", tmp_path / "out", *(each.format(tmp=tmp_path) for each in arguments))
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        export(folder, tmp_path, "onnx")


def test_a_tokenizer_is_trained_and_reported(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [*TEXTS * 4, None], "lang": [*("en", "de", "ja", "th", "ru", "en") * 4, "en"]}),
        tmp_path / "texts.parquet",
    )
    for kind in ("unigram", "bpe"):
        done = run(
            *("tokenizer", "train", tmp_path / "texts.parquet", "--out", tmp_path / kind / "tokenizer.json"),
            *("--vocab-size", 200, "--context-length", 12, "--kind", kind),
        )
        assert done.exit_code == 0, done.output
        assert special_ids(Tokenizer.from_file(str(tmp_path / kind / "tokenizer.json"))).end == 2
    done = run(
        *("tokenizer", "report", tmp_path / "unigram", tmp_path / "bpe", "--json"),
        *("--texts", tmp_path / "texts.parquet", "--context-length", 4),
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["lang"] for row in rows] == ["de", "en", "ja", "ru", "th"] * 2
    assert all(row["texts"] == (8 if row["lang"] == "en" else 4) for row in rows)
    assert {row["tokenizer"] for row in rows} == {str(tmp_path / "unigram"), str(tmp_path / "bpe")}
    assert max(row["truncated"] for row in rows) == 1.0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.txt", b"\xff\xfe", "is not UTF-8"),
        ("x.parquet", b"PAR1", "cannot be read as Parquet"),
        ("x.txt", b"\n \n", "there is no text to learn from"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("tokenizer", "train", tmp_path / name, "--out", tmp_path / "t.json")
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())


def test_a_table_without_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "x.parquet")
    done = run("tokenizer", "report", tmp_path, "--texts", tmp_path / "x.parquet")
    assert done.exit_code == 2
    assert "has no column text; it has caption" in " ".join(done.output.split())
