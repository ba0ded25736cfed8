"""Backends: the runtimes that can run a graph, and which one runs it."""

from __future__ import annotations

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.loading import load_on
from edge_vision.backends.registry import (
    BACKENDS,
    ENTRY_POINT_GROUP,
    available_backends,
    backends_with,
    known_backends,
    make_backend,
    runtime_versions,
)
from edge_vision.backends.selection.fallback import FALLBACK, BackendReport, open_session

__all__ = [
    "BACKENDS",
    "ENTRY_POINT_GROUP",
    "FALLBACK",
    "Backend",
    "BackendActual",
    "BackendReport",
    "BackendRequest",
    "Session",
    "TensorSpec",
    "available_backends",
    "backends_with",
    "known_backends",
    "load_on",
    "make_backend",
    "open_session",
    "runtime_versions",
]
