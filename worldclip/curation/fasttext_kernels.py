"""FastText's inference over Arrow buffers.

Every sum is taken in fastText's own order and precision, so that labels are equal even where two tie. What it gains is
elsewhere: no string is made, n-grams are hashed where they stand, and a row of sixteen dimensions is one cache line
that is added in two registers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

#: What a training loss makes of output rows.
HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_AGAINST_ALL = 1, 2, 3, 4
_FOUND = 4096  # Rows that are added at once.
_SEED, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_WORDS_PRIME = np.uint64(116049371)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_U1, _U6, _U32, _U63, _LOW = (np.uint64(value) for value in (1, 6, 32, 63, 0xFFFFFFFF))
_NO_ROW = np.uint64(0xFFFFFFFFFFFFFFFF)
_EPSILON = 1e-5
_LOWEST = np.float32(math.log(_EPSILON))
_NEAR = 1 - 1e-3  # Far more than a sum of rounded logarithms is off by.
_SIGMOIDS, _SIGMOID_LIMIT = 512, 8
_END, _PREFIX = np.frombuffer(b"</s>", np.uint8), np.frombuffer(b"__label__", np.uint8)


class Dictionary(NamedTuple):
    """What turns a text into numbers of input rows."""

    words: np.ndarray  #: Entries, one after the other, uint8.
    ends: np.ndarray  #: int64
    slots: np.ndarray  #: Hash table of entries, int32, -1 where empty.
    word_count: int  #: Entries that are words.
    pruned: bool  #: Whether `kept` tells the rows of buckets; else each has its own, after the words'.
    kept: np.ndarray  #: Hash table of buckets that have rows: bucket << 32 | row, uint64.
    bits: np.ndarray  #: A bit for the hash of each of them, uint64; most n-grams end here, in the nearest cache.
    word_ngrams: int
    buckets: int
    min_chars: int
    max_chars: int


class Output(NamedTuple):
    """What turns the mean of input rows into a label."""

    loss: int
    rows: np.ndarray  #: float32 [labels, dim]; for losses but the hierarchical, [dim, labels].
    norms: np.ndarray  #: float32 [labels]
    left: np.ndarray  #: int32 [nodes], children in the tree of labels
    right: np.ndarray


# --- reading --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def entries_of(data, at, begins, ends, counts, kinds):  # type: ignore[no-untyped-def]
    """Walk a file's dictionary from `at`: a name, a zero byte, an int64 and a byte each. Return its end, -1 if cut."""
    for entry in range(len(begins)):
        begins[entry] = at
        while at < len(data) and data[at]:
            at += 1
        if at + 10 > len(data):
            return -1
        ends[entry] = at
        for byte in range(8):
            counts[entry] |= np.int64(data[at + 1 + byte]) << 8 * byte
        kinds[entry] = data[at + 9]
        at += 10
    return at


@numba.njit(cache=True, nogil=True)
def joined(data, begins, ends):  # type: ignore[no-untyped-def]
    """The parts of `data` from each beginning to its end, one after the other."""
    parts = np.empty((ends - begins).sum(), np.uint8)
    at = 0
    for part in range(len(begins)):
        for position in range(begins[part], ends[part]):
            parts[at] = data[position]
            at += 1
    return parts


@numba.njit(cache=True, nogil=True)
def slots_of(words, ends):  # type: ignore[no-untyped-def]
    """The hash table of a dictionary; the last of equal entries counts."""
    size = 2
    while size < 2 * len(ends):
        size *= 2
    slots = np.full(size, -1, np.int32)
    begin = 0
    for entry in range(len(ends)):
        slot = _slot(words, ends, slots, words, begin, ends[entry], _hash(words, begin, ends[entry]))
        slots[slot] = entry
        begin = ends[entry]
    return slots


