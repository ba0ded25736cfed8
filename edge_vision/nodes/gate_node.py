"""The gate node: skips frames that need no inference."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from vision_msgs.msg import BoundingBox2DArray

from edge_vision.bundles.ladder import Rung, read_ladder
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.errors import BundleError, ImageError
from edge_vision.gate.frame_gate import FrameGate, GateConfig, GateDecision
from edge_vision.nodes import run
from edge_vision.nodes.base_node import WARN
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.detection_messages import regions_message
from edge_vision.nodes.process_governor import ProcessGovernor
from edge_vision.nodes.stage_node import StageNode
from edge_vision.nodes.transport.detection_feedback import DetectionFeedback
from edge_vision.nodes.transport.ego_listener import SETTINGS, EgoListener
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
from edge_vision.nodes.transport.qos import RESULTS

_SETTINGS = {field.name for field in fields(GateConfig)} & {param.name for param in specs.GATE.params}

# How long the executor waits for the worker, which holds the lock while it decodes.
LOCK_TIMEOUT_S = 0.02


class GateNode(StageNode):
    """The first stage: opens every frame's account, and passes or skips the frame."""

    spec = specs.GATE
    image_in, image_out, events_out = "image_raw", "gate/image", "gate_events"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate = FrameGate()
        # The worker decides while the executor reads the status.
        self._gate_lock = threading.Lock()
        self._last_status: dict[str, Any] = self._gate.status()
        self._reset_stats_due = False
        # Applied by the worker, which alone resets the gate.
        self._resets: deque[str] = deque()
        self._decided_stamp_ns: int | None = None
        self._passed_s: float | None = None
        self._last_reason = ""
        self._audit_opened_s: float | None = None
        self._regions: LazyPublisher | None = None
        self._ego = EgoListener(self)
        self._governor = self.hub.shared(ProcessGovernor)
        self._rungs: tuple[Rung, ...] = ()
        self._feedback = DetectionFeedback(self, self._on_found, self._on_detector_begun)

    # Life cycle.
    def configure(self) -> None:
        self._rungs = _rungs_of(self.params["ladder"])
        self._gate = FrameGate(self._config())
        self._gate.report_misses(partial(self.hub.notify, self.resolve_topic_name("~/audit_misses")))
        self.hub.max_delay_ms = self.params["max_delay_ms"]
        self._decided_stamp_ns = self._audit_opened_s = None

    def activate(self) -> None:
        self._passed_s = None
        self._regions = self.open_publisher(BoundingBox2DArray, "~/regions", RESULTS)
        self._feedback.subscribe()
        self._ego.start()
        self._governor.join(self, lambda: self._gate, self._rungs)
        super().activate()

    def deactivate(self) -> None:
        super().deactivate()
        self._governor.leave(self)
        self._regions = None
        self._feedback.close()
        self._ego.stop()

    def check_params(self, values: Mapping[str, Any], changed: set[str]) -> None:
        if "ladder" in changed:
            try:
                _rungs_of(values["ladder"])
            except BundleError as error:
                raise ValueError(f"ladder: {error}") from None

    def on_params(self, names: set[str]) -> None:
        if "ladder" in names:
            self._rungs = _rungs_of(self.params["ladder"])
            self._governor.use_rungs(self, self._rungs)
        self._gate.config = self._config()
        self.hub.max_delay_ms = self.params["max_delay_ms"]
        if self._active and names & SETTINGS:
            self._ego.start()

    def _config(self) -> GateConfig:
        return GateConfig(**{name: self.params[name] for name in _SETTINGS})

    # Callbacks of any thread.
    def on_time_jump(self) -> None:
        self._resets.append("clock_jump")

    def _on_detector_begun(self) -> None:
        """A new detector has not seen the frames that passed before."""
        self._governor.model_began()
        if self._decided_stamp_ns is not None:
            self._resets.append("model_swap")

    def _on_found(self, stamp_ns: int, found: Detections, low_score: Detections | None) -> None:
        try:
            self._gate.inferred(stamp_ns, found, low_score)
        except Exception as error:  # It must not cost the detector its frame.
            self.log_throttled("error", f"the audit failed: {error}. Please report this", "audit")

    # Work.
    def process(self, frame: Frame, event: FrameEvent | None) -> None:
        decision = self._decide(frame)
        self._last_reason = decision.reason
        if decision.passed:
            self._passed_s = time.monotonic()
            # The misses may be the cascade's: it must let pass too, frames that show motion among them.
            reason = "audit_open" if self._gate.audit_opens else decision.reason
            self.forward(frame, reason, decision.regions, decision.camera_motion)
        else:
            self.settle(frame, "gated", decision.reason, decision.camera_motion)
        regions = self._regions
        if regions is not None and regions.subscription_count:
            regions.try_publish(lambda: regions_message(decision.regions, frame))

    def _decide(self, frame: Frame) -> GateDecision:
        """The gate's decision. If the gate fails, the frame passes."""
        with self._gate_lock:
            if self._reset_stats_due:
                self._reset_stats_due = False
                self._gate.reset_stats()
            try:
                while self._resets:
                    self._gate.reset(self._resets.popleft())
                self._gate.zones, self._gate.shared_tracks = self.hub.zones, self.hub.tracks
                prior = self._ego.motion(self._decided_stamp_ns, frame)
                decision = self._gate.decide(frame, time.monotonic_ns(), prior)
                self._decided_stamp_ns = frame.stamp_ns
                return decision
            except ImageError:  # It cannot be decoded: the detector could not either.
                raise
            except Exception as error:
                self.log_throttled(
                    "error", f"gate failed, the frame passes: {error}. Please report this", "gate_error"
                )
                self._gate.reset("gate_error")
                self._decided_stamp_ns = None
                return GateDecision(True, "gate_error", NO_REGIONS)

    # Reports.
    def publish_status(self) -> None:
        self._governor.update(self)
        self._note_audit()
        super().publish_status()

    def _note_audit(self) -> None:
        """Log when the audit opens the gate, or lets it close again."""
        values, was_open = self._gate_status(), self._audit_opened_s is not None
        if values["audit.open"] == was_open:
            return
        self._audit_opened_s = None if was_open else time.monotonic()
        values = {key: value for key, value in values.items() if key.startswith("audit.")}
        if was_open:
            text = "the audit closes the gate again: the miss rate no longer exceeds max_miss_rate"
            self.structured_log.event("audit_closed", text, **values)
        else:
            self.structured_log.event("audit_opened", self._audit_trouble(), "warning", **values)

    def health(self) -> tuple[int, str]:
        level, text = super().health()
        trouble = "" if level else self._audit_trouble() or self._governor.trouble() or self._ego.trouble()
        return (WARN, trouble) if trouble else (level, text)

    def _audit_trouble(self) -> str:
        """Why the audit keeps the gate open; "" if it does not."""
        if self._audit_opened_s is None:
            return ""
        since_s = time.monotonic() - self._audit_opened_s
        values = {**self._gate_status(), "since": since_s, "limit": self.params["max_miss_rate"]}
        return _AUDIT_OPEN.format(**{key.replace(".", "_"): value for key, value in values.items()})

    def _gate_status(self) -> dict[str, Any]:
        """The gate's status; the previous one while it decodes a large image."""
        if self._gate_lock.acquire(timeout=LOCK_TIMEOUT_S):
            try:
                self._last_status = self._gate.status()
            finally:
                self._gate_lock.release()
        return self._last_status

    def status_values(self) -> dict[str, Any]:
        blind_ms = None if self._passed_s is None else (time.monotonic() - self._passed_s) * 1e3
        return {
            **super().status_values(),
            "enabled": self.params["enabled"],
            "preset": self.params["preset"],
            "last_reason": self._last_reason,
            "blind_ms": blind_ms,
            "max_blind_ms": self.params["max_blind_ms"],
            **self._gate_status(),
            **self._governor.status_values(),
            **self._ego.status_values(),
        }

    def reset_stats(self) -> None:
        super().reset_stats()
        if self._gate_lock.acquire(timeout=LOCK_TIMEOUT_S):
            try:
                self._gate.reset_stats()
            finally:
                self._gate_lock.release()
        else:
            self._reset_stats_due = True


def _rungs_of(ladder: str) -> tuple[Rung, ...]:
    """The models of a ladder.yaml, none for "". Raises BundleError."""
    return read_ladder(Path(ladder).expanduser()) if ladder else ()


_AUDIT_OPEN = (
    "the audit opened the gate {since:.0f} s ago, unchanged frames are inferred like changed ones: "
    "{audit_missed} of {audit_audited} audited frames showed a confirmed object that the gate would have "
    "missed ({audit_miss_rate_low:.0%} at least, max_miss_rate is {limit:.0%}). Raise luma_width_px; with a "
    "cascade, check whether it rejects too much; or raise max_miss_rate"
)


def main(args: list[str] | None = None) -> int:
    return run.main([GateNode], "gate_node", args)
