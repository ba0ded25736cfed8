"""Differentiable search: each chain of a supernet has one trainable width, which opens gates on its channels
in the order of their importance. The loss is that of distillation, and the predicted time by its price, a
Lagrange multiplier that rises while the time is above a target. The target decreases step by step: one
training passes all budgets.

Random widths instead, one network in each step, train a supernet from scratch.

Sources: Wan et al., "FBNetV2" (2020); Guo et al., "DMCP: Differentiable Markov Channel Pruning" (2020); Yu
and Huang, "Universally Slimmable Networks" (2019), for random widths.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from edge_vision.train.graph.torch_graph import TorchGraph
from edge_vision.train.graph.torch_ops import OPERATORS, Node

_START, _SOFTNESS = 1.15, 0.05
"""Width at first, so that all gates are open; share of the channels over which gates close."""
_RANDOM_LIMITS = (0.25, 1.0)
_PRICE, _PRICE_RATE = 0.1, 1.0
"""Of the time at first; what a step adds, by the relative excess."""
_DECREASE = 0.85
"""Share of the steps after which the target is the lowest."""


class GatedGraph(torch.nn.Module):
    """graph: trains as it is. widths (chains,): shares of channels. steps: how often it ran. price: of the
    time."""

    def __init__(
        self,
        model: Any,
        orders: Mapping[tuple[str, ...], np.ndarray],
        outputs: Collection[str],
        operators: Mapping[str, Callable[..., Any]],
        random: bool = False,
    ) -> None:
        """orders: names of the projections of a chain -> their input channels, the least important first.
        random: each other run has random widths, the others all channels."""
        super().__init__()
        self._conv_operator = operators.get("Conv", OPERATORS["Conv"])
        self.graph = TorchGraph(model, outputs, {**operators, "Conv": self._conv})
        self._chains = {name: i for i, names in enumerate(orders) for name in names}
        self._ranks = [
            torch.as_tensor(np.argsort(order[::-1]).astype(np.float32)) for order in orders.values()
        ]
        self.widths = torch.nn.Parameter(torch.full((len(orders),), _START), requires_grad=not random)
        self.steps = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.price = torch.nn.Parameter(torch.tensor(_PRICE), requires_grad=False)
        self._random = random

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name, with the gates of the widths."""
        self.steps.data += 1
        if self._random:
            limits = _RANDOM_LIMITS if int(self.steps) % 2 else (_START, _START)
            widths = np.random.default_rng(int(self.steps)).uniform(*limits, len(self.widths))
            self.widths.data = torch.as_tensor(widths, dtype=torch.float32)
        return dict(self.graph(images))

    def _conv(self, node: Node, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        chain = self._chains.get(node.name)
        if chain is not None:
            x = x * self.gates(chain)[:, None, None]
        return torch.as_tensor(self._conv_operator(node, x, *weights))

    def gates(self, chain: int) -> torch.Tensor:
        """(k,) of each channel, from 0, closed, to 1."""
        ranks = self._ranks[chain]
        distance = self.widths[chain] - (ranks + 0.5) / len(ranks)
        return (distance > 0).float() if self._random else torch.sigmoid(distance / _SOFTNESS)


def time_loss(
    gated: GatedGraph,
    loss: Callable[..., torch.Tensor],
    slopes: Sequence[float],
    whole: float,
    lowest: float,
    steps: int,
) -> Callable[..., torch.Tensor]:
    """The loss of outputs, and the excess of the time over the target by its price, which it adapts.

    slopes: time of each chain with all channels. whole: time with all of them. lowest: target at the end."""
    each = torch.tensor(slopes, dtype=torch.float32)

    def of(found: Any, expected: Any) -> torch.Tensor:
        opened = torch.stack([gated.gates(chain).mean() for chain in range(len(each))])
        time = whole - (each * (1 - opened)).sum()
        done = min(1.0, float(gated.steps) / (_DECREASE * steps))
        target = whole + (lowest - whole) * done
        excess = time / target - 1
        gated.price.data = (gated.price.data + _PRICE_RATE * excess.detach()).clamp(min=0)
        return loss(found, expected) + gated.price.data * excess

    return of
