"""Rules for heads that report masks, oriented boxes or key points.

Their outputs resemble a detector's. The task in the file's metadata decides, and must agree with the numbers;
without it, the values of one run decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.core.model_spec import HeadSpec
from edge_vision.detect.heads.base import SCORE_TOLERANCE
from edge_vision.detect.heads.shapes import MAX_ANGLE
from edge_vision.errors import BundleError
from edge_vision.importer.head_evidence import (
    MAX_LISTED_ROWS,
    HeadEvidence,
    HeadGuess,
    format_shape,
    in_unit_interval,
)

SUFFIX_OF_TASK = {"segment": "_seg", "obb": "_obb", "pose": "_pose"}
"""The heads are those of grids, yolov8_seg and so on, and of selected objects, end_to_end_seg and so on."""
_ANGLES = (-math.pi / 4 - 0.05, 3 * math.pi / 4 + 0.05)
# A coordinate in pixels exceeds this somewhere on the grid; a score or a visibility never does.
_MIN_PX = 4.0
# Fewer columns than those of three points may be wide by chance. Spread: 10th to 90th percentile.
_MIN_RELATIVE, _MAX_BACKGROUND, _MIN_SPREAD = 6, 0.1, 0.5
_MIN_ANGLE = 0.1  # Angles on noise are about pi / 4, scores about 0.


@dataclass(frozen=True, slots=True)
class _Grid:
    """An output with one column or row per grid cell, of this length. values: (length, n) of one run."""

    output: TensorSpec
    role: str
    length: int
    values: np.ndarray | None

    @property
    def boxes(self) -> np.ndarray | None:
        """(n, 4)."""
        return None if self.values is None else self.values[:4].T

    @property
    def scores(self) -> np.ndarray | None:
        """(length - 4, n), what follows the boxes."""
        return None if self.values is None else self.values[4:].astype(np.float32)


def recognise(evidence: HeadEvidence, head: str | None) -> HeadGuess | None:
    """The head of masks, oriented boxes or key points that fits; None for boxes alone.

    Raises BundleError if metadata, a requested head and numbers contradict each other, and for scores that
    are not from 0 to 1.
    """
    declared = SUFFIX_OF_TASK.get(evidence.task, "")
    requested = next((suffix for suffix in SUFFIX_OF_TASK.values() if head and head.endswith(suffix)), "")
    guess = _segment(evidence) or _one_output(evidence, requested or declared, head)
    found = guess.spec.type if guess else ""
    if declared and not found.endswith(declared):
        raise BundleError(
            f"expected outputs of the task '{evidence.task}', which the file's metadata declares, got "
            f"{_outputs(evidence)}"
        )
    if guess and evidence.task and not declared:
        raise BundleError(
            f"expected outputs of the task '{evidence.task}', which the file's metadata declares, got "
            f"{guess.why}"
        )
    if guess and head not in (None, found):
        raise BundleError(f"expected outputs for the head '{head}', got those of '{found}': {guess.why}")
    return guess


def _grid_of(evidence: HeadEvidence, output: TensorSpec) -> _Grid | None:
    if len(output.shape) != 3 or output.shape[0] != 1 or None in output.shape:
        return None
    first, second = int(output.shape[1] or 0), int(output.shape[2] or 0)
    values = evidence.values.get(output.name)
    if evidence.strides_of(second):
        return _Grid(output, "columns", first, None if values is None else values[0])
    if evidence.strides_of(first):
        return _Grid(output, "rows", second, None if values is None else values[0].T)
    return None


def _segment(evidence: HeadEvidence) -> HeadGuess | None:
    """Boxes, class scores and mask coefficients per cell; prototypes as many as coefficients."""
    if sorted(len(one.shape) for one in evidence.outputs) != [3, 4]:
        return None
    rows, maps = sorted(evidence.outputs, key=lambda one: len(one.shape))
    grid, layout = _grid_of(evidence, rows), _layout(evidence, maps)
    if layout is None:
        return None
    k = int(maps.shape[1 if layout == "nchw" else 3] or 0)
    options: dict[str, object] = {} if layout == "nchw" else {"prototype_layout": layout}
    if grid is None:
        roles = {"rows": rows.name, "prototypes": maps.name}
        fits = _is_list(rows) and (rows.shape[2] == 6 + k or evidence.task == "segment")
        return _listed(evidence, rows, "end_to_end_seg", k, roles, options) if fits else None
    n_classes = grid.length - 4 - k
    sizes = f"{format_shape(rows.shape)}: 4 boxes + {n_classes} classes + {k} mask coefficients"
    if n_classes < 1 or (evidence.task == "segment" and evidence.n_labels not in (None, n_classes)):
        raise BundleError(
            f"expected 4 + {evidence.n_labels or 'classes'} + {k} values per cell beside prototypes "
            f"{format_shape(maps.shape)}, got {grid.length} in {format_shape(rows.shape)}"
        )
    if grid.values is not None:
        _check_scores(grid.values[4 : 4 + n_classes], rows)
    options |= _unit(evidence, grid.boxes)
    spec = HeadSpec("yolov8_seg", {grid.role: rows.name, "prototypes": maps.name}, options)
    return HeadGuess("ultralytics", spec, n_classes, f"{sizes}; prototypes {format_shape(maps.shape)}")


def _layout(evidence: HeadEvidence, maps: TensorSpec) -> str | None:
    """The layout in which maps have the input's aspect ratio; None for no such maps."""
    if None in maps.shape or maps.shape[0] != 1:
        return None
    _, a, b, c = (int(side or 0) for side in maps.shape)
    width, height = evidence.width_px, evidence.height_px
    fits = {"nchw": b * width == c * height, "nhwc": a * width == b * height}
    preferred = ("nhwc", "nchw") if evidence.format == "tflite" else ("nchw", "nhwc")
    return next((layout for layout in preferred if fits[layout]), None)


