"""Time of each node of a graph, measured within the whole graph: alone, a node would take another time."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.onnxruntime import DISABLED_OPTIMIZERS

_RUNS = 30
_KERNEL = "_kernel_time"
_FUSED = re.compile(r"_token_\d+$")
"""Ends the name of a node that ONNX Runtime fused."""


def layer_times(model: Any, tensor: np.ndarray) -> dict[str, float]:
    """Node name -> median time in us, in ONNX Runtime with one thread; 0 is left out."""
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
    return {name: float(statistics.median(values)) for name, values in times.items() if any(values)}
