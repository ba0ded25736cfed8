"""One HTTP connection to a server that is not trusted: bounded answers, one deadline, no redirects."""

from __future__ import annotations

import html
import http.client
import io
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from edge_vision.core.printable import bounded_text
from edge_vision.core.redaction import MASK, redact_url
from edge_vision.errors import BackendError

TOKEN, TOKEN_FILE, CA_FILE = (f"EDGE_VISION_REMOTE_{name}" for name in ("TOKEN", "TOKEN_FILE", "CA_FILE"))
"""Environment variables: a bearer token, a file with one, a file with certificates of authorities (PEM). The
environment, because any ROS node may read a parameter."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_TOKEN_BYTES = 1 << 14
_SHOWN_CHARS, _PAGE_CHARS, _WORDS_CHARS = 300, 4000, 100
_NO_TEXT = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[/!?a-z][^<>]*>")
"""In a page."""
_MAX_HEAD_BYTES = 8 << 20
"""Of what http.client accepts as headers."""
_TLS_SEND_BYTES = 1 << 14
"""Sent at once: each record has a timeout of its own. A plain socket has one for everything."""


class Connection:
    """Requests to one server, one at a time, over a connection that is kept open. Used by one thread."""

    def __init__(self, url: str) -> None:
        """url: http or https, host, port, and a path before /v2. Raises BackendError. Does not connect."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query:
            raise BackendError(
                f"remote_url: expected an address like https://yard:8000, got '{redact_url(url)}'"
            )
        self.name = f"{host}:{port}" if port else host
        self._path = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/octet-stream"}
        self._token = _token()
        if token := self._token:
            if parts.scheme == "http" and host not in _LOOPBACK:
                raise BackendError(f"expected https to send the token to {self.name}, got http in remote_url")
            self._headers["Authorization"] = f"Bearer {token}"
        if parts.scheme == "http":
            self._http, self._send_bytes = http.client.HTTPConnection(host, port), sys.maxsize
        else:
            self._http = http.client.HTTPSConnection(host, port, context=_context())
            self._send_bytes = _TLS_SEND_BYTES
        # Its type is that of a class, and what it calls is this.
        self._http.response_class = self._response  # type: ignore[assignment]
        self._ends_s, self._max_bytes = 0.0, 0

    def request(
        self,
        method: str,
        path: str,
        limit_s: float,
        max_bytes: int,
        body: Sequence[bytes | memoryview] = (),
        headers: Mapping[str, str] | None = None,
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Headers and body of the answer with status 200.

        Raises BackendError for another status, more than max_bytes, and if it has not ended after limit_s.
        """
        self._ends_s, self._max_bytes = time.monotonic() + limit_s, max_bytes
        try:
            try:
                return self._exchange(method, path, max_bytes, body, headers or {})
            except ConnectionError:
                # The server may close a connection that was idle. An inference can be repeated.
                if not self._was_open:
                    raise
                self.close()
                return self._exchange(method, path, max_bytes, body, headers or {})
        except TimeoutError:
            self._fail(f"did not answer within {limit_s * 1e3:.0f} ms")
        except (OSError, http.client.HTTPException, ValueError) as error:
            plain = getattr(error, "reason", "") == "WRONG_VERSION_NUMBER"
            remedy = "does it serve http, not https?" if plain else "check remote_url and the server"
            self._fail(f"cannot be used: {str(error) or type(error).__name__}: {remedy}")

    def _exchange(
        self,
        method: str,
        path: str,
        max_bytes: int,
        body: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
    ) -> tuple[http.client.HTTPMessage, bytes]:
        sock = self._http.sock
        self._was_open = sock is not None
        self._http.timeout = self._left_s()
        if sock:
            sock.settimeout(self._http.timeout)
        self._http.putrequest(method, self._path + path)
        length = sum(len(part) for part in body)
        for name, value in {**self._headers, **headers, "Content-Length": str(length)}.items():
            self._http.putheader(name, value)
        self._http.endheaders()
        for part in body:
            for at in range(0, len(part), self._send_bytes):
                self._http.sock.settimeout(self._left_s())
                self._http.send(part[at : at + self._send_bytes])
        with self._http.getresponse() as response:
            data = self._body(response, max_bytes)
        if response.status != 200:
            self._refuse(response, data)
        return response.headers, data

    def _body(self, response: http.client.HTTPResponse, max_bytes: int) -> bytes:
        if response.length is None:  # In chunks, or up to the end of the connection.
            data = response.read(max_bytes + 1)
        elif response.length <= max_bytes:
            data = response.read()
        else:
            self._fail(f"sends {response.length} bytes, expected at most {max_bytes}")
        if len(data) > max_bytes:
            self._fail(f"sends more than {max_bytes} bytes")
        return data

    def _refuse(self, response: http.client.HTTPResponse, data: bytes) -> NoReturn:
        text = f"answers {response.status} {response.reason}"
        if location := response.headers.get("Location"):
            self._fail(f"{text}, a redirect to {redact_url(location)}, which is not followed: set remote_url")
        self._fail(": ".join(filter(None, (text, self.words(data)))))

    def _fail(self, text: str) -> NoReturn:
        self.close()
        raise BackendError(f"the server {self.name} {self.shown(text)[:_SHOWN_CHARS]}")

    def shown(self, text: str) -> str:
        """A text of the server for logs and statuses: bounded, and without the token that it may repeat.

        To be cut only afterwards: a part of the token would stay.
        """
        return bounded_text(self._masked(text))

    def words(self, data: bytes) -> str:
        """A text of the server as `shown`; of a page in HTML or XML the first words, without tags."""
        text = self._masked(data[: 2 * _MAX_TOKEN_BYTES].decode("utf-8", "replace")).strip()
        if not text.startswith("<"):
            return self.shown(text)
        # Cut first: the time of the search may be quadratic in the length.
        text = " ".join(html.unescape(_NO_TEXT.sub(" ", text[:_PAGE_CHARS])).split())
        return self.shown(text)[:_WORDS_CHARS]

    def _masked(self, text: str) -> str:
        return text.replace(self._token, MASK) if self._token else text

    def _left_s(self) -> float:
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _response(self, sock: socket.socket, method: str) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Reader(sock, self), method=method)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the connection. The next request opens another one."""
        self._http.close()


class _Reader(io.RawIOBase):
    """Reads a socket until the deadline of the request: a socket's own timeout starts again with each byte.

    It ends after _left_bytes: http.client reads a chunk of the length -1 to the end of the stream.
    """

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._sock, self._connection = sock, connection
        self._left_bytes = 2 * connection._max_bytes + _MAX_HEAD_BYTES
        self._raw = sock.makefile("rb", buffering=0)  # Keeps it open after HTTPConnection has closed it.

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks a socket for."""
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._sock.settimeout(self._connection._left_s())
        count = self._raw.readinto(buffer) or 0
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise http.client.HTTPException("the answer is too long")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _token() -> str:
    """The token of the environment, "" for none. No error contains it."""
    token, file = os.environ.get(TOKEN, ""), os.environ.get(TOKEN_FILE)
    if file:
        try:
            with Path(file).open("rb") as opened:
                token = opened.read(_MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
        except OSError as error:
            raise BackendError(f"{TOKEN_FILE}: expected a file, got {file}: {error.strerror}") from None
    if (token or file) and not re.fullmatch(r"[!-~]+", token):
        raise BackendError(f"expected a token of printable ASCII without spaces in {TOKEN} or {TOKEN_FILE}")
    return token


def _context() -> ssl.SSLContext:
    file = os.environ.get(CA_FILE) or None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise BackendError(f"{CA_FILE}: expected a file of certificates, got {file}: {error}") from None
