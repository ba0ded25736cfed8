"""Graphs of each format. Each is loaded and run by `backends.trial` in a child process, which alone may die.

The child is forked from this process, which has imported the runtimes: that takes 10 ms instead of 500 ms. It
runs the same code with the same limits as the child that a node starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from targets import Target

from edge_vision.backends import BackendRequest, make_backend
from edge_vision.backends.trial import child, parent
from edge_vision.errors import BackendError, GraphRefused
from edge_vision.importer.read import READER, READER_PACKAGES
from edge_vision.offline.trials import try_reading

_MODULES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "openvino.frontend"),
    "litert": ("ai_edge_litert.interpreter",),
}
_PARSERS = ("onnx", "onnx.shape_inference")
_RUN_LIMIT_S = 5.0
_EDGES = (0, 1, -1, 2, 3, 7, 256, 2**16, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63))


class ForkedTrial:
    """A trial's child process: the part of subprocess.Popen that `backends.trial` uses."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        """Starts it. order: as for `backends.trial.child`."""
        text = json.dumps(order, default=str)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _carry_out(text, writer)
        os.close(writer)
        self.stdout = os.fdopen(reader, "rb", buffering=0)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The return code as in subprocess. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._await_end(timeout)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        """Kill it if it has not been waited for."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def _await_end(self, timeout: float | None) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("trial", timeout or 0.0)
        finally:
            os.close(handle)


def _carry_out(text: str, writer: int) -> None:
    """In the forked process: run the order and end."""
    with contextlib.suppress(BaseException):
        os.dup2(writer, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv[:] = ["child", text]
        child.main()
    os._exit(1)


def edit_onnx(random: Random, data: bytes) -> bytes:
    """An ONNX model after one to four edits, after which it is still a protobuf message."""
    import onnx

    model = onnx.load_from_string(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        _edit_graph(random, model.graph)
    return bytes(model.SerializeToString())


def _edit_graph(random: Random, graph: Any) -> None:
    """Change a node's operator, input or attribute, or a constant's shape, type or values."""
    node, constant = random.choice(graph.node), random.choice(graph.initializer or [None])
    edit = random.randrange(7)
    if edit == 0:
        node.op_type = random.choice(graph.node).op_type
    elif edit == 1 and node.input:
        names = [name for other in graph.node for name in (*other.input, *other.output)]
        node.input[random.randrange(len(node.input))] = random.choice(names)
    elif edit in (2, 3) and node.attribute:
        attribute = random.choice(node.attribute)
        attribute.i = random.choice(_EDGES)
        if attribute.ints:
            attribute.ints[random.randrange(len(attribute.ints))] = random.choice(_EDGES)
    elif edit == 4 and constant is not None and constant.dims:
        constant.dims[random.randrange(len(constant.dims))] = random.choice(_EDGES)
    elif edit == 5 and constant is not None:
        constant.data_type = random.randrange(24)
    elif constant is not None:
        size = len(constant.raw_data)
        constant.raw_data = (random.choice(_EDGES) % 2**64).to_bytes(8, "little")[:size].ljust(size, b"\xff")


class Graphs(Target):
    """ONNX files, each on one of the two runtimes that read the format, after the reader of the importer."""

    name = "graphs"
    refusals = (BackendError,)
    needs: tuple[str, ...] = ("onnx", "onnxruntime")
    share = 6
    suffix = ".onnx"
    backends: tuple[str, ...] = ("onnxruntime", "openvino")
    imported = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        parent.RUN_LIMIT_S, parent.start_child = _RUN_LIMIT_S, ForkedTrial
        self._backends = [name for name in self.backends if make_backend(name).unavailable_reason() is None]
        for module in (*(one for name in self._backends for one in _MODULES[name]), *_PARSERS):
            import_module(module)

    def mutant(self, random: Random) -> bytes:
        """Half of the mutants of an ONNX file are edits of the model, of which runtimes read more."""
        if self.suffix == ".onnx" and random.random() < 0.5:
            return edit_onnx(random, random.choice(self.seeds))
        return super().mutant(random)

    def check(self, data: bytes) -> None:
        graph = self._write(data)
        backend = make_backend(self._backends[zlib.crc32(data) % len(self._backends)])
        try:
            if self.imported:
                try_reading(graph, READER, READER_PACKAGES)
            parent.try_graph(backend, graph, BackendRequest(threads=1))
        except GraphRefused as error:
            self.counts["trial_deaths" if "was killed by" in str(error) else "trial_limits"] += 1
            raise

    def _write(self, data: bytes) -> Path:
        graph = self.folder / f"model{self.suffix}"
        graph.write_bytes(data)
        return graph


class TfliteGraphs(Graphs):
    """TensorFlow Lite files."""

    name = "tflite"
    needs = ("onnx", "ai_edge_litert")
    suffix = ".tflite"
    backends = ("litert",)


class OpenVinoGraphs(Graphs):
    """OpenVINO's own format: the bytes of the .xml file, SEPARATOR, and those of the .bin file."""

    name = "openvino_ir"
    needs = ("onnx", "openvino")
    suffix = ".xml"
    backends = ("openvino",)
    imported = False
    separator = b"\n<!-- weights -->\n"

    def _write(self, data: bytes) -> Path:
        xml, _, weights = data.partition(self.separator)
        (self.folder / "model.bin").write_bytes(weights)
        return super()._write(xml)
