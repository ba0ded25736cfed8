"""Nodes of a Ray cluster in processes of their own, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from edge_vision.core.child_process import child_environment

_READY = "Ray runtime started"
_START_S = 120.0


class RayNode:
    """One node. cpus: that it offers. head: its address as HOST:PORT, None for the head itself at `address`.

    prefix: of the command, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        address: str,
        cpus: int,
        *,
        is_head: bool = False,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] = {},
    ) -> None:
        # Paths of sockets have at most 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        host, port = address.split(":")
        role = (
            ["--head", "--node-ip-address", host, "--port", port, "--include-dashboard=false"]
            if is_head
            else ["--address", address]
        )
        options = ["--num-cpus", str(cpus), "--temp-dir", str(self._folder), "--disable-usage-stats"]
        memory = ["--object-store-memory", str(100 * 2**20)]
        self._log = (self._folder / "start.log").open("w+")
        self._process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                *role,
                *options,
                *memory,
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**child_environment(), "RAY_USAGE_STATS_ENABLED": "0", **env},
            start_new_session=True,
        )
        deadline_s = time.monotonic() + _START_S
        while _READY not in self._text():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                text = self._text()
                self.lose()
                raise RuntimeError(f"the Ray node did not start:\n{text}")
            time.sleep(0.2)

    def _text(self) -> str:
        return Path(self._log.name).read_text("utf-8", "replace")

    def processes(self) -> list[psutil.Process]:
        """All of the node."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def lose(self) -> None:
        """Kill all its processes, as a power cut does."""
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def free_address() -> str:
    """An address of this machine whose port is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def python_path(*folders: Path) -> dict[str, str]:
    """PYTHONPATH with these folders first."""
    known = child_environment().get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *([known] if known else [])])}
