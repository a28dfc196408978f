"""Metrics against brute force in plain Python, written from the definitions, and against scikit-learn and SciPy."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import top_k_accuracy_score

from worldclip.errors import DataError
from worldclip.evaluation import metrics
from worldclip.evaluation.metrics import (
    bootstrap_interval,
    chance_recall,
    class_features,
    retrieval,
    topk_hits,
    wilson_interval,
    zero_shot,
)

Floats = NDArray[np.float32]


def order_of(scores: list[float]) -> list[int]:
    """Indices from best to worst; the lowest index first among equals."""
    return [index for _, index in sorted((-score, index) for index, score in enumerate(scores))]


def dot(left: Floats, right: Floats) -> float:
    return sum(float(a) * float(b) for a, b in zip(left, right, strict=True))


def features(rows: int, width: int = 3) -> st.SearchStrategy[Floats]:
    """Small whole numbers: their products are exact in any order, and ties abound."""
    row = st.lists(st.integers(-2, 2), min_size=width, max_size=width)
    return st.lists(row, min_size=rows, max_size=rows).map(lambda values: np.array(values, np.float32))


def unit(random: np.random.Generator, rows: int, width: int) -> Floats:
    values = random.normal(size=(rows, width))
    normalised: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return normalised


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_topk_hits_is_a_stable_sort(data: st.DataObject) -> None:
    n, c = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    scores = data.draw(features(n, c))
    labels = np.array(data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)))
    for k in (1, 2, 5, 9):
        expected = [label in order_of(list(row))[:k] for row, label in zip(scores, labels, strict=True)]
        assert topk_hits(scores, labels, k).tolist() == expected


def test_ties_go_to_the_lowest_index() -> None:
    equal = np.zeros((4, 4), np.float32)
    labels = np.arange(4)
    assert topk_hits(equal, labels, 1).tolist() == [True, False, False, False]
    assert topk_hits(equal, labels, 3).tolist() == [True, True, True, False]


def test_topk_agrees_with_scikit_learn_where_nothing_ties() -> None:
    random = np.random.default_rng(0)
    scores = random.permuted(np.tile(np.arange(30, dtype=np.float32), (200, 1)), axis=1)
    labels = random.integers(30, size=200)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(30))
        assert topk_hits(scores, labels, k).mean() == pytest.approx(expected, abs=1e-12)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_zero_shot_is_a_stable_sort_of_dot_products(data: st.DataObject) -> None:
    n, c = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    images, classes = data.draw(features(n)), data.draw(features(c))
    labels = np.array(data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)))
    found = zero_shot(images, labels, classes)
    for k in (1, 5):
        expected = [
            label in order_of([dot(image, one) for one in classes])[:k]
            for image, label in zip(images, labels, strict=True)
        ]
        assert found["hits"][k].tolist() == expected
        assert found["accuracy"][k] == sum(expected) / n
        assert type(found["accuracy"][k]) is float


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_retrieval_is_what_the_definition_says_in_any_tiling(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 8))
    images, texts = data.draw(features(n)), data.draw(features(m))
    owner = data.draw(st.lists(st.integers(0, n - 1), min_size=m, max_size=m))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE", data.draw(st.sampled_from([1, 7, 1 << 22])))
        found = retrieval(images, texts, np.array(owner))
    for k in (1, 5, 10):
        i2t = [
            any(owner[text] == image for text in order_of([dot(images[image], text) for text in texts])[:k])
            for image in range(n)
            if image in owner
        ]
        t2i = [owner[text] in order_of([dot(texts[text], image) for image in images])[:k] for text in range(m)]
        assert found["i2t_hits"][k].tolist() == i2t
        assert found["t2i_hits"][k].tolist() == t2i
        assert (found["i2t"][k], found["t2i"][k]) == (sum(i2t) / len(i2t), sum(t2i) / len(t2i))


def test_every_caption_counts_not_only_the_first() -> None:
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[-1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    found = retrieval(images, texts, np.array([0, 0, 1, 2, 2, 2]))
    # Image 0 finds its second text; image 2 finds text 0, which scores as its own text 4 does and comes before it.
    assert found["i2t_hits"][1].tolist() == [True, True, False]
    assert found["t2i_hits"][1].tolist() == [False, True, True, False, True, False]
    assert (found["i2t"][1], found["t2i"][1]) == (2 / 3, 3 / 6)
    first_only = retrieval(images, texts[[0, 2, 3]], np.array([0, 1, 2]))
    assert (first_only["i2t"][1], first_only["t2i"][1]) == (1 / 3, 1 / 3)


def test_equal_classes_tie_exactly_wherever_they_stand() -> None:
    """A class that repeats an earlier one never wins, though a matrix product may round equal columns differently."""
    random = np.random.default_rng(1)
    distinct = unit(random, 301, 67)
    copy_of = random.permutation(np.concatenate([np.arange(301), random.integers(301, size=332)]))
    classes = distinct[copy_of]
    first = {int(source): int(np.flatnonzero(copy_of == source)[0]) for source in np.unique(copy_of)}
    labels = np.arange(len(classes))
    found = zero_shot(classes, labels, classes)["hits"][1]
    assert found.tolist() == [first[int(source)] == label for label, source in enumerate(copy_of)]
    # Shapes at which OpenBLAS does round equal columns differently.
    for images, count, width in itertools.product((1, 2, 3, 17), (3, 5, 9, 13), (8, 67, 513)):
        same = np.tile(unit(random, 1, width), (count, 1))
        queries = np.tile(unit(random, images, width), (count, 1))
        labels = np.repeat(np.arange(count), images)
        for row, label in zip(queries, labels, strict=True):
            assert zero_shot(row[None], np.array([label]), same)["hits"][1].tolist() == [label == 0]
        assert zero_shot(queries, labels, same)["hits"][1].tolist() == (labels == 0).tolist()


def test_result_does_not_depend_on_the_tile() -> None:
    random = np.random.default_rng(2)
    images, texts = unit(random, 83, 32), unit(random, 211, 32)
    owner = random.integers(83, size=211)
    whole = retrieval(images, texts, owner)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE", 1000)
        tiled = retrieval(images, texts, owner)
    assert (whole["i2t"], whole["t2i"]) == (tiled["i2t"], tiled["t2i"])


def test_class_features_normalise_average_normalise() -> None:
    texts = np.array([[3, 0], [0, 5], [0, 2], [7, 7]], np.float32)
    found = class_features(texts, np.array([1, 1, 0, 1]), 2)
    half = math.sqrt(0.5)
    assert found == pytest.approx(np.array([[0, 1], [half, half]]), abs=1e-6)
    assert found.dtype == np.float32
    # A long text must not outweigh a short one; the mean before normalising would.
    skewed = class_features(np.array([[100, 0], [0, 1]], np.float32), np.array([0, 0]), 1)
    assert skewed == pytest.approx(np.array([[half, half]]), abs=1e-6)
    assert class_features(np.array([[1, 0], [-1, 0]], np.float32), np.array([0, 0]), 1).tolist() == [[0, 0]]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (480, 1570), (1, 1)])
def test_wilson_interval_is_scipys(hits: int, n: int) -> None:
    found = wilson_interval(np.arange(n) < hits)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found[0] <= hits / n <= found[1]


def test_bootstrap_interval_is_deterministic_and_covers() -> None:
    hits = np.arange(400) < 100
    low, high = bootstrap_interval(hits, seed=3)
    assert (low, high) == bootstrap_interval(hits, seed=3) != bootstrap_interval(hits, seed=4)
    expected = scipy.stats.binom.ppf([0.025, 0.975], 400, 0.25) / 400  # what resampling estimates
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)
    narrow = bootstrap_interval(hits, seed=3, level=0.5)
    assert low < narrow[0] < 0.25 < narrow[1] < high
    assert bootstrap_interval(np.ones(5, np.bool_), seed=0) == (1.0, 1.0)
    assert bootstrap_interval(np.full(5, 0.25), seed=0) == (0.25, 0.25)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_chance_recall_counts_every_draw(k: int) -> None:
    gallery, relevant = 6, [1, 2, 6]
    draws = list(itertools.combinations(range(gallery), min(k, gallery)))
    expected = [sum(min(draw) < right for draw in draws) / len(draws) for right in relevant]
    assert chance_recall(np.array(relevant), gallery, k) == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_bad_input_is_told() -> None:
    one = np.ones((1, 2), np.float32)
    none = np.zeros(0, np.int64)
    with pytest.raises(DataError, match="found 2 to 2; allowed are 0 to 1"):
        topk_hits(one, np.array([2]), 1)
    with pytest.raises(DataError, match="found -1"):
        zero_shot(one, np.array([-1]), one)
    with pytest.raises(DataError, match="2 indices for 1 rows"):
        retrieval(one, one, np.array([0, 0]))
    with pytest.raises(DataError, match="diverged"):
        zero_shot(one * np.nan, np.array([0]), one)
    with pytest.raises(DataError, match="diverged"):
        topk_hits(one * np.nan, np.array([0]), 1)
    with pytest.raises(DataError, match="2 numbers wide"):
        zero_shot(one, np.array([0]), np.ones((1, 3), np.float32))
    with pytest.raises(DataError, match="2 queries, only 1"):
        metrics.best_ranks(np.ones((2, 2), np.float32), one, np.array([0]), np.array([0]))
    with pytest.raises(DataError, match="class 1 of 3 has no text"):
        class_features(np.ones((2, 2), np.float32), np.array([0, 2]), 3)
    for empty in (
        lambda: zero_shot(one[:0], none, one),
        lambda: retrieval(one, one[:0], none),
        lambda: wilson_interval(np.zeros(0, np.bool_)),
        lambda: bootstrap_interval(np.zeros(0, np.bool_), seed=0),
    ):
        with pytest.raises(DataError):
            empty()


def test_evaluation_imports_without_torch() -> None:
    code = "import sys, worldclip.evaluation.tasks; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "False\n"