def _one_output(evidence: HeadEvidence, wanted: str | None, head: str | None) -> HeadGuess | None:
    """Oriented boxes or key points: as wanted, else as the values show."""
    one = evidence.single(3)
    grid = _grid_of(evidence, one) if one else None
    if one and grid is None and wanted and _is_list(one):
        n_points, n_values = _declared_points(evidence, int(one.shape[2] or 0) - 6)
        more: dict[str, object] = (
            {"keypoints": n_points, "point_values": n_values} if wanted == "_pose" else {}
        )
        n_extra = n_points * n_values if wanted == "_pose" else 1
        return _listed(evidence, one, f"end_to_end{wanted}", n_extra, {"rows": one.name}, more)
    if grid is None:
        return None
    if wanted == "_pose":
        return _pose(evidence, grid, *_declared_points(evidence, grid.length - 4 - (evidence.n_labels or 1)))
    if wanted == "_obb":
        return _oriented(evidence, grid)
    scores = grid.scores
    if wanted or scores is None:
        return None
    if n_values := _point_values(scores):
        return _pose(evidence, grid, (grid.length - 5) // n_values, n_values)
    if _is_oriented(scores, grid, head):
        return _oriented(evidence, grid)
    if grid.role == "columns":
        _check_scores(scores, grid.output)
    return None


def _is_list(one: TensorSpec) -> bool:
    """Whether an output is a list of selected objects, with more than box, score and class."""
    known = len(one.shape) == 3 and None not in one.shape
    return known and int(one.shape[1] or 0) <= MAX_LISTED_ROWS and int(one.shape[2] or 0) > 6


def _listed(
    evidence: HeadEvidence,
    rows: TensorSpec,
    head: str,
    n_extra: int,
    roles: dict[str, str],
    options: dict[str, object],
) -> HeadGuess:
    """Selected objects: box, score, class and further values."""
    shape, values = format_shape(rows.shape), evidence.values.get(rows.name)
    if rows.shape[2] != 6 + n_extra or n_extra < 1:
        raise BundleError(
            f"expected 6 + {n_extra or 'k'} values per object for the head '{head}', got {rows.shape[2]} in "
            f"{shape}"
        )
    if values is not None:
        _check_scores(values[0, :, 4], rows)
        options |= _unit(evidence, values[0, :, :4])
    why = f"{shape}: a short list of box, score, class and {n_extra} further values"
    return HeadGuess("ultralytics", HeadSpec(head, roles, options), None, why)


def _declared_points(evidence: HeadEvidence, rest: int) -> tuple[int, int]:
    """The number of key points, and of values of each: as declared, else what divides the rest."""
    return evidence.keypoints or ((rest // 3, 3) if rest % 3 == 0 else (rest // 2, 2))


def _pose(evidence: HeadEvidence, grid: _Grid, n_points: int, n_values: int) -> HeadGuess:
    n_classes = grid.length - 4 - n_points * n_values
    shape = format_shape(grid.output.shape)
    why = f"{shape}: 4 boxes + {n_classes} classes + {n_points} key points of {n_values} values"
    if n_classes < 1 or n_points < 1 or (evidence.keypoints and evidence.n_labels not in (None, n_classes)):
        raise BundleError(
            f"expected 4 + {evidence.n_labels or 1} + {n_points or 'k'} x {n_values} values per cell for key "
            f"points, got {grid.length} in {shape}"
        )
    if (scores := grid.scores) is not None:
        _check_scores(scores[:n_classes], grid.output)
        if n_values == 3:
            _check_scores(scores[n_classes + 2 :: 3], grid.output, "scores of key points")
    options = {**_unit(evidence, grid.boxes), "keypoints": n_points, "point_values": n_values}
    spec = HeadSpec("yolov8_pose", {grid.role: grid.output.name}, options)
    return HeadGuess("ultralytics", spec, n_classes, why)


def _oriented(evidence: HeadEvidence, grid: _Grid) -> HeadGuess:
    n_classes, shape = grid.length - 5, format_shape(grid.output.shape)
    if n_classes < 1 or evidence.n_labels not in (None, n_classes):
        raise BundleError(
            f"expected 4 + {evidence.n_labels or 'classes'} + 1 values per cell for oriented boxes, got "
            f"{grid.length} in {shape}"
        )
    if (scores := grid.scores) is not None:
        _check_scores(scores[:-1], grid.output)
        if (highest := float(np.abs(scores[-1]).max())) > MAX_ANGLE:
            raise BundleError(
                f"expected angles up to {MAX_ANGLE:.4g} rad at the end of oriented boxes, got {highest:.4g} "
                f"in {shape}"
            )
    spec = HeadSpec("yolov8_obb", {grid.role: grid.output.name}, _unit(evidence, grid.boxes))
    why = f"{shape}: 4 boxes + {n_classes} classes + an angle"
    return HeadGuess("ultralytics", spec, n_classes, why)


def _unit(evidence: HeadEvidence, boxes: np.ndarray | None) -> dict[str, object]:
    return {"box_unit": "relative"} if evidence.has_relative_boxes(boxes) else {}


def _point_values(scores: np.ndarray) -> int:
    """3 or 2 if (k, n) are one score, then x and y of key points, each with a score or not; else 0.

    Coordinates are in pixels, or relative: then they cover 0 to 1, and the score is near 0 on noise.
    """
    points = scores[1:]
    if not len(points) or not in_unit_interval(scores[0]):
        return 0
    coordinates = np.abs(points).max(axis=1) > _MIN_PX
    if len(points) >= _MIN_RELATIVE and in_unit_interval(points) and np.median(scores[0]) < _MAX_BACKGROUND:
        coordinates = np.ptp(np.percentile(points, (10, 90), axis=1), axis=0) > _MIN_SPREAD
    with_score = len(points) % 3 == 0 and in_unit_interval(points[2::3])
    if with_score and coordinates[0::3].all() and coordinates[1::3].all():
        return 3
    return 2 if len(points) % 2 == 0 and bool(coordinates.all()) else 0


def _is_oriented(scores: np.ndarray, grid: _Grid, head: str | None) -> bool:
    """Whether the last of (k, n) rows is an angle and the others are scores.

    On noise, all angles may be within 0 to 1; then all are far above the scores, as a class that is present
    everywhere would be. Raises BundleError unless metadata, labels or `head` decide between the two.
    """
    others, last = scores[:-1], scores[-1:]
    if not len(others) or not in_unit_interval(others):
        return False
    low, high = float(last.min()), float(last.max())
    if not in_unit_interval(last):
        return _are_angles(low, high)
    if grid.role == "rows" or low <= max(float(others.max()), _MIN_ANGLE) or head:
        return False
    raise BundleError(
        f"expected an output that one head reads, got {format_shape(grid.output.shape)} with {low:.4g} to "
        f"{high:.4g} in the last place of each cell, which may be angles: give --head yolov8_obb, or --head "
        f"yolov8 if it is a class"
    )


def _are_angles(low: float, high: float) -> bool:
    return low >= _ANGLES[0] and high <= _ANGLES[1]


def _check_scores(scores: np.ndarray, output: TensorSpec, what: str = "class scores") -> None:
    """Raise BundleError unless all scores are from 0 to 1."""
    if scores.size and (scores.min() < -SCORE_TOLERANCE or scores.max() > 1 + SCORE_TOLERANCE):
        raise BundleError(
            f"expected {what} from 0 to 1, got {scores.min():.4g} to {scores.max():.4g} in "
            f"{format_shape(output.shape)}: logits, or a model of another task? Export the model with its "
            f"sigmoid: this head has no score_activation"
        )


def _outputs(evidence: HeadEvidence) -> str:
    return ", ".join(format_shape(one.shape) for one in evidence.outputs)
