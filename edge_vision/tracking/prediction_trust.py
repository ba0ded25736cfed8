"""How far predicted displacements of boxes are trusted, learned from the inferences that follow them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_vision.tracking.kalman import BOX, HELD

FIRST_SHARE, FIRST_WEIGHT = 0.5, 0.1
"""Assumed before there are observations, and its weight in squared sides of a box."""
MEMORY = 0.8
"""Weight of an inference's observations after the next one."""


class PredictionTrust(NamedTuple):
    """The share of the predicted displacement by which boxes really move: a least-squares slope.

    It covers whatever is wrong with predictions: a wrong or unknown camera motion, parallax, a camera that
    follows an object, erratic objects. 0 shows boxes where they were detected, 1 where they are predicted.
    observed, predicted: sums over recent detections of predicted times observed displacement, and of the
    squared predicted one, both in squared sides of a box.
    """

    observed: float = 0.0
    predicted: float = 0.0

    @property
    def share(self) -> float:
        """0 to 1."""
        slope = (self.observed + FIRST_SHARE * FIRST_WEIGHT) / (self.predicted + FIRST_WEIGHT)
        return min(max(slope, 0.0), 1.0)

    def shown(self, state: np.ndarray) -> np.ndarray:
        """(4, n) centre and size of the boxes to show and to match."""
        held = state[HELD]
        return held + self.share * (state[BOX] - held)

    def after(self, state: np.ndarray, measured: np.ndarray) -> PredictionTrust:
        """The trust after tracks (21, n) were detected at (4, n) centre and size."""
        held = state[HELD][:2]
        predicted, observed = state[BOX][:2] - held, measured[:2] - held
        predicted_sides = predicted / (measured[2] * measured[3])
        return PredictionTrust(
            MEMORY * self.observed + float((predicted_sides * observed).sum()),
            MEMORY * self.predicted + float((predicted_sides * predicted).sum()),
        )
