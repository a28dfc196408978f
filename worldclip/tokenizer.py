"""Multilingual tokenizers with one end-of-sequence rule (paper, section 4.1, and its tokenizer ablation).

Every row of ids begins with <s>, ends its text with exactly one </s>, also after truncation, and is padded with
<pad>. The text tower reads its feature at the first </s>. A literal "</s>" inside a text is text, not a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

#: As XLM-V and XLM-R number them.
START, PAD, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")


def train_tokenizer(texts: Iterable[str], vocab_size: int, context_length: int) -> Tokenizer:
    """Train a Unigram tokenizer (SentencePiece's kind, as XLM-V's) on texts of any language.

    Args:
        texts: each text as often as it should weigh; the order does not change the result.
        vocab_size: pieces, special tokens included; fewer are made where the texts hold fewer.
        context_length: ids a row, special tokens included.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), unk_token=SPECIAL_TOKENS[UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return with_special_tokens(tokenizer, context_length)


def with_special_tokens(tokenizer: Tokenizer, context_length: int) -> Tokenizer:
    """Make a tokenizer add <s> and </s>, truncate before </s>, and pad to `context_length`."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=PAD, pad_token=SPECIAL_TOKENS[PAD], length=context_length)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Token ids, int64 [n, context_length]."""
    length = tokenizer.truncation["max_length"]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return np.array(ids, np.int64).reshape(len(ids), length)


def truncated(ids: np.ndarray, length: int) -> np.ndarray:
    """Ids cut to [n, length], the last one of a longer text replaced by </s>."""
    ids = ids[:, :length].copy()
    ids[(ids[:, -1] != PAD) & (ids[:, -1] != END), -1] = END
    return ids
