"""A trie of units in one hash table, searched for many texts at once.

The key of a node is made of the units on the way to it. Where only one entry lies below a node the trie ends, and the
entry's *record* tells the rest. Keys are 64 bits. That of a first unit of at most seven bytes is its bytes, shuffled:
of an entry that is this unit alone the id stands in the node. All other keys are hashes and not trusted: every match is
compared with its record, byte by byte, so that the answer is exact whatever collides.

A look-up costs what the memory costs. Four nodes share a cache line (a *bucket*: four keys, then four pairs of record
and filter), so that a look-up is one line, seldom two, and a record one more. Texts are searched by the thousand units:
all lines that a step needs are first touched by a loop without branches, so that the memory works on many of them at
once, and then read. Most phrases end without a look-up: a node's filter has a bit for the hash of each unit that
follows it, and, since those of frequent words are full, bits tell of all keys of longer ways whether they may be.

What is found in a text cannot be foreseen, and a wrong guess costs a processor as much as a look-up. So the steps are
loops that write always and count on only where something was found; units are hashed and compared by eight bytes.
"""

from __future__ import annotations

import numba
import numpy as np

from worldclip.curation.rules import (
    CANNOT_BEGIN,
    EACH,
    END,
    ENDS,
    INSIDE,
    SPACE,
    eight,
    prepare_paper,
    prepare_unicode,
)

#: Nodes per slot: fuller saves memory, emptier saves second cache lines.
LOAD = 0.5
NO_RECORD = 0xFFFFFFFF
#: What a node has in place of a record, if its key says all of its entry: the id, and whether a space must follow.
_IS_ID, _SPACE_FOLLOWS, MOST_IDS = 0x80000000, 0x40000000, 0x3FFFFFFF
_MORE = 0x80000000  # Bit of a record's length: the next record has the same key.
_DIGIT = 10  # Bits by which matches are sorted at once.
_WORD = 8  # Bytes that are read at once: buffers have so many more.
_BLANK = 32
#: Bytes of prepared text in hand, whose units' cache lines must fit the second-level cache. A longer text is alone.
_CHUNK = 1 << 14
#: What stands before a unit, bits; an end is listed as a unit, too.
_SPACE_BEFORE, _IS_END = 1, 2
_M1, _M2, _M3 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(0x2545F4914F6CDD1D)
_U0, _U1, _U2, _U3, _U7, _U8, _U31, _U32, _U56, _U63 = (
    np.uint64(value) for value in (0, 1, 2, 3, 7, 8, 31, 32, 56, 63)
)
_LOW63 = np.uint64(0x7FFFFFFFFFFFFFFF)
_HALF, _ALL = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)


@numba.njit(cache=True, nogil=True)
def _first(word, count):  # type: ignore[no-untyped-def]
    """The first `count` bytes of a word of eight, 0 to 8."""
    return word & _ALL >> ((_U8 - count) * _U8 & _U63) if count else _U0


@numba.njit(cache=True, nogil=True)
def _unit(text, at, end):  # type: ignore[no-untyped-def]
    """The key of a unit: even and of no other, if it has at most seven bytes; else odd and a hash. Never zero.

    A unit is empty between two spaces.
    """
    left = np.uint64(end - at)
    if left < _U8:  # Each step can be undone.
        key = (_first(eight(text, at), left) | (left + _U1) << _U56) * _M1 & _LOW63
        key = (key ^ key >> _U32) * _M2 & _LOW63
        return (key ^ key >> _U32) << _U1
    key = left * _M3
    while left > _U8:
        key = (key ^ eight(text, at)) * _M1
        key ^= key >> _U32
        at += _U8
        left -= _U8
    key = (key ^ _first(eight(text, at), left)) * _M1
    key = (key ^ key >> _U32) * _M2
    return key ^ key >> _U32 | _U1


@numba.njit(cache=True, nogil=True)
def _child(parent, unit, gap):  # type: ignore[no-untyped-def]
    """The key of the node that a unit leads to; `gap`: 1 where a space stands before it."""
    key = (parent * _M1 ^ unit) + gap * _M3
    key = (key ^ key >> _U32) * _M2
    return key ^ key >> _U32 | _U1


