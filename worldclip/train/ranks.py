"""The processes of one training run, as torchrun starts them: who this one is, and the few exchanges between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `size`; alone by default. All exchanges do nothing where there is one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """[n, ...] of each rank -> [size * n, ...] of all, in the order of ranks."""
        if self.size == 1:
            return part
        whole = part.new_empty((self.size * len(part), *part.shape[1:]))
        distributed.all_gather_single(whole, part.contiguous())
        return whole

    def scatter_sum(self, whole: torch.Tensor) -> torch.Tensor:
        """[size * n, ...] of each rank -> this rank's [n, ...] of their sum: the backward of `gather`."""
        if self.size == 1:
            return whole
        part = whole.new_empty((len(whole) // self.size, *whole.shape[1:]))
        distributed.reduce_scatter_single(part, whole.contiguous())
        return part

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up the values of all ranks, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, value: Value | None) -> Value:
        """The value that rank 0 gives, on every rank."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather_objects(self, value: Value) -> list[Value]:
        """The small values of all ranks, on every rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def started() -> Iterator[Ranks]:
    """The ranks that torchrun's environment tells of, for as long as they are needed; one where there is none.

    NCCL with a GPU a process, gloo otherwise.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size == 1:
        yield Ranks(device=device)
        return
    # gloo beside NCCL: checkpoints are written while training goes on, and their exchange is on the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    try:
        yield Ranks(rank=distributed.get_rank(), size=size, device=device)
    finally:
        distributed.destroy_process_group()
