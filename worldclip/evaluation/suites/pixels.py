"""Small images that are published as arrays of pixels: MNIST, CIFAR (binary or Python version), STL-10."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.metrics import Ints
from worldclip.evaluation.pictures import Pictures, check_pointer, from_arrays

Pixels = NDArray[np.uint8]


def read_mnist(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of MNIST in IDX files, packed by gzip or not, at any depth in the folder."""
    images = _idx(_find(folder, "t10k-images*idx3-ubyte*"), 3)
    return _labelled("mnist", images, _idx(_find(folder, "t10k-labels*idx1-ubyte*"), 1))


def read_cifar10(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of CIFAR-10: `test_batch.bin` (a byte of label, then the pixels), else `test_batch`, a pickle."""
    return _cifar("cifar10", folder, "test_batch", b"labels", 1)


def read_cifar100(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of CIFAR-100: `test.bin` (bytes of coarse and fine label, then pixels), else `test`, a pickle."""
    return _cifar("cifar100", folder, "test", b"fine_labels", 2)


def read_stl10(folder: Path) -> tuple[Pictures, Ints]:
    """The test set of STL-10: pixels plane by plane, columns first; labels count from 1."""
    images = np.fromfile(_find(folder, "test_X.bin"), np.uint8)
    if images.size % (3 * 96 * 96):
        raise DataError(f"{folder}: test_X.bin is cut short ({images.size} bytes).")
    columns_first = images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    labels = np.fromfile(_find(folder, "test_y.bin"), np.uint8).astype(np.int64) - 1
    return _labelled("stl10", columns_first, labels)


def _find(folder: Path, *patterns: str) -> Path:
    """The first file of the first pattern that there is one of."""
    found = [path for pattern in patterns for path in sorted(folder.rglob(pattern)) if path.is_file()]
    if not found:
        raise MissingData(f"{folder}: no {' nor '.join(patterns)}, at any depth. Unpack the data set there.")
    return found[0]


def _idx(path: Path, dimensions: int) -> Pixels:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(data, ">i4", count=dimensions, offset=4)
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != 4 + 4 * dimensions + shape.prod():
        raise DataError(f"{path}: is no whole IDX file of {dimensions} dimensions.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _cifar(name: str, folder: Path, part: str, key: bytes, labels: int) -> tuple[Pictures, Ints]:
    """The binary version, whose rows begin with `labels` bytes, the last of them the label; else the Python version."""
    path = _find(folder, f"{part}.bin", part)
    data = path.read_bytes()
    check_pointer(data, path)
    if path.suffix != ".bin":
        pixels, own = _unpickled(data, path, key)
        return _labelled(name, _planes(pixels, 32), own)
    if not data or len(data) % (labels + 3072):
        raise DataError(f"{path}: {len(data)} bytes, not a number of {labels + 3072}-byte rows; it is cut short.")
    rows = np.frombuffer(data, np.uint8).reshape(-1, labels + 3072)
    return _labelled(name, _planes(rows[:, labels:], 32), rows[:, labels - 1])


class _Kept:
    """Stands in a pickle for whatever it would make: keeps what it is given, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads lists, dictionaries, texts, numbers and arrays. Nothing that a file names is imported or called."""

    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (module.replace("_core", "core"), name) not in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs, and which was not called")
        return _Kept


def _unpickled(data: bytes, path: Path, key: bytes) -> tuple[Pixels, Ints]:
    """Pixels uint8 [n, 3072] and labels [n] of a batch of CIFAR's Python version, as Python 2 pickled it."""
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        _, shape, kind, columns_first, content = found[b"data"].state
        if kind.arguments[0] not in (b"u1", "u1"):
            raise ValueError(f"its array is of {kind.arguments[0]!r}, not of bytes")
        pixels = np.frombuffer(content, np.uint8).reshape(shape, order="F" if columns_first else "C")
        return pixels.reshape(-1, 3072), np.array(found[key], np.int64)
    except Exception as error:  # A pickle that is damaged or none may raise anything.
        raise DataError(f"{path}: is no batch of CIFAR's Python version ({error}). Fetch it again.") from None


def _planes(rows: Pixels, side: int) -> Pixels:
    return rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)


def _labelled(name: str, images: Pixels, labels: NDArray[np.integer]) -> tuple[Pictures, Ints]:
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels.")
    return from_arrays(name, [f"{row:05d}" for row in range(len(images))], images), labels.astype(np.int64)
