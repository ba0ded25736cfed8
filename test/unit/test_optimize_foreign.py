"""The optimizer on graphs of other tools: what stays in fp32, names, opsets, sizes, names of outputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_cases import (
    CLASSES,
    SIDE_PX,
    GraphBuilder,
    best_cells,
    distances_and_scores,
    fixed_shapes,
    images,
    queries,
    sorted_boxes,
)
from optimize_cases import image_folder, tiny_bundle

from edge_vision.backends import BackendRequest, available_backends, make_backend
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.bundles.store import load_bundle
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit, graph_session, ptq
from edge_vision.optimize.quantization.decoding_tail import tail_inputs, tail_nodes
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.make_variant import VariantTask, run
from edge_vision.optimize.quantization.quantization_loss import QuantizationLoss

RECIPE = Int8Recipe("u8", "s8", True, True, "")


def outputs(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    running = graph_session.session(model, exact=True)
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(names, {"images": image}), strict=True))


def folded_and_quantized(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    file = folder / "model.onnx"
    onnx.save(model, str(file))
    folded = graph_session.folded(file)
    return folded, ptq.quantize(folded, ptq.calibrate(folded, images()), RECIPE)


def test_the_tail_starts_after_the_last_layer_and_includes_the_expectation(tmp_path: Path) -> None:
    folded, quantized = folded_and_quantized(distances_and_scores(), tmp_path)
    tail = [node.op_type for node in tail_nodes(folded)]
    assert tail[0] == "Split" and tail.count("Conv") == 1 and tail[-1] == "Concat"
    (read,) = tail_inputs(folded)
    assert next(node for node in folded.graph.node if read in node.output).op_type == "Conv"
    dequantized = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    names = {node.name for node in tail_nodes(folded)}
    after_split = [node for node in quantized.graph.node if node.name in names and node.op_type != "Split"]
    assert after_split and not any(dequantized.intersection(node.input) for node in after_split)
    assert ptq.summarize(quantized).layers_quantized == 3


def test_scores_keep_their_precision_beside_boxes_in_one_output(tmp_path: Path) -> None:
    folded, quantized = folded_and_quantized(distances_and_scores(), tmp_path)
    (image,) = images(1, seed=9)
    fp32, int8 = (outputs(model, image)["rows"] for model in (folded, quantized))
    boxes, scores = ({"x": both} for both in (fp32[:, :4], fp32[:, 4:]))
    assert fp32[:, :4].max() > 50 * fp32[:, 4:].max()
    assert sqnr_db(scores, {"x": int8[:, 4:]}) > 25.0 and sqnr_db(boxes, {"x": int8[:, :4]}) > 25.0
    assert int8.shape[1] == 4 + CLASSES


@pytest.mark.parametrize(("make", "layers"), [(best_cells, 3), (queries, 4)])
def test_values_that_the_graph_sorts_are_not_rounded_to_steps(make, layers: int, tmp_path: Path) -> None:
    _, quantized = folded_and_quantized(make(), tmp_path)
    made_by = {name: node for node in quantized.graph.node for name in node.output}
    name = next(node for node in quantized.graph.node if node.op_type == "TopK").input[0]
    while made_by[name].op_type != "Conv":
        assert made_by[name].op_type == "Reshape"
        name = made_by[name].input[0]
    assert ptq.summarize(quantized).layers_quantized == layers


def test_nodes_without_a_name_get_one_each(tmp_path: Path) -> None:
    folded, _ = folded_and_quantized(best_cells(), tmp_path)
    names = [node.name for node in folded.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert len(ptq.layers(folded)) == 3


def test_an_old_opset_is_converted_before_quantization(tmp_path: Path) -> None:
    build = GraphBuilder()
    build.nodes.append(onnx.helper.make_node("Relu", [build.conv(build.trunk("images"), 16, 4)], ["maps"]))
    folded, quantized = folded_and_quantized(build.model({"maps": [1, 4, 8, 8]}, opset=11), tmp_path)
    assert quantized.opset_import[0].version >= 13
    assert ptq.summarize(quantized).weights_per_channel == 3
    (image,) = images(1, seed=9)
    assert sqnr_db(outputs(folded, image), outputs(quantized, image)) > 20.0


def test_a_float16_graph_is_quantized_and_keeps_the_types_of_its_tensors(tmp_path: Path) -> None:
    model = distances_and_scores()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    file = tmp_path / "model.onnx"
    onnx.save(model, str(file))
    folded = graph_session.folded(file)
    calibrating = [image.astype(np.float16) for image in images()]
    quantized = ptq.quantize(folded, ptq.calibrate(folded, calibrating), RECIPE)
    assert ptq.summarize(quantized).layers_quantized == 3
    (image,) = images(1, seed=9)
    fp16, int8 = (outputs(one, image.astype(np.float16))["rows"] for one in (model, quantized))
    assert int8.dtype == np.float16 and sqnr_db({"x": fp16}, {"x": int8}) > 20.0


@pytest.mark.parametrize("make", [fixed_shapes, distances_and_scores])
def test_constant_shapes_follow_the_image_size(make) -> None:
    model, sides = make(), (SIDE_PX, 2 * SIDE_PX, SIDE_PX // 2)
    for side in sides:
        graph_edit.resize(model, "images", "nchw", Size(side, side))
        rows = outputs(model, images(1, side)[0])["rows"]
        assert (side // 4) ** 2 in rows.shape
    same = outputs(make(), images(1)[0])["rows"]
    graph_edit.resize(model, "images", "nchw", Size(SIDE_PX, SIDE_PX))
    np.testing.assert_array_equal(outputs(model, images(1)[0])["rows"], same)


def test_a_grid_of_a_fixed_size_is_refused_with_the_size() -> None:
    build = GraphBuilder()
    side = SIDE_PX // 4
    grid = build.constant(np.zeros((1, 16, side, side)))
    build.nodes.append(onnx.helper.make_node("Add", [build.trunk("images"), grid], ["maps"]))
    with pytest.raises(OptimizeError, match="does not accept images of 64x64"):
        graph_edit.resize(build.model({"maps": [1, 16, side, side]}), "images", "nchw", Size(64, 64))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_output_behind_an_identity_has_the_name_in_the_graph(backend: str, tmp_path: Path) -> None:
    reason = available_backends()[backend]
    if reason:
        pytest.skip(reason)
    build = GraphBuilder()
    maps = build.node("Relu", build.trunk("images"))
    build.nodes[-1].output[0] = "a_name_before_it"
    build.nodes.append(onnx.helper.make_node("Identity", ["a_name_before_it"], ["rows"]))
    assert maps
    file = tmp_path / "model.onnx"
    onnx.save(build.model({"rows": [1, 16, 8, 8]}), str(file))
    session = make_backend(backend).load(file, BackendRequest(threads=1))
    assert [output.name for output in session.outputs] == ["rows"]
    assert set(session.run({"images": images(1)[0]})) == {"rows"}


def test_layers_are_ranked_by_what_the_tail_reads_not_by_the_order_of_rows(tmp_path: Path) -> None:
    folded, quantized = folded_and_quantized(sorted_boxes(), tmp_path)
    bundle = load_bundle(f"{tiny_bundle(tmp_path / 'tiny', tmp_path / 'model.onnx', 'end_to_end')}{os.sep}")
    evaluated = images(6, seed=9)
    loss = QuantizationLoss(bundle, folded, evaluated)
    _, sqnr = loss.of(quantized)
    rows = [sqnr_db(outputs(folded, image), outputs(quantized, image)) for image in evaluated]
    assert min(rows) < 10.0 < 25.0 < sqnr
    alone = [
        loss.of(ptq.quantize(folded, ptq.calibrate(folded, images()), RECIPE, only=nodes))[1]
        for nodes in ptq.layers(folded).values()
    ]
    assert min(alone) > sqnr - 3.0


@pytest.mark.parametrize(("make", "checked"), [(sorted_boxes, False), (distances_and_scores, True)])
def test_only_outputs_in_a_fixed_order_are_checked_for_saturation(
    make, checked: bool, tmp_path: Path
) -> None:
    onnx.save(make(), str(tmp_path / "model.onnx"))
    source = tiny_bundle(tmp_path / "source", tmp_path / "model.onnx", "end_to_end")
    calibration = image_folder(tmp_path / "calibration", 4)
    size, ranges = Size(SIDE_PX, SIDE_PX), str(tmp_path / "ranges.json")
    out = str(tmp_path / "int8")
    made = run(VariantTask(str(source), out, "int8", size, RECIPE, str(calibration), ranges))
    assert bool(made.exact) is checked and made.quantization is not None
