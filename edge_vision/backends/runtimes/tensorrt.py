"""TensorRT: runs ONNX on NVIDIA's GPUs, from an engine that it builds once for each graph and device.

`tensorrt` is for Jetsons and data centres, `tensorrt_rtx` for PCs with RTX cards. Both build from the same
graph, but neither opens an engine of the other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_vision.backends.base import Backend, BackendActual, BackendRequest, Session, TensorSpec
from edge_vision.backends.runtimes import cuda_driver
from edge_vision.backends.runtimes.cuda_driver import NO_GPU, CudaDevice, CudaMemory, GpuIdentity
from edge_vision.backends.runtimes.engine_cache import CachedEngine, EngineCache, EngineKey, graph_sha256
from edge_vision.backends.runtimes.onnx_file import check_onnx
from edge_vision.backends.runtimes.tensorrt_build import build_engine, built_precision, quiet_logger
from edge_vision.errors import BackendError, BackendUnavailable

_OPTIONS = ("cache_dir", "rebuild")


class TensorRtSession(Session):
    """An engine on a GPU."""

    def __init__(self, module: Any, engine: bytes, device: CudaDevice, actual: BackendActual) -> None:
        """Opens a verified engine. Raises BackendError."""
        self._device = device
        self._logger = quiet_logger(module)
        # The engine needs its runtime as long as it lives.
        self._runtime = module.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendError(f"tensorrt cannot open the engine: {self._logger.errors_text()}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(
                f"the GPU has no memory for the engine of tensorrt: {self._logger.errors_text()}"
            )
        specs = [_tensor_spec(module, self._engine, i) for i in range(self._engine.num_io_tensors)]
        self.inputs = tuple(spec for spec, is_input in specs if is_input)
        self.outputs = tuple(spec for spec, is_input in specs if not is_input)
        self.actual = actual
        self._memory = {spec.name: CudaMemory(device, _empty(spec).nbytes) for spec, _ in specs}
        self._results = {spec.name: _empty(spec) for spec in self.outputs}
        for name, memory in self._memory.items():
            self._context.set_tensor_address(name, memory.address)

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._device.use()
        for spec in self.inputs:
            self._memory[spec.name].write(np.ascontiguousarray(tensors[spec.name]))
        if not self._context.execute_async_v3(self._device.stream.value):
            raise BackendError(f"tensorrt failed on the graph: {self._logger.errors_text()}")
        for name, values in self._results.items():
            self._memory[name].read(values)
        self._device.wait()
        return dict(self._results)

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._device.use()
            for memory in self._memory.values():
                memory.close()
            self._context = self._engine = self._runtime = None
            self._device.close()


class TensorRtBackend(Backend):
    """Devices: gpu or cuda, with :1 for the second one. The first load builds the engine, which takes minutes
    on a Jetson, and keeps it. Options: cache_dir, another folder for engines; rebuild, build it again.
    """

    name = "tensorrt"
    title = "TensorRT"
    distributions: ClassVar[tuple[str, ...]] = ("tensorrt",)
    can_optimize = False
    builds_engines = True
    formats = ("onnx",)
    install_hint = "pip install tensorrt; on a Jetson: sudo apt install python3-libnvinfer"
    load_limit_s = 3600.0
    module: ClassVar[str] = "tensorrt"

    def unavailable_reason(self) -> str | None:
        return self.package_missing() or cuda_driver.unavailable_reason()

    def devices(self) -> tuple[str, ...]:
        return cuda_driver.gpu_names()

    def load(self, graph: Path, request: BackendRequest) -> Session:
        """See the contract. Raises EngineRefused for a kept engine that is not verified."""
        request.check_options(self.name, _OPTIONS)
        index = gpu_index(request.device)
        check_onnx(graph)
        self.check_available()
        device = CudaDevice(index)
        try:
            kept = self.engine(graph, request, device.identity)
            return TensorRtSession(self._import(), kept.engine, device, self._actual(request, device, kept))
        except BaseException:
            device.close()
            raise

    def engine(self, graph: Path, request: BackendRequest, gpu: GpuIdentity = NO_GPU) -> CachedEngine:
        """The engine for a graph on a GPU, from the cache or built now, not opened.

        Raises BackendError, BackendUnavailable, EngineRefused.
        """
        reason = self.package_missing()
        if reason:
            raise BackendUnavailable(reason)
        module = self._import()
        check_onnx(graph)
        precision = built_precision(module, request.precision)
        key = EngineKey(graph_sha256(graph), self.name, module.__version__, gpu.name, gpu.driver, precision)
        folder = request.options.get("cache_dir")
        cache = EngineCache(Path(folder) if folder else None)
        rebuild = bool(request.options.get("rebuild", False))
        return cache.get(key, lambda: build_engine(module, graph, precision), rebuild)

    def _import(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise BackendUnavailable(
                f"the package {self.module} cannot be imported: {error}: {self.install_hint}"
            ) from error

    def _actual(self, request: BackendRequest, device: CudaDevice, kept: CachedEngine) -> BackendActual:
        module = self._import()
        precision = built_precision(module, request.precision)
        return BackendActual(
            backend=self.name,
            version=module.__version__,
            device="gpu",
            provider=device.identity.name,
            precision="unavailable" if precision == "graph" else precision,
            threads=0,
            notes=(kept.note,) if kept.note else (),
        )


class TensorRtRtxBackend(TensorRtBackend):
    """TensorRT for RTX. It also builds engines without a GPU, always in the precision of the graph."""

    name = "tensorrt_rtx"
    title = "TensorRT for RTX"
    distributions = ("tensorrt-rtx",)
    builds_without_device = True
    install_hint = "pip install tensorrt-rtx-cu13 (or 'edge_vision[tensorrt]')"
    module = "tensorrt_rtx"


def gpu_index(device: str) -> int:
    """The index of the GPU in a device name. Raises BackendUnavailable for another device."""
    name, _, number = device.partition(":")
    if name not in ("auto", "gpu", "cuda") or (number and not number.isdigit()):
        raise BackendUnavailable(f"tensorrt knows the devices auto, gpu and gpu:NUMBER, got '{device}'")
    return int(number or 0)


def _tensor_spec(module: Any, engine: Any, i: int) -> tuple[TensorSpec, bool]:
    name = engine.get_tensor_name(i)
    shape = tuple(int(size) for size in engine.get_tensor_shape(name))
    spec = TensorSpec(name, shape, np.dtype(module.nptype(engine.get_tensor_dtype(name))).name)
    return spec, engine.get_tensor_mode(name) == module.TensorIOMode.INPUT


def _empty(spec: TensorSpec) -> np.ndarray:
    return np.empty([size or 1 for size in spec.shape], spec.dtype)
