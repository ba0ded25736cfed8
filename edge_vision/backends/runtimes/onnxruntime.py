"""ONNX Runtime: runs ONNX graphs, on the CPU and on the devices that its build supports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.runtimes.onnx_file import check_onnx
from edge_vision.backends.runtimes.onnxruntime_providers import (
    Device,
    choose_device,
    provider_chain,
    reported_precision,
)
from edge_vision.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    import onnxruntime

_OPTIONS: Mapping[str, Any] = {"allow_spinning": False, "memory_arena": True, "provider_options": {}}
_NUMPY_OF = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "string": "object",
    "bool": "bool",
}
_FATAL_ONLY = 4  # Its log repeats the text of its exceptions.
DISABLED_OPTIMIZERS = ["WeightBiasQuantization"]
"""It quantizes the weights of a layer between two quantizers, per tensor, even if the layer was left in fp32
on purpose: one depthwise layer of the SSD then degrades the outputs from 24 to 15 dB."""


class OnnxRuntimeSession(Session):
    """A graph in ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession, actual: BackendActual) -> None:
        self._session: Any = session
        self.inputs = tuple(map(_tensor_spec, session.get_inputs()))
        self.outputs = tuple(map(_tensor_spec, session.get_outputs()))
        self.actual = actual
        self._output_names = [output.name for output in self.outputs]

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._output_names, self._session.run(self._output_names, tensors), strict=True))

    def close(self) -> None:
        super().close()
        self._session = None


class OnnxRuntimeBackend(Backend):
    """Devices: see onnxruntime_providers.PROVIDERS, with a number (cuda:1) or a device of the provider
    (openvino:gpu, qnn:htp) after a colon.

    Options: allow_spinning, threads busy-wait between two runs, slightly faster at the cost of whole cores;
    memory_arena, memory is kept between runs; provider_options, a mapping passed to the provider unchanged.
    """

    name = "onnxruntime"
    title = "ONNX Runtime"
    distributions = ("onnxruntime",)
    formats = ("onnx",)
    install_hint = "pip install onnxruntime"
    module = "onnxruntime"

    def devices(self) -> tuple[str, ...]:
        """The execution providers of this build."""
        import onnxruntime

        return tuple(onnxruntime.get_available_providers())

    def prefers_int8(self, device: str) -> bool:
        return device == "cpu" or (
            device == "auto" and choose_device(device, list(self.devices())).name == "cpu"
        )

    def load(self, graph: Path, request: BackendRequest) -> Session:
        self.check_available()
        request.check_options(self.name, _OPTIONS)
        import onnxruntime

        onnxruntime.set_default_logger_severity(_FATAL_ONLY)
        check_onnx(graph)
        device = choose_device(request.device, onnxruntime.get_available_providers())
        try:
            return _load_on(device, graph, request)
        except BackendError as error:
            if request.device != "auto" or device.name == "cpu":
                raise
            session = _load_on(Device("cpu"), graph, request)
            session.actual = replace(session.actual, notes=(str(error), *session.actual.notes))
            return session


def _load_on(device: Device, graph: Path, request: BackendRequest) -> OnnxRuntimeSession:
    import onnxruntime

    options = _session_options(request, device)
    extra = request.options.get("provider_options", {})
    available = onnxruntime.get_available_providers()
    providers = provider_chain(device, request, extra, available, options.intra_op_num_threads)
    try:
        # Not as bytes: the session would keep a copy of them (18 MB for the SSD).
        # Its own fallback is off: it would print, and silently run on the CPU.
        session = onnxruntime.InferenceSession(
            str(graph),
            options,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=DISABLED_OPTIMIZERS,
        )
    except Exception as error:  # Its exceptions have no common base of their own.
        raise BackendError(f"onnxruntime cannot load {graph} on {device}: {error}") from error
    return OnnxRuntimeSession(session, _actual(session, device, request.precision, onnxruntime.__version__))


def _session_options(request: BackendRequest, device: Device) -> onnxruntime.SessionOptions:
    import onnxruntime

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
    if device.name != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _actual(
    session: onnxruntime.InferenceSession, device: Device, precision: str, version: str
) -> BackendActual:
    """What runs, read back. Raises BackendUnavailable if the device runs nothing."""
    provider = device.provider
    if provider not in session.get_providers():
        raise BackendUnavailable(
            f"{provider} is built in but does not start for {device} at precision {precision}: check its "
            f"driver, and whether it supports this precision"
        )
    return BackendActual(
        backend=OnnxRuntimeBackend.name,
        version=version,
        device=str(device),
        provider=provider,
        precision=reported_precision(provider, session.get_provider_options().get(provider, {})),
        threads=session.get_session_options().intra_op_num_threads,
        notes=_on_other_providers(session, device),
    )


def _on_other_providers(session: onnxruntime.InferenceSession, device: Device) -> tuple[str, ...]:
    """A note on the nodes that other providers run. Raises BackendUnavailable if they run all.

    The list of a session's providers is not enough: OpenVINO's is listed for a device that does not exist.
    So the nodes are counted, if this version of ONNX Runtime reports them.
    """
    if device.name == "cpu" or not hasattr(session, "get_provider_graph_assignment_info"):
        return ()
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    mine, total = counts[device.provider], sum(counts.values())
    if total and not mine:
        raise BackendUnavailable(
            f"{device.provider} takes no node of the graph for {device}: check device and driver"
        )
    return (f"{total - mine} of {total} nodes do not run on {device}",) if mine < total else ()


def _tensor_spec(argument: Any) -> TensorSpec:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return TensorSpec(argument.name, shape, _NUMPY_OF.get(kind, kind))
