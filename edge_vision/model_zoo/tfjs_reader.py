"""Reads TensorFlow.js graph models: a model.json and its weight shards."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vision.errors import BundleError

_DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int32": np.int32,
    "bool": np.bool_,
}


@dataclass(frozen=True, slots=True)
class TfjsNode:
    """One TensorFlow operation."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text, a list of bytes or base64 in the file."""
        return _text(self.attributes[name]["s"])

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty if there is none."""
        return [_text(value) for value in (self.attributes.get(name) or {}).get("list", {}).get("s", ())]

    def number(self, name: str, default: float = 0.0) -> float:
        """A float, or an integer such as a bit mask. Zero is left out of some files."""
        value = self.attributes.get(name) or {}
        return float(value.get("f") or value.get("i") or default)

    def flag(self, name: str) -> bool:
        """A Boolean; false is left out of some files."""
        return bool((self.attributes.get(name) or {}).get("b"))

    def kind(self, name: str) -> str:
        """A type, such as DT_FLOAT."""
        return str(self.attributes[name]["type"])

    def height_and_width(self, name: str) -> list[int]:
        """The middle two of four integers for NHWC; 1, 1 if there are none."""
        values = (self.attributes.get(name) or {}).get("list", {}).get("i")
        return [int(value) for value in values][1:3] if values else [1, 1]


@dataclass(frozen=True, slots=True, eq=False)
class TfjsModel:
    """Nodes and weights, both by name. Weights stored as float16 are float32."""

    nodes: Mapping[str, TfjsNode]
    weights: Mapping[str, np.ndarray]


def read_tfjs(model_json: bytes, shards: Mapping[str, bytes]) -> TfjsModel:
    """The graph of model.json and its weight shards, by file name. Raises BundleError."""
    try:
        document = json.loads(model_json)
        nodes = [
            TfjsNode(node["name"], node["op"], tuple(node.get("input", ())), node.get("attr", {}))
            for node in document["modelTopology"]["node"]
        ]
        return TfjsModel({node.name: node for node in nodes}, _weights(document["weightsManifest"], shards))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"expected a TensorFlow.js graph model, got one that cannot be read: {error!r}"
        ) from None


def _weights(manifest: list[Any], shards: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Weights by name. The shards of a group are parts of one byte string, and a weight may span several."""
    arrays = {}
    for group in manifest:
        data = b"".join(shards[path] for path in group["paths"])
        offset = 0
        for weight in group["weights"]:
            stored = weight.get("quantization", {}).get("dtype", weight["dtype"])
            if stored not in _DTYPES:
                raise BundleError(f"weight {weight['name']}: expected float16 or float32, got {stored}")
            count = int(np.prod(weight["shape"], dtype=np.int64))
            array: np.ndarray = np.frombuffer(data, _DTYPES[stored], count, offset)
            offset += array.nbytes
            arrays[weight["name"]] = array.astype(_DTYPES[weight["dtype"]]).reshape(weight["shape"])
    return arrays


def _text(value: Any) -> str:
    return (bytes(value) if isinstance(value, list) else base64.b64decode(value)).decode()
