"""The backend `kserve` against a server on ONNX Runtime and the real Triton."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from slow_link import SlowLink
from triton_server import PYTHON
from v2_server import Server

from edge_vision.backends import BackendRequest, load_on, make_backend, open_session
from edge_vision.backends.base import Session
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.backends.serving import failure_history
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, BackendUnavailable, EdgeVisionError
from edge_vision.remote.connection import CA_FILE, TOKEN, TOKEN_FILE, Connection
from edge_vision.remote.routing import RoutedSession, Router

FP32 = BackendRequest(precision="fp32", threads=1)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundle_or_skip(DETECTOR)


@pytest.fixture(scope="module", params=["onnxruntime", "triton"])
def server(request, bundle) -> Iterator[Server]:
    """A server with the detector's fp32 graph."""
    if request.param == "onnxruntime":
        started = Server(bundle.folder)
    elif python := os.environ.get(PYTHON):
        started = Server(bundle.folder, script="triton_server.py", python=python)
    else:
        pytest.skip(f"the real Triton: set {PYTHON} to a Python with nvidia-pytriton, see triton_server.py")
    yield started
    started.kill()


@pytest.fixture
def own_server(bundle) -> Iterator[Server]:
    """One that the test may stop."""
    started = Server(bundle.folder)
    yield started
    started.kill()


def remote(url: str, **more) -> BackendRequest:
    return BackendRequest(remote_url=url, **more)


def tensors_of(bundle: Bundle, value: float = 0.5) -> dict[str, np.ndarray]:
    spec = bundle.manifest.input
    return {spec.name: np.full(spec.shape, value, spec.dtype)}


def copy_of(bundle: Bundle, folder: Path, *changes: tuple[str, str]) -> Bundle:
    shutil.copytree(bundle.folder, folder)
    manifest = folder / "bundle.yaml"
    text = manifest.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
    return load_bundle(f"{folder}{os.sep}")


def test_a_server_finds_the_same_objects(server, bundle):
    session, report = open_session(bundle, "kserve", remote(server.url), strict=True)
    local = load_on(bundle, "onnxruntime", FP32)
    assert report.fallback_reason is None
    for index in (100, 200):
        frame = video_frame("vtest.avi", index)
        expected, found = (
            Detector.from_bundle(bundle, one).detect(frame).detections for one in (local, session)
        )
        assert len(expected) >= 3
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.xyxy_px, expected.xyxy_px, atol=0.2)
    session.close()


def test_actual_is_what_the_server_reports(server, bundle):
    actual = load_on(bundle, "kserve", remote(server.url, threads=3)).actual
    assert actual.backend == "kserve" and actual.version in ("v2_server 1.0", "triton 2.51.0")
    assert actual.device in ("cpu", "unavailable") and f"at 127.0.0.1:{server.port}" in actual.provider
    assert actual.precision == "unavailable" and actual.threads == 0
    assert "requested 3 threads, runs on an unreported number" in actual.notes[0]


def test_the_connection_is_kept_open(server, bundle):
    session = load_on(bundle, "kserve", remote(server.url))
    sock = session._connection._http.sock
    for _ in range(3):
        session.run(tensors_of(bundle))
    assert sock is not None and session._connection._http.sock is sock
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(tensors_of(bundle))


def test_a_model_that_the_server_lacks(server, bundle, tmp_path):
    other = copy_of(bundle, tmp_path / "other", ("name: nanodet", "name: other"))
    with pytest.raises(BackendError, match=r"answers 4\d\d.*other"):
        load_on(other, "kserve", remote(server.url))


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (("width_px: 416", "width_px: 320"), r"\[1, 3, 416, 320\] float32, .* \[1, 3, 416, 416\] float32"),
        (("dtype: float32", "dtype: uint8"), r"\[1, 3, 416, 416\] uint8, .* float32"),
        (("name: images", "name: pictures"), "'pictures'.*'images'"),
        (("{rows: rows}", "{rows: boxes}"), "boxes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_the_local_one_serves(
    server, bundle, tmp_path, change, needle
):
    other = copy_of(bundle, tmp_path / "other", change)
    with pytest.raises(BackendError, match=f"does not fit bundle nanodet: .*{needle}"):
        load_on(other, "kserve", remote(server.url))
    _, report = open_session(bundle, "kserve", remote(server.url.replace("http", "ftp")))
    assert report.actual.backend == "onnxruntime" and "remote_url: expected" in report.fallback_reason


