"""Codes of embeddings, and near codes: what the index finds is what comparing everything finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.errors import ConfigError, DataError
from worldclip.hygiene import codes
from worldclip.hygiene.codes import CodeIndex, distances, signs

words = st.integers(0, 2**64 - 1)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Codes and queries near a few centres, so that there is something to find at every distance."""
    centres = draw(st.lists(words, min_size=1, max_size=3))
    flipped = st.tuples(st.sampled_from(centres), st.lists(st.integers(0, 63), max_size=20))
    made = [
        [centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in draw(st.lists(flipped, max_size=30))]
        for _ in range(2)
    ]
    return np.array(made[0], np.uint64), np.array(made[1], np.uint64)


def brute(indexed: np.ndarray, queries: np.ndarray, radius: int) -> list[tuple[int, int]]:
    return [
        (row, at)
        for row, query in enumerate(queries.tolist())
        for at, code in enumerate(indexed.tolist())
        if (query ^ code).bit_count() <= radius
    ]


@given(crowded(), st.integers(0, codes.LARGEST_RADIUS))
def test_what_is_near_is_what_brute_force_finds(made: tuple[np.ndarray, np.ndarray], radius: int) -> None:
    indexed, queries = made
    rows, found = CodeIndex.build(indexed).near(queries, radius)
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == brute(indexed, queries, radius)


@pytest.mark.parametrize("radius", [0, 2, 3, 5])
def test_a_large_index_has_longer_parts_and_the_same_answers(radius: int) -> None:
    draw = np.random.default_rng(1)
    indexed = draw.integers(0, 2**64, 2**20 + 7, np.uint64)
    queries = indexed[:40].copy()
    for _ in range(radius):
        queries ^= np.uint64(1) << draw.integers(0, 64, 40, np.uint64)
    index = CodeIndex.build(indexed)
    assert len(index.edges) - 1 == 3
    rows, found = index.near(queries, radius)
    for row, query in enumerate(queries):
        assert np.array_equal(found[rows == row], np.flatnonzero(distances(indexed, query) <= radius))


def test_an_index_comes_back_from_disk(tmp_path: Path) -> None:
    indexed = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)
    index = CodeIndex.build(indexed)
    index.save(tmp_path)
    again = CodeIndex.open(tmp_path)
    assert isinstance(again.codes, np.memmap)
    for one, other in zip(index.near(indexed, 12), again.near(indexed, 12), strict=True):
        assert np.array_equal(one, other)
    (tmp_path / "order.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="is no index of codes"):
        CodeIndex.open(tmp_path)


def test_what_cannot_be_asked_is_refused() -> None:
    index = CodeIndex.build(np.zeros(1, np.uint64))
    for radius in (-1, 17):
        with pytest.raises(ConfigError, match=rf"radius: found {radius}; allowed are 0 .* to 16"):
            index.near(np.zeros(1, np.uint64), radius)
    with pytest.raises(DataError, match=r"uint64 \[n\]"):
        CodeIndex.build(np.zeros(1, np.int64))
    for bad in (np.zeros(3), np.array([[1.0, np.nan]])):
        with pytest.raises(DataError, match="finite numbers"):
            signs(bad)


def test_bits_differ_as_the_angle_says() -> None:
    """Charikar: at an angle of a, 64 a / pi bits differ on average."""
    draw = np.random.default_rng(0)
    one = draw.standard_normal((4000, 300))
    other = draw.standard_normal((4000, 300))
    for share in (0.0, 0.1, 0.5):
        mixed = (1 - share) * one + share * other
        cosine = (one * mixed).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(mixed, axis=1)
        expected = 64 * np.arccos(np.clip(cosine, -1, 1)).mean() / np.pi
        assert distances(signs(one), signs(mixed)).mean() == pytest.approx(expected, abs=0.2)


def test_codes_do_not_depend_on_scale_on_batches_or_on_the_machine() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    whole = signs(vectors)
    assert np.array_equal(whole, np.concatenate([signs(vectors[at : at + 7]) for at in range(0, 50, 7)]))
    assert np.array_equal(whole, signs(vectors * 8))
    assert np.array_equal(signs(-vectors), ~whole)
    assert not np.array_equal(whole, signs(vectors, seed=1))
    # Codes of today can be compared with those of earlier versions.
    assert signs(np.array([[1.0, 2.0, -3.0]]))[0] == 14390558691994936399
