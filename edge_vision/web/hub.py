"""What each browser still has to receive: the newest of everything, however slow it is. Imports no ROS."""

from __future__ import annotations

import json
import math
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

MAX_CLIENTS = 16
MAX_UNANSWERED = 2
"""Frames that are sent before the browser has drawn the first of them: what it cannot draw is not sent."""
MAX_RECORDS = 600
MAX_WATCHED = 16
MAX_NAME_CHARS = 256
_LENGTH = struct.Struct("<I")


def strict_json(value: Any) -> str:
    """JSON that a browser parses: a number that is not finite becomes a text, as "nan"."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def pack_frame(header: dict[str, Any], jpeg: bytes) -> bytes:
    """A frame as one message: the length of the header, the header as JSON, the JPEG."""
    text = strict_json(header).encode()
    return _LENGTH.pack(len(text)) + text + jpeg


def unpack_frame(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of `pack_frame`."""
    end = _LENGTH.size + _LENGTH.unpack_from(message)[0]
    return json.loads(message[_LENGTH.size : end]), message[end:]


class HubClient:
    """One browser. Any thread; `wake` is called when `take` has something.

    It holds one frame per camera, the newest, and a bounded number of records.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._frames: dict[str, bytes] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self._records: dict[str, deque[Any]] = {}
        self._unanswered = 0
        self.watched: frozenset[str] = frozenset()
        self.sent_frames = 0

    def receive(self, text: str) -> None:
        """A message of the browser: {"watch": [cameras]}, or {"drawn": 1}. Raises ValueError."""
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("expected an object")
        if "watch" in message:
            names = message["watch"]
            if not isinstance(names, list) or len(names) > MAX_WATCHED:
                raise ValueError(f"expected a list of at most {MAX_WATCHED} cameras to watch")
            if not all(isinstance(name, str) and len(name) <= MAX_NAME_CHARS for name in names):
                raise ValueError("expected names of cameras to watch")
            with self._lock:
                self.watched = frozenset(names)
                for kept in (self._frames, self._records):
                    for name in kept.keys() - self.watched:
                        del kept[name]
        if "drawn" in message:
            with self._lock:
                self._unanswered = max(0, self._unanswered - 1)
                waits = bool(self._frames)
            if waits:
                self._wake()

    def put_frame(self, camera: str, message: bytes) -> None:
        if camera in self.watched:
            with self._lock:
                self._frames[camera] = message
            self._wake()

    def put_records(self, camera: str, records: Sequence[Any]) -> None:
        if camera in self.watched and records:
            with self._lock:
                self._records.setdefault(camera, deque(maxlen=MAX_RECORDS)).extend(records)
            self._wake()

    def put_text(self, key: tuple[str, str], text: str) -> None:
        """A text that replaces the one before with the same key."""
        with self._lock:
            self._texts[key] = text
        self._wake()

    def take(self) -> list[str | bytes]:
        """The messages to send now. Frames only as far as the browser has drawn those before."""
        with self._lock:
            messages: list[str | bytes] = list(self._texts.values())
            self._texts.clear()
            for camera, records in self._records.items():
                messages.append(_text("records", camera=camera, records=list(records)))
            self._records.clear()
            while self._frames and self._unanswered < MAX_UNANSWERED:
                messages.append(self._frames.pop(next(iter(self._frames))))
                self._unanswered += 1
                self.sent_frames += 1
            return messages

    @property
    def held_bytes(self) -> int:
        """The size of the frames that wait."""
        with self._lock:
            return sum(map(len, self._frames.values()))


class Hub:
    """All browsers. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: list[HubClient] = []
        self._last: dict[tuple[str, str], str] = {}

    def join(self, wake: Callable[[], None]) -> HubClient | None:
        """A new client, which receives the last texts; None if there are too many."""
        client = HubClient(wake)
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                return None
            self._clients.append(client)
            last = dict(self._last)
        for key, text in last.items():
            client.put_text(key, text)
        return client

    def leave(self, client: HubClient) -> None:
        with self._lock:
            self._clients.remove(client)

    @property
    def clients(self) -> list[HubClient]:
        with self._lock:
            return list(self._clients)

    @property
    def watched(self) -> frozenset[str]:
        """The cameras that somebody watches."""
        return frozenset().union(*(one.watched for one in self.clients))

    def send_frame(self, camera: str, message: bytes) -> None:
        for client in self.clients:
            client.put_frame(camera, message)

    def send_records(self, camera: str, records: Sequence[Any]) -> None:
        for client in self.clients:
            client.put_records(camera, records)

    def send_text(self, kind: str, camera: str, **values: Any) -> None:
        """A text for all clients, and for those that join later."""
        text = _text(kind, camera=camera, **values)
        with self._lock:
            self._last[kind, camera] = text
        for client in self.clients:
            client.put_text((kind, camera), text)


def _text(kind: str, **values: Any) -> str:
    return strict_json({"kind": kind, **values})
