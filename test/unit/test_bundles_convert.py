"""The converters on the real packages: against golden outputs of PyTorch and of the reference conversion."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import video_frame

from edge_vision.backends import BackendRequest, make_backend
from edge_vision.backends.base import TensorSpec
from edge_vision.backends.loading import graph_for
from edge_vision.bundles import cache_dir, load_bundle
from edge_vision.bundles.manifest import Manifest
from edge_vision.bundles.store import DEFAULT
from edge_vision.core.object_shapes import KeyPoints
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.heads import make_head
from edge_vision.errors import BundleError
from edge_vision.model_zoo.convert_efficientnet_lite import convert as convert_efficientnet
from edge_vision.model_zoo.convert_tfjs_detectors import convert_ssd
from edge_vision.model_zoo.packages import fetch_package
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.coco_labels import UNUSED, coco_labels
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.quantization import graph_edit, ptq

DATA = Path(__file__).parent / "data"
SSD, EFFICIENTNET = "ssdlite_mobilenet_v2_coco", "efficientnet_lite0_imagenet"
STAGE = "person_vehicle_stage"
NANODET, NANODET_320, CENTERNET, MOVENET = "nanodet", "nanodet_320", "centernet", "movenet"


@cache
def made(name: str) -> tuple[Manifest, dict[str, bytes]]:
    """The bundle's files, made in memory from the packages."""
    pytest.importorskip("onnx")
    try:
        downloads = cache_dir() / "downloads"
        if name not in DEFAULT and not all((downloads / p.file).exists() for p in RECIPES[name].packages):
            pytest.skip(f"the large package of {name} is not in the cache: models fetch {name}")
        packages = [fetch_package(package, downloads, print) for package in RECIPES[name].packages]
    except BundleError as error:
        pytest.skip(f"the packages of {name} are not in the cache and cannot be fetched: {error}")
    return RECIPES[name].files(*packages)


def run(name: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """(h, w, 3) uint8 -> the graph's outputs by name, scaled as the manifest says."""
    onnxruntime = pytest.importorskip("onnxruntime")
    manifest, files = made(name)
    spec = manifest.input
    scaled = (image.astype(np.float32) - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    tensor = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])
    return dict(zip(names, session.run(names, {spec.name: tensor}), strict=True))


def pattern(side: int) -> np.ndarray:
    """(side, side, 3) uint8 that is the same on every machine: a multiplicative hash of the index."""
    index = np.arange(side * side * 3, dtype=np.uint64)
    return ((index * np.uint64(2654435761)) >> np.uint64(13)).astype(np.uint8).reshape(side, side, 3)


def test_efficientnet_gives_what_pytorch_gives() -> None:
    """Golden logits: PyTorch 2.13 with efficientnet-lite-pytorch 0.1.0, on a pattern and on a photograph."""
    golden = np.load(DATA / "efficientnet_lite0_golden.npz")
    cat = golden["cat_56px"].repeat(4, axis=0).repeat(4, axis=1)
    for image, logits in ((pattern(224), golden["pattern_logits"]), (cat, golden["cat_logits"])):
        np.testing.assert_allclose(run(EFFICIENTNET, image)["logits"][0], logits, atol=1e-3)
    labels = made(EFFICIENTNET)[1]["labels.txt"].decode().split("\n")
    assert labels[int(np.argmax(run(EFFICIENTNET, cat)["logits"]))] == "tabby cat"


def test_the_features_are_what_the_last_layer_reads() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(made(EFFICIENTNET)[1]["model.onnx"])
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    outputs = run(EFFICIENTNET, pattern(224))
    assert outputs["features"].shape == (1, 1280)
    logits = outputs["features"] @ weights["_fc.weight"].T + weights["_fc.bias"]
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)


def test_the_ssd_gives_what_the_reference_conversion_gives() -> None:
    golden = np.load(DATA / "ssdlite_reference_golden.npz")
    outputs = run(SSD, pattern(300))
    assert outputs["box_encodings"].shape == (1, 1917, 4)
    assert outputs["class_logits"].shape == (1, 1917, 91)
    np.testing.assert_allclose(outputs["box_encodings"].ravel()[::19], golden["box_encodings"], atol=1e-3)
    np.testing.assert_allclose(outputs["class_logits"].ravel()[::397], golden["class_logits"], atol=1e-3)


def test_nanodet_and_centernet_give_what_tensorflow_js_gives() -> None:
    """Golden values: @tensorflow/tfjs 4.22.0 under Node, on the published models."""
    golden = np.load(DATA / "tfjs_golden.npz")
    rows = run(NANODET, pattern(416))["rows"]
    assert rows.shape == (1, 3549, 124)
    np.testing.assert_allclose(rows.ravel()[::1571], golden["nanodet"], atol=1e-4)
    rows = run(CENTERNET, pattern(512))["rows"]
    assert rows.shape == (1, 100, 6)
    np.testing.assert_allclose(rows[0, :12], golden["centernet"], atol=1e-2)


