"""A trie of units in one hash table, searched for many texts at once.

The key of a node is the hash of the units on the way to it. Where only one entry lies below a node the trie ends, and
the entry's *record* tells the rest. Keys are 64 bits and are not trusted: every match is compared with its record, byte
by byte, so that the answer is exact whatever collides.

A look-up costs what the memory costs. Four nodes share a cache line (a *bucket*: four keys, then four pairs of record
and filter), so that a look-up is one line, seldom two, and a match one more. Texts are searched by the thousand units:
all lines that a step needs are first touched by a loop without branches, so that the memory works on many of them at
once, and then read. The filter has a bit for the first byte of each unit that follows the node: most phrases end there
without a look-up.
"""

from __future__ import annotations

import numba
import numpy as np

from worldclip.curation.rules import CANNOT_BEGIN, END, INSIDE, SPACE, prepare_paper, prepare_unicode

#: Nodes per slot: fuller saves memory, emptier saves second cache lines.
LOAD = 0.8
NO_RECORD = 0xFFFFFFFF
_MORE = 0x80000000  # Bit of a record's length: the next record has the same key.
_ITEMS = 2048  # Units that are looked up together: their cache lines must fit the second-level cache.
_MANY = 48  # Matches of one text that are sorted by the library, not by insertion.
_CHUNK = 1 << 15  # Bytes of prepared text in hand; a longer text is prepared alone.
_ROOT = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2, _M3 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(0x2545F4914F6CDD1D)
_U0, _U1, _U2, _U3, _U8, _U32 = (np.uint64(value) for value in (0, 1, 2, 3, 8, 32))
_BYTE, _HALF = np.uint64(255), np.uint64(0xFFFFFFFF)


@numba.njit(cache=True, nogil=True)
def _unit(text, mark, at, key, spaced):  # type: ignore[no-untyped-def]
    """Where the unit at `at` ends, and the key of the node that it leads to from the node `key`.

    `spaced`: 1 where a space stands before it, which is part of the key. A space at `at` is an empty unit.
    """
    word, length = _U0, spaced
    if mark[at] != SPACE:
        word = np.uint64(text[at])
        at += 1
        length += 2
        while mark[at] == INSIDE:
            if length & 15 == spaced:  # eight bytes
                key = (key ^ word) * _M1
                key ^= key >> _U32
                word = _U0
            word = word << _U8 | np.uint64(text[at])
            at += 1
            length += 2
    key = (key ^ word ^ np.uint64(length) * _M3) * _M1
    key = (key ^ key >> _U32) * _M2
    key ^= key >> _U32
    return at, key | _U1  # Zero marks an empty slot.


@numba.njit(cache=True, nogil=True)
def _bit(byte, spaced):  # type: ignore[no-untyped-def]
    """The filter's bit for a unit that begins with `byte`."""
    return np.uint32(1) << np.uint32((np.int64(byte) * 0x9E3779B1 + spaced * 0x5851F42D >> 16) & 31)


@numba.njit(cache=True, nogil=True)
def _bucket(key, buckets):  # type: ignore[no-untyped-def]
    return np.int64((key >> _U32) * np.uint64(buckets) >> _U32)


@numba.njit(cache=True, nogil=True)
def _find(table, buckets, key):  # type: ignore[no-untyped-def]
    """The position of the value of `key` in the table, or -1."""
    bucket = _bucket(key, buckets)
    for _ in range(buckets):
        at = np.uint64(bucket * 8)
        last = table[at + _U3]
        # One sum instead of four branches, which no processor could foresee.
        slot = (table[at] == key) + 2 * (table[at + _U1] == key) + 3 * (table[at + _U2] == key) + 4 * (last == key)
        if slot:
            return np.int64(at) + 3 + slot
        if last == _U0:
            return -1
        bucket += 1
        if bucket == buckets:
            bucket = 0
    return -1


