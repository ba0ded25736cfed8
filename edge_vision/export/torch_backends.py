"""ExecuTorch and TorchScript: run the programs that `models export` makes from a bundle's graph.

They stand here and not among the runtimes, as no pipeline needs them unless it has such a program. A
TorchScript archive contains code: like every graph, it is opened only with the hash in its bundle.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.runtimes.onnx_file import MAX_BYTES, too_large
from edge_vision.errors import BackendError, BackendUnavailable

DESCRIPTION = "edge_vision_description"
"""Of inputs and outputs, in JSON: an extra file of TorchScript, a constant method of ExecuTorch."""
_PACKAGES = {"executorch": "pip install executorch", "torch": "pip install torch"}


def require(package: str) -> None:
    """Raise BackendUnavailable unless the package is installed. Imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise BackendUnavailable(f"the package {package} is not installed: {_PACKAGES[package]}")


class TorchSession(Session):
    """A program that maps tensors of PyTorch to a sequence of them."""

    def __init__(
        self, program: Callable[[Sequence[Any]], Sequence[Any]], description: str, actual: BackendActual
    ) -> None:
        content = json.loads(description)
        self.inputs, self.outputs = (
            tuple(TensorSpec(name, tuple(shape), "float32") for name, shape in content[key])
            for key in ("inputs", "outputs")
        )
        self.actual, self._program = actual, program

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            found = self._program([torch.from_numpy(tensors[spec.name]) for spec in self.inputs])
            return {spec.name: one.numpy() for spec, one in zip(self.outputs, found, strict=True)}

    def close(self) -> None:
        super().close()
        self._program = lambda tensors: []


class _TorchBackend(Backend):
    """Device: cpu. Without options. magic: start and content of the file's identifier."""

    can_optimize = False
    magic: ClassVar[tuple[int, bytes]]

    def load(self, graph: Path, request: BackendRequest) -> Session:
        self.check_available()
        request.check_options(self.name, ("none",))
        if request.device not in ("auto", "cpu"):
            raise BackendUnavailable(f"{self.name} knows the devices auto, cpu, got '{request.device}'")
        try:
            size_bytes = graph.stat().st_size
            with graph.open("rb") as file:
                start = file.read(8)
        except OSError as error:
            raise BackendError(
                f"cannot read {graph}: {os.strerror(error.errno or 0)}: fetch the bundle again"
            ) from error
        if size_bytes > MAX_BYTES:
            raise BackendError(too_large(graph, size_bytes))
        at, identifier = self.magic
        if start[at : at + len(identifier)] != identifier:
            raise BackendError(
                f"{graph} is no .{self.formats[0]} file, or is damaged: fetch the bundle again"
            )
        try:
            return self._session(graph, request.threads or usable_cores())
        except (
            Exception
        ) as error:  # RuntimeError, ValueError and others; a foreign file lacks the description.
            text = str(error).strip().splitlines()
            raise BackendError(
                f"{self.name} cannot load {graph}: {text[0] if text else type(error).__name__}; if the file "
                f"is damaged, fetch the bundle again; if it is another tool's, use `models export`"
            ) from error

    def _session(self, graph: Path, threads: int) -> TorchSession:
        raise NotImplementedError


class ExecuTorchBackend(_TorchBackend):
    """ExecuTorch with XNNPACK. The number of threads is that of all its programs in the process."""

    name = "executorch"
    title = "ExecuTorch"
    distributions = ("executorch",)
    formats = ("pte",)
    install_hint = _PACKAGES["executorch"]
    module = "executorch"
    magic = (4, b"ET12")

    def _session(self, graph: Path, threads: int) -> TorchSession:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        # A method keeps the pool that it is loaded with.
        if threads != portable_lib._threadpool_get_thread_count():
            portable_lib._unsafe_reset_threadpool(threads)
        program = Runtime.get().load_program(graph)
        description = program.load_method(DESCRIPTION).execute([])[0]
        method = program.load_method("forward")
        count = portable_lib._threadpool_get_thread_count()
        actual = BackendActual(self.name, version("executorch"), "cpu", "XNNPACK", "unavailable", count)
        return TorchSession(method.execute, description, actual)


class TorchScriptBackend(_TorchBackend):
    """TorchScript. The number of threads is that of all PyTorch in the process."""

    name = "torchscript"
    title = "TorchScript"
    distributions = ("torch",)
    formats = ("torchscript",)
    install_hint = _PACKAGES["torch"]
    module = "torch"
    magic = (0, b"PK")

    def _session(self, graph: Path, threads: int) -> TorchSession:
        import torch

        torch.set_num_threads(threads)
        found: dict[str, Any] = {DESCRIPTION: ""}
        program = torch.jit.load(str(graph), map_location="cpu", _extra_files=found)
        text = found[DESCRIPTION]
        description = text.decode() if isinstance(text, bytes) else text
        actual = BackendActual(
            self.name, torch.__version__, "cpu", "TorchScript", "unavailable", torch.get_num_threads()
        )
        return TorchSession(lambda tensors: program(*tensors), description, actual)
