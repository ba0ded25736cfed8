"""Reads the parts of a TensorFlow Lite file that a conversion needs, with NumPy only.

Source of the layout: the FlatBuffers binary format, and `schema.fbs` of TensorFlow Lite, version 3, which
numbers the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_vision.errors import BundleError

_IDENTIFIER = b"TFL3"
_DTYPES: Mapping[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32}
_OPS = {0: "ADD", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 22: "RESHAPE"}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """values: of a constant, None for any other tensor."""

    name: str
    shape: tuple[int, ...]
    values: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Operator:
    """inputs, outputs: indices of tensors, -1 for an omitted one. options: see the schema."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None


@dataclass(frozen=True, slots=True)
class TfliteGraph:
    """The first subgraph. operators: in execution order."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...] = field(default=())


class Table:
    """A table of a FlatBuffer, with fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _read(data, "<i", at)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _read(data, "<I", 0))

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        """A number, `default` if absent. form: of `struct`: "b" int8, "i" int32, "I" uint32."""
        place = self._place(number)
        return default if place is None else _read(self._data, f"<{form}", place)

    def table(self, number: int) -> Table | None:
        place = self._place(number)
        return None if place is None else Table(self._data, place + _read(self._data, "<I", place))

    def tables(self, number: int) -> list[Table]:
        start, count = self._vector(number)
        places = range(start, start + 4 * count, 4)
        return [Table(self._data, place + _read(self._data, "<I", place)) for place in places]

    def array(self, number: int, dtype: Any) -> np.ndarray:
        """A vector of numbers, (n,), empty if absent."""
        start, count = self._vector(number)
        return np.frombuffer(self._data, dtype, count, start)

    def text(self, number: int) -> str:
        return self.array(number, np.uint8).tobytes().decode("utf-8")

    def _place(self, number: int) -> int | None:
        entry = 4 + 2 * number
        if entry >= _read(self._data, "<H", self._fields):
            return None
        offset = _read(self._data, "<H", self._fields + entry)
        return self._at + offset if offset else None

    def _vector(self, number: int) -> tuple[int, int]:
        place = self._place(number)
        if place is None:
            return 0, 0
        start = place + _read(self._data, "<I", place)
        return start + 4, _read(self._data, "<I", start)


def read_tflite(data: bytes) -> TfliteGraph:
    """The graph of a TFLite file. Raises BundleError if it cannot be read."""
    if data[4:8] != _IDENTIFIER:
        raise BundleError(f"expected a TensorFlow Lite file, got a file that starts with {data[:8]!r}")
    try:
        model = Table.root(data)
        codes = [_op(code) for code in model.tables(1)]
        buffers, graph = model.tables(4), model.tables(2)[0]
        return TfliteGraph(
            tensors=tuple(_tensor(tensor, buffers) for tensor in graph.tables(0)),
            inputs=_numbers(graph, 1),
            outputs=_numbers(graph, 2),
            operators=tuple(
                Operator(codes[one.scalar(0, "I")], _numbers(one, 1), _numbers(one, 2), one.table(4))
                for one in graph.tables(3)
            ),
        )
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise BundleError(
            f"expected a TensorFlow Lite graph, got one that cannot be read: {error!r}"
        ) from None


def _read(data: bytes, form: str, at: int) -> int:
    if at < 0:
        raise ValueError(f"negative offset {at}")
    return int(struct.unpack_from(form, data, at)[0])


def _op(code: Table) -> str:
    # Codes above 127 have their own field, which was added later.
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    return _OPS.get(number, f"builtin operation {number}")


def _numbers(table: Table, number: int) -> tuple[int, ...]:
    return tuple(int(value) for value in table.array(number, np.int32))


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    shape = _numbers(table, 0)
    data = buffers[table.scalar(2, "I")].array(0, np.uint8)
    values = data.view(_DTYPES[table.scalar(1, "b")]).reshape(shape) if data.size else None
    return Tensor(table.text(3), shape, values)
