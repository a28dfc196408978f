"""Each tower as an ONNX graph, written from CLIP's layout node by node: no tracing, no torch (opset 20).

    vision_model.onnx   pixel_values: float [batch, 3, side, side], normalised -> image_embeds: float [batch, d]
    text_model.onnx     input_ids: int64 [batch, length], length up to the context -> text_embeds: float [batch, d]

The names are those of transformers' own exports. Pooling at the first end of sequence and normalisation are inside.
Weights lie beside a graph in `<graph>.onnx.data`, which onnxruntime maps into memory: a graph's own file ends at 2 GB.

fp16 holds weights and states in half precision. int8 holds the matrices of the blocks as bytes with one scale an
output, and the token embedding as bytes with one scale a token; states become bytes with one scale a position at each
product, so that an embedding never depends on what else is in its batch. Norms, softmax and sums stay fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from worldclip.config import ModelConfig, TowerConfig
from worldclip.storage import replacing, write_bytes

Precision = Literal["fp32", "fp16", "int8"]
Arrays = Mapping[str, np.ndarray]

OPSET = 20
IR_VERSION = 10

#: Bytes from which a constant is kept beside the graph.
_EXTERNAL = 1024
_MASKED = -1e4  #: a score that vanishes in a softmax and that fp16 can hold


@dataclass(kw_only=True)
class _Graph:
    """Nodes and constants in the order in which they were added; each result has a number for a name."""

    precision: Precision
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def float_type(self) -> np.dtype[Any]:
        return np.dtype(np.float16 if self.precision == "fp16" else np.float32)

    def constant(self, array: np.ndarray) -> str:
        """A constant; floats are held in the graph's precision."""
        name = f"c{len(self.constants)}"
        if array.dtype.kind == "f":
            array = array.astype(self.float_type)
        self.constants[name] = np.asarray(array, order="C")
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and name its result."""
        return self._add(kind, 1, *inputs, **attributes)[0]

    def thirds(self, states: str) -> list[str]:
        """The last axis in three equal parts."""
        return self._add("Split", 3, states, axis=-1, num_outputs=3)

    def _add(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"n{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def cast(self, value: str, kind: Any) -> str:
        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def norm(self, weights: Arrays, name: str, states: str) -> str:
        scale, bias = self.constant(weights[f"{name}.weight"]), self.constant(weights[f"{name}.bias"])
        return self("LayerNormalization", states, scale, bias, axis=-1, epsilon=1e-5)

    def linear(self, states: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """`states @ weight.T + bias`, weight [out, in]."""
        if self.precision == "int8":
            product = self._byte_product(states, weight)
        else:
            product = self("MatMul", states, self.constant(weight.T))
        return product if bias is None else self("Add", product, self.constant(bias))

    def _byte_product(self, states: str, weight: np.ndarray) -> str:
        scale, held = as_bytes(weight)
        largest = self("ReduceMax", self("Abs", states), self.integers(-1), keepdims=1)
        step = self("Mul", self("Max", largest, self.number(1e-12)), self.number(1 / 127))
        rounded = self("Round", self("Div", states, step))
        state_bytes = self.cast(self("Add", rounded, self.number(128)), np.uint8)
        zero = self.constant(np.array(128, np.uint8))
        whole = self("MatMulInteger", state_bytes, self.constant(held.T), zero, zero)
        return self("Mul", self("Mul", self.cast(whole, np.float32), step), self.constant(scale[:, 0]))

    def unit(self, states: str) -> str:
        """Rows of length 1, in fp32."""
        states = self.cast(states, np.float32) if self.precision == "fp16" else states
        length = self("ReduceL2", states, self.integers(-1), keepdims=1)
        return self("Div", states, length)


def as_bytes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [rows, columns] as scales [rows, 1] and uint8 around 128: row = scale * (bytes - 128)."""
    scale = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12).astype(np.float32) / 127
    return scale, (np.rint(weight / scale) + 128).astype(np.uint8)


def image_graph(weights: Arrays, config: ModelConfig, precision: Precision) -> tuple[Any, dict[str, np.ndarray]]:
    """The image tower, from weights in CLIP's layout: a graph and its constants."""
    graph, width = _Graph(precision=precision), config.vision.width
    pixels = graph.cast("pixel_values", np.float16) if precision == "fp16" else "pixel_values"
    patch = config.patch_size
    states = graph("Conv", pixels, graph.constant(weights["visual.conv1.weight"]), strides=[patch, patch])
    states = graph("Transpose", graph("Reshape", states, graph.integers(0, width, -1)), perm=[0, 2, 1])
    batch = graph("Shape", "pixel_values", start=0, end=1)
    shape = graph("Concat", batch, graph.integers(1, width), axis=0)
    first = graph("Expand", graph.constant(weights["visual.class_embedding"].reshape(1, 1, width)), shape)
    states = graph("Concat", first, states, axis=1)
    states = graph("Add", states, graph.constant(weights["visual.positional_embedding"]))
    states = graph.norm(weights, "visual.ln_pre", states)
    states = _blocks(graph, weights, "visual.", states, config.vision, config.activation, mask=None)
    pooled = graph.norm(weights, "visual.ln_post", graph("Gather", states, graph.constant(np.array(0)), axis=1))
    embedding = graph.unit(graph("MatMul", pooled, graph.constant(weights["visual.proj"])))
    side = config.image_size
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, side, side])]
    return _finished(graph, "image_embeds", inputs, embedding, config.embedding)