# --- building -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def prepare_entries(data, offsets, paper, classes, folding):  # type: ignore[no-untyped-def]
    """Bytes and marks of all entries, one after the other, and where each begins, int64 [n + 1]."""
    n = len(offsets) - 1
    size = offsets[n] - offsets[0]
    text = np.empty(size + size // 2 + 2 * n + 8, np.uint8)
    mark = np.empty(len(text), np.uint8)
    begins = np.zeros(n + 1, np.int64)
    at = 0
    for row in range(n):
        if offsets[row] < offsets[row + 1]:
            if paper:
                at = prepare_paper(data, offsets[row], offsets[row + 1], True, classes, text, mark, at)
            else:
                at = prepare_unicode(data, offsets[row], offsets[row + 1], True, classes, folding, text, mark, at)
        begins[row + 1] = at
    mark[at] = SPACE  # The last unit ends here.
    return text[: at + 1], mark[: at + 1], begins


@numba.njit(cache=True, nogil=True)
def _next_unit(mark, at, end):  # type: ignore[no-untyped-def]
    """Where the unit of an entry after one that ends at `at` begins, or -1, and whether a space is between them."""
    if at == end or (at == end - 1 and mark[at] == SPACE):
        return np.int64(-1), 0
    if mark[at] == SPACE:
        return np.int64(at + 1), 1
    return np.int64(at), 0


@numba.njit(cache=True, nogil=True)
def nodes_of(text, mark, begins):  # type: ignore[no-untyped-def]
    """The trie of all entries.

    Returns:
        keys uint64, filters uint32: of the nodes, a slot each, 0 where there is none; key of each entry's node, uint64
        [n], 0 for an empty entry.
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
    stack = [(np.int64(0), np.uint64(0), np.int64(0), 0)]
    stack.pop()
    for first in range(n):
        if begins[first] == begins[first + 1]:
            continue
        start = begins[first] + (1 if mark[begins[first]] == SPACE else 0)
        stack.append((np.int64(first), _ROOT, np.int64(start), 0))
        while stack:
            entry, parent, at, spaced = stack.pop()
            while True:
                if used * 4 > size * 3:
                    keys, filters, holds, continues = _grown(keys, filters, holds, continues)
                    size = len(keys)
                stop, key = _unit(text, mark, at, parent, spaced)
                after, gap = _next_unit(mark, stop, begins[entry + 1])
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
                        there = 1 if mark[rest - 1] == SPACE else 0
                        filters[slot] |= _bit(text[rest], there)
                        stack.append((other, key, rest, there))
                        holds[slot] = -1
                if after < 0:
                    node_of[entry] = key
                    holds[slot] = entry
                    break
                filters[slot] |= _bit(text[after], gap)
                parent, at, spaced = key, after, gap
    return keys, filters, node_of


@numba.njit(cache=True, nogil=True)
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
def table_of(keys, filters):  # type: ignore[no-untyped-def]
    """The table of buckets, uint64 [buckets * 8], without records as yet."""
    used = np.int64(np.count_nonzero(keys))
    buckets = max(1, np.int64(used / (4 * LOAD)) + 1)
    table = np.zeros(buckets * 8, np.uint64)
    for old in range(len(keys)):
        key = keys[old]
        if key == _U0:
            continue
        bucket = _bucket(key, buckets)
        while table[bucket * 8 + 3] != _U0:
            bucket = (bucket + 1) % buckets
        slot = bucket * 8
        while table[slot] != _U0:
            slot += 1
        table[slot], table[slot + 4] = key, np.uint64(NO_RECORD) | np.uint64(filters[old]) << _U32
    return table


@numba.njit(cache=True, nogil=True)
def places_of(table, node_of):  # type: ignore[no-untyped-def]
    """Where in the table the node of each entry is, int64 [n]; -1 for an empty entry."""
    places = np.full(len(node_of), -1, np.int64)
    for entry in range(len(node_of)):
        if node_of[entry] != _U0:
            places[entry] = _find(table, len(table) // 8, node_of[entry])
    return places


@numba.njit(cache=True, nogil=True)
def records_of(text, begins, table, places, order):  # type: ignore[no-untyped-def]
    """Records of the entries in the given order, and their positions written to the table.

    Returns:
        uint32: of each record id, length, and its bytes filled up to a multiple of four.
    """
    size = 0
    for entry in order:
        size += 2 + (begins[entry + 1] - begins[entry] + 3) // 4
    records = np.zeros(size, np.uint32)
    as_bytes = records.view(np.uint8)
    at = 0
    for position in range(len(order)):
        entry = order[position]
        place = places[entry]
        if position == 0 or places[order[position - 1]] != place:
            table[place] = table[place] >> _U32 << _U32 | np.uint64(at)
        length = begins[entry + 1] - begins[entry]
        more = position + 1 < len(order) and places[order[position + 1]] == place
        records[at], records[at + 1] = entry, length | (_MORE if more else 0)
        as_bytes[4 * at + 8 : 4 * at + 8 + length] = text[begins[entry] : begins[entry + 1]]
        at += 2 + (length + 3) // 4
    return records


# --- searching ------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def search(data, offsets, paper, classes, folding, firsts, table, records, record_bytes):  # type: ignore[no-untyped-def]
    """Find all entries in all texts.

    Args:
        data, offsets: the texts, uint8 and int64 [n + 1].
        firsts: bool [256], whether an entry's first unit begins with this byte.
        table, records: as built; `record_bytes` is the same memory, uint8.

    Returns:
        offsets int64 [n + 1], ids uint32: sorted and unique of each text; int64 [3]: buckets looked up, records read,
        and a number without meaning that keeps the compiler from dropping the touching loops.
    """
    n, buckets, touched = len(offsets) - 1, len(table) // 8, _U0
    work = np.zeros(3, np.int64)
    longest = 0
    for row in range(n):
        longest = max(longest, offsets[row + 1] - offsets[row])
    capacity = max(_CHUNK, 3 * longest + 3)
    text, mark = np.empty(capacity, np.uint8), np.empty(capacity, np.uint8)
    # Units on their way down: where the first began and the last ended, row in the chunk, key.
    starts, stops = np.empty(_ITEMS, np.int64), np.empty(_ITEMS, np.int64)
    rows, keys = np.empty(_ITEMS, np.int64), np.empty(_ITEMS, np.uint64)
    # Nodes with a record: where the text began, row, record.
    asked, asked_rows, asked_records = (
        np.empty(_ITEMS, np.int64), np.empty(_ITEMS, np.int64), np.empty(_ITEMS, np.int64),
    )  # fmt: skip
    hit_rows, hits = np.empty(4096, np.int64), np.empty(4096, np.uint32)
    found = np.empty(max(1024, 8 * n), np.uint32)
    found_offsets = np.zeros(n + 1, np.int64)
    first, used_found = 0, 0
    while first < n:
        used, last = 0, first
        while last < n and used + 3 * (offsets[last + 1] - offsets[last]) + 3 <= capacity:
            if paper:
                used = prepare_paper(data, offsets[last], offsets[last + 1], False, classes, text, mark, used)
            else:
                begin, end = offsets[last], offsets[last + 1]
                used = prepare_unicode(data, begin, end, False, classes, folding, text, mark, used)
            text[used], mark[used] = END, SPACE
            used += 1
            last += 1

        at, row, number = 1, 0, 0
        while at < used:
            items = 0
            while at < used and items < _ITEMS:
                byte = text[at]
                if byte == END:
                    row += 1
                    at += 2  # over the space before the next text
                    continue
                if firsts[byte] and mark[at] != CANNOT_BEGIN:
                    stop, key = _unit(text, mark, at, _ROOT, 0)
                    starts[items], stops[items], rows[items], keys[items] = at, stop, row, key
                    items += 1
                else:
                    stop = at
                    if mark[at] != SPACE:
                        stop += 1
                        while mark[stop] == INSIDE:
                            stop += 1
                at = stop + 1 if mark[stop] == SPACE and text[stop] != END else stop

            while items:
                work[0] += items
                for item in range(items):
                    touched ^= table[_bucket(keys[item], buckets) * 8]
                questions, below = 0, 0
                for item in range(items):
                    place = _find(table, buckets, keys[item])
                    if place < 0:
                        continue
                    record, follows = np.int64(table[place] & _HALF), np.uint32(table[place] >> _U32)
                    if record != NO_RECORD:
                        asked[questions], asked_rows[questions] = starts[item], rows[item]
                        asked_records[questions] = record
                        questions += 1
                    if follows:
                        stop, spaced = stops[item], 0
                        if mark[stop] == SPACE and text[stop] != END:
                            stop += 1
                            spaced = 1
                        if text[stop] != END and follows & _bit(text[stop], spaced):
                            stop, key = _unit(text, mark, stop, keys[item], spaced)
                            starts[below], rows[below] = starts[item], rows[item]
                            stops[below], keys[below] = stop, key
                            below += 1
                items = below
                work[1] += questions
                for question in range(questions if len(records) else 0):
                    touched ^= np.uint64(records[min(asked_records[question], len(records) - 1)])
                for question in range(questions):
                    record = asked_records[question]
                    while record + 2 <= len(records):
                        length = np.int64(records[record + 1] & np.uint32(_MORE - 1))
                        if 4 * (record + 2) + length > len(record_bytes):
                            break  # no record of ours
                        begin = 4 * (record + 2)
                        start = asked[question]
                        if length and record_bytes[begin] == 32:
                            start -= 1
                        # It ends where a unit ends: what follows begins another.
                        if start + length < used and mark[start + length] != INSIDE:
                            same = 0
                            while same < length and record_bytes[begin + same] == text[start + same]:
                                same += 1
                            if same == length:
                                if number == len(hits):
                                    hit_rows = np.concatenate((hit_rows, np.empty_like(hit_rows)))
                                    hits = np.concatenate((hits, np.empty_like(hits)))
                                hit_rows[number], hits[number] = asked_rows[question], records[record]
                                number += 1
                        if not records[record + 1] & np.uint32(_MORE):
                            break
                        record += 2 + (length + 3) // 4

        # The hits of this chunk, by row, sorted, each once.
        while used_found + number > len(found):
            found = np.concatenate((found, np.empty_like(found)))
        ends = np.zeros(last - first + 1, np.int64)
        for hit in range(number):
            ends[hit_rows[hit] + 1] += 1
        for own in range(last - first):
            ends[own + 1] += ends[own]
        grouped = np.empty(number, np.uint32)
        places = ends[:-1].copy()
        for hit in range(number):
            grouped[places[hit_rows[hit]]] = hits[hit]
            places[hit_rows[hit]] += 1
        for own in range(last - first):
            if ends[own + 1] - ends[own] > _MANY:
                grouped[ends[own] : ends[own + 1]].sort()
            used_found = _sorted_unique(grouped, ends[own], ends[own + 1], found, used_found)
            found_offsets[first + own + 1] = used_found
        first = last
    work[2] = np.int64(touched >> _U1)
    return found_offsets, found[:used_found].copy(), work


@numba.njit(cache=True, nogil=True)
def _sorted_unique(ids, begin, end, found, at):  # type: ignore[no-untyped-def]
    """Append the sorted unique ids to `found`; return the new end."""
    for right in range(begin, end):
        value, left = ids[right], right
        while left > begin and ids[left - 1] > value:
            ids[left] = ids[left - 1]
            left -= 1
        ids[left] = value
    for position in range(begin, end):
        if position == begin or ids[position] != found[at - 1]:
            found[at] = ids[position]
            at += 1
    return at
