"""FastText's inference over Arrow buffers.

Every sum is taken in fastText's own order and precision, so that labels are equal even where two tie. What it gains is
elsewhere: no string is made, the n-grams of many characters are hashed at once, and bits tell which have rows and
where. What the mean of rows says is in `fasttext_labels.py`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from worldclip.curation.fasttext_labels import HIERARCHICAL, down_the_tree, over_all
from worldclip.curation.wide import ones

_TILE = 512  # Characters whose n-grams are looked up at once.
_LANES = 32  # Loops over so many at once are unrolled; what is left over would be taken one by one.
_SEED, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_WORDS_PRIME = np.uint64(116049371)
_U0, _U1, _U6, _U32, _U63 = (np.uint64(value) for value in (0, 1, 6, 32, 63))
_LOW, _EMPTY = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)
_END, _PREFIX = np.frombuffer(b"</s>", np.uint8), np.frombuffer(b"__label__", np.uint8)


class Dictionary(NamedTuple):
    """What turns a text into numbers of input rows."""

    words: np.ndarray  #: Entries, one after the other, uint8.
    ends: np.ndarray  #: int64
    slots: np.ndarray  #: Hash table of entries: hash << 32 | entry, uint64.
    word_count: int  #: Entries that are words.
    pruned: bool  #: Whether only buckets in `kept` have rows. Those of buckets come after the words', in order.
    kept: np.ndarray  #: Of 64 buckets each: a bit for those that have rows, and how many have before; uint64 [n, 2].
    word_ngrams: int
    buckets: int
    min_chars: int
    max_chars: int


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
    slots = np.full(size, _EMPTY, np.uint64)
    begin = 0
    for entry in range(len(ends)):
        hashed = _hash(words, begin, ends[entry])
        slots[_slot(words, ends, slots, words, begin, ends[entry], hashed)] = np.uint64(hashed) << _U32 | np.uint64(
            entry
        )
        begin = ends[entry]
    return slots


@numba.njit(cache=True, nogil=True)
def kept_of(pairs, buckets):  # type: ignore[no-untyped-def]
    """Which buckets have rows, and which, from pairs int64 [n, 2]; the first of equal ones counts."""
    kept = np.zeros((buckets // 64 + 1, 2), np.uint64)
    for bucket, _ in pairs:
        kept[bucket >> 6, 0] |= _U1 << np.uint64(bucket & 63)
    total = _U0
    for group in range(len(kept)):
        kept[group, 1] = total
        total += ones(kept[group, 0])
    order = np.full(np.int64(total), -1, np.int64)
    for bucket, row in pairs:
        place = _place(kept, np.uint64(bucket))
        if order[place] < 0:
            order[place] = row
    return kept, order


@numba.njit(cache=True, nogil=True)
def _place(kept, bucket):  # type: ignore[no-untyped-def]
    """How many buckets before this one have rows."""
    group = bucket >> _U6
    return kept[group, 1] + ones(kept[group, 0] & ((_U1 << (bucket & _U63)) - _U1))


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
    while slots[slot] != _EMPTY:
        if slots[slot] >> _U32 == np.uint64(hashed):
            entry = np.int64(slots[slot] & _LOW)
            first = ends[entry - 1] if entry else 0
            if ends[entry] - first == end - begin:
                same = 0
                while same < end - begin and words[first + same] == data[begin + same]:
                    same += 1
                if same == end - begin:
                    break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


# --- input ----------------------------------------------------------------------------------------------------------
#
# A text is spelled as characters, each word between < and >. N-grams of all characters of a tile are hashed at once, a
# length after the other, in vector registers; then they are looked up in fastText's order.


@numba.njit(cache=True, nogil=True)
def _hash_grams(chars, tile, size, dictionary, value, grams):  # type: ignore[no-untyped-def]
    """Buckets of the n-grams that begin at each character of a tile, a row a length in `grams`."""
    shortest, longest, buckets = max(dictionary.min_chars, 1), dictionary.max_chars, np.uint32(dictionary.buckets)
    widest = np.uint32(0)
    for at in range(tile, tile + size + longest - 1):
        widest |= chars[at]
    reciprocal = np.uint32(min(2**32 // max(buckets, 1), 2**32 - 1))
    for at in range(size):
        value[at] = _SEED
    for length in range(1, longest + 1):
        last, shift = chars[tile + length - 1 : tile + length - 1 + size], np.uint32(0)
        while shift < 32 and widest >> shift != 0:
            for at in range(size):  # a byte of each character, if it has so many
                before, byte = value[at], last[at] >> shift
                value[at] = _hashed(before, byte & np.uint32(255)) if byte else before
            shift += np.uint32(8)
        if length >= shortest:
            own = grams[length - shortest]
            for at in range(size):  # modulo, by a quotient that is at most one too small
                quotient = np.uint32(np.uint64(value[at]) * np.uint64(reciprocal) >> _U32)
                left = value[at] - quotient * buckets
                own[at] = min(left, left - buckets)


@numba.njit(cache=True, nogil=True)
def _has_row(dictionary, bucket):  # type: ignore[no-untyped-def]
    return not dictionary.pruned or dictionary.kept[bucket >> _U6, 0] >> (bucket & _U63) & _U1 != 0


@numba.njit(cache=True, nogil=True)
def _grams_of(begin, end, first, last, tile, grams, dictionary, found, number):  # type: ignore[no-untyped-def]
    """Append n-grams that have rows, of a word's characters from `first` to `last`; return how many are found in all.

    No branch hangs on what is found: it could not be foreseen.
    """
    shortest = max(dictionary.min_chars, 1)
    for char in range(first, last):
        for row in range(len(grams)):
            length, bucket = shortest + row, grams[row, char - tile]
            found[number] = bucket
            number += (
                (length <= end - char)
                & ((length > 1) | ((char > begin) & (char < end - 1)))
                & _has_row(dictionary, np.uint64(bucket))
            )
    return number


@numba.njit(cache=True, nogil=True)
def _add(found, number, dictionary, rows, hidden):  # type: ignore[no-untyped-def]
    """Add the rows of words and buckets to the sum, in their order. `found` counts buckets from 0, words up to -1."""
    dim = len(hidden)
    for at in range(number):
        if dictionary.pruned and found[at] >= 0:
            found[at] = np.int64(_place(dictionary.kept, np.uint64(found[at])))
        found[at] = (found[at] + dictionary.word_count) * dim
    whole = dim - dim % 8
    for first in range(0, whole, 8):
        own = hidden[first : first + 8]
        a, b, c, d, e, f, g, h = own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7]
        for at in range(number):
            row = np.uint64(found[at] + first)
            a += rows[row]
            b += rows[row + np.uint64(1)]
            c += rows[row + np.uint64(2)]
            d += rows[row + np.uint64(3)]
            e += rows[row + np.uint64(4)]
            f += rows[row + np.uint64(5)]
            g += rows[row + np.uint64(6)]
            h += rows[row + np.uint64(7)]
        own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7] = a, b, c, d, e, f, g, h
    for at in range(number):
        for column in range(whole, dim):
            hidden[column] += rows[found[at] + column]


@numba.njit(cache=True, nogil=True)
def _delimits(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@numba.njit(cache=True, nogil=True)
def _begins_with(data, begin, end, what):  # type: ignore[no-untyped-def]
    """Whether the word in data[begin:end] begins with these bytes."""
    if end - begin < len(what):
        return False
    same = 0
    while same < len(what) and data[begin + same] == what[same]:
        same += 1
    return same == len(what)


@numba.njit(cache=True, nogil=True)
def _entry(dictionary, data, begin, end, hashed):  # type: ignore[no-untyped-def]
    """The dictionary's entry of a word, -1 if it has none."""
    found = dictionary.slots[_slot(dictionary.words, dictionary.ends, dictionary.slots, data, begin, end, hashed)]
    return np.int64(found & _LOW) if found != _EMPTY else -1