def text_graph(
    weights: Arrays, config: ModelConfig, end: int, precision: Precision
) -> tuple[Any, dict[str, np.ndarray]]:
    """The text tower, from weights in CLIP's layout: a graph and its constants. `end` is the end of sequence's id."""
    graph = _Graph(precision=precision)
    context = len(weights["positional_embedding"])
    if precision == "int8":
        scale, held = as_bytes(weights["token_embedding.weight"])
        found = graph.cast(graph("Gather", graph.constant(held), "input_ids", axis=0), np.float32)
        steps = graph("Gather", graph.constant(scale), "input_ids", axis=0)
        states = graph("Mul", graph("Sub", found, graph.number(128)), steps)
    else:
        states = graph("Gather", graph.constant(weights["token_embedding.weight"]), "input_ids", axis=0)
    length = graph("Shape", "input_ids", start=1, end=2)
    zero, axis = graph.integers(0), graph.integers(0)
    positions = graph("Slice", graph.constant(weights["positional_embedding"]), zero, length, axis)
    states = graph("Add", states, positions)
    whole = graph.constant(np.triu(np.full((context, context), _MASKED, np.float32), 1))
    both = graph("Concat", length, length, axis=0)
    mask = graph("Slice", whole, graph.integers(0, 0), both, graph.integers(0, 1))
    states = _blocks(graph, weights, "", states, config.text, config.activation, mask=mask)
    ends = graph.cast(graph("Equal", "input_ids", graph.constant(np.array(end))), np.int32)
    at = graph("ArgMax", ends, axis=1, keepdims=1)  # the first of equals
    pooled = graph.norm(weights, "ln_final", graph("GatherND", states, at, batch_dims=1))
    embedding = graph.unit(graph("MatMul", pooled, graph.constant(weights["text_projection"])))
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    return _finished(graph, "text_embeds", inputs, embedding, config.embedding)


def _blocks(
    graph: _Graph, weights: Arrays, tower: str, states: str, config: TowerConfig, activation: str, mask: str | None
) -> str:
    size = config.width // config.heads
    for block in range(config.layers):
        at = f"{tower}transformer.resblocks.{block}"
        # The scale of the scores is put into the queries once, here.
        scale = np.concatenate([np.full(config.width, size**-0.5), np.ones(2 * config.width)]).astype(np.float32)
        mixed = graph.linear(
            graph.norm(weights, f"{at}.ln_1", states),
            weights[f"{at}.attn.in_proj_weight"] * scale[:, None],
            weights[f"{at}.attn.in_proj_bias"] * scale,
        )
        query, key, value = (
            graph("Reshape", part, graph.integers(0, 0, config.heads, size)) for part in graph.thirds(mixed)
        )
        scores = graph(
            "MatMul", graph("Transpose", query, perm=[0, 2, 1, 3]), graph("Transpose", key, perm=[0, 2, 3, 1])
        )
        shares = graph("Softmax", graph("Add", scores, mask) if mask else scores, axis=-1)
        seen = graph("MatMul", shares, graph("Transpose", value, perm=[0, 2, 1, 3]))
        seen = graph("Reshape", graph("Transpose", seen, perm=[0, 2, 1, 3]), graph.integers(0, 0, config.width))
        states = graph("Add", states, _linear_of(graph, weights, f"{at}.attn.out_proj", seen))
        inner = _linear_of(graph, weights, f"{at}.mlp.c_fc", graph.norm(weights, f"{at}.ln_2", states))
        if activation == "quick_gelu":
            inner = graph("Mul", inner, graph("Sigmoid", graph("Mul", inner, graph.number(1.702))))
        else:
            inner = graph("Gelu", inner)
        states = graph("Add", states, _linear_of(graph, weights, f"{at}.mlp.c_proj", inner))
    return states


def _linear_of(graph: _Graph, weights: Arrays, name: str, states: str) -> str:
    return graph.linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _finished(
    graph: _Graph, name: str, inputs: list[Any], embedding: str, dimension: int
) -> tuple[Any, dict[str, np.ndarray]]:
    graph.nodes.append(helper.make_node("Identity", [embedding], [name]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", dimension])]
    return helper.make_graph(graph.nodes, name, inputs, outputs), graph.constants


def write_graph(graph: Any, constants: Mapping[str, np.ndarray], path: Path) -> None:
    """Write a graph to `path` and its larger constants to `path` + ".data"; the same graph gives the same bytes.

    Raises:
        StorageError: the disk refused.
    """
    data = path.with_name(path.name + ".data")
    offset = 0
    with replacing(data) as temporary, temporary.open("wb") as file:
        for name, array in constants.items():
            tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            if array.nbytes < _EXTERNAL:
                tensor.raw_data = array.tobytes()
            else:
                file.write(array.data)
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", offset), ("length", array.nbytes)):
                    tensor.external_data.add(key=key, value=str(value))
                offset += array.nbytes
                padding = -array.nbytes % 64  # onnxruntime maps what is aligned
                file.write(bytes(padding))
                offset += padding
            graph.initializer.append(tensor)
    model = helper.make_model(
        graph, producer_name="worldclip", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
