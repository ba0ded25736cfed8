"""One stage of a cascade: a classifier, its wanted labels, and the thresholds between which it is unsure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np

from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame
from edge_vision.core.latency import LatencyWindow
from edge_vision.core.model_spec import StageSpec

DEFAULT_THRESHOLD = 0.2
"""Of a classifier that was not fitted for a cascade, unless the parameters set another."""

Verdict = Literal["accept", "reject", "unsure"]
VERDICTS: tuple[Verdict, ...] = ("accept", "reject", "unsure")


class RegionClassifier(Protocol):
    """A classifier of whole frames and of regions, (n, 4) xyxy_px."""

    def classify(self, frame: Frame) -> Classification: ...

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]: ...


class CascadeStage:
    """Accepts or rejects crops. One caller of `classify` at a time; any thread may set the thresholds.

    wanted_ids: the classes whose probabilities are summed. crop_share: side of the square crops as a share of
    the frame's shorter side; 0 = the regions as they are. counts: crops by verdict. crop_ms: time per crop.
    """

    def __init__(
        self,
        name: str,
        classifier: RegionClassifier,
        wanted_ids: Sequence[int],
        reject_below: float,
        accept_from: float,
        crop_share: float = 0.0,
    ) -> None:
        """Raises ValueError if the thresholds cross or no label is wanted."""
        if not len(wanted_ids):
            raise ValueError(f"stage '{name}': expected at least one wanted label, got none")
        self.name = name
        self.crop_share = crop_share
        self.counts: Counter[str] = Counter()
        self.crop_ms = LatencyWindow()
        self._classifier = classifier
        self._wanted_ids = np.asarray(wanted_ids, np.intp)
        self.set_thresholds(reject_below, accept_from)

    def set_thresholds(self, reject_below: float, accept_from: float) -> None:
        """Set both thresholds, 0..1. Raises ValueError if they cross or are not numbers."""
        if not 0.0 <= reject_below <= accept_from <= 1.0:
            raise ValueError(
                f"stage '{self.name}': expected 0 <= reject_below <= accept_from <= 1, "
                f"got {reject_below} and {accept_from}"
            )
        self._thresholds = (reject_below, accept_from)

    def classify(self, frame: Frame, crops: np.ndarray | None) -> tuple[list[Verdict], np.ndarray]:
        """The verdict on each crop, (n, 4) xyxy_px, and the scores, (n,) 0..1. None = the whole frame.

        Raises what the classifier raises, and ValueError if scores are missing or not finite.
        """
        started = perf_counter()
        if crops is None:
            results = [self._classifier.classify(frame)]
        else:
            results = self._classifier.classify_regions(frame, crops)
        expected = 1 if crops is None else len(crops)
        if len(results) != expected or not results:
            raise ValueError(f"expected scores of {expected} crops, got {len(results)}")
        scores = np.array([one.scores[self._wanted_ids].sum() for one in results])
        if not np.isfinite(scores).all():
            raise ValueError("expected finite scores from the classifier, got NaN or infinity")
        self.crop_ms.add((perf_counter() - started) * 1e3 / len(results))
        verdicts = [self._verdict(score) for score in scores]
        self.counts.update(verdicts)
        return verdicts, scores

    def _verdict(self, score: float) -> Verdict:
        reject_below, accept_from = self._thresholds
        if score >= accept_from:
            return "accept"
        return "reject" if score < reject_below else "unsure"

    def reset_stats(self) -> None:
        self.counts.clear()
        self.crop_ms.reset()

    def status(self) -> dict[str, Any]:
        """Flat values: name, thresholds, crops by verdict, time per crop."""
        percentiles = self.crop_ms.percentiles() or {}
        return {
            "stage": self.name,
            "reject_below": self._thresholds[0],
            "accept_from": self._thresholds[1],
            **{verdict: self.counts[verdict] for verdict in VERDICTS},
            "crop_ms.p50": percentiles.get("p50"),
            "crop_ms.p95": percentiles.get("p95"),
        }


def stage_from_bundle(
    bundle: Bundle,
    classifier: RegionClassifier,
    wanted_labels: Sequence[str] = (),
    score_threshold: float = -1.0,
    reject_threshold: float = -1.0,
) -> CascadeStage:
    """A stage with the labels and thresholds of its bundle; labels and thresholds from 0 on override them.

    Raises ValueError if neither has labels, or the thresholds cross.
    """
    fitted = bundle.manifest.stage
    wanted = tuple(wanted_labels) or (fitted.wanted if fitted else ())
    if not wanted:
        raise ValueError(
            f"{bundle.name} was not fitted for a cascade and there are no wanted_labels: name the labels "
            "worth the detector"
        )
    wanted_ids = wanted_class_ids(bundle.labels, wanted)
    accept_from, reject_below = effective_thresholds(fitted, score_threshold, reject_threshold)
    crop_share = fitted.look_share if fitted else 0.0
    return CascadeStage(bundle.name, classifier, wanted_ids, reject_below, accept_from, crop_share)


def effective_thresholds(
    fitted: StageSpec | None, score_threshold: float, reject_threshold: float
) -> tuple[float, float]:
    """(accept_from, reject_below): the parameters where set, then the fitted ones, then DEFAULT_THRESHOLD."""
    fitted_accept = fitted.accept_from if fitted else DEFAULT_THRESHOLD
    accept_from = fitted_accept if score_threshold < 0 else score_threshold
    fitted_reject = fitted.reject_below if fitted else accept_from
    return accept_from, fitted_reject if reject_threshold < 0 else reject_threshold


def wanted_class_ids(labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indices of the labels that contain a wanted term as whole words, ignoring case, commas and hyphens.

    Raises ValueError naming a term that no label contains.
    """
    ids: set[int] = set()
    for term in wanted:
        matches = [i for i, label in enumerate(labels) if _contains_term(label, term)]
        if not matches:
            raise ValueError(
                f"no label of the model contains '{term}': its labels are like {', '.join(labels[:5])}"
            )
        ids.update(matches)
    return sorted(ids)


def _contains_term(label: str, term: str) -> bool:
    normalized = _normalized(term)
    return bool(normalized) and f" {normalized} " in f" {_normalized(label)} "


def _normalized(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").replace("-", " ").split())
