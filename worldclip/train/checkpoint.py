"""Everything that a run needs to go on as if it had never stopped, written while it goes on.

    <folder>/step-00000120/*.safetensors   weights and optimiser state, each rank its part
    <folder>/step-00000120/progress.json   where the run was

A checkpoint is written under a temporary name and renamed when every rank's part is on the disk, so what has a final
name is whole. Any number of ranks reads it.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from worldclip.config import TrainConfig
from worldclip.errors import DataError, StorageError, WorldclipError
from worldclip.loader.batches import Cursor
from worldclip.storage import TEMPORARY, read_json, sweep, write_json
from worldclip.train.ranks import Ranks

PROGRESS = "progress.json"


@dataclass(kw_only=True)
class Progress:
    """Where a run is. `key` names the run: a checkpoint of another recipe or other data is refused."""

    key: str
    step: int = 0  #: steps done
    cursor: Cursor = field(default_factory=Cursor)  #: where the next step's samples begin
    seconds: float = 0.0  #: spent training, over all resumptions
    losses: list[list[float]] = field(default_factory=list)  #: [seen pairs, mean loss since the one before]
    pending: list[float] = field(default_factory=list)  #: losses of the steps since
    validation: list[dict[str, float]] = field(default_factory=list)  #: figures of each validation, with its step
    bad_steps: int = 0  #: steps left out because loss or gradient was not finite
    rollbacks: int = 0  #: times the run went back to a checkpoint after too many of them
    loss_scale: float = 0.0  #: of fp16; 0: not yet chosen
    good_steps: int = 0  #: since the loss scale was changed
    images: int = 0  #: images asked of the loader
    set_aside: dict[str, int] = field(default_factory=dict)  #: those that could not be read, by reason


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, config: TrainConfig, ranks: Ranks) -> None:
        self._folder, self._config, self._ranks = folder, config, ranks
        self._writing: tuple[Future[Any], Path] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        # Ranks that write speak with each other while they train: each must have its own line.
        self._group = distributed.new_group(backend="gloo") if ranks.size > 1 else None
        if ranks.rank == 0:
            sweep(folder)
        ranks.barrier()

    def save(self, state: Mapping[str, torch.Tensor], progress: Progress) -> None:
        """Copy the state and write it in the background; waits for the one before.

        Raises:
            StorageError: the disk refused the one before; older ones are still there.
        """
        self.wait()
        target = self._folder / f"step-{progress.step:08d}"
        temporary = target.with_name(target.name + TEMPORARY)
        told = asdict(progress)

        def begin() -> Future[Any]:
            if self._ranks.rank == 0:
                write_json(temporary / PROGRESS, told)
            if self._ranks.size == 1:
                copy = {name: value.to("cpu", copy=True).contiguous() for name, value in state.items()}
                return self._thread.submit(save_file, copy, temporary / "whole.safetensors")
            self._ranks.barrier()
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            return async_save(dict(state), storage_writer=writer, process_group=self._group)  # type: ignore[return-value]

        self._writing = (_telling(begin, target), target)

    def wait(self) -> None:
        """Until the checkpoint that is being written has its final name.

        Raises:
            StorageError: the disk refused.
        """
        if self._writing is None:
            return
        (future, target), self._writing = self._writing, None
        temporary = target.with_name(target.name + TEMPORARY)
        _telling(future.result, target)
        self._ranks.barrier()
        if self._ranks.rank == 0:
            _telling(lambda: _finish(temporary, target), target)
            self._prune()
        self._ranks.barrier()

    @property
    def written(self) -> bool:
        """Whether this rank's part of a checkpoint is on the disk and only its final name is missing."""
        return self._writing is not None and self._writing[0].done()

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, ascending."""
        return sorted(
            int(path.parent.name.removeprefix("step-")) for path in self._folder.glob(f"step-*[0-9]/{PROGRESS}")
        )

    def load(self, state: Mapping[str, torch.Tensor], key: str) -> Progress:
        """Read the latest checkpoint of the run `key` into the tensors; where there is none, a run begins at step 0.

        Raises:
            DataError: it cannot be read.
        """
        self.wait()
        steps = self._ranks.broadcast(self.steps())
        if not steps:
            return Progress(key=key)
        path = self._folder / f"step-{steps[-1]:08d}"
        try:
            told = read_json(path / PROGRESS)
            progress = Progress(**told | {"cursor": Cursor(**told["cursor"])})
            if progress.key == key:
                reader = HuggingFaceStorageReader(str(path))
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
                    load(dict(state), storage_reader=reader, no_dist=self._ranks.size == 1)
        except (
            Exception,
            CheckpointException,
        ) as error:  # torch names no common class for the many ways a file can be broken
            raise DataError(
                f"{path}: is not a readable checkpoint ({type(error).__name__}). Delete it to train from the one "
                "before, or from the start."
            ) from error
        return progress if progress.key == key else Progress(key=key)

    def remove(self) -> None:
        """Delete all: the run is finished."""
        self.wait()
        if self._ranks.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _prune(self) -> None:
        """Keep the last few, and every so many steps one for good."""
        every = self._config.keep_every_steps
        for step in self.steps()[: -self._config.keep_checkpoints]:
            if not every or step % every:
                shutil.rmtree(self._folder / f"step-{step:08d}")


def _finish(temporary: Path, target: Path) -> None:
    for path in temporary.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    if target.exists():  # Of another run, or of steps that are done again after a roll-back.
        shutil.rmtree(target)
    temporary.rename(target)


def _telling(work: Callable[[], Any], target: Path) -> Any:
    """Do a piece of writing; what the disk refuses becomes an error that says so."""
    try:
        return work()
    except WorldclipError:
        raise
    except (Exception, CheckpointException) as error:  # torch wraps what the disk said
        raise StorageError(
            f"{target}: the checkpoint could not be written ({_root(error)}). The ones before are whole; free space "
            "and run the same command again."
        ) from error


def _root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error
