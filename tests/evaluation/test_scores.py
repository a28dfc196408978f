"""Metrics on stored random embeddings against scikit-learn, pandas and brute force, to the last digit."""

from __future__ import annotations

import brute
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, f1_score, jaccard_score, roc_auc_score

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap, ridge, scores
from worldclip.evaluation.metrics import best_ranks, nearest
from worldclip.evaluation.scores import (
    alignment,
    average_precision_11,
    best,
    jaccard,
    macro_f1,
    mean_per_class,
    roc_auc,
    uniformity,
)
from worldclip.evaluation.suites.fewshot import draw_shots, hits_of

Floats = NDArray[np.float32]


def stored(seed: int, rows: int, width: int) -> Floats:
    """Unit vectors that are the same wherever they are drawn."""
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def labelled() -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Labels, predictions and classes; class 7 has no item but is predicted, class 8 is neither, some rows tie."""
    images, classes = stored(0, 400, 16), stored(1, 9, 16)
    classes[6] = classes[2]  # Ties: 6 never wins.
    classes[8] = -classes[0] * 0
    labels = np.random.default_rng(2).integers(7, size=400)
    labels[labels == 3] = 4  # Nor has class 3, among the others.
    return labels, nearest(images, classes), 9


def test_mean_per_class_is_balanced_accuracy(labelled: tuple[NDArray[np.int64], NDArray[np.int64], int]) -> None:
    labels, predictions, _ = labelled
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(labels, predictions)
    assert 7 in predictions
    assert 7 not in labels
    assert 6 in labels
    assert 6 not in predictions
    assert mean_per_class(predictions == labels, labels) == expected


def test_macro_f1_is_over_classes_that_occur(labelled: tuple[NDArray[np.int64], NDArray[np.int64], int]) -> None:
    labels, predictions, _ = labelled
    expected = f1_score(labels, predictions, labels=np.unique(labels), average="macro")
    assert macro_f1(predictions, labels) == pytest.approx(expected, abs=1e-15)


def test_nearest_is_the_first_of_equals(labelled: tuple[NDArray[np.int64], NDArray[np.int64], int]) -> None:
    images, classes = stored(0, 50, 16), stored(1, 9, 16)
    classes[6] = classes[2]
    orders = [brute.order(image, classes.tolist()) for image in images.tolist()]
    found = nearest(images, classes)
    assert found.tolist() == [order[0] for order in orders]
    assert 2 in found
    assert 6 not in found
    ranks = best_ranks(images, classes, np.arange(50), np.full(50, 6))
    assert ranks.tolist() == [order.index(6) for order in orders]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_counts_ties_half(items: list[tuple[int, bool]]) -> None:
    values, positive = np.array([value for value, _ in items], float), np.array([own for _, own in items])
    if positive.all() or not positive.any():
        with pytest.raises(DataError, match="needs both"):
            roc_auc(values, positive)
        return
    assert 100 * roc_auc(values, positive) == pytest.approx(
        brute.roc_auc(values.tolist(), positive.tolist()), abs=1e-12
    )
    assert roc_auc(values, positive) == pytest.approx(roc_auc_score(positive, values), abs=1e-12)


def test_average_precision_is_voc_2007s() -> None:
    # Ranks of the three positives: 1, 3, 4. Precisions 1, 2/3, 3/4; recalls 1/3, 2/3, 1.
    scores_, positive = np.array([9.0, 8, 7, 6, 5]), np.array([True, False, True, True, False])
    assert average_precision_11(scores_, positive) == pytest.approx((4 * 1 + 7 * 0.75) / 11, abs=1e-15)
    # 3 of 10 found: recall 0.3 counts, though 3/10 != 0.3 as 3 * 0.1.
    positive = np.array([True] * 3 + [False] * 7 + [True] * 7)
    expected = (4 * 1 + sum(max(found / (found + 7) for found in range(need, 11)) for need in range(4, 11))) / 11
    assert average_precision_11(-np.arange(17.0), positive) == pytest.approx(expected, abs=1e-15)
    with pytest.raises(DataError, match="no positive"):
        average_precision_11(np.zeros(2), np.zeros(2, np.bool_))


def test_jaccard_is_scikit_learns() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        predicted, true = (random.choice(12, 4, replace=False) for _ in range(2))
        expected = jaccard_score(np.isin(np.arange(12), true), np.isin(np.arange(12), predicted))
        assert jaccard(predicted.tolist(), true.tolist()) == expected
    assert jaccard([], []) == 1.0
    assert best(np.array([1, 3, 3, 2], np.float32), 3).tolist() == [1, 2, 3]


def test_alignment_and_uniformity_of_known_points() -> None:
    here, there = np.array([[1, 0]], np.float32), np.array([[-1, 0]], np.float32)
    assert uniformity(np.concatenate([here, there])) == pytest.approx(-8.0, abs=1e-12)
    assert alignment(here, here) == 0.0
    assert alignment(here, there) == pytest.approx(4.0, abs=1e-12)
    images, texts = stored(5, 300, 8), stored(6, 300, 8)
    assert alignment(images, texts) == pytest.approx(2 - 2 * float((images * texts).sum(1).mean()), abs=1e-6)
    exact = images.astype(np.float64)
    squares = ((exact[:, None] - exact) ** 2).sum(-1)[np.triu_indices(300, 1)]
    expected = np.log(np.exp(-2 * squares).mean())
    for rows in (1, 7, 299, 1024):
        assert uniformity(images, rows=rows) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(DataError, match="needs two"):
        uniformity(images[:1])


def test_uniformity_does_not_underflow() -> None:
    far = np.array([[1, 0], [-1, 0]], np.float32)
    assert uniformity(far, t=1000.0) == pytest.approx(-4000.0)


def test_ridge_solves_the_same_in_any_way() -> None:
    random = np.random.default_rng(7)
    for rows, columns in ((20, 50), (50, 20)):
        x, y = random.normal(size=(rows, columns)), random.normal(size=(rows, 3))
        direct = np.linalg.lstsq(
            np.vstack([x, np.sqrt(1024.0) * np.eye(columns)]), np.vstack([y, np.zeros((columns, 3))]), rcond=None
        )[0]
        for dual in (True, False, None):
            assert np.abs(ridge.solve(x, y, 1024.0, dual=dual) - direct).max() < 1e-5
        learned = Ridge(alpha=1024.0, fit_intercept=False).fit(x, y).coef_.T
        assert np.abs(ridge.solve(x, y, 1024.0) - learned).max() < 1e-5


def probed(shots: Floats, labels: NDArray[np.int64], test: Floats, classes: int) -> list[int]:
    """The probe, written from its description."""
    mean, deviation = shots.astype(float).mean(0), shots.astype(float).std(0)

    def features(rows: Floats) -> NDArray[np.float64]:
        return np.array([[*((row - mean) / (deviation + 1e-5)), 100.0] for row in rows.astype(float)])

    x = features(shots)
    y = np.array([[1.0 if label == each else -1.0 for each in range(classes)] for label in labels])
    width = x.shape[1]
    w = np.linalg.lstsq(np.vstack([x, 32.0 * np.eye(width)]), np.vstack([y, np.zeros((width, classes))]), rcond=None)[0]
    return [int(np.argmax(row @ w)) for row in features(test)]


def test_the_probe_is_the_described_one_whatever_the_batch() -> None:
    centres = stored(8, 4, 128)
    labels = np.arange(90) % 4
    points = (centres[labels] + 2 * stored(10, 90, 128)).astype(np.float32)
    shots, test = np.arange(60), np.arange(60, 90)
    expected = probed(points[shots], labels[shots], points[test], 4)
    assert ridge.probe(points[shots], labels[shots], points[test], 4).tolist() == expected
    one_by_one = [int(ridge.probe(points[shots], labels[shots], points[[row]], 4)[0]) for row in test]
    assert one_by_one == expected
    places = [f"place {label}" for label in labels]
    accuracy = hits_of(points, places, shots, test).mean()
    assert accuracy == np.mean(np.array(expected) == labels[test])
    assert accuracy > 0.5  # And not a sixteenth of it.
    # A place without a shot is missed, and counts.
    assert not hits_of(points, [*places[:60], *["elsewhere"] * 30], shots, test).any()


def test_shots_are_those_that_pandas_draws() -> None:
    places = [f"p{row * row % 7}" for row in range(60)]
    pool = np.arange(5, 60)
    frame = pd.DataFrame({"place": places}).iloc[5:]
    for shots, seed in ((5, 42), (25, 43)):
        expected = [
            row
            for _, group in frame.groupby("place")
            for row in group.sample(min(shots, len(group)), random_state=seed).index
        ]
        assert draw_shots(places, pool, shots, seed).tolist() == expected


def test_intervals_of_ratios_cover_the_truth_and_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(11)
    covered = 0
    for trial in range(100):
        hits = random.random((200, 1)) < 0.3
        low, high = bootstrap.interval(
            bootstrap.resampled_ratios(hits, np.ones((200, 1)), seed=trial, resamples=200)[:, 0]
        )
        covered += low <= 0.3 <= high
    assert 88 <= covered <= 100
    hits, counts = random.random((50, 3)) < 0.5, random.random((50, 3)) < 0.8
    whole = bootstrap.resampled_ratios(hits & counts, counts, seed=1, resamples=30)
    monkeypatch.setattr(bootstrap, "BLOCK", 120)
    assert np.array_equal(whole, bootstrap.resampled_ratios(hits & counts, counts, seed=1, resamples=30))
    assert bootstrap.ratios(hits & counts, counts).tolist() == pytest.approx(
        [float((hits & counts)[:, c].sum() / counts[:, c].sum()) for c in range(3)]
    )


def test_captions_of_one_image_are_no_evidence_of_their_own() -> None:
    """Twenty images with a hundred captions that are all hit or all missed: the interval is that of twenty."""
    hits = np.array([[100.0], [0.0]] * 10)
    by_image = bootstrap.interval(
        bootstrap.resampled_ratios(hits, np.full((20, 1), 100.0), seed=0, resamples=500)[:, 0]
    )
    assert by_image[1] - by_image[0] > 0.3


def test_empty_and_unfit_input_is_told() -> None:
    none = np.zeros(0, np.int64)
    for call in (
        lambda: mean_per_class(none == 0, none),
        lambda: macro_f1(none, none),
        lambda: roc_auc(np.zeros(2), np.zeros(3, np.bool_)),
        lambda: bootstrap.resampled_ratios(np.zeros((0, 1)), np.zeros((0, 1)), seed=0, resamples=2),
        lambda: ridge.probe(stored(0, 2, 3), np.array([0, 5]), stored(0, 1, 3), 2),
    ):
        with pytest.raises(DataError):
            call()
    assert np.isnan(bootstrap.interval(np.array([np.nan]))).all()
    assert scores.one_hot(np.array([1, 0]), 2).tolist() == [[0, 1], [1, 0]]
