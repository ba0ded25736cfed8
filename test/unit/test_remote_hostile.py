"""The backend `kserve` against servers that lie: each lie is an error of one line, in time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest
from v2_server import HEAD

from edge_vision.errors import BackendError
from edge_vision.remote import kserve
from edge_vision.remote.connection import TOKEN, Connection
from edge_vision.remote.kserve import KserveSession

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
