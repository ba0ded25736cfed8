"""Structured pruning: which channels may go, the closed form, graphs that run, the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from optimize_cases import image_folder, tiny_bundle
from test_train_graph import RECIPE, folded, outputs_of, random_images

from edge_vision.bundles.store import load_bundle
from edge_vision.cli.optimize import main
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import ptq
from edge_vision.optimize.quantization.input_moments import input_moments
from edge_vision.optimize.quantization.layer_inputs import multiplications
from edge_vision.train.networks.pruning import (
    Elimination,
    allocate,
    chains,
    eliminate,
    eliminations,
    prune,
    refitted,
    without_smallest,
)
from edge_vision.train.networks.timing import installed_runtimes, layer_times, shared_layer_times
from edge_vision.train.recipes import prune_run
from edge_vision.train.recipes.training_report import Quality, TrainingReport, worse_than_untuned
from edge_vision.train.recipes.training_run import TrainingRequest
from edge_vision.train.summary import summary

INNER = 128


def inverted_residual(copies: bool = False, skip: bool = False, side_px: int = 64) -> onnx.ModelProto:
    """Expand, depthwise, project without a bias, add, pool, logits. copies: every second inner channel is as
    the one before it. skip: the inner channels have a second reader."""
    rng = np.random.default_rng(3)
    expand = rng.normal(0, 0.4, (INNER, 3, 1, 1)).astype(np.float32)
    depthwise = rng.normal(0, 0.4, (INNER, 1, 3, 3)).astype(np.float32)
    if copies:
        expand[1::2], depthwise[1::2] = expand[::2], depthwise[::2]
    arrays = {
        "expand": expand,
        "expand_bias": np.zeros(INNER, np.float32),
        "depthwise": depthwise,
        "depthwise_bias": np.zeros(INNER, np.float32),
        "project": rng.normal(0, 0.4, (3, INNER, 1, 1)).astype(np.float32),
        "matrix": rng.normal(0, 0.4, (4, 3)).astype(np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "expand", "expand_bias"], ["a"], "expand"),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], "clip"),
        helper.make_node(
            "Conv", ["b", "depthwise", "depthwise_bias"], ["c"], "depthwise", group=INNER, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c"], ["d"], "relu"),
        helper.make_node("Conv", ["d", "project"], ["e"], "project"),
        helper.make_node("Add", ["e", "images"], ["f"], "add"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("Gemm", ["h", "matrix"], ["logits"], "last", transB=1),
    ]
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side_px, side_px])
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])]
    if skip:
        outputs.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, INNER, side_px, side_px]))
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "block", [x], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pruned(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    images = [random_images(model, seed) for seed in range(4)]
    costs = multiplications(model, ("Conv",))
    return prune(model, input_moments(model, images, {}), costs, share)


def test_images_and_channels_are_counted() -> None:
    model, shown = inverted_residual(), []
    images = [random_images(model, seed) for seed in range(3)]
    moments = input_moments(model, images, {}, lambda done, total: shown.append((done, total)))
    assert shown == [(1, 3), (2, 3), (3, 3)]
    eliminations(model, chains(model) * 2, moments, {}, lambda done, total: shown.append((done, total)))
    assert shown[3:] == [(number + 1, 2 * INNER) for number in range(2 * INNER)]


def test_the_inner_channels_of_an_inverted_residual_are_found() -> None:
    (found,) = chains(inverted_residual())
    assert found.layers == ("expand", "depthwise", "project")


def test_channels_with_a_second_reader_stay() -> None:
    assert chains(inverted_residual(skip=True)) == []


def two_heads() -> onnx.ModelProto:
    """A convolution whose channels two heads read, each with a depthwise convolution. Every second channel is
    as the one before it."""
    rng = np.random.default_rng(4)
    first = rng.normal(0, 0.4, (INNER, 3, 1, 1)).astype(np.float32)
    first[1::2] = first[::2]
    arrays = {"first": first, "first_bias": np.zeros(INNER, np.float32)}
    nodes = [
        helper.make_node("Conv", ["images", "first", "first_bias"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
    ]
    for head, outputs in (("boxes", 4), ("classes", 2)):
        depthwise = rng.normal(0, 0.4, (INNER, 1, 3, 3)).astype(np.float32)
        depthwise[1::2] = depthwise[::2]
        arrays[f"{head}_depthwise"] = depthwise
        arrays[f"{head}_project"] = rng.normal(0, 0.4, (outputs, INNER, 1, 1)).astype(np.float32)
        spatial = {"group": INNER, "pads": [1, 1, 1, 1]}
        inner, name = f"{head}_inner", f"{head}_depthwise"
        nodes.append(helper.make_node("Conv", ["b", name], [inner], name, **spatial))
        nodes.append(helper.make_node("Conv", [inner, f"{head}_project"], [head], f"{head}_project"))
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    shapes = {"boxes": [1, 4, 32, 32], "classes": [1, 2, 32, 32]}
    outputs_info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "heads", [x], outputs_info, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_channels_that_several_heads_read_go_together() -> None:
    model = two_heads()
    (found,) = chains(model)
    assert found.projections == ("boxes_project", "classes_project") and len(found.layers) == 5
    small = pruned(model, 0.45)
    assert kernel_shapes(small)["first"][0] == INNER // 2
    images = random_images(model, 9)
    expected, got = (outputs_of(one, images) for one in (model, small))
    for name in ("boxes", "classes"):
        np.testing.assert_allclose(got[name], expected[name], atol=0.05 * np.abs(expected[name]).max())


def test_a_residual_block_that_adds_little_goes_as_a_whole() -> None:
    model = with_reader_of_the_sum(inverted_residual())
    for one in model.graph.initializer:
        if one.name == "project":
            one.CopyFrom(numpy_helper.from_array(0.01 * numpy_helper.to_array(one), one.name))
    small = pruned(model, 0.9)
    assert [node.op_type for node in small.graph.node][:2] == ["Add", "Conv"]
    images = random_images(model, 9)
    expected, got = (outputs_of(one, images)["logits"] for one in (model, small))
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


def with_reader_of_the_sum(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a 1x1 convolution behind the sum, from which its variance is known."""
    reader = np.eye(3, dtype=np.float32)[:, :, None, None]
    model.graph.initializer.append(numpy_helper.from_array(reader, "reader"))
    pool = next(node for node in model.graph.node if node.name == "pool")
    pool.input[0] = "read"
    at = list(model.graph.node).index(pool)
    model.graph.node.insert(at, helper.make_node("Conv", ["f", "reader"], ["read"], "reader"))
    return model


