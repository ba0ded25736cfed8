"""The converter of TensorFlow.js graphs: a small graph against TensorFlow.js itself, and what is refused."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_vision.errors import BundleError
from edge_vision.model_zoo.convert_tfjs import NCHW, NHWC, TfjsConverter
from edge_vision.model_zoo.tfjs_reader import read_tfjs

SIDE = 8
TFJS_ROWS = (
    (0.531154, 0.621835, 0.62636, 0.821411, 0.476313, 0.561849, -0.030203, 0.179849),
    (0.491001, 0.574438, 0.761976, 0.817571, 0.421596, 0.469643, 0.546835, 0.083843),
    (0.757735, 0.691759, 0.630022, 0.90629, 0.65624, 0.471243, -0.172469, 0.608167),
    (0.592895, 0.924502, 0.68416, 0.842572, 0.43275, 0.777746, 0.049976, -0.158284),
)
"""Each fifth row that @tensorflow/tfjs 4.22.0 under Node gives for `pytorch_like` and `image`."""


class Graph:
    """A TensorFlow.js graph that is written node by node."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.data = b""

    def op(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        attr = {key: _attribute(value) for key, value in attributes.items()}
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attr})
        return name

    def constant(self, name: str, values: Any, stored: type = np.int32) -> str:
        array = np.asarray(values, stored)
        weight = {"name": name, "shape": list(array.shape), "dtype": "int32"}
        if stored is np.float16:
            weight |= {"dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}}
        self.weights.append(weight)
        self.data += array.tobytes()
        return self.op(name, "Const")

    def files(self) -> tuple[bytes, dict[str, bytes]]:
        manifest = [{"paths": ["a.bin"], "weights": self.weights}]
        document = {"modelTopology": {"node": self.nodes}, "weightsManifest": manifest}
        return json.dumps(document).encode(), {"a.bin": self.data}


def _attribute(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"b": value}
    if isinstance(value, str):
        return {"s": base64.b64encode(value.encode()).decode()}
    if isinstance(value, list):
        return {"list": {"i": [str(one) for one in value]}}
    return {"f": value} if isinstance(value, float) else {"type": value}


def weights(*shape: int) -> np.ndarray:
    """Values from -0.5 to 0.5 that float16 holds exactly."""
    return ((np.arange(np.prod(shape)) * 37 % 129 - 64) / 128).reshape(shape)


def image() -> np.ndarray:
    return (np.arange(3 * SIDE * SIDE, dtype=np.float32) * 29 % 97 / 97 - 0.5).reshape(1, 3, SIDE, SIDE)


def pytorch_like() -> Graph:
    """NCHW in TensorFlow, as onnx-tf writes it: transpositions around each convolution."""
    graph = Graph()
    to_nhwc, to_nchw = graph.constant("to_nhwc", [0, 2, 3, 1]), graph.constant("to_nchw", [0, 3, 1, 2])
    pads = graph.constant("pads", [[0, 0], [0, 0], [1, 1], [1, 1]])
    low = graph.constant("low", -np.inf, np.float16)
    one, last = graph.constant("one", 1), graph.constant("last", [0, 2, 1])
    graph.op("image", "Placeholder")
    graph.op("padded", "Pad", "image", pads)
    graph.op("nhwc", "Transpose", "padded", to_nhwc)
    kernel = graph.constant("kernel", weights(3, 3, 3, 4), np.float16)
    sliding = {"strides": [1, 2, 2, 1], "dilations": [1, 1, 1, 1], "padding": "VALID", "data_format": "NHWC"}
    graph.op("convolved", "Conv2D", "nhwc", kernel, **sliding)
    graph.op("biased", "Add", "convolved", graph.constant("bias", weights(4), np.float16))
    graph.op("nchw", "Transpose", "biased", to_nchw)
    graph.op("leaky", "LeakyRelu", "nchw", alpha=0.25)
    graph.op("padded_low", "PadV2", "leaky", pads, low)
    graph.op("pool_nhwc", "Transpose", "padded_low", to_nhwc)
    graph.op("pooled", "MaxPool", "pool_nhwc", ksize=[1, 3, 3, 1], **sliding)
    graph.op("resized", "ResizeBilinear", "pooled", graph.constant("size", [4, 4]), half_pixel_centers=True)
    graph.op("resized_nchw", "Transpose", "resized", to_nchw)
    graph.op("sum", "AddV2", "leaky", "resized_nchw")
    graph.op("joined", "ConcatV2", "sum", "leaky", one)
    graph.op("parts", "SplitV", "joined", graph.constant("sizes", [6, 2]), one)
    graph.op("scores", "Sigmoid", "parts")
    graph.op("scores_rows", "Reshape", "scores", graph.constant("scores_shape", [1, 6, -1]))
    graph.op("other_rows", "Reshape", "parts:1", graph.constant("other_shape", [1, 2, -1]))
    graph.op("joined_rows", "ConcatV2", "scores_rows", "other_rows", one)
    graph.op("rows", "Transpose", "joined_rows", last)
    return graph


def session_outputs(model: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def converted(size_px: int = SIDE) -> Any:
    converter = TfjsConverter(read_tfjs(*pytorch_like().files()), "small", "image", NCHW, SIDE)
    converter.tensor("rows")
    return onnx.load_from_string(converter.model(size_px, {"rows": (1, (size_px // 2) ** 2, 8)}))


def test_the_outputs_are_those_of_tensorflow_js() -> None:
    outputs = session_outputs(converted().SerializeToString(), {"images": image()})
    np.testing.assert_allclose(outputs["rows"][0, ::5], TFJS_ROWS, atol=1e-5)


def test_transpositions_and_paddings_around_convolutions_are_folded() -> None:
    ops = Counter(node.op_type for node in converted().graph.node)
    assert ops["Transpose"] == 1 and ops["Pad"] == 0  # That of the rows, which TensorFlow has too.


def test_another_image_size_is_the_same_graph() -> None:
    assert converted(16).graph.node == converted().graph.node
    shape = session_outputs(
        converted(16).SerializeToString(), {"images": np.zeros((1, 3, 16, 16), np.float32)}
    )
    assert shape["rows"].shape == (1, 64, 8)


def test_a_padding_that_the_reader_cannot_take_is_written() -> None:
    graph = Graph()
    graph.op("image", "Placeholder")
    pads = graph.constant("pads", [[0, 0], [1, 2], [0, 0], [0, 3]])
    graph.op("padded", "Relu", graph.op("pad", "Pad", "image", pads))
    converter = TfjsConverter(read_tfjs(*graph.files()), "pads", "image", NHWC, SIDE)
    name = converter.tensor("padded")
    model = converter.model(SIDE, {name: (1, SIDE + 3, SIDE, 6)})
    values = session_outputs(model, {"images": np.abs(image())})[name]
    expected = np.pad(np.abs(image()).transpose(0, 2, 3, 1), [[0, 0], [1, 2], [0, 0], [0, 3]])
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(("op", "words"), [("Cos", "got Cos"), ("Mean", "a mean of each feature map")])
def test_an_operation_that_is_not_known_is_refused_by_name(op: str, words: str) -> None:
    graph = Graph()
    graph.op("image", "Placeholder")
    graph.op("found", op, "image", graph.constant("axes", [3]))
    converter = TfjsConverter(read_tfjs(*graph.files()), "other", "image", NHWC, SIDE)
    with pytest.raises(BundleError, match=f"node found: .*{words}"):
        converter.tensor("found")


def test_weights_in_eight_bits_are_refused() -> None:
    graph = pytorch_like()
    graph.weights[-1]["quantization"] = {"dtype": "uint8", "scale": 1.0, "min": 0.0}
    with pytest.raises(BundleError, match="expected float16 or float32, got uint8"):
        read_tfjs(*graph.files())
