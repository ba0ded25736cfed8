"""Exceptions of edge_vision.

    EdgeVisionError
    ├── ImageError
    ├── BundleError
    ├── HeadError
    ├── OutputError
    ├── UsageError
    ├── LocalizationError
    ├── UpdateError
    └── BackendError
        ├── BackendUnavailable
        ├── GraphRefused
        └── EngineRefused

A message is one sentence: expected, got, remedy.
"""

from __future__ import annotations


class EdgeVisionError(Exception):
    """Base class of all errors that edge_vision raises."""


class ImageError(EdgeVisionError):
    """An invalid or unsupported image. reason: the key that counts it in the frame accounting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BundleError(EdgeVisionError):
    """A model bundle that is missing, damaged, or does not match its manifest."""


class HeadError(EdgeVisionError):
    """A head that does not match the graph's outputs."""


class OutputError(EdgeVisionError):
    """An output folder with files that the command did not write."""


class UsageError(EdgeVisionError):
    """Wrong arguments of a command, which ends with status 2."""


class LocalizationError(EdgeVisionError):
    """An object, or a whole image, that cannot be placed in space. reason: the key that counts it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UpdateError(EdgeVisionError):
    """A model update that is refused or fails. reason: a key such as "expired", "signature" or "no_space"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BackendError(EdgeVisionError):
    """A runtime that cannot load or run a graph."""


class BackendUnavailable(BackendError):
    """A runtime that is not installed, or lacks its hardware."""


class GraphRefused(BackendError):
    """A graph that crashed its trial process or exceeded its limits, so that this process did not load it."""


class EngineRefused(BackendError):
    """A cached engine that was modified, or belongs to another machine, runtime or graph."""
