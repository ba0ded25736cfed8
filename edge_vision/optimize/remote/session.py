"""A connection to a device: the system's ssh, and requests to the agent that it runs there."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError
from edge_vision.optimize.remote import agent
from edge_vision.optimize.remote.address import DeviceAddress
from edge_vision.optimize.remote.agent import BEAT_S, READY, SILENCE_S, Frames, frame

_BOOT = (
    "import sys; "
    "sys.version_info >= (3, 10) or sys.exit('expected Python 3.10 or newer, got ' + sys.version); "
    "'' in sys.path and sys.path.remove(''); code = sys.stdin.buffer; "
    "exec(compile(code.read(int(code.readline())), 'agent', 'exec'))"
)
"""Reads the agent from standard input. Nothing else is sent before the agent is ready."""
_MAX_GREETING_LINES = 1000
_MAX_WAITING_REPLIES = 16
_MAX_ERROR_BYTES, _SHOWN_ERROR_BYTES = 1 << 24, 1 << 14
_NOT_FOUND = (126, 127)
"""Exit status of a shell that cannot run a command."""
_SSH_FAILED = 255
_CLOSE_S = 5.0
_POLL_S = 0.5


class ConnectionEnded(OptimizeError):
    """The device cannot be reached, or the connection to it ended. It may work later."""


class DeviceError(OptimizeError):
    """The device refuses a request. The text states why."""


class SshSession:
    """A running agent. on_wait: called twice per second while a reply is awaited; it may raise to stop."""

    def __init__(self, address: DeviceAddress, on_wait: Callable[[], None] = lambda: None) -> None:
        """Raises ConnectionEnded, or OptimizeError if there is no ssh or no suitable Python."""
        self._address, self._on_wait = address, on_wait
        ssh = shutil.which("ssh")
        if ssh is None:
            raise OptimizeError(
                f"{address.text}: expected the program ssh, got none: apt install openssh-client"
            )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`.
        # In a session of its own, so that Ctrl-C reaches this process only, which then closes it.
        self._ssh = subprocess.Popen(
            address.ssh_command(ssh, address.python, "-c", _BOOT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )
        self._writing, self._number = threading.Lock(), 0
        self._replies: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()
        self._ended_by, self._ready, self._closed = "", False, threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            source = Path(agent.__file__).read_bytes()
            self._send(b"%d\n" % len(source) + source)
            self._next(None)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, daemon=True).start()

    def request(
        self, name: str, data: bytes = b"", /, *, limit_s: float | None = None, **arguments: Any
    ) -> tuple[Any, bytes]:
        """The value and the bytes of a reply. limit_s: after it, the connection counts as lost.

        Raises ConnectionEnded, DeviceError, DiskFull.
        """
        self._number += 1
        self._send(frame({"request": name, "id": self._number, "arguments": arguments}, data))
        until_s = None if limit_s is None else time.monotonic() + limit_s
        while True:
            reply, out = self._next(until_s)
            # Nothing else is expected: a late reply would be of no request.
            if reply.get("id") == self._number:
                break
        if "error" in reply:
            if reply.get("errno") in DISK_FULL:
                raise DiskFull(self._address.text)
            raise DeviceError(f"{self._address.text}: {reply['error']}")
        if "value" not in reply:
            raise DeviceError(f"{self._address.text}: expected a reply to {name}, got {reply!r:.100}")
        return reply["value"], out

    def close(self) -> None:
        """End the agent, which kills its trial, and wait for that."""
        self._closed.set()
        assert self._ssh.stdin is not None and self._ssh.stdout is not None
        self._ssh.stdin.close()
        try:
            self._ssh.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._reader.join(_CLOSE_S)
        self._ssh.stdout.close()
        self._errors.close()

    def _send(self, data: bytes) -> None:
        assert self._ssh.stdin is not None
        try:
            with self._writing:
                view = memoryview(data)
                while view:
                    view = view[self._ssh.stdin.write(view) or 0 :]
        except (OSError, ValueError):  # ValueError: closed meanwhile.
            self._raise_end()

    def _next(self, until_s: float | None) -> tuple[dict[str, Any], bytes]:
        while True:
            try:
                received = self._replies.get(timeout=_POLL_S)
            except queue.Empty:
                self._on_wait()
                if until_s is None or time.monotonic() < until_s:
                    continue
                self._ended_by, received = "no reply in time", None
            if received is None:
                self._raise_end()
            return received

    def _raise_end(self) -> NoReturn:
        """Raise the error that states why the connection ended."""
        if self._ended_by:
            self._ssh.kill()
        try:
            code = self._ssh.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            code = _SSH_FAILED
        self._errors.seek(max(0, self._error_bytes() - _SHOWN_ERROR_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        said = " ".join(lines[-1].split()) if lines else ""
        text = self._address.text
        if not self._ready and code in _NOT_FOUND:
            raise OptimizeError(
                f"{text}: expected the command {self._address.python} there, got: {said}; name another one "
                f"with ssh://host/path/to/python"
            )
        if not self._ready and code not in (_SSH_FAILED, -9):
            raise OptimizeError(f"{text}: the agent did not start: {said or f'exit status {code}'}")
        raise ConnectionEnded(f"{text}: {self._ended_by or said or 'the connection ended'}")

    def _read(self) -> None:
        assert self._ssh.stdout is not None
        frames = Frames(self._ssh.stdout.fileno(), SILENCE_S)
        try:
            for _ in range(_MAX_GREETING_LINES):
                if frames.line().endswith(READY):
                    self._ready = True
                    self._replies.put(({}, b""))
                    break
            while self._ready:
                header, data = frames.next()
                if "id" not in header:  # A beat.
                    continue
                if self._replies.qsize() >= _MAX_WAITING_REPLIES:
                    raise ValueError("expected one reply to each request, got more")
                self._replies.put((header, data))
        except (TimeoutError, ValueError) as error:
            if not self._closed.is_set():  # ValueError: closed meanwhile.
                other = "" if isinstance(error, TimeoutError) else "it sends other data than this agent: "
                self._ended_by = f"{other}{error}"
            self._ssh.kill()
        except (OSError, EOFError):
            pass
        finally:
            self._replies.put(None)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                self._send(frame({}))
                if self._error_bytes() > _MAX_ERROR_BYTES:
                    self._ended_by = f"it sends more than {_MAX_ERROR_BYTES} bytes to standard error"
                    self._ssh.kill()
            except (OptimizeError, ValueError):  # ValueError: closed meanwhile.
                return

    def _error_bytes(self) -> int:
        return os.fstat(self._errors.fileno()).st_size
