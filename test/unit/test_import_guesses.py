"""What `bundles import` guesses from graphs shaped as each family's exports are."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from head_cases import ALL_KNOWN, FRAME_HEIGHT, FRAME_WIDTH, assert_found, in_model
from import_cases import ULTRALYTICS, constants, run_import, small_yolov8
from onnx import TensorProto
from test_heads_decoded import rtdetr_export

from edge_vision.backends import open_session
from edge_vision.backends.base import TensorSpec
from edge_vision.bundles import load_bundle
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.importer.head_evidence import HeadEvidence
from edge_vision.importer.head_rules import recognise_head

pytestmark = pytest.mark.usefixtures("trials_passed")
RNG = np.random.default_rng(5)


def shares(*shape: int) -> np.ndarray:
    return RNG.random(shape).astype(np.float32)


def logits(*shape: int) -> np.ndarray:
    return RNG.normal(0, 3, shape).astype(np.float32)


def joined(*parts: np.ndarray, axis: int = 2) -> np.ndarray:
    return np.concatenate(parts, axis=axis)


def corners(n: int) -> np.ndarray:
    """(1, n, 4) left, top, right, bottom at 640x640."""
    low = 320 * shares(1, n, 2)
    return joined(low, low + 320 * shares(1, n, 2))


LABELS = tuple(f"thing {i}" for i in range(6))

# The outputs of an export at 640x640 -> head, its options, how many classes, the colour of its pictures.
FAMILIES = {
    "YOLOv8": (
        {"output0": joined(640 * shares(1, 4, 8400), shares(1, 6, 8400), axis=1)},
        ("yolov8", {}, 6, "rgb"),
    ),
    "YOLO11, COCO": (
        {"output0": joined(640 * shares(1, 4, 8400), shares(1, 80, 8400), axis=1)},
        ("yolov8", {}, 80, "rgb"),
    ),
    "YOLOv8 with P2": (
        {"output0": joined(640 * shares(1, 4, 34000), shares(1, 6, 34000), axis=1)},
        ("yolov8", {}, 6, "rgb"),
    ),
    "YOLOv8 by a TFLite converter": (
        {"output0": shares(1, 10, 8400)},
        ("yolov8", {"box_unit": "relative"}, 6, "rgb"),
    ),
    "YOLOv5": (
        {"output0": joined(640 * shares(1, 25200, 4), shares(1, 25200, 11))},
        ("yolov5", {}, 10, "rgb"),
    ),
    "YOLOv5, one class": (
        {"output0": joined(640 * shares(1, 25200, 4), shares(1, 25200, 2))},
        ("yolov5", {}, 1, "rgb"),
    ),
    "YOLOv6": (
        {"outputs": joined(640 * shares(1, 8400, 4), shares(1, 8400, 81))},
        ("yolov5", {}, 80, "rgb"),
    ),
    "YOLOv8, transposed": (
        {"output0": joined(640 * shares(1, 8400, 4), shares(1, 8400, 80))},
        ("yolov8", {}, 80, "rgb"),
    ),
    "YOLOX": ({"output": joined(logits(1, 8400, 4), shares(1, 8400, 7))}, ("yolox", {}, 6, "bgr")),
    "YOLOX with P6": (
        {"output": joined(logits(1, 8500, 4), shares(1, 8500, 37))},
        ("yolox", {"strides": [8, 16, 32, 64]}, 36, "bgr"),
    ),
    "YOLOv10": (
        {"output0": joined(corners(300), shares(1, 300, 1), np.ones((1, 300, 1), np.float32))},
        ("end_to_end", {}, None, "rgb"),
    ),
    "RT-DETR by Ultralytics, finished": (
        {"output0": joined(shares(1, 300, 5), np.ones((1, 300, 1), np.float32))},
        ("end_to_end", {"box_order": "cxcywh", "box_unit": "relative"}, None, "rgb"),
    ),
    "NanoDet-Plus": ({"output": joined(shares(1, 8500, 6), logits(1, 8500, 32))}, ("nanodet", {}, 6, "bgr")),
    "NanoDet": (
        {"output": joined(shares(1, 8400, 6), logits(1, 8400, 44))},
        ("nanodet", {"strides": [8, 16, 32], "reg_max": 10, "cell_offset": 0.5}, 6, "bgr"),
    ),
    "NanoDet-m": (
        {"output": joined(shares(1, 8400, 80), logits(1, 8400, 32))},
        ("nanodet", {"strides": [8, 16, 32], "cell_offset": 0.5}, 80, "bgr"),
    ),
    "NanoDet, COCO, logits": (
        {"output": logits(1, 8400, 124)},
        (
            "nanodet",
            {"strides": [8, 16, 32], "reg_max": 10, "cell_offset": 0.5, "score_activation": "sigmoid"},
            80,
            "bgr",
        ),
    ),
    "CenterNet": (
        {"hm": logits(1, 6, 160, 160), "wh": shares(1, 2, 160, 160), "reg": shares(1, 2, 160, 160)},
        ("centernet", {"variant": "centernet", "stride": 4, "score_activation": "sigmoid"}, 6, "bgr"),
    ),
    "RT-DETR": (
        {"logits": logits(1, 300, 6), "pred_boxes": shares(1, 300, 4)},
        ("detr", {"score_activation": "sigmoid"}, 6, "rgb"),
    ),
    "RT-DETR of four classes": (
        {"pred_boxes": shares(1, 300, 4), "logits": logits(1, 300, 4)},
        ("detr", {"score_activation": "sigmoid"}, 4, "rgb"),
    ),
    "RT-DETR by Ultralytics": (
        {"output0": shares(1, 300, 10)},
        ("detr_rows", {}, 6, "rgb"),
    ),
    "DETR": (
        {"logits": logits(1, 100, 92), "pred_boxes": shares(1, 100, 4)},
        ("detr", {"score_activation": "softmax"}, 91, "rgb"),
    ),
    "RT-DETR, decoded": (
        {
            "labels": RNG.integers(0, 6, (1, 300)),
            "boxes": 640 * shares(1, 300, 4),
            "scores": shares(1, 300),
        },
        ("decoded", {}, None, "rgb"),
    ),
    "TF object detection": (
        {
            "detection_anchor_indices": shares(1, 100),
            "detection_boxes": shares(1, 100, 4),
            "detection_classes": RNG.integers(1, 7, (1, 100)).astype(np.float32),
            "detection_multiclass_scores": shares(1, 100, 7),
            "detection_scores": shares(1, 100),
            "num_detections": np.array([100], np.float32),
            "raw_detection_boxes": shares(1, 1917, 4),
            "raw_detection_scores": shares(1, 1917, 7),
        },
        ("decoded", {"box_order": "yxyx", "box_unit": "relative", "first_class": 1}, None, "rgb"),
    ),
    "classifier": ({"probabilities": logits(1, 6)}, ("classifier", {"activation": "softmax"}, 6, "rgb")),
    "classifier with its softmax": (
        {"output0": np.full((1, 5), 0.2, np.float32)},
        ("classifier", {"activation": "none"}, 5, "rgb"),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_known_by_its_outputs(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs, (head, options, n_classes, color) = FAMILIES[family]
    graph = constants(tmp_path / "m.onnx", outputs)
    given: list[object] = ["--out", tmp_path / "out", "--yes"]
    if n_classes is None:
        (tmp_path / "names.txt").write_text("\n".join(LABELS))
        given += ["--labels", tmp_path / "names.txt"]
    assert run_import(graph, *given) == 0
    bundle = load_bundle(str(tmp_path / "out"))
    manifest = bundle.manifest
    assert (manifest.head.type, dict(manifest.head.options)) == (head, options)
    assert manifest.input.color == color
    assert len(bundle.labels) == (n_classes or 6)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == graph.read_bytes()
    text = capsys.readouterr().out
    assert "run once on noise by onnxruntime" in text and "because" in text


NEED_A_RUN = ("TF object detection", "YOLOv6", "NanoDet, COCO, logits")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NEED_A_RUN])
def test_most_families_are_known_without_a_run(family: str) -> None:
    """Without a backend for the format, only shapes and names are known, which NanoDet shares with YOLOX."""
    outputs, (head, _, _, _) = FAMILIES[family]
    specs = tuple(onnx_spec(name, value) for name, value in outputs.items())
    guess = recognise_head(HeadEvidence("onnx", 640, 640, specs))
    expected = "yolox" if head == "nanodet" else head
    assert guess is not None and guess.spec.type == expected


@pytest.mark.parametrize(
    ("rows", "n_labels"),
    [
        # A reg_max of 9, no number of columns that labels or COCO explain, all scores, YOLOX.
        (joined(shares(1, 84, 6), logits(1, 84, 40)), None),
        (logits(1, 84, 50), None),
        (logits(1, 84, 124), 6),
        (shares(1, 84, 50), 46),
        (joined(logits(1, 84, 4), shares(1, 84, 108)), None),
    ],
)
def test_rows_that_are_not_nanodets_are_not_taken_for_it(rows: np.ndarray, n_labels: int | None) -> None:
    evidence = HeadEvidence("onnx", 64, 64, (onnx_spec("o", rows),), {"o": rows}, n_labels)
    guess = recognise_head(evidence)
    assert guess is None or guess.spec.type != "nanodet"


def test_labels_show_nanodets_own_reg_max() -> None:
    rows = joined(shares(1, 84, 3), logits(1, 84, 64))
    guess = recognise_head(HeadEvidence("onnx", 64, 64, (onnx_spec("o", rows),), {"o": rows}, 3))
    assert guess is not None and guess.n_classes == 3 and guess.spec.options["reg_max"] == 15


def onnx_spec(name, value):
    return TensorSpec(name, value.shape, value.dtype.name)


_TF1, _TF2 = "TFLite_Detection_PostProcess", "StatefulPartitionedCall"


@pytest.mark.parametrize(
    "names", [[_TF1, f"{_TF1}:1", f"{_TF1}:2", f"{_TF1}:3"], [f"{_TF2}:{place}" for place in (3, 2, 1, 0)]]
)
def test_tflite_detection_is_known_by_its_converters_names(names) -> None:
    shapes = ((1, 10, 4), (1, 10), (1, 10), (1,))
    specs = tuple(TensorSpec(name, shape, "float32") for name, shape in zip(names, shapes, strict=True))
    for order in (specs, specs[::-1]):
        guess = recognise_head(HeadEvidence("tflite", 300, 300, order))
        assert guess is not None and guess.spec.type == "tflite_detection"
        assert guess.spec.outputs == dict(zip(("boxes", "classes", "scores", "count"), names, strict=True))


# --- What the file tells ---


def test_ultralytics_metadata_has_names_size_and_licence(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "parts.onnx", "height", "width", metadata=ULTRALYTICS, batch="batch")
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert bundle.labels == ("bolt", "nut", "wing nut")
    spec = bundle.manifest.input
    assert (spec.width_px, spec.height_px, spec.resize, spec.std) == (128, 96, "letterbox", (255.0,) * 3)
    assert bundle.manifest.licence.startswith("AGPL-3.0") and "parts.yaml" in bundle.manifest.description
    session = open_session(bundle, "onnxruntime")[0]
    assert session.inputs[0].shape == (1, 3, 96, 128), "the graph in the bundle has one size"
    assert session.outputs[0].shape == (1, 7, 12 * 16 + 6 * 8 + 3 * 4)


def test_the_graph_is_written_as_it_is_where_nothing_must_change(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "parts.onnx", metadata=ULTRALYTICS)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    assert (tmp_path / "out" / "model.onnx").read_bytes() == graph.read_bytes()


def test_names_of_another_number_than_the_classes_are_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", n_classes=4, metadata=ULTRALYTICS)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    assert load_bundle(str(tmp_path / "out")).labels == ("class_0", "class_1", "class_2", "class_3")
    text = capsys.readouterr().out
    assert "not guessed:" in text and "--labels FILE" in text


@pytest.mark.parametrize(
    "names",
    [
        "__import__('os').system('touch {was_run}')",
        "{0: 'a', 2: 'b'}",
        "[" * 100_000,
        "{'x': 'a'}",
        "{0: ''}",
        "{1e400: 'a'}",
        "17",
        "[]",
    ],
    ids=["code", "a gap", "deep", "words", "empty", "infinite", "number", "none"],
)
def test_names_that_are_no_names_are_left_alone(tmp_path: Path, names: str) -> None:
    was_run = tmp_path / "was_run"
    names = names.replace("{was_run}", str(was_run))
    graph = small_yolov8(tmp_path / "m.onnx", metadata={"names": names})
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    assert load_bundle(str(tmp_path / "out")).labels == ("class_0", "class_1", "class_2")
    assert not was_run.exists()


def test_labels_beside_the_file(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "m.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    assert run_import(graph, "--out", tmp_path / "one", "--yes") == 0
    assert load_bundle(str(tmp_path / "one")).labels == ("a", "b", "c")
    (tmp_path / "config.json").write_text("[" * 100_000)
    (tmp_path / "labels.txt").write_text("d\ne\nf\n")
    assert run_import(graph, "--out", tmp_path / "two", "--yes") == 0
    assert load_bundle(str(tmp_path / "two")).labels == ("d", "e", "f")


@pytest.mark.parametrize(
    "kind, dtype",
    [(TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8"), (TensorProto.FLOAT, "float32")],
)
def test_other_kinds_of_input_run(tmp_path: Path, kind: int, dtype: str) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", kind=kind)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    spec = bundle.manifest.input
    assert spec.dtype == dtype
    assert spec.std == ((1.0,) * 3 if dtype == "uint8" else (255.0,) * 3)
    assert bundle.manifest.graphs[0].precision == ("fp16" if dtype == "float16" else "fp32")
    detector = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
    noise = np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    result = detector.detect(Frame(noise, 0, "camera"))
    assert result.top_score is not None and 0.5 < result.top_score <= 1


def test_a_graph_that_normalises_by_itself_is_seen(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "m.onnx")
    model = onnx.load(str(graph))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(255, np.float32), "white"))
    model.graph.node.insert(0, onnx.helper.make_node("Div", ["images", "white"], ["shares_of_white"]))
    model.graph.node[1].input[0] = "shares_of_white"
    graph.write_bytes(model.SerializeToString())
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    assert load_bundle(str(tmp_path / "out")).manifest.input.std == (1.0, 1.0, 1.0)


def test_ultralytics_classifiers_take_shares_of_white(tmp_path: Path) -> None:
    names = {"names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}", "task": "classify"}
    outputs = {"output0": np.full((1, 5), 0.2, np.float32)}
    for metadata, std in ((names, 255.0), ({}, 58.395)):
        graph = constants(tmp_path / "c.onnx", outputs, (1, 3, 64, 64), metadata)
        assert run_import(graph, "--out", tmp_path / "out", "--yes", "--force") == 0
        manifest = load_bundle(str(tmp_path / "out")).manifest
        assert manifest.task == "classify" and manifest.input.std[0] == std


def test_grey_and_channels_last(tmp_path: Path) -> None:
    outputs = {"output0": shares(1, 7, 84)}
    for shape, layout, color in (((1, 1, 64, 64), "nchw", "gray"), ((1, 64, 64, 3), "nhwc", "rgb")):
        graph = constants(tmp_path / f"{layout}.onnx", outputs, shape)
        assert run_import(graph, "--out", tmp_path / layout, "--yes") == 0
        spec = load_bundle(str(tmp_path / layout)).manifest.input
        assert (spec.layout, spec.color, spec.width_px) == (layout, color, 64)


def rtdetr_with_size_input(path: Path) -> onnx.ModelProto:
    """As the export does it: orig_target_sizes, width and height, repeated for both corners."""
    model = onnx.load(str(rtdetr_export(path)))
    model.graph.initializer.remove(next(w for w in model.graph.initializer if w.name == "size"))
    info = onnx.helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["N", 2])
    model.graph.input.append(info)
    node = onnx.helper.make_node
    added = (
        node("Cast", ["orig_target_sizes"], ["as_float"], to=TensorProto.FLOAT),
        node("Concat", ["as_float", "as_float"], ["twice"], axis=1),
        node("Unsqueeze", ["twice", "axis1"], ["size"]),
    )
    for place, one in enumerate(added):
        model.graph.node.insert(place, one)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axis1"))
    return model


@pytest.mark.parametrize("resize, height", [("letterbox", 640), ("stretch", 640), ("stretch", 320)])
def test_rtdetrs_second_input_becomes_a_constant(tmp_path: Path, resize: str, height: int) -> None:
    """Its export asks for the picture's size, to give boxes in pixels: it gets the input tensor's."""
    model = rtdetr_with_size_input(tmp_path / "r.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = height
    (tmp_path / "r.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    given = ["--labels", tmp_path / "names.txt", "--set", f"input.resize={resize}"]
    assert run_import(tmp_path / "r.onnx", *given, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert bundle.manifest.head.type == "decoded"
    session = open_session(bundle, "onnxruntime")[0]
    assert [one.name for one in session.inputs] == ["images"]
    frame = Frame(np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8), 0, "camera")
    found = Detector.from_bundle(bundle, session).detect(frame).detections
    if resize == "letterbox":
        assert_found(found, ALL_KNOWN)
        return
    # The graph's boxes are shares of the letterboxed square; stretched, they are shares of the frame.
    known = sorted(ALL_KNOWN, key=lambda one: -one.score)
    shares_of = np.array([in_model(one.xyxy) / 640 for one in known])
    expected = shares_of * [FRAME_WIDTH, FRAME_HEIGHT, FRAME_WIDTH, FRAME_HEIGHT]
    np.testing.assert_allclose(found.xyxy_px, expected, atol=0.05)


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "one.onnx")
    onnx.save_model(
        onnx.load(str(graph)),
        str(tmp_path / "two.onnx"),
        save_as_external_data=True,
        location="two.onnx.data",
        size_threshold=0,
    )
    assert (tmp_path / "two.onnx.data").stat().st_size > 1000
    for name in ("one", "two"):
        assert run_import(tmp_path / f"{name}.onnx", "--out", tmp_path / name, "--yes") == 0
    noise = np.random.default_rng(2).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    found = []
    for name in ("one", "two"):
        bundle = load_bundle(str(tmp_path / name))
        assert sorted(path.name for path in bundle.folder.iterdir()) == [
            "bundle.yaml",
            "labels.txt",
            "model.onnx",
        ]
        found.append(
            Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
            .detect(Frame(noise, 0, "camera"))
            .detections
        )
    assert len(found[0]) > 0
    np.testing.assert_array_equal(found[0].xyxy_px, found[1].xyxy_px)


def test_any_key_can_be_set(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "m.onnx")
    settings = [
        "licence=MIT",
        "input.color=bgr",
        "thresholds.score_threshold=0.9",
        "head.options.box_unit=relative",
    ]
    given = [part for setting in settings for part in ("--set", setting)]
    assert run_import(graph, *given, "--name", "mine", "--out", tmp_path / "out", "--yes") == 0
    manifest = load_bundle(str(tmp_path / "out")).manifest
    assert (manifest.name, manifest.licence, manifest.input.color) == ("mine", "MIT", "bgr")
    assert manifest.thresholds.score_threshold == 0.9 and manifest.head.options == {"box_unit": "relative"}


def test_a_head_is_given_for_outputs_that_are_not_recognised(tmp_path: Path) -> None:
    outputs = {"a": logits(1, 17, 4), "b": shares(1, 17, 4), "c": shares(1, 17, 9)}
    graph = constants(tmp_path / "m.onnx", outputs)
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    given = ["--labels", tmp_path / "names.txt", "--out", tmp_path / "out", "--yes"]
    assert run_import(graph, *given) == 1
    given += ["--head", "detr", "--set", "head.outputs={logits: a, boxes: b}"]
    assert run_import(graph, *given) == 0
    assert load_bundle(str(tmp_path / "out")).manifest.head.outputs == {"logits": "a", "boxes": "b"}


def test_into_the_store_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    graph = small_yolov8(tmp_path / "My Parts-2.onnx", metadata=ULTRALYTICS)
    assert run_import(graph, "--yes") == 0
    assert load_bundle("my_parts_2").labels == ("bolt", "nut", "wing nut")
    names = sorted(path.name for path in (tmp_path / "cache" / "bundles").iterdir())
    assert names == [".lock", "my_parts_2"]


# --- Asked on a terminal ---


def on_a_terminal(tmp_path: Path, graph: Path, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; when a question comes, type its answer."""
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "edge_vision.bundles",
        "import",
        str(graph),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    os.close(follower)
    text = ""
    try:
        while True:
            try:
                part = os.read(leader, 4096).decode(errors="replace")
            except OSError:  # On Linux: the other side is closed.
                break
            if not part:
                break
            text += part
            if answers and answers[0][0] in text:
                os.write(leader, f"{answers.pop(0)[1]}\n".encode())
        return process.wait(30), text
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_size_and_the_consent_are_asked_for(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", "h", "w")
    code, text = on_a_terminal(tmp_path, graph, [("size that it was trained for", "128x96"), ("[Y/n]", "")])
    assert code == 0, text
    spec = load_bundle(str(tmp_path / "out")).manifest.input
    assert (spec.width_px, spec.height_px) == (128, 96)


def test_no_leaves_nothing(tmp_path: Path) -> None:
    graph = small_yolov8(tmp_path / "m.onnx")
    code, text = on_a_terminal(tmp_path, graph, [("[Y/n]", "n")])
    assert code == 1 and "nothing was written" in text
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
