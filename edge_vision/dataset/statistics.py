"""What a folder of pictures has, and how right its models were on the reviewed ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import true_positives
from edge_vision.dataset.picture import ACCEPTED, STATES, LabelledBox, Picture


@dataclass(slots=True)
class Correctness:
    """Of proposals against labels: matched, of the proposed and of the labelled boxes."""

    pictures: int = 0
    proposed: int = 0
    labelled: int = 0
    matched: int = 0

    @property
    def precision(self) -> float | None:
        """None without proposals."""
        return self.matched / self.proposed if self.proposed else None

    @property
    def recall(self) -> float | None:
        """None without labels."""
        return self.matched / self.labelled if self.labelled else None


@dataclass(slots=True)
class DatasetStatistics:
    """states: pictures by reason and state. correctness: by reason, of accepted pictures with an inference.
    classes: boxes; cameras, bundles, days: pictures."""

    states: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    correctness: dict[str, Correctness] = field(default_factory=lambda: defaultdict(Correctness))
    classes: Counter[str] = field(default_factory=Counter)
    cameras: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)

    @property
    def pictures(self) -> int:
        return sum(counts.total() for counts in self.states.values())

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "pictures": self.pictures,
            "reasons": {
                reason: {
                    **{state: counts[state] for state in STATES},
                    "precision": self.correctness[reason].precision,
                    "recall": self.correctness[reason].recall,
                }
                for reason, counts in sorted(self.states.items())
            },
            "classes": dict(self.classes.most_common()),
            **{name: dict(sorted(getattr(self, name).items())) for name in ("cameras", "bundles", "days")},
        }


def statistics_of(pictures: Iterable[Picture]) -> DatasetStatistics:
    """Of all pictures of a folder."""
    found = DatasetStatistics()
    for one in pictures:
        found.states[one.reason][one.state] += 1
        found.cameras[one.camera or "/"] += 1
        found.bundles[one.bundle or "unknown"] += 1
        found.days[one.day] += 1
        if one.state == ACCEPTED:
            found.classes.update(box.label for box in one.labels)
            if one.inferred:
                _compare(one, found.correctness[one.reason])
    return found


def _compare(picture: Picture, correctness: Correctness) -> None:
    proposed = [one for one in picture.proposals if (one.score or 0.0) >= picture.threshold]
    correctness.pictures += 1
    correctness.proposed += len(proposed)
    correctness.labelled += len(picture.labels)
    correctness.matched += matched_boxes(proposed, picture.labels)


def matched_boxes(some: Sequence[LabelledBox], others: Sequence[LabelledBox]) -> int:
    """One-to-one matches of the same label."""
    ids = {label: i for i, label in enumerate(dict.fromkeys(one.label for one in (*some, *others)))}
    return true_positives(*(_detections(boxes, ids) for boxes in (some, others)))


def _detections(boxes: Sequence[LabelledBox], ids: dict[str, int]) -> Detections:
    xywh = np.array([one.bbox for one in boxes], np.float32).reshape(-1, 4)
    scores = np.array([1.0 if one.score is None else one.score for one in boxes], np.float32)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return Detections(xyxy, scores, np.array([ids[one.label] for one in boxes], np.int32))
