"""The frame gate: which frames of one camera are inferred.

    frame -> luma -> ImageEvidence (what has changed?) -> tracks (do they explain it?)
          -> Scheduler (is an inference due?) -> bounds -> audit

Whatever the gate is not sure about is inferred. The clock is injected.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import scaled
from edge_vision.core.geometry.zones import NO_ZONES
from edge_vision.gate.audit import MissAudit
from edge_vision.gate.image_evidence import UNCHANGED_SHARE, Evidence, ImageEvidence
from edge_vision.gate.inference_limiter import InferenceLimiter
from edge_vision.gate.scheduler import (
    EXPLAINED_DELAYS,
    SCHEDULED_PASSES,
    SCHEDULED_SKIPS,
    Promise,
    Scheduler,
)
from edge_vision.tracking.tracker import MAX_TRACKED
from edge_vision.tracking.tracking_history import TrackingHistory

PASSES = (
    "disabled",
    "first",
    "size_changed",
    "clock_jump",
    "model_swap",
    "gate_error",
    "stream_gap",
    *SCHEDULED_PASSES,
    "audit",
    "audit_open",
)
"""The reasons to pass a frame."""
SKIPS = (*SCHEDULED_SKIPS, "rate_limit", "budget")
"""The reasons to skip a frame."""
FORCED = ("audit", "audit_open", "model_swap")
"""Passes that a cascade must not reject: the gate measures misses, or the detector is new."""
RATE_SLACK = 0.98
"""A camera limited to a third of its rate must give a third, not a quarter: this early counts as in time."""
MAX_PENDING = 16
"""Passed frames without a result yet; older ones were superseded, or failed."""
AUDITED_SKIPS = ("still", "explained")
"""The audit samples frames that are skipped for these reasons; others are within max_delay_ms."""
UNEXPLAINED_SHARE = UNCHANGED_SHARE
"""Change outside the tracks that covers less than this share of the picture is noise."""

SLOW_STAMPS = {"predicted": 2.0, "explained": EXPLAINED_DELAYS + 1.0}
"""Bounds by the clock, in max_delay_ms: stamps may lag it, by a unit that is wrong or a slow replay."""


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Settings of the gate. Each is a parameter of the gate node, described there."""

    enabled: bool = True
    max_delay_ms: float = 100.0
    min_fidelity: float = 0.97
    max_blind_ms: float = 2000.0
    max_rate_hz: float = 0.0
    max_gap_ms: float = 1000.0
    luma_width_px: int = 320
    audit_rate: float = 0.01
    audit_max_hz: float = 1.0
    max_miss_rate: float = 0.2

    @property
    def promise(self) -> Promise:
        """What the scheduler keeps."""
        return Promise(self.max_delay_ms, self.min_fidelity, self.max_blind_ms)


DEFAULT_PRESET = "balanced"
PRESETS: dict[str, dict[str, float]] = {
    "recall": {"max_delay_ms": 1.0, "min_fidelity": 1.0, "max_blind_ms": 1000.0},
    DEFAULT_PRESET: {"max_delay_ms": 100.0, "min_fidelity": 0.97, "max_blind_ms": 2000.0},
    "economy": {"max_delay_ms": 150.0, "min_fidelity": 0.95, "max_blind_ms": 2000.0},
}
"""Defaults of the promise, by what the user wants. recall: every frame that differs is inferred."""


@dataclass(frozen=True, slots=True, eq=False)
class GateDecision:
    """What the gate decided and why.

    regions: (n, 4) float32 xyxy_px of what has changed since the last inferred frame; empty if that is
    unknown or nearly everything. camera_motion: (3, 3) float64, maps a point of the frame before to this
    one, source pixels; None if unknown, as after a cut.
    """

    passed: bool
    reason: str
    regions: np.ndarray
    camera_motion: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _PassedFrame:
    """What was known of a frame that waits for its result.

    predicted: the tracks on it; None after a cut. recent_px: where the frame is audited, (n, 4) the objects
    published lately.
    """

    predicted: Detections | None = None
    recent_px: np.ndarray | None = None

    def known(self) -> np.ndarray | None:
        """(n, 4) the objects that consumers know, None where the frame is not audited."""
        if self.recent_px is None or self.predicted is None:
            return self.recent_px
        return np.concatenate([self.recent_px, self.predicted.xyxy_px])


