"""Searches for the best network of a supernet within a time: uniform widths, Lagrangian, evolution.

Each network is evaluated as a whole, without training. Sums of the closed-form losses of its chains fit it
into the time, but they do not choose: far from the teacher the losses are not additive.

Sources: Real et al., "Regularized Evolution for Image Classifier Architecture Search" (2019), for the
mutations; Cai et al., "Once-for-All" (2020), for the search on a latency model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from edge_vision.optimize.candidate import Size
from edge_vision.train.networks.supernet import Genes, Supernet
from edge_vision.train.search.latency_model import LatencyModel

_PARENTS = 8
_MUTATED_CHAINS = 3


class NetworkSearch:
    """score: of a network, higher is better."""

    def __init__(self, supernet: Supernet, latency: LatencyModel, score: Callable[[Genes], float]) -> None:
        self._supernet, self._latency, self._score = supernet, latency, score

    def ranked(self, networks: Sequence[Genes]) -> list[Genes]:
        """Those with the highest score first."""
        return sorted(networks, key=lambda one: -self._score(one))

    def uniform(self, budget: float) -> list[Genes]:
        """One width for all chains of the native size; of each precision that fits."""
        native = self._supernet.sizes[0]
        found = [
            self._with_widths(np.ones(len(self._supernet.chains)), native, precision, budget, lowest=1)
            for precision in self._supernet.precisions
        ]
        return [one[0] for one in found if one]

    def lagrangian(self, budget: float) -> list[Genes]:
        """The least sum of closed-form losses; of each size and precision that fits."""
        whole = self._supernet.whole
        kinds = product(self._supernet.sizes, self._supernet.precisions)
        found = [self.fitted(replace(whole, size=s, precision=p), budget) for s, p in kinds]
        return [one for one in found if one]

    def from_widths(self, snapshots: Sequence[np.ndarray], budget: float) -> list[Genes]:
        """With the widths of the snapshot that needs the least change to fit; of each size and precision."""
        networks = []
        for size, precision in product(self._supernet.sizes, self._supernet.precisions):
            found = [self._with_widths(one, size, precision, budget, added=True) for one in snapshots]
            nearest = min((one for one in found if one), key=lambda one: one[1], default=None)
            networks += [nearest[0]] if nearest else []
        return networks

    def evolved(
        self, start: Sequence[Genes], budget: float, children: int, seed: int, show: Callable[[int], None]
    ) -> list[Genes]:
        """The start and so many children, those with the highest score first. Deterministic, if the score
        is."""
        rng = np.random.default_rng(seed)
        population = dict.fromkeys(start)
        scores = {one: self._score(one) for one in population}
        for number in range(children):
            parents = sorted(scores, key=lambda one: -scores[one])[:_PARENTS]
            parent = parents[min(rng.integers(len(parents)), rng.integers(len(parents)))]
            child = self._mutated(parent, budget, rng)
            if child and child not in scores:
                scores[child] = self._score(child)
            show(number + 1)
        return sorted(scores, key=lambda one: -scores[one])

    def fitted(self, genes: Genes, budget: float, locked: Collection[int] = ()) -> Genes | None:
        """With as little loss as possible narrower, then wider, to fit; None if it cannot. locked: chains
        that stay as they are. Blocks are neither left out nor put back."""
        kept = list(genes.kept)

        def options(step: int) -> list[tuple[float, float, int, int]]:
            """Loss by time, time, chain and channels of each step to the next choice."""
            now, found = self._latency.of(replace(genes, kept=tuple(kept))), []
            for chain, choices in enumerate(self._supernet.choices):
                at = choices.index(kept[chain]) + step
                if chain in locked or not kept[chain] or not 0 <= at < len(choices) or not choices[at]:
                    continue
                other = [*kept[:chain], choices[at], *kept[chain + 1 :]]
                time = self._latency.of(replace(genes, kept=tuple(other)))
                loss = self._supernet.loss(chain, choices[at]) - self._supernet.loss(chain, kept[chain])
                # What costs no time is the last to go and the first to come.
                found.append((loss / (time - now) if time != now else -np.inf, time, chain, choices[at]))
            return found

        while self._latency.of(replace(genes, kept=tuple(kept))) > budget:
            narrower = options(-1)
            if not narrower:
                return None
            # Loss by time is negative in both directions: here the least loss, there the largest gain.
            _, _, chain, channels = max(narrower)
            kept[chain] = channels
        while wider := [one for one in options(1) if one[1] <= budget]:
            _, _, chain, channels = min(wider)
            kept[chain] = channels
        return replace(genes, kept=tuple(kept))

    def _mutated(self, parent: Genes, budget: float, rng: np.random.Generator) -> Genes | None:
        kept, supernet = list(parent.kept), self._supernet
        size, precision = parent.size, parent.precision
        if rng.random() < 0.15:
            size = supernet.sizes[int(rng.integers(len(supernet.sizes)))]
        if rng.random() < 0.15:
            precision = supernet.precisions[int(rng.integers(len(supernet.precisions)))]
        chosen = rng.choice(
            len(kept), min(len(kept), int(rng.integers(1, _MUTATED_CHAINS + 1))), replace=False
        )
        for chain in chosen:
            choices = supernet.choices[chain]
            step = int(rng.choice([-4, -2, -1, 1, 2, 4]))
            at = int(np.clip(choices.index(kept[chain]) + step, 0, len(choices) - 1))
            kept[chain] = 0 if choices[0] == 0 and rng.random() < 0.2 else choices[at]
        return self.fitted(Genes(tuple(kept), size, precision), budget, {int(one) for one in chosen})

    def _with_widths(
        self,
        widths: np.ndarray,
        size: Size,
        precision: str,
        budget: float,
        lowest: int = 0,
        added: bool = False,
    ) -> tuple[Genes, float] | None:
        """The widest that fits, and how much the widths changed, by a factor or an added number."""

        def genes(change: float) -> Genes:
            wanted = widths + change if added else widths * (1 + change)
            kept = [
                min((c for c in choices if c >= lowest), key=lambda one: abs(one - width * choices[-1]))
                for choices, width in zip(self._supernet.choices, wanted, strict=True)
            ]
            return Genes(tuple(kept), size, precision)

        low, high = -1.0, 1.0
        if self._latency.of(genes(low)) > budget:
            return None
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._latency.of(genes(middle)) <= budget else (low, middle)
        return genes(low), abs(low)
