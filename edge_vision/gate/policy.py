"""Whether a frame passes, and for which reason: the gate's state machine, on plain values.

    closed     nothing new was seen for a while; frames are skipped
    open       something new is there; every frame passes, or one an interval while all that is new lies
               within objects that the detector has just found
    saturated  something new has been everywhere, or has not ended, for long, or a crowd is in view: frames
               pass at an interval, and at once when it spreads, unless the gate is backed off

It opens on one frame and closes after quiet frames and quiet time. `max_blind_ms` bounds the time between
two frames that pass by whichever clock says it was longer, whatever the rest decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from edge_vision.gate.motion.estimator import Motion

PASSES = (
    "disabled",
    "first",
    "size_changed",
    "clock_jump",
    "model_swap",
    "gate_error",
    "stream_gap",
    "refresh",
    "audit_open",
    "light",
    "ego_unreliable",
    "motion",
    "viewpoint",
    "closing",
    "back_off",
    "tracked_interval",
    "saturated_interval",
    "audit",
    "appearance_check",
    "cut",
    "interval",
    "urgent",
)
# Passes of frames that would be skipped: by a random check, or because a known object looks otherwise.
ANYWAY = ("audit", "appearance_check")
# Passes that are no question to a cascade: the gate asks what it would have missed, or what became of an
# object, or the detector is new.
FORCED = (*ANYWAY, "audit_open", "model_swap")
SKIPS = ("still", "compensated", "tracked", "saturated", "predicted", "rate_limit")

# A camera limited to a third of its rate must give a third, not a quarter: this early counts as in time.
RATE_SLACK = 0.98
# An anchor that shows less of the picture than this is replaced by a later one.
MIN_ANCHOR_VIEW = 0.75
# Motion counts as new to a part of the picture that was without for this long.
SPREAD_MS = 1500.0
# What share of the frames could be skipped is averaged over about so long; before that, half is assumed.
SAVING_MS = 1000.0
UNKNOWN_SAVING = 0.5
MOST_PERIOD_MS = 100.0


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Settings of the gate. Each is a parameter of the gate node, described there."""

    enabled: bool = True
    min_fidelity: float = 0.0
    max_delay_ms: float = 100.0
    max_rate_hz: float = 0.0
    max_blind_ms: float = 2000.0
    max_blind_moving_ms: float = 500.0
    luma_width_px: int = 320
    pixel_threshold: int = 10
    noise_factor: float = 6.0
    min_changed_area: float = 0.0005
    quiet_frames: int = 2
    quiet_ms: float = 60.0
    settle_ms: float = 200.0
    tracked_interval_ms: float = 0.0
    appearance_check_ms: float = 500.0
    ego_motion: bool = True
    parallax: bool = True
    light_jump: float = 8.0
    max_new_view: float = 0.03
    min_saving: float = 0.0
    saturated_area: float = 0.3
    saturated_after_ms: float = 1000.0
    saturated_open_ms: float = 5000.0
    saturated_interval_ms: float = 60.0
    saturated_objects: int = 0
    saturated_look: bool = True
    saturated_stretch: int = 0
    saturated_min_f1: float = 0.0
    max_gap_ms: float = 1000.0
    audit_rate: float = 0.01
    audit_max_hz: float = 1.0
    max_miss_rate: float = 0.2


class Eye(Protocol):
    """What the policy asks of and tells the motion estimator."""

    def rebase(self) -> None: ...
    def seen(self) -> None: ...
    def mark(self) -> None: ...
    def fall_back(self) -> None: ...
    def settled(self) -> bool: ...
    def cells(self) -> np.ndarray: ...
    def all_known(self) -> bool: ...
    @property
    def anchor_view(self) -> float: ...


