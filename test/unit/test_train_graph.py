"""ONNX graphs as PyTorch modules: same outputs, trained numbers back by name, unsupported operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from model_cases import bundle_or_skip
from onnx import TensorProto, helper, numpy_helper

from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.train.graph.torch_graph import TorchGraph, written_back

RECIPE = Int8Recipe("u8", "s8", True, False, "test")
BUNDLES = (
    "centernet",
    "efficientnet_lite0_imagenet",
    "nanodet",
    "nanodet_320",
    "person_vehicle_stage",
    "ssd_mobilenet_v2_oidv4",
    "ssdlite_mobilenet_v2_coco",
)


def folded(name: str) -> onnx.ModelProto:
    bundle = bundle_or_skip(name)
    return graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))


def random_images(model: onnx.ModelProto, seed: int = 0) -> np.ndarray:
    sides = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).normal(0, 1, sides).astype(np.float32)


def outputs_of(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    session = graph_session.session(model)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {model.graph.input[0].name: images}), strict=True))


def small_model(op: str = "Relu") -> onnx.ModelProto:
    weights = np.random.default_rng(1).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "kernel.0"),
        numpy_helper.from_array(np.ones(4, np.float32), "b"),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["x", "kernel.0", "b"], ["c"], "conv", auto_pad="SAME_UPPER", strides=[2, 2]
        ),
        helper.make_node(op, ["c"], ["y"], "act"),
        helper.make_node("Conv", ["y", "k2"], ["z"], "conv2"),
    ]
    constants.append(numpy_helper.from_array(np.full((2, 4, 1, 1), 0.5, np.float32), "k2"))
    x, z = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 9, 8]), ("z", [1, 2, 5, 4]))
    )
    graph = helper.make_graph(nodes, "small", [x], [z], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_gives_the_same_outputs_in_pytorch(name: str) -> None:
    model = folded(name)
    images = random_images(model)
    graph = TorchGraph(model)
    with torch.no_grad():
        found = graph(torch.from_numpy(images))
    for output, expected in outputs_of(model, images).items():
        # CenterNet gives coordinates in pixels: 1e-4 of the largest value.
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found[output].numpy() / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco", "nanodet_320"])
def test_written_back_without_training_is_the_same_file(name: str) -> None:
    model = folded(name)
    assert written_back(model, TorchGraph(model).trained()).SerializeToString() == model.SerializeToString()


def test_trained_numbers_go_back_by_name_and_change_nothing_else() -> None:
    model, images = small_model(), random_images(small_model())
    graph = TorchGraph(model)
    assert sorted(graph.weights) == ["b", "k2", "kernel.0"]
    before = graph(torch.from_numpy(images))["z"]
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.01)
    before.square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        expected = graph(torch.from_numpy(images))["z"].numpy()
    trained = written_back(model, graph.trained())
    np.testing.assert_allclose(outputs_of(trained, images)["z"], expected, atol=1e-5)
    assert not np.allclose(expected, before.detach().numpy())
    assert [node.SerializeToString() for node in trained.graph.node] == [
        node.SerializeToString() for node in model.graph.node
    ]


def test_a_quantized_graph_runs_although_its_nodes_are_in_any_order() -> None:
    model = small_model()
    images = random_images(model)
    quantized = ptq.quantize(model, ptq.calibrate(model, [images]), RECIPE)
    nodes = list(quantized.graph.node)[::-1]
    shuffled = onnx.ModelProto.FromString(quantized.SerializeToString())
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    with torch.no_grad():
        found = TorchGraph(shuffled)(torch.from_numpy(images))["z"].numpy()
    session = graph_session.session(quantized, exact=True)
    np.testing.assert_allclose(found, session.run(["z"], {"x": images})[0], atol=1e-4)


def test_a_graph_for_one_image_takes_a_batch() -> None:
    graph = TorchGraph(small_model())
    images = torch.from_numpy(np.concatenate([random_images(small_model(), seed) for seed in (0, 1, 2)]))
    with torch.no_grad():
        together = graph(images)["z"]
        alone = torch.cat([graph(one[None])["z"] for one in images])
    assert torch.allclose(together, alone, atol=1e-6)


def test_an_unsupported_operator_is_named_in_one_sentence() -> None:
    with pytest.raises(OptimizeError, match="operators that can be trained, got Softsign; export"):
        TorchGraph(small_model("Softsign"))
