"""Where a run's figures go: TensorBoard's files, Weights & Biases, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from worldclip.errors import ConfigError


class Log:
    """Scalars by step. Only rank 0 keeps one."""

    def __init__(self, kind: Literal["none", "tensorboard", "wandb"], folder: Path) -> None:
        self._writer: Any = None
        self._run: Any = None
        try:
            if kind == "tensorboard":
                from tensorboardX import SummaryWriter  # noqa: PLC0415 - optional

                self._writer = SummaryWriter(str(folder))
            elif kind == "wandb":
                import wandb  # noqa: PLC0415 - optional

                self._run = wandb.init(dir=str(folder), resume="allow")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"train.log={kind}: needs the package {error.name!r}. Install it, or set train.log=none."
            ) from None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars of one step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name.replace(" ", "_"), value, step)  # as it would, with a warning
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write out what is held back."""
        if self._writer is not None:
            self._writer.close()
        if self._run is not None:
            self._run.finish()
