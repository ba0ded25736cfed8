"""What a pruned network imitates besides detections: feature maps that keep their size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train_graph import outputs_of, random_images
from test_train_prune import inverted_residual, pruned
from test_train_student import detector_bundle

from edge_vision.bundles.store import load_bundle
from edge_vision.optimize.quantization.graph_edit import with_outputs
from edge_vision.train.networks.pruning import block_outputs, chains
from edge_vision.train.recipes.detection_loss import channel_noise, detector_loss, loss_near_teacher


def with_activation(model: onnx.ModelProto) -> onnx.ModelProto:
    """An activation instead of the sum."""
    total = next(node for node in model.graph.node if node.name == "add")
    del total.input[1:]
    total.op_type = "Relu"
    return model


def projected_twice() -> onnx.ModelProto:
    """What the block projects goes through another 1x1 convolution instead of the sum."""
    model = inverted_residual()
    total = next(node for node in model.graph.node if node.name == "add")
    second = onnx.numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "second")
    model.graph.initializer.append(second)
    total.op_type, total.input[1] = "Conv", "second"
    return model


def test_the_sum_behind_a_block_is_a_feature_map_also_when_the_block_is_pruned() -> None:
    model = inverted_residual()
    assert block_outputs(model) == ["f"]
    images = random_images(model)
    expected, found = (
        outputs_of(with_outputs(one, ["f"]), images)["f"] for one in (model, pruned(model, 0.3))
    )
    assert expected.shape == found.shape
    assert 0 < channel_noise(torch.from_numpy(found), torch.from_numpy(expected)) < 1


@pytest.mark.parametrize(
    "model",
    [
        inverted_residual(skip=True),
        with_activation(inverted_residual()),
        inverted_residual(side_px=256),
    ],
    ids=("no inner channels", "activation", "large"),
)
def test_other_tensors_are_no_feature_maps(model: onnx.ModelProto) -> None:
    assert block_outputs(model) == []


def test_inner_channels_of_the_next_block_are_no_feature_map() -> None:
    assert [chain.first for chain in chains(projected_twice())] == ["expand", "project"]
    assert block_outputs(projected_twice()) == ["f"]


@given(st.integers(0, 1000), st.floats(0.05, 20))
def test_the_scale_of_a_channel_does_not_count(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    found, expected = (torch.from_numpy(rng.normal(0, 1, (2, 3, 4, 5))) for _ in range(2))
    scales = torch.tensor([1.0, scale, 1.0], dtype=torch.float64)[None, :, None, None]
    noise = float(channel_noise(found, expected))
    assert float(channel_noise(found * scales, expected * scales)) == pytest.approx(noise, rel=1e-6)
    assert float(channel_noise(expected, expected)) == 0


def test_channels_that_do_not_vary_give_finite_noise() -> None:
    expected = torch.zeros(2, 3, 4, 4)
    assert float(channel_noise(expected, expected)) == 0
    expected[:, 0] = torch.randn(2, 4, 4)
    assert np.isfinite(float(channel_noise(expected + 0.01, expected)))


@pytest.mark.parametrize("corrected", [False, True])
def test_feature_maps_count_unless_labels_correct_the_teacher(tmp_path: Path, corrected: bool) -> None:
    bundle = load_bundle(f"{detector_bundle(tmp_path / 'tiny', inner=32)}/")
    model = onnx.load(str(bundle.verify(bundle.manifest.graphs[0])))
    run: Any = SimpleNamespace(
        source=bundle, folded=model, correction="labels" if corrected else None, outputs=["rows"]
    )
    loss = loss_near_teacher(run, features=True)
    assert set(run.outputs) == ({"rows"} if corrected else {"rows", "s8", "s16"})
    images = random_images(model)
    target = {
        name: torch.from_numpy(value)
        for name, value in outputs_of(with_outputs(model, ["rows", "s8", "s16"]), images).items()
    }
    moved = {**target, "s8": target["s8"] + 1}
    least = detector_loss(bundle)(target, target)
    assert float(loss(target, target)) == pytest.approx(float(least))
    assert (float(loss(moved, target)) > float(least) + 0.1) != corrected