def test_copies_of_channels_go_without_loss() -> None:
    model = inverted_residual(copies=True)
    small = pruned(model, 0.45)
    assert kernel_shapes(small)["expand"][0] == INNER // 2
    images = random_images(model, 9)
    expected, found = (outputs_of(one, images)["logits"] for one in (model, small))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def kernel_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {one.name: list(one.dims) for one in model.graph.initializer}


def test_the_refit_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (500, 12)) @ rng.normal(0, 1, (12, 12))
    weights = rng.normal(0, 1, (5, 12))
    kept = np.array([0, 2, 3, 5, 7, 8, 11])
    expected = np.linalg.lstsq(inputs[:, kept], inputs @ weights.T, rcond=None)[0].T
    found = refitted(weights, inputs.T @ inputs / len(inputs), kept)

    def error(values: np.ndarray) -> float:
        return float(np.square(inputs @ weights.T - inputs[:, kept] @ values.T).sum())

    assert error(found) < 1.05 * error(expected)
    assert error(found) < 0.8 * error(weights[:, kept])


def test_the_inputs_that_matter_least_go_first() -> None:
    weights = np.ones((2, 16))
    power = np.arange(1.0, 17.0)[::-1]
    order, loss = eliminate([(weights, np.diag(power))])
    assert order[:15].tolist() == list(range(15, 0, -1))
    assert np.all(np.diff(loss) > 0)


