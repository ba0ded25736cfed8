"""The cascade: a light classifier looks first, and the detector runs where it is worth it.

It fails open: without a classifier, when the classifier fails, or when the detector has been blind for
too long, the frame is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame


class RegionClassifier(Protocol):
    """What the cascade needs of a classifier."""

    def classify(self, frame: Frame) -> Classification: ...

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]: ...


@dataclass(frozen=True, slots=True)
class CascadeConfig:
    """Settings of the cascade. Each is a parameter of the cascade node, described there."""

    enabled: bool = True
    score_threshold: float = 0.2
    look_at: str = "regions"
    max_blind_ms: float = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class CascadeDecision:
    """What the cascade decided and why. score: the best that it saw, None where it did not look."""

    accepted: bool
    reason: str
    regions: np.ndarray
    score: float | None = None


class Cascade:
    """Accepts a frame when the summed probability of the wanted classes reaches the threshold somewhere.

    Reasons to accept: off, disabled, refresh, wanted, classifier_error. Reason to reject: unwanted.
    """

    def __init__(
        self,
        classifier: RegionClassifier | None = None,
        wanted_ids: Sequence[int] = (),
        config: CascadeConfig | None = None,
    ) -> None:
        self.config = config or CascadeConfig()
        self._classifier = classifier
        self._wanted_ids = np.asarray(wanted_ids, np.intp)
        self._accepted_ns: int | None = None
        self.last_error: Exception | None = None

    @property
    def passes_through(self) -> bool:
        """True where it accepts all without looking, and so needs no thread of its own."""
        return self._classifier is None

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        """Judge a frame with the gate's regions, (n, 4) xyxy_px, at the monotonic time mono_ns."""
        reason, score = self._judge(frame, regions, mono_ns)
        accepted = reason != "unwanted"
        if accepted:
            self._accepted_ns = mono_ns
        return CascadeDecision(accepted, reason, regions, score)

    def _judge(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> tuple[str, float | None]:
        config = self.config
        if self._classifier is None:
            return "off", None
        if not config.enabled:
            return "disabled", None
        if self._accepted_ns is None or mono_ns - self._accepted_ns >= config.max_blind_ms * 1e6:
            return "refresh", None
        try:
            score = self._best_score(self._classifier, frame, regions)
        except Exception as error:  # Whatever breaks in a model, the frame must not be lost with it.
            self.last_error = error
            return "classifier_error", None
        self.last_error = None
        return ("wanted" if score >= config.score_threshold else "unwanted"), score

    def _best_score(self, classifier: RegionClassifier, frame: Frame, regions: np.ndarray) -> float:
        if self.config.look_at == "regions" and len(regions):
            seen = classifier.classify_regions(frame, regions)
        else:
            seen = [classifier.classify(frame)]
        sums = np.array([one.scores[self._wanted_ids].sum() for one in seen])
        if not np.isfinite(sums).all():
            raise ValueError("the classifier's scores are not finite")
        return float(sums.max())


def wanted_class_ids(labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indices of the labels that contain a wanted word as a whole word, ignoring case, commas, hyphens.

    Raises ValueError naming a word that fits no label.
    """
    ids: set[int] = set()
    for word in wanted:
        found = [i for i, label in enumerate(labels) if _has_word(label, word)]
        if not found:
            raise ValueError(
                f"no label of the model contains '{word}': labels are like {', '.join(labels[:5])}"
            )
        ids.update(found)
    return sorted(ids)


def _has_word(label: str, word: str) -> bool:
    wanted = _plain(word)
    return bool(wanted) and f" {wanted} " in f" {_plain(label)} "


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").replace("-", " ").split())
