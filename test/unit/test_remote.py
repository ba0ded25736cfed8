"""The backend `kserve` against a server on ONNX Runtime, the real Triton, and hostile ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from slow_link import SlowLink
from triton_server import PYTHON
from v2_server import HEAD, Server

from edge_vision.backends import BackendRequest, load_on, make_backend, open_session
from edge_vision.backends.base import Session
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.backends.serving import failure_history
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, BackendUnavailable, EdgeVisionError
from edge_vision.remote import kserve
from edge_vision.remote.connection import CA_FILE, TOKEN, TOKEN_FILE, Connection
from edge_vision.remote.kserve import KserveSession
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


# A server that lies.
METADATA = {
    "name": "m",
    "platform": "p",
    "inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3]}],
    "outputs": [{"name": "rows", "datatype": "FP32", "shape": [1, -1]}],
}
SERVER = {"name": "s", "version": "1", "extensions": []}
IMAGES = {"images": np.ones((1, 3), np.float32)}


def http(body: bytes, status: str = "200 OK", *headers: str, length: object = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def document(value: object) -> bytes:
    return http(json.dumps(value).encode())


def outputs(*described: object, tail: bytes = bytes(8), length: object = None) -> bytes:
    head = json.dumps({"outputs": described}).encode()
    return http(head + tail, "200 OK", f"{HEAD}: {len(head) if length is None else length}")


def rows(**changes: object) -> dict[str, object]:
    size = changes.pop("size", 8)
    good = {"name": "rows", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}
    return {**good, **changes}


@contextmanager
def scripted(*answers: bytes | Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers to the requests of one connection; the list of what it heard."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)

    def serve() -> None:
        with listener.accept()[0] as sock:
            sock.settimeout(30)
            file = sock.makefile("rb")
            for answer in answers:
                request = b"".join(iter(file.readline, b"\r\n"))
                heard.append(request)
                lengths = [
                    line for line in request.splitlines() if line.lower().startswith(b"content-length")
                ]
                file.read(int(lengths[0].split(b":")[1]))
                if callable(answer):
                    with suppress(OSError):
                        answer(sock)
                else:
                    sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
    thread.join(30)
    listener.close()
    assert not thread.is_alive()


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def answer(sock: socket.socket) -> None:
        sock.sendall(start)
        while True:
            time.sleep(0.02)
            sock.sendall(piece)

    return answer


def flood(sock: socket.socket, start: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
    sock.sendall(start)
    while True:
        sock.sendall(bytes(1 << 16))


PAGE = b"""<!DOCTYPE html>
<html><head><title>502 Bad Gateway</title><style>body { color: red }</style></head>
<body><!-- none --><script>alert("x")</script><p>1 &lt; 2</p>nginx http://a:secret@b/ <b>%s</b></body></html>
""" % (b"word " * 100)
LIES: dict[str, tuple[bytes | Callable[[socket.socket], None], str]] = {
    "truncated body": (http(b"{}", length=1000), "cannot be used: IncompleteRead"),
    "huge body": (http(b"{}", length=10**12), "sends 1000000000000 bytes, expected at most"),
    "endless body": (flood, "sends more than 1048576 bytes"),
    "chunk of the length -1": (
        partial(flood, start=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
        "the answer is too long",
    ),
    "drip in the headers": (drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "did not answer within 500 ms"),
    "drip in the body": (drip(http(b"", length=5000), b"x"), "did not answer within 500 ms"),
    "drip of interim answers": (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "did not answer within 500 ms"),
    "endless headers": (
        drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, b"X: y\r\n"),
        "more than 100 headers",
    ),
    "long line": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n", "more than 65536 bytes"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "cannot be used: SSH"),
    "silence": (lambda sock: sock.recv(1), "did not answer within 500 ms"),
    "a page": (http(b"<html>Welcome</html>"), "expected binary outputs .*got a page: Welcome$"),
    "a page of a proxy": (
        http(PAGE, "502 Bad Gateway"),
        r"answers 502 Bad Gateway: 502 Bad Gateway 1 < 2 nginx http://\*\*\*@b/ word( word)* ?\w*$",
    ),
    "an unclosed page": (http(b"<script" * 10_000, "500 Oops"), "answers 500 Oops: (<script)+"),
    "an error without a text": (http(b"", "500 Oops"), "answers 500 Oops$"),
    "redirect": (
        http(b"", "302 Found", "Location: http://user:secret@other/"),
        r"answers 302 Found, a redirect to http://\*\*\*@other/, which is not followed",
    ),
    "error with control characters": (
        http(b"\x1b[31mred http://a:secret@b/\n", "500 Oops"),
        r"answers 500 Oops: \\u001b\[31mred http://\*\*\*@b/$",
    ),
    "busy": (http(b'{"error": "queue is full"}', "503 Busy"), "answers 503 Busy: .*queue is full"),
    "JSON outputs": (document({"outputs": [{**rows(), "data": [1, 2]}]}), "expected binary outputs"),
    "head beyond the body": (outputs(rows(), length=10**6), "expected binary outputs"),
    "negative head": (outputs(rows(), length=-5), "expected binary outputs"),
    "head number with a long tail": (outputs(rows(), length="0" * 12 + "9" * 30), "expected binary outputs"),
    "long head number": (outputs(rows(), length="9" * 5000), "expected binary outputs"),
    "head is no JSON": (http(b"x" * 20, "200 OK", f"{HEAD}: 20"), "expected JSON"),
    "deep JSON": (http(b"[" * 200_000, "200 OK", f"{HEAD}: 200000"), "expected JSON"),
    "other dtype": (outputs(rows(datatype="INT64", shape=[1, 1])), "got others .*int64"),
    "unknown dtype": (outputs(rows(datatype="BYTES")), "got others .*BYTES"),
    "other rank": (outputs(rows(shape=[2])), "got others"),
    "other side": (outputs(rows(shape=[2, 1])), "got others"),
    "free side": (outputs(rows(shape=[1, -1])), "got others"),
    "huge shape": (outputs(rows(shape=[1, 2**62])), "got others"),
    "shape of text": (outputs(rows(shape="12")), "got others"),
    "size too small": (outputs(rows(size=4)), "got others"),
    "negative size": (outputs(rows(size=-8)), "got others"),
    "size of text": (outputs(rows(size="8")), "got others"),
    "beyond the body": (outputs(rows(shape=[1, 4], size=16)), "got others"),
    "bytes left": (outputs(rows(), tail=bytes(12)), "4 bytes left"),
    "missing output": (outputs(tail=b""), "got others"),
    "unknown output": (outputs(rows(name="cells")), "got others .*cells"),
    "no list": (http(b'{"outputs": 3}', "200 OK", f"{HEAD}: 14"), "got others"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_a_backend_error_of_one_line_and_ends_in_time(lie, monkeypatch):
    monkeypatch.setattr(kserve, "MAX_OUTPUT_BYTES", 1 << 20)
    answer, needle = LIES[lie]
    with scripted(document(METADATA), document(SERVER), answer) as (url, heard):
        session = KserveSession(Connection(url), "m", "")
        session.deadline_s = 0.5
        with pytest.raises(BackendError, match=needle) as error:
            session.run(IMAGES)
        assert session._connection._http.sock is None, "the state of the connection is unknown"
    text = str(error.value)
    assert text.isprintable() and len(text) < 600 and "secret" not in text
    assert [request.split()[:2] for request in heard] == [
        [b"GET", b"/v2/models/m"],
        [b"GET", b"/v2"],
        [b"POST", b"/v2/models/m/infer"],
    ]


def test_the_truth_is_read():
    good = outputs(rows(), tail=np.array([1, 2], np.float32).tobytes())
    empty = outputs(rows(shape=[1, 0], size=0), tail=b"")
    chunked = good.partition(b"\r\n\r\n")
    parts = f"{len(chunked[2]):x}\r\n".encode() + chunked[2] + b"\r\n0\r\n\r\n"
    head = next(line for line in chunked[0].splitlines() if HEAD.encode() in line)
    in_chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + head + b"\r\n\r\n" + parts
    with scripted(document(METADATA), document(SERVER), good, empty, in_chunks) as (url, _):
        session = KserveSession(Connection(url), "m", "")
        for shape in ((1, 2), (1, 0), (1, 2)):
            found = session.run(IMAGES)["rows"]
            assert found.shape == shape and found.flags.writeable and found.flags.aligned
        np.testing.assert_array_equal(found, [[1, 2]])


@pytest.mark.parametrize(
    "metadata",
    [
        b"<html>",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        json.dumps({**METADATA, "inputs": None}).encode(),
        json.dumps({**METADATA, "inputs": [{"name": "a", "datatype": "BYTES", "shape": [1]}]}).encode(),
        json.dumps({**METADATA, "outputs": [{"name": "a", "datatype": "FP32", "shape": ["1"]}]}).encode(),
        json.dumps({**METADATA, "outputs": [{"name": "a", "datatype": "FP32", "shape": [-2]}]}).encode(),
        json.dumps({**METADATA, "outputs": [{"name": "a", "datatype": ["FP32"], "shape": []}]}).encode(),
        json.dumps({"inputs": [3], "outputs": []}).encode(),
    ],
)
def test_metadata_that_is_none(metadata):
    with (
        scripted(http(metadata)) as (url, _),
        pytest.raises(BackendError, match=r"expected JSON|cannot be read") as error,
    ):
        KserveSession(Connection(url), "m", "")
    assert str(error.value).isprintable() and len(str(error.value)) < 600


@pytest.mark.parametrize("groups", [5, "KIND_GPU", {"kind": "KIND_GPU"}, [[5]]])
def test_a_configuration_that_is_none_leaves_the_device_unknown(groups):
    server = {**SERVER, "extensions": ["model_configuration"]}
    with scripted(*map(document, (METADATA, server, {"instance_group": groups}))) as (url, _):
        assert KserveSession(Connection(url), "m", "").actual.device == "unavailable"


def test_a_token_that_the_server_repeats_is_not_shown(monkeypatch):
    token = "open-sesame-" + "x" * 40
    monkeypatch.setenv(TOKEN, token)
    server = {**SERVER, "name": "n" * 80 + token}
    refusal = http(b"x" * 280 + token.encode(), "401 No")
    page = http(b"x" * 30 + token.encode())
    for answer in (refusal, page):
        with scripted(document(METADATA), document(server), answer) as (url, _):
            session = KserveSession(Connection(url), "m", "")
            with pytest.raises(BackendError) as error:
                session.run(IMAGES)
        assert "open" not in f"{error.value}{session.actual}" and "x" * 20 in str(error.value)


def test_names_of_a_server_are_short_and_printable():
    server = {"name": "\x1b[2J" + "s" * 1000, "version": {"a": "\n"}, "extensions": ["model_configuration"]}
    groups = {"instance_group": [{"kind": "KIND_GPU"}, {"kind": "KIND_GPU"}, 3]}
    with scripted(*map(document, (METADATA, server, groups))) as (url, _):
        actual = KserveSession(Connection(url), "m", "").actual
    assert actual.version.isprintable() and len(actual.version) < 200
    assert (actual.device, actual.precision) == ("gpu", "unavailable")


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
