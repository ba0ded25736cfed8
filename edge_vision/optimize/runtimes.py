"""Which runtimes a study measures."""

from __future__ import annotations

from edge_vision.backends import available_backends, make_backend
from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import Bundle
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import Settings, measurable_backends, onnx_backends


def usable_backends(settings: Settings, tflite: Bundle | None) -> list[str]:
    """Those asked for, or those here. tflite: the bundle's graph for LiteRT. Raises OptimizeError."""
    available = available_backends()
    runs_onnx = onnx_backends()
    for name in measurable_backends():
        formats = make_backend(name).formats
        if name not in runs_onnx and (tflite is None or "tflite" not in formats):
            available[name] = f"the bundle has no {' or '.join(formats)} graph, and the optimizer makes none"
    wanted = settings.measured or tuple(
        name for name in measurable_backends() if available.get(name, "") is None
    )
    lacking = [f"{name}: {available[name]}" for name in wanted if available.get(name) is not None]
    if lacking or not wanted:
        hint = f"no runtime is installed: {make_backend(REFERENCE).install_hint}"
        raise OptimizeError("; ".join(lacking) or hint)
    if not set(wanted) & set(runs_onnx):
        raise OptimizeError(
            f"backends: expected {' or '.join(runs_onnx)} among them, as all is compared with its fp32, got "
            f"{', '.join(wanted)}"
        )
    return list(wanted)


def first_precision(backend: str, tflite: Bundle | None) -> str:
    """What is measured with each thread count: fp32, or what the one TFLite graph is in."""
    return tflite.manifest.graphs[0].precision if backend not in onnx_backends() and tflite else "fp32"
