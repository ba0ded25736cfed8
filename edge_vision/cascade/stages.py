"""One stage of a cascade: a classifier, where it looks, and the thresholds between which it is unsure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np

from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame
from edge_vision.core.latency import LatencyWindow

Verdict = Literal["accept", "reject", "unsure"]
VERDICTS: tuple[Verdict, ...] = ("accept", "reject", "unsure")


class RegionClassifier(Protocol):
    """What a stage needs of a classifier."""

    def classify(self, frame: Frame) -> Classification: ...

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]: ...


class CascadeStage:
    """Judges looks. `judge` is called by one thread at a time; the thresholds may be replaced by any.

    wanted_ids: the classes whose probabilities count, summed. look_share: see `StageSpec`.
    counts: how many looks got which verdict. look_ms: how long a look took.
    """

    def __init__(
        self,
        name: str,
        classifier: RegionClassifier,
        wanted_ids: Sequence[int],
        reject_below: float,
        accept_from: float,
        look_share: float = 0.0,
    ) -> None:
        """Raises ValueError where the thresholds cross, or nothing is wanted."""
        if not len(wanted_ids):
            raise ValueError(f"stage '{name}': expected labels that are wanted, got none")
        self.name = name
        self.look_share = look_share
        self.counts: Counter[str] = Counter()
        self.look_ms = LatencyWindow()
        self._classifier = classifier
        self._wanted_ids = np.asarray(wanted_ids, np.intp)
        self.set_thresholds(reject_below, accept_from)

    def set_thresholds(self, reject_below: float, accept_from: float) -> None:
        """Replace both, 0..1. Raises ValueError where they cross or are no numbers."""
        if not 0.0 <= reject_below <= accept_from <= 1.0:
            raise ValueError(
                f"stage '{self.name}': expected 0 <= reject_below <= accept_from <= 1, "
                f"got {reject_below} and {accept_from}"
            )
        self._thresholds = (reject_below, accept_from)

    def judge(self, frame: Frame, looks: np.ndarray | None) -> tuple[list[Verdict], np.ndarray]:
        """A verdict for each look (n, 4) xyxy_px, or for the frame as a whole; and the scores, (n,) 0..1.

        Raises what the classifier raises, and ValueError for scores that are not finite.
        """
        started = perf_counter()
        if looks is None:
            seen = [self._classifier.classify(frame)]
        else:
            seen = self._classifier.classify_regions(frame, looks)
        if len(seen) != (1 if looks is None else len(looks)) or not seen:
            raise ValueError(
                f"expected scores of {1 if looks is None else len(looks)} looks, got {len(seen)}"
            )
        scores = np.array([one.scores[self._wanted_ids].sum() for one in seen])
        if not np.isfinite(scores).all():
            raise ValueError("the classifier's scores are not finite")
        self.look_ms.add((perf_counter() - started) * 1e3 / len(seen))
        verdicts = [self._verdict(score) for score in scores]
        self.counts.update(verdicts)
        return verdicts, scores

    def _verdict(self, score: float) -> Verdict:
        reject_below, accept_from = self._thresholds
        if score >= accept_from:
            return "accept"
        return "reject" if score < reject_below else "unsure"

    def reset_stats(self) -> None:
        """Forget counts and times."""
        self.counts.clear()
        self.look_ms.reset()

    def status(self) -> dict[str, Any]:
        """Flat figures."""
        took = self.look_ms.percentiles() or {}
        return {
            "stage": self.name,
            "reject_below": self._thresholds[0],
            "accept_from": self._thresholds[1],
            **{verdict: self.counts[verdict] for verdict in VERDICTS},
            "look_ms.p50": took.get("p50"),
            "look_ms.p95": took.get("p95"),
        }
