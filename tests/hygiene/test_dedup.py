"""Which of several alike images stay: the rule in plain lines is the judge."""

from __future__ import annotations

from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from worldclip.hygiene.codes import CodeIndex
from worldclip.hygiene.dedup import exact_copies, leaks, near_copies
from worldclip.hygiene.removals import REMOVALS, counts, gathered, leaving_out, removals

RADIUS = 2


def plain(images: dict[str, int]) -> dict[str, str]:
    """Image -> the one that it goes for."""
    gone: dict[str, str] = {}
    stay: list[str] = []
    firsts: dict[int, str] = {}
    for image in sorted(images):
        first = firsts.setdefault(images[image], image)
        if first in gone:  # Images of one code go for the same one.
            gone[image] = gone[first]
            continue
        near = [((images[image] ^ images[other]).bit_count(), other) for other in stay]
        near = [each for each in near if each[0] <= RADIUS]
        if near:
            gone[image] = "{1} ({0} bits)".format(*min(near))
        else:
            stay.append(image)
    return gone


@given(st.dictionaries(st.text("abcdß犬", min_size=1, max_size=3), st.integers(0, 255), max_size=25), st.randoms())
@example({"a": 97, "b": 0, "c": 1, "aa": 1}, Random(0))
def test_what_stays_is_far_apart_and_what_goes_is_near_something_that_stays(images: dict[str, int], random) -> None:  # type: ignore[no-untyped-def]
    ids = list(images)
    random.shuffle(ids)
    codes = np.array([images[image] for image in ids], np.uint64)
    rows, found = CodeIndex.build(codes).near(codes, RADIUS)
    later = found > rows
    removed = near_copies(pa.array(ids, pa.string()), codes, codes[rows[later]], codes[found[later]])
    assert removed.schema == REMOVALS
    assert dict(zip(removed["id"].to_pylist(), removed["detail"].to_pylist(), strict=True)) == plain(images)
    assert set(removed["reason"].to_pylist()) <= {"near copy"}


def test_a_chain_does_not_go_as_a_whole() -> None:
    codes = np.array([0b0, 0b11, 0b1111], np.uint64)
    removed = near_copies(pa.array(["a", "b", "c"]), codes, codes[:2], codes[1:])
    assert removed.to_pylist() == [{"id": "b", "reason": "near copy", "detail": "a (2 bits)"}]


def test_exact_copies_leave_the_smallest_id_and_nulls_alone() -> None:
    ids = pa.array(["c", "a", "b", "x", "y", "b"])
    values = pa.array(["same", "same", "other", None, None, "other"])
    removed = exact_copies(ids, values, "same bytes")
    assert removed.to_pylist() == [{"id": "c", "reason": "same bytes", "detail": "a"}]
    assert len(exact_copies(pa.array([], pa.string()), pa.array([], pa.string()), "same URL")) == 0


def test_a_leak_names_the_nearest_evaluation_image() -> None:
    evaluation = CodeIndex.build(np.array([0b0, 0b1, 0b1], np.uint64))
    ids, codes = pa.array(["near", "far", "same"]), np.array([0b11, 0xFF00, 0b0], np.uint64)
    removed = leaks(ids, codes, evaluation, pa.array(["zero", "one", "another"]), 2)
    assert removed.to_pylist() == [
        {"id": "near", "reason": "evaluation image", "detail": "another (1 bits)"},
        {"id": "same", "reason": "evaluation image", "detail": "zero (0 bits)"},
    ]


def test_removals_are_counted_once_a_reason_and_can_be_taken_back() -> None:
    one = removals([("b", "same URL", "x"), ("a", "unsafe (N)", "0.9"), ("b", "same URL", "a")])
    found = gathered([one, removals([("b", "near copy", "a")])])
    assert found["id"].to_pylist() == ["a", "b", "b"]
    assert found["detail"].to_pylist() == ["0.9", "a", "a"]
    assert counts(found) == {"near copy": 1, "same URL": 1, "unsafe (N)": 1}
    assert leaving_out(found, ["same URL", "unsafe (N)"])["id"].to_pylist() == ["b"]
    assert counts(leaving_out(found, counts(found))) == {}
