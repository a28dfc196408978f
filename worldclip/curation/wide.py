"""Many bytes at once, in kernels: loads, stores and comparisons that numba has no words for.

They are written for LLVM, which has the instructions of every processor. Nothing checks that the bytes are there, but
where numba is told to check bounds (`NUMBA_BOUNDSCHECK=1`). Positions are uint64: of a signed one numba asks each time
whether it counts from the end. The answer to "which of 64 bytes" is a uint64, a bit for each, the first lowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

#: Buffers that are read or written by the 64 have so many bytes more than they hold.
SLACK = 64
LANES = 16  #: Numbers that are exchanged and counted at once.
#: Compiles a function that makes no array: numba need not count who holds those it is given.
kernel = numba.njit(cache=True, nogil=True, _nrt=False)


def _pointer(context: Any, builder: Any, kind: Any, place: Sequence[Any], element: Any, count: int) -> Any:
    """An element of an array, given as the two, as a pointer to `element`, where `count` of the array's are needed."""
    struct, at = context.make_array(kind)(context, builder, place[0]), place[1]
    if config.BOUNDSCHECK:
        size = cgutils.unpack_tuple(builder, struct.shape, 1)[0]
        left = builder.sub(size, at)
        missing = builder.or_(
            builder.icmp_unsigned(">", at, size), builder.icmp_unsigned("<", left, left.type(count))
        )  # fmt: skip
        with builder.if_then(missing, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("read or written beyond the end",))
    return builder.bitcast(builder.gep(struct.data, [at]), element.as_pointer())


def _splat(builder: Any, value: Any, count: int) -> Any:
    """A vector of the same value."""
    vector = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


_BYTES, _HALF, _LANES, _WORDS = (
    ir.VectorType(ir.IntType(bits), count) for bits, count in ((8, 64), (8, 32), (32, LANES), (64, 4))
)


