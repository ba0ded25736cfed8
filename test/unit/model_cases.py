"""What the model tests share: real bundles, real pictures, tiny graphs made on the spot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_vision.bundles.store import Bundle, cache_dir, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import ValidFor
from edge_vision.errors import BundleError

DETECTOR = "nanodet"
"""The default."""
SSD = "ssdlite_mobilenet_v2_coco"
OIDV4 = "ssd_mobilenet_v2_oidv4"
EFFICIENTNET = "efficientnet_lite0_imagenet"


def bundle_or_skip(name: str) -> Bundle:
    """A bundle of the store."""
    try:
        return load_bundle(name)
    except BundleError as error:
        pytest.skip(f"bundle {name} is not there: {error}")


def clip_or_skip(name: str) -> str:
    """The path of a cached clip."""
    path = cache_dir() / "video" / name
    if not path.exists():
        pytest.skip(f"{path} is not there: the demo's set-up fetches it")
    return str(path)


def specialised_bundle(folder: Path) -> Path:
    """The SSD for people and cars without the feature maps of large objects, with itself as teacher."""
    from edge_vision.train.networks.cutting import cut_bundle

    valid_for = ValidFor(SSD, ("person", "car"))
    return cut_bundle(bundle_or_skip(SSD), folder, valid_for.classes, 1, valid_for).folder


def thinned_clip(name: str, every: int, path: Path) -> Path:
    """A cached clip with every n-th frame alone, at its own speed, in a new AVI file."""
    capture = cv2.VideoCapture(clip_or_skip(name))
    size = tuple(int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    rate_hz = capture.get(cv2.CAP_PROP_FPS) / every
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate_hz, size)
    for at in range(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))):
        if capture.grab() and at % every == 0:
            writer.write(capture.retrieve()[1])
    writer.release()
    capture.release()
    return path


def video_frame(name: str, index: int) -> Frame:
    """One frame of a cached clip."""
    return Frame(_decoded(clip_or_skip(name), index).copy(), 0, "camera")


@cache
def _decoded(path: str, index: int) -> np.ndarray:
    capture = cv2.VideoCapture(path)
    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
    ok, image = capture.read()
    capture.release()
    assert ok, f"{path} has no frame {index}"
    return image


@cache
def street_with_and_without_people() -> tuple[np.ndarray, np.ndarray]:
    """Frame 200 of vtest.avi, and what stays on it: each pixel's median over 40 s."""
    capture = cv2.VideoCapture(clip_or_skip("vtest.avi"))
    images = [capture.read()[1] for _ in range(401)]
    capture.release()
    return images[200], np.median(np.array(images[::16]), axis=0).astype(np.uint8)


def noise_image(width_px: int, height_px: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth noise: every pixel differs from its neighbours, none alone decides."""
    shape = (height_px, width_px) if channels == 1 else (height_px, width_px, channels)
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def save_graph(path: Path, nodes: list, inputs: dict, outputs: dict, weights: tuple = ()) -> Path:
    """Write a small float32 ONNX graph; inputs and outputs map names to shapes."""
    infos = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in d.items()]
        for d in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "small", *infos, initializer=list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def mean_graph(path: Path, shape: tuple[int | str, ...] = (1, 3, 8, 8)) -> Path:
    """images -> logits (n, 3): the mean of every channel."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["logits"], axes=[2, 3], keepdims=0)]
    return save_graph(path, nodes, {"images": list(shape)}, {"logits": [shape[0], 3]})


def external_graph(folder: Path) -> Path:
    """x + weights, where the weights lie in another file."""
    (folder / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=str(folder / "weights.bin"))
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"])]
    return save_graph(folder / "model.onnx", nodes, {"images": [4]}, {"logits": [4]}, (weights,))


__all__ = [
    "EFFICIENTNET",
    "OIDV4",
    "SSD",
    "bundle_or_skip",
    "external_graph",
    "mean_graph",
    "noise_image",
    "onnx",
    "save_graph",
    "specialised_bundle",
    "street_with_and_without_people",
    "thinned_clip",
    "video_frame",
]
