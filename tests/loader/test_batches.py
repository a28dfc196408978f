"""Which pairs are trained when: the same after any resumption, each image once an epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.curation.sample import Candidates, id_keys
from worldclip.errors import DataError
from worldclip.loader.batches import Batch, Cursor, Window, batches


def candidates(probability: list[list[float]]) -> Candidates:
    return Candidates(
        keys=id_keys(f"image-{number}" for number in range(len(probability))),
        offsets=np.cumsum([0, *map(len, probability)]),
        keep_probability=np.array([share for texts in probability for share in texts]),
    )


@dataclass(frozen=True)
class Pool:
    """Images in windows of a few, which are other ones in each epoch."""

    candidates: Candidates
    size: int = 1 << 30

    @property
    def windows(self) -> int:
        return max(1, -(-len(self.candidates.keys) // self.size))

    def window(self, number: int, _seed: int, epoch: int) -> Window:
        images = np.arange(len(self.candidates.keys))
        images = np.roll(images, 7 * epoch)[number * self.size :][: self.size]
        offsets = self.candidates.offsets
        texts = np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(offsets[image], offsets[image + 1]) for image in images)]
        )
        return Window(
            candidates=Candidates(
                keys=self.candidates.keys[images],
                offsets=np.cumsum([0, *(offsets[images + 1] - offsets[images])]),
                keep_probability=self.candidates.keep_probability[texts],
            ),
            images=images,
            texts=texts,
            identity=texts,
        )


def run(
    made: Candidates,
    images: int,
    texts: int = 1,
    seed: int = 0,
    start: int = 0,
    steps: int = 20,
    size: int = 1 << 30,
    cursor: Cursor | None = None,
) -> list[Batch]:
    pool = Pool(made, size)
    return list(batches(pool, images=images, texts_per_image=texts, seed=seed, start=start, steps=steps, cursor=cursor))


def plain(batch: Batch) -> tuple[int, int, list[int], list[list[int]]]:
    return batch.step, batch.epoch, batch.images.tolist(), batch.texts.tolist()


ALL = candidates([[1.0, 1.0]] * 50)
SOME = candidates([[0.5, 0.0, 1.0], [], [0.1], [1.0] * 4, [0.0]] * 40)


@pytest.mark.parametrize("size", [1 << 30, 60, 11])
@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("images", [1, 7, 64, 500])
def test_a_resumed_run_meets_the_same_batches(images: int, texts: int, size: int) -> None:
    batches = run(SOME, images, texts, size=size)
    whole = list(map(plain, batches))
    assert [step for step, *_ in whole] == list(range(20))
    for start in (0, 1, 9, 19, 20):
        assert list(map(plain, run(SOME, images, texts, start=start, size=size))) == whole[start:]
        if start:
            after = batches[start - 1].after
            found = run(SOME, images, texts, start=start, size=size, cursor=after)
            assert list(map(plain, found)) == whole[start:]


@given(
    shares=st.lists(st.lists(st.sampled_from([0.0, 0.3, 1.0]), max_size=3), min_size=1, max_size=12),
    images=st.integers(1, 9),
    texts=st.integers(1, 3),
    seed=st.integers(0, 99),
    start=st.integers(0, 6),
)
def test_every_text_is_one_of_its_images(
    shares: list[list[float]], images: int, texts: int, seed: int, start: int
) -> None:
    made = candidates(shares)
    if not made.keep_probability.any():
        with pytest.raises(DataError, match="nothing to train on"):
            run(made, images, texts)
        return
    found = run(made, images, texts, seed, start, steps=6)
    assert [batch.step for batch in found] == list(range(start, 6))
    for batch in found:
        assert batch.images.shape == (images,)
        assert batch.texts.shape == (texts, images)
        assert (made.offsets[batch.images] <= batch.texts).all()
        assert (batch.texts < made.offsets[batch.images + 1]).all()
        assert (made.keep_probability[batch.texts] > 0).all()


@pytest.mark.parametrize("size", [1 << 30, 20, 7])
def test_each_image_once_an_epoch_where_all_are_kept(size: int) -> None:
    found = run(ALL, 10, steps=15, size=size)  # three epochs of five steps
    for epoch in range(3):
        own = found[5 * epoch : 5 * epoch + 5]
        assert {batch.epoch for batch in own} == {epoch}
        assert sorted(np.concatenate([batch.images for batch in own])) == list(range(50))
    orders = [np.concatenate([batch.images for batch in found[at : at + 5]]).tolist() for at in (0, 5, 10)]
    assert orders[0] != orders[1] != orders[2] != list(range(50))


def test_a_batch_over_the_border_of_epochs_loses_nothing() -> None:
    found = run(ALL, 15, steps=10)
    seen = Counter(np.concatenate([batch.images for batch in found]).tolist())
    assert set(seen.values()) == {3}
    assert [batch.epoch for batch in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_both_texts_of_an_image_come_as_often() -> None:
    found = np.concatenate([batch.texts[0] for batch in run(ALL, 50, steps=200)])
    first = (found % 2 == 0).mean()
    assert abs(first - 0.5) < 4 * sqrt(0.25 / len(found))


def test_images_are_seen_as_often_as_their_texts_are_kept() -> None:
    made = candidates([[1.0], [0.5, 0.5], [0.25], [0.0, 0.5]])
    epochs = 0
    seen: Counter[int] = Counter()
    for batch in run(made, 1, seed=5, steps=6000):
        seen[int(batch.images[0])] += 1
        epochs = batch.epoch + 1
    for image, share in enumerate((1.0, 0.5, 0.25, 0.25)):
        assert abs(seen[image] - share * epochs) <= 4 * sqrt(epochs * share * (1 - share)) + 1


def test_what_is_never_kept_is_never_seen() -> None:
    found = run(SOME, 32, 2, steps=50)
    images = np.concatenate([batch.images for batch in found]) % 5
    assert set(images.tolist()) == {0, 2, 3}


def test_seeds_give_other_batches() -> None:
    assert list(map(plain, run(ALL, 10, seed=1))) != list(map(plain, run(ALL, 10, seed=2)))
    assert list(map(plain, run(ALL, 10, seed=1))) == list(map(plain, run(ALL, 10, seed=1)))


def test_the_order_of_the_candidates_changes_nothing() -> None:
    backwards = Candidates(keys=ALL.keys[::-1].copy(), offsets=ALL.offsets, keep_probability=ALL.keep_probability)
    for one, other in zip(run(ALL, 10), run(backwards, 10), strict=True):
        assert one.images.tolist() == (49 - other.images).tolist()


def test_nothing_to_train_on() -> None:
    for made in (candidates([]), candidates([[], []]), candidates([[0.0], [0.0, 0.0]])):
        with pytest.raises(DataError, match="There is nothing to train on"):
            run(made, 4)
