"""The contract of a backend: one runtime that runs a graph.

A new backend is one file with a `Backend` subclass and one line in `registry.py`, or an entry point of
another package (docs/extending.md). Every list of backends is derived from the class attributes.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_vision.errors import BackendError, BackendUnavailable

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8", "mixed")
"""Precisions that a user can request. Each runtime supports some of them on a device."""


DELEGATE_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt")
"""Where packages install delegates, which are shared libraries."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph. A free dimension is None; dtype is a numpy name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """Requested device, precision and threads. "auto" and 0 leave the choice to the backend.

    delegate_folders: LiteRT loads a library that `device` names only from below these folders. remote_url,
    route: the server of the backend `kserve`, and where it infers: "remote", or "auto": frame by frame.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    delegate_folders: tuple[str, ...] = DELEGATE_FOLDERS
    remote_url: str = ""
    route: str = "remote"

    def __post_init__(self) -> None:
        """Raises BackendError for invalid values."""
        if self.precision not in PRECISIONS:
            raise BackendError(f"precision is one of {', '.join(PRECISIONS)}, got '{self.precision}'")
        if self.threads < 0:
            raise BackendError(f"threads is 0 (one per physical core) or more, got {self.threads}")
        if not self.device:
            raise BackendError("device is the name of a device, or auto, got an empty string")

    def check_options(self, backend: str, known: Iterable[str]) -> None:
        """Raise BackendError for an option that the backend does not know."""
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise BackendError(f"{backend} knows the options {', '.join(known)}, got {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class BackendActual:
    """What runs, read back from the runtime, never copied from the request.

    A value that the runtime does not report is "unavailable". notes: differences from the request, and why.
    """

    backend: str
    version: str
    device: str
    provider: str
    precision: str
    threads: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AutoSelection:
    """Backends in the order in which to try them, and why.

    refused: backends that just failed with the same request, and how; they are not tried again.
    """

    names: tuple[str, ...]
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)


class Session:
    """A loaded graph. Used by one thread at a time. Subclasses define `_run`, or `run` as a whole."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    actual: BackendActual
    deadline_s = 10.0  # A run on a server fails after this long; other runtimes cannot be interrupted.
    trouble = ""  # A reason for WARN.
    _closed = False

    def status_values(self) -> dict[str, Any]:
        """More for the node's status."""
        return {}

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name, for C-contiguous tensors named as in `inputs`.

        The next call may reuse the arrays. Raises BackendError if the runtime fails, or would have to convert
        a tensor.
        """
        if self._closed:
            raise BackendError("this session was closed: load the graph again")
        check_tensors(self.actual.backend, self._expected(tensors), tensors)
        try:
            return self._run(tensors)
        except BackendError:
            raise
        except Exception as error:  # The runtimes' exceptions have no common base.
            raise BackendError(f"{self.actual.backend} failed on the graph: {error}") from error

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `run`, with checked tensors."""
        raise NotImplementedError

    def _expected(self, tensors: Mapping[str, np.ndarray]) -> tuple[TensorSpec, ...]:
        """What the tensors must be."""
        return self.inputs

    def close(self) -> None:
        """Free the memory. The session is not used afterwards."""
        self._closed = True


class Backend(ABC):
    """A runtime. Importing its module must not import the runtime itself."""

    name: ClassVar[str]
    title: ClassVar[str]
    """The runtime's own name, for people."""
    formats: ClassVar[tuple[str, ...]]
    """Graph formats that it reads, as in a bundle's `graphs[].format`, the preferred one first."""
    install_hint: ClassVar[str]
    """The command that installs it."""
    module: ClassVar[str] = ""
    """The runtime's module, "" if none must be installed."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """PyPI packages of the runtime. Packages whose names begin with one of these count too: "onnxruntime"
    covers onnxruntime-gpu. Cached measurements are valid for one set of their versions."""
    can_optimize: ClassVar[bool] = True
    """Whether the optimizer measures it on this machine."""
    builds_engines: ClassVar[bool] = False
    """Whether `backends build` can compile a graph for it ahead of the first start."""
    builds_without_device: ClassVar[bool] = False
    """Whether it builds engines on a machine that lacks the device."""
    computes_in: ClassVar[tuple[str, ...]] = ()
    """Precisions in which it can run an fp32 graph on a CPU that supports them."""
    remote: ClassVar[bool] = False
    """Whether a server infers: `load` then takes the bundle's folder, and "auto" does not select it."""
    load_limit_s: ClassVar[float] = 120.0
    """A load that takes longer is considered hung and abandoned."""

    def unavailable_reason(self) -> str | None:
        """None if it can run here, else one sentence that ends with the remedy. Imports no runtime."""
        return self.package_missing()

    def package_missing(self) -> str | None:
        """The reason if `module` is not installed. Imports no runtime."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"the package {self.module} is not installed: {self.install_hint}"
        return None

    def check_available(self) -> None:
        """Raise BackendUnavailable unless it can run here."""
        if reason := self.unavailable_reason():
            raise BackendUnavailable(reason)

    def prefers_int8(self, device: str) -> bool:
        """Whether a bundle's int8 graph (QDQ) is the fastest on this requested device, "auto" included."""
        return False

    def devices(self) -> tuple[str, ...]:
        """The devices that the runtime reports on this machine; imports it. Empty if it reports none.

        Called only if the backend is available. Exceptions of the runtime propagate.
        """
        return ()

    @abstractmethod
    def load(self, graph: Path, request: BackendRequest) -> Session:
        """Load a graph with a verified hash. Raises BackendUnavailable or BackendError."""


def check_tensors(backend: str, specs: tuple[TensorSpec, ...], tensors: Mapping[str, np.ndarray]) -> None:
    """Raise BackendError unless every input has its dtype and shape. Some runtimes would convert."""
    for spec in specs:
        values = tensors.get(spec.name)
        if values is None or values.dtype.name != spec.dtype or not _same_shape(values.shape, spec.shape):
            got = f"none of that name, only {', '.join(tensors)}" if values is None else _described(values)
            raise BackendError(
                f"{backend} expects input '{spec.name}' as {list(spec.shape)} {spec.dtype}, got {got}"
            )


def _same_shape(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return shape == expected or (
        len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))
    )


def _described(values: np.ndarray) -> str:
    return f"{list(values.shape)} {values.dtype.name}"
