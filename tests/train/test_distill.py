"""Distillation: judged by torch's own divergence, over tiles and ranks; teachers of other sizes and tokenizers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.curation.sample import Candidates
from worldclip.loader.memory import MemoryImages
from worldclip.model.sizes import build_model
from worldclip.tokenizer import END, PAD, START, SpecialIds
from worldclip.train.distill import Teacher, distillation_loss, frozen, known_features
from worldclip.train.loop import Student, train, train_students

CONFIG = ModelConfig(
    vision=TowerConfig(layers=1, width=16, heads=2),
    text=TowerConfig(layers=1, width=16, heads=2),
    embedding=8,
    image_size=16,
    patch_size=8,
)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def plain(
    students: tuple[torch.Tensor, torch.Tensor], teachers: tuple[torch.Tensor, torch.Tensor], scale: float
) -> torch.Tensor:
    images, texts = students
    total = torch.zeros(())
    for mine, taught in zip(texts, teachers[1], strict=True):
        student, teacher = scale * images @ mine.T, scale * teachers[0] @ taught.T
        for one, other in ((student, teacher), (student.T, teacher.T)):
            total = total + functional.kl_div(
                one.log_softmax(1), other.log_softmax(1), reduction="batchmean", log_target=True
            )
    return total / (2 * len(texts))


@pytest.mark.parametrize("tile", [2, 3, 100])
def test_loss_and_gradients_are_torchs(tile: int) -> None:
    images, texts = rows(7, 5, seed=1), rows(2, 7, 5, seed=2)
    teachers = (rows(7, 9, seed=3), rows(2, 7, 9, seed=4))
    found, expected = [], []
    for into, compute in (
        (found, lambda each: distillation_loss(each, teachers, 12.0, tile=tile)),
        (expected, lambda each: plain(each, teachers, 12.0)),
    ):
        leaves = (images.clone().requires_grad_(), texts.clone().requires_grad_())
        loss = compute(leaves)
        loss.backward()
        into += [loss.detach(), *(leaf.grad for leaf in leaves)]
    assert expected[0] > 0.1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    images, texts = rows(6, 5, seed=1).requires_grad_(), rows(1, 6, 5, seed=2)
    loss = distillation_loss((images, texts), (images.detach(), texts), 30.0)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert images.grad.abs().max() < 1e-6


def test_parts_of_ranks_add_up_and_what_is_not_valid_takes_no_part() -> None:
    images, texts = rows(8, 5, seed=1), rows(2, 8, 5, seed=2)
    teachers = (rows(8, 3, seed=3), rows(2, 8, 3, seed=4))
    valid = torch.tensor([True] * 6 + [False] * 2)
    parts = [
        distillation_loss((images, texts), teachers, 5.0, own=slice(start, start + 4), valid=valid) for start in (0, 4)
    ]
    alone = distillation_loss((images[:6], texts[:, :6]), (teachers[0][:6], teachers[1][:, :6]), 5.0)
    torch.testing.assert_close(sum(parts), alone)


def data(count: int = 24) -> MemoryImages:
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (count, 1, 1, 3), np.uint8)
    ids = np.full((count, 6), PAD, np.int32)
    for row in range(count):
        ids[row, :4] = [START, 3 + row % 8, 3 + row // 8, END]
    return MemoryImages(
        pixels=np.broadcast_to(colours, (count, 24, 24, 3)).copy(),
        candidates=Candidates(
            keys=np.arange(count, dtype=np.uint64),
            offsets=np.arange(count + 1),
            keep_probability=np.ones(count),
        ),
        token_ids=ids,
        text_of_candidate=np.arange(count),
    )


def model(seed: int, **changes: object) -> object:
    config = ModelConfig(**{**vars(CONFIG), **changes})
    return build_model(config, vocab_size=16, context_length=8, temperature=0.07, seed=seed)


TRAINING = TrainConfig(
    seen_pairs=24 * 40, batch_size=24, lr=3e-3, warmup_steps=4, crop_scale=1.0, threads=1, precision="fp32",
    clip_norm=10.0, checkpoint_seconds=1e9, distill=1.0,
)  # fmt: skip


def divergence(student: object, teacher: Teacher, pairs: MemoryImages) -> float:
    """Of all pairs at once, in the model as it is."""
    from worldclip.loader.images import normalize
    from worldclip.model.features import image_features, text_features
    from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
    from worldclip.train.distill import fitted

    pixels = normalize(torch.from_numpy(pairs.pixels).permute(0, 3, 1, 2).float() / 255, IMAGE_MEAN, IMAGE_STD)
    with torch.no_grad():
        features = [
            (
                image_features(each, fitted(pixels, each.config.vision_config.image_size)),
                text_features(each, torch.from_numpy(ids).long())[None],
            )
            for each, ids in ((student, pairs.token_ids), (teacher.model, teacher.ids))
        ]
        return float(distillation_loss(*features, teacher.scale))


def own_tokens(pairs: MemoryImages) -> np.ndarray:
    """The same texts in a tokenizer without a start, whose padding is its end."""
    ids = np.full((len(pairs.token_ids), 5), 1, np.int32)
    ids[:, 0], ids[:, 1] = pairs.token_ids[:, 2] + 1, pairs.token_ids[:, 1] + 1
    return ids


@pytest.mark.parametrize("kept", [False, True])
def test_a_student_comes_nearer_to_a_teacher_of_other_size_and_tokenizer(tmp_path: Path, kept: bool) -> None:
    pairs = data()
    special = SpecialIds(start=None, pad=1, end=1)
    sizes = ModelConfig(**{**vars(CONFIG), "embedding": 12, "image_size": 24})
    large = build_model(sizes, vocab_size=16, context_length=8, temperature=0.1, seed=9, special=special)
    large = frozen(large, torch.device("cpu"))
    ids = own_tokens(pairs)
    known = None
    if kept:
        files = [tmp_path / "images.npy", tmp_path / "texts.npy"]
        known = known_features(large, pairs.pixels, ids, files, lambda *_: None, batch=7)
        again = known_features(large, pairs.pixels[:0], ids[:0], files, lambda *_: None)
        assert all(np.array_equal(one, two) for one, two in zip(known, again, strict=True))  # read, not computed
    teacher = Teacher(model=large, scale=10.0, ids=ids, text_of_candidate=pairs.text_of_candidate, known=known)
    assert teacher.size == (0 if kept else 24)
    results = {}
    for name, taught in (("taught", teacher), ("alone", None)):
        student = model(1)
        before = divergence(student, teacher, pairs)
        train(student, pairs, TRAINING, seed=0, key="k", checkpoints=tmp_path / name / "c", teacher=taught)
        results[name] = divergence(student, teacher, pairs)
    assert results["taught"] < 0.8 * before
    assert results["taught"] < 0.8 * results["alone"]
    assert all(parameter.grad is None for parameter in large.parameters())


def test_known_features_are_those_that_are_computed_where_nothing_is_cropped(tmp_path: Path) -> None:
    pairs = data()
    large = frozen(model(9, image_size=24), torch.device("cpu"))
    files = [tmp_path / "images.npy", tmp_path / "texts.npy"]
    known = known_features(large, pairs.pixels, pairs.token_ids, files, lambda *_: None)
    teachers = [
        Teacher(model=large, scale=10.0, ids=pairs.token_ids, text_of_candidate=pairs.text_of_candidate, known=each)
        for each in (known, None)
    ]
    losses = []
    for at, teacher in enumerate(teachers):
        student = model(1, image_size=24)
        done = train(student, pairs, TRAINING, seed=0, key="k", checkpoints=tmp_path / str(at), teacher=teacher)
        losses.append([loss for _, loss in done.losses][:3])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_students_of_one_teachers_pass_are_those_of_passes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = data()
    config = dataclasses.replace(TRAINING, checkpoint_seconds=0.0, keep_checkpoints=40)
    teacher = Teacher(model=frozen(model(9, image_size=24), torch.device("cpu")), scale=10.0)
    makes = (lambda: model(1), lambda: model(2, image_size=24))
    alone = []
    for at, make in enumerate(makes):
        student = make()
        train(student, pairs, config, seed=0, key="k", checkpoints=tmp_path / f"alone{at}" / "c", teacher=teacher)
        alone.append(weights(student))

    asked = []
    features = Teacher.features
    monkeypatch.setattr(Teacher, "features", lambda self, *given: asked.append(given) or features(self, *given))

    def together() -> list[Student]:
        students = [
            Student(model=make(), key="k", checkpoints=tmp_path / f"both{at}" / "c") for at, make in enumerate(makes)
        ]
        assert [each.step for each in train_students(students, pairs, config, seed=0, teacher=teacher)] == [40, 40]
        assert all(equal(weights(each.model), expected) for each, expected in zip(students, alone, strict=True))
        return students

    students = together()
    assert len(asked) == 40
    left = []
    for student, until in zip(students, (20, 10), strict=True):  # as a kill can leave them
        steps = {int(path.name.removeprefix("step-")): path for path in student.checkpoints.glob("step-*")}
        for step, path in steps.items():
            if step > until:
                shutil.rmtree(path)
        left.append(max(step for step in steps if step <= until))
    assert left[0] > left[1]
    asked.clear()
    together()
    # Until they meet, those of the one that is behind; then one a step for both.
    assert len(asked) == 40 - left[1]