@numba.njit(cache=True, nogil=True)
def kept_of(pairs):  # type: ignore[no-untyped-def]
    """Hash table and bits of buckets that have rows, from pairs int64 [n, 2]; the first of equal ones counts."""
    size = 16
    while size < 2 * len(pairs):
        size *= 2
    kept, bits = np.full(size, _NO_ROW, np.uint64), np.zeros(size // 16, np.uint64)  # four bits a slot
    for pair in range(len(pairs)):
        bucket = np.uint64(pairs[pair, 0])
        slot = _kept_slot(kept, bucket)
        if kept[slot] == _NO_ROW:
            kept[slot] = bucket << _U32 | np.uint64(pairs[pair, 1])
            bit = _spread(bucket) & np.uint64(64 * len(bits) - 1)
            bits[bit >> _U6] |= _U1 << (bit & _U63)
    return kept, bits


@numba.njit(cache=True, nogil=True)
def tree_of(counts):  # type: ignore[no-untyped-def]
    """Children of each node of the Huffman tree that fastText builds from the labels' counts; -1 of leaves."""
    labels = len(counts)
    left, right = np.full(2 * labels - 1, -1, np.int32), np.full(2 * labels - 1, -1, np.int32)
    weights = np.full(2 * labels - 1, np.int64(1e15), np.int64)
    weights[:labels] = counts
    leaf, node = labels - 1, labels
    for parent in range(labels, 2 * labels - 1):
        for side in (left, right):
            if leaf >= 0 and weights[leaf] < weights[node]:
                side[parent] = leaf
                leaf -= 1
            else:
                side[parent] = node
                node += 1
        weights[parent] = weights[left[parent]] + weights[right[parent]]
    return left, right


@numba.njit(cache=True, nogil=True)
def _hashed(value, byte):  # type: ignore[no-untyped-def]
    """A step of FNV-1a, with bytes that are signed, as fastText has them."""
    return np.uint32((value ^ np.uint32(np.int8(byte))) * _PRIME)


@numba.njit(cache=True, nogil=True)
def _hash(data, begin, end):  # type: ignore[no-untyped-def]
    value = _SEED
    for at in range(begin, end):
        value = _hashed(value, data[at])
    return value


@numba.njit(cache=True, nogil=True)
def _slot(words, ends, slots, data, begin, end, hashed):  # type: ignore[no-untyped-def]
    """The slot of an entry, or the empty one where it belongs."""
    slot = np.int64(hashed) & (len(slots) - 1)
    while slots[slot] >= 0:
        entry = slots[slot]
        first = ends[entry - 1] if entry else 0
        if ends[entry] - first == end - begin:
            same = 0
            while same < end - begin and words[first + same] == data[begin + same]:
                same += 1
            if same == end - begin:
                break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def _spread(bucket):  # type: ignore[no-untyped-def]
    return (bucket * _SPREAD) >> _U32


@numba.njit(cache=True, nogil=True)
def _kept_slot(kept, bucket):  # type: ignore[no-untyped-def]
    """The slot of a bucket, or the empty one where it belongs."""
    mask = np.uint64(len(kept) - 1)
    slot = _spread(bucket) & mask
    while kept[slot] != _NO_ROW and kept[slot] >> _U32 != bucket:
        slot = (slot + _U1) & mask
    return slot


# --- input ----------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _kept_only(found, number, kept, bits):  # type: ignore[no-untyped-def]
    """Replace buckets by what is kept of them, and drop those of which nothing is; return how many are left."""
    mask, likely = np.uint64(64 * len(bits) - 1), 0
    for at in range(number):
        bit = _spread(np.uint64(found[at])) & mask
        found[likely] = found[at]
        likely += found[at] < 0 or (bits[bit >> _U6] >> (bit & _U63)) & _U1 != 0
    left = 0
    for at in range(likely):
        if found[at] < 0:
            found[left] = found[at]
            left += 1
        else:
            value = kept[_kept_slot(kept, np.uint64(found[at]))]
            found[left] = np.int64(value & _LOW)
            left += value != _NO_ROW
    return left


@numba.njit(cache=True, nogil=True)
def _add(found, number, dictionary, rows, hidden):  # type: ignore[no-untyped-def]
    """Add the input rows of words and buckets to the sum, in their order; return how many there are.

    `found` counts from the row of the first bucket, before which are the words'.
    """
    if dictionary.pruned:
        number = _kept_only(found, number, dictionary.kept, dictionary.bits)
    words, dim = dictionary.word_count, len(hidden)
    whole = dim - dim % 8
    for first in range(0, whole, 8):
        own = hidden[first : first + 8]
        a, b, c, d, e, f, g, h = own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7]
        for at in range(number):
            row = rows[words + found[at], first : first + 8]
            a += row[0]
            b += row[1]
            c += row[2]
            d += row[3]
            e += row[4]
            f += row[5]
            g += row[6]
            h += row[7]
        own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7] = a, b, c, d, e, f, g, h
    for at in range(number):
        for column in range(whole, dim):
            hidden[column] += rows[words + found[at], column]
    return number


