"""ONNX Runtime sessions of graphs in memory: the original, folded, or quantized one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edge_vision.backends.onnxruntime import DISABLED_OPTIMIZERS
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.graph_edit import load_model, tidy_opsets


def session(model: Any, exact: bool = False) -> Any:
    """An ONNX Runtime session of a model, its bytes, or its file, on one thread.

    exact: quantizers are carried out one by one in fp32, nothing is fused. Else as the backend does it.
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
    except Exception as error:  # Its exceptions have no common base of their own.
        raise OptimizeError(
            f"onnxruntime cannot load the graph: {' '.join(str(error).split())[:300]}"
        ) from None


def folded(file: Path) -> Any:
    """The model with constants folded and normalisations in their convolutions: what is to be quantized."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # As above.
            raise OptimizeError(
                f"onnxruntime cannot load {file}: {' '.join(str(error).split())[:300]}"
            ) from None
        model = load_model(Path(options.optimized_model_filepath))
    tidy_opsets(model)
    return model
