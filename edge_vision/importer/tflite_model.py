"""Reads a TFLite file's inputs, outputs and labels, with LiteRT's own reader."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.errors import BundleError
from edge_vision.importer.model import Model, ModelSource

_MAX_TEXT_BYTES = 1 << 20
_MAX_TEXTS = 8
_MAX_ARCHIVE_BYTES = 2 << 20
_METADATA: dict[str, Callable[[str], Any]] = {"metadata.json": json.loads, "temp_meta.txt": ast.literal_eval}
"""Files of Ultralytics' exports: JSON now, a Python dictionary of literals before."""
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    MemoryError,
)


class TfliteModel(ModelSource):
    """A TFLite file."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError, also where LiteRT is not installed."""
        self._data = path.read_bytes()
        if self._data[4:8] != b"TFL3":
            raise BundleError(
                f"{path}: expected a TFLite file (its bytes 4 to 8 are 'TFL3'), got {self._data[4:8]!r}: it "
                f"is damaged, truncated or of another format"
            )
        interpreter = _interpreter(path)
        texts = _texts(self._data)
        self.model = Model(
            path=path,
            format="tflite",
            size_bytes=len(self._data),
            sha256=hashlib.sha256(self._data).hexdigest(),
            producer="",
            inputs=tuple(_spec(detail) for detail in interpreter.get_input_details()),
            outputs=tuple(_output(detail, path) for detail in interpreter.get_output_details()),
            precision=_precision(interpreter),
            metadata=_metadata(texts),
            labels=_labels(texts),
        )

    def fixed(self, name: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> bytes:
        """See ModelSource. A TFLite file is used unchanged."""
        given = next(one.shape for one in self.model.inputs if one.name == name)
        if constants or any(own not in (None, wanted) for own, wanted in zip(given, shape, strict=True)):
            raise BundleError(
                f"{self.model.path}: expected an input of {list(shape)}, the graph takes {list(given)}, and "
                f"a TFLite file cannot be changed here; omit --input-size, or convert the model again"
            )
        return self._data


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise BundleError(
            f"{path}: reading a TFLite file expects the package ai-edge-litert, got: {error}; install it: "
            f"pip install ai-edge-litert"
        ) from None
    try:
        return Interpreter(model_path=str(path))
    except Exception as error:  # ValueError, RuntimeError and others, for a damaged file
        raise BundleError(
            f"{path}: expected a TFLite file, got one that LiteRT cannot read: {error}"
        ) from None


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    signature = detail.get("shape_signature", detail["shape"])
    shape = tuple(int(size) if size > 0 else None for size in signature)
    return TensorSpec(str(detail["name"]), shape, np.dtype(detail["dtype"]).name)


def _output(detail: Mapping[str, Any], path: Path) -> TensorSpec:
    spec = _spec(detail)
    if spec.dtype in ("uint8", "int8", "int16"):
        raise BundleError(
            f"{path}: expected outputs of float32, got {spec.dtype} for '{spec.name}'; convert the model "
            f"with float32 outputs (inference_output_type), the rest may stay quantized"
        )
    return spec


def _precision(interpreter: Any) -> str:
    kinds = [np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()]
    if "int8" in kinds or "uint8" in kinds:
        return "int8"
    return "fp16" if "float16" in kinds else "fp32"


def _texts(data: bytes) -> dict[str, str]:
    """The small text files in the archive that is appended to the file, by name without folders."""
    texts: dict[str, str] = {}
    try:
        # Only the end of the file is searched, which bounds the number of files in the archive.
        with zipfile.ZipFile(io.BytesIO(data[-_MAX_ARCHIVE_BYTES:])) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith((".txt", "metadata.json"))]
            for info in infos[:_MAX_TEXTS]:
                with archive.open(info) as file:
                    content = file.read(_MAX_TEXT_BYTES + 1)
                if len(content) <= _MAX_TEXT_BYTES:
                    texts[info.filename.rpartition("/")[2]] = content.decode("utf-8")
    except _UNREADABLE:
        return {}
    return texts


def _metadata(texts: Mapping[str, str]) -> dict[str, str]:
    """Ultralytics' metadata, as text as in its ONNX files. {} without it."""
    for name, parse in _METADATA.items():
        try:
            document = parse(texts.get(name, "{}"))
        except _UNREADABLE:
            continue
        if isinstance(document, dict) and document:
            return {str(key): str(value) for key, value in document.items()}
    return {}


def _labels(texts: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names in the one list of labels that TFLite metadata brings, None without one."""
    lists = [text for name, text in texts.items() if name not in _METADATA]
    if len(lists) != 1:
        return None
    return tuple(line.strip() for line in lists[0].splitlines() if line.strip()) or None
