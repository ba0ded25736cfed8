"""TensorRT: real engines of real graphs, built without a GPU by TensorRT for RTX. They run where a GPU is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, mean_graph, onnx, save_graph, video_frame
from onnx import helper, numpy_helper

from edge_vision.backends import BackendRequest, make_backend, open_session
from edge_vision.backends.runtimes import cuda_driver, tensorrt
from edge_vision.backends.runtimes.cuda_driver import NO_GPU, CudaDevice, GpuIdentity
from edge_vision.backends.runtimes.tensorrt import TensorRtBackend
from edge_vision.backends.runtimes.tensorrt_build import built_precision
from edge_vision.bundles.store import Bundle
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, BackendUnavailable, EngineRefused


@pytest.fixture
def backend() -> TensorRtBackend:
    backend = make_backend("tensorrt_rtx")
    assert isinstance(backend, TensorRtBackend)
    reason = backend.package_missing()
    if reason:
        pytest.skip(reason)
    return backend


@pytest.fixture
def bundle() -> Bundle:
    return bundle_or_skip(SSD)


@pytest.fixture
def no_gpu() -> None:
    if cuda_driver.unavailable_reason() is None:
        pytest.skip("there is a GPU here")


def into(folder: Path, **others: object) -> BackendRequest:
    return BackendRequest(options={"cache_dir": folder}, **others)


def test_an_engine_of_the_detector_is_built_and_kept(backend, bundle, tmp_path):
    graph = bundle.folder / "model.onnx"
    first = backend.engine(graph, into(tmp_path))
    assert first.built and len(first.engine) > 10_000_000
    again = backend.engine(graph, into(tmp_path))
    assert not again.built and again.engine == first.engine


def test_the_key_names_graph_version_gpu_and_driver(backend, tmp_path):
    graph = mean_graph(tmp_path / "mean.onnx")
    orin = GpuIdentity("Orin sm_87", "540.4, CUDA 12.6")
    assert backend.engine(graph, into(tmp_path), orin).built
    assert not backend.engine(graph, into(tmp_path), orin).built
    with pytest.raises(EngineRefused, match=r"was built for driver '540\.4, CUDA 12\.6'"):
        backend.engine(graph, into(tmp_path), GpuIdentity("Orin sm_87", "540.5, CUDA 12.6"))
    assert backend.engine(graph, into(tmp_path), GpuIdentity("H100 sm_90", "540.4, CUDA 12.6")).built
    save_graph(
        graph, [helper.make_node("Identity", ["images"], ["logits"])], {"images": [4]}, {"logits": [4]}
    )
    assert backend.engine(graph, into(tmp_path), orin).built


def test_a_poisoned_engine_never_reaches_the_runtime(backend, tmp_path, monkeypatch):
    """With a GPU or without: the session is what opens engines, and it is not even made."""
    graph = mean_graph(tmp_path / "mean.onnx")
    backend.engine(graph, into(tmp_path))
    (path,) = tmp_path.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    opened: list[object] = []
    monkeypatch.setattr(tensorrt, "TensorRtSession", lambda *given: opened.append(given))
    monkeypatch.setattr(tensorrt, "CudaDevice", lambda index: _Device())
    monkeypatch.setattr(cuda_driver, "unavailable_reason", lambda: None)
    with pytest.raises(EngineRefused, match="--backend tensorrt_rtx --rebuild"):
        backend.load(graph, into(tmp_path))
    assert not opened


class _Device:  # As much of a GPU as it takes to get to the engine.
    identity = NO_GPU

    def close(self) -> None:
        pass


_BUILD = """
import sys
from pathlib import Path
from edge_vision.backends import BackendRequest, make_backend
kept = make_backend("tensorrt_rtx").engine(
    Path(sys.argv[1]), BackendRequest(options={"cache_dir": sys.argv[2]})
)
print("RESULT", kept.built, len(kept.engine))
"""


def test_two_processes_that_build_the_same_engine_build_it_once(backend, bundle, tmp_path):
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{_BUILD}"
    argv = [sys.executable, "-c", code, str(bundle.folder / "model.onnx"), str(tmp_path)]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=100)[0].split("RESULT ")[1].split() for process in both]
    assert sorted(built for built, _ in results) == ["False", "True"]
    assert results[0][1] == results[1][1]


def test_free_dimensions_but_the_batch_are_refused(backend, tmp_path):
    path = mean_graph(tmp_path / "free.onnx", (1, 3, "rows", 8))
    with pytest.raises(BackendError, match=r"'images' has free dimensions \[1, 3, -1, 8\].*fixed dimensions"):
        backend.engine(path, into(tmp_path))
    assert backend.engine(mean_graph(tmp_path / "batch.onnx", (None, 3, 8, 8)), into(tmp_path)).built


def test_a_node_that_tensorrt_does_not_know_is_named(backend, tmp_path):
    node = helper.make_node("Teleport", ["images"], ["logits"], domain="nowhere")
    path = save_graph(tmp_path / "odd.onnx", [node], {"images": [4]}, {"logits": [4]})
    with pytest.raises(BackendError, match=r"cannot read .*odd\.onnx(.|\n)*Teleport"):
        backend.engine(path, into(tmp_path))


def test_damaged_files_and_weights_elsewhere_are_refused(backend, tmp_path):
    path = mean_graph(tmp_path / "mean.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BackendError, match="fetch the bundle again"):
        backend.engine(path, into(tmp_path))
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("Add", ["images", "w"], ["logits"])]
    save_graph(path, nodes, {"images": [4]}, {"logits": [4]}, (weights,))
    with pytest.raises(BackendError, match="keeps weights in other files"):
        backend.engine(path, into(tmp_path))
    assert not list(tmp_path.glob("*.engine"))


def test_a_builder_that_takes_the_graphs_precision_says_nothing_else(backend):
    module = backend._import()
    assert [built_precision(module, p) for p in ("auto", "fp32", "fp16", "int8")] == ["graph"] * 4


def test_unknown_devices_and_options_are_refused(backend, tmp_path):
    graph = mean_graph(tmp_path / "mean.onnx")
    for device in ("npu", "gpu:x", "cpu"):
        with pytest.raises(BackendUnavailable, match=f"gpu:NUMBER, got '{device}'"):
            backend.load(graph, BackendRequest(device))
    with pytest.raises(BackendError, match="knows the options cache_dir, rebuild, got colour"):
        backend.load(graph, BackendRequest(options={"colour": "blue"}))


def test_without_a_gpu_another_backend_serves_and_says_why(bundle, backend, no_gpu):
    session, report = open_session(bundle, "tensorrt_rtx")
    assert report.actual.backend == "onnxruntime"
    assert "tensorrt_rtx: no NVIDIA GPU driver found" in report.fallback_reason
    assert len(Detector.from_bundle(bundle, session).detect(video_frame("vtest.avi", 200)).detections) >= 7
    with pytest.raises(BackendUnavailable, match="NVIDIA GPU driver"):
        open_session(bundle, "tensorrt_rtx", strict=True)
    with pytest.raises(BackendUnavailable, match="NVIDIA GPU driver"):
        CudaDevice()


def test_the_command_builds_and_reports(backend, bundle, tmp_path):
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "edge_vision", "backends", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=100)

    build = ["build", str(bundle.folder), "--backend", "tensorrt_rtx", "--cache", str(tmp_path)]
    assert "built: " in command(*build).stdout
    assert "already kept, verified" in command(*build).stdout
    (path,) = tmp_path.glob("*.engine")
    path.write_bytes(b"poison")
    refused = command(*build)
    assert refused.returncode == 1 and "it was not opened" in refused.stderr
    assert command(*build, "--rebuild").returncode == 0
    assert "tensorrt_rtx: " in command("list").stdout
    wrong = command("build", str(bundle.folder), "--backend", "onnxruntime")
    assert (
        wrong.returncode == 1
        and "backend that builds engines (openvino, tensorrt, tensorrt_rtx), got onnxruntime" in wrong.stderr
    )
