"""Base classes of heads, checked reading of outputs and options."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.geometry.boxes import nms
from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.core.object_shapes import ObjectShapes
from edge_vision.errors import HeadError

if TYPE_CHECKING:
    from edge_vision.core.preprocess import Transform


@dataclass(frozen=True, slots=True, eq=False)
class ModelBoxes:
    """Objects in the model's pixels, sorted by descending score.

    xyxy_model: (n, 4) float32 in pixels of the input tensor, not clipped. scores: (n,) float32.
    class_ids: (n,) int32. extra: (n, k) float32, what the head reads of a shape in addition; None for none.
    """

    xyxy_model: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    extra: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, which: np.ndarray | slice) -> ModelBoxes:
        """The subset given by a mask, indices or a slice."""
        extra = None if self.extra is None else self.extra[which]
        return ModelBoxes(self.xyxy_model[which], self.scores[which], self.class_ids[which], extra)

    @staticmethod
    def suppressed(
        xyxy_model: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, thresholds: Thresholds
    ) -> ModelBoxes:
        """The candidates, given in any order, that non-maximum suppression keeps."""
        keep = nms(xyxy_model, scores, class_ids, thresholds.iou_threshold, thresholds.max_detections)
        return ModelBoxes.kept(keep, xyxy_model, scores, class_ids)

    @staticmethod
    def kept(
        keep: np.ndarray,
        xyxy_model: np.ndarray,
        scores: np.ndarray,
        class_ids: np.ndarray,
        extra: np.ndarray | None = None,
    ) -> ModelBoxes:
        """The candidates at these indices, which are sorted by descending score."""
        return ModelBoxes(
            xyxy_model[keep].astype(np.float32, copy=False),
            np.minimum(scores[keep], 1.0).astype(np.float32, copy=False),
            class_ids[keep].astype(np.int32),
            None if extra is None else extra[keep],
        )

    @staticmethod
    def best(
        xyxy_model: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, thresholds: Thresholds
    ) -> ModelBoxes:
        """The best max_detections candidates, without suppression. Ties keep their order."""
        keep = np.argsort(-scores, kind="stable")[: thresholds.max_detections]
        return ModelBoxes.kept(keep, xyxy_model, scores, class_ids)


class DetectionHead(ABC):
    """Decodes outputs to boxes. Used by one thread at a time.

    The constructor of a subclass raises HeadError if the options or the graph's outputs do not match.
    """

    task: ClassVar[Literal["detect"]] = "detect"
    shape_kind: ClassVar[str] = ""
    """`ObjectShapes.kind` of what `shapes` returns, "" for heads of boxes alone."""
    unlabelled = 0
    """Objects dropped so far because the bundle has no label for their class."""

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Decode the outputs of one image. Raises HeadError if they are not finite or have another shape."""

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        """The highest score of one image, regardless of the threshold; None if not available."""
        return None

    def shapes(
        self, outputs: Mapping[str, np.ndarray], found: ModelBoxes, transform: Transform
    ) -> ObjectShapes | None:
        """The shapes of decoded objects in source pixels. Raises HeadError as `decode`."""
        return None

    def _labelled(self, class_ids: np.ndarray, n_labels: int) -> np.ndarray:
        """(n,) bool: the rows whose class has a label. A negative class is padding; others are counted."""
        self.unlabelled += int(np.count_nonzero(class_ids >= n_labels))
        return (class_ids >= 0) & (class_ids < n_labels)


