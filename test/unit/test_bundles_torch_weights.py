"""The weights reader: tensors of both layouts come out right, and nothing else is ever called."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.errors import BundleError
from edge_vision.model_zoo.torch_weights import read_tensors

VALUES = np.arange(12, dtype=np.float32)


def plain(value: Any) -> bytes:
    """The opcodes of a plain value, without the frame of its pickle."""
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tensor(
    shape: Any = (3, 4),
    strides: Any = (4, 1),
    offset: Any = 0,
    count: Any = 12,
    storage: str = "FloatStorage",
) -> bytes:
    """_rebuild_tensor_v2(storage "0", ...), as PyTorch writes it."""
    pid = b"(" + plain("storage") + name("torch", storage) + plain("0") + plain("cpu") + plain(count) + b"tQ"
    rest = (
        plain(offset) + plain(shape) + plain(strides) + b"\x89" + name("collections", "OrderedDict") + b")R"
    )
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + pid + rest + b"tR"


def state(value: bytes, key: Any = "weight") -> bytes:
    """The pickle of OrderedDict([(key, value)])."""
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + plain(key) + value + b"u."


def legacy(pickled: bytes, values: bytes = VALUES.tobytes(), count: int = 12) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    rows = b"".join(pickle.dumps(value, 2) for value in head)
    return rows + pickled + pickle.dumps(["0"], 2) + struct.pack("<q", count) + values


def zipped(pickled: bytes, values: bytes = VALUES.tobytes(), packing: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("weights/data.pkl", pickled)
        archive.writestr("weights/byteorder", "little")
        archive.writestr("weights/data/0", values)
    return file.getvalue()


LAYOUTS = pytest.mark.parametrize("layout", [legacy, zipped])


@LAYOUTS
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, VALUES.reshape(3, 4)),
        ({"shape": (4, 3), "strides": (1, 4)}, VALUES.reshape(3, 4).T),
        ({"shape": (2,), "strides": (5,), "offset": 6}, VALUES[[6, 11]]),
        ({"shape": (), "strides": (), "offset": 11}, VALUES[11]),
        ({"shape": (0, 3), "strides": (3, 1)}, np.zeros((0, 3), np.float32)),
        ({"storage": "IntStorage"}, VALUES.view(np.int32).reshape(3, 4)),
    ],
)
def test_a_tensor_is_read(layout: Any, kwargs: dict[str, Any], expected: np.ndarray) -> None:
    array = read_tensors(layout(state(tensor(**kwargs))))["weight"]
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous and array.flags.owndata


HOSTILE = [
    name("os", "system") + plain(("touch {marker}",)) + b"R",
    name("builtins", "eval") + plain(("open('{marker}', 'w')",)) + b"R",
    name("builtins", "exec") + plain(("open('{marker}', 'w')",)) + b"R",
    name("builtins", "getattr") + b")R",
    name("subprocess", "Popen") + plain((["touch", "{marker}"],)) + b"R",
    name("torch", "load") + b")R",
    name("torch", "FloatStorage.__init__.__globals__") + b")R",
    name("torch._utils", "_rebuild_tensor_v2.__globals__") + b")R",
    name("collections", "OrderedDict.__init__") + b")R",
    name("collections", "defaultdict") + b")R",
    name("numpy", "load") + plain(("{marker}",)) + b"R",
    name("edge_vision.model_zoo.torch_weights", "io.open") + plain(("{marker}", "w")) + b"R",
    b"\x8c\x02os\x8c\x06system\x93" + plain(("touch {marker}",)) + b"R",
    b"(ios\nsystem\n",
    b"\x82\x01",
]


@LAYOUTS
@pytest.mark.parametrize("call", HOSTILE)
def test_a_hostile_pickle_is_refused_and_calls_nothing(layout: Any, call: bytes, tmp_path: Path) -> None:
    marker = tmp_path / "called"
    data = layout(state(call.replace(b"{marker}", str(marker).encode())))
    with pytest.raises(BundleError, match="weights file: expected"):
        read_tensors(data)
    assert not marker.exists()


def test_a_real_reduce_exploit_is_refused(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "called",))

    with pytest.raises(BundleError, match=r"expected only tensors, got a call of"):
        read_tensors(legacy(pickle.dumps({"weight": Exploit()}, 2)))
    assert not (tmp_path / "called").exists()


@LAYOUTS
@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"shape": (13,), "strides": (1,)}, "within its 12 values"),
        ({"shape": (3, 4), "strides": (4, 2)}, "within its 12 values"),
        ({"offset": 1}, "within its 12 values"),
        ({"offset": -1}, "a tensor"),
        ({"strides": (-4, 1)}, "a tensor"),
        ({"shape": (3,)}, "a tensor"),
        ({"shape": (10**9, 10**9), "strides": (0, 0)}, "within its 12 values"),
        ({"shape": (2.0, 4)}, "a tensor"),
        ({"count": -1}, "a storage's key and count"),
        ({"count": 10**12, "shape": (10**12,), "strides": (1,)}, "expected"),
        ({"storage": "BFloat16Storage"}, "a call of torch.BFloat16Storage"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(layout: Any, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_tensors(layout(state(tensor(**kwargs))))


@LAYOUTS
@pytest.mark.parametrize(
    "pickled", [pickle.dumps([1, 2], 2), state(plain(3)), state(tensor(), key=7), b"\x80\x02."]
)
def test_what_is_no_state_dict_is_refused(layout: Any, pickled: bytes) -> None:
    with pytest.raises(BundleError, match="weights file: expected"):
        read_tensors(layout(pickled))


@LAYOUTS
def test_a_truncated_file_is_refused_wherever_it_ends(layout: Any) -> None:
    data = layout(state(tensor()))
    for end in range(len(data)):
        with pytest.raises(BundleError, match="weights file: expected"):
            read_tensors(data[:end])


def test_bytes_after_the_last_storage_are_refused() -> None:
    with pytest.raises(BundleError, match="bytes"):
        read_tensors(legacy(state(tensor())) + b"x")


@pytest.mark.parametrize(
    "packed", [zipped(state(tensor()), VALUES.tobytes()[:-4]), zipped(state(tensor()), packing=8)]
)
def test_a_zip_whose_storage_is_short_or_packed_is_refused(packed: bytes) -> None:
    with pytest.raises(BundleError, match="48 uncompressed bytes"):
        read_tensors(packed)


def test_a_legacy_count_that_differs_is_refused() -> None:
    with pytest.raises(BundleError, match="12 values in storage 0"):
        read_tensors(legacy(state(tensor()), count=10**15))


def read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        read_tensors(data)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refused(data)


@given(st.integers(min_value=60), st.integers(0, 255), st.booleans())
@settings(deadline=None)
def test_any_changed_byte_is_read_or_refused(place: int, byte: int, use_zip: bool) -> None:
    data = bytearray((zipped if use_zip else legacy)(state(tensor())))
    data[place % len(data)] = byte
    read_or_refused(bytes(data))
