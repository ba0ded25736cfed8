"""What a head is: it turns the outputs of a graph into boxes or class scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from edge_vision.core.geometry.nms import nms
from edge_vision.core.model_spec import HeadSpec, Thresholds
from edge_vision.errors import HeadError

if TYPE_CHECKING:
    from edge_vision.backends.base import TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class ModelBoxes:
    """Objects as the model sees them, best score first.

    xyxy_model: (n, 4) float32 in pixels of the input tensor, not clipped. scores: (n,) float32.
    class_ids: (n,) int32.
    """

    xyxy_model: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray

    @staticmethod
    def suppressed(
        xyxy_model: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, thresholds: Thresholds
    ) -> ModelBoxes:
        """Of candidates in any order, those that `nms` keeps: class by class, best first."""
        keep = nms(xyxy_model, scores, class_ids, thresholds.iou_threshold, thresholds.max_detections)
        return _model_boxes(xyxy_model[keep], scores[keep], class_ids[keep])

    @staticmethod
    def best(
        xyxy_model: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, thresholds: Thresholds
    ) -> ModelBoxes:
        """The best max_detections candidates, for graphs that need no suppression. Ties keep their order."""
        keep = np.argsort(-scores, kind="stable")[: thresholds.max_detections]
        return _model_boxes(xyxy_model[keep], scores[keep], class_ids[keep])


def _model_boxes(xyxy_model: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> ModelBoxes:
    return ModelBoxes(
        xyxy_model.astype(np.float32, copy=False),
        scores.astype(np.float32, copy=False),
        class_ids.astype(np.int32),
    )


class DetectionHead(ABC):
    """Outputs to boxes. Used by one thread at a time."""

    task: ClassVar[Literal["detect"]] = "detect"

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], thresholds: Thresholds) -> ModelBoxes:
        """Decode one image's outputs. Raises HeadError where they are not finite or of another shape."""

    def highest_score(self, outputs: Mapping[str, np.ndarray]) -> float | None:
        """The highest score of one image's outputs, whatever the threshold; None where a head cannot tell."""
        return None


class ClassificationHead(ABC):
    """Outputs to class scores. Used by one thread at a time."""

    task: ClassVar[Literal["classify"]] = "classify"

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(k,) float32, one score per label. Raises HeadError as DetectionHead.decode does."""

    @abstractmethod
    def decode_batch(self, outputs: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """(n, k) float32, the same of a batch of n images."""


Head = DetectionHead | ClassificationHead


Shape = tuple[int | str, ...]
"""A shape that a head expects: numbers, and names of sides that may have any length, as in (1, "n", 4)."""


@dataclass(frozen=True, slots=True)
class OutputReader:
    """Takes one output, and answers for its shape and its numbers."""

    head: str
    role: str
    name: str
    shape: Shape

    @staticmethod
    def find(spec: HeadSpec, role: str, outputs: Sequence[TensorSpec], shape: Shape) -> OutputReader:
        """The output that plays a role. Raises HeadError where it is missing or of another shape."""
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
        reader = OutputReader(spec.type, role, name, shape)
        if not _fits(found[name].shape, shape):
            raise reader.misfit(found[name].shape)
        return reader

    def read(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output as float32. Raises HeadError where it is missing, misshapen, or not finite."""
        if self.name not in outputs:
            raise HeadError(f"expected output '{self.name}' from the runtime, got {_listed(outputs)}")
        values = outputs[self.name]
        if values.shape != self.shape and not _fits(values.shape, self.shape):
            raise self.misfit(values.shape)
        # One sum tells in most calls: it is finite only where all numbers are (but may overflow).
        if not math.isfinite(float(values.sum())) and not np.isfinite(values).all():
            bad = values.size - int(np.isfinite(values).sum())
            raise HeadError(
                f"{bad} of {values.size} numbers of output '{self.name}' are not finite: the graph overflows "
                f"at this precision or its weights are damaged; try precision fp32 or fetch the bundle again"
            )
        return np.asarray(values, np.float32)

    def misfit(self, shape: Sequence[int | None]) -> HeadError:
        """The error for an output of another shape."""
        return HeadError(
            f"head '{self.head}' expects {self.role} of shape {_shown(self.shape)}, output '{self.name}' has "
            f"{_shown(shape)}: check input size, labels and head in bundle.yaml against the graph"
        )


def read_options(spec: HeadSpec, defaults: Mapping[str, object]) -> dict[str, object]:
    """The options, defaults filled in. Raises HeadError for one that the head does not know."""
    unknown = sorted(set(spec.options) - set(defaults))
    if unknown:
        raise HeadError(f"head '{spec.type}' knows the options {_listed(defaults)}, got {_listed(unknown)}")
    return {**defaults, **spec.options}


def choose(spec: HeadSpec, option: str, value: object, known: Mapping[str, object]) -> str:
    """A named choice of an option. Raises HeadError that lists the known ones."""
    if not isinstance(value, str) or value not in known:
        raise HeadError(f"head '{spec.type}': option {option} is one of {_listed(known)}, got {value!r}")
    return value


def sizes_of(spec: HeadSpec, option: str, value: object) -> tuple[int, ...]:
    """An option that is a list of whole numbers above 0, such as strides. Raises HeadError."""
    if not isinstance(value, (list, tuple)) or not value:
        raise HeadError(f"head '{spec.type}': option {option} is a list of whole numbers, got {value!r}")
    return tuple(whole_of(spec, option, size, 1, 1024) for size in value)


def whole_of(spec: HeadSpec, option: str, value: object, low: int, high: int) -> int:
    """An option that is a whole number in low..high. Raises HeadError."""
    if type(value) is not int or not low <= value <= high:
        raise HeadError(
            f"head '{spec.type}': option {option} is a whole number, {low} to {high}, got {value!r}"
        )
    return value


def number_of(spec: HeadSpec, option: str, value: object, low: float, high: float) -> float:
    """An option that is a number in low..high. Raises HeadError."""
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise HeadError(
            f"head '{spec.type}': option {option} is a number, {low:g} to {high:g}, got {value!r}"
        )
    return float(value)  # type: ignore[arg-type]


def _fits(actual: Sequence[int | None], expected: Shape) -> bool:
    """Whether a graph's shape, whose free dimensions are None, can be the expected one."""
    return len(actual) == len(expected) and all(
        a is None or isinstance(e, str) or a == e for a, e in zip(actual, expected, strict=True)
    )


def _shown(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join(str(side) for side in shape)}]"


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "none"  # type: ignore[attr-defined]