@intrinsic  # type: ignore[untyped-decorator]
def eight(_typing: Any, data: Any, at: Any) -> Any:  # noqa: ARG001
    """Eight bytes from any position on, the first lowest."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], values, ir.IntType(64), 8), align=1)

    return types.uint64(data, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def put_eight(_typing: Any, data: Any, at: Any, word: Any) -> Any:  # noqa: ARG001
    """Write eight bytes, the lowest first."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], values[:2], ir.IntType(64), 8)
        builder.store(values[2], place, align=1)
        return context.get_dummy_value()

    return types.none(data, types.uint64, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def copy(_typing: Any, data: Any, at: Any, to: Any, there: Any) -> Any:  # noqa: ARG001
    """Copy 64 bytes."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        word = builder.load(_pointer(context, builder, kinds[0], values[:2], _BYTES, 64), align=1)
        builder.store(word, _pointer(context, builder, kinds[2], values[2:], _BYTES, 64), align=1)
        return context.get_dummy_value()

    return types.none(data, types.uint64, to, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def within(_typing: Any, data: Any, at: Any, low: Any, high: Any) -> Any:  # noqa: ARG001
    """Which of 64 bytes are in low..high."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bytes_ = builder.load(_pointer(context, builder, signature.args[0], values[:2], _BYTES, 64), align=1)
        least, most = values[2], values[3]
        above = builder.sub(bytes_, _splat(builder, least, 64))
        bits = builder.icmp_unsigned("<=", above, _splat(builder, builder.sub(most, least), 64))
        return builder.bitcast(bits, ir.IntType(64))

    return types.uint64(data, types.uint64, types.uint8, types.uint8), code


@intrinsic  # type: ignore[untyped-decorator]
def having(_typing: Any, data: Any, at: Any, bits: Any) -> Any:  # noqa: ARG001
    """Which of 64 bytes have any of some bits."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bytes_ = builder.load(_pointer(context, builder, signature.args[0], values[:2], _BYTES, 64), align=1)
        own = builder.and_(bytes_, _splat(builder, values[2], 64))
        return builder.bitcast(builder.icmp_unsigned("!=", own, ir.Constant(_BYTES, [0] * 64)), ir.IntType(64))

    return types.uint64(data, types.uint64, types.uint8), code


@intrinsic  # type: ignore[untyped-decorator]
def same(_typing: Any, ours: Any, at: Any, theirs: Any, there: Any) -> Any:  # noqa: ARG001
    """Which of 32 bytes are equal."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        one = builder.load(_pointer(context, builder, kinds[0], values[:2], _HALF, 32), align=1)
        other = builder.load(_pointer(context, builder, kinds[2], values[2:], _HALF, 32), align=1)
        bits = builder.bitcast(builder.icmp_unsigned("==", one, other), ir.IntType(32))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(ours, types.uint64, theirs, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def of_four(_typing: Any, words: Any, at: Any, word: Any) -> Any:  # noqa: ARG001
    """Which of four words, uint64, are equal to one, and, as four more bits, which are zero."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        four = builder.load(_pointer(context, builder, signature.args[0], values[:2], _WORDS, 4), align=8)
        zero = ir.Constant(_WORDS, [0] * 4)
        parts = [builder.icmp_unsigned("==", four, each) for each in (_splat(builder, values[2], 4), zero)]
        order = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(8)))
        return builder.zext(builder.bitcast(builder.shuffle_vector(*parts, order), ir.IntType(8)), ir.IntType(64))

    return types.uint64(words, types.uint64, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def exchange(_typing: Any, lanes: Any, at: Any, there: Any) -> Any:  # noqa: ARG001
    """Of two runs of sixteen uint32, put the lesser ones into the first run and the greater ones into the second."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        places = [
            _pointer(context, builder, signature.args[0], (values[0], each), _LANES, LANES) for each in values[1:]
        ]
        one, other = (builder.load(place, align=4) for place in places)
        less = builder.icmp_unsigned("<", one, other)
        builder.store(builder.select(less, one, other), places[0], align=4)
        builder.store(builder.select(less, other, one), places[1], align=4)
        return context.get_dummy_value()

    return types.none(lanes, types.uint64, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def count_changes(_typing: Any, lanes: Any, at: Any, counts: Any, there: Any) -> Any:  # noqa: ARG001
    """Of two runs of sixteen uint32, one behind the other, count one for each pair that differs."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        behind = builder.add(values[1], values[1].type(LANES))
        one, other = (
            builder.load(_pointer(context, builder, kinds[0], (values[0], each), _LANES, LANES), align=4)
            for each in (values[1], behind)
        )
        place = _pointer(context, builder, kinds[2], values[2:], _LANES, LANES)
        changes = builder.zext(builder.icmp_unsigned("!=", one, other), _LANES)
        builder.store(builder.add(builder.load(place, align=4), changes), place, align=4)
        return context.get_dummy_value()

    return types.none(lanes, types.uint64, counts, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def fetch(_typing: Any, words: Any, at: Any) -> Any:  # noqa: ARG001
    """Have the cache line of a word brought near, and do not wait for it. It need not be there."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, place = ir.IntType(32), _pointer(context, builder, signature.args[0], values, ir.IntType(8), 0)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        name = "llvm.prefetch.p0"
        prefetch = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(prefetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(words, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def lowest(_typing: Any, word: Any) -> Any:  # noqa: ARG001
    """The position of a word's lowest bit that is set; 64 if none is."""

    def code(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def highest(_typing: Any, word: Any) -> Any:  # noqa: ARG001
    """The position of a word's highest bit that is set; 0 if none is."""

    def code(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        lowest_one = builder.or_(values[0], values[0].type(1))
        return builder.sub(values[0].type(63), builder.ctlz(lowest_one, ir.IntType(1)(0)))

    return types.uint64(types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def ones(_typing: Any, word: Any) -> Any:  # noqa: ARG001
    """How many bits of a word are set."""

    def code(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), code
