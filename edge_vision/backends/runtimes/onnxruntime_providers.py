"""ONNX Runtime's execution providers: their devices, and their options for device and precision.

Source of the options: the page of each provider on onnxruntime.ai/docs/execution-providers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_vision.backends.base import BackendRequest
from edge_vision.errors import BackendUnavailable

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "cann": "CANNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
}
_PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "qnn": "onnxruntime-qnn",
    "migraphx": "onnxruntime-migraphx",
}
# What "auto" tries, in this order. Not tensorrt: building its engine takes minutes, so it must be requested.
_AUTO_DEVICES = ("cuda", "migraphx", "rocm", "cpu")
_QNN_LIBRARIES = {"htp": "libQnnHtp.so", "npu": "libQnnHtp.so", "gpu": "libQnnGpu.so", "cpu": "libQnnCpu.so"}


@dataclass(frozen=True, slots=True)
class Device:
    """name: of PROVIDERS. part: what follows the colon, a number or a device of the provider."""

    name: str
    part: str = ""

    @property
    def provider(self) -> str:
        return PROVIDERS[self.name]

    def __str__(self) -> str:
        return f"{self.name}:{self.part}" if self.part else self.name


def choose_device(wanted: str, available: list[str]) -> Device:
    """The device to use. Raises BackendUnavailable for one that is unknown or not built in."""
    if wanted == "auto":
        return Device(next(device for device in _AUTO_DEVICES if PROVIDERS[device] in available))
    name, _, part = wanted.partition(":")
    if name not in PROVIDERS or (part and name == "cpu"):
        raise BackendUnavailable(
            f"onnxruntime knows the devices auto, {', '.join(PROVIDERS)}, got '{wanted}'"
        )
    if PROVIDERS[name] not in available:
        have = [device for device, provider in PROVIDERS.items() if provider in available]
        remedy = f"pip install {_PACKAGES[name]}" if name in _PACKAGES else "install a build that includes it"
        raise BackendUnavailable(
            f"this build of onnxruntime has no {PROVIDERS[name]}, only {', '.join(have)}: {remedy}"
        )
    return Device(name, part)


def provider_chain(
    device: Device, request: BackendRequest, extra: Mapping[str, Any], available: list[str], threads: int
) -> list[tuple[str, dict[str, str]]]:
    """The providers with their options, the requested one first; the others run the nodes that it cannot.

    extra: the user's options for the requested provider, which take precedence.
    """
    make = _OPTIONS_OF.get(device.name, _no_options)
    options = {**make(device.part, request.precision, threads), **{k: str(v) for k, v in extra.items()}}
    chain = [(device.provider, options)]
    if device.name == "tensorrt" and PROVIDERS["cuda"] in available:
        chain.append((PROVIDERS["cuda"], _cuda(device.part, request.precision, threads)))
    if device.name != "cpu":
        chain.append((PROVIDERS["cpu"], {}))
    return chain


def _no_options(part: str, precision: str, threads: int) -> dict[str, str]:
    return {}


def _numbered(part: str, precision: str, threads: int) -> dict[str, str]:
    if part and not part.isdigit():
        raise BackendUnavailable(f"onnxruntime counts its GPUs, as in cuda:1, got ':{part}'")
    return {"device_id": part or "0"}


def _cuda(part: str, precision: str, threads: int) -> dict[str, str]:
    # By default it multiplies fp32 with 10 bits (TF32), which is not the requested precision.
    return {**_numbered(part, precision, threads), "use_tf32": "0"}


def _tensorrt(part: str, precision: str, threads: int) -> dict[str, str]:
    # Its engine cache opens any file in its folder. The backend `tensorrt` verifies its engines.
    wanted = {f"trt_{name}_enable": "1" for name in ("fp16", "bf16", "int8") if name == precision}
    return {**_numbered(part, precision, threads), "trt_engine_cache_enable": "0", **wanted}


def _migraphx(part: str, precision: str, threads: int) -> dict[str, str]:
    wanted = {f"migraphx_{name}_enable": "1" for name in ("fp16", "int8") if name == precision}
    return {**_numbered(part, precision, threads), **wanted}


def _openvino(part: str, precision: str, threads: int) -> dict[str, str]:
    device = (part or "cpu").upper()
    options = {"device_type": device}
    if device == "CPU":
        options["num_of_threads"] = str(threads)
    if precision in ("fp32", "fp16"):
        options["precision"] = precision.upper()
    return options


def _qnn(part: str, precision: str, threads: int) -> dict[str, str]:
    name = part or "htp"
    if name not in _QNN_LIBRARIES:
        raise BackendUnavailable(f"qnn has the parts {', '.join(_QNN_LIBRARIES)}, got '{name}'")
    wanted = {"enable_htp_fp16_precision": "1"} if precision == "fp16" else {}
    return {"backend_path": _QNN_LIBRARIES[name], **wanted}


def _xnnpack(part: str, precision: str, threads: int) -> dict[str, str]:
    return {"intra_op_num_threads": str(threads)}


_OPTIONS_OF: Mapping[str, Callable[[str, str, int], dict[str, str]]] = {
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "migraphx": _migraphx,
    "rocm": _numbered,
    "directml": _numbered,
    "cann": _numbered,
    "openvino": _openvino,
    "qnn": _qnn,
    "xnnpack": _xnnpack,
}
# Provider -> option that enables a precision, for providers whose sessions report their options.
_READ_BACK = {
    "TensorrtExecutionProvider": {
        "trt_fp16_enable": "fp16",
        "trt_bf16_enable": "bf16",
        "trt_int8_enable": "int8",
    },
    "MIGraphXExecutionProvider": {"migraphx_fp16_enable": "fp16", "migraphx_int8_enable": "int8"},
    "QNNExecutionProvider": {"enable_htp_fp16_precision": "fp16"},
}


def reported_precision(provider: str, options: Mapping[str, Any]) -> str:
    """The precision in a session's provider options, "unavailable" if they have none."""
    for option, precision in _READ_BACK.get(provider, {}).items():
        if str(options.get(option, "0")).lower() in ("1", "true"):
            return precision
    return "unavailable"
