"""Students: a new network with the teacher's tail, its normalisation, the loss, the command."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from dataset_cases import NOON, collect
from onnx import helper, numpy_helper
from optimize_cases import image_folder
from test_train_graph import outputs_of, random_images

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.bundles.store import load_bundle
from edge_vision.cli.optimize import main
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.dataset.picture import ACCEPTED, LabelledBox
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.train.data.teacher import TeacherSamples
from edge_vision.train.graph.batch_norm import NormalisedConvolutions
from edge_vision.train.graph.torch_graph import TorchGraph, written_back
from edge_vision.train.networks.cutting import ClassColumns, cut, cut_bundle
from edge_vision.train.networks.family import student
from edge_vision.train.recipes import student_run
from edge_vision.train.recipes.detection_loss import detection_loss
from edge_vision.train.recipes.distillation import Distillation, ParameterGroup

torch.set_num_threads(1)
SIDE_PX, STRIDES, CLASSES, REST = 64, (8, 16), 3, 16
COLUMNS = ClassColumns("rows", 0, CLASSES, REST)


def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], output, **attributes)


def detector(inner: int = 0) -> onnx.ModelProto:
    """A NanoDet head on two feature maps, for 64x64 images. inner: channels of a layer before each map."""
    rng = np.random.default_rng(5)
    width, nodes, arrays, rows = CLASSES + REST, [], {}, []
    arrays["sizes"] = np.array([CLASSES, REST], np.int64)
    arrays["of_scores"], arrays["of_sides"] = (np.array([1, n, -1], np.int64) for n in (CLASSES, REST))
    for stride in STRIDES:
        name = f"s{stride}"
        kernel = (width, inner, 1, 1) if inner else (width, 3, 3, 3)
        arrays[f"{name}_w"] = rng.normal(0, 0.3, kernel).astype(np.float32)
        arrays[f"{name}_b"] = np.full(width, -1.0, np.float32)
        pool, pads = f"{name}_pool", [0 if inner else 1] * 4
        nodes.append(node("AveragePool", ["images"], pool, kernel_shape=[stride] * 2, strides=[stride] * 2))
        if inner:
            arrays[f"{name}_i"] = rng.normal(0, 0.1, (inner, 3, 3, 3)).astype(np.float32)
            nodes.append(node("Conv", [pool, f"{name}_i"], f"{name}_conv", pads=[1, 1, 1, 1]))
            nodes.append(node("Relu", [f"{name}_conv"], pool := f"{name}_inner"))
        nodes += [
            node("Conv", [pool, f"{name}_w", f"{name}_b"], name, pads=pads),
            helper.make_node("Split", [name, "sizes"], [f"{name}_c", f"{name}_d"], f"{name}_split", axis=1),
            node("Sigmoid", [f"{name}_c"], f"{name}_p"),
            node("Reshape", [f"{name}_p", "of_scores"], f"{name}_pr"),
            node("Reshape", [f"{name}_d", "of_sides"], f"{name}_dr"),
            node("Concat", [f"{name}_pr", f"{name}_dr"], f"{name}_rows", axis=1),
        ]
        rows.append(f"{name}_rows")
    nodes += [
        helper.make_node("Concat", rows, ["joined"], "joined", axis=2),
        helper.make_node("Transpose", ["joined"], ["rows"], "transposed", perm=[0, 2, 1]),
    ]
    cells = sum((SIDE_PX // stride) ** 2 for stride in STRIDES)
    x = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])
    y = helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [1, cells, width])
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "tiny", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def detector_bundle(folder: Path, score_threshold: float = 0.4, inner: int = 0) -> Path:
    data = detector(inner).SerializeToString()
    manifest = Manifest(
        name="tiny",
        version="1.0.0",
        task="detect",
        description="made by a test",
        licence="Apache-2.0",
        source="",
        input=InputSpec("images", SIDE_PX, SIDE_PX, mean=(127.0,) * 3, std=(64.0,) * 3),
        head=HeadSpec("nanodet", {"rows": "rows"}, {"strides": list(STRIDES), "reg_max": 3}),
        thresholds=Thresholds(score_threshold),
        labels_file="labels.txt",
        graphs=(GraphSpec("model.onnx", "onnx", "fp32", hashlib.sha256(data).hexdigest()),),
    )
    write_folder(folder, manifest, {"model.onnx": data, "labels.txt": b"person\ncar\ndog\n"})
    return folder


def test_cut_classes_have_the_same_outputs() -> None:
    model = detector()
    small = cut(model, COLUMNS, [0, 2])
    images = random_images(model)
    expected, found = (outputs_of(one, images)["rows"] for one in (model, small))
    np.testing.assert_allclose(found, np.delete(expected, 1, axis=-1), atol=1e-5)


def test_a_share_of_a_new_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "--width", "0.5", "--share", "0.3")) == 1
    assert "--width 0.5 with --share 0.3: expected one of them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_new_network_has_the_teachers_outputs_and_width_counts() -> None:
    teacher = cut(detector(), COLUMNS, [0])
    sizes = []
    for width in (0.5, 1.0):
        model = student(teacher, width, 1, 0)
        assert outputs_of(model, random_images(model))["rows"].shape == (1, 80, 1 + REST)
        sizes.append(len(model.SerializeToString()))
    assert sizes[1] > 1.5 * sizes[0]


def test_the_normalisation_is_folded_into_the_weights() -> None:
    """After training, the graph gives what normalisation with the running statistics gives."""
    torch.manual_seed(0)
    model = student(cut(detector(), COLUMNS, [0]), 0.5, 1, 0)
    batches = NormalisedConvolutions(model, tail_inputs(model))
    graph = TorchGraph(model, ["rows"], batches.operators)
    images = torch.from_numpy(np.concatenate([random_images(model, seed) for seed in range(8)]))
    for _ in range(200):
        expected = graph(images)["rows"].detach().numpy()
    folded = written_back(model, batches.folded(graph.trained()))
    found = np.concatenate([outputs_of(folded, one[None].numpy())["rows"] for one in images])
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()


def test_the_loss_is_least_for_the_teachers_outputs() -> None:
    loss = detection_loss(COLUMNS, "", False)
    rng = np.random.default_rng(0)
    scores, sides = rng.uniform(0, 1, (2, 9, CLASSES)), rng.normal(0, 1, (2, 9, REST))
    target = {"rows": torch.from_numpy(np.concatenate([scores, sides], -1).astype(np.float32))}
    other = {"rows": target["rows"].clone()}
    other["rows"][..., 0] = 1 - other["rows"][..., 0]
    moved = {"rows": target["rows"].clone()}
    moved["rows"][..., CLASSES:] *= -1
    assert float(loss(target, target)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(other, target)) > 0.05 and float(loss(moved, target)) > 0.05


def samples(count: int = 16) -> TeacherSamples:
    model = cut(detector(), COLUMNS, [0])
    images = [random_images(model, seed) for seed in range(count)]
    rows = [outputs_of(model, one)["rows"] for one in images]
    return TeacherSamples(np.concatenate(images), {"rows": np.concatenate(rows)})


def training(folder: Path, loss=None) -> tuple[Distillation, NormalisedConvolutions, TorchGraph]:
    model = student(cut(detector(), COLUMNS, [0]), 0.5, 1, 0)
    batches = NormalisedConvolutions(model, tail_inputs(model))
    graph = TorchGraph(model, ["rows"], batches.operators)
    groups = [
        ParameterGroup([*graph.weights.values(), *batches.scales.values()], 5e-3),
        ParameterGroup([one for pair in batches.statistics.values() for one in pair], 0.0),
    ]
    loss = loss or detection_loss(ClassColumns("rows", 0, 1, REST), "", False)
    made = Distillation(graph, groups, samples(), time.monotonic, folder / "c.pt", loss=loss)
    return made, batches, graph


def test_a_stopped_training_continues_with_its_statistics(tmp_path: Path) -> None:
    def interrupt(step: int, loss: float, left_s: float) -> None:
        if step == 30:
            raise KeyboardInterrupt

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, batches, _ = training(tmp_path / "a")
    losses: list[float] = []
    whole.run(40, 4, 0, lambda step, loss, left_s: losses.append(loss))
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "b")[0].run(40, 4, 0, interrupt)
    again, continued, _ = training(tmp_path / "b")
    rest: list[float] = []
    again.run(40, 4, 0, lambda step, loss, left_s: rest.append(loss))
    assert rest == pytest.approx(losses[30:], rel=1e-4)
    for name, (mean, _) in batches.statistics.items():
        np.testing.assert_allclose(mean, continued.statistics[name][0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("scores", "is_average"), [([0.0, 2.0, 1.0], False), ([0.0, 1.0, 2.0], True)])
def test_the_average_of_the_weights_is_kept_where_it_is_better(
    tmp_path: Path, scores: list[float], is_average: bool
) -> None:
    made = training(tmp_path)[0]
    given, last = iter(scores), []
    made._score = lambda: next(given)
    progress = made.run(25, 4, 0, lambda step, loss, left_s: last.append(made._values()))
    assert progress.curve[-1][2] == progress.best_score == 2.0
    expected = progress.average if is_average else last[-1]
    for best, now, value in zip(progress.best, made._values(), expected, strict=True):
        assert torch.equal(best, now) and torch.equal(best, value)
    assert not all(map(torch.equal, progress.average, last[-1]))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(tmp_path: Path) -> None:
    calls = iter(range(1000))

    def broken(found, expected):
        value = found["rows"].square().mean()
        return value * float("nan") if next(calls) >= 30 else value

    made, _, graph = training(tmp_path, broken)
    progress = made.run(60, 4, 0, lambda step, loss, left_s: None)
    assert "the loss was nan in step 31" in progress.stopped and progress.step == 30
    assert all(np.isfinite(value).all() for value in graph.trained().values())


def test_a_checkpoint_beyond_the_size_limit_is_an_error_of_the_disk(tmp_path: Path) -> None:
    made, _, _ = training(tmp_path)
    state = made.run(1, 4, 0, lambda *_: None)
    before = (tmp_path / "c.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            made._store(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "c.pt").read_bytes() == before


def arguments(tmp_path: Path, *more: str, classes: tuple[str, ...] = ("person", "car")) -> list[str]:
    for name, seed in (("clip", 0), ("elsewhere", 9)):
        if not (tmp_path / name).exists():
            image_folder(tmp_path / name, 60, seed)
    return [
        *("train", "student", f"{tmp_path / 'tiny'}/", "--classes", *classes),
        *("--video", str(tmp_path / "clip"), "--other", str(tmp_path / "elsewhere")),
        *("--batch", "4", "--samples", "16", "--frames", "40", "--out", str(tmp_path / "out"), *more),
    ]


def test_a_bad_student_is_refused_with_its_figures_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector_bundle(tmp_path / "tiny")
    assert main(arguments(tmp_path, "--width", "0.5", "--depth", "1", "--steps", "2")) == 3
    printed = capsys.readouterr().out
    assert "agreement on elsewhere, another scene" in printed and "int8 file" in printed
    assert "the teacher's with itself" in printed and not (tmp_path / "out" / "int8").exists()
    assert main(arguments(tmp_path, "--width", "0.5", "--depth", "1", "--steps", "2", "--anyway")) == 0
    again = capsys.readouterr().out
    assert "warning: written with --anyway, but it is no replacement: expected an agreement of" in again
    assert "or --anyway" in printed and "or --anyway" not in again
    assert f"in {tmp_path / 'out'}: bundle, int8, report.json" in again
    bundle = load_bundle(f"{tmp_path / 'out' / 'int8'}/")
    valid_for = bundle.manifest.valid_for
    assert valid_for is not None and valid_for.classes == ("person", "car") and len(valid_for.scene) == 16
    assert Path(valid_for.teacher) == tmp_path / "tiny"
    assert bundle.manifest.figures["train"]["figures"]["other_agreement"]
    assert bundle.labels == ("person", "car")
    assert bundle.manifest.description == "Detects person, car; student of tiny; student, int8, 64x64"
    assert bundle.name == "tiny_student_int8_64x64"


def test_the_cut_teacher_agrees_best(tmp_path: Path) -> None:
    detector_bundle(tmp_path / "tiny")
    main(arguments(tmp_path, "--steps", "1"))
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["qualities"][student_run.UNTUNED]["agreement"] == 1.0


def test_objects_on_feature_maps_that_are_left_out_are_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher to learn from has its boxes elsewhere than the one with all maps, as if it lacked some."""
    detector_bundle(tmp_path / "tiny")
    backwards = numpy_helper.from_array(np.arange(80)[::-1].copy(), "backwards")

    def whole(*given: Any) -> onnx.ModelProto:
        model = cut(*given)
        makers = {name: one for one in model.graph.node for name in one.output}
        makers["rows"].output[0] = "forwards"
        model.graph.node.append(node("Gather", ["forwards", "backwards"], "rows", axis=1))
        model.graph.initializer.append(backwards)
        return model

    monkeypatch.setattr(student_run, "cut", whole)
    monkeypatch.setattr(student_run, "cut_bundle", lambda *given: cut_bundle(*given[:3]))
    arguments_ = arguments(tmp_path, "--steps", "1", "--levels", "1")
    assert main(arguments_) == 1
    assert "--levels 1: expected an agreement of" in capsys.readouterr().err
    assert main([*arguments_, "--anyway"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["figures"]["levels_agreement"] < 0.5 > report["qualities"]["teacher int8"]["agreement"]
    assert "of the teacher without the other feature maps with the whole one: 0." in capsys.readouterr().out


def test_another_scene_is_no_clip_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector_bundle(tmp_path / "tiny")
    given = arguments(tmp_path)
    assert main([*given, "--other", str(tmp_path / "clip")]) == 1
    assert "clip: expected another scene" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_class_that_the_clips_lack_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = detector_bundle(tmp_path / "tiny")
    model = onnx.load(folder / "model.onnx")
    for one in model.graph.initializer:
        if one.name.endswith("_b"):
            values = numpy_helper.to_array(one).copy()
            values[2] = -30.0
            one.CopyFrom(numpy_helper.from_array(values, one.name))
    replace_graph(folder, model)
    assert main(arguments(tmp_path, "--steps", "1", classes=("person", "dog"))) == 1
    printed = capsys.readouterr()
    assert "expected objects of each class in the clips, got none of dog" in printed.err
    assert "dog: not detected on the" in printed.out, "before the samples are made"
    assert not (tmp_path / "out").exists()


def replace_graph(folder: Path, model: onnx.ModelProto) -> None:
    before = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    manifest = folder / "bundle.yaml"
    text = manifest.read_text("utf-8").replace(before, hashlib.sha256(data).hexdigest())
    manifest.write_text(text, "utf-8")


def test_a_clip_without_objects_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector_bundle(tmp_path / "tiny", score_threshold=0.999)
    assert main(arguments(tmp_path, "--steps", "1")) == 1
    assert "expected objects of each class in the clips, got none of person, car" in capsys.readouterr().err


def test_a_clip_with_equal_frames_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector_bundle(tmp_path / "tiny")
    given = arguments(tmp_path, "--steps", "1")
    first = (tmp_path / "clip" / "000.png").read_bytes()
    for file in (tmp_path / "clip").iterdir():
        file.write_bytes(first)
    assert main(given) == 1
    assert "expected at least" in capsys.readouterr().err


def reviewed_pictures(folder: Path) -> Path:
    """60 pictures: of three, one has no review, one is reviewed to be empty, one to have a person."""
    pictures = collect(folder, 60)
    for number, name in enumerate(pictures.names()):
        boxes = [LabelledBox("person", (20.0, 12.0, 30.0, 24.0))] * (number % 3 - 1)
        if number % 3:
            pictures.review(name, 0, ACCEPTED, boxes, NOON)
    return pictures.folder


def labelled_training(tmp_path: Path, *recipe: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The report's figures of the labels, and the targets of the samples."""
    pictures, out = reviewed_pictures(tmp_path / "pictures"), tmp_path / "out"
    options = ["--steps", "2", "--batch", "4", "--samples", "36", "--frames", "40", "--out", str(out)]
    given = [recipe[0], f"{tmp_path / 'tiny'}/", *recipe[1:], "--video", str(pictures), *options]
    assert main(["train", *given]) in (0, 3)
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert all(one["map50"] is not None for one in report["qualities"].values())
    stored = [np.load(file) for file in sorted((out / "samples").glob("*.npy"))]
    return report["labelled"], {"inputs": stored[0], "rows": stored[1]}


def test_labels_are_targets_of_a_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector_bundle(tmp_path / "tiny")
    image_folder(tmp_path / "elsewhere", 60, 9)
    other = ("--other", str(tmp_path / "elsewhere"))
    labelled, targets = labelled_training(tmp_path, "student", "--classes", "person", "car", *other)
    assert labelled["train"] == 26 and labelled["judge"] == 12 and labelled["left_out"] == 0
    assert labelled["raised"] > 0 and labelled["lowered"] > 0
    printed = capsys.readouterr().out
    assert f"{labelled['raised']} missed objects raised, {labelled['lowered']} boxes lowered" in printed
    model = cut(detector(), COLUMNS, [0, 1])
    own = np.concatenate(
        [outputs_of(model, one[None].astype(np.float32))["rows"] for one in targets["inputs"]]
    )
    scores, before = targets["rows"][..., :2].astype(np.float32), own[..., :2]
    changed = np.abs(scores - before) > 0.01
    assert changed.any(axis=(1, 2)).sum() >= 20, "of 36 samples"
    assert set(np.rint(100 * scores[changed]).tolist()) == {2, 90}
    assert (scores[changed] > 0.5).sum() <= 3 * labelled["raised"]


def test_labels_are_targets_of_pruning(tmp_path: Path) -> None:
    detector_bundle(tmp_path / "tiny", inner=128)
    labelled, targets = labelled_training(tmp_path, "prune", "--share", "0.1")
    assert labelled["left_out"] == 0 and labelled["raised"] > 0 and labelled["lowered"] > 0
    assert targets["rows"].shape == (36, 80, CLASSES + REST)


def test_qat_imitates_the_teacher_where_labels_agree(tmp_path: Path) -> None:
    detector_bundle(tmp_path / "tiny")
    labelled, _ = labelled_training(tmp_path, "qat")
    assert labelled["left_out"] > 0 and "raised" not in labelled


def test_a_killed_run_continues(tmp_path: Path) -> None:
    detector_bundle(tmp_path / "tiny")
    given = arguments(tmp_path, "--width", "0.5", "--depth", "1", "--steps", "200")
    code = "import sys; from edge_vision.cli.optimize import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *given], stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stored = torch.load(checkpoint, weights_only=True)
    done, curve = stored["progress"][:2]
    assert 0 < done < 200
    assert main(given) in (0, 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["curve"][: len(curve)] == [list(one) for one in curve]
    assert report["curve"][-1][0] == 200
