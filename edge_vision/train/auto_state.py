"""What a run of `optimize auto` is asked for, and its state, from which a repeated one continues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize.command import STUDY
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.records import decoded
from edge_vision.train.data.input_digests import input_digests
from edge_vision.train.option_ranges import AUTO, check_options
from edge_vision.train.same_options import as_stored, check_same, damaged, stored_options

STATE, TRAIN_IMAGES, JUDGE_IMAGES = "auto.json", "train_images", "judge_images"


@dataclass(frozen=True, slots=True)
class AutoRequest:
    """model, videos, judge, other, classes, batch, samples, seed: as of TrainingRequest. budget_ms,
    max_rss_mb, max_accuracy_loss, backends, images, measure_s: as of Settings.

    hours: for everything, repeated runs included; only the fp32 model and finished trainings are measured
    beyond it. memory_gb: bound of this process while it trains."""

    model: str
    videos: tuple[str, ...]
    judge: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    budget_ms: float | None = None
    hours: float = 1.0
    max_rss_mb: float | None = None
    max_accuracy_loss: float = 0.01
    memory_gb: float = 4.0
    backends: tuple[str, ...] = ()
    batch: int = 8
    samples: int = 640
    seed: int = 0
    images: int = 32
    measure_s: float = 3.0

    def __post_init__(self) -> None:
        check_options(self, AUTO, {})


@dataclass(frozen=True, slots=True)
class Step:
    """A training. name: of its recipe. steps, least: of a training; a shorter one changes
    little. faster: whether it saves time; otherwise it improves the accuracy of int8. trainings: in whose
    time it is done, about."""

    name: str
    steps: int
    least: int
    faster: bool
    trainings: int = 1


STEPS = (
    Step("qat", 300, 50, False),
    Step("prune", 150, 50, True),
    Step("student", 400, 50, True),
    Step("search", 40, 20, True, 12),
)
"""In the order in which they are tried if they are equally needed."""


_STATES = ("running", "done", "refused", "failed", "skipped")


@dataclass(slots=True)
class StepOutcome:
    """state: running, also if the time ended; done, refused, failed or skipped. steps, batch, options: of its
    training."""

    state: str
    reason: str = ""
    steps: int = 0
    batch: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    cpu_s: float = 0.0


@dataclass(slots=True)
class AutoState:
    """What a repeated run continues from. outcomes: by name of the step, in the order of their start. inputs:
    digests of the model and the clips."""

    request: AutoRequest
    spent_s: float = 0.0
    outcomes: dict[str, StepOutcome] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)


def remove_results(folder: Path) -> None:
    """Remove all that a run wrote to its folder."""
    for name in (STATE, STUDY, TRAIN_IMAGES, JUDGE_IMAGES, *(step.name for step in STEPS)):
        remove_path(folder / name)
    for name in (STATE, TRAIN_IMAGES, JUDGE_IMAGES):
        remove_path(folder / f"{name}.unfinished")


def restored(folder: Path, request: AutoRequest) -> AutoState:
    """The stored state, with today's --hours. Raises OptimizeError if it is of another request."""
    content = stored_options(folder / STATE)
    inputs = input_digests(request.model, (*request.videos, *request.judge, *request.other))
    if not content:
        _check_none(folder)
        remove_results(folder)
        return AutoState(request, inputs=inputs)
    try:
        stored = {**content["request"], "hours": request.hours}
        outcomes = {name: _stored_outcome(name, one) for name, one in content["outcomes"].items()}
        spent_s = float(content["spent_s"])
        stored_inputs = dict(content.get("inputs", {}))
        if not 0 <= spent_s < math.inf:
            raise ValueError("expected a time")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged(folder / STATE, "the options and the state of the results") from None
    # What an earlier version did not store, or cannot be read now, is not compared.
    check_same(folder, stored | inputs | stored_inputs, as_stored(request) | stored_inputs | inputs)
    return AutoState(request, spent_s, outcomes, stored_inputs | inputs)


def _stored_outcome(name: str, stored: Mapping[str, Any]) -> StepOutcome:
    """Raises KeyError, TypeError, ValueError or AttributeError for another one."""
    outcome: StepOutcome = decoded(StepOutcome, stored, strict=True)
    options = outcome.options.keys() <= {"share", "classes", "other", "budgets", "runtime"}
    known = name in {step.name for step in STEPS} and outcome.state in _STATES
    if not (known and options and outcome.steps >= 0 and outcome.batch >= 0):
        raise ValueError(f"expected an outcome of a step, got {stored!r:.80} of {name}")
    return outcome


def _check_none(folder: Path) -> None:
    """Raise OptimizeError if there are results, whose state is missing."""
    found = [name for name in (STUDY, *(step.name for step in STEPS)) if (folder / name).exists()]
    if found:
        raise OptimizeError(
            f"{folder}: expected {STATE}, the state of these results, got none beside {', '.join(found)}: "
            f"restore it, pass another --out, or --restart to delete these results"
        )
