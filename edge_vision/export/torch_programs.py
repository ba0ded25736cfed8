"""An ONNX graph as a program of ExecuTorch (XNNPACK) or TorchScript, made from its PyTorch module.

Neither format keeps the names of inputs and outputs, so a description travels in the file.
"""

from __future__ import annotations

import io
import json
import warnings
from typing import Any

import torch

from edge_vision.export.torch_backends import DESCRIPTION, require
from edge_vision.train.graph.torch_graph import TorchGraph
from edge_vision.train.graph.torch_ops import Node


class _Outputs(torch.nn.Module):
    """The outputs as a tuple, in the order of names. An attribute `graph` would clash with torch.export's."""

    def __init__(self, graph: TorchGraph, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = graph, names

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.network(images)
        return tuple(found[name] for name in self.names)


def _clip(
    node: Node, x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None
) -> torch.Tensor:
    """With limits as numbers: XNNPACK takes no clamp whose limits are tensors."""
    limits = (None if one is None else one.item() for one in (low, high))
    return torch.clamp(x, *limits)


def torchscript(model: Any) -> bytes:
    """The TorchScript archive of a folded ONNX model with fixed dimensions. Raises OptimizeError."""
    module, example, description = _prepared(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Constants of the graph are constants of the program.
        program = torch.jit.freeze(torch.jit.trace(module, example, check_trace=False))
        file = io.BytesIO()
        torch.jit.save(program, file, _extra_files={DESCRIPTION: description})
    return file.getvalue()


def executorch(model: Any) -> bytes:
    """The ExecuTorch program of a folded ONNX model with fixed dimensions.

    Raises OptimizeError, and BackendUnavailable if ExecuTorch is not installed.
    """
    require("executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    module, example, description = _prepared(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (example,), strict=False)
        lowered = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods={DESCRIPTION: description}
        )
    return bytes(lowered.to_executorch().buffer)


def _prepared(model: Any) -> tuple[_Outputs, torch.Tensor, str]:
    """The module, an input, and the description of inputs and outputs."""
    names = [value.name for value in model.graph.output]
    module = _Outputs(TorchGraph(model, operators={"Clip": _clip}), names).eval().requires_grad_(False)
    constants = {one.name for one in model.graph.initializer}
    given = next(value for value in model.graph.input if value.name not in constants)
    example = torch.zeros([dim.dim_value for dim in given.type.tensor_type.shape.dim])
    with torch.no_grad():
        shapes = [list(value.shape) for value in module(example)]
    description = {
        "inputs": [[given.name, list(example.shape)]],
        "outputs": [[name, shape] for name, shape in zip(names, shapes, strict=True)],
    }
    return module, example, json.dumps(description)
