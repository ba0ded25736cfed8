"""Converts SSDLite-MobileNetV2 from a TensorFlow.js graph model to ONNX, with NumPy and onnx only.

Only the network is converted, from the scaled image to the raw outputs of the six feature maps. The manifest
and the SSD head do the preprocessing, box decoding and NMS, so that quantization does not affect them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.offline.onnx_writer import OnnxWriter

INPUT = "images"
_IMAGE_NODE = "Preprocessor/sub"
"""The TensorFlow node whose output is the scaled image."""
_FEATURE_MAPS = 6
_OUTPUTS = {
    # Name in the ONNX graph: (name in TensorFlow, values per anchor)
    "box_encodings": ("BoxEncodingPredictor", 4),
    "class_logits": ("ClassPredictor", 91),
}
_DTYPES = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


def convert(model_json: bytes, shards: Mapping[str, bytes], size_px: int = 300, anchors: int = 1917) -> bytes:
    """The serialised ONNX model of model.json and its weight shards, by file name.

    size_px: side of the square input. anchors: number of boxes at this size.
    Outputs: box_encodings (1, anchors, 4), class_logits (1, anchors, 91), of which 0 is the background.
    Raises BundleError if it is another model.
    """
    try:
        document = json.loads(model_json)
        nodes = {node["name"]: node for node in document["modelTopology"]["node"]}
        graph = _Converter(nodes, _weights(document["weightsManifest"], shards))
        return graph.convert(size_px, anchors)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleError(
            f"expected a TensorFlow.js SSDLite-MobileNetV2, got a model that cannot be read: {error!r}"
        ) from None


def _weights(manifest: list[Any], shards: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Weights by name. The shards of a group are parts of one byte string, and a weight may span several."""
    arrays = {}
    for group in manifest:
        data = b"".join(shards[path] for path in group["paths"])
        offset = 0
        for weight in group["weights"]:
            if "quantization" in weight:
                raise BundleError(f"weight {weight['name']}: expected weights that are not quantized")
            count = int(np.prod(weight["shape"], dtype=np.int64))
            array: np.ndarray = np.frombuffer(data, _DTYPES[weight["dtype"]], count, offset)
            arrays[weight["name"]] = array.reshape(weight["shape"])
            offset += array.nbytes
    return arrays


class _Converter:
    """Traverses the graph from its outputs to the image, and writes each node once, after its inputs."""

    def __init__(self, nodes: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        self._nodes = nodes
        self._weights = weights
        self._writer = OnnxWriter("ssdlite_mobilenet_v2_coco")
        self._done = {_IMAGE_NODE: INPUT}

    def convert(self, size_px: int, anchors: int) -> bytes:
        for name, (predictor, values) in _OUTPUTS.items():
            maps = [self._per_anchor(f"BoxPredictor_{i}/{predictor}", values) for i in range(_FEATURE_MAPS)]
            self._writer.node("Concat", maps, name, axis=1)
        shapes = {name: (1, anchors, values) for name, (_, values) in _OUTPUTS.items()}
        return self._writer.model({INPUT: (1, 3, size_px, size_px)}, shapes)

    def _per_anchor(self, predictor: str, values: int) -> str:
        """(1, boxes * values, h, w) -> (1, h * w * boxes, values), in the order of the anchors."""
        shape = self._writer.weight(f"per_anchor_{values}", np.array([1, -1, values], np.int64))
        rows = self._writer.node(
            "Transpose", [self._emit(f"{predictor}/BiasAdd")], f"{predictor}/nhwc", perm=[0, 2, 3, 1]
        )
        return self._writer.node("Reshape", [rows, shape], f"{predictor}/per_anchor")

    def _emit(self, name: str) -> str:
        """The ONNX name of a TensorFlow node's output."""
        if name not in self._done:
            node = self._nodes[name]
            if node["op"] not in _WRITE:
                raise BundleError(f"node {name}: expected one of {', '.join(_WRITE)}, got {node['op']}")
            self._done[name] = _WRITE[node["op"]](self, node)
        return self._done[name]

    def _operand(self, name: str) -> str:
        """An operand: a constant per channel, or the output of a node."""
        if name in self._weights:
            return self._writer.weight(name, self._weights[name].reshape(1, -1, 1, 1))
        return self._emit(name)

    def _convolution(self, node: Any) -> str:
        kernel = self._weights[node["input"][1]]
        groups = 1
        if node["op"] == "DepthwiseConv2dNative":  # (h, w, channels, multiplier): one group per channel
            groups = kernel.shape[2]
            kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        attributes = node["attr"]
        if _text(attributes["padding"]) != "SAME":
            raise BundleError(
                f"node {node['name']}: expected SAME padding, got {_text(attributes['padding'])}"
            )
        return self._writer.node(
            "Conv",
            [
                self._emit(node["input"][0]),
                self._writer.weight(node["input"][1], kernel.transpose(3, 2, 0, 1)),
            ],
            node["name"],
            auto_pad="SAME_UPPER",
            group=groups,
            kernel_shape=list(kernel.shape[:2]),
            strides=_height_and_width(attributes["strides"]),
            dilations=_height_and_width(attributes["dilations"]),
        )

    def _elementwise(self, node: Any) -> str:
        op = {"BiasAdd": "Add", "AddN": "Sum"}.get(node["op"], node["op"])
        return self._writer.node(op, [self._operand(name) for name in node["input"]], node["name"])

    def _batch_norm(self, node: Any) -> str:
        value, *statistics = node["input"]
        inputs = [self._emit(value), *(self._writer.weight(name, self._weights[name]) for name in statistics)]
        epsilon = float(node["attr"]["epsilon"]["f"])
        return self._writer.node("BatchNormalization", inputs, node["name"], epsilon=epsilon)

    def _relu6(self, node: Any) -> str:
        return self._writer.relu6(self._emit(node["input"][0]), node["name"])


_WRITE: dict[str, Callable[[_Converter, Any], str]] = {
    "Conv2D": _Converter._convolution,
    "DepthwiseConv2dNative": _Converter._convolution,
    "BiasAdd": _Converter._elementwise,
    "Add": _Converter._elementwise,
    "AddN": _Converter._elementwise,
    "Mul": _Converter._elementwise,
    "FusedBatchNorm": _Converter._batch_norm,
    "Relu6": _Converter._relu6,
}


def _text(attribute: Any) -> str:
    """A string attribute: a list of bytes, or base64."""
    value = attribute["s"]
    return (bytes(value) if isinstance(value, list) else base64.b64decode(value)).decode()


def _height_and_width(attribute: Any) -> list[int]:
    """The middle two of four values for NHWC."""
    return [int(value) for value in attribute["list"]["i"]][1:3]
