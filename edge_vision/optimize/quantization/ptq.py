"""Post-training quantization to int8 for runtimes that read QDQ graphs: ONNX Runtime and OpenVINO.

Ranges of activations are the smallest and largest values on the calibration pictures; which nodes get
quantizers is ONNX Runtime's own choice (`onnxruntime.quantization`), less those that are kept out; how the
weights are rounded is `fit`'s.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.onnxruntime import DISABLED_OPTIMIZERS
from edge_vision.bundles.onnx_writer import import_onnx
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import gptq
from edge_vision.optimize.quantization.graph_edit import load_model, op_types, tidy_opsets
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe

_INT8_OPS = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
LAYER_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where the arithmetic is. Their activation belongs to them."""
_IN_FP32 = ("LayerNormalization", "Softmax")
"""Quantizers around these cost accuracy and time, as no runtime here has a faster 8-bit kernel. The same
holds for the products of two activations in attention. ViT-Ti with them in int8 took 1.25 times as long in
ONNX Runtime, and its outputs were 5 dB worse."""
_ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "HardSwish", "Sigmoid")


def calibrate(model: Any, tensors: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """The range of every tensor of a folded model over input tensors. Raises OptimizeError for none."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    if not tensors:
        raise OptimizeError("expected pictures to calibrate on, got none")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        file.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            str(file), None, f"{folder}/augmented.onnx", calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(reader(model.graph.input[0].name, tensors))
        found = calibrator.compute_data()
    return {
        name: (float(np.min(data.range_value[0])), float(np.max(data.range_value[1])))
        for name, data in found.items()
    }


def reader(name: str, tensors: Sequence[np.ndarray]) -> Any:
    """ONNX Runtime's way of asking for pictures."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[np.ndarray] = iter(tensors)

        def get_next(self) -> dict[str, np.ndarray] | None:
            tensor = next(self._left, None)
            return None if tensor is None else {name: tensor}

    return Reader()


def quantized(
    model: Any,
    ranges: gptq.Ranges,
    recipe: Int8Recipe,
    only: Sequence[str] = (),
    kept: Sequence[str] = (),
    fits: Mapping[str, gptq.Fit] | None = None,
) -> Any:
    """A QDQ model of a folded one. only: nodes to quantize, empty = all; kept: nodes that stay in fp32; fits:
    how weights are rounded, by layer: to nearest where there is none."""
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.registry import QDQRegistry

    logging.getLogger().setLevel(logging.ERROR)  # It warns of each node that it leaves alone.
    kinds = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        recipe.per_channel,
        recipe.reduce_range,
        kinds[recipe.weights],
        kinds[recipe.activations],
        TensorsData(CalibrationMethod.MinMax, data),
        list(only),
        [*kept, *in_fp32(model)],
        list(QDQRegistry),
        {"ActivationSymmetric": True, "QuantizeBias": False} if recipe.symmetric else {},
    )
    quantizer.quantize_model()
    made = quantizer.model.model
    gptq.put(made, fits or {})
    tidy_opsets(made)
    return made


def in_fp32(model: Any) -> list[str]:
    """Nodes that are never quantized."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _IN_FP32 or (node.op_type == "MatMul" and not constants.intersection(node.input))
    ]


def library_default(file: Path, tensors: Sequence[np.ndarray]) -> Any:
    """What `quantize_static` makes of the graph as it is, with nothing set."""
    from onnxruntime.quantization import quantize_static

    logging.getLogger().setLevel(logging.ERROR)
    name = load_model(file).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(str(file), f"{folder}/int8.onnx", reader(name, tensors))
        return load_model(Path(folder, "int8.onnx"))


def layers(model: Any) -> dict[str, tuple[str, ...]]:
    """Layer -> its nodes: each convolution or matrix product that may be quantized, with its activation, in
    the graph's order."""
    never = set(in_fp32(model))
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    found = {}
    for node in model.graph.node:
        if node.op_type in LAYER_OPS and node.name and node.name not in never:
            after = [
                one for one in readers.get(node.output[0], ()) if one.op_type in _ACTIVATIONS and one.name
            ]
            found[node.name] = (node.name, *(one.name for one in after))
    return found


def effective(model: Any) -> dict[str, Any]:
    """What was really done, read from the graph and from what ONNX Runtime makes of it."""
    numpy_helper = import_onnx().numpy_helper
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    largest, per_channel = 0, 0
    types: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in weights:
            continue
        values = numpy_helper.to_array(weights[node.input[0]])
        if values.ndim < 2:  # A bias.
            continue
        largest, types = max(largest, int(np.abs(values.astype(np.int32)).max())), types | {str(values.dtype)}
        per_channel += int(np.prod(weights[node.input[1]].dims) > 1)
    names = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    computing = [node for node in model.graph.node if node.op_type in LAYER_OPS]
    return {
        "layers": len(computing),
        "layers_quantized": sum(any(name in names for name in node.input[1:2]) for node in computing),
        "layers_run_as_int8": _run_as_int8(model),
        "weights": ", ".join(sorted(types)) or "none",
        "weights_per_channel": per_channel,
        "largest_weight": largest,
        "reduce_range": 0 < largest <= 64,
    }


def _run_as_int8(model: Any) -> int:
    """Layers that ONNX Runtime runs with 8-bit kernels on this machine."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        options.log_severity_level = 4
        onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS,
        )
        counts = op_types(load_model(Path(options.optimized_model_filepath)))
    return sum(counts.get(op, 0) for op in _INT8_OPS)


def write_ranges(ranges: gptq.Ranges, file: Path) -> None:
    """Keep them for the next graph of this size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({name: list(pair) for name, pair in ranges.items()}), "utf-8")


def read_ranges(file: Path) -> dict[str, tuple[float, float]] | None:
    """What `write_ranges` wrote; None where it did not."""
    try:
        return {name: (low, high) for name, (low, high) in json.loads(file.read_text("utf-8")).items()}
    except (OSError, ValueError):
        return None
