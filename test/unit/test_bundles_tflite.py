"""A published .tflite becomes ONNX: the two give the same numbers on their own runtimes."""

from __future__ import annotations

import dataclasses
import random
import struct

import numpy as np
import pytest
from model_cases import OIDV4, bundle_or_skip, video_frame
from tflite_cases import mean_tflite

from edge_vision.backends import BackendRequest, available_backends, make_backend, open_session
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.detector import Detector
from edge_vision.errors import BundleError
from edge_vision.model_zoo.convert_tflite_ssd import convert
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.model_zoo.tflite_reader import read_tflite


@pytest.fixture
def bundle():
    return bundle_or_skip(OIDV4)


@pytest.fixture
def tflite(bundle) -> bytes:
    return (bundle.folder / "model.tflite").read_bytes()


def test_the_bundle_has_both_graphs_and_the_published_labels(bundle):
    assert [graph.format for graph in bundle.manifest.graphs] == ["onnx", "tflite"]
    assert bundle.labels[:4] == ("Bicycle", "Boot", "Laptop", "Person") and bundle.labels[-1] == "Car"
    assert len(bundle.labels) == 23 and bundle.version == RECIPES[OIDV4].manifest.version


def test_both_graphs_give_the_same_numbers(bundle):
    """LiteRT's are the truth: the file is its own."""
    reason = available_backends()["litert"]
    if reason:
        pytest.skip(reason)
    frame = video_frame("vtest.avi", 200)
    tensor, _ = Preprocessor(bundle.manifest.input).prepare(frame)
    outputs = [
        make_backend(name)
        .load(bundle.folder / file, BackendRequest())
        .run({bundle.manifest.input.name: tensor})
        for name, file in (("litert", "model.tflite"), ("onnxruntime", "model.onnx"))
    ]
    assert list(outputs[0]) == list(outputs[1])
    for name, values in outputs[0].items():
        np.testing.assert_allclose(outputs[1][name], values, atol=2e-4)


def test_people_are_where_they_are_seen_by_eye(bundle):
    """Boxes drawn by hand around four walkers of vtest.avi, frame 200."""
    walkers = np.array(
        [[218, 188, 256, 270], [612, 264, 650, 370], [82, 160, 112, 216], [484, 152, 514, 222]]
    )
    detector = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
    detector.thresholds = dataclasses.replace(detector.thresholds, score_threshold=0.3)
    found = detector.detect(video_frame("vtest.avi", 200)).detections
    people = found.xyxy_px[found.class_ids == bundle.labels.index("Person")]
    for walker in walkers:
        assert max(iou(walker, box) for box in people) > 0.6


def iou(a: np.ndarray, b: np.ndarray) -> float:
    inside = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(inside / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inside))


def test_the_same_file_gives_the_same_bytes(tflite, bundle):
    assert convert(tflite, OIDV4) == (bundle.folder / "model.onnx").read_bytes()


def test_what_is_no_such_file_is_refused(tflite):
    for data in (b"", b"TFL3", b"\x00" * 100, tflite[:500], b"\x1c\x00\x00\x00TFL3" + b"\xff" * 100):
        with pytest.raises(BundleError, match="expected a TensorFlow Lite"):
            convert(data, OIDV4)


def test_a_damaged_file_is_a_bundle_error_or_another_graph(tflite):
    """Flipped bits where the structure is; nothing but a BundleError may come out."""
    rng = random.Random(0)
    structure = tflite[-40_000:]
    for _ in range(30):
        data = bytearray(structure)
        for _ in range(4):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            read_tflite(tflite[:-40_000] + bytes(data))
        except BundleError as error:
            assert "expected" in str(error)


def test_a_graph_with_other_operations_names_them(tmp_path):
    path = mean_tflite(tmp_path / "mean.tflite")
    with pytest.raises(BundleError, match="got builtin operation 40"):
        convert(path.read_bytes(), "mean")


def test_an_offset_that_leads_backwards_is_refused():
    data = struct.pack("<I4s", 8, b"TFL3") + struct.pack("<i", 1 << 30)
    with pytest.raises(BundleError, match="cannot be read"):
        read_tflite(data)
