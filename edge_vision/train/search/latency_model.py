"""Times of networks on this device, and a model of them fitted on whole networks.

The sum of layers measured alone is another time: runtimes fuse layers and change layouts. So whole networks
are measured, in CPU time that alternates with a reference, which a load on the machine changes little. The
model is linear, with coefficients that are not negative: a constant, multiplications, and for each chain its
channels, and whether it is there; all by the number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.optimize.quantization.layer_inputs import multiplications
from edge_vision.train.networks.supernet import Genes, Supernet

_SHARED, _RIDGE = 3, 0.1
"""Coefficients of all networks; for the others, fewer networks than coefficients suffice."""


@dataclass(frozen=True, slots=True)
class LatencyErrors:
    """Of predicted times of networks that the model was not fitted on, relative; spearman: rank
    correlation."""

    mean: float
    worst: float
    spearman: float
    networks: int


class LatencyModel:
    """Predicts the time of a network, as a share of the reference's."""

    def __init__(self, supernet: Supernet, genes: Sequence[Genes], ratios: Sequence[float]) -> None:
        """Fitted on these networks, of which the relative error is least."""
        self._supernet = supernet
        self._multiplications = _chain_multiplications(supernet)
        self._coefficients = {}
        for precision in supernet.precisions:
            at = [i for i, one in enumerate(genes) if one.precision == precision]
            rows = np.array([self._features(genes[i]) / ratios[i] for i in at])
            self._coefficients[precision] = non_negative(rows, np.ones(len(at)), _RIDGE)

    def of(self, genes: Genes) -> float:
        """Its time by that of the reference."""
        return float(self._features(genes) @ self._coefficients[genes.precision])

    def slopes(self, precision: str) -> np.ndarray:
        """(chains,) time of one channel of each chain, at the native size."""
        mixed, by_chain, there = self._parts(self._coefficients[precision])
        counts = np.array([one[-1] for one in self._supernet.choices])
        return np.asarray(by_chain + (mixed * self._multiplications + there) / counts)

    def errors(self, genes: Sequence[Genes], ratios: Sequence[float]) -> LatencyErrors:
        """Of networks that it was not fitted on."""
        found, expected = np.array([self.of(one) for one in genes]), np.array(ratios)
        relative = np.abs(found / expected - 1)
        ranks = np.stack([np.argsort(np.argsort(one)) for one in (found, expected)])
        spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
        mean, worst = float(relative.mean()), float(relative.max())
        return LatencyErrors(round(mean, 4), round(worst, 4), round(spearman, 3), len(genes))

    def _features(self, genes: Genes) -> np.ndarray:
        """1, pixels, multiplications, channels of each chain, whether it is there: all but 1 by pixels."""
        area = genes.size.area / self._supernet.sizes[0].area
        kept = np.array(genes.kept, float)
        whole = np.array([one[-1] for one in self._supernet.choices])
        mixed = float(self._multiplications @ (kept / whole))
        return np.array([1.0, *(area * np.array([1.0, mixed, *kept, *(kept > 0)]))])

    def _parts(self, coefficients: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Of the multiplications, of channels, of chains."""
        n = len(self._supernet.chains)
        return float(coefficients[2]), coefficients[3 : 3 + n], coefficients[3 + n :]


def _chain_multiplications(supernet: Supernet) -> np.ndarray:
    """(chains,) share of the network's multiplications."""
    found = multiplications(supernet.network(supernet.whole), ("Conv",))
    counts = [sum(found.get(name, 0) for name in c.layers) for c in supernet.chains]
    return np.array(counts, float) / max(1, sum(found.values()))


def non_negative(rows: np.ndarray, wanted: np.ndarray, ridge: float) -> np.ndarray:
    """(k,) least-squares coefficients that are not negative, by coordinate descent. rows: (n, k). ridge: of
    all but the first three, which no network lacks."""
    scale = np.maximum(np.linalg.norm(rows, axis=0), 1e-12)
    rows = rows / scale
    weights = np.where(np.arange(rows.shape[1]) < _SHARED, 1e-4, ridge)
    square, right = rows.T @ rows + np.diag(weights), rows.T @ wanted
    found = np.zeros(rows.shape[1])
    for _ in range(1500):
        for i in range(len(found)):
            found[i] = max(0.0, found[i] + (right[i] - square[i] @ found) / square[i, i])
    return np.asarray(found / scale)
