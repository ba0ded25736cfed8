"""Variants of real graphs: input sizes, half precision, int8 and its recipes, layers in fp32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_cases import EFFICIENTNET, SSD, bundle_or_skip, video_frame
from optimize_cases import SIDE_PX, tiny_graph, vit_graph

from edge_vision.backends.base import BackendRequest
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.core.preprocess import Preprocessor
from edge_vision.optimize.candidate import Candidate, Size, default_sizes
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.processor import cpu_flags
from edge_vision.optimize.quantization import graph_edit, graph_session, ptq
from edge_vision.optimize.quantization.decoding_tail import LAYER_OPS
from edge_vision.optimize.quantization.int8_recipe import (
    LIBRARY_DEFAULT_RECIPE,
    Int8Recipe,
    int8_recipe,
)
from edge_vision.optimize.quantization.sensitivity import (
    LayerSensitivity,
    SearchStep,
    Sensitivity,
    bisect,
    max_fp32_layers,
    summary,
)

NATIVE = Size(300, 300)


@pytest.mark.parametrize(
    ("text", "size"),
    [("native", NATIVE), ("256", Size(256, 256)), ("320x240", Size(320, 240))],
)
def test_sizes_are_parsed(text: str, size: Size) -> None:
    assert Size.parse(text, NATIVE) == size


@pytest.mark.parametrize("text", ["0", "-1", "3x", "axb", "16", "100x100x100", "", "99999"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(OptimizeError, match="sizes: expected native, a side like 256"):
        Size.parse(text, NATIVE)


def test_the_aspect_ratio_is_kept_and_sides_are_multiples_of_the_stride() -> None:
    assert Size.parse("320", Size(640, 480)) == Size(320, 256)
    assert default_sizes(Size(224, 224), "classify")[-1] == Size(128, 128)
    assert Candidate("openvino", "bf16", NATIVE, 2).graph_precision == "fp32"


@pytest.mark.parametrize(
    ("flags", "machine", "reduce"),
    [
        ({"avx2"}, "x86_64", True),
        ({"avx2", "avx512f"}, "x86_64", True),
        ({"avx2", "avx_vnni"}, "x86_64", False),
        ({"avx512f", "avx512_vnni"}, "AMD64", False),
        ({"amx_int8"}, "x86_64", False),
        (set(), "x86_64", True),
        ({"asimd"}, "aarch64", False),
    ],
)
def test_the_range_of_weights_depends_on_the_processor(flags: set, machine: str, reduce: bool) -> None:
    recipe = int8_recipe("onnxruntime", flags, machine)
    assert recipe.reduce_range is reduce and recipe.per_channel
    assert ("saturat" in recipe.why) is True


def tensors(bundle_name: str, clip: str = "bikes.mp4", frames: tuple[int, ...] = (10, 60, 120, 200)) -> list:
    preprocessor = Preprocessor(bundle_or_skip(bundle_name).manifest.input)
    return [preprocessor.prepare(video_frame(clip, i))[0].copy() for i in frames]


@pytest.fixture(scope="module")
def folded():
    bundle = bundle_or_skip(SSD)
    model = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    return model, ptq.calibrate(model, tensors(SSD))


@pytest.mark.parametrize("reduce", [False, True])
def test_the_recipe_is_read_back_from_the_quantized_ssd(folded, reduce: bool) -> None:
    model, ranges = folded
    made = ptq.quantize(model, ranges, Int8Recipe("u8", "s8", True, reduce, ""))
    onnx.checker.check_model(made)
    found = ptq.summarize(made)
    assert found.layers == found.layers_quantized == found.layers_run_as_int8 == 88
    assert found.reduce_range is reduce
    assert found.largest_weight <= (64 if reduce else 128)
    assert found.weights == "int8" and found.weights_per_channel == 88
    assert len(made.SerializeToString()) * 3.4 < len(model.SerializeToString())


def test_fp32_layers_run_in_fp32_even_between_quantizers(folded, tmp_path: Path) -> None:
    """By default ONNX Runtime would quantize them again, per tensor, with a loss of 9 dB."""
    model, ranges = folded
    groups = ptq.layers(model)
    lone = [name for name in groups if "expanded_conv/depthwise" in name]
    recipe = replace(int8_recipe("onnxruntime", cpu_flags()), fp32_stem=False)
    made = ptq.quantize(model, ranges, recipe, fp32_nodes=[n for name in lone for n in groups[name]])
    assert ptq.summarize(made).layers_run_as_int8 == 87
    file = tmp_path / "mixed.onnx"
    file.write_bytes(made.SerializeToString())
    session = OnnxRuntimeBackend().load(file, BackendRequest(threads=1))
    image = {"images": tensors(SSD, "vtest.avi", (100,))[0]}
    names = [output.name for output in session.outputs]
    exact, fp32 = (
        dict(zip(names, one.run(names, image), strict=True))
        for one in (graph_session.session(made, exact=True), graph_session.session(model))
    )
    assert sqnr_db(fp32, exact) - sqnr_db(fp32, session.run(image)) < 1.0


def test_the_defaults_of_the_library_are_worse_than_the_recipe(folded) -> None:
    model, ranges = folded
    bundle = bundle_or_skip(SSD)
    naive = ptq.library_default(bundle.verify(bundle.manifest.graphs[0]), tensors(SSD))
    ours = ptq.quantize(model, ranges, int8_recipe("onnxruntime", cpu_flags()))
    image = {"images": tensors(SSD, "vtest.avi", (100,))[0]}
    names = [output.name for output in model.graph.output]
    fp32, a, b = (
        dict(zip(names, graph_session.session(one, exact=True).run(names, image), strict=True))
        for one in (model, naive, ours)
    )
    assert sqnr_db(fp32, b) > sqnr_db(fp32, a) + 3.0
    assert LIBRARY_DEFAULT_RECIPE.library_default and ptq.summarize(naive).weights_per_channel == 0


def test_a_layer_includes_its_activation(tmp_path: Path) -> None:
    model = onnx.load(tiny_graph(tmp_path / "tiny.onnx"))
    assert ptq.layers(model) == {"first": ("first", "active"), "last": ("last",)}


def test_a_transformer_keeps_its_normalisations_and_attention_in_fp32(tmp_path: Path) -> None:
    model = graph_session.folded(vit_graph(tmp_path / "vit.onnx"))
    rng = np.random.default_rng(0)
    tensors = [rng.normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32) for _ in range(12)]
    ranges = ptq.calibrate(model, tensors)
    made = ptq.quantize(model, ranges, int8_recipe("onnxruntime", cpu_flags()))
    products = [node for node in model.graph.node if node.op_type in LAYER_OPS]
    attention = [node for node in products if node.op_type == "MatMul"]
    # In each block: q, k, v, two of attention, three after it; in addition the patches and the head.
    assert len(attention) == 4 and len(products) == 2 * 8 + 2
    assert set(ptq.layers(model)) == {node.name for node in products} - {n.name for n in attention}
    found = ptq.summarize(made)
    assert found.layers_quantized == 14 <= found.layers_run_as_int8
    dequantized = {n.output[0] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    softmax = [node for node in made.graph.node if node.op_type == "Softmax"]
    assert len(softmax) == 2 and not any(node.input[0] in dequantized for node in softmax)


def test_the_ssd_accepts_other_sizes_with_the_same_weights() -> None:
    bundle = bundle_or_skip(SSD)
    model = graph_edit.load_model(bundle.verify(bundle.manifest.graphs[0]))
    weights = len(model.graph.initializer)
    graph_edit.resize(model, "images", "nchw", Size(224, 224))
    boxes, _ = graph_session.session(model).run(None, {"images": np.zeros((1, 3, 224, 224), np.float32)})
    from edge_vision.detect.heads.ssd import ssd_mobilenet_v2_anchors

    assert boxes.shape == (1, len(ssd_mobilenet_v2_anchors(224, 224)), 4)
    assert len(model.graph.initializer) == weights


def test_a_graph_with_a_fixed_size_is_refused(tmp_path: Path) -> None:
    model = onnx.load(tiny_graph(tmp_path / "tiny.onnx"))
    with pytest.raises(OptimizeError, match="expected an input 'frames'"):
        graph_edit.resize(model, "frames", "nchw", Size(32, 32))
    shape = onnx.numpy_helper.from_array(np.array([1, 8 * 32 * 32], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[3].CopyFrom(onnx.helper.make_node("Reshape", ["active", "shape"], ["flat"], name="flat"))
    with pytest.raises(OptimizeError, match="does not accept images of 96x96"):
        graph_edit.resize(model, "images", "nchw", Size(96, 96))


def test_half_precision_halves_the_file_and_keeps_the_best_class() -> None:
    bundle = bundle_or_skip(EFFICIENTNET)
    path = bundle.verify(bundle.manifest.graphs[0])
    model = graph_edit.load_model(path)
    assert graph_edit.halve_weights(model) > 50
    assert len(model.SerializeToString()) < 0.55 * path.stat().st_size
    image = {"images": tensors(EFFICIENTNET)[0]}
    halved, whole = (graph_session.session(one).run(["logits"], image)[0] for one in (model, str(path)))
    assert halved.argmax() == whole.argmax()
    assert sqnr_db({"logits": whole}, {"logits": halved}) > 40.0


def shortcut_graph(bias_side: int = 1) -> onnx.ModelProto:
    """(convolution + shortcut) + bias, as TensorFlow's converters write it."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    arrays = {
        "weight": rng.normal(0, 1, (3, 3, 1, 1)).astype(np.float32),
        "bias": rng.normal(0, 1, (1, 3, bias_side, bias_side)).astype(np.float32),
    }
    nodes = [
        make("Conv", ["images", "weight"], ["a"], "conv"),
        make("Sum", ["a", "images"], ["b"], "sum"),
        make("Add", ["bias", "b"], ["c"], "add"),
    ]
    shape = [1, 3, SIDE_PX, SIDE_PX]
    values = [info(name, onnx.TensorProto.FLOAT, shape) for name in ("images", "c")]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "shortcut", values[:1], values[1:], constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("bias_side", "left"), [(1, ["Conv", "Add"]), (SIDE_PX, ["Conv", "Add", "Add"])])
