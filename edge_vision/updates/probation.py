"""Whether a new model stays within bounds while it serves: reports of detector and gate, compared with those
before the change. The age of detections depends on the machine's load, too: if it exceeds its limit, the
model before serves for a moment again, as a control.

Detects failed frames, age, silence, and a model that finds far too little or too much. A model that labels
differently takes a comparison on the same frames: see `shadow`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_vision.core.confidence_intervals import anytime_exceeds

PROBATION_S = 60.0
MIN_FRAMES = 100
"""Inferred frames until a commit."""
JUDGED_FRAMES = 50
"""Inferred frames until the number of detections and their age are judged."""
LOAD_LIMIT_S = 600.0
"""An engine may have to be built."""
SILENCE_S = 45.0
"""Longer than DDS takes to notice that a process has ended: its silence is no hang."""
BASELINE_S = 120.0
MIN_FAILED_SHARE = 0.01
SLOWER, SLOWER_MS = 2.0, 100.0
SLOW_REPORTS = 5
FEWEST, MOST, MANY = 0.1, 5.0, 5.0
MIN_OBJECTS = 0.2
"""Detections per frame before the change, below which blindness cannot be seen."""


@dataclass(frozen=True, slots=True)
class ServingFigures:
    """Of one status of the detector. Counts are since its start."""

    sha256: str
    pid: str
    inferred: int
    failed: int
    detections: int
    age_ms: float | None
    trouble: str

    @classmethod
    def read(cls, values: Mapping[str, str]) -> ServingFigures:
        """From the status values; what is missing or invalid counts as 0."""
        trouble = values.get("swap.error", "") if values.get("swap.loading") == "False" else ""
        return cls(
            values.get("model_sha256", ""),
            values.get("pid", ""),
            int(_number(values, "ledger.inferred") or 0),
            int(_number(values, "ledger.failed") or 0),
            int(_number(values, "detections_total") or 0),
            _number(values, "age_ms.p95"),
            trouble,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Over some frames. frames: inferred and failed."""

    frames: int
    failed_share: float
    objects_per_frame: float
    age_ms: float | None

    @classmethod
    def between(cls, first: ServingFigures, last: ServingFigures) -> Rates:
        inferred, failed = last.inferred - first.inferred, last.failed - first.failed
        frames = inferred + failed
        objects = (last.detections - first.detections) / max(inferred, 1)
        return cls(frames, failed / max(frames, 1), objects, last.age_ms)


