"""The reported backend is the one that runs, and a file is checked before a runtime opens it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_backend import Fault, FaultySession, register
from model_cases import (
    SSD,
    bundle_or_skip,
    external_graph,
    mean_graph,
    onnx,
    save_graph,
)
from onnx import helper, numpy_helper

from edge_vision.backends import (
    BACKENDS,
    BackendRequest,
    available_backends,
    make_backend,
    open_session,
    registry,
)
from edge_vision.backends.base import Backend
from edge_vision.backends.runtimes.onnx_file import check_onnx
from edge_vision.bundles.store import load_bundle
from edge_vision.errors import BackendError, BackendUnavailable, BundleError

IMAGE = {"images": np.full((1, 3, 8, 8), 2.0, np.float32)}


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
    title = "Ghost"
    formats = ("onnx",)
    install_hint = "pip install ghost"

    def unavailable_reason(self):
        return "the package ghost is not installed: pip install ghost"

    def load(self, graph, request):
        raise AssertionError("not to be reached")


# The file that a runtime is allowed to open.


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


@pytest.mark.parametrize("key", [7 << 3 | 2 | 1 << 32, 7 << 3 | 2 | 1 << 35])
def test_a_field_number_that_protobuf_truncates_is_refused(tmp_path, key):
    """protobuf reads the second graph, whose weights are in another file, as field 7."""
    model = onnx.load(external_graph(tmp_path), load_external_data=False)
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    path = tmp_path / "hidden.onnx"
    ordinary = model.SerializeToString() + varint(7 << 3 | 2) + varint(0)
    path.write_bytes(ordinary + varint(key) + varint(len(graph)) + graph)
    with pytest.raises(BackendError, match="a field number is too large"):
        check_onnx(path)


def varint(number: int) -> bytes:
    """A number in the encoding of protobuf."""
    groups = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def test_ordinary_weights_pass(tmp_path):
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"])]
    path = save_graph(tmp_path / "model.onnx", nodes, {"images": [4]}, {"logits": [4]}, (weights,))
    assert check_onnx(path) == path


# The choice.


def test_auto_takes_an_installed_backend_and_reports_why(bundle):
    """Which of them is the fastest depends on the machine."""
    session, report = open_session(bundle)
    assert report.requested == {"backend": "auto", "device": "auto", "precision": "auto", "threads": 0}
    assert report.actual is session.actual and report.fallback_reason is None
    assert available_backends()[report.actual.backend] is None
    assert report.selection_reason.startswith(report.actual.backend)


def test_auto_without_a_second_backend_runs_fp32_on_onnx_runtime(bundle, monkeypatch):
    monkeypatch.setattr("edge_vision.backends.registry.BACKENDS", {"onnxruntime": BACKENDS["onnxruntime"]})
    _, report = open_session(bundle, fallback=())
    assert (report.actual.backend, report.actual.precision) == ("onnxruntime", "fp32")
    assert report.selection_reason == "onnxruntime is the only one installed"


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
    assert report.actual.notes == ("requested precision int8, runs fp32",)
    with pytest.raises(BackendUnavailable, match="requested precision int8, runs fp32"):
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
        open_session(load_bundle(str(tmp_path)), "onnxruntime")


def test_openvino_on_request_runs_another_precision(bundle):
    reason = available_backends()["openvino"]
    if reason:
        pytest.skip(reason)
    _, report = open_session(bundle, "openvino", BackendRequest(precision="bf16"))
    met = report.actual.precision == "bf16"
    assert met != bool(report.actual.notes), report


_THIRD_PARTY = """
from edge_vision.backends import available_backends, backends_with, make_backend, runtime_versions
from edge_vision.cli.doctor.probe import run_probe
from edge_vision.offline.provenance import versions
from edge_vision.importer.probe import backends_for
from edge_vision.nodes.interface.specs import DETECTOR
from edge_vision.optimize.device import this_device
from edge_vision.optimize.runtimes import selected_backends

