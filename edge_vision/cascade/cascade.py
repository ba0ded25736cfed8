"""The cascade: light classifiers look first, and the detector runs where it is worth it.

    regions -> looks -> stage 1 -> the looks that it is unsure of -> stage 2 -> ... -> accept or reject

The first look that a stage accepts ends it. A look that every stage was unsure of counts as accepted. The
cascade fails open: without a stage, when one fails, when it would take too many looks, or when the detector
has been blind for too long, the frame is accepted.

Rejecting early by ever dearer stages is the cascade of Viola and Jones (2001), "Rapid object detection using
a boosted cascade of simple features"; the two thresholds are Wald's (1945), "Sequential tests of statistical
hypotheses".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_vision.cascade import tiling as places
from edge_vision.cascade.stages import CascadeStage, RegionClassifier
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import StageSpec

if TYPE_CHECKING:
    from edge_vision.bundles.store import Bundle

PLAIN_THRESHOLD = 0.2
"""Of a classifier that was not fitted for a cascade, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class CascadeConfig:
    """Settings of the cascade. Each is a parameter of the cascade node, described there."""

    enabled: bool = True
    look_at: str = "regions"
    max_looks: int = 12
    round_robin: int = 1
    max_blind_ms: float = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class CascadeDecision:
    """What the cascade decided and why.

    regions: those that came, (n, 4) xyxy_px. stage: which one decided, from 1 on; 0 where none looked.
    score: the best of that stage, None where none looked. n_looks: how many looks were taken.
    """

    accepted: bool
    reason: str
    regions: np.ndarray
    score: float | None = None
    stage: int = 0
    n_looks: int = 0


class Cascade:
    """Accepts a frame when one of its looks may show something wanted.

    Reasons to accept: off, disabled, refresh, crowded (it would take more than max_looks), wanted, unsure,
    classifier_error. Reason to reject: unwanted.
    """

    def __init__(self, stages: Sequence[CascadeStage] = (), config: CascadeConfig | None = None) -> None:
        self.config = config or CascadeConfig()
        self.stages = tuple(stages)
        self._round_robin = places.RoundRobin()
        self._accepted_ns: int | None = None
        self._reasons: Counter[str] = Counter()
        self.last_error: Exception | None = None

    @property
    def passes_through(self) -> bool:
        """True where it accepts all without looking, and so needs no thread of its own."""
        return not self.stages

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        """Judge a frame with the gate's regions, (n, 4) xyxy_px, at the monotonic time mono_ns."""
        decision = self._judge(frame, regions, mono_ns)
        self._reasons[decision.reason] += 1
        if decision.accepted:
            self._accepted_ns = mono_ns
        return decision

    def _judge(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        config = self.config
        if not self.stages:
            return CascadeDecision(True, "off", regions)
        if not config.enabled:
            return CascadeDecision(True, "disabled", regions)
        if self._accepted_ns is None or mono_ns - self._accepted_ns >= config.max_blind_ms * 1e6:
            return CascadeDecision(True, "refresh", regions)
        try:
            decision = self._look(frame, regions)
        except Exception as error:  # Whatever breaks in a model, the frame must not be lost with it.
            self.last_error = error
            return CascadeDecision(True, "classifier_error", regions)
        self.last_error = None
        return decision

    def _look(self, frame: Frame, regions: np.ndarray) -> CascadeDecision:
        """Go through the stages. open_looks: those of the regions that no stage has rejected; None = all."""
        whole = self.config.look_at == "frame" or not len(regions)
        open_regions: np.ndarray | None = None
        looked, score = 0, None
        for number, stage in enumerate(self.stages, 1):
            looks = open_regions
            if looks is None:
                looks = self._looks(stage, frame, regions, whole)
            if looks is not None and len(looks) > self.config.max_looks:
                return CascadeDecision(True, "crowded", regions, score, number, looked)
            if looks is not None and not len(looks):
                # The regions lie outside the frame: there is nothing that a look could clear.
                raise ValueError(f"none of the {len(regions)} regions lies within the frame")
            verdicts, scores = stage.judge(frame, looks)
            looked, score = looked + len(scores), float(scores.max())
            if "accept" in verdicts:
                return CascadeDecision(True, "wanted", regions, score, number, looked)
            unsure = np.array([verdict == "unsure" for verdict in verdicts])
            if not unsure.any():
                return CascadeDecision(False, "unwanted", regions, score, number, looked)
            # A stage that saw the frame as a whole leaves the places to the next one.
            open_regions = None if looks is None else looks[unsure]
        return CascadeDecision(True, "unsure", regions, score, len(self.stages), looked)

    def _looks(
        self, stage: CascadeStage, frame: Frame, regions: np.ndarray, whole: bool
    ) -> np.ndarray | None:
        """Where a stage looks first, (n, 4) xyxy_px; None = at the frame as a whole."""
        width_px, height_px = frame.width_px, frame.height_px
        if not stage.look_share:
            return None if whole else places.inside(regions, width_px, height_px).astype(np.float32)
        side = places.side_px(width_px, height_px, stage.look_share)
        grid = places.tiles(width_px, height_px, side)
        if whole:
            return grid
        found = places.looks_at(regions, width_px, height_px, side, self.config.max_looks)
        if not len(found):
            return found
        more = self._round_robin.take(grid, found, self.config.round_robin)
        return np.concatenate([found, more])

    def reset_stats(self) -> None:
        """Forget all counts and times."""
        self._reasons.clear()
        for stage in self.stages:
            stage.reset_stats()

    def status(self) -> dict[str, Any]:
        """Flat figures: frames by reason, and of each stage looks by verdict, `stage1.accept` and so on."""
        reasons = {f"cascade.reason.{reason}": n for reason, n in sorted(self._reasons.items())}
        return reasons | {
            f"stage{number}.{key}" if key != "stage" else f"stage{number}": value
            for number, stage in enumerate(self.stages, 1)
            for key, value in stage.status().items()
        }


def stage_of(
    bundle: Bundle,
    classifier: RegionClassifier,
    wanted_labels: Sequence[str] = (),
    score_threshold: float = -1.0,
    reject_threshold: float = -1.0,
) -> CascadeStage:
    """A stage as its bundle says, or as is asked for: labels that are not empty, thresholds from 0 on.

    Raises ValueError where the bundle says nothing of what is not asked for, or the thresholds cross.
    """
    fitted = bundle.manifest.stage
    words = tuple(wanted_labels) or (fitted.wanted if fitted else ())
    if not words:
        raise ValueError(
            f"{bundle.name} was not fitted for a cascade and there are no wanted_labels: name the labels "
            "worth the detector"
        )
    wanted_ids = wanted_class_ids(bundle.labels, words)
    accept_from, reject_below = thresholds_of(fitted, score_threshold, reject_threshold)
    share = fitted.look_share if fitted else 0.0
    return CascadeStage(bundle.name, classifier, wanted_ids, reject_below, accept_from, share)


def thresholds_of(
    fitted: StageSpec | None, score_threshold: float, reject_threshold: float
) -> tuple[float, float]:
    """accept_from and reject_below: what is asked for, else the fitted ones, else PLAIN_THRESHOLD for
    both."""
    own_accept = fitted.accept_from if fitted else PLAIN_THRESHOLD
    accept_from = own_accept if score_threshold < 0 else score_threshold
    own_reject = fitted.reject_below if fitted else accept_from
    return accept_from, own_reject if reject_threshold < 0 else reject_threshold


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