def test_a_graph_of_the_format_remote_names_the_model(server, bundle, tmp_path):
    """Such a bundle needs no local graph."""
    text = (bundle.folder / "bundle.yaml").read_text()
    graphs = text[text.index("graphs:") : text.index("figures:")]
    content = b"model: nanodet\nversion: '1'\n"
    digest = hashlib.sha256(content).hexdigest()
    graph = f"graphs: [{{file: remote.yaml, format: remote, precision: fp32, sha256: {digest}}}]\n"
    folder = copy_of(bundle, tmp_path / "big").folder
    for file in folder.glob("*.onnx"):
        file.unlink()
    manifest = text.replace(graphs, graph).replace("name: nanodet", "name: big")
    (folder / "bundle.yaml").write_text(manifest)
    for written, needle in ((content, ""), (b"model: other\n", "sha256"), (None, "no such file")):
        (folder / "remote.yaml").unlink(missing_ok=True)
        if written:
            (folder / "remote.yaml").write_bytes(written)
        with pytest.raises(EdgeVisionError, match=needle) if needle else nullcontext():
            big = load_bundle(f"{folder}{os.sep}")
            session, _ = open_session(big, "kserve", remote(server.url), strict=True)
            assert big.name == "big" and session.run(tensors_of(big))["rows"].dtype == np.float32


