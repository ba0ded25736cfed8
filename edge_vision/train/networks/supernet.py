"""The trained teacher as a supernet: its inner channels in the order of their importance, its residual
blocks, its input size and its precision are choices, and each combination is a network that runs.

A network is cut from the teacher in closed form, as in `pruning`.

Source of the idea: Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment"
(2020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from edge_vision.core.model_spec import InputSpec
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit
from edge_vision.optimize.quantization.input_moments import InputMoments
from edge_vision.train.networks.pruning import (
    STEP,
    InnerChannels,
    chains,
    eliminations,
    keep,
)

_NARROWEST = 0.15
"""The mean kept share of channels of a random network, at least."""


@dataclass(frozen=True, slots=True)
class Genes:
    """A network of the supernet. kept: channels of each chain, 0 = the block is left out."""

    kept: tuple[int, ...]
    size: Size
    precision: str

    @property
    def id(self) -> str:
        """Its name in files."""
        return f"{self.precision}-{self.size}-{'.'.join(map(str, self.kept))}"


class Supernet:
    """chains: in graph order. choices: of each chain, ascending, the last is all channels. orders, losses: as
    of `Elimination`. sizes: the native one first."""

    def __init__(
        self,
        model: Any,
        moments: Mapping[str, InputMoments],
        spec: InputSpec,
        sizes: Sequence[Size],
        precisions: Sequence[str],
        show: Count = no_count,
    ) -> None:
        """model: folded. show: see `eliminations`. Raises OptimizeError for a model without a choice of
        channels."""
        self._model, self._moments, self._spec = model, moments, spec
        self.sizes, self.precisions = tuple(sizes), tuple(precisions)
        self.chains: list[InnerChannels] = []
        self.choices: list[tuple[int, ...]] = []
        self.orders: list[np.ndarray] = []
        self.losses: list[np.ndarray] = []
        found = chains(model)
        for chain, step in zip(found, eliminations(model, found, moments, {}, show), strict=True):
            counts = step.counts()
            if len(counts) > 1:
                self.chains.append(chain)
                self.choices.append(tuple(int(n) for n in (len(step.order) - counts)[::-1]))
                self.orders.append(step.order)
                self.losses.append(step.loss)
        if not self.chains:
            raise OptimizeError(
                f"expected a model with inner channels, {STEP} or more, before 1x1 convolutions, got none: "
                f"use `optimize run`"
            )

    @property
    def whole(self) -> Genes:
        """The teacher itself."""
        return Genes(tuple(one[-1] for one in self.choices), self.sizes[0], self.precisions[0])

    def loss(self, chain: int, kept: int) -> float:
        """What a chain with so many channels loses, in closed form. Losses of chains are added."""
        return float(self.losses[chain][len(self.orders[chain]) - kept])

    def spec(self, size: Size) -> InputSpec:
        """The input of networks of this size."""
        return replace(self._spec, width_px=size.width_px, height_px=size.height_px)

    def network(self, genes: Genes) -> Any:
        """Its fp32 graph, folded. Raises OptimizeError if the graph does not accept the size."""
        cut = copy.deepcopy(self._model)
        for chain, order, kept in zip(self.chains, self.orders, genes.kept, strict=True):
            keep(cut, chain, order[len(order) - kept :], self._moments)
        del cut.graph.value_info[:]
        if genes.size != self.sizes[0]:
            graph_edit.resize(cut, self._spec.name, self._spec.layout, genes.size)
        return cut

    def spread(self, count: int, rng: np.random.Generator) -> list[Genes]:
        """So many networks, of each size and precision with evenly spread widths: a model that is fitted on
        them has little to extrapolate."""
        kinds = list(product(self.sizes, self.precisions))
        return [
            self._near(width, rng, *kind)
            for number, kind in enumerate(kinds)
            for width in np.linspace(_NARROWEST, 1.0, len(range(number, count, len(kinds))))
        ]

    def random(self, rng: np.random.Generator) -> Genes:
        """Around a random width, so that slow and fast networks are equally likely."""
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        precision = self.precisions[int(rng.integers(len(self.precisions)))]
        return self._near(rng.uniform(_NARROWEST, 1.0), rng, size, precision)

    def _near(self, width: float, rng: np.random.Generator, size: Size, precision: str) -> Genes:
        kept = []
        for choices in self.choices:
            wanted = choices[-1] * np.clip(width + rng.normal(0, 0.2), 0.0, 1.0)
            kept.append(min(choices, key=lambda one: abs(one - wanted)))
        return Genes(tuple(kept), size, precision)
