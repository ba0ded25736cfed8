"""The frame gate: lets a frame pass when something new could be seen in it.

    frame -> luma -> MotionEstimator (what is new?) -> GatePolicy (pass, and why?) -> MissAudit (right?)

Whatever it is not sure about passes. The policy is a state machine on plain values, with time injected.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import IDENTITY
from edge_vision.gate.adaptive_interval import AdaptiveInterval
from edge_vision.gate.appearance_check import AppearanceCheck
from edge_vision.gate.audit import MissAudit
from edge_vision.gate.back_off import BackOff
from edge_vision.gate.motion.comparison import MotionConfig
from edge_vision.gate.motion.estimator import Motion, MotionEstimator
from edge_vision.gate.policy import ANYWAY, SKIPS, GateConfig, GatePolicy
from edge_vision.gate.recent_objects import PUBLISHED_MS, TRACKED_MS, RecentObjects
from edge_vision.gate.scheduled_gate import ScheduledGate

# An object's motion spills over its box by shadows, by what the box cuts off, and by the way it has gone.
SPILL_SHARE = 0.2
SPILL_PX = 5.0
# Skips that depend on the picture; a rate limit does not.
ANALYSED_SKIPS = ("still", "compensated", "tracked", "saturated")
NOTHING_NEW = ("still", "compensated")
# Frames that would be skipped, and are inferred to measure misses.
AUDITED = ("audit", "audit_open")


@dataclass(frozen=True, slots=True, eq=False)
class GateDecision:
    """What the gate decided and why.

    regions: (n, 4) float32 xyxy_px of what is new. camera_motion: (3, 3) float64, moves a point of the frame
    before to where it is in this one, source pixels; None where it is not known. analysed: False during a
    back-off; the camera's motion is then assumed to be none, and left to the speeds of the tracks.
    """

    passed: bool
    reason: str
    regions: np.ndarray
    camera_motion: np.ndarray | None = None
    analysed: bool = True


class FrameGate:
    """Decides frame by frame. One caller at a time, but for `inferred`; `gate_policy` lists the reasons."""

    def __init__(self, config: GateConfig | None = None, seed: int | None = None) -> None:
        self.config = config or GateConfig()
        self._estimator = MotionEstimator()
        self._policy = GatePolicy()
        self._audit = MissAudit(seed=seed)
        self._results: deque[tuple[int, Detections, Detections | None]] = deque(maxlen=64)
        self._audited: dict[int, np.ndarray] = {}
        self._recent = RecentObjects()
        self._appearance = AppearanceCheck()
        self._interval = AdaptiveInterval()
        self._back_off = BackOff()
        self._schedule = ScheduledGate()
        self._counts: Counter[str] = Counter()
        self._size_px, self._scale = (0, 0), 1.0
        self._motion: Motion | None = None

    @property
    def mode(self) -> str:
        """open, closed, saturated, scheduled, or disabled."""
        if not self.config.enabled:
            return "disabled"
        return "scheduled" if self.config.min_fidelity > 0.0 else self._policy.mode

    @property
    def audit_opens(self) -> bool:
        """True while too many misses hold the gate open."""
        return self._audit.is_open

    def reset(self, reason: str) -> None:
        """Forget what was seen: the next frame passes for this reason (a clock jump, a new model)."""
        self._estimator.forget()
        self._recent.clear()
        self._appearance.forget()
        self._audited.clear()
        self._back_off.end()
        self._policy.restart(reason)
        self._schedule.reset(reason)

    def inferred(self, stamp_ns: int, found: Detections, low_score: Detections | None = None) -> None:
        """Take the detections of a frame that passed. Thread-safe; results may be late.

        low_score: detections just below the threshold; None if unknown.
        """
        self._results.append((stamp_ns, found, low_score))

    def decide(self, frame: Frame, mono_ns: int, prior: np.ndarray | None = None) -> GateDecision:
        """Decide on a frame that arrived at the monotonic time mono_ns.

        prior: (3, 3) camera motion since the last analysed frame, from another sensor, source pixels.
        Raises ImageError.
        """
        config = self.config
        if not config.enabled:
            self.reset("first")
            return self._counted(GateDecision(True, "disabled", NO_REGIONS))
        if (frame.width_px, frame.height_px) != self._size_px:
            if self._size_px != (0, 0):
                self.reset("size_changed")
            self._size_px = (frame.width_px, frame.height_px)
        self._take_results(mono_ns, config)
        if config.min_fidelity > 0.0:
            return self._counted(self._scheduled(frame, mono_ns, config))
        due = self._is_due(config, frame.stamp_ns, mono_ns)
        if self._is_backed_off(config, frame.stamp_ns, mono_ns):
            return self._counted(self._decide_backed_off(frame, mono_ns, due))
        luma, scale = self._small(frame, config)
        motion = self._motion = self._analyse(luma, scale, prior, config)
        # After a back-off it is the motion of the whole back-off, not that since the frame before.
        step = IDENTITY if self._back_off.woke() else motion.camera_motion
        self._appearance.move(step)
        camera_motion = _in_source_pixels(step, scale)
        self._recent.move(camera_motion)
        self._audit.move(camera_motion)
        eye = _Eye(self._estimator, self._recent.boxes(mono_ns, TRACKED_MS) / scale)
        was_saturated = self._policy.mode == "saturated"
        reason = self._policy.update(config, motion, eye, frame.stamp_ns, mono_ns, self._audit.is_open, due)
        changed_objects = self._changed_objects(reason, luma, motion, mono_ns, config)
        if len(changed_objects):
            reason = "appearance_check"
        elif reason in ANALYSED_SKIPS and self._audit.sample(mono_ns):
            reason = "audit"
        if reason in AUDITED:
            self._audited[frame.stamp_ns] = self._recent.boxes(mono_ns, PUBLISHED_MS)
        if reason in ANYWAY:
            self._policy.passed_anyway(eye, frame.stamp_ns, mono_ns, reason)
        passed = reason not in SKIPS
        if passed:
            self._appearance.passed(frame.stamp_ns, luma, changed_objects)
        self._update_back_off(was_saturated, motion, frame.stamp_ns if passed else None, mono_ns)
        regions = self._estimator.regions(*self._size_px) if passed and motion.changed else NO_REGIONS
        if len(changed_objects):
            regions = (changed_objects * scale).astype(np.float32)
        return self._counted(GateDecision(passed, reason, regions, camera_motion))

    def _scheduled(self, frame: Frame, mono_ns: int, config: GateConfig) -> GateDecision:
        """The schedule's decision. The audit samples frames that are still: others are within the promise."""
        luma, scale = self._small(frame, config)
        reason, motion = self._schedule.decide(config, luma, scale, frame.stamp_ns, mono_ns)
        self._recent.move(motion)
        self._audit.move(motion)
        if reason == "still" and self._audit.is_open:
            reason = "audit_open"
        elif reason == "still" and self._audit.sample(mono_ns):
            reason = "audit"
        if reason in AUDITED:
            self._audited[frame.stamp_ns] = self._recent.boxes(mono_ns, PUBLISHED_MS)
        passed = reason not in SKIPS
        if passed:
            self._schedule.passed(config, frame.stamp_ns, mono_ns)
        return GateDecision(passed, reason, NO_REGIONS, motion)

    # Adaptive interval and back-off, while the scene keeps changing.
    def _is_due(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> bool:
        """Whether a frame is to pass, as far as a saturated gate's interval goes."""
        if self._policy.mode != "saturated":
            return True
        since_ms = self._policy.since_ms(stamp_ns, mono_ns)
        due = self._interval.due(
            since_ms, config.saturated_interval_ms, config.saturated_min_f1, config.saturated_stretch
        )
        # The policy keeps this bound on the frames that it sees.
        return due or (self._back_off.on and since_ms >= _blind_limit_ms(config))

    def _is_backed_off(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> bool:
        """Whether the gate is backed off and does not analyse this frame."""
        if not self._back_off.on:
            return False
        disturbed = self._audit.is_open or self._policy.must_look(config, stamp_ns, mono_ns)
        if disturbed or not self._may_back_off(config):
            self._back_off.end()
            self._estimator.forget()
        elif self._back_off.is_over(mono_ns) and self._stands():
            self._back_off.wake(compares=True)
        return self._back_off.on

    def _may_back_off(self, config: GateConfig) -> bool:
        if self._policy.mode == "saturated":
            return not config.saturated_look
        return self._policy.saving < config.min_saving

    def _stands(self) -> bool:
        """Whether the camera stood at the last analysis, so that the old anchor still shows the scene."""
        return self._motion is not None and self._motion.camera == "standing"

    def _decide_backed_off(self, frame: Frame, mono_ns: int, due: bool) -> GateDecision:
        """The decision during a back-off. Its last frame becomes the anchor where the camera moves."""
        saturated = self._policy.mode == "saturated"
        since_ms = self._policy.since_ms(frame.stamp_ns, mono_ns)
        too_soon = self._policy.too_soon(self.config, frame.stamp_ns, mono_ns)
        if too_soon and since_ms < _blind_limit_ms(self.config):
            reason = "rate_limit"
        elif due:
            reason = "saturated_interval" if saturated else "back_off"
        elif self._audit.sample(mono_ns):
            reason = "audit"
            self._audited[frame.stamp_ns] = self._recent.boxes(mono_ns, PUBLISHED_MS)
        else:
            reason = "saturated"
        passed = reason not in SKIPS
        if passed and saturated:
            self._interval.passed(frame.stamp_ns)
        self._policy.unseen(frame.stamp_ns, mono_ns, passed)
        analyses = passed and self._back_off.is_over(mono_ns)
        if analyses:
            self._back_off.wake()
            self._estimator.begin(self._small(frame, self.config)[0])
            self._estimator.seen()
        return GateDecision(passed, reason, NO_REGIONS, IDENTITY, analysed=analyses)

    def _update_back_off(
        self, was_saturated: bool, motion: Motion, passed_stamp_ns: int | None, mono_ns: int
    ) -> None:
        """Begin or end a back-off after an analysed frame. passed_stamp_ns: its stamp, if it passed."""
        saturated = self._policy.mode == "saturated"
        if saturated and not was_saturated:
            self._interval.restart(self._size_px)
        if saturated and passed_stamp_ns is not None:
            self._interval.passed(passed_stamp_ns)
        busy = motion.changed or motion.camera == "unknown"
        # With a standing camera the analysis is too cheap to back off from.
        if busy and self._may_back_off(self.config) and (saturated or motion.camera != "standing"):
            self._back_off.begin(mono_ns, grows=saturated)
            self._appearance.forget()
        elif not saturated:
            self._back_off.end()

    def _changed_objects(
        self, reason: str, luma: np.ndarray, motion: Motion, mono_ns: int, config: GateConfig
    ) -> np.ndarray:
        """(n, 4) luma pixels: known objects whose appearance changed although nothing seems to move."""
        if reason not in NOTHING_NEW or config.appearance_check_ms <= 0.0:
            return NO_REGIONS
        return self._appearance.changed(luma, motion.noise, mono_ns, config.appearance_check_ms)

    def _small(self, frame: Frame, config: GateConfig) -> tuple[np.ndarray, float]:
        """The frame's downscaled luma, and source pixels per luma pixel."""
        luma = frame.small_gray(min(config.luma_width_px, frame.width_px))
        self._scale = float(frame.width_px // luma.shape[1])
        return luma, self._scale

    def _analyse(
        self, luma: np.ndarray, scale: float, prior: np.ndarray | None, config: GateConfig
    ) -> Motion:
        """What changed since the anchor."""
        small_prior = None if prior is None else _in_source_pixels(prior, 1.0 / scale)
        settings = MotionConfig(
            config.pixel_threshold,
            config.noise_factor,
            config.min_changed_area,
            config.ego_motion,
            config.parallax,
        )
        return self._estimator.observe(luma, settings, small_prior)

    def _take_results(self, mono_ns: int, config: GateConfig) -> None:
        audit = self._audit
        audit.rate, audit.max_hz, audit.max_miss_rate = (
            config.audit_rate,
            config.audit_max_hz,
            config.max_miss_rate,
        )
        while self._results:
            stamp_ns, found, low_score = self._results.popleft()
            audit.observe(found, mono_ns, self._audited.pop(stamp_ns, None))
            self._recent.add(found.xyxy_px, mono_ns)
            self._appearance.found(stamp_ns, found.xyxy_px / self._scale, mono_ns)
            if config.min_fidelity > 0.0:
                self._schedule.observe(stamp_ns, found, low_score, self._size_px)
                continue
            self._policy.in_view(config, len(found), mono_ns)
            if self._policy.mode == "saturated" and (config.saturated_min_f1 or config.saturated_stretch):
                self._interval.found(stamp_ns, found, low_score, config.saturated_min_f1)
        # Audits whose result never came (superseded, failed) are dropped.
        while len(self._audited) > 16:
            del self._audited[next(iter(self._audited))]

    def _counted(self, decision: GateDecision) -> GateDecision:
        self._counts[decision.reason] += 1
        return decision

    def pictures(self) -> dict[str, np.ndarray]:
        """What the last frame was compared with, at luma size; see `MotionEstimator.pictures`."""
        return self._estimator.pictures()

    def reset_stats(self) -> None:
        """Forget the counters; the audit's estimate stays, being of the gate and not of an hour."""
        self._counts.clear()

    def status(self) -> dict[str, object]:
        """Flat figures: mode, camera, noise, one counter per reason, the audit's estimate."""
        motion = self._motion
        return {
            "gate.mode": self.mode,
            "gate.camera": motion.camera if motion else None,
            "gate.noise_grey_levels": motion.noise if motion else None,
            "gate.changed_area": motion.changed_area if motion else None,
            **{f"gate.reason.{reason}": n for reason, n in sorted(self._counts.items())},
            **self._audit.status(),
            **self._appearance.status(),
            "gate.back_off": self._back_off.on,
            **self._interval.status(),
            **(self._schedule.status() if self.config.min_fidelity > 0.0 else {}),
        }


class _Eye:
    """The motion estimator with the objects that the detector has just found, (n, 4) xyxy in luma pixels."""

    def __init__(self, estimator: MotionEstimator, known_px: np.ndarray) -> None:
        self._known_px = known_px
        self.rebase, self.seen, self.mark = estimator.rebase, estimator.seen, estimator.mark
        self.fall_back, self.settled, self.cells = estimator.fall_back, estimator.settled, estimator.cells
        self._estimator = estimator

    @property
    def anchor_view(self) -> float:
        return self._estimator.anchor_view

    def all_known(self) -> bool:
        """True where all that differs lies within these objects."""
        if len(self._known_px) == 0:
            return False
        low, high = self._known_px[:, :2], self._known_px[:, 2:]
        spill = SPILL_SHARE * (high - low) + SPILL_PX
        return not self._estimator.changed_beside(np.concatenate([low - spill, high + spill], axis=1))


def _blind_limit_ms(config: GateConfig) -> float:
    """The longest time without inference while the camera's motion is unknown."""
    return min(config.max_blind_ms, config.max_blind_moving_ms)


def _in_source_pixels(transform: np.ndarray | None, scale: float) -> np.ndarray | None:
    """A transform between luma images as one between source images that are `scale` times as large."""
    if transform is None or scale == 1.0:
        return transform
    out = transform.copy()
    out[:2, 2] *= scale
    out[2, :2] /= scale
    return out
