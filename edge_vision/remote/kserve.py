"""The Open Inference Protocol v2 over HTTP, with its binary tensor extension: Triton, KServe and others.

https://github.com/kserve/open-inference-protocol, and "Binary Tensor Data Extension" of the Triton Inference
Server. The server is not trusted: everything that it sends is checked against the bundle and is bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.bundles import schema
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import BackendError, BackendUnavailable, BundleError, HeadError
from edge_vision.remote.connection import Connection

FORMAT = "remote"
"""Of a graph that is on the server; its file names the model there."""
DTYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
"""The protocol's names -> numpy's."""
MAX_METADATA_BYTES, MAX_OUTPUT_BYTES = 1 << 20, 64 << 20
_DEVICES = {"KIND_CPU": "cpu", "KIND_GPU": "gpu"}
_QUOTED = 1 << 15
"""Longer than a token and the part that is shown."""
_HEAD_LENGTH = "Inference-Header-Content-Length"
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class KserveSession(Session):
    """A model on a server. A run ends with BackendError after `deadline_s`."""

    def __init__(self, connection: Connection, model: str, version: str) -> None:
        """Reads the metadata. Raises BackendError."""
        self._connection = connection
        self._path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
        metadata = self._get(self._path)
        try:
            self.inputs, self.outputs = (
                tuple(self._spec(one) for one in metadata[key]) for key in ("inputs", "outputs")
            )
        except _MALFORMED as error:
            raise self._error(
                f"describes model {model} in a way that cannot be read ({self._text(repr(error))})"
            ) from None
        self.actual = self._actual(metadata)

    def _get(self, path: str) -> dict[str, Any]:
        _, data = self._connection.request("GET", path, self.deadline_s, MAX_METADATA_BYTES)
        return self._object(data, path)

    def _object(self, data: bytes, what: str) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._error(
                f"expected JSON of the Open Inference Protocol v2 at {what}, got {self._quoted(data)}"
            )
        return found

    def _error(self, text: str) -> BackendError:
        self._connection.close()
        return BackendError(f"the server {self._connection.name}: {self._connection.shown(text)}")

    def _actual(self, metadata: Mapping[str, Any]) -> BackendActual:
        """What the server reports; the device is in an extension of Triton."""
        server = self._get("/v2")
        extensions, kinds = server.get("extensions"), set()
        if isinstance(extensions, list) and "model_configuration" in extensions:
            groups = self._get(f"{self._path}/config").get("instance_group")
            if isinstance(groups, list):
                kinds = {str(one.get("kind")) for one in groups if isinstance(one, dict)}
        return BackendActual(
            backend=KserveBackend.name,
            version=self._text(f"{server.get('name')} {server.get('version')}"),
            device=_DEVICES.get(kinds.pop(), "unavailable") if len(kinds) == 1 else "unavailable",
            provider=f"{self._text(metadata.get('platform') or 'unavailable')} at {self._connection.name}",
            precision="unavailable",
            threads=0,
        )

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = [(spec, tensors[spec.name]) for spec in self.inputs]
        names = {dtype: name for name, dtype in DTYPES.items()}
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": spec.name,
                        "shape": tensor.shape,
                        "datatype": names[spec.dtype],
                        "parameters": {"binary_data_size": tensor.nbytes},
                    }
                    for spec, tensor in given
                ],
                "outputs": [
                    {"name": spec.name, "parameters": {"binary_data": True}} for spec in self.outputs
                ],
            }
        ).encode()
        body: list[bytes | memoryview] = [head, *(tensor.data.cast("B") for _, tensor in given)]
        headers, data = self._connection.request(
            "POST",
            f"{self._path}/infer",
            self.deadline_s,
            MAX_OUTPUT_BYTES,
            body,
            {_HEAD_LENGTH: str(len(head))},
        )
        return self._outputs(headers, data)

    def _outputs(self, headers: HTTPMessage, data: bytes) -> dict[str, np.ndarray]:
        length = headers.get(_HEAD_LENGTH, "")
        if not re.fullmatch(r"[0-9]{1,12}", length) or int(length) > len(data):
            raise self._error(
                f"expected binary outputs with {_HEAD_LENGTH}, got {self._quoted(length or data)}"
            )
        at, found = int(length), {}
        answer = self._object(data[:at], "the outputs")
        expected = {spec.name: spec for spec in self.outputs}
        try:
            for one in answer["outputs"]:
                spec, size = expected[one["name"]], one["parameters"]["binary_data_size"]
                found[spec.name] = self._tensor(spec, one, data, at, size)
                at += size
            if len(found) != len(expected) or at != len(data):
                raise ValueError(f"{len(data) - at} bytes left")
        except _MALFORMED as error:
            names, got = ", ".join(expected), self._text(repr(error))
            raise self._error(
                f"expected the outputs {names} as in its metadata, got others ({got})"
            ) from None
        return found

    def _quoted(self, value: str | bytes) -> str:
        if isinstance(value, bytes) and value.lstrip().startswith(b"<"):
            return f"a page: {self._connection.words(value)}"
        return self._connection.shown(repr(value[:_QUOTED]))[:60]

    def _text(self, value: object) -> str:
        """A short text of the server."""
        return self._connection.shown(str(value))[:100]

    def _spec(self, one: Mapping[str, Any]) -> TensorSpec:
        """Of the metadata; a free dimension is -1 there."""
        shape = tuple(None if size == -1 else size for size in one["shape"])
        if not all(size is None or (type(size) is int and size >= 0) for size in shape):
            raise ValueError(f"shape {one['shape']}")
        return TensorSpec(self._text(one["name"]), shape, DTYPES[one["datatype"]])

    def _tensor(
        self, spec: TensorSpec, one: Mapping[str, Any], data: bytes, at: int, size: int
    ) -> np.ndarray:
        """An output, copied: it is aligned and can be written to. Raises ValueError if it is another one."""
        found = self._spec(one)
        sides = [side for side in found.shape if side is not None]
        same = len(sides) == len(found.shape) == len(spec.shape) and all(
            expected in (None, side) for side, expected in zip(sides, spec.shape, strict=True)
        )
        if not same or found.dtype != spec.dtype or size != math.prod(sides) * np.dtype(spec.dtype).itemsize:
            raise ValueError(f"{found} of {size} bytes")
        return np.ndarray(sides, spec.dtype, data, at).copy()

    def close(self) -> None:
        super().close()
        self._connection.close()


class KserveBackend(Backend):
    """A server of the request's `remote_url`. Without options. Device: auto, as the server chooses it.

    It has the graph, so what is loaded is the folder of the bundle that describes it.
    """

    name = "kserve"
    title = "Open Inference Protocol v2"
    formats = (FORMAT,)
    install_hint = "set remote_url, see docs/remote.md"
    can_optimize = False
    remote = True

    def unavailable_reason(self) -> str | None:
        return f"it infers on a server: {self.install_hint}"

    def load(self, graph: Path, request: BackendRequest) -> Session:
        from edge_vision.detect.detector import check_input  # Both import OpenCV.
        from edge_vision.detect.heads import make_head

        request.check_options(self.name, ("none",))
        if not request.remote_url:
            raise BackendUnavailable(f"{self.name} needs the address of a server: {self.install_hint}")
        if request.device != "auto":
            raise BackendUnavailable(f"{self.name} knows the device auto, got '{request.device}'")
        bundle = load_bundle(str(graph.absolute()))
        connection = Connection(request.remote_url)
        session = KserveSession(connection, *_served(bundle))
        try:
            check_input(bundle.manifest.input, session)
            make_head(bundle.manifest.head, bundle.manifest.input, session.outputs, len(bundle.labels))
            if request.route == "auto":
                from edge_vision.remote.routing import routed

                return routed(session, bundle, request)
        except (BundleError, HeadError) as error:
            session.close()
            raise BackendError(
                f"the model of the server {connection.name} does not fit bundle {bundle.name}: {error}"
            ) from None
        except BackendError:
            session.close()
            raise
        return session


def _served(bundle: Bundle) -> tuple[str, str]:
    """Name and version of the model on the server, "" for the version that the server chooses.

    They are in the bundle's graph of the format `remote`; without one, it is the bundle's name.
    """
    if all(graph.format != FORMAT for graph in bundle.manifest.graphs):
        return bundle.name, ""
    path, _ = bundle.graph_path((FORMAT,))
    text = path.read_text("utf-8", "replace") if path.stat().st_size <= schema.MAX_YAML_BYTES else ""
    section = schema.Section(schema.load_yaml(text, str(path)), str(path), "", ("model", "version"))
    name = section.take(
        "model", schema.matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), "the model's name on the server"
    )
    return name, section.take("version", schema.matching(r"\d{1,9}"), "a version like '3'", "")
