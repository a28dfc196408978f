"""The training loop (paper, section 3.3): draw pairs, contrast, step. Resumes at any step, bit for bit.

The same loop serves one process and many (torchrun; DDP or FSDP2). A step is:

    features of this rank's images and texts, piece by piece (`Trainer.features`)
    the features of all ranks, and the loss of this rank's part of them (`Trainer.loss`)
    its gradient, back through the towers, piece by piece
    clip, step, clamp

Since the loss sees gathered features that are cut from the towers, it may be any function of them, and neither ranks
nor pieces change it (GradCache: pieces are encoded twice, once to know all features and once for their gradients).
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
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.errors import DataError, WorldclipError
from worldclip.loader.batches import Cursor
from worldclip.loader.images import jitter, normalize, step_generator
from worldclip.loader.parts import Loaded, Loader, Part
from worldclip.loader.workers import deaths_told
from worldclip.model.features import text_lengths
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.train.checkpoint import Checkpoints, Progress
from worldclip.train.distill import Teacher, distillation_loss, fitted
from worldclip.train.embedding import LazyEmbedding
from worldclip.train.log import Log
from worldclip.train.loss import clip_loss
from worldclip.train.optim import MAX_LOGIT_SCALE, build_optimizers, gradient_norm, hardware_precision, learning_rate
from worldclip.train.ranks import Ranks
from worldclip.train.towers import syncing, wrap

LOSS_POINTS = 100  #: points of a run's loss curve
FEW_TOKENS = 64  #: up to which plain attention is faster on a CPU than the fused one
ROLLBACKS = 3  #: times that a run goes back to its checkpoint before it gives up
FIRST_LOSS_SCALE, GROWTH_STEPS = 65536.0, 2000  #: of fp16: halved on overflow, doubled after so many good steps
MIN_JUDGED = 1000  #: images that must have been asked for before the share of unreadable ones is judged

#: Given what encodes pixels and ids, the figures of a validation.
Validation = Callable[[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]], dict[str, float]]

#: Normalised pixels [n, 3, size, size], and the teacher's features of images [n, e] and texts [k, n, e], if there is a
#: teacher.
Seen = tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model to be trained, and what is its own where several are trained together."""

    model: MetaClip2Model  #: trained in place; with frozen parameters, the others
    key: str  #: names recipe and data; a checkpoint with another key is not resumed
    checkpoints: Path  #: folder, written to every `checkpoint_seconds`, and read if there is one
    validate: Validation | None = None  #: called every `validate_steps` steps on every rank; its figures are logged
    progress: Callable[[int, int, float], None] | None = None  #: after each step, on rank 0: steps done, in all, loss


