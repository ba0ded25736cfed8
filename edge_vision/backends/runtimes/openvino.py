"""OpenVINO: runs ONNX and its own format on Intel CPUs, GPUs and NPUs, and on other x86 and ARM CPUs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.runtimes.engine_cache import EngineCache, EngineKey, graph_sha256
from edge_vision.backends.runtimes.onnx_file import check_onnx
from edge_vision.errors import BackendError, BackendUnavailable

_PRECISION_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_PRECISION_OF = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
# The layers that take the time: their precision is reported.
_COMPUTE_LAYERS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")
_VIRTUAL_DEVICES = ("AUTO", "HETERO", "MULTI")
_DRIVER_PROPERTIES = ("GPU_DRIVER_VERSION", "NPU_DRIVER_VERSION", "DRIVER_VERSION")
_OPTIONS = ("cache", "cache_dir", "rebuild")


class OpenVinoSession(Session):
    """A graph compiled by OpenVINO."""

    def __init__(self, compiled: Any, actual: BackendActual) -> None:
        self.inputs = tuple(map(_tensor_spec, compiled.inputs))
        self.outputs = tuple(map(_tensor_spec, compiled.outputs))
        self.actual = actual
        self._request: Any = compiled.create_infer_request()

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = self._request.infer(dict(tensors), share_inputs=True, share_outputs=True)
        return {output.name: values[i] for i, output in enumerate(self.outputs)}

    def close(self) -> None:
        super().close()
        self._request = None


class OpenVinoBackend(Backend):
    """Devices: cpu, gpu, npu, gpu.1, ..., or a list to choose from such as auto:gpu,cpu.

    "auto" is the CPU: it starts at once and keeps the graph's precision. Options: cache, keep compiled
    graphs, by default on all devices but the CPU, which compiles in half a second; cache_dir, another folder
    for them; rebuild, compile again.
    """

    name = "openvino"
    title = "OpenVINO"
    distributions = ("openvino",)
    builds_engines = True
    computes_in = ("bf16",)
    formats = ("openvino", "onnx")
    install_hint = "pip install openvino"
    module = "openvino"

    def devices(self) -> tuple[str, ...]:
        """The devices of its plugins, with their full names."""
        openvino = _module()
        core = openvino.Core()
        return tuple(
            f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices
        )

    def prefers_int8(self, device: str) -> bool:
        return device.lower() in ("auto", "cpu")

    def load(self, graph: Path, request: BackendRequest) -> Session:
        self.check_available()
        request.check_options(self.name, _OPTIONS)
        openvino = _module()
        core = openvino.Core()
        device = _device(request.device, core.available_devices)
        try:
            compiled, note = _compiled(core, graph, device, request, openvino.get_version())
        except BackendError:
            raise
        except Exception as error:  # It raises RuntimeError for any fault of a graph.
            raise BackendError(f"openvino cannot load {graph} on {device}: {error}") from error
        others = [name for name in core.available_devices if name.split(".")[0] != "CPU"]
        notes = [note] if note else []
        if request.device == "auto" and others:
            notes.append(f"{', '.join(others)} is available too, but only used on request: set device")
        return OpenVinoSession(compiled, _actual(compiled, openvino.get_version(), tuple(notes)))


def _module() -> Any:
    """The package without its model converter: 5 MB of memory that only exporters need."""
    converter, modules = "openvino.tools.ovc", cast(dict[str, Any], sys.modules)
    loaded = modules.setdefault(converter, None)
    import openvino  # It accepts the ImportError.

    if loaded is None:
        modules.pop(converter, None)
    return openvino


def _compiled(core: Any, graph: Path, device: str, request: BackendRequest, version: str) -> tuple[Any, str]:
    """The compiled graph, and why it could not be kept. OpenVINO's own cache opens any file."""
    config = _config(device, request)
    if not _is_kept(device, request):
        return core.compile_model(_read(graph), device, config), ""
    new: list[Any] = []

    def build() -> bytes:
        new.append(core.compile_model(_read(graph), device, config))
        blob = new[0].export_model()
        return bytes(blob if isinstance(blob, bytes) else blob.getvalue())

    folder = request.options.get("cache_dir")
    key = EngineKey(
        graph_sha256(graph),
        OpenVinoBackend.name,
        version,
        f"{device} {core.get_property(device, 'FULL_DEVICE_NAME')}",
        _driver(core, device),
        request.precision,
        repr(sorted(config.items())),
    )
    kept = EngineCache(Path(folder) if folder else None).get(
        key, build, bool(request.options.get("rebuild", False))
    )
    return (new[0] if new else core.import_model(kept.engine, device, config)), kept.note


