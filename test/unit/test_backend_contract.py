"""Every backend that is installed keeps the contract: the same truths over all of them.

One that is not installed, or lacks its hardware, is skipped and says why.
"""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import pytest
from model_cases import EFFICIENTNET, OIDV4, SSD, bundle_or_skip, external_graph, mean_graph, video_frame
from tflite_cases import mean_tflite

from edge_vision.backends import (
    BackendRequest,
    available_backends,
    known_backends,
    make_backend,
    open_session,
)
from edge_vision.backends.base import Backend
from edge_vision.backends.host import usable_cores
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import Classifier
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, BackendUnavailable

TORCH = ("executorch", "torchscript")
CPU_FP32 = BackendRequest(device="cpu", precision="fp32")
IMAGE = {"images": np.full((1, 3, 8, 8), 2.0, np.float32)}


@pytest.fixture(params=list(known_backends()))
def backend(request) -> Backend:
    reason = available_backends()[request.param]
    if reason:
        pytest.skip(reason)
    return make_backend(request.param)


def mean_for(backend: Backend, folder, shape=(1, 3, 8, 8)):
    """images -> logits, in a format that the backend reads."""
    if "onnx" in backend.formats:
        return mean_graph(folder / "model.onnx", shape)
    if backend.name in TORCH:
        return mean_program(backend, folder, shape)
    return mean_tflite(folder / "model.tflite", shape)


def mean_program(backend: Backend, folder, shape):
    from edge_vision.export import torch_programs
    from edge_vision.optimize.quantization import graph_session

    if not all(isinstance(side, int) for side in shape):
        pytest.skip(f"{backend.name} runs programs with fixed dimensions")
    path = folder / f"model.{backend.formats[0]}"
    model = graph_session.folded(mean_graph(folder / "mean.onnx", shape))
    path.write_bytes(getattr(torch_programs, backend.name)(model))
    return path


@pytest.fixture
def graph(backend, tmp_path):
    return mean_for(backend, tmp_path)


def test_names_shapes_and_values(backend, graph):
    session = backend.load(graph, BackendRequest())
    assert [(t.name, t.shape, t.dtype) for t in session.inputs] == [("images", (1, 3, 8, 8), "float32")]
    assert [(t.name, t.dtype) for t in session.outputs] == [("logits", "float32")]
    out = session.run(IMAGE)
    assert list(out) == ["logits"]
    np.testing.assert_allclose(out["logits"], [[2, 2, 2]])


def test_free_dimensions_are_none(backend, tmp_path):
    if backend.name.startswith("tensorrt"):
        pytest.skip("TensorRT refuses free dimensions, see test_tensorrt.py")
    session = backend.load(mean_for(backend, tmp_path, (None, 3, "rows", 8)), BackendRequest())
    assert session.inputs[0].shape == (None, 3, None, 8)
    for rows in (5, 2):
        out = session.run({"images": np.full((1, 3, rows, 8), rows, np.float32)})
        np.testing.assert_allclose(out["logits"], [[rows, rows, rows]])


def test_actual_is_read_back(backend, graph):
    actual = backend.load(graph, BackendRequest(threads=1)).actual
    assert actual.backend == backend.name and actual.version[0].isdigit()
    assert actual.threads == 1 and actual.device and actual.provider


def test_threads_0_are_the_usable_cores(backend, graph):
    assert backend.load(graph, BackendRequest(device="cpu")).actual.threads == usable_cores() >= 1


def test_wrong_tensors_are_a_backend_error(backend, graph):
    session = backend.load(graph, BackendRequest())
    for wrong in (
        {"images": np.zeros((1, 3, 5, 5, 5), np.float32)},
        {"images": np.zeros((1, 3, 8, 7), np.float32)},
        {"images": np.zeros((1, 3, 8, 8), np.float64)},
        {"images": np.zeros((1, 3, 8, 8), np.uint8)},
        {"pictures": np.zeros((1, 3, 8, 8), np.float32)},
    ):
        with pytest.raises(BackendError, match=rf"{backend.name}(.|\n)*images"):
            session.run(wrong)
    np.testing.assert_allclose(session.run(IMAGE)["logits"], [[2, 2, 2]])


def test_a_closed_session_says_so(backend, graph):
    session = backend.load(graph, BackendRequest())
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(IMAGE)


@pytest.mark.parametrize("content", [b"", b"this is no graph" * 50, b"\x08\x08"])
def test_a_broken_file_is_a_backend_error(backend, tmp_path, content):
    path = tmp_path / f"model.{backend.formats[-1]}"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=rf"{path.name}(.|\n)*fetch the bundle again"):
        backend.load(path, BackendRequest())


