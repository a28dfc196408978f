"""Algorithm 1 as plainly as it can be said: the judge of every fast version in the package."""

import string
from itertools import accumulate
from math import prod

RANGES = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF),
    (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x0F00, 0x0FFF),
]  # fmt: skip
MARKS = set(string.punctuation) | set("，。、；：？！“”‘’（）【】《》〈〉「」『』～—.")


def unspaced(character):
    return character in MARKS or any(low <= ord(character) <= high for low, high in RANGES)


def prepare(text):
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for blank in "\t\n\r":
        text = text.replace(blank, " ")
    return f" {text} "


def pad(entry):
    return " " * (not unspaced(entry[0])) + entry + " " * (not unspaced(entry[-1]))


def match(entries, texts):
    padded = [pad(entry) if entry else None for entry in entries]
    return [[i for i, entry in enumerate(padded) if entry and entry in text] for text in map(prepare, texts)]


def count(size, matches):
    counts = [0] * size
    for ids in matches:
        for i in ids:
            counts[i] += 1
    return counts


def t_to_p(t, counts):
    total = sum(counts)
    return sum(c for c in counts if c < t) / total if total else 0.0


def p_to_t(p, counts):
    ordered = sorted(counts)
    total = sum(ordered)
    if not total:
        return 0
    shares = [part / total for part in accumulate(ordered)]
    return ordered[min(range(len(shares)), key=lambda i: (abs(shares[i] - p), i))]


def probabilities(t, counts):
    return [1.0 if c < t else t / c for c in counts]


def keep_probability(ids, probability):
    return 1.0 - prod(1.0 - probability[i] for i in ids)