def test_without_an_address_there_is_no_network(bundle, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a connection without remote_url")

    monkeypatch.setattr(socket, "create_connection", no_network)
    with pytest.raises(BackendUnavailable, match="set remote_url"):
        load_on(bundle, "kserve", BackendRequest())
    assert "set remote_url" in make_backend("kserve").unavailable_reason()
    _, report = open_session(bundle, "auto", remote("http://127.0.0.1:9", precision="fp32"))
    assert report.actual.backend != "kserve"


@pytest.mark.parametrize(
    "url",
    [
        "yard:8000",
        "ftp://yard",
        "http://",
        "http://user:secret@yard",
        "http://yard:x",
        "https://yard?a=secret",
        "//[",
    ],
)
def test_an_address_that_is_none(bundle, url):
    with pytest.raises(BackendError, match="remote_url: expected an address like https://yard:8000") as error:
        load_on(bundle, "kserve", remote(url))
    assert "secret" not in str(error.value)


def test_devices_and_options_are_refused(bundle):
    with pytest.raises(BackendUnavailable, match="knows the device auto, got 'gpu'"):
        load_on(bundle, "kserve", remote("http://127.0.0.1:9", device="gpu"))
    with pytest.raises(BackendError, match="knows the options"):
        load_on(bundle, "kserve", remote("http://127.0.0.1:9", options={"a": 1}))


# Secrets.
def test_a_token_is_sent_and_in_no_message(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("V2_SERVER_TOKEN", "open-sesame")
    server = Server(bundle.folder)
    try:
        with pytest.raises(BackendError, match="answers 401"):
            load_on(bundle, "kserve", remote(server.url))
        monkeypatch.setenv(TOKEN, "open-sesame")
        session = load_on(bundle, "kserve", remote(server.url))
        session.run(tensors_of(bundle))
        assert "sesame" not in repr(session.actual)
        file = tmp_path / "token"
        file.write_text("open-sesame\n")
        monkeypatch.delenv(TOKEN)
        monkeypatch.setenv(TOKEN_FILE, str(file))
        load_on(bundle, "kserve", remote(server.url)).close()
        for content in ("wrong-sesame", "two sesames", "", "sesame\nX-Other: 1", "s\u00e9same"):
            file.write_text(content)
            with pytest.raises(BackendError) as error:
                load_on(bundle, "kserve", remote(server.url))
            assert "same" not in str(error.value)
        file.unlink()
        with pytest.raises(BackendError, match=f"{TOKEN_FILE}: expected a file"):
            load_on(bundle, "kserve", remote(server.url))
    finally:
        server.kill()


def test_a_token_leaves_this_machine_over_https_only(monkeypatch):
    monkeypatch.setenv(TOKEN, "open-sesame")
    with pytest.raises(BackendError, match="expected https to send the token to yard:8000"):
        Connection("http://yard:8000")
    Connection("https://yard:8000")


def test_a_server_of_plain_http_behind_an_https_address_is_named():
    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as sock:
            sock.recv(10_000)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=[listener], daemon=True).start()
        connection = Connection(f"https://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BackendError, match="does it serve http, not https"):
            connection.request("GET", "/v2", 10.0, 1000)


def test_tls_with_an_authority_of_ones_own(bundle, monkeypatch, tmp_path):
    names = {name: str(tmp_path / f"{name}.pem") for name in ("key", "certificate", "both")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=yard"),
            *(
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                names["key"],
                "-out",
                names["certificate"],
            ),
        ],
        check=True,
        capture_output=True,
    )
    Path(names["both"]).write_text(Path(names["key"]).read_text() + Path(names["certificate"]).read_text())
    monkeypatch.setenv("V2_SERVER_CERTIFICATE", names["both"])
    server = Server(bundle.folder)
    url = server.url.replace("http:", "https:")
    try:
        with pytest.raises(BackendError, match="certificate verify failed"):
            load_on(bundle, "kserve", remote(url))
        monkeypatch.setenv(CA_FILE, names["certificate"])
        session = load_on(bundle, "kserve", remote(url))
        assert session.run(tensors_of(bundle))["rows"].shape[0] == 1
        with pytest.raises(BackendError, match="certificate"):
            load_on(bundle, "kserve", remote(url.replace("127.0.0.1", "localhost")))
        monkeypatch.setenv(CA_FILE, str(tmp_path / "none.pem"))
        with pytest.raises(BackendError, match=f"{CA_FILE}: expected a file of certificates"):
            load_on(bundle, "kserve", remote(url))
    finally:
        server.kill()


def test_an_idle_connection_that_the_server_has_closed_is_opened_again(own_server, bundle):
    session = load_on(bundle, "kserve", remote(own_server.url))
    first = session.run(tensors_of(bundle))["rows"]
    own_server.kill()
    own_server.start()
    np.testing.assert_array_equal(session.run(tensors_of(bundle))["rows"], first)


def test_a_stopped_server_is_an_error_at_the_deadline(own_server, bundle):
    session = load_on(bundle, "kserve", remote(own_server.url))
    own_server.signal(signal.SIGSTOP)
    session.deadline_s = 0.3
    with pytest.raises(BackendError, match="did not answer within 300 ms"):
        session.run(tensors_of(bundle))
    own_server.signal(signal.SIGCONT)
    session.deadline_s = 10.0
    session.run(tensors_of(bundle))


# Fallback and return.
def test_the_manager_falls_back_and_returns(own_server, bundle, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.1)
    came: list[str] = []

    def serves(model: LoadedModel[Detector]) -> None:
        came.append(model.report.actual.backend)

    manager = ModelManager(
        lambda bundle, session: Detector.from_bundle(bundle, session), lambda *_: None, serves
    )
    manager.start(ModelRequest(str(bundle.folder), "kserve", remote(own_server.url)))
    frame = video_frame("vtest.avi", 200)

    def detect() -> int:
        model = manager.acquire(None)
        try:
            found = model.runner.detect(frame).detections
        except BackendError as error:
            manager.release(model)
            manager.report_failure(model, str(error))
            return detect()
        manager.release(model)
        return len(found)

    try:
        expected = detect()
        own_server.kill()
        assert detect() == expected >= 3 and came == ["kserve", "onnxruntime"]
        own_server.start()
        until_s = time.monotonic() + 60
        while came[-1] != "kserve" and time.monotonic() < until_s:
            manager.retry_if_due()
            assert detect() == expected
        assert came[-1] == "kserve" and detect() == expected
    finally:
        manager.stop()


def test_a_server_that_is_down_at_the_start_is_used_later(own_server, bundle, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.1)
    own_server.kill()
    manager = ModelManager(
        lambda bundle, session: Detector.from_bundle(bundle, session), lambda *_: None, lambda _: None
    )
    try:
        model = manager.start(ModelRequest(str(bundle.folder), "kserve", remote(own_server.url)))
        assert model.report.actual.backend == "onnxruntime"
        assert manager.status_values()["backend.failed"].startswith("kserve: the server 127.0.0.1:")
        own_server.start()
        until_s = time.monotonic() + 60
        while manager.model.report.actual.backend != "kserve" and time.monotonic() < until_s:
            manager.retry_if_due()
            time.sleep(0.05)
        assert manager.model.report.actual.backend == "kserve"
        assert manager.status_values()["backend.failed"] == ""
    finally:
        manager.stop()


def test_a_backend_without_a_server_is_not_tried_again(bundle):
    manager = ModelManager(
        lambda bundle, session: Detector.from_bundle(bundle, session), lambda *_: None, lambda _: None
    )
    try:
        assert manager.start(ModelRequest(str(bundle.folder), "kserve")).report.fallback_reason
        assert manager.status_values()["backend.failed"] == ""
    finally:
        manager.stop()


class Counted(Session):
    """A session that counts its runs."""

    def __init__(self, inner: Session) -> None:
        self.inputs, self.outputs, self.actual = inner.inputs, inner.outputs, inner.actual
        self.inner, self.runs = inner, 0

    def _run(self, tensors):
        self.runs += 1
        return self.inner.run(tensors)

    def close(self) -> None:
        super().close()
        self.inner.close()


@pytest.fixture
def slow_link(own_server) -> Iterator[SlowLink]:
    link = SlowLink(own_server.port)
    yield link
    link.close()


@pytest.fixture
def both(slow_link, bundle) -> Iterator[tuple[RoutedSession, Counted, Router]]:
    """A robot whose own inference is taken to last 2 s, so that no load of this machine decides."""
    router = Router(2.0, 0.1)
    router.add_local(time.monotonic(), 2.0)
    local = Counted(load_on(bundle, "onnxruntime", FP32))
    remote_session = load_on(bundle, "kserve", remote(slow_link.url))
    remote_session.run(tensors_of(bundle))
    session = RoutedSession(remote_session, local, router)
    yield session, local, router
    session.close()
    until_s = time.monotonic() + 30
    while not remote_session._closed and time.monotonic() < until_s:
        time.sleep(0.01)  # A request is under way.
    assert local._closed and remote_session._closed


def test_route_auto_is_opened_by_the_request(server, bundle):
    session, report = open_session(bundle, "kserve", remote(server.url, route="auto"), strict=True)
    assert isinstance(session, RoutedSession) and "route auto: or here on" in report.actual.notes[-1]
    expected = load_on(bundle, "onnxruntime", FP32).run(tensors_of(bundle))["rows"]
    assert sqnr_db({"rows": expected}, session.run(tensors_of(bundle))) > 10
    values = session.status_values()
    assert values["route.remote_percent"] in (0.0, 100.0)
    assert values["route.remote_ms"] > 0 and values["route.local_ms"] > 0
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run(tensors_of(bundle))


def test_route_auto_refuses_a_server_with_another_graph(bundle, tmp_path):
    """The shapes alone do not show it."""
    import onnx

    folder = copy_of(bundle, tmp_path / "other").folder
    model = onnx.load(folder / "model.onnx")
    for weights in model.graph.initializer[:40]:
        if weights.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(weights)
            weights.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), weights.name))
    onnx.save(model, folder / "model.onnx")
    server = Server(folder)
    try:
        with pytest.raises(BackendError, match=r"the outputs of the server differ .* dB, expected 15"):
            load_on(bundle, "kserve", remote(server.url, route="auto"))
    finally:
        server.kill()


