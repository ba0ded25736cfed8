"""Devices, memory and copies of an NVIDIA GPU through the driver's own library, without a CUDA package.

Source: the CUDA driver API. The status of every call is checked.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.errors import BackendError, BackendUnavailable

LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # Numbers of CUdevice_attribute.
_VERSION_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """name: with the compute capability, "NVIDIA Orin sm_87". driver: kernel driver and CUDA version."""

    name: str
    driver: str


NO_GPU = GpuIdentity("none", "none")
"""The identity of engines built on a machine without a GPU."""


class CudaDevice:
    """A GPU and its context. Used by one thread at a time, after it called `use`."""

    def __init__(self, index: int = 0) -> None:
        """Raises BackendUnavailable if there is no driver or no such GPU."""
        self._lib = _library()
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        if index >= count.value:
            raise BackendUnavailable(f"there are {count.value} NVIDIA GPUs, requested number {index}")
        self._device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self._device), index)
        self.identity = self._identity()
        self._context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.use()
        self.stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def use(self) -> None:
        """Make its context current in the calling thread."""
        self.call("cuCtxSetCurrent", self._context)

    def wait(self) -> None:
        """Wait until the stream is idle."""
        self.call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        if self._context:
            self.use()
            self.call("cuStreamDestroy_v2", self.stream)
            self.call("cuDevicePrimaryCtxRelease_v2", self._device)
            self._context = ctypes.c_void_p()

    def call(self, function: str, *arguments: Any) -> None:
        """Call the driver. Raises BackendError with its error text."""
        _checked(self._lib, function, *arguments)

    def _identity(self) -> GpuIdentity:
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self.call("cuDeviceGetName", name, _NAME_BYTES, self._device)
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        capability = f"sm_{self._attribute(_MAJOR)}{self._attribute(_MINOR)}"
        cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        return GpuIdentity(f"{name.value.decode()} {capability}", f"{_kernel_driver()}, {cuda}")

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value


class CudaMemory:
    """GPU memory for one tensor."""

    def __init__(self, device: CudaDevice, n_bytes: int) -> None:
        self._device = device
        self._pointer = ctypes.c_uint64()
        device.call("cuMemAlloc_v2", ctypes.byref(self._pointer), ctypes.c_size_t(max(1, n_bytes)))

    @property
    def address(self) -> int:
        return self._pointer.value

    def write(self, values: np.ndarray) -> None:
        """Copy a C-contiguous array to the GPU, in the stream."""
        self._device.call(
            "cuMemcpyHtoDAsync_v2", self._pointer, *_pointer_and_size(values), self._device.stream
        )

    def read(self, values: np.ndarray) -> None:
        """Copy from the GPU into a C-contiguous array, in the stream."""
        pointer, size = _pointer_and_size(values)
        self._device.call("cuMemcpyDtoHAsync_v2", pointer, self._pointer, size, self._device.stream)

    def close(self) -> None:
        if self._pointer.value:
            self._device.call("cuMemFree_v2", self._pointer)
            self._pointer = ctypes.c_uint64()


def _checked(library: Any, function: str, *arguments: Any) -> None:
    status = getattr(library, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        message = (text.value or b"no text").decode()
        raise BackendError(f"the GPU driver failed: {function} returned {status} ({message})")


def _pointer_and_size(values: np.ndarray) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(values.ctypes.data), ctypes.c_size_t(values.nbytes)


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs that the driver reports. Raises BackendError."""
    library, names = _library(), []
    count = ctypes.c_int()
    _checked(library, "cuDeviceGetCount", ctypes.byref(count))
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
        _checked(library, "cuDeviceGet", ctypes.byref(device), index)
        _checked(library, "cuDeviceGetName", name, _NAME_BYTES, device)
        names.append(name.value.decode())
    return tuple(names)


def unavailable_reason() -> str | None:
    """None if there is a driver with a GPU, else one sentence that ends with the remedy."""
    try:
        library, count = _library(), ctypes.c_int()
        status = library.cuDeviceGetCount(ctypes.byref(count))
    except BackendUnavailable as error:
        return str(error)
    if status or not count.value:
        return "the NVIDIA driver reports no GPU: check nvidia-smi, and --gpus of the container"
    return None


def _library() -> Any:
    """The initialised driver library. Raises BackendUnavailable."""
    try:
        library = ctypes.CDLL(LIBRARY)
        status = library.cuInit(0)
    except (OSError, AttributeError) as error:
        raise BackendUnavailable(
            f"no NVIDIA GPU driver found ({error}): install it, or use another backend"
        ) from error
    if status:
        raise BackendUnavailable(
            f"the NVIDIA driver does not start (cuInit returned {status}): check nvidia-smi, and --gpus of "
            f"the container"
        )
    return library


def _kernel_driver() -> str:
    """The version of the kernel driver, or "unavailable"."""
    for path in _VERSION_FILES:
        try:
            text = path.read_text().splitlines()[0]
        except (OSError, IndexError):
            continue
        found = re.search(r"\d+\.\d+(\.\d+)*", text)
        return found[0] if found and "tegra" not in path.name else text.strip("# ")
    return "unavailable"
