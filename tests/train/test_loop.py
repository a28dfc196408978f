"""The loop: the same seed gives the same weights, stopped and resumed anywhere, and the loss falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from transformers import MetaClip2Model

from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.curation.sample import Candidates, id_keys
from worldclip.errors import DataError, WorldclipError
from worldclip.loader.batches import batches
from worldclip.loader.memory import MemoryImages
from worldclip.loader.parts import Loaded
from worldclip.model.sizes import build_model
from worldclip.tokenizer import END, PAD, START
from worldclip.train import trainer
from worldclip.train.checkpoint import Progress
from worldclip.train.loop import LOSS_POINTS, train
from worldclip.train.optim import hardware_precision
from worldclip.train.trainer import Trainer

IMAGES, TEXTS, LENGTH = 48, 3, 6
TOWER = TowerConfig(layers=1, width=16, heads=2)
MODEL = ModelConfig(vision=TOWER, text=TOWER, embedding=8, image_size=8, patch_size=4)
CONFIG = TrainConfig(
    seen_pairs=20 * 16,
    batch_size=16,
    texts_per_image=2,
    lr=1e-2,
    warmup_steps=3,
    color_jitter=0.1,
    precision="fp32",
    threads=1,
    checkpoint_seconds=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def _threads_as_they_were() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> MemoryImages:
    """Each image has a colour of its own, and texts that name it."""
    noise = np.random.default_rng(0)
    colours = noise.integers(0, 256, (IMAGES, 1, 1, 3))
    pixels = (colours + noise.integers(-5, 6, (IMAGES, 10, 10, 3))).clip(0, 255).astype(np.uint8)
    ids = np.full((IMAGES * TEXTS, LENGTH), PAD)
    ids[:, 0] = START
    for row in range(IMAGES * TEXTS):
        ids[row, 1:3] = 4 + row // TEXTS, 60 + row % TEXTS
        ids[row, 3] = END
    candidates = Candidates(
        keys=id_keys(map(str, range(IMAGES))),
        offsets=np.arange(0, IMAGES * TEXTS + 1, TEXTS),
        keep_probability=noise.choice([0.3, 0.7, 1.0], IMAGES * TEXTS),
    )
    order = noise.permutation(IMAGES * TEXTS)  # rows of the texts are in no order
    return MemoryImages(
        pixels=pixels, candidates=candidates, token_ids=ids[order].astype(np.int32), text_of_candidate=np.argsort(order)
    )


def model(seed: int = 0) -> MetaClip2Model:
    return build_model(MODEL, vocab_size=70, context_length=LENGTH, temperature=0.07, seed=seed)


def run(
    data: MemoryImages,
    path: Path,
    config: TrainConfig = CONFIG,
    *,
    seed: int = 0,
    key: str = "key",
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[MetaClip2Model, Progress]:
    made = model()
    return made, train(made, data, config, seed=seed, key=key, checkpoints=path, progress=progress)


def same(one: MetaClip2Model, other: MetaClip2Model) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def whole(data: MemoryImages, tmp_path_factory: pytest.TempPathFactory) -> tuple[MetaClip2Model, Progress]:
    return run(data, tmp_path_factory.mktemp("whole") / "c")


class Killed(BaseException):
    """What stops a run in these tests: nothing in the package can catch it by mistake."""


@pytest.mark.parametrize("stops", [(1,), (2, 3, 4), (7, 19), (20,)])
@pytest.mark.parametrize("every", [0.0, 1e9], ids=["each step", "never"])
def test_a_resumed_run_ends_with_the_same_weights(
    data: MemoryImages, whole: tuple[MetaClip2Model, Progress], tmp_path: Path, stops: tuple[int, ...], every: float
) -> None:
    config = replace(CONFIG, checkpoint_seconds=every)
    for stop in stops:

        def kill(step: int, _steps: int, _loss: float, stop: int = stop) -> None:
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            run(data, tmp_path / "c", config, progress=kill)
        # The step of a killed run is not in its checkpoint: it is done again.
        assert any((tmp_path / "c").glob("step-*")) == (every == 0 and stop > 1)
    found, progress = run(data, tmp_path / "c", config)
    assert same(found, whole[0])
    assert (progress.step, progress.losses) == (20, whole[1].losses)


def test_a_finished_run_is_not_trained_again(data: MemoryImages, tmp_path: Path) -> None:
    first, _ = run(data, tmp_path / "c")
    steps: list[int] = []
    again, progress = run(data, tmp_path / "c", progress=lambda step, *_: steps.append(step))
    assert same(first, again)
    assert (steps, progress.step) == ([], 20)


def test_the_same_seed_gives_the_same_weights(
    data: MemoryImages, whole: tuple[MetaClip2Model, Progress], tmp_path: Path
) -> None:
    torch.manual_seed(123)  # whatever the global state
    np.random.seed(5)
    assert same(run(data, tmp_path / "c")[0], whole[0])
    assert not same(run(data, tmp_path / "d", seed=1)[0], whole[0])


def test_another_runs_checkpoint_is_not_gone_on_with(
    data: MemoryImages, whole: tuple[MetaClip2Model, Progress], tmp_path: Path
) -> None:
    run(data, tmp_path / "c", key="other", seed=4)
    assert same(run(data, tmp_path / "c")[0], whole[0])


def test_a_broken_checkpoint_is_named(data: MemoryImages, tmp_path: Path) -> None:
    run(data, tmp_path / "c")
    (tmp_path / "c/step-00000020/whole.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"step-00000020: is not a readable checkpoint"):
        run(data, tmp_path / "c")


def test_progress_is_told_step_by_step(data: MemoryImages, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    trained, progress = run(data, tmp_path / "c", progress=lambda *now: told.append(now))
    assert [(step, steps) for step, steps, _ in told] == [(step, 20) for step in range(1, 21)]
    assert progress.losses == [[16.0 * step, loss] for step, _, loss in told]
    assert progress.pending == []
    assert not trained.training


def test_a_long_run_has_a_curve_of_about_a_hundred_points(data: MemoryImages, tmp_path: Path) -> None:
    config = replace(CONFIG, batch_size=4, seen_pairs=4 * 230, checkpoint_seconds=1e9)
    told: list[float] = []
    _, progress = run(data, tmp_path / "c", config, progress=lambda _step, _steps, loss: told.append(loss))
    assert LOSS_POINTS <= len(progress.losses) <= 1.2 * LOSS_POINTS
    assert progress.losses[0] == [8.0, pytest.approx(np.mean(told[:2]))]
    assert progress.losses[-1][0] == config.seen_pairs


@pytest.mark.parametrize(
    ("batch", "texts", "seen", "steps"), [(16, 2, 320, 20), (16, 3, 150, 10), (2, 8, 8, 1), (4, 1, 1, 1)]
)
def test_seen_pairs_count_every_text(
    data: MemoryImages, tmp_path: Path, batch: int, texts: int, seen: int, steps: int
) -> None:
    config = replace(CONFIG, batch_size=batch, texts_per_image=texts, seen_pairs=seen)
    _, progress = run(data, tmp_path / "c", config)
    assert progress.step == steps
    assert progress.losses[-1][0] == steps * texts * max(1, batch // texts)


def test_the_loss_falls_and_images_find_their_texts(data: MemoryImages, tmp_path: Path) -> None:
    config = replace(CONFIG, batch_size=64, seen_pairs=64 * 80, color_jitter=0.0, checkpoint_seconds=1e9)
    told: list[float] = []
    run(data, tmp_path / "c", config, progress=lambda _step, _steps, loss: told.append(loss))
    assert np.mean(told[:3]) > 3
    assert np.mean(told[-10:]) < 0.7 * np.mean(told[:3])


def test_bf16_is_near_fp32(data: MemoryImages, whole: tuple[MetaClip2Model, Progress], tmp_path: Path) -> None:
    _, progress = run(data, tmp_path / "c", replace(CONFIG, precision="bf16"))
    assert progress.losses != whole[1].losses
    assert progress.losses[0][1] == pytest.approx(whole[1].losses[0][1], rel=0.05)


def test_fp16_that_overflows_leaves_steps_out_and_halves_its_scale(
    data: MemoryImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "FIRST_LOSS_SCALE", 2.0**40)
    trained, progress = run(data, tmp_path / "c", replace(CONFIG, precision="fp16", seen_pairs=60 * 16))
    assert 1 < progress.loss_scale < 2.0**40
    assert progress.bad_steps == 0
    assert all(torch.isfinite(value).all() for value in trained.state_dict().values())
    told = [loss for _, loss in progress.losses]
    assert np.mean(told[-5:]) < 0.9 * np.mean(told[:5])  # and those that were not left out have taught it


def test_automatic_precision_is_one_of_the_two(data: MemoryImages, tmp_path: Path) -> None:
    assert hardware_precision() in ("bf16", "fp32")
    one = run(data, tmp_path / "a", replace(CONFIG, precision="auto"))[0]
    assert same(one, run(data, tmp_path / "b", replace(CONFIG, precision=hardware_precision()))[0])  # type: ignore[arg-type]


def test_a_text_is_a_positive_of_every_image_that_has_it() -> None:
    # Images 0 and 1 share text 7, images 1 and 2 share text 8.
    texts = [[7, 3], [8, 7], [8], [9, 9]]
    data = MemoryImages(
        pixels=np.zeros((4, 8, 8, 3), np.uint8),
        candidates=Candidates(
            keys=id_keys("abcd"),
            offsets=np.cumsum([0, *map(len, texts)]),
            keep_probability=np.ones(sum(map(len, texts))),
        ),
        token_ids=np.zeros((10, LENGTH), np.int32),
        text_of_candidate=np.array([text for own in texts for text in own]),
    )
    for batch in batches(data, images=3, texts_per_image=2, seed=0, start=0, steps=20):
        rows = data.text_of_candidate[batch.texts]
        expected = [[[text in texts[image] for text in row] for image in batch.images] for row in rows.tolist()]
        assert batch.positives().tolist() == expected


def test_shared_texts_can_be_positives(
    data: MemoryImages, whole: tuple[MetaClip2Model, Progress], tmp_path: Path
) -> None:
    # Here no two images share a text: the same targets, so the same losses but for the order of sums.
    config = replace(CONFIG, shared_texts="positives")
    _, progress = run(data, tmp_path / "a", config)
    np.testing.assert_allclose(progress.losses, whole[1].losses, rtol=1e-3)
    # Where all images have the same texts there is nothing to be learned, and nothing to be punished for.
    same_texts = replace(data, text_of_candidate=np.tile(data.text_of_candidate[:TEXTS], IMAGES))
    _, progress = run(same_texts, tmp_path / "b", replace(config, texts_per_image=1))
    assert progress.losses[-1][1] == pytest.approx(np.log(16), rel=0.05)


def test_the_logit_scale_is_clamped(data: MemoryImages, tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        made.logit_scale.fill_(9.0)
    train(made, data, replace(CONFIG, seen_pairs=16), seed=0, key="k", checkpoints=tmp_path / "c")
    assert made.logit_scale.exp().item() == pytest.approx(100)


def test_a_loss_that_is_never_finite_ends_the_run_before_its_checkpoint(data: MemoryImages, tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        made.text_projection.weight.fill_(float("nan"))
    with pytest.raises(WorldclipError, match=r"not finite 10 steps in a row, until step 10 of 20.*\(now 0\.01\)"):
        train(made, data, CONFIG, seed=0, key="k", checkpoints=tmp_path / "c")
    assert not any((tmp_path / "c").glob("step-*"))


@pytest.fixture
def bad_losses(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], list[int]]:
    """Makes the losses of some calls of the step's loss not a number; tells the batches' first images."""

    def make(bad: set[int]) -> list[int]:
        seen: list[int] = []
        plain = Trainer.loss

        def loss(self: Trainer, loaded: Loaded, *features: torch.Tensor) -> torch.Tensor:
            seen.append(int(loaded.batch.images[0]))
            return plain(self, loaded, *features) * (float("nan") if len(seen) in bad else 1.0)

        monkeypatch.setattr(Trainer, "loss", loss)
        return seen

    return make


def test_a_loss_that_is_not_finite_is_left_out_and_counted(
    data: MemoryImages, tmp_path: Path, bad_losses: Callable[[set[int]], list[int]]
) -> None:
    bad_losses({4, 5, 9})
    trained, progress = run(data, tmp_path / "c")
    assert (progress.step, progress.bad_steps, progress.rollbacks) == (20, 3, 0)
    assert all(np.isfinite(loss) for _, loss in progress.losses)
    assert len(progress.losses) == 17
    assert all(torch.isfinite(value).all() for value in trained.state_dict().values())


def test_after_too_many_bad_steps_the_run_goes_back_and_leaves_the_bad_batches_behind(
    data: MemoryImages, tmp_path: Path, bad_losses: Callable[[set[int]], list[int]]
) -> None:
    seen = bad_losses({8, 9, 10})
    steps: list[int] = []
    config = replace(CONFIG, max_bad_steps=3)
    _, progress = run(data, tmp_path / "c", config, progress=lambda step, *_: steps.append(step))
    # Seven good steps, of which the last is in a checkpoint; three bad ones; again from there with the samples after.
    assert steps == [*range(1, 11), *range(8, 21)]
    assert (progress.step, progress.bad_steps, progress.rollbacks) == (20, 3, 1)
    first = [int(batch.images[0]) for batch in batches(data, images=8, texts_per_image=2, seed=0, start=0, steps=23)]
    assert seen == first


def test_a_run_does_not_go_back_for_ever(
    data: MemoryImages, tmp_path: Path, bad_losses: Callable[[set[int]], list[int]]
) -> None:
    bad_losses(set(range(6, 100)))
    with pytest.raises(WorldclipError, match="not finite 2 steps in a row, until step 7 of 20, after 3 returns"):
        run(data, tmp_path / "c", replace(CONFIG, max_bad_steps=2))


def test_figures_are_written_for_tensorboard(
    data: MemoryImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, progress = run(data, tmp_path / "c", replace(CONFIG, log="tensorboard"))
    told: dict[str, list[tuple[int, float]]] = {}
    for path in tmp_path.glob("events.out.tfevents.*"):
        records, at = path.read_bytes(), 0
        while at < len(records):  # length, its checksum, an event, its checksum
            size = int.from_bytes(records[at : at + 8], "little")
            event = Event.FromString(records[at + 12 : at + 12 + size])
            for value in event.summary.value:
                told.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += size + 16
    assert set(told) >= {"loss", "learning_rate", "gradient_norm", "logit_scale"}
    assert [step for step, _ in told["loss"]] == list(range(1, 21))
    assert told["loss"][0][1] == pytest.approx(progress.losses[0][1], rel=1e-6)
    assert "illegal" not in caplog.text
