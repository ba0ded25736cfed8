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
from edge_vision.optimize.quantization import graph_session

RUNTIMES = ("onnxruntime", "openvino")
_WARM_UP = 2

_RUNS = 30
_KERNEL = "_kernel_time"
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
    import openvino

    # In float32 as the backend: on some processors the default is bfloat16.
    core, settings = openvino.Core(), {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda tensor: request.infer([tensor])


def time_ratio(
    run: Callable[[np.ndarray], Any],
    tensor: np.ndarray,
    other: Callable[[np.ndarray], Any],
    other_tensor: np.ndarray,
    rounds: int,
) -> float:
    """The median ratio of CPU times of this process, alternating."""
    pairs = ((run, tensor), (other, other_tensor))
    times: list[list[float]] = [[], []]
    for _ in range(_WARM_UP + rounds):
        for (one, image), found in zip(pairs, times, strict=True):
            started = time.process_time()
            one(image)
            found.append(time.process_time() - started)
    ours, theirs = (found[_WARM_UP:] for found in times)
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def layer_times(model: Any, tensor: np.ndarray) -> dict[str, float]:
    """Node name -> median time in us, in ONNX Runtime with one thread; 0 is left out. A convolution has the
    time of the node that it is fused into."""
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
    found = {name: float(statistics.median(values)) for name, values in times.items() if any(values)}
    return _by_convolution(model, found)


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
