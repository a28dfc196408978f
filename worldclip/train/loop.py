"""The training loop (paper, section 3.3): from where a run is to its last step. Resumes at any step, bit for bit.

What a step does is in `trainer.py`; here batches are drawn, checkpoints written, bad steps counted, and several models
led along the same batches.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.errors import DataError, WorldclipError
from worldclip.loader.batches import Cursor
from worldclip.loader.parts import Loaded, Loader, Part
from worldclip.loader.workers import deaths_told
from worldclip.train.checkpoint import Checkpoints, Progress
from worldclip.train.distill import Teacher
from worldclip.train.log import Log
from worldclip.train.ranks import Ranks
from worldclip.train.trainer import Seen, Trainer

LOSS_POINTS = 100  #: points of a run's loss curve
ROLLBACKS = 3  #: times that a run goes back to its checkpoint before it gives up
GROWTH_STEPS = 2000  #: good steps after which the loss scale of fp16 is doubled; an overflow halves it
MIN_JUDGED = 1000  #: images that must have been asked for before the share of unreadable ones is judged

#: Given what encodes pixels and ids, the figures of a validation.
Validation = Callable[[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model to be trained, and what is its own where several are trained together."""

    model: MetaClip2Model  #: trained in place; with frozen parameters, the others
    key: str  #: names recipe and data; a checkpoint with another key is not resumed
    checkpoints: Path  #: folder, written to every `checkpoint_seconds`, and read if there is one
    validate: Validation | None = None  #: called every `validate_steps` steps on every rank; its figures are logged
    progress: Callable[[int, int, float], None] | None = None  #: after each step, on rank 0: steps done, in all, loss