def test_a_file_cut_short_is_a_backend_error(backend, graph):
    graph.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(BackendError, match="fetch the bundle again"):
        backend.load(graph, BackendRequest())


def test_a_missing_file_is_a_backend_error(backend, tmp_path):
    path = tmp_path / f"absent.{backend.formats[-1]}"
    with pytest.raises(BackendError, match=rf"{path.name}: No such file"):
        backend.load(path, BackendRequest())


def test_a_file_of_3_gb_is_a_backend_error(backend, tmp_path):
    path = tmp_path / f"model.{backend.formats[-1]}"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # It takes no room on the disk.
    with pytest.raises(BackendError, match=r"3\.2 GB"):
        backend.load(path, BackendRequest())


def test_an_unknown_device_is_unavailable(backend, graph):
    with pytest.raises(BackendUnavailable, match="'warp_drive'"):
        backend.load(graph, BackendRequest(device="warp_drive"))


def test_an_unknown_option_is_refused(backend, graph):
    with pytest.raises(BackendError, match="knows the options"):
        backend.load(graph, BackendRequest(options={"colour": "blue"}))


def test_weights_in_other_files_are_refused(backend, tmp_path):
    if "onnx" not in backend.formats:
        pytest.skip(f"{backend.name} reads no ONNX")
    path = external_graph(tmp_path)
    with pytest.raises(BackendError, match="keeps weights in other files"):
        backend.load(path, BackendRequest())


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("name", [SSD, OIDV4])
def test_all_backends_find_the_same_objects(backend, name, threads):
    bundle = bundle_for(backend, name)
    session, report = open_session(bundle, backend.name, BackendRequest(threads=threads), strict=True)
    detector = Detector.from_bundle(bundle, session)
    assert report.fallback_reason is None and report.actual.precision == "fp32"
    for frame, expected in reference_detections(name):
        found = detector.detect(frame).detections
        assert len(expected) >= 3
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.xyxy_px, expected.xyxy_px, atol=0.2)


@functools.cache
def reference_detections(name: str) -> list[tuple[Frame, Detections]]:
    """Frames, and what ONNX Runtime finds on them."""
    bundle = bundle_or_skip(name)
    reference = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime", CPU_FP32, strict=True)[0])
    frames = [video_frame("vtest.avi", index) for index in (100, 200, 500)]
    return [(frame, reference.detect(frame).detections) for frame in frames]


def test_a_frame_costs_no_memory_but_its_outputs(backend):
    """The input tensor is filled in place and handed on as it is: no copy of it, 1 MB, comes or goes."""
    name = SSD if "onnx" in backend.formats else OIDV4
    bundle = bundle_for(backend, name)
    detector = Detector.from_bundle(bundle, open_session(bundle, backend.name, strict=True)[0])
    frame = video_frame("vtest.avi", 200)
    detector.detect(frame)
    tracemalloc.start()
    try:
        detector.detect(frame)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        detector.detect(frame)
        assert tracemalloc.get_traced_memory()[1] - before < 50_000
    finally:
        tracemalloc.stop()


def test_all_backends_classify_alike(backend):
    bundle = bundle_for(backend, EFFICIENTNET)
    frame = video_frame("bikes.mp4", 180)
    scores = [
        Classifier.from_bundle(bundle, open_session(bundle, name, CPU_FP32)[0]).classify(frame).scores
        for name in ("onnxruntime", backend.name)
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
    assert scores[0].max() > 0.1


def test_a_precision_that_no_backend_knows_is_refused(backend, graph):
    with pytest.raises(BackendError, match="fp32, fp16, bf16, int8, mixed, got 'fp7'"):
        backend.load(graph, BackendRequest(precision="fp7"))


def test_more_threads_than_cores_are_reported(backend):
    bundle = bundle_for(backend, OIDV4)
    wanted = usable_cores() + 1
    _, report = open_session(bundle, backend.name, BackendRequest(device="cpu", threads=wanted))
    assert report.fallback_reason or any(f"{wanted} threads" in note for note in report.actual.notes)


def bundle_for(backend: Backend, name: str) -> Bundle:
    bundle = bundle_or_skip(name)
    formats = [graph.format for graph in bundle.manifest.graphs]
    if not set(formats) & set(backend.formats):
        pytest.skip(f"{backend.name} reads {', '.join(backend.formats)}, {name} is {', '.join(formats)}")
    return bundle
