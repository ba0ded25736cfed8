"""HTTP connections that end at a deadline.

A server that drips bytes never times out, so a watchdog ends the connection at the deadline, whatever the
connection waits for.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from functools import partial
from typing import Any


class ConnectionWatchdog:
    """Shuts the connection down at the deadline."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s, self.expired = deadline_s, False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(deadline_s, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self) -> None:
        self.expired = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._timer.cancel()
        for one in self._sockets:
            one.close()

    def connect(self, *args: Any, **kwargs: Any) -> socket.socket:
        """As socket.create_connection."""
        made = socket.create_connection(*args, **kwargs)
        # A duplicate: TLS replaces the socket object, and the response closes it.
        self._sockets.append(made.dup())
        if self.expired:
            self._expire()
        return made

    def opener(self) -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(_Http(self), _Https(self), _NoRedirects)


class _Connection(http.client.HTTPConnection):
    def __init__(self, watchdog: ConnectionWatchdog, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = watchdog.connect


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, watchdog: ConnectionWatchdog, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = watchdog.connect


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watchdog: ConnectionWatchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_Connection, self._watchdog), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watchdog: ConnectionWatchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_SecureConnection, self._watchdog), req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: the status becomes an HTTPError."""