@numba.njit(cache=True, nogil=True)
def _same(ours, at, theirs, there, length):  # type: ignore[no-untyped-def]
    """Whether two stretches of bytes are equal; eight more bytes can be read of `theirs`."""
    if at + length + _WORD > len(ours):
        same = 0
        while same < length and ours[at + same] == theirs[there + same]:
            same += 1
        return same == length
    differ, at, there, left = _U0, np.uint64(at), np.uint64(there), np.uint64(length)
    while left > _U8:
        differ |= eight(ours, at) ^ eight(theirs, there)
        at, there, left = at + _U8, there + _U8, left - _U8
    return differ | _first(eight(ours, at) ^ eight(theirs, there), left) == _U0


@numba.njit(cache=True, nogil=True)
def _bit(unit, gap):  # type: ignore[no-untyped-def]
    """The filter's bit for a unit that follows."""
    return np.uint32(1) << np.uint32((unit >> _U8 ^ gap * _U8) & _U31)


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
        if slot or last == _U0:
            return np.int64(at) + 3 + slot if slot else -1
        bucket += 1
        if bucket == buckets:
            bucket = 0
    return -1


# --- building -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def prepare_entries(data, offsets, paper, classes, folding):  # type: ignore[no-untyped-def]
    """Bytes (and eight more) and marks of all entries, one after the other, and where each begins, int64 [n + 1]."""
    n = len(offsets) - 1
    size = offsets[n] - offsets[0]
    text = np.empty(size + size // 2 + 2 * n + 1 + _WORD, np.uint8)
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
    return text[: at + 1 + _WORD], mark[: at + 1], begins


@numba.njit(cache=True, nogil=True)
def _unit_at(text, mark, at):  # type: ignore[no-untyped-def]
    """The key of the unit of an entry that begins at `at`, and where it ends; a space is an empty unit."""
    end = at
    if mark[at] != SPACE:
        end += 1
        while mark[end] == INSIDE:
            end += 1
    return _unit(text, np.uint64(at), np.uint64(end)), end


@numba.njit(cache=True, nogil=True)
def _next_unit(mark, at, end):  # type: ignore[no-untyped-def]
    """Where the unit of an entry after one that ends at `at` begins, or -1, and whether a space is between them."""
    if at == end or (at == end - 1 and mark[at] == SPACE):
        return np.int64(-1), _U0
    if mark[at] == SPACE:
        return np.int64(at + 1), _U1
    return np.int64(at), _U0


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
    stack = [(np.int64(0), _U0, np.int64(0), _U0)]
    stack.pop()
    for first in range(n):
        if begins[first] == begins[first + 1]:
            continue
        start = begins[first] + (1 if mark[begins[first]] == SPACE else 0)
        stack.append((np.int64(first), _U0, np.int64(start), _U0))
        while stack:
            entry, parent, at, gap = stack.pop()
            while True:
                if used * 4 > size * 3:
                    keys, filters, holds, continues = _grown(keys, filters, holds, continues)
                    size = len(keys)
                unit, stop = _unit_at(text, mark, at)
                key = _child(parent, unit, gap) if parent else unit
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
                        there = np.uint64(mark[rest - 1] == SPACE)
                        filters[slot] |= _bit(_unit_at(text, mark, rest)[0], there)
                        stack.append((other, key, rest, there))
                        holds[slot] = -1
                if after < 0:
                    node_of[entry] = key
                    holds[slot] = entry
                    break
                filters[slot] |= _bit(_unit_at(text, mark, after)[0], gap)
                parent, at = key, after
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
                bits[key >> _U7 & np.uint64(size - 1)] |= _U1 << (key >> _U1 & _U63)
    return bits


@numba.njit(cache=True, nogil=True)
def _may_be(bits, key):  # type: ignore[no-untyped-def]
    """Whether an odd key may be in the table."""
    return bits[key >> _U7 & np.uint64(len(bits) - 1)] >> (key >> _U1 & _U63) & _U1 != _U0


@numba.njit(cache=True, nogil=True)
def places_of(table, node_of):  # type: ignore[no-untyped-def]
    """Where in the table the node of each entry is, int64 [n]; -1 for an empty entry."""
    places = np.full(len(node_of), -1, np.int64)
    for entry in range(len(node_of)):
        if node_of[entry] != _U0:
            places[entry] = _find(table, len(table) // 8, node_of[entry])
    return places


@numba.njit(cache=True, nogil=True)
def records_of(text, mark, begins, table, places, order):  # type: ignore[no-untyped-def]
    """Records of the entries in the given order, and their positions, or the entries' ids, written to the table.

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
        place, begin, end = places[entry], begins[entry], begins[entry + 1]
        first = position == 0 or places[order[position - 1]] != place
        more = position + 1 < len(order) and places[order[position + 1]] == place
        if first:
            unit, stop = _unit_at(text, mark, begin + (mark[begin] == SPACE))
            value = np.uint64(at)
            if not more and unit & _U1 == _U0 and _next_unit(mark, stop, end)[0] < 0:
                value = np.uint64(_IS_ID | entry | (_SPACE_FOLLOWS if stop < end else 0))
            table[place] = table[place] >> _U32 << _U32 | value
            if value & np.uint64(_IS_ID):
                continue
        length = end - begin
        records[at], records[at + 1] = entry, length | (_MORE if more else 0)
        as_bytes[4 * at + 8 : 4 * at + 8 + length] = text[begin:end]
        at += 2 + (length + 3) // 4
    return records[:at].copy()


# --- searching ------------------------------------------------------------------------------------------------------
#
# Each step is a function of its own, so that its loop keeps in registers what it works on.


@numba.njit(cache=True, nogil=True)
def search(data, offsets, paper, classes, folding, firsts, table, bits, records, record_bytes):  # type: ignore[no-untyped-def]
    """Find all entries in all texts.

    Args:
        data, offsets: the texts, uint8 and int64 [n + 1].
        firsts: bool [256], whether an entry's first unit begins with this byte.
        table, bits, records: as built; `record_bytes` is the memory of `records`, uint8.

    Returns:
        offsets int64 [n + 1], ids uint32: sorted and unique of each text; int64 [3]: buckets looked up, records read,
        and a number without meaning that keeps the compiler from dropping the touching loops.
    """
    n, work = len(offsets) - 1, np.zeros(3, np.int64)
    longest = 0
    for row in range(n):
        longest = max(longest, offsets[row + 1] - offsets[row])
    capacity = max(_CHUNK, 3 * longest + 3)
    text, mark = np.empty(capacity + _WORD, np.uint8), np.empty(capacity + _WORD, np.uint8)
    # Of units: where each begins, what stands before it, its row in the chunk, its key.
    starts, before = np.empty(capacity + _WORD + 1, np.uint64), np.empty(capacity, np.uint8)
    rows, units = np.empty(capacity, np.uint64), np.empty(capacity, np.uint64)
    # Of units on their way down: the first one, the last one, the key of the node.
    items = np.empty(capacity, np.uint64), np.empty(capacity, np.uint64), np.empty(capacity, np.uint64)
    # Of nodes with a record: the first unit, the record.
    asked = np.empty(capacity, np.uint64), np.empty(capacity, np.int64)
    hits, hit_rows = np.empty(4096, np.uint32), np.empty(4096, np.uint64)
    found, found_offsets = np.empty(max(1024, 8 * n), np.uint32), np.zeros(n + 1, np.int64)
    first, used_found = 0, 0
    while first < n:
        used, last = 0, first
        while last < n and used + 3 * (offsets[last + 1] - offsets[last]) + 3 <= capacity:
            begin, end = offsets[last], offsets[last + 1]
            if paper:
                used = prepare_paper(data, begin, end, False, classes, text, mark, used)
            else:
                used = prepare_unicode(data, begin, end, False, classes, folding, text, mark, used)
            text[used], mark[used] = END, ENDS
            used += 1
            last += 1
        count = _units(mark, used, starts)
        left = _roots(text, mark, count, starts, before, rows, units, firsts, items)
        number = 0
        while left:
            hits, hit_rows = _roomier(hits, hit_rows, number + left)
            work[0] += left
            left, questions, number, touched = _look_up(
                table, bits, before, rows, units, left, items, asked, hits, hit_rows, number
            )
            work[1], work[2], question = work[1] + questions, work[2] ^ touched, 0
            while question < questions:
                hits, hit_rows = _roomier(hits, hit_rows, number + questions)
                question, number = _compare(
                    records, record_bytes, text, mark, used, starts, rows, asked, question, questions,
                    hits, hit_rows, number,
                )  # fmt: skip
        while used_found + number > len(found):
            found = np.concatenate((found, np.empty_like(found)))
        hits, hit_rows = _by_id(hits, hit_rows, number)
        used_found = _by_row(hits, hit_rows, number, found, used_found, found_offsets[first : last + 1])
        first = last
    return found_offsets, found[:used_found].copy(), work


@numba.njit(cache=True, nogil=True)
def _roomier(hits, rows, number):  # type: ignore[no-untyped-def]
    """The same arrays, with room for so many."""
    while number > len(hits):
        hits, rows = np.concatenate((hits, np.empty_like(hits))), np.concatenate((rows, np.empty_like(rows)))
    return hits, rows


@numba.njit(cache=True, nogil=True)
def _units(mark, used, starts):  # type: ignore[no-untyped-def]
    """List where units begin, and the end of each text as one more; return how many there are.

    Between two spaces there is an empty unit, at the second one. A text's first space is none.
    """
    count, before = _U0, _U0
    for first in range(_U0, np.uint64(used), _U8):
        marks = eight(mark, first)
        space = marks >> _U1 & ~marks & EACH
        begins = (marks | marks >> _U1 | marks >> _U2) & EACH & ~(space & ~(space << _U8 | before))
        before = space >> _U56
        for at in range(_U8):
            starts[count] = first + at
            count += begins >> (at << _U3) & _U1
    while starts[count - _U1] >= np.uint64(used):  # of what lies behind the last text
        count -= _U1
    starts[count] = used
    return count


@numba.njit(cache=True, nogil=True)
def _roots(text, mark, count, starts, before, rows, units, firsts, items):  # type: ignore[no-untyped-def]
    """Tell of each unit its row, its key and what stands before it, and list those that may begin an entry.

    Returns:
        how many may.
    """
    first_units, last_units, keys = items
    left, row, space = _U0, _U0, _U1
    for unit in range(count):
        at, after = starts[unit], starts[unit + _U1]
        ends = np.uint64(mark[at] == ENDS)
        before[unit] = space | ends << _U1
        space = np.uint64(mark[after - _U1] == SPACE)
        key = _unit(text, at, after - space)
        rows[unit], units[unit] = row, key
        first_units[left], last_units[left], keys[left] = unit, unit, key
        row += ends
        left += np.uint64(firsts[text[at]] & (mark[at] != CANNOT_BEGIN)) & ~ends
    return np.int64(left)


@numba.njit(cache=True, nogil=True)
def _look_up(table, bits, before, rows, units, left, items, asked, hits, hit_rows, number):  # type: ignore[no-untyped-def]
    """Find nodes: append their ids to the hits, list those with a record, and keep the items that may lead further.

    Returns:
        how many items are kept, how many nodes have a record, how many hits there are; and a number without meaning.
    """
    first_units, last_units, keys = items
    asked_units, asked_records = asked
    buckets, touched = len(table) // 8, _U0
    for item in range(left):
        touched ^= table[_bucket(keys[item], buckets) * 8]
    below, questions = 0, 0
    for item in range(left):
        key = keys[item]
        place = _find(table, buckets, key)
        value = table[max(place, 0)] if place >= 0 else np.uint64(NO_RECORD)
        record, follows = np.uint32(value & _HALF), np.uint32(value >> _U32)
        first, unit = first_units[item], last_units[item] + _U1
        gap = np.uint64(before[unit] & _SPACE_BEFORE)

        hits[number], hit_rows[number] = record & np.uint32(MOST_IDS), rows[first]
        is_id = (record >= _IS_ID) & (record != NO_RECORD)
        number += is_id & ((record & np.uint32(_SPACE_FOLLOWS) == 0) | (gap == _U1))
        asked_units[questions], asked_records[questions] = first, record
        questions += record < _IS_ID

        first_units[below], last_units[below], keys[below] = first, unit, _child(key, units[unit], gap)
        below += (before[unit] < _IS_END) & (follows & _bit(units[unit], gap) != 0) & _may_be(bits, keys[below])
    return below, questions, number, np.int64(touched >> _U1)


@numba.njit(cache=True, nogil=True)
def _compare(records, record_bytes, text, mark, used, starts, rows, asked, question, questions, hits, hit_rows, number):  # type: ignore[no-untyped-def]
    """Compare records with the text, and append hits while there is room; return where to go on and how many there are.

    An index that was damaged may tell of records that are none: they are no hits.
    """
    asked_units, asked_records = asked
    touched = np.uint32(0)
    for each in range(question, questions if len(records) else 0):
        touched ^= records[min(asked_records[each], len(records) - 1)]
    hits[number] = touched  # It is written over, or not read: so that the loop is not dropped.
    for each in range(question, questions):
        record = asked_records[each]
        while record + 2 <= len(records):
            length, begin = np.int64(records[record + 1] & np.uint32(_MORE - 1)), 4 * (record + 2)
            if begin + length > len(record_bytes):
                break
            if number == len(hits):
                return each, number
            unit = asked_units[each]
            hits[number], hit_rows[number] = records[record], rows[unit]
            start = np.int64(starts[unit]) - (length > 0 and record_bytes[begin] == _BLANK)
            # It ends where a unit ends: what follows begins another.
            if start + length < used and mark[np.uint64(start + length)] != INSIDE:
                number += _same(record_bytes, begin, text, start, length)
            if not records[record + 1] & np.uint32(_MORE):
                break
            record += 2 + (length + 3) // 4
    return questions, number


@numba.njit(cache=True, nogil=True)
def _by_id(hits, rows, number):  # type: ignore[no-untyped-def]
    """The first `number` hits sorted by id, and their rows: radix sort, whose branches can all be foreseen."""
    spare, spare_rows = np.empty_like(hits), np.empty_like(rows)
    bits, shift, mask = np.uint32(0), np.uint32(0), np.uint32((1 << _DIGIT) - 1)
    for hit in range(number):
        bits |= hits[hit]
    while shift < 32 and bits >> shift:
        _scatter(hits, rows, spare, spare_rows, number, shift, mask)
        hits, spare, rows, spare_rows = spare, hits, spare_rows, rows
        shift += np.uint32(_DIGIT)
    return hits, rows


@numba.njit(cache=True, nogil=True)
def _scatter(hits, rows, to_hits, to_rows, number, shift, mask):  # type: ignore[no-untyped-def]
    """Order hits by one digit of their ids."""
    places = np.zeros(np.int64(mask) + 2, np.uint64)
    for hit in range(number):
        places[(hits[hit] >> shift & mask) + np.uint32(1)] += _U1
    for digit in range(np.int64(mask)):
        places[digit + 1] += places[digit]
    for hit in range(number):
        digit = hits[hit] >> shift & mask
        place = places[digit]
        to_hits[place], to_rows[place] = hits[hit], rows[hit]
        places[digit] = place + _U1


@numba.njit(cache=True, nogil=True)
def _by_row(hits, rows, number, found, used, offsets):  # type: ignore[no-untyped-def]
    """Append hits to `found` row by row, each once; write where each row ends, and return where the last does."""
    places = np.zeros(len(offsets) + 1, np.uint64)
    for hit in range(number):
        places[rows[hit] + _U2] += _U1
    for row in range(2, len(offsets)):
        places[row] += places[row - 1]
    grouped, grouped_rows = np.empty(number, np.uint32), np.empty(number, np.uint64)
    for hit in range(number):
        place = places[rows[hit] + _U1]
        grouped[place], grouped_rows[place] = hits[hit], rows[hit]
        places[rows[hit] + _U1] = place + _U1
    place, last, last_row = np.uint64(used), np.uint32(0), _ALL
    offsets[1:] = 0
    for hit in range(number):
        row = grouped_rows[hit]
        found[place] = grouped[hit]
        place += np.uint64((grouped[hit] != last) | (row != last_row))
        last, last_row = grouped[hit], row
        offsets[row + _U1] = place
    for row in range(1, len(offsets)):  # those without a hit
        offsets[row] = max(offsets[row], offsets[row - 1])
    return np.int64(place)
