"""Which runtimes a study measures."""

from __future__ import annotations

from edge_vision.backends import available_backends
from edge_vision.bundles.store import Bundle
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import BACKENDS, READ_ONNX, Settings


def usable_backends(settings: Settings, tflite: Bundle | None) -> list[str]:
    """Those asked for, or those here. tflite: the bundle's graph for LiteRT. Raises OptimizeError."""
    available = available_backends()
    if tflite is None:
        available["litert"] = "the bundle has no TFLite graph, and none is made here"
    wanted = settings.measured or tuple(name for name in BACKENDS if available.get(name, "") is None)
    lacking = [f"{name}: {available[name]}" for name in wanted if available.get(name) is not None]
    if lacking or not wanted:
        raise OptimizeError("; ".join(lacking) or "no runtime is installed: pip install onnxruntime")
    if not set(wanted) & set(READ_ONNX):
        raise OptimizeError(
            f"backends: expected {' or '.join(READ_ONNX)} among them, as all is compared with its fp32, got "
            f"{', '.join(wanted)}"
        )
    return list(wanted)


def first_precision(backend: str, tflite: Bundle | None) -> str:
    """What is measured with each thread count: fp32, or what the one TFLite graph is in."""
    return tflite.manifest.graphs[0].precision if backend == "litert" and tflite else "fp32"
