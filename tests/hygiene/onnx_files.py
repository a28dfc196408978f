"""Small ONNX models for tests, made here: what comes out is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mean_colour(path: Path, **told: Any) -> Path:
    """A model whose output is the mean of each channel: [1, 3]. `told` goes to the JSON beside it."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    _save(path, nodes, [1, 3, "h", "w"], [1, 3], [], **told)
    return path


def thumbnail(path: Path) -> Path:
    """A tower whose embedding is a picture's 8 x 8 pixels, grey being 0."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    _save(path, nodes, [1, 3, "h", "w"], [1, 3, "h", "w"], [], size=8, mean=[0.5] * 3)
    return path


def fixed(path: Path, output: np.ndarray, **told: Any) -> Path:
    """A model that says the same of every picture."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "zero"], ["z"]),
        helper.make_node("Add", ["z", "said"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        numpy_helper.from_array(output.astype(np.float32), "said"),
    ]
    _save(path, nodes, [1, 3, "h", "w"], list(output.shape), constants, **told)
    return path


def _save(path: Path, nodes: list[Any], into: list[Any], out: list[Any], constants: list[Any], **told: Any) -> None:
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, into)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        constants,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    path.with_suffix(".json").write_text(json.dumps(told))
