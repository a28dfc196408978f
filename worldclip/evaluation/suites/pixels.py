"""Small images that are published as arrays of pixels: MNIST, CIFAR (binary version), STL-10."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.metrics import Ints
from worldclip.evaluation.pictures import Pictures, from_arrays

Pixels = NDArray[np.uint8]


def read_mnist(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of MNIST in IDX files, packed by gzip or not, at any depth in the folder."""
    images = _idx(_find(folder, "t10k-images*idx3-ubyte*"), 3)
    return _labelled("mnist", images, _idx(_find(folder, "t10k-labels*idx1-ubyte*"), 1))


def read_cifar10(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of CIFAR-10, binary version: a byte of label, then 3,072 of pixels, plane by plane."""
    rows = _cifar(folder, "test_batch.bin", 1)
    return _labelled("cifar10", _planes(rows[:, 1:], 32), rows[:, 0])


def read_cifar100(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of CIFAR-100, binary version: bytes of coarse and fine label, then the pixels."""
    rows = _cifar(folder, "test.bin", 2)
    return _labelled("cifar100", _planes(rows[:, 2:], 32), rows[:, 1])


def read_stl10(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of STL-10: pixels plane by plane, columns first; labels count from 1."""
    images = np.fromfile(_find(folder, "test_X.bin"), np.uint8)
    if images.size % (3 * 96 * 96):
        raise DataError(f"{folder}: test_X.bin is cut short ({images.size} bytes).")
    columns_first = images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    labels = np.fromfile(_find(folder, "test_y.bin"), np.uint8).astype(np.int64) - 1
    return _labelled("stl10", columns_first, labels)


def _find(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern))
    if not found:
        pickled = ", found only Python pickles, which are never opened" if any(folder.rglob("*_batch*")) else ""
        raise MissingData(f"{folder}: no {pattern}{pickled}. Fetch the binary version of the data set.")
    return found[0]


def _idx(path: Path, dimensions: int) -> Pixels:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(data, ">i4", count=dimensions, offset=4)
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != 4 + 4 * dimensions + shape.prod():
        raise DataError(f"{path}: is no whole IDX file of {dimensions} dimensions.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _cifar(folder: Path, name: str, labels: int) -> Pixels:
    path = _find(folder, name)
    data = np.fromfile(path, np.uint8)
    if not data.size or data.size % (labels + 3072):
        raise DataError(f"{path}: {data.size} bytes, not a number of {labels + 3072}-byte rows; it is cut short.")
    return data.reshape(-1, labels + 3072)


def _planes(rows: Pixels, side: int) -> Pixels:
    return rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def _labelled(name: str, images: Pixels, labels: NDArray[np.integer]) -> tuple[Pictures, Ints]:
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels.")
    return from_arrays(name, [f"{row:05d}" for row in range(len(images))], images), labels.astype(np.int64)
