"""Converts MoveNet MultiPose Lightning, people with 17 key points each, from TensorFlow.js to ONNX.

Its layers are converted one by one. The decoding behind them is written here in fewer operations than the
published graph has, with the same results: that of CenterNet for poses (Zhou et al. 2019, arXiv:1904.07850),
but a key point is found in the heatmap of all people, weighted by a Gaussian around the place that the
person's centre predicts for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_vision.model_zoo.convert_tfjs import NHWC, TfjsConverter
from edge_vision.model_zoo.convert_tfjs_detectors import checked
from edge_vision.model_zoo.tfjs_reader import TfjsModel

PEOPLE, POINTS = 6, 17
_STRIDE = 4
"""Pixels of the image per cell of the maps."""
_GRAPH = "StatefulPartitionedCall"
_RESIZED = f"{_GRAPH}/center_net_mobile_net_v2fpn_feature_extractor/model_1/up_sampling2d"
_RESIZED_SIDES = {"": 16, "_1": 32, "_2": 64}
"""At 256 pixels. The published graph computes them from its input."""


def convert_movenet(model_json: bytes, shards: Mapping[str, bytes], size_px: int = 320) -> bytes:
    """The serialised ONNX model. size_px: a multiple of 32.

    Output: rows (1, 6, 57), each left, top, right, bottom in pixels, score, class 0, and x, y, score of 17
    key points. Raises BundleError if it is another model.
    """

    def converted(model: TfjsModel) -> bytes:
        sides = {f"{_RESIZED}{suffix}/mul": np.full(2, side) for suffix, side in _RESIZED_SIDES.items()}
        graph = TfjsConverter(model, "movenet_multipose", f"{_GRAPH}/sub_1", NHWC, 256, constants=sides)
        _Decoding(graph, model).write()
        return graph.model(size_px, {"rows": (1, PEOPLE, 6 + 3 * POINTS)})

    return checked("MoveNet MultiPose", converted, model_json, shards)


class _Decoding:
    """From the maps, (1, channels, h, w), to rows. Coordinates are in cells, and y precedes x.

    The sides of the maps are read in the graph, so that it accepts images of other sizes.
    """

    def __init__(self, graph: TfjsConverter, model: TfjsModel) -> None:
        self._graph, self._writer, self._published = graph, graph.writer, model.weights
        self._count = 0
        shape = self._op("Shape", self._map("center_0/conv2d_4"))
        self._sides = [self._op("Gather", shape, self._int(axis), axis=0) for axis in (2, 3)]
        self._limits = self._float_of(self._op("Gather", shape, self._ints([2], [3]), axis=0))

    def write(self) -> None:
        op = self._op
        people = self._people()
        cells = self._float_of(op("Concat", *self._split(people, [1, PEOPLE]), axis=0))
        guesses = op("Add", self._at("kpt_regress_0/conv2d_8", people, [POINTS, 2, PEOPLE]), cells)
        middle = op("Add", cells, self._at("box_offset_0/conv2d_6", people, [2, PEOPLE]))
        size = op("Relu", self._at("box_scale_0/conv2d_5", people, [2, PEOPLE]))
        half = op("Mul", size, self._float(0.5))
        low, high = (op("Min", op("Relu", op(sign, middle, half)), self._limits) for sign in ("Sub", "Add"))
        points, scores = self._points(guesses, low, high)
        class_0 = self._writer.weight("decode/class_0", np.zeros((1, PEOPLE), np.float32))
        corners = [self._pixels(corner, 0) for corner in (low, high)]
        boxes = op("Concat", *corners, self._person_scores(scores), class_0, axis=0)
        scored = op("Concat", self._pixels(points, 1), op("Unsqueeze", scores, self._ints(1)), axis=1)
        values = op("Concat", boxes, op("Reshape", scored, self._ints(3 * POINTS, PEOPLE)), axis=0)
        self._writer.node("Unsqueeze", [op("Transpose", values, perm=[1, 0]), self._ints(0)], "rows")

    def _people(self) -> str:
        """(6,) cells of the centres with the highest scores that are the highest within 5 x 5 cells."""
        op = self._op
        centers = op("Sigmoid", self._map("center_0/conv2d_4"))
        highest = op("MaxPool", centers, kernel_shape=[5, 5], auto_pad="SAME_UPPER")
        is_highest = op("Less", op("Abs", op("Sub", centers, highest)), self._constant("Less/y"))
        peaks = op("Reshape", op("Mul", centers, self._float_of(is_highest)), self._ints(-1))
        self._writer.node("TopK", [peaks, self._ints(PEOPLE)], "decode/people_scores", "decode/people")
        return "decode/people"

    def _points(self, guesses: str, low: str, high: str) -> tuple[str, str]:
        """(17, 2, 6) places and (17, 6) scores of key points."""
        op = self._op
        heatmaps = op("Sigmoid", self._map("kpt_heatmap_0/conv2d_7"))
        weighted = op("Transpose", heatmaps, perm=[1, 0, 2, 3])
        # The Gaussian is the product of one over rows and one over columns.
        for axis in (0, 1):
            weights = self._gaussian(axis, guesses, low, high)
            weighted = op("Mul", weighted, op("Unsqueeze", weights, self._ints(3 - axis)))
        weighted = op("Reshape", weighted, self._ints(POINTS, PEOPLE, -1))
        best = op("ArgMax", weighted, axis=2, keepdims=0)
        # As published, the score is the highest of all people at this cell.
        scores = op("GatherElements", op("ReduceMax", weighted, axes=[1], keepdims=0), best, axis=1)
        offsets = op("Reshape", self._map("kpt_offset_0/conv2d_9"), self._ints(POINTS, 2, -1))
        both = op("Expand", op("Unsqueeze", best, self._ints(1)), self._ints(POINTS, 2, PEOPLE))
        cells = self._float_of(op("Concat", *self._split(best, [POINTS, 1, PEOPLE]), axis=1))
        return op("Add", cells, op("GatherElements", offsets, both, axis=2)), scores

    def _gaussian(self, axis: int, guesses: str, low: str, high: str) -> str:
        """(17, 6, cells of the axis) around the predicted key points, 0 outside the boxes."""
        op = self._op
        line = self._float_of(op("Range", self._int(0), self._sides[axis], self._int(1)))
        middle, first, end = (
            op("Unsqueeze", op("Gather", value, self._int(axis), axis=at), self._ints(-1))
            for value, at in ((guesses, 1), (low, 0), (high, 0))
        )
        distance = op("Sub", line, middle)
        variance = op("Mul", op("ReduceMin", self._limits, keepdims=0), self._constant("mul_6/y"))
        weights = op("Exp", op("Neg", op("Div", op("Mul", distance, distance), variance)))
        inside = op("And", op("GreaterOrEqual", line, first), op("Less", line, end))
        return op("Mul", weights, self._float_of(inside))

    def _person_scores(self, scores: str) -> str:
        """(1, 6) scores of the centres times the mean scores of the visible key points."""
        op = self._op
        visible = self._float_of(op("Greater", scores, self._constant("Greater_1/y")))
        total, count = (
            op("ReduceSum", values, self._ints(0)) for values in (op("Mul", scores, visible), visible)
        )
        mean = op("Div", total, op("Max", count, self._float(1)))
        return op("Mul", mean, "decode/people_scores")

    def _split(self, cells: str, shape: list[int]) -> list[str]:
        """Rows and columns of cells, int64 of a shape."""
        shaped = self._op("Reshape", cells, self._ints(*shape))
        return [self._op(op, shaped, self._sides[1]) for op in ("Div", "Mod")]

    def _pixels(self, places: str, axis: int) -> str:
        """Places in pixels, x before y."""
        swapped = self._op("Gather", places, self._ints(1, 0), axis=axis)
        return self._op("Mul", swapped, self._float(_STRIDE))

    def _at(self, node: str, people: str, shape: list[int]) -> str:
        """The values of a map at the people's cells, in a shape."""
        flat = self._op("Reshape", self._map(node), self._ints(int(np.prod(shape[:-1])), -1))
        return self._op("Reshape", self._op("Gather", flat, people, axis=1), self._ints(*shape))

    def _map(self, node: str) -> str:
        return self._graph.feature_map(f"{_GRAPH}/{node}/BiasAdd")

    def _constant(self, name: str) -> str:
        """A number of the published graph."""
        return self._writer.weight(name, self._published[f"{_GRAPH}/{name}"])

    def _float(self, value: float) -> str:
        return self._writer.weight(f"decode/{value:g}", np.float32(value))

    def _int(self, value: int) -> str:
        return self._writer.weight(f"decode/int_{value}", np.int64(value))

    def _ints(self, *values: int | list[int]) -> str:
        return self._writer.weight(f"decode/{values}", np.array(values, np.int64))

    def _float_of(self, value: str) -> str:
        return self._op("Cast", value, to=1)

    def _op(self, op: str, *inputs: str, **attributes: Any) -> str:
        self._count += 1
        return self._writer.node(op, inputs, f"decode/{op}_{self._count}", **attributes)
