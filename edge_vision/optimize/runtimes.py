"""The backends of a study, from what each backend declares about itself."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.backends import backends_with, make_backend
from edge_vision.backends.registry import REFERENCE
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.remote.address import LOCAL


def measurable_backends() -> tuple[str, ...]:
    """Backends that the optimizer can measure, of this package and of plug-ins, installed or not."""
    return backends_with(lambda backend: backend.can_optimize)


def onnx_backends() -> tuple[str, ...]:
    """Measurable backends that read ONNX, and therefore every variant. Others run a converted graph."""
    return backends_with(lambda backend: backend.can_optimize and "onnx" in backend.formats)


def build_only_backends() -> tuple[str, ...]:
    """Backends whose engines are built on request, without their device, and not run."""
    return backends_with(lambda backend: not backend.can_optimize and backend.builds_without_device)


def selected_backends(requested: Sequence[str], device: OptimizedDevice) -> tuple[str, ...]:
    """The requested backends that can be measured on a device, by default all available ones.

    Raises OptimizeError if one is unavailable, or if none reads ONNX.
    """
    known, reading_onnx = measurable_backends(), onnx_backends()
    reasons = dict(device.unavailable)
    for name in set(known) - set(reading_onnx):
        formats = make_backend(name).formats
        if "tflite" not in formats:
            reasons[name] = f"the optimizer makes no {' or '.join(formats)} graph"
    default = tuple(name for name in known if name in device.backends and name not in reasons)
    selected = tuple(name for name in requested if name in known) or default
    unavailable = [
        f"{name}: {reasons.get(name, 'the device has no such backend')}"
        for name in selected
        if name not in default
    ]
    if unavailable or not selected:
        hint = f"no runtime is installed: {make_backend(REFERENCE).install_hint}"
        where = "" if device.address == LOCAL else f"{device.address}: "
        raise OptimizeError(where + ("; ".join(unavailable) or hint))
    if not set(selected) & set(reading_onnx):
        raise OptimizeError(
            f"backends: expected one of {', '.join(reading_onnx)} among them, whose fp32 is the baseline, "
            f"got {', '.join(selected)}"
        )
    return selected


def computes_in(backend: str, precision: str) -> bool:
    """Whether the backend can run an fp32 graph in this precision on a CPU that supports it."""
    return precision in make_backend(backend).computes_in