@numba.njit(cache=True, nogil=True)
def _add_spelled(chars, words, dictionary, rows, work, hidden):  # type: ignore[no-untyped-def]
    """Add the rows of words and their n-grams to the sum; return how many there are.

    Words are where each begins and ends among `chars`, and its entry; int64 [n, 3].
    """
    value, grams, found = work
    word, number, total = 0, 0, 0
    count = words[len(words) - 1, 1] if len(words) else 0
    for beyond in range(count, count + _LANES + dictionary.max_chars):
        chars[beyond] = 0
    for tile in range(0, max(count, 1), _TILE):
        size = min(_TILE, count - tile)
        if len(grams) and size:
            _hash_grams(chars, tile, -(-size // _LANES) * _LANES, dictionary, value, grams)
        while word < len(words) and (words[word, 0] < tile + size or tile + size == count):
            begin, end, entry = words[word]
            if begin >= tile and entry >= 0:
                found[number] = entry - dictionary.word_count
                number += 1
            first, last = max(begin, tile), min(end, tile + size)
            number = _grams_of(begin, end, first, last, tile, grams, dictionary, found, number)
            if end > tile + size:
                break
            word += 1
        _add(found, number, dictionary, rows, hidden)
        total, number = total + number, 0
    return total


@numba.njit(cache=True, nogil=True)
def _mean(data, begin, end, end_word, dictionary, rows, chars, words, hashes, work, hidden):  # type: ignore[no-untyped-def]
    """The mean of the input rows of a text, in `hidden`; return how many there are.

    `chars` has room for a tile and the text, `hashes` for those of the text's words, if their n-grams count.
    """
    for column in range(len(hidden)):
        hidden[column] = 0
    at, total, count, number, hashed_words = begin, 0, 0, 0, 0
    end_hash, end_entry = end_word
    ended = False
    while not ended:
        while at < end and _delimits(data[at]):
            at += 1
        first, start, hashed, shift = at, count, _SEED, np.uint32(0)
        chars[count] = 60  # <
        while at < end and not _delimits(data[at]):
            byte = data[at]
            hashed = _hashed(hashed, byte)
            if byte & 0xC0 == 0x80 and shift < 24:
                shift += np.uint32(8)
                chars[count] |= np.uint32(byte) << shift
            else:
                shift = np.uint32(0)
                count += 1
                chars[count] = byte
            at += 1
        # Every text ends with </s>, which has no n-grams.
        ended = at == first or (at - first == len(_END) and _begins_with(data, first, at, _END))
        if ended:
            hashed, entry, count = end_hash, end_entry, start
        else:
            chars[count + 1] = 62  # >
            count += 2
            entry = _entry(dictionary, data, first, at, hashed)
        if entry >= dictionary.word_count or (entry < 0 and _begins_with(data, first, at, _PREFIX)):
            count = start
            continue
        words[number, 0], words[number, 1], words[number, 2] = start, count, entry
        number += 1
        if len(hashes):
            hashes[hashed_words] = hashed
            hashed_words += 1
        if count >= _TILE or number == len(words):
            total += _add_spelled(chars, words[:number], dictionary, rows, work, hidden)
            count, number = 0, 0
    total += _add_spelled(chars, words[:number], dictionary, rows, work, hidden)
    found, number = work[2], 0
    for first in range(hashed_words):
        several = np.uint64(np.int64(np.int32(hashes[first])))
        for last in range(first + 1, min(hashed_words, first + dictionary.word_ngrams)):
            several = several * _WORDS_PRIME + np.uint64(np.int64(np.int32(hashes[last])))
            if number == len(found):
                _add(found, number, dictionary, rows, hidden)
                total, number = total + number, 0
            bucket = several % np.uint64(dictionary.buckets)
            found[number] = bucket
            number += _has_row(dictionary, bucket)
    _add(found, number, dictionary, rows, hidden)
    total += number
    if total:
        share = np.float32(1.0 / total)
        for column in range(len(hidden)):
            hidden[column] *= share
    return total


# --- both -------------------------------------------------------------------------------------------------------------


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
    chars, words = (
        np.empty(_TILE + longest + _LANES + dictionary.max_chars + 3, np.uint32),
        np.empty((_TILE, 3), np.int64),
    )
    lengths = max(0, dictionary.max_chars + 1 - max(dictionary.min_chars, 1))
    work = (
        np.empty(_TILE, np.uint32),
        np.empty((lengths, _TILE), np.uint32),
        np.empty(_TILE * (lengths + 1) + 1, np.int64),
    )
    hashes = np.empty(longest // 2 + 2 if dictionary.word_ngrams > 1 else 0, np.uint32)
    flat, hidden = rows.reshape(-1), np.empty(rows.shape[1], np.float32)
    nodes, scores = np.empty(len(output.norms) + 1, np.int64), np.empty(len(output.norms) + 1, np.float32)
    products, likely = np.empty(len(output.norms), np.float32), np.empty((len(output.norms) + 1, 2))
    end_hash = _hash(_END, 0, len(_END))
    end_word = end_hash, _entry(dictionary, _END, 0, len(_END), end_hash)
    labels, probabilities = np.full(n, -1, np.int32), np.zeros(n, np.float32)
    for text in range(n):
        begin, end = offsets[text], offsets[text + 1]
        if not _mean(data, begin, end, end_word, dictionary, flat, chars, words, hashes, work, hidden):
            continue
        if output.loss == HIERARCHICAL:
            label, score = down_the_tree(hidden, output, nodes, scores, likely)
        else:
            label, score = over_all(hidden, output, products)
        if label >= 0 and not math.isnan(score):
            labels[text], probabilities[text] = label, min(np.float32(1), np.float32(math.exp(score)))
    return labels, probabilities
