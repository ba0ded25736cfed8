"""OpenVINO: runs ONNX and its own graphs, on Intel's CPUs, GPUs and NPUs, and on other x86 and ARM CPUs."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.host import usable_cores
from edge_vision.backends.onnx_file import check_onnx
from edge_vision.errors import BackendError, BackendUnavailable

_PRECISION_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_PRECISION_OF = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
# The layers that the time goes into; the precision of the others says little.
_COMPUTE_LAYERS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")
_VIRTUAL_DEVICES = ("AUTO", "HETERO", "MULTI")
_OPTIONS = ("cache_dir",)


class OpenVinoSession(Session):
    """A graph compiled by OpenVINO."""

    def __init__(self, compiled: Any, actual: BackendActual) -> None:
        self.inputs = tuple(map(_tensor_spec, compiled.inputs))
        self.outputs = tuple(map(_tensor_spec, compiled.outputs))
        self.actual = actual
        self._request: Any = compiled.create_infer_request()

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As in the contract; the next call reuses the arrays."""
        if self._request is None:
            raise BackendError("this session was closed: load the graph again")
        try:
            values = self._request.infer(dict(tensors), share_inputs=True, share_outputs=True)
        except Exception as error:  # It raises RuntimeError, and others for wrong arrays.
            raise BackendError(f"openvino failed on the graph: {error}") from error
        return {output.name: values[i] for i, output in enumerate(self.outputs)}

    def close(self) -> None:
        """Free the graph."""
        self._request = None


class OpenVinoBackend(Backend):
    """Devices: cpu, gpu, npu, gpu.1 and the like, or a list for it to choose from such as auto:gpu,cpu.
    "auto" is the CPU: it starts at once and keeps the graph's precision; others are to be asked for.
    Option: cache_dir, a folder for compiled graphs.
    """

    name = "openvino"
    graph_formats = ("openvino", "onnx")
    install_hint = "pip install openvino"

    def unavailable_reason(self) -> str | None:
        """Only looks whether the package is there."""
        if importlib.util.find_spec("openvino") is None:
            return f"the package openvino is not installed: {self.install_hint} (or 'edge_vision[openvino]')"
        return None

    def devices(self) -> tuple[str, ...]:
        """The devices that its plugins find, each with its full name."""
        core = _import_quietly().Core()
        return tuple(
            f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices
        )

    def load(self, graph: Path, request: BackendRequest) -> Session:
        """See the contract."""
        reason = self.unavailable_reason()
        if reason:
            raise BackendUnavailable(reason)
        openvino = _import_quietly()
        core = openvino.Core()
        device = _device(request.device, core.available_devices)
        config = _config(device, request)
        try:
            compiled = core.compile_model(_read(core, graph), device, config)
        except BackendError:
            raise
        except Exception as error:  # It raises RuntimeError for all that can be wrong with a graph.
            raise BackendError(f"openvino cannot load {graph} on {device}: {error}") from error
        others = [name for name in core.available_devices if name.split(".")[0] != "CPU"]
        return OpenVinoSession(compiled, _actual(compiled, request, openvino.get_version(), others))


def _import_quietly() -> Any:
    """Import it with its usage statistics off: nothing here talks to a network."""
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino

    return openvino


def _device(wanted: str, available: list[str]) -> str:
    """OpenVINO's name of a device. Raises BackendUnavailable for one that it does not see."""
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


def _read(core: Any, graph: Path) -> Any:
    return core.read_model(str(check_onnx(graph) if graph.suffix == ".onnx" else graph))


def _config(device: str, request: BackendRequest) -> dict[str, Any]:
    unknown = sorted(set(request.options) - set(_OPTIONS))
    if unknown:
        raise BackendError(f"openvino knows the options {', '.join(_OPTIONS)}, got {', '.join(unknown)}")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        config["INFERENCE_NUM_THREADS"] = request.threads or usable_cores()
        # Left alone, it takes bfloat16 on processors that have it: faster, but not the scores that the
        # bundle was measured with.
        config["INFERENCE_PRECISION_HINT"] = "f32"
    if request.precision in _PRECISION_HINTS:
        config["INFERENCE_PRECISION_HINT"] = _PRECISION_HINTS[request.precision]
    if "cache_dir" in request.options:
        config["CACHE_DIR"] = str(request.options["cache_dir"])
    return config


def _actual(compiled: Any, request: BackendRequest, version: str, others: list[str]) -> BackendActual:
    devices = [str(device) for device in _property(compiled, "EXECUTION_DEVICES") or ()]
    notes: tuple[str, ...] = ()
    if request.device == "auto" and others:
        notes = (f"{', '.join(others)} is here too and runs only when asked for: set device",)
    return BackendActual(
        backend=OpenVinoBackend.name,
        version=version,
        device="+".join(devices).lower() or "unavailable",
        provider="+".join(devices) or "unavailable",
        precision=_precision(compiled),
        threads=int(_property(compiled, "INFERENCE_NUM_THREADS") or 0),
        notes=notes,
    )


def _property(compiled: Any, name: str) -> Any:
    """A property that the device may not have: None then."""
    try:
        return compiled.get_property(name)
    except RuntimeError:
        return None


def _precision(compiled: Any) -> str:
    """What most of the compute layers of the compiled graph run in."""
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
    return TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()).name)