class _Course:
    """A run's way from where it is to its last step."""

    def __init__(self, trainer: Trainer, part: Part, student: Student) -> None:
        self.trainer, self.part, self.student = trainer, part, student
        self.config, self.ranks, self.steps = trainer.config, trainer.ranks, trainer.steps
        self.log = Log(self.config.log if self.ranks.rank == 0 else "none", student.checkpoints.parent)
        self.checkpoints = Checkpoints(student.checkpoints, self.config, self.ranks)
        self.stop = False  #: whether SIGTERM was received: a cluster's way to ask for the machine
        self.stopped = False  #: whether all ranks have agreed to stop
        self.bad_in_row = 0
        self.done = self.checkpoints.load(trainer.state(), student.key)
        self.done.loss_scale = self.done.loss_scale or trainer.first_loss_scale
        self.saved = time.monotonic()

    @property
    def place(self) -> tuple[int, Cursor]:
        """Which batch comes next."""
        return self.done.step, self.done.cursor

    def go_on(self) -> None:
        """Its clock runs from here."""
        self.began = time.monotonic() - self.done.seconds

    def step(self, loaded: Loaded, seen: Seen) -> None:
        """One step and what follows from it."""
        done = self.done
        rate = self.trainer.set_learning_rate(done.step)
        loss, norm = self.trainer.step(loaded, self.part, done.loss_scale, seen)
        self._judge(loss, norm)
        done.step += 1
        done.cursor = loaded.batch.after
        done.seconds = time.monotonic() - self.began
        pairs = self.part.images * self.part.texts_per_image
        every = max(1, self.steps // LOSS_POINTS)
        if done.pending and (done.step % every == 0 or done.step == self.steps):
            done.losses.append([done.step * pairs, float(np.mean(done.pending))])
            done.pending = []
        self.log.add(
            done.step,
            {
                "loss": loss,
                "gradient norm": norm,
                "learning rate": rate,
                "logit scale": float(self.trainer.model.logit_scale.exp()),
                "pairs a second": done.step * pairs / done.seconds,
                "bad steps": done.bad_steps,
                "images set aside": sum(done.set_aside.values()),
            },
        )
        if self.student.validate and self.config.validate_steps and done.step % self.config.validate_steps == 0:
            figures = self.student.validate(self.trainer.encode)
            done.validation.append({"step": done.step, **figures})
            self.log.add(done.step, {f"validation {name}": value for name, value in figures.items()})
        if self.student.progress and self.ranks.rank == 0:
            self.student.progress(done.step, self.steps, loss)
        self._agree(loaded)

    def _judge(self, loss: float, norm: float) -> None:
        """Count what is not finite; fp16's scale follows its overflows."""
        done = self.done
        done.good_steps += 1
        if math.isfinite(loss) and math.isfinite(norm):
            self.bad_in_row = 0
            done.pending.append(loss)
            if self.trainer.first_loss_scale > 1 and done.good_steps >= GROWTH_STEPS:
                done.loss_scale, done.good_steps = done.loss_scale * 2, 0
        elif math.isfinite(loss) and done.loss_scale > 1:
            done.loss_scale, done.good_steps = done.loss_scale / 2, 0
        else:
            self.bad_in_row += 1
            done.bad_steps += 1

    def rolled_back(self) -> bool:
        """After too many bad steps: weights and optimiser as at the last checkpoint; samples go on behind the bad."""
        before = self.done
        if self.bad_in_row < self.config.max_bad_steps:
            return False
        if before.rollbacks < ROLLBACKS:
            self.done = self.checkpoints.load(self.trainer.state(), self.student.key)
        if self.done is before or self.done.step == 0:
            raise WorldclipError(
                f"The loss was not finite {self.bad_in_row} steps in a row, until step {before.step} of {self.steps}, "
                f"after {before.rollbacks} returns to a checkpoint. Lower train.lr (now {self.config.lr}) or set "
                "train.precision=fp32, and run again: it resumes from the last checkpoint."
            )
        self.bad_in_row = 0
        self.done.cursor, self.done.seconds = before.cursor, before.seconds
        self.done.bad_steps, self.done.rollbacks = before.bad_steps, before.rollbacks + 1
        self.done.images, self.done.set_aside = before.images, before.set_aside
        return True

    def _agree(self, loaded: Loaded) -> None:
        """What no rank may do alone: count images that could not be read, write checkpoints, stop."""
        done, due = self.done, time.monotonic() - self.saved > self.config.checkpoint_seconds
        flags = [sum(loaded.set_aside.values()), self.stop, due and self.ranks.rank == 0, self.checkpoints.written]
        aside, stop, save, written = self.ranks.sum(torch.tensor(flags, dtype=torch.int64)).tolist()
        done.images += self.part.images
        if aside:
            for reasons in self.ranks.gather_objects(dict(loaded.set_aside)):
                done.set_aside = dict(Counter(done.set_aside) + Counter(reasons))
            self._check_set_aside()
        if written == self.ranks.size:
            self.checkpoints.wait()
        if not self.bad_in_row and (save or stop or done.step == self.steps):
            self.checkpoints.save(self.trainer.state(), done)
            self.saved = time.monotonic()
        self.stopped = bool(stop) and done.step < self.steps

    def _check_set_aside(self) -> None:
        done, count = self.done, sum(self.done.set_aside.values())
        if done.images >= MIN_JUDGED and count > self.config.max_set_aside * done.images:
            told = "; ".join(f"{number} {reason}" for reason, number in sorted(done.set_aside.items())[:10])
            raise DataError(
                f"{count} of {done.images} images could not be read: {told}. Mend the shards, or raise "
                f"train.max_set_aside (now {self.config.max_set_aside})."
            )


def _together(courses: Sequence[_Course], loader: Loader, part: Part) -> None:
    """Until the last step of each: those that are at one place take the same batches and see the same.

    A roll-back begins the loader anew, behind the batches that were bad. After one, or a kill, courses may be apart:
    those behind go on alone until they meet the others.
    """
    while waiting := [course for course in courses if course.done.step < course.steps]:
        first = min(waiting, key=lambda course: course.done.step)
        together = [course for course in waiting if course.place == first.place]
        until = min([each.done.step for each in waiting if each.done.step > first.done.step], default=first.steps)
        for course in together:
            course.go_on()
        for loaded in loader.load(part, start=first.done.step, steps=until, cursor=first.done.cursor):
            seen = first.trainer.seen(loaded, part)
            for course in together:
                course.step(loaded, seen)
            if any(course.stopped for course in together):
                for course in courses:
                    course.checkpoints.wait()
                raise SystemExit(128 + signal.SIGTERM)
            if sum(course.rolled_back() for course in together):  # each is asked
                break
    for course in courses:
        course.checkpoints.wait()


@contextmanager
def _stopped_by_sigterm(courses: Sequence[_Course]) -> Iterator[None]:
    """SIGTERM ends the run after the step that it is in."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: Any) -> None:
        for course in courses:
            course.stop = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def train(
    model: MetaClip2Model,
    loader: Loader,
    config: TrainConfig,
    *,
    seed: int,
    key: str,
    checkpoints: Path,
    ranks: Ranks | None = None,
    teacher: Teacher | None = None,
    validate: Validation | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Progress:
    """Train one model; see `Student` and `train_students`."""
    student = Student(model=model, key=key, checkpoints=checkpoints, validate=validate, progress=progress)
    return train_students([student], loader, config, seed=seed, ranks=ranks, teacher=teacher)[0]


def train_students(
    students: Sequence[Student],
    loader: Loader,
    config: TrainConfig,
    *,
    seed: int,
    ranks: Ranks | None = None,
    teacher: Teacher | None = None,
) -> list[Progress]:
    """Train models in place for `config.seen_pairs` pairs each, all on the same batches.

    Each is trained as it would be alone: images are loaded and the teacher looks at them once a step for all. Only if a
    student's pictures are larger than the teacher's, the others get theirs by way of that size.

    Args:
        students: their models are from random weights, or from checkpoints to be tuned; the same on every rank.
        ranks: the processes that train together; None: this one alone.
        teacher: whose similarities are learned too; None: the contrastive loss alone.

    Raises:
        WorldclipError: a loss is not finite again and again; a process that decodes images died.
        DataError: too many images cannot be read, or a checkpoint cannot.
        SystemExit: SIGTERM was received; the state is saved.
    """
    ranks = ranks or Ranks()
    torch.set_num_threads(config.threads)
    images_per_step = max(1, config.batch_size // config.texts_per_image)
    pairs_per_step = images_per_step * config.texts_per_image
    steps = max(1, round(config.seen_pairs / pairs_per_step))
    sizes = [student.model.config.vision_config.image_size for student in students]
    part = Part(
        images=images_per_step,
        texts_per_image=config.texts_per_image,
        size=max(*sizes, teacher.size if teacher else 0),
        crop_scale=config.crop_scale,
        seed=seed,
        rank=ranks.rank,
        ranks=ranks.size,
        pieces=config.accumulate,
    )
    courses = [
        _Course(Trainer(student.model, config, ranks, seed=seed, steps=steps, teacher=teacher), part, student)
        for student in students
    ]
    try:
        with _stopped_by_sigterm(courses), deaths_told(ranks.rank):
            _together(courses, loader, part)
    finally:
        for course in courses:
            course.log.close()
    for course in courses:
        course.trainer.finish()
    return [course.done for course in courses]
