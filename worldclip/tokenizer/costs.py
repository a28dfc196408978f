"""What a language's texts cost in a tokenizer: tokens a text, and how many are cut (paper, its tokenizer ablation)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from worldclip.tokenizer.rows import BATCH, context_length


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one language's texts; tokens are counted with the special ones, before any cut."""

    lang: str
    texts: int
    tokens: float  #: a text, mean
    p95: int  #: tokens of a text that 95 % do not exceed
    truncated: float  #: share of texts longer than the context
    unknown: float  #: share of tokens that are unknown
    characters: float  #: a token, mean


def text_costs(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> list[Cost]:
    """One row a language with texts, in the order given."""
    context = context_length(tokenizer)
    state = tokenizer.to_str()
    free = Tokenizer.from_str(state)
    free.no_truncation()
    free.no_padding()
    free.encode_special_tokens = True
    unknown = _unknown(json.loads(state)["model"])
    return [_cost(free, lang, each, context, unknown) for lang, each in texts.items() if each]


def _unknown(model: Mapping[str, Any]) -> int | None:
    return model.get("unk_id") if model["type"] == "Unigram" else model["vocab"].get(model.get("unk_token"))


def _cost(tokenizer: Tokenizer, lang: str, texts: Sequence[str], context: int, unknown: int | None) -> Cost:
    counts = np.empty(len(texts), np.int64)
    strange = 0
    for start in range(0, len(texts), BATCH):
        encoded = tokenizer.encode_batch_fast(list(texts[start : start + BATCH]))
        counts[start : start + len(encoded)] = [len(encoding.ids) for encoding in encoded]
        strange += sum(encoding.ids.count(unknown) for encoding in encoded) if unknown is not None else 0
    return Cost(
        lang=lang,
        texts=len(texts),
        tokens=float(counts.mean()),
        p95=int(np.quantile(counts, 0.95, method="inverted_cdf")),
        truncated=float((counts > context).mean()),
        unknown=strange / int(counts.sum()),
        characters=sum(map(len, texts)) / int(counts.sum()),
    )
