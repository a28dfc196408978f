"""Evaluation on the packaged pictures: a model that knows every picture's name must score full marks, others chance."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from worldclip.errors import DataError
from worldclip.evaluation.packaged import QUERIES, evaluate, examples, lid_accuracy, read_test
from worldclip.packages import Cache
from worldclip.storage import read_json, write_table

Floats = NDArray[np.float32]

WORDS = {
    "apple": {"en": "red apple", "fr": "pomme rouge", "hi": "सेब"},
    "dog": {"en": "dog", "fr": "chien", "hi": "कुत्ता"},
    "sun": {"en": "sun", "fr": "soleil"},
    "moon": {"en": "moon", "fr": "lune"},
}
CONCEPTS = list(WORDS)


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def rows(name: str, kind: str) -> list[dict[str, object]]:
    return [
        {
            "id": f"{name}/{concept}",
            "set": name,
            "concept": concept,
            "png": png(50 * number),
            "texts": [{"kind": kind, "lang": lang, "text": text} for lang, text in WORDS[concept].items()]
            + [{"kind": kind, "lang": "en", "text": f"a second text of the {concept}"}],
        }
        for number, concept in enumerate(CONCEPTS)
    ]


@pytest.fixture
def test_table(tmp_path: Path) -> Path:
    path = tmp_path / "test.parquet"
    write_table(path, pa.Table.from_pylist(rows("emoji", "title") + rows("stamps", "caption")))
    return path


def encode_images(pictures: Iterable[Image.Image]) -> Floats:
    """One axis a concept, read from the picture's shade."""
    return np.eye(8, dtype=np.float32)[[picture.getpixel((0, 0))[0] // 50 for picture in pictures]]  # type: ignore[index]


def encode_texts(texts: Sequence[str]) -> Floats:
    """One axis a concept, of its name in any language."""
    axis = {text: CONCEPTS.index(concept) for concept, names in WORDS.items() for text in names.values()}
    return np.eye(8, dtype=np.float32)[[axis[text] for text in texts]]


def ignorant(texts: Sequence[str]) -> Floats:
    """Vectors that know nothing of the pictures."""
    seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
    vectors = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_first_text_of_a_kind_counts(test_table: Path) -> None:
    sets = read_test(test_table)
    assert list(sets) == ["emoji", "stamps"]
    assert sets["emoji"].concepts == CONCEPTS
    assert sets["emoji"].texts["title"]["en"]["emoji/dog"] == "dog"
    assert set(sets["stamps"].texts) == {"caption"}
    assert set(sets["emoji"].texts["title"]["hi"]) == {"emoji/apple", "emoji/dog"}
    assert sets["emoji"].features(encode_images).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("column", ["id", "set", "concept", "png", "texts"])
def test_a_missing_column_is_named(column: str, test_table: Path) -> None:
    write_table(test_table, pa.Table.from_pylist(rows("emoji", "title")).drop_columns([column]))
    with pytest.raises(DataError, match=f"lacks the column '{column}'"):
        read_test(test_table)


def test_one_who_knows_all_names_scores_full_marks(test_table: Path) -> None:
    found = evaluate(read_test(test_table), encode_images, encode_texts, CONCEPTS)
    assert set(found) == {"heldout_emoji", "stamps"}, "there are no photographs"
    emoji = found["heldout_emoji"]
    assert (emoji["images"], emoji["classes"], emoji["chance_top1"]) == (4, 4, 0.25)
    assert set(emoji["languages"]) >= {"en", "fr"}
    assert all(row["top1"] == row["top5"] == 1 for row in emoji["languages"].values())
    stamps = found["stamps"]["languages"]
    assert all(row["i2t_r1"] == row["t2i_r1"] == row["top1"] == 1 for row in stamps.values())


def test_only_concepts_that_were_trained_on_are_asked(test_table: Path) -> None:
    found = evaluate(read_test(test_table), encode_images, encode_texts, ["dog", "sun", "moon", "never drawn"])
    assert (found["heldout_emoji"]["classes"], found["heldout_emoji"]["languages"]["en"]["n"]) == (3, 3)


def test_examples_show_truth_and_answers(test_table: Path) -> None:
    sets = read_test(test_table)
    shown, pngs = examples(sets, encode_images, encode_texts, {"apple", "dog", "sun"}, 100.0)
    assert {entry["id"] for entry in shown["classify"]} == {"emoji/apple", "emoji/dog", "emoji/sun"}
    for entry in shown["classify"]:
        name, probability = entry["predictions"]["en"]
        assert name == entry["truth"]["en"] == WORDS[entry["id"].removeprefix("emoji/")]["en"]
        assert probability == 1
        assert "fr" not in entry["truth"], "French is not among the languages shown"
    hindi = {entry["id"]: entry["truth"]["hi"] for entry in shown["classify"]}
    assert hindi["emoji/sun"] is None, "a drawing without a name in a language has no truth in it"
    assert {entry["id"] for entry in shown["classify"]} <= set(pngs)
    again, _ = examples(sets, encode_images, ignorant, {"apple", "dog", "sun"}, 100.0)
    assert [entry["id"] for entry in again["classify"]] == [entry["id"] for entry in shown["classify"]], (
        "which drawings are shown does not depend on how well they do"
    )


def test_a_query_finds_its_picture_in_all_sets(tmp_path: Path) -> None:
    """The queries are written as the concepts that the packages name; one that no picture has is left out."""
    asked = list(QUERIES.items())[:2]
    table = [
        {"id": f"{name}/{number}", "set": name, "concept": concept, "png": png(50 * number),
         "texts": [{"kind": "title", "lang": lang, "text": f"{number}"}]}
        for name in ("emoji", "photographs") for number, (lang, concept) in enumerate(asked)
    ]  # fmt: skip
    write_table(tmp_path / "test.parquet", pa.Table.from_pylist(table))
    shown, pngs = examples(
        read_test(tmp_path / "test.parquet"),
        encode_images,
        lambda texts: np.eye(8, dtype=np.float32)[[int(text) for text in texts]],
        {concept for _, concept in asked},
        100.0,
    )
    assert [(entry["lang"], entry["query"]) for entry in shown["retrieve"]] == [(asked[0][0], "0"), (asked[1][0], "1")]
    for number, entry in enumerate(shown["retrieve"]):
        assert entry["ids"][:2] == [f"emoji/{number}", f"photographs/{number}"]
        assert entry["hits"] == [True, True, False, False]
    assert set(pngs) == {row["id"] for row in table}


@pytest.mark.packages
def test_every_query_is_a_concept_of_the_packages(cache: Cache) -> None:
    """A concept is a drawing's English name; a query that is none would never be asked."""
    entries = read_json(cache.path("cldr-annotations") / "annotations/en/annotations.json")["annotations"]
    assert set(QUERIES.values()) <= {entry["tts"][0] for entry in entries["annotations"].values()}


def test_language_identification_is_scored_by_distinct_text(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string())]))
    texts = [
        [{"text": "dog", "lang": "en"}, {"text": "chien", "lang": "fr"}],
        [{"text": "dog", "lang": "en"}, {"text": "sol", "lang": "es"}],
    ]
    labels = [["en", "fr"], ["en", "pt"]]
    write_table(tmp_path / "a.parquet", pa.table({"texts": pa.array(texts, kind), "labels": pa.array(labels)}))
    write_table(tmp_path / "b.parquet", pa.table({"texts": pa.array(texts, kind)}))
    found = lid_accuracy([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert found == {"texts": 3, "accuracy": 2 / 3, "languages": {"en": 1.0, "fr": 1.0, "pt": 0.0}}
    assert lid_accuracy([tmp_path / "b.parquet"]) == {"texts": 0, "accuracy": None, "languages": {}}
