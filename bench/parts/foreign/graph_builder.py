"""Adds nodes to ONNX graphs, and rewrites their layout and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """Adds nodes to a model."""

    def __init__(self, model: Any) -> None:
        self.model, self._count = model, 0

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Returns the output's name, or a list of them."""
        self._count += 1
        name = name or f"{op}_{self._count}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self.model.graph.node.append(helper.make_node(op, inputs, names, name=f"node/{name}", **attributes))
        return name if outputs == 1 else names

    def constant(self, values: Any, kind: type = np.float32) -> str:
        self._count += 1
        name = f"constant_{self._count}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def conv(self, tensor: str, weights: np.ndarray, bias: np.ndarray) -> str:
        return str(self.node("Conv", tensor, self.constant(weights), self.constant(bias)))

    def rows(self, tensor: str, channels: int) -> str:
        """(1, c, h, w) -> (1, h * w, c)."""
        flat = self.node("Reshape", tensor, self.constant([1, channels, -1], np.int64))
        return str(self.node("Transpose", flat, perm=[0, 2, 1]))

    def linear(self, tensor: str, weights: np.ndarray) -> str:
        product = self.node("MatMul", tensor, self.constant(weights))
        return str(self.node("Add", product, self.constant(np.zeros(weights.shape[1]))))

    def flat(self, tensor: str) -> str:
        return str(self.node("Reshape", tensor, self.constant([-1], np.int64)))

    def finish(self, outputs: Sequence[str], inputs: Sequence[str] = ("images",)) -> Any:
        """The model with these outputs, without unused nodes."""
        self.model.graph.output.extend(
            helper.make_empty_tensor_value_info(name)
            for name in outputs
            if name not in {value.name for value in self.model.graph.output}
        )
        inferred = onnx.shape_inference.infer_shapes(self.model)
        return onnx.utils.Extractor(inferred).extract_model(list(inputs), list(outputs))


def nhwc(model: Any) -> Any:
    """The model with an image of (1, h, w, 3)."""
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    sides = [dims[2].dim_value, dims[3].dim_value]
    for node in model.graph.node:
        node.input[:] = ["images_nchw" if name == "images" else name for name in node.input]
    first = helper.make_node("Transpose", ["images"], ["images_nchw"], name="nchw", perm=[0, 3, 1, 2])
    model.graph.node.insert(0, first)
    for dim, side in zip(dims, (1, *sides, 3), strict=True):
        dim.dim_value = side
    return model


def float16_weights(model: Any) -> Any:
    """The weights of layers as float16 with a Cast each, as converters store them."""
    read = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if tensor.name in read:
            name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}/float16"))
            model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=1))
    return model
