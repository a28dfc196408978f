"""One step of training (paper, section 3.3), in one process and many (torchrun; DDP or FSDP2).

    features of this rank's images and texts, piece by piece (`Trainer.step`)
    the features of all ranks, and the loss of this rank's part of them (`Trainer.loss`)
    its gradient, back through the towers, piece by piece
    clip, step, clamp

Since the loss sees gathered features that are cut from the towers, it may be any function of them, and neither ranks
nor pieces change it (GradCache: pieces are encoded twice, once to know all features and once for their gradients).
"""

from __future__ import annotations

import math

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import MetaClip2Model

from worldclip.config import TrainConfig
from worldclip.loader.images import jitter, normalize, step_generator
from worldclip.loader.parts import Loaded, Part
from worldclip.model.features import text_lengths
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.train.distill import Teacher, distillation_loss, fitted
from worldclip.train.embedding import LazyEmbedding
from worldclip.train.loss import clip_loss
from worldclip.train.optim import MAX_LOGIT_SCALE, build_optimizers, gradient_norm, hardware_precision, learning_rate
from worldclip.train.ranks import Ranks
from worldclip.train.towers import syncing, wrap

FEW_TOKENS = 64  #: up to which plain attention is faster on a CPU than the fused one
FIRST_LOSS_SCALE = 65536.0  #: of fp16

#: Normalised pixels [n, 3, size, size], and the teacher's features of images [n, e] and texts [k, n, e], if there is a
#: teacher.
Seen = tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]


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
