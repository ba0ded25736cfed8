"""What a recipe reports of its training, and how its result is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_vision.train.recipes.training_request import TrainingRequest


@dataclass(frozen=True, slots=True)
class Quality:
    """Against the fp32 model on the judge images. agreement: F1 of boxes or share of the same best class.
    sqnr_db: signal-to-noise ratio of what the decoding tail reads. map50: COCO's AP at IoU 0.5 on the
    reviewed judge images, None without labels."""

    agreement: float
    sqnr_db: float
    map50: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """qualities: by name of the graph. time_ratios: by runtime, of the result's int8 graph by that of the
    teacher's int8 graph, CPU time with one thread. curve: (step, loss, validation score: SQNR in dB, or F1).
    refused: why the result is no replacement, "" = it is one; then there is no bundle, except with `anyway`.
    figures: further ones. labelled: reviewed images to train and to judge, and those left out as the teacher
    is wrong on them. judge_images: of a classifier the crops of judge_frames. cpu_s: of all parts of the run
    together. note: what its user should know, "" = nothing. best_step: at which the kept state was best on
    the validation images, 0 = untrained, None = not known."""

    model: str
    parent_sha256: str
    request: TrainingRequest
    train: tuple[Mapping[str, Any], ...]
    judge: tuple[Mapping[str, Any], ...]
    judge_images: int
    qualities: Mapping[str, Quality]
    time_ratios: Mapping[str, float]
    curve: tuple[tuple[int, float, float], ...]
    cpu_s: float
    stopped: str = ""
    refused: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    judge_frames: int = 0
    note: str = ""
    best_step: int | None = None


def right_on_labels(found: Quality, teacher: Quality, labelled: Mapping[str, int], judge_images: int) -> bool:
    """Whether labels correct the targets and judge at least half of the judge images, with an AP50 of at
    least the teacher's: then a lower agreement with the teacher is no reason to refuse. labelled: as of
    TrainingReport."""
    if "raised" not in labelled or found.map50 is None or teacher.map50 is None:
        return False
    return 2 * labelled["judge"] >= judge_images and found.map50 >= teacher.map50


def worse_than_untuned(untuned: Quality, tuned: Quality, labelled: Mapping[str, int]) -> str:
    """The note that training made a graph worse; "" = it did not. Labels that correct the targets decide.
    labelled: as of TrainingReport."""
    name, before, after = "agreement", untuned.agreement, tuned.agreement
    if "raised" in labelled and untuned.map50 is not None and tuned.map50 is not None:
        name, before, after = "AP50", untuned.map50, tuned.map50
    if after >= before:
        return ""
    return (
        f"the trained graph is worse on the judge images than the untuned one ({name} {after:.3f}, before "
        f"{before:.3f}): pass more --steps or more varied clips"
    )
