"""Architecture search: networks of a supernet, the latency model, the searches, gates, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from model_cases import save_graph
from onnx import helper, numpy_helper
from optimize_cases import image_folder, tiny_bundle
from test_train_graph import outputs_of, random_images
from test_train_prune import INNER, inverted_residual
from test_train_student import detector_bundle

from edge_vision.bundles.store import load_bundle
from edge_vision.cli.optimize import main
from edge_vision.core.model_spec import InputSpec
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.graph_edit import load_model, resize
from edge_vision.optimize.quantization.input_moments import input_moments
from edge_vision.optimize.trained import trained_bundles
from edge_vision.train.networks.supernet import Genes, Supernet
from edge_vision.train.networks.timing import time_ratio
from edge_vision.train.recipes import distillation
from edge_vision.train.recipes.distillation import noise_ratio
from edge_vision.train.search import measuring, search_run
from edge_vision.train.search.gates import GatedGraph, time_loss
from edge_vision.train.search.latency_model import LatencyModel, non_negative
from edge_vision.train.search.measuring import Records
from edge_vision.train.search.network_search import NetworkSearch
from edge_vision.train.search.search_run import pareto_front

SIZE = Size(64, 64)


def supernet(model: onnx.ModelProto | None = None, precisions: tuple[str, ...] = ("fp32",)) -> Supernet:
    model = model or inverted_residual()
    spec = InputSpec("images", *(SIZE.width_px, SIZE.height_px), mean=(127.0,) * 3, std=(64.0,) * 3)
    moments = input_moments(model, [random_images(model, seed) for seed in range(4)], {})
    return Supernet(model, moments, spec, [SIZE], precisions)


def genes(kept: int, precision: str = "fp32") -> Genes:
    return Genes((kept,), SIZE, precision)


def test_the_choices_are_multiples_of_32_or_16_and_no_block_at_all() -> None:
    assert supernet().choices == [(0, 16, 32, 64, 96, INNER)]


def test_all_channels_are_the_teacher_and_none_leaves_the_block_out() -> None:
    model, images = inverted_residual(), random_images(inverted_residual(), 9)
    net = supernet(model)
    assert net.network(net.whole).SerializeToString() == model.SerializeToString()
    left = net.network(genes(0))
    assert [node.op_type for node in left.graph.node] == ["Add", "GlobalAveragePool", "Flatten", "Gemm"]
    expected, found = (outputs_of(one, images)["logits"] for one in (model, left))
    # The block adds its mean: the pooled outputs are nearly the same.
    np.testing.assert_allclose(found, expected, atol=0.3 * np.abs(expected).max())


def test_a_network_of_copies_needs_half_of_its_channels() -> None:
    model, images = inverted_residual(copies=True), random_images(inverted_residual(), 9)
    small = supernet(model).network(genes(INNER // 2))
    expected, found = (outputs_of(one, images)["logits"] for one in (model, small))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_a_model_without_inner_channels_is_refused() -> None:
    with pytest.raises(OptimizeError, match="expected a model with inner channels, 32 or more"):
        supernet(inverted_residual(skip=True))


def test_networks_run_at_other_sizes() -> None:
    model = inverted_residual()
    net = supernet(model)
    small = net.network(Genes((64,), Size(32, 32), "fp32"))
    images = random_images(model, 9)
    expected, found = outputs_of(model, images), outputs_of(small, images[:, :, :32, :32])
    assert found["logits"].shape == expected["logits"].shape and np.isfinite(found["logits"]).all()


def test_networks_to_fit_a_model_are_spread_over_all_kinds_and_widths() -> None:
    net = supernet(precisions=("int8", "fp32"))
    found = net.spread(9, np.random.default_rng(0))
    assert [one.precision for one in found] == ["int8"] * 5 + ["fp32"] * 4
    for precision in net.precisions:
        kept = [one.kept[0] for one in found if one.precision == precision]
        assert min(kept) < INNER // 3 and max(kept) > INNER // 2


def test_coefficients_are_those_of_the_data_and_never_negative() -> None:
    rng = np.random.default_rng(0)
    rows, ridge = rng.uniform(0, 1, (80, 4)), 1e-4
    found = non_negative(rows, rows @ [1.0, 0.0, 2.0, 0.5], ridge)
    np.testing.assert_allclose(found, [1.0, 0.0, 2.0, 0.5], atol=0.02)
    assert non_negative(rows, rows @ [1.0, -1.0, 2.0, 0.5], ridge).min() == 0


def latency(net: Supernet, factor: float = 1.0) -> LatencyModel:
    networks = [genes(kept, p) for kept in net.choices[0] for p in net.precisions]
    times = [factor * (0.2 + 0.8 * one.kept[0] / INNER) for one in networks]
    return LatencyModel(net, layer_times(net), networks, times)


def layer_times(net: Supernet) -> dict[str, dict[str, float]]:
    return {precision: {net.chains[0].first: 1.0} for precision in net.precisions}


def test_the_latency_model_predicts_networks_that_it_was_not_fitted_on() -> None:
    net = supernet()
    known = [genes(kept) for kept in (0, 32, INNER)]
    model = LatencyModel(net, layer_times(net), known, [0.2, 0.4, 1.0])
    errors = model.errors([genes(64), genes(96)], [0.6, 0.8])
    assert errors.worst < 0.1 and errors.spearman == 1 and errors.networks == 2
    assert model.slopes("fp32")[0] * INNER == pytest.approx(0.8, abs=0.15)


def test_a_graph_takes_as_long_as_itself() -> None:
    model, images = inverted_residual(), random_images(inverted_residual())
    assert time_ratio("onnxruntime", model, images, model, images, 6) > 0


def score(one: Genes) -> float:
    """The search should find 64 channels in int8."""
    return 1 - abs(one.kept[0] - 64) / INNER - 0.5 * (one.precision == "fp32")


def test_each_search_satisfies_the_budget() -> None:
    net = supernet(precisions=("int8", "fp32"))
    model = latency(net)
    search = NetworkSearch(net, model, score)
    start = [*search.lagrangian(0.85), *search.uniform(0.85)]
    found = search.evolved(start, 0.85, 30, 0, lambda done: None)
    gated = search.ranked(search.from_widths([np.array([0.5]), np.array([0.72])], 0.85))[0]
    assert all(model.of(one) <= 0.85 for one in (*start, *found, gated))
    assert {one.kept[0] for one in start} == {96} and gated.kept == (96,)
    scores = list(map(score, found))
    assert found[0] == genes(64, "int8") and scores == sorted(scores, reverse=True)
    assert search.evolved(start, 0.85, 30, 0, lambda done: None) == found
    assert search.lagrangian(0.1) == [] == search.uniform(0.1)


def test_gates_are_ordered_and_close_until_the_target() -> None:
    model = inverted_residual(copies=True, side_px=16)
    net = supernet(model)
    gated = GatedGraph(model, {("project",): net.orders[0]}, ("logits",), {})
    images = torch.from_numpy(random_images(model))
    expected = outputs_of(model, images.numpy())["logits"]
    np.testing.assert_allclose(gated(images)["logits"].detach().numpy(), expected, rtol=0.2, atol=0.05)
    loss = time_loss(gated, noise_ratio, [0.8], 1.0, 0.6, 60)
    optimizer = torch.optim.Adam([gated.widths], 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss(gated(images), {"logits": torch.from_numpy(expected)}).backward()
        optimizer.step()
    assert 0.35 < gated.widths.tolist()[0] < 0.65
    gates = gated.gates(0).detach().numpy()[net.orders[0]]
    assert np.all(np.diff(gates) >= 0)


def test_random_widths_alternate_with_all_channels() -> None:
    model = inverted_residual(side_px=16)
    gated = GatedGraph(model, {("project",): np.arange(INNER)}, ("logits",), {}, random=True)
    images = torch.from_numpy(random_images(model))
    narrow, whole = (gated(images)["logits"].detach().numpy() for _ in range(2))
    np.testing.assert_allclose(whole, outputs_of(model, images.numpy())["logits"], atol=1e-4)
    assert not np.allclose(narrow, whole, atol=1e-3)


def test_all_tensors_are_made_on_the_device_in_use() -> None:
    """`meta` stands for a GPU: tensors of two devices cannot be added."""
    model = inverted_residual(side_px=16)
    with torch.device("meta"):
        gated = GatedGraph(model, {("project",): np.arange(INNER)}, ("logits",), {})
        found = gated(torch.as_tensor(random_images(model)))
        expected = {"logits": torch.as_tensor(np.zeros(found["logits"].shape, np.float32))}
        noise_ratio(found, expected).backward()
    assert {one.device.type for one in (*gated.parameters(), found["logits"])} == {"meta"}
    assert gated.widths.grad is not None and gated.widths.grad.device.type == "meta"


def test_records_survive_a_kill_within_a_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    assert Records(file).get("a", lambda: [1, 2]) == [1, 2]
    with file.open("a") as opened:
        opened.write('{"b": [[3')
    again = Records(file)
    assert again.get("a", pytest.fail) == [1, 2] and again.get("b", lambda: 4) == 4
    assert Records(file).starting("") == [[1, 2], 4]


def test_the_front_has_what_is_faster_or_agrees_more() -> None:
    rows = [
        {"network": name, "ratios": {"onnxruntime": ratio}, "agreement": agreement}
        for name, ratio, agreement in (("slow", 0.9, 0.9), ("fast", 0.5, 0.8), ("bad", 0.7, 0.7))
    ]
    assert pareto_front(rows, "onnxruntime") == ["fast", "slow"]


@pytest.fixture
def small_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Arguments of a search that takes seconds."""
    for module, name, value in (
        (measuring, "FITTED", 6),
        (measuring, "UNSEEN", 4),
        (measuring, "ROUNDS", 3),
        (search_run, "CHILDREN", 4),
        (search_run, "GATE_STEPS", 8),
        (search_run, "FINAL_ROUNDS", 3),
        (search_run, "MIN_AGREEMENT", 0.0),
        (search_run, "FAMILY_WIDTH", 0.75),
        (search_run, "FAMILY_DEPTH", 1),
        (distillation, "EVALUATION_STEPS", 4),
    ):
        monkeypatch.setattr(module, name, value)
    # Any time is good enough here: the rows are tested, not this machine.
    monkeypatch.setattr(measuring, "time_ratio", lambda *_: 0.5)
    file = tmp_path / "block.onnx"
    file.write_bytes(inverted_residual().SerializeToString())
    bundle, clip = tiny_bundle(tmp_path / "tiny", file), image_folder(tmp_path / "clip", 60)
    arguments = ["search", f"{bundle}/", "--video", str(clip), "--out", str(tmp_path / "out"), "--steps", "8"]
    return lambda *more: [*arguments, "--batch", "4", "--samples", "16", "--frames", "40", *more]


