"""Open vocabulary: prompts that are constants of a YOLO-World graph become the labels of its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from head_cases import FRAME_HEIGHT, FRAME_WIDTH, KNOWN, assert_found
from import_cases import constants, run_import
from onnx import TensorProto, helper, numpy_helper
from test_heads_yolo import yolov8_graph, yolov8_raw

from edge_vision.backends import open_session
from edge_vision.bundles import load_bundle
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.detect.report_filter import ReportConfig, ReportFilter

PROMPTS = ("person", "dog on a leash", "red traffic cone")
DIMENSIONS = 32
"""Of the embeddings; 512 in the real models."""
LOGIT_SCALE, BIAS = -1.0, -10.0
"""The initial values of the real models' contrastive heads."""
MAPS = {8: 80, 16: 40, 32: 20}
"""The side of the feature map of each stride, for 640 x 640."""


def yolo_world(path: Path, prompts: tuple[str, ...]) -> Path:
    """YOLO-World v2 as Ultralytics exports it after set_classes.

    YOLOv8's boxes, and classes by similarity: batch-normalised features of each feature map times the
    normalised embeddings of the prompts, which are constants, scaled and shifted (T. Cheng et al.,
    "YOLO-World: Real-Time Open-Vocabulary Object Detection", 2024). The features are chosen such that the
    objects of KNOWN are found.
    """
    model = onnx.load(yolov8_graph(path, KNOWN))
    graph = model.graph
    graph.initializer.remove(next(one for one in graph.initializer if one.name == "classes"))
    rng = np.random.default_rng(1)
    text = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))[0][: len(prompts)]
    mean, variance = rng.normal(size=DIMENSIONS), rng.uniform(0.5, 2.0, DIMENSIONS)
    _, logits, _, _ = yolov8_raw(KNOWN)
    similar = (text.T @ (logits[0] - BIAS)) / np.exp(LOGIT_SCALE)
    features = similar * np.sqrt(variance + 1e-5)[:, None] + mean[:, None]

    def weight(name: str, value: object, dtype: type = np.float32) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    # Not normalised yet, as CLIP's are not.
    lengths = rng.uniform(0.5, 9.0, (len(prompts), 1))
    weight("text", (text * lengths)[None])
    norm = [weight("gamma", np.ones(DIMENSIONS)), weight("beta", np.zeros(DIMENSIONS))]
    norm += [weight("mean", mean), weight("variance", variance)]
    weight("logit_scale", LOGIT_SCALE), weight("bias", BIAS)
    nodes = [helper.make_node("LpNormalization", ["text"], ["prompts"], axis=-1, p=2)]
    nodes.append(helper.make_node("Exp", ["logit_scale"], ["scale"]))
    start = 0
    for stride, side in MAPS.items():
        part = features[:, start : start + side**2].reshape(1, DIMENSIONS, side, side)
        start += side**2
        nodes += [
            helper.make_node("BatchNormalization", [weight(f"x{stride}", part), *norm], [f"n{stride}"]),
            helper.make_node("Einsum", [f"n{stride}", "prompts"], [f"e{stride}"], equation="bchw,bkc->bkhw"),
            helper.make_node("Mul", [f"e{stride}", "scale"], [f"m{stride}"]),
            helper.make_node("Add", [f"m{stride}", "bias"], [f"a{stride}"]),
            helper.make_node(
                "Reshape",
                [f"a{stride}", weight(f"s{stride}", [1, len(prompts), side**2], np.int64)],
                [f"c{stride}"],
            ),
        ]
    nodes.append(helper.make_node("Concat", [f"c{stride}" for stride in MAPS], ["classes"], axis=2))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    helper.set_model_props(
        model, {"names": str(dict(enumerate(prompts))), "task": "detect", "stride": "32", "batch": "1"}
    )
    path.write_bytes(model.SerializeToString())
    return path


def test_the_prompts_of_an_exported_graph_become_its_labels(tmp_path: Path, capsys) -> None:
    """The last prompt is empty: YOLO-World's background."""
    graph = yolo_world(tmp_path / "cones.onnx", (*PROMPTS, ""))
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    bundle = load_bundle(str(tmp_path / "out"))
    assert bundle.manifest.head.type == "yolov8"
    assert bundle.labels == (*PROMPTS, "class_3")
    session = open_session(bundle, "onnxruntime")[0]
    detector = Detector.from_bundle(bundle, session)
    result = detector.detect(Frame(np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8), 0, "camera"))
    assert_found(result.detections, KNOWN)
    report = ReportFilter()
    report.configure(ReportConfig(wanted_classes=PROMPTS), bundle.labels)
    kept = report.apply(result, (FRAME_WIDTH, FRAME_HEIGHT)).detections
    assert_found(kept, tuple(one for one in KNOWN if one.class_id < len(PROMPTS)))
    assert report.trouble == "" and report.status()["filtered.class"] == 2


def test_a_graph_that_takes_the_prompts_as_an_input_is_refused(tmp_path: Path, capsys) -> None:
    rows = np.zeros((1, 4 + len(PROMPTS), 8400), np.float32)
    text = {"txt_feats": (TensorProto.FLOAT, [1, len(PROMPTS), 512])}
    graph = constants(tmp_path / "open.onnx", {"output0": rows}, more_inputs=text)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 1
    assert "'txt_feats' [1, 3, 512] float32; export the model with the others as constants" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names,labels",
    [
        ("{0: 'a', 1: '', 2: 'c'}", ("a", "class_1", "c")),
        ("['', ' ', '']", ("class_0", "class_1", "class_2")),
    ],
)
def test_a_class_without_a_name_is_numbered(tmp_path: Path, names, labels) -> None:
    rows = np.zeros((1, 7, 8400), np.float32)
    rows[:, 2:4] = 9.0
    graph = constants(tmp_path / "m.onnx", {"output0": rows}, metadata={"names": names})
    assert run_import(graph, "--head", "yolov8", "--out", tmp_path / "out", "--yes") == 0
    assert load_bundle(str(tmp_path / "out")).labels == labels
