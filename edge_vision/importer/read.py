"""Opens a model file by what it is, once it is known to be small enough."""

from __future__ import annotations

from pathlib import Path

from edge_vision.backends.trial import try_reading
from edge_vision.bundles.onnx_writer import import_onnx
from edge_vision.errors import BundleError, GraphRefused
from edge_vision.importer.model import MAX_MB, ModelSource
from edge_vision.importer.onnx_model import OnnxModel
from edge_vision.importer.tflite_model import TfliteModel

READER = "edge_vision.importer.read:parse_natively"
"""What a child process tries on a model file, see `backends.trial.try_reading`."""
READER_PACKAGES = ("onnx", "ai-edge-litert")
"""The packages that it parses with."""
_EXPORT = "export it to ONNX or TFLite with its own tools first"
# Formats that hold code, or need their own framework to be read.
_FOREIGN = {
    ".pt": f"a PyTorch file, which can hold code: {_EXPORT}",
    ".pth": f"a PyTorch file, which can hold code: {_EXPORT}",
    ".pkl": f"a pickle, which can hold code: {_EXPORT}",
    ".h5": f"a Keras file: {_EXPORT}",
    ".keras": f"a Keras file: {_EXPORT}",
    ".pb": f"a TensorFlow file: {_EXPORT}",
    ".engine": "a TensorRT engine, which fits one GPU and driver only: import the ONNX file behind it",
    ".xml": "an OpenVINO file: import the ONNX file behind it",
}


def read_model(path: Path, max_mb: int = MAX_MB) -> ModelSource:
    """Read a .onnx or .tflite file. Nothing in it is run. Raises BundleError."""
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
    """Hand a model file to the native code that an import hands it to. Raises BundleError, or anything."""
    if path.suffix.lower() == ".onnx":
        onnx = import_onnx()
        onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False))
    else:
        TfliteModel(path)


def _check_size(path: Path, max_mb: int) -> None:
    if not path.is_file():
        raise BundleError(
            f"{path}: expected a model file, got {'something else' if path.exists() else 'nothing there'}"
        )
    size = path.stat().st_size
    if size > max_mb << 20:
        raise BundleError(
            f"{path}: expected at most {max_mb} MB, got {size >> 20} MB; --max-mb sets the limit, up to 2047 "
            f"(an ONNX file cannot be larger)"
        )