def test_the_command_continues_after_ctrl_c_and_writes_rows_and_bundles(
    tmp_path: Path,
    small_search: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, out = small_search("--budgets", "0.9", "0.7"), tmp_path / "out"
    with monkeypatch.context() as stopped:
        stopped.setattr(search_run._Search, "_tuned", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(arguments) == 130
    before = (out / "search" / "records.jsonl").read_text("utf-8")
    assert main(arguments) == 0
    assert (out / "search" / "records.jsonl").read_text("utf-8").startswith(before)
    report = json.loads((out / "report.json").read_text("utf-8"))["figures"]
    methods = ["uniform", "evolved", "differentiable"]
    assert [one["method"] for one in report["rows"]] == methods * 2
    assert report["latency_errors"]["onnxruntime"]["networks"] == 4
    printed = capsys.readouterr().out
    assert "latency model, onnxruntime" in printed and "differentiable" in printed
    files = sorted(out.glob("budget_*/*/model.onnx"))
    assert len(files) == 2 == len(report["bundles"])
    for lost in ("", "report.json"):  # Repeated; and killed between the bundles and the report.
        if lost:
            (out / lost).unlink()
        assert main(arguments) == 0
        assert sorted(out.glob("budget_*/*/model.onnx")) == files
    records = out / "search" / "records.jsonl"
    lines = records.read_text("utf-8").splitlines(keepends=True)
    records.write_text("".join(line for line in lines if "widths 4" not in line), "utf-8")
    (out / "report.json").unlink()
    assert main(arguments) == 0
    assert "widths of step 4 are missing" in capsys.readouterr().out
    assert sum("widths 4" in line for line in records.read_text("utf-8").splitlines()) == 1
    source = load_bundle(f"{tmp_path / 'tiny'}/")
    (tmp_path / "study").mkdir()
    bundles = trained_bundles(tmp_path / "study", [str(one) for one in sorted(out.glob("budget_*"))], source)
    assert list(bundles) == ["search", "search_2"]
    assert bundles["search"].manifest.figures["train"]["figures"]["budget"] in (0.9, 0.7)


def test_precisions_are_compared_after_half_of_the_tuning(
    tmp_path: Path, small_search: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of thumb prefers fp32 here, the trials int8."""
    monkeypatch.setattr(search_run._Search, "_score", lambda _, one, __: float(one.precision == "fp32"))
    after_half = search_run._Search._after_half
    tried: dict[str, float] = {}

    def recorded(search: search_run._Search, one: Genes, what: str) -> float:
        found = after_half(search, one, what)
        tried[one.precision] = found
        return found + (one.precision == "int8")

    monkeypatch.setattr(search_run._Search, "_after_half", recorded)
    assert main(small_search("--budgets", "0.9")) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["figures"]["rows"]
    assert all(one["network"].startswith("int8") for one in rows)
    assert set(tried) == {"int8", "fp32"} and all(0 <= one <= 1 for one in tried.values())


def test_the_evolution_ends_with_the_uniform_network_that_tunes_better(
    tmp_path: Path, small_search: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training it has the least score, after half of the tuning the highest."""
    uniform, given = set(), NetworkSearch.uniform

    def recorded(search: NetworkSearch, budget: float) -> list[Genes]:
        found = given(search, budget)
        uniform.update(found)
        return found

    monkeypatch.setattr(NetworkSearch, "uniform", recorded)
    monkeypatch.setattr(search_run._Search, "_score", lambda _, one, __: float(one not in uniform))
    monkeypatch.setattr(
        search_run._Search,
        "_after_half",
        lambda _, one, __: (one in uniform) * (1.0 + (one.precision == "int8")),
    )
    assert main(small_search("--budgets", "0.9")) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["figures"]["rows"]
    assert rows[0]["network"] == rows[1]["network"] in {one.id for one in uniform}


def test_a_loss_that_is_not_finite_ends_the_tuning_with_the_best_before(
    tmp_path: Path, small_search: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_run, "RATE", 1e30)
    assert main(small_search("--budgets", "0.9")) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert "the best state before is kept" in report["stopped"]
    assert all(np.isfinite(one["sqnr_db"]) for one in report["figures"]["rows"])


def test_a_new_supernet_is_trained_for_the_hours_and_searched(
    tmp_path: Path, small_search: Callable[..., list[str]]
) -> None:
    given = small_search("--budgets", "0.9", "--budget-hours", "0.0003")
    given[1] = f"{detector_bundle(tmp_path / 'detector')}/"
    assert main(given) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert len(report["figures"]["rows"]) == 3 and "ceiling" in report["figures"]
    (folder,) = (tmp_path / "out" / "budget_0.9").iterdir()
    names = [node.name for node in onnx.load(folder / "model.onnx").graph.node]
    assert any("depthwise" in name for name in names)
    lines = (tmp_path / "out" / "search" / "records.jsonl").read_text("utf-8").splitlines()
    records = {name: value for line in lines for name, (value, _) in json.loads(line).items()}
    for precision in search_run.PRECISIONS:
        assert any("depthwise" in name for name in records[f"layers onnxruntime {precision}"])


def test_a_search_expects_no_more_than_the_teachers_own_agreement() -> None:
    row = {"agreement": 0.8, "ratios": {"onnxruntime": 0.7}}
    words = search_run.least_agreement(0.866, search_run.MIN_AGREEMENT)[1]
    refused = search_run._refusal([row], [], "onnxruntime", words)
    assert "agreement of 0.8660 or more, the teacher's with itself when the picture moves by 2 px" in refused
    assert "got 0.8000 at 0.70: raise --budgets" in refused


def test_budgets_that_no_network_satisfies_are_refused(
    small_search: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small_search("--budgets", "0.01")) == 1
    assert "expected budgets that the narrowest network satisfies, got 0.01" in capsys.readouterr().err


def test_a_graph_whose_added_maps_round_differently_has_its_own_size_only(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    sizes = numpy_helper.from_array(np.array([1, 3, 32, 32], np.int64), "sizes")
    nodes = [
        helper.make_node("MaxPool", ["images"], ["half"], "half", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["half", "w"], ["map"], "map"),
        helper.make_node("Resize", ["map", "", "", "sizes"], ["up"], "up"),
        helper.make_node("Conv", ["images", "w"], ["fine"], "fine"),
        helper.make_node("Add", ["up", "fine"], ["sum"], "sum"),
    ]
    file = save_graph(tmp_path / "m.onnx", nodes, {"images": [1, 3, 32, 32]}, {"sum": None}, (weights, sizes))
    model, spec = load_model(file), InputSpec("images", 32, 32)
    assert search_run.accepts(model, model, spec, Size(32, 32))
    assert not search_run.accepts(model, model, spec, Size(33, 33))


def test_a_size_at_which_the_teacher_has_other_maps_is_left_out(tmp_path: Path) -> None:
    """Sides of 32 and 34 are halved alike, 33 not."""
    graphs = []
    for name, up in (("down", 0), ("up", 1)):
        pool = helper.make_node(
            "MaxPool", ["images"], ["map"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=up
        )
        file = save_graph(tmp_path / f"{name}.onnx", [pool], {"images": [1, 3, 32, 32]}, {"map": None})
        graphs.append(load_model(file))
    model, teacher = graphs
    spec = InputSpec("images", 32, 32)
    for side in (33, 34):
        resize(teacher, "images", "nchw", Size(side, side))
        assert search_run.accepts(model, teacher, spec, Size(side, side)) == (side == 34)
