"""Multilingual tokenizers: rows of ids by one rule, files of any kind, training, trimming, what texts cost."""

from worldclip.tokenizer.rows import (
    END,
    OURS,
    PAD,
    SPECIAL_TOKENS,
    START,
    UNKNOWN,
    SpecialIds,
    context_length,
    encode,
    lengths,
    special_ids,
    truncated,
    with_rows,
)
from worldclip.tokenizer.training import train_tokenizer

__all__ = [
    "END",
    "OURS",
    "PAD",
    "SPECIAL_TOKENS",
    "START",
    "UNKNOWN",
    "SpecialIds",
    "context_length",
    "encode",
    "lengths",
    "special_ids",
    "train_tokenizer",
    "truncated",
    "with_rows",
]
