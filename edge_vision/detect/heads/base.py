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
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
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


class _Head(ABC):
    """Options and outputs of a head. Used by one thread at a time."""

    defaults: ClassVar[Mapping[str, object]] = {}
    """The options, with their defaults."""

    def __init__(
        self, spec: HeadSpec, input_spec: InputSpec, outputs: Sequence[TensorSpec], n_labels: int
    ) -> None:
        """Raises HeadError if the options or the graph's outputs do not match."""
        unknown = sorted(set(spec.options) - set(self.defaults))
        if unknown:
            known = _listed(self.defaults)
            raise HeadError(f"head '{spec.type}' knows the options {known}, got {_listed(unknown)}")
        self._spec, self._input, self._outputs, self._n_labels = spec, input_spec, outputs, n_labels
        self._options = {**self.defaults, **spec.options}
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """Read the options and find the outputs. Raises HeadError."""

    def output(self, role: str, shape: Shape, masked: bool = False) -> OutputReader:
        """The output with a role. Raises HeadError if it is missing or has another shape.

        masked: minus infinity is a valid value.
        """
        spec, name = self._spec, self._spec.outputs.get(role)
        if name is None:
            raise HeadError(
                f"head '{spec.type}' needs head.outputs.{role}, the bundle names {_listed(spec.outputs)}: "
                f"add it to bundle.yaml"
            )
        found = {output.name: output for output in self._outputs}
        if name not in found:
            raise HeadError(
                f"head '{spec.type}' reads its {role} from output '{name}', the graph has "
                f"{_listed(found)}: correct head.outputs in bundle.yaml"
            )
        reader = OutputReader(spec.type, role, name, shape, masked)
        if not _fits(found[name].shape, shape):
            raise reader.shape_error(found[name].shape)
        return reader

    def choice(self, option: str, known: Mapping[str, object]) -> str:
        """An option with named values. Raises HeadError."""
        value = self._options[option]
        if not isinstance(value, str) or value not in known:
            raise self._wrong(option, f"one of {_listed(known)}")
        return value

    def integer(self, option: str, low: int, high: int) -> int:
        """An option that is an integer in low..high. Raises HeadError."""
        value = self._options[option]
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(option, f"an integer from {low} to {high}")
        return value

    def strides(self) -> tuple[int, ...]:
        """The option strides, integers from 1 to 1024. Raises HeadError."""
        value = self._options["strides"]
        sizes = value if isinstance(value, (list, tuple)) else ()
        if not sizes or not all(type(size) is int and 1 <= size <= 1024 for size in sizes):
            raise self._wrong("strides", "a list of integers from 1 to 1024")
        return tuple(sizes)

    def _wrong(self, option: str, expected: str) -> HeadError:
        value = self._options[option]
        return HeadError(
            f"head '{self._spec.type}': expected option {option} to be {expected}, got {value!r}"
        )


class DetectionHead(_Head):
    """Decodes outputs to boxes."""

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


class ClassificationHead(_Head):
    """Decodes outputs to class scores."""

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


def _fits(actual: Sequence[int | None], expected: Shape) -> bool:
    """Whether a graph's shape, with None for dynamic dimensions, matches the expected one."""
    return len(actual) == len(expected) and all(
        a is None or isinstance(e, str) or a == e for a, e in zip(actual, expected, strict=True)
    )


def _shown(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(side) for side in shape)}]"


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "none"  # type: ignore[attr-defined]