def test_the_layer_with_the_least_loss_is_pruned_most() -> None:
    order = np.arange(128)
    robust, fragile = (Elimination(order, rate * np.linspace(0, 1, 129) ** 2, 10.0) for rate in (0.1, 5.0))
    counts = allocate([robust, fragile], 1280.0 * 0.7)
    assert counts[0] > counts[1]
    assert sum(counts) * 10.0 >= 1280.0 * 0.7


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_each_convolution_of_an_int8_graph_has_a_time(runtime: str) -> None:
    model = inverted_residual()
    images = random_images(model)
    times = layer_times(ptq.quantize(model, ptq.calibrate(model, [images]), RECIPE), images, runtime)
    assert {"expand", "depthwise", "project"} <= set(times)
    assert min(times.values()) > 0


def test_the_shares_of_the_layers_are_of_the_whole_graph() -> None:
    model = inverted_residual()
    images = random_images(model)
    shares = shared_layer_times(model, images)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {"expand", "depthwise", "project"} <= set(shares)


def test_the_smallest_weights_of_each_layer_become_zero() -> None:
    model = inverted_residual()
    quantized = ptq.quantize(model, ptq.calibrate(model, [random_images(model)]), RECIPE)
    for before, after in zip(
        quantized.graph.initializer, without_smallest(quantized, 0.3).graph.initializer, strict=True
    ):
        old, new = numpy_helper.to_array(before), numpy_helper.to_array(after)
        if old.dtype == np.int8 and old.ndim > 1:
            assert (new == 0).sum() >= int(0.3 * new.size)
            gone = np.abs(old[(new == 0) & (old != 0)].astype(int))
            assert gone.max(initial=0) <= np.abs(new[new != 0].astype(int)).min(initial=127)
        else:
            np.testing.assert_array_equal(old, new)


def test_more_than_there_is_cannot_be_removed() -> None:
    with pytest.raises(OptimizeError, match=r"--share .*: expected at most 0.\d+, .*: use a lower --share"):
        pruned(two_heads(), 0.99)


def test_the_detector_has_fewer_multiplications_and_still_runs() -> None:
    model = folded("ssdlite_mobilenet_v2_coco")
    small = pruned(model, 0.3)
    before, after = (sum(multiplications(one, ("Conv",)).values()) for one in (model, small))
    assert 0.6 < after / before < 0.85
    images = random_images(model)
    expected, found = outputs_of(model, images), outputs_of(small, images)
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_the_command_writes_the_pruned_bundle_and_its_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prune_run, "_refusal", lambda quality, ratio, right, ceiling: "")
    file = tmp_path / "block.onnx"
    file.write_bytes(inverted_residual().SerializeToString())
    bundle, clip = tiny_bundle(tmp_path / "tiny", file), image_folder(tmp_path / "clip", 60)
    out = tmp_path / "out"
    arguments = ["train", "prune", f"{bundle}/", "--video", str(clip), "--share", "0.3", "--out", str(out)]
    assert main([*arguments, "--steps", "10", "--batch", "4", "--samples", "16", "--frames", "40"]) == 0
    manifests = [load_bundle(f"{out / name}/").manifest for name in ("bundle", "int8")]
    assert [one.graphs[0].precision for one in manifests] == ["fp32", "int8"]
    assert [one.name for one in manifests] == [f"tiny_prune_{one}_64x64" for one in ("fp32", "int8")]
    assert load_bundle(f"{out / 'bundle'}/").manifest.figures["train"]["request"]["share"] == 0.3
    printed = capsys.readouterr().out
    assert f"in {out}: bundle, int8, report.json" in printed
    assert "pruned, untuned" in printed and "unstructured: 30% of the teacher's int8 weights zero" in printed


