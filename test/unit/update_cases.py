"""Shared by the tests of updates: small bundles, a repository with its keys and clock, a server, a robot."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edge_vision.bundles.manifest import GraphSpec
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.offline.manifest_writer import dump_manifest
from edge_vision.updates.client import UpdateClient
from edge_vision.updates.release import Release
from edge_vision.updates.repository import Repository
from edge_vision.updates.transport import TransferLimits, Transport

PROVENANCE = {"trained_by": "A. Operator", "data": "40,000 frames of the yard, 2026"}
GROUP = "fleet/a"
GRAPH_BYTES = 300_000


def make_bundle(folder: Path, version: str = "1.0.0", graph: bytes | None = None) -> Bundle:
    """A bundle whose graph is no ONNX file: enough for everything but running it."""
    folder.mkdir(parents=True)
    data = (version.encode() * GRAPH_BYTES)[:GRAPH_BYTES] if graph is None else graph
    (folder / "model.onnx").write_bytes(data)
    (folder / "labels.txt").write_text("person\nbicycle\n")
    spec = GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(data).hexdigest())
    manifest = RECIPES["ssdlite_mobilenet_v2_coco"].manifest
    manifest = replace(manifest, name="yard", version=version, graphs=(spec,), labels_file="labels.txt")
    (folder / "bundle.yaml").write_text(dump_manifest(manifest))
    return load_bundle(str(folder))


class Operator:
    """A repository below a folder, with all keys in one place and a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder, self.keys = folder, folder / "repository", folder / "keys"
        self.now = datetime.now(timezone.utc).replace(microsecond=0)
        self.bundles = 0
        self.repository = self.with_keys(self.keys)
        self.root = self.repository.init()
        self.repository.add_key(GROUP)

    def with_keys(self, *folders: Path) -> Repository:
        return Repository(self.folder, folders, lambda: self.now)

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def publish(self, version: str, group: str = GROUP, channel: str = "stable", **options: Any) -> Release:
        self.bundles += 1
        bundle = make_bundle(self.base / f"bundle{self.bundles}", version)
        return self.publish_bundle(bundle, group, channel, **options)

    def publish_bundle(
        self, bundle: Bundle, group: str = GROUP, channel: str = "stable", **options: Any
    ) -> Release:
        return self.repository.publish(bundle, group, channel, PROVENANCE, **options)

    def key_id(self, label: str) -> str:
        """The id of the newest key with this label."""
        newest = max(self.keys.glob(f"{label}-*.pem"), key=lambda path: path.stat().st_mtime_ns)
        return newest.stem.rpartition("-")[2]


Fault = Callable[["Handler", bytes], None]
"""Answers a request in place of the server. The bytes are those of the file, b"" if there is none."""


class Handler(BaseHTTPRequestHandler):
    """Serves files with ranges, as any static server does, unless a fault matches the path."""

    server: Server

    def do_GET(self) -> None:
        path = unquote(self.path).lstrip("/")
        file = self.server.folder / path
        data = file.read_bytes() if file.is_file() else b""
        self.server.requests.append((path, self.headers.get("Range", "")))
        fault = next((fault for part, fault in self.server.faults.items() if part in path), None)
        with contextlib.suppress(OSError):  # The client hangs up on a fault.
            if fault:
                fault(self, data)
            elif not file.is_file():
                self.send_error(404)
            else:
                self.send_file(data)

    def send_file(self, data: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.send_bytes(data[start:], 206 if start else 200, **headers)

    def send_bytes(self, data: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Silent."""


class Server(ThreadingHTTPServer):
    """A static HTTP server on the loopback interface. faults: part of a path -> its fault."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, Fault] = {}
        self.requests: list[tuple[str, str]] = []
        self.stopped = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()


class World:
    """An operator, a server, and one robot, which remembers what it has seen."""

    def __init__(self, folder: Path) -> None:
        self.operator = Operator(folder / "operator")
        self.server = Server(self.operator.folder)
        self.robot = folder / "robot"
        self.bootstrap = self.operator.root.read_bytes()
        self.group, self.channel = GROUP, "stable"
        self.limits = TransferLimits(connect_s=5.0, metadata_s=20.0, min_bytes_per_s=1e6, max_bytes_per_s=1e9)
        self.clock_shift_s = 0.0
        """Of the robot's clock."""
        self.url = self.server.url

    def clock(self) -> float:
        return self.operator.now.timestamp() + self.clock_shift_s

    def running(self) -> float:
        return self.operator.now.timestamp()

    def client(self) -> UpdateClient:
        """A robot that has just been started."""
        return UpdateClient(
            self.url,
            self.group,
            self.channel,
            self.bootstrap,
            self.robot / "trust",
            Transport(self.limits),
            self.clock,
            self.running,
        )

    def update(self) -> Path:
        """Check and download: the folder of the bundle."""
        client = self.client()
        offer = client.check()
        folder = self.robot / "staging" / offer.digest
        client.download(offer, folder)
        return folder

    def close(self) -> None:
        self.server.close()
