"""ONNX Runtime sessions of graphs in memory: original, folded or quantized."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edge_vision.backends.runtimes.onnxruntime import DISABLED_OPTIMIZERS
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.graph_edit import load_model, remove_unused_opsets, short_error
from edge_vision.optimize.quantization.normal_form import (
    fuse_sums,
    modernize,
    name_nodes,
    pool_before_activations,
    to_float32,
)


def session(model: Any, exact: bool = False) -> Any:
    """A single-threaded ONNX Runtime session of a model, its bytes, or its file.

    exact: run each quantizer separately in fp32, without fusion; otherwise as the backend runs the graph.
    Raises OptimizeError.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, (bytes, str)) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class.
        raise OptimizeError(f"onnxruntime cannot load the graph: {short_error(error)}") from None


def folded(file: Path) -> Any:
    """The model with folded constants and with normalisations fused into convolutions, for quantization.

    Raises OptimizeError.
    """
    import onnxruntime

    given = modernize(load_model(file))
    to_float32(given)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(
                given.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # As above.
            raise OptimizeError(f"onnxruntime cannot load {file}: {short_error(error)}") from None
        model = load_model(Path(options.optimized_model_filepath))
    remove_unused_opsets(model)
    name_nodes(model)
    fuse_sums(model)
    pool_before_activations(model)
    return model
