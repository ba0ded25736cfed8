"""Post-training quantization to int8 for runtimes that read QDQ graphs: ONNX Runtime and OpenVINO.

Activation ranges are the minimum and maximum on the calibration images. ONNX Runtime chooses the nodes that
get quantizers (`onnxruntime.quantization`), except those that stay in fp32; `gptq` rounds the weights.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.onnxruntime import DISABLED_OPTIMIZERS
from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.node_order import sorted_nodes
from edge_vision.optimize.quantization import gptq
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS, comparing_nodes, tail_nodes
from edge_vision.optimize.quantization.graph_edit import (
    dequantized,
    load_model,
    op_types,
    remove_unused_opsets,
)
from edge_vision.optimize.quantization.input_moments import Ranges
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.stem import stem_layers

_INT8_OPS = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
_FP32_OPS = ("LayerNormalization", "Softmax")
"""Quantizers around these cost accuracy and time, as neither runtime has a faster 8-bit kernel. This also
applies to the products of two activations in attention. ViT-Ti with them in int8 took 1.25 times as long
in ONNX Runtime, and its outputs were 5 dB worse."""
_ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "HardSwish", "Sigmoid")


def calibrate(
    model: Any, tensors: Sequence[np.ndarray], show: Count = no_count
) -> dict[str, tuple[float, float]]:
    """Tensor name -> range, over the input tensors of a folded model. show: receives the number of tensors
    that are done. Raises OptimizeError for no input."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    if not tensors:
        raise OptimizeError("expected calibration images, got none")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        file.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            str(file), None, f"{folder}/augmented.onnx", calibrate_method=CalibrationMethod.MinMax
        )
        calibrator.collect_data(_data_reader(model.graph.input[0].name, tensors, show))
        found = calibrator.compute_data()
    return {
        name: (float(np.min(data.range_value[0])), float(np.max(data.range_value[1])))
        for name, data in found.items()
    }


def _data_reader(name: str, tensors: Sequence[np.ndarray], show: Count = no_count) -> Any:
    """The tensors as ONNX Runtime's CalibrationDataReader."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._remaining: Iterator[tuple[int, np.ndarray]] = iter(enumerate(tensors, 1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            number, tensor = next(self._remaining, (0, None))
            if tensor is None:
                return None
            show(number, len(tensors))
            return {name: tensor}

    return Reader()


def quantize(
    model: Any,
    ranges: Ranges,
    recipe: Int8Recipe,
    only: Sequence[str] = (),
    fp32_nodes: Sequence[str] = (),
    rounding: Mapping[str, gptq.RoundedWeights] | None = None,
) -> Any:
    """The QDQ model of a folded one.

    only: nodes to quantize, empty = all. fp32_nodes: nodes that stay in fp32, beside the recipe's. rounding:
    rounded weights by layer; those of other layers are rounded to nearest.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.registry import QDQRegistry

    logging.getLogger().setLevel(logging.ERROR)  # The quantizer warns about each node that it skips.
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
        [*fp32_nodes, *_stem_nodes(model, recipe), *unquantized_nodes(model)],
        list(QDQRegistry),
        {"ActivationSymmetric": True, "QuantizeBias": False} if recipe.symmetric else {},
    )
    quantizer.quantize_model()
    quantized = quantizer.model.model
    _read_fp32(quantized, comparing_nodes(model))
    gptq.apply_rounding(quantized, rounding or {})
    remove_unused_opsets(quantized)
    nodes = [copy.deepcopy(node) for node in sorted_nodes(quantized.graph)]
    del quantized.graph.node[:]
    quantized.graph.node.extend(nodes)
    return quantized


def _read_fp32(quantized: Any, readers: Collection[str]) -> None:
    """Let these nodes read fp32, and remove quantizers that no node reads then."""
    graph = quantized.graph
    fp32 = {result: name for name, result in dequantized(quantized).items()}
    for node in graph.node:
        if node.name in readers:
            node.input[:] = [fp32.get(name, name) for name in node.input]
    for op in ("DequantizeLinear", "QuantizeLinear"):
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [one for one in graph.node if one.op_type == op and one.output[0] not in used]:
            graph.node.remove(node)


def quantized_tensors(model: Any) -> frozenset[str]:
    """The names of the activations of a folded model that get a scale, if all layers are quantized."""
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    recipe = Int8Recipe("u8", "s8", True, False, "")
    return frozenset(dequantized(quantize(model, dict.fromkeys(tensors, (-1.0, 1.0)), recipe)))


def unquantized_nodes(model: Any) -> list[str]:
    """Nodes that always stay in fp32."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in tail_nodes(model)] + [
        node.name
        for node in model.graph.node
        if node.op_type in _FP32_OPS or (node.op_type == "MatMul" and not constants.intersection(node.input))
    ]


def library_default(file: Path, tensors: Sequence[np.ndarray]) -> Any:
    """The graph quantized by `quantize_static` with its default arguments."""
    from onnxruntime.quantization import quantize_static

    logging.getLogger().setLevel(logging.ERROR)
    name = load_model(file).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(str(file), f"{folder}/int8.onnx", _data_reader(name, tensors))
        return load_model(Path(folder, "int8.onnx"))


def _stem_nodes(model: Any, recipe: Int8Recipe) -> list[str]:
    if not recipe.fp32_stem:
        return []
    nodes = layers(model)
    return [node for name in stem_layers(model) for node in nodes.get(name, ())]


def quantized_layers(model: Any, recipe: Int8Recipe) -> dict[str, tuple[str, ...]]:
    """As `layers`, without those that the recipe leaves in fp32."""
    stem = stem_layers(model) if recipe.fp32_stem else ()
    return {name: nodes for name, nodes in layers(model).items() if name not in stem}


def layers(model: Any) -> dict[str, tuple[str, ...]]:
    """Layer name -> its nodes: each convolution or matrix product that may be quantized and its
    activation, in graph order."""
    never = set(unquantized_nodes(model))
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


@dataclass(frozen=True, slots=True)
class QuantizationSummary:
    """What an int8 graph contains, read back from it.

    layers_run_as_int8: with ONNX Runtime's 8-bit kernels on this machine. weights: their types.
    weights_per_channel: number of layers. largest_weight: magnitude.
    """

    layers: int
    layers_quantized: int
    layers_run_as_int8: int
    weights: str
    weights_per_channel: int
    largest_weight: int
    reduce_range: bool


def summarize(model: Any) -> QuantizationSummary:
    """The summary of a QDQ model."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantizers = [
        node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    to_array = import_onnx().numpy_helper.to_array
    pairs = [(to_array(constants[node.input[0]]), constants[node.input[1]]) for node in dequantizers]
    matrices = [(values, scale) for values, scale in pairs if values.ndim >= 2]  # Biases are vectors.
    largest = max((int(np.abs(values.astype(np.int32)).max()) for values, _ in matrices), default=0)
    dequantized = {node.output[0] for node in dequantizers}
    computing = [node for node in model.graph.node if node.op_type in LAYER_OPS]
    return QuantizationSummary(
        len(computing),
        sum(any(name in dequantized for name in node.input[1:2]) for node in computing),
        _run_as_int8(model),
        ", ".join(sorted({str(values.dtype) for values, _ in matrices})) or "none",
        sum(int(np.prod(scale.dims) > 1) for _, scale in matrices),
        largest,
        0 < largest <= 64,
    )


def _run_as_int8(model: Any) -> int:
    """Number of layers that ONNX Runtime runs with 8-bit kernels on this machine."""
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
    return sum(counts[op] for op in _INT8_OPS)
