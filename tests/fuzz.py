"""`python tests/fuzz.py [--minutes 10] [--seed 0]`: matching and language id under arbitrary input, bounds checked.

Every kernel is compiled so that a read or write out of bounds is an error. Round after round, lists of entries and
texts are judged by plain searches, and model files by fastText; index and model files are damaged, cut or made of
arbitrary bytes, and must be refused with a clear error or give one well-formed answer a text. The first failure ends
the run, with the seed of its round; a crash ends it without one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

_CACHE = tempfile.TemporaryDirectory()  # Code with checks must not be kept for others.
os.environ["NUMBA_BOUNDSCHECK"], os.environ["NUMBA_CACHE_DIR"] = "1", _CACHE.name
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "curation"), str(Path(__file__).parents[1])]

import fasttext
import numba
import numpy as np
import pyarrow as pa
import reference
from fasttext_models import Model
from test_rules import occurs

from worldclip.curation import Index, LanguageId
from worldclip.curation.wide import eight as _eight
from worldclip.errors import DataError


@numba.njit
def eight(data, at):  # type: ignore[no-untyped-def]
    return _eight(data, at)


LETTERS = [
    *"ab犬猫すっーหິມ '.,;!?`-“，\n\t\r\0eé1𠀀𠀁🐶🏽ABéкकॖ개",
    "e\u0301",
    "\u200d",
    "\ufe0f",
    "  ",
    "İ",
    "ß",
    "\u1161",
]
WORDS = ["</s>", "a", "dog", "犬", "собака", "__label__x", "__label__", "<a>", "\t", "\0", "\r", " ", "\v", "𠀀", "do"]


def text(random: np.random.Generator, letters: list[str], longest: int) -> str:
    if random.random() < 0.1:  # anything that is Unicode
        codes = random.integers(0, [0x80, 0x800, 0x10000, 0x110000][random.integers(4)], random.integers(longest + 1))
        return "".join(chr(code) for code in codes.tolist() if not 0xD800 <= code < 0xE000)
    return "".join(random.choice(letters, random.integers(longest + 1)))


def damaged(random: np.random.Generator, raw: bytes, header: int) -> bytes:
    """Bytes changed (often among the first), cut short, lengthened, or others altogether."""
    way, header = random.integers(8), min(header, len(raw))
    if way == 0:
        return raw[: random.integers(len(raw) + 1)]
    if way == 1:
        return raw + random.bytes(random.integers(1, 20))
    if way == 2:
        return raw[: random.integers(header)] + random.bytes(random.integers(5000))
    changed = np.frombuffer(raw, np.uint8).copy()
    places = random.integers(0, header if way < 6 else len(raw), random.choice([1, 2, 3, max(4, len(raw) // 10)]))
    values = random.choice([0, 1, 127, 128, 255], len(places)) if way % 2 else random.integers(0, 256, len(places))
    changed[places] = values
    return changed.tobytes()


def matching(random: np.random.Generator, path: Path) -> str:
    rule = ("paper", "unicode")[random.integers(2)]
    letters = list(random.choice(LETTERS, random.integers(2, 12)))
    if rule == "unicode":  # A zero-width space is dropped from both sides, which a search for substrings cannot say.
        letters = [letter for letter in letters if letter != "\0"] or ["a"]
    entries = [text(random, letters, 5).replace("\u200b", "") for _ in range(random.integers(40))]
    longest, count = int(random.choice([10, 40, 300])), random.integers(12)
    texts = [text(random, [*letters, *entries[:3]], longest).replace("\u200b", "") for _ in range(count)]
    index = Index.build(entries, rule)
    if random.random() < 0.5:
        index.save(path)
        index = Index.open(path)
    found = index.match(texts).to_pylist()
    if rule == "paper":
        expected = reference.match(entries, texts)
    elif any(character not in "".join(LETTERS) for part in (*entries, *texts) for character in part):
        return "matching, answers well-formed"  # The plain search knows the classes of few characters.
    else:
        expected = [[at for at, entry in enumerate(entries) if occurs(entry, each)] for each in texts]
    assert found == expected, (rule, entries, texts, found, expected)
    return f"matching by the {rule} rule, answers equal"


def not_text(random: np.random.Generator, path: Path) -> str:
    """Bytes that are said to be strings: refused, unless they are text."""
    some = random.choice([0x20, 0x61, 0x80, 0xBF, 0xC3, 0xE7, 0xED, 0xF0, 0xF4, 0xFF], int(random.choice([1, 3, 10])))
    parts = [bytes(random.choice(some, random.integers(150)).astype(np.uint8)) for _ in range(random.integers(1, 12))]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(len(parts), pa.py_buffer(offsets), pa.py_buffer(b"".join(parts)))
    rule = ("paper", "unicode")[random.integers(2)]
    try:
        assert len(Index.build(["a", "犬", "é é"], rule).match(array)) == len(parts)
        Index.build(array, rule)
    except DataError:
        with suppress(pa.ArrowInvalid):
            array.validate(full=True)
            raise AssertionError(parts) from None
        return "arbitrary bytes refused"
    array.validate(full=True)
    return "arbitrary bytes that are text"


def index_file(random: np.random.Generator, path: Path) -> str:
    entries = [text(random, LETTERS, 5) for _ in range(random.integers(40))]
    rule = ("paper", "unicode")[random.integers(2)]
    Index.build(entries, rule, fold_case=rule == "unicode" and random.random() < 0.5).save(path)
    path.write_bytes(damaged(random, path.read_bytes(), 400 if random.random() < 0.3 else 4500))
    texts = [text(random, LETTERS, 40) for _ in range(12)]
    try:
        index = Index.open(path)
    except DataError:
        return "index files refused"
    assert len(index) >= 0
    found = index.match(texts)
    found.validate(full=True)
    assert len(found) == len(texts)
    return "damaged index files answered"


def model(random: np.random.Generator) -> Model:
    dim, quantised, labels = int(random.integers(1, 20)), bool(random.integers(2)), int(random.integers(1, 10))
    kept = [(int(random.integers(10)), int(random.integers(6))) for _ in range(random.integers(8))]
    return Model(
        words=list(random.choice([word for word in WORDS if word.strip("\0 ")], random.integers(6))),
        labels=[f"l{number}" for number in range(labels)],
        counts=random.integers(0, 6, labels).tolist(),
        loss=int(random.integers(1, 5)),
        dim=dim,
        minn=int(random.integers(4)),
        maxn=int(random.integers(5)),
        word_ngrams=int(random.integers(4)),
        buckets=10,
        kept=kept if quantised and random.random() < 0.5 else None,
        quantised=quantised,
        part=int(random.integers(1, dim + 1)),
        normed=bool(random.integers(2)),
        quantised_output=bool(random.integers(2)),
        seed=int(random.integers(2**30)),
        coarse=bool(random.integers(2)),
    )


def language_id(random: np.random.Generator, path: Path) -> str:
    model(random).write(path)
    texts = [text(random, WORDS if random.random() < 0.8 else LETTERS, 12).replace("\n", " ") for _ in range(40)]
    answers = [fasttext.load_model(str(path)).predict(each) for each in texts]
    langs, scores = LanguageId.open(path).predict(texts)
    assert langs.to_pylist() == [labels[0].removeprefix("__label__") if labels else "" for labels, _ in answers]
    np.testing.assert_allclose(scores, [min(likely[0], 1) if labels else 0 for labels, likely in answers], atol=1e-5)
    return "language id, answers equal"


def model_file(random: np.random.Generator, path: Path) -> str:
    path.write_bytes(damaged(random, model(random).to_bytes(), 200))
    texts = pa.array([text(random, WORDS, 12) for _ in range(20)])
    try:
        lid = LanguageId.open(path)
    except DataError:
        return "model files refused"
    langs, scores = lid.predict(texts)
    assert len(langs) == len(scores) == len(texts)
    assert ((scores >= 0) & (scores <= 1)).all()
    return "damaged model files answered"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    arguments = parser.parse_args()
    with suppress(IndexError):  # Wide loads are checked, too.
        eight(np.zeros(7, np.uint8), np.uint64(0))
        raise AssertionError("bounds are not checked")
    ends, seed, done = time.monotonic() + 60 * arguments.minutes, arguments.seed, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < ends:
            for each in (matching, not_text, index_file, language_id, model_file):
                try:
                    done[each(np.random.default_rng(seed), Path(folder, f"{seed % 50}"))] += 1
                except BaseException:
                    print(f"seed {seed}: {each.__name__}")
                    raise
            seed += 1
    print(json.dumps({"minutes": arguments.minutes, "rounds": seed - arguments.seed, **done}))


if __name__ == "__main__":
    main()
