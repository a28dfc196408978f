"""A trie of the units of all entries, in one hash table. `search.py` finds its entries in texts.

The key of a node is made of the units on the way to it. Where only one entry lies below a node the trie ends, and the
entry's *record* tells the rest. Keys are 64 bits. That of a first unit of at most seven bytes is its bytes, shuffled:
of an entry that is this unit alone the id stands in the node. All other keys are hashes and not trusted: every match is
compared with its record, byte by byte, so that the answer is exact whatever collides.

Four nodes share a cache line (a *bucket*: four keys, then four pairs of record and filter), so that a look-up is one
line, seldom two, and a record one more. Most phrases end without a look-up: a node's filter has a bit for the hash of
each unit that follows it, and, since those of frequent words are full, bits tell of all keys of longer ways whether
they may be.
"""

from __future__ import annotations

import numba
import numpy as np

from worldclip.curation.prepare import BLANK, KINDS, lifted, prepare_paper, prepare_unicode, take
from worldclip.curation.wide import SLACK, eight, kernel, lowest, of_four

#: Nodes per slot: fuller saves memory, emptier saves second cache lines.
LOAD = 0.5
NO_RECORD = 0xFFFFFFFF
#: What a node has in place of a record, if its key says all of its entry: the id, and whether a space must follow.
IS_ID, SPACE_FOLLOWS, MOST_IDS = 0x80000000, 0x40000000, 0x3FFFFFFF
#: Of a record that goes on behind its node: the node's filter has the bit of the unit that follows, and leads nowhere.
CONTINUES, MOST_RECORDS = 0x40000000, 0x3FFFFFFF
MORE = 0x80000000  # Bit of a record's length: the next record has the same key.
_M1, _M2, _M3 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(0x2545F4914F6CDD1D)
_U0, _U1, _U3, _U4, _U6, _U7, _U8, _U16, _U31, _U32, _U63 = (
    np.uint64(value) for value in (0, 1, 3, 4, 6, 7, 8, 16, 31, 32, 63)
)
_LOW63 = np.uint64(0x7FFFFFFFFFFFFFFF)
#: What is left of the first eight and of the next eight bytes of a unit of 0 to 16 bytes, and what is put to them.
_FIRST = np.array([(1 << 8 * min(length, 8)) - 1 for length in range(17)], np.uint64)
_SECOND = np.array([(1 << 8 * max(length - 8, 0)) - 1 for length in range(17)], np.uint64)
_TAG = np.array([(length + 1) << 56 if length < 8 else 1 << 63 for length in range(17)], np.uint64)


@kernel
def word_of(text, at, end):  # type: ignore[no-untyped-def]
    """A unit as 64 bits: its bytes and length, if it has at most seven; else its highest bit is set, and it is a hash.

    A unit is empty between two spaces. There are `SLACK` bytes beyond.
    """
    length = end - at
    if length <= _U16:
        more = (eight(text, at + _U8) & _SECOND[length]) * _M3
        return eight(text, at) & _FIRST[length] ^ more | _TAG[length]
    word = length
    while length > _U8:
        word = (word ^ word >> _U32 ^ eight(text, at)) * _M3
        at, length = at + _U8, length - _U8
    return (word ^ word >> _U32 ^ eight(text, at) & _FIRST[length]) | _TAG[_U8]


@kernel
def key_of(word):  # type: ignore[no-untyped-def]
    """The key of a unit: even and of no other, if it has at most seven bytes; else odd. Never zero."""
    key = (word & _LOW63) * _M1 & _LOW63  # Each step can be undone.
    key = (key ^ key >> _U32) * _M2 & _LOW63
    return (key ^ key >> _U32) << _U1 | word >> _U63


@kernel
def step_of(unit, gap):  # type: ignore[no-untyped-def]
    """What tells of a unit that follows another; `gap`: 1 where a space stands before it, which is the lowest bit."""
    return (unit >> _U1) + gap * _M3 << _U1 | gap


