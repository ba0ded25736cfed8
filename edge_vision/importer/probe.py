"""One run on noise: the real shapes and values of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge_vision.backends import available_backends, make_backend
from edge_vision.backends.base import BackendRequest, TensorSpec
from edge_vision.backends.trial.parent import try_graph
from edge_vision.errors import BackendError, BundleError, GraphRefused

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """outputs: with the shapes of this run. values: by name, {} if no installed backend reads the format.

    backend: name and version, "" for none.
    """

    outputs: tuple[TensorSpec, ...]
    values: dict[str, np.ndarray]
    backend: str


def backends_for(file_format: str) -> list[str]:
    """The installed backends that read a graph format, the preferred one first."""
    return [
        name
        for name, reason in available_backends().items()
        if reason is None and file_format in make_backend(name).formats
    ]


def probe_graph(path: Path, file_format: str, outputs: tuple[TensorSpec, ...], source: Path) -> Probe:
    """Run the graph once on the first backend that reads it. Raises BundleError if it cannot be run."""
    names = backends_for(file_format)
    if not names:
        return Probe(outputs, {}, "")
    try:
        return first_not_killed(names, lambda name: _probed(path, name))
    except BackendError as error:
        text = str(error).replace(str(path), str(source))
        raise BundleError(f"{source}: expected a graph that runs, got an error: {text}") from None


def first_not_killed(names: Sequence[str], work: Callable[[str], T]) -> T:
    """What `work` returns or raises for the first backend that the graph does not crash."""
    for name in names[:-1]:
        with suppress(GraphRefused):
            return work(name)
    return work(names[-1])


def _probed(path: Path, name: str) -> Probe:
    backend = make_backend(name)
    try_graph(backend, path, BackendRequest())
    session = backend.load(path, BackendRequest())
    values = session.run({one.name: _noise(one) for one in session.inputs})
    kept = {name: np.array(value) for name, value in values.items()}
    session.close()
    specs = tuple(TensorSpec(name, value.shape, value.dtype.name) for name, value in kept.items())
    return Probe(specs, kept, f"{name} {session.actual.version}")


def _noise(one: TensorSpec) -> np.ndarray:
    """Uniform noise, 0 to 255 for uint8 and 0 to 1 for floats."""
    shape = tuple(size or 1 for size in one.shape)
    noise = np.random.default_rng(0).random(shape)
    return (noise * 255).astype(np.uint8) if one.dtype == "uint8" else noise.astype(one.dtype)
