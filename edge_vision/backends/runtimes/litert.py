"""LiteRT, formerly TensorFlow Lite: runs .tflite graphs on CPUs with XNNPACK, and on delegates."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.runtimes.onnx_file import MAX_BYTES, too_large
from edge_vision.errors import BackendError, BackendUnavailable

DELEGATES = {"edgetpu": "libedgetpu.so.1"}
"""Device -> shared library of its delegate, found on the system's library path."""
_OPTIONS = ("delegate_options",)
_IDENTIFIER = b"TFL3"


class LiteRtSession(Session):
    """A graph in a LiteRT interpreter.

    Quantized inputs and outputs appear as float32 and are converted with their scale and zero point; an input
    in the graph's own integer type is passed unchanged.
    """

    def __init__(self, interpreter: Any, actual: BackendActual) -> None:
        """Raises BackendError if an input or output is quantized per channel."""
        self._interpreter: Any = interpreter
        self._inputs = [_Port(details) for details in interpreter.get_input_details()]
        self._outputs = [_Port(details) for details in interpreter.get_output_details()]
        self.inputs = tuple(port.spec for port in self._inputs)
        self.outputs = tuple(port.spec for port in self._outputs)
        self.actual = actual

    def _expected(self, tensors: Mapping[str, np.ndarray]) -> tuple[TensorSpec, ...]:
        return tuple(port.expected(tensors) for port in self._inputs)

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._resize(tensors)
        for port in self._inputs:
            self._interpreter.set_tensor(port.index, port.quantized(tensors[port.spec.name]))
        self._interpreter.invoke()
        get = self._interpreter.get_tensor
        return {port.spec.name: port.dequantized(get(port.index)) for port in self._outputs}

    def close(self) -> None:
        super().close()
        self._interpreter = None

    def _resize(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Resize inputs with free dimensions to the given tensors."""
        resized = False
        for port in self._inputs:
            shape = tensors[port.spec.name].shape
            if None in port.spec.shape and shape != port.size:
                self._interpreter.resize_tensor_input(port.index, shape, strict=True)
                port.size, resized = shape, True
        if resized:
            self._interpreter.allocate_tensors()


class _Port:
    """One input or output of the interpreter. size: the allocated shape."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.index = int(details["index"])
        self.size = tuple(int(size) for size in details["shape"])
        self._dtype = np.dtype(details["dtype"])
        self._scale, self._zero = _quantization(details)
        signature = details["shape_signature"]
        shape = tuple(None if s < 0 else int(s) for s in (signature if len(signature) else details["shape"]))
        self.spec = TensorSpec(details["name"], shape, "float32" if self._scale else self._dtype.name)

    def expected(self, tensors: Mapping[str, np.ndarray]) -> TensorSpec:
        """Its spec, with the graph's own integer type if the tensor has it."""
        values = tensors.get(self.spec.name)
        unconverted = values is not None and values.dtype == self._dtype
        return replace(self.spec, dtype=self._dtype.name) if unconverted else self.spec

    def quantized(self, values: np.ndarray) -> np.ndarray:
        if not self._scale or values.dtype == self._dtype:
            return values
        limits = np.iinfo(self._dtype)
        steps = np.rint(values * np.float32(1.0 / self._scale)) + self._zero
        return np.clip(steps, limits.min, limits.max, out=steps).astype(self._dtype)

    def dequantized(self, values: np.ndarray) -> np.ndarray:
        if not self._scale:
            return values
        return (values.astype(np.float32) - np.float32(self._zero)) * np.float32(self._scale)


class LiteRtBackend(Backend):
    """Devices: cpu, edgetpu, or the path of a delegate's shared library below one of `delegate_folders`.

    A delegate runs code in this process. Option: delegate_options, a mapping that the delegate reads.
    """

    name = "litert"
    title = "LiteRT"
    distributions = ("ai-edge-litert",)
    formats = ("tflite",)
    install_hint = "pip install ai-edge-litert"
    module = "ai_edge_litert"

    def devices(self) -> tuple[str, ...]:
        """The CPU, and the known delegates whose libraries are installed."""
        found = [name for name, library in DELEGATES.items() if find_library(library.split(".")[0][3:])]
        return ("cpu", *found)

    def load(self, graph: Path, request: BackendRequest) -> Session:
        self.check_available()
        request.check_options(self.name, _OPTIONS)
        _check(graph)
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        delegates = _delegates(request)
        threads = request.threads or usable_cores()
        # Without XNNPACK, which would silently run what the delegate leaves, even all of it.
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if delegates else OpResolverType.AUTO
        try:
            interpreter = Interpreter(
                str(graph),
                experimental_delegates=delegates,
                experimental_op_resolver_type=kernels,
                num_threads=threads,
            )
            interpreter.allocate_tensors()
            return LiteRtSession(interpreter, _actual(interpreter, request, threads))
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"litert cannot load {graph}: {error}; if the file is damaged, fetch the bundle again"
            ) from error


