"""Which of the detected objects are reported: by class, size and zone."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_vision.core.detections import DetectionResult
from edge_vision.core.geometry.zones import NO_ZONES, Zones

REASONS = ("class", "size", "zone")
"""Why an object is not reported; the first one that applies is counted."""


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """wanted_classes: labels, empty = all. min_box_px: of the shorter side of a box, 0 = any."""

    wanted_classes: tuple[str, ...] = ()
    min_box_px: int = 0
    zones: Zones = NO_ZONES


class ReportFilter:
    """Filters the detections of one camera. Any thread may call `configure`, also during `apply`."""

    def __init__(self) -> None:
        self._rules: tuple[ReportConfig, np.ndarray | None] = ReportConfig(), None
        self._counts: Counter[str] = Counter()
        self.trouble = ""
        """Why a wanted class has no effect; "" if all have."""

    @property
    def zones(self) -> Zones:
        return self._rules[0].zones

    def configure(self, config: ReportConfig, labels: Sequence[str]) -> None:
        """Apply a configuration to the classes of a model from the next frame on.

        A name that is not a label has no effect, and `trouble` reports it. If none is one, all classes are
        reported: a model with other labels must not silence the camera.
        """
        self.trouble = unknown_classes(config.wanted_classes, labels)
        known = {label.lower() for label in labels}
        wanted = {name.lower() for name in config.wanted_classes} & known
        ids = [number for number, label in enumerate(labels) if label.lower() in wanted]
        self._rules = config, np.array(ids) if ids else None

    def keeps(self, xyxy_px: np.ndarray, class_ids: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        """(n,) bool: which boxes, (n, 4), of an image of this width and height are reported."""
        return np.asarray(np.all(self._verdicts(xyxy_px, class_ids, size_px), axis=0))

    def apply(self, result: DetectionResult, size_px: tuple[int, int]) -> DetectionResult:
        """The result with what is reported; what is not is counted, low-score detections excepted."""
        if self._rules[0] == ReportConfig():
            return result
        found, low_score = result.detections, result.low_score
        verdicts = self._verdicts(found.xyxy_px, found.class_ids, size_px)
        kept = np.asarray(verdicts.all(axis=0))
        dropped = ~verdicts[:, ~kept]
        self._counts.update(REASONS[number] for number in dropped.argmax(axis=0).tolist())
        if low_score is not None:
            low_score = low_score.select(self.keeps(low_score.xyxy_px, low_score.class_ids, size_px))
        return replace(result, detections=found.select(kept), low_score=low_score)

    def _verdicts(self, xyxy_px: np.ndarray, class_ids: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        """(len(REASONS), n) bool: which boxes each rule keeps."""
        config, wanted_ids = self._rules
        verdicts = np.ones((len(REASONS), len(class_ids)), bool)
        if wanted_ids is not None:
            verdicts[0] = np.isin(class_ids, wanted_ids)
        if config.min_box_px:
            verdicts[1] = (xyxy_px[:, 2:] - xyxy_px[:, :2]).min(axis=1) >= config.min_box_px
        if config.zones:
            verdicts[2] = config.zones.contain(xyxy_px, size_px)
        return verdicts

    def status(self) -> dict[str, int]:
        """Objects that were detected and not reported, by reason."""
        return {f"filtered.{reason}": self._counts[reason] for reason in REASONS}

    def reset_stats(self) -> None:
        self._counts.clear()


def unknown_classes(names: Sequence[str], labels: Sequence[str]) -> str:
    """Which names are no labels, with the nearest label of each, in one sentence; "" if all are labels."""
    known = {label.lower(): label for label in labels}
    unknown = [name for name in names if name.lower() not in known]
    if not unknown or not labels:
        return ""
    hints = []
    for name in unknown[:3]:
        near = difflib.get_close_matches(name.lower(), known, 1, 0.5)
        hints.append(f"'{name:.50}'" + (f" (did you mean '{known[near[0]]}'?)" if near else ""))
    some = ", ".join([*known.values()][:5])
    return f"expected labels of the model, got {', '.join(hints)}: use those in label_info, as {some}"


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a list of class names with an empty or a repeated one."""
    for name, count in Counter(name.lower() for name in names).items():
        if not name.strip() or count > 1:
            fault = "more than once" if name.strip() else "as a name"
            raise ValueError(f"expected different names of classes, got '{name:.50}' {fault}: remove it")
