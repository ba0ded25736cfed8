"""ONNX Runtime: runs ONNX graphs, on the CPU everywhere and on what its build was made for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.onnx_file import check_onnx
from edge_vision.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "cann": "CANNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
}
# What "auto" tries, in this order. Not tensorrt: it builds its engine for minutes, which is to be asked for.
_AUTO_DEVICES = ("cuda", "migraphx", "rocm", "cpu")
_OPTIONS = {"allow_spinning": False, "memory_arena": True}
_NUMPY_OF = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "string": "object",
    "bool": "bool",
}
_FATAL_ONLY = 4  # Its own log lines repeat what the exceptions say.


class OnnxRuntimeSession(Session):
    """A graph in ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession, actual: BackendActual) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self.inputs = tuple(map(_tensor_spec, session.get_inputs()))
        self.outputs = tuple(map(_tensor_spec, session.get_outputs()))
        self.actual = actual
        self._output_names = [output.name for output in self.outputs]

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As in the contract; each call returns new arrays."""
        if self._session is None:
            raise BackendError("this session was closed: load the graph again")
        try:
            values = self._session.run(self._output_names, tensors)
        except Exception as error:  # Its exceptions have no common base of their own.
            raise BackendError(f"onnxruntime failed on the graph: {error}") from error
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        """Free the graph."""
        self._session = None


class OnnxRuntimeBackend(Backend):
    """Devices: those of PROVIDERS. Options: allow_spinning, threads wait busily between two runs, a little
    faster at the cost of whole cores; memory_arena, memory is kept between runs.
    """

    name = "onnxruntime"
    graph_formats = ("onnx",)
    install_hint = "pip install onnxruntime"

    def unavailable_reason(self) -> str | None:
        """Only looks whether the package is there."""
        if importlib.util.find_spec("onnxruntime") is None:
            return f"the package onnxruntime is not installed: {self.install_hint}"
        return None

    def devices(self) -> tuple[str, ...]:
        """The execution providers that are built in."""
        import onnxruntime

        return tuple(onnxruntime.get_available_providers())

    def load(self, graph: Path, request: BackendRequest) -> Session:
        """See the contract."""
        reason = self.unavailable_reason()
        if reason:
            raise BackendUnavailable(reason)
        import onnxruntime

        onnxruntime.set_default_logger_severity(_FATAL_ONLY)
        device = _device(request.device, onnxruntime.get_available_providers())
        # By its path: given bytes, the session keeps a copy of them (18 MB for the SSD).
        path = str(check_onnx(graph))
        try:
            session = onnxruntime.InferenceSession(path, _session_options(request), providers=_chain(device))
        except Exception as error:  # Its exceptions have no common base of their own.
            raise BackendError(f"onnxruntime cannot load {graph}: {error}") from error
        # Else a provider that fails during a run would be replaced by the CPU without a word.
        session.disable_fallback()
        return OnnxRuntimeSession(session, _actual(session, device, request, onnxruntime.__version__))


def _device(wanted: str, available: list[str]) -> str:
    """The device to use. Raises BackendError for an unknown one, BackendUnavailable for one not built in."""
    if wanted == "auto":
        return next(device for device in _AUTO_DEVICES if PROVIDERS[device] in available)
    if wanted not in PROVIDERS:
        raise BackendUnavailable(
            f"onnxruntime knows the devices auto, {', '.join(PROVIDERS)}, got '{wanted}'"
        )
    if PROVIDERS[wanted] not in available:
        have = [device for device, provider in PROVIDERS.items() if provider in available]
        remedy = (
            "pip install onnxruntime-gpu" if wanted in ("cuda", "tensorrt") else "install a build that has it"
        )
        raise BackendUnavailable(
            f"this build of onnxruntime has no {PROVIDERS[wanted]}, only {', '.join(have)}: {remedy}"
        )
    return wanted


def _chain(device: str) -> list[str]:
    """The CPU runs those nodes of the graph that the device cannot."""
    return list(dict.fromkeys((PROVIDERS[device], PROVIDERS["cpu"])))


def _session_options(request: BackendRequest) -> onnxruntime.SessionOptions:
    import onnxruntime

    unknown = sorted(set(request.options) - set(_OPTIONS))
    if unknown:
        raise BackendError(f"onnxruntime knows the options {', '.join(_OPTIONS)}, got {', '.join(unknown)}")
    chosen = {**_OPTIONS, **request.options}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = request.threads or usable_cores()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = bool(chosen["memory_arena"])
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", str(int(bool(chosen["allow_spinning"])))
    )
    return options


def _actual(
    session: onnxruntime.InferenceSession, device: str, request: BackendRequest, version: str
) -> BackendActual:
    """What runs, read back. Raises BackendUnavailable where the device that was asked for did not start."""
    provider = session.get_providers()[0]
    notes: tuple[str, ...] = ()
    if provider != PROVIDERS[device]:
        problem = (
            f"{PROVIDERS[device]} is built in but did not start, {provider} runs instead: check its driver"
        )
        if request.device != "auto":
            raise BackendUnavailable(problem)
        notes = (problem,)
    return BackendActual(
        backend=OnnxRuntimeBackend.name,
        version=version,
        device=next((name for name, known in PROVIDERS.items() if known == provider), provider),
        provider=provider,
        precision="unavailable",
        threads=session.get_session_options().intra_op_num_threads,
        notes=notes,
    )


def _tensor_spec(argument: Any) -> TensorSpec:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return TensorSpec(argument.name, shape, _NUMPY_OF.get(kind, kind))