NO_RATES = Rates(0, 0.0, 0.0, None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """commit, or the reason against it. evidence: the figures, for the record."""

    commit: bool
    reason: str
    evidence: Mapping[str, Any]


class Baseline:
    """The rates of the model that serves, over the last two minutes."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, ServingFigures]] = deque()

    def add(self, figures: ServingFigures, now_s: float) -> None:
        """A status of the detector."""
        if self._reports and _restarted(self._reports[-1][1], figures):
            self._reports.clear()
        self._reports.append((now_s, figures))
        while now_s - self._reports[0][0] > BASELINE_S:
            self._reports.popleft()

    def rates(self) -> Rates:
        return Rates.between(self._reports[0][1], self._reports[-1][1]) if self._reports else NO_RATES


class Probation:
    """One model on probation. digest: names it in the detector's error messages.

    sha256, control: of its bundle.yaml, and of that of the model before; if they are the same, or there is no
    model before, there is no control. before: rates of the model before.
    """

    def __init__(self, sha256: str, control: str, digest: str, before: Rates, now_s: float) -> None:
        self._sha256, self._digest, self._before = sha256, digest, before
        self._control_sha256 = control if control != sha256 else ""
        self._since_s = self._heard_s = now_s
        self._first: ServingFigures | None = None
        self._last: ServingFigures | None = None
        self._began_s = now_s
        self._slow = 0
        self._slow_age_ms: float | None = None
        self._control: ServingFigures | None = None
        self._trouble = ""
        self._audit_was_open: bool | None = None

    @property
    def needs_control(self) -> bool:
        """Whether the model before should serve now, as it may be as slow under the present load."""
        return self._slow_age_ms is not None

    def add(self, figures: ServingFigures, now_s: float) -> None:
        """A status of the detector."""
        self._heard_s = now_s
        if self._digest in figures.trouble:
            self._trouble = f"the detector refused it: {figures.trouble}"
        if figures.sha256 != self._sha256:
            if self._slow_age_ms is not None and figures.sha256 == self._control_sha256:
                self._add_control(figures, self._slow_age_ms, now_s)
            return
        if self._first is None or (self._last and _restarted(self._last, figures)):
            self._first, self._began_s = figures, now_s
        self._last = figures
        too_old = self._is_slow(figures.age_ms) and self.frames >= JUDGED_FRAMES
        self._slow = self._slow + 1 if too_old else 0
        if self._slow >= SLOW_REPORTS and not self._control_sha256:
            self._trouble = self._age_text(figures.age_ms)
        elif self._slow >= SLOW_REPORTS and not self.needs_control:
            self._slow_age_ms, self._since_s = figures.age_ms, now_s

    def _add_control(self, figures: ServingFigures, slow_ms: float, now_s: float) -> None:
        """A status of the model before. Its age under the present load is the new measure."""
        if self._control is None or _restarted(self._control, figures):
            self._control = figures
        if figures.inferred - self._control.inferred < JUDGED_FRAMES or figures.age_ms is None:
            return
        self._before = replace(self._before, age_ms=max(figures.age_ms, self._before.age_ms or 0.0))
        if self._is_slow(slow_ms):
            self._trouble = f"{self._age_text(slow_ms)}; the model before has {figures.age_ms:.0f} ms now"
        else:  # It was the load: begin again.
            self._first = self._slow_age_ms = self._control = None
            self._since_s, self._slow = now_s, 0

    def _is_slow(self, age_ms: float | None) -> bool:
        limit_ms = self._age_limit_ms
        return limit_ms is not None and age_ms is not None and age_ms > limit_ms

    def _age_text(self, age_ms: float | None) -> str:
        return f"age {age_ms or 0:.0f} ms (p95), limit {self._age_limit_ms or 0:.0f} ms"

    def pause(self, now_s: float) -> None:
        """The detector does not run: its silence is no hang."""
        self._heard_s = now_s

    def add_gate(self, values: Mapping[str, str]) -> None:
        """A status of the gate."""
        is_open = values.get("audit.open") == "True"
        if self._audit_was_open is None:
            self._audit_was_open = is_open
        elif is_open and not self._audit_was_open and self._first:
            self._trouble = f"the audit's miss rate exceeds its limit: {values.get('audit.miss_rate')}"

    def verdict(self, now_s: float) -> Verdict | None:
        """None while it is open."""
        reason = self._trouble or self._missing(now_s) or (self._exceeded() if self._first else "")
        if reason:
            return Verdict(False, reason, self._evidence(now_s))
        long_enough = now_s - self._began_s >= PROBATION_S and self.frames >= MIN_FRAMES
        done = self._first and long_enough and not self._slow
        return Verdict(True, "within all bounds", self._evidence(now_s)) if done else None

    def _missing(self, now_s: float) -> str:
        if now_s - self._heard_s > SILENCE_S:
            return f"the detector has not reported for {SILENCE_S:.0f} s"
        if now_s - self._since_s > LOAD_LIMIT_S:
            if self._first is None:
                return f"the detector did not load it within {LOAD_LIMIT_S:.0f} s"
            if self.needs_control:
                return self._age_text(self._slow_age_ms)
        return ""

    def _exceeded(self) -> str:
        """The first bound that is exceeded, "" for none."""
        now, before = self._rates(), self._before
        limit = max(MIN_FAILED_SHARE, 2 * before.failed_share)
        failed = round(now.failed_share * now.frames)
        if now.frames and anytime_exceeds(failed, now.frames, limit):
            return f"{failed} of {now.frames} frames failed, limit {100 * limit:.1f} %"
        if now.frames < JUDGED_FRAMES or before.frames < JUDGED_FRAMES:
            return ""
        found = f"{now.objects_per_frame:.2f} detections per frame, {before.objects_per_frame:.2f} before"
        few = now.objects_per_frame < FEWEST * before.objects_per_frame
        if few and before.objects_per_frame >= MIN_OBJECTS:
            return f"blind: {found}"
        many = now.objects_per_frame > MOST * before.objects_per_frame + MANY
        return f"flooding: {found}" if many else ""

    @property
    def _age_limit_ms(self) -> float | None:
        age_ms = self._before.age_ms
        return None if age_ms is None else max(SLOWER * age_ms, age_ms + SLOWER_MS)

    def _rates(self) -> Rates:
        return Rates.between(self._first, self._last) if self._first and self._last else NO_RATES

    def _evidence(self, now_s: float) -> dict[str, Any]:
        return {
            "duration_s": round(now_s - self._began_s, 1),
            "before": asdict(self._before),
            "now": asdict(self._rates()),
        }

    @property
    def frames(self) -> int:
        """With the new model, so far."""
        return self._rates().frames


def _restarted(before: ServingFigures, now: ServingFigures) -> bool:
    """Counts were reset, by a request or a new process."""
    return now.inferred < before.inferred or now.detections < before.detections


def _number(values: Mapping[str, str], key: str) -> float | None:
    try:
        return float(values[key])
    except (KeyError, ValueError):
        return None