class ClassificationHead(ABC):
    """Decodes outputs to class scores. Used by one thread at a time."""

    task: ClassVar[Literal["classify"]] = "classify"

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(k,) float32, one score per label. Raises HeadError as DetectionHead.decode."""

    @abstractmethod
    def decode_batch(self, outputs: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """(n, k) float32, scores of a batch of n images."""


Head = DetectionHead | ClassificationHead


Shape = tuple[int | str, ...]
"""Expected shape: fixed sizes, and names of dynamic dimensions, as in (1, "n", 4)."""


SCORE_TOLERANCE = 0.05
"""Quantized outputs exceed 0 and 1 by a few steps."""
SET_ACTIVATION = "logits? set head.options.score_activation to sigmoid in bundle.yaml"
NO_ACTIVATION = (
    "logits, or a model of another kind? This head has no score_activation: export the model with its sigmoid"
)


@dataclass(frozen=True, slots=True)
class OutputReader:
    """Reads one output, and checks its shape and values."""

    head: str
    role: str
    name: str
    shape: Shape
    masked: bool = False

    @staticmethod
    def find(
        spec: HeadSpec, role: str, outputs: Sequence[TensorSpec], shape: Shape, masked: bool = False
    ) -> OutputReader:
        """The output with a role. Raises HeadError if it is missing or has another shape.

        masked: minus infinity is a valid value.
        """
        name = spec.outputs.get(role)
        if name is None:
            raise HeadError(
                f"head '{spec.type}' needs head.outputs.{role}, the bundle names {_listed(spec.outputs)}: "
                f"add it to bundle.yaml"
            )
        found = {output.name: output for output in outputs}
        if name not in found:
            raise HeadError(
                f"head '{spec.type}' reads its {role} from output '{name}', the graph has "
                f"{_listed(found)}: correct head.outputs in bundle.yaml"
            )
        reader = OutputReader(spec.type, role, name, shape, masked)
        if not _fits(found[name].shape, shape):
            raise reader.shape_error(found[name].shape)
        return reader

    def read(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output as float32. Raises HeadError if it is missing, not finite, or has another shape."""
        if self.name not in outputs:
            raise HeadError(f"expected output '{self.name}' from the runtime, got {_listed(outputs)}")
        values = outputs[self.name]
        if values.shape != self.shape and not _fits(values.shape, self.shape):
            raise self.shape_error(values.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(values, np.float32)
            # An extreme is NaN if a value is. Both take half the time of a sum.
            extremes = values.min(initial=0.0), values.max(initial=0.0)
        if not all(map(math.isfinite, extremes)):
            self._check_finite(values)
        return values

    def check_scores(
        self, scores: np.ndarray, remedy: str = NO_ACTIVATION, candidates: np.ndarray | None = None
    ) -> None:
        """Raise HeadError unless all scores are from 0 to 1, within SCORE_TOLERANCE.

        candidates: the scores that reach a threshold of at most 1, if known: only these can exceed 1.
        """
        highest = (scores if candidates is None else candidates).max(initial=0.0)
        if scores.min(initial=0.0) < -SCORE_TOLERANCE or highest > 1 + SCORE_TOLERANCE:
            raise HeadError(
                f"head '{self.head}' expects scores from 0 to 1, output '{self.name}' has "
                f"{scores.min():.4g} to {scores.max():.4g}: {remedy}"
            )

    def _check_finite(self, values: np.ndarray) -> None:
        valid = np.isfinite(values) | (values == -np.inf if self.masked else False)
        if n_invalid := values.size - int(np.count_nonzero(valid)):
            raise HeadError(
                f"{n_invalid} of {values.size} values of output '{self.name}' are not finite: the graph "
                f"overflows at this precision or its weights are damaged; try precision fp32 or fetch the "
                f"bundle again"
            )

    def shape_error(self, shape: Sequence[int | None]) -> HeadError:
        return HeadError(
            f"head '{self.head}' expects {self.role} of shape {_shown(self.shape)}, output '{self.name}' has "
            f"{_shown(shape)}: check input size, labels and head in bundle.yaml against the graph"
        )


def read_options(spec: HeadSpec, defaults: Mapping[str, object]) -> dict[str, object]:
    """The options with defaults. Raises HeadError for an unknown option."""
    unknown = sorted(set(spec.options) - set(defaults))
    if unknown:
        raise HeadError(f"head '{spec.type}' knows the options {_listed(defaults)}, got {_listed(unknown)}")
    return {**defaults, **spec.options}


def choice_option(spec: HeadSpec, option: str, value: object, known: Mapping[str, object]) -> str:
    """An option with named values. Raises HeadError."""
    if not isinstance(value, str) or value not in known:
        raise HeadError(
            f"head '{spec.type}': expected option {option} to be one of {_listed(known)}, got {value!r}"
        )
    return value


def int_list_option(spec: HeadSpec, option: str, value: object) -> tuple[int, ...]:
    """An option that is a list of positive integers, such as strides. Raises HeadError."""
    if not isinstance(value, (list, tuple)) or not value:
        raise HeadError(f"head '{spec.type}': expected a list of integers for option {option}, got {value!r}")
    return tuple(int_option(spec, option, size, 1, 1024) for size in value)


def int_option(spec: HeadSpec, option: str, value: object, low: int, high: int) -> int:
    """An option that is an integer in low..high. Raises HeadError."""
    if type(value) is not int or not low <= value <= high:
        raise HeadError(
            f"head '{spec.type}': expected an integer from {low} to {high} for option {option}, got {value!r}"
        )
    return value


def float_option(spec: HeadSpec, option: str, value: object, low: float, high: float) -> float:
    """An option that is a number in low..high. Raises HeadError."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise HeadError(
            f"head '{spec.type}': expected a number from {low:g} to {high:g} for option {option}, "
            f"got {value!r}"
        )
    return float(value)  # type: ignore[arg-type]


def _fits(actual: Sequence[int | None], expected: Shape) -> bool:
    """Whether a graph's shape, with None for dynamic dimensions, matches the expected one."""
    return len(actual) == len(expected) and all(
        a is None or isinstance(e, str) or a == e for a, e in zip(actual, expected, strict=True)
    )


def _shown(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(side) for side in shape)}]"


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "none"  # type: ignore[attr-defined]
