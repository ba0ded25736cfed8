"""Whole chains against labels: what gate, detector and tracker publish on the labelled frames of videos.

The frames between the labelled ones are played as well. Without labels, skipping can only be compared with
the every-frame detector, which flickers itself.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.core.detections import Detections
from edge_vision.evaluate.accuracy.hota import Hota, hota, tracked_frames
from edge_vision.evaluate.accuracy.labels import LabelledImage, LabelSet
from edge_vision.evaluate.accuracy.scores import class_numbers, in_classes_of_labels, scores_of
from edge_vision.evaluate.baselines import evenly
from edge_vision.evaluate.chains.chain import Chain
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.presets import PRESETS, gate_config, gate_settings
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, frame_of, reference_of
from edge_vision.evaluate.simulation import Published, with_tracks
from edge_vision.offline.progress import ProgressLine

EVERY_FRAME = "every_frame"
Sequences = list[list[tuple[LabelledImage, Detections, np.ndarray]]]


@dataclass(slots=True, eq=False)
class ChainRecord:
    """What a chain publishes on the labelled frames. inferred: of `frames` played ones. sequences: of the
    frames with ids."""

    found: list[Detections]
    inferred: int = 0
    frames: int = 0
    sequences: Sequences = field(default_factory=list)


def chains_on_labels(model: str, labels: LabelSet) -> dict[str, dict[str, Any]]:
    """For each chain: the share of inferred frames, the figures of the published boxes, and HOTA, which is
    None without ids.

    evenly_as_X: inferred as often as preset X, at even intervals. Raises EvaluateError without labelled
    frames of videos.
    """
    videos = labels.videos()
    if not videos:
        raise EvaluateError(f"{labels.file}: --chain: expected labelled frames of videos, got images alone")
    detector = ReferenceDetector(model)
    numbers = class_numbers(detector.bundle.labels, labels)
    empty = [Detections.empty()] * len(labels.images)
    records: dict[str, ChainRecord] = defaultdict(lambda: ChainRecord(list(empty)))
    line = ProgressLine(sys.stderr)
    try:
        for path, positions in videos.items():
            for name, published in _published(path, _last(labels, positions) + 1, detector, line).items():
                _add(records[name], published, labels, positions, numbers)
    finally:
        line.end()
    played = set().union(*videos.values())
    shown = _only(labels, played)
    threshold = detector.bundle.manifest.thresholds.score_threshold
    return {name: _figures(one, shown, numbers, threshold, played) for name, one in records.items()}


def _last(labels: LabelSet, positions: Sequence[int]) -> int:
    return max(frame for at in positions if (frame := labels.images[at].frame) is not None)


def _only(labels: LabelSet, positions: set[int]) -> LabelSet:
    return LabelSet(labels.file, labels.classes, tuple(labels.images[at] for at in sorted(positions)))


def _published(path: Path, n: int, detector: ReferenceDetector, line: ProgressLine) -> dict[str, Published]:
    """What each chain publishes on the first n frames of a video."""
    condition = clip_condition(path)
    steps = iter(range(10**9))
    reference = reference_of(
        condition, n, detector, lambda _: line.progress(f"{path.stem}: detecting", next(steps), n)
    )
    chains = {name: Chain(gate_config(gate_settings(name))) for name in PRESETS}
    frames = islice(condition.frames(), n)
    for at, (frame, found, low) in enumerate(
        zip(frames, reference.detections, reference.low_score, strict=False)
    ):
        for chain in chains.values():
            chain.process(frame_of(frame), found, low)
        line.progress(f"{path.stem}: gate", at + 1, n)
    published = {EVERY_FRAME: with_tracks(np.ones(len(reference), bool), reference)}
    for name, chain in chains.items():
        published |= _preset(name, chain, reference)
    return published


def _preset(name: str, chain: Chain, reference: Reference) -> dict[str, Published]:
    record = chain.record
    inferred = np.array(record.accepted)
    spread = evenly(int(inferred.sum()), len(inferred))
    return {
        name: with_tracks(inferred, reference, record.motions, record.at_rest),
        f"evenly_as_{name}": with_tracks(spread, reference, record.motions),
    }


def _add(
    record: ChainRecord,
    published: Published,
    labels: LabelSet,
    positions: Sequence[int],
    numbers: dict[int, int],
) -> None:
    """Add what a chain published on the labelled frames of a video."""
    assert published.ids is not None
    record.inferred += int(published.inferred.sum())
    record.frames += len(published.inferred)
    sequence = []
    for at in positions:
        image = labels.images[at]
        assert image.frame is not None
        shown, ids = published.detections[image.frame], published.ids[image.frame]
        record.found[at] = in_classes_of_labels(shown, numbers)
        if (image.track_ids > 0).any():
            sequence.append((image, record.found[at], ids[np.isin(shown.class_ids, list(numbers))]))
    record.sequences.append(sequence)


def _figures(
    record: ChainRecord, labels: LabelSet, numbers: dict[int, int], threshold: float, played: set[int]
) -> dict[str, Any]:
    found = [record.found[at] for at in sorted(played)]
    frames = tracked_frames(record.sequences)
    tracking = asdict(hota(frames)) if frames else dict.fromkeys(Hota.__dataclass_fields__)
    return {
        "inferred_share": round(record.inferred / record.frames, 4),
        **scores_of(found, labels, numbers.values(), 0.0),
        **tracking,
        "score_threshold": threshold,
    }
