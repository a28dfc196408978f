"""The suites against a second, plain reading of what they should say, on real names and captions of several scripts."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worldclip.errors import DataError
from worldclip.evaluation.metrics import class_features, wilson_interval
from worldclip.evaluation.tasks import NO_CAPTION, NO_NAME, NOT_TRAINED, TOO_FEW, classify_suite, retrieve_suite

Floats = NDArray[np.float32]

NAMES = {
    "en": {"apple": "red apple", "dog": "dog", "sun": "sun", "moon": "moon"},
    "fr": {"apple": "pomme rouge", "dog": "chien", "sun": "soleil", "moon": "  "},
    "th": {"apple": "แอปเปิ้ลแดง", "dog": "หมา"},
    "sw": {"sun": "jua"},
    "xx": {},
}


def embed(text: str, width: int = 8) -> Floats:
    """Some unit vector that depends on the text alone."""
    values = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)[:width].astype(np.float64) - 127.5
    row: Floats = (values / np.linalg.norm(values)).astype(np.float32)
    return row


def encode(texts: list[str]) -> Floats:
    assert len(set(texts)) == len(texts), "texts are encoded once"
    return np.stack([embed(text) for text in texts])


def order_of(scores: list[float]) -> list[int]:
    return [index for _, index in sorted((-score, index) for index, score in enumerate(scores))]


def noisy(vectors: list[Floats], seed: int = 0, noise: float = 0.4) -> Floats:
    random = np.random.default_rng(seed)
    values = np.stack(vectors) + noise * random.normal(size=(len(vectors), len(vectors[0])))
    normalised: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def test_classify_among_the_trained_and_named_concepts() -> None:
    concepts = ["dog", "apple", "sun", "dog", "moon", "comet"]
    images = noisy([embed(NAMES["en"].get(concept, concept)) for concept in concepts], noise=0)
    trained = ["apple", "dog", "sun", "moon", "never depicted"]
    suite = classify_suite(encode, images, concepts, NAMES, trained=trained)
    assert list(suite.records) == ["en", "fr", "th"]
    assert suite.absent == {TOO_FEW: ["sw", "xx"]}
    assert suite.records["en"] == {
        "n": 5,
        "classes": 4,
        "top1": 1.0,
        "top5": 1.0,
        "top1_interval": wilson_interval(np.ones(5, np.bool_)),
        "chance_top1": 0.25,
        "chance_top5": 1.0,
        "duplicate_names": 0,
        "left_out": {NOT_TRAINED: 1, NO_NAME: 0},
    }
    french, thai = suite.records["fr"], suite.records["th"]
    assert (french["n"], french["classes"], french["left_out"]) == (4, 3, {NOT_TRAINED: 1, NO_NAME: 1})
    assert (thai["n"], thai["classes"], thai["left_out"]) == (3, 2, {NOT_TRAINED: 1, NO_NAME: 2})
    assert json.loads(json.dumps(suite.records))["en"]["top1"] == 1.0


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_classify_is_the_plain_reading_in_any_order(data: st.DataObject) -> None:
    known = [f"concept {number}" for number in range(8)]
    concepts = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=12))
    names = data.draw(
        st.dictionaries(st.sampled_from(known), st.sampled_from(["", " ", "a", "b", "c", "d", "e", "f", "g"]))
    )
    trained = data.draw(st.lists(st.sampled_from(known), unique=True))
    images = noisy([embed(names.get(concept) or concept) for concept in concepts], noise=0.6)
    suite = classify_suite(encode, images, concepts, {"xx": names}, trained=trained)

    classes = sorted({one for one in concepts if one in trained and names.get(one, "").strip()})
    if len(classes) < 2:
        assert (suite.records, suite.absent) == ({}, {TOO_FEW: ["xx"]})
        return
    hits: dict[int, list[bool]] = {1: [], 5: []}
    for image, concept in zip(images, concepts, strict=True):
        if concept in classes:
            # Rounded, as this sum and a matrix product may differ in the last bit; true ties stay ties.
            ranked = order_of([round(float(image @ embed(names[one])), 5) for one in classes])
            for k, found in hits.items():
                found.append(classes.index(concept) in ranked[:k])
    record = suite.records["xx"]
    assert record["n"] == len(hits[1])
    assert record["classes"] == len(classes)
    assert record["duplicate_names"] == len(classes) - len({names[one] for one in classes})
    assert (record["top1"], record["top5"]) == (sum(hits[1]) / len(hits[1]), sum(hits[5]) / len(hits[5]))
    left_out = record["left_out"]
    assert isinstance(left_out, dict)
    assert len(hits[1]) + sum(left_out.values()) == len(concepts)

    # The same question with names and images in another order.
    turn = np.array(data.draw(st.permutations(range(len(concepts)))))
    again = classify_suite(
        encode,
        images[turn],
        [concepts[at] for at in turn],
        {"xx": dict(reversed(names.items()))},
        trained=trained[::-1],
    )
    assert again == suite


def test_equal_names_are_kept_counted_and_the_first_wins() -> None:
    names = {"en": {"a": "cat", "b": "dog", "c": "cat"}}
    images = noisy([embed("cat"), embed("dog"), embed("cat")], noise=0)
    record = classify_suite(encode, images, ["a", "b", "c"], names, trained="abc").records["en"]
    assert (record["classes"], record["duplicate_names"], record["top1"], record["top5"]) == (3, 1, 2 / 3, 1.0)
    assert record["chance_top1"] == 1 / 3


def test_prompts_are_ensembled_by_the_standard_rule_and_braces_do_no_harm() -> None:
    names = {"en": {"a": "{cat} {0}", "b": "dog"}, "fr": {"a": "chat", "b": "chien"}}
    templates = ["a photo of {}.", "{}"]
    wanted = {"a": ["a photo of {cat} {0}.", "{cat} {0}"], "b": ["a photo of dog.", "dog"]}
    images = np.concatenate(
        [class_features(np.stack([embed(text) for text in wanted[one]]), np.zeros(2, np.int64), 1) for one in "ab"]
    )
    asked: list[list[str]] = []

    def listen(texts: list[str]) -> Floats:
        asked.append(sorted(texts))
        return encode(texts)

    suite = classify_suite(listen, images, ["a", "b"], names, trained="ab", prompts={"en": templates})
    assert asked == [sorted(wanted["a"] + wanted["b"]), ["chat", "chien"]]
    assert suite.records["en"]["top1"] == 1.0


CAPTIONS = {
    "en": {"1": "A red apple.", "2": "A dog.", "3": "A dog.", "4": "The moon."},
    "zh": {"1": "红苹果。", "2": "狗。", "4": "月亮。", "elsewhere": "别的。"},
    "sw": {"1": "Tofaa.", "2": "Tofaa."},
    "xx": {},
}
DESCRIPTIONS = {"en": {"1": "It grows on trees.", "4": "It shines at night.", "2": "A dog."}}


def test_captions_in_common_are_one_class_and_one_text() -> None:
    images = noisy([embed("A red apple."), embed("A dog."), embed("A dog."), embed("The moon.")], noise=0)
    suite = retrieve_suite(encode, images, ["1", "2", "3", "4"], CAPTIONS)
    assert list(suite.records) == ["en", "zh"]
    assert suite.absent == {TOO_FEW: ["sw", "xx"]}
    english = suite.records["en"]
    assert (english["n"], english["classes"], english["images"], english["texts"]) == (4, 3, 4, 3)
    assert (english["top1"], english["i2t_r1"], english["t2i_r1"]) == (1.0, 1.0, 1.0)
    assert english["left_out"] == {NO_CAPTION: 0}
    assert english["chance_i2t_r1"] == pytest.approx(1 / 3)
    assert english["chance_t2i_r1"] == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)  # "A dog." owns two of four images
    chinese = suite.records["zh"]
    assert (chinese["n"], chinese["images"], chinese["texts"], chinese["left_out"]) == (3, 3, 3, {NO_CAPTION: 1})


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_retrieve_is_the_plain_reading(data: st.DataObject) -> None:
    ids = [f"image {number}" for number in range(data.draw(st.integers(1, 8)))]
    text = st.sampled_from(["", "a", "b", "c", "d", "e"])
    captions = data.draw(st.dictionaries(st.sampled_from(ids), text))
    descriptions = data.draw(st.dictionaries(st.sampled_from(ids), st.sampled_from(["", "a", "x", "y", "z"])))
    images = noisy([embed(captions.get(one) or one) for one in ids], noise=0.6)
    suite = retrieve_suite(encode, images, ids, {"xx": captions}, descriptions={"xx": descriptions})

    titles = sorted({captions[one] for one in ids if captions.get(one)})
    if len(titles) < 2:
        assert (suite.records, suite.absent) == ({}, {TOO_FEW: ["xx"]})
        return
    texts = titles + sorted({descriptions[one] for one in ids if descriptions.get(one)} - set(titles))
    own = {one: {value for value in (captions.get(one), descriptions.get(one)) if value} for one in ids}
    gallery = [one for one in ids if own[one]]
    score = {(one, t): round(float(images[ids.index(one)] @ embed(t)), 5) for one in ids for t in texts}
    record = suite.records["xx"]
    assert (record["images"], record["texts"], record["classes"]) == (len(gallery), len(texts), len(titles))
    for k in (1, 5, 10):
        i2t = [any(texts[at] in own[one] for at in order_of([score[one, t] for t in texts])[:k]) for one in gallery]
        t2i = [any(t in own[gallery[at]] for at in order_of([score[one, t] for one in gallery])[:k]) for t in texts]
        assert record[f"i2t_r{k}"] == sum(i2t) / len(i2t)
        assert record[f"t2i_r{k}"] == sum(t2i) / len(t2i)
    captioned = [one for one in ids if captions.get(one)]
    for k in (1, 5):
        hits = [titles.index(captions[one]) in order_of([score[one, t] for t in titles])[:k] for one in captioned]
        assert record[f"top{k}"] == sum(hits) / len(hits)
    assert (record["n"], record["left_out"]) == (len(captioned), {NO_CAPTION: len(ids) - len(captioned)})


def test_descriptions_are_further_texts_but_no_classes() -> None:
    images = noisy([embed("It grows on trees."), embed("A dog."), embed("A dog."), embed("The moon.")], noise=0)
    suite = retrieve_suite(encode, images, ["1", "2", "3", "4"], CAPTIONS, descriptions=DESCRIPTIONS)
    english = suite.records["en"]
    # Image 2's description is its caption over again, so it adds no text.
    assert (english["classes"], english["texts"], english["i2t_r1"]) == (3, 5, 1.0)
    assert all(type(value) is float for key, value in english.items() if "_r" in key)


def test_bad_input_is_told() -> None:
    images = noisy([embed("a"), embed("b")])
    with pytest.raises(DataError, match="2 images, but 1 concepts"):
        classify_suite(encode, images, ["a"], {}, trained="a")
    with pytest.raises(DataError, match="2 ids, 1 of them distinct"):
        retrieve_suite(encode, images, ["1", "1"], {})
    with pytest.raises(DataError, match="needs one row a text"):
        classify_suite(lambda texts: encode(texts)[:1], images, ["a", "b"], {"en": {"a": "a", "b": "b"}}, trained="ab")
