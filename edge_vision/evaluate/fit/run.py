"""All steps of a fit, from videos to thresholds and figures; `write` makes the bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.store import Bundle
from edge_vision.cascade.stages import CascadeStage
from edge_vision.core.model_spec import StageSpec
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.constructed import condition_by_name
from edge_vision.evaluate.fit import threshold
from edge_vision.evaluate.fit.base import FrozenFeatures
from edge_vision.evaluate.fit.head import LinearHead, fit_head
from edge_vision.evaluate.fit.replay import replay
from edge_vision.evaluate.fit.samples import AMBIGUOUS, NOTHING, WANTED, Sampler, Samples
from edge_vision.evaluate.fit.splits import CALIBRATE, FIT, Split, split
from edge_vision.evaluate.fit.teacher import Teacher
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import Reference, reference_of
from edge_vision.offline.media_files import source_name, source_sha256
from edge_vision.offline.progress import ProgressLine
from edge_vision.source.uri import video_path

MAX_CROPS = 8000
"""Limit of the fit; more crops are thinned out at random, as they add little and cost seconds per step."""
SEED = 5
CURVE_POINTS = 60
WANTED_LABEL, NOTHING_LABEL = "wanted", "nothing"
SEQUENCE_PREFIX = "scene:"
"""Prefix of the name of a constructed sequence, in place of a video."""
_LABELS = ((WANTED_LABEL, WANTED), (NOTHING_LABEL, NOTHING))


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What to fit. recall, confidence: 0..1, of crops with wanted objects that must not be rejected."""

    recall: float
    confidence: float
    crop_share: float


@dataclass(frozen=True, slots=True, eq=False)
class FitClip:
    """A video or sequence with the teacher's wanted boxes. sha256: of the file, or the fingerprint."""

    name: str
    sha256: str
    condition: Condition
    reference: Reference

    def split(self) -> Split:
        """Its fit and calibration parts."""
        return split(self.reference, self.condition.fps_hz)


@dataclass(frozen=True, slots=True, eq=False)
class FittedStage:
    """A head, its thresholds, and the figures of the calibration."""

    head: LinearHead
    stage: StageSpec
    figures: dict[str, Any]


def clip_name(video: str) -> str:
    """The name under which the results list a clip: its file's; of a folder or topic, as in `source_name`."""
    if video.startswith(SEQUENCE_PREFIX):
        return video.removeprefix(SEQUENCE_PREFIX)
    path = video_path(video)
    return source_name(str(path)) if path.is_dir() or not path.exists() else path.name


def load_clip(video: str, teacher: Teacher, line: ProgressLine) -> FitClip:
    """A clip with the teacher's detections on every frame, cached. Raises EdgeVisionError."""
    constructed = video.startswith(SEQUENCE_PREFIX)
    path = Path(video) if constructed else video_path(video)
    condition = (
        condition_by_name(video.removeprefix(SEQUENCE_PREFIX)) if constructed else clip_condition(path)
    )
    name = clip_name(video)
    sha256 = condition.make().fingerprint() if constructed else source_sha256(str(path))
    done = 0

    def on_step(_: str) -> None:
        nonlocal done
        done += 1
        line.progress(f"{name}: teacher", done, condition.n_frames)

    reference = reference_of(condition, condition.n_frames, teacher, on_step)
    return FitClip(name, sha256, condition, teacher.wanted(reference))


def check_event_count(clips: list[FitClip], request: FitRequest) -> None:
    """Raise EvaluateError if there are too few events for the confidence."""
    n = sum(len(clip.split().events) for clip in clips)
    threshold.allowed_misses(n, request.recall, request.confidence)


def samples_of(clip: FitClip, base: FrozenFeatures, crop_share: float, line: ProgressLine) -> Samples:
    """The labelled crops of a clip. Raises EdgeVisionError."""
    sampler = Sampler(clip.reference, clip.split(), crop_share, base.features)
    return sampler.take(clip.condition, _progress(line, f"{clip.name}: crops", len(clip.reference)))


def fit(samples: Samples, request: FitRequest) -> FittedStage:
    """Fit the head, then its thresholds. Raises EvaluateError if the video has too few examples or events."""
    rows = np.flatnonzero((samples.part == FIT) & (samples.labels != AMBIGUOUS))
    rows = np.random.default_rng(SEED).permutation(rows)[:MAX_CROPS]
    head = fit_head(samples.features[rows], samples.labels[rows])
    events = np.array([head.scores(features).max() for features in samples.event_features])
    reject_below = threshold.reject_below(events, request.recall, request.confidence)
    calibration = (samples.part == CALIBRATE) & (samples.labels != AMBIGUOUS)
    scores, labels = head.scores(samples.features[calibration]), samples.labels[calibration]
    stage = StageSpec(
        wanted=(WANTED_LABEL,),
        reject_below=_rounded_down(reject_below),
        accept_from=_rounded_down(threshold.accept_from(scores, labels, reject_below)),
        look_share=request.crop_share,
    )
    nothing = scores[labels == NOTHING]
    figures = {
        "recall": request.recall,
        "confidence": request.confidence,
        "events": len(events),
        "events_missed": int((events < stage.reject_below).sum()),
        "events_allowed_missed": threshold.allowed_misses(len(events), request.recall, request.confidence),
        "fit_crops": _counts(samples.labels[rows]),
        "calibration_crops": _counts(labels),
        "rejected_nothing_share": _rounded_down(float((nothing < stage.reject_below).mean()))
        if len(nothing)
        else None,
        "curve": curve(events, nothing),
    }
    return FittedStage(head, stage, figures)


def _counts(labels: np.ndarray) -> dict[str, int]:
    return {name: int((labels == value).sum()) for name, value in _LABELS}


def curve(events: np.ndarray, nothing: np.ndarray) -> list[list[float]]:
    """[threshold, kept share of events, rejected share of crops without a wanted object], ascending."""
    at = np.unique(np.quantile(np.concatenate([events, nothing, [0.0]]), np.linspace(0, 1, CURVE_POINTS)))
    return [
        [
            _rounded_down(float(one)),
            _rounded_down(float((events >= one).mean())),
            _rounded_down(float((nothing < one).mean()) if len(nothing) else 0.0),
        ]
        for one in at
    ]


def replay_clips(
    clips: list[FitClip], stage: CascadeStage, line: ProgressLine, held_out: bool
) -> dict[str, Any]:
    """Figures of the finished cascade: on the calibration blocks of clips, or on whole held-out clips."""
    figures = {}
    for clip in clips:
        part = None if held_out else clip.split().part == CALIBRATE
        on_frame = _progress(line, f"{clip.name}: replay", len(clip.reference))
        figures[clip.name] = replay(clip.condition, clip.reference, stage, on_frame, part)
    return figures


def provenance(
    base: Bundle, teacher: Bundle, clips: list[FitClip], held_out: list[FitClip]
) -> dict[str, Any]:
    """The inputs of a fit, with hashes."""
    return {
        "base": {"name": base.name, "version": base.version, "sha256": base.sha256},
        "teacher": {"name": teacher.name, "version": teacher.version, "sha256": teacher.sha256},
        "fitted_on": {clip.name: clip.sha256 for clip in clips},
        "held_out": {clip.name: clip.sha256 for clip in held_out},
    }


def _progress(line: ProgressLine, label: str, total: int) -> Callable[[int], None]:
    return lambda done: line.progress(label, done, total)


def _rounded_down(value: float) -> float:
    """Six digits: a threshold may be too low, never too high."""
    return float(np.floor(value * 1e6) / 1e6)
