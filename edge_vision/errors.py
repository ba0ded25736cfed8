"""Every error that edge_vision raises on purpose.

    EdgeVisionError
    ├── ImageError           an image that cannot be read as what it claims to be
    ├── BundleError          a model bundle that is missing, broken or not what it claims to be
    ├── HeadError            a head that does not fit the outputs of the graph
    ├── OutputError          an output folder that holds what edge_vision did not write
    └── BackendError         a runtime that cannot load or run a graph
        ├── BackendUnavailable   a runtime that is not installed on this machine
        ├── GraphRefused         a graph that crashed, hung or outgrew the process that tried it first
        └── EngineRefused        a kept engine that is not the one that was built here for this graph

Each message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class EdgeVisionError(Exception):
    """Base of all errors raised on purpose."""


class ImageError(EdgeVisionError):
    """An image that cannot be read. `reason` is the short word that the ledger counts it under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BundleError(EdgeVisionError):
    """A model bundle that is missing, broken, or not what its manifest says."""


class HeadError(EdgeVisionError):
    """A head that does not fit the graph's outputs."""


class OutputError(EdgeVisionError):
    """An output folder whose contents are not the command's own."""


class BackendError(EdgeVisionError):
    """A runtime that cannot load or run a graph."""


class BackendUnavailable(BackendError):
    """A runtime that is not installed, or lacks its hardware. The message names the remedy."""


class GraphRefused(BackendError):
    """A graph that ended its trial process, or exceeded its limits. This process did not open it."""


class EngineRefused(BackendError):
    """A kept engine of another machine, runtime or graph, or a changed one. It was not opened."""
