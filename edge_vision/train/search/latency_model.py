"""Times of networks on this device, and a model of them fitted on whole networks.

The sum of layers measured alone is another time: runtimes fuse layers and change layouts. So whole networks
are measured, in CPU time that alternates with a reference, which a load on the machine changes little. The
model has coefficients that are not negative: a constant, the number of pixels, the kept share of all chains,
each by its time within the whole teacher, and for each chain a further one, as small as the data allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_vision.train.networks.supernet import Genes, Supernet

_SHARED, _RIDGE = 3, 1.0
"""Coefficients of all networks; how much those of single chains are kept small."""
_ITERATIONS = 500


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

    def __init__(
        self,
        supernet: Supernet,
        layer_times: Mapping[str, Mapping[str, float]],
        genes: Sequence[Genes],
        ratios: Sequence[float],
    ) -> None:
        """Fitted on these networks, of which the relative error is least. layer_times: precision -> times of
        the layers of the whole teacher."""
        self._supernet = supernet
        self._shares = {name: _chain_shares(supernet, times) for name, times in layer_times.items()}
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
        _, _, common, *own = self._coefficients[precision]
        return np.asarray((common + np.array(own)) * self._shares[precision] / self._whole)

    def errors(self, genes: Sequence[Genes], ratios: Sequence[float]) -> LatencyErrors:
        """Of networks that it was not fitted on."""
        found, expected = np.array([self.of(one) for one in genes]), np.array(ratios)
        relative = np.abs(found / expected - 1)
        ranks = np.stack([np.argsort(np.argsort(one)) for one in (found, expected)])
        spearman = float(np.asarray(np.corrcoef(ranks))[0, 1])
        mean, worst = float(relative.mean()), float(relative.max())
        return LatencyErrors(round(mean, 4), round(worst, 4), round(spearman, 3), len(genes))

    @property
    def _whole(self) -> np.ndarray:
        return np.array([one[-1] for one in self._supernet.choices], float)

    def _features(self, genes: Genes) -> np.ndarray:
        """1, pixels, and by pixels the kept time of all chains, and of each."""
        area = genes.size.area / self._supernet.sizes[0].area
        kept = self._shares[genes.precision] * np.array(genes.kept) / self._whole
        return np.array([1.0, area, area * kept.sum(), *(area * kept)])


def _chain_shares(supernet: Supernet, times: Mapping[str, float]) -> np.ndarray:
    """(chains,) share of the time of all chains."""
    found = np.array([sum(times.get(name, 0.0) for name in one.layers) for one in supernet.chains])
    return found / max(1e-9, found.sum())


def non_negative(rows: np.ndarray, wanted: np.ndarray, ridge: float) -> np.ndarray:
    """(k,) least-squares coefficients that are not negative, by coordinate descent. rows: (n, k). ridge: of
    all but the first _SHARED."""
    scale = np.maximum(np.linalg.norm(rows, axis=0), 1e-12)
    rows = rows / scale
    weights = np.where(np.arange(rows.shape[1]) < _SHARED, 1e-4, ridge)
    square, right = rows.T @ rows + np.diag(weights), rows.T @ wanted
    found = np.zeros(rows.shape[1])
    for _ in range(_ITERATIONS):
        for i in range(len(found)):
            found[i] = max(0.0, found[i] + (right[i] - square[i] @ found) / square[i, i])
    return np.asarray(found / scale)