def test_a_bias_behind_a_shortcut_is_that_of_the_convolution(
    tmp_path: Path, bias_side: int, left: list[str]
) -> None:
    file, model = tmp_path / "shortcut.onnx", shortcut_graph(bias_side)
    onnx.save(model, file)
    found = graph_session.folded(file)
    onnx.checker.check_model(found)
    assert [node.op_type for node in found.graph.node] == left
    images = {"images": np.random.default_rng(1).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)}
    expected, got = (graph_session.session(one).run(["c"], images)[0] for one in (model, found))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    file = tiny_graph(tmp_path / "odd.onnx", op="Sparkle")
    with pytest.raises(OptimizeError, match=r"onnxruntime cannot load .*Sparkle"):
        graph_session.folded(file)


def test_calibration_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptimizeError, match="expected calibration images, got none"):
        ptq.calibrate(onnx.load(tiny_graph(tmp_path / "tiny.onnx")), [])


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 5, 8, 21, 88])
def test_the_search_finds_the_fewest_layers(needed: int) -> None:
    tried = []

    def agreement_with(k: int) -> float:
        tried.append(k)
        return 1.0 if k >= needed else 0.9

    assert bisect(88, 0.99, agreement_with)[0] == needed
    assert len(tried) == len(set(tried)) <= 14


def test_all_layers_stay_in_fp32_if_no_number_reaches_the_bound() -> None:
    k, tried = bisect(10, 0.99, lambda k: 0.5)
    assert k == 10 and tried[10] == 0.5


@pytest.mark.parametrize(
    ("arithmetic", "most"), [([0.1, 0.1, 0.2, 0.6], 3), ([0.9, 0.1], 1), ([0.25] * 4, 1), ([0.01] * 100, 40)]
)
def test_only_a_share_of_the_arithmetic_stays_in_fp32(arithmetic: list[float], most: int) -> None:
    assert max_fp32_layers(arithmetic) == most


def test_a_bound_that_is_not_reached_is_reported_with_the_nearest() -> None:
    layers = tuple(LayerSensitivity(str(i), "Conv", i, 30.0, 0.9, 0.25) for i in range(4))
    found = Sensitivity(layers, (SearchStep(2, 0.97),), 0.99, ("0", "1"), ("0", "1"), satisfied=True)
    assert summary(found).startswith(
        "mixed precision: 2 of 4 layers stay in fp32, 50% of the arithmetic, the most sensitive: "
    )
    assert "on the calibration clip 0.970, bound 0.990" in summary(replace(found, satisfied=False))