@kernel
def child_of(parent, step):  # type: ignore[no-untyped-def]
    """The key of the node that a step leads to."""
    key = (parent ^ step * _M1) * _M2
    key = (key ^ key >> _U32) * _M3
    return key ^ key >> _U32 | _U1


@kernel
def bit_of(step):  # type: ignore[no-untyped-def]
    """The number of the filter's bit for a step that follows."""
    return step >> _U8 & _U31


@kernel
def bucket_of(key, table):  # type: ignore[no-untyped-def]
    """Where the bucket of a key begins."""
    return (key >> _U32) * (np.uint64(len(table)) >> _U3) >> _U32 << _U3


@kernel
def find(table, key):  # type: ignore[no-untyped-def]
    """The position of the value of `key` in the table; if there is none, that of an empty slot."""
    home = at = bucket_of(key, table)
    which = of_four(table, at, key)
    while which == _U0:  # A bucket without a gap may have run over.
        at = at + _U8 if at + _U8 < np.uint64(len(table)) else _U0
        which = of_four(table, at, key) | np.uint64(at == home)
    return at + _U4 + (lowest(which) & _U3)


@numba.njit(cache=True, nogil=True)
def prepare_entries(data, offsets, paper, classes, folding):  # type: ignore[no-untyped-def]
    """Bytes of all entries, one after the other, bits for their borders, and where each begins, int64 [n + 1]."""
    n, longest = len(offsets) - 1, 0
    for row in range(n):
        longest = max(longest, offsets[row + 1] - offsets[row])
    size = offsets[n] - offsets[0]
    room = max(1 << 14, longest + 1)
    raw, kinds = np.empty(room + 2 * SLACK, np.uint8), np.empty((KINDS, room // 64 + 3), np.uint64)
    text = np.empty(size + size // 2 + 2 * n + 1 + 2 * SLACK, np.uint8)
    borders = np.zeros(len(text) // 64 + 2, np.uint64)
    barred = np.zeros_like(borders)
    begins = np.zeros(n + 1, np.int64)
    first, pen = 0, (_U0, _U0, _U0)
    while first < n:
        last = take(data, offsets, first, room, raw)
        own, ends = offsets[first : last + 1], begins[first + 1 : last + 1]
        if paper:
            pen = prepare_paper(raw, kinds, own, True, classes, text, borders, barred, ends, pen)
        else:
            pen = prepare_unicode(raw, own, True, classes, folding, text, borders, barred, ends, pen)
        first = last
    at = lifted(borders, barred, pen)
    borders[at >> 6] |= _U1 << (np.uint64(at) & _U63)  # The last unit ends here.
    return text[: at + SLACK], borders, begins


@kernel
def _unit_at(text, borders, at):  # type: ignore[no-untyped-def]
    """The key of the unit of an entry that begins at `at`, and where it ends; a space is an empty unit."""
    begin = end = np.uint64(at)
    if text[begin] != BLANK:
        end += _U1
        bits = borders[end >> _U6] >> (end & _U63)
        while bits == _U0:
            end = (end | _U63) + _U1
            bits = borders[end >> _U6]
        end += lowest(bits)
    return key_of(word_of(text, begin, end)), np.int64(end)


@kernel
def _next_unit(text, at, end):  # type: ignore[no-untyped-def]
    """Where the unit of an entry after one that ends at `at` begins, or -1, and whether a space is between them."""
    if at == end or (at == end - 1 and text[at] == BLANK):
        return np.int64(-1), _U0
    if text[at] == BLANK:
        return np.int64(at + 1), _U1
    return np.int64(at), _U0


@kernel
def _follower(unit, gap):  # type: ignore[no-untyped-def]
    """The filter's bit for a unit that follows."""
    return np.uint32(_U1 << bit_of(step_of(unit, gap)))


@numba.njit(cache=True, nogil=True)
def nodes_of(text, borders, begins):  # type: ignore[no-untyped-def]
    """The trie of all entries.

    Returns:
        keys uint64, filters uint32: of the nodes, a slot each, 0 where there is none; bool, whether a node is the last
        of an entry that goes on; key of each entry's node, uint64 [n], 0 for an empty entry.
    """
    n = len(begins) - 1
    size = 1024
    while size < 2 * n:
        size *= 2
    keys, filters = np.zeros(size, np.uint64), np.zeros(size, np.uint32)
    holds, continues = np.full(size, -1, np.int32), np.zeros(size, np.int32)
    node_of = np.zeros(n, np.uint64)
    used = 0
    # Entries on their way down: at most one more than was there, for each split that an insertion makes.
    stack = [(np.int64(0), _U0, np.int64(0), _U0)]
    stack.pop()
    for first in range(n):
        if begins[first] == begins[first + 1]:
            continue
        start = begins[first] + (1 if text[begins[first]] == BLANK else 0)
        stack.append((np.int64(first), _U0, np.int64(start), _U0))
        while stack:
            entry, parent, at, gap = stack.pop()
            while True:
                if used * 4 > size * 3:
                    keys, filters, holds, continues = _grown(keys, filters, holds, continues)
                    size = len(keys)
                unit, stop = _unit_at(text, borders, at)
                key = child_of(parent, step_of(unit, gap)) if parent else unit
                after, gap = _next_unit(text, stop, begins[entry + 1])
                slot = _slot(keys, key)
                if keys[slot] == _U0:
                    used += 1
                    keys[slot], holds[slot], node_of[entry] = key, entry, key
                    continues[slot] = after - begins[entry] if after >= 0 else -1
                    break
                if filters[slot] == 0:  # One entry ended the trie here.
                    other, rest = np.int64(holds[slot]), np.int64(continues[slot])
                    if rest < 0 and after < 0:
                        node_of[entry] = key
                        break
                    if rest >= 0:
                        rest += begins[other]
                        there = np.uint64(text[rest - 1] == BLANK)
                        filters[slot] |= _follower(_unit_at(text, borders, rest)[0], there)
                        stack.append((other, key, rest, there))
                        holds[slot] = -1
                if after < 0:
                    node_of[entry] = key
                    holds[slot] = entry
                    break
                filters[slot] |= _follower(_unit_at(text, borders, after)[0], gap)
                parent, at = key, after
    goes_on = np.zeros(len(keys), np.bool_)
    for slot in range(len(keys)):
        if keys[slot] != _U0 and filters[slot] == 0 and continues[slot] >= 0:
            rest = begins[holds[slot]] + continues[slot]
            filters[slot] = _follower(_unit_at(text, borders, rest)[0], np.uint64(text[rest - 1] == BLANK))
            goes_on[slot] = True
    return keys, filters, goes_on, node_of


@kernel
def _slot(keys, key):  # type: ignore[no-untyped-def]
    """The slot that holds a key, or the empty one where it belongs; the number of slots is a power of two."""
    slot = np.int64(key >> np.uint64(20)) & (len(keys) - 1)
    while keys[slot] != _U0 and keys[slot] != key:
        slot = (slot + 1) & (len(keys) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def _grown(keys, filters, holds, continues):  # type: ignore[no-untyped-def]
    """The same table with twice as many slots."""
    size = 2 * len(keys)
    new = np.zeros(size, np.uint64), np.zeros(size, np.uint32), np.full(size, -1, np.int32), np.zeros(size, np.int32)
    for old in range(len(keys)):
        if keys[old] != _U0:
            slot = _slot(new[0], keys[old])
            new[0][slot], new[1][slot], new[2][slot], new[3][slot] = keys[old], filters[old], holds[old], continues[old]
    return new


@numba.njit(cache=True, nogil=True)
def table_of(keys, filters, goes_on):  # type: ignore[no-untyped-def]
    """The table of buckets, uint64 [buckets * 8], without records as yet."""
    used = np.int64(np.count_nonzero(keys))
    buckets = max(1, np.int64(used / (4 * LOAD)) + 1)
    table = np.zeros(buckets * 8, np.uint64)
    for slot in range(len(table)):
        if slot & 4:
            table[slot] = NO_RECORD
    for old in range(len(keys)):
        key = keys[old]
        if key == _U0:
            continue
        bucket = np.int64(bucket_of(key, table))
        while table[bucket + 3] != _U0:
            bucket = (bucket + 8) % len(table)
        slot = bucket
        while table[slot] != _U0:
            slot += 1
        value = CONTINUES if goes_on[old] else NO_RECORD
        table[slot], table[slot + 4] = key, np.uint64(value) | np.uint64(filters[old]) << _U32
    return table


@numba.njit(cache=True, nogil=True)
def bits_of(table):  # type: ignore[no-untyped-def]
    """A bit for each odd key of the table, uint64 [a power of two]; at least eight times as many bits as keys."""
    odd = 0
    for bucket in range(len(table) // 8):
        for key in table[8 * bucket : 8 * bucket + 4]:
            odd += np.int64(key & _U1)
    size = 1
    while 8 * size < odd:
        size *= 2
    bits = np.zeros(size, np.uint64)
    for bucket in range(len(table) // 8):
        for key in table[8 * bucket : 8 * bucket + 4]:
            if key & _U1:
                bits[place_of(bits, key)] |= _U1 << (key >> _U1 & _U63)
    return bits


@kernel
def place_of(bits, key):  # type: ignore[no-untyped-def]
    """Which word has the bit of an odd key."""
    return key >> _U7 & np.uint64(len(bits) - 1)


@kernel
def may_be(bits, key):  # type: ignore[no-untyped-def]
    """Whether an odd key may be in the table."""
    return bits[place_of(bits, key)] >> (key >> _U1 & _U63) & _U1 != _U0


@numba.njit(cache=True, nogil=True)
def places_of(table, node_of):  # type: ignore[no-untyped-def]
    """Where in the table the node of each entry is, int64 [n]; -1 for an empty entry."""
    places = np.full(len(node_of), -1, np.int64)
    for entry in range(len(node_of)):
        if node_of[entry] != _U0:
            places[entry] = np.int64(find(table, node_of[entry]))
    return places


@numba.njit(cache=True, nogil=True)
def records_of(text, borders, begins, table, places, order):  # type: ignore[no-untyped-def]
    """Records of the entries in the given order, and their positions, or the entries' ids, written to the table.

    Returns:
        uint32: of each record id, length, and its bytes filled up to a multiple of four; then `SLACK` bytes.
    """
    size = SLACK // 4
    for entry in order:
        size += 2 + (begins[entry + 1] - begins[entry] + 3) // 4
    records = np.zeros(size, np.uint32)
    as_bytes = records.view(np.uint8)
    at = 0
    for position in range(len(order)):
        entry = order[position]
        place, begin, end = places[entry], begins[entry], begins[entry + 1]
        first = position == 0 or places[order[position - 1]] != place
        more = position + 1 < len(order) and places[order[position + 1]] == place
        if first:
            unit, stop = _unit_at(text, borders, begin + (text[begin] == BLANK))
            goes_on = table[place] & np.uint64(NO_RECORD) == np.uint64(CONTINUES)
            value = np.uint64(at | (CONTINUES if goes_on else 0))
            if not more and unit & _U1 == _U0 and _next_unit(text, stop, end)[0] < 0:
                value = np.uint64(IS_ID | entry | (SPACE_FOLLOWS if stop < end else 0))
            table[place] = table[place] >> _U32 << _U32 | value
            if value & np.uint64(IS_ID):
                continue
        length = end - begin
        records[at], records[at + 1] = entry, length | (MORE if more else 0)
        as_bytes[4 * at + 8 : 4 * at + 8 + length] = text[begin:end]
        at += 2 + (length + 3) // 4
    return records[: at + SLACK // 4].copy()
