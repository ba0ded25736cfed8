"""Opens a model file by its format, if it is small enough."""

from __future__ import annotations

from pathlib import Path

from edge_vision.errors import BundleError, GraphRefused
from edge_vision.importer.model import MAX_MB, ModelSource
from edge_vision.importer.onnx_model import OnnxModel
from edge_vision.importer.tflite_model import TfliteModel
from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.trials import try_reading

READER = "edge_vision.importer.read:parse_natively"
"""Called with a model file in a child process, see `offline.trials.try_reading`."""
READER_PACKAGES = ("onnx", "ai-edge-litert")
"""The packages that it parses with."""
_EXPORT = "export it to ONNX or TFLite with its own tools first"
# Formats that contain code or need their own framework.
_FOREIGN = {
    ".pt": f"a PyTorch file, which can contain code: {_EXPORT}",
    ".pth": f"a PyTorch file, which can contain code: {_EXPORT}",
    ".pkl": f"a pickle, which can contain code: {_EXPORT}",
    ".h5": f"a Keras file: {_EXPORT}",
    ".keras": f"a Keras file: {_EXPORT}",
    ".pb": f"a TensorFlow file: {_EXPORT}",
    ".engine": "a TensorRT engine, which is for one GPU and driver: import the ONNX file it was built from",
    ".xml": "an OpenVINO file: import the ONNX file it was converted from",
}


def read_model(path: Path, max_mb: int = MAX_MB) -> ModelSource:
    """Read a .onnx or .tflite file without running it. Raises BundleError."""
    suffix = path.suffix.lower()
    if suffix in _FOREIGN:
        raise BundleError(f"{path}: expected .onnx or .tflite, got {_FOREIGN[suffix]}")
    if suffix not in (".onnx", ".tflite"):
        raise BundleError(f"{path}: expected a file that ends in .onnx or .tflite, got '{suffix}'")
    try:
        _check_size(path, max_mb)
        try_reading(path, READER, READER_PACKAGES)
        return OnnxModel(path, max_mb << 20) if suffix == ".onnx" else TfliteModel(path)
    except GraphRefused as error:
        raise BundleError(str(error)) from None
    except OSError as error:
        raise BundleError(
            f"{path}: expected a file that can be read, got: {error.strerror or error}"
        ) from None


def parse_natively(path: Path) -> None:
    """Parse a model file with the same native code as an import. May raise anything."""
    if path.suffix.lower() == ".onnx":
        onnx = import_onnx()
        onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False))
    else:
        TfliteModel(path)


def _check_size(path: Path, max_mb: int) -> None:
    if not path.is_file():
        raise BundleError(
            f"{path}: expected a model file, got {'a folder or device' if path.exists() else 'no such file'}"
        )
    size = path.stat().st_size
    if size > max_mb << 20:
        raise BundleError(
            f"{path}: expected at most {max_mb} MB, got {size >> 20} MB; --max-mb sets the limit, up to 2047 "
            f"(an ONNX file cannot be larger)"
        )