def published_people(rows: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """MoveNet's published rows, (6, 56), of y before x from 0 to 1 -> our rows (6, 57)."""
    size = np.array([width_px, height_px])
    points = rows[:, :51].reshape(6, 17, 3)[..., [1, 0, 2]] * [*size, 1]
    boxes = rows[:, [52, 51, 54, 53]] * [*size, *size]
    return np.concatenate([boxes, rows[:, 55:], np.zeros((6, 1)), points.reshape(6, 51)], axis=1)


def test_movenet_gives_what_tensorflow_js_gives() -> None:
    """Golden values: as above. The layers on a pattern, whose scores are near 0."""
    golden = np.load(DATA / "tfjs_golden.npz")
    rows = run(MOVENET, pattern(320))["rows"]
    assert rows.shape == (1, 6, 57)
    np.testing.assert_allclose(rows[0], published_people(golden["movenet_pattern"], 320, 320), atol=0.01)


@pytest.mark.parametrize(("width_px", "height_px"), [(320, 320), (384, 288)])
def test_movenet_finds_the_people_that_it_finds_in_tensorflow_js(width_px: int, height_px: int) -> None:
    """On a picture, also at another size, to which the optimizer's resizing brings the graph."""
    session = pytest.importorskip("onnxruntime").InferenceSession
    onnx = pytest.importorskip("onnx")
    manifest, files = made(MOVENET)
    golden = np.load(DATA / "tfjs_golden.npz")[f"movenet_{width_px}x{height_px}"]
    model = onnx.load_from_string(files["model.onnx"])
    graph_edit.resize(model, "images", "nchw", Size(width_px, height_px))
    spec = replace(manifest.input, width_px=width_px, height_px=height_px)
    tensor, transform = Preprocessor(spec).prepare(video_frame("vtest.avi", 300))
    graph = session(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = {"rows": graph.run(["rows"], {"images": tensor})[0]}
    expected = published_people(golden, width_px, height_px)
    np.testing.assert_allclose(outputs["rows"][0], expected, atol=0.5)  # The decoder may round differently.

    head = make_head(manifest.head, spec, [TensorSpec("rows", (1, 6, 57), "float32")], 1)
    found = head.decode(outputs, manifest.thresholds)
    points = head.shapes(outputs, found, transform)
    assert len(found) >= 4 and isinstance(points, KeyPoints)
    boxes = transform.to_source(found.xyxy_model)
    for box, person in zip(boxes, points.rows, strict=True):
        places = person[:, :2]
        assert places[0, 1] < places[15:, 1].min()  # The nose is above the ankles.
        assert (box[:2] - 8 < places).all() and (places < box[2:] + 8).all()


@pytest.mark.parametrize("name", [NANODET, NANODET_320, CENTERNET, MOVENET])
def test_no_transposition_is_left_between_convolutions(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load_from_string(made(name)[1]["model.onnx"]).graph.node
    last = max(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    transposed = {out for node in nodes if node.op_type == "Transpose" for out in node.output}
    assert last > 30
    assert not [node.name for node in nodes if node.op_type == "Conv" and node.input[0] in transposed]
    assert sum(node.op_type == "Transpose" for node in nodes) <= 6


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (NANODET, "model.onnx"),
        (NANODET, "model_int8.onnx"),
        (NANODET_320, "model.onnx"),
        (NANODET_320, "model_int8.onnx"),
        (CENTERNET, "model.onnx"),
    ],
)
def test_these_detectors_find_the_walkers(name: str, file: str) -> None:
    session = pytest.importorskip("onnxruntime").InferenceSession
    manifest, files = made(name)
    model = session(files[file], providers=["CPUExecutionProvider"])
    shapes = [TensorSpec("rows", tuple(model.get_outputs()[0].shape), "float32")]
    head = make_head(manifest.head, manifest.input, shapes, 80)
    tensor = Preprocessor(manifest.input).prepare(video_frame("vtest.avi", 300))[0]
    found = head.decode({"rows": model.run(["rows"], {"images": tensor})[0]}, manifest.thresholds)
    walkers = found.class_ids == 0
    assert 6 <= walkers.sum() <= 9
    assert np.diff(found.xyxy_model[walkers][:, 1::2], axis=1).max() < 0.25 * manifest.input.height_px


def test_int8_runs_on_processors_and_fp32_elsewhere(tmp_path: Path) -> None:
    manifest, files = made(NANODET)
    write_folder(tmp_path / "nanodet", manifest, files)
    bundle = load_bundle(f"{tmp_path / 'nanodet'}/")

    def chosen(backend: str, device: str, precision: str = "auto") -> str:
        return graph_for(bundle, make_backend(backend), BackendRequest(device, precision))[1].precision

    on_cpu = {chosen("onnxruntime", "cpu"), chosen("openvino", "auto"), chosen("openvino", "CPU")}
    elsewhere = {chosen("onnxruntime", "cuda:0"), chosen("openvino", "gpu"), chosen("tensorrt", "auto")}
    assert (on_cpu, elsewhere) == ({"int8"}, {"fp32"})
    assert (chosen("openvino", "cpu", "bf16"), chosen("tensorrt", "auto", "int8")) == ("fp32", "int8")


def test_all_layers_of_nanodet_but_the_first_are_int8() -> None:
    onnx = pytest.importorskip("onnx")
    summary = ptq.summarize(onnx.load_from_string(made(NANODET)[1]["model_int8.onnx"]))
    assert (summary.layers, summary.layers_quantized, summary.layers_run_as_int8) == (34, 33, 33)


def test_the_fitted_stage_scores_a_walker_and_a_lawn() -> None:
    """The head goes on the features of the same weights, at its own size and for any number of crops."""
    manifest, _ = made(STAGE)
    assert manifest.stage is not None and 0 < manifest.stage.reject_below <= manifest.stage.accept_from
    assert set(manifest.figures["fitted_on"]).isdisjoint(manifest.figures["held_out"])
    street = video_frame("vtest.avi", 300).image
    box = manifest.stage.look_share * street.shape[0]
    walkers, lawn = street[96:384, 480:768], street[288:, :288]
    assert walkers.shape[0] == lawn.shape[0] == box
    found = []
    for part in (walkers, lawn):
        small = cv2.cvtColor(cv2.resize(part, (96, 96)), cv2.COLOR_BGR2RGB)
        logits = run(STAGE, small)["logits"]
        assert logits.shape == (1, 2) and logits[0, 0] == 0.0
        found.append(float(logits[0, 1]))
    assert found[0] > found[1] + 1.0


@pytest.mark.parametrize("name", [SSD, EFFICIENTNET, STAGE, NANODET, CENTERNET, MOVENET])
def test_making_twice_gives_the_same_bytes(name: str) -> None:
    first = made(name)
    made.cache_clear()
    assert made(name) == first
    assert first[0].graphs[0].sha256 == hashlib.sha256(first[1]["model.onnx"]).hexdigest()


@pytest.mark.parametrize(
    ("name", "count"), [(SSD, 90), (EFFICIENTNET, 1000), (STAGE, 2), (NANODET, 80), (MOVENET, 1)]
)
def test_there_is_a_label_for_each_class(name: str, count: int) -> None:
    lines = made(name)[1]["labels.txt"].decode().splitlines()
    assert len(lines) == count
    assert all(lines)


def test_the_graphs_are_what_old_runtimes_read() -> None:
    onnx = pytest.importorskip("onnx")
    for name in (SSD, EFFICIENTNET):
        model = onnx.load_from_string(made(name)[1]["model.onnx"])
        assert (model.ir_version, model.opset_import[0].version) == (8, 17)
        scalars = [item.dims for item in model.graph.initializer if item.name in ("zero", "six")]
        assert [list(dims) for dims in scalars] == [[], []]


def test_coco_numbers_are_those_of_the_model() -> None:
    labels = coco_labels()
    known = {
        0: "person",
        2: "car",
        12: "stop sign",
        26: "backpack",
        43: "bottle",
        66: "dining table",
        89: "toothbrush",
    }
    assert {index: labels[index] for index in known} == known
    assert len(labels) == 90
    assert labels.count(UNUSED) == 10


def test_tensors_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("onnx")
    with pytest.raises(BundleError, match=r"'_bn0\.weight' is missing"):
        convert_efficientnet({"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)})


def node(op: str, **attributes: object) -> dict[str, object]:
    return {
        "name": "BoxPredictor_0/BoxEncodingPredictor/BiasAdd",
        "op": op,
        "input": ["x", "w"],
        "attr": attributes,
    }


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (json.dumps({"modelTopology": {"node": []}, "weightsManifest": []}).encode(), "cannot be read"),
        (json.dumps({"modelTopology": {"node": [node("Cos")]}, "weightsManifest": []}).encode(), "got Cos"),
    ],
)
def test_a_tfjs_model_that_is_something_else_is_refused(document: bytes, words: str) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(BundleError, match=words):
        convert_ssd(document, {})


def test_a_short_shard_is_refused() -> None:
    pytest.importorskip("onnx")
    weight = {"name": "w", "dtype": "float32", "shape": [4]}
    document = {"modelTopology": {"node": []}, "weightsManifest": [{"paths": ["a"], "weights": [weight]}]}
    with pytest.raises(BundleError, match="cannot be read"):
        convert_ssd(json.dumps(document).encode(), {"a": b"1234"})


def test_without_onnx_the_error_names_the_command() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from edge_vision.model_zoo.convert_efficientnet_lite import convert\n"
        "convert({})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install onnx" in done.stderr


def test_reading_bundles_imports_nothing_heavy() -> None:
    code = (
        "import sys, edge_vision.model_zoo.fetch, edge_vision.cli.models\n"
        "assert not {'onnx', 'onnxruntime', 'cv2', 'torch', 'rclpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
