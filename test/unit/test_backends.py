"""Every backend keeps the contract; the choice among them is told truly."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from model_cases import (
    EFFICIENTNET,
    OIDV4,
    SSD,
    bundle_or_skip,
    mean_graph,
    onnx,
    save_graph,
    video_frame,
)
from onnx import TensorProto, helper, numpy_helper
from tflite_cases import mean_tflite

import edge_vision.backends as backends
from edge_vision.backends import BACKENDS, BackendRequest, available_backends, make_backend, open_session
from edge_vision.backends.base import Backend
from edge_vision.backends.fake import Fault, FaultySession
from edge_vision.backends.host import usable_cores
from edge_vision.backends.onnx_file import check_onnx
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.classifier import Classifier
from edge_vision.core.detector import Detector
from edge_vision.errors import BackendError, BackendUnavailable, BundleError

CPU_FP32 = BackendRequest(device="cpu", precision="fp32")
IMAGE = {"images": np.full((1, 3, 8, 8), 2.0, np.float32)}


@pytest.fixture(params=list(backends.known_backends()))
def backend(request) -> Backend:
    reason = available_backends()[request.param]
    if reason:
        pytest.skip(reason)
    return make_backend(request.param)


def mean_for(backend: Backend, folder, shape=(1, 3, 8, 8)):
    """images -> logits, in a format that the backend reads."""
    if "onnx" in backend.graph_formats:
        return mean_graph(folder / "model.onnx", shape)
    return mean_tflite(folder / "model.tflite", shape)


@pytest.fixture
def graph(backend, tmp_path):
    return mean_for(backend, tmp_path)


@pytest.fixture
def onnx_mean(tmp_path):
    return mean_graph(tmp_path / "model.onnx")


@pytest.fixture
def bundle():
    return bundle_or_skip(SSD)


@pytest.fixture
def ghost(monkeypatch):
    monkeypatch.setitem(BACKENDS, "ghost", f"{__name__}:GhostBackend")


class GhostBackend(Backend):  # Registered, but not installed.
    name = "ghost"
    graph_formats = ("onnx",)
    install_hint = "pip install ghost"

    def unavailable_reason(self):
        return "the package ghost is not installed: pip install ghost"

    def load(self, graph, request):
        raise AssertionError("not to be reached")


# The contract, over every backend that is installed here.


def test_contract_names_shapes_and_values(backend, graph):
    session = backend.load(graph, BackendRequest())
    assert [(t.name, t.shape, t.dtype) for t in session.inputs] == [("images", (1, 3, 8, 8), "float32")]
    assert [(t.name, t.dtype) for t in session.outputs] == [("logits", "float32")]
    out = session.run(IMAGE)
    assert list(out) == ["logits"]
    np.testing.assert_allclose(out["logits"], [[2, 2, 2]])


def test_contract_free_dimensions_are_none(backend, tmp_path):
    if backend.name.startswith("tensorrt"):
        pytest.skip("TensorRT refuses free dimensions, see test_tensorrt.py")
    session = backend.load(mean_for(backend, tmp_path, (None, 3, "rows", 8)), BackendRequest())
    assert session.inputs[0].shape == (None, 3, None, 8)
    for rows in (5, 2):
        out = session.run({"images": np.full((1, 3, rows, 8), rows, np.float32)})
        np.testing.assert_allclose(out["logits"], [[rows, rows, rows]])


def test_contract_actual_is_read_back(backend, graph):
    actual = backend.load(graph, BackendRequest(threads=1)).actual
    assert actual.backend == backend.name and actual.version[0].isdigit()
    assert actual.threads == 1 and actual.device and actual.provider


def test_contract_threads_0_are_the_usable_cores(backend, graph):
    assert backend.load(graph, BackendRequest(device="cpu")).actual.threads == usable_cores() >= 1


def test_contract_wrong_tensors_are_a_backend_error(backend, graph):
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


def test_contract_a_closed_session_says_so(backend, graph):
    session = backend.load(graph, BackendRequest())
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(IMAGE)


@pytest.mark.parametrize("content", [b"", b"this is no graph" * 50, b"\x08\x08"])
def test_contract_a_broken_file_is_a_backend_error(backend, tmp_path, content):
    path = tmp_path / f"model.{backend.graph_formats[-1]}"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=rf"{path.name}(.|\n)*fetch the bundle again"):
        backend.load(path, BackendRequest())


def test_contract_a_file_cut_short_is_a_backend_error(backend, graph):
    graph.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(BackendError, match="fetch the bundle again"):
        backend.load(graph, BackendRequest())


def test_contract_a_missing_file_is_a_backend_error(backend, tmp_path):
    path = tmp_path / f"absent.{backend.graph_formats[-1]}"
    with pytest.raises(BackendError, match=rf"{path.name}: No such file"):
        backend.load(path, BackendRequest())


def test_contract_a_file_of_3_gb_is_a_backend_error(backend, tmp_path):
    path = tmp_path / f"model.{backend.graph_formats[-1]}"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # It takes no room on the disk.
    with pytest.raises(BackendError, match=r"3\.2 GB"):
        backend.load(path, BackendRequest())


def test_contract_an_unknown_device_is_unavailable(backend, graph):
    with pytest.raises(BackendUnavailable, match="'warp_drive'"):
        backend.load(graph, BackendRequest(device="warp_drive"))


def test_contract_an_unknown_option_is_refused(backend, graph):
    with pytest.raises(BackendError, match="knows the options"):
        backend.load(graph, BackendRequest(options={"colour": "blue"}))


def test_contract_weights_in_other_files_are_refused(backend, tmp_path):
    if "onnx" not in backend.graph_formats:
        pytest.skip(f"{backend.name} reads no ONNX")
    path = external_graph(tmp_path)
    with pytest.raises(BackendError, match="keeps weights in other files"):
        backend.load(path, BackendRequest())


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("name", [SSD, OIDV4])
def test_contract_all_backends_find_the_same_objects(backend, name, threads):
    bundle = bundle_for(backend, name)
    reference = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime", CPU_FP32, strict=True)[0])
    session, report = open_session(bundle, backend.name, BackendRequest(threads=threads), strict=True)
    detector = Detector.from_bundle(bundle, session)
    assert report.fallback_reason is None and report.actual.precision == "fp32"
    for index in (100, 200, 500):
        frame = video_frame("vtest.avi", index)
        expected, found = reference.detect(frame), detector.detect(frame)
        assert len(expected) >= 3
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.xyxy_px, expected.xyxy_px, atol=0.2)


def test_contract_a_frame_costs_no_memory_but_its_outputs(backend):
    """The input tensor is filled in place and handed on as it is: no copy of it, 1 MB, comes or goes."""
    name = SSD if "onnx" in backend.graph_formats else OIDV4
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


def test_contract_all_backends_classify_alike(backend):
    bundle = bundle_for(backend, EFFICIENTNET)
    frame = video_frame("bikes.mp4", 180)
    scores = [
        Classifier.from_bundle(bundle, open_session(bundle, name, CPU_FP32)[0]).classify(frame).scores
        for name in ("onnxruntime", backend.name)
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
    assert scores[0].max() > 0.1


def test_contract_a_precision_that_no_backend_knows_is_refused(backend, graph):
    with pytest.raises(BackendError, match="fp32, fp16, bf16, int8, mixed, got 'fp7'"):
        backend.load(graph, BackendRequest(precision="fp7"))


def test_contract_more_threads_than_cores_are_told(backend):
    bundle = bundle_for(backend, OIDV4)
    wanted = usable_cores() + 1
    _, report = open_session(bundle, backend.name, BackendRequest(device="cpu", threads=wanted))
    assert report.fallback_reason or any(f"{wanted} threads" in note for note in report.actual.notes)


def bundle_for(backend: Backend, name: str) -> Bundle:
    bundle = bundle_or_skip(name)
    formats = [graph.format for graph in bundle.manifest.graphs]
    if not set(formats) & set(backend.graph_formats):
        pytest.skip(
            f"{backend.name} reads {', '.join(backend.graph_formats)}, {name} is {', '.join(formats)}"
        )
    return bundle


# The file that a runtime is allowed to open.


def external_graph(folder):
    """x + weights, where the weights lie in another file."""
    (folder / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=str(folder / "weights.bin"))
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"])]
    return save_graph(folder / "model.onnx", nodes, {"images": [4]}, {"logits": [4]}, (weights,))


def test_weights_in_other_files_are_found_inside_subgraphs_and_attributes(tmp_path):
    model = onnx.load(external_graph(tmp_path), load_external_data=False)
    (hidden,) = model.graph.initializer
    del model.graph.initializer[:]
    constant = helper.make_node("Constant", [], ["w"], value=hidden)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("w", 1, [4])])
    model.graph.node.insert(0, helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch))
    path = tmp_path / "nested.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BackendError, match="keeps weights in other files"):
        check_onnx(path)


def test_ordinary_weights_pass(tmp_path):
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"])]
    path = save_graph(tmp_path / "model.onnx", nodes, {"images": [4]}, {"logits": [4]}, (weights,))
    assert check_onnx(path) == path


# The choice.


def test_auto_takes_the_first_that_is_installed(bundle):
    session, report = open_session(bundle)
    assert report.requested == {"backend": "auto", "device": "auto", "precision": "auto", "threads": 0}
    assert report.actual is session.actual and report.actual.backend == "onnxruntime"
    assert report.fallback_reason is None and report.actual.precision == "fp32"


def test_an_unknown_backend_lists_the_known_ones(bundle):
    for call in (lambda: make_backend("tpu9000"), lambda: open_session(bundle, "tpu9000")):
        with pytest.raises(BackendError, match=r"auto, onnxruntime, openvino.*'tpu9000'"):
            call()
    with pytest.raises(BackendError, match="'tpu9000'"):
        open_session(bundle, "onnxruntime", fallback=("tpu9000",))


def test_a_missing_backend_falls_back_and_says_why(bundle, ghost):
    assert "pip install ghost" in available_backends()["ghost"]
    _, report = open_session(bundle, "ghost")
    assert report.requested["backend"] == "ghost" and report.actual.backend == "onnxruntime"
    assert report.fallback_reason == "ghost: the package ghost is not installed: pip install ghost"


def test_strict_makes_a_missing_backend_an_error(bundle, ghost):
    with pytest.raises(BackendUnavailable, match="pip install ghost; strict"):
        open_session(bundle, "ghost", strict=True)


def test_a_missing_device_falls_back_on_the_same_backend(bundle):
    request = BackendRequest(device="coreml")
    _, report = open_session(bundle, "onnxruntime", request)
    assert (report.actual.backend, report.actual.device) == ("onnxruntime", "cpu")
    assert "no CoreMLExecutionProvider" in report.fallback_reason
    with pytest.raises(BackendUnavailable, match="CoreML"):
        open_session(bundle, "onnxruntime", request, strict=True)


def test_a_precision_that_is_not_met_is_noted_and_an_error_when_strict(bundle):
    request = BackendRequest(precision="int8")
    _, report = open_session(bundle, "onnxruntime", request)
    assert report.actual.precision == "fp32"
    assert report.actual.notes == ("asked for precision int8, runs fp32",)
    with pytest.raises(BackendUnavailable, match="asked for precision int8, runs fp32"):
        open_session(bundle, "onnxruntime", request, strict=True)


def test_nothing_that_runs_names_every_reason(bundle, ghost):
    with pytest.raises(BackendUnavailable, match="pip install ghost"):
        open_session(bundle, "ghost", fallback=())


def test_a_graph_of_another_hash_reaches_no_runtime(bundle, tmp_path):
    for path in bundle.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "model.onnx").open("r+b") as file:
        file.write(b"\x08\x07")
    with pytest.raises(BundleError, match="sha256"):
        open_session(load_bundle(str(tmp_path)))


def test_openvino_on_request_runs_another_precision(bundle):
    reason = available_backends()["openvino"]
    if reason:
        pytest.skip(reason)
    _, report = open_session(bundle, "openvino", BackendRequest(precision="bf16"))
    met = report.actual.precision == "bf16"
    assert met != bool(report.actual.notes), report


def test_a_third_party_backend_comes_by_entry_point(tmp_path):
    info = tmp_path / "ghost-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ghost\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[edge_vision.backends]\nghost = ghost_module:Ghost\nbroken = nowhere:X\n"
    )
    (tmp_path / "ghost_module.py").write_text(
        "from edge_vision.backends.onnxruntime import OnnxRuntimeBackend\n"
        "class Ghost(OnnxRuntimeBackend):\n    name = 'ghost'\n"
    )
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, *{sys.path!r}]\n"
        "from edge_vision.backends import available_backends, make_backend\n"
        "found = available_backends()\n"
        "assert list(found)[:2] == ['onnxruntime', 'openvino'], found\n"
        "assert make_backend('ghost').name == 'ghost' and 'nowhere' in found['broken'], found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_for_backends_imports_no_runtime():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from edge_vision.backends import available_backends; available_backends()\n"
        "heavy = {'onnxruntime', 'openvino', 'onnx', 'cv2', 'ai_edge_litert', 'tensorrt', 'tensorrt_rtx'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fault_starts_when_it_is_told_to(onnx_mean):
    session = FaultySession(
        make_backend("onnxruntime").load(onnx_mean, BackendRequest()), Fault(after=2, error="gone")
    )
    for _ in range(2):
        session.run(IMAGE)
    with pytest.raises(BackendError, match="gone"):
        session.run(IMAGE)


def test_the_fake_takes_its_fault_from_the_request(bundle, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", "edge_vision.backends.fake:FakeBackend")
    session, report = open_session(bundle, "fake", BackendRequest(options={"error": "gone"}))
    assert report.actual.backend == "fake" and "misbehaves on request" in report.actual.notes
    with pytest.raises(BackendError, match="gone"):
        session.run({"images": np.zeros((1, 3, 300, 300), np.float32)})
