"""ONNX Runtime: the options that each provider receives, and what is reported about what runs."""

from __future__ import annotations

import pytest
from model_cases import mean_graph

from edge_vision.backends import BackendRequest, make_backend
from edge_vision.backends.runtimes.onnxruntime_providers import (
    PROVIDERS,
    Device,
    choose_device,
    provider_chain,
    reported_precision,
)
from edge_vision.errors import BackendError, BackendUnavailable

ALL = list(PROVIDERS.values())


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("cpu", Device("cpu")),
        ("cuda:1", Device("cuda", "1")),
        ("openvino:gpu", Device("openvino", "gpu")),
        ("qnn", Device("qnn")),
        ("auto", Device("cuda")),
    ],
)
def test_a_device_may_have_a_part(wanted: str, expected: Device) -> None:
    assert choose_device(wanted, ALL) == expected


def test_auto_is_the_cpu_where_no_other_is_built_in() -> None:
    assert choose_device("auto", ["OpenVINOExecutionProvider", "CPUExecutionProvider"]) == Device("cpu")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("warp", "got 'warp'"),
        ("cpu:1", "got 'cpu:1'"),
        ("tensorrt", "pip install onnxruntime-gpu"),
        ("openvino:npu", "pip install onnxruntime-openvino"),
        ("acl", "a build that includes it"),
    ],
)
def test_a_device_that_is_not_there_names_the_remedy(wanted: str, message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message):
        choose_device(wanted, ["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cuda:1", "auto", {"device_id": "1", "use_tf32": "0"}),
        ("tensorrt", "auto", {"device_id": "0", "trt_engine_cache_enable": "0"}),
        ("tensorrt", "fp16", {"device_id": "0", "trt_engine_cache_enable": "0", "trt_fp16_enable": "1"}),
        ("tensorrt", "int8", {"device_id": "0", "trt_engine_cache_enable": "0", "trt_int8_enable": "1"}),
        ("openvino", "auto", {"device_type": "CPU", "num_of_threads": "3"}),
        ("openvino:gpu", "fp16", {"device_type": "GPU", "precision": "FP16"}),
        ("qnn", "fp16", {"backend_path": "libQnnHtp.so", "enable_htp_fp16_precision": "1"}),
        ("qnn:gpu", "auto", {"backend_path": "libQnnGpu.so"}),
        ("migraphx", "fp16", {"device_id": "0", "migraphx_fp16_enable": "1"}),
        ("xnnpack", "auto", {"intra_op_num_threads": "3"}),
        ("coreml", "auto", {}),
        ("cpu", "auto", {}),
    ],
)
def test_each_provider_receives_its_own_options(device: str, precision: str, expected: dict) -> None:
    chosen = choose_device(device, ALL)
    chain = provider_chain(chosen, BackendRequest(device, precision), {}, ALL, 3)
    assert chain[0] == (chosen.provider, expected)
    assert chain[-1][0] == "CPUExecutionProvider"
    assert len({name for name, _ in chain}) == len(chain)


def test_tensorrt_leaves_to_cuda_before_the_cpu() -> None:
    chain = provider_chain(Device("tensorrt", "1"), BackendRequest(), {}, ALL, 1)
    assert [(name, options.get("device_id")) for name, options in chain[1:]] == [
        ("CUDAExecutionProvider", "1"),
        ("CPUExecutionProvider", None),
    ]


def test_the_users_own_options_win() -> None:
    chain = provider_chain(Device("cuda"), BackendRequest(), {"use_tf32": 1, "gpu_mem_limit": 10}, ALL, 1)
    assert chain[0][1] == {"device_id": "0", "use_tf32": "1", "gpu_mem_limit": "10"}


@pytest.mark.parametrize("device", ["cuda:first", "qnn:brain"])
def test_a_part_that_a_provider_does_not_have_is_refused(device: str) -> None:
    with pytest.raises(BackendUnavailable, match=device.partition(":")[2]):
        provider_chain(choose_device(device, ALL), BackendRequest(device), {}, ALL, 1)


def test_the_precision_is_the_one_that_the_session_reports() -> None:
    assert reported_precision("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}) == "fp16"
    assert reported_precision("TensorrtExecutionProvider", {"trt_fp16_enable": "0"}) == "unavailable"
    assert reported_precision("CUDAExecutionProvider", {}) == "unavailable"


def test_a_provider_that_refuses_its_options_is_an_error_and_prints_nothing(tmp_path, capfd) -> None:
    backend = make_backend("onnxruntime")
    if backend.unavailable_reason():
        pytest.skip(str(backend.unavailable_reason()))
    request = BackendRequest("cpu", options={"provider_options": {"nonsense": 1}})
    try:
        actual = backend.load(mean_graph(tmp_path / "m.onnx"), request).actual
        assert actual.provider == "CPUExecutionProvider"
    except BackendError as error:
        assert "nonsense" in str(error)
    assert capfd.readouterr().out == ""
