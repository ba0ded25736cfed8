"""Small networks of our own family: inverted residuals, with the outputs of a teacher.

The teacher's last layers, the inputs of its decoding tail, are replaced by a stem, stages of inverted
residuals down to the size of each of them, and a pair of convolutions for each. The tail itself is copied:
the student has the teacher's head, thresholds and input. Where a feature map is exactly half as large as the
next finer one, it is added to that.

Source of the blocks: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from edge_vision.offline.onnx_writer import OnnxWriter
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.decoding_tail import tail_inputs, tail_nodes
from edge_vision.optimize.quantization.graph_edit import with_outputs

_CHANNELS = (16, 24, 40, 64, 96, 128)
"""After each halving of the image, at width 1; further ones have the last."""
_EXPANSION = 3

Shape = tuple[int, ...]


def student(teacher: Any, width: float, depth: int, seed: int) -> Any:
    """A folded model with random weights. width: factor of all channels. depth: blocks of each stage.

    Raises OptimizeError if the teacher's last layers are no feature maps.
    """
    names = tail_inputs(teacher)
    shapes = _shapes(teacher, names)
    if any(len(shape) != 4 for shape in shapes.values()):
        raise OptimizeError("expected a teacher whose last layers are feature maps, got another: use --share")
    given = graph_session.session(teacher).get_inputs()[0]
    network = _Network(width, depth, np.random.default_rng(seed))
    outputs = network.build(given.name, tuple(given.shape), shapes)
    trunk = onnx.load_from_string(network.writer.model({given.name: given.shape}, outputs))
    return _with_tail(trunk, teacher)


def _shapes(model: Any, names: list[str]) -> dict[str, Shape]:
    session = graph_session.session(with_outputs(model, names))
    given = session.get_inputs()[0]
    found = session.run(names, {given.name: np.zeros(given.shape, np.float32)})
    return {name: tuple(values.shape) for name, values in zip(names, found, strict=True)}


def _with_tail(trunk: Any, teacher: Any) -> Any:
    tail = tail_nodes(teacher)
    kept = {node.name for node in tail}
    used = {name for node in tail for name in node.input}
    trunk.graph.node.extend(node for node in teacher.graph.node if node.name in kept)
    trunk.graph.initializer.extend(one for one in teacher.graph.initializer if one.name in used)
    del trunk.graph.output[:]
    trunk.graph.output.extend(teacher.graph.output)
    onnx.checker.check_model(trunk)
    return trunk


class _Network:
    def __init__(self, width: float, depth: int, rng: np.random.Generator) -> None:
        self.writer = OnnxWriter("student")
        self._width, self._depth, self._rng = width, depth, rng

    def build(self, image: str, size: Shape, wanted: Mapping[str, Shape]) -> dict[str, Shape]:
        """Add all nodes. wanted: names and shapes of the outputs. Returns the same."""
        sides = sorted({shape[2:] for shape in wanted.values()}, reverse=True)
        rows, columns = size[2:]
        x, channels, stage = image, size[1], 0
        features: dict[Shape, tuple[str, int]] = {}
        while (rows, columns) != sides[-1]:
            rows, columns = -(-rows // 2), -(-columns // 2)
            if stage > 12:
                raise OptimizeError(f"expected feature maps by halving the image, got {sides}: use --share")
            x, channels = self._stage(x, channels, stage)
            stage += 1
            if (rows, columns) in sides:
                features[rows, columns] = x, channels
        if set(features) != set(sides):
            raise OptimizeError(f"expected feature maps by halving the image, got {sides}: use --share")
        self._add_coarser(features, sides)
        for name, shape in wanted.items():
            self._predictor(*features[shape[2:]], name, shape[1])
        return dict(wanted)

    def _stage(self, x: str, channels: int, stage: int) -> tuple[str, int]:
        """Half the size, with `depth` blocks; the stem is a single convolution."""
        target = self._channels(_CHANNELS[min(stage, len(_CHANNELS) - 1)])
        if stage == 0:
            return self._conv(x, "stem", channels, target, 3, stride=2), target
        for block in range(self._depth):
            x = self._residual(x, f"stage{stage}_{block}", channels, target, stride=1 if block else 2)
            channels = target
        return x, target

    def _channels(self, count: float) -> int:
        return max(8, 8 * round(count * self._width / 8))

    def _residual(self, x: str, name: str, channels: int, target: int, stride: int) -> str:
        inner = _EXPANSION * channels
        y = self._conv(x, f"{name}_expand", channels, inner, 1)
        y = self._conv(y, f"{name}_depthwise", inner, inner, 3, stride, inner)
        y = self._conv(y, f"{name}_project", inner, target, 1, active=False)
        return self.writer.node("Add", [x, y], f"{name}_sum") if stride == 1 else y

    def _add_coarser(self, features: dict[Shape, tuple[str, int]], sides: list[Shape]) -> None:
        for coarse, fine in zip(sides[:0:-1], sides[-2::-1], strict=True):
            if tuple(2 * side for side in coarse) != fine:
                continue
            (x, channels), (y, target) = features[coarse], features[fine]
            name = f"up_{fine[0]}"
            x = self._conv(x, f"{name}_project", channels, target, 1, active=False)
            scales = self.writer.weight("scales", np.array([1, 1, 2, 2], np.float32))
            mode = {"mode": "nearest", "nearest_mode": "floor"}
            x = self.writer.node(
                "Resize",
                [x, "", scales],
                f"{name}_resized",
                coordinate_transformation_mode="asymmetric",
                **mode,
            )
            features[fine] = self.writer.node("Add", [x, y], f"{name}_sum"), target

    def _predictor(self, x: str, channels: int, name: str, target: int) -> None:
        y = self._conv(x, f"{name}/depthwise", channels, channels, 3, 1, channels)
        y = self._conv(y, f"{name}/mix", channels, channels, 1)
        self._conv(y, name, channels, target, 1, active=False)

    def _conv(
        self,
        x: str,
        name: str,
        channels: int,
        target: int,
        side: int,
        stride: int = 1,
        group: int = 1,
        active: bool = True,
    ) -> str:
        """A convolution, and relu6 if active. Its weights: He et al. (2015)."""
        fan = channels // group * side * side
        scale = math.sqrt(2.0 / fan)
        kernel = self._rng.normal(0, scale, (target, channels // group, side, side)).astype(np.float32)
        inputs = [
            x,
            self.writer.weight(f"{name}.weight", kernel),
            self.writer.weight(f"{name}.bias", np.zeros(target, np.float32)),
        ]
        attributes = {"strides": [stride, stride], "group": group, "auto_pad": "SAME_UPPER"}
        y = self.writer.node("Conv", inputs, f"{name}/linear" if active else name, **attributes)
        return self.writer.relu6(y, f"{name}/active") if active else y
