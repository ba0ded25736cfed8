"""The detector with the real model on real images, and with faulty sessions."""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from fake_backend import ConstantSession, Fault, FaultySession
from model_cases import EFFICIENTNET, SSD, bundle_or_skip, mean_graph, noise_image, video_frame
from test_heads import plain_ssd

from edge_vision.backends import BackendRequest, TensorSpec, open_session
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head
from edge_vision.errors import BackendError, BundleError, HeadError

# A point inside each person and car on frame 200 of vtest.avi, annotated by hand.
PEOPLE = [(95, 185), (233, 230), (500, 178), (632, 318), (722, 300)]
CARS = [(680, 72), (750, 72)]


@pytest.fixture(scope="module")
def bundle():
    return bundle_or_skip(SSD)


@pytest.fixture(scope="module")
def session(bundle):
    session, _ = open_session(bundle, "onnxruntime", strict=True)
    yield session
    session.close()


@pytest.fixture
def detector(bundle, session):
    return Detector.from_bundle(bundle, session)


@pytest.fixture(scope="module")
def street():
    return video_frame("vtest.avi", 200)


def boxes_at(detections: Detections, points, bundle, label):
    """For each point, the indices of the boxes of this label that contain it."""
    xyxy, mine = detections.xyxy_px, detections.class_ids == bundle.labels.index(label)
    x1, y1, x2, y2 = xyxy.T
    return [np.flatnonzero(mine & (x1 < x) & (x < x2) & (y1 < y) & (y < y2)) for x, y in points]


def test_people_and_cars_are_detected_where_they_are(detector, bundle, street):
    found = detector.detect(street).detections
    for label, points in (("person", PEOPLE), ("car", CARS)):
        for point, hits in zip(points, boxes_at(found, points, bundle, label), strict=True):
            assert len(hits) == 1, f"{label} at {point}: {len(hits)} boxes"
    heights = found.xyxy_px[:, 3] - found.xyxy_px[:, 1]
    people = found.class_ids == bundle.labels.index("person")
    assert ((heights > 40) & (heights < 120))[people].all()
    assert {bundle.labels[i] for i in found.class_ids} <= {"person", "car"}