def test_a_fast_server_infers(both, bundle):
    session, local, _ = both
    for _ in range(3):
        session.run(tensors_of(bundle))
    assert local.runs == 0 and session.status_values()["route.remote_percent"] == 100.0


def test_a_slow_link_leaves_the_same_frame_to_the_local_session(both, slow_link, bundle):
    session, local, router = both
    slow_link.set(4000.0)
    router.local_s = 0.2  # Patience of 0.25 s.
    frames = [tensors_of(bundle, value) for value in (0.1, 0.9)]
    for tensors in frames:
        found = session.run(tensors)
        np.testing.assert_allclose(found["rows"], local.inner.run(tensors)["rows"])
    assert local.runs == 2, "the second frame does not wait: one request is under way"
    assert session.trouble == ""


def test_a_dead_server_costs_no_frame_and_returns(both, own_server, slow_link, bundle):
    session, local, router = both
    expected = session.run(tensors_of(bundle))["rows"]
    own_server.kill()
    np.testing.assert_allclose(session.run(tensors_of(bundle))["rows"], expected, atol=1e-3)
    assert local.runs == 1 and "inference runs here only, the server" in session.trouble
    own_server.start()
    until_s = time.monotonic() + 60
    while session.status_values()["route.remote_percent"] != 0 and time.monotonic() < until_s:
        router.local_s = 2.0
        runs = local.runs
        session.run(tensors_of(bundle))
        if local.runs == runs:
            break
    assert local.runs == runs and session.trouble == ""


def test_the_late_answer_of_a_closed_session_closes_the_connection(both, own_server, bundle):
    session, _, router = both
    router.local_s = 0.2
    own_server.signal(signal.SIGSTOP)
    session.run(tensors_of(bundle))
    session.close()
    asked = session._remote
    own_server.signal(signal.SIGCONT)
    until_s = time.monotonic() + 30
    while asked._connection._http.sock is not None and time.monotonic() < until_s:
        time.sleep(0.01)
    assert asked._closed and asked._connection._http.sock is None