class GatePolicy:
    """One camera's state. `update` gives the reason; those in SKIPS skip.

    saving: about which share of the frames could be skipped lately, of those that were judged.
    """

    def __init__(self) -> None:
        self.mode: Literal["open", "closed", "saturated"] = "open"
        self._last_stamp_ns = self._last_mono_ns = 0
        self.restart("first")

    def restart(self, reason: str) -> None:
        """The next frame passes for this reason, and nothing before it counts."""
        self._must_pass = reason
        self.mode = "open"
        self._owed = ""
        self._passed_stamp_ns = self._passed_mono_ns = 0
        self._quiet_frames, self._quiet_since_ns = 0, 0
        self._opened_ns, self._marked_ns = 0, 0
        self._full_since_ns: int | None = None
        self._moved_ns: np.ndarray | None = None
        self._crowd_since_ns: int | None = None
        self.saving, self._judged_ns = UNKNOWN_SAVING, 0

    def update(
        self,
        config: GateConfig,
        motion: Motion,
        eye: Eye,
        stamp_ns: int,
        mono_ns: int,
        audit_opens: bool,
        due: bool,
    ) -> str:
        """The reason to pass or skip a frame that came at mono_ns with this stamp.

        due: whether it is time for a frame to pass, should the gate be saturated.
        """
        jump = self._jump(config, stamp_ns, mono_ns)
        if jump and not self._must_pass:
            self.restart(jump)
        self._last_stamp_ns, self._last_mono_ns = stamp_ns, mono_ns
        if self._must_pass:
            reason, self._must_pass = self._must_pass, ""
            self._open(eye, mono_ns)
            self._quiet_since_ns = mono_ns
            eye.rebase()
            return self._pass(eye, stamp_ns, mono_ns, reason)
        judged = self._judge(config, motion, eye, mono_ns, due)
        reason = self._bounded(config, motion, judged, stamp_ns, mono_ns, audit_opens)
        self._note_saving(reason in SKIPS, mono_ns)
        if reason in SKIPS:
            return reason
        if self.mode == "closed":
            eye.rebase()
        return self._pass(eye, stamp_ns, mono_ns, reason)

    def in_view(self, config: GateConfig, objects: int, mono_ns: int) -> None:
        """So many objects were found on the last frame that the detector has looked at."""
        if config.saturated_objects == 0 or objects < config.saturated_objects:
            self._crowd_since_ns = None
        elif self._crowd_since_ns is None:
            self._crowd_since_ns = mono_ns

    def since_ms(self, stamp_ns: int, mono_ns: int) -> float:
        """The time since the last frame that passed, by whichever clock says it was longer."""
        return self._blind_ns(stamp_ns, mono_ns) * 1e-6

    def must_look(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> bool:
        """Whether a gate that rests has to look at a frame after all: something else has come up."""
        return bool(self._must_pass or self._owed or self._jump(config, stamp_ns, mono_ns))

    def too_soon(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> bool:
        """Whether a frame comes too soon after the last one that passed for the user's limit on the rate."""
        limit_hz = config.max_rate_hz
        return limit_hz > 0.0 and self._blind_ns(stamp_ns, mono_ns) < RATE_SLACK * 1e9 / limit_hz

    def unseen(self, stamp_ns: int, mono_ns: int, passes: bool) -> None:
        """A frame came, and was not looked at."""
        self._last_stamp_ns, self._last_mono_ns = stamp_ns, mono_ns
        if passes:
            self._passed_stamp_ns, self._passed_mono_ns = stamp_ns, mono_ns

    def passed_anyway(self, eye: Eye, stamp_ns: int, mono_ns: int, reason: str) -> None:
        """A frame that `update` skipped passes for one of ANYWAY."""
        self._pass(eye, stamp_ns, mono_ns, reason)

    def _pass(self, eye: Eye, stamp_ns: int, mono_ns: int, reason: str) -> str:
        self._passed_stamp_ns, self._passed_mono_ns = stamp_ns, mono_ns
        self._owed = ""
        eye.seen()
        return reason

    # Bounds, which hold whatever was seen.
    def _jump(self, config: GateConfig, stamp_ns: int, mono_ns: int) -> str:
        if self._must_pass:
            return ""
        stamps_ns, ours_ns = stamp_ns - self._last_stamp_ns, mono_ns - self._last_mono_ns
        if stamps_ns < 0 or stamps_ns - ours_ns > config.max_gap_ms * 1e6:
            return "clock_jump"
        return "stream_gap" if ours_ns > config.max_gap_ms * 1e6 else ""

    def _bounded(
        self, config: GateConfig, motion: Motion, judged: str, stamp_ns: int, mono_ns: int, audit_opens: bool
    ) -> str:
        blind_ns = self._blind_ns(stamp_ns, mono_ns)
        moves = motion.camera != "standing" or motion.new_view > 0.0
        limit_ms = min(config.max_blind_ms, config.max_blind_moving_ms) if moves else config.max_blind_ms
        if blind_ns >= limit_ms * 1e6 and judged in SKIPS:
            return "refresh"
        if judged in SKIPS and self._owed:
            judged = self._owed
        if self.too_soon(config, stamp_ns, mono_ns) and blind_ns < limit_ms * 1e6:
            # What was seen once, and would not be seen again in the next frame, is owed.
            self._owed = "" if judged in SKIPS else judged
            return "rate_limit"
        return "audit_open" if audit_opens and judged in SKIPS else judged

    def _blind_ns(self, stamp_ns: int, mono_ns: int) -> int:
        # The longer of the two clocks: a stamp that stands still must not blind anybody.
        return max(mono_ns - self._passed_mono_ns, stamp_ns - self._passed_stamp_ns)

    # What was seen.
    def _judge(self, config: GateConfig, motion: Motion, eye: Eye, mono_ns: int, due: bool) -> str:
        unknown = motion.camera == "unknown"
        if unknown:
            eye.rebase()
        light = motion.light_step > config.light_jump
        if light:
            # Seen once, then the new light is the usual one.
            eye.rebase()
            return "light"
        if motion.changed or unknown:
            return self._busy(config, motion, eye, mono_ns, due)
        self._full_since_ns = None
        if self.mode != "closed":
            return self._quieter(config, motion, eye, mono_ns)
        if motion.new_view > config.max_new_view:
            return "viewpoint"
        return "still" if motion.camera == "standing" else "compensated"

    def _busy(self, config: GateConfig, motion: Motion, eye: Eye, mono_ns: int, due: bool) -> str:
        if self.mode == "closed":
            self._open(eye, mono_ns)
        self._quiet_frames = 0
        if mono_ns - self._marked_ns >= config.settle_ms * 1e6:
            if motion.camera != "unknown" and eye.settled():
                # Something stands where nothing stood: it is part of the scene now, and rechecked by refresh.
                self._close(eye)
                return "closing"
            if motion.camera == "moving" or eye.anchor_view < MIN_ANCHOR_VIEW:
                # An older anchor fits a moving camera's view less and less.
                eye.fall_back()
            eye.mark()
            self._marked_ns = mono_ns
        spread = config.saturated_look and self._spreads(eye, mono_ns)
        self._saturate(config, motion, mono_ns)
        since_ms = (mono_ns - self._passed_mono_ns) / 1e6
        if config.tracked_interval_ms > 0.0 and motion.camera != "unknown" and eye.all_known():
            return "tracked_interval" if since_ms >= config.tracked_interval_ms else "tracked"
        if self.mode == "saturated" and not spread:
            return "saturated_interval" if due else "saturated"
        return "ego_unreliable" if motion.camera == "unknown" else "motion"

    def _saturate(self, config: GateConfig, motion: Motion, mono_ns: int) -> None:
        if motion.changed_area < config.saturated_area:
            self._full_since_ns = None
        elif self._full_since_ns is None:
            self._full_since_ns = mono_ns
        full = self._full_since_ns is not None and (
            mono_ns - self._full_since_ns >= config.saturated_after_ms * 1e6
        )
        long = mono_ns - self._opened_ns >= config.saturated_open_ms * 1e6
        crowded = self._crowd_since_ns is not None and (
            mono_ns - self._crowd_since_ns >= config.saturated_after_ms * 1e6
        )
        if full or long or crowded:
            self.mode = "saturated"

    def _note_saving(self, skipped: bool, mono_ns: int) -> None:
        # A rest, in which nothing is judged, counts as one frame.
        since_ms = min((mono_ns - self._judged_ns) * 1e-6, MOST_PERIOD_MS)
        self._judged_ns = mono_ns
        self.saving += (float(skipped) - self.saving) * (1.0 - math.exp(-since_ms / SAVING_MS))

    def _spreads(self, eye: Eye, mono_ns: int) -> bool:
        """True where something differs in a part of the picture that was quiet, as were its neighbours."""
        cells = eye.cells()
        if self._moved_ns is None or self._moved_ns.shape != cells.shape:
            self._moved_ns = np.full(cells.shape, -(10**18), np.int64)
        was = mono_ns - self._moved_ns < SPREAD_MS * 1e6
        near = was.copy()
        near[1:] |= was[:-1]
        near[:-1] |= was[1:]
        near[:, 1:] |= near[:, :-1].copy()
        near[:, :-1] |= near[:, 1:].copy()
        self._moved_ns[cells] = mono_ns
        return bool((cells & ~near).any())

    def _quieter(self, config: GateConfig, motion: Motion, eye: Eye, mono_ns: int) -> str:
        if self._quiet_frames == 0:
            self._quiet_since_ns = mono_ns
        self._quiet_frames += 1
        quiet_ns = mono_ns - self._quiet_since_ns
        if self._quiet_frames > config.quiet_frames and quiet_ns >= config.quiet_ms * 1e6:
            self._close(eye, rebase=False)
            return "still" if motion.camera == "standing" else "compensated"
        return "closing"

    def _open(self, eye: Eye, mono_ns: int) -> None:
        self.mode = "open"
        self._opened_ns = self._marked_ns = mono_ns
        self._quiet_frames = 0
        self._moved_ns = None
        eye.mark()

    def _close(self, eye: Eye, rebase: bool = True) -> None:
        self.mode = "closed"
        self._full_since_ns = None
        if rebase:
            eye.rebase()
