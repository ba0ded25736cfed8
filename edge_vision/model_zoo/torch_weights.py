"""Reads the tensors of a PyTorch weights file (`torch.save` of a state dict) without PyTorch.

Such a file contains a pickle, which can execute arbitrary code. This reader resolves only the names that a
state dict needs, to replacements of its own, and refuses every other name before anything is called. It reads
both layouts: the zip of PyTorch 1.6 and later, and the earlier sequence of pickles and raw storages.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edge_vision.errors import BundleError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    """Replaces torch.FloatStorage and the other storage classes."""

    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage, whose values are read after the pickle."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def size_bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage. offset, strides: in values, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a weights file by name, as C-contiguous copies.

    Raises BundleError if the file is damaged or contains anything but tensors.
    """
    try:
        if data[:2] == b"PK":
            return _read_zip(data)
        return _read_legacy(data)
    except BundleError:
        raise
    except Exception as error:  # Damaged input makes an unpickler raise almost any exception.
        raise BundleError(
            f"weights file: expected the tensors of a state dict, got an error: {error!r}"
        ) from None


class _TensorUnpickler(pickle.Unpickler):
    """Accepts tensors only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return partial(_rebuild_tensor)
        if module == "torch" and name in _DTYPES:
            return _StorageType(np.dtype(_DTYPES[name]))
        raise BundleError(
            f"weights file: expected only tensors, got a call of {module}.{name}; "
            "the file may be malicious: do not open it with torch.load"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, count, *view = pid
        _require(kind == "storage" and isinstance(storage_type, _StorageType), "a storage", pid)
        _require(type(key) is str and type(count) is int and count >= 0, "a storage's key and count", pid)
        _require(view in ([], [None]), "a storage that is not a view of another", pid)
        return _Storage(key, storage_type.dtype, count)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_gradient: Any) -> _Tensor:
    """Replaces torch._utils._rebuild_tensor_v2, and checks that the view is within its storage."""
    whole = all(type(value) is int and value >= 0 for value in (offset, *shape, *strides))
    _require(
        isinstance(storage, _Storage) and whole and len(shape) == len(strides),
        "a tensor",
        (offset, shape, strides),
    )
    tensor = _Tensor(storage, offset, tuple(shape), tuple(strides))
    values = int(np.prod(shape, dtype=object))
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    inside = values == 0 or (last < storage.count and values <= storage.count)
    _require(inside, f"a tensor within its {storage.count} values", tensor)
    return tensor


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        _require(len(pickles) == 1, "one data.pkl", pickles)
        prefix = pickles[0].removesuffix("data.pkl")
        if prefix + "byteorder" in archive.namelist():
            order = archive.read(prefix + "byteorder")
            _require(order == b"little", "little-endian values", order)

        def read(storage: _Storage) -> bytes:
            member = archive.getinfo(f"{prefix}data/{storage.key}")
            # Not compressed, so that a small file cannot expand to a huge one.
            plain = member.compress_type == zipfile.ZIP_STORED and member.file_size == storage.size_bytes
            _require(plain, f"{storage.size_bytes} uncompressed bytes", member)
            return archive.read(member)

        return _arrays(_TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load(), read)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Pickles of magic number, protocol, machine, state dict and keys, then the count and values per key."""
    file = io.BytesIO(data)
    magic, protocol, machine, state, keys = (_TensorUnpickler(file).load() for _ in range(5))
    _require((magic, protocol) == (_LEGACY_MAGIC, _LEGACY_PROTOCOL), "PyTorch's magic number", magic)
    _require(machine["little_endian"] is True, "little-endian values", machine)
    start_of = {}
    declared = {tensor.storage.key: tensor.storage for tensor in _tensors(state).values()}
    for key in keys:
        storage = declared[key]
        (count,) = struct.unpack("<q", file.read(8))
        _require(count == storage.count, f"{storage.count} values in storage {key}", count)
        start_of[key] = file.tell()
        file.seek(storage.size_bytes, io.SEEK_CUR)
    _require(file.tell() == len(data), f"{file.tell()} bytes", len(data))
    return _arrays(state, lambda storage: data[start_of[storage.key] :][: storage.size_bytes])


def _tensors(state: Any) -> Mapping[str, _Tensor]:
    _require(isinstance(state, dict), "a state dict", type(state))
    for name, value in state.items():
        _require(type(name) is str and isinstance(value, _Tensor), "tensors by name", (name, type(value)))
    return dict(state)


def _arrays(state: Any, read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    return {name: _array(tensor, read(tensor.storage)) for name, tensor in _tensors(state).items()}


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
    values = np.frombuffer(data, tensor.storage.dtype, tensor.storage.count)
    strides = [stride * values.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, order="C")


def _require(condition: bool, expected: str, got: Any) -> None:
    if not condition:
        raise BundleError(
            f"weights file: expected {expected}, got {got!r:.200}; the file is damaged: fetch it again"
        )