def _is_kept(device: str, request: BackendRequest) -> bool:
    """Whether compiled graphs are kept. A virtual device has no compiled graph of its own."""
    wanted = request.options.get("cache", "cache_dir" in request.options or device != "CPU")
    return bool(wanted) and device.partition(":")[0] not in _VIRTUAL_DEVICES


def _driver(core: Any, device: str) -> str:
    for name in _DRIVER_PROPERTIES:
        try:
            return str(core.get_property(device, name))
        except RuntimeError:
            continue
    return "none"


def _device(wanted: str, available: list[str]) -> str:
    """OpenVINO's name of a device. Raises BackendUnavailable for one that it does not report."""
    if wanted == "auto":
        return "CPU" if "CPU" in available else available[0]
    device = wanted.upper()
    plugin, _, listed = device.partition(":")
    names = listed.split(",") if plugin in _VIRTUAL_DEVICES and listed else [device]
    missing = [name for name in names if not any(name in (have, have.split(".")[0]) for have in available)]
    if missing:
        raise BackendUnavailable(
            f"openvino sees the devices {', '.join(available).lower()} here, got '{wanted}': "
            f"choose one of them, or install its driver"
        )
    return device


def _read(graph: Path) -> Any:
    """Read with the reader of its format only.

    core.read_model tries all readers, whatever the suffix: of an ONNX graph that is named .xml, it would read
    weights in other files.
    """
    from openvino.frontend import FrontEndManager

    own = graph.suffix == ".xml"
    reader = FrontEndManager().load_by_framework("ir" if own else "onnx")
    return reader.convert(reader.load(str(graph if own else check_onnx(graph))))


def _config(device: str, request: BackendRequest) -> dict[str, Any]:
    """The throughput hint takes 1.4 times as long with one frame at a time (measured)."""
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    cpu: dict[str, Any] = {
        # Pinned threads wait while another process uses their core: 1.07 to 1.19 times as long on a machine
        # with other work.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_NUM_THREADS": request.threads or usable_cores(),
        # By default it uses bfloat16 on processors that support it: faster, but not the scores that the
        # bundle was measured with.
        "INFERENCE_PRECISION_HINT": _PRECISION_HINTS.get(request.precision, "f32"),
    }
    if device.partition(":")[0] in _VIRTUAL_DEVICES:
        return config | {"DEVICE_PROPERTIES": {"CPU": cpu}}
    if device == "CPU":
        return config | cpu
    if request.precision in _PRECISION_HINTS:
        config["INFERENCE_PRECISION_HINT"] = _PRECISION_HINTS[request.precision]
    return config


def _actual(compiled: Any, version: str, notes: tuple[str, ...]) -> BackendActual:
    devices = [str(device) for device in _property(compiled, "EXECUTION_DEVICES") or ()]
    return BackendActual(
        backend=OpenVinoBackend.name,
        version=version,
        device="+".join(devices).lower() or "unavailable",
        provider="+".join(devices) or "unavailable",
        precision=_precision(compiled),
        threads=_threads(compiled),
        notes=notes,
    )


def _threads(compiled: Any) -> int:
    """CPU threads, also if a virtual device selected the CPU; 0 if not reported."""
    threads = _property(compiled, "INFERENCE_NUM_THREADS")
    if threads is None:
        properties = _property(compiled, "DEVICE_PROPERTIES") or {}
        threads = properties.get("CPU", {}).get("INFERENCE_NUM_THREADS")
    return int(threads or 0)


def _property(compiled: Any, name: str) -> Any:
    """A property, None if the device does not have it."""
    try:
        return compiled.get_property(name)
    except RuntimeError:
        return None


def _precision(compiled: Any) -> str:
    """The precision of most compute layers of the compiled graph."""
    try:
        layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        counts = Counter(
            _text(info, "runtimePrecision") for info in layers if _text(info, "layerType") in _COMPUTE_LAYERS
        )
    except RuntimeError:
        return "unavailable"
    return _PRECISION_OF.get(counts.most_common(1)[0][0], "unavailable") if counts else "unavailable"


def _text(info: Any, key: str) -> str:
    return str(getattr(info[key], "value", info[key])) if key in info else ""


def _tensor_spec(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return TensorSpec(_name(port), shape, np.dtype(port.element_type.to_dtype()).name)


def _name(port: Any) -> str:
    """The name that the graph gives an input or output.

    A tensor has several names if the compiler removed a node between them, such as an Identity.
    """
    declared = str(port.get_node().get_friendly_name()).partition("/sink_port_")[0]
    return declared if declared in port.names else str(port.any_name)
