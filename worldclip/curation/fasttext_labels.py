"""FastText's output: the likeliest label of the mean of input rows, and its probability.

Every sum is taken in fastText's own order and precision, so that labels are equal even where two tie. The tree of
labels is mostly gone down once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

#: What a training loss makes of output rows.
HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_AGAINST_ALL = 1, 2, 3, 4
_EPSILON = 1e-5
_LOWEST = np.float32(math.log(_EPSILON))
_NEAR = 1 - 1e-3  # Far more than a sum of rounded logarithms is off by.
_SIGMOIDS, _SIGMOID_LIMIT = 512, 8


class Output(NamedTuple):
    """What turns the mean of input rows into a label."""

    loss: int
    rows: np.ndarray  #: float32 [labels, dim]; for losses but the hierarchical, [dim, labels].
    norms: np.ndarray  #: float32 [labels]
    left: np.ndarray  #: int32 [nodes], children in the tree of labels
    right: np.ndarray


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
def down_the_tree(hidden, output, nodes, scores, likely):  # type: ignore[no-untyped-def]
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
def over_all(hidden, output, products):  # type: ignore[no-untyped-def]
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
