"""A cell of `make bench-backends` as a process: started, asked for inferences and detections, ended."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parts.backends.models import Model
from parts.common import part_command

from edge_vision.backends import known_backends, make_backend


@dataclass
class Cell:
    """A process with one graph on one backend."""

    model: Model
    backend: str
    precision: str
    threads: int
    loaded: dict[str, Any] = field(default_factory=dict)
    wrapped_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    found: list[Any] | None = None
    count: int = 5

    def start(self, video: Path) -> None:
        """Start the process and wait for its first inference. Raises RuntimeError with its last output."""
        tflite = reads_tflite(self.backend)
        kind = "int8" if self.precision == "int8" else "fp32"
        order = {
            "model": self.model.name,
            "backend": self.backend,
            "precision": self.precision,
            "threads": self.threads,
            "graph": str(self.model.graphs[f"{'tflite' if tflite else 'onnx'} {kind}"]),
            "bundle": str(self.model.bundle.folder) if self.model.bundle else "",
            "input": asdict(self.model.input_spec),
            "video": str(video),
        }
        argv = part_command("backends/cell.py", json.dumps(order))
        # PyTorch's threads wait busily; where the cores are shared, two took 20 times as long as one.
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(argv, env=env, text=True, **pipes)
        self.loaded = self._read()

    def run(self, count: int) -> None:
        times = self._ask(f"run {count}")
        self.wrapped_ms += times["wrapped_ms"]
        self.bare_ms += times["bare_ms"]

    def detect(self) -> None:
        self.found = self._ask("detect")["found"]

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # A runtime may print too.
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        words = self._process.communicate()[1].strip().splitlines()[-3:]
        raise RuntimeError(f"{self.backend} {self.precision}, {self.threads} threads: {' '.join(words)}")


def reads_tflite(name: str) -> bool:
    """Whether a backend runs the TFLite graph of a model, not the ONNX one."""
    return name in known_backends() and "onnx" not in make_backend(name).formats