def test_the_result_equals_a_plain_implementation(detector, bundle, session, street):
    image = cv2.resize(
        cv2.cvtColor(street.bgr(), cv2.COLOR_BGR2RGB), (300, 300), interpolation=cv2.INTER_LINEAR
    )
    tensor = (image.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    outputs = session.run({"images": np.ascontiguousarray(tensor)})
    xyxy, scores, ids = plain_ssd(
        outputs["box_encodings"][0], outputs["class_logits"][0], detector.thresholds
    )
    xyxy = xyxy * np.tile([768 / 300, 576 / 300], 2)
    found = detector.detect(street).detections
    assert found.class_ids.tolist() == ids.tolist()
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    np.testing.assert_allclose(found.xyxy_px, np.clip(xyxy, 0, [768, 576] * 2), atol=0.1)


@pytest.mark.parametrize("encoding, code", [("rgb8", cv2.COLOR_BGR2RGB), ("bgra8", cv2.COLOR_BGR2BGRA)])
def test_the_result_does_not_depend_on_the_encoding(detector, street, encoding, code):
    expected = detector.detect(street).detections
    found = detector.detect(Frame(cv2.cvtColor(street.image, code), 0, "camera", encoding)).detections
    np.testing.assert_array_equal(found.xyxy_px, expected.xyxy_px)


def test_boxes_scale_with_the_source(detector, street):
    large = Frame(cv2.resize(street.image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST), 0, "camera")
    small, found = detector.detect(street).detections, detector.detect(large).detections
    pairs = min(len(small), len(found), 2)
    np.testing.assert_allclose(found.xyxy_px[:pairs] / 2, small.xyxy_px[:pairs], atol=6)


def test_an_empty_scene_gives_an_empty_result(detector):
    found = detector.detect(Frame(np.full((480, 640, 3), 128, np.uint8), 0, "camera")).detections
    assert len(found) == 0 and found.xyxy_px.shape == (0, 4) and found.xyxy_px.dtype == np.float32


def test_low_score_detections_are_returned_on_request_and_change_nothing_else(detector, street):
    plain, result = detector.detect(street), detector.detect(street, with_low_score=True)
    assert plain.low_score is None and result.low_score is not None
    for part in ("xyxy_px", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(result.detections, part), getattr(plain.detections, part))
    low_score, threshold = result.low_score, detector.thresholds.score_threshold
    assert len(low_score) >= 3
    assert threshold / 2 <= low_score.scores.min() and low_score.scores.max() < threshold
    detector.thresholds = replace(detector.thresholds, score_threshold=threshold / 2)
    assert len(detector.detect(street).detections) == len(plain.detections) + len(low_score)


def test_the_top_score_is_reported_even_below_the_threshold(detector, street):
    result = detector.detect(street)
    assert result.top_score == float(result.detections.scores[0])
    above = min(1.0, result.top_score + 0.001)
    detector.thresholds = replace(detector.thresholds, score_threshold=above)
    without = detector.detect(street)
    assert len(without.detections) == 0
    assert without.top_score == pytest.approx(result.top_score, abs=1e-6)


def test_thresholds_change_while_another_thread_detects(detector, street):
    counts: set[int] = set()
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            counts.add(len(detector.detect(street).detections))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for score in (0.1, 0.99) * 10:
            detector.thresholds = Thresholds(score, 0.5, 100)
            done.wait(0.02)
    finally:
        done.set()
        thread.join()
    detector.thresholds = Thresholds(0.99, 0.5, 100)
    assert len(detector.detect(street).detections) == 0
    detector.thresholds = Thresholds(0.1, 0.5, 3)
    assert len(detector.detect(street).detections) == 3


def test_a_twin_shares_the_session_alone(detector, street):
    """Of two cameras with one model, neither changes the boxes or the thresholds of the other."""
    twin, small = detector.twin(), Frame(cv2.resize(street.image, (320, 240)), 1, "")
    assert twin.session is detector.session
    expected = detector.detect(street).detections
    tensor = detector._preprocessor.prepare(street)[0]
    twin.thresholds = replace(twin.thresholds, score_threshold=0.99)
    assert len(twin.detect(small).detections) == 0 < len(expected)
    assert not np.shares_memory(tensor, twin._preprocessor.prepare(small)[0])
    again = detector.detect(street).detections
    assert (again.xyxy_px == expected.xyxy_px).all() and (again.scores == expected.scores).all()
    twin._head.unlabelled = 7
    assert detector.unlabelled == 0


def test_the_result_has_the_timing_of_each_stage(detector, street):
    timing = detector.detect(street).timing
    assert min(timing.preprocess_ms, timing.inference_ms, timing.postprocess_ms) > 0
    assert timing.total_ms == pytest.approx(
        timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms
    )
    assert (timing + timing).total_ms == pytest.approx(2 * timing.total_ms)


@pytest.mark.parametrize(
    "fault, error, message",
    [
        (Fault(error="lost the device"), BackendError, "lost the device"),
        (Fault(nan=True), HeadError, "not finite"),
        (Fault(missing_output=True), HeadError, "from the runtime, got box_encodings"),
        (Fault(wrong_shape=True), HeadError, r"has \[1, 1916, 4\]"),
    ],
)
def test_a_faulty_session_raises_and_the_next_frame_succeeds(bundle, session, street, fault, error, message):
    faulty = FaultySession(session, fault)
    detector = Detector.from_bundle(bundle, faulty)
    with pytest.raises(error, match=message):
        detector.detect(street)
    faulty.fault = Fault()
    assert len(detector.detect(street).detections) >= len(PEOPLE)


def test_a_graph_with_another_input_is_rejected(bundle, session, tmp_path):
    other = OnnxRuntimeBackend().load(mean_graph(tmp_path / "mean.onnx"), BackendRequest())
    head = make_head(bundle.manifest.head, bundle.manifest.input, session.outputs, len(bundle.labels))
    with pytest.raises(
        BundleError, match=r"'images' \[1, 3, 300, 300\] float32, the graph takes 'images' \[1, 3, 8, 8\]"
    ):
        Detector(bundle.manifest.input, head, other, Thresholds())


def test_a_head_for_another_task_is_rejected(tmp_path):
    spec = InputSpec("images", 8, 8)
    session = OnnxRuntimeBackend().load(mean_graph(tmp_path / "mean.onnx"), BackendRequest())
    head = make_head(HeadSpec("classifier", {"logits": "logits"}), spec, session.outputs, 3)
    with pytest.raises(HeadError, match="needs a head for task 'detect'"):
        Detector(spec, head, session, Thresholds())


def test_a_bundle_for_another_task_is_rejected():
    bundle = bundle_or_skip(EFFICIENTNET)
    session, _ = open_session(bundle, "onnxruntime")
    with pytest.raises(HeadError, match="task 'detect'"):
        Detector.from_bundle(bundle, session)


def test_boxes_outside_the_image_are_dropped():
    """The bars of a letterbox lie outside the image, and so do boxes within them."""
    spec = InputSpec("images", 300, 300, resize="letterbox")
    logits = np.full((1, 1917, 91), -9, np.float32)
    logits[0, [0, 540], 1] = 5.0  # Anchor 0 lies in the top bar, anchor 540 in the middle.
    outputs = {"b": np.zeros((1, 1917, 4), np.float32), "s": logits}
    session = ConstantSession([TensorSpec("images", (1, 3, 300, 300), "float32")], outputs)
    head = make_head(HeadSpec("ssd", {"boxes": "b", "scores": "s"}), spec, session.outputs, 90)
    frame = Frame(noise_image(600, 100), 0, "camera")
    found = Detector(spec, head, session, Thresholds()).detect(frame).detections
    assert len(found) == 1
    assert (found.xyxy_px >= 0).all() and (found.xyxy_px <= [600, 100, 600, 100]).all()
