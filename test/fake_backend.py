"""Sessions that misbehave on request, and their backend, which `register` makes known as "fake".

A FaultySession wraps a session of a real runtime; only the fault is simulated.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edge_vision.backends import BACKENDS
from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.errors import BackendError


@dataclass(frozen=True, slots=True)
class Fault:
    """Faults from the (after + 1)-th run on."""

    after: int = 0
    error: str = ""
    """Raise a BackendError with this text."""
    nan: bool = False
    """Every value of every output becomes NaN."""
    missing_output: bool = False
    """The last output is missing."""
    wrong_shape: bool = False
    """The first output loses its last row."""
    sleep_ms: float = 0.0


class FaultySession(Session):
    """Wraps another session. `fault` may be replaced at any time; `runs` counts."""

    def __init__(self, inner: Session, fault: Fault | None = None) -> None:
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.actual = replace(
            inner.actual, backend="fake", notes=(*inner.actual.notes, "misbehaves on request")
        )
        self.fault = fault or Fault()
        self.runs = 0
        self.closed = False
        self._inner = inner

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inner session's outputs, then the fault."""
        self.runs += 1
        outputs = self._inner.run(tensors)
        return outputs if self.runs <= self.fault.after else _spoil(outputs, self.fault)

    def close(self) -> None:
        """Close the inner session."""
        self.closed = True
        self._inner.close()


class ConstantSession(Session):
    """Returns constant outputs, for values that no real graph would return."""

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Mapping[str, np.ndarray]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(
            TensorSpec(name, value.shape, value.dtype.name) for name, value in outputs.items()
        )
        self.actual = BackendActual("fake", "0", "none", "none", "unavailable", 0, ("returns constants",))
        self._outputs = dict(outputs)

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The constants."""
        return dict(self._outputs)


class FakeBackend(Backend):
    """ONNX Runtime with a Fault from the request's options; without options, `standing`."""

    standing: ClassVar[Fault] = Fault()
    """The fault of every loaded session."""
    load_waits_for: ClassVar[threading.Event | None] = None
    """If given, loading waits for it."""

    name = "fake"
    title = "Fake"
    formats = ("onnx",)
    install_hint = OnnxRuntimeBackend.install_hint
    module = OnnxRuntimeBackend.module

    def load(self, graph: Path, request: BackendRequest) -> Session:
        """A real session with a fault."""
        if self.load_waits_for:
            self.load_waits_for.wait()
        inner = OnnxRuntimeBackend().load(graph, replace(request, options={}))
        return FaultySession(inner, Fault(**request.options) if request.options else self.standing)


def register(patch: pytest.MonkeyPatch) -> None:
    """Make the backend known as "fake", here and in child processes."""
    patch.setitem(BACKENDS, FakeBackend.name, f"{__name__}:{FakeBackend.__name__}")
    patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def _spoil(outputs: dict[str, np.ndarray], fault: Fault) -> dict[str, np.ndarray]:
    time.sleep(fault.sleep_ms / 1e3)
    if fault.error:
        raise BackendError(fault.error)
    names = list(outputs)
    if fault.nan:
        outputs = {name: np.full_like(value, np.nan) for name, value in outputs.items()}
    if fault.wrong_shape:
        outputs[names[0]] = outputs[names[0]][:, :-1]
    if fault.missing_output:
        del outputs[names[-1]]
    return outputs
