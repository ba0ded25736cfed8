"""Times of graphs by that of another one, and of nodes within the whole graph: alone, a node would take
another time."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_vision.backends import available_backends
from edge_vision.backends.runtimes.onnxruntime import DISABLED_OPTIMIZERS
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.quantization import graph_session

RUNTIMES = ("onnxruntime", "openvino")
_WARM_UP, _LOADS = 2, 3
_RUNS = 30
_KERNEL = "_kernel_time"
_WITHOUT_BIASES = "/WithoutBiases"
"""Ends the name of an int8 convolution in OpenVINO."""
_FUSED = re.compile(r"(_token_\d+|_nchwc)$")
"""Ends the name of a node that ONNX Runtime fused, or whose layout it changed."""


def installed_runtimes() -> list[str]:
    """Those of RUNTIMES that run here."""
    available = available_backends()
    return [name for name in RUNTIMES if available.get(name, "") is None]


def runner(runtime: str, model: Any) -> Callable[[np.ndarray], Any]:
    """Runs a graph with one thread."""
    if runtime == "onnxruntime":
        session = graph_session.session(model)
        name = session.get_inputs()[0].name
        return lambda tensor: session.run(None, {name: tensor})
    request = _openvino_request(model)
    return lambda tensor: request.infer([tensor])


def _openvino_request(model: Any, settings: Mapping[str, Any] = {}) -> Any:
    import openvino

    # In float32 as the backend: on some processors the default is bfloat16.
    core = openvino.Core()
    given = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", **settings}
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", given).create_infer_request()


def time_ratio(
    runtime: str,
    model: Any,
    tensor: np.ndarray,
    other: Any,
    other_tensor: np.ndarray,
    rounds: int,
    show: Count = no_count,
    loads: int = _LOADS,
) -> float:
    """The median ratio of CPU times of this process, alternating, each with one thread.

    The time of a graph depends on where its memory lies, so both are loaded again for each of the loads: with
    one load, ratios rose by up to 10 % within a run. show: receives the number of loads that are done.
    """
    ratios: list[float] = []
    for number in range(loads):
        show(number, loads)
        ours, theirs = (runner(runtime, one) for one in (model, other))
        ratios += _ratios(ours, tensor, theirs, other_tensor, rounds // loads)
    return statistics.median(ratios)


def _ratios(
    run: Callable[[np.ndarray], Any],
    tensor: np.ndarray,
    other: Callable[[np.ndarray], Any],
    other_tensor: np.ndarray,
    rounds: int,
) -> list[float]:
    pairs = ((run, tensor), (other, other_tensor))
    times: list[list[float]] = [[], []]
    for _ in range(_WARM_UP + rounds):
        for (one, image), found in zip(pairs, times, strict=True):
            started = time.process_time()
            one(image)
            found.append(time.process_time() - started)
    ours, theirs = (found[_WARM_UP:] for found in times)
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def shared_layer_times(model: Any, tensor: np.ndarray, show: Count = no_count) -> dict[str, float]:
    """Node name -> share of the time of the whole graph, the mean over the installed runtimes. show: receives
    the number of runtimes that are done."""
    found: dict[str, float] = defaultdict(float)
    runtimes = installed_runtimes()
    for number, runtime in enumerate(runtimes):
        show(number, len(runtimes))
        times = layer_times(model, tensor, runtime)
        for name, value in times.items():
            found[name] += value / sum(times.values()) / len(runtimes)
    return dict(found)


def layer_times(model: Any, tensor: np.ndarray, runtime: str) -> dict[str, float]:
    """Node name -> median time in us, with one thread; 0 is left out. A convolution has the time of the node
    that it is fused into."""
    measured = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}[runtime](model, tensor)
    medians = {name: float(statistics.median(values)) for name, values in measured.items()}
    return _by_convolution(model, {name: time for name, time in medians.items() if time})


def _in_onnxruntime(model: Any, tensor: np.ndarray) -> dict[str, list[float]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS,
        )
        for _ in range(_RUNS):
            session.run(None, {session.get_inputs()[0].name: tensor})
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            times[_FUSED.sub("", event["name"][: -len(_KERNEL)])].append(event["dur"])
    return times


def _in_openvino(model: Any, tensor: np.ndarray) -> dict[str, list[float]]:
    request = _openvino_request(model, {"PERF_COUNT": True})
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(_RUNS):
        request.infer([tensor])
        for one in request.get_profiling_info():
            times[one.node_name.removesuffix(_WITHOUT_BIASES)].append(one.real_time.total_seconds() * 1e6)
    return times


def _by_convolution(model: Any, times: Mapping[str, float]) -> dict[str, float]:
    """A fused node has the name of its last part: give its time to the convolution."""
    found, readers = dict(times), defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for layer in (node for node in model.graph.node if node.op_type == "Conv"):
        node, after = layer, readers[layer.output[0]]
        while node.name not in found and len(after) == 1 and after[0].op_type != "Conv":
            node = after[0]
            after = readers[node.output[0]]
        if node is not layer and node.name in found:
            found[layer.name] = found.pop(node.name)
    return found
