"""What the tests of the heads share: known objects, and a real run of a graph that gives chosen outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from model_cases import save_graph
from onnx import helper, numpy_helper

from edge_vision.backends.base import BackendRequest, TensorSpec
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head

FRAME_WIDTH, FRAME_HEIGHT = 800, 450
INPUT = InputSpec("images", 640, 640, resize="letterbox")
THRESHOLDS = Thresholds(0.5, 0.5, 100)


@dataclass(frozen=True)
class Known:
    """An object that must be found: xyxy in source pixels."""

    xyxy: tuple[float, float, float, float]
    score: float
    class_id: int


# Far from each other, of all sizes; the second and third share a place and are of two classes.
KNOWN = (
    Known((40.0, 60.5, 145.0, 300.0), 0.92, 2),
    Known((400.0, 100.0, 620.25, 330.0), 0.83, 0),
    Known((404.0, 102.0, 622.0, 328.0), 0.71, 1),
    Known((700.0, 400.0, 742.0, 436.0), 0.55, 3),
    Known((250.0, 380.0, 277.0, 418.5), 0.64, 3),
)
N_LABELS = 4
# As similar as two can be: a head that suppresses would lose one of them.
TWIN = Known((41.0, 62.0, 146.0, 301.0), 0.6, 2)
ALL_KNOWN = (*KNOWN, TWIN)


def in_model(xyxy: tuple[float, ...], width: int = 640, height: int = 640) -> np.ndarray:
    """Source pixels to pixels of the letterboxed input: one scale, equal bars on both sides."""
    scale = min(width / FRAME_WIDTH, height / FRAME_HEIGHT)
    left, top = (width - FRAME_WIDTH * scale) / 2, (height - FRAME_HEIGHT * scale) / 2
    x1, y1, x2, y2 = xyxy
    return np.array([x1 * scale + left, y1 * scale + top, x2 * scale + left, y2 * scale + top])


def centres_of(xyxy: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = xyxy
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def constant_graph(path: Path, outputs: dict[str, np.ndarray], size: tuple[int, int] = (640, 640)) -> Path:
    """A graph with these constant outputs, whatever its input."""
    weights = tuple(numpy_helper.from_array(value, f"{name}_value") for name, value in outputs.items())
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs]
    shapes = {name: list(value.shape) for name, value in outputs.items()}
    return save_graph(path, nodes, {"images": [1, 3, size[1], size[0]]}, shapes, weights)


def run_graph(
    graph: Path,
    spec: HeadSpec,
    thresholds: Thresholds = THRESHOLDS,
    input_spec: InputSpec = INPUT,
    n_labels: int = N_LABELS,
) -> Detections:
    """A real session, the head, and the way back to source pixels."""
    session = OnnxRuntimeBackend().load(graph, BackendRequest())
    head = make_head(spec, input_spec, session.outputs, n_labels)
    frame = Frame(np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8), 0, "camera")
    return Detector(input_spec, head, session, thresholds).detect(frame).detections


def assert_found(found: Detections, known: tuple[Known, ...] = KNOWN, atol_px: float = 0.05) -> None:
    """All of these, and nothing else, best first."""
    expected = sorted(known, key=lambda one: -one.score)
    assert found.class_ids.tolist() == [one.class_id for one in expected]
    np.testing.assert_allclose(found.scores, [one.score for one in expected], atol=1e-3)
    np.testing.assert_allclose(found.xyxy_px, [one.xyxy for one in expected], atol=atol_px)


def specs_of(**shapes: tuple[int | None, ...]) -> tuple[TensorSpec, ...]:
    """Outputs of a graph by name and shape."""
    return tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
