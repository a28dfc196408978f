"""The one rule of every row of token ids, whatever the tokenizer (paper, section 4.1, and its tokenizer ablation).

A row begins with the start token, if the tokenizer has one, ends its text with exactly one end-of-sequence token, also
after truncation, and is padded. The text tower reads its feature at the first end of sequence. Where padding and end
are one id, as in mT5's vocabulary, what follows the first end is padding. A literal "</s>" inside a text is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors

from worldclip.errors import ConfigError

BATCH = 4096  #: texts encoded at a time


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The ids that a text tower must know. `start` is None where rows begin with the text itself."""

    start: int | None
    pad: int
    end: int


#: As XLM-V and XLM-R number them, and as SentencePiece spells them. Tokenizers that are trained here do the same.
START, PAD, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
OURS = SpecialIds(start=START, pad=PAD, end=END)


def with_rows(tokenizer: Tokenizer, special: SpecialIds, context_length: int) -> Tokenizer:
    """Make a tokenizer write rows by the rule: start, text cut to fit, one end, padding to `context_length`.

    Raises:
        ConfigError: the context has no room for a token of text.
    """
    ends = 1 if special.start is None else 2
    if context_length <= ends:
        raise ConfigError(f"context_length: is {context_length}; needs more than the {ends} special token(s) of a row.")
    before = [] if special.start is None else [str(tokenizer.id_to_token(special.start))]
    end, pad = str(tokenizer.id_to_token(special.end)), str(tokenizer.id_to_token(special.pad))
    ids = {token: tokenizer.token_to_id(token) for token in (*before, end)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*before, "$A", end]), special_tokens=list(ids.items())
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys([*before, end, pad])]
    )
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=special.pad, pad_token=pad, length=context_length)
    return tokenizer


def spell_out(tokenizer: Tokenizer, tokens: Iterable[str]) -> None:
    """Keep a text from spelling a special token that is also a piece of the model: "</s>" is cut after its "<".

    Nothing else is cut there, so that all other texts keep their ids.
    """
    before = tokenizer.pre_tokenizer
    there = before.__getstate__().decode() if before else ""  # A tokenizer that was saved by us has its cuts already.
    cuts = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in sorted(tokens) if len(token) > 1]
    cuts = [cut for cut in cuts if json.dumps(cut)[1:-1] not in there]
    if not cuts:
        return
    cut = pre_tokenizers.Split(Regex("|".join(cuts)), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([before, cut]) if before else cut


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The special ids of a tokenizer that writes rows by the rule: read off the row of an empty text."""
    row = tokenizer.encode("")
    shown = [at for at, mask in zip(row.ids, row.attention_mask, strict=True) if mask]
    return SpecialIds(
        start=shown[0] if len(shown) == 2 else None, pad=(tokenizer.padding or {})["pad_id"], end=shown[-1]
    )


def context_length(tokenizer: Tokenizer) -> int:
    """Ids a row, special tokens included."""
    return int((tokenizer.truncation or {})["max_length"])


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Token ids, int64 [n, context_length]."""
    tokenizer.encode_special_tokens = True  # A literal "</s>" is text; tokenizer.json does not hold this setting.
    ids = np.empty((len(texts), context_length(tokenizer)), np.int64)
    for start in range(0, len(texts), BATCH):  # An encoding holds far more than its ids: a few at a time.
        encoded = tokenizer.encode_batch(list(texts[start : start + BATCH]))
        ids[start : start + len(encoded)] = [encoding.ids for encoding in encoded]
    return ids


def lengths(ids: np.ndarray, special: SpecialIds) -> np.ndarray:
    """Tokens of each row of ids [n, length] up to its end of sequence, int64 [n]."""
    found: np.ndarray = (ids == special.end).argmax(1) + 1
    return found


def truncated(ids: np.ndarray, length: int, special: SpecialIds = OURS) -> np.ndarray:
    """Ids cut to [n, length], the last one of a longer text replaced by the end of sequence."""
    ids = ids.copy()
    ids[lengths(ids, special) > length, length - 1] = special.end
    return ids[:, :length]
