"""The backends by name: this package's own and those of plug-ins. Every list of them derives from here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vision.backends.base import Backend
from edge_vision.backends.host import installed_packages
from edge_vision.errors import BackendError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Name -> "module:Class", in the order in which "auto" prefers them. Imported when used.
BACKENDS: dict[str, str] = {
    "onnxruntime": "edge_vision.backends.runtimes.onnxruntime:OnnxRuntimeBackend",
    "openvino": "edge_vision.backends.runtimes.openvino:OpenVinoBackend",
    "tensorrt": "edge_vision.backends.runtimes.tensorrt:TensorRtBackend",
    "tensorrt_rtx": "edge_vision.backends.runtimes.tensorrt:TensorRtRtxBackend",
    "litert": "edge_vision.backends.runtimes.litert:LiteRtBackend",
    "executorch": "edge_vision.export.torch_backends:ExecuTorchBackend",
    "torchscript": "edge_vision.export.torch_backends:TorchScriptBackend",
    "kserve": "edge_vision.remote.kserve:KserveBackend",
}

REFERENCE = "onnxruntime"
"""The backend whose outputs in fp32 on the CPU the others are compared with."""
ENTRY_POINT_GROUP = "edge_vision.backends"
"""A package registers its backends in this group, each as `name = "module:Class"`."""
_IMPORTED: dict[str, str] = {}
"""Plug-ins whose code runs in this process, with a description."""


def known_backends() -> dict[str, str]:
    """Name -> "module:Class" of every backend. A plug-in cannot replace one of this package's own."""
    others = {name: point.value for name, point in plugins().items()}
    return {**BACKENDS, **{name: value for name, value in others.items() if name not in BACKENDS}}


def check_known(names: Sequence[str]) -> None:
    """Raise BackendError for a name that is neither "auto" nor a known backend."""
    known = known_backends()
    for name in names:
        if name not in known and name != "auto":
            raise BackendError(f"expected a backend out of auto, {', '.join(known)}, got '{name}'")


def make_backend(name: str) -> Backend:
    """The backend of that name, installed or not. Raises BackendError if unknown or not importable."""
    check_known([name])
    path = known_backends().get(name, "")
    module, _, attribute = path.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        if name not in BACKENDS:
            note_import(name)
    except Exception as error:  # A third party's module may raise anything.
        raise BackendError(f"backend '{name}' cannot be imported from {path}: {error}") from error
    return backend


def backends_with(condition: Callable[[Backend], bool]) -> tuple[str, ...]:
    """Names of the backends that satisfy a condition, installed or not, if they can be imported."""
    return tuple(name for name, backend in _importable().items() if condition(backend))


def available_backends() -> dict[str, str | None]:
    """Name -> None if it can run here, else the reason and the remedy."""
    return {name: unavailable_reason(name) for name in known_backends()}


def unavailable_reason(name: str) -> str | None:
    """None if a backend can run here, else the reason and the remedy."""
    try:
        return make_backend(name).unavailable_reason()
    except BackendError as error:
        return str(error)


def runtime_versions(names: Sequence[str] | None = None) -> dict[str, str]:
    """Installed package -> version, of these backends' runtimes and plug-ins; by default of all backends."""
    prefixes: list[str] = []
    for name, backend in _importable(names).items():
        prefixes += backend.distributions
        prefixes += plugin_distribution(name)
    return installed_packages(prefixes)


def _importable(names: Sequence[str] | None = None) -> dict[str, Backend]:
    found: dict[str, Backend] = {}
    for name in known_backends() if names is None else names:
        try:
            found[name] = make_backend(name)
        except BackendError:
            continue
    return found


def plugins() -> dict[str, EntryPoint]:
    """Name -> entry point of every backend that another package registers."""
    return _on(tuple(sys.path))


@lru_cache(maxsize=4)
def _on(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Cached, since a file of every installed package is read. Without plug-ins, importlib.metadata is not
    imported, which would take 25 ms of each start."""
    files = (file for folder in path for file in Path(folder).glob("*[oO]/entry_points.txt"))
    with suppress(OSError):  # One that cannot be read may be of a plug-in.
        if not any(ENTRY_POINT_GROUP.encode() in file.read_bytes() for file in files):
            return {}
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def plugin_package(path: str) -> str:
    """Name and version of the package that registers "module:Class", "" if none does."""
    if path.startswith("edge_vision."):
        return ""
    return next((_package(point) for point in plugins().values() if point.value == path), "")


def plugin_distribution(name: str) -> list[str]:
    """The name of the package that registers this backend, [] for one of edge_vision's own."""
    point = plugins().get(name)
    return [point.dist.name] if point and point.dist else []


def note_import(name: str) -> None:
    """Record that the code of a plug-in runs in this process. Does nothing if `name` is no plug-in."""
    if name not in _IMPORTED and (point := plugins().get(name)) is not None:
        _IMPORTED[name] = f"backend plug-in {name} ({point.value}) of {_package(point)}"


def imported_plugins() -> tuple[str, ...]:
    """A description of each plug-in that this process has imported, in that order."""
    return tuple(_IMPORTED.values())


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
