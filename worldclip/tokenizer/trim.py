"""A smaller vocabulary that gives covered text the very same pieces.

XLM-V's embedding is 81 % of the S/16's parameters; a user of ten languages needs a tenth of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from worldclip.errors import DataError
from worldclip.tokenizer.rows import encode


def trim(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tokenizer, np.ndarray]:
    """Keep the pieces that `texts` use, every piece of one character or byte, and the special tokens.

    Each of `texts` (up to the context length) keeps its pieces: of a Unigram model only pieces that lost the search are
    gone, of a BPE model only merges that never happened. Other texts may be cut into shorter pieces, and become
    unknown only where they were.

    Returns:
        The smaller tokenizer, and its old ids: int64 [new size], sorted; row `i` of the new embedding is row `old[i]`.

    Raises:
        DataError: the model is neither Unigram nor BPE.
    """
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model["type"] not in {"Unigram", "BPE"}:
        raise DataError(f"tokenizer: a {model['type']} model cannot be trimmed; Unigram and BPE can.")
    ids: dict[str, int] = (
        {piece: at for at, (piece, _) in enumerate(model["vocab"])} if model["type"] == "Unigram" else model["vocab"]
    )
    used = set(np.unique(encode(tokenizer, texts)).tolist()) if len(texts) else set()
    suffix = model.get("end_of_word_suffix") or ""
    used |= {at for piece, at in ids.items() if len(piece.removesuffix(suffix)) == 1 or _is_byte(piece)}
    used |= {token["id"] for token in state["added_tokens"]}  # the special tokens of rows among them
    if model["type"] == "Unigram":
        used.add(model["unk_id"])
    else:
        used |= {ids[model["unk_token"]]} if model["unk_token"] else set()
        used = _with_halves(used, ids, model["merges"])
    old = np.array(sorted(used), np.int64)
    new = {int(at): row for row, at in enumerate(old)}
    _renumber(state, new)
    smaller = Tokenizer.from_str(json.dumps(state))
    smaller.encode_special_tokens = True
    return smaller, old


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _with_halves(used: set[int], ids: dict[str, int], merges: list[Any]) -> set[int]:
    """Also the pieces that a used piece may have been merged from, and theirs."""
    halves: dict[int, list[int]] = {}
    for left, right in (merge.split(" ") if isinstance(merge, str) else merge for merge in merges):
        halves.setdefault(ids[left + right], []).extend((ids[left], ids[right]))
    waiting, found = list(used), set(used)
    while waiting:
        for part in halves.get(waiting.pop(), ()):
            if part not in found:
                found.add(part)
                waiting.append(part)
    return found


def _renumber(state: dict[str, Any], new: dict[int, int]) -> None:
    model = state["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][at] for at in new if at < len(model["vocab"])]
        model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[at] for piece, at in model["vocab"].items() if at in new}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if all(part in model["vocab"] for part in (*pair, "".join(pair)))]
    for token in state["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in state["post_processor"]["special_tokens"].values():
        token["ids"] = [new[at] for at in token["ids"]]
    state["padding"]["pad_id"] = new[state["padding"]["pad_id"]]
