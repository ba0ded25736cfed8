"""The backends by name, this package's own and those of plug-ins. A new one is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from edge_vision.backends.base import Backend
from edge_vision.backends.plugins import note_import, plugins
from edge_vision.errors import BackendError

# Name -> "module:Class", in the order in which "auto" tries them. Imported when used.
BACKENDS: dict[str, str] = {
    "onnxruntime": "edge_vision.backends.onnxruntime:OnnxRuntimeBackend",
    "openvino": "edge_vision.backends.openvino:OpenVinoBackend",
    "tensorrt": "edge_vision.backends.tensorrt:TensorRtBackend",
    "tensorrt_rtx": "edge_vision.backends.tensorrt:TensorRtRtxBackend",
    "litert": "edge_vision.backends.litert:LiteRtBackend",
}


def known_backends() -> dict[str, str]:
    """Name -> "module:Class" of every backend, this package's own first and not to be replaced."""
    others = {name: point.value for name, point in plugins().items()}
    return {**BACKENDS, **{name: value for name, value in others.items() if name not in BACKENDS}}


def check_known(names: Sequence[str]) -> None:
    known = known_backends()
    for name in names:
        if name not in known and name != "auto":
            raise BackendError(f"expected a backend out of auto, {', '.join(known)}, got '{name}'")


def make_backend(name: str) -> Backend:
    """The backend of that name, installed or not. Raises BackendError for an unknown or broken one."""
    check_known([name])
    place = known_backends().get(name, "")
    module, _, attribute = place.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        if name not in BACKENDS:
            note_import(name)
    except Exception as error:  # A third party's module may fail in any way.
        raise BackendError(f"backend '{name}' cannot be imported from {place}: {error}") from error
    return backend


def available_backends() -> dict[str, str | None]:
    """Name -> None where it can run here, else why not and what to do."""
    return {name: unavailable_reason(name) for name in known_backends()}


def unavailable_reason(name: str) -> str | None:
    """None where a backend can run here, else why not and what to do."""
    try:
        return make_backend(name).unavailable_reason()
    except BackendError as error:
        return str(error)
