"""All steps of a fit, from videos to figures; `write` turns what comes out into a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.store import Bundle, sha256_of
from edge_vision.cascade.stages import CascadeStage
from edge_vision.core.model_spec import StageSpec
from edge_vision.core.progress import ProgressLine
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.constructed import condition_by_name
from edge_vision.evaluate.fit import threshold
from edge_vision.evaluate.fit.base import FrozenFeatures
from edge_vision.evaluate.fit.check import play
from edge_vision.evaluate.fit.head import LinearHead, fit_head
from edge_vision.evaluate.fit.samples import NOTHING, UNCLEAR, WANTED, Sampler, Samples
from edge_vision.evaluate.fit.splits import CALIBRATE, FIT, split
from edge_vision.evaluate.fit.teacher import Teacher
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import Reference, reference_of
from edge_vision.source.capture import video_path

MAX_LOOKS = 8000
"""Of the fit; more are thinned at random: they tell little new, and cost seconds a step."""
SEED = 5
CURVE_POINTS = 60
WANTED_LABEL, NOTHING_LABEL = "wanted", "nothing"


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What to fit. recall, confidence: 0..1, of the looks at wanted objects that must not be rejected."""

    recall: float
    confidence: float
    look_share: float


@dataclass(frozen=True, slots=True, eq=False)
class FitClip:
    """A video or scene with the teacher's wanted boxes. sha256: of the file, or of what makes the scene."""

    name: str
    sha256: str
    condition: Condition
    wanted: Reference


@dataclass(frozen=True, slots=True, eq=False)
class FittedStage:
    """A head, how a cascade is to use it, and what was measured."""

    head: LinearHead
    stage: StageSpec
    figures: dict[str, Any]


SCENE = "scene:"
"""Before the name of a constructed scene of the gate's evaluation, in place of a video."""


def clip_of(video: str, teacher: Teacher, line: ProgressLine) -> FitClip:
    """Have the teacher look at every frame, or take what it found from the cache. Raises EdgeVisionError."""
    scene = video.startswith(SCENE)
    path = Path(video) if scene else video_path(video)
    condition = condition_by_name(video.removeprefix(SCENE)) if scene else clip_condition(path)
    name = condition.name if scene else path.name
    sha256 = condition.make().fingerprint() if scene else sha256_of(path)
    done = 0

    def tick(_: str) -> None:
        nonlocal done
        done += 1
        line.progress(f"{name}: teacher", done, condition.n_frames)

    reference = reference_of(condition, condition.n_frames, teacher, tick)
    return FitClip(name, sha256, condition, teacher.wanted(reference))


def check_enough(clips: list[FitClip], wish: FitRequest) -> None:
    """Raise EvaluateError where there are too few events to state the confidence."""
    n = sum(len(split(clip.wanted, clip.condition.fps_hz).trials) for clip in clips)
    threshold.allowed_misses(n, wish.recall, wish.confidence)


def samples_of(clip: FitClip, base: FrozenFeatures, look_share: float, line: ProgressLine) -> Samples:
    """The looks of a clip. Raises EdgeVisionError."""
    parted = split(clip.wanted, clip.condition.fps_hz)
    sampler = Sampler(clip.wanted, parted, look_share, base.features)
    return sampler.take(clip.condition, _told(line, f"{clip.name}: looks", len(clip.wanted)))


def fit(samples: Samples, wish: FitRequest) -> FittedStage:
    """Fit the head, then its thresholds. Raises EvaluateError where the video does not say enough."""
    rows = np.flatnonzero((samples.part == FIT) & (samples.labels != UNCLEAR))
    rows = np.random.default_rng(SEED).permutation(rows)[:MAX_LOOKS]
    head = fit_head(samples.features[rows], samples.labels[rows])
    events = np.array([head.scores(looks).max() for looks in samples.trial_features])
    reject_below = threshold.reject_below(events, wish.recall, wish.confidence)
    judged = (samples.part == CALIBRATE) & (samples.labels != UNCLEAR)
    scores, labels = head.scores(samples.features[judged]), samples.labels[judged]
    stage = StageSpec(
        wanted=(WANTED_LABEL,),
        reject_below=_short(reject_below),
        accept_from=_short(threshold.accept_from(scores, labels, reject_below)),
        look_share=wish.look_share,
    )
    n = len(events)
    return FittedStage(
        head,
        stage,
        {
            "recall": wish.recall,
            "confidence": wish.confidence,
            "events": n,
            "events_missed": int((events < stage.reject_below).sum()),
            "events_allowed_missed": threshold.allowed_misses(n, wish.recall, wish.confidence),
            "looks_fitted_on": {name: int((samples.labels[rows] == value).sum()) for name, value in _NAMES},
            "looks_judged_on": {name: int((labels == value).sum()) for name, value in _NAMES},
            "rejected_of_nothing": _short(float((scores[labels == NOTHING] < stage.reject_below).mean()))
            if (labels == NOTHING).any()
            else None,
            "curve": curve(events, scores[labels == NOTHING]),
        },
    )


_NAMES = ((WANTED_LABEL, WANTED), (NOTHING_LABEL, NOTHING))


def curve(events: np.ndarray, nothing: np.ndarray) -> list[list[float]]:
    """Threshold, share of events that are kept, share of looks at nothing that are rejected; rising."""
    at = np.unique(np.quantile(np.concatenate([events, nothing, [0.0]]), np.linspace(0, 1, CURVE_POINTS)))
    return [
        [
            _short(float(one)),
            _short(float((events >= one).mean())),
            _short(float((nothing < one).mean()) if len(nothing) else 0.0),
        ]
        for one in at
    ]


def checked(clips: list[FitClip], stage: CascadeStage, line: ProgressLine, held_out: bool) -> dict[str, Any]:
    """Figures of the finished cascade on clips: on the calibration's blocks, or on whole clips held out."""
    found = {}
    for clip in clips:
        part = None if held_out else split(clip.wanted, clip.condition.fps_hz).part == CALIBRATE
        told = _told(line, f"{clip.name}: playing", len(clip.wanted))
        found[clip.name] = play(clip.condition, clip.wanted, stage, told, part)
    return found


def provenance(
    base: Bundle, teacher: Bundle, clips: list[FitClip], held_out: list[FitClip]
) -> dict[str, Any]:
    """What went in, with hashes."""
    return {
        "base": {"name": base.name, "version": base.version, "sha256": base.sha256},
        "teacher": {"name": teacher.name, "version": teacher.version, "sha256": teacher.sha256},
        "fitted_on": {clip.name: clip.sha256 for clip in clips},
        "held_out": {clip.name: clip.sha256 for clip in held_out},
    }


def progress() -> ProgressLine:
    """Where progress is shown: standard error."""
    return ProgressLine(sys.stderr)


def _told(line: ProgressLine, what: str, total: int) -> Callable[[int], None]:
    return lambda done: line.progress(what, done, total)


def _short(value: float) -> float:
    """Six digits, rounded down: a threshold may be too low, never too high."""
    return float(np.floor(value * 1e6) / 1e6)
