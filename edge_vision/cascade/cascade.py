"""The cascade: light classifiers decide which frames the detector runs on.

    regions -> crops -> stage 1 -> the crops that it is unsure about -> stage 2 -> ... -> accept or reject

The first crop that a stage accepts accepts the frame. So does a crop that every stage was unsure about. The
cascade fails open: without a stage, when a classifier fails, when too many crops would be needed, or when no
frame has been accepted for too long, the frame is accepted.

Rejecting early by increasingly expensive stages is the cascade of Viola and Jones (2001), "Rapid object
detection using a boosted cascade of simple features"; the two thresholds are those of Wald (1945),
"Sequential tests of statistical hypotheses".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.cascade import tiling
from edge_vision.cascade.stages import CascadeStage
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.zones import NO_ZONES


@dataclass(frozen=True, slots=True)
class CascadeConfig:
    """Settings of the cascade. Each is a parameter of the cascade node, described there."""

    enabled: bool = True
    classifier_input: str = "regions"
    max_crops: int = 12
    round_robin: int = 1
    max_blind_ms: float = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class CascadeDecision:
    """Whether a frame goes to the detector, and why.

    regions: the gate's, (n, 4) xyxy_px. stage: number of the deciding stage, from 1; 0 if none ran. score:
    the best of that stage, None if none ran. n_crops: crops classified by all stages.
    """

    accepted: bool
    reason: str
    regions: np.ndarray
    score: float | None = None
    stage: int = 0
    n_crops: int = 0


class Cascade:
    """Accepts a frame if one of its crops may show a wanted object.

    Reasons to accept: off, disabled, refresh, crowded (more than max_crops are needed), wanted, unsure,
    classifier_error. Reason to reject: unwanted.
    """

    def __init__(self, stages: Sequence[CascadeStage] = (), config: CascadeConfig | None = None) -> None:
        self.config = config or CascadeConfig()
        self.stages = tuple(stages)
        self.zones = NO_ZONES
        """Tiles outside of them are not classified. May be set at any time."""
        self._round_robin = tiling.RoundRobin()
        self._accepted_ns: int | None = None
        self._reasons: Counter[str] = Counter()
        self.last_error: Exception | None = None

    @property
    def passes_through(self) -> bool:
        """True if it accepts every frame without a classifier, and so needs no thread of its own."""
        return not self.stages

    def decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        """Accept or reject a frame with the gate's regions, (n, 4) xyxy_px, at the monotonic time mono_ns."""
        decision = self._decide(frame, regions, mono_ns)
        self._reasons[decision.reason] += 1
        if decision.accepted:
            self._accepted_ns = mono_ns
        return decision

    def _decide(self, frame: Frame, regions: np.ndarray, mono_ns: int) -> CascadeDecision:
        config = self.config
        if not self.stages:
            return CascadeDecision(True, "off", regions)
        if not config.enabled:
            return CascadeDecision(True, "disabled", regions)
        if self._accepted_ns is None or mono_ns - self._accepted_ns >= config.max_blind_ms * 1e6:
            return CascadeDecision(True, "refresh", regions)
        try:
            decision = self._run_stages(frame, regions)
        except Exception as error:  # A model may raise anything, and the frame must not be lost.
            self.last_error = error
            return CascadeDecision(True, "classifier_error", regions)
        self.last_error = None
        return decision

    def _run_stages(self, frame: Frame, regions: np.ndarray) -> CascadeDecision:
        """Raises what a classifier raises, and ValueError if no region lies within the frame."""
        unsure_crops: np.ndarray | None = None
        n_crops, score = 0, None
        for number, stage in enumerate(self.stages, 1):
            crops = self._first_crops(stage, frame, regions) if unsure_crops is None else unsure_crops
            if crops is not None and len(crops) > self.config.max_crops:
                return CascadeDecision(True, "crowded", regions, score, number, n_crops)
            if crops is not None and not len(crops):
                raise ValueError(f"none of the {len(regions)} regions lies within the frame")
            verdicts, scores = stage.classify(frame, crops)
            n_crops, score = n_crops + len(scores), float(scores.max())
            if "accept" in verdicts:
                return CascadeDecision(True, "wanted", regions, score, number, n_crops)
            unsure = np.array([verdict == "unsure" for verdict in verdicts])
            if not unsure.any():
                return CascadeDecision(False, "unwanted", regions, score, number, n_crops)
            # A stage that classified the whole frame leaves the choice of crops to the next one.
            unsure_crops = None if crops is None else crops[unsure]
        return CascadeDecision(True, "unsure", regions, score, len(self.stages), n_crops)

    def _first_crops(self, stage: CascadeStage, frame: Frame, regions: np.ndarray) -> np.ndarray | None:
        """The crops that a stage classifies first, (n, 4) float32 xyxy_px; None = the whole frame."""
        width_px, height_px = frame.width_px, frame.height_px
        whole = self.config.classifier_input == "frame" or not len(regions)
        if not stage.crop_share:
            return None if whole else tiling.clip_regions(regions, width_px, height_px).astype(np.float32)
        side_px = tiling.crop_side_px(width_px, height_px, stage.crop_share)
        grid = tiling.tiles(width_px, height_px, side_px)
        if self.zones and (reached := self.zones.reach(grid, (width_px, height_px))).any():
            grid = grid[reached]
        if whole:
            return grid
        crops = tiling.covering_crops(regions, width_px, height_px, side_px, self.config.max_crops)
        if not len(crops):
            return crops
        return np.concatenate([crops, self._round_robin.take(grid, crops, self.config.round_robin)])

    def reset_stats(self) -> None:
        self._reasons.clear()
        for stage in self.stages:
            stage.reset_stats()

    def status(self) -> dict[str, Any]:
        """Flat values: frames by reason, and per stage crops by verdict, `stage1.accept` and so on."""
        reasons = {f"cascade.reason.{reason}": n for reason, n in sorted(self._reasons.items())}
        return reasons | {
            f"stage{number}.{key}" if key != "stage" else f"stage{number}": value
            for number, stage in enumerate(self.stages, 1)
            for key, value in stage.status().items()
        }