class FrameGate:
    """Decides frame by frame. One caller at a time, except for `inferred`."""

    def __init__(self, config: GateConfig | None = None, seed: int | None = None) -> None:
        self.config = config or GateConfig()
        self.limiter = InferenceLimiter()
        """Set by a governor, to keep a budget."""
        self.zones = NO_ZONES
        """Changes outside of them do not count. May be set at any time."""
        self.shared_tracks: TrackingHistory | None = None
        """Of a tracker that takes the same detections, which saves tracking twice. May be set at any time."""
        self._evidence = ImageEvidence()
        self._scheduler = Scheduler()
        self._tracks = TrackingHistory()
        self._audit = MissAudit(seed=seed)
        self._results: deque[tuple[int, Detections, Detections | None]] = deque(maxlen=64)
        self._passed: dict[int, _PassedFrame] = {}
        self._counts: Counter[str] = Counter()
        self._last: Evidence | None = None
        self._size_px = (0, 0)
        self._last_ns = self._passed_ns = (0, 0)
        self._must_pass = "first"

    @property
    def audit_opens(self) -> bool:
        """True while the audit shows too many misses: still frames are then inferred like changing ones."""
        return self._audit.is_open

    def report_misses(self, on_miss: Callable[[int, set[int]], None]) -> None:
        """See `MissAudit.on_miss`."""
        self._audit.on_miss = on_miss

    def reset(self, reason: str) -> None:
        """Forget the frames before: the next frame passes for this reason (a clock jump, a new model)."""
        self._must_pass = reason
        self._evidence.forget()
        self._scheduler.restart()
        self._tracks.reset()
        self._audit.forget_known()
        self._passed.clear()

    def inferred(self, stamp_ns: int, found: Detections, low_score: Detections | None = None) -> None:
        """Take the detections of a frame that passed. Thread-safe; results may be late.

        low_score: detections just below the threshold; None if unknown. Uses the best MAX_TRACKED valid ones.
        """
        found, low_score = found.valid(), low_score and low_score.valid()
        best = slice(MAX_TRACKED)
        self._results.append((stamp_ns, found.select(best), low_score and low_score.select(best)))

    def decide(self, frame: Frame, mono_ns: int, prior: np.ndarray | None = None) -> GateDecision:
        """Decide on a frame that arrived at the monotonic time mono_ns.

        prior: (3, 3) camera motion since the frame before, from another sensor, source pixels.
        Raises ImageError.
        """
        decision = self._decide(frame, mono_ns, prior)
        self._counts[decision.reason] += 1
        return decision

    def _decide(self, frame: Frame, mono_ns: int, prior: np.ndarray | None) -> GateDecision:
        config = self.config
        if not config.enabled:
            self.reset("first")
            self.limiter.admits("disabled", mono_ns, 1.0)
            return GateDecision(True, "disabled", NO_REGIONS)
        self._check_continuity(config, frame, mono_ns)
        self._take_results(config, mono_ns)
        luma = frame.small_gray(min(config.luma_width_px, frame.width_px))
        scale = float(frame.width_px // luma.shape[1])
        self._evidence.watch(self.zones)
        evidence = self._last = self._evidence.observe(
            luma, None if prior is None else scaled(prior, 1.0 / scale)
        )
        forced, self._must_pass = self._must_pass, ""
        motion = None if forced or evidence.camera_motion is None else scaled(evidence.camera_motion, scale)
        history = self._tracks if self.shared_tracks is None else self.shared_tracks
        history.add_frame(frame.stamp_ns, motion, frame.seq, static=evidence.unchanged)
        self._audit.move(motion)
        tracks = None if forced or evidence.cut else history.tracks_at(frame.stamp_ns)
        predicted = None if tracks is None else tracks.detections()
        reason = self._scheduled(
            config, evidence, frame.stamp_ns, lambda: self._is_explained(predicted, scale)
        )
        reason = forced or self._bounded(config, reason, frame.stamp_ns, mono_ns)
        reason = self._limited(config, self._sampled(reason, mono_ns), mono_ns)
        if reason in SKIPS:
            return GateDecision(False, reason, NO_REGIONS, motion)
        regions = NO_REGIONS if forced else self._evidence.regions(frame.width_px, frame.height_px)
        audited = reason in ("audit", "audit_open")
        known = self._audit.known(mono_ns) if audited else None
        self._passed[frame.stamp_ns] = _PassedFrame(predicted, known)
        self._passed_ns = (frame.stamp_ns, mono_ns)
        self._evidence.mark_inferred()
        self._scheduler.inferring(config.promise, frame.stamp_ns, evidence.cut or bool(forced))
        return GateDecision(True, reason, regions, motion)

    def _is_explained(self, predicted: Detections | None, scale: float) -> bool:
        """Whether what differs from the last inferred frame is within the tracks."""
        if predicted is None or len(predicted) == 0 or self._audit.is_open:
            return False
        return self._evidence.unexplained_share(predicted.xyxy_px / scale) < UNEXPLAINED_SHARE

    def _check_continuity(self, config: GateConfig, frame: Frame, mono_ns: int) -> None:
        """Start again after a new image size, a jump of the stamps, or a pause of the camera."""
        stamp_step_ns, mono_step_ns = frame.stamp_ns - self._last_ns[0], mono_ns - self._last_ns[1]
        size_px, max_gap_ns = (frame.width_px, frame.height_px), config.max_gap_ms * 1e6
        reason = ""
        if self._last_ns == (0, 0) or self._must_pass:
            pass
        elif size_px != self._size_px:
            reason = "size_changed"
        elif stamp_step_ns < 0 or stamp_step_ns - mono_step_ns > max_gap_ns:
            reason = "clock_jump"
        elif mono_step_ns > max_gap_ns:
            reason = "stream_gap"
        if reason:
            self.reset(reason)
        self._last_ns, self._size_px = (frame.stamp_ns, mono_ns), size_px

    def _scheduled(
        self, config: GateConfig, evidence: Evidence, stamp_ns: int, explained: Callable[[], bool]
    ) -> str:
        """The schedule's reason. While the audit shows misses, no frame counts as unchanged."""
        opened = evidence.unchanged and self._audit.is_open
        if opened:
            evidence = evidence._replace(changed_share=1.0)
        reason = self._scheduler.decide(config.promise, evidence, stamp_ns, explained)
        return "audit_open" if opened and reason in SCHEDULED_PASSES else reason

    def _bounded(self, config: GateConfig, reason: str, stamp_ns: int, mono_ns: int) -> str:
        """Apply the bounds on blindness and rate, by whichever clock shows the longer time.

        A stamp that stands still must not blind anyone.
        """
        since_mono_ns = mono_ns - self._passed_ns[1]
        since_ns = max(stamp_ns - self._passed_ns[0], since_mono_ns)
        if since_ns >= config.max_blind_ms * 1e6:
            return "refresh" if reason in SCHEDULED_SKIPS else reason
        if since_mono_ns >= SLOW_STAMPS.get(reason, math.inf) * config.max_delay_ms * 1e6:
            reason = "interval"
        if config.max_rate_hz > 0.0 and since_ns < RATE_SLACK * 1e9 / config.max_rate_hz:
            return "rate_limit"
        return reason

    def _sampled(self, reason: str, mono_ns: int) -> str:
        """The reason after the audit."""
        return "audit" if reason in AUDITED_SKIPS and self._audit.sample(mono_ns) else reason

    def _limited(self, config: GateConfig, reason: str, mono_ns: int) -> str:
        """The reason after the governor's limit."""
        changed = reason not in ("still", "audit")
        needed = self._scheduler.needed_share(config.promise) if changed else 0.0
        due = "" if reason in SKIPS else reason
        return "budget" if not self.limiter.admits(due, mono_ns, needed) and due else reason

    def _take_results(self, config: GateConfig, mono_ns: int) -> None:
        audit = self._audit
        audit.rate, audit.max_hz = config.audit_rate, config.audit_max_hz
        audit.max_miss_rate = config.max_miss_rate
        while self._results:
            stamp_ns, found, low_score = self._results.popleft()
            passed = self._passed.pop(stamp_ns, _PassedFrame())
            audit.observe(found, mono_ns, passed.known(), stamp_ns)
            self._scheduler.observe(stamp_ns, found, low_score, passed.predicted)
            if self.shared_tracks is None:
                self._tracks.add_detections(stamp_ns, found, self._size_px)
        while len(self._passed) > MAX_PENDING:
            del self._passed[next(iter(self._passed))]

    def pictures(self) -> dict[str, np.ndarray]:
        """What the last frame was compared with, at luma size; see `ImageEvidence.pictures`."""
        return self._evidence.pictures()

    def reset_stats(self) -> None:
        """Clear the counters. What was learned about the detector and the misses stays."""
        self._counts.clear()

    def status(self) -> dict[str, object]:
        """Flat figures: the evidence, one counter per reason, the schedule, and the audit's estimate."""
        last = self._last
        return {
            "gate.camera": last.camera if last else None,
            "gate.changed_share": last.changed_share if last else None,
            "gate.watched_share": self._evidence.watched_share,
            **{f"gate.reason.{reason}": count for reason, count in sorted(self._counts.items())},
            **self._scheduler.status(),
            **self._audit.status(),
        }