def test_a_model_that_agrees_too_little_is_refused() -> None:
    assert "pass a lower --share" in prune_run._refusal(prune_run.Quality(0.5, 10.0), 0.7)
    assert prune_run._refusal(prune_run.Quality(0.5, 10.0), 0.7, right=True) == ""
    assert "faster" in prune_run._refusal(prune_run.Quality(0.95, 10.0), 1.1)
    assert prune_run._refusal(prune_run.Quality(0.95, 10.0), 0.7) == ""


def test_no_more_agreement_is_expected_than_the_teacher_has_with_itself() -> None:
    assert prune_run._refusal(Quality(0.87, 10.0), 0.7, ceiling=0.866) == ""
    expected = (
        "expected an agreement of 0.8660 or more, the teacher's with itself when the picture moves by 2 px,"
    )
    assert prune_run._refusal(Quality(0.86, 10.0), 0.7, ceiling=0.866).startswith(expected)
    refused = prune_run._refusal(Quality(0.89, 10.0), 0.7, ceiling=0.95)
    assert "an agreement of 0.9 or more (the teacher's with itself" in refused and "0.950" in refused


def test_a_graph_that_training_made_worse_has_a_note_with_the_remedy() -> None:
    worse, better = Quality(0.763, 9.0, 0.7), Quality(0.784, 14.0, 0.6)
    note = worse_than_untuned(better, worse, {})
    assert "(agreement 0.763, before 0.784): pass more --steps or more varied clips" in note
    assert worse_than_untuned(worse, better, {}) == "" == worse_than_untuned(worse, worse, {})
    corrected = {"raised": 5}
    assert worse_than_untuned(better, worse, corrected) == "", "its AP50 rose"
    assert "(AP50 0.600, before 0.700)" in worse_than_untuned(worse, better, corrected)


def test_the_summary_has_note_ceiling_and_crops() -> None:
    request = TrainingRequest("prune", "m", ("clip",), share=0.3)
    unstructured = dict.fromkeys(
        ("share", "agreement", "time_ratio", "compressed_bytes", "teacher_compressed_bytes"), 0.5
    )
    report = TrainingReport(
        *("m", "0", request, (), (), 352, {"pruned": Quality(0.8, 9.0)}, {"onnxruntime": 0.7}, (), 60.0),
        figures={"unstructured": unstructured, "ceiling": 0.866},
        judge_frames=88,
        note="worse",
    )
    lines = summary(report).split("\n")
    assert lines[0].startswith("on 88 frames, 352 crops ") and lines[-2] == "note: worse"
    assert lines[-3] == "agreement of the teacher with itself, picture moved by 2 px: 0.866"
    assert summary(replace(report, judge_frames=352)).startswith("on 352 judge images ")
    expecting = replace(report, figures={**report.figures, "expected_agreement": 0.9})
    assert "expected agreement of the result: 0.900 or more" in summary(expecting)
    trained = replace(report, curve=((25, 0.1, 0.8),), best_step=25)
    assert "kept state: that of step 25, of 300;" in summary(trained)
    assert "kept state: the untrained one, of 300;" in summary(replace(trained, best_step=0))


@pytest.mark.parametrize(
    ("found", "labels", "right"),
    [
        (0.8, {"raised": 5, "judge": 10}, True),
        (0.7, {"raised": 5, "judge": 10}, False),
        (None, {"raised": 5, "judge": 10}, False),
        (0.8, {"raised": 5, "judge": 9}, False),
        (0.8, {"judge": 10}, False),
        (0.8, {}, False),
    ],
)
def test_labels_decide_if_they_are_targets_and_cover_half_of_the_judge_images(
    found: float | None, labels: dict[str, int], right: bool
) -> None:
    teacher = prune_run.Quality(1.0, 30.0, 0.75)
    assert prune_run.right_on_labels(prune_run.Quality(0.5, 10.0, found), teacher, labels, 20) is right