def _check(graph: Path) -> None:
    """Raise BackendError if this is clearly not a .tflite file; LiteRT verifies the contents."""
    try:
        with graph.open("rb") as file:
            start, size_bytes = file.read(8), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BackendError(f"cannot read {graph}: {error.strerror}: fetch the bundle again") from error
    if size_bytes > MAX_BYTES:
        raise BackendError(too_large(graph, size_bytes))
    if start[4:] != _IDENTIFIER:
        raise BackendError(f"{graph} is no .tflite file, or is damaged: fetch the bundle again")


def _library(request: BackendRequest) -> str | None:
    """The delegate library of a device, None for the CPU.

    Raises BackendUnavailable for an unknown device, and for a path outside the request's `delegate_folders`.
    """
    device = request.device
    if device in ("auto", "cpu"):
        return None
    if "/" in device or device.endswith(".so"):
        return _allowed(device, request.delegate_folders)
    if device not in DELEGATES:
        raise BackendUnavailable(
            f"litert knows the devices auto, cpu, {', '.join(DELEGATES)}, or a path to a delegate's library "
            f"(/usr/lib/lib....so), got '{device}'"
        )
    return DELEGATES[device]


def _allowed(device: str, folders: Sequence[str]) -> str:
    """The real path of a delegate's library. Its code runs in this process, and any peer can set `device`."""
    path = Path(os.path.realpath(device))
    if not os.path.isabs(device):
        raise BackendUnavailable(f"expected the absolute path of a delegate's library, got '{device}'")
    if not any(path.is_relative_to(os.path.realpath(folder)) for folder in folders if folder):
        allowed = ", ".join(folders) or "none"
        raise BackendUnavailable(
            f"expected a delegate in one of delegate_folders ({allowed}), got {path}: move it there, or add "
            "its folder to that parameter and restart the node"
        )
    if not path.is_file():
        raise BackendUnavailable(f"expected a delegate's library, got {path}, which is no file: install it")
    return str(path)


def _delegates(request: BackendRequest) -> list[Any] | None:
    library = _library(request)
    if library is None:
        return None
    from ai_edge_litert.interpreter import load_delegate

    try:
        # First, as LiteRT's loader prints a second error if the library is missing.
        ctypes.CDLL(library)
        return [load_delegate(library, dict(request.options.get("delegate_options", {})))]
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        remedy = (
            "install the Edge TPU runtime (libedgetpu1-std)" if request.device == "edgetpu" else "check it"
        )
        raise BackendUnavailable(f"the delegate {library} does not start: {error}: {remedy}") from error


def _actual(interpreter: Any, request: BackendRequest, threads: int) -> BackendActual:
    """What runs. Raises BackendUnavailable if a requested delegate runs nothing of the graph."""
    delegated = "DELEGATE" in _operations(interpreter)
    library = _library(request)
    if library and not delegated:
        raise BackendUnavailable(
            f"the delegate {library} runs no operation of the graph, the CPU would run all of it: "
            f"use a graph that was compiled for it, or device cpu"
        )
    return BackendActual(
        backend=LiteRtBackend.name,
        version=version("ai-edge-litert"),
        device=request.device if library else "cpu",
        provider=library or ("XNNPACK" if delegated else "built-in kernels"),
        precision="unavailable",
        threads=threads,
    )


def _operations(interpreter: Any) -> set[str]:
    """The operations that run. A delegate appears as an operation."""
    try:
        return {operation["op_name"] for operation in interpreter._get_ops_details()}
    except (AttributeError, KeyError, RuntimeError):
        return set()


def _quantization(details: Mapping[str, Any]) -> tuple[float, int]:
    """Scale and zero point of an integer tensor, 0 and 0 for others."""
    parameters = details["quantization_parameters"]
    scales, zeros = parameters["scales"], parameters["zero_points"]
    if not len(scales) or not np.issubdtype(np.dtype(details["dtype"]), np.integer):
        return 0.0, 0
    if len(scales) > 1:
        raise BackendError(
            f"'{details['name']}' has {len(scales)} scales, litert's inputs and outputs need one: "
            f"convert the graph with inputs and outputs quantized per tensor, or with float ones"
        )
    return float(scales[0]), int(zeros[0])


__all__ = ["DELEGATES", "LiteRtBackend", "LiteRtSession"]
