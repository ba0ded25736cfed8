"""The detectors that are converted from TensorFlow.js, from the scaled image to what their heads read.

The manifest and the head do the preprocessing, box decoding and NMS, so that quantization does not affect
them; only CenterNet's graph selects its boxes itself, as it was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_vision.errors import BundleError
from edge_vision.model_zoo.convert_tfjs import NCHW, NHWC, TfjsConverter
from edge_vision.model_zoo.tfjs_reader import TfjsModel, read_tfjs

_SSD_FEATURE_MAPS = 6
_SSD_OUTPUTS = {
    # Name in the ONNX graph: (name in TensorFlow, values per anchor)
    "box_encodings": ("BoxEncodingPredictor", 4),
    "class_logits": ("ClassPredictor", 91),
}
_NANODET_STRIDES = (8, 16, 32)


def convert_ssd(
    model_json: bytes, shards: Mapping[str, bytes], size_px: int = 300, anchors: int = 1917
) -> bytes:
    """The serialised ONNX model of SSDLite-MobileNetV2.

    size_px: side of the square input. anchors: number of boxes at this size.
    Outputs: box_encodings (1, anchors, 4), class_logits (1, anchors, 91), of which 0 is the background.
    Raises BundleError if it is another model.
    """

    def converted(model: TfjsModel) -> bytes:
        graph = TfjsConverter(model, "ssdlite_mobilenet_v2_coco", "Preprocessor/sub", NHWC, 300)
        for name, (predictor, values) in _SSD_OUTPUTS.items():
            maps = [
                _ssd_rows(graph, f"BoxPredictor_{i}/{predictor}", values) for i in range(_SSD_FEATURE_MAPS)
            ]
            graph.writer.node("Concat", maps, name, axis=1)
        return graph.model(
            size_px, {name: (1, anchors, values) for name, (_, values) in _SSD_OUTPUTS.items()}
        )

    return checked("SSDLite-MobileNetV2", converted, model_json, shards)


def _ssd_rows(graph: TfjsConverter, predictor: str, values: int) -> str:
    """(1, h, w, boxes * values) -> (1, h * w * boxes, values), in the order of the anchors."""
    shape = graph.writer.weight(f"per_anchor_{values}", np.array([1, -1, values], np.int64))
    rows = graph.tensor(f"{predictor}/BiasAdd", f"{predictor}/nhwc")
    return graph.writer.node("Reshape", [rows, shape], f"{predictor}/per_anchor")


def convert_nanodet(model_json: bytes, shards: Mapping[str, bytes], size_px: int = 416) -> bytes:
    """The serialised ONNX model of NanoDet. size_px: a multiple of 32.

    Output: rows (1, n, 124), 80 scores and 44 logits of distances for each cell of three feature maps.
    Raises BundleError if it is another model.
    """
    cells = sum((size_px // stride) ** 2 for stride in _NANODET_STRIDES)

    def converted(model: TfjsModel) -> bytes:
        graph = TfjsConverter(model, "nanodet_m_coco", "input_1", NCHW, 416)
        parts = []
        for name, outputs in (
            ("scores", ("Identity", "Identity_1", "Identity_2")),
            ("distances", ("Identity_3", "Identity_4", "Identity_5")),
        ):
            maps = [graph.tensor(output) for output in outputs]
            parts.append(graph.writer.node("Concat", maps, name, axis=1))
        graph.writer.node("Concat", parts, "rows", axis=2)
        return graph.model(size_px, {"rows": (1, cells, 124)})

    return checked("NanoDet", converted, model_json, shards)


def convert_centernet(model_json: bytes, shards: Mapping[str, bytes], size_px: int = 512) -> bytes:
    """The serialised ONNX model of CenterNet-MobileNetV3. size_px: a multiple of 32.

    Output: rows (1, 100, 6), each left, top, right, bottom in pixels, score, class.
    Raises BundleError if it is another model.
    """

    def converted(model: TfjsModel) -> bytes:
        # The graph contains the width of the heatmap and its number of cells.
        constants = {
            "tower_0/strided_slice_6": np.array(size_px // 4, np.int32),
            "tower_0/BatchGather/concat": np.array([-1, 4], np.int32),
        }
        names = {"tower_0/concat_1": "rows"}
        graph = TfjsConverter(
            model, "centernet_mobilenet_v3_coco", "tower_0/images", NHWC, 512, names, constants
        )
        graph.tensor("tower_0/detections")
        return graph.model(size_px, {"rows": (1, 100, 6)})

    return checked("CenterNet-MobileNetV3", converted, model_json, shards)


def checked(
    name: str, converted: Callable[[TfjsModel], bytes], model_json: bytes, shards: Mapping[str, bytes]
) -> bytes:
    """What `converted` makes of a model. Raises BundleError if it is not the one that it expects."""
    try:
        return converted(read_tfjs(model_json, shards))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleError(
            f"expected a TensorFlow.js {name}, got a model that cannot be read: {error!r}"
        ) from None
