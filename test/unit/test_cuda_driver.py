"""The calls to NVIDIA's driver and the session on top of them, where no GPU is.

A library in C with the driver's functions, on the memory of this machine, shows that they are called as the
driver's header says: order, types, sizes. It is no GPU, and says nothing of one.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_vision.backends.base import BackendActual
from edge_vision.backends.runtimes import cuda_driver
from edge_vision.backends.runtimes.cuda_driver import CudaDevice, CudaMemory, gpu_names, unavailable_reason
from edge_vision.backends.runtimes.tensorrt import TensorRtSession
from edge_vision.errors import BackendError, BackendUnavailable

_DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define FAILS(condition) if (condition) return 1
static int started, context = 7, stream = 9, current, live;
int cuInit(unsigned flags) { started = 1; return 0; }
int cuGetErrorString(int status, const char **text) { *text = "made to fail"; return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return !started; }
int cuDeviceGet(int *device, int index) { *device = index + 40; return index >= GPUS; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, "Test GPU", length);
    return device < 40;
}
int cuDeviceGetAttribute(int *value, int number, int device) {
    *value = number == 75 ? 8 : number == 76 ? 7 : -1;
    return device < 40;
}
int cuDevicePrimaryCtxRetain(void **c, int device) { *c = &context; live++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { live--; return device < 40; }
int cuCtxSetCurrent(void *c) { current = c == &context; return !current; }
int cuStreamCreate(void **s, unsigned flags) { FAILS(!current); *s = &stream; live++; return 0; }
int cuStreamDestroy_v2(void *s) { live--; return s != &stream; }
int cuStreamSynchronize(void *s) { return s != &stream; }
int cuMemAlloc_v2(uint64_t *p, size_t n) {
    FAILS(!current || n > (1u << 30));
    *p = (uint64_t)malloc(n);
    live++;
    return 0;
}
int cuMemFree_v2(uint64_t p) { free((void *)p); live--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) {
    memcpy((void *)to, from, n);
    return s != &stream;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
    memcpy(to, (void *)from, n);
    return s != &stream;
}
int live_things(void) { return live; }
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return make_driver(tmp_path, monkeypatch, gpus=2)


def make_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: int) -> Any:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: sudo apt install gcc")
    source, library = folder / "driver.c", folder / f"libdriver{gpus}.so"
    source.write_text(_DRIVER)
    subprocess.run([compiler, f"-DGPUS={gpus}", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(library))
    return ctypes.CDLL(str(library))


def test_a_gpu_is_named_with_what_an_engine_depends_on(driver: Any) -> None:
    assert unavailable_reason() is None and gpu_names() == ("Test GPU", "Test GPU")
    device = CudaDevice(1)
    assert device.identity.name == "Test GPU sm_87"
    assert device.identity.driver.endswith("CUDA 12.6")
    device.close()
    device.close()
    assert driver.live_things() == 0


def test_bytes_go_there_and_back(driver: Any) -> None:
    device = CudaDevice()
    values = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    memory, back = CudaMemory(device, values.nbytes), np.zeros_like(values)
    memory.write(values)
    memory.read(back)
    device.wait()
    np.testing.assert_array_equal(back, values)
    memory.close()
    memory.close()
    device.close()
    assert driver.live_things() == 0


def test_a_call_that_fails_is_an_error_in_the_drivers_words(driver: Any) -> None:
    device = CudaDevice()
    with pytest.raises(BackendError, match=r"cuMemAlloc_v2 returned 1 \(made to fail\)"):
        CudaMemory(device, 1 << 31)
    device.close()


def test_a_gpu_that_is_not_there(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match="there are 2 NVIDIA GPUs, requested number 2"):
        CudaDevice(2)
    make_driver(tmp_path, monkeypatch, gpus=0)
    assert "reports no GPU" in str(unavailable_reason())


def test_no_driver_is_a_reason_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libnowhere.so.1")
    assert "no NVIDIA GPU driver found (libnowhere.so.1" in str(unavailable_reason())


# A runtime with the names that the session calls, whose engine doubles its input in the driver's memory.


class _Engine:
    num_io_tensors = 2
    _tensors = (("images", (1, 3), True), ("logits", (1, 3), False))

    def get_tensor_name(self, i: int) -> str:
        return self._tensors[i][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return next(shape for known, shape, _ in self._tensors if known == name)

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def create_execution_context(self) -> _Context:
        return _Context()


class _Context:
    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        source, target = (
            np.ctypeslib.as_array((ctypes.c_float * 3).from_address(self.addresses[name]))
            for name in ("images", "logits")
        )
        target[:] = source * 2
        return stream != 0


def runtime_module(engine: _Engine | None) -> Any:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    return SimpleNamespace(
        ILogger=object,
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
        nptype=np.dtype,
    )


ACTUAL = BackendActual("tensorrt", "10", "gpu", "Test GPU", "fp16", 0)


def test_a_session_fills_runs_and_empties_the_memory(driver: Any) -> None:
    session = TensorRtSession(runtime_module(_Engine()), b"engine", CudaDevice(), ACTUAL)
    assert [spec.name for spec in session.inputs] == ["images"]
    assert [(spec.name, spec.shape, spec.dtype) for spec in session.outputs] == [
        ("logits", (1, 3), "float32")
    ]
    for n in (1.0, 2.0):
        out = session.run({"images": np.full((1, 3), n, np.float32)})
        assert out["logits"].tolist() == [[2 * n] * 3]
    with pytest.raises(
        BackendError, match=r"tensorrt expects input 'images' as \[1, 3\] float32, got \[1, 4\]"
    ):
        session.run({"images": np.zeros((1, 4), np.float32)})
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"images": np.zeros((1, 3), np.float32)})
    assert driver.live_things() == 0


def test_an_engine_that_does_not_open_is_an_error(driver: Any) -> None:
    with pytest.raises(BackendError, match="tensorrt cannot open the engine"):
        TensorRtSession(runtime_module(None), b"engine", CudaDevice(), ACTUAL)
