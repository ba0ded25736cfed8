"""The options of a training, which check themselves."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vision.optimize.errors import OptimizeError
from edge_vision.train.option_ranges import SHARE_TO_PRUNE, TRAINING, check_options
from edge_vision.train.same_options import FLAGS


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """recipe: qat, prune, student or search. model: name or folder of a bundle, or a .onnx file. videos,
    judge: clips, bags, folders of images. frames, judge_frames, samples: numbers of images; a sample is an
    augmented frame. share: of the time, to prune. mixed: of qat, share of the fp32 model's time that
    the most sensitive layers in fp32 may lead to; 0 = all are in int8.

    Of a student: classes; levels, feature maps, 0 = all; other, clips of another scene; width and depth of a
    new network, width 0 = the pruned teacher; anyway, write bundles that are refused, too.

    runtime: that int8 is made for, and whose times decide.

    Of a search: budgets, times by that of the teacher's int8; hours to train a
    supernet of our own family, 0 = the teacher is the supernet."""

    recipe: str
    model: str
    videos: tuple[str, ...]
    judge: tuple[str, ...] = ()
    steps: int = 300
    batch: int = 8
    samples: int = 640
    frames: int = 480
    judge_frames: int = 104
    seed: int = 0
    share: float = 0.0
    classes: tuple[str, ...] = ()
    levels: int = 0
    other: tuple[str, ...] = ()
    width: float = 0.0
    depth: int = 2
    anyway: bool = False
    budgets: tuple[float, ...] = ()
    runtime: str = "onnxruntime"
    hours: float = 0.0
    mixed: float = 0.0

    def __post_init__(self) -> None:
        check_options(self, TRAINING, FLAGS)
        if self.recipe == "prune":
            SHARE_TO_PRUNE.check("--share", self.share)
        if self.width and self.share:
            raise OptimizeError(
                f"--width {self.width:g} with --share {self.share:g}: expected one of them, for a new "
                "network or for the pruned teacher"
            )
        if self.recipe == "search" and not self.budgets:
            raise OptimizeError("--budgets: expected numbers above 0, got none")