class Trainer:
    """A model with its optimiser state, and one step of it."""

    def __init__(
        self,
        model: MetaClip2Model,
        config: TrainConfig,
        ranks: Ranks,
        *,
        seed: int,
        steps: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.teacher = teacher
        self.model, self.config, self.ranks, self.seed, self.steps = model, config, ranks, seed, steps
        precision = hardware_precision() if config.precision == "auto" else config.precision
        self._half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.first_loss_scale = FIRST_LOSS_SCALE if precision == "fp16" else 1.0
        # On a CPU the fused attention is slower with few tokens, and in bf16 with any.
        tokens = {
            "vision_config": model.vision_model.embeddings.num_positions,
            "text_config": config.text_tokens,
        }
        plain = {part for part, count in tokens.items() if self._half or count <= FEW_TOKENS}
        model.set_attn_implementation(
            {part: "eager" if part in plain and ranks.device.type == "cpu" else "sdpa" for part in tokens}
        )
        model.to(ranks.device).train()
        embedding = model.text_model.embeddings.token_embedding.weight
        self.embedding: LazyEmbedding | None = None
        if embedding.requires_grad:
            self.embedding = LazyEmbedding(
                embedding,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                steps=steps,
            )
        model.logit_scale.requires_grad_(False)  # Its gradient and the embedding's are made here, rank by rank.
        self.towers = wrap(model, config, ranks)
        self._optimizers = build_optimizers(model, config)

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that a checkpoint holds, by name: those that are trained, not copies."""
        state = {f"model.{name}": value for name, value in self.model.state_dict(keep_vars=True).items()}
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self._optimizers:
            for parameter, values in optimizer.state.items():
                state |= {f"optimizer.{names[parameter]}.{part}": value for part, value in values.items()}
        if self.embedding is not None:
            state |= {f"embedding.{name}": value for name, value in self.embedding.state().items()}
        return {name: value.detach() for name, value in state.items()}

    def loss(
        self,
        loaded: Loaded,
        images: torch.Tensor,
        texts: torch.Tensor,
        valid: torch.Tensor | None,
        taught: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """This rank's part of the loss of a step; over all ranks the parts add up to it.

        Args:
            loaded: this rank's part of the batch.
            images: [n, d], L2-normalised, of the whole batch and asking for gradients.
            texts: [k, n, d], likewise.
            valid: bool [n], or None: which of them are any.
            taught: the teacher's images [n, e] and texts [k, n, e], if there is one.
        """
        length = len(images) // self.ranks.size
        positives = None
        if self.config.shared_texts == "positives":
            known = torch.from_numpy(loaded.batch.positives())
            positives = torch.zeros(len(texts), len(images), len(images), dtype=torch.bool)
            positives[:, : known.shape[1], : known.shape[2]] = known
            positives = positives.to(images.device)
        own = slice(self.ranks.rank * length, (self.ranks.rank + 1) * length)
        loss = clip_loss(images, texts, self._scale, positives, own=own, valid=valid)
        if self.teacher is None or taught is None:
            return loss
        return loss + self.config.distill * distillation_loss(
            (images, texts), taught, self.teacher.scale, own=own, valid=valid
        )

    def seen(self, loaded: Loaded, part: Part) -> Seen:
        """What every student of a step sees: the pixels on the device, and the teacher's features of all ranks."""
        pixels = self._prepared(loaded, part)
        if self.teacher is None:
            return pixels, None
        return pixels, _apart(self.ranks.gather(self.teacher.features(loaded, part, pixels)), len(loaded.ids))

    def step(self, loaded: Loaded, part: Part, loss_scale: float, seen: Seen | None = None) -> tuple[float, float]:
        """One step; where its loss or gradient is not finite, no parameter is changed.

        Returns:
            the loss, and the norm of its whole gradient before clipping.
        """
        ranks, device = self.ranks, self.ranks.device
        ids = loaded.ids.to(device)
        pixels, taught = seen or self.seen(loaded, part)
        pixels = fitted(pixels, self.model.config.vision_config.image_size)
        rows, local = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        lengths = text_lengths(self.model, ids)
        table = self.model.text_model.embeddings.token_embedding.weight
        vectors = (table.detach()[rows] if self.embedding is None else self.embedding.catch_up(rows)).requires_grad_(
            self.embedding is not None
        )
        pieces = [
            (*piece, vectors)
            for piece in zip(
                pixels.chunk(part.pieces),
                local.chunk(part.pieces, dim=1),
                lengths.chunk(part.pieces, dim=1),
                strict=True,
            )
        ]

        with torch.set_grad_enabled(len(pieces) == 1), syncing(self.towers, last=True):
            encoded = [self._encode(*piece) for piece in pieces]
        whole = ranks.gather(torch.cat([each.detach() for each in encoded])).requires_grad_()
        valid = None if loaded.valid is None else ranks.gather(loaded.valid.to(device))
        self._scale = self.model.logit_scale.detach().exp().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(loaded, *_apart(whole, len(ids)), valid, taught)
            (loss * loss_scale).backward()  # type: ignore[no-untyped-call]

        # DDP and FSDP divide by the number of ranks what is to be added up.
        gradient = ranks.scatter_sum(_gradient(whole)) * ranks.size
        for at, (piece, upstream) in enumerate(zip(pieces, gradient.chunk(len(pieces)), strict=True)):
            with syncing(self.towers, last=at + 1 == len(pieces)):
                features = encoded[at] if len(pieces) == 1 else self._encode(*piece)
                features.backward(upstream)  # type: ignore[no-untyped-call]
        self.model.logit_scale.grad = ranks.sum(_gradient(self._scale)) * self._scale.detach()
        rows, row_gradient = self._gathered_rows(ids, rows, vectors)
        total = ranks.sum(loss.detach().clone()).item()
        return total, self._update(rows, row_gradient, loss_scale, finite=math.isfinite(total))

    def _prepared(self, loaded: Loaded, part: Part) -> torch.Tensor:
        """Pixels on the device as the image tower takes them."""
        pixels = loaded.pixels.to(self.ranks.device, non_blocking=True)
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        places, _ = part.rows()
        of = (part.images, torch.from_numpy(places))
        generator = step_generator(self.seed, loaded.batch.step, stream=1)
        return normalize(jitter(pixels, self.config.color_jitter, generator=generator, of=of), IMAGE_MEAN, IMAGE_STD)

    def _encode(
        self, pixels: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        with torch.autocast(self.ranks.device.type, dtype=self._half, enabled=self._half is not None):
            return self.towers(pixels, ids, lengths, vectors)  # type: ignore[no-any-return]

    def _gathered_rows(
        self, ids: torch.Tensor, rows: torch.Tensor, vectors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The embedding's rows that any rank's texts hold, and their gradient: only these rows are exchanged."""
        if self.embedding is None or self.ranks.size == 1:
            return rows, vectors.grad
        union = self.ranks.gather(ids.transpose(0, 1)).unique()  # type: ignore[no-untyped-call]
        gradient = vectors.new_zeros(len(union), vectors.shape[1])
        gradient[torch.searchsorted(union, rows)] = _gradient(vectors)
        self.embedding.catch_up(union)
        return union, self.ranks.sum(gradient) / self.ranks.size

    def _update(
        self, rows: torch.Tensor, row_gradient: torch.Tensor | None, loss_scale: float, *, finite: bool
    ) -> float:
        """Unscale and clip the gradients and step the optimisers, if all is finite; the gradients' norm."""
        parameters = [
            each for optimizer in self._optimizers for group in optimizer.param_groups for each in group["params"]
        ]
        gradients = [each.grad for each in parameters if each.grad is not None]
        gradients += [] if row_gradient is None else [row_gradient]
        norm = gradient_norm(gradients).item() / loss_scale
        if finite and math.isfinite(norm):
            factor = min(1.0, self.config.clip_norm / (norm + 1e-6)) / loss_scale
            for gradient in gradients if factor != 1 else ():
                gradient.mul_(factor)
            for optimizer in self._optimizers:
                optimizer.step()
            if self.embedding is not None and row_gradient is not None:
                self.embedding.step(rows, row_gradient, self._optimizers[0].param_groups[0]["lr"])
            self.model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        for parameter in parameters:
            parameter.grad = None
        return norm

    def set_learning_rate(self, step: int) -> float:
        """Of the step that comes."""
        rate = learning_rate(step, self.steps, self.config)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Features as the model is now, changing nothing; every rank calls it.

        Args:
            pixels: uint8 [n, 3, size, size].
            ids: int64 [k, n, length].

        Returns:
            float32 [n, (1 + k) * d], see `Towers`.
        """
        ids = ids.to(self.ranks.device)
        rows, local = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        weight = self.model.text_model.embeddings.token_embedding.weight
        vectors = weight[rows] if self.embedding is None else self.embedding.current(rows)
        features = self._encode(
            normalize(pixels.to(self.ranks.device).float() / 255, IMAGE_MEAN, IMAGE_STD),
            local,
            text_lengths(self.model, ids),
            vectors,
        )
        if isinstance(self.towers, FSDPModule):
            self.towers.reshard()
        return features

    def finish(self) -> None:
        """Bring every row of the embedding up to date and give the model back as it came, whole on every rank."""
        if self.embedding is not None:
            self.embedding.flush()
            self.embedding.weight.requires_grad_(True)
        self.model.logit_scale.requires_grad_(True)
        if isinstance(self.towers, FSDPModule):
            whole = type(self.model)(self.model.config).to(self.ranks.device)
            state = self.model.state_dict()
            whole.load_state_dict(
                {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in state.items()}
            )
            for name, child in whole.named_children():
                setattr(self.model, name, child)
            self.model.logit_scale = whole.logit_scale
        self.model.eval()


def _apart(features: torch.Tensor, sets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [n, (1 + k) * d] as those of images [n, d] and of texts [k, n, d]."""
    images, *texts = features.chunk(1 + sets, dim=1)
    return images, torch.stack(texts)


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad


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
