"""An ONNX graph as a trainable PyTorch module.

The module interprets the graph node by node. Its parameters have the names of the graph's constants, and
`written_back` puts trained numbers into the graph: nothing else in it changes, so it runs as fast as before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.node_order import sorted_nodes
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS, tail_nodes
from edge_vision.train.graph.torch_ops import OPERATORS, Node

_TRAINED_INPUTS = {**dict.fromkeys(LAYER_OPS, (1, 2)), "LayerNormalization": (1, 2)}
"""Which inputs of an operator are weights."""


class TorchGraph(torch.nn.Module):
    """weights: the trainable constants by name."""

    def __init__(
        self,
        model: Any,
        outputs: Collection[str] = (),
        operators: Mapping[str, Callable[..., Any]] = {},
    ) -> None:
        """model: folded. outputs: tensors to return, default the graph's outputs. operators: used instead of
        those of torch_ops. Raises OptimizeError for an operator without either."""
        super().__init__()
        graph = model.graph
        self._outputs = tuple(outputs) or tuple(value.name for value in graph.output)
        self._operators = {**OPERATORS, **operators}
        self._nodes = _needed(list(map(_node, sorted_nodes(graph))), self._outputs)
        _check_operators(self._nodes, self._operators)
        constants = {one.name for one in graph.initializer}
        self._input = next(value.name for value in graph.input if value.name not in constants)
        self._last_use = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        trained = _weight_names(model)
        used = {name for node in self._nodes for name in node.inputs}
        self.weights: dict[str, torch.nn.Parameter] = {}
        self._constants: dict[str, torch.Tensor] = {}
        for one in (one for one in graph.initializer if one.name in used):
            tensor = torch.as_tensor(import_onnx().numpy_helper.to_array(one).copy())
            if one.name in trained and tensor.is_floating_point():
                self.weights[one.name] = torch.nn.Parameter(tensor)
                # PyTorch allows no dots in names.
                self.register_parameter(f"weight_{len(self.weights)}", self.weights[one.name])
            else:
                self._constants[one.name] = tensor

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name. images: (n, ...) as the graph's input; n may exceed the graph's batch."""
        values: dict[str, torch.Tensor | None] = {
            **self._constants,
            **self.weights,
            self._input: channels_last(images),
            "": None,
        }
        for number, node in enumerate(self._nodes):
            inputs = [values[name] for name in node.inputs]
            found = self._operators[node.op](node, *inputs)
            values.update(zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False))
            for name in set(node.inputs) - set(self._outputs):
                if self._last_use[name] == number and name:
                    del values[name]
        return {name: value for name in self._outputs if (value := values[name]) is not None}

    def trained(self) -> dict[str, np.ndarray]:
        """The weights as they are now, by name."""
        return {name: weight.numpy(force=True) for name, weight in self.weights.items()}


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Images in the memory layout in which convolutions train faster; other tensors as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def written_back(model: Any, values: Mapping[str, np.ndarray]) -> Any:
    """A copy of the model with these constants. A constant with the same bytes keeps its stored form."""
    numpy_helper = import_onnx().numpy_helper
    changed = copy.deepcopy(model)
    for constant in changed.graph.initializer:
        value = values.get(constant.name)
        if value is not None:
            before = numpy_helper.to_array(constant)
            after = np.asarray(value, before.dtype).reshape(before.shape)
            if after.tobytes() != before.tobytes():
                constant.CopyFrom(numpy_helper.from_array(after, constant.name))
    return changed


def _node(node: Any) -> Node:
    read = import_onnx().helper.get_attribute_value
    attributes = {one.name: read(one) for one in node.attribute}
    texts = {key: value.decode() for key, value in attributes.items() if isinstance(value, bytes)}
    return Node(node.op_type, node.name, tuple(node.input), tuple(node.output), {**attributes, **texts})


def _needed(nodes: list[Node], outputs: Collection[str]) -> list[Node]:
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]


def _check_operators(nodes: list[Node], operators: Collection[str]) -> None:
    unknown = sorted({node.op for node in nodes} - set(operators))
    if unknown:
        raise OptimizeError(
            f"expected a graph of operators that can be trained, got {', '.join(unknown)}; export the model "
            f"without them, or use `optimize run`, which trains nothing"
        )


def _weight_names(model: Any) -> set[str]:
    tail = {node.name for node in tail_nodes(model)}
    return {
        node.input[i]
        for node in model.graph.node
        if node.name not in tail
        for i in _TRAINED_INPUTS.get(node.op_type, ())
        if i < len(node.input)
    }
