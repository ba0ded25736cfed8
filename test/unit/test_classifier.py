"""The classifier on a graph whose answer is known, and on the real model."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backend import Fault, FaultySession
from model_cases import EFFICIENTNET, bundle_or_skip, mean_graph, noise_image, video_frame
from stage_cases import color_bundle

from edge_vision.backends import BackendRequest, open_session
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import HeadSpec, InputSpec
from edge_vision.detect.classifier import Classifier
from edge_vision.detect.heads import make_head
from edge_vision.errors import HeadError

SPEC = InputSpec("images", 8, 8, std=(255.0,) * 3)
# Encoding -> an image of 40x60 whose left half is red and whose right half is blue.
HALVES = {"bgr8": ([0, 0, 255], [255, 0, 0]), "rgb8": ([255, 0, 0], [0, 0, 255])}


@pytest.fixture
def session(tmp_path):
    return OnnxRuntimeBackend().load(mean_graph(tmp_path / "mean.onnx"), BackendRequest())


@pytest.fixture
def classifier(session):
    head = make_head(
        HeadSpec("classifier", {"logits": "logits"}, {"activation": "none"}), SPEC, session.outputs, 3
    )
    return Classifier(SPEC, head, session)


def halves(encoding: str) -> Frame:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30], image[:, 30:] = HALVES[encoding]
    return Frame(image, 0, "camera", encoding)


@pytest.mark.parametrize("encoding", HALVES)
def test_regions_are_scored_each_by_itself(classifier, encoding):
    boxes = np.array([[0, 0, 30, 40], [30, 0, 60, 40], [0, 0, 60, 40]], np.float32)
    red, blue, both = (c.scores for c in classifier.classify_regions(halves(encoding), boxes))
    np.testing.assert_allclose([red, blue], [[1, 0, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(both, [0.5, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(classifier.classify(halves(encoding)).scores, both)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_takes_a_batch_scores_regions_together(tmp_path, backend):
    pytest.importorskip(backend)
    bundles = [color_bundle(make(tmp_path / name), batch=batch) for name, batch in (("a", "n"), ("b", 1))]
    together, alone = (Classifier.from_bundle(one, open_session(one, backend)[0]) for one in bundles)
    assert together.supports_batches and not alone.supports_batches
    counted = FaultySession(together.session)
    together.session = counted
    frame = Frame(noise_image(90, 70), 0, "camera")
    corners = np.random.default_rng(2).integers(0, 60, (20, 2))
    boxes = np.concatenate([corners, corners + 9], axis=1)
    rows = [[one.scores for one in each.classify_regions(frame, boxes)] for each in (together, alone)]
    np.testing.assert_allclose(*rows, atol=1e-6)
    assert counted.runs == 2, "16 and 4"
    assert together.classify_regions(frame, boxes[:0]) == [] and counted.runs == 2
    together.session.close()


def make(folder):
    folder.mkdir()
    return folder


def test_yuv_is_converted_before_it_is_cut(classifier):
    image = np.full((40, 60, 2), 128, np.uint8)
    image[:, :30, 0], image[:, 30:, 0] = 16, 235  # black left, white right
    boxes = np.array([[1, 0, 29, 40], [31, 3, 60, 38]])
    dark, bright = classifier.classify_regions(Frame(image, 0, "camera", "yuyv"), boxes)
    assert dark.scores.max() < 0.05 and bright.scores.min() > 0.95


@pytest.mark.parametrize(
    "box",
    [[-50, -50, 500, 500], [59.9, 39.9, 59.9, 39.9], [70, 50, 90, 80], [30, 20, 10, 5], [-9, -9, -2, -2]],
)
def test_any_region_is_cut_to_the_image(classifier, box):
    (one,) = classifier.classify_regions(halves("bgr8"), np.array([box]))
    assert np.isfinite(one.scores).all()


def test_no_regions_no_classes(classifier):
    assert classifier.classify_regions(halves("bgr8"), np.zeros((0, 4), np.float32)) == []


def test_results_are_kept_apart(classifier):
    first = classifier.classify(Frame(np.zeros((9, 9, 3), np.uint8), 0, "camera"))
    classifier.classify(Frame(np.full((9, 9, 3), 255, np.uint8), 0, "camera"))
    np.testing.assert_array_equal(first.scores, [0, 0, 0])


def test_the_result_has_the_timing_of_the_run(classifier):
    assert classifier.classify(halves("bgr8")).timing.total_ms > 0


def test_scores_that_are_not_finite_are_an_error(session):
    head = make_head(HeadSpec("classifier", {"logits": "logits"}), SPEC, session.outputs, 3)
    with pytest.raises(HeadError, match="not finite"):
        Classifier(SPEC, head, FaultySession(session, Fault(nan=True))).classify(halves("bgr8"))


def test_the_real_model_sees_a_street():
    bundle = bundle_or_skip(EFFICIENTNET)
    session, _ = open_session(bundle, "onnxruntime")
    classifier = Classifier.from_bundle(bundle, session)
    scores = classifier.classify(Frame(noise_image(64, 64), 0, "camera")).scores
    assert scores.shape == (len(bundle.labels),) and scores.sum() == pytest.approx(1, abs=1e-5)
    (van,) = classifier.classify_regions(video_frame("vtest.avi", 200), np.array([[641, 42, 718, 97]]))
    names = " ".join(bundle.labels[i] for i in np.argsort(van.scores)[-5:])
    assert any(word in names for word in ("van", "ambulance", "minibus", "pickup", "recreational")), names