@numba.njit(cache=True, nogil=True)
def _delimits(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@numba.njit(cache=True, nogil=True)
def _begins_with(word, size, what):  # type: ignore[no-untyped-def]
    """Whether the word in word[1:size] begins with these bytes."""
    if size <= len(what):
        return False
    same = 0
    while same < len(what) and word[1 + same] == what[same]:
        same += 1
    return same == len(what)


@numba.njit(cache=True, nogil=True)
def _grams(word, size, minimum, maximum, buckets, first, found, number):  # type: ignore[no-untyped-def]
    """Append the buckets of n-grams of characters that begin at `first` or after it, while there is room for more.

    Returns:
        where to go on, and how many are found in all.
    """
    while first < size and number <= len(found) - maximum:
        value, last = _SEED, first
        for length in range(1, maximum + 1):
            if last == size:
                break
            value = _hashed(value, word[last])
            last += 1
            while last < size and word[last] & 0xC0 == 0x80:
                value = _hashed(value, word[last])
                last += 1
            if length >= minimum and not (length == 1 and (first == 0 or last == size)):
                found[number] = value % buckets
                number += 1
        first += 1
        while first < size and word[first] & 0xC0 == 0x80:
            first += 1
    return first, number


@numba.njit(cache=True, nogil=True)
def _mean(data, begin, end, dictionary, rows, word, hashes, found, hidden):  # type: ignore[no-untyped-def]
    """The mean of the input rows of a text, in `hidden`; return how many there are.

    `word` holds one word of the text between `<` and `>`; `hashes` those of the text's words, if their n-grams count.
    """
    hidden[:] = 0
    at, total, number, words = begin, 0, 0, 0
    minimum, maximum, buckets = dictionary.min_chars, dictionary.max_chars, np.uint32(dictionary.buckets)
    ended = False
    while not ended:
        while at < end and _delimits(data[at]):
            at += 1
        size = 1
        if at == end:  # Every text ends with this word.
            word[1:5] = _END
            size = 5
        else:
            while at < end and not _delimits(data[at]):
                word[size] = data[at]
                size += 1
                at += 1
        ended = size == 5 and _begins_with(word, size, _END)
        hashed = _hash(word, 1, size)
        slot = _slot(dictionary.words, dictionary.ends, dictionary.slots, word, 1, size, hashed)
        entry = np.int64(dictionary.slots[slot])
        if entry >= dictionary.word_count or (entry < 0 and _begins_with(word, size, _PREFIX)):
            continue
        if len(hashes):
            hashes[words] = hashed
            words += 1
        if entry >= 0:
            if number == _FOUND:
                total += _add(found, number, dictionary, rows, hidden)
                number = 0
            found[number] = entry - dictionary.word_count
            number += 1
        word[0], word[size] = 60, 62  # < and >
        first = size + 1 if ended else 0
        while True:
            first, number = _grams(word, size + 1, minimum, maximum, buckets, first, found, number)
            if first > size:
                break
            total += _add(found, number, dictionary, rows, hidden)
            number = 0
    for first in range(words):
        value = np.uint64(np.int64(np.int32(hashes[first])))
        for last in range(first + 1, min(words, first + dictionary.word_ngrams)):
            value = value * _WORDS_PRIME + np.uint64(np.int64(np.int32(hashes[last])))
            if number == _FOUND:
                total += _add(found, number, dictionary, rows, hidden)
                number = 0
            found[number] = value % np.uint64(dictionary.buckets)
            number += 1
    total += _add(found, number, dictionary, rows, hidden)
    if total:
        hidden *= np.float32(1.0 / total)
    return total


# --- output ---------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _log(value):  # type: ignore[no-untyped-def]
    return np.float32(math.log(np.float64(value) + _EPSILON))


@numba.njit(cache=True, nogil=True)
def _right(hidden, output, node):  # type: ignore[no-untyped-def]
    """The probability of a node's right child, and whether it is the likelier."""
    total = np.float32(0)
    row = output.rows[node]
    for column in range(len(hidden)):
        total += row[column] * hidden[column]
    total *= output.norms[node]
    return np.float32(1.0 / np.float64(np.float32(1) + math.exp(-total))), total > 0


@numba.njit(cache=True, nogil=True)
def _down_the_tree(hidden, output, nodes, scores, likely):  # type: ignore[no-untyped-def]
    """Label and log-probability by hierarchical softmax; -1 where nothing is likely enough.

    FastText sums rounded logarithms down every branch that is no less likely than the best leaf so far. Here the way of
    the likelier child comes first. Mostly no branch beside it can hold a likelier leaf: products of probabilities tell,
    far enough from the edge for no rounding to matter. Else fastText's own walk finds the leaf.
    """
    labels = len(output.rows)
    node, product, beside, depth = len(output.left) - 1, 1.0, 0.0, 0
    while node >= labels:
        right, rightwards = _right(hidden, output, node - labels)
        left = np.float32(1.0 - np.float64(right))
        taken, other = (right, left) if rightwards else (left, right)
        beside = max(beside, product * (other + _EPSILON))
        product *= taken + _EPSILON
        likely[depth, 0] = taken
        depth += 1
        node = output.right[node] if rightwards else output.left[node]
    if not beside < product * _NEAR:
        return _walked(hidden, output, nodes, scores, likely, product * _NEAR)
    score = np.float32(0)
    for step in range(depth):
        score += _log(likely[step, 0])
        if score < _LOWEST:
            return -1, score
    return node, score


@numba.njit(cache=True, nogil=True)
def _walked(hidden, output, nodes, scores, likely, edge):  # type: ignore[no-untyped-def]
    """The same by fastText's order of visits, which decides between equals; `edge`: products below cannot matter."""
    labels, root = len(output.rows), len(output.left) - 1
    best, best_score = -1, np.float32(-np.inf)
    # Of what waits: the sum down to its parent, its own probability, the product down to it.
    nodes[0], scores[0], likely[0, 0], likely[0, 1] = root, 0, 1, 1
    waiting = 1
    while waiting:
        waiting -= 1
        node, score, product = nodes[waiting], scores[waiting], likely[waiting, 1]
        if product < edge:
            continue
        if node != root:
            score += _log(likely[waiting, 0])
        if score < _LOWEST or score < best_score:
            continue
        if node < labels:
            best, best_score = node, score
            continue
        right, _ = _right(hidden, output, node - labels)
        left = np.float32(1.0 - np.float64(right))
        for child, own in ((output.right[node], right), (output.left[node], left)):
            nodes[waiting], scores[waiting] = child, score
            likely[waiting, 0], likely[waiting, 1] = own, product * (own + _EPSILON)
            waiting += 1
    return best, best_score


@numba.njit(cache=True, nogil=True)
def _over_all(hidden, output, products):  # type: ignore[no-untyped-def]
    """Label and log-probability by softmax, or by a sigmoid each."""
    products[:] = 0
    for column in range(len(hidden)):  # each label's sum is taken in order, many labels at once
        row, factor = output.rows[column], hidden[column]
        for label in range(len(products)):
            products[label] += row[label] * factor
    products *= output.norms
    if output.loss == SOFTMAX:
        largest, total = products.max(), np.float32(0)
        for label in range(len(products)):
            products[label] = math.exp(products[label] - largest)
            total += products[label]
        for label in range(len(products)):
            products[label] /= total
    else:
        for label in range(len(products)):
            products[label] = _sigmoid(products[label])
    likely = np.float32(0.9999) * products.max()  # below, logarithms cannot tie
    best, best_score = -1, np.float32(-np.inf)
    for label in range(len(products)):
        if products[label] >= likely and _log(products[label]) >= best_score:
            best, best_score = label, _log(products[label])
    return best, best_score


@numba.njit(cache=True, nogil=True)
def _sigmoid(value):  # type: ignore[no-untyped-def]
    """FastText's own, which is read from a table of 513 values."""
    if not value >= -_SIGMOID_LIMIT:
        return np.float32(0)
    if value > _SIGMOID_LIMIT:
        return np.float32(1)
    step = np.int64((value + np.float32(_SIGMOID_LIMIT)) * np.float32(_SIGMOIDS / _SIGMOID_LIMIT / 2))
    place = np.float32(step * 2 * _SIGMOID_LIMIT / _SIGMOIDS - _SIGMOID_LIMIT)
    return np.float32(1.0 / (1.0 + np.float64(math.exp(-place))))


@numba.njit(cache=True, nogil=True)
def predict(data, offsets, dictionary, rows, output):  # type: ignore[no-untyped-def]
    """The likeliest label of each text.

    Args:
        data, offsets: the texts, uint8 and int64 [n + 1].
        rows: input, float32 [rows, dim].

    Returns:
        int32 [n], -1 where nothing in the text is known or likely; probabilities float32 [n].
    """
    n, longest = len(offsets) - 1, 0
    for text in range(n):
        longest = max(longest, offsets[text + 1] - offsets[text])
    word = np.empty(longest + 6, np.uint8)
    hashes = np.empty(longest // 2 + 2 if dictionary.word_ngrams > 1 else 0, np.uint32)
    found, hidden = np.empty(_FOUND, np.int64), np.empty(rows.shape[1], np.float32)
    nodes, scores = np.empty(len(output.norms) + 1, np.int64), np.empty(len(output.norms) + 1, np.float32)
    products, likely = np.empty(len(output.norms), np.float32), np.empty((len(output.norms) + 1, 2))
    labels, probabilities = np.full(n, -1, np.int32), np.zeros(n, np.float32)
    for text in range(n):
        begin, end = offsets[text], offsets[text + 1]
        if not _mean(data, begin, end, dictionary, rows, word, hashes, found, hidden):
            continue
        if output.loss == HIERARCHICAL:
            label, score = _down_the_tree(hidden, output, nodes, scores, likely)
        else:
            label, score = _over_all(hidden, output, products)
        if label >= 0 and not math.isnan(score):
            labels[text], probabilities[text] = label, min(np.float32(1), np.float32(math.exp(score)))
    return labels, probabilities