found = available_backends()
assert list(found)[:2] == ["onnxruntime", "openvino"] and "nowhere" in found["broken"], found
assert make_backend("ghost").name == "ghost"
assert "ghost" in backends_with(lambda backend: backend.can_optimize)
assert "ghost" in backends_for("onnx")
both = ("onnxruntime", "ghost")
assert selected_backends(both, this_device()) == both
assert "ghost" in DETECTOR.param("backend").description
assert runtime_versions(["ghost"])["ghost-plugin"] == "1.5", runtime_versions(["ghost"])
assert runtime_versions(["ghost"])["ghostlib-cu13"] == "7.0"
assert "ghost-plugin" not in runtime_versions(["onnxruntime"])
assert versions()["ghostlib-cu13"] == "7.0"
assert run_probe("backend", "ghost").last["devices"]
"""


def test_a_third_party_backend_is_in_every_list_of_backends(tmp_path):
    for name, version in (("ghost_plugin", "1.5"), ("ghostlib_cu13", "7.0")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (tmp_path / "ghost_plugin-1.5.dist-info" / "entry_points.txt").write_text(
        "[edge_vision.backends]\nghost = ghost_module:Ghost\nbroken = nowhere:X\n"
    )
    (tmp_path / "ghost_module.py").write_text(
        "from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend\n"
        "class Ghost(OnnxRuntimeBackend):\n"
        "    name, title, distributions = 'ghost', 'Ghost', ('ghostlib',)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", _THIRD_PARTY], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_backend_of_the_package_describes_itself():
    backends = {name: make_backend(name) for name in BACKENDS}
    assert {name: backend.name for name, backend in backends.items()} == {name: name for name in BACKENDS}
    for backend in backends.values():
        assert backend.title and backend.formats and backend.install_hint
        assert bool(backend.distributions) != backend.remote


def test_without_a_plug_in_the_metadata_of_packages_is_not_imported(tmp_path, monkeypatch):
    """It takes 25 ms of each start."""
    monkeypatch.setitem(sys.modules, "importlib.metadata", None)  # Its import fails.
    info = tmp_path / "ghost-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[console_scripts]\nghost = ghost:main\n")
    assert registry._on((str(tmp_path), str(tmp_path / "nowhere"))) == {}
    (info / "entry_points.txt").write_text("[edge_vision.backends]\nghost = ghost:Ghost\n")
    with pytest.raises(ImportError):
        registry._on((str(tmp_path),))


def test_listing_backends_imports_no_runtime():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from edge_vision.backends import available_backends; available_backends()\n"
        "heavy = {'onnxruntime', 'openvino', 'onnx', 'cv2', 'ai_edge_litert', 'tensorrt', 'tensorrt_rtx'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fault_starts_after_the_given_number_of_runs(onnx_mean):
    session = FaultySession(
        make_backend("onnxruntime").load(onnx_mean, BackendRequest()), Fault(after=2, error="gone")
    )
    for _ in range(2):
        session.run(IMAGE)
    with pytest.raises(BackendError, match="gone"):
        session.run(IMAGE)


def test_the_fake_takes_its_fault_from_the_request(bundle, monkeypatch):
    register(monkeypatch)
    session, report = open_session(bundle, "fake", BackendRequest(options={"error": "gone"}))
    assert report.actual.backend == "fake" and "misbehaves on request" in report.actual.notes
    with pytest.raises(BackendError, match="gone"):
        session.run({"images": np.zeros((1, 3, 300, 300), np.float32)})


def test_the_extras_of_setup_py_install_each_runtime():
    text = (Path(__file__).parents[2] / "setup.py").read_text()
    extras = text[text.index("extras_require") : text.index("entry_points")]
    for backend in map(make_backend, BACKENDS):
        if not backend.remote:
            assert any(f'["{package}' in extras for package in backend.distributions), backend.name
