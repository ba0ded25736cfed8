"""Batch normalisation of a graph's convolutions while it is trained; folded into their weights afterwards.

Source: Ioffe and Szegedy, "Batch Normalization" (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edge_vision.train.graph.torch_ops import OPERATORS, Node

_EPSILON, _MOMENTUM = 1e-3, 0.05


class NormalisedConvolutions:
    """scales: trained. statistics: running means and variances, which no gradient reaches."""

    def __init__(self, model: Any, without: Collection[str]) -> None:
        """without: outputs of convolutions that are not normalised."""
        sizes = {one.name: one.dims[0] for one in model.graph.initializer if one.dims}
        self._layers = {
            node.name: (node.input[1], node.input[2])
            for node in model.graph.node
            if node.op_type == "Conv" and node.output[0] not in without
        }
        counts = {name: sizes[weight] for name, (weight, _) in self._layers.items()}
        self.scales = {name: torch.nn.Parameter(torch.ones(n)) for name, n in counts.items()}
        self.statistics = {
            name: (
                torch.nn.Parameter(torch.zeros(n), requires_grad=False),
                torch.nn.Parameter(torch.ones(n), requires_grad=False),
            )
            for name, n in counts.items()
        }

    @property
    def operators(self) -> dict[str, Callable[..., torch.Tensor]]:
        """For a TorchGraph of the model."""
        return {"Conv": self._conv, **BATCHED}

    def _conv(self, node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if node.name not in self._layers:
            return torch.as_tensor(OPERATORS["Conv"](node, x, weight, bias))
        mean, variance = self.statistics[node.name]
        y = OPERATORS["Conv"](node, x, weight, None)
        return F.batch_norm(
            y, mean.data, variance.data, self.scales[node.name], bias, True, _MOMENTUM, _EPSILON
        )

    def folded(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph's constants, with the normalisation in the weights and biases."""
        found = dict(values)
        for name, (weight, bias) in self._layers.items():
            mean, variance = (one.numpy(force=True) for one in self.statistics[name])
            factor = self.scales[name].numpy(force=True) / np.sqrt(variance + _EPSILON)
            found[weight] = (values[weight] * factor[:, None, None, None]).astype(np.float32)
            found[bias] = (values[bias] - mean * factor).astype(np.float32)
        return found


def _concat(node: Node, *xs: torch.Tensor) -> torch.Tensor:
    """Constants, made for one image, are repeated for a batch."""
    batch = max(x.shape[0] for x in xs)
    return torch.cat([x.expand(batch, *x.shape[1:]) if x.shape[0] == 1 else x for x in xs], node["axis"])


BATCHED: dict[str, Callable[..., torch.Tensor]] = {"Concat": _concat}
"""Operators of a graph for one image that also take a batch."""
