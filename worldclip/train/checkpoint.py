"""Everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from worldclip.errors import DataError
from worldclip.storage import replacing
from worldclip.train.optim import Optimizer


@dataclass(kw_only=True)
class Progress:
    """Where a run is. `key` names the run: a checkpoint of another recipe or other data is refused."""

    key: str
    step: int = 0  #: steps done
    seconds: float = 0.0  #: spent training, over all resumptions
    losses: list[list[float]] = field(default_factory=list)  #: [seen pairs, mean loss since the one before]
    pending: list[float] = field(default_factory=list)  #: losses of the steps since


def save_checkpoint(path: Path, model: torch.nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write weights, optimiser state and progress, whole or not at all.

    Raises:
        StorageError: the disk refused; the checkpoint before is still there.
    """
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # What the disk said; torch only counts the bytes it misses.
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, model: torch.nn.Module, optimizer: Optimizer, key: str) -> Progress:
    """Load what `save_checkpoint` wrote for the run `key`; where there is nothing, a run begins at step 0.

    Raises:
        DataError: the file cannot be read.
    """
    if not path.exists():
        return Progress(key=key)
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        progress = Progress(**state["progress"])
    except Exception as error:  # torch names no common class for the many ways a file can be broken
        # Its words are left out: torch advises to unpickle what it refuses.
        raise DataError(
            f"{path}: is not a readable checkpoint ({type(error).__name__}). Delete it to train from the start."
        ) from error
    if progress.key != key:
        return Progress(key=key)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return progress
